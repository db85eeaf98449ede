"""A held workload waits whatever is free, and says so; what is behind it goes ahead."""

from __future__ import annotations

from mainstay.decide import admission
from mainstay.decide.explain import explain
from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Allocate
from mainstay.domain.reason import Code
from tests.worlds import node, workload, world


def test_it_has_no_turn_and_what_is_behind_it_does() -> None:
    snapshot = world(nodes=[node()], workloads=[workload(1, held=True, priority=90), workload(2)])
    assert snapshot.workloads.key[admission.order(snapshot)].tolist() == [2]
    assert [action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate)] == [2]


def test_it_is_explained_as_held_and_not_as_waiting_for_room() -> None:
    snapshot = world(nodes=[node()], workloads=[workload(1, held=True)])
    found = explain(snapshot, 1)
    assert (found.reason.code, found.position, found.alternatives) == (Code.HELD, 0, ())
