"""All that our account may do in a cluster, and why. The roles that we ship, the check of credentials and a test of the verbs
that we use are made from this list alone (security.md B1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mainstay.clusters.kubernetes.kinds import (
    CLAIMS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    POD_GROUPS,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_QUOTAS,
    RESOURCE_SLICES,
    SERVICE_ACCOUNTS,
    SERVICES,
    VOLCANO_POD_GROUPS,
    VOLUMES,
    Kind,
)
from mainstay.clusters.kubernetes.names import CONTROL_NAMESPACE


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """Verbs on a kind of object."""

    kind: Kind[Any]  # Any: of whatever type
    verbs: tuple[str, ...]
    why: str
    subresource: str = ""
    namespace: str = ""
    """The only one in which it is needed; empty: in any, since projects make new ones."""

    @property
    def resource(self) -> str:
        """As a role names it: `pods/log`."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


PERMISSIONS = (
    Permission(
        kind=NODES,
        verbs=("list", "watch", "patch"),
        why="see what there is to run on, and cordon nodes that are kept out for other schedulers too",
    ),
    Permission(
        kind=NAMESPACES,
        verbs=("get", "list", "watch", "create"),
        why="know the cluster again, keep projects apart, and see whom the pods of others are billed to",
    ),
    Permission(
        kind=PODS, verbs=("list", "watch", "get", "create", "patch", "delete"), why="run pods, and see what others take"
    ),
    Permission(kind=PODS, subresource="log", verbs=("get",), why="show and keep logs"),
    Permission(
        kind=PODS,
        subresource="exec",
        verbs=("get", "create"),
        why="hand code into pods, fetch output out of them, and let users run commands in them",
    ),
    Permission(
        kind=PODS,
        subresource="portforward",
        verbs=("get", "create"),
        why="reach models and ports of pods where the addresses of pods cannot be reached",
    ),
    Permission(
        kind=CLAIMS,
        verbs=("get", "list", "watch", "create", "delete"),
        why="find the volumes that jobs name, make them, and delete those that somebody removes",
    ),
    Permission(kind=VOLUMES, verbs=("list", "watch"), why="know which nodes reach a volume"),
    Permission(kind=RESOURCE_SLICES, verbs=("list", "watch"), why="see the GPUs that drivers offer to claims"),
    Permission(
        kind=RESOURCE_CLAIMS,
        verbs=("list", "watch", "create"),
        why="see which of them are taken, and claim them for pods",
    ),
    Permission(kind=SERVICE_ACCOUNTS, verbs=("create",), why="give pods an account that may do nothing"),
    Permission(kind=PODS, subresource="binding", verbs=("create",), why="give pods of others their place"),
    Permission(kind=PODS, subresource="eviction", verbs=("create",), why="stop pods of others, within their budgets"),
    Permission(
        kind=EVENTS,
        verbs=("list", "create"),
        why="say what keeps a pod from starting, and tell pods of others why they wait",
    ),
    Permission(kind=POD_GROUPS, verbs=("get",), why="place groups of pods together"),
    Permission(kind=VOLCANO_POD_GROUPS, verbs=("get",), why="place groups of pods together"),
    Permission(kind=SERVICES, verbs=("create",), why="let the ranks of a job find each other"),
    Permission(kind=NETWORK_POLICIES, verbs=("create", "patch"), why="keep projects from each other"),
    Permission(kind=RESOURCE_QUOTAS, verbs=("create", "patch"), why="keep projects from opening a way in from outside"),
    Permission(
        kind=LEASES,
        verbs=("get", "create", "patch"),
        why="let one leader act at a time",
        # Those of other namespaces are the heartbeats of nodes and the elections of the cluster's own controllers.
        namespace=CONTROL_NAMESPACE,
    ),
)
