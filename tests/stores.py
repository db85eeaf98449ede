"""A store with a few words to fill it: what a test does not name gets a plausible value.

scene = Scene(store); scene.fleet(cpus=4); work = scene.submit(); scene.place(work)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mainstay.domain.access import PLATFORM_ADMIN, ROLES, Caps, NewToken
from mainstay.domain.allocation import Allocation, End, PodState, Seen
from mainstay.domain.billing import Charge, Price, UsageRecord
from mainstay.domain.capacity import Node, NodeState
from mainstay.domain.plan import (
    Action,
    AddToken,
    Advance,
    Allocate,
    ClosePod,
    CommitResult,
    Deploy,
    Epoch,
    Idempotency,
    NewWorkload,
    ObserveNodes,
    ObservePod,
    Plan,
    RecordUsage,
    RequestStop,
    SetMember,
    SetPrice,
    Submit,
)
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import BYTES_PER_GIB, Money, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Kind, Phase, Workload, WorkloadSpec
from mainstay.operations import tokens
from mainstay.operations.principal import Principal
from mainstay.ports import Store, WorkloadFilter
from mainstay.store import SqlStore, open_postgresql
from tests.databases import empty_sqlite

TENANT = "physics"
USER = "ada"
NOON = 1_700_000_000_000_000
SECOND = 1_000_000
ALL = 1_000_000
WHY = Reason(code=Code.PLACED, object="test")


def one_cpu(**changes: Any) -> Resources:
    """A small request."""
    return replace(Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB), **changes)


def spec(**changes: Any) -> WorkloadSpec:
    """A job of one small pod."""
    return replace(
        WorkloadSpec(kind=Kind.JOB, name="train", run=("python", "train.py"), choices=(one_cpu(),)), **changes
    )


def idempotency(key: str, *, body: str = "body", reply: str = "reply") -> Idempotency:
    """A key on one route."""
    return Idempotency(tenant=TENANT, member=USER, route="POST /v1/workloads", key=key, body_hash=body, reply=reply)


@dataclass
class Scene:
    """Drives one store; `now` moves by a second with every commit."""

    store: Store
    now: int = NOON
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def commit(self, *actions: Action, atomic: bool = False, **changes: Any) -> CommitResult:
        """One plan of a loop without an epoch, or as the changes say."""
        self.now += SECOND
        return self.store.commit(Plan(actor=USER, now=self.now, actions=actions, atomic=atomic, **changes))

    def applied(self, *actions: Action, **changes: Any) -> CommitResult:
        """All of them, or the test is wrong."""
        result = self.commit(*actions, **changes)
        assert not result.refused, result.refused
        return result

    def new(self, **changes: Any) -> NewWorkload:
        """A workload that was not submitted before."""
        which = {
            name: changes.pop(name)
            for name in ("id", "tenant", "project", "queue", "priority", "token", "at_most")
            if name in changes
        }
        what = spec(**changes)
        row = NewWorkload(
            id=f"{what.name}-{next(self.numbers)}",
            tenant=TENANT,
            project="default",
            queue="default",
            submitted_by=USER,
            priority=50,
            spec=what,
        )
        return replace(row, **which)

    def submit(self, **changes: Any) -> Workload:
        """A workload, stored."""
        new = self.new(**changes)
        self.applied(Submit(workload=new, reason=Reason(code=Code.SUBMITTED)))
        return self.workload(new.id, tenant=new.tenant)

    def workload(self, reference: str, *, tenant: str = TENANT) -> Workload:
        """As it stands now."""
        return self.store.workload(reference, tenant=tenant)

    def fleet(self, *, nodes: int = 1, cpus: int = 4, cluster: str = "local", ready: bool = True) -> tuple[Node, ...]:
        """A cluster with equal nodes."""
        capacity = Resources(cpu_milli=cpus * 1_000, memory_bytes=cpus * BYTES_PER_GIB)
        states = tuple(NodeState(name=f"{cluster}-{number}", capacity=capacity, ready=ready) for number in range(nodes))
        self.applied(ObserveNodes(cluster=cluster, nodes=states, reason=WHY))
        return tuple(node for node in self.store.nodes() if node.cluster == cluster)

    def allocate(self, work: Workload, *, node: Node | None = None, **changes: Any) -> Allocate:
        """All pods of a workload on one node."""
        node = node or self.store.nodes()[0]
        slots = tuple(
            Slot(rank=rank, node_key=node.key, resources=work.spec.choices[0]) for rank in range(work.spec.nodes)
        )
        action = Allocate(workload_key=work.key, attempt=work.attempt, slots=slots, reason=WHY)
        return replace(action, **changes)

    def place(self, work: Workload, *, node: Node | None = None) -> Allocation:
        """Placed; its rank 0."""
        self.applied(self.allocate(work, node=node))
        return self.store.allocations(work.key)[-work.spec.nodes]

    def see(self, pod: Allocation, seen: Seen, *, output: str = "", **changes: Any) -> ObservePod:
        """An observation of a pod."""
        state = replace(PodState(name=pod.pod, node=pod.node, seen=seen), **changes)
        return ObservePod(allocation_key=pod.key, state=state, output=output, reason=WHY)

    def run(self, work: Workload, *, node: Node | None = None) -> Allocation:
        """Placed and running."""
        pod = self.place(work, node=node)
        self.applied(self.see(pod, Seen.RUNNING, started_at=self.now, address="127.0.0.1:1", ready=True))
        self.applied(self.advance(work, Phase.RUNNING))
        return self.pod(pod)

    def end(self, pod: Allocation, **changes: Any) -> Allocation:
        """Ended with exit code 0 now, or as the changes say."""
        row = {"ended_at": self.now, "end": End.EXITED, "exit_code": 0, "started_at": pod.started_at, **changes}
        self.applied(self.see(pod, Seen.ENDED, **row))
        return self.pod(pod)

    def pod(self, pod: Allocation) -> Allocation:
        """As it stands now."""
        (row,) = (row for row in self.store.allocations(pod.workload_key) if row.key == pod.key)
        return row

    def advance(self, work: Workload, phase: Phase, **changes: Any) -> Advance:
        """A step that keeps everything else."""
        action = Advance(
            workload_key=work.key,
            phase=phase,
            attempt=work.attempt,
            infrastructure_failures=0,
            user_failures=0,
            reason=WHY,
        )
        return replace(action, **changes)

    def usage(self, pod: Allocation, *, start: int, end: int, cost: int = 7) -> RecordUsage:
        """A record with one charge."""
        record = UsageRecord(
            allocation_key=pod.key,
            tenant=TENANT,
            project="default",
            workload=pod.workload,
            resources=pod.resources,
            start=start,
            end=end,
        )
        charge = Charge(
            allocation_key=pod.key,
            start=start,
            end=end,
            sku="cpu",
            quantity=pod.resources.cpu_milli,
            unit_price=Money(micros=30_000),
            cost=Money(micros=cost),
        )
        return RecordUsage(usage=record, charges=(charge,), reason=Reason(code=Code.METERED))

    def close(self, pod: Allocation) -> ClosePod:
        """Leave the columns."""
        return ClosePod(allocation_key=pod.key, reason=WHY)

    def stop(self, work: Workload) -> RequestStop:
        """A user's wish."""
        return RequestStop(workload_key=work.key, reason=Reason(code=Code.STOP_REQUESTED, object=work.id))

    def price(self, micros: int, *, since: int = 0, sku: str = "cpu") -> SetPrice:
        """An entry of the price book."""
        price = Price(sku=sku, per_hour=Money(micros=micros), effective_from=since)
        return SetPrice(price=price, reason=Reason(code=Code.PRICE_SET, object=sku))

    def deploy(self, endpoint: str = "digits", *, version: int = 1, tenant: str = TENANT) -> Workload:
        """A candidate, stored."""
        new = self.new(name=endpoint, kind=Kind.SERVICE, tenant=tenant)
        self.applied(
            Deploy(
                endpoint=endpoint,
                tenant=tenant,
                project="default",
                model="digits",
                version=version,
                workload=new,
                reason=WHY,
            )
        )
        return self.workload(new.id, tenant=tenant)

    def lead(self, holder: str = "a", *, after_seconds: float = 0, seconds: float = 10) -> Epoch | None:
        """Ask for the lease of the decisions."""
        now = self.now + int(after_seconds * SECOND)
        return self.store.acquire("decisions", holder=holder, now=now, seconds=seconds)

    def person(self, name: str, role: str = "user", *, now: int, project: str = "") -> str:
        """A member, and a token of theirs that is valid for an hour from `now`."""
        id_, token = tokens.new_token()
        new = NewToken(
            id=id_,
            tenant=TENANT,
            member=name,
            name="test",
            digest=tokens.digest_of(token),
            expires_at=now + 3_600 * SECOND,
        )
        within = ROLES[PLATFORM_ADMIN]
        self.applied(
            SetMember(tenant=TENANT, name=name, role=role, project=project, within=within, reason=WHY),
            AddToken(token=new, within=within, reason=WHY),
        )
        return token

    def capped(self, *, member: str = "ci", **caps: Any) -> str:
        """The id of a token with these caps."""
        id_, token = tokens.new_token()
        new = NewToken(
            id=id_,
            tenant=TENANT,
            member=member,
            name="test",
            digest=tokens.digest_of(token),
            caps=Caps(**caps),
            expires_at=self.now + 3_600 * SECOND,
        )
        within = ROLES[PLATFORM_ADMIN]
        self.applied(
            SetMember(tenant=TENANT, name=member, role="user", within=within, reason=WHY),
            AddToken(token=new, within=within, reason=WHY),
        )
        return id_

    def all(self) -> tuple[Workload, ...]:
        """Every workload, newest first."""
        return self.store.workloads(WorkloadFilter(), before=0, limit=ALL)


def put_on_record(store: Store, principal: Principal, *, now: int) -> Principal:
    """A member of that role, who can sign in."""
    within = ROLES[PLATFORM_ADMIN]
    action = SetMember(tenant=principal.tenant, name=principal.name, role=principal.role, within=within, reason=WHY)
    assert not store.commit(Plan(actor="test", now=now, actions=(action,))).refused
    return principal


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """An empty store, on each database in turn."""
    if request.param == "sqlite":
        opened = empty_sqlite(tmp_path / "mainstay.db")
    else:
        opened = open_postgresql(request.getfixturevalue("postgres_schema_url"))
    yield opened
    opened.close()


@pytest.fixture
def scene(store: SqlStore) -> Scene:
    """The store with words."""
    return Scene(store)
