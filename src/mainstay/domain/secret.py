"""Secrets: values that jobs need and nobody may read. Here are only their names; the value is sealed, or in flight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mainstay.domain.errors import Invalid

SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
"""It is the name of a file, too."""
SECRET_NAME_RULE = "letters, digits, `_`, `-` and `.`, 1 to 63, a letter or digit first"  # noqa: S105 no secret
SECRET_BYTES_MAX = 64 * 1024
"""A certificate, a key file, a kubeconfig: far smaller. Larger things are files of the job."""

SecretVersion: TypeAlias = tuple[str, str, int]
"""Tenant, name and version: one value."""

ENVIRONMENT_FILE = ".environment"
"""Beside the secrets: those that are to be variables, as a shell reads them. No secret has such a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretUse:
    """A secret that a workload asks for: a file of that name and, if `env` is not empty, a variable of that name."""

    name: str
    env: str = ""
    file: bool = True
    """False: the pod itself never sees it; it opens a store from which or to which its files are copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRecord:
    """A secret on record, without its value. Its name is unique within a tenant."""

    tenant: str
    name: str
    set_at: int
    set_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What is sealed in the database: a secret of a tenant or, where `tenant` is empty, the credentials of a cluster."""

    tenant: str
    name: str
    version: int = 0
    """Of two values of one secret the later has the higher one. Sealing the same value anew is no other version."""
    text: str = field(repr=False)

    @property
    def place(self) -> SecretVersion:
        """What orders them."""
        return self.tenant, self.name, self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A secret in the clear, on its way into a pod: only in memory, never in a message or a repr."""

    use: SecretUse
    value: bytes = field(repr=False)


def files_of(handed: Sequence[Handed]) -> dict[str, bytes]:
    """What a pod is handed, by the name of the file: each secret, and what a shell reads to have variables of them."""
    files = {one.use.name: one.value for one in handed if one.use.file}
    lines = [_assignment(one) for one in handed if one.use.env]
    return {**files, ENVIRONMENT_FILE: b"".join(lines)} if lines else files


def _assignment(handed: Handed) -> bytes:
    """In single quotes a shell takes everything as it is but the quote itself; a NUL no variable can hold.

    The last line break is left out, as `$(cat FILE)` would: editors and `echo` put one there.
    """
    value = handed.value.removesuffix(b"\n")
    if b"\0" in value:
        msg = f"the secret {handed.use.name} holds a NUL character and cannot be the variable {handed.use.env}"
        raise Invalid(msg, object_=handed.use.name, hint="read it from its file in $MAINSTAY_SECRETS_DIR")
    quoted = value.replace(b"'", b"'\\''")
    return b"export " + handed.use.env.encode() + b"='" + quoted + b"'\n"
