"""What a run takes of the caps of the token that submits it, and what to do where they do not have it.

The transaction of the submission decides (`store/guards_access.py`): here is worked out what to ask it for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mainstay.decide import at_most as most
from mainstay.domain.billing import Price
from mainstay.domain.caps import NOTHING_USED, AtMost, over
from mainstay.domain.errors import Forbidden
from mainstay.domain.plan import CommitResult, Plan
from mainstay.domain.quantity import counted, decimal, written
from mainstay.domain.workload import WorkloadSpec
from mainstay.operations.principal import Principal
from mainstay.ports import Store

RUNS_NAMED: Final = 3


def prices_for(store: Store, principal: Principal) -> tuple[Price, ...]:
    """Read only where a cap of cost needs them."""
    return store.prices() if principal.caps.spend_micros is not None else ()


def at_most(principal: Principal, spec: WorkloadSpec, *, now: int, prices: Sequence[Price]) -> AtMost | None:
    """What a run takes; None where its token has no caps of runs. Raises Forbidden for one of which nobody can say."""
    caps = principal.caps
    if not caps.of_runs:
        return None
    gpus = cost = 0
    if caps.gpus is not None:
        if any(":" not in device for device in spec.devices):
            msg = f"{spec.name} claims devices by a template, and this token may hold {counted(caps.gpus, 'GPU')} at a time"
            raise Forbidden(msg, object_=spec.name, hint="name them as CLASS:COUNT, or use a token without such a cap")
        gpus = most.gpus(spec)
    if caps.spend_micros is not None:
        if not spec.max_duration_seconds or spec.retry.always:
            msg = f"{spec.name} has no end, and this token may spend {decimal(caps.spend_micros)}"
            hint = "use a token without such a cap"
            hint = hint if spec.retry.always else f"set max_duration, or {hint}"
            raise Forbidden(msg, object_=spec.name, hint=hint)
        cost = most.cost_micros(spec, now=now, prices=prices)
    return AtMost(gpus=gpus, cost_micros=cost)


def limited(principal: Principal, spec: WorkloadSpec) -> WorkloadSpec:
    """Under a cap of cost it makes no more attempts than are counted, not even where it yields to other work."""
    if principal.caps.spend_micros is None:
        return spec
    return replace(spec, retry=replace(spec.retry, attempts_max=most.attempts(spec)))


def require(store: Store, principal: Principal, spec: WorkloadSpec, *, now: int) -> None:
    """Raises Forbidden as submitting it would, which alone is sure of it."""
    asked = at_most(principal, spec, now=now, prices=prices_for(store, principal))
    if asked is not None:
        used = store.cap_uses([principal.root]).get(principal.root, NOTHING_USED)
        if (reason := over(principal.root, principal.caps, used, asked)) is not None:
            error = Forbidden(reason.sentence, object_=reason.object, numbers=reason.numbers)
            raise _told(store, principal, error, [spec])


def commit(store: Store, principal: Principal, plan: Plan, specs: Sequence[WorkloadSpec]) -> CommitResult:
    """Submit these. Raises Forbidden under a cap, and what else a commit raises."""
    try:
        return store.commit(plan)
    except Forbidden as error:
        raise _told(store, principal, error, specs) from error


def _told(store: Store, principal: Principal, error: Forbidden, specs: Sequence[WorkloadSpec]) -> Forbidden:
    """The refusal of a cap, with what to do next: how a single run is counted, and which others hold the rest."""
    of_gpus = "held" in error.numbers
    hints = [_gpus_of(specs[0]) if of_gpus else _cost_of(specs[0])] if len(specs) == 1 else []
    runs = store.capped_runs(principal.root, limit=RUNS_NAMED + 1)
    if runs:
        named = ", ".join(runs[:RUNS_NAMED]) + (" or others" if len(runs) > RUNS_NAMED else "")
        hints.append(f"stop what is not needed (mainstay stop): {named}")
    hints.append("or ask for a token with a larger cap; look: mainstay token list")
    return Forbidden(error.message, object_=error.object, numbers=error.numbers, hint="; ".join(hints))


def _gpus_of(spec: WorkloadSpec) -> str:
    return f"{spec.name} counts with all GPUs of its largest choice and size"


def _cost_of(spec: WorkloadSpec) -> str:
    tries = counted(most.attempts(spec), "attempt")
    words = f"{spec.name} counts with {tries} (retry) of {written(most.seconds(spec))} (max_duration and stop_grace)"
    unnamed = any(one.gpus and not one.gpu_model for one in (*spec.choices, *(one.resources for one in spec.sets)))
    return words + (" and the dearest GPUs, since it names no model" if unnamed else "") + ": ask for less of these"
