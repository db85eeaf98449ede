"""How long runs of a name have taken, kept for the next ones, over both databases."""

from __future__ import annotations

from mainstay.domain.workload import RUNS_OF_SHAPE_MIN, Kind, Phase, Workload, typical, usual_seconds
from tests.stores import SECOND, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]


def ran(scene: Scene, seconds: int, *, phase: Phase = Phase.SUCCEEDED, **which: object) -> None:
    """A run that started, took so long, and is over."""
    work = scene.submit(**which)
    pod = scene.run(work)
    scene.now = pod.started_at + seconds * SECOND
    scene.end(pod)
    scene.applied(scene.advance(work, phase))


def usual(scene: Scene, **which: object) -> int:
    """Of the next run, once it has its place."""
    work = scene.submit(**which)
    scene.place(work)
    table = scene.store.snapshot(now=scene.now, seed=0).workloads
    return int(table.usual_seconds[table.key.tolist().index(work.key)])


def test_runs_that_succeeded_are_the_history_of_the_next_one_of_their_name(scene: Scene) -> None:
    scene.fleet(cpus=64)
    for seconds in (100, 110, 120):
        ran(scene, seconds, name="train")
    found = usual(scene, name="train")
    assert usual_seconds((100, 110, 120)) <= found <= usual_seconds((100, 110, 120)) + 5
    assert usual(scene, name="other") == 0
    assert usual(scene, name="train", tenant="somebody-else") == 0
    assert usual(scene, name="train", project="another") == 0


def test_what_failed_and_what_has_a_limit_has_no_part_in_it(scene: Scene) -> None:
    scene.fleet(cpus=64)
    for seconds in (100, 110):
        ran(scene, seconds, name="train")
    ran(scene, 10, phase=Phase.FAILED, name="train")
    assert usual(scene, name="train") == 0
    ran(scene, 120, name="train")
    assert usual(scene, name="train", max_duration_seconds=50) == 0


def test_what_runs_of_a_name_take_is_known_of_the_next_one_that_is_queued_with_a_limit_or_without(scene: Scene) -> None:
    scene.fleet(cpus=64)
    for seconds in (100, 200, 400):
        ran(scene, seconds, name="train")
    middle, spread = typical((100, 200, 400))
    for limit in (0, 3_600):
        work = scene.submit(name="train", max_duration_seconds=limit)
        assert known(scene, work) == (0, 0)
        scene.applied(scene.advance(work, Phase.QUEUED))
        found = known(scene, work)
        assert abs(found[0] - middle) <= 5
        assert abs(found[1] - spread) <= 50
    ran(scene, 300, name="train")
    scene.place(work)
    assert known(scene, work)[0] > found[0]


def test_what_asks_for_the_same_in_the_same_queue_is_the_history_of_a_name_that_has_none(scene: Scene) -> None:
    scene.fleet(cpus=64)
    times = range(100, 100 + 10 * RUNS_OF_SHAPE_MIN, 10)
    for number, seconds in enumerate(times):
        assert usual(scene, name="new") == 0
        ran(scene, seconds, name=f"sweep-{number}", project="sweeps")
    found = usual(scene, name="new")
    assert usual_seconds([*times]) <= found <= usual_seconds([*times]) + 30
    assert usual(scene, name="new", queue="other") == 0
    assert usual(scene, name="new", tenant="somebody-else") == 0
    assert usual(scene, name="new", nodes=2) == 0
    assert usual(scene, name="new", choices=(one_cpu(cpu_milli=2_000),)) == 0
    assert usual(scene, name="new", kind=Kind.SERVICE) == 0
    work = scene.submit(name="another")
    scene.applied(scene.advance(work, Phase.QUEUED))
    assert abs(known(scene, work)[0] - typical([*times])[0]) <= 10


def test_the_history_of_a_name_goes_before_that_of_what_asks_for_the_same(scene: Scene) -> None:
    scene.fleet(cpus=64)
    for number in range(RUNS_OF_SHAPE_MIN):
        ran(scene, 1_000, name=f"sweep-{number}")
    for seconds in (100, 110):
        ran(scene, seconds, name="train")
    assert usual(scene, name="train") > 1_000
    ran(scene, 120, name="train")
    assert usual_seconds((100, 110, 120)) <= usual(scene, name="train") <= usual_seconds((100, 110, 120)) + 5


def known(scene: Scene, work: Workload) -> tuple[int, int]:
    """Seconds and thousandths that its row says."""
    table = scene.store.snapshot(now=scene.now, seed=0).workloads
    row = table.key.tolist().index(work.key)
    return int(table.typical_seconds[row]), int(table.spread_permille[row])
