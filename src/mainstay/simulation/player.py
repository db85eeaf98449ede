"""Plays jobs in virtual time under an order and a placement policy. Pure: the same jobs make the same play.

1. The next event is an arrival or an end, whichever comes first.
2. What ran since the last event has that much less to do.
3. All that wants to run is put in order.
4. One after the other is placed; who finds no room waits, and others go on in its place.

With preemption everything is interrupted at every event and placed again from empty nodes; an interruption costs a job
what it says. Without it, what runs runs on to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mainstay.decide.ordering.contenders import Contenders, Order
from mainstay.domain.arrays import Bools, Ints

Floats: TypeAlias = npt.NDArray[np.float64]

Placement: TypeAlias = Callable[[Ints, Ints, int], Ints | None]
"""(free GPUs per node, GPUs per node, GPUs asked for) -> GPUs to take of each node, or None. Never more out of less room."""

SAME_INSTANT = 1e-9
"""Ends that differ by no more than this part of the time are one event: rounding must not make two of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What is played, a job per row. All times in seconds."""

    arrives_at: Floats
    work_seconds: Floats
    """For which it has to run in all."""
    gpus: Ints
    startup_seconds: Floats
    """Of its work that an interruption costs it, or all since the last one if that is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of the jobs, in the same rows; infinite: it never did, since no room would ever have been enough."""

    started_at: Floats
    ended_at: Floats
    preemptions: Ints
    """How often it was stopped for others."""
    events: int
    """Instants at which something was decided."""


def play(jobs: Jobs, nodes: Ints, *, order: Order, place: Placement, preempts: bool) -> Played:
    """All jobs from the first arrival to the last end. `nodes`: GPUs of each node."""
    game = _Game(jobs, nodes)
    events = 0
    while np.isfinite(now := game.next_event()):
        game.move_to(now, interrupts=preempts)
        game.schedule(order, place, preempts=preempts)
        events += 1
    return Played(started_at=game.started_at, ended_at=game.ended_at, preemptions=game.preemptions, events=events)


class _Game:
    """The state of a play between two events."""

    def __init__(self, jobs: Jobs, nodes: Ints) -> None:
        count = jobs.gpus.size
        self.jobs, self.nodes, self.now = jobs, nodes, 0.0
        self.arrivals = np.unique(jobs.arrives_at)
        self.arrived: Bools = np.zeros(count, dtype=np.bool_)
        self.running: Bools = np.zeros(count, dtype=np.bool_)
        self.remaining = jobs.work_seconds.copy()
        self.ends_at = np.full(count, np.inf)
        """Of what runs, if nothing interrupts it."""
        self.started_at, self.ended_at = np.full(count, np.inf), np.full(count, np.inf)
        self.preemptions = np.zeros(count, dtype=np.int64)
        self.free = nodes.copy()
        self.taken: dict[int, Ints] = {}

    def next_event(self) -> float:
        """When something happens next; infinite: never again."""
        arrival = self.arrivals[0] if self.arrivals.size else np.inf
        return float(min(arrival, self.ends_at.min(initial=np.inf)))

    def move_to(self, now: float, *, interrupts: bool) -> None:
        """Let the time pass until `now`, the next event."""
        ended = self.ends_at <= now * (1 + SAME_INSTANT)
        self.ended_at[ended], self.ends_at[ended] = now, np.inf
        self.running &= ~ended
        for row in np.flatnonzero(ended).tolist():
            self.free += self.taken.pop(row)
        passed = now - self.now
        lost = np.minimum(passed, self.jobs.startup_seconds) if interrupts else 0.0
        self.remaining = np.where(self.running, self.remaining - (passed - lost), self.remaining)
        self.arrived = self.jobs.arrives_at <= now
        self.arrivals = self.arrivals[np.searchsorted(self.arrivals, now, side="right") :]
        self.now = now

    def schedule(self, order: Order, place: Placement, *, preempts: bool) -> None:
        """Decide who runs from now on, and where."""
        ran = self.running.copy()
        if preempts:
            self.running[:], self.ends_at[:], self.free = False, np.inf, self.nodes.copy()
            self.taken.clear()
        rows = np.flatnonzero(self.arrived & ~self.running & np.isinf(self.ended_at))
        self._fill(rows[order(self._contenders(rows))].tolist(), place)
        starts = self.running & np.isinf(self.ends_at)
        self.ends_at[starts] = self.now + self.remaining[starts]
        self.started_at[starts & np.isinf(self.started_at)] = self.now
        self.preemptions += ran & ~self.running

    def _fill(self, rows: list[int], place: Placement) -> None:
        sizes = self.jobs.gpus[rows].tolist()
        left = set(sizes)
        for row, gpus in zip(rows, sizes, strict=True):
            if gpus not in left:
                continue
            taken = place(self.free, self.nodes, gpus)
            if taken is None:
                left.discard(gpus)  # room only shrinks from here on
                if not left:
                    break
                continue
            self.free -= taken
            self.taken[row], self.running[row] = taken, True

    def _contenders(self, rows: Ints) -> Contenders:
        return Contenders(
            key=rows,
            arrived_at=self.jobs.arrives_at[rows],
            remaining_seconds=self.remaining[rows],
            gpus=self.jobs.gpus[rows],
            share=np.zeros(rows.size),
        )
