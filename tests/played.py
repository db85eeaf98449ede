"""The adapter on played nodes, where nobody can run a command in a pod: there are no logs and no files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.logs import Followed, Logs


class _NoLogs(Logs):
    """Played pods write none."""

    def follow(self, pod: str, namespace: str, *, ended: bool, wanted: bool = False) -> Followed | None:
        return None

    async def keep(self, pod: str, namespace: str) -> bool:
        return True


class PlayedCluster(KubernetesCluster):
    """Everything else is as it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._logs = self._chores._logs = _NoLogs(
            self._api, self._artifacts.logs, self._clock, cluster=self.name, handed=self._handed
        )

    async def copy_out(self, pod: str) -> None:
        pass

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """None."""
        nothing: tuple[tuple[str, int, bool, AsyncIterator[bytes]], ...] = ()
        for file in nothing:
            yield file
