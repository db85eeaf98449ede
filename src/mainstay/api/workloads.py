"""Workloads: submit, list, show, stop, explain, and ask what a submission would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import Query, Response
from pydantic import TypeAdapter

from mainstay.api import convert, convert_jobs
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit, cursor_key
from mainstay.api.routes import Call, Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.allocation import NO_PROGRESS, Owner, Progress
from mainstay.domain.errors import Invalid, NotFound
from mainstay.domain.permitted import Permitted
from mainstay.domain.workload import ACTIVE, WAITING, Phase, Workload
from mainstay.operations import files as keeping
from mainstay.operations import preview as previewing
from mainstay.operations import stop as stopping
from mainstay.operations import submit as submitting
from mainstay.operations import turns
from mainstay.operations.principal import Done, replayed, workload_for
from mainstay.operations.pulse import News
from mainstay.ports import Registries, Store, WorkloadFilter
from mainstay.wire.requests import BulkSubmission, PlanRequest, PriorityRequest, Submission
from mainstay.wire.views import BulkView, ExplanationView, Page, PlanView, TreeView, WorkloadView

routes = Routes("workloads")
UNFINISHED = (*WAITING, *ACTIVE)
PHASES = {phase.word: phase for phase in Phase}
Reply = Callable[[Sequence[Workload]], str]
_PAGE = TypeAdapter(Page[WorkloadView])


@routes.add(
    "POST", "/v1/workloads", needs=Permission.SUBMIT, answers=WorkloadView, status=201, keyed=True, of_projects=True
)
async def submit(call: Caller, body: Submission) -> Response:
    """Accept a job. When this answers, the job is on disk."""
    return await _submit(call, [body], lambda workloads: convert.workload_view(workloads[0]).model_dump_json())


@routes.add(
    "POST", "/v1/workloads/bulk", needs=Permission.SUBMIT, answers=BulkView, status=201, keyed=True, of_projects=True
)
async def submit_many(call: Caller, body: BulkSubmission) -> Response:
    """Accept up to 1,000 jobs in one transaction: all of them or none."""
    return await _submit(call, body.jobs, _bulk_reply)


async def _submit(call: Caller, submissions: Sequence[Submission], reply: Reply) -> Response:
    services = call.services
    if services.registries:
        if replay := await services.offload(replayed, services.store, call.principal, call.key):
            return done(replay, status=201)
        submissions = await _pinned(services.registries, services.permitted, submissions)
    files = [await _kept_files(call, submission) for submission in submissions]
    result = await services.offload(
        _convert_and_submit, call, list(zip(submissions, files, strict=True)), now=services.clock.now(), reply=reply
    )
    services.pulse.beat(News.SUBMITTED)
    return done(result, status=201)


async def _pinned(
    registries: Registries, permitted: Permitted, submissions: Sequence[Submission]
) -> Sequence[Submission]:
    """With the digest of each image that may be asked for: a registry that is not permitted is never asked."""
    named = {one.job.image for one in submissions}
    known = {image: await registries.pinned(image) for image in sorted(named) if image and permitted.image(image)}
    return [
        one.model_copy(update={"job": one.job.model_copy(update={"image": known.get(one.job.image, one.job.image)})})
        for one in submissions
    ]


async def _kept_files(call: Caller, submission: Submission) -> str:
    """The tree of the files that stand in the job."""
    project = submission.job.project
    call.principal.require(Permission.SUBMIT, project)
    tree, blobs = convert_jobs.files_tree(submission.job)
    volumes = [volume.path for volume in submission.job.volumes]
    files = call.services.artifacts.of(Owner(tenant=call.principal.tenant, project=project))
    return await keeping.keep(files, tree, blobs, code=submission.code, volumes=volumes)


def _convert_and_submit(call: Caller, submissions: Sequence[tuple[Submission, str]], *, now: int, reply: Reply) -> Done:
    """On a worker thread: a thousand conversions would hold up the event loop."""
    return submitting.submit(
        call.services.store,
        call.principal,
        [
            convert_jobs.job_request(submission.job, code=submission.code, files=files)
            for submission, files in submissions
        ],
        now=now,
        draw=call.services.draw,
        request=call.key,
        reply=reply,
        open_max=call.services.open_max,
        permitted=call.services.permitted,
    )


def _bulk_reply(workloads: Sequence[Workload]) -> str:
    return BulkView(items=[convert.workload_view(workload) for workload in workloads]).model_dump_json()


@routes.add("GET", "/v1/workloads", needs=Permission.READ, answers=Page[WorkloadView], of_projects=True)
async def list_workloads(
    call: Caller,
    project: Annotated[str, Query(max_length=40)] = "",
    name: Annotated[str, Query(max_length=40)] = "",
    phase: Annotated[str, Query(max_length=200, description="Phases, separated by commas.")] = "",
    all: Annotated[bool, Query(description="Finished ones too.")] = False,  # noqa: A002, FBT002 - its public name
    cursor: Cursor = "",
    limit: PageLimit = PAGE_DEFAULT,
) -> Response:
    """Workloads, newest first; without `phase` and `all` only those that have not finished."""
    which = WorkloadFilter(
        tenant=call.principal.tenant,
        project=project,
        projects=call.principal.projects(Permission.READ),
        name=name,
        phases=_phases(phase, finished_too=all),
    )
    services, store, now = call.services, call.services.store, call.services.clock.now()

    def read() -> Page[WorkloadView]:
        found = store.workloads(which, before=cursor_key(cursor), limit=limit + 1)
        progress = store.progress([workload.key for workload in found[:limit]])
        return Page[WorkloadView](
            items=[
                convert.workload_view(workload, progress=progress.get(workload.key, NO_PROGRESS))
                for workload in services.waiting.told(found[:limit], now=now)
            ],
            next=str(found[limit - 1].key) if len(found) > limit else "",
        )

    return json_response(_PAGE.dump_json(await call.services.offload(read)))


def _phases(words: str, *, finished_too: bool) -> tuple[Phase, ...]:
    """Raises Invalid for a word that is no phase."""
    given = [word.strip() for word in words.split(",") if word.strip()]
    for word in given:
        if word not in PHASES:
            msg = f"phase: {word!r} is not one"
            raise Invalid(msg, object_="phase", hint=f"allowed: {', '.join(PHASES)}")
    if given:
        return tuple(PHASES[word] for word in given)
    return () if finished_too else UNFINISHED


@routes.add("GET", "/v1/workloads/{ref}", needs=Permission.READ, answers=WorkloadView, of_projects=True)
async def get_workload(call: Caller, ref: str) -> Response:
    """One workload with its pods, by id, or the newest of a name."""
    services, store, now = call.services, call.services.store, call.services.clock.now()

    def read() -> WorkloadView:
        mine = workload_for(store, call.principal, ref, Permission.READ)
        (workload,) = services.waiting.told([mine], now=now)
        return convert.workload_view(workload, store.allocations(workload.key), progress=_progress(store, workload))

    return json_response((await call.services.offload(read)).model_dump_json())


def _progress(store: Store, workload: Workload) -> Progress:
    return store.progress([workload.key]).get(workload.key, NO_PROGRESS)


@routes.add(
    "POST", "/v1/workloads/{ref}/stop", needs=Permission.STOP, answers=WorkloadView, keyed=True, of_projects=True
)
async def stop(call: Caller, ref: str) -> Response:
    """Ask for the end of a workload; it gets its grace. A finished one stays as it is."""
    result = await call.services.offload(
        stopping.stop,
        call.services.store,
        call.principal,
        ref,
        now=call.services.clock.now(),
        request=call.key,
        reply=lambda workload: convert.workload_view(
            replace(workload, stop_requested=workload.stop_requested or not workload.phase.final)
        ).model_dump_json(),
    )
    call.services.pulse.beat()
    return done(result, status=200)


@routes.add(
    "POST", "/v1/workloads/{ref}/hold", needs=Permission.SUBMIT, answers=WorkloadView, keyed=True, of_projects=True
)
async def hold(call: Caller, ref: str) -> Response:
    """Let a workload wait, whatever is free, until it is released. Refused for one that has a place or is over."""
    return await _changed(call, turns.hold, ref)


@routes.add(
    "POST", "/v1/workloads/{ref}/release", needs=Permission.SUBMIT, answers=WorkloadView, keyed=True, of_projects=True
)
async def release(call: Caller, ref: str) -> Response:
    """Let a workload that was held have its turn. Nothing happens to one that was not."""
    return await _changed(call, turns.release, ref)


@routes.add(
    "POST", "/v1/workloads/{ref}/priority", needs=Permission.SUBMIT, answers=WorkloadView, keyed=True, of_projects=True
)
async def reprioritize(call: Caller, ref: str, body: PriorityRequest) -> Response:
    """Give a workload another priority; it keeps its age. Refused for one that is over."""
    return await _changed(call, turns.reprioritize, ref, body.priority)


async def _changed(call: Call, change: Callable[..., Done], ref: str, *more: int | str) -> Response:
    services = call.services
    result = await services.offload(
        change,
        services.store,
        call.principal,
        ref,
        *more,
        now=services.clock.now(),
        request=call.key,
        reply=lambda workload: convert.workload_view(workload).model_dump_json(),
    )
    services.pulse.beat()
    return done(result, status=200)


@routes.add("GET", "/v1/workloads/{ref}/explain", needs=Permission.READ, answers=ExplanationView, of_projects=True)
async def explain(call: Caller, ref: str) -> Response:
    """Why a workload is where it is, and what would let it start."""
    store, now = call.services.store, call.services.clock.now()

    def read() -> ExplanationView:
        answer = previewing.explain(store, call.principal, ref, now=now)
        workload = workload_for(store, call.principal, ref, Permission.READ)
        return convert.explanation_view(workload, answer, progress=_progress(store, workload))

    return json_response((await call.services.offload(read)).model_dump_json())


@routes.add("GET", "/v1/workloads/{ref}/outputs", needs=Permission.READ, answers=TreeView, of_projects=True)
async def outputs(call: Caller, ref: str) -> Response:
    """The files that a workload left, once it has succeeded."""
    workload = await call.services.offload(workload_for, call.services.store, call.principal, ref, Permission.READ)
    if not workload.output:
        msg = f"workload {workload.id} has no output ({workload.phase.word})"
        raise NotFound(msg, object_=workload.id, hint="files in $MAINSTAY_OUTPUT_DIR are kept when a run succeeds")
    files = call.services.artifacts.of(Owner(tenant=workload.tenant, project=workload.project))
    content = await files.tree(workload.output)
    return json_response(convert.tree_view(content).model_dump_json())


@routes.add("POST", "/v1/plan", needs=Permission.READ, answers=PlanView, of_projects=True)
async def plan(call: Caller, body: PlanRequest) -> Response:
    """What submitting this job would do now, and what it would cost. Changes nothing."""
    services, now = call.services, call.services.clock.now()

    def think() -> PlanView:
        job = convert_jobs.job_request(body.job)
        asked = previewing.preview(
            services.store, call.principal, job, now=now, open_max=services.open_max, permitted=services.permitted
        )
        return convert.plan_view(asked)

    return json_response((await call.services.offload(think)).model_dump_json())
