"""How long runs of a name have taken, kept for the next ones, over both databases."""

from __future__ import annotations

from mainstay.decide.schedule import schedule
from mainstay.domain.capacity import Node, NodeState
from mainstay.domain.plan import Allocate, ObserveNodes
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import RUNS_OF_SHAPE_MIN, Kind, Phase, Workload, WorkloadSpec, typical, usual_seconds
from mainstay.operations.preview import preview
from mainstay.operations.principal import Principal
from mainstay.operations.submit import JobRequest
from tests.stores import SECOND, TENANT, WHY, Scene, one_cpu, scene, store

__all__ = ["scene", "store"]


def ran(
    scene: Scene, seconds: int, *, phase: Phase = Phase.SUCCEEDED, node: Node | None = None, **which: object
) -> None:
    """A run that started, took so long, and is over."""
    work = scene.submit(**which)
    pod = scene.run(work, node=node)
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


def test_of_what_has_equal_choices_it_is_known_what_its_runs_took_on_which_gpus(scene: Scene) -> None:
    nodes = fleet_of_gpus(scene, "H100", "L4", "A100")
    for model, times in (("H100", (100, 200, 400)), ("L4", (1_000, 2_000, 4_000, 9_000)), ("A100", (1, 1))):
        for seconds in times:
            ran(scene, seconds, node=nodes[model], name="train", choices=(one_cpu(gpus=2, gpu_model=model),))
    ran(scene, 7, node=nodes["H100"], name="other", choices=(one_cpu(gpus=2, gpu_model="H100"),))
    found = scene.store.run_times_on(tenant=TENANT, project="default", name="train")
    assert [len(found[kind]) for kind in ("H100:2", "L4:2", "A100:2")] == [3, 4, 2]
    assert list(found["H100:2"]) == sorted(found["H100:2"], reverse=True)
    choices = (one_cpu(gpus=2, gpu_model="H100"), one_cpu(gpus=2, gpu_model="L4"))
    work, ordered = scene.submit(name="train", choices=choices, equals=2), scene.submit(name="train", choices=choices)
    table = scene.store.snapshot(now=scene.now, seed=0).workloads
    assert table.choices == {work.key: choices, ordered.key: choices}
    assert table.equals == {work.key: 2}
    assert dict(table.typical_on[work.key]) == {kind: typical(found[kind])[0] for kind in ("H100:2", "L4:2")}
    assert ordered.key not in table.typical_on
    scene.applied(scene.advance(work, Phase.FAILED))
    table = scene.store.snapshot(now=scene.now, seed=0).workloads
    assert (set(table.choices), dict(table.equals), dict(table.typical_on)) == ({ordered.key}, {}, {})


def test_a_plan_takes_the_same_choice_as_the_job_would(scene: Scene) -> None:
    nodes = fleet_of_gpus(scene, "H100", "L4")
    for model, times in (("H100", (10, 10, 10)), ("L4", (9_000, 9_000, 9_000))):
        for seconds in times:
            ran(scene, seconds, node=nodes[model], name="train", choices=(one_cpu(gpus=1, gpu_model=model),))
    choices = tuple(one_cpu(gpus=1, gpu_model=model) for model in ("L4", "H100"))
    who, taken = Principal(name="ada", tenant=TENANT, role="maintainer"), {}
    for name in ("train", "other"):
        spec = WorkloadSpec(kind=Kind.JOB, name=name, run=("true",), choices=choices, equals=2)
        job = JobRequest(spec=spec, project="default", queue="default", priority=50)
        taken[name] = preview(scene.store, who, job, now=scene.now).answer.resources.gpu_model
    assert taken == {"train": "H100", "other": "L4"}
    work = scene.submit(name="train", choices=choices, equals=2)
    (action,) = schedule(scene.store.snapshot(now=scene.now, seed=0))
    assert isinstance(action, Allocate)
    assert (action.workload_key, action.slots[0].resources.gpu_model) == (work.key, "H100")


def test_a_service_has_no_usual_end_on_any_gpus(scene: Scene) -> None:
    nodes = fleet_of_gpus(scene, "H100")
    choices = (one_cpu(gpus=1, gpu_model="H100"), one_cpu(gpus=2, gpu_model="H100"))
    for seconds in (10, 20, 30):
        ran(scene, seconds, node=nodes["H100"], name="web", choices=choices[:1])
    work = scene.submit(name="web", kind=Kind.SERVICE, choices=choices, equals=2)
    table = scene.store.snapshot(now=scene.now, seed=0).workloads
    assert (dict(table.equals), dict(table.typical_on)) == ({work.key: 2}, {})


def fleet_of_gpus(scene: Scene, *models: str) -> dict[str, Node]:
    """A node with eight GPUs of each model."""
    states = tuple(
        NodeState(
            name=model,
            capacity=Resources(cpu_milli=64_000, memory_bytes=64 * BYTES_PER_GIB, gpus=8, gpu_model=model),
            ready=True,
        )
        for model in models
    )
    scene.applied(ObserveNodes(cluster="local", nodes=states, reason=WHY))
    return {node.capacity.gpu_model: node for node in scene.store.nodes()}
