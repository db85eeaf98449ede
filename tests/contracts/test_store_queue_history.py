"""What every store promises about what queues used lately: nothing is lost, counted twice, or spoilt by a clock."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mainstay.decide.history import used_lately
from mainstay.domain.allocation import Seen
from mainstay.domain.history import NO_HISTORY, HistoryPolicy, HistoryRecord, counted
from mainstay.domain.plan import Plan, RemoveQueue, SetQueue, SetQueueHistory
from mainstay.domain.queue import ALL_QUEUES, QueueSpec
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase
from tests.stores import ALL, SECOND, USER, Scene, scene, store

__all__ = ["scene", "store"]

HOUR = 3_600 * SECOND
POLICY = HistoryPolicy(half_life_seconds=3_600, weight=2.0, entry_seconds=60)
WHY = Reason(code=Code.QUEUE_HISTORY_SET, numbers={"by": USER, "detail": "half-life 1h"})


def put(policy: HistoryPolicy) -> SetQueueHistory:
    return SetQueueHistory(policy=policy, reason=WHY)


def queue(name: str) -> SetQueue:
    return SetQueue(queue=QueueSpec(name=name), reason=Reason(code=Code.QUEUE_SET, object=name, numbers={"by": USER}))


def used(scene: Scene, name: str) -> float:
    """CPU cores lately, by what has ended and by what runs."""
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    return float(used_lately(snapshot)[snapshot.queues.names.index(name), 0]) / 1_000


def reckoned(scene: Scene, name: str, policy: HistoryPolicy = POLICY) -> float:
    """The same from all allocations that there ever were."""
    found = 0.0
    for work in scene.all():
        for pod in scene.store.allocations(work.key):
            if work.queue == name:
                begin, end = np.array([pod.created_at]), np.array([pod.ended_at or scene.now])
                found += pod.resources.cpu_milli / 1_000 * counted(policy, begin=begin, end=end, now=scene.now)[0]
    return float(found)


def run(scene: Scene, name: str, *, seconds: int) -> None:
    pod = scene.run(scene.submit(queue=name))
    scene.now += seconds * SECOND
    scene.applied(scene.see(pod, Seen.ENDED, ended_at=scene.now))


def test_it_is_off_until_somebody_asks_for_it_and_on_record_then(scene: Scene) -> None:
    assert scene.store.history_policy() == HistoryRecord(policy=NO_HISTORY)
    assert scene.store.snapshot(now=scene.now, seed=0).history_policy == NO_HISTORY
    scene.applied(put(POLICY))
    assert scene.store.history_policy() == HistoryRecord(policy=POLICY, set_at=scene.now, set_by=USER)
    assert scene.store.snapshot(now=scene.now, seed=0).history_policy == POLICY
    assert [event.object for event in scene.store.events(tenant="", workload="", after=0, limit=ALL)] == [ALL_QUEUES]
    version = scene.store.version()
    scene.applied(put(POLICY))
    assert scene.store.version() == version, "what is said again is not written again"


def test_without_a_policy_nothing_is_kept(scene: Scene) -> None:
    scene.fleet()
    scene.applied(queue("a"))
    run(scene, "a", seconds=600)
    assert scene.store.snapshot(now=scene.now, seed=0).history.queue.size == 0
    scene.applied(put(POLICY))
    assert used(scene, "a") == 0


def test_what_ended_and_what_runs_is_what_all_allocations_together_say(scene: Scene) -> None:
    """However many commits there were, and whichever of them was lost on the way."""
    rng = random.Random(5)
    scene.fleet(cpus=64)
    scene.applied(queue("a"), queue("b"), put(POLICY))
    for _ in range(12):
        name = rng.choice("ab")
        if rng.random() < 0.3:
            scene.run(scene.submit(queue=name))
        else:
            run(scene, name, seconds=rng.choice((1, 30, 900, 5_000)))
        scene.now += rng.choice((0, 7, 2_000)) * SECOND
        for one in "ab":
            assert used(scene, one) == pytest.approx(reckoned(scene, one), abs=1e-5)


def test_an_end_that_is_reported_again_or_refused_counts_once(scene: Scene) -> None:
    scene.fleet()
    scene.applied(queue("a"), put(POLICY))
    pod = scene.run(scene.submit(queue="a"))
    scene.now += 600 * SECOND
    ended = scene.see(pod, Seen.ENDED, ended_at=scene.now)
    scene.applied(ended)
    assert scene.commit(ended).refused
    assert used(scene, "a") == pytest.approx(reckoned(scene, "a"), abs=1e-5)


def test_a_commit_that_fails_adds_nothing(scene: Scene) -> None:
    scene.fleet()
    scene.applied(queue("a"), put(POLICY))
    pod = scene.run(scene.submit(queue="a"))
    scene.now += 600 * SECOND
    gone = RemoveQueue(queue="nobody", reason=WHY)
    ended = scene.see(pod, Seen.ENDED, ended_at=scene.now)
    with pytest.raises(Exception, match="no such queue"):
        scene.store.commit(Plan(actor=USER, now=scene.now, actions=(ended, gone), atomic=True))
    assert scene.store.snapshot(now=scene.now, seed=0).history.queue.size == 0
    scene.applied(ended)
    assert used(scene, "a") == pytest.approx(reckoned(scene, "a"), abs=1e-5)


def test_a_clock_that_was_ahead_takes_nothing_with_it(scene: Scene) -> None:
    scene.fleet(cpus=64)
    scene.applied(queue("a"), put(POLICY))
    run(scene, "a", seconds=3_600)
    before, truth = used(scene, "a"), scene.now
    scene.now += 10_000 * HOUR  # a leader whose clock is a year ahead records an end
    run(scene, "a", seconds=3_600)
    ahead = used(scene, "a")
    scene.now = truth
    assert used(scene, "a") == pytest.approx(ahead), "it does not grow"
    run(scene, "a", seconds=3_600)
    after = used(scene, "a")
    assert after == pytest.approx(ahead + before, abs=0.02), "what is added next is added to it"
    scene.now += HOUR
    assert used(scene, "a") == pytest.approx(after / 2), "and it fades from then on"


def test_of_queues_that_nobody_has_set_it_is_that_of_the_default_queue(scene: Scene) -> None:
    """Pods of others may name any: there is a row for those that are on record, not for every word."""
    scene.fleet(cpus=64)
    scene.applied(put(POLICY))
    for name in ("x", "y", "z"):
        run(scene, name, seconds=600)
    snapshot = scene.store.snapshot(now=scene.now, seed=0)
    assert [snapshot.queues.names[row] for row in snapshot.history.queue.tolist()] == ["default"]
    assert used(scene, "default") == pytest.approx(sum(reckoned(scene, name) for name in "xyz"), abs=1e-5)


def test_rows_of_the_tree_may_move_and_a_queue_that_goes_takes_its_history_along(scene: Scene) -> None:
    scene.fleet()
    scene.applied(queue("m"), put(POLICY))
    work = scene.submit(queue="m")
    pod = scene.run(work)
    scene.now += HOUR
    scene.end(pod)
    before = used(scene, "m")
    scene.applied(queue("a"))
    assert used(scene, "m") == pytest.approx(before, rel=0.01)
    assert used(scene, "a") == 0
    scene.applied(scene.advance(work, Phase.SUCCEEDED))
    scene.applied(RemoveQueue(queue="m", reason=WHY))
    scene.applied(queue("m"))
    assert used(scene, "m") == 0


def test_another_half_life_counts_from_now_on_and_off_forgets(scene: Scene) -> None:
    scene.fleet()
    scene.applied(queue("a"), put(POLICY))
    run(scene, "a", seconds=3_600)
    scene.now += HOUR
    before = used(scene, "a")
    scene.applied(put(HistoryPolicy(half_life_seconds=36_000)))
    assert used(scene, "a") == pytest.approx(before, rel=0.01), "what has faded has faded"
    scene.now += 10 * HOUR
    assert used(scene, "a") == pytest.approx(before / 2, rel=0.01)
    scene.applied(put(NO_HISTORY))
    scene.applied(put(POLICY))
    assert used(scene, "a") == 0
