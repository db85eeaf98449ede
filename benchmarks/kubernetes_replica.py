"""`mainstay`, but its Kubernetes clusters are played: nobody can run a command in a pod there; there are no logs and no files."""

from __future__ import annotations

from mainstay.__main__ import main
from mainstay.clusters.kubernetes import connector
from tests.played import PlayedCluster

if __name__ == "__main__":
    connector.KubernetesCluster = PlayedCluster  # type: ignore[attr-defined]
    main()
