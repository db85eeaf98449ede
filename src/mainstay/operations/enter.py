"""Enter: which pod somebody means to look into, and the record that they did."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation, Seen
from mainstay.domain.errors import Gone, Invalid, NotFound, NotYet
from mainstay.domain.plan import EnterPod, Plan
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase, Workload
from mainstay.operations import agents
from mainstay.operations.principal import Principal, workload_for
from mainstay.ports import Store, WorkloadFilter

COMMAND_SHOWN = 500
"""Characters of a command that go on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A pod as users name it: a workload by id or by name, one of its ranks, an attempt (0: the newest).

    Of several workloads of a name it is the newest that has not ended.
    """

    reference: str
    rank: int = 0
    attempt: int = 0


def require_rank(workload: Workload, allocations: Iterable[Allocation], rank: int) -> None:
    """Raises NotFound for one that the workload neither asked for nor ever had; an elastic one may have had higher ranks."""
    highest = max((found.rank for found in allocations), default=0)
    if rank > max(highest, workload.spec.nodes - 1):
        msg = f"workload {workload.id} has no rank {rank}"
        raise NotFound(msg, object_=workload.id, hint=f"its ranks are 0 to {max(highest, workload.spec.nodes - 1)}")


def pod_of(store: Store, principal: Principal, target: Target, *, now: int) -> Allocation:
    """The allocation of a pod that runs and can be entered.

    Raises NotFound, NotYet before it runs, Gone once it has ended, Invalid for a guest, Unavailable while the agent of its
    cluster is away.
    """
    workload = _workload(store, principal, target.reference)
    allocations = store.allocations(workload.key)
    require_rank(workload, allocations, target.rank)
    of_rank = {found.attempt: found for found in allocations if found.rank == target.rank}
    found = of_rank.get(target.attempt or max(of_rank, default=0))
    if found is None and target.attempt > workload.attempt:
        msg = f"workload {workload.id} is at attempt {workload.attempt}; there is no attempt {target.attempt}"
        raise NotFound(msg, object_=workload.id)
    if workload.phase.final or (found is not None and found.seen is Seen.ENDED):
        msg = f"{workload.id} has ended: {workload.phase.word}"
        raise Gone(msg, object_=workload.id, hint=f"its log is kept: mainstay logs {workload.id}")
    if found is None or found.seen is not Seen.RUNNING:
        msg = f"{workload.id} does not run yet: {workload.phase.word}"
        raise NotYet(msg, object_=workload.id, hint=f"why: mainstay explain {workload.id}")
    _require_ours(workload, target.rank)
    agents.require_heard(store, found.cluster, now=now)
    return found


def _require_ours(workload: Workload, rank: int) -> None:
    """Who may enter a pod that others made, its cluster decides: our account may in its own namespaces alone."""
    if workload.spec.guests:
        pod = workload.spec.guests[rank]
        msg = f"{workload.id} is a pod that others made; mainstay places it and does not enter it"
        hint = (
            f"with your own account of its cluster: kubectl -n {pod.namespace} exec {pod.name} -- CMD, or port-forward"
        )
        raise Invalid(msg, object_=workload.id, hint=hint)


def _workload(store: Store, principal: Principal, reference: str) -> Workload:
    """By id or name. One that is over cannot be entered, so under its name an older one is meant that is not."""
    newest = workload_for(store, principal, reference, Permission.ENTER)
    if not newest.phase.final or reference == newest.id:
        return newest
    for phases in ((Phase.RUNNING,), tuple(phase for phase in Phase if not phase.final)):
        which = WorkloadFilter(
            tenant=principal.tenant, projects=principal.projects(Permission.ENTER), name=reference, phases=phases
        )
        if found := store.workloads(which, before=0, limit=1):
            return found[0]
    return newest


def enter(store: Store, principal: Principal, target: Target, command: Sequence[str], *, now: int) -> Allocation:
    """The allocation whose pod the command may run in, once it is on record who does that and where.

    What is typed into it is not recorded. Raises as `pod_of`; Invalid for a command that is none.
    """
    if not command or not command[0] or any("\x00" in part for part in command):
        msg = "a command must not be empty or contain NUL"
        raise Invalid(msg, object_="command")
    found = pod_of(store, principal, target, now=now)
    words = shlex.join(command)
    shown = words if len(words) <= COMMAND_SHOWN else f"{words[:COMMAND_SHOWN]}..."
    reason = Reason(code=Code.COMMAND_RUN, object=found.pod, numbers={"by": principal.name, "command": shown})
    action = EnterPod(allocation_key=found.key, reason=reason)
    store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True))
    return found
