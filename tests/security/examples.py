"""One request for each operation, about the objects of `people.furnished`: add a row with a new route."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from tests.security.people import CODE, World
from tests.stores import TENANT


class Lies(Enum):
    """Where the object lies that a request is about."""

    ANYWHERE = auto()
    """It is the platform's, or the caller's own."""
    IN_TENANT = auto()
    IN_PROJECT = auto()
    """There is nothing to be seen for who may not look into the project."""
    INTO_PROJECT = auto()
    """It is to be made in the caller's own tenant, in the project `default`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """`path` and `body` name what is of the world in brackets: `<run>`."""

    path: str
    lies: Lies = Lies.ANYWHERE
    body: Any = None
    project: str = "default"
    refused: tuple[str, ...] = ()
    """Callers who are refused for a reason of their own, which is no permission: tested where it is made."""

    @property
    def has_object(self) -> bool:
        """It is about something that is there."""
        return self.lies in {Lies.IN_TENANT, Lies.IN_PROJECT}

    def at(self, world: World) -> str:
        """Where to ask."""
        return _filled(self.path, world)

    def content(self, world: World) -> bytes:
        """What to send."""
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else _filled(json.dumps(self.body), world).encode()


def _filled(text: str, world: World) -> str:
    values: dict[str, Callable[[], str]] = {
        "run": lambda: world.run.id,
        "maker": lambda: world.maker.id,
        "tree": lambda: world.tree,
        "blob": lambda: world.blob,
        "pod": lambda: world.pod.pod,
        "work": lambda: world.pod.workload,
    }
    for name, value in values.items():
        text = text.replace(f"<{name}>", value())
    return text


def _seen(path: str, **more: Any) -> Example:
    return Example(path=path, lies=Lies.IN_PROJECT, **more)


def _made(path: str, body: Any) -> Example:
    return Example(path=path, lies=Lies.INTO_PROJECT, body=body)


def _tenants(path: str, **more: Any) -> Example:
    return Example(path=path, lies=Lies.IN_TENANT, **more)


def _any(path: str, body: Any = None, **more: Any) -> Example:
    return Example(path=path, body=body, **more)


JOB = {"name": "mine", "run": "true"}
ENTRY = {"path": "f", "size": 1, "digest": "0" * 64}
NEW = f"/v1/blobs/{'0' * 64}"
OF = f"owner={TENANT}/default"
CAPPED = ("reads-only", "one-project")
"""A token with limits makes no other, and signs no browser in."""

EXAMPLES: dict[str, Example] = {
    "POST /v1/workloads": _made("/v1/workloads", {"job": JOB}),
    "POST /v1/workloads/bulk": _made("/v1/workloads/bulk", {"jobs": [{"job": JOB}]}),
    "GET /v1/workloads": _any("/v1/workloads?all=true"),
    "GET /v1/workloads/{ref}": _seen("/v1/workloads/<run>"),
    "GET /v1/workloads/{ref}/explain": _seen("/v1/workloads/<run>/explain"),
    "GET /v1/workloads/{ref}/outputs": _seen("/v1/workloads/<maker>/outputs"),
    "POST /v1/workloads/{ref}/hold": _seen("/v1/workloads/<run>/hold"),
    "POST /v1/workloads/{ref}/release": _seen("/v1/workloads/<run>/release"),
    "POST /v1/workloads/{ref}/priority": _seen("/v1/workloads/<run>/priority", body={"priority": 60}),
    "POST /v1/workloads/{ref}/stop": _seen("/v1/workloads/<run>/stop"),
    "POST /v1/plan": _made("/v1/plan", {"job": JOB}),
    "GET /v1/workloads/{ref}/logs": _seen("/v1/workloads/<run>/logs"),
    "GET /v1/workloads/{ref}/logs/stream": _seen("/v1/workloads/<run>/logs/stream"),
    "SOCKET /v1/workloads/{ref}/exec": _seen("/v1/workloads/<run>/exec?command=true"),
    "SOCKET /v1/workloads/{ref}/ports/{port}": _seen("/v1/workloads/<run>/ports/80"),
    "GET /v1/events": _seen("/v1/events?workload=<run>"),
    "GET /v1/events/stream": _seen("/v1/events/stream?workload=<run>"),
    "GET /v1/models": _any("/v1/models"),
    "POST /v1/endpoints": _seen("/v1/endpoints", body={"workload": "<maker>"}),
    "GET /v1/endpoints": _any("/v1/endpoints"),
    "GET /v1/endpoints/{name}": _seen("/v1/endpoints/canary-endpoint"),
    "GET /endpoints/{name}/v2/{path:path}": _seen("/endpoints/canary-served/v2/health/live"),
    "POST /endpoints/{name}/v2/{path:path}": _seen("/endpoints/canary-served/v2/models/m/infer", body={}),
    "DELETE /v1/endpoints/{name}": _seen("/v1/endpoints/canary-endpoint"),
    "POST /v1/trees": _made("/v1/trees", {"entries": [ENTRY]}),
    "GET /v1/trees/{digest}": _seen("/v1/trees/<tree>"),
    "PUT /v1/blobs/{digest}": _made(NEW, b"x"),
    "GET /v1/blobs/{digest}": _seen("/v1/blobs/<blob>"),
    "GET /v1/cost": _any("/v1/cost"),
    "GET /v1/nodes": _any("/v1/nodes"),
    "GET /v1/gpus": _any("/v1/gpus"),
    "GET /v1/nodes/{cluster}/{name}": _any("/v1/nodes/local/atlas"),
    **{
        f"POST /v1/nodes/{{cluster}}/{{name}}/{verb}": _any(f"/v1/nodes/local/atlas/{verb}")
        for verb in ("cordon", "uncordon", "drain", "quarantine", "release")
    },
    "POST /v1/clusters": _any("/v1/clusters", {}),
    "GET /v1/clusters": _any("/v1/clusters"),
    "GET /v1/clusters/{name}": _any("/v1/clusters/edge"),
    "POST /v1/clusters/{name}/token": _any("/v1/clusters/nope/token"),
    "POST /v1/clusters/{name}/drain": _any("/v1/clusters/nope/drain"),
    "POST /v1/clusters/{name}/resume": _any("/v1/clusters/nope/resume"),
    "DELETE /v1/clusters/{name}": _any("/v1/clusters/nope"),
    "PUT /v1/secrets/{name}": _any("/v1/secrets/mine", {"value": "aGY="}),
    "GET /v1/secrets": _any("/v1/secrets"),
    "DELETE /v1/secrets/{name}": _tenants("/v1/secrets/sparrow-secret"),
    "GET /v1/volumes": _any("/v1/volumes"),
    "GET /v1/volumes/{name}": _seen("/v1/volumes/canary-volume"),
    "DELETE /v1/volumes/{name}": _seen("/v1/volumes/canary-volume"),
    "GET /v1/queues": _any("/v1/queues"),
    "GET /v1/queues/{name}": _any("/v1/queues/default"),
    "PUT /v1/queues": _any("/v1/queues", {"queues": []}),
    "PUT /v1/queues/{name}": _any("/v1/queues/mine", {}),
    "DELETE /v1/queues/{name}": _any("/v1/queues/nope"),
    "GET /v1/queue-history": _any("/v1/queue-history"),
    "PUT /v1/queue-history": _any("/v1/queue-history", {}),
    "GET /v1/flavors": _any("/v1/flavors"),
    "PUT /v1/flavors": _any("/v1/flavors", {"flavors": []}),
    "PUT /v1/flavors/{name}": _any("/v1/flavors/mine", {}),
    "DELETE /v1/flavors/{name}": _any("/v1/flavors/nope"),
    "GET /v1/local-queues": _any("/v1/local-queues"),
    "PUT /v1/local-queues": _any("/v1/local-queues", {}),
    "DELETE /v1/local-queues/{namespace}/{name}": _any("/v1/local-queues/a/b"),
    "GET /v1/priorities": _any("/v1/priorities"),
    "PUT /v1/priorities/{name}": _any("/v1/priorities/mine", {}),
    "DELETE /v1/priorities/{name}": _any("/v1/priorities/nope"),
    "GET /v1/tenants": _any("/v1/tenants"),
    "POST /v1/tenants": _any("/v1/tenants", {}),
    "POST /v1/tenants/{name}/administrators": _any("/v1/tenants/nope/administrators", {"administrator": "eve"}),
    "DELETE /v1/tenants/{name}": _any("/v1/tenants/nope"),
    "GET /v1/projects": _any("/v1/projects"),
    "POST /v1/projects": _any("/v1/projects", {"name": "mine"}),
    "DELETE /v1/projects/{name}": _tenants("/v1/projects/sparrow-project"),
    "GET /v1/roles": _any("/v1/roles"),
    "PUT /v1/roles/{name}": _any("/v1/roles/mine", {"may": ["read"]}),
    "DELETE /v1/roles/{name}": _tenants("/v1/roles/sparrow-role"),
    "GET /v1/members": _any("/v1/members"),
    "PUT /v1/members/{name}": _any("/v1/members/somebody", {"role": "viewer"}),
    "DELETE /v1/members/{name}": _tenants("/v1/members/sparrow-member"),
    "GET /v1/group-roles": _any("/v1/group-roles"),
    "PUT /v1/group-roles": _any("/v1/group-roles", {"group": "mine", "role": "viewer"}),
    "DELETE /v1/group-roles": _tenants("/v1/group-roles?group=sparrow-group"),
    "GET /v1/webhooks": _any("/v1/webhooks"),
    "POST /v1/webhooks": _any("/v1/webhooks", {"url": "https://127.0.0.1/hook", "name": "mine"}),
    "GET /v1/webhooks/{name}/deliveries": _tenants("/v1/webhooks/sparrow-hook/deliveries"),
    "POST /v1/webhooks/{name}/rotate": _tenants("/v1/webhooks/sparrow-hook/rotate"),
    "PUT /v1/webhooks/{name}/enabled": _tenants("/v1/webhooks/sparrow-hook/enabled"),
    "POST /v1/webhooks/{name}/test": _any("/v1/webhooks/nope/test"),
    "DELETE /v1/webhooks/{name}": _tenants("/v1/webhooks/sparrow-old-hook"),
    "GET /v1/sealing-keys": _any("/v1/sealing-keys"),
    "GET /v1/audit/rows": _any("/v1/audit/rows"),
    "GET /v1/audit/anchors": _any("/v1/audit/anchors"),
    "POST /v1/audit/{seq}/redact": _any("/v1/audit/1/redact", {"why": "a name"}),
    "GET /v1/tokens": _any("/v1/tokens"),
    "POST /v1/tokens": _any("/v1/tokens", {"name": "mine"}, refused=CAPPED),
    "GET /v1/tokens/{id}": _any("/v1/tokens/nope"),
    "DELETE /v1/tokens/{id}": _any("/v1/tokens/nope"),
    "GET /v1/audit": _any("/v1/audit"),
    "GET /v1/server": _any("/v1/server"),
    "POST /v1/sign-in": _any("/v1/sign-in"),
    "GET /metrics": _any("/metrics"),
    "POST /v1/agent/hello": _any("/v1/agent/hello", {"identity": "uid-of-edge"}),
    "GET /v1/agent/cluster": _any("/v1/agent/cluster"),
    "POST /v1/agent/lease": _any("/v1/agent/lease", {"holder": "us", "seconds": 6.0}),
    "GET /v1/agent/wanted": _any("/v1/agent/wanted"),
    "POST /v1/agent/closed": _any("/v1/agent/closed", {"pods": []}),
    "POST /v1/agent/plans": _any("/v1/agent/plans", {"epoch": 1, "actions": []}),
    "PUT /v1/agent/blobs/{digest}": _any(f"/v1/agent/blobs/<blob>?{OF}", CODE),
    "GET /v1/agent/blobs/{digest}": _any(f"/v1/agent/blobs/<blob>?tree=<tree>&{OF}"),
    "POST /v1/agent/trees": _any(f"/v1/agent/trees?{OF}", {"manifest": "[]"}),
    "GET /v1/agent/trees/{digest}": _any(f"/v1/agent/trees/<tree>?{OF}"),
    "POST /v1/agent/slots": _any("/v1/agent/slots", {"slot": "<work>/output", "attempt": 1, "tree": "0" * 64}),
    "GET /v1/agent/slots": _any("/v1/agent/slots?slot=<work>/output"),
    "POST /v1/agent/secrets": _any("/v1/agent/secrets", {"pod": "<pod>", "tenant": TENANT, "project": "default"}),
    "POST /v1/agent/secrets/handed": _any(
        "/v1/agent/secrets/handed", {"pod": "<pod>", "tenant": TENANT, "project": "default"}
    ),
    "SOCKET /v1/agent/line": _any("/v1/agent/line"),
}
