"""The event loop of a server."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from mainstay.control import event_loop
from tests.unit.clusters.kubernetes.certificates import authority

WAIT_SECONDS_MAX = 60.0


@pytest.fixture(autouse=True)
def the_collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_a_server_runs_with_a_collector_that_comes_rarely() -> None:
    found: list[object] = []

    async def look() -> None:
        found.extend((gc.isenabled(), gc.get_threshold()[0]))

    event_loop.run(look())

    assert found == [True, event_loop.NEW_OBJECTS_MAX]


def test_who_says_all_over_tls_and_hangs_up_is_heard_to_the_end_however_slowly_he_is_read() -> None:
    said, heard = b"x" * 600_000, bytearray()  # more than a reader takes in before it pauses
    gone = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def say() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority().issue_cert("localhost").configure_cert(context)
        connection, _ = listening.accept()
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.sendall(said)
        gone.set()

    async def hear() -> None:
        context = ssl.create_default_context()
        authority().configure_trust(context)
        reader, writer = await asyncio.open_connection(
            *listening.getsockname(), ssl=context, server_hostname="localhost"
        )
        assert await asyncio.to_thread(gone.wait, WAIT_SECONDS_MAX)
        while part := await reader.read(4_096):
            heard.extend(part)
        writer.close()

    speaker = threading.Thread(target=say)
    speaker.start()
    with listening:
        event_loop.run(hear())
    speaker.join()

    assert bytes(heard) == said


def test_what_ends_the_work_is_raised() -> None:
    async def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        event_loop.run(fail())
