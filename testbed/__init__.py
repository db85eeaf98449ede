"""A real Kubernetes on this machine, without Docker: for tests, benchmarks and newcomers. `make testbed` starts one."""
