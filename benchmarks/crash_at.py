"""`mainstay`, but it kills itself with SIGKILL at one exact point: `CRASH_AT=commit:after:7`, `act:before:2`.

The points are around every commit of the store and every act on the cluster, counted over the process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from mainstay.__main__ import main
from mainstay.clusters.local import LocalCluster
from mainstay.domain.plan import CommitResult, Plan
from mainstay.store.store import SqlStore


class Fuse:
    """Counts the calls of one kind and burns through at the given one."""

    def __init__(self, kind: str, point: str) -> None:
        wanted, self._moment, number = point.split(":")
        self._left = int(number) if wanted == kind else 0

    def call(self) -> bool:
        """Whether this is the call at which to die."""
        self._left -= 1
        return self._left == 0

    def burn(self, moment: str, *, now: bool) -> None:
        """Die if this is the call and the moment."""
        if now and moment == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Wrap the two doors through which anything changes."""
    commits, acts = Fuse("commit", point), Fuse("act", point)
    commit: Callable[[SqlStore, Plan], CommitResult] = SqlStore.commit
    act = LocalCluster.act

    def commit_or_die(store: SqlStore, plan: Plan) -> CommitResult:
        now = commits.call()
        commits.burn("before", now=now)
        result = commit(store, plan)
        commits.burn("after", now=now)
        return result

    async def act_or_die(cluster: LocalCluster, action: Any, *, epoch: int) -> None:
        now = acts.call()
        acts.burn("before", now=now)
        await act(cluster, action, epoch=epoch)
        acts.burn("after", now=now)

    SqlStore.commit = commit_or_die  # type: ignore[method-assign, assignment]
    LocalCluster.act = act_or_die  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    if point := os.environ.get("CRASH_AT"):
        arm(point)
    main()
