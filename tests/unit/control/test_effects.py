"""Effects: one that fails holds up no other, and the turn still counts as failed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.control.effects import EffectLoop
from mainstay.domain.allocation import DeletePod
from mainstay.domain.errors import Fenced, Gone, Invalid, MainstayError, Unavailable
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
