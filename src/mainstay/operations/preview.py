"""Ask without changing anything: what would submitting do, and why is a workload where it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mainstay.decide import explain as explaining
from mainstay.decide.expected import unlearned, with_typical
from mainstay.decide.why import NO_HEAD
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Owner
from mainstay.domain.permitted import ANYTHING, Permitted
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import VolumeNeed, named
from mainstay.domain.workload import OPEN_MAX, STARTING, Kind, Phase, submitter_of, typical_on
from mainstay.operations import caps, priorities
from mainstay.operations.permitting import require_permitted
from mainstay.operations.possible import never
from mainstay.operations.principal import Principal, workload_for
from mainstay.operations.projects import require_project
from mainstay.operations.submit import (
    JobRequest,
    check,
    require_fewer_open,
    require_possible,
    with_default_limits,
)
from mainstay.ports import Store, WorkloadFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """What submitting would do, and the job as it would be."""

    job: JobRequest
    limited_by_queue: bool
    """Its time limit is that of its queue."""
    answer: explaining.Preview


def preview(
    store: Store,
    principal: Principal,
    job: JobRequest,
    *,
    now: int,
    open_max: int = OPEN_MAX,
    permitted: Permitted = ANYTHING,
) -> Previewed:
    """What would happen if this job were submitted now. Raises Invalid, TooMany and Forbidden as submit would."""
    principal.require(Permission.READ, job.project)
    check(job)
    require_project(store, principal.tenant, job.project)
    require_permitted([job.spec], permitted)
    require_fewer_open(store, principal.tenant, open_max)
    ((job, limited),) = with_default_limits(store, [job])
    require_possible(store, principal.tenant, [job])
    caps.require(store, principal, job.spec, now=now)
    names = named(job.spec.volumes)
    owner = Owner(tenant=principal.tenant, project=job.project)
    volumes = VolumeNeed(owner=owner, names=names) if names else None
    priority = priorities.resolved(store, job.priority).priority
    submitter = submitter_of(
        tenant=principal.tenant, project=job.project, submitted_by=principal.name, kind=job.spec.kind
    )
    seconds_on = {}
    if job.spec.compares_gpus and job.spec.kind is Kind.JOB:
        name = job.spec.name
        seconds_on = typical_on(store.run_times_on(tenant=principal.tenant, project=job.project, name=name))
    answer = explaining.preview(
        _up_to_date(store, now=now),
        spec=job.spec,
        priority=priority,
        queue=job.queue,
        submitter=submitter,
        volumes=volumes,
        seconds_on=seconds_on,
        tenant=principal.tenant,
        project=job.project,
        priorities=priorities.numbers(store),
    )
    if not answer.starts_now:
        # Never is what is refused when it is submitted: taints of nodes, for one, may go again.
        found = never(store, job.spec, job.queue, now=now)
        if found and not answer.starts_never:
            answer = replace(answer, reason=found.reason, expected=None)
        answer = replace(answer, starts_never=found is not None)
    return Previewed(job=job, limited_by_queue=limited, answer=answer)


def explain(store: Store, principal: Principal, reference: str, *, now: int) -> explaining.Explanation | None:
    """Why a workload waits and what would let it start; None if it is final. Raises NotFound."""
    workload = workload_for(store, principal, reference, Permission.READ)
    if workload.phase.final:
        return None
    found = explaining.explain(
        _up_to_date(store, now=now),
        workload.key,
        tenant=principal.tenant,
        project=workload.project,
        priorities=priorities.numbers(store),
    )
    if found.head != NO_HEAD and (name := _name_of(store, principal, found.head)):
        found = replace(found, reason=replace(found.reason, numbers={**found.reason.numbers, "head": name}))
    if workload.held and workload.phase is found.phase:
        return replace(found, reason=workload.reason)
    # What its cluster says of its pods stands with the workload; the columns of a snapshot know no words.
    told = workload.phase in STARTING or (workload.phase is Phase.RUNNING and "detail" in workload.reason.numbers)
    told = told and workload.phase is found.phase and not workload.stop_requested
    return replace(found, reason=workload.reason) if told else found


def _name_of(store: Store, principal: Principal, key: int) -> str:
    """The id of a run into which the caller may look; empty for one of others."""
    which = WorkloadFilter(tenant=principal.tenant, projects=principal.projects(Permission.READ))
    found = store.workloads(which, before=key + 1, limit=1)
    return found[0].id if found and found[0].key == key else ""


def _up_to_date(store: Store, *, now: int) -> Snapshot:
    """The world, with what has been learned since those that matter were queued of how long they take."""
    snapshot = store.snapshot(now=now, seed=0)
    return with_typical(snapshot, store.typical_now(unlearned(snapshot).tolist()))
