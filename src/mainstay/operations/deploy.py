"""Deploy: register the model that a workload made and let it become the candidate of an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mainstay.domain.access import Permission
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Conflict, Invalid, NotFound, NotYet
from mainstay.domain.plan import Action, Deploy, NewWorkload, Plan, RegisterModel, RemoveEndpoint
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.registry import Endpoint
from mainstay.domain.workload import Kind, Mount, Phase, RetryPolicy, Workload, WorkloadSpec
from mainstay.operations import caps
from mainstay.operations.infra import require_known
from mainstay.operations.possible import require_room
from mainstay.operations.principal import Done, Principal, RequestKey, replayed, workload_for
from mainstay.operations.services import Services
from mainstay.operations.submit import Draw, JobRequest, check, new_workload
from mainstay.ports import Store

SERVING_PRIORITY = 75
"""Endpoints go before ordinary jobs (50): somebody waits for their answer."""
SERVING_GRACE_SECONDS = 10
DEPLOY_ATTEMPTS = 5
READY_PATH = "/v2/health/ready"
"""Open Inference Protocol v2, "Server Ready"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """What to serve, where, and how large one replica is. Empty names mean the name of the workload; no cluster, any."""

    workload: str
    endpoint: str
    model: str
    path: str
    cluster: str
    resources: Resources


async def deploy(
    services: Services,
    principal: Principal,
    wish: DeployRequest,
    *,
    request: RequestKey | None,
    reply: Callable[[Endpoint], str],
) -> Done:
    """Returns once the candidate is on record; it takes over when it is healthy.

    Raises NotFound, NotYet while the workload has not succeeded, Invalid if it made no model, Gone if its project was removed,
    Forbidden under a cap of its token.
    """
    principal.require_somewhere(Permission.DEPLOY)
    if done := await services.offload(replayed, services.store, principal, request):
        return done
    await services.offload(require_known, services.store, (wish.cluster,))
    workload = await services.offload(workload_for, services.store, principal, wish.workload, Permission.DEPLOY)
    tree = await _model_tree(services, workload, wish.path)
    for last in (False,) * (DEPLOY_ATTEMPTS - 1) + (True,):
        try:
            return await services.offload(
                _commit,
                services.store,
                principal,
                wish,
                workload=workload,
                tree=tree,
                now=services.clock.now(),
                draw=services.draw,
                request=request,
                reply=reply,
            )
        except Conflict:
            # Somebody registered a version or touched the endpoint between our read and our commit: read again.
            if last:
                raise
    raise AssertionError


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Take an endpoint away; its workloads are stopped. Raises NotFound."""
    principal.require_somewhere(Permission.DEPLOY)
    if done := replayed(store, principal, request):
        return done
    principal.require(Permission.DEPLOY, endpoint_for(store, principal, name).project)
    reason = Reason(code=Code.ENDPOINT_REMOVED, object=name, numbers={"endpoint": name, "by": principal.name})
    plan = Plan(
        actor=principal.name,
        now=now,
        actions=(RemoveEndpoint(endpoint=name, tenant=principal.tenant, reason=reason),),
        atomic=True,
        idempotency=request.with_reply("", principal) if request else None,
    )
    result = store.commit(plan)
    return Done(reply=result.reply or "", replayed=result.reply is not None)


def endpoint_for(store: Store, principal: Principal, name: str) -> Endpoint:
    """One that the caller may look at. Raises NotFound, also for one of another tenant or of a project that is not theirs."""
    found = store.endpoint(name, tenant=principal.tenant)
    if not principal.may(Permission.READ, found.project):
        msg = f"no such endpoint: {name}"
        raise NotFound(msg, object_=name, hint="list them with: mainstay endpoints")
    return found


async def _model_tree(services: Services, workload: Workload, path: str) -> str:
    """Digest of the tree of the model alone, cut out of the workload's output and stored."""
    if workload.phase is not Phase.SUCCEEDED:
        msg = f"workload {workload.id} is {workload.phase.word}; only one that succeeded can be deployed"
        raise NotYet(msg, object_=workload.id, hint=f"follow it with: mainstay logs -f {workload.id}")
    files = services.artifacts.of(Owner(tenant=workload.tenant, project=workload.project))
    output = await files.tree(workload.output) if workload.output else Tree(entries=())
    model = subtree(output, path)
    if not model.entries:
        folders = sorted({entry.path.split("/")[0] for entry in output.entries}) or ["nothing"]
        msg = f"workload {workload.id} made no model at {path!r}; its output holds: {', '.join(folders[:10])}"
        raise Invalid(msg, object_=workload.id, hint="write the model to $MAINSTAY_OUTPUT_DIR/model in the run")
    return await files.put_tree(model)


def subtree(tree: Tree, path: str) -> Tree:
    """The files below the folder `path`, with paths relative to it."""
    prefix = path.strip("/") + "/"
    return Tree(
        entries=tuple(
            Entry(
                path=entry.path.removeprefix(prefix), size=entry.size, digest=entry.digest, executable=entry.executable
            )
            for entry in tree.entries
            if entry.path.startswith(prefix)
        )
    )


def _commit(
    store: Store,
    principal: Principal,
    wish: DeployRequest,
    *,
    workload: Workload,
    tree: str,
    now: int,
    draw: Draw,
    request: RequestKey | None,
    reply: Callable[[Endpoint], str],
) -> Done:
    endpoint_name, model = wish.endpoint or workload.spec.name, wish.model or workload.spec.name
    known = store.model_versions(tenant=principal.tenant, model=model)
    version = next((row.version for row in known if row.tree == tree), 0)
    actions: list[Action] = []
    if not version:
        version = max((row.version for row in known), default=0) + 1
        actions.append(_registration(workload, principal, model=model, version=version, tree=tree))
    spec = _service(endpoint_name, wish, model=model, version=version, tree=tree)
    service = new_workload(
        spec,
        principal,
        project=workload.project,
        queue=workload.queue,
        priority=SERVING_PRIORITY,
        draw=draw,
        at_most=caps.at_most(principal, spec, now=now, prices=()),
    )
    check(JobRequest(spec=service.spec, project=service.project, queue=service.queue, priority=service.priority))
    require_room(store, [(service.spec, service.queue)], now=now)
    numbers: dict[str, int | float | str] = {"endpoint": endpoint_name, "model": model, "version": version}
    actions.append(
        Deploy(
            endpoint=endpoint_name,
            tenant=principal.tenant,
            project=workload.project,
            model=model,
            version=version,
            workload=service,
            reason=Reason(code=Code.DEPLOY_REQUESTED, object=endpoint_name, numbers=numbers),
        )
    )
    before = _endpoint(store, endpoint_name, tenant=principal.tenant)
    if before is not None:
        principal.require(Permission.DEPLOY, before.project)
    text = reply(_with_candidate(before, endpoint_name, service, model=model, version=version, now=now))
    plan = Plan(
        actor=principal.name,
        now=now,
        actions=tuple(actions),
        atomic=True,
        idempotency=request.with_reply(text, principal) if request else None,
    )
    result = caps.commit(store, principal, plan, [spec])
    return Done(reply=text if result.reply is None else result.reply, replayed=result.reply is not None)


def _registration(workload: Workload, principal: Principal, *, model: str, version: int, tree: str) -> RegisterModel:
    return RegisterModel(
        model=model,
        version=version,
        tenant=principal.tenant,
        project=workload.project,
        tree=tree,
        workload=workload.id,
        reason=Reason(code=Code.MODEL_REGISTERED, object=model, numbers={"model": model, "version": version}),
    )


def _service(name: str, wish: DeployRequest, *, model: str, version: int, tree: str) -> WorkloadSpec:
    """The workload that answers for a model: our model server over the model's files, started again whenever it ends."""
    return WorkloadSpec(
        kind=Kind.SERVICE,
        name=name,
        run=("python", "-m", "mainstay.serving", "--model", "model", "--name", model, "--version", str(version)),
        mounts=(Mount(path="model", tree=tree),),
        choices=(wish.resources,),
        cluster=wish.cluster,
        retry=RetryPolicy(always=True, backoff_seconds=1, backoff_seconds_max=60),
        stop_grace_seconds=SERVING_GRACE_SECONDS,
        port=True,
        ready_path=READY_PATH,
    )


def _endpoint(store: Store, name: str, *, tenant: str) -> Endpoint | None:
    try:
        return store.endpoint(name, tenant=tenant)
    except NotFound:
        return None


def _with_candidate(
    before: Endpoint | None, name: str, service: NewWorkload, *, model: str, version: int, now: int
) -> Endpoint:
    """The endpoint as it will stand after the commit; its keys and row version are not known yet and 0."""
    return Endpoint(
        name=name,
        tenant=service.tenant,
        project=service.project,
        model=model,
        serving_version=before.serving_version if before else 0,
        serving=before.serving if before else "",
        serving_key=before.serving_key if before else 0,
        candidate_version=version,
        candidate=service.id,
        candidate_key=0,
        address=before.address if before else "",
        removed=False,
        updated_at=now,
        version=0,
    )
