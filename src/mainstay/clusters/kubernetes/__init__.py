"""A Kubernetes cluster: pods placed by us, its API server as the only way in."""

from mainstay.clusters.kubernetes.connector import KubernetesConnector

__all__ = ["KubernetesConnector"]
