"""What belongs to a tenant or a project: what lives there and keeps it from being removed, and what is put into it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

import sqlalchemy as sa

from mainstay.domain.access import DEFAULT_PROJECT, DEFAULT_TENANT
from mainstay.domain.plan import (
    Action,
    AddProject,
    AddWebhook,
    AdmitMember,
    Deploy,
    RemoveProject,
    RemoveTenant,
    SetGroupRole,
    SetMember,
    SetOwnRole,
    SetSecret,
    Submit,
)
from mainstay.store import codec, queries, tables
from mainstay.store.rows import TokenRow
from mainstay.store.world import NAMES_SHOWN, Living, OfTenant, World


def home(action: Action) -> OfTenant | None:
    """Where the action puts something new: the tenant and the project, empty if it is for all of them; None for all others."""
    match action:
        case Submit(workload=new) | Deploy(workload=new):
            return new.tenant, new.project
        case AddWebhook(webhook=webhook):
            return webhook.tenant, webhook.project
        case SetMember(tenant=tenant, project=project) | SetGroupRole(tenant=tenant, project=project):
            return tenant, project
        case AddProject(tenant=tenant) | SetOwnRole(tenant=tenant) | AdmitMember(tenant=tenant):
            return tenant, ""
        case SetSecret(tenant=tenant):
            return tenant, ""
        case _:
            return None


def load(connection: sa.Connection, world: World, actions: Iterable[Action]) -> None:
    """Which of the places were removed into which the plan puts something; and what lives in those that it removes."""
    homes: set[OfTenant] = set()
    for action in actions:
        place = home(action)
        if place is not None:
            homes.add(place)
        if isinstance(action, RemoveProject):
            key = (codec.storable(action.tenant), codec.storable(action.project))
            world.living[key] = _living(connection, *key)
            _load_tokens(connection, world, key[0])
        if isinstance(action, RemoveTenant):
            tenant = codec.storable(action.tenant)
            world.living[tenant, ""] = _living(connection, tenant, "")
    _load_gone(connection, world, homes)


def _load_gone(connection: sa.Connection, world: World, homes: Collection[OfTenant]) -> None:
    """What is built in is never removed, so that most submissions ask nothing here."""
    table, names = tables.tenants, {codec.storable(tenant) for tenant, _ in homes}
    for batch in queries.batches(names - {DEFAULT_TENANT}):
        query = sa.select(table).where(table.c.name.in_(batch), table.c.removed_at > 0)
        for row in queries.fetch(connection, query):
            world.gone[row["name"], ""] = row["removed_at"]
    table = tables.projects
    places = {(codec.storable(tenant), codec.storable(name)) for tenant, name in homes}
    for pairs in queries.batches({place for place in places if place[1] not in {"", DEFAULT_PROJECT}}):
        query = sa.select(table).where(sa.tuple_(table.c.tenant, table.c.name).in_(pairs), table.c.removed_at > 0)
        for row in queries.fetch(connection, query):
            world.gone[row["tenant"], row["name"]] = row["removed_at"]


def _living(connection: sa.Connection, tenant: str, project: str) -> tuple[Living, ...]:
    """Of a project, or of all of a tenant where none is named: the kinds of which there is any."""
    runs, endpoints, volumes = tables.workloads, tables.endpoints, tables.volumes
    asked: dict[str, tuple[sa.Table, sa.ColumnElement[str], sa.ColumnElement[bool]]] = {
        "open run": (runs, runs.c.id, cast("sa.ColumnElement[bool]", sa.text("phase < 10"))),
        "endpoint": (endpoints, endpoints.c.name, endpoints.c.removed == 0),
        "volume": (volumes, volumes.c.name, sa.true()),
    }
    found = []
    for kind, (table, name, lives) in asked.items():
        there = [table.c.tenant == tenant, lives, *([table.c.project == project] if project else [])]
        count = connection.execute(sa.select(sa.func.count()).select_from(table).where(*there)).scalar_one()
        if count:
            names = connection.scalars(sa.select(name).where(*there).order_by(name).limit(NAMES_SHOWN))
            found.append(Living(kind=kind, count=count, names=tuple(names)))
    return tuple(found)


def _load_tokens(connection: sa.Connection, world: World, tenant: str) -> None:
    for row in queries.fetch(connection, sa.select(tables.tokens).where(tables.tokens.c.tenant == tenant)):
        world.tokens[row["id"]] = cast("TokenRow", row)
