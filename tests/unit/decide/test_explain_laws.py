"""Explain never lies: what it says would start a workload does, when it is done, and whom it could displace it does displace."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mainstay.decide import explain as explain_
from mainstay.decide.alternatives import Alternative
from mainstay.decide.explain import explain
from mainstay.decide.nomination import reserved
from mainstay.decide.preemption import preempt
from mainstay.decide.preemption.outlook import outlook
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_of
from mainstay.decide.why import Whys
from mainstay.domain.affinity import NodeNeed, Requirement, Spot, Toleration, need
from mainstay.domain.plan import Allocate
from mainstay.domain.quantity import counted
from mainstay.domain.queue import BUILT_IN_PRIORITIES, QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from mainstay.wire.quantities import duration
from tests.unit.decide.test_preemption_laws import drawn, with_flavors
from tests.worlds import NOON, SECOND, AnAllocation, ANode, AWorkload, allocation, flavor, node, workload, world

MODELS = ("H100", "L4")
SPOT_LABEL = {"karpenter.sh/capacity-type": "spot"}
NEEDS = (
    None,
    need(requirements=[Requirement(key="pool", operator="In", values=("spot",))]),
    need(requirements=[Requirement(key="disk", operator="In", values=("ssd",))]),
    need(tolerations=[Toleration(key="dedicated", operator="Equal", value="ml")]),
    need(spot=Spot.NEVER),
    need(spot=Spot.ONLY, requirements=[Requirement(key="disk", operator="Exists")]),
)


@dataclass(frozen=True, slots=True)
class Life:
    """A world as it was drawn, so that one workload of it can be changed."""

    nodes: list[ANode]
    queues: list[QueueSpec]
    work: list[AWorkload]
    pods: list[AnAllocation]

    def snapshot(self, changed: AWorkload | None = None) -> Snapshot:
        work = [changed if changed and changed.key == one.key else one for one in self.work]
        return world(
            nodes=self.nodes,
            queues=self.queues,
            workloads=work,
            allocations=self.pods,
            flavors=[flavor("spot"), flavor("owned")],
        )


def a_node(rng: random.Random) -> ANode:
    gpus = rng.choice((0, 0, 2, 4))
    labels = {"pool": rng.choice(("spot", "owned", "other"))}
    labels |= {"disk": "ssd"} if rng.random() < 0.4 else {}
    labels |= SPOT_LABEL if rng.random() < 0.3 else {}
    return node(
        cluster=rng.choice(("east", "west")),
        cpus=rng.choice((2, 4, 8)),
        gib=rng.choice((4, 16)),
        gpus=gpus,
        gpu_model=rng.choice(MODELS) if gpus else "",
        labels=labels,
        taints=("dedicated=ml:NoSchedule",) if rng.random() < 0.25 else (),
        topology={"rack": rng.choice(("r1", "r2"))},
        ready=rng.random() < 0.95,
    )


def asks(rng: random.Random, key: int) -> AWorkload:
    if rng.random() < 0.25:  # large, of one rack, and for long in the line: others must not delay its start
        return workload(
            key, queue="a", priority=50, nodes=4, cpus=2, topology="required rack", submitted_at=NOON - 1_200 * SECOND
        )
    gpus, ranks = rng.choice((0, 0, 1, 3, 4)), rng.choice((1, 1, 1, 2, 4))
    return workload(
        key,
        queue=rng.choice("ab"),
        priority=rng.choice((0, 50)),
        nodes=ranks,
        nodes_min=rng.choice((0, 0, 1)),
        cpus=rng.choice((1, 1, 2, 4, 6)),
        gib=rng.choice((1, 1, 3, 12)),
        gpus=gpus,
        gpu_model=rng.choice(("", *MODELS)) if gpus else "",
        cluster=rng.choice(("", "", "east")),
        restriction=rng.choice(NEEDS) or "",
        topology=rng.choice(("", "required rack", "/rack 1")) if ranks > 1 else "",
        max_duration_seconds=rng.choice((0, 300, 7_200)),
        submitted_at=NOON - rng.choice((0, 1_200)) * SECOND,
    )


def life(seed: int) -> Life:
    rng = random.Random(seed)
    fleet = [replace(a_node(rng), key=key) for key in range(1, rng.randint(3, 6))]
    cells = [("default", "cpu"), ("default", "gpu"), ("L4", "gpu"), ("spot", "cpu")]
    queues = [
        QueueSpec(
            name=name,
            parent="all",
            quotas={
                cell: Quota(nominal=rng.randint(1, 8) * (1_000 if cell[1] == "cpu" else 1))
                for cell in cells
                if rng.random() < 0.3
            },
        )
        for name in "ab"
    ]
    work, pods = [], []
    for one in fleet:
        if rng.random() < 0.6 and one.ready:
            key = 100 + one.key
            held = {"cpus": rng.choice((1, one.cpus)), "gib": 1, "gpus": rng.choice((0, one.gpus))}
            held |= {"gpu_model": one.gpu_model} if held["gpus"] else {}
            limit = rng.choice((0, 600, 3_600))
            running = workload(key, queue=rng.choice("ab"), phase=Phase.RUNNING, max_duration_seconds=limit, **held)
            work.append(running)
            pods.append(allocation(key, node_key=one.key, started_at=NOON - 60 * SECOND, **held))
    work += [asks(rng, key) for key in range(1, rng.randint(3, 7))]
    return Life(nodes=fleet, queues=queues, work=work, pods=pods)


def done(work: AWorkload, change: Alternative) -> AWorkload:  # noqa: C901 - one case per kind of change
    """The workload as it is once its owner has done what was said."""
    match change.change:
        case "cpus" | "gpus":
            return replace(work, **{change.change: int(change.after)})
        case "memory":
            return replace(work, gib=int(change.after.removesuffix("GiB")))
        case "nodes":
            return replace(work, nodes=int(change.after), nodes_min=0)
        case "gpu_model":
            return replace(work, gpu_model=change.after)
        case "infra":
            return replace(work, cluster=change.after)
        case "max_duration":
            return replace(work, max_duration_seconds=duration(change.after))
        case "topology":
            return replace(
                work, topology="preferred rack" if change.after == "preferred" else f"required {change.after}"
            )
        case "spread":
            return replace(work, topology=f"/{spread_of(change.after)}")
        case "queue":
            return replace(work, queue=change.after)
        case "priority":
            return replace(work, priority=BUILT_IN_PRIORITIES[change.after])
    return replace(work, restriction=other_nodes(work, change) or "")


def other_nodes(work: AWorkload, change: Alternative) -> NodeNeed | None:
    wanted = NodeNeed() if isinstance(work.restriction, str) else work.restriction
    requirements, tolerations, spot = wanted.requirements, wanted.tolerations, wanted.spot
    match change.change:
        case "node_labels":
            requirements = tuple(one for one in requirements if one.words != change.before)
        case "spot":
            spot = Spot.AUTO
        case "tolerations":
            more = (one.split("=") for one in change.after.split(", "))
            tolerations += tuple(Toleration(key=key, operator="Equal", value=value) for key, value in more)
        case _:
            pytest.fail(f"nobody knows how to do that: {change}")
    return need(requirements=requirements, tolerations=tolerations, spot=spot)


def spread_of(words: str) -> str:
    """`at most 2 per rack` as `near` has it."""
    most, _, level = words.removeprefix("at most ").partition(" per ")
    return f"{level} {most}"


def starts(snapshot: Snapshot) -> set[int]:
    return {action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate)}


def offers(seed: int) -> Counter[str]:
    """What is offered in one world, each of which has been done and has started it."""
    found = Counter[str]()
    one = life(seed)
    snapshot = one.snapshot()
    started, whys = starts(snapshot), Whys(snapshot)
    for work in one.work:
        if work.phase is not Phase.PENDING:
            continue
        answer = explain(snapshot, work.key)
        # Lists and pages say the same, from one look for all.
        version = int(snapshot.workloads.version[np.searchsorted(snapshot.workloads.key, work.key)])
        assert whys.of(work.key, version) == (None if work.key in started else answer.reason)
        assert (answer.reason.code in {Code.PLACED, Code.PLACED_ELASTIC}) == (work.key in started)
        for change in answer.alternatives:
            changed = done(work, change)
            assert work.key in starts(one.snapshot(changed)), f"seed {seed}: {work} does not start with {change}"
            found[change.change] += 1
    return found


KINDS = {
    "cpus",
    "gpus",
    "memory",
    "nodes",
    "gpu_model",
    "infra",
    "max_duration",
    "topology",
    "spread",
    "node_labels",
    "spot",
    "tolerations",
    "queue",
    "priority",
}


def test_what_would_start_it_does_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every kind something is offered in these worlds."""
    monkeypatch.setattr(
        explain_, "expected_start", lambda *_: None
    )  # when it starts is another question, and takes longer
    found = sum(map(offers, range(100)), Counter[str]())
    assert set(found) == KINDS


@pytest.mark.parametrize("seed", range(30))
def test_whom_it_could_displace_it_does_displace(seed: int) -> None:
    """Asked of one that waits alone, as others that wait go before it or take what it needs."""
    play = with_flavors(drawn(seed), seed) if seed % 3 == 0 else drawn(seed)
    while play.fill():
        pass
    play.now += 200 * SECOND
    waiting = [key for key, work in play.workloads.items() if work.phase is Phase.QUEUED]
    for key in waiting[:4]:
        others = {other for other in waiting if other != key}
        alone = replace(play, workloads={one: work for one, work in play.workloads.items() if one not in others})
        snapshot = alone.snapshot()
        row = snapshot.workloads.key.tolist().index(key)
        said = outlook(snapshot, wish_of(snapshot, row), shape_of(reserved(snapshot), row))
        actions = preempt(snapshot)
        assert bool(actions) == said.startswith("could take the place of"), f"seed {seed}: {key} {said!r}"
        for action in actions:
            names = [snapshot.queues.names[queue_of(snapshot, one.workload_key)] for one in action.victims]
            pods = sum(len(one.allocation_keys) for one in action.victims)
            by_queue = ", ".join(f"{names.count(name)} in queue {name}" for name in sorted(set(names)))
            assert said == f"could take the place of {counted(len(names), 'run')} ({counted(pods, 'pod')}): {by_queue}"


def queue_of(snapshot: Snapshot, key: int) -> int:
    return int(snapshot.workloads.queue[snapshot.workloads.key.tolist().index(key)])
