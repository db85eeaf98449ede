"""Who may what: tenants, projects, roles, members and tokens."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.access import MemberKind, NewToken, Permission
from mainstay.domain.plan.action import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class AddTenant(Action):
    """Put a tenant on record. Refused if it is there, or if a cluster of the fleet runs all jobs as one user."""

    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddProject(Action):
    """Put a project of a tenant on record. Refused if it is there."""

    tenant: str
    project: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOwnRole(Action):
    """Put a role of a tenant's own on record, or say anew what it may: for its members, with their next request."""

    tenant: str
    name: str
    permissions: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveOwnRole(Action):
    """Forget a role. Refused while a member has it."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMember(Action):
    """Give somebody a role in a tenant or in one of its projects, in the place of the one there; a new name is a new member.

    Refused if the role or project is not there, if the member may more than `within`, before or afterwards, and if nobody
    would be left to administer the platform.
    """

    tenant: str
    name: str
    kind: MemberKind | None = None
    """None: as it is, and a person if new."""
    project: str = ""
    """Empty: in all of the tenant."""
    role: str
    within: frozenset[Permission]
    """What whoever says so may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember(Action):
    """Take somebody out of a tenant, with all tokens, or take back the role in one project. Refused as `SetMember`."""

    tenant: str
    name: str
    project: str = ""
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToken(Action):
    """Put a token on record. Refused if its member is not there, or may more than `within`."""

    token: NewToken
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeToken(Action):
    """End a token now. Nothing happens to one that was revoked; refused if it is not there."""

    tenant: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UseToken(Action):
    """A token was used: that is put on record, and nothing else."""

    id: str
