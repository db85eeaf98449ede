"""A fleet that lives in virtual time, by the scheduler's own decisions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.queue import RESERVED_AFTER_SECONDS
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, ANode, AWorkload, allocation, world


@dataclass
class Fleet:
    """Plays the cycle: everything starts at once, and runs exactly as long as it takes, by default as its limit."""

    nodes: list[ANode]
    jobs: dict[int, AWorkload]
    now: int = NOON
    takes: dict[int, float] = field(default_factory=dict)
    """Seconds, by key."""
    ends: dict[int, int] = field(default_factory=dict)
    places: dict[int, list[int]] = field(default_factory=dict)
    started: dict[int, int] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)

    def snapshot(self) -> Snapshot:
        """The world as it is now."""
        rows = [one for key, one in self.jobs.items() if key not in self.over and one.submitted_at <= self.now]
        pods = [
            allocation(key, rank=rank, node_key=at, cpus=self.jobs[key].cpus, started_at=self.started[key])
            for key, places in self.places.items()
            for rank, at in enumerate(places)
        ]
        return world(nodes=self.nodes, workloads=rows, allocations=pods, now=self.now)

    def run(self, key: int, places: list[int], *, since: int) -> None:
        """It runs there."""
        self.jobs[key] = replace(self.jobs[key], phase=Phase.RUNNING, started_at=since)
        self.places[key], self.started[key] = places, since
        self.ends[key] = since + round(self.takes.get(key, self.jobs[key].max_duration_seconds) * SECOND)

    def decide(self) -> None:
        """One cycle."""
        for action in schedule(self.snapshot()):
            if isinstance(action, Advance):
                self.jobs[action.workload_key] = replace(self.jobs[action.workload_key], phase=Phase.QUEUED)
            elif isinstance(action, Allocate):
                self.run(action.workload_key, [slot.node_key for slot in action.slots], since=self.now)

    def play(self, *, until: int, key: int = 0) -> None:
        """Until then, or until this one has started."""
        while self.now < until and key not in self.started:
            self.decide()
            coming = [one.submitted_at for one in self.jobs.values() if one.submitted_at > self.now]
            coming += [one.submitted_at + RESERVED_AFTER_SECONDS * SECOND for one in self.jobs.values()]
            self.now = min((at for at in (*coming, *self.ends.values()) if at > self.now), default=until)
            for over in [one for one, end in self.ends.items() if end <= self.now]:
                del self.ends[over], self.places[over]
                self.over.add(over)
