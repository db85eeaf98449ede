"""Effects: one that fails holds up no other, and the turn still counts as failed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.control.effects import ROOM_SECONDS_MAX, EffectLoop
from mainstay.domain.allocation import CreatePod, DeletePod, Owner
from mainstay.domain.errors import Fenced, Gone, Invalid, MainstayError, NoCapacity, Unavailable
from tests.clock import ManualClock


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


def creations(*names: str) -> tuple[Any, ...]:
    """Wanted pods that are to be made."""
    rows: Any = [SimpleNamespace(allocation=SimpleNamespace(pod=name, **WORKLOAD)) for name in names]
    return tuple(rows)


def carry_out(cluster: Any, *names: str) -> None:
    nothing: Any = None
    effects = tuple(DeletePod(name=name, grace_seconds=0) for name in names)
    view: Any = SimpleNamespace(wanted=(), reconciliation=SimpleNamespace(effects=effects))
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
    view: Any = SimpleNamespace(wanted=creations(*names), reconciliation=SimpleNamespace(effects=effects))
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
