"""An agent carries a cluster through cuts, kills, restarts, hours apart and wrong clocks: nothing twice, nothing lost."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from mainstay.agent.store import STALE_SECONDS
from mainstay.control.contact import STEADY_SECONDS
from mainstay.control.listener import SILENT_SECONDS
from mainstay.control.tenure import LEASE_SECONDS
from mainstay.domain.allocation import Allocation, Seen
from mainstay.domain.errors import Denied, Fenced, Unauthenticated, Unavailable
from mainstay.domain.fleet import Contact
from mainstay.domain.plan import ObserveCluster, Plan
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase, Workload
from mainstay.operations import agents
from mainstay.operations.principal import Principal
from tests.agents import World, world
from tests.stores import SECOND, TENANT

HOUR = 3_600
SETTLED_SECONDS = 60


class Killed(BaseException):
    """The process is gone; nothing in it is cleaned up."""


@pytest.fixture
async def carried(tmp_path: Path) -> AsyncIterator[World]:
    with world(tmp_path) as made:
        await made.agent.greet()
        await made.turns(3)
        yield made
        await made.close()


def pods(made: World, work: Workload) -> tuple[Allocation, ...]:
    return made.plane.store.allocations(work.key)


async def succeeded_once(made: World, work: Workload) -> Allocation:
    """The run has ended well at its first attempt; one process ran, its time is charged once, its file is kept."""
    found = made.plane.scene.workload(work.id)
    assert (found.phase, found.attempt) == (Phase.SUCCEEDED, 1), found.reason.sentence
    (pod,) = pods(made, work)
    assert pod.closed
    ran = Counter((moment.pod, moment.running) for moment in made.agent.machines.witness)
    assert (ran[pod.pod, True], ran[pod.pod, False]) == (1, 1)
    process = made.agent.machines.processes[pod.pod]
    assert (pod.started_at, pod.ended_at) == (process.started_at, process.ended_at)
    usage = [record for record, _ in made.plane.store.usage(tenant=TENANT, since=0, until=1 << 62)]
    mine = sorted((record.start, record.end) for record in usage if record.allocation_key == pod.key)
    assert mine[0][0] == pod.started_at
    assert mine[-1][1] == pod.ended_at
    assert all(before[1] == after[0] for before, after in itertools.pairwise(mine))
    tree = await made.plane.services.artifacts.of(pod.owner).tree(found.output)
    assert [entry.path for entry in tree.entries] == ["model.txt"]
    return pod


async def test_a_run_goes_to_an_agent_and_comes_back_with_its_end_its_files_and_its_charge(carried: World) -> None:
    assert carried.plane.state()[0] == "ready"
    work = carried.plane.scene.submit(cluster="edge")
    await carried.turns(SETTLED_SECONDS)
    await succeeded_once(carried, work)
    assert not carried.agent.failures


async def test_a_change_reaches_an_agent_without_the_rest_being_told_again(carried: World) -> None:
    for _ in range(3):
        carried.plane.scene.submit(cluster="edge")
    await carried.turns(5)
    told: list[bytes] = []

    def keep(request: httpx2.Request) -> str:
        told.append(request.url.query)
        return ""

    carried.network.fault = keep
    await carried.turns(5)
    assert told
    assert not [query for query in told if b"since=-1" in query]


KINDS = ("before", "after", "twice", "old")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", range(4))
async def test_wherever_the_connection_is_cut_the_run_happens_once(tmp_path: Path, kind: str, start: int) -> None:
    """Every fourth request from `start` on fails in this way, until the run is half through; then all of them."""
    with world(tmp_path) as made:
        await made.agent.greet()
        await made.turns(2)
        work = made.plane.scene.submit(cluster="edge")
        asked = 0

        def fault(_: httpx2.Request) -> str:
            nonlocal asked
            asked += 1
            return kind if asked % 4 == start else ""

        made.network.fault = fault
        await made.turns(90)
        made.network.fault = lambda _: ""
        await made.turns(30)
        await succeeded_once(made, work)
        await made.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_agent_that_is_killed_at_any_request_is_followed_by_another_and_the_run_happens_once(
    tmp_path: Path, when: str
) -> None:
    """Each request of a whole run in turn is the last of its process, carried out or not."""
    with world(tmp_path, runs_for=1.0) as made:
        await made.agent.greet()
        await made.turns(2)
        for number in range(1, 200):
            work = made.plane.scene.submit(cluster="edge")
            asked, killed = 0, False

            def fault(_: httpx2.Request, at: int = number) -> str:
                nonlocal asked, killed
                asked += 1
                if asked == at:
                    killed = True
                    if when == "before":
                        raise Killed
                return "after" if killed else ""

            made.network.fault = fault
            for _ in range(10):
                with contextlib.suppress(Killed):
                    await made.turns(1)
                if killed:
                    made.network.fault = lambda _: ""
                    await made.kill_agent()
                    break
            made.network.fault = lambda _: ""
            await made.turns(LEASE_SECONDS + 6)
            await succeeded_once(made, work)
            if not killed:
                break
        assert number > 15
        await made.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_agent_that_is_killed_beside_an_act_neither_loses_nor_doubles_it(carried: World, when: str) -> None:
    machines = carried.agent.machines
    create, kills = machines.create, []

    def killed(action: Any) -> None:
        if not kills:
            kills.append(action.name)
            if when == "after":
                create(action)
            raise Killed
        create(action)

    machines.create = killed  # type: ignore[method-assign]
    work = carried.plane.scene.submit(cluster="edge")
    with pytest.raises(Killed):
        await carried.turns(5)
    await carried.kill_agent()
    await carried.turns(LEASE_SECONDS + SETTLED_SECONDS)
    await succeeded_once(carried, work)


async def test_a_control_plane_that_is_restarted_at_any_time_goes_on_with_its_agents(carried: World) -> None:
    work = carried.plane.scene.submit(cluster="edge")
    for _ in range(25):
        await carried.turns(2)
        await carried.restart_plane()
    await carried.turns(SETTLED_SECONDS)
    await succeeded_once(carried, work)


async def test_between_an_agent_and_several_replicas_any_request_may_go_to_any_of_them(carried: World) -> None:
    """As a load balancer does it. What one replica alone knows, such as which files were sent to it, is sent again."""
    first, second = carried.plane, carried.plane.restarted()
    turn = itertools.cycle((second.app, first.app))

    def balanced(_: httpx2.Request) -> str:
        carried.network.app = next(turn)
        return ""

    carried.network.fault = balanced
    works = [carried.plane.scene.submit(cluster="edge") for _ in range(2)]
    await carried.turns(2 * SETTLED_SECONDS)
    for work in works:
        await succeeded_once(carried, work)


async def test_after_hours_apart_what_ended_meanwhile_ends_at_its_own_time_and_is_charged_once(carried: World) -> None:
    plane = carried.plane
    before = plane.scene.submit(cluster="edge")
    await carried.turns(5)
    assert pods(carried, before)[0].seen is Seen.RUNNING
    carried.network.fault = lambda _: "before"
    heard = datetime.fromtimestamp(carried.clock.now() // SECOND - 1, UTC)
    await carried.turns(SILENT_SECONDS + 10)
    assert plane.state() == ("unreachable", f"its agent has not been heard since {heard:%Y-%m-%d %H:%M:%S} UTC")
    during = plane.scene.submit(cluster="edge")
    await carried.turns(3 * HOUR, step=15)
    assert not pods(carried, during)
    assert plane.scene.workload(during.id).phase is Phase.QUEUED
    (pod,) = pods(carried, before)
    assert pod.seen is Seen.RUNNING
    carried.agent.machines.settle()
    assert carried.agent.machines.processes[pod.pod].seen is Seen.ENDED
    charged = plane.store.usage(tenant=TENANT, since=0, until=1 << 62)
    assert not charged
    carried.network.fault = lambda _: ""
    await carried.turns(STEADY_SECONDS + SETTLED_SECONDS)
    assert plane.state() == ("ready", "the cluster answers")
    ended = await succeeded_once(carried, before)
    assert 19 * SECOND < ended.ended_at - ended.started_at < 22 * SECOND
    await succeeded_once(carried, during)


async def test_what_was_to_be_stopped_while_the_agent_was_away_is_stopped_when_it_is_back(tmp_path: Path) -> None:
    with world(tmp_path, runs_for=10 * HOUR) as made:
        await made.agent.greet()
        await made.turns(2)
        work = made.plane.scene.submit(cluster="edge")
        await made.turns(5)
        made.network.fault = lambda _: "before"
        made.plane.scene.applied(made.plane.scene.stop(work))
        await made.turns(HOUR, step=15)
        assert made.plane.scene.workload(work.id).phase is Phase.RUNNING
        made.network.fault = lambda _: ""
        await made.turns(SETTLED_SECONDS + 60)
        assert made.plane.scene.workload(work.id).phase is Phase.STOPPED
        await made.close()


async def test_a_cut_of_hours_in_the_middle_of_sending_output_loses_none_of_it(carried: World) -> None:
    """Whoever waits for its output for an hour gives up; the hours of a cut do not count."""
    work = carried.plane.scene.submit(cluster="edge")

    def files(request: httpx2.Request) -> str:
        return "before" if request.method == "PUT" else ""

    carried.network.fault = files
    await carried.turns(40)
    # Until one has just failed, so that nobody has looked at that failure when the hours begin.
    carried.network.asked.clear()
    while not any(asked.startswith("PUT") for asked in carried.network.asked):
        await carried.turns(1)
    carried.network.fault = lambda _: "before"
    await carried.plane.fleet.close()
    carried.clock.advance(5 * HOUR)
    await carried.agent.turn()
    await carried.restart_plane()
    carried.network.fault = lambda _: ""
    await carried.turns(SETTLED_SECONDS)
    await succeeded_once(carried, work)


@pytest.mark.parametrize("seconds", [-86_400, 86_400, 3_600])
async def test_a_jump_of_the_clock_of_an_agent_neither_ends_nor_overcharges_anything(
    carried: World, seconds: int
) -> None:
    clock = carried.agent.clock
    work = carried.plane.scene.submit(cluster="edge")
    await carried.turns(8)
    clock.skew_us += seconds * SECOND
    await carried.turns(SETTLED_SECONDS + 30)
    found = carried.plane.scene.workload(work.id)
    assert (found.phase, found.attempt) == (Phase.SUCCEEDED, 1)
    assert carried.plane.state()[0] == "ready"
    assert carried.plane.store.cluster("edge").observed_at <= carried.clock.now()
    (pod,) = pods(carried, work)
    usage = [record for record, _ in carried.plane.store.usage(tenant=TENANT, since=0, until=1 << 62)]
    assert sum(record.end - record.start for record in usage) == pod.ended_at - pod.started_at


async def test_a_jump_of_the_clock_of_the_control_plane_silences_no_agent(carried: World) -> None:
    for seconds in (7_200, -14_400):
        carried.clock.jump(seconds)
        await carried.turns(20)
        assert carried.plane.state()[0] == "ready"


async def test_of_two_agents_for_one_cluster_one_acts_and_the_other_waits_and_follows(carried: World) -> None:
    first = carried.agent
    second = first.again(holder="second")
    work = carried.plane.scene.submit(cluster="edge")
    for _ in range(10):
        await carried.turns(1)
        await second.turn()
    assert "SimulatedCluster" in str(second.clusters)
    assert second.store._held_by.startswith("agent/first")
    (pod,) = pods(carried, work)
    assert pod.seen is Seen.RUNNING
    carried.agent = second
    await carried.turns(LEASE_SECONDS + SETTLED_SECONDS)
    assert not second.store._held_by
    await succeeded_once(carried, work)
    # The one that wakes up late is harmless.
    await first.turn()
    await first.close()


async def test_a_token_that_is_replaced_in_the_middle_of_a_run_costs_time_and_nothing_else(carried: World) -> None:
    work = carried.plane.scene.submit(cluster="edge")
    await carried.turns(5)
    administrator = Principal(name="root", tenant=TENANT, role="platform-admin")
    token = agents.renew_token(carried.plane.store, administrator, "edge", now=carried.clock.now(), request=None)
    await carried.turns(SILENT_SECONDS + 10)
    assert {type(error) for error in carried.agent.failures} == {Unauthenticated}
    assert carried.plane.state()[0] == "unreachable"
    carried.agent.token = token
    await carried.turns(SETTLED_SECONDS)
    await succeeded_once(carried, work)


@pytest.mark.parametrize(
    ("holder", "event"), [("agent/other/0", "another_agent_leads"), ("a-replica", "waits_for_the_lease")]
)
async def test_a_replica_that_holds_the_lease_for_a_moment_is_not_taken_for_another_agent(
    carried: World, holder: str, event: str
) -> None:
    """People are told to replace the token where another agent leads."""
    plane = carried.plane
    plane.clock.advance(60)
    assert plane.store.acquire("cluster/edge", holder=holder, now=plane.clock.now(), seconds=6)
    with capture_logs() as logs:
        for _ in range(3):
            assert carried.agent.store.acquire("cluster/edge", holder="us", now=0, seconds=6) is None
    assert [row["event"] for row in logs if row.get("holder")] == [event]


async def test_what_an_agent_has_on_the_way_from_before_it_was_silent_counts_no_more(carried: World) -> None:
    work = carried.plane.scene.submit(cluster="edge")
    await carried.turns(3)
    epoch = carried.agent.member._tenure.epoch()
    assert epoch is not None
    await carried.turns(SILENT_SECONDS + 10, agent=False)
    assert carried.plane.state()[0] == "unreachable"
    seen = ObserveCluster(cluster="edge", seen=Contact.READY, reason=Reason(code=Code.CLUSTER_READY))
    with pytest.raises(Fenced):
        carried.agent.store.commit(Plan(actor="cluster/edge", now=0, actions=(seen,), epoch=epoch))
    await carried.turns(SETTLED_SECONDS)
    await succeeded_once(carried, work)


async def test_an_agent_says_what_its_cluster_says(carried: World) -> None:
    cluster = carried.agent.clusters["edge"]

    async def fails() -> Any:
        msg = "connection refused"
        raise Unavailable(msg)

    look, cluster.observe = cluster.observe, fails
    await carried.turns(STEADY_SECONDS + 2)
    assert carried.plane.state() == ("unreachable", "the cluster does not answer: connection refused")
    cluster.observe = look
    await carried.turns(STEADY_SECONDS + 2)
    assert carried.plane.state() == ("ready", "the cluster answers")


async def test_a_pod_that_is_over_is_told_to_who_asks_for_it_and_to_no_other_cluster(carried: World) -> None:
    """As it comes back when its cluster is set back to an older state (`EffectLoop`)."""
    work = carried.plane.scene.submit(cluster="edge")
    await carried.turns(SETTLED_SECONDS)
    pod = await succeeded_once(carried, work)
    carried.plane.scene.fleet(cluster="other")
    asked = {pod.pod, "nobody-1-0"}
    assert carried.agent.store.closed("edge", asked) == carried.plane.store.closed("edge", asked)
    (row,) = carried.agent.store.closed("edge", asked)
    assert (row.allocation, row.spec, row.settled) == (pod, work.spec, True)
    west = carried.agent.again(name="west", token=carried.plane.add("west"))
    assert west.store.closed("west", asked) == ()
    await west.close()


async def test_an_agent_that_was_started_for_another_cluster_is_not_let_in(carried: World) -> None:
    stranger = carried.agent.again(identity="uid-of-another")
    with pytest.raises(Denied, match="found another cluster than the one that it was"):
        await stranger.greet()
    assert (await carried.agent.greet()).identity == "uid-of-edge"
    carried.plane.add("west")
    await stranger.close()


async def test_one_cluster_is_not_carried_under_two_names(carried: World) -> None:
    token = carried.plane.add("west")
    again = carried.agent.again(name="west", token=token)
    with pytest.raises(Denied, match="in the fleet already, as edge"):
        await again.greet()
    await again.close()


async def test_an_old_view_is_not_acted_upon(carried: World) -> None:
    await carried.turns(2)
    carried.network.fault = lambda _: "before"
    assert carried.agent.store.wanted("edge") == ()
    carried.clock.advance(STALE_SECONDS)
    with pytest.raises(Unavailable):
        carried.agent.store.wanted("edge")


async def test_a_cluster_whose_agent_has_never_called_takes_no_work_and_says_so(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        work = made.plane.scene.submit(cluster="edge")
        await made.turns(SILENT_SECONDS + 20, agent=False)
        assert made.plane.state() == ("connecting", "waits for its agent to call for the first time")
        assert made.plane.scene.workload(work.id).phase is Phase.QUEUED
        await made.close()


async def test_an_agent_that_was_awaited_for_long_is_not_silent_between_its_first_call_and_its_lease(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as made:
        await made.turns(SILENT_SECONDS + 20, agent=False)
        await made.agent.greet()
        await made.turns(5, agent=False)
        assert made.plane.state()[0] == "ready"
        await made.turns(SILENT_SECONDS + 10, agent=False)
        state, why = made.plane.state()
        assert (state, why[:34]) == ("unreachable", "its agent has not been heard since")
        await made.close()


async def test_an_agent_that_is_back_catches_up_and_is_not_called_silent_meanwhile(carried: World) -> None:
    await carried.turns(SILENT_SECONDS + 10, agent=False)
    assert carried.plane.state()[1].startswith("its agent has not been heard since ")
    await carried.turns(2)
    state, why = carried.plane.state()
    assert (state, why[:44]) == ("connecting", "its agent is connected again and catches up;")
    carried.network.fault = lambda _: "before"
    await carried.turns(SILENT_SECONDS + 10)
    assert carried.plane.state()[0] == "unreachable"
    carried.network.fault = lambda _: ""
    await carried.turns(STEADY_SECONDS + 5)
    assert carried.plane.state() == ("ready", "the cluster answers")


def test_an_agent_is_heard_in_time() -> None:
    """A lease is renewed at half its length; a restart of an agent waits for it to lapse."""
    assert SILENT_SECONDS > 4 * LEASE_SECONDS
    assert STALE_SECONDS < LEASE_SECONDS
