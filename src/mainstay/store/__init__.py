"""The truth in SQL, on SQLite and PostgreSQL alike. The only place that knows a database."""

from mainstay.store.store import SqlStore, open_postgresql, open_sqlite

__all__ = ["SqlStore", "open_postgresql", "open_sqlite"]
