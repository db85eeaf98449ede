"""Who may do what: permissions, the roles that are sets of them, and members of tenants with their tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason


class Permission(StrEnum):
    """What a route or an operation needs."""

    READ = "read"
    """Looking at runs, logs, events, queues, nodes and costs, and asking endpoints. And making tokens for oneself."""
    SUBMIT = "submit"
    """Submitting runs, holding and releasing them, and giving them another priority."""
    STOP = "stop"
    """Ending runs, be they of somebody else."""
    DEPLOY = "deploy"
    """Serving models, and taking endpoints away."""
    UPLOAD = "upload"
    """Sending files of runs."""
    ENTER = "enter"
    """Running commands in pods and reaching their ports: more than reading, since files and secrets of a run lie open to it."""
    SECRETS = "secrets"
    """Setting and removing secrets. Whoever may submit may use them, and nobody may read them."""
    VOLUMES = "volumes"
    """Removing volumes, with all that is in them. Whoever may submit may use them, and have them made."""
    WEBHOOKS = "webhooks"
    """Telling addresses outside what happens to the work of the tenant."""
    MEMBERS = "members"
    """Who belongs to a tenant: its members and their tokens, its projects, and roles of its own."""
    MANAGE = "manage"
    """What belongs to the whole platform: its clusters, which tenants there are, and that each has an administrator."""
    CARRY = "carry"
    """Carry one cluster, as its agent does; nothing that people may."""


VIEWER: Final = "viewer"
USER: Final = "user"
MAINTAINER: Final = "maintainer"
TENANT_ADMIN: Final = "tenant-admin"
PLATFORM_ADMIN: Final = "platform-admin"
AGENT: Final = "agent"

_VIEWER = frozenset({Permission.READ})
_USER = _VIEWER | {Permission.SUBMIT, Permission.STOP, Permission.UPLOAD, Permission.ENTER}
_MAINTAINER = _USER | {Permission.DEPLOY, Permission.SECRETS, Permission.VOLUMES, Permission.WEBHOOKS}
_TENANT_ADMIN = _MAINTAINER | {Permission.MEMBERS}

ROLES: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        VIEWER: _VIEWER,
        USER: _USER,
        MAINTAINER: _MAINTAINER,
        TENANT_ADMIN: _TENANT_ADMIN,
        PLATFORM_ADMIN: _TENANT_ADMIN | {Permission.MANAGE},
    }
)
"""Of members, from the least to the most: each may all that the one before it may."""
AGENT_PERMISSIONS: Final = frozenset({Permission.CARRY})
"""Of agents, which are members of nothing."""

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
NAME_RULE: Final = "lower-case letters, digits and dashes, 1 to 40, a letter or digit first and last"
"""Of tenants, projects and roles."""
DEFAULT_TENANT: Final = "default"
DEFAULT_PROJECT: Final = "default"
"""Every tenant has it."""
LOCAL_ADMINISTRATOR: Final = "admin"
"""Of the default tenant: whoever reads the file of the token in a state directory."""
TOKEN_DAYS_MAX: Final = 90
"""Source: security.md C3."""


class MemberKind(StrEnum):
    """Who stands behind a name."""

    PERSON = "person"
    SERVICE = "service"
    """A program, with tokens that others make for it: CI, an agent that acts for somebody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Who is billed; nothing of one is visible to another. Times in UTC microseconds."""

    name: str
    created_at: int
    created_by: str
    removed_at: int = 0
    """0: it is there. The name of one that was removed stays taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A named part of a tenant. Times in UTC microseconds."""

    tenant: str
    name: str
    created_at: int
    created_by: str
    removed_at: int = 0
    """As that of a tenant."""


def tenant_gone(name: str, removed_at: int) -> Reason:
    """The refusal of whoever comes with the name of a tenant that was removed."""
    return Reason(code=Code.TENANT_GONE, object=name, numbers={"date": _day(removed_at)})


def project_gone(name: str, removed_at: int) -> Reason:
    """The same of a project."""
    return Reason(code=Code.PROJECT_GONE, object=name, numbers={"date": _day(removed_at)})


GONE_HINT: Final = "use another name: runs, files and costs are on record under this one"


def _day(at: int) -> str:
    return datetime.fromtimestamp(at // MICROSECONDS_PER_SECOND, UTC).date().isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRole:
    """A role that a tenant has made for itself: no more than a maintainer may."""

    tenant: str
    name: str
    permissions: frozenset[Permission]
    set_at: int
    set_by: str


OWN_ROLE_PERMISSIONS: Final = ROLES[MAINTAINER]
"""What a role that a tenant makes may at most: who belongs to the tenant, only the built-in roles decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRole:
    """What members of a group of an identity provider may in a tenant: in all of it, or in one project."""

    tenant: str
    group: str
    project: str = ""
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody of a tenant, as an administrator of it has said, or as a role of one of their groups says."""

    tenant: str
    name: str
    kind: MemberKind = MemberKind.PERSON
    role: str = ""
    """In all of the tenant; empty: none."""
    grants: Mapping[str, str] = field(default_factory=dict)
    """Project -> the role there, beside that of the whole tenant."""
    issuer: str = ""
    subject: str = ""
    """Who it is to the identity provider `issuer`; both empty: somebody who has tokens only."""
    groups: tuple[str, ...] = ()
    """As the provider said at the last sign-in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecord:
    """A member on record."""

    member: Member
    added_at: int
    added_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a token allows at most, whatever its member may: None leaves it as it is."""

    permissions: frozenset[Permission] | None = None
    projects: frozenset[str] | None = None
    gpus: int | None = None
    """All its open runs together may ask for so many."""
    spend_micros: int | None = None
    """All its runs together may cost so much, in millionths of the currency of the price book."""

    @property
    def of_runs(self) -> bool:
        """Whether what its runs take together is limited."""
        return self.gpus is not None or self.spend_micros is not None

    def of(self, permissions: frozenset[Permission]) -> frozenset[Permission]:
        """What is left of these."""
        return permissions if self.permissions is None else permissions & self.permissions


NO_CAPS: Final = Caps()


class TokenKind(StrEnum):
    """What a token is good for."""

    TOKEN = "token"  # noqa: S105 no secret
    """In the header of requests."""
    LINK = "link"
    """Once, to sign a browser in."""
    SESSION = "session"
    """In the cookie of a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token that is to go on record: what is kept of it is its digest."""

    id: str
    tenant: str
    member: str
    name: str
    """What it is for, in the words of whoever made it."""
    kind: TokenKind = TokenKind.TOKEN
    parent: str = ""
    """The token that it was made with and ends with; empty: none."""
    root: str = ""
    """The token whose caps it shares, through however many links and sessions; empty: it has its own."""
    issuer: str = ""
    """The identity provider at which its member had signed in for it; empty: none."""
    provider_session: str = ""
    """What the provider calls the session (`sid`) that it ends with; empty: none."""
    digest: str = field(repr=False)
    """SHA-256 of the whole token, in hex."""
    caps: Caps = NO_CAPS
    expires_at: int
    """UTC microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token on record, without anything by which it could be used. Times in UTC microseconds; 0: not yet."""

    id: str
    tenant: str
    member: str
    name: str
    kind: TokenKind = TokenKind.TOKEN
    parent: str = ""
    root: str = ""
    """The token whose caps it shares; empty: it has its own."""
    issuer: str = ""
    provider_session: str = ""
    caps: Caps
    created_at: int
    created_by: str
    expires_at: int
    revoked_at: int = 0
    used_at: int = 0
    """When it was used last, to the hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A member, and what the words of its roles mean."""

    member: Member
    own_roles: Mapping[str, frozenset[Permission]] = field(default_factory=dict)
    """Those of the tenant, by name."""
    group_roles: tuple[GroupRole, ...] = ()
    """Those of the groups of the member, the widest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """All that decides what a token may at this moment, as one read found it."""

    token: TokenRecord
    digest: str = field(repr=False)
    standing: Standing | None
    """None: the member was removed."""
