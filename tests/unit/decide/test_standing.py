"""How queues stand, as numbers."""

from __future__ import annotations

from mainstay.decide.standing import CellUse, standings
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from tests.worlds import allocation, node, workload, world

GPUS = ("H100", "gpu")


def queue(name: str, nominal: int, **changes: object) -> QueueSpec:
    return QueueSpec(name=name, parent="ml", quotas={GPUS: Quota(nominal=nominal)}, **changes)  # type: ignore[arg-type]


def fleet(*queues: QueueSpec, held: dict[str, int], owners: dict[int, tuple[str, str, str]] | None = None) -> Snapshot:
    """One running workload per queue that holds anything."""
    works = [workload(key, queue=name) for key, name in enumerate(held, 1)]
    pods = [allocation(key, gpus=gpus, gpu_model="H100") for key, gpus in enumerate(held.values(), 1)]
    return world(
        nodes=[node(gpus=16, gpu_model="H100")], workloads=works, allocations=pods, owners=owners, queues=queues
    )


def of(snapshot: Snapshot, name: str, **options: str) -> CellUse:
    return standings(snapshot, **options)[snapshot.queues.names.index(name)].cells[GPUS]


def test_what_is_idle_of_one_may_be_used_by_the_other() -> None:
    snapshot = fleet(queue("a", 4), queue("b", 4), held={"a": 3})
    assert of(snapshot, "a") == CellUse(used=3, borrowed=0, lent=0, available=5)
    assert of(snapshot, "b") == CellUse(used=0, borrowed=0, lent=0, available=5)


def test_what_others_use_of_its_own_is_lent() -> None:
    snapshot = fleet(queue("a", 4), queue("b", 4), held={"a": 6, "b": 1})
    assert of(snapshot, "a") == CellUse(used=6, borrowed=2, lent=0, available=1)
    assert of(snapshot, "b") == CellUse(used=1, borrowed=0, lent=2, available=1)


def test_a_quota_that_was_lowered_under_running_work_leaves_nothing_and_no_less() -> None:
    assert of(fleet(queue("a", 2), queue("b", 0), held={"a": 6}), "a") == CellUse(
        used=6, borrowed=4, lent=0, available=0
    )


def test_a_tenant_is_told_its_own_use_and_what_it_may_still_use() -> None:
    owners = {1: ("physics", "p", "w-1"), 2: ("chemistry", "p", "w-2")}
    tree = (queue("a", 8),)
    snapshot = fleet(*tree, queue("b", 0), held={"a": 3, "b": 2}, owners=owners)
    assert (of(snapshot, "a", tenant="physics").used, of(snapshot, "b", tenant="physics").used) == (3, 0)
    assert (of(snapshot, "a", tenant="nobody").used, of(snapshot, "a", tenant="nobody").available) == (0, 3)


def test_only_quotas_that_a_queue_has_are_told() -> None:
    snapshot = fleet(queue("a", 4), QueueSpec(name="c"), held={})
    assert dict(standings(snapshot)[snapshot.queues.names.index("c")].cells) == {}


def test_what_would_be_fair_if_everybody_wanted_all_is_the_same_whoever_runs_what() -> None:
    """Quotas of two resources, of which one queue has more of the GPUs and both have more CPUs than there are."""

    def two(name: str, gpus: int, cpus: int, weight: float) -> QueueSpec:
        quotas = {GPUS: Quota(nominal=gpus), ("default", "cpu"): Quota(nominal=1_000 * cpus)}
        return QueueSpec(name=name, parent="ml", weight=weight, quotas=quotas)

    queues = (QueueSpec(name="ml", cohort=True), two("a", 4, 128, 1), two("b", 2, 64, 2))
    found = []
    for held in ({}, {"a": 1}, {"b": 1}, {"a": 1, "b": 2}):
        snapshot = fleet(*queues, held=held)
        fair = [one.fairness.fair for one in standings(snapshot)]
        found.append({name: round(fair[snapshot.queues.names.index(name)], 6) for name in "ab"})
    assert found == [{"a": 0.666667, "b": 0.333333}] * 4
