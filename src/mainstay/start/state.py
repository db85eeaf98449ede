"""The state directory of a platform: whose it is, and the name, the token and the key that lie in it."""

from __future__ import annotations

import json
import os
import secrets
import stat
from pathlib import Path

from mainstay.domain.errors import StateUnusable
from mainstay.operations.sealing import KEY_BYTES
from mainstay.sdk.config import write_private

TOKEN_PREFIX = "mst_"  # noqa: S105 what every token begins with
TOKEN_BYTES = 32
"""256 bits of randomness (security.md C3)."""
KEY_FILE = "secrets-key"
KEY_PREFIX = "msk_"


def prepare_directory(state: Path) -> None:
    """Make the state directory, for its owner only. Raises StateUnusable.

    One that is there already is closed to others if it is empty or holds a state; else it is somebody's for other things.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = state.stat()
        if found.st_uid != os.geteuid():
            msg = f"the state directory {state} belongs to another user"
            raise StateUnusable(msg, hint="choose another with --state: it holds tokens and everybody's files")
        if stat.S_IMODE(found.st_mode) & 0o077:
            if any(state.iterdir()) and not (state / "token").exists():
                msg = f"others than its owner may use {state}, and it holds other things than a state"
                raise StateUnusable(msg, hint="choose another with --state, one of its own")
            state.chmod(0o700)
        probe = state / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        msg = f"cannot write to the state directory {state}: {error.strerror}"
        raise StateUnusable(msg, hint="choose another with --state, or make this one writable") from error


def cluster_name(directory: Path, *, system: str, shared: bool) -> str:
    """The name of the machine as a cluster, given once and kept in the directory of its runs. Raises StateUnusable.

    In a `shared` database every machine needs a name of its own: two that led one cluster would run its jobs twice.
    And the runs of a directory belong to one database: for another one they are strangers, to be ended as orphans.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "cluster.json"
    try:
        owner = json.loads(path.read_text())
        known = str(owner["system"]), str(owner["name"])
    except FileNotFoundError:
        known = system, f"local-{secrets.token_hex(3)}" if shared else "local"
        write_private(path, json.dumps({"system": system, "name": known[1]}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"cannot read whose runs lie in {directory}: {path.name} is damaged"
        raise StateUnusable(
            msg, hint="restore the state directory from a backup, or choose another with --state"
        ) from error
    if known[0] != system:
        msg = f"the runs in {directory} belong to another database"
        raise StateUnusable(msg, hint="start with that database again, or choose another directory with --state")
    return known[1]


def administrator_token(state: Path) -> str:
    """The token of the local administrator, made at the first start, in a file that only its owner reads.

    Raises StateUnusable for a file that holds none: an empty token would let everybody in.
    """
    path = state / "token"
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = f"{TOKEN_PREFIX}{secrets.token_urlsafe(TOKEN_BYTES)}"
        write_private(path, token)
        return token
    if not token.startswith(TOKEN_PREFIX) or len(token) < len(TOKEN_PREFIX) + TOKEN_BYTES:
        msg = f"there is no token in {path}"
        raise StateUnusable(msg, hint="remove the file: the next start makes a new token")
    return token


def sealing_keys(path: Path, *, given: bool) -> tuple[bytes, ...]:
    """The keys in a file that only its owner reads, one a line: the first seals, the others open what was sealed before it.

    One is made at the first start. A file that was `given` must be there: a new key could not open what the other replicas have
    sealed. Raises StateUnusable.
    """
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text()
    except FileNotFoundError as error:
        if given:
            msg = f"there is no key in {path}"
            raise StateUnusable(msg, hint=f"copy the file `{KEY_FILE}` of another replica's state directory") from error
        key = secrets.token_bytes(KEY_BYTES)
        write_private(path, KEY_PREFIX + key.hex())
        return (key,)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the key in {path}: {getattr(error, 'strerror', '') or 'it is no text'}"
        raise StateUnusable(msg, hint="make it readable for the user who runs the platform") from error
    if mode & 0o077:
        msg = f"others than its owner may read the key in {path}"
        raise StateUnusable(msg, hint=f"close it to them: chmod 600 {path}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = tuple(_key(path, number, line) for number, line in enumerate(lines, start=1))
    if not keys:
        raise _no_key(path, 1)
    return keys


def _key(path: Path, number: int, line: str) -> bytes:
    try:
        key = bytes.fromhex(line.removeprefix(KEY_PREFIX))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or not line.startswith(KEY_PREFIX):
        raise _no_key(path, number)
    return key


def _no_key(path: Path, number: int) -> StateUnusable:
    msg = f"there is no key in {path}" + (f", line {number}" if number > 1 else "")
    return StateUnusable(
        msg, hint="restore it from a backup; without it the clusters must be added again, with a new file"
    )


def client_secret(path: Path) -> str:
    """The secret by which an identity provider knows us, in a file that others do not read. Raises StateUnusable."""
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the secret in {path}: {error}"
        raise StateUnusable(msg, hint="make it readable for the user who runs the platform") from error
    if mode & 0o077:
        msg = f"others than its owner may read the secret in {path}"
        raise StateUnusable(msg, hint=f"close it to them: chmod 600 {path}")
    if not text:
        msg = f"there is no secret in {path}"
        raise StateUnusable(msg, hint="leave out --oidc-secret for a public client")
    return text
