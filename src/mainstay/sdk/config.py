"""Where the platform is and with which token: environment, then login, then the platform that runs on this machine."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mainstay.sdk.errors import NotConfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A platform and a token for it. The token is not shown."""

    url: str
    token: str = field(repr=False)


def find(*, server: str | None = None, token: str | None = None) -> Server:
    """The platform to talk to. Raises NotConfigured.

    In this order: the arguments; $MAINSTAY_SERVER with $MAINSTAY_TOKEN; the state directory that $MAINSTAY_STATE names;
    the last `mainstay login`; the platform that runs on this machine.
    """
    url = server or os.environ.get("MAINSTAY_SERVER", "")
    if url:
        given = token or os.environ.get("MAINSTAY_TOKEN", "")
        known = _read(login_file(), "server") or running_here()
        if not given and known and known.url == url.rstrip("/"):
            given = known.token
        return checked(Server(url=url.rstrip("/"), token=given))
    here = running_here()
    found = here if here and "MAINSTAY_STATE" in os.environ else _read(login_file(), "server") or here
    if found is None:
        msg = "no platform to talk to: none runs on this machine, and nobody has logged in"
        raise NotConfigured(msg, hint="start one with `mainstay up`, or log in with `mainstay login --server URL`")
    return checked(Server(url=found.url, token=token or found.token))


def checked(server: Server) -> Server:
    """Raises NotConfigured for an address that is none, or over which a token would travel in the open."""
    parts = _split(server.url)
    if parts.username is not None or parts.password is not None:
        # Never shown: it would stand in every message about this address.
        msg = "the address of a platform holds no user and no password"
        raise NotConfigured(msg, hint="give one such as https://mainstay.example.com")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        msg = f"not the address of a platform: {server.url!r}"
        raise NotConfigured(msg, hint="give one such as https://mainstay.example.com")
    if not server.token:
        msg = f"there is no token for {server.url}"
        raise NotConfigured(msg, hint=f"log in with `mainstay login --server {server.url}`, or set MAINSTAY_TOKEN")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        msg = f"refusing to send a token over plain http to {parts.hostname}"
        raise NotConfigured(msg, hint="use https")
    return server


def _split(url: str) -> SplitResult:
    """Raises NotConfigured for brackets that do not match and for what is no port."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        msg = f"not the address of a platform: {error}"
        raise NotConfigured(msg, hint="give one such as https://mainstay.example.com") from error
    return parts


def trusted() -> ssl.SSLContext | bool:
    """Who vouches for the platform: the authorities in the file that $MAINSTAY_CA_FILE names, else those of this machine.

    Raises NotConfigured.
    """
    path = os.environ.get("MAINSTAY_CA_FILE", "")
    if not path:
        return True
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        msg = f"there are no certificates of authorities in {path}: {error.strerror or error}"
        raise NotConfigured(msg, hint="let MAINSTAY_CA_FILE name a file with certificates as PEM") from error


def running_here() -> Server | None:
    """The platform of the state directory, while the process that wrote where it is still runs.

    After a crash the file is left, and whoever has taken the port since must not be sent the token.
    """
    path = state_directory() / "server.json"
    try:
        content = json.loads(path.read_text())
        alive = process_start(int(content["pid"])) == str(content["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _read(path, "url") if alive else None


def process_start(pid: int) -> str:
    """When a process started, in ticks since the machine did: with its pid, what no other process has. Raises OSError.

    Source: proc_pid_stat(5), field 22; the name in field 2 may hold spaces and brackets.
    """
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def save_login(server: str, token: str) -> Path:
    """Remember a platform, in a file that only its owner reads."""
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, json.dumps({"server": server.rstrip("/"), "token": token}))
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads; it appears whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def forget_login() -> bool:
    """Whether there was one."""
    try:
        login_file().unlink()
    except FileNotFoundError:
        return False
    return True


def login_file() -> Path:
    """Where a login is remembered."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "mainstay" / "config.json"


def state_directory() -> Path:
    """The state of the platform on this machine."""
    return Path(os.environ.get("MAINSTAY_STATE") or Path.home() / ".mainstay")


def _read(path: Path, url_field: str) -> Server | None:
    try:
        content = json.loads(path.read_text())
        return Server(url=str(content[url_field]).rstrip("/"), token=str(content["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
