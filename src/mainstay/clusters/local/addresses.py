"""Loopback ports for services and gangs. All members of a gang agree on one, whoever is created first."""

from __future__ import annotations

import random
import socket
from collections.abc import Container
from pathlib import Path

from mainstay.clusters.local.files import read_json, write_json
from mainstay.domain.errors import NoCapacity

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below the range (from 32768) out of which the kernel takes the near end of outgoing connections."""
TRIES = 200


def free_port(taken: Container[int]) -> int:
    """A port on which nobody listens and that is not in `taken`. Raises NoCapacity.

    Nothing holds it until the pod listens, which is why `taken` has the ports of all runs that live.
    """
    for _ in range(TRIES):
        port = random.choice(PORTS)
        if port not in taken and _is_free(port):
            return port
    msg = f"no free port on {HOST} between {PORTS.start} and {PORTS.stop - 1}"
    raise NoCapacity(msg)


def gang_port(directory: Path, gang: str, taken: Container[int]) -> int:
    """The port of a gang: chosen once, kept in a file. Raises NoCapacity."""
    path = directory / f"{gang}.json"
    known = read_json(path)
    if known is not None:
        return int(known["port"])
    port = free_port(taken)
    write_json(path, {"port": port})
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
