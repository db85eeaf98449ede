"""Files to and from an agent, over the routes of a control plane."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Fenced, Forbidden, Invalid, NotFound, NotYet, Unauthenticated, Unavailable
from mainstay.domain.workload import Mount
from mainstay.operations import agents
from mainstay.operations.principal import Principal
from tests.agents import World, content_of, no_fault, world
from tests.stores import TENANT

LARGE = 12 << 20


WHOSE = Owner(tenant=TENANT, project="default")
CODE = b"print(6 * 7)"


@pytest.fixture
async def carried(tmp_path: Path) -> AsyncIterator[World]:
    """A pod `train-1-0` runs there, whose code is a tree of one file."""
    with world(tmp_path, runs_for=1_000) as made:
        await made.agent.greet()
        await made.turns(2)
        artifacts, tree = made.plane.services.artifacts.of(WHOSE), tree_of(CODE)
        await artifacts.put(digest_of(CODE), chunks(CODE))
        mounts = (Mount(path=".", tree=await artifacts.put_tree(tree)),)
        work = made.plane.scene.submit(cluster="edge", id="train", mounts=mounts)
        await made.turns(4)
        assert made.plane.store.allocations(work.key)
        yield made
        await made.close()


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1 << 20):
        yield content[start : start + (1 << 20)]


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tree_of(content: bytes) -> Tree:
    return Tree(entries=(Entry(path="a/model.bin", size=len(content), digest=digest_of(content), executable=True),))


async def test_a_large_file_goes_into_a_slot_and_comes_back(carried: World) -> None:
    artifacts, content = carried.agent.artifacts.logs, b"0123456789abcdef" * (LARGE // 16)
    digest, tree = digest_of(content), tree_of(content)
    assert await artifacts.missing([digest, digest]) == (digest,)
    with pytest.raises(NotYet) as raised:
        await artifacts.put_tree(tree)
    assert raised.value.numbers["missing"] == digest
    assert await artifacts.put(digest, chunks(content)) == LARGE
    assert await artifacts.missing([digest]) == ()
    assert await artifacts.put_tree(tree) == tree.digest
    slot = "log-edge/train-1-0"
    await artifacts.commit(slot, attempt=1, tree=tree.digest)
    assert await artifacts.head(slot) == (1, tree.digest)
    assert await artifacts.tree(tree.digest) == tree
    assert await content_of(artifacts.get(digest)) == content


async def test_content_that_is_another_is_not_kept(carried: World) -> None:
    artifacts = carried.agent.artifacts.of(WHOSE)
    with pytest.raises(Invalid):
        await artifacts.put(digest_of(b"right"), chunks(b"wrong"))
    assert await artifacts.missing([digest_of(b"right")]) == (digest_of(b"right"),)


async def test_what_was_never_filled_is_not_found_and_what_is_of_others_is_forbidden(carried: World) -> None:
    artifacts = carried.agent.artifacts.of(WHOSE)
    with pytest.raises(NotFound):
        await artifacts.head("log-edge/train-1-0")
    for asked in (artifacts.head("log-west/x-1-0"), artifacts.tree("0" * 64), content_of(artifacts.get("0" * 64))):
        with pytest.raises(Forbidden):
            await asked


async def test_an_older_attempt_is_fenced_at_the_other_end(carried: World) -> None:
    artifacts, tree = carried.agent.artifacts.of(WHOSE), tree_of(b"x")
    await artifacts.put(digest_of(b"x"), chunks(b"x"))
    await artifacts.put_tree(tree)
    await carried.plane.services.artifacts.of(WHOSE).commit("train/output", attempt=2, tree=tree.digest)
    with pytest.raises(Fenced):
        await artifacts.commit("train/output", attempt=1, tree=tree.digest)


async def test_a_restart_of_the_control_plane_costs_no_file_a_second_journey(carried: World) -> None:
    artifacts, tree = carried.agent.artifacts.of(WHOSE), tree_of(b"x")
    await artifacts.put(digest_of(b"x"), chunks(b"x"))
    await carried.restart_plane()
    await artifacts.put_tree(tree)
    await carried.restart_plane()
    await artifacts.commit("train/output", attempt=1, tree=tree.digest)


async def test_after_a_restart_of_the_agent_what_it_cannot_prove_to_have_is_sent_again(carried: World) -> None:
    artifacts, tree = carried.agent.artifacts.of(WHOSE), tree_of(b"x")
    await artifacts.put(digest_of(b"x"), chunks(b"x"))
    await artifacts.put_tree(tree)
    await carried.kill_agent()
    artifacts = carried.agent.artifacts.of(WHOSE)
    with pytest.raises(NotYet):
        await artifacts.commit("train/output", attempt=1, tree=tree.digest)
    with pytest.raises(NotYet):
        await artifacts.put_tree(tree)
    assert await artifacts.missing([digest_of(b"x")]) == (digest_of(b"x"),)


async def test_a_file_that_the_control_plane_has_lost_is_sent_again(carried: World) -> None:
    artifacts, tree = carried.agent.artifacts.of(WHOSE), tree_of(b"x")
    await artifacts.put(digest_of(b"x"), chunks(b"x"))
    carried.plane.services.artifacts.of(WHOSE)._blobs.clear()  # type: ignore[attr-defined]
    with pytest.raises(NotYet):
        await artifacts.put_tree(tree)
    assert await artifacts.missing([digest_of(b"x")]) == (digest_of(b"x"),)


async def test_a_stream_that_breaks_leaves_nothing_behind(carried: World) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        msg = "the disk failed"
        raise OSError(msg)

    with pytest.raises((OSError, Unavailable)):
        await carried.agent.artifacts.of(WHOSE).put(digest_of(b"whole"), broken())
    assert await carried.agent.artifacts.of(WHOSE).missing([digest_of(b"whole")]) == (digest_of(b"whole"),)


async def test_what_a_pod_mounts_is_read_by_its_tree_and_not_without(carried: World) -> None:
    artifacts, code = carried.agent.artifacts.of(WHOSE), tree_of(CODE)
    with pytest.raises(Forbidden):
        await content_of(artifacts.get(digest_of(CODE)))
    assert await artifacts.tree(code.digest) == code
    assert await content_of(artifacts.get(digest_of(CODE))) == CODE


async def test_a_file_of_which_the_tree_was_forgotten_is_read_after_the_tree_once_more(
    carried: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, code = carried.agent.artifacts.of(WHOSE), tree_of(CODE)
    await artifacts.tree(code.digest)
    monkeypatch.setattr("mainstay.agent.artifacts.KNOWN_MAX", 0)
    await artifacts.tree(code.digest)
    with pytest.raises(Forbidden):
        await content_of(artifacts.get(digest_of(CODE)))
    monkeypatch.undo()
    await artifacts.tree(code.digest)
    assert await content_of(artifacts.get(digest_of(CODE))) == CODE


@pytest.mark.parametrize("kind", ["before", "after", "twice"])
async def test_a_cut_at_any_step_is_told_and_the_same_steps_once_more_succeed(carried: World, kind: str) -> None:
    artifacts, tree, slot = carried.agent.artifacts.of(WHOSE), tree_of(b"weights"), "train/output"

    async def stored() -> None:
        if await artifacts.missing([digest_of(b"weights")]):
            await artifacts.put(digest_of(b"weights"), chunks(b"weights"))
        await artifacts.put_tree(tree)
        await artifacts.commit(slot, attempt=1, tree=tree.digest)

    for step in range(4):
        steps = iter(range(10))
        carried.network.fault = lambda _, at=step, steps=steps: kind if next(steps) == at else ""
        with contextlib.suppress(Unavailable):
            await stored()
        carried.network.fault = no_fault
    await stored()
    assert await carried.plane.services.artifacts.of(WHOSE).head(slot) == (1, tree.digest)


async def test_a_file_that_is_cut_off_on_its_way_is_no_file(carried: World) -> None:
    artifacts = carried.agent.artifacts.of(WHOSE)
    await artifacts.tree(tree_of(CODE).digest)
    for kind in ("before", "after"):
        carried.network.fault = lambda _, kind=kind: kind
        with pytest.raises(Unavailable):
            await content_of(artifacts.get(digest_of(CODE)))


async def test_a_token_that_was_replaced_moves_no_file_any_more(carried: World) -> None:
    administrator = Principal(name="root", tenant="physics", role="platform-admin")
    agents.renew_token(carried.plane.store, administrator, "edge", now=carried.clock.now(), request=None)
    artifacts = carried.agent.artifacts.of(WHOSE)
    for asked in (artifacts.tree(tree_of(CODE).digest), artifacts.put(digest_of(b"x"), chunks(b"x"))):
        with pytest.raises(Unauthenticated):
            await asked
