"""The clusters of the fleet come, go, fail and lie while the platform runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.control.contact import STEADY_SECONDS
from mainstay.control.fleet import Fleet
from mainstay.control.loop import Due, Loop
from mainstay.control.member import REOPEN_SECONDS
from mainstay.control.tenure import LEASE_SECONDS
from mainstay.decide import lifecycle, metering, schedule
from mainstay.domain.allocation import Seen
from mainstay.domain.errors import Denied, DiskFailed, Fenced, MainstayError, Unavailable
from mainstay.domain.fleet import ClusterKind, ClusterSettings, Contact, Credentials, NewCluster
from mainstay.domain.plan import AddCluster, DrainCluster, ObserveCluster, Plan, RemoveCluster, UseCredentials
from mainstay.domain.workload import Phase
from mainstay.operations.agents import Agents
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.store import SqlStore
from tests.clock import ManualClock
from tests.connectors import MemoryConnector
from tests.databases import empty_sqlite
from tests.stores import WHY, Scene

KEY = Sealing(key=bytes(KEY_BYTES))
CANARY = "canary-of-the-credentials"


@dataclass
class Replica:
    """One process: its fleet and its loops, which take a turn when they are told to."""

    store: SqlStore
    clock: ManualClock
    name: str = "ours"
    sealing: Sealing = KEY
    connectors: dict[ClusterKind, Any] = field(default_factory=dict)
    loops: dict[str, Loop] = field(default_factory=dict)
    clusters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        async def here(function: Any, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        self.connectors = self.connectors or {ClusterKind.KUBERNETES: MemoryConnector(self.clock)}
        self.services: Any = SimpleNamespace(
            store=self.store,
            clock=self.clock,
            pulse=Pulse(),
            offload=here,
            artifacts=None,
            sealing=self.sealing,
            connectors=self.connectors,
            clusters=self.clusters,
            agents=Agents(self.clock),
        )
        self.fleet = Fleet(self.services, holder=self.name, start=self._start)

    @property
    def connector(self) -> MemoryConnector:
        return self.connectors[ClusterKind.KUBERNETES]

    def _start(self, loop: Loop) -> asyncio.Task[None]:
        async def until_cancelled() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                del self.loops[loop.name]
                if loop.close:
                    await loop.close()

        self.loops[loop.name] = loop
        return asyncio.create_task(until_cancelled())

    async def turn(self, *, seconds: float = 0.0) -> Due:
        """The fleet looks at its table, and every cluster takes a turn; what fails does so alone."""
        self.clock.advance(seconds)
        await self.fleet.turn()
        await asyncio.sleep(0)
        due = Due(wait=0.0)
        for loop in list(self.loops.values()):
            try:
                due = await loop.turn()
            except MainstayError:
                pass
            except ValueError:
                pass
        return due

    async def turns(self, seconds: float, *, step: float = 0.5) -> None:
        for _ in range(round(seconds / step)):
            await self.turn(seconds=step)

    def decide(self) -> None:
        """One round of the decision loops."""
        for decide in (lifecycle.lifecycle, schedule.schedule, metering.meter):
            actions = decide(self.store.snapshot(now=self.clock.now(), seed=0))
            if actions:
                self.store.commit(Plan(actor="decisions", now=self.clock.now(), actions=actions))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield store
    store.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def replica(store: SqlStore, clock: ManualClock) -> Any:
    replica = Replica(store, clock)
    yield replica
    await replica.fleet.close()


def commit(store: SqlStore, *actions: Any) -> None:
    result = store.commit(Plan(actor="ada", now=1, actions=actions))
    assert not result.refused


def add(store: SqlStore, name: str = "east", **changes: Any) -> None:
    new: dict[str, Any] = {
        "name": name,
        "kind": ClusterKind.KUBERNETES,
        "identity": f"uid-of-{name}",
        "sealed": KEY.sealed(name, Credentials(kubeconfig=CANARY)),
        **changes,
    }
    commit(store, AddCluster(cluster=NewCluster(**new), reason=WHY))


def state(store: SqlStore, name: str = "east") -> tuple[str, str]:
    row = store.cluster(name)
    return row.state, row.reason.sentence


async def test_a_cluster_that_was_added_is_opened_looked_at_and_closed_when_it_is_removed(
    store: SqlStore, replica: Replica
) -> None:
    await replica.turn()
    assert not replica.clusters
    add(store)
    await replica.turn()
    (cluster,) = replica.connector.opened
    assert replica.clusters == {"east": cluster}
    assert cluster.credentials == Credentials(kubeconfig=CANARY)
    assert [node.name for node in store.nodes()] == ["east-1"]
    commit(store, RemoveCluster(cluster="east", reason=WHY))
    await replica.turn()
    assert cluster.closed
    assert not replica.clusters
    assert not replica.loops


async def test_a_crash_between_adding_and_opening_loses_nothing(store: SqlStore, clock: ManualClock) -> None:
    add(store)
    first = Replica(store, clock, name="first")
    await first.fleet.turn()
    await first.fleet.close()
    second = Replica(store, clock, name="second")
    await second.turn()
    assert [node.cluster for node in store.nodes()] == ["east"]
    await second.fleet.close()


async def test_what_changes_in_the_way_to_a_cluster_opens_it_anew_and_what_is_seen_of_it_does_not(
    store: SqlStore, replica: Replica
) -> None:
    add(store)
    await replica.turn()
    commit(store, ObserveCluster(cluster="east", seen=Contact.UNREACHABLE, reason=WHY))
    commit(store, DrainCluster(cluster="east", reason=WHY))
    await replica.turn()
    assert len(replica.connector.opened) == 1
    add(store, settings=ClusterSettings(image="python:3.13"))
    await replica.turn()
    first, second = replica.connector.opened
    assert (first.closed, second.closed) == (True, False)
    assert replica.clusters == {"east": second}


async def test_a_cluster_that_fails_disturbs_no_other(store: SqlStore, replica: Replica) -> None:
    add(store, "east")
    add(store, "west")
    await replica.turn()
    replica.clusters["east"].fault = ValueError("negative allocatable")
    looks = replica.clusters["west"].looks
    await replica.turns(STEADY_SECONDS + 2)
    assert replica.clusters["west"].looks > looks + 5
    assert state(store, "west")[0] == "ready"
    assert state(store, "east") == (
        "unreachable",
        "the cluster does not answer: it answers what we do not understand (ValueError)",
    )


async def test_a_cluster_is_unreachable_once_it_has_not_answered_for_a_while_and_ready_likewise(
    store: SqlStore, replica: Replica
) -> None:
    add(store)
    await replica.turn()
    cluster = replica.clusters["east"]
    cluster.fault = Unavailable("connection refused", hint="is its API server running?")
    await replica.turns(STEADY_SECONDS - 1)
    assert state(store)[0] == "ready"
    await replica.turns(2)
    assert state(store) == (
        "unreachable",
        "the cluster does not answer: connection refused; is its API server running?",
    )
    cluster.fault = None
    await replica.turns(STEADY_SECONDS - 1)
    assert state(store)[0] == "unreachable"
    await replica.turns(2)
    assert state(store) == ("ready", "the cluster answers")


async def test_flapping_is_not_written_down(store: SqlStore, replica: Replica) -> None:
    add(store)
    await replica.turns(STEADY_SECONDS + 2)
    version = store.version()
    for _ in range(20):
        replica.clusters["east"].fault = Unavailable("no route")
        await replica.turns(2)
        replica.clusters["east"].fault = None
        await replica.turns(2)
    events = store.events(tenant="", workload="", after=0, limit=1_000)
    assert [event.kind for event in events].count("cluster") == 1
    # Only the lease was renewed, which uses no version.
    assert store.version() == version


@pytest.mark.parametrize("jump", [-86_400, 86_400])
async def test_a_jump_of_the_clock_makes_no_cluster_look_away(store: SqlStore, replica: Replica, jump: int) -> None:
    add(store)
    await replica.turns(STEADY_SECONDS + 2)
    replica.clusters["east"].fault = Unavailable("no route")
    await replica.turn(seconds=0.5)
    replica.clock.jump(jump)
    await replica.turn(seconds=0.5)
    assert state(store)[0] == "ready"


async def test_credentials_that_go_bad_are_told_at_once_and_mended_by_adding_it_again(
    store: SqlStore, replica: Replica
) -> None:
    add(store)
    await replica.turn()
    replica.clusters["east"].fault = Denied("the token is not accepted", hint="add the cluster again with a new one")
    await replica.turn(seconds=1)
    assert state(store) == (
        "refused",
        "the cluster cannot be used: the token is not accepted; add the cluster again with a new one",
    )
    assert store.snapshot(now=0, seed=0).nodes.ready.tolist() == [False]
    add(store)
    await replica.turn(seconds=1)
    assert state(store)[0] == "ready"
    assert replica.clusters["east"] is replica.connector.opened[-1]


async def test_a_cluster_that_lets_us_look_but_not_act_is_refused_until_it_lets_us(
    store: SqlStore, replica: Replica
) -> None:
    add(store)
    await replica.turn()
    Scene(store, now=replica.clock.now()).submit()
    replica.clusters["east"].refusal = Denied("may not create pods", hint="give it the role of docs/how-to")
    replica.decide()
    await replica.turns(3)
    assert state(store)[0] == "refused"
    replica.clusters["east"].refusal = None
    await replica.turns(STEADY_SECONDS + 1)
    assert state(store)[0] == "ready"


async def test_another_cluster_at_the_same_address_is_refused_and_its_report_believed_in_nothing(
    store: SqlStore, replica: Replica
) -> None:
    add(store)
    await replica.turn()
    scene = Scene(store, now=replica.clock.now())
    work = scene.submit()
    replica.decide()
    await replica.turns(2)
    assert store.allocations(work.key)[0].seen is Seen.RUNNING
    replica.clusters["east"].identity = "built-anew"
    replica.connector.machines["east"].processes.clear()
    await replica.turns(30)
    assert store.allocations(work.key)[0].seen is Seen.RUNNING
    assert "another cluster answers at its address" in state(store)[1]


async def test_a_key_that_does_not_open_the_credentials_is_told_in_words_and_another_replica_goes_on(
    store: SqlStore, clock: ManualClock
) -> None:
    add(store)
    stranger = Replica(store, clock, name="stranger", sealing=Sealing(key=b"x" * KEY_BYTES))
    ours = Replica(store, clock, name="ours")
    due = await stranger.turn()
    assert due.wait >= REOPEN_SECONDS[0] > LEASE_SECONDS
    assert state(store)[0] == "refused"
    assert "sealed with the key" in state(store)[1]
    assert "secrets-key" in state(store)[1]
    clock.advance(LEASE_SECONDS + 1)
    await ours.turns(STEADY_SECONDS + 2)
    assert state(store)[0] == "ready"
    await stranger.turn()
    assert state(store)[0] == "ready"
    for replica in (stranger, ours):
        await replica.fleet.close()


def used(store: SqlStore) -> list[str]:
    return [row.object for row in store.audit(after=0, limit=1_000) if row.action == "use_credentials"]


async def test_each_time_that_credentials_are_opened_is_on_record_and_nothing_that_is_done_with_them(
    store: SqlStore, replica: Replica
) -> None:
    add(store)
    add(store, "bare", sealed="")
    await replica.turns(20)
    assert used(store) == ["east"]
    assert CANARY not in repr(store.audit(after=0, limit=1_000))
    add(store, settings=ClusterSettings(image="python:3.13"))
    await replica.turns(2)
    assert used(store) == ["east", "east"]


async def test_credentials_stay_sealed_while_that_cannot_be_put_on_record(
    store: SqlStore, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store)
    commits = store.commit

    def fails(plan: Plan) -> Any:
        if any(isinstance(action, UseCredentials) for action in plan.actions):
            msg = "the disk is busy"
            raise Unavailable(msg)
        return commits(plan)

    with monkeypatch.context() as broken:
        broken.setattr(store, "commit", fails)
        await replica.turns(5)
        assert not replica.connector.opened
        assert "busy" not in state(store)[1]
    await replica.turns(2)
    assert len(replica.connector.opened) == len(used(store)) == 1


async def test_a_crash_between_the_record_and_the_opening_leaves_a_row_too_many_and_none_too_few(
    store: SqlStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store)
    first = Replica(store, clock, name="first")

    def crashes(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(first.connector, "open", crashes)
    with pytest.raises(KeyboardInterrupt):
        await first.turn()
    await first.fleet.close()
    second = Replica(store, clock, name="second")
    await second.turn()
    assert (len(second.connector.opened), used(store)) == (1, ["east", "east"])
    await second.fleet.close()


async def test_a_replica_that_lacks_the_key_puts_nothing_on_record_however_often_it_tries(
    store: SqlStore, clock: ManualClock
) -> None:
    add(store)
    stranger = Replica(store, clock, name="stranger", sealing=Sealing(key=b"x" * KEY_BYTES))
    await stranger.turns(10)
    assert "sealed with the key" in state(store)[1]
    assert used(store) == []
    await stranger.fleet.close()
    newer = Sealing(key=b"x" * KEY_BYTES, older=(KEY.key,))
    rotated = Replica(store, clock, name="rotated", sealing=newer)
    await rotated.turns(2)
    assert (len(rotated.connector.opened), used(store)) == (1, ["east"])
    await rotated.fleet.close()


async def test_a_replica_without_a_way_into_a_kind_says_so(store: SqlStore, clock: ManualClock) -> None:
    replica = Replica(store, clock, connectors={ClusterKind.SIMULATED: None})
    add(store)
    await replica.turn()
    assert "no way into a cluster of the kind kubernetes" in state(store)[1]
    await replica.fleet.close()


async def test_two_replicas_open_a_cluster_and_one_of_them_leads_it(store: SqlStore, clock: ManualClock) -> None:
    first, second = Replica(store, clock, name="first"), Replica(store, clock, name="second")
    add(store)
    await first.turn()
    await second.turn()
    assert set(first.clusters) == set(second.clusters) == {"east"}
    assert (first.connector.opened[0].looks, second.connector.opened[0].looks) == (1, 0)
    await first.fleet.close()
    clock.advance(2 * LEASE_SECONDS)
    await second.turn()
    assert second.connector.opened[0].looks == 1
    await second.fleet.close()


async def test_a_leader_that_wakes_up_late_puts_nothing_on_record(store: SqlStore, clock: ManualClock) -> None:
    first, second = Replica(store, clock, name="first"), Replica(store, clock, name="second")
    add(store)
    await first.turn()
    clock.advance(2 * LEASE_SECONDS)
    await second.turn()
    clock.seconds -= 2 * LEASE_SECONDS  # As the first one sees it, no time has passed.
    first.clusters["east"].fault = Denied("expired")
    with pytest.raises(Fenced):
        await first.loops["cluster/east"].turn()
    assert state(store)[0] == "ready"
    for replica in (first, second):
        await replica.fleet.close()


async def test_a_store_that_is_away_is_not_held_against_the_cluster(
    store: SqlStore, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store)
    await replica.turn()
    with monkeypatch.context() as patch:
        patch.setattr(store, "wanted", lambda _: (_ for _ in ()).throw(Unavailable("database away")))
        for _ in range(20):
            replica.clock.advance(1)
            with pytest.raises(Unavailable):
                await replica.loops["cluster/east"].turn()
    assert state(store)[0] == "ready"


async def test_what_a_lost_cluster_held_is_ended_and_runs_elsewhere(store: SqlStore, replica: Replica) -> None:
    add(store, "east")
    await replica.turn()
    scene = Scene(store, now=replica.clock.now())
    work = scene.submit()
    replica.decide()
    await replica.turns(2)
    replica.decide()
    assert store.workload(work.id, tenant="physics").phase is Phase.RUNNING
    commit(store, DrainCluster(cluster="east", reason=WHY), RemoveCluster(cluster="east", lost=True, reason=WHY))
    add(store, "west")
    for _ in range(80):
        await replica.turn(seconds=0.5)
        replica.decide()
    first, second = store.allocations(work.key)
    assert (first.cluster, first.seen, first.closed) == ("east", Seen.ENDED, True)
    assert (second.cluster, second.seen) == ("west", Seen.RUNNING)
    assert set(replica.clusters) == {"west"}
    add(store, "east")


async def test_a_disk_that_fails_in_one_loop_ends_the_process(store: SqlStore, clock: ManualClock) -> None:
    replica = Replica(store, clock)

    async def broken() -> None:
        msg = "the disk failed"
        raise DiskFailed(msg)

    replica.fleet._start = lambda _: asyncio.create_task(broken())
    add(store)
    await replica.fleet.turn()
    await asyncio.sleep(0)
    with pytest.raises(DiskFailed):
        await replica.fleet.turn()


async def test_credentials_stand_nowhere_in_the_clear(
    store: SqlStore, replica: Replica, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(store)
    await replica.turn()
    replica.clusters["east"].fault = ValueError(CANARY)
    await replica.turns(STEADY_SECONDS + 2)
    seen = repr((store.clusters(), store.events(tenant="", workload="", after=0, limit=99)))
    seen += repr((replica.fleet, replica.clusters["east"].credentials, replica.sealing))
    out = capsys.readouterr()
    assert CANARY not in seen + out.out + out.err
    assert not any(CANARY.encode() in path.read_bytes() for path in tmp_path.iterdir())


async def test_the_machine_of_another_replica_is_asked_there_and_its_loop_is_not_run_here(store, clock):
    machine = NewCluster(name="local-0a1b2c", kind=ClusterKind.LOCAL)
    store.commit(Plan(actor="other", now=1, actions=(AddCluster(cluster=machine, reason=WHY),)))
    ours = Replica(store, clock)
    await ours.turn()
    assert not ours.loops
    with pytest.raises(Unavailable, match="does not reach local-0a1b2c, the machine of another one"):
        await ours.clusters["local-0a1b2c"].read_log("p-1-0", offset=0, limit=1)
    commit(store, DrainCluster(cluster="local-0a1b2c", reason=WHY), RemoveCluster(cluster="local-0a1b2c", reason=WHY))
    await ours.turn()
    assert "local-0a1b2c" not in ours.clusters
