"""Effects: one that fails holds up no other, and the turn still counts as failed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.control.effects import ROOM_SECONDS_MAX, EffectLoop
from mainstay.domain.allocation import CreatePod, DeletePod, ForgetPod, Owner, PodAction, PodState, Rows, Seen
from mainstay.domain.capacity import ClusterState
from mainstay.domain.errors import Fenced, Gone, Invalid, MainstayError, NoCapacity, Unavailable
from mainstay.domain.workload import Phase
from tests.clock import ManualClock
from tests.databases import empty_sqlite
from tests.stores import Scene


class Refusing:
    """A cluster that answers by the name of the pod."""

    acts_at_once = 1

    def __init__(self, **answers: MainstayError) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.under_way = self.most_under_way = 0

    async def act(self, action: DeletePod, *, epoch: int) -> None:
        self.asked.append(action.name)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if action.name in self.answers:
            raise self.answers[action.name]


WORKLOAD = {"tenant": "t", "project": "p", "key": 1}


def creations(*names: str) -> Rows:
    """Wanted pods that are to be made."""
    ours = SimpleNamespace(guests=())
    rows: Any = [
        SimpleNamespace(pod=name, allocation=SimpleNamespace(pod=name, **WORKLOAD), spec=ours) for name in names
    ]
    return Rows.of(rows)


def carry_out(cluster: Any, *names: str) -> None:
    nothing: Any = None
    effects = tuple(DeletePod(name=name, grace_seconds=0) for name in names)
    view: Any = SimpleNamespace(rows=creations(), reconciliation=SimpleNamespace(effects=effects))
    epoch: Any = SimpleNamespace(number=1)
    loop = EffectLoop(nothing, cluster, nothing, ManualClock(), nothing)
    asyncio.run(loop.carry_out(view, epoch))


def test_an_effect_that_fails_holds_up_no_other() -> None:
    cluster = Refusing(a=Unavailable("first"), b=Gone("gone"), c=Unavailable("second"))
    with pytest.raises(Unavailable, match="first"):
        carry_out(cluster, "a", "b", "c", "d")
    assert cluster.asked == ["a", "b", "c", "d"]


def test_a_leader_that_was_replaced_stops_at_once() -> None:
    cluster = Refusing(a=Fenced("old"))
    with pytest.raises(Fenced):
        carry_out(cluster, "a", "b")
    assert cluster.asked == ["a"]


def test_an_orphan_that_is_refused_is_no_crash() -> None:
    with pytest.raises(Invalid, match="no such pod"):
        carry_out(Refusing(a=Invalid("no such pod")), "a")


def made(cluster: Any, *names: str, seconds: float = 0.0) -> None:
    """Two turns that would create pods, so many seconds apart."""
    nothing: Any = None
    spec: Any = None
    effects = tuple(CreatePod(name=name, node="n", spec=spec) for name in names)
    view: Any = SimpleNamespace(rows=creations(*names), reconciliation=SimpleNamespace(effects=effects))
    epoch: Any = SimpleNamespace(number=1)
    clock = ManualClock()
    loop = EffectLoop(nothing, cluster, nothing, clock, nothing)

    async def turns() -> None:
        await loop.carry_out(view, epoch)
        clock.advance(seconds)
        await loop.carry_out(view, epoch)

    asyncio.run(turns())


class Full(Refusing):
    """A cluster that has no room for anything new."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[DeletePod] = []

    async def act(self, action: CreatePod | DeletePod, *, epoch: int) -> None:
        if isinstance(action, DeletePod):
            self.deleted.append(action)
            return
        msg = "no room"
        raise NoCapacity(msg)


def test_a_pod_waits_a_while_for_its_node_and_is_then_given_up_by_a_tombstone() -> None:
    soon, late = Full(), Full()
    made(soon, "a", seconds=ROOM_SECONDS_MAX - 1)
    made(late, "a", seconds=ROOM_SECONDS_MAX)
    assert soon.deleted == []
    assert late.deleted == [DeletePod(name="a", grace_seconds=0, owner=Owner(tenant="t", project="p"))]


def test_a_cluster_that_takes_several_at_once_gets_so_many_and_no_more() -> None:
    cluster = Refusing(c=Unavailable("third"))
    cluster.acts_at_once = 3
    with pytest.raises(Unavailable, match="third"):
        carry_out(cluster, *"abcdefgh")
    assert (sorted(cluster.asked), cluster.most_under_way) == (list("abcdefgh"), 3)


def test_a_leader_that_was_replaced_stops_also_what_is_beside_it() -> None:
    cluster = Refusing(a=Fenced("old"))
    cluster.acts_at_once = 2
    with pytest.raises(Fenced):
        carry_out(cluster, *"abcdefgh")
    assert len(cluster.asked) <= 3


class SetBack:
    """A cluster that shows pods whose end is on record, and many that nobody knows."""

    name = "local"
    acts_at_once = 1

    def __init__(self, *pods: PodState) -> None:
        self.pods = {pod.name: pod for pod in pods}
        self.asked: list[PodAction] = []

    async def observe(self) -> ClusterState:
        return ClusterState(nodes=(), pods=tuple(self.pods.values()))

    async def act(self, action: PodAction, *, epoch: int) -> None:
        self.asked.append(action)
        if isinstance(action, DeletePod):
            self.pods[action.name] = replace(self.pods[action.name], seen=Seen.ENDED)
        else:
            self.pods[action.name] = replace(self.pods[action.name], forgotten=True)


class Counting:
    """A store that counts what it is asked about closed rows."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def closed(self, cluster: str, pods: Any) -> Any:
        self.asked.append(sorted(pods))
        return self._store.closed(cluster, pods)


def test_pods_that_come_back_after_their_end_are_ended_and_let_go_of_at_once(tmp_path: Path) -> None:
    scene = Scene(empty_sqlite(tmp_path / "mainstay.db"))
    scene.fleet()
    names = []
    for _ in range(5):
        work = scene.submit()
        pod = scene.end(scene.run(work), exit_code=1)
        scene.applied(scene.advance(work, Phase.FAILED), scene.usage(pod, start=pod.started_at, end=pod.ended_at))
        scene.applied(scene.close(pod))
        names.append(pod.pod)
    states = (Seen.RUNNING, Seen.RUNNING, Seen.ENDED, Seen.STARTING, Seen.UNKNOWN)
    back = [PodState(name=name, node="local-0", seen=seen) for name, seen in zip(names, states, strict=True)]
    cluster, store = SetBack(*back, PodState(name="stranger-1-0", node="n", seen=Seen.RUNNING)), Counting(scene.store)
    epoch = scene.store.acquire("cluster/local", holder="us", now=scene.now, seconds=100)
    assert epoch is not None
    held: Any = cluster

    async def here(function: Any, *args: Any) -> Any:
        return function(*args)

    async def turns() -> None:
        unused: Any = None
        offload: Any = here
        loop = EffectLoop(store, held, unused, ManualClock(), offload)  # type: ignore[arg-type]
        for _ in range(5):
            await loop.turn(epoch)
        cluster.pods[names[0]] = back[0]
        for _ in range(5):
            await loop.turn(epoch)

    asyncio.run(turns())
    deleted = [action.name for action in cluster.asked if isinstance(action, DeletePod)]
    forgotten = [action.name for action in cluster.asked if isinstance(action, ForgetPod)]
    assert sorted(deleted) == sorted([names[0], *(names[number] for number in (0, 1, 3, 4))])
    assert sorted(forgotten) == sorted([names[0], *names])
    assert store.asked == [sorted([*names, "stranger-1-0"]), [names[0]]]
    scene.store.close()
