"""What is sealed, and under which keys: the text itself says which it was (`operations.sealing`)."""

from __future__ import annotations

import sqlalchemy as sa

from mainstay.domain.secret import Sealed, SecretVersion
from mainstay.store import tables

_KEY_AT, _KEY_LETTERS = 3, 8
"""Behind `1.` stands the name of the key."""


def sealed_with_others(connection: sa.Connection, key: str, *, after: SecretVersion, limit: int) -> tuple[Sealed, ...]:
    """Those of clusters first, then by tenant, name and version."""
    clusters = tables.clusters
    tenant, name, _ = after
    of_clusters = (
        sa.select(clusters.c.name, clusters.c.sealed)
        .where(clusters.c.sealed != "", _key_of(clusters.c.sealed) != key, clusters.c.name > name)
        .order_by(clusters.c.name)
        .limit(limit)
    )
    found = [] if tenant else [Sealed(tenant="", name=one, text=text) for one, text in connection.execute(of_clusters)]
    of_tenants: list[Sealed] = []
    for table in (tables.secrets, tables.earlier_secrets):
        place = table.c.tenant, table.c.name, table.c.version
        query = sa.select(*place, table.c.sealed).where(_key_of(table.c.sealed) != key).order_by(*place).limit(limit)
        if tenant:
            query = query.where(sa.tuple_(*place) > sa.tuple_(*after))
        of_tenants += [
            Sealed(tenant=of, name=one, version=version, text=text)
            for of, one, version, text in connection.execute(query)
        ]
    found += sorted(of_tenants, key=lambda one: one.place)
    return tuple(found[:limit])


def sealed_by_key(connection: sa.Connection) -> dict[str, int]:
    """How much is sealed with each key, by its name."""
    counts: dict[str, int] = {}
    for table in (tables.clusters, tables.secrets, tables.earlier_secrets):
        key = _key_of(table.c.sealed)
        query = sa.select(key, sa.func.count()).where(table.c.sealed != "").group_by(key)
        for name, count in connection.execute(query):
            counts[name] = counts.get(name, 0) + count
    return counts


def _key_of(sealed: sa.Column[str]) -> sa.ColumnElement[str]:
    return sa.func.substr(sealed, _KEY_AT, _KEY_LETTERS)
