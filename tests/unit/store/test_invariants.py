"""Random plans, sensible and senseless: whatever is asked, the invariants of reliability.md hold (I3, I5, I6)."""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.agent.store import Mirror
from mainstay.domain.allocation import Allocation, End, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import Action, Allocate, CapacityLeft, ObserveNodes, RowVersion, StopPod, Submit
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import Resources
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import LEGAL_TRANSITIONS, Phase, Workload
from mainstay.store import SqlStore, guards, open_sqlite
from tests.databases import empty_sqlite
from tests.stores import ALL, WHY, Scene, one_cpu

WORKS = 4
CPUS_MAX = 4
Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("submit", "place", "place", "advance", "see", "end", "stop", "meter", "close", "nodes", "twice")
        ),
        st.integers(0, 63),
        st.integers(0, 63),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(steps=STEPS, batch=st.integers(1, 4))
def test_whatever_is_asked_the_invariants_hold(steps: list[Step], batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mainstay.db"
        store = empty_sqlite(path)
        scene = Scene(store)
        kept: list[tuple[Snapshot, list[bytes]]] = []
        mirrors = [Mirror(), Mirror()]
        for chunk in chunks(steps, batch):
            actions = [action for step in chunk for action in asked(scene, *step)]
            scene.commit(*actions)
            no_node_is_overcommitted(store)
            snapshot = store.snapshot(now=0, seed=0)
            for number, mirror in enumerate(mirrors):
                # Whoever follows by changes has the same as who reads all of it, however often it asks.
                if len(kept) % (number + 1) == 0:
                    mirror.take(store.wanted_changes("local", since=mirror.version))
                    assert mirror.rows == store.wanted("local")
            kept.append((snapshot, content(snapshot)))
        attempts_do_not_overlap(scene)
        the_log_folds_to_the_state(scene)
        usage_does_not_overlap(scene)
        assert all(content(snapshot) == before for snapshot, before in kept)
        fresh = open_sqlite(path, durable=False)
        assert comparable(fresh.snapshot(now=0, seed=0)) == comparable(store.snapshot(now=0, seed=0))
        assert fresh.wanted("local") == store.wanted("local")
        fresh.close()
        store.close()


@pytest.mark.parametrize("guard", ["capacity_left", "no_attempt_lives", "phase_may_follow", "usage_is_next"])
def test_without_a_guard_its_invariant_breaks(guard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guards are looked up at every use, so the simulation can take one away; and each is needed."""
    scene = Scene(empty_sqlite(tmp_path / "mainstay.db"))
    scene.fleet(cpus=CPUS_MAX)
    work = scene.submit(nodes=2)
    pod = scene.run(work)
    done = scene.submit()
    scene.applied(scene.advance(done, Phase.STOPPED), scene.usage(pod, start=pod.started_at, end=pod.started_at + 10))
    if guard == "no_attempt_lives":
        scene.applied(scene.advance(work, Phase.PENDING, attempt=2))
    senseless: dict[str, tuple[Action, Callable[[Scene], None]]] = {
        "capacity_left": (scene.allocate(scene.submit(nodes=3)), lambda scene: no_node_is_overcommitted(scene.store)),
        "no_attempt_lives": (scene.allocate(scene.workload(work.id)), attempts_do_not_overlap),
        "phase_may_follow": (scene.advance(done, Phase.RUNNING), the_log_folds_to_the_state),
        "usage_is_next": (scene.usage(pod, start=pod.started_at + 5, end=pod.started_at + 20), usage_does_not_overlap),
    }
    action, invariant = senseless[guard]
    assert scene.commit(action).refused
    invariant(scene)
    monkeypatch.setattr(guards, guard, lambda *_: None)
    scene.applied(action)
    with pytest.raises(AssertionError):
        invariant(scene)


def asked(scene: Scene, verb: str, this: int, that: int) -> Iterable[Action]:
    """What a step means in this world; often enough something that must be refused."""
    works, pods = scene.all(), all_pods(scene)
    if verb == "nodes" or not scene.store.nodes():
        return [nodes(ready=that % 8 != 0, count=this % 3 + 1, cpus=that % (CPUS_MAX - 1) + 2)]
    if verb == "submit" or not works:
        return [Submit(workload=scene.new(nodes=this % 2 + 1), reason=WHY)] if len(works) < WORKS else []
    work = works[this % len(works)]
    if verb in {"place", "twice"}:
        place = allocate(scene, work, that)
        return [place, place] if verb == "twice" else [place]
    if verb == "stop":
        return [scene.stop(work)]
    if verb == "advance":
        phase = list(Phase)[that % len(Phase)]
        action = scene.advance(work, phase, attempt=work.attempt + (phase <= Phase.QUEUED and that % 2))
        return [
            replace(action, guards=(RowVersion(kind="workload", key=work.key, version=work.version - (that % 5 == 0)),))
        ]
    return on_pod(scene, verb, pods[this % len(pods)], that) if pods else []


def on_pod(scene: Scene, verb: str, pod: Allocation, that: int) -> list[Action]:
    if verb == "see":
        return [scene.see(pod, (Seen.STARTING, Seen.RUNNING, Seen.UNKNOWN)[that % 3], started_at=scene.now + that)]
    if verb == "end":
        ended = scene.see(pod, Seen.ENDED, end=End.EXITED, exit_code=that % 2, ended_at=scene.now + that - 30)
        return [StopPod(allocation_key=pod.key, reason=WHY), replace(ended, output="tree")]
    if verb == "meter":
        start = (pod.metered_until or pod.started_at) + (that % 7 == 0)
        return [scene.usage(pod, start=start, end=start + that)]
    return [scene.close(pod)]


def nodes(*, ready: bool, count: int, cpus: int) -> ObserveNodes:
    capacity = Resources(cpu_milli=cpus * 1_000, memory_bytes=cpus << 30)
    states = (NodeState(name=f"n{number}", capacity=capacity, ready=ready) for number in range(count))
    return ObserveNodes(cluster="local", nodes=tuple(states), reason=WHY)


def allocate(scene: Scene, work: Workload, that: int) -> Allocate:
    rows = scene.store.nodes()
    slots = tuple(
        Slot(rank=rank, node_key=rows[(that + rank) % len(rows)].key, resources=one_cpu())
        for rank in range(work.spec.nodes)
    )
    capacity = CapacityLeft(node_key=slots[0].node_key, resources=one_cpu())
    return Allocate(workload_key=work.key, attempt=work.attempt, slots=slots, guards=(capacity,), reason=WHY)


def all_pods(scene: Scene) -> list[Allocation]:
    return [pod for work in scene.all() for pod in scene.store.allocations(work.key)]


def no_node_is_overcommitted(store: SqlStore) -> None:
    """I5: `used` is the sum of what has not ended. A node may shrink under its work, so it is held to its largest size."""
    held: dict[str, int] = defaultdict(int)
    for pod in all_pods(Scene(store)):
        if pod.seen is not Seen.ENDED:
            held[pod.node] += pod.resources.cpu_milli
    for node in store.nodes():
        assert node.used.cpu_milli == held[node.name] <= CPUS_MAX * 1_000


def attempts_do_not_overlap(scene: Scene) -> None:
    """I3, as the store can see it: while a pod of one attempt has not ended, there is none of another."""
    for work in scene.all():
        pods = scene.store.allocations(work.key)
        living = {pod.attempt for pod in pods if pod.seen is not Seen.ENDED}
        assert len(living) <= 1
        assert len({(pod.attempt, pod.rank) for pod in pods}) == len(pods)
        for attempt in {pod.attempt for pod in pods}:
            assert sum(pod.attempt == attempt for pod in pods) == work.spec.nodes


def the_log_folds_to_the_state(scene: Scene) -> None:
    """I6: legal transitions only, final absorbing, sequences gapless, state = fold of the log."""
    events = scene.store.events(tenant="", workload="", after=0, limit=ALL)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    phases: dict[str, Phase | None] = {}
    for event in events:
        if event.phase_after is None:
            continue
        assert event.phase_before == phases.get(event.workload)
        moved = event.phase_before is not None and event.phase_before is not event.phase_after
        assert not moved or (event.phase_before, event.phase_after) in LEGAL_TRANSITIONS
        phases[event.workload] = event.phase_after
    assert phases == {work.id: work.phase for work in scene.all()}


def usage_does_not_overlap(scene: Scene) -> None:
    records: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for record, charges in scene.store.usage(tenant="physics", since=0, until=1 << 62):
        records[record.allocation_key].append((record.start, record.end))
        assert len(charges) == 1
    for pod in all_pods(scene):
        spans = records[pod.key]
        assert all(first[1] == second[0] for first, second in itertools.pairwise(spans))
        if spans:
            assert (spans[0][0], spans[-1][1]) == (pod.started_at, pod.metered_until)


def content(snapshot: Snapshot) -> list[bytes]:
    """Every byte of the columns."""
    tables = (snapshot.nodes, snapshot.workloads, snapshot.allocations)
    columns = (getattr(table, field.name) for table in tables for field in fields(table))
    return [column.tobytes() for column in columns if isinstance(column, np.ndarray)]


def comparable(snapshot: Snapshot) -> tuple[object, ...]:
    rest = (
        snapshot.nodes.names,
        dict(snapshot.owners),
        dict(snapshot.addresses),
        dict(snapshot.workloads.choices),
        dict(snapshot.workloads.sets),
    )
    return (content(snapshot), snapshot.version, rest, snapshot.gpu_models)


def chunks(steps: Sequence[Step], size: int) -> list[Sequence[Step]]:
    return [steps[first : first + size] for first in range(0, len(steps), size)]
