"""Submit, list, show, stop, explain, plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import TypeAdapter

from mainstay.api.auth import All, Key, Reader, Stopper, Submitter, Uploader
from mainstay.api.convert import explanation_view, job_request, plan_view, workload_view
from mainstay.api.limits import PAGE_MAX
from mainstay.domain.errors import Fenced, Invalid
from mainstay.domain.workload import ACTIVE, WAITING, Phase, Workload
from mainstay.operations import preview, submit
from mainstay.operations import stop as stopping
from mainstay.operations.principal import Done
from mainstay.ports import WorkloadFilter
from mainstay.wire.requests import BulkSubmission, OutputCommit, PlanRequest, Submission
from mainstay.wire.views import BulkView, ExplanationView, Page, PlanView, WorkloadView

router = APIRouter(prefix="/v1", tags=["workloads"])
_BULK = TypeAdapter(BulkView)
PHASES = {phase.word: phase for phase in Phase}


@router.post("/workloads", status_code=201, response_model=WorkloadView)
async def submit_workload(body: Submission, principal: Submitter, key: Key, services: All) -> Response:
    """Accept a job. When this is answered it is on disk."""
    job = job_request(body.job, code=body.code)
    done = await services.offload(
        submit.submit,
        services.store,
        principal,
        [job],
        now=services.clock.now(),
        request=key,
        reply=lambda workloads: workload_view(workloads[0]).model_dump_json(),
    )
    services.pulse.beat()
    return answer(done, status=201)


@router.post("/workloads/bulk", status_code=201, response_model=BulkView)
async def submit_workloads(body: BulkSubmission, principal: Submitter, key: Key, services: All) -> Response:
    """Accept up to 1,000 jobs, all or none, in one transaction."""
    jobs = [job_request(item.job, code=item.code) for item in body.jobs]
    done = await services.offload(
        submit.submit, services.store, principal, jobs, now=services.clock.now(), request=key, reply=_bulk_reply
    )
    services.pulse.beat()
    return answer(done, status=201)


@router.get("/workloads")
async def list_workloads(
    principal: Reader,
    services: All,
    *,
    project: str = "",
    name: str = "",
    phase: Annotated[list[str] | None, Query()] = None,
    all: bool = False,  # noqa: A002 the parameter is called so on the wire
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
) -> Page[WorkloadView]:
    """Workloads, newest first; without `all` or `phase` only those that are not final."""
    which = WorkloadFilter(tenant=principal.tenant, project=project, name=name, phases=_phases(phase or [], all=all))
    rows = await services.offload(services.store.workloads, which, before=_cursor(cursor), limit=limit)
    return Page[WorkloadView](
        items=[workload_view(row) for row in rows], next=str(rows[-1].key) if len(rows) == limit else ""
    )


@router.get("/workloads/{reference}")
async def get_workload(reference: str, principal: Reader, services: All) -> WorkloadView:
    """One workload with its pods, by id, or the newest of a name."""
    workload = await services.offload(services.store.workload, reference, tenant=principal.tenant)
    return workload_view(workload, await services.offload(services.store.allocations, workload.key))


@router.post("/workloads/{reference}/stop", response_model=WorkloadView)
async def stop_workload(reference: str, principal: Stopper, key: Key, services: All) -> Response:
    """Ask for its end: pods get their grace. A workload that is final stays as it is."""
    done = await services.offload(
        stopping.stop,
        services.store,
        principal,
        reference,
        now=services.clock.now(),
        request=key,
        reply=lambda workload: workload_view(workload).model_dump_json(),
    )
    services.pulse.beat()
    return answer(done)


@router.get("/workloads/{reference}/explain")
async def explain_workload(reference: str, principal: Reader, services: All) -> ExplanationView:
    """Why it is where it is, and what would let it start."""
    workload = await services.offload(services.store.workload, reference, tenant=principal.tenant)
    found = await services.offload(
        preview.explain, services.store, principal, workload.id, now=services.clock.now()
    )
    return explanation_view(workload, found)


@router.put("/workloads/{reference}/slots/{slot}", status_code=204)
async def commit_slot(reference: str, slot: str, body: OutputCommit, principal: Uploader, services: All) -> None:
    """Make a tree the content of a slot of a workload, e.g. `checkpoint`. Only the current attempt may."""
    workload = await services.offload(services.store.workload, reference, tenant=principal.tenant)
    if body.attempt != workload.attempt:
        msg = f"attempt {body.attempt} of {workload.id} is not the current one, {workload.attempt}"
        raise Fenced(msg, object_=workload.id, numbers={"attempt": body.attempt, "current": workload.attempt})
    await services.artifacts.tree(body.tree)
    await services.artifacts.commit(f"{workload.id}/{slot}", attempt=body.attempt, tree=body.tree)


@router.post("/plan", tags=["plan"])
async def plan_workload(body: PlanRequest, principal: Reader, services: All) -> PlanView:
    """What submitting this job would do. Changes nothing."""
    job = job_request(body.job)
    found = await services.offload(preview.preview, services.store, principal, job, now=services.clock.now())
    return plan_view(found, name=job.spec.name, nodes=job.spec.nodes)


def answer(done: Done, *, status: int = 200) -> Response:
    """The stored reply, byte for byte; a repetition says so."""
    headers = {"Idempotency-Replayed": "true"} if done.replayed else {}
    return Response(done.reply, status, headers, "application/json")


def _bulk_reply(workloads: Sequence[Workload]) -> str:
    view = BulkView(items=[workload_view(workload) for workload in workloads])
    return _BULK.dump_json(view).decode()


def _phases(words: Sequence[str], *, all: bool) -> tuple[Phase, ...]:  # noqa: A002
    if not words:
        return () if all else (*WAITING, *ACTIVE)
    unknown = [word for word in words if word not in PHASES]
    if unknown:
        msg = f"no such phase: {unknown[0]}"
        raise Invalid(msg, object_="phase", hint=f"allowed: {', '.join(PHASES)}")
    return tuple(PHASES[word] for word in words)


def _cursor(text: str) -> int:
    if text and not (text.isdecimal() and len(text) < 19):
        msg = f"not a cursor: {text!r}"
        raise Invalid(msg, object_="cursor", hint="take it from `next` of the page before")
    return int(text or 0)
