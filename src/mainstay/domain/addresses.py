"""Where a pod answers: `HOST:PORT` if we reach it ourselves, `CLUSTER/POD:PORT` if its cluster has to reach it for us.

No host has a slash in its name, so the two cannot be taken for each other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A port of a pod whose own address is of no use to us: the way there is `Cluster.connect`."""

    cluster: str
    pod: str
    port: int

    def __str__(self) -> str:
        return f"{self.cluster}/{self.pod}:{self.port}"


def tunnel_of(address: str) -> Tunnel | None:
    """The tunnel that an address names; None if it is a host and a port."""
    cluster, slash, rest = address.partition("/")
    if not slash:
        return None
    pod, _, port = rest.rpartition(":")
    return Tunnel(cluster=cluster, pod=pod, port=int(port))


def port_of(address: str) -> int:
    """The port of either kind; 0 of an empty address."""
    return int(address.rpartition(":")[2] or 0)
