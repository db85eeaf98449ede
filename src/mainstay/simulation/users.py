"""The users of a simulation: they submit, repeat what was not answered under its key, stop, deploy and remove."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from mainstay.domain.errors import Conflict, MainstayError, NotFound
from mainstay.domain.plan import Deploy, NewWorkload, Plan, RegisterModel, RemoveEndpoint
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Kind, Phase, RetryPolicy, Workload, WorkloadSpec
from mainstay.operations import stop, submit
from mainstay.operations.principal import Principal, RequestKey
from mainstay.ports import Clock, Store, WorkloadFilter
from mainstay.simulation.faults import Dice

TENANT = "default"
ALICE = Principal(name="alice", tenant=TENANT, role="user")
ENDPOINT = "model"
PAGE = 1_000


@dataclass(slots=True)
class Pending:
    """A submission that has not been answered yet; repeated under the same key until it is."""

    key: str
    jobs: list[submit.JobRequest]


@dataclass(slots=True)
class Users:
    """What they have asked for and what they were answered: a witness outside of the database."""

    dice: Dice
    submissions_left: int
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Key -> reply."""
    accepted: set[str] = field(default_factory=set)
    """Ids of workloads that were acknowledged."""
    violations: list[str] = field(default_factory=list)
    deployed: int = 0
    services: set[str] = field(default_factory=set)
    _pending: Pending | None = None
    _number: int = 0

    def act(self, store: Store, clock: Clock) -> None:
        """One thing that a user does. Raises CrashError if the process that was asked dies."""
        choice = self.dice.rng.random()
        if self._pending is not None or (self.submissions_left and choice < 0.6):
            self._submit(store, clock)
        elif choice < 0.75 and self.acknowledged:
            self._repeat(store, clock)
        elif choice < 0.87 and self.accepted:
            self._stop(store, clock)
        elif choice < 0.9:
            self._deploy(store, clock)

    def settle(self, store: Store, clock: Clock) -> bool:
        """Finish what is not answered, give up what can never run, remove the endpoint; whether nothing is left to do."""
        if self._pending is not None:
            self._submit(store, clock)
            return False
        for workload in store.workloads(WorkloadFilter(tenant=TENANT, phases=(Phase.QUEUED,)), before=0, limit=PAGE):
            if workload.reason.code is Code.NEVER_FITS and not workload.stop_requested:
                stop.stop(store, ALICE, workload.id, now=clock.now(), request=None, reply=lambda stopped: stopped.id)
                return False
        reason = Reason(code=Code.ENDPOINT_REMOVED, object=ENDPOINT, numbers={"endpoint": ENDPOINT, "by": "alice"})
        try:
            store.endpoint(ENDPOINT, tenant=TENANT)
        except NotFound:
            return True
        plan = Plan(
            actor="alice", now=clock.now(), actions=(RemoveEndpoint(endpoint=ENDPOINT, tenant=TENANT, reason=reason),)
        )
        store.commit(plan)
        return False

    def _submit(self, store: Store, clock: Clock) -> None:
        if self._pending is None:
            self._number += 1
            self.submissions_left -= 1
            jobs = [self._job() for _ in range(self.dice.rng.choice((1, 1, 1, 2, 5)))]
            self._pending = Pending(key=f"key-{self._number}", jobs=jobs)
        pending = self._pending
        reply = self._send(store, clock, pending.key, pending.jobs)
        self.acknowledged[pending.key] = reply
        self.accepted.update(json.loads(reply))
        self._pending = None

    def _repeat(self, store: Store, clock: Clock) -> None:
        """A key that has been answered gets the same answer, and nothing more happens."""
        key = self.dice.rng.choice(sorted(self.acknowledged))
        before = self.acknowledged[key]
        again = self._send(store, clock, key, [self._job() for _ in json.loads(before)])
        if again != before:
            self.violations.append(f"I2: {key} was answered {before}, then {again}")

    def _send(self, store: Store, clock: Clock, key: str, jobs: list[submit.JobRequest]) -> str:
        request = RequestKey(route="POST /v1/workloads", key=key, body_hash=hashlib.sha256(key.encode()).hexdigest())
        done = submit.submit(
            store, ALICE, jobs, now=clock.now(), draw=self.dice.rng.choice, request=request, reply=_ids
        )
        return done.reply

    def _stop(self, store: Store, clock: Clock) -> None:
        name = self.dice.rng.choice(sorted(self.accepted))
        stop.stop(store, ALICE, name, now=clock.now(), request=None, reply=lambda workload: workload.id)

    def _deploy(self, store: Store, clock: Clock) -> None:
        """As `operations.deploy` commits it, without the files."""
        version = max((row.version for row in store.model_versions(tenant=TENANT, model=ENDPOINT)), default=0) + 1
        letters = "".join(self.dice.rng.choice(submit.ID_ALPHABET) for _ in range(submit.ID_LETTERS))
        spec = WorkloadSpec(
            kind=Kind.SERVICE,
            name=ENDPOINT,
            run=("serve",),
            choices=(Resources(cpu_milli=500, memory_bytes=BYTES_PER_GIB),),
            retry=RetryPolicy(always=True, backoff_seconds=1, backoff_seconds_max=10),
            port=True,
        )
        new = NewWorkload(
            id=f"{ENDPOINT}-{letters}",
            tenant=TENANT,
            project="default",
            queue="default",
            submitted_by="alice",
            priority=75,
            spec=spec,
        )
        why = Reason(code=Code.DEPLOY_REQUESTED, object=ENDPOINT)
        actions = (
            RegisterModel(
                model=ENDPOINT,
                version=version,
                tenant=TENANT,
                project="default",
                tree="0" * 64,
                workload="",
                reason=why,
            ),
            Deploy(
                endpoint=ENDPOINT,
                tenant=TENANT,
                project="default",
                model=ENDPOINT,
                version=version,
                workload=new,
                reason=why,
            ),
        )
        self.services.add(new.id)
        try:
            store.commit(Plan(actor="alice", now=clock.now(), actions=actions, atomic=True))
        except Conflict:
            return
        except MainstayError:
            return
        self.deployed += 1

    def _job(self) -> submit.JobRequest:
        rng = self.dice.rng
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
        return submit.JobRequest(spec=spec, project="default", queue="default", priority=rng.choice((25, 50, 75)))


def _ids(workloads: Sequence[Workload]) -> str:
    return json.dumps([workload.id for workload in workloads])
