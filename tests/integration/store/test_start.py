"""The start on a real PostgreSQL that is not there yet, takes nobody just now, or does not let us in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
import structlog

from mainstay.domain.errors import ShutOut
from mainstay.start.database import open_when_it_answers
from mainstay.store import open_postgresql
from tests.postgres import GUARDED, Server


@pytest.fixture
def guarded(postgres_server: Server, postgres_url: str) -> Iterator[str]:
    """A database of whose users one needs a password."""
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'right'")
        yield postgres_url
        connection.execute(f"DROP ROLE {GUARDED}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("postgres@", f"{GUARDED}:s3cret@"), "does not accept this user or its password"),
        (("postgres@", f"{GUARDED}@"), "does not accept this user or its password"),
        (("postgres@", "nobody@"), "does not accept this user or its password"),
        (("?host", "_other?host"), "has no such database"),
        (("?host", "?sslmode=perhaps&host"), "says what there is not"),
        (("?host", "?nonsense=1&host"), "says what there is not"),
        (("postgres@", f"{GUARDED}:right@"), "may not do in the database what is needed"),
    ],
)
def test_what_a_real_server_refuses_is_told_with_its_words_and_what_to_do(guarded, change, words):
    url = guarded.replace(*change)
    with pytest.raises(ShutOut, match=words) as refused:
        open_when_it_answers(lambda: open_postgresql(url), sleep=pytest.fail)
    assert refused.value.hint
    assert "(" in refused.value.message  # and what the server itself says
    assert "s3cret" not in refused.value.message


def test_a_real_server_that_is_not_there_or_takes_nobody_now_is_waited_for(postgres_server, postgres_url, tmp_path):
    place = tmp_path / "place"
    url = postgres_url.replace(str(postgres_server.socket), str(place))
    pauses: list[float] = []

    with structlog.testing.capture_logs() as lines, ExitStack() as closing:

        def meanwhile(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 1:
                place.symlink_to(postgres_server.socket)
                closing.enter_context(postgres_server.closed(postgres_url))
            else:
                closing.close()

        open_when_it_answers(lambda: open_postgresql(url), sleep=meanwhile).close()
    assert [line["event"] for line in lines] == ["waiting_for_database"] * 2
    assert "No such file" in lines[0]["reason"]
    assert "not currently accepting connections" in lines[1]["reason"]
