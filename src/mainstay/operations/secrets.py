"""Secrets: set, list and remove them; check that those a job asks for are there; hand them to its pods.

A value comes in and goes into pods. No answer, event, audit row or message ever shows one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation, Owner, Seen, Wanted
from mainstay.domain.errors import Conflict, Denied, Gone, Invalid, NotFound, Unavailable
from mainstay.domain.plan import HandSecrets, Plan, RemoveSecret, SetSecret
from mainstay.domain.reason import Code, Reason
from mainstay.domain.secret import SECRET_BYTES_MAX, SECRET_NAME, SECRET_NAME_RULE, Handed, Sealed, SecretRecord
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.operations.redaction import opened
from mainstay.operations.sealing import Sealing
from mainstay.ports import Clock, Store

SECRETS_MAX = 1_000
"""Of one tenant."""
ATTEMPTS_MAX = 5
"""To hand out values that nobody changes meanwhile."""


def put(store: Store, sealing: Sealing, principal: Principal, name: str, value: bytes, *, now: int) -> SecretRecord:
    """Store a secret, or a new value of one that is there: pods that start from now on are handed that. Raises Invalid."""
    principal.require(Permission.SECRETS)
    if not SECRET_NAME.match(name):
        msg = f"name: {name!r} is not allowed"
        raise Invalid(msg, object_="name", hint=f"allowed: {SECRET_NAME_RULE}")
    if not value:
        msg = "value: it is empty"
        raise Invalid(msg, object_="value", hint=f"to forget a secret: mainstay secret remove {name}")
    if len(value) > SECRET_BYTES_MAX:
        msg = f"value: {len(value)} bytes are not allowed"
        raise Invalid(msg, object_="value", hint=f"at most {SECRET_BYTES_MAX}; larger files go into `workdir`")
    there = {row.name for row in store.secrets(tenant=principal.tenant)}
    if name not in there and len(there) >= SECRETS_MAX:
        msg = f"there are {len(there)} secrets already"
        raise Invalid(msg, object_="name", hint="remove those that nobody uses: mainstay secret list")
    sealed = sealing.sealed_secret(principal.tenant, name, value)
    reason = Reason(code=Code.SECRET_SET, object=name, numbers={"by": principal.name})
    action = SetSecret(tenant=principal.tenant, name=name, sealed=sealed, reason=reason)
    store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True))
    return SecretRecord(tenant=principal.tenant, name=name, set_at=now, set_by=principal.name)


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Forget a secret. Pods that have it keep it; those that start later fail, in words. Raises NotFound."""
    principal.require(Permission.SECRETS)
    if done := replayed(store, principal, request):
        return done
    reason = Reason(code=Code.SECRET_REMOVED, object=name, numbers={"by": principal.name})
    action = RemoveSecret(tenant=principal.tenant, name=name, reason=reason)
    kept = request.with_reply("", principal) if request else None
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        here = [row.name for row in store.secrets(tenant=principal.tenant)]
        near = get_close_matches(name, here, n=1)
        hint = f"did you mean {near[0]}?" if near else "list them with: mainstay secret list"
        msg = f"no such secret: {name}"
        raise NotFound(msg, object_=name, hint=hint) from error
    return Done(reply="", replayed=False)


def require_known(store: Store, tenant: str, names: Iterable[str]) -> None:
    """Raises Invalid for a secret that the tenant has not, with the nearest spelling."""
    asked = sorted(set(names))
    if not asked:
        return
    here = [row.name for row in store.secrets(tenant=tenant)]
    for name in asked:
        if name not in here:
            msg = f"secrets: there is no secret {name!r}"
            raise Invalid(msg, object_="secrets", hint=_nearest(name, here))


class Handing:
    """`ports.Secrets` over what is on record: whose pod it is and what it may have is read there, never in a cluster."""

    def __init__(self, store: Store, sealing: Sealing, clock: Clock, offload: Offload) -> None:
        self._store, self._sealing, self._clock, self._offload = store, sealing, clock, offload

    async def of(self, pod: str, *, owner: Owner) -> tuple[Handed, ...]:
        """They are opened, and one transaction puts on record which values are handed out."""
        return await self._offload(self._of, pod, owner)

    async def handed(self, pod: str, *, owner: Owner) -> tuple[bytes, ...]:
        """As they are on record."""
        return await self._offload(self._handed, pod, owner)

    def _handed(self, pod: str, owner: Owner) -> tuple[bytes, ...]:
        allocation = self._pod(pod, owner).allocation
        return opened(self._sealing, self._store.handed_secrets(allocation.key), pod=pod)

    def _of(self, pod: str, owner: Owner) -> tuple[Handed, ...]:
        """Who sets a secret while it is being handed out has it read again."""
        for _ in range(ATTEMPTS_MAX):
            with contextlib.suppress(Conflict):
                return self._handed_out(pod, owner)
        msg = f"the secrets of pod {pod} are being changed all the time"
        raise Unavailable(msg, object_=pod)

    def _pod(self, pod: str, owner: Owner) -> Wanted:
        wanted = self._store.pod(pod)
        if wanted.allocation.owner != owner:
            # A pod of that name lies where it does not belong: somebody else made it.
            msg = f"no such pod: {pod}"
            raise NotFound(msg, object_=pod)
        return wanted

    def _handed_out(self, pod: str, owner: Owner) -> tuple[Handed, ...]:
        """Raises Conflict if anything has changed since it was read."""
        wanted = self._pod(pod, owner)
        allocation, uses = wanted.allocation, wanted.spec.secrets
        if allocation.seen is Seen.ENDED:
            msg = f"pod {pod} has ended"
            raise Gone(msg, object_=pod)
        if not uses:
            return ()
        tenant = allocation.tenant
        sealed = self._store.sealed_secrets(dict.fromkeys(use.name for use in uses), tenant=tenant)
        for use in uses:
            if use.name not in sealed:
                msg = f"there is no secret {use.name} any more"
                raise Invalid(msg, object_=use.name, hint=f"set it (mainstay secret set {use.name}) and submit again")
        handed = tuple(Handed(use=use, value=self._opened(sealed[use.name])) for use in uses)
        self._put_on_record(allocation, sealed.values())
        return handed

    def _opened(self, sealed: Sealed) -> bytes:
        try:
            return self._sealing.opened_secret(sealed.tenant, sealed.name, sealed.text)
        except Denied as error:
            raise Invalid(error.message, object_=sealed.name, hint=error.hint) from None

    def _put_on_record(self, allocation: Allocation, handed: Collection[Sealed]) -> None:
        names, versions = ", ".join(one.name for one in handed), tuple(one.place for one in handed)
        reason = Reason(code=Code.SECRETS_HANDED, object=allocation.pod, numbers={"names": names})
        action = HandSecrets(allocation_key=allocation.key, versions=versions, reason=reason)
        plan = Plan(actor=f"cluster/{allocation.cluster}", now=self._clock.now(), actions=(action,), atomic=True)
        self._store.commit(plan)


def _nearest(name: str, here: list[str]) -> str:
    near = get_close_matches(name, here, n=1)
    return f"did you mean {near[0]}?" if near else f"set it: mainstay secret set {name} < FILE"
