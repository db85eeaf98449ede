"""Requests to addresses that tenants give, over real sockets of this machine: checked, pinned, bounded."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_network

import pytest
import trustme

from mainstay.domain.errors import Invalid, Unavailable
from mainstay.outbound import ANSWER_BYTES_MAX, Outbound
from tests.receivers import receiving

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
HOST = "hooks.example.com"
ENCODINGS = [
    # 127.0.0.1, as resolvers of several ages read it
    *(
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7F.0x0.0x0.0x1",
        "017700000001",
        "0177.0.0.1",
        "0177.0.0.01",
        "127.1",
    ),
    *("127.0.1", "127.00.00.01", "0177.00.00.01", "0x7f.1", "127.0.0.1.", "0", "0.0.0.0", "0.0.0.0.", "00000.0.0.0"),
    *("127.65535", "127.0.65535", "0x7f.0.0.0x1", "4294967295", "127.0.0.1%00", "127.0.0.1%2e", "127%2e0%2e0%2e1"),
    # of IPv6, and IPv4 within it
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:ffff:127.0.0.1]"),
    *("[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
    *(
        "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[::1%25lo]",
        "[::1%lo]",
    ),
    *("[fe80::1%251]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "[::1", "::1", "[[::1]]", "[v1.7f000001]"),
    # where clouds keep secrets
    *("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xa9.0xfe.0xa9.0xfe"),
    *("168.63.129.16", "100.100.100.200", "192.0.0.192"),
    # private, shared, multicast, broadcast
    *("10.0.0.1", "012.0.0.1", "192.168.1.1", "3232235777", "172.16.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255"),
    # names, digits and dots that look like others
    *(
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost.",
        "ⓛocalhost",
        "１２７.０.０.１",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "127.0.0.1\u200b",
    ),
    # a host that hides behind another
    *("example.com@127.0.0.1", "127.0.0.1:443@example.com", "user:word@127.0.0.1", "example.com\\@127.0.0.1"),
    *(
        "127.0.0.1#@example.com",
        "127.0.0.1 @example.com",
        "127.0.0.1\t",
        "\t127.0.0.1",
        "127.0.0.1\r\nHost: example.com",
    ),
    *("example.com%40127.0.0.1", "127.0.0.1?@example.com", "127.0.0.1\\example.com", ";127.0.0.1"),
]


class Answers:
    """A name server that says the next thing each time it is asked, and then the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_no_encoding_of_an_address_that_is_refused_escapes() -> None:
    outbound, escapes = Outbound(), []
    for host in ENCODINGS:
        for url in (f"https://{host}/", f"https://{host}:8443/hook"):
            try:
                await outbound.check(url)
                escapes.append(url)
            except (Invalid, Unavailable):
                pass
    outbound.close()
    print(f"{len(ENCODINGS)} encodings of addresses, {2 * len(ENCODINGS)} URLs, {len(escapes)} escapes")
    assert len(set(ENCODINGS)) >= 60
    assert escapes == []


async def test_what_an_old_resolver_would_make_of_an_encoding_is_refused_too() -> None:
    """Even if one passed as a name: what the resolver of this machine answers is judged, not how it was written."""
    judged = 0
    for host in ENCODINGS:
        try:
            found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError, ValueError):
            continue
        outbound = Outbound(resolve=Answers([str(one[4][0]) for one in found]))
        with pytest.raises(Invalid):
            await outbound.check(f"https://{HOST}/")
        judged += 1
    assert judged >= 20


@pytest.mark.parametrize("second", ["10.0.0.1", "::1", "169.254.169.254"])
async def test_a_name_with_a_public_and_another_address_is_refused(second: str) -> None:
    with pytest.raises(Invalid, match="leads to an address that is refused"):
        await Outbound(resolve=Answers(["93.184.216.34", second])).check(f"https://{HOST}/")


async def test_a_name_that_leads_elsewhere_after_the_check_is_refused_when_it_is_sent() -> None:
    """DNS rebinding: public when the webhook is added, this machine when something is sent."""
    async with receiving() as receiver:
        names = Answers(["93.184.216.34"], ["127.0.0.1"])
        outbound = Outbound(resolve=names)
        url = f"https://{HOST}:{receiver.port}/"
        await outbound.check(url)
        with pytest.raises(Invalid, match="it is this machine"):
            await outbound.post(url, headers={}, body=b"{}")
        assert receiver.got == []


async def test_the_connection_goes_to_the_address_that_was_checked_and_asks_no_second_time(
    authority: trustme.CA,
) -> None:
    async with receiving(tls=server_tls(authority, HOST)) as receiver:
        names = Answers(["127.0.0.1"], ["127.0.0.2"])  # nobody listens at the second
        outbound = Outbound(allowed=LOOPBACK, resolve=names, tls=client_tls(authority))
        heard = await outbound.post(f"https://{HOST}:{receiver.port}/a?b=c", headers={"X-One": "1"}, body=b"hello")
        (got,) = receiver.got
        assert (heard.status, names.asked) == (204, 1)
        assert (got.path, got.body, got.headers["x-one"]) == ("/a?b=c", b"hello", "1")
        assert got.headers["host"] == f"{HOST}:{receiver.port}"


async def test_the_certificate_must_be_of_the_name_and_not_of_the_address(authority: trustme.CA) -> None:
    async with receiving(tls=server_tls(authority, "127.0.0.1", "other.example.com")) as receiver:
        outbound = Outbound(allowed=LOOPBACK, resolve=Answers(["127.0.0.1"]), tls=client_tls(authority))
        with pytest.raises(Unavailable, match="certificate"):
            await outbound.post(f"https://{HOST}:{receiver.port}/", headers={}, body=b"")
        assert receiver.got == []


async def test_a_redirect_is_an_answer_and_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with receiving() as receiver:
        receiver.status = 302
        receiver.headers = {"Location": "http://169.254.169.254/", "Set-Cookie": "a=b; Path=/"}
        outbound = Outbound(allowed=LOOPBACK)
        for _ in range(2):
            assert (await outbound.post(receiver.url, headers={}, body=b"{}")).status == 302
        assert len(receiver.got) == 2
        assert not any("cookie" in got.headers for got in receiver.got)


async def test_http_is_for_this_machine_only_and_only_where_the_operator_has_opened_it() -> None:
    ten = ip_network("10.0.0.0/8")
    with pytest.raises(Invalid, match="https"):
        await Outbound().check("http://127.0.0.1/")
    with pytest.raises(Invalid, match="https"):
        await Outbound(allowed=(ten,)).check("http://10.0.0.1/")
    with pytest.raises(Invalid, match="http is for this machine only"):
        await Outbound(allowed=(*LOOPBACK, ten)).check("http://10.0.0.1/")
    await Outbound(allowed=LOOPBACK).check("http://127.0.0.1/")
    await Outbound(allowed=(ten,)).check("https://10.0.0.1/")


async def test_of_an_answer_without_an_end_only_the_beginning_is_read() -> None:
    async with receiving() as receiver:
        receiver.status, receiver.text = 200, "x" * (4 * ANSWER_BYTES_MAX)
        heard = await Outbound(allowed=LOOPBACK).post(receiver.url, headers={}, body=b"")
        assert heard.content == b"x" * ANSWER_BYTES_MAX


async def test_who_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.outbound.ANSWER_SECONDS", 0.05)
    async with receiving() as receiver:
        receiver.open.clear()
        with pytest.raises(Unavailable, match="did not answer within"):
            await Outbound(allowed=LOOPBACK).post(receiver.url, headers={}, body=b"")


async def test_nobody_there_and_a_name_that_nobody_has_are_told_apart_from_a_refusal() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(Invalid, match="nobody knows where"):
        await Outbound(resolve=unknown).check(f"https://{HOST}/")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await Outbound(resolve=unknown).post(f"https://{HOST}/", headers={}, body=b"")
    async with receiving() as receiver:
        gone = receiver.url
    with pytest.raises(Unavailable, match="cannot be reached"):
        await Outbound(allowed=LOOPBACK).post(gone, headers={}, body=b"")


async def test_the_second_address_is_tried_if_the_first_does_not_answer() -> None:
    async with receiving() as receiver:
        outbound = Outbound(allowed=LOOPBACK, resolve=Answers(["127.0.0.2", "127.0.0.1"]))
        assert (await outbound.post(receiver.url, headers={}, body=b"")).status == 204


async def test_what_is_no_http_is_a_failure() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match="cannot be reached"):
            await Outbound(allowed=LOOPBACK).post(f"http://127.0.0.1:{port}/", headers={}, body=b"{}")
