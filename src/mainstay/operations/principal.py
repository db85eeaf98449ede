"""Who asks, what they may do, and under which key a request is done at most once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from mainstay.domain.errors import Forbidden
from mainstay.domain.plan import Idempotency
from mainstay.ports import Store


class Permission(StrEnum):
    """What a route or an operation needs."""

    READ = "read"
    SUBMIT = "submit"
    STOP = "stop"
    DEPLOY = "deploy"
    UPLOAD = "upload"
    ENTER = "enter"
    """Running commands in pods and reaching their ports: more than reading, since files and secrets of a run lie open to it."""
    SECRETS = "secrets"
    """Setting and removing secrets. Whoever may submit may use them, and nobody may read them."""
    VOLUMES = "volumes"
    """Removing volumes, with all that is in them. Whoever may submit may use them, and have them made."""
    WEBHOOKS = "webhooks"
    """Telling addresses outside what happens to the work of the tenant."""
    MANAGE = "manage"
    """What belongs to the whole platform: its clusters."""
    CARRY = "carry"
    """Carry one cluster, as its agent does; nothing that people may."""


ROLES: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        "viewer": frozenset({Permission.READ}),
        "user": frozenset(Permission) - {Permission.MANAGE, Permission.CARRY},
        "admin": frozenset(Permission) - {Permission.CARRY},
        "agent": frozenset({Permission.CARRY}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. The tenant of everything it touches comes from here, never from the path."""

    name: str
    tenant: str
    role: str
    cluster: str = ""
    """The only one that it may carry: of an agent."""

    def may(self, permission: Permission) -> bool:
        """Whether the role of the caller includes `permission`."""
        return permission in ROLES.get(self.role, frozenset())

    def require(self, permission: Permission) -> None:
        """Raises Forbidden unless the role of the caller includes `permission`."""
        if not self.may(permission):
            msg = f"the role {self.role} may not {permission}"
            hint = (
                "ask an administrator of the platform"
                if permission is Permission.MANAGE
                else "ask a maintainer of the project for the role 'user'"
            )
            raise Forbidden(msg, object_=self.name, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """The Idempotency-Key of a write: scope (tenant, route, key) and the SHA-256 of the body. Source: reliability.md R10."""

    route: str
    key: str
    body_hash: str

    def with_reply(self, reply: str, *, tenant: str) -> Idempotency:
        """What the store keeps, in the transaction of the write itself."""
        return Idempotency(tenant=tenant, route=self.route, key=self.key, body_hash=self.body_hash, reply=reply)


def replayed(store: Store, principal: Principal, request: RequestKey | None) -> Done | None:
    """What this very request was answered before, or None. Raises KeyReused.

    Asked before anything else is looked at: a repetition gets its reply also when the world has moved on since.
    """
    reply = store.replied(request.with_reply("", tenant=principal.tenant)) if request else None
    return None if reply is None else Done(reply=reply, replayed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a write answers: the reply as sent the first time, and whether this was a repetition."""

    reply: str
    replayed: bool
