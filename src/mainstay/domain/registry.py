"""Models and the endpoints that serve them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable version of a model: a tree of files that a workload made. Versions count from 1 per model."""

    model: str
    version: int
    tenant: str
    project: str
    tree: str
    workload: str
    registered_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A stable address for a model. Requests go to `serving`; `candidate` takes over once it is healthy."""

    name: str
    tenant: str
    project: str
    model: str
    serving_version: int
    """0: none yet."""
    serving: str
    """Workload id that answers now; empty if none."""
    serving_key: int
    candidate_version: int
    candidate: str
    candidate_key: int
    address: str
    """host:port of the pod that answers now; empty while there is none."""
    removed: bool
    updated_at: int
    version: int
