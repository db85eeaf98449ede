"""This machine as a cluster of one node: processes with a keeper each, directories for state, nothing to install."""

from mainstay.clusters.local.cluster import LocalCluster
from mainstay.clusters.local.locks import lock_state_directory

__all__ = ["LocalCluster", "lock_state_directory"]
