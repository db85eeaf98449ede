"""Submit: check the specifications, mint ids, store all of them in one transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from mainstay.domain import ids
from mainstay.domain.access import DEFAULT_PROJECT, Permission
from mainstay.domain.artifact import safe_path
from mainstay.domain.caps import AtMost
from mainstay.domain.errors import Conflict, Invalid, TooMany
from mainstay.domain.gpu import SHARED_SUFFIX
from mainstay.domain.permitted import ANYTHING, Permitted
from mainstay.domain.plan import NewWorkload, Plan, Submit
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import DEFAULT_QUEUE, PRIORITY_MAX, PriorityClass
from mainstay.domain.reason import Code, Reason
from mainstay.domain.secret import SECRET_NAME, SECRET_NAME_RULE
from mainstay.domain.topology import LEVELS, TopologyNeed
from mainstay.domain.workload import OPEN_MAX, OPEN_MAX_HINT, SETS_MAX, Kind, Phase, Workload, WorkloadSpec
from mainstay.operations import caps, priorities, queues, secrets
from mainstay.operations.infra import require_known, require_levels, require_one_home, require_volumes
from mainstay.operations.permitting import require_permitted
from mainstay.operations.possible import require_room
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.operations.projects import require_project
from mainstay.ports import Store

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")
OF_THE_RUNTIME = frozenset({"LD_PRELOAD", "LD_AUDIT", "NVIDIA_VISIBLE_DEVICES"})
"""Variables of a container that hooks on its node heed, outside of it (security.md A9)."""
IMAGE = re.compile(r"[\w][\w./:@-]{0,511}\Z", re.ASCII)
ID_LETTERS = 8
"""32⁸ ids per name: among 100,000 runs of one name a collision has a chance of 0.5 %, and is tried again."""
MINT_ATTEMPTS = 3
CPU_MILLI_MAX = 1_000_000_000
MEMORY_BYTES_MAX = 1 << 50
GPUS_MAX = 100_000
NODES_MAX = 1_000
ENV_BYTES_MAX = 64 * 1024
COMMAND_BYTES_MAX = 256 * 1024
"""Linux takes at most 128 KiB per argument and about 2 MiB in all; a longer script belongs into the workdir."""
ARGUMENT_BYTES_MAX = 128 * 1024 - 1
DURATION_SECONDS_MAX = 10 * 366 * 86_400


Draw: TypeAlias = Callable[[str], str]
"""One letter of these, by chance: `secrets.choice`. Chance is an effect like the clock, so it is handed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A specification and where it is to be put."""

    spec: WorkloadSpec
    project: str
    queue: str
    priority: int | str
    """0 to 100, or the name of a class."""


def submit(
    store: Store,
    principal: Principal,
    jobs: Sequence[JobRequest],
    *,
    now: int,
    draw: Draw,
    request: RequestKey | None,
    reply: Callable[[Sequence[Workload]], str],
    open_max: int = OPEN_MAX,
    permitted: Permitted = ANYTHING,
) -> Done:
    """Accept all jobs or none. When this returns they are on disk. `open_max`: of the tenant at a time, 0: no limit.

    Raises Forbidden, Invalid, Gone for a project that was removed, KeyReused, TooMany, Unavailable.
    """
    for job in jobs:
        principal.require(Permission.SUBMIT, job.project)
        check(job)
    require_permitted((job.spec for job in jobs), permitted)
    jobs = [limited for limited, _ in with_default_limits(store, jobs)]
    prices = caps.prices_for(store, principal)
    shares = [caps.at_most(principal, job.spec, now=now, prices=prices) for job in jobs]
    if any(job.project != DEFAULT_PROJECT or _asks_for_something(job) for job in jobs):
        if done := replayed(store, principal, request):
            return done
        for project in sorted({job.project for job in jobs}):
            require_project(store, principal.tenant, project)
        require_possible(store, principal.tenant, jobs)
    try:
        require_room(store, ((job.spec, job.queue) for job in jobs), now=now)
    except Invalid:
        # Nodes may have left since this very request was accepted.
        if done := replayed(store, principal, request):
            return done
        raise
    reason = Reason(code=Code.SUBMITTED)
    meanings = [priorities.resolved(store, job.priority) for job in jobs]
    for last in (False,) * (MINT_ATTEMPTS - 1) + (True,):
        workloads = tuple(
            _new_workload(job, principal, draw, meant, share)
            for job, meant, share in zip(jobs, meanings, shares, strict=True)
        )
        text = reply([as_pending(workload, now=now) for workload in workloads])
        plan = Plan(
            actor=principal.name,
            now=now,
            actions=tuple(Submit(workload=workload, reason=reason, open_max=open_max) for workload in workloads),
            atomic=True,
            idempotency=request.with_reply(text, principal) if request else None,
        )
        try:
            result = caps.commit(store, principal, plan, [job.spec for job in jobs])
        except Conflict:
            if last:
                raise
            continue
        return Done(reply=text if result.reply is None else result.reply, replayed=result.reply is not None)
    raise AssertionError


def new_workload(
    spec: WorkloadSpec,
    principal: Principal,
    *,
    project: str,
    queue: str,
    priority: int,
    draw: Draw,
    preemptible: bool = True,
    at_most: AtMost | None = None,
) -> NewWorkload:
    """A workload with a freshly minted id, `NAME-xxxxxxxx`."""
    letters = "".join(draw(ids.ALPHABET) for _ in range(ID_LETTERS))
    return NewWorkload(
        id=f"{spec.name}-{letters}",
        tenant=principal.tenant,
        project=project,
        queue=queue,
        submitted_by=principal.name,
        priority=priority,
        spec=caps.limited(principal, spec),
        preemptible=preemptible,
        token=principal.root,
        at_most=at_most,
    )


def as_pending(new: NewWorkload, *, now: int) -> Workload:
    """The workload as it will stand once stored; `key` and `version` are not known yet and 0."""
    return Workload(
        key=0,
        id=new.id,
        tenant=new.tenant,
        project=new.project,
        queue=new.queue,
        submitted_by=new.submitted_by,
        priority=new.priority,
        spec=new.spec,
        phase=Phase.PENDING,
        reason=Reason(code=Code.SUBMITTED),
        attempt=1,
        infrastructure_failures=0,
        user_failures=0,
        stop_requested=False,
        preemptible=new.preemptible,
        token=new.token,
        submitted_at=now,
        not_before=0,
        started_at=0,
        finished_at=0,
        output="",
        version=0,
    )


def require_fewer_open(store: Store, tenant: str, most: int) -> None:
    """Raises TooMany as a commit would, which alone is sure of it. `most` 0: no limit."""
    found = store.open_workloads(tenant) if most else 0
    if most and found >= most:
        reason = Reason(code=Code.TOO_MANY_OPEN, object=tenant, numbers={"open": found, "most": most})
        raise TooMany(reason.sentence, object_=tenant, numbers=reason.numbers, hint=OPEN_MAX_HINT)


def with_default_limits(store: Store, jobs: Sequence[JobRequest]) -> Iterator[tuple[JobRequest, bool]]:
    """Each job with the time limit of its queue, where it says none itself; and whether that is so. A service never ends."""
    none_said = any(map(_says_no_limit, jobs))
    limits = store.default_limits() if none_said else {}
    for job in jobs:
        limit = limits.get(job.queue, 0) if _says_no_limit(job) else 0
        yield (replace(job, spec=replace(job.spec, max_duration_seconds=limit)) if limit else job), limit > 0


def _says_no_limit(job: JobRequest) -> bool:
    return job.spec.kind is Kind.JOB and not job.spec.max_duration_seconds


def _require_walls(store: Store, jobs: Sequence[JobRequest]) -> None:
    """Raises Invalid for shares in time of GPUs where jobs of several tenants could meet on a card (security.md A8)."""
    shares = sorted({share for job in jobs for share in _shares(job.spec)})
    if shares and sum(not tenant.removed_at for tenant in store.tenants()) > 1:
        msg = f"gpu: {shares[0]} is a share in time, without a wall to whoever else is on the card, and there are several tenants"
        raise Invalid(msg, object_="resources", hint="ask for a slice (MIG), as 1g.10gb, or for a whole GPU")


def _shares(spec: WorkloadSpec) -> list[str]:
    """The shares in time of GPUs that it names."""
    asked = (*spec.choices, *(one.resources for one in spec.sets))
    return [one.gpu_model for one in asked if one.gpu_model.endswith(SHARED_SUFFIX)]


def require_possible(store: Store, tenant: str, jobs: Sequence[JobRequest]) -> None:
    """Raises Invalid for a queue, a cluster, a level, a secret or a volume that is not there, or a volume that could be any of
    several.
    """
    _require_walls(store, jobs)
    queues.require_usable(store, tenant, ((job.project, job.queue) for job in jobs))
    require_known(store, (job.spec.cluster for job in jobs))
    require_levels(store, (job.spec for job in jobs))
    require_one_home(store, tenant, ((job.project, job.spec) for job in jobs))
    require_volumes(store, tenant, [(job.project, job.spec) for job in jobs])
    secrets.require_known(store, tenant, (use.name for job in jobs for use in job.spec.secrets))


def check(job: JobRequest) -> None:
    """Raises Invalid, naming the field, what was given and what is allowed."""
    spec = job.spec
    if spec.topology:
        _check_topology(spec.topology)
    for field, name in (("name", spec.name), ("project", job.project), ("queue", job.queue)):
        if not NAME.match(name):
            _refuse(field, name, "lower-case letters, digits and dashes, 1 to 40, a letter or digit first and last")
    _within("nodes", spec.nodes, 1, NODES_MAX)
    if spec.elastic:
        if spec.kind is not Kind.JOB:
            _refuse("nodes", f"{spec.nodes_min}:{spec.nodes_max}", f"a number: a {spec.kind} is not elastic")
        _within("nodes.min", spec.nodes_min, 1, spec.nodes)
        _within("nodes.max", spec.nodes_max, spec.nodes, NODES_MAX)
    if isinstance(job.priority, int):
        _within("priority", job.priority, 0, PRIORITY_MAX)
    _within("max_duration", spec.max_duration_seconds, 0, DURATION_SECONDS_MAX)
    _within("stop_grace", spec.stop_grace_seconds, 0, 86_400)
    _within("checkpoint_every", spec.checkpoint_seconds, 0, DURATION_SECONDS_MAX)
    if not spec.choices:
        _refuse("resources", "none", "at least one choice")
    for choice in spec.choices:
        _check_resources(choice)
    _check_sets(spec)
    _check_command(spec)
    _check_env(spec)
    _check_secrets(spec)
    _check_volumes(spec)
    if spec.image and not IMAGE.match(spec.image):
        _refuse("image", spec.image, "a container image such as python:3.12-slim")


def _asks_for_something(job: JobRequest) -> bool:
    """That might not be there."""
    spec = job.spec
    elsewhere = spec.cluster or spec.topology or spec.secrets or spec.volumes or job.queue != DEFAULT_QUEUE
    return bool(elsewhere or _shares(spec))


def _new_workload(
    job: JobRequest, principal: Principal, draw: Draw, meant: PriorityClass, share: AtMost | None
) -> NewWorkload:
    return new_workload(
        job.spec,
        principal,
        project=job.project,
        queue=job.queue,
        priority=meant.priority,
        draw=draw,
        preemptible=meant.preemptible,
        at_most=share,
    )


def _check_topology(need: TopologyNeed) -> None:
    if need.level and need.level not in LEVELS:
        _refuse("topology", need.level, ", ".join(LEVELS))
    if need.spread is None:
        return
    level = need.spread.level
    allowed = LEVELS[LEVELS.index(need.level) + 1 :] if need.level else LEVELS
    if level not in allowed:
        inside = f" within one {need.level}" if need.level else ""
        _refuse("spread.level", level, (", ".join(allowed) or "none") + inside)
    _within("spread.at_most", need.spread.at_most, 0, NODES_MAX)


def _check_resources(resources: Resources, where: str = "resources") -> None:
    _within(f"{where}.cpu (in thousandths of a core)", resources.cpu_milli, 1, CPU_MILLI_MAX)
    _within(f"{where}.memory (in bytes)", resources.memory_bytes, 1, MEMORY_BYTES_MAX)
    _within(f"{where}.gpu", resources.gpus, 0, GPUS_MAX)
    _within(f"{where}.gpu (in bytes of memory)", resources.gpu_memory_bytes, 0, MEMORY_BYTES_MAX)
    _within(f"{where}.gpu (in thousandths of one)", resources.gpu_part_permille, 0, 999)


def _check_sets(spec: WorkloadSpec) -> None:
    if not spec.sets:
        return
    if spec.kind is not Kind.JOB or spec.elastic:
        _refuse(
            "sets",
            f"a {spec.kind}" if spec.kind is not Kind.JOB else "an elastic job",
            "jobs with a fixed number of nodes",
        )
    if spec.topology and spec.topology.spread:
        _refuse("sets", "a job that is to be spread", "jobs without `spread`")
    if len(spec.choices) > 1:
        _refuse("sets", "a choice of resources", "one amount for each set")
    _within("sets", len(spec.sets), 2, SETS_MAX)
    names = [one.name for one in spec.sets]
    for number, one in enumerate(spec.sets):
        if not NAME.match(one.name) or names.index(one.name) != number:
            _refuse(f"sets.{number}.name", one.name, "another name for each, of lower-case letters, digits and dashes")
        _within(f"sets.{number}.nodes", one.nodes, 1, NODES_MAX)
        _check_resources(one.resources, f"sets.{number}.resources")
        if one.run:
            _check_command(replace(spec, run=one.run))
    if spec.nodes != (count := sum(one.nodes for one in spec.sets)):
        _refuse("sets", f"{count} nodes", f"as many as the job has: {spec.nodes}")


def _check_command(spec: WorkloadSpec) -> None:
    arguments = [argument.encode("utf-8", "surrogatepass") for argument in (*spec.run, spec.setup)]
    if not spec.run or not spec.run[0]:
        _refuse("run", "nothing", "a command")
    if any(b"\0" in argument for argument in arguments):
        _refuse("run", "a NUL character", "text")
    size = max(sum(map(len, arguments)), max(map(len, arguments)) * COMMAND_BYTES_MAX // ARGUMENT_BYTES_MAX)
    if size > COMMAND_BYTES_MAX:
        _refuse(
            "run", f"{size} bytes", f"at most {ARGUMENT_BYTES_MAX} per argument; put a long script into the workdir"
        )


def _check_env(spec: WorkloadSpec) -> None:
    for name, value in spec.env:
        if not ENV_NAME.match(name):
            _refuse("env", name, "names of letters, digits and underscores, no digit first")
        if name in OF_THE_RUNTIME:
            _refuse("env", name, f"it in the command, as in: env {name}=... python train.py")
        if "\0" in value:
            _refuse(f"env.{name}", "a NUL character", "text")
    size = sum(len(name) + len(value.encode("utf-8", "surrogatepass")) for name, value in spec.env)
    if size > ENV_BYTES_MAX:
        _refuse("env", f"{size} bytes", f"at most {ENV_BYTES_MAX} bytes in all")


def _check_secrets(spec: WorkloadSpec) -> None:
    for use in spec.secrets:
        if not SECRET_NAME.match(use.name):
            _refuse("secrets", use.name, SECRET_NAME_RULE)
        if use.env and (not ENV_NAME.match(use.env) or use.env in OF_THE_RUNTIME):
            _refuse("secrets.env", use.env, "names of letters, digits and underscores, no digit first")


def _check_volumes(spec: WorkloadSpec) -> None:
    for volume in spec.volumes:
        if not safe_path(volume.path.removeprefix("/")):
            _refuse("volumes.path", volume.path, "a path such as /data, or data for one in the working directory")
        _within("volumes.size (in bytes)", volume.size_bytes, 0, MEMORY_BYTES_MAX)


def _within(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        _refuse(field, str(value), f"{low} to {high}")


def _refuse(field: str, given: str, allowed: str) -> None:
    msg = f"{field}: {given!r} is not allowed"
    raise Invalid(msg, object_=field, hint=f"allowed: {allowed}")
