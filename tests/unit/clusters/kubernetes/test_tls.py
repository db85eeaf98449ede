"""Each way in which a certificate can be wrong is told in its own words; a right one lets in, and a key touches no disk."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme

from mainstay.clusters.kubernetes import tls
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.errors import Invalid, Unreachable
from mainstay.clusters.kubernetes.sources import Fixed
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.certificates import authority, ca_pem, client

DAY = timedelta(days=1)
VERSION = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"major": "%s"}'


@asynccontextmanager
async def serving(certificate: trustme.LeafCert | None, *, asks_for: trustme.CA | None = None) -> AsyncIterator[str]:
    """An API server of one answer, the name that its client is known by; without TLS if it has no certificate."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        if asks_for is not None:
            asks_for.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if context is not None:  # who speaks plainly understands nothing, and complains at once
            await reader.readuntil(b"\r\n\r\n")
        writer.write(VERSION % (b"1" if writer.get_extra_info("peercert") else b"0"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def asked(server: str, **given: str) -> str:
    api = Connection(Fixed(Credentials(server=server, **({"ca": ca_pem()} | given))), clock=ManualClock())
    try:
        return (await api.version()).major
    finally:
        await api.close()
        await asyncio.sleep(0.01)  # until the other end has heard it


async def test_a_right_certificate_lets_in() -> None:
    async with serving(authority().issue_cert("127.0.0.1")) as server:
        assert await asked(server) == "0"


async def test_a_client_certificate_is_shown() -> None:
    certificate, key = client()
    async with serving(authority().issue_cert("127.0.0.1"), asks_for=authority()) as server:
        assert await asked(server, certificate=certificate, key=key) == "1"


async def test_another_name_may_be_stated() -> None:
    async with serving(authority().issue_cert("kubernetes.default.svc")) as server:
        assert await asked(server, tls_server_name="kubernetes.default.svc") == "0"


@pytest.mark.parametrize(
    ("made", "words", "hint"),
    [
        (lambda: trustme.CA().issue_cert("127.0.0.1"), "not signed by the authority", "certificate-authority-data"),
        (lambda: authority().issue_cert("10.0.0.1"), "for other names", "tls-server-name"),
        (lambda: authority().issue_cert("elsewhere.example.org"), "for other names", "tls-server-name"),
        (
            lambda: authority().issue_cert(
                "127.0.0.1", not_before=datetime.now(UTC) - 2 * DAY, not_after=datetime.now(UTC) - DAY
            ),
            "has expired",
            "renew",
        ),
        (
            lambda: authority().issue_cert(
                "127.0.0.1", not_before=datetime.now(UTC) + DAY, not_after=datetime.now(UTC) + 2 * DAY
            ),
            "not valid yet",
            "clocks",
        ),
        (lambda: None, "no TLS connection", "port of an API server"),
    ],
    ids=["authority", "address", "name", "expired", "early", "plain"],
)
async def test_a_wrong_certificate_is_told(made: Any, words: str, hint: str) -> None:
    async with serving(made()) as server:
        with pytest.raises(Unreachable, match=words) as error:
            await asked(server)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    "given",
    [
        {"ca": "nonsense"},
        {"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"certificate": "nonsense", "key": "nonsense"},
        {"certificate": client()[0], "key": ""},
        {
            "certificate": client()[0],
            "key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
        },
    ],
)
def test_what_openssl_cannot_use_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        tls.context(Credentials(server="https://x", **({"ca": ca_pem()} | given)))


def test_the_server_is_always_verified() -> None:
    made = tls.context(Credentials(server="https://x", ca=ca_pem()))
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version >= ssl.TLSVersion.TLSv1_2
