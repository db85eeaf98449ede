"""Where a platform listens, for users and for other replicas; what may not be served is refused in words."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

import structlog

from mainstay.domain.errors import StateUnusable
from mainstay.start.settings import Settings

log = structlog.get_logger()


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The bound socket. Raises StateUnusable if the port is taken or the address may not be served without TLS."""
    if not is_loopback(settings.host) and not (settings.tls_certificate and settings.tls_key):
        msg = f"refusing to listen on {settings.host} without TLS"
        raise StateUnusable(
            msg, hint="give --tls-cert and --tls-key, or listen on 127.0.0.1 and put a TLS proxy in front of it"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. Without it a small answer waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            msg = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            raise StateUnusable(msg, hint="choose another with --port, or 0 for a free one") from error
        listener.listen(2048)
        yield listener


@contextlib.contextmanager
def listening_for_replicas(settings: Settings) -> Iterator[socket.socket | None]:
    """Where other replicas ask, None where there can be none or we have no address for them. Raises StateUnusable."""
    given = settings.replica_address
    host, port = _host_and_port(given) if given else (settings.host, 0)
    if not settings.database:
        yield None
        return
    if not given and is_anywhere(host):
        log.warning(
            "replicas_apart", hint="give --replica-address, so that other replicas reach the agents that call here"
        )
        yield None
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            msg = f"cannot listen for other replicas on {given or host}: {error.strerror or error}"
            hint = "let --replica-address name an address of this machine and a free port, e.g. 10.0.0.7:8651"
            raise StateUnusable(msg, hint=hint) from error
        listener.listen(128)
        yield listener


def _host_and_port(address: str) -> tuple[str, int]:
    """IPv6 with or without brackets. Raises StateUnusable."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or is_anywhere(host) or not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        msg = f"not an address where other replicas reach this one: {address}"
        raise StateUnusable(msg, hint="give host and port, e.g. --replica-address 10.0.0.7:8651")
    return host, int(port)


def check_certificate(settings: Settings) -> None:
    """Raises StateUnusable if the certificate and its key cannot be used together."""
    if not settings.tls_certificate:
        return
    try:
        # An encrypted key is refused by its empty password, where there may be nobody to type one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=lambda: ""
        )
    except OSError as error:
        files = f"the certificate {settings.tls_certificate} with the key {settings.tls_key or 'in the same file'}"
        msg = f"cannot use {files}: {error.strerror or error}"
        raise StateUnusable(
            msg, hint="give a certificate and its own key, both as PEM and without a password"
        ) from error


def check_public_url(url: str) -> None:
    """Raises StateUnusable for one that is no origin: cookies, links and the check of who sent a form depend on it."""
    parts = urlsplit(url)
    if url and not (parts.scheme in {"http", "https"} and parts.hostname and url.rstrip("/") == _origin(parts)):
        msg = f"not the public address of a platform: {url}"
        raise StateUnusable(msg, hint="give scheme and host only, e.g. --public-url https://mainstay.example.com")


def check_issuer(url: str) -> None:
    """Raises StateUnusable for the issuer of tokens that anybody on the way could replace."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not safe or not parts.hostname or parts.query or parts.fragment or parts.username:
        msg = f"not the issuer of an identity provider: {url}"
        raise StateUnusable(msg, hint="give it as the provider writes it, e.g. --oidc-issuer https://login.example.com")


def _origin(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than localhost counts as reachable."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_anywhere(host: str) -> bool:
    """Whether it stands for every address of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def host_in_url(host: str) -> str:
    """IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
