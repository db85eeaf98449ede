"""Volumes in the loop of a cluster: what is seen goes on record, what is to go is dropped, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mainstay.clusters.simulated import SimulatedCluster
from mainstay.control.effects import DROP_AGAIN_SECONDS, EffectLoop
from mainstay.domain.allocation import ClusterAction, DropVolume, Owner
from mainstay.domain.capacity import ClusterState
from mainstay.domain.errors import Denied, Invalid, MainstayError, Unavailable
from mainstay.domain.plan import Epoch, RemoveVolume
from mainstay.domain.volume import VolumeRef, VolumeState
from mainstay.store import SqlStore
from tests.agents import World, world
from tests.clock import ManualClock
from tests.databases import empty_sqlite
from tests.stores import TENANT, WHY, Scene

OWNER = Owner(tenant=TENANT, project="default")


def volume(name: str, **changes: Any) -> VolumeState:
    return VolumeState(owner=OWNER, name=name, **changes)


class Shelf:
    """A cluster that has volumes and nothing else."""

    name = "local"
    acts_at_once = 1

    def __init__(self, *names: str) -> None:
        self.volumes: dict[str, VolumeState] | None = {name: volume(name) for name in names}
        self.asked: list[str] = []
        self.answer: MainstayError | None = None
        self.at = 0

    async def observe(self) -> ClusterState:
        self.at += 1
        seen = None if self.volumes is None else tuple(self.volumes.values())
        return ClusterState(nodes=(), pods=(), at=self.at, volumes=seen)

    async def act(self, action: ClusterAction, *, epoch: int) -> None:
        assert isinstance(action, DropVolume)
        self.asked.append(action.name)
        if self.answer:
            raise self.answer
        assert self.volumes is not None
        self.volumes.pop(action.name, None)


class Rig:
    def __init__(self, store: SqlStore, shelf: Shelf) -> None:
        self.scene, self.shelf, self.clock = Scene(store), shelf, ManualClock()
        self.again()

    def again(self) -> None:
        """Another process leads."""

        async def here(function: Any, *args: Any) -> Any:
            return function(*args)

        shelf: Any = self.shelf
        unused: Any = None
        self.loop = EffectLoop(self.scene.store, shelf, unused, self.clock, here)  # type: ignore[arg-type]

    async def turn(self) -> None:
        self.clock.advance(1)
        await self.loop.turn(Epoch(name="cluster/local", number=1))

    def record(self) -> dict[str, str]:
        return {one.state.name: one.word for one in self.scene.store.volumes(tenant=TENANT)}

    def remove(self, name: str) -> None:
        ref = VolumeRef(owner=OWNER, name=name)
        self.scene.applied(RemoveVolume(cluster="local", volume=ref, reason=WHY))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    assert store.acquire("cluster/local", holder="us", now=0, seconds=100)
    yield Rig(store, Shelf("a", "b"))
    store.close()


async def test_what_is_seen_goes_on_record_once(rig: Rig) -> None:
    await rig.turn()
    assert rig.record() == {"a": "ready", "b": "ready"}
    version = rig.scene.store.version()
    rig.again()
    for _ in range(3):
        await rig.turn()
    assert rig.scene.store.version() == version
    del rig.shelf.volumes["b"]  # type: ignore[union-attr]
    await rig.turn()
    assert rig.record() == {"a": "ready"}


async def test_a_cluster_that_cannot_say_loses_no_record(rig: Rig) -> None:
    await rig.turn()
    rig.shelf.volumes = None
    for _ in range(2):
        await rig.turn()
        rig.again()
    assert rig.record() == {"a": "ready", "b": "ready"}


async def test_a_report_that_the_database_did_not_take_is_made_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, store = rig.scene.store.commit, rig.scene.store
    for fault in ("before", "after"):

        def broken(plan: Any, fault: str = fault) -> Any:
            if fault == "after":
                commit(plan)
            msg = "cut off"
            raise Unavailable(msg)

        rig.shelf.volumes[fault] = volume(fault)  # type: ignore[index]
        monkeypatch.setattr(store, "commit", broken)
        with pytest.raises(Unavailable):
            await rig.turn()
        monkeypatch.setattr(store, "commit", commit)
        await rig.turn()
        assert fault in rig.record()


async def test_what_is_to_go_is_dropped_once_and_is_then_off_the_record(rig: Rig) -> None:
    await rig.turn()
    rig.remove("a")
    assert rig.record()["a"] == "removing"
    await rig.turn()
    assert rig.shelf.asked == ["a"]
    await rig.turn()
    assert rig.record() == {"b": "ready"}
    # Another one of that name is left alone.
    rig.shelf.volumes["a"] = volume("a")  # type: ignore[index]
    for _ in range(3):
        await rig.turn()
    assert (rig.shelf.asked, rig.record()) == (["a"], {"a": "ready", "b": "ready"})


async def test_a_leader_that_dies_before_or_after_the_drop_leaves_it_to_the_next(rig: Rig) -> None:
    await rig.turn()
    rig.remove("a")
    rig.shelf.answer = Unavailable("cut off")
    with pytest.raises(Unavailable):
        await rig.turn()
    rig.shelf.answer = None
    rig.again()
    await rig.turn()
    rig.again()
    await rig.turn()
    assert (rig.shelf.asked, rig.record()) == (["a", "a"], {"b": "ready"})


async def test_what_goes_slowly_or_may_not_be_deleted_is_asked_again_after_a_while_and_the_turn_is_none_the_worse(
    rig: Rig,
) -> None:
    await rig.turn()
    rig.remove("a")
    rig.shelf.answer = Denied("may not delete claims")
    for _ in range(5):
        await rig.turn()
    assert rig.shelf.asked == ["a"]
    rig.clock.advance(DROP_AGAIN_SECONDS)
    await rig.turn()
    assert rig.shelf.asked == ["a", "a"]
    # Its cluster has begun to delete it: then it is only waited for.
    rig.shelf.volumes["a"] = volume("a", leaving=True)  # type: ignore[index]
    rig.clock.advance(DROP_AGAIN_SECONDS)
    await rig.turn()
    assert (rig.shelf.asked, rig.record()["a"]) == (["a", "a"], "removing")


class Stocked(SimulatedCluster):
    """Beside an agent: with volumes."""

    shelf = Shelf("a")

    async def observe(self) -> ClusterState:
        return replace(await super().observe(), volumes=(await self.shelf.observe()).volumes)

    async def act(self, action: ClusterAction, *, epoch: int) -> None:
        await (
            self.shelf.act(action, epoch=epoch) if isinstance(action, DropVolume) else super().act(action, epoch=epoch)
        )


@pytest.fixture
def carried(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:

        async def opened() -> Stocked:
            return Stocked("edge", made.agent.machines, made.agent.lodgers)

        made.agent.member._open = opened
        Stocked.shelf = Shelf("a")
        yield made


async def test_volumes_of_a_cluster_that_an_agent_carries_are_known_and_removed_through_it(carried: World) -> None:
    await carried.agent.greet()
    await carried.turns(3)
    store = carried.plane.store
    assert [(one.cluster, one.state.name) for one in store.volumes(tenant=TENANT)] == [("edge", "a")]
    ref = VolumeRef(owner=OWNER, name="a")
    carried.plane.scene.applied(RemoveVolume(cluster="edge", volume=ref, reason=WHY))
    await carried.turns(8)
    assert (Stocked.shelf.asked, store.volumes(tenant=TENANT)) == (["a"], ())
    await carried.close()


@pytest.mark.parametrize(
    "lie",
    [
        volume("a b"),
        volume(""),
        volume("a", reach="guests"),
        volume("a", access=("Read Write",)),
        VolumeState(owner=Owner(tenant="../x", project="default"), name="a"),
    ],
    ids=repr,
)
async def test_an_agent_reports_no_volume_that_no_job_could_name(carried: World, lie: VolumeState) -> None:
    await carried.agent.greet()
    Stocked.shelf.volumes = {"lie": lie}
    await carried.turns(3)
    assert any(isinstance(error, Invalid) for error in carried.agent.failures)
    assert carried.plane.store.volumes(tenant=TENANT) == ()
    await carried.close()
    await asyncio.sleep(0)
