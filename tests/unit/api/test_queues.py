"""Queues, priorities and the turn of runs over the API: set by those who may, seen as far as it is theirs, refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import Phase
from mainstay.wire.views import QueueView
from tests.stores import WHY, Scene, one_cpu
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem

RESEARCH = {
    "parent": "ml",
    "weight": 2,
    "quotas": [
        {"resource": "gpu", "flavor": "h100", "nominal": 4, "borrowing_limit": 2, "lending_limit": 0},
        {"resource": "cpu", "nominal": "64"},
        {"resource": "memory", "nominal": "1TB"},
    ],
}
PRODUCTION = {"parent": "ml", "quotas": [{"resource": "gpu", "flavor": "H100", "nominal": 4}]}


@pytest.fixture
def scene(api: Api) -> Scene:
    """A node with eight GPUs."""
    made = Scene(api.services.store, now=api.services.clock.now())
    size = Resources(cpu_milli=64_000, memory_bytes=64 * BYTES_PER_GIB, gpus=8, gpu_model="H100")
    made.applied(ObserveNodes(cluster="east", nodes=(NodeState(name="gpu-1", capacity=size, ready=True),), reason=WHY))
    return made


async def put(api: Api, name: str, body: dict[str, Any], *, token: str = "admin-token") -> QueueView:
    answer = await api.ask("PUT", f"/v1/queues/{name}", token=token, json=body)
    assert answer.status_code == 200, answer.text
    return QueueView.model_validate(answer.json())


async def queues(api: Api, *, token: str = "admin-token") -> dict[str, QueueView]:
    items = (await api.ask("GET", "/v1/queues", token=token)).json()["items"]
    return {one["name"]: QueueView.model_validate(one) for one in items}


def run(scene: Scene, queue: str, gpus: int, tenant: str = "physics") -> None:
    scene.run(scene.submit(queue=queue, tenant=tenant, choices=(one_cpu(gpus=gpus, gpu_model="H100"),)))


async def test_there_is_one_queue_before_anybody_has_set_one(api: Api):
    only = (await queues(api))["default"]
    assert (only.cohort, only.quotas, only.set_at, only.waiting) == (False, [], None, 0)


async def test_whose_place_its_work_may_take_is_said_together_and_stays_until_it_is_said_anew(api: Api):
    rules = {"within_queue": "lower-priority", "reclaim": "any", "fair_share": "final-share", "min_runtime": "10m"}
    made = (await put(api, "research", {"preemption": rules})).preemption
    assert (made.within_queue, made.reclaim, made.borrow, made.fair_share, made.min_runtime_seconds) == (
        *("lower-priority", "any", "never", "final-share"),
        600,
    )
    assert (await put(api, "research", {"weight": 2})).preemption == made
    assert (await put(api, "research", {"preemption": {}})).preemption == (await queues(api))["default"].preemption


async def test_by_which_policy_its_work_is_placed_is_that_of_everybody_until_it_is_said(api: Api, scene: Scene):
    assert (await put(api, "web", {})).placement == "least-waste"
    assert (await put(api, "web", {"placement": "spread"})).placement == "spread"
    assert (await put(api, "web", {"weight": 2})).placement == "spread"
    tree = api.services.store.snapshot(now=scene.now, seed=0).queues
    assert dict(zip(tree.names, tree.placements, strict=True)) == {"default": "", "web": "spread"}
    scene.submit(name="page", queue="web", choices=(one_cpu(gpus=9, gpu_model="H100"),))
    assert (await api.ask("GET", "/v1/workloads/page/explain")).json()["placement"] == "spread"
    assert (await put(api, "web", {"placement": ""})).placement == "least-waste"
    assert (await api.ask("GET", "/v1/workloads/page/explain")).json().get("placement", "") == ""


async def test_after_how_long_a_start_is_reserved_is_ten_minutes_until_it_is_said(api: Api):
    assert (await put(api, "research", {})).reserved_after_seconds == 600
    assert (await put(api, "research", {"reserved_after": "1h30m"})).reserved_after_seconds == 5_400
    assert (await put(api, "research", {"weight": 2})).reserved_after_seconds == 5_400
    assert (await put(api, "research", {"reserved_after": "0"})).reserved_after_seconds == 0


async def test_its_order_is_fair_until_another_is_named(api: Api):
    assert (await put(api, "research", {})).order == "fair"
    assert (await put(api, "research", {"order": "srtf"})).order == "srtf"
    assert (await put(api, "research", {"weight": 2})).order == "srtf"


async def test_what_says_no_time_limit_has_that_of_its_queue_and_is_told_so(api: Api, scene: Scene):
    assert (await put(api, "research", {})).default_max_duration_seconds == 0
    assert (await put(api, "research", {"default_max_duration": "8h"})).default_max_duration_seconds == 28_800
    assert (await put(api, "research", {"weight": 2})).default_max_duration_seconds == 28_800
    for said, limit in ((None, 28_800), ("1h", 3_600), ("30h", 108_000)):
        job = {"run": "train", "queue": "research"} | ({"max_duration": said} if said else {})
        (option,) = (await api.ask("POST", "/v1/plan", json={"job": job})).json()["options"]
        assert (option["max_duration_seconds"], option["limited_by_queue"]) == (limit, said is None)
        made = (await api.submit(**job)).json()
        assert made["max_duration_seconds"] == limit
        # What runs already keeps its limit, whatever the queue says then.
        await put(api, "research", {"default_max_duration": "8h"})
        assert (await api.ask("GET", f"/v1/workloads/{made['id']}")).json()["max_duration_seconds"] == limit
    assert (await api.submit(run="train")).json()["max_duration_seconds"] == 0
    service = {"type": "service", "run": "serve", "queue": "research"}
    assert (await api.submit(**service)).json()["max_duration_seconds"] == 0
    assert (await put(api, "research", {"default_max_duration": "0"})).default_max_duration_seconds == 0
    assert (await api.submit(run="train", queue="research")).json()["max_duration_seconds"] == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"order": "fastest"}, "there is no order 'fastest'"),
        ({"cohort": True, "order": "fifo"}, "set it on the queues below it"),
        ({"default_max_duration": "long"}, "is not a duration"),
        ({"default_max_duration": "9000d"}, "longer than ten years"),
        ({"cohort": True, "default_max_duration": "8h"}, "set the limit on the queues below it"),
        ({"reserved_after": "60d"}, "is too long"),
        ({"reserved_after": "soon"}, "is not a duration"),
        ({"placement": "random"}, "there is no policy 'random'"),
        ({"cohort": True, "placement": "spread"}, "set it on the queues below it"),
        ({"cohort": True, "reserved_after": "5m"}, "set it on the queues below it"),
        ({"preemption": {"borrow": "lower-priority"}}, "set reclaim, too"),
        ({"cohort": True, "preemption": {"reclaim": "any"}}, "set it on the queues below it"),
        ({"preemption": {"min_runtime": "60d"}}, "is too long"),
    ],
)
async def test_what_cannot_be_a_rule_is_refused(api: Api, body: dict[str, Any], words: str):
    answer = await api.ask("PUT", "/v1/queues/research", token="admin-token", json=body)
    problem = is_problem(answer, 422)
    assert words in problem["detail"]


async def test_a_run_that_waits_is_told_whom_it_could_displace(api: Api, scene: Scene):
    await put(api, "research", {"preemption": {"within_queue": "lower-priority"}})
    run(scene, "research", 8)
    body = {"run": "train", "queue": "research", "priority": 90, "resources": {"gpu": "H100:8"}}
    plan = (await api.ask("POST", "/v1/plan", json={"job": body})).json()
    assert plan["preemption"] == "could take the place of 1 run (1 pod): 1 in queue research"


async def test_a_queue_is_set_changed_and_removed(api: Api, scene: Scene):
    made = await put(api, "research", RESEARCH)
    assert (made.parent, made.weight, made.set_by, made.warnings) == ("ml", 2, "root", [])
    gpu = next(one for one in made.quotas if one.resource == "gpu")
    assert (gpu.flavor, gpu.unit, gpu.nominal, gpu.borrowing_limit, gpu.lending_limit) == ("H100", "gpus", 4, 2, 0)
    assert {one.resource: (one.unit, one.nominal) for one in made.quotas} == {
        "cpu": ("cores", 64),
        "memory": ("bytes", 1e12),
        "gpu": ("gpus", 4),
    }
    assert list(await queues(api)) == ["default", "ml", "research"]
    changed = await put(api, "research", {"weight": 3})
    assert (changed.weight, changed.parent, changed.quotas) == (3, "ml", made.quotas)
    assert (await put(api, "research", {"quotas": []})).quotas == []
    assert (await put(api, "research", {"parent": ""})).parent == ""
    assert (await api.ask("DELETE", "/v1/queues/research", token="admin-token")).status_code == 204
    assert list(await queues(api)) == ["default"]
    is_problem(await api.ask("DELETE", "/v1/queues/research", token="admin-token"), 404)


async def test_several_are_set_together_or_none(api: Api):
    body = {"queues": [{"name": "a", "parent": "ml"}, {"name": "ml", "cohort": True}, {"name": "b", "parent": "a"}]}
    problem = is_problem(await api.ask("PUT", "/v1/queues", token="admin-token", json=body), 422)
    assert "b is below a, which is a queue" in problem["detail"]
    assert list(await queues(api)) == ["default"]
    body["queues"][2]["parent"] = "ml"
    answer = await api.ask("PUT", "/v1/queues", token="admin-token", json=body)
    assert [one["name"] for one in answer.json()["items"]] == ["ml", "a", "b"]


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("UPPER", {}, "name: 'UPPER' is not allowed"),
        ("a", {"parent": "b c"}, "parent: 'b c' is not allowed"),
        ("a", {"parent": "a", "cohort": True}, "cohorts in a circle"),
        ("a", {"weight": -1}, ""),
        ("a", {"quotas": [{"resource": "tpu", "nominal": "1"}]}, ""),
        ("a", {"quotas": [{"resource": "cpu", "nominal": "many"}]}, "'many' is not a number of cores"),
        ("a", {"quotas": [{"resource": "gpu", "flavor": "..", "nominal": "1"}]}, "'..' is not a flavor"),
        ("a", {"quotas": [{"resource": "cpu", "nominal": "1"}] * 2}, "cpu of default is there twice"),
        ("a", {"quotas": [{"resource": "cpu", "nominal": "1", "borrowing_limit": "1"}]}, "in no cohort"),
        (
            "a",
            {"parent": "ml", "quotas": [{"resource": "cpu", "nominal": "1", "lending_limit": "2"}]},
            "nobody lends what they do not have",
        ),
        (
            "a",
            {"cohort": True, "quotas": [{"resource": "cpu", "nominal": "1", "lending_limit": "1"}]},
            "a has a limit to borrow or lend",
        ),
        ("a", {"quotas": [{"resource": "cpu", "flavor": "spto", "nominal": "64"}]}, "there is no flavor 'spto'"),
        ("default", {"cohort": True}, "it cannot be a cohort"),
        ("a", {"parent": "default"}, "which is a queue"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_set(api: Api, name: str, body: dict[str, Any], words: str):
    problem = is_problem(await api.ask("PUT", f"/v1/queues/{name}", token="admin-token", json=body), 422)
    assert words in problem["detail"]
    assert list(await queues(api)) == ["default"]


async def test_how_a_queue_stands_is_told_in_full_to_an_administrator(api: Api, scene: Scene):
    await put(api, "research", RESEARCH)
    await put(api, "production", PRODUCTION)
    run(scene, "research", 4)
    run(scene, "research", 2)
    scene.submit(queue="research")
    found = await queues(api)
    (gpu,) = (one for one in found["research"].quotas if one.resource == "gpu")
    assert (gpu.used, gpu.borrowed, gpu.lent, gpu.available) == (6, 2, 0, 0)
    (gpu,) = found["production"].quotas
    assert (gpu.used, gpu.borrowed, gpu.lent, gpu.available) == (0, 0, 2, 2)
    assert (found["research"].waiting, found["research"].running) == (1, 2)
    assert (found["ml"].waiting, found["ml"].running) == (1, 2)
    assert found["research"].share == pytest.approx(2 / 4 / 2)
    assert found["production"].share == 0


async def test_others_see_their_own_use_and_no_more(api: Api, scene: Scene):
    await put(api, "research", RESEARCH)
    run(scene, "research", 3)
    run(scene, "research", 1, tenant="chemistry")
    scene.submit(queue="research", tenant="chemistry")
    mine = (await queues(api, token="viewer-token"))["research"]
    (gpu,) = (one for one in mine.quotas if one.resource == "gpu")
    assert (gpu.used, gpu.borrowed, gpu.lent, mine.share) == (3, None, None, None)
    assert (mine.waiting, mine.running) == (0, 1)
    assert (await queues(api))["research"].running == 2


async def test_a_flavor_that_no_node_has_is_warned_of_with_the_nearest(api: Api, scene: Scene):
    body = {"quotas": [{"resource": "gpu", "flavor": "H10", "nominal": 1}, {"resource": "cpu", "nominal": 1}]}
    assert (await put(api, "research", body)).warnings == ["no node has H10 now; did you mean H100?"]


@pytest.mark.parametrize(
    ("resource", "flavor", "hint"),
    [
        ("cpu", "spto", "did you mean spot? a model of GPUs that no node has yet is written in capitals: SPTO"),
        ("cpu", "h10", "did you mean H100? a model"),
        ("gpu", "defualt", "did you mean default? a model"),
        ("cpu", "zzzz", "list flavors of nodes with: mainstay flavor list; a model"),
    ],
)
async def test_a_quota_of_a_flavor_that_is_none_is_refused_with_the_nearest(
    api: Api, scene: Scene, resource: str, flavor: str, hint: str
):
    await api.ask("PUT", "/v1/flavors/spot", token="admin-token", json={"node_labels": ["pool=spot"]})
    body = {"quotas": [{"resource": resource, "flavor": flavor, "nominal": "64"}]}
    problem = is_problem(await api.ask("PUT", "/v1/queues/a", token="admin-token", json=body), 422)
    assert f"there is no flavor '{flavor}'" in problem["detail"]
    assert hint in str(problem)


@pytest.mark.parametrize(
    ("resource", "flavor", "called"),
    [
        ("cpu", "SPTO", "SPTO"),
        ("gpu", "b200", "B200"),
        ("cpu", "h100", "H100"),
        ("gpu", "1g.10gb", "1g.10gb"),
        ("gpu", "amd.com/gpu", "amd.com/gpu"),
        ("cpu", "default", "default"),
    ],
)
async def test_models_of_gpus_that_no_node_has_yet_may_have_quotas(
    api: Api, scene: Scene, resource: str, flavor: str, called: str
):
    view = await put(api, "a", {"quotas": [{"resource": resource, "flavor": flavor, "nominal": "64"}]})
    assert [one.flavor for one in view.quotas] == [called]


async def test_a_queue_in_use_is_not_removed(api: Api, scene: Scene):
    await put(api, "research", RESEARCH)
    await put(api, "ml", {"cohort": True})
    scene.submit(queue="research")
    problem = is_problem(await api.ask("DELETE", "/v1/queues/research", token="admin-token"), 409)
    assert "1 open workload in it" in problem["detail"]
    problem = is_problem(await api.ask("DELETE", "/v1/queues/ml", token="admin-token"), 409)
    assert "1 queue below it" in problem["detail"]
    problem = is_problem(await api.ask("PUT", "/v1/queues/research", token="admin-token", json={"cohort": True}), 409)
    assert "is in use" in problem["detail"]


async def test_a_job_of_a_queue_that_is_not_there_is_refused_with_the_nearest_first(api: Api):
    await put(api, "research", RESEARCH)
    problem = is_problem(await api.submit(queue="reserch"), 422)
    assert (problem["object"], problem["hint"]) == ("queue", "the queues are: research, default")
    problem = is_problem(await api.submit(queue="ml"), 422)
    assert "ml is a cohort" in problem["detail"]
    problem = is_problem(await api.ask("POST", "/v1/plan", json={"job": {"run": "true", "queue": "reserch"}}), 422)
    assert problem["object"] == "queue"
    assert (await api.submit(queue="research")).json()["queue"] == "research"
    assert (await api.submit()).json()["queue"] == "default"


async def test_a_repeated_submission_is_answered_also_once_its_queue_is_gone(api: Api, scene: Scene):
    await put(api, "research", {})
    first = await api.submit(queue="research", key="k")
    work = scene.workload(first.json()["id"])
    scene.applied(scene.advance(work, Phase.STOPPED))
    assert (await api.ask("DELETE", "/v1/queues/research", token="admin-token")).status_code == 204
    assert (await api.submit(queue="research", key="k")).json() == first.json()


async def test_pages_of_queues_follow_each_other(api: Api):
    for name in ("a", "b", "c"):
        await put(api, name, {})
    first = (await api.ask("GET", "/v1/queues?limit=3")).json()
    rest = (await api.ask("GET", f"/v1/queues?limit=3&cursor={first['next']}")).json()
    assert [one["name"] for one in first["items"] + rest["items"]] == ["a", "b", "c", "default"]
    assert rest["next"] == ""
    is_problem(await api.ask("GET", "/v1/queues?cursor=gone"), 422)


async def test_a_priority_has_a_name_until_it_is_removed(api: Api):
    answer = await api.ask(
        "PUT", "/v1/priorities/paper", token="admin-token", json={"priority": 90, "preemptible": False}
    )
    assert answer.json() == {"name": "paper", "priority": 90, "preemptible": False}
    items = (await api.ask("GET", "/v1/priorities")).json()["items"]
    assert [(one["name"], one["priority"]) for one in items] == [
        ("urgent", 100),
        ("paper", 90),
        ("high", 75),
        ("normal", 50),
        ("low", 25),
    ]
    made = (await api.submit(priority="paper")).json()
    assert (made["priority"], made["preemptible"]) == (90, False)
    assert (await api.submit(priority="high")).json()["priority"] == 75
    assert (await api.ask("DELETE", "/v1/priorities/paper", token="admin-token")).status_code == 204
    problem = is_problem(await api.submit(priority="papr"), 422)
    assert problem["object"] == "priority"
    is_problem(await api.ask("DELETE", "/v1/priorities/paper", token="admin-token"), 404)


@pytest.mark.parametrize("name", ["high", "50", "A", "a" * 41])
async def test_a_name_that_would_mean_something_else_is_refused(api: Api, name: str):
    is_problem(await api.ask("PUT", f"/v1/priorities/{name}", token="admin-token", json={"priority": 1}), 422)


async def test_a_run_is_held_and_released(api: Api, scene: Scene):
    ref = (await api.submit()).json()["id"]
    held = (await api.ask("POST", f"/v1/workloads/{ref}/hold")).json()
    assert (held["held"], held["reason"]["sentence"]) == (True, "held by alice: waits until it is released")
    assert (await api.ask("GET", f"/v1/workloads/{ref}")).json() == held
    explained = (await api.ask("GET", f"/v1/workloads/{ref}/explain")).json()
    assert "held by alice" in explained["sentence"]
    free = (await api.ask("POST", f"/v1/workloads/{ref}/release")).json()
    assert (free["held"], free["phase"], free["reason"]["code"]) == (False, "pending", "Released")
    assert (await api.ask("GET", f"/v1/workloads/{ref}")).json() == free


async def test_what_runs_is_not_held_and_says_what_to_do_instead(api: Api, scene: Scene):
    work = scene.submit()
    scene.run(work)
    problem = is_problem(await api.ask("POST", f"/v1/workloads/{work.id}/hold"), 409)
    assert problem["detail"] == f"{work.id} does not wait: it is running"
    assert f"mainstay stop {work.id}" in problem["hint"]


async def test_a_run_is_reprioritized_by_number_and_by_name(api: Api):
    ref = (await api.submit()).json()["id"]
    for given, number in ((80, 80), ("low", 25)):
        answer = await api.ask("POST", f"/v1/workloads/{ref}/priority", json={"priority": given})
        assert answer.json()["priority"] == number
        assert (await api.ask("GET", f"/v1/workloads/{ref}")).json()["priority"] == number
    for wrong in (101, -1, "nope", "", None):
        is_problem(await api.ask("POST", f"/v1/workloads/{ref}/priority", json={"priority": wrong}), 422)


@pytest.mark.parametrize("verb", ["hold", "release", "priority"])
async def test_the_turn_of_what_belongs_to_others_is_not_theirs_to_change(api: Api, verb: str):
    ref = (await api.submit()).json()["id"]
    body = {"json": {"priority": 1}} if verb == "priority" else {}
    is_problem(await api.ask("POST", f"/v1/workloads/{ref}/{verb}", token="other-token", **body), 404)
    is_problem(await api.ask("POST", f"/v1/workloads/{ref}/{verb}", token="viewer-token", **body), 403)


@pytest.mark.parametrize("verb", ["hold", "release", "priority"])
async def test_a_repetition_is_answered_as_the_first_time(api: Api, scene: Scene, verb: str):
    ref = (await api.submit()).json()["id"]
    body = {"json": {"priority": 1}} if verb == "priority" else {}
    headers = {"Idempotency-Key": "k"}
    first = await api.ask("POST", f"/v1/workloads/{ref}/{verb}", headers=headers, **body)
    scene.applied(scene.advance(scene.workload(ref), Phase.STOPPED))
    again = await api.ask("POST", f"/v1/workloads/{ref}/{verb}", headers=headers, **body)
    assert (first.status_code, again.status_code, again.json()) == (200, 200, first.json())


async def test_what_could_never_run_is_refused_with_the_figures_and_the_nearest_that_could(
    api: Api, scene: Scene
) -> None:
    resources = {"gpu": "H100:16", "cpu": "32", "memory": "32GB"}
    answer = await api.submit(resources=resources)
    is_problem(answer, 422)
    assert (
        "needs 32 CPUs, 32 GB, 16 x H100, the largest node has 64 CPUs, 68.72 GB, 8 x H100" in answer.json()["detail"]
    )
    scene.applied(
        ObserveNodes(
            cluster="west",
            nodes=(NodeState(name="gpu-2", capacity=Resources(cpu_milli=8_000, memory_bytes=1 << 40), ready=True),),
            reason=WHY,
        )
    )
    assert (await api.submit(resources={"cpu": "64", "memory": "64GB"})).status_code == 201
    answer = await api.submit(resources={"gpu": "H100:4", "cpu": "1", "memory": "1GB"}, nodes=3)
    assert answer.json()["hint"] == "the nearest that could run: gpus 2 instead of 4 or nodes 2 instead of 3"


async def test_what_exceeds_all_that_its_queue_may_use_is_refused_and_others_may_have_it(
    api: Api, scene: Scene
) -> None:
    await put(api, "research", RESEARCH)
    await put(api, "production", PRODUCTION)
    wish = {"resources": {"gpu": "H100:5", "cpu": "1", "memory": "1GB"}}
    answer = await api.submit(queue="production", **wish)
    is_problem(answer, 422)
    assert "may have 4 of gpu (H100) at most" in answer.json()["detail"]


async def test_a_submission_that_was_accepted_is_answered_again_when_nothing_could_hold_it_any_more(
    api: Api, scene: Scene
) -> None:
    accepted = await api.submit(key="once", resources={"cpu": "64", "memory": "1GB"})
    smaller = Resources(cpu_milli=2_000, memory_bytes=BYTES_PER_GIB)
    scene.applied(
        ObserveNodes(cluster="east", nodes=(NodeState(name="gpu-1", capacity=smaller, ready=True),), reason=WHY)
    )
    api.services.store.snapshot(now=scene.now, seed=0)  # as the loops do all the time
    again = await api.submit(key="once", resources={"cpu": "64", "memory": "1GB"})
    assert (accepted.status_code, again.status_code, again.json()) == (201, 201, accepted.json())
    is_problem(await api.submit(key="twice", resources={"cpu": "64", "memory": "1GB"}), 422)


async def test_whether_what_queues_used_lately_counts_is_seen_by_all_and_said_by_administrators(api: Api):
    path = "/v1/queue-history"
    assert (await api.ask("GET", path)).json() == {
        "half_life_seconds": 0,
        "weight": 1,
        "entry_seconds": 0,
        "set_at": None,
        "set_by": "",
    }
    body = {"half_life": "7d", "weight": 2, "entry": "5m"}
    is_problem(await api.ask("PUT", path, json=body), 403)
    made = (await api.ask("PUT", path, token="admin-token", json=body)).json()
    assert (made["half_life_seconds"], made["weight"], made["entry_seconds"]) == (604_800, 2, 300)
    assert made["set_by"] == "root"
    assert (await api.ask("GET", path)).json() == made
    audit = (await api.ask("GET", "/v1/audit", token="admin-token")).json()["items"][0]
    assert (audit["action"], audit["object"]) == ("set_queue_history", "all queues")
    assert audit["detail"] == "usage history of queues set by root: half-life 604800 s, weight 2, entry 300 s"
    off = (await api.ask("PUT", path, token="admin-token", json={"half_life": "0"})).json()
    assert (off["half_life_seconds"], off["weight"], off["entry_seconds"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"half_life": "10s"}, "half_life: 10 s is not allowed"),
        ({"half_life": "400d"}, "half_life: 34560000 s is not allowed"),
        ({"half_life": "soon"}, "'soon' is not a duration"),
        ({"half_life": "1h", "entry": "2h"}, "entry: 7200 s is not allowed"),
        ({"half_life": "0", "entry": "1s"}, "entry: 1 s is not allowed"),
        ({"half_life": "1h", "weight": -1}, ""),
    ],
)
async def test_what_cannot_be_a_history_is_refused(api: Api, body: dict[str, Any], words: str):
    answer = await api.ask("PUT", "/v1/queue-history", token="admin-token", json=body)
    assert words in is_problem(answer, 422)["detail"]


async def test_administrators_see_what_is_fair_what_is_held_and_what_was_used_lately(api: Api, scene: Scene):
    await put(api, "research", {"weight": 2})
    await api.ask("PUT", "/v1/queue-history", token="admin-token", json={"half_life": "1h", "entry": "1h"})
    run(scene, "research", 4)
    found = (await queues(api))["research"]
    assert found.fair_share == pytest.approx(2 / 3, abs=1e-6)
    assert (found.demand_capped_share, found.held_share) == (0.5, 0.5)
    assert found.lately == pytest.approx(0.25, abs=0.01), "half of the fleet, as if for one half-life"
    theirs = (await queues(api, token="user-token"))["research"]
    assert (theirs.fair_share, theirs.demand_capped_share, theirs.held_share, theirs.lately) == (None,) * 4
