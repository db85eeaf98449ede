"""What an administrator chooses for a cluster when adding it. Fixed from then on: names in the cluster derive from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HELPER_IMAGE = "busybox:1.36"
DEFAULT_IMAGE = "python:3.12-slim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`system` is the identity of the platform: several may share a cluster without meeting."""

    system: str
    image: str = DEFAULT_IMAGE
    """What a pod runs that names no image."""
    helper_image: str = HELPER_IMAGE
    """Any image with a POSIX shell, head and tar: it takes in the code of a pod and keeps its output until it was fetched."""
    scheduler_name: str = "mainstay"
    """Pods of others that name it as their scheduler are ours to place; empty: none."""
    reached_directly: bool = False
    """The platform runs in the cluster and reaches the addresses of its pods; from elsewhere the way is a tunnel."""
    namespaces_per_project: int = 1
    """A namespace holds about 3,000 pods well (SIGSCALE); a project that runs more needs more of them."""
    topology: Mapping[str, str] = field(default_factory=dict)
    """Level -> the label of nodes that says in which domain of it they are; of others, `topology.LABELS`."""
