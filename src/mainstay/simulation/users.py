"""The users of a simulation: they submit, stop, deploy and remove, each under a key, and repeat what was not answered.

What they asked for and what they were answered is a witness outside of the database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from mainstay.decide.why import Whys
from mainstay.domain.errors import Conflict, Invalid, KeyReused, NotFound, NotYet
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code
from mainstay.domain.registry import Endpoint
from mainstay.domain.workload import (
    ACTIVE,
    WAITING,
    Elastic,
    Kind,
    OnPartition,
    Phase,
    PodSet,
    RetryPolicy,
    Workload,
    WorkloadSpec,
)
from mainstay.operations import deploy, stop, submit
from mainstay.operations.principal import Done, Principal, RequestKey
from mainstay.operations.services import Services
from mainstay.ports import WorkloadFilter
from mainstay.simulation.faults import Dice

USERS = (
    Principal(name="alice", tenant="red", role="maintainer"),
    Principal(name="ann", tenant="red", role="maintainer"),
    Principal(name="bob", tenant="blue", role="maintainer"),
)
TENANTS = ("blue", "red")
ENDPOINTS = ("digits", "words")
"""Both tenants want them: a name belongs to whoever was first."""
MODEL = "model"
"""The folder of the output in which a job leaves its model."""
SUBMISSIONS = (2, 9)
"""How often each user submits."""
PAGE = 1_000
REQUEUED_GRACE_SECONDS = 5
"""Jobs of this grace end themselves where they are cut off, and start again; the others wait."""
PARTITION_SECONDS = 6
REFUSALS = (Invalid, NotFound, Conflict, NotYet)
"""Answers that say: nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One wish of a user. Repeated under its key, with the same body, until it is answered."""

    by: Principal
    action: str
    """The word of its audit row."""
    key: str
    ask: Callable[[Services, RequestKey], Awaitable[Done]]

    async def send(self, services: Services, *, body: str = "") -> str:
        """The reply. `body`: something else than the first time."""
        digest = hashlib.sha256(f"{self.key}{body}".encode()).hexdigest()
        return (await self.ask(services, RequestKey(route=self.action, key=self.key, body_hash=digest))).reply


@dataclass(slots=True)
class Answers:
    """What all users were answered."""

    replies: dict[str, tuple[Request, str]] = field(default_factory=dict)
    """By key."""
    unknown: dict[str, Request] = field(default_factory=dict)
    """Refused at last, but an earlier sending of it is still on its way: it may be done once, or never."""
    violations: list[str] = field(default_factory=list)

    @property
    def submitted(self) -> dict[str, str]:
        """Ids of acknowledged jobs, with their tenants."""
        return {
            name: request.by.tenant
            for request, reply in self.replies.values()
            if request.action == "submit"
            for name in json.loads(reply)
        }

    @property
    def deployed(self) -> dict[str, str]:
        """Ids of acknowledged services, with their tenants."""
        return {reply: request.by.tenant for request, reply in self.replies.values() if request.action == "deploy"}


class User:
    """One at a time is under way; which one is drawn by the dice."""

    def __init__(
        self, principal: Principal, dice: Dice, answers: Answers, *, elastic: bool = False, sets: bool = False
    ) -> None:
        """`elastic`: programs go on with more ranks or fewer. `sets`: ranks of a job are not all alike."""
        self.principal = principal
        self._sets = sets
        self._dice = dice
        self._answers = answers
        self._elastic = elastic
        self._submissions_left = dice.rng.randint(*SUBMISSIONS)
        self._number = 0
        self._pending: Request | None = None
        self._sendings = 0
        self._on_its_way: set[str] = set()

    async def act(self, services: Services) -> None:
        """Do one thing. Raises CrashError if the process that is asked dies."""
        choice = self._dice.rng.random()
        if self._pending is None:
            if self._submissions_left and choice < 0.45:
                self._pending = self._submission()
            elif choice < 0.55:
                await self._repeat(services)
            elif choice < 0.62:
                self._pending = self._stop(services)
            elif choice < 0.80:
                self._pending = self._deployment(services)
            elif choice < 0.83:
                self._pending = self._removal()
            elif choice < 0.86:
                await self._trespass(services)
        await self._send_pending(services)

    async def settle(self, services: Services) -> None:
        """Finish what is not answered, give up what can never run, remove every endpoint."""
        if self._pending is None:
            self._pending = self._last_wish(services)
        await self._send_pending(services)

    @property
    def waits(self) -> bool:
        """For an answer."""
        return self._pending is not None

    def lose_patience(self) -> None:
        """What was sent goes on, nobody waits for its answer; it will be asked again."""
        if self._pending is not None:
            self._on_its_way.add(self._pending.key)
        self._sendings += 1

    async def _send_pending(self, services: Services) -> None:
        request, sending = self._pending, self._sendings
        if request is None:
            return
        try:
            reply = await request.send(services)
        except REFUSALS:
            reply = None
        if reply is not None:
            self._note(request, reply)
        elif sending == self._sendings and request.key in self._on_its_way:
            self._answers.unknown.setdefault(request.key, request)
        if sending == self._sendings:
            self._pending = None

    def _note(self, request: Request, reply: str) -> None:
        self._answers.unknown.pop(request.key, None)
        _, before = self._answers.replies.setdefault(request.key, (request, reply))
        if reply != before:
            self._answers.violations.append(f"I2: {request.key} was answered {before!r}, then {reply!r}")

    async def _repeat(self, services: Services) -> None:
        """A key that has been answered gets the same answer, and nothing more happens; with another body, none."""
        ours = sorted(key for key, (request, _) in self._answers.replies.items() if request.by == self.principal)
        if not ours:
            return
        request, _ = self._answers.replies[self._dice.rng.choice(ours)]
        other = self._dice.rng.random() < 0.2 and request.action != "request_stop"
        try:
            reply = await request.send(services, body="other" if other else "")
        except KeyReused:
            if not other:
                raise
        except REFUSALS as error:
            self._answers.violations.append(f"I2: {request.key} was answered, then refused: {error}")
        else:
            if other:
                self._answers.violations.append(f"I2: {request.key} was answered with another body")
            self._note(request, reply)

    async def _trespass(self, services: Services) -> None:
        """What is of another tenant is not even there."""
        ours = {row.name for row in services.store.endpoints(tenant=self.principal.tenant)}
        names = [row.name for row in services.store.endpoints(tenant=self._other_tenant) if row.name not in ours]
        theirs = [name for name, tenant in self._answers.submitted.items() if tenant != self.principal.tenant]
        if names:
            request = self._request("remove_endpoint", partial(self._ask_removal, names[0]))
        elif theirs:
            request = self._request("request_stop", partial(self._ask_stop, self._dice.rng.choice(theirs)))
        else:
            return
        try:
            await request.send(services)
        except REFUSALS:
            return
        self._answers.violations.append(f"I12: {self.principal.name} of {self.principal.tenant} did {request.key}")

    @property
    def _other_tenant(self) -> str:
        return next(tenant for tenant in TENANTS if tenant != self.principal.tenant)

    def _last_wish(self, services: Services) -> Request | None:
        tenant = self.principal.tenant
        waiting = WorkloadFilter(tenant=tenant, phases=(Phase.QUEUED,))
        # Its record says why it began to wait: before any node was known, say. What keeps it waiting now is worked out.
        whys = Whys(services.store.snapshot(now=services.clock.now(), seed=0))
        for workload in services.store.workloads(waiting, before=0, limit=PAGE):
            why = whys.of(workload.key, workload.version) or workload.reason
            if why.code is Code.NEVER_FITS and not workload.stop_requested:
                return self._request("request_stop", partial(self._ask_stop, workload.id))
        for endpoint in services.store.endpoints(tenant=tenant):
            return self._request("remove_endpoint", partial(self._ask_removal, endpoint.name))
        return None

    def _submission(self) -> Request:
        self._submissions_left -= 1
        jobs = [job(self._dice) for _ in range(self._dice.rng.choice((1, 1, 1, 2, 5)))]
        jobs = [made_elastic(one) for one in jobs] if self._elastic else jobs
        jobs = [made_of_sets(one) for one in jobs] if self._sets else jobs
        return self._request("submit", partial(self._ask_submission, jobs))

    def _stop(self, services: Services) -> Request | None:
        """Of anything that its tenant runs, services too."""
        which = WorkloadFilter(tenant=self.principal.tenant, phases=(*WAITING, *ACTIVE))
        running = services.store.workloads(which, before=0, limit=PAGE)
        if not running:
            return None
        return self._request("request_stop", partial(self._ask_stop, self._dice.rng.choice(running).id))

    def _deployment(self, services: Services) -> Request | None:
        which = WorkloadFilter(tenant=self.principal.tenant, phases=(Phase.SUCCEEDED,))
        succeeded = [row for row in services.store.workloads(which, before=0, limit=PAGE) if row.output]
        if not succeeded:
            return None
        wish = deploy.DeployRequest(
            workload=self._dice.rng.choice(succeeded).id,
            endpoint=self._dice.rng.choice(ENDPOINTS),
            model="",
            path=MODEL,
            cluster="",
            resources=Resources(cpu_milli=500, memory_bytes=BYTES_PER_GIB),
        )
        return self._request("deploy", partial(self._ask_deployment, wish))

    def _removal(self) -> Request:
        return self._request("remove_endpoint", partial(self._ask_removal, self._dice.rng.choice(ENDPOINTS)))

    def _request(self, action: str, ask: Callable[[Services, RequestKey], Awaitable[Done]]) -> Request:
        self._number += 1
        return Request(by=self.principal, action=action, key=f"{self.principal.name}-{self._number}", ask=ask)

    async def _ask_submission(self, jobs: list[submit.JobRequest], services: Services, key: RequestKey) -> Done:
        return await services.offload(
            submit.submit,
            services.store,
            self.principal,
            jobs,
            now=services.clock.now(),
            draw=services.draw,
            request=key,
            reply=_ids,
        )

    async def _ask_stop(self, name: str, services: Services, key: RequestKey) -> Done:
        return await services.offload(
            stop.stop,
            services.store,
            self.principal,
            name,
            now=services.clock.now(),
            request=key,
            reply=lambda workload: workload.id,
        )

    async def _ask_deployment(self, wish: deploy.DeployRequest, services: Services, key: RequestKey) -> Done:
        return await deploy.deploy(services, self.principal, wish, request=key, reply=_candidate)

    async def _ask_removal(self, name: str, services: Services, key: RequestKey) -> Done:
        return await services.offload(
            deploy.remove, services.store, self.principal, name, now=services.clock.now(), request=key
        )


def job(dice: Dice) -> submit.JobRequest:
    """A job of some size, some of which can never run."""
    rng = dice.rng
    sizes = (
        Resources(cpu_milli=500, memory_bytes=BYTES_PER_GIB),
        Resources(cpu_milli=1_000, memory_bytes=2 * BYTES_PER_GIB),
        Resources(cpu_milli=2_000, memory_bytes=BYTES_PER_GIB, gpus=1),
        Resources(cpu_milli=4_000, memory_bytes=8 * BYTES_PER_GIB, gpus=2, gpu_model="H100"),
    )
    choices = tuple(rng.sample(sizes, k=2)) if rng.random() < 0.15 else (rng.choice(sizes),)
    spec = WorkloadSpec(
        kind=Kind.JOB,
        name=f"job{rng.randrange(4)}",
        run=("work",),
        nodes=rng.choice((1, 1, 1, 2, 3)),
        choices=choices,
        retry=RetryPolicy(
            infrastructure_max=3, user_max=rng.choice((0, 0, 1)), backoff_seconds=2, backoff_seconds_max=20
        ),
        max_duration_seconds=rng.choice((0, 0, 0, 20)),
        stop_grace_seconds=rng.choice((0, 5, 30)),
    )
    if spec.stop_grace_seconds == REQUEUED_GRACE_SECONDS:
        spec = replace(spec, on_partition=OnPartition.REQUEUE_AFTER, partition_seconds=PARTITION_SECONDS)
    return submit.JobRequest(spec=spec, project="default", queue="default", priority=rng.choice((25, 50, 75)))


def made_elastic(one: submit.JobRequest) -> submit.JobRequest:
    """The same job, which goes on with one rank fewer, if it has several, and with two more."""
    bounds = Elastic(nodes_min=max(1, one.spec.nodes - 1), nodes_max=one.spec.nodes + 2)
    return replace(one, spec=replace(one.spec, elastic=bounds))


def made_of_sets(one: submit.JobRequest) -> submit.JobRequest:
    """The same job, if it has several ranks: a small first one and another that asks for what each of them did, and so on."""
    spec = one.spec
    if spec.nodes == 1:
        return one
    head = PodSet(name="head", nodes=1, resources=Resources(cpu_milli=500, memory_bytes=BYTES_PER_GIB))
    worker = PodSet(name="worker", nodes=spec.nodes - 1, resources=spec.choices[0], run=("other", "work"))
    return replace(one, spec=replace(spec, sets=(head, worker), choices=(head.resources,)))


def _ids(workloads: Sequence[Workload]) -> str:
    return json.dumps([workload.id for workload in workloads])


def _candidate(endpoint: Endpoint) -> str:
    return endpoint.candidate
