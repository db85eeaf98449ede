"""One attempt as lifecycle judges it: the workload's standing and the state of its pods, as values."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.allocation import ENDS, End, Seen
from mainstay.domain.plan import RowVersion
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase

POD = tuple(Kind).index(Kind.POD)
"""The number of the kind in the columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A workload: what it may still do, and how often it has failed."""

    key: int
    version: int
    phase: Phase
    attempt: int
    stop_requested: bool
    nodes_min: int
    nodes_max: int
    max_duration_seconds: int
    infrastructure_failures: int
    user_failures: int
    infrastructure_max: int
    user_max: int
    attempts_max: int
    backoff_seconds: int
    backoff_seconds_max: int
    always: bool
    adopted: bool
    """Its pods are guests: nobody but their owner makes them anew."""

    @property
    def elastic(self) -> bool:
        """Whether an attempt of it goes on with fewer ranks."""
        return self.nodes_min < self.nodes_max

    @property
    def guard(self) -> RowVersion:
        """The workload must be as it was read."""
        return RowVersion(kind="workload", key=self.key, version=self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One allocation of the attempt."""

    key: int
    version: int
    rank: int
    node_key: int
    memory_bytes: int
    stop: bool
    moves: bool
    """It was stopped so that its workload goes on elsewhere."""
    preempted: int
    """The rule by which it was stopped for other work; 0: it was not."""
    surplus: bool
    """Its attempt goes on without it."""
    seen: Seen
    created_at: int
    started_at: int
    ended_at: int
    end: End
    """Means something only once ENDED; an end without a word counts as LOST."""
    exit_code: int

    @property
    def alive(self) -> bool:
        """Not proven dead."""
        return self.seen is not Seen.ENDED

    @property
    def ended_well(self) -> bool:
        """By itself, with exit code 0."""
        return not self.alive and self.end is End.EXITED and self.exit_code == 0

    @property
    def guard(self) -> RowVersion:
        """The allocation must be as it was read."""
        return RowVersion(kind="allocation", key=self.key, version=self.version)


def run_of(snapshot: Snapshot, row: int) -> Run:
    """The workload in this row."""
    table = snapshot.workloads
    return Run(
        key=int(table.key[row]),
        version=int(table.version[row]),
        phase=Phase(int(table.phase[row])),
        attempt=int(table.attempt[row]),
        stop_requested=bool(table.stop_requested[row]),
        nodes_min=int(table.nodes_min[row]),
        nodes_max=int(table.nodes_max[row]),
        max_duration_seconds=int(table.max_duration_seconds[row]),
        infrastructure_failures=int(table.infrastructure_failures[row]),
        user_failures=int(table.user_failures[row]),
        infrastructure_max=int(table.infrastructure_max[row]),
        user_max=int(table.user_max[row]),
        attempts_max=int(table.attempts_max[row]),
        backoff_seconds=int(table.backoff_seconds[row]),
        backoff_seconds_max=int(table.backoff_seconds_max[row]),
        always=bool(table.retry_always[row]),
        adopted=bool(table.kind[row] == POD),
    )


def pod_of(snapshot: Snapshot, row: int) -> Pod:
    """The allocation in this row."""
    table = snapshot.allocations
    end = int(table.end[row])
    return Pod(
        key=int(table.key[row]),
        version=int(table.version[row]),
        rank=int(table.rank[row]),
        node_key=int(table.node_key[row]),
        memory_bytes=int(table.memory_bytes[row]),
        stop=bool(table.stop[row]),
        moves=bool(table.moves[row]),
        preempted=int(table.preempted[row]),
        surplus=bool(table.surplus[row]),
        seen=Seen(int(table.seen[row])),
        created_at=int(table.created_at[row]),
        started_at=int(table.started_at[row]),
        ended_at=int(table.ended_at[row]),
        end=ENDS[end] if end >= 0 else End.LOST,
        exit_code=int(table.exit_code[row]),
    )
