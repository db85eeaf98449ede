"""Pods: stopped, entered, observed, closed, and what they have used."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.allocation import PodState
from mainstay.domain.billing import Charge, UsageRecord
from mainstay.domain.plan.action import Action
from mainstay.domain.secret import SecretVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPod(Action):
    """The pod of this allocation is no longer wanted."""

    allocation_key: int
    moves: bool = False
    """Its workload is to go on elsewhere: this end is no failure of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterPod(Action):
    """Somebody is about to run a command in the pod of this allocation: only that is put on record. Refused once it has ended."""

    allocation_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandSecrets(Action):
    """The secrets of its workload are about to be handed to the pod of this allocation: that is put on record, and they are kept
    until it is closed. Refused once it has ended, and if one of them has been changed since it was read.
    """

    allocation_key: int
    versions: tuple[SecretVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservePod(Action):
    """What its cluster reports of an allocation. An end frees its capacity; once ENDED, nothing changes it."""

    allocation_key: int
    state: PodState
    output: str = ""
    """Digest of the tree of its output files, already stored; empty if none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePod(Action):
    """The cluster has forgotten the pod and its usage is recorded: the allocation leaves the columns."""

    allocation_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordUsage(Action):
    """Write one usage record with its charges and move `metered_until` to its end. Twice is once: its key is unique."""

    usage: UsageRecord
    charges: tuple[Charge, ...]
