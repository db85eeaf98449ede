"""Models, and the endpoints that serve them."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.plan.action import Action
from mainstay.domain.plan.workloads import NewWorkload


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterModel(Action):
    """Store a new model version. `version` must be the next number, else it is refused as a conflict."""

    model: str
    version: int
    tenant: str
    project: str
    tree: str
    workload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy(Action):
    """Make `workload` (a service) the candidate of an endpoint, new or not; an older candidate is stopped."""

    endpoint: str
    tenant: str
    project: str
    model: str
    version: int
    workload: NewWorkload


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeployEndpoint(Action):
    """Make a copy of what serves an endpoint its candidate, so that it comes up elsewhere before the old one goes."""

    tenant: str
    endpoint: str
    workload: str
    """The id of the copy; a taken one is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchEndpoint(Action):
    """The candidate is healthy: it serves from now on; what served before is stopped."""

    tenant: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCandidate(Action):
    """The candidate failed: it is stopped, the endpoint stays as it is."""

    tenant: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveEndpoint(Action):
    """What serves the endpoint answers at another address now (it was restarted), or at none (empty)."""

    tenant: str
    endpoint: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveEndpoint(Action):
    """Take the endpoint of a tenant away and stop its workloads."""

    endpoint: str
    tenant: str
