"""The PostgreSQL that the tests run on is real, empty for each test, and not run by root."""

from __future__ import annotations

import sqlalchemy


def test_each_test_gets_an_empty_database(postgres_url: str) -> None:
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        tables = connection.exec_driver_sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").scalar()
        version = connection.exec_driver_sql("SHOW server_version_num").scalar()
    engine.dispose()
    assert tables == 0
    assert int(str(version)) >= 130_000
