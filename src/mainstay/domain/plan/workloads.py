"""Workloads: submitted, stopped, given their places, displaced, moved on."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.caps import AtMost
from mainstay.domain.plan.action import Action
from mainstay.domain.preemption import Slot, Victim
from mainstay.domain.workload import Phase, WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorkload:
    """A workload to be stored. `id` is minted by the caller; a taken id is a conflict."""

    id: str
    tenant: str
    project: str
    queue: str
    submitted_by: str
    priority: int
    spec: WorkloadSpec
    preemptible: bool = True
    token: str = ""
    """Id of the token with which it is submitted; empty: without one."""
    at_most: AtMost | None = None
    """What it takes of the caps of that token: it is refused where they do not have it. None: the token has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit(Action):
    """Store a new workload in phase PENDING."""

    workload: NewWorkload
    open_max: int = 0
    """With it the tenant has at most so many that are not final, or it is refused; 0: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStop(Action):
    """Mark a workload as no longer wanted. Does nothing if it is final."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldWorkload(Action):
    """Let a workload wait, whatever is free, until it is released. Refused for one that does not wait."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseWorkload(Action):
    """Let a workload that was held have its turn. Does nothing for one that was not."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reprioritize(Action):
    """Give a workload another priority; it keeps its age. Refused for one that is final."""

    workload_key: int
    priority: int
    preemptible: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocate(Action):
    """Give a workload its slots, all or none, and move it to STARTING. Key of a slot: (workload, attempt, rank)."""

    workload_key: int
    attempt: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt(Action):
    """Stop all victims and keep these places for the workload until they have ended: all of it or nothing.

    What is stopped goes back to its queue with its age. The reason is what the workload waits for.
    """

    workload_key: int
    attempt: int
    slots: tuple[Slot, ...]
    until: int
    """UTC microseconds: for so long at most."""
    victims: tuple[Victim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropNomination(Action):
    """Keep nothing for this workload any more: it waits like all others. Does nothing where nothing is kept."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance(Action):
    """Move a workload to `phase`. To PENDING: a new attempt with the given number, not before the given time."""

    workload_key: int
    phase: Phase
    attempt: int
    not_before: int = 0
    infrastructure_failures: int
    user_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrink(Action):
    """Let the attempt of an elastic workload go on without these ranks: those that live are stopped, and their end is no failure.

    Refused where rank 0 is among them or fewer than its min count would be left.
    """

    workload_key: int
    attempt: int
    allocation_keys: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grow(Action):
    """Give the attempt of an elastic workload that runs more ranks, numbered on from the last that it ever had.

    Refused where it would have more than its max count.
    """

    workload_key: int
    attempt: int
    slots: tuple[Slot, ...]
