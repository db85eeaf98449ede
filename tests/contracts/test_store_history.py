"""How long runs of a name have taken, kept for those that have no limit, over both databases."""

from __future__ import annotations

from mainstay.domain.workload import Phase, usual_seconds
from tests.stores import SECOND, Scene, scene, store

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
