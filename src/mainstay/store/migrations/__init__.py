"""Bringing a database to the schema of this code: forward only, all in one transaction."""

from __future__ import annotations

import sqlalchemy as sa

from mainstay.domain.errors import StateUnusable

LATEST = "0034"
"""The schema that this code works with; a test compares it with the newest file in `versions`."""


def migrate(connection: sa.Connection, *, upto: str = LATEST) -> None:
    """Bring the schema to `upto`. Raises StateUnusable if it is newer than this code, or not ours.

    Runs in the caller's transaction: a crash at any statement leaves the old schema (reliability.md R13, F16).
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    found = revision(connection)
    if found == upto:
        return
    if found is None and sa.inspect(connection).get_table_names():
        msg = "the database holds tables that are not of mainstay"
        raise StateUnusable(msg, hint="give mainstay a database or a schema of its own")
    _run(connection, found, upto)


def revision(connection: sa.Connection) -> str | None:
    """The schema that the database has; None if it has none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


_MIGRATION_LOCK = 0x6D_73_74_79


def _run(connection: sa.Connection, found: str | None, upto: str) -> None:
    # Imported here because a start on a current schema, which is nearly every one, need not pay for it (30 MB, 0.2 s).
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "mainstay.store:migrations")
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        msg = f"the state was written by a newer version of mainstay: its schema is {found}, this code knows {LATEST}"
        raise StateUnusable(msg, hint="upgrade mainstay, or start it with another state")
    config.attributes["connection"] = connection
    command.upgrade(config, upto)
