"""Who asks, what they may do, and under which key a request is done at most once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mainstay.domain.access import AGENT_PERMISSIONS, NO_CAPS, ROLES, USER, Caps, Permission
from mainstay.domain.errors import Conflict, Forbidden
from mainstay.domain.plan import Action, Idempotency, Plan
from mainstay.domain.workload import Workload
from mainstay.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. The tenant of everything it touches comes from here, never from the path."""

    name: str
    tenant: str
    role: str
    """In all of the tenant; empty for a member of some of its projects only."""
    own_role: frozenset[Permission] | None = None
    """What `role` may, where it is one that the tenant has made."""
    grants: Mapping[str, frozenset[Permission]] = field(default_factory=dict)
    """Project -> what the caller may there beside that."""
    caps: Caps = NO_CAPS
    """What the token allows at most."""
    token: str = ""
    """The id of the token, or of an agent its digest; empty for the administrator of the machine and for browsers of theirs."""
    root: str = ""
    """The token whose caps it shares and with whose runs its own are counted; empty for who came without one."""
    identity: tuple[str, str] | None = None
    """Issuer and subject of who comes with a token of an identity provider."""
    until: int = 0
    """When that ends, in UTC microseconds."""
    cluster: str = ""
    """The only one that it may carry: of an agent."""

    @property
    def everywhere(self) -> frozenset[Permission]:
        """What the caller may in every project of its tenant, and beyond projects."""
        if self.cluster:
            return AGENT_PERMISSIONS
        if self.caps.projects is not None:
            return frozenset()
        return self.caps.of(self._role)

    @property
    def _role(self) -> frozenset[Permission]:
        return ROLES.get(self.role, frozenset()) if self.own_role is None else self.own_role

    def may(self, permission: Permission, project: str = "") -> bool:
        """Whether the caller may this in a project; where none is named, in all of its tenant."""
        if not project:
            return permission in self.everywhere
        if self.caps.projects is not None and project not in self.caps.projects:
            return False
        return permission in self.caps.of(self._role | self.grants.get(project, frozenset()))

    def projects(self, permission: Permission) -> tuple[str, ...] | None:
        """Where the caller may this, by name; None: in every project of its tenant, those to come included."""
        if self.may(permission):
            return None
        named = self.caps.projects if self.caps.projects is not None else self.grants.keys()
        return tuple(sorted(project for project in named if self.may(permission, project)))

    def require(self, permission: Permission, project: str = "") -> None:
        """Raises Forbidden unless the caller may this in the project, or, where none is named, in all of its tenant."""
        if self.may(permission, project):
            return
        here = f" in project {project}" if project else ""
        if permission in self.caps.of(frozenset(Permission)) and (
            self.caps.projects is None or project in self.caps.projects
        ):
            msg = f"the role {self.role or 'none'} may not {permission}{here}"
            raise Forbidden(msg, object_=self.name, hint=_whom_to_ask(permission))
        msg = f"this token may not {permission}{here}"
        raise Forbidden(msg, object_=self.name, hint="it is limited: mainstay token show ID; use another that may")

    @property
    def anywhere(self) -> frozenset[Permission]:
        """What the caller may in one project at least."""
        return frozenset(permission for permission in Permission if self.projects(permission) != ())

    def require_somewhere(self, permission: Permission) -> None:
        """Raises Forbidden for a caller who may this in no project at all: of others each object is asked about."""
        if self.projects(permission) == ():
            self.require(permission)


def _whom_to_ask(permission: Permission) -> str:
    if permission is Permission.MANAGE:
        return "ask an administrator of the platform"
    needed = next((role for role, allowed in ROLES.items() if permission in allowed), USER)
    return f"ask an administrator of the tenant for the role {needed!r}: mainstay member list"


def workload_for(store: Store, principal: Principal, reference: str, permission: Permission) -> Workload:
    """A workload by id or the newest of a name, which the caller may treat so (security.md D1).

    Raises NotFound also for one of another tenant, or of a project into which the caller may not look; Forbidden for one that
    the caller may only look at.
    """
    found = store.workload(reference, tenant=principal.tenant, projects=principal.projects(Permission.READ))
    principal.require(permission, found.project)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """The Idempotency-Key of a write, of one member and one route, and the SHA-256 of its body. Source: reliability.md R10."""

    route: str
    key: str
    body_hash: str

    def with_reply(self, reply: str, by: Principal) -> Idempotency:
        """What the store keeps, in the transaction of the write itself. Nobody gets the reply of somebody else."""
        return Idempotency(
            tenant=by.tenant, member=by.name, route=self.route, key=self.key, body_hash=self.body_hash, reply=reply
        )


def replayed(store: Store, principal: Principal, request: RequestKey | None) -> Done | None:
    """What this very request was answered before, or None. Raises KeyReused.

    Asked before anything else is looked at: a repetition gets its reply also when the world has moved on since.
    """
    reply = store.replied(request.with_reply("", principal)) if request else None
    return None if reply is None else Done(reply=reply, replayed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a write answers: the reply as sent the first time, and whether this was a repetition."""

    reply: str
    replayed: bool


def committed(
    store: Store, principal: Principal, action: Action, *, now: int, request: RequestKey | None, hint: str
) -> Done:
    """One change, whose answer is empty. Raises Conflict, with what to do then, where the store refuses it."""
    kept = request.with_reply("", principal) if request else None
    plan = Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept)
    try:
        result = store.commit(plan)
    except Conflict as error:
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error
    return Done(reply="", replayed=result.reply is not None)
