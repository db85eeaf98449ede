"""The laws of displacements where elastic runs shrink and grow, and where work keeps coming while others are displaced."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from mainstay.decide.growth import grow
from mainstay.decide.preemption import preempt
from mainstay.domain.plan import Preempt
from mainstay.domain.snapshot import Snapshot
from tests.unit.decide.test_preemption_laws import Play, circle, drawn, keeps_the_laws, over_capacity, within_limits
from tests.worlds import NOON, SECOND, AWorkload

ROUNDS_MAX = 300


@dataclass
class Elastic(Play):
    """A play in which runs may grow, and yield some of their ranks."""

    shrunk: int = 0

    def fill(self) -> bool:
        """Who waits first, as in life; whether anything was done."""
        return super().fill() or self.grow()

    def grow(self) -> bool:
        actions = grow(self.snapshot())
        for action in actions:
            first = self.pods[action.workload_key][0]
            self.pods[action.workload_key] += [
                replace(first, rank=slot.rank, node_key=slot.node_key, created_at=self.now, started_at=self.now)
                for slot in action.slots
            ]
        return bool(actions)

    def yield_(self, action: Preempt) -> None:
        """Who yields surplus ranks goes on with the others."""
        numbers = {key: 1_000 + number for number, key in enumerate(self.keys())}
        for victim in action.victims:
            if victim.surplus:
                stays = [
                    pod
                    for pod in self.pods[victim.workload_key]
                    if numbers[victim.workload_key, pod.rank] not in victim.allocation_keys
                ]
                self.shrunk += len(self.pods[victim.workload_key]) - len(stays)
                self.pods[victim.workload_key] = stays
        whole = tuple(victim for victim in action.victims if not victim.surplus)
        super().yield_(replace(action, victims=whole))

    def keys(self) -> Iterator[tuple[int, int]]:
        """(workload, rank) of each pod, in the order in which the snapshot numbers them."""
        yield from ((key, pod.rank) for key, held in self.pods.items() for pod in held)


def elastic(seed: int) -> Elastic:
    """As `drawn`, and half of the gangs go on with fewer ranks or more."""
    rng, play = random.Random(seed), drawn(seed)
    for key, work in play.workloads.items():
        if rng.random() < 0.6:
            ranks = rng.choice((2, 3, 4))
            play.workloads[key] = replace(work, nodes=ranks, nodes_min=1, nodes_max=ranks + 2, cpus=rng.choice((1, 2)))
    return Elastic(nodes=play.nodes, queues=play.queues, workloads=play.workloads)


def played(play: Play, rng: random.Random) -> Iterator[tuple[Snapshot, Preempt]]:
    """Every displacement, while one workload after the other arrives: some before others have come to rest."""
    coming = [play.workloads.pop(key) for key in sorted(play.workloads)[len(play.workloads) // 3 :]]
    for _ in range(ROUNDS_MAX):
        while coming and rng.random() < 0.5:
            came = coming.pop(0)
            play.workloads[came.key] = replace(came, submitted_at=play.now)
        for _ in range(rng.randint(1, 3)):
            play.fill()
        play.now += 200 * SECOND
        snapshot = play.snapshot()
        actions = preempt(snapshot)
        if not actions:
            if coming or play.fill():
                continue
            return
        yield snapshot, actions[0]
        play.yield_(actions[0])
    pytest.fail(f"it did not end within {ROUNDS_MAX} rounds: {play.displacements[-12:]}")


@pytest.mark.parametrize("seed", range(25))
def test_with_arrivals_and_elastic_runs_every_displacement_keeps_the_laws_and_none_goes_in_a_circle(seed: int) -> None:
    play = elastic(seed)
    for snapshot, action in played(play, random.Random(seed)):
        assert not over_capacity(snapshot)
        within_limits(snapshot)
        keeps_the_laws(snapshot, action)
    assert not circle(play.displacements)


def test_the_drawn_worlds_shrink_and_displace() -> None:
    plays = [elastic(seed) for seed in range(8)]
    for seed, play in enumerate(plays):
        for _ in played(play, random.Random(seed)):
            pass
    assert sum(play.shrunk for play in plays) > 5
    assert sum(len(play.displacements) for play in plays) > 5


def test_two_that_keep_coming_do_not_displace_each_other_in_turn() -> None:
    """Whoever was displaced waits with its age, and is never displaced by one that it displaced."""
    play = drawn(3)
    key = max(play.workloads) + 1
    rng = random.Random(3)
    for _ in range(12):
        while play.fill():
            pass
        play.now += 200 * SECOND
        play.workloads[key] = AWorkload(key=key, queue=rng.choice("abc"), cpus=8, priority=90, submitted_at=NOON + key)
        key += 1
        for action in preempt(play.snapshot())[:1]:
            play.yield_(action)
    assert not circle(play.displacements)
