"""A Kubernetes cluster: pods placed by us, its API server as the only way in."""
