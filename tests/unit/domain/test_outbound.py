"""Which addresses the platform may be sent to, and how URLs that name them are read."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.domain.errors import Invalid
from mainstay.domain.outbound import never_a_machine, refusal, target_of
from tests.figures import Figure

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::8.8.8.8"]
REFUSED = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1"),
    *(
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
        "2a00::5efe:7f00:1",
        "2a00::200:5efe:a00:1",
    ),
]


ADDRESSES = "addresses outside that lead to us or say what they are not: all refused"


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    assert refusal(ip_address(text)) == ""


@pytest.mark.parametrize("text", REFUSED)
def test_an_address_that_is_not_public_is_refused_with_the_reason(text: str, figure: Figure) -> None:
    assert refusal(ip_address(text)).startswith("it ")
    figure(ADDRESSES, 1)


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_nothing_is_allowed_that_the_tables_of_python_call_not_global(address: IPv4Address | IPv6Address) -> None:
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
    assert refusal(address) or inner.is_global


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_address_is_judged_the_same_in_every_notation_that_carries_it(address: IPv4Address) -> None:
    notations = (f"::ffff:{address}", f"64:ff9b::{address}")
    assert [bool(refusal(IPv6Address(text))) for text in notations] == [bool(refusal(address))] * 2


def test_an_operator_opens_private_ranges_and_nothing_beside_them() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd12:3456::/32")]
    assert refusal(ip_address("10.1.2.3"), allowed) == ""
    assert refusal(ip_address("::ffff:10.1.2.3"), allowed) == ""
    assert refusal(ip_address("fd12:3456::9"), allowed) == ""
    assert refusal(ip_address("10.2.0.1"), allowed)
    assert refusal(ip_address("127.0.0.1"), allowed)


@pytest.mark.parametrize("text", ["169.254.169.254", "168.63.129.16", "fd00:ec2::254", "2002:a00:1::", "0.0.0.0"])
def test_where_clouds_keep_secrets_no_operator_can_open(text: str) -> None:
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert refusal(ip_address(text), everything)
    assert never_a_machine(ip_address(text))


@pytest.mark.parametrize("text", ["10.0.0.1", "127.0.0.1", "fd12::1", "8.8.8.8", "::ffff:192.168.1.1"])
def test_a_private_address_may_be_a_machine(text: str) -> None:
    assert never_a_machine(ip_address(text)) == ""


def test_a_url_is_taken_apart_once() -> None:
    target = target_of("HTTPS://Hooks.Example.com:8443/a/b?c=d&e")
    assert (target.scheme, target.host, target.port, target.path) == ("https", "hooks.example.com", 8443, "/a/b?c=d&e")
    assert target.authority == "hooks.example.com:8443"
    assert target_of("https://example.com").authority == "example.com"
    assert target_of("https://[2A00:0:0::1]/").authority == "[2a00::1]"
    assert (target_of("http://localhost", plain=True).port, target_of("http://localhost", plain=True).path) == (80, "/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "http://example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "https://",
        "https:///path",
        "https://user@example.com",
        "https://user:word@example.com",
        "https://example.com@127.0.0.1",
        "https://example.com\\@127.0.0.1",
        "https://example.com#@127.0.0.1",
        "https://exam ple.com",
        "https://example.com/\r\nHost: other",
        "https://example.com\t",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:80:90",
        "https://example.com.",
        "https://example..com",
        "https://-example.com",
        "https://example.com/ü",
        f"https://example.com/{'x' * 2_000}",
    ],
)
def test_what_is_no_plain_https_url_is_refused_and_says_what_to_give(url: str, figure: Figure) -> None:
    with pytest.raises(Invalid) as refused:
        target_of(url)
    assert refused.value.object == "url"
    assert refused.value.hint
    figure(ADDRESSES, 1)


def test_a_refusal_repeats_nothing_from_behind_the_question_mark() -> None:
    with pytest.raises(Invalid) as refused:
        target_of("http://example.com/?token=canary")
    assert "canary" not in refused.value.message
