"""Pods of others on a cluster that an agent carries: placed, billed and let go of once, whatever happens to the connection."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from mainstay.clusters.simulated import Behaviour
from mainstay.control.tenure import LEASE_SECONDS
from mainstay.decide.guests import workload_id
from mainstay.domain.guest import Group, Guest
from mainstay.domain.plan import AddProject, RemoveProject, RequestStop, SetLocalQueue, SetQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import LocalQueue, QueueSpec
from mainstay.domain.workload import Kind, Phase, PodRef, Workload
from mainstay.ports import WorkloadFilter
from tests.agents import ANYWHERE, World, world
from tests.stores import TENANT, WHY

HOUR = 3_600
SETTLED_SECONDS = 40
LARGE, SMALL = Resources(cpu_milli=9_000, memory_bytes=BYTES_PER_GIB), Resources(cpu_milli=1_000, memory_bytes=1)


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
async def carried(tmp_path: Path) -> AsyncIterator[World]:
    with world(tmp_path) as made:
        await made.agent.greet()
        await made.turns(3)
        yield made
        await made.close()


def arrive(
    made: World,
    name: str,
    *,
    runs_for: float = 5.0,
    resources: Resources = SMALL,
    size: int = 1,
    queue: str = "default",
    project: str = "team",
) -> None:
    """Somebody beside the agent makes a pod."""
    guest = Guest(
        pod=PodRef(namespace="team", name=name, uid=f"uid-{name}"),
        tenant=TENANT,
        project=project,
        queue=queue,
        priority=50,
        resources=resources,
        restriction=ANYWHERE,
        grace_seconds=1,
        group=Group(name="gang", size=size) if size > 1 else None,
    )
    made.agent.lodgers.arrive(guest, Behaviour(starts_after=0.5, runs_for=runs_for))


async def test_the_name_that_its_namespace_has_for_a_queue_is_looked_up_for_pods_beside_an_agent_too(
    carried: World,
) -> None:
    """One without any waits in the default queue; neither holds up what the agent says of others."""
    plane = carried.plane
    plane.scene.applied(
        SetQueue(queue=QueueSpec(name="ml"), reason=WHY),
        SetLocalQueue(local=LocalQueue(namespace="team", name="gpus", queue="ml"), reason=WHY),
    )
    arrive(carried, "one", queue="team/gpus")
    arrive(carried, "two", queue="team/unknown")
    await carried.turns(8)
    assert sorted(work.queue for work in hosted(carried)) == ["default", "ml"]


def hosted(made: World) -> tuple[Workload, ...]:
    return made.plane.store.workloads(WorkloadFilter(tenant=TENANT), before=0, limit=100)


def ran_once(made: World, *names: str) -> None:
    """Each has run once, in a workload of its own that succeeded and is charged for what it ran."""
    for name in names:
        (work,) = [work for work in hosted(made) if work.spec.name == name]
        assert (work.phase, work.attempt) == (Phase.SUCCEEDED, 1), work.reason.sentence
        (pod,) = made.plane.store.allocations(work.key)
        ran = Counter(moment.running for moment in made.agent.machines.witness if moment.pod == pod.pod)
        assert ran == {True: 1, False: 1}
        usage = [row for row, _ in made.plane.store.usage(tenant=TENANT, since=0, until=1 << 62)]
        charged = [row.end - row.start for row in usage if row.allocation_key == pod.key]
        assert charged == [pod.ended_at - pod.started_at]
        assert pod.closed


async def test_a_pod_of_others_is_placed_and_billed_by_way_of_an_agent(carried: World) -> None:
    arrive(carried, "web")
    await carried.turns(SETTLED_SECONDS)
    ran_once(carried, "web")
    (work,) = hosted(carried)
    assert work.id == workload_id("web", ["uid-web"])
    assert (work.spec.kind, work.spec.cluster, work.submitted_by) == (Kind.POD, "edge", "cluster/edge")
    assert not carried.agent.failures


async def test_pods_for_a_project_that_was_removed_are_told_so_once_and_hold_up_no_others(carried: World) -> None:
    carried.plane.scene.applied(
        AddProject(tenant=TENANT, project="team", reason=WHY), RemoveProject(tenant=TENANT, project="team", reason=WHY)
    )
    for number in range(3):
        arrive(carried, f"late-{number}")
    await carried.turns(3)
    version = carried.plane.store.version()
    await carried.turns(3)
    assert carried.plane.store.version() == version
    arrive(carried, "web", project="other")
    await carried.turns(SETTLED_SECONDS)
    ran_once(carried, "web")
    assert [work.spec.name for work in hosted(carried)] == ["web"]
    told = {carried.agent.lodgers.by_uid[f"uid-late-{number}"].words for number in range(3)}
    assert [words.partition(" on ")[0] for words in told] == ["project team was removed"]


async def test_a_group_is_placed_together(carried: World) -> None:
    arrive(carried, "a", size=2)
    await carried.turns(5)
    assert hosted(carried) == ()
    assert "waits for its group gang" in carried.agent.lodgers.by_uid["uid-a"].words
    arrive(carried, "b", size=2)
    await carried.turns(SETTLED_SECONDS)
    (work,) = hosted(carried)
    assert (work.phase, len(carried.plane.store.allocations(work.key))) == (Phase.SUCCEEDED, 2)


async def test_who_waits_is_told_why_and_one_that_is_deleted_is_withdrawn(carried: World) -> None:
    arrive(carried, "huge", resources=LARGE)
    await carried.turns(5)
    assert carried.agent.lodgers.by_uid["uid-huge"].words
    carried.agent.lodgers.withdraw("uid-huge")
    await carried.turns(SETTLED_SECONDS)
    (work,) = hosted(carried)
    assert (work.phase, work.reason.sentence) == (Phase.STOPPED, "its pod was deleted in its cluster")


async def test_one_that_is_stopped_before_it_has_a_place_is_evicted_and_not_submitted_again(carried: World) -> None:
    arrive(carried, "huge", resources=LARGE)
    await carried.turns(5)
    (work,) = hosted(carried)
    carried.plane.scene.applied(RequestStop(workload_key=work.key, reason=WHY))
    await carried.turns(SETTLED_SECONDS)
    assert [found.phase for found in hosted(carried)] == [Phase.STOPPED]
    assert carried.agent.lodgers.by_uid["uid-huge"].withdrawn_at


async def test_guests_that_came_and_went_during_hours_apart_are_found_as_they_are(carried: World) -> None:
    arrive(carried, "before", runs_for=60.0)
    await carried.turns(5)
    carried.network.fault = lambda _: "before"
    arrive(carried, "during")
    await carried.turns(3 * HOUR, step=30)
    assert [work.spec.name for work in hosted(carried)] == ["before"]
    carried.network.fault = lambda _: ""
    await carried.turns(2 * SETTLED_SECONDS)
    ran_once(carried, "before", "during")


@pytest.mark.parametrize("kind", ["before", "after", "twice", "old"])
async def test_wherever_the_connection_is_cut_each_has_one_place(carried: World, kind: str) -> None:
    asked = 0

    def fault(_: httpx2.Request) -> str:
        nonlocal asked
        asked += 1
        return kind if asked % 3 == 0 else ""

    carried.network.fault = fault
    for name in ("a", "b"):
        arrive(carried, name)
        await carried.turns(5)
    carried.agent.lodgers.withdraw("uid-b", grace_seconds=0)
    await carried.turns(SETTLED_SECONDS)
    carried.network.fault = lambda _: ""
    await carried.turns(SETTLED_SECONDS)
    ran_once(carried, "a")
    assert {work.phase.final for work in hosted(carried)} == {True}
    assert len(hosted(carried)) == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_agent_that_is_killed_at_any_request_of_a_guest_is_followed_by_another(
    tmp_path: Path, when: str
) -> None:
    with world(tmp_path) as made:
        await made.agent.greet()
        await made.turns(2)
        names = [f"pod-{number}" for number in range(1, 14)]
        for number, name in enumerate(names, start=1):
            arrive(made, name, runs_for=3.0)
            asked = 0

            def fault(_: httpx2.Request, at: int = number) -> str:
                nonlocal asked
                asked += 1
                if asked == at and when == "before":
                    raise Killed
                return "after" if asked >= at else ""

            made.network.fault = fault
            with contextlib.suppress(Killed):
                while asked < number:
                    await made.turns(1)
            made.network.fault = lambda _: ""
            await made.kill_agent()
            await made.turns(LEASE_SECONDS + 15)
        ran_once(made, *names)
        await made.close()
