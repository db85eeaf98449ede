"""Everybody who could ask, and one platform with an object of every kind that belongs to a tenant."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from mainstay.api.app import create_api
from mainstay.domain.access import (
    MAINTAINER,
    PLATFORM_ADMIN,
    ROLES,
    TENANT_ADMIN,
    USER,
    VIEWER,
    Caps,
    NewToken,
    Permission,
)
from mainstay.domain.allocation import Allocation, Owner
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Unavailable
from mainstay.domain.fleet import ClusterKind, ClusterSettings, NewCluster
from mainstay.domain.plan import (
    AddCluster,
    AddProject,
    AddTenant,
    AddToken,
    AddWebhook,
    Deploy,
    IdentifyCluster,
    ObserveVolumes,
    RevokeToken,
    SetGroupRole,
    SetMember,
    SetOwnRole,
)
from mainstay.domain.volume import VolumeState
from mainstay.domain.webhook import NewWebhook
from mainstay.domain.workload import Kind, Mount, Workload
from mainstay.operations import agents, secrets, tokens
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from mainstay.ports import EventFilter
from tests.stores import ALL, SECOND, TENANT, WHY, Scene
from tests.unit.api.conftest import made_a_model, site_of
from tests.unit.web.site import services_of, size

OTHER_TENANT, OTHER_PROJECT = "chemistry", "vision"
CANARY, SPARROW = b"canary", b"sparrow"
"""In the names of what lies in the project `default`, and of what all of the tenant has."""
CODE = b"print('canary')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody, and what is on record about them."""

    name: str
    role: str = ""
    """In all of their tenant."""
    role_there: str = ""
    """In the project `OTHER_PROJECT`."""
    ours: bool = True
    """Of the tenant whose objects are asked for."""
    caps: Caps = Caps()  # noqa: RUF009 it is frozen
    known: bool = True
    """Their token holds."""
    token: str = ""
    """What they show, where they have no token on record."""
    agent: bool = False
    hidden: tuple[bytes, ...] = ()
    """Words that no answer to them may have."""

    def may(self, permission: Permission, project: str = "") -> bool:
        """By their role; where no project is named, in all of the tenant."""
        allowed = ROLES.get(self.role, frozenset())
        if self.caps.projects is not None and project not in self.caps.projects:
            return False
        if project == OTHER_PROJECT:
            allowed |= ROLES.get(self.role_there, frozenset())
        return permission in (allowed if self.caps.permissions is None else allowed & self.caps.permissions)

    def may_somewhere(self, permission: Permission, *, of_projects: bool) -> bool:
        """In all of the tenant, or, where that will do, in one project."""
        places = ("", "default", OTHER_PROJECT) if of_projects else ("",)
        return any(self.may(permission, place) for place in places)


CALLERS = (
    Caller(name="anonymous", known=False),
    Caller(name="nonsense", known=False, token="mst_0123456789ab_" + "0" * 72),
    Caller(name="expired", role=PLATFORM_ADMIN, known=False),
    Caller(name="revoked", role=PLATFORM_ADMIN, known=False),
    Caller(name="agent", agent=True),
    *(Caller(name=role, role=role) for role in ROLES),
    Caller(name="elsewhere", role_there=MAINTAINER, hidden=(CANARY,)),
    Caller(name="reads-only", role=PLATFORM_ADMIN, caps=Caps(permissions=frozenset({Permission.READ}))),
    Caller(name="one-project", role=MAINTAINER, caps=Caps(projects=frozenset({OTHER_PROJECT})), hidden=(CANARY,)),
    *(
        Caller(name=f"their-{role}", role=role, ours=False, hidden=(CANARY, SPARROW))
        for role in (VIEWER, USER, MAINTAINER, TENANT_ADMIN)
    ),
    Caller(name=f"their-{PLATFORM_ADMIN}", role=PLATFORM_ADMIN, ours=False),
)


@dataclass(kw_only=True)
class World:
    """The platform, and how its objects are called."""

    app: FastAPI
    services: Services
    run: Workload
    maker: Workload
    tree: str
    blob: str
    pod: Allocation
    """On the cluster of the agent; it mounts the tree."""
    tokens: dict[str, str] = field(default_factory=dict)

    def version(self) -> int:
        """Another one once anything has changed that has an event."""
        store = self.services.store
        events = (
            store.events(tenant=tenant, workload="", after=0, limit=ALL, which=EventFilter(platform=True))
            for tenant in (TENANT, OTHER_TENANT)
        )
        return max(event.seq for page in events for event in page)


@contextmanager
def furnished(folder: Path) -> Iterator[World]:
    """Objects of every kind of the tenant, and everybody's tokens."""
    with services_of(folder, url="http://platform.test") as services:
        app = create_api(services)
        site = site_of(services, app)
        site.fleet()
        scene = site.scene
        site.cluster.connect = site.cluster.exec = _away  # type: ignore[method-assign]
        tree, blob = asyncio.run(_stored(services))
        run = scene.submit(name="canary-run", choices=(size(cpus=1, gib=1),))
        site.place(run, "atlas")
        site.running(run)
        site.cluster.logs[f"{run.id}-1-0"] = b"a line\n"
        maker = made_a_model(site, "canary-maker")
        _objects(services, scene)
        agent, pod = _carried(scene, tree)
        people = {caller.name: _person(scene, caller) for caller in CALLERS if caller.role or caller.role_there}
        yield World(
            app=app,
            services=services,
            run=run,
            maker=maker,
            tree=tree,
            blob=blob,
            pod=pod,
            tokens={**people, "agent": agent},
        )


def _away(*_: Any, **__: Any) -> Any:
    """Nobody gets so far who may not."""
    msg = "this cluster runs nothing"
    raise Unavailable(msg)


async def _stored(services: Services) -> tuple[str, str]:
    async def chunks() -> AsyncIterator[bytes]:
        yield CODE

    files, digest = services.artifacts.of(Owner(tenant=TENANT, project="default")), hashlib.sha256(CODE).hexdigest()
    await files.put(digest, chunks())
    return await files.put_tree(Tree(entries=(Entry(path="canary.py", size=len(CODE), digest=digest),))), digest


def _objects(services: Services, scene: Scene) -> None:
    volume = VolumeState(owner=Owner(tenant=TENANT, project="default"), name="canary-volume")
    scene.applied(
        ObserveVolumes(cluster="local", volumes=(volume,), reason=WHY),
        *(AddProject(tenant=TENANT, project=name, reason=WHY) for name in (OTHER_PROJECT, "sparrow-project")),
        AddTenant(tenant=OTHER_TENANT, reason=WHY),
        SetOwnRole(tenant=TENANT, name="sparrow-role", permissions=frozenset({Permission.READ}), reason=WHY),
        SetMember(tenant=TENANT, name="sparrow-member", role=VIEWER, within=ROLES[PLATFORM_ADMIN], reason=WHY),
        SetGroupRole(tenant=TENANT, group="sparrow-group", role=VIEWER, within=ROLES[PLATFORM_ADMIN], reason=WHY),
        *(
            AddWebhook(
                webhook=NewWebhook(
                    tenant=TENANT,
                    name=name,
                    project="",
                    url="https://8.8.8.8/hook",
                    types=(),
                    sealed=services.sealing.sealed_secret(TENANT, name, b"key"),
                ),
                reason=WHY,
            )
            for name in ("sparrow-hook", "sparrow-old-hook")
        ),
        *(
            Deploy(
                endpoint=name,
                tenant=TENANT,
                project="default",
                model="canary-model",
                version=1,
                workload=scene.new(name=name, kind=Kind.SERVICE),
                reason=WHY,
            )
            for name in ("canary-endpoint", "canary-served")
        ),
    )
    maintainer = Principal(name="sparrow-member", tenant=TENANT, role=MAINTAINER)
    secrets.put(services.store, services.sealing, maintainer, "sparrow-secret", b"hidden", now=scene.now)


def _carried(scene: Scene, tree: str) -> tuple[str, Allocation]:
    """The token of an agent, and a pod on its cluster."""
    token, digest = agents.new_token()
    cluster = NewCluster(name="edge", kind=ClusterKind.AGENT, settings=ClusterSettings(agent_token=digest))
    scene.applied(AddCluster(cluster=cluster, reason=WHY))
    scene.applied(IdentifyCluster(cluster="edge", identity="uid-of-edge", reason=WHY))
    (node,) = scene.fleet(cluster="edge")
    work = scene.submit(name="canary-pod", cluster="edge", mounts=(Mount(path=".", tree=tree),))
    scene.applied(scene.allocate(work, node=node))
    return token, scene.store.allocations(work.key)[0]


def _person(scene: Scene, caller: Caller) -> str:
    """On record, with a token that is theirs."""
    id_, token = tokens.new_token()
    tenant = TENANT if caller.ours else OTHER_TENANT
    ends = scene.now + (-1 if caller.name == "expired" else 1) * 3_600 * SECOND
    new = NewToken(
        id=id_, tenant=tenant, member=caller.name, name="test", digest=tokens.digest_of(token), expires_at=ends
    )
    within = ROLES[PLATFORM_ADMIN]
    project = "" if caller.role else OTHER_PROJECT
    member: dict[str, Any] = {"role": caller.role or caller.role_there, "project": project}
    scene.applied(
        SetMember(tenant=tenant, name=caller.name, within=within, reason=WHY, **member),
        AddToken(token=replace(new, caps=caller.caps), within=within, reason=WHY),
    )
    if caller.name == "revoked":
        scene.applied(RevokeToken(tenant=tenant, id=id_, reason=WHY))
    return token
