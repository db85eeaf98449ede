"""Thousands of nodes in memory: the same promises as a real cluster, with time and failures in the simulator's hand."""

from mainstay.clusters.simulated.cluster import SimulatedCluster
from mainstay.clusters.simulated.connector import SimulatedConnector
from mainstay.clusters.simulated.lodgers import Lodgers
from mainstay.clusters.simulated.machines import Behaviour, Machines, Witnessed

__all__ = ["Behaviour", "Lodgers", "Machines", "SimulatedCluster", "SimulatedConnector", "Witnessed"]
