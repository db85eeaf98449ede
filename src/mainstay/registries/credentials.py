"""Who we are at registries: a file in the form of Docker's `config.json`, with `auths` and nothing else.

What stands there for an address is sent to that address, over TLS, and to no other. Where a registry has its tokens handed out
elsewhere it gets them for the same credentials only: the token goes to the registry, so it must be worth no more there than
what the registry may know anyway. No program is run to get a password. The file is read with every use, so it may be replaced
while the platform runs.
"""

from __future__ import annotations

import base64
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from mainstay.domain.errors import Invalid, MainstayError, Unavailable

log = structlog.get_logger()
HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Only a registry on this machine is asked without TLS."""
FILE_BYTES_MAX = 1 << 20
_ADDRESS = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?\Z|\[[0-9a-f:]+\](:[0-9]{1,5})?\Z")
_OF_THE_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HUB = ("registry-1.docker.io", "auth.docker.io")
"""Where Docker Hub is asked, and where it hands out its tokens."""


class Credentials:
    """Of a file; without one we are nobody."""

    def __init__(self, path: Path | None) -> None:
        """Raises Invalid for a file that is not one of credentials, or that others may read."""
        self._path = path
        if path:
            _read(path)

    def of(self, address: str) -> Mapping[str, str]:
        """The header for this very host and port, or none. Raises Unavailable if the file is not good any more."""
        known = self._known().get(address)
        return {"Authorization": f"Basic {known}"} if known else {}

    def for_tokens(self, registry: str, realm: str) -> Mapping[str, str]:
        """The header for where a registry has its tokens handed out: what stands for both addresses, if that is the same. For
        Docker Hub one entry stands for both. Raises Unavailable as `of` does.
        """
        known = self._known()
        ours, theirs = known.get(registry), known.get(realm)
        return {"Authorization": f"Basic {theirs}"} if theirs and theirs == ours else {}

    def _known(self) -> Mapping[str, str]:
        if not self._path:
            return {}
        try:
            return _read(self._path)
        except MainstayError as error:
            # Whose job it is cannot mend it, and need not know where the file lies.
            log.error("registry_credentials_unusable", why=error.message, hint=error.hint)  # noqa: TRY400 - it says all
            msg = "image: our credentials for registries cannot be used"
            raise Unavailable(msg, object_="image", hint="ask an administrator to look at the log") from error


NOBODY = Credentials(None)


def host_of(address: str) -> str:
    """Without its port."""
    return address if address.endswith("]") else address.rpartition(":")[0] or address


def _read(path: Path) -> Mapping[str, str]:
    """The credentials by address, as they are sent. Raises Invalid; no message of it has any of them."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _bad(
            path, f"cannot be read: {error.strerror}", "make it readable for the user who runs the platform"
        ) from None
    if mode & 0o077:
        raise _bad(path, "is open to others than its owner", f"close it to them: chmod 600 {path}")
    try:
        found: object = json.loads(content) if len(content) <= FILE_BYTES_MAX else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("auths"), dict):
        raise _bad(
            path, "has no `auths`", 'write {"auths": {"registry.example.com": {"auth": BASE64 OF "user:password"}}}'
        )
    if more := sorted(found.keys() - {"auths"}):
        raise _bad(
            path, f"has {more[0]!r}", "only `auths` counts here, and no program is run: make a file of that alone"
        )
    known: dict[str, str] = {}
    for address, one in found["auths"].items():
        for host in _hosts(path, address):
            known[host] = _basic(path, address, one)
    return known


def _hosts(path: Path, address: str) -> tuple[str, ...]:
    """To which it is sent. Docker writes `https://index.docker.io/v1/` for its own."""
    url = urlsplit(address if "://" in address else f"https://{address}")
    if url.scheme != "https" or url.path not in {"", "/", "/v1/", "/v2/"} or not _ADDRESS.match(url.netloc):
        hint = "name host and port as images do, as registry.example.com:5000"
        raise _bad(path, f"names {address!r}, which is no registry", hint)
    return _HUB if url.netloc in _OF_THE_HUB else (url.netloc,)


def _basic(path: Path, address: str, one: object) -> str:
    given = one.get("auth") if isinstance(one, dict) else None
    try:
        plain = base64.b64decode(given, validate=True) if isinstance(given, str) else b""
    except ValueError:
        plain = b""
    if not plain.partition(b":")[2]:
        hint = "write user and password as base64 of user:password; programs and identity tokens are not used"
        raise _bad(path, f"has no `auth` for {address!r}", hint)
    return base64.b64encode(plain).decode()


def _bad(path: Path, why: str, hint: str) -> Invalid:
    return Invalid(f"the file of credentials for registries, {path}, {why}", hint=hint)
