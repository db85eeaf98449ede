"""Where pods run: one folder per kind of cluster, each an adapter of `ports.Cluster`."""
