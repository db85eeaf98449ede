"""The runner: what ends a loop, what does not, and what a loop may remember."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.control import runner
from mainstay.control.loop import PAUSE_SECONDS_MIN, REST, REST_SECONDS_MAX, Due, Loop
from mainstay.control.tenure import LEASE_SECONDS
from mainstay.domain.capacity import ClusterState, NodeState
from mainstay.domain.errors import DiskFailed, StorageFull, Unavailable
from mainstay.domain.plan import ObserveNodes, Plan
from mainstay.domain.quantity import Resources
from mainstay.operations.pulse import Pulse
from mainstay.store import SqlStore
from tests.clock import ManualClock
from tests.databases import empty_sqlite
from tests.stores import WHY

NODE = NodeState(name="n", capacity=Resources(cpu_milli=1_000, memory_bytes=1), ready=True)


class OneNode:
    """A cluster that reports one node and no pod."""

    name = "c"
    acts_at_once = 1

    async def observe(self) -> ClusterState:
        return ClusterState(nodes=(NODE,), pods=())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield store
    store.close()


def services(**parts: Any) -> Any:
    async def here(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return SimpleNamespace(
        **{"clock": ManualClock(), "pulse": Pulse(), "offload": here, "artifacts": None, "anchors": None, **parts}
    )


def failing(*errors: Exception) -> tuple[Loop, list[str]]:
    """A loop whose turns fail with these, in turn, and what became of it."""
    left, told = list(errors), []

    async def turn() -> Due:
        told.append("turn")
        raise left.pop(0)

    async def close() -> None:
        told.append("closed")

    return Loop(name="failing", turn=turn, close=close), told


def test_a_disk_that_has_failed_ends_the_loops_and_nothing_else_does() -> None:
    loop, told = failing(StorageFull("full"), Unavailable("away"), ValueError("a bug"), DiskFailed("broken"))
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(runner.run((loop,), services()))
    assert raised.group_contains(DiskFailed)
    assert told == ["turn"] * 4 + ["closed"]


def test_a_loop_that_is_cancelled_lets_go_of_what_is_under_way() -> None:
    started, told = asyncio.Event(), []

    async def turn() -> Due:
        started.set()
        return Due(wait=60.0)

    async def close() -> None:
        told.append("closed")

    async def main() -> None:
        running = asyncio.create_task(runner.run((Loop(name="l", turn=turn, close=close),), services()))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert told == ["closed"]


@pytest.mark.parametrize(
    ("computed", "waited", "rest"),
    [
        (0.9, 0.0, 0.9 * REST),
        (0.0, 3.0, PAUSE_SECONDS_MIN),
        (0.5, 3.0, REST / 2),
        (0.0, 0.0, PAUSE_SECONDS_MIN),
        (30.0, 0.0, REST_SECONDS_MAX),  # stopped for so long, or held up by a silent database
    ],
)
def test_a_loop_rests_from_what_it_has_computed_and_not_from_what_it_has_waited_for(
    computed: float, waited: float, rest: float
) -> None:
    ours, broken = services(), DiskFailed("broken")
    began: list[float] = []

    async def turn() -> Due:
        began.append(ours.clock.monotonic())
        if len(began) == 2:
            raise broken
        ours.clock.advance(computed + waited)
        return Due(wait=0.0, waited=waited)

    with pytest.raises(ExceptionGroup):
        asyncio.run(runner.run((Loop(name="l", turn=turn),), ours))
    assert began[1] - began[0] - computed - waited == pytest.approx(rest)


def test_what_a_loop_remembers_does_not_outlive_its_tenure(store: SqlStore) -> None:
    ours = services(store=store, clusters={"c": OneNode()})
    (turn,) = (loop.turn for loop in runner.loops(ours, holder="ours") if loop.name == "cluster/c")

    def led_by_another() -> None:
        epoch = store.acquire("cluster/c", holder="another", now=ours.clock.now(), seconds=1)
        nothing = ObserveNodes(cluster="c", nodes=(), reason=WHY)
        store.commit(Plan(actor="another", now=ours.clock.now(), actions=(nothing,), epoch=epoch))

    asyncio.run(_called(turn))
    assert [node.ready for node in store.nodes()] == [True]
    ours.clock.advance(2 * LEASE_SECONDS)
    led_by_another()
    assert [node.ready for node in store.nodes()] == [False]
    ours.clock.advance(2 * LEASE_SECONDS)
    asyncio.run(_called(turn))
    assert [node.ready for node in store.nodes()] == [True]


async def _called(turn: Callable[[], Awaitable[Due]]) -> None:
    await turn()
