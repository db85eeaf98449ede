"""What every cluster promises, over this machine, simulated ones and a real Kubernetes."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mainstay.domain.allocation import CreatePod, DeletePod, End, ForgetPod, MarkNode, Seen
from mainstay.domain.errors import Conflict, Fenced, Gone, MainstayError, NoCapacity, NotFound
from mainstay.domain.quantity import Resources
from tests.clusters import OWNER, Program, Rig, kubernetes_rig, local_rig, simulated_rig

pytestmark = pytest.mark.xdist_group("local-cluster")
LONG = Program(runs_for=30)


@pytest.fixture(params=["local", "simulated", pytest.param("kubernetes", marks=pytest.mark.xdist_group("kubernetes"))])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    match request.param:
        case "local":
            made = local_rig(tmp_path)
        case "simulated":
            made = simulated_rig(tmp_path)
        case _:
            made = await kubernetes_rig(request.getfixturevalue("real_cluster"), tmp_path)
    yield made
    await made.close()


async def refused(rig: Rig, action: CreatePod | DeletePod | ForgetPod, error: type[MainstayError]) -> None:
    with pytest.raises(error):
        await rig.act(action)


async def test_its_nodes_have_room_and_are_ready(rig):
    (node,) = (await rig.cluster.observe()).nodes
    assert (node.name, node.ready) == (rig.node, True)
    assert node.capacity.cpu_milli > 0
    assert node.capacity.memory_bytes > 0


async def test_a_pod_runs_to_its_end_with_its_times_log_and_files(rig):
    before = (await rig.cluster.observe()).at
    await rig.create("p", Program(runs_for=rig.moment, lines=("one", "two"), files={"model.txt": "weights"}))
    running = await rig.seen("p", Seen.RUNNING)
    assert (running.node, running.end, running.ended_at) == (rig.node, None, 0)
    ended = await rig.seen("p", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.EXITED, 0)
    assert before - rig.resolution_us <= running.started_at == ended.started_at
    assert ended.ended_at - ended.started_at >= rig.moment * 1_000_000 - rig.resolution_us
    assert ended.ended_at <= (await rig.cluster.observe()).at + rig.lag_us
    assert await rig.log("p") == "one\ntwo\n"
    assert await rig.output("p") == {"model.txt": "weights"}


async def test_an_exit_code_is_reported(rig):
    await rig.create("p", Program(exit_code=7))
    assert ((await rig.seen("p", Seen.ENDED)).end, (await rig.state("p")).exit_code) == (End.EXITED, 7)


async def test_creating_again_is_creating_once_also_through_a_new_handle(rig):
    action = await rig.create("p", LONG)
    running = await rig.seen("p", Seen.RUNNING)
    await rig.act(action)
    rig.again()
    await rig.act(action)
    assert await rig.state("p") == running


async def test_another_pod_under_the_same_name_is_refused(rig):
    action = await rig.create("p", LONG)
    other = dataclasses.replace(action, spec=dataclasses.replace(action.spec, argv=("/bin/true",)))
    await refused(rig, other, Conflict)


async def test_a_pod_that_has_ended_is_not_created_again(rig):
    action = await rig.create("p", Program())
    await rig.seen("p", Seen.ENDED)
    await refused(rig, action, Gone)
    await rig.until(ForgetPod(name="p"))
    await refused(rig, action, Gone)
    rig.again()
    await refused(rig, action, Gone)


async def test_deleting_what_is_not_there_refuses_its_late_creation(rig):
    await rig.act(DeletePod(name="p", grace_seconds=1, owner=OWNER))
    with pytest.raises(Gone):
        await rig.create("p", LONG)
    state = await rig.state("p")
    assert state is None or (state.seen, state.end, state.started_at) == (Seen.ENDED, End.NEVER_STARTED, 0)


async def test_deleting_ends_a_pod_as_stopped(rig):
    await rig.create("p", LONG)
    await rig.seen("p", Seen.RUNNING)
    await rig.act(DeletePod(name="p", grace_seconds=5))
    await rig.act(DeletePod(name="p", grace_seconds=5))
    assert (await rig.seen("p", Seen.ENDED)).end is End.STOPPED


async def test_who_ignores_the_request_is_killed_after_the_grace_and_not_before(rig):
    await rig.create("p", Program(runs_for=30, ignores_term=True, lines=("up",)))
    await rig.seen("p", Seen.RUNNING)
    while not await rig.log("p"):
        await rig.let_pass(0.01)
    asked = rig.now()
    await rig.act(DeletePod(name="p", grace_seconds=1))
    ended = await rig.seen("p", Seen.ENDED)
    assert ended.end is End.STOPPED
    assert 900_000 - rig.resolution_us <= ended.ended_at - asked < 5_000_000


async def test_a_deadline_ends_a_pod(rig):
    await rig.create("p", LONG, deadline_seconds=1)
    ended = await rig.seen("p", Seen.ENDED)
    assert ended.end is End.DEADLINE
    assert 900_000 - rig.resolution_us <= ended.ended_at - ended.started_at < 5_000_000


async def test_an_end_is_reported_until_it_is_forgotten_and_its_log_stays(rig):
    await rig.create("p", Program(lines=("kept",)))
    ended = await rig.seen("p", Seen.ENDED)
    rig.again()
    assert await rig.state("p") == ended
    await rig.until(ForgetPod(name="p"))
    await rig.until(ForgetPod(name="p"))
    state = await rig.state("p")
    assert state is None or state.forgotten
    assert await rig.log("p") == "kept\n"


async def test_what_lives_is_not_forgotten(rig):
    await rig.create("p", LONG)
    running = await rig.seen("p", Seen.RUNNING)
    await rig.act(ForgetPod(name="p"))
    assert await rig.state("p") == running


async def test_an_epoch_that_has_passed_is_refused_whatever_it_wants(rig):
    await rig.create("p", LONG)
    await rig.seen("p", Seen.RUNNING)
    await rig.act(DeletePod(name="other", grace_seconds=0), epoch=5)
    stale = [DeletePod(name="p", grace_seconds=0), ForgetPod(name="p")]
    for action in stale:
        with pytest.raises(Fenced):
            await rig.act(action, epoch=4)
    with pytest.raises(Fenced):
        await rig.create("q", LONG)
    rig.again()
    with pytest.raises(Fenced):
        await rig.create("q", LONG)
    assert (await rig.state("p")).seen is Seen.RUNNING
    assert await rig.state("q") is None


async def test_more_than_the_node_has_is_refused_and_nothing_starts(rig):
    (node,) = (await rig.cluster.observe()).nodes
    huge = Resources(cpu_milli=node.capacity.cpu_milli + 1, memory_bytes=1, gpus=0, gpu_model="")
    with pytest.raises(NoCapacity):
        await rig.create("p", LONG, resources=huge)
    half = dataclasses.replace(huge, cpu_milli=node.capacity.cpu_milli // 2 + 1)
    await rig.create("q", LONG, resources=half)
    with pytest.raises(NoCapacity):
        await rig.create("r", LONG, resources=half)
    assert {pod.name for pod in (await rig.cluster.observe()).pods} == {"q"}


async def test_what_has_ended_and_is_forgotten_frees_its_room(rig):
    (node,) = (await rig.cluster.observe()).nodes
    whole = dataclasses.replace(node.capacity, gpus=0, gpu_model="")
    await rig.create("p", Program(), resources=whole)
    await rig.seen("p", Seen.ENDED)
    await rig.until(ForgetPod(name="p"))
    await rig.until(rig.creation("q", Program(), resources=whole))
    assert (await rig.seen("q", Seen.ENDED)).exit_code == 0


async def test_a_node_with_other_schedulers_is_marked_for_them_and_let_in_again(rig):
    async def marked() -> bool | None:
        (node,) = [node for node in (await rig.cluster.observe()).nodes if node.name == rig.node]
        return node.marked

    if await marked() is None:
        return  # nobody else places anything there
    for closed in (True, False):
        while await marked() is not closed:
            await rig.act(MarkNode(name=rig.node, closed=closed, words="by a test", at=1))
            await rig.let_pass(0.1)
        await rig.act(MarkNode(name=rig.node, closed=closed, words="by a test", at=1))
        assert await marked() is closed
    (node,) = [node for node in (await rig.cluster.observe()).nodes if node.name == rig.node]
    assert not node.cordoned


async def test_a_node_that_is_not_there_has_no_room(rig):
    rig.node = "elsewhere"
    with pytest.raises(NoCapacity):
        await rig.create("p", LONG)


async def test_a_log_is_read_in_pieces_without_gap_or_repeat(rig):
    lines = tuple(f"line {number}" for number in range(50))
    await rig.create("p", Program(lines=lines))
    await rig.seen("p", Seen.ENDED)
    pieces, offset, ended = [], 0, False
    while not ended:
        chunk = await rig.cluster.read_log("p", offset=offset, limit=7)
        assert chunk.dropped == 0
        pieces.append(chunk.data)
        assert chunk.next_offset == offset + len(chunk.data)
        offset, ended = chunk.next_offset, chunk.ended
        if not chunk.data:
            await rig.let_pass(0.02)
    assert b"".join(pieces).decode() == "".join(f"{line}\n" for line in lines)


async def test_the_log_of_nobody_is_not_found(rig):
    with pytest.raises(NotFound):
        await rig.cluster.read_log("nobody", offset=0, limit=10)


async def test_the_time_of_a_look_never_passes_an_end_that_comes_later(rig):
    await rig.create("p", Program(runs_for=0.3))
    looks = []
    while (state := await rig.state("p")) is None or state.seen is not Seen.ENDED:
        looks.append((await rig.cluster.observe()).at)
        await rig.let_pass(0.01)
    # The last look before the end was seen may itself have seen it.
    assert all(at <= state.ended_at for at in looks[:-1])
