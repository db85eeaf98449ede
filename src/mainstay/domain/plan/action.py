"""What every action has: its reason, and the guards that must still hold when it is committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mainstay.domain.affinity import Restriction
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RowVersion:
    """The row must still be at the version that was read."""

    kind: Literal["workload", "allocation", "node", "endpoint", "queue"]
    key: int | str
    version: int
    tenant: str = ""
    """Of an endpoint, whose key is its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityLeft:
    """The node must be ready (or admit the restriction, if there is one) and have at least so much free."""

    node_key: int
    resources: Resources
    """Of all `pods` together."""
    restriction: Restriction = ""
    pods: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCluster:
    """The allocation, or the workload of guests, must be of this cluster: its agent speaks for no other."""

    kind: Literal["allocation", "workload"]
    key: int
    cluster: str


Guard: TypeAlias = RowVersion | CapacityLeft | OfCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The tenure of a leader: `name` of the lease and its number. Checked in the transaction of every decision."""

    name: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change of what is wanted or known."""

    guards: tuple[Guard, ...] = ()
    reason: Reason
