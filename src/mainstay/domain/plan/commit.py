"""A plan, what became of it, and what it leaves on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mainstay.domain.plan.action import Action, Epoch
from mainstay.domain.reason import Reason
from mainstay.domain.workload import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """The key under which a request is done at most once (R10), with the reply that a repetition gets.

    Keys are kept for a week.
    """

    tenant: str
    member: str
    route: str
    key: str
    body_hash: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Actions to commit in one transaction.

    `atomic`: all or none (a user's request); otherwise one by one (a decision). `epoch` is None only for requests
    of users, which need no leader. `now` in UTC microseconds stamps rows and events.
    """

    actor: str
    now: int
    actions: tuple[Action, ...]
    epoch: Epoch | None = None
    atomic: bool = False
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An action that was not applied: its index in the plan and why."""

    index: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """What became of a plan. `reply` is the stored reply if the idempotency key had been used before."""

    version: int
    applied: int
    refused: tuple[Refused, ...] = ()
    reply: str | None = None


EventKind: TypeAlias = Literal[
    "workload",
    "allocation",
    "node",
    "cluster",
    "endpoint",
    "model",
    "price",
    "secret",
    "queue",
    "flavor",
    "priority_class",
    "volume",
    "preemption",
    "tenant",
    "project",
    "role",
    "member",
    "group",
    "token",
    "webhook",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the append-only log; `seq` is gapless. The phases of a workload are the fold of its events (I6)."""

    seq: int
    at: int
    actor: str
    kind: EventKind
    object: str
    """Workload id, pod name, id of a token, or the name of a node, cluster, endpoint, model, secret, queue (ALL_QUEUES for what
    is of them all), flavor, priority class, volume, tenant, project, role, group, member or webhook. Of a preemption: the id
    of who yields, or of who waits for that."""
    tenant: str
    workload: str
    """The workload it belongs to; empty if none."""
    reason: Reason
    phase_before: Phase | None = None
    phase_after: Phase | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """Who changed what: one row per mutation, denial and use of a secret, in its transaction. `chain` says what the last three
    are.
    """

    seq: int
    at: int
    actor: str
    tenant: str
    action: str
    object: str
    detail: str
    salt: str
    """Empty: the detail was taken out."""
    payload: str
    hash: str
