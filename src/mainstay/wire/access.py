"""Tenants, projects, roles, members and tokens, as they travel."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from mainstay.wire.job_values import NAME, Duration
from mainstay.wire.requests import Request
from mainstay.wire.views import View

MEMBER = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$"
Action = Literal[
    "read", "submit", "stop", "deploy", "upload", "enter", "secrets", "volumes", "webhooks", "members", "manage"
]
"""What one may: the words of `mainstay role list`."""
Kind = Literal["person", "service"]


class TenantRequest(Request):
    """A tenant and who administers it."""

    name: Annotated[str, Field(pattern=NAME)]
    administrator: Annotated[str, Field(pattern=MEMBER)]


class TenantView(View):
    """Who is billed; nothing of one is visible to another."""

    name: str
    created_at: datetime | None = None
    created_by: str = ""
    removed_at: datetime | None = None
    """None while it is there."""


class NewTenantView(View):
    """A tenant that was made, with the token of its administrator. That is shown once; only its SHA-256 is kept."""

    name: str
    administrator: str
    token: str = ""
    """Empty if this was a repetition of the request that it was made for."""


class AdministratorRequest(Request):
    """Who is to administer a tenant: a member of it, or somebody new."""

    administrator: Annotated[str, Field(pattern=MEMBER)]


class NewAdministratorView(View):
    """Somebody who administers a tenant from now on, with a token. That is shown once; only its SHA-256 is kept."""

    tenant: str
    administrator: str
    token: str = ""
    """Empty if this was a repetition of the request that it was made for."""


class ProjectRequest(Request):
    """A project of one's own tenant."""

    name: Annotated[str, Field(pattern=NAME)]


class ProjectView(View):
    """A named part of a tenant."""

    name: str
    created_at: datetime | None = None
    """None of the default one, which is always there."""
    created_by: str = ""


class RoleRequest(Request):
    """What a role of the tenant's own may; no more than a maintainer."""

    may: Annotated[list[Action], Field(min_length=1, max_length=20)]


class RoleView(View):
    """A role and all that it may."""

    name: str
    may: list[str]
    built_in: bool


class MemberRequest(Request):
    """A role for somebody: in all of the tenant, or in one project. Roles elsewhere stay."""

    role: Annotated[str, Field(min_length=1, max_length=40)]
    project: Annotated[str, Field(max_length=40)] = ""
    """Empty: in all of the tenant."""
    kind: Kind | None = None
    """None: as it is, and a person if new."""
    subject: Annotated[str, Field(max_length=255)] = ""
    """Who it is to an identity provider: `sub` of its tokens. Empty: as it is."""
    issuer: Annotated[str, Field(max_length=400)] = ""
    """Of that provider; empty: the one at which people sign in."""


class MemberView(View):
    """Somebody of the tenant."""

    name: str
    kind: str
    role: str = ""
    """In all of the tenant; empty: none."""
    projects: dict[str, str] = Field(default_factory=dict)
    """Project -> the role there, beside that."""
    issuer: str = ""
    subject: str = ""
    """Who it is to an identity provider; empty: somebody who has tokens only."""
    groups: list[str] = Field(default_factory=list)
    """As the provider said at the last sign-in."""
    added_at: datetime
    added_by: str


class GroupRoleRequest(Request):
    """A role for the members of a group of the identity provider."""

    group: Annotated[str, Field(min_length=1, max_length=200)]
    role: Annotated[str, Field(min_length=1, max_length=40)]
    project: Annotated[str, Field(max_length=40)] = ""
    """Empty: in all of the tenant."""


class GroupRoleView(View):
    """What members of a group may."""

    group: str
    role: str
    project: str = ""
    """Empty: in all of the tenant."""


class SignInWaysView(View):
    """How one signs in here."""

    provider: str = ""
    """The identity provider; empty: there is none, and members have tokens."""


class SignInCodeView(View):
    """What a terminal shows to who wants to sign in, and sends along when it asks whether they have."""

    user_code: str
    url: str
    url_complete: str = ""
    """With the code in it; empty if the provider has none."""
    interval: int
    """Seconds between two questions."""
    seconds: int
    """For so long it is good."""
    device: str
    """To be sent along. Only we can read it."""


class SignInCodeRequest(Request):
    """Has somebody entered the code?"""

    device: Annotated[str, Field(min_length=1, max_length=4_000)]


class TokenRequest(Request):
    """A token: for whom, for how long, and what it allows at most, whatever its member may."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What it is for."""
    member: Annotated[str, Field(max_length=100)] = ""
    """Empty: whoever asks."""
    expires: Duration = "30d"
    """For so long it is valid, 90 days at most."""
    may: Annotated[list[Action], Field(max_length=20)] | None = None
    """None: all that its member may."""
    projects: Annotated[list[str], Field(max_length=100)] | None = None
    """None: in all."""
    spend: Annotated[float, Field(ge=0, le=1_000_000_000)] | None = None
    """All its runs together cost so much at most, in the currency of the prices; None: no limit."""
    gpus: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """All its open runs together ask for so many at most; None: no limit."""


class CapUseView(View):
    """What the runs of a token take of its caps. Amounts of money are exact decimals in the currency of the prices."""

    gpus: int
    """So many those that are open may hold."""
    spent: str
    """So much all of them have cost, by the ledger."""
    reserved: str
    """So much those that are open may cost yet."""


class TokenView(View):
    """A token on record; nothing here could be used in its place."""

    id: str
    member: str
    name: str
    kind: str = "token"
    """token; link or session: of a browser."""
    may: list[str] | None = None
    projects: list[str] | None = None
    gpus: int | None = None
    spend: float | None = None
    used: CapUseView | None = None
    """Of `gpus` and `spend`; None where neither is limited. Of a link or a session: those of the token that it is of."""
    state: str
    """valid, expired or revoked."""
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None = None
    used_at: datetime | None = None
    """To the hour."""


class SignedInView(View):
    """A token for the terminal of who has signed in. It is shown once."""

    id: str
    token: str


class NewTokenView(TokenView):
    """A token that was made. It is shown once; only its SHA-256 is kept."""

    token: str = ""
    """Empty if this was a repetition of the request that it was made for."""
