"""What the tests of the client share: a clock, ways in, and the smallest pod."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.sources import Fixed
from testbed.control_plane import ControlPlane


class SystemClock:
    """`ports.Clock` of this machine."""

    @staticmethod
    def now() -> int:
        return time.time_ns() // 1_000

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)


def credentials(control_plane: ControlPlane, **changed: str) -> Credentials:
    """Of the administrator, but for what is changed."""
    keys = control_plane.keys
    given = Credentials(server=control_plane.url, ca=keys.authority.certificate.read_text(), token=keys.token)
    return dataclasses.replace(given, **changed)


def connection(control_plane: ControlPlane) -> Connection:
    return Connection(Fixed(credentials(control_plane)), clock=SystemClock())


def pod_document(name: str, *, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod that tolerates everything, so that no controller takes it from its node."""
    spec = {"containers": [{"name": "main", "image": "any"}], "tolerations": [{"operator": "Exists"}]}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}
