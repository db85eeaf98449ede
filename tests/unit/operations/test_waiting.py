"""What a list says of those that wait: what keeps them now, whatever was written down when they were queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mainstay.domain.errors import Unavailable
from mainstay.domain.plan import HoldWorkload
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase, Workload
from mainstay.operations.waiting import BEHIND_SECONDS, WaitingReasons
from mainstay.store.store import SqlStore
from tests.databases import empty_sqlite
from tests.stores import Scene, one_cpu


def at_once(take: Callable[[], object]) -> None:
    take()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield Scene(store)
    store.close()


class Seconds:
    """Time that moves by a step at every look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def queued(scene: Scene, name: str, **asked: int) -> Workload:
    work = scene.submit(name=name, choices=(one_cpu(**asked),))
    scene.applied(scene.advance(work, Phase.QUEUED))
    return scene.workload(work.id)


def told(scene: Scene, reasons: WaitingReasons, work: Workload) -> Reason:
    (found,) = reasons.told([scene.workload(work.id)], now=scene.now)
    return found.reason


def test_what_keeps_it_now_is_told_and_not_why_it_was_queued(scene: Scene) -> None:
    reasons = WaitingReasons(scene.store, later=at_once, seconds=Seconds(0.0))
    work = queued(scene, "wide", cpu_milli=4_000)
    assert told(scene, reasons, work).code is Code.NO_NODES
    scene.fleet(cpus=4)
    other = scene.submit(name="other", choices=(one_cpu(cpu_milli=2_000),))
    scene.run(other)
    found = told(scene, reasons, work)
    assert (found.code, found.numbers["free"]) == (Code.WAITS_FOR_CAPACITY, "2 CPUs, 3 GiB")
    assert scene.workload(work.id).reason != found
    assert told(scene, reasons, other) == scene.workload(other.id).reason


def test_what_is_about_to_start_or_held_or_over_keeps_what_is_on_record(scene: Scene) -> None:
    reasons = WaitingReasons(scene.store, later=at_once, seconds=Seconds(0.0))
    scene.fleet(cpus=4)
    starts, held, over = (queued(scene, name) for name in ("starts", "held", "over"))
    scene.applied(HoldWorkload(workload_key=held.key, reason=Reason(code=Code.HELD, numbers={"by": "ada"})))
    scene.applied(scene.advance(over, Phase.STOPPED))
    for work in (starts, held, over):
        assert told(scene, reasons, work) == scene.workload(work.id).reason


def test_one_look_serves_for_ten_times_as_long_as_it_took(scene: Scene) -> None:
    looks, seconds = Looks(scene.store), Seconds(1.0)
    reasons = WaitingReasons(looks, later=at_once, seconds=seconds)  # type: ignore[arg-type]
    work = queued(scene, "wide", cpu_milli=4_000)
    for _ in range(9):
        told(scene, reasons, work)
    assert looks.taken == 1
    for _ in range(9):
        told(scene, reasons, work)
    assert looks.taken == 2


def test_nobody_waits_for_the_next_look_while_the_one_before_serves(scene: Scene) -> None:
    looks, seconds, begun = Looks(scene.store), Seconds(0.0), list[Callable[[], object]]()
    reasons = WaitingReasons(looks, later=begun.append, seconds=seconds)  # type: ignore[arg-type]
    work = queued(scene, "wide", cpu_milli=4_000)
    assert told(scene, reasons, work).code is Code.NO_NODES
    scene.fleet(cpus=2)
    assert [told(scene, reasons, work).code for _ in range(3)] == [Code.NO_NODES] * 3
    assert (looks.taken, len(begun)) == (1, 1), "one is begun, and nobody has carried it out"
    begun.pop()()
    assert told(scene, reasons, work).code is Code.NEVER_FITS
    assert (looks.taken, len(begun)) == (2, 1)


def test_what_is_too_far_behind_is_told_to_nobody(scene: Scene) -> None:
    seconds = Seconds(0.0)
    reasons = WaitingReasons(scene.store, later=lambda _: None, seconds=seconds)
    work = queued(scene, "wide", cpu_milli=4_000)
    told(scene, reasons, work)
    scene.fleet(cpus=2)
    seconds.now = BEHIND_SECONDS
    assert told(scene, reasons, work).code is Code.NEVER_FITS


@pytest.mark.parametrize("error", [Unavailable("the database is away"), ValueError("the database is away")])
def test_a_look_that_fails_aside_is_logged_and_begun_again(scene: Scene, error: Exception) -> None:
    looks, begun = Looks(scene.store), list[Callable[[], object]]()
    reasons = WaitingReasons(looks, later=begun.append, seconds=Seconds(0.0))  # type: ignore[arg-type]
    work = queued(scene, "wide", cpu_milli=4_000)
    told(scene, reasons, work)
    looks.broken = error
    assert told(scene, reasons, work).code is Code.NO_NODES
    with capture_logs() as logs, pytest.raises(type(error)):
        begun.pop()()
    (entry,) = logs
    assert entry == {
        "event": "look_failed",
        "log_level": "warning",
        "kind": type(error).__name__,
        "reason": "the database is away",
    }
    told(scene, reasons, work)
    assert len(begun) == 1


def test_a_look_that_is_behind_says_nothing_of_what_has_changed_since(scene: Scene) -> None:
    reasons = WaitingReasons(scene.store, later=at_once, seconds=Seconds(1.0))
    work = queued(scene, "wide", cpu_milli=4_000)
    assert told(scene, reasons, work).code is Code.NO_NODES
    scene.fleet(cpus=4)
    scene.run(work)
    new = queued(scene, "new", cpu_milli=9_000)
    assert told(scene, reasons, work) == scene.workload(work.id).reason
    assert told(scene, reasons, new) == new.reason


def test_a_look_that_fails_is_taken_again(scene: Scene) -> None:
    looks = Looks(scene.store)
    reasons = WaitingReasons(looks, later=at_once, seconds=Seconds(0.0))  # type: ignore[arg-type]
    work = queued(scene, "wide", cpu_milli=4_000)
    looks.broken = Unavailable("the database is away")
    with pytest.raises(Unavailable):
        told(scene, reasons, work)
    looks.broken = None
    assert told(scene, reasons, work).code is Code.NO_NODES


class Looks:
    """Counts the snapshots that are taken of a store, which may be away."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.taken = 0
        self.broken: Exception | None = None

    def snapshot(self, *, now: int, seed: int):
        if self.broken:
            raise self.broken
        self.taken += 1
        return self._store.snapshot(now=now, seed=seed)
