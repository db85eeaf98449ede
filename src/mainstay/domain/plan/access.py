"""Who may what: tenants, projects, roles, members, groups and tokens."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.access import MemberKind, NewToken, Permission
from mainstay.domain.identity import Identity
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
class RemoveProject(Action):
    """End a project for good, with all roles in it, its webhooks, and tokens that are good nowhere else.

    Refused while it has open runs, endpoints or volumes. Its name stays taken: nothing is put into it from then on.
    """

    tenant: str
    project: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveTenant(Action):
    """End a tenant for good, with its members and their tokens, its roles, secrets and webhooks.

    Refused while it has open runs, endpoints, volumes, or projects beside the default one; if nobody would be left to administer
    the platform; and for the default one. Its name stays taken: nothing is put into it from then on.
    """

    tenant: str


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
    identity: Identity | None = None
    """Who it is to an identity provider; None: as it is."""
    within: frozenset[Permission]
    """What whoever says so may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitMember(Action):
    """Somebody has signed in at an identity provider: what it says of their groups is on record from now on.

    Who is on record already is that member, whatever `name` says; else `name` is a new member of the tenant, or refused if there
    is one.
    """

    tenant: str
    name: str
    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class SetGroupRole(Action):
    """Give the members of a group of the identity provider a role, in the place of the one there. Refused as `SetMember`."""

    tenant: str
    group: str
    project: str = ""
    """Empty: in all of the tenant."""
    role: str
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveGroupRole(Action):
    """Take it back. Refused if it is not there, or if it may more than `within`."""

    tenant: str
    group: str
    project: str = ""
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember(Action):
    """Take somebody out of a tenant, with all tokens, or take back the role in one project. Refused as `SetMember`."""

    tenant: str
    name: str
    project: str = ""
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToken(Action):
    """Put a token on record. Refused if its member is not there, or may more than `within`, or its parent has ended."""

    token: NewToken
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeToken(Action):
    """End a token now, and what was made with it. Nothing happens to one that was revoked; refused if it is not there."""

    tenant: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendToken(Action):
    """End a token that is good for once. Refused if it has ended, of two who come with it to the second."""

    tenant: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UseToken(Action):
    """A token was used: that is put on record, and nothing else."""

    id: str
