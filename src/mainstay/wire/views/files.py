"""What outlives runs: files, volumes and secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from mainstay.wire.views.base import View


class NamedVolumeView(View):
    """A volume that outlives runs. A name is unique within a project and a cluster."""

    name: str
    project: str
    cluster: str
    place: str = ""
    """Where in its cluster it lies, in words; empty: every node reaches it."""
    size_bytes: int = 0
    """0: its cluster does not say, or sets no limit."""
    storage_class: str = ""
    access: list[str] = Field(default_factory=list)
    state: Literal["ready", "unbound", "removing"]
    """`unbound`: there is no storage for it yet; it is found where it is needed first."""
    used_by: list[str] = Field(default_factory=list)
    """Ids of the workloads that wait, run or end, and name it."""


class SecretView(View):
    """A secret: its value is never shown to anybody."""

    name: str
    set_at: datetime
    set_by: str


class TreeEntry(View):
    """A file of a tree: relative path, size in bytes, SHA-256 in hex."""

    path: str
    size: Annotated[int, Field(ge=0)]
    digest: str
    executable: bool = False


class TreeView(View):
    """A tree of files by content."""

    digest: str
    entries: list[TreeEntry]


class MissingView(View):
    """Blobs of a tree that still have to be sent before the tree can be stored."""

    tree: str
    """Digest of the tree; stored only when `missing` is empty."""
    missing: list[str]


class KeyView(View):
    """A key that seals secrets and credentials, by its name: nothing follows from that."""

    id: str
    held: bool
    """This replica has it; what is sealed with another one cannot be opened here."""
    seals: bool
    """What is sealed from now on is sealed with it."""
    sealed: int
    """So many secrets and credentials are. An older key of none may be dropped."""
