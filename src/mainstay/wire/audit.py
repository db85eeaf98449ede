"""The audit as it is chained: rows, heads and anchors, to verify, export and follow it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mainstay.wire.requests import Request
from mainstay.wire.views import View


class AuditRowView(View):
    """A row, exactly as its hash has it."""

    seq: int
    at: int
    """UTC microseconds."""
    actor: str
    tenant: str = ""
    action: str
    object: str
    detail: str = ""
    salt: str = ""
    """Empty: the detail was taken out."""
    payload: str
    """SHA-256 of salt and detail."""
    hash: str
    """SHA-256 of the hash before it and of the row; how exactly: docs/how-to/audit.md."""


class AuditHeadView(View):
    """The newest row; 0 before there is any."""

    seq: int
    hash: str


class AuditRowsView(View):
    """Some rows, oldest first, and the newest of all."""

    rows: list[AuditRowView]
    head: AuditHeadView


class AuditAnchorsView(View):
    """The newest anchors, and who signs them."""

    system: str
    """Identity of the platform."""
    keys: list[str]
    """Public keys (Ed25519), in hexadecimal; the first one signs now."""
    anchors: list[str]
    """Each a JSON text, as it is kept."""


class RedactRequest(Request):
    """Why the detail of a row has to go."""

    why: Annotated[str, Field(min_length=1, max_length=200)]
