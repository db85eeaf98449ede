"""Which addresses the platform itself connects to when somebody else names them (security.md E3).

A name says nothing about where it leads: only the address to which the connection goes is judged, each time, by the tables of
special addresses that IANA keeps. Sources: iana-ipv4-special-registry, iana-ipv6-special-registry, RFC 6890.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from mainstay.domain.errors import Invalid

Address: TypeAlias = IPv4Address | IPv6Address
Range: TypeAlias = IPv4Network | IPv6Network

URL_CHARACTERS_MAX = 2_000
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
"""The last label begins with a letter: what else looks like a name (2852039166, 0x7f.1) is an address in disguise."""
_ADDRESS_6 = re.compile(r"[0-9a-f:.]+\Z")
_PATH = re.compile(r"(/[!-~]*)?\Z")
_CLOUD = "it is where a cloud keeps the secrets of its machines"

_NEVER: tuple[tuple[Range, str], ...] = tuple(
    (ip_network(text), why)
    for text, why in (
        ("168.63.129.16/32", _CLOUD),
        ("100.100.100.200/32", _CLOUD),
        ("192.0.0.192/32", _CLOUD),
        ("fd00:ec2::/32", _CLOUD),
        ("fd20:ce::254/128", _CLOUD),
        ("0.0.0.0/8", "it is no address of a machine"),
        ("169.254.0.0/16", "it is link-local, where clouds keep the secrets of their machines"),
        ("192.88.99.0/24", "it relays to IPv6 (6to4)"),
        ("224.0.0.0/4", "it is multicast"),
        ("240.0.0.0/4", "it is reserved"),
        ("::/128", "it is no address of a machine"),
        ("fe80::/10", "it is link-local, where clouds keep the secrets of their machines"),
        ("ff00::/8", "it is multicast"),
        ("2001::/32", "it hides another address (Teredo)"),
        ("2002::/16", "it hides another address (6to4)"),
        ("64:ff9b:1::/48", "it hides another address (NAT64)"),
    )
)
"""No receiver lives there, and much that must not be asked does: not even an operator can allow them."""

_INTERNAL: tuple[tuple[Range, str], ...] = tuple(
    (ip_network(text), why)
    for text, why in (
        ("10.0.0.0/8", "it is private"),
        ("100.64.0.0/10", "it belongs to a carrier's network"),
        ("127.0.0.0/8", "it is this machine"),
        ("172.16.0.0/12", "it is private"),
        ("192.0.0.0/24", "it is kept for protocols"),
        ("192.0.2.0/24", "it is for documentation"),
        ("192.168.0.0/16", "it is private"),
        ("198.18.0.0/15", "it is for measurements"),
        ("198.51.100.0/24", "it is for documentation"),
        ("203.0.113.0/24", "it is for documentation"),
        ("::1/128", "it is this machine"),
        ("100::/64", "it is nowhere"),
        ("2001::/23", "it is kept for protocols"),
        ("2001:db8::/32", "it is for documentation"),
        ("3fff::/20", "it is for documentation"),
        ("5f00::/16", "it is kept for protocols"),
        ("fc00::/7", "it is private"),
        ("fec0::/10", "it is private"),
    )
)
"""Not on the public network. An operator may allow ranges of these, for receivers of their own."""

_GLOBAL_6 = IPv6Network("2000::/3")
_MAPPED, _NAT64 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")


def refusal(address: Address, allowed: Sequence[Range] = ()) -> str:
    """Why nothing may be sent to this address; empty if it may. `allowed` are ranges that the operator has opened."""
    inner = _carried(address)
    never = never_a_machine(inner)
    if never:
        return never
    if any(inner in one for one in allowed if one.version == inner.version):
        return ""
    found = _in(_INTERNAL, inner)
    if found:
        return found
    return "it is reserved" if isinstance(inner, IPv6Address) and inner not in _GLOBAL_6 else ""


def never_a_machine(address: Address) -> str:
    """Why nobody's server can be there, whoever says so; empty if one can. Private addresses are not judged."""
    inner = _carried(address)
    found = _in(_NEVER, inner)
    if found or isinstance(inner, IPv4Address):
        return found
    # ISATAP (RFC 5214) ends in 0000:5efe or 0200:5efe and an IPv4 address, below any prefix.
    isatap = (int(inner) >> 32) & 0xFDFF_FFFF == 0x0000_5EFE
    return "it hides another address (ISATAP)" if isatap else ""


def is_loopback(address: Address) -> bool:
    """Whether it is this very machine, in any notation."""
    return _carried(address).is_loopback


def _carried(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries: mapped, or by NAT64, which networks without IPv4 answer for every name."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _in(table: Sequence[tuple[Range, str]], address: Address) -> str:
    return next((why for network, why in table if network.version == address.version and address in network), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that was taken apart once: what was checked is what is asked."""

    scheme: str
    host: str
    """A name in lower case, or an address in its usual notation."""
    port: int
    path: str
    """With its query, never empty."""

    @property
    def authority(self) -> str:
        """As the header `Host` has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def target_of(url: str, *, plain: bool = False, characters_max: int = URL_CHARACTERS_MAX) -> Target:
    """Raises Invalid for what is not `https://host[:port][/path]`; with `plain` http is read too."""
    schemes = ("https", "http") if plain else ("https",)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in schemes:
        raise _refused(url, "it must begin with https://")
    if len(url) > characters_max or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise _refused(url, f"it must be at most {characters_max} visible ASCII characters", hint="write others as %XX")
    if "@" in rest.partition("/")[0]:
        raise _refused(url, "it carries a user name")
    if "#" in rest:
        raise _refused(url, "it has a fragment, which is never sent")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, "its host or port is none") from error
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    if port == 0 or not _PATH.match(path):
        raise _refused(url, "its port or path is none")
    return Target(
        scheme=scheme.lower(),
        host=_host(url, parts.netloc),
        port=port or (443 if scheme.lower() == "https" else 80),
        path=path,
    )


def _host(url: str, netloc: str) -> str:
    """In one notation only: what an older resolver reads as an address (0177.1, 0x7f.1, 2130706433) is refused."""
    text = netloc.lower()
    if text.startswith("["):
        inside, closed, after = text[1:].partition("]")
        if closed and _ADDRESS_6.match(inside) and (not after or after.startswith(":")):
            try:
                return str(IPv6Address(inside))
            except ValueError as error:
                raise _refused(url, "its host is no address") from error
    else:
        host = text.partition(":")[0]
        if _NAME.match(host):
            return host
        try:
            return str(IPv4Address(host))
        except ValueError:
            pass
    raise _refused(url, "its host is neither a name nor an address as it is usually written")


def address_of(text: str) -> Address:
    """As a resolver answers it, an interface behind `%` left out. Raises Invalid."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError as error:
        msg = f"a name leads to what is no address: {text[:60]!r}"
        raise Invalid(msg, object_="url") from error


def _refused(url: str, why: str, *, hint: str = "give one such as https://hooks.example.com/mainstay") -> Invalid:
    """Behind the host a URL may hold a secret: it is not repeated."""
    shown = re.sub(r"[^ -~]", "?", url.partition("?")[0])[:60]
    return Invalid(f"url: {shown!r} is refused: {why}", object_="url", hint=hint)
