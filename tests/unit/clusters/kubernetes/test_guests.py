"""What is read of a pod that others made: what it asks for, what we do not understand, and what has become of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.guests import Landlord, owner, priority, wish
from mainstay.clusters.kubernetes.lodgings import Lodgings
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.states import guest_state
from mainstay.clusters.kubernetes.views import GuestView, View, view
from mainstay.domain.allocation import End, Seen
from mainstay.domain.topology import Spread, TopologyNeed
from tests.clock import ManualClock

SYSTEM = "1f00"
AT = "2026-01-01T00:00:"


def pod(*, status: Any = None, meta: Any = None, **spec: Any) -> Pod:
    document = {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u1", "resourceVersion": "7", **(meta or {})},
        "spec": {"schedulerName": "mainstay", "containers": [{"name": "a"}], **spec},
        "status": status or {},
    }
    return msgspec.convert(document, Pod)


def ran(name: str = "a", *, code: int | None = None, restarts: int = 0, **changes: Any) -> dict[str, Any]:
    if code is None:
        state: dict[str, Any] = {"running": {"startedAt": f"{AT}01Z"}}
    else:
        times = {"startedAt": f"{AT}01Z", "finishedAt": f"{AT}09Z"}
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", **times, **changes}}
    return {"name": name, "state": state, "restartCount": restarts}


def ended(*statuses: Any, phase: str = "Failed", **status: Any) -> Any:
    return guest_state(pod(nodeName="n", status={"phase": phase, "containerStatuses": list(statuses), **status}))


def test_only_who_names_us_is_a_guest():
    gated = pod(schedulingGates=[{"name": "kueue.x-k8s.io/admission"}])
    assert isinstance(view(pod(), system=SYSTEM, scheduler_name="mainstay"), GuestView)
    for other, scheduler in (
        (pod(schedulerName="default-scheduler"), "mainstay"),
        (pod(), ""),
        (gated, "mainstay"),
    ):
        assert type(view(other, system=SYSTEM, scheduler_name=scheduler)) is View


def test_it_is_ours_in_the_room_of_its_node_only_if_we_placed_it():
    mark = {"annotations": {names.SYSTEM: SYSTEM}}
    given = {"system": SYSTEM, "scheduler_name": "mainstay"}
    assert view(pod(nodeName="n", meta=mark), **given).is_ours
    assert not view(pod(nodeName="n"), **given).is_ours
    assert not view(pod(meta=mark), **given).is_ours


PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "persistentVolumeClaim"),
        ({"volumes": [{"name": "v", "ephemeral": {}}]}, "persistentVolumeClaim"),
        ({"resourceClaims": [{"name": "gpu"}]}, "resourceClaims"),
        ({"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]}, "topologySpreadConstraints"),
        (
            {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}},
            "podAntiAffinity",
        ),
        ({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}}, "podAffinity"),
        ({"containers": [{"ports": [{"hostPort": 80}]}]}, "hostPort"),
        ({"containers": [{"resources": {"limits": {"kubernetes.io/batch": 1}}}]}, "kubernetes.io/batch"),
        ({"containers": [{"resources": {"limits": {"amd.com/gpu": 1, "rdma.com/hca": 1}}}]}, "several kinds"),
        ({"resources": {"requests": {"cpu": "1"}}}, "spec.resources"),
        ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"x": 1}}}}, "unknown form"),
    ],
)
def test_what_we_do_not_understand_is_named(spec, word):
    assert word in wish(pod(**spec)).problem


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x"}}]},
        {"topologySpreadConstraints": [{"whenUnsatisfiable": "ScheduleAnyway"}]},
        {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}}},
        {"containers": [{"resources": {"requests": {"ephemeral-storage": "1Gi", "nvidia.com/gpu": 1}}}]},
        {"containers": [{"ports": [{"containerPort": 80}]}]},
    ],
)
def test_what_is_only_preferred_or_seen_to_by_others_is_no_problem(spec):
    assert wish(pod(**spec)).problem == ""


LIKE = {"labelSelector": {"matchLabels": {"app": "web"}}}
SOFT = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        ({"topologySpreadConstraints": [{**SOFT, **LIKE}]}, "host"),
        ({"topologySpreadConstraints": [{**SOFT, **LIKE, "topologyKey": "topology.kubernetes.io/zone"}]}, "zone"),
        ({"topologySpreadConstraints": [{**SOFT, **LIKE, "topologyKey": "row"}, {**SOFT, **LIKE}]}, "host"),
        ({"topologySpreadConstraints": [{**SOFT, "labelSelector": {"matchLabels": {"app": "other"}}}]}, ""),
        ({"topologySpreadConstraints": [{**SOFT, "labelSelector": {"matchLabels": {}}}]}, ""),
        ({"topologySpreadConstraints": [{**SOFT, "labelSelector": {"matchExpressions": []}}, SOFT]}, ""),
        ({"affinity": {"podAntiAffinity": {PREFERRED: [{"podAffinityTerm": {**SOFT, **LIKE}}]}}}, "host"),
        ({"affinity": {"podAntiAffinity": {PREFERRED: [{"podAffinityTerm": LIKE}, {}, 7]}}}, ""),
        ({"affinity": {"podAntiAffinity": {PREFERRED: 7}}}, ""),
        ({"affinity": {"podAntiAffinity": 7}}, ""),
        ({"affinity": {"podAffinity": {PREFERRED: [{"podAffinityTerm": {**SOFT, **LIKE}}]}}}, ""),
    ],
)
def test_over_which_level_it_would_lie_apart_from_its_like(spec, level):
    found = wish(pod(**spec, meta={"labels": {"app": "web", "tier": "front"}})).topology
    assert found == (TopologyNeed(spread=Spread(level=level)) if level else None)


RACK = "topology.kubernetes.io/rack"


@pytest.mark.parametrize(
    ("annotations", "need"),
    [
        ({names.NEAR_REQUIRED: RACK}, TopologyNeed(level="rack", required=True)),
        ({names.NEAR_PREFERRED: "cloud.google.com/gce-topology-block"}, TopologyNeed(level="block")),
        (
            {names.NEAR_PREFERRED: RACK, names.NEAR_REQUIRED: SOFT["topologyKey"]},
            TopologyNeed(level="host", required=True),
        ),
        ({names.NEAR_PREFERRED: "row"}, None),
    ],
)
def test_how_near_its_group_would_lie_is_said_in_the_words_of_kueue(annotations, need):
    found = wish(pod(meta={"annotations": annotations}))
    assert (found.topology, found.problem) == (need, "")


def test_a_label_of_no_level_within_which_it_requires_to_lie_is_told():
    assert "by row, a label of no level" in wish(pod(meta={"annotations": {names.NEAR_REQUIRED: "row"}})).problem


@pytest.mark.parametrize(("near", "over"), [(RACK, "host"), (SOFT["topologyKey"], "")])
def test_it_lies_apart_within_what_it_lies_near_in(near, over):
    spec = {"topologySpreadConstraints": [{**SOFT, **LIKE}]}
    meta = {"labels": {"app": "web"}, "annotations": {names.NEAR_REQUIRED: near}}
    found = wish(pod(**spec, meta=meta)).topology
    assert (found.spread.level if found.spread else "") == over


def test_priorities_keep_their_order_and_stay_within_ours():
    given = [-2_147_483_648, -1_000, -1, 0, 1, 100, 1_000_000, 1_000_000_000, 2_000_001_000, 2_147_483_647]
    ours = [priority(one) for one in given]
    assert ours == sorted(ours)
    assert (ours[0], ours[3], ours[-1]) == (0, 50, 100)


def test_the_group_is_that_of_the_label_or_of_the_annotation():
    labelled = wish(pod(meta={"labels": {names.GROUP_LABEL: "g"}}))
    annotated = wish(pod(meta={"annotations": {names.GROUP_ANNOTATION: "g", names.GROUP_SIZE: "4"}}))
    assert (labelled.group, labelled.group_size, labelled.of_volcano) == ("g", 0, False)
    assert (annotated.group, annotated.group_size, annotated.of_volcano) == ("g", 4, True)


def test_a_pod_waits_in_the_queue_of_our_label_else_of_the_name_that_its_namespace_has():
    def queue(**labels: str) -> str:
        return wish(pod(meta={"namespace": "team-a", "labels": labels})).queue

    ours, theirs = {names.QUEUE: "night"}, {names.LOCAL_QUEUE: "user-queue"}
    assert queue() == "default"
    assert queue(**theirs) == "team-a/user-queue"
    assert queue(**ours, **theirs) == "night"
    assert queue(**{names.LOCAL_QUEUE: ""}) == "default"
    assert wish(pod(meta={"labels": theirs})).problem == ""


def test_who_pays_is_written_on_the_namespace_and_never_on_the_pod():
    assert owner("team-a", None) == ("default", "team-a", "")
    assert owner("team-a", Landlord(tenant="acme", project="nlp")) == ("acme", "nlp", "")
    tenant, project, wrong = owner("team-a", Landlord(tenant="Not_A_Tenant"))
    assert (tenant, project) == ("default", "team-a")
    assert "Not_A_Tenant" in wrong


def test_who_waits_has_no_state_and_who_is_deleted_before_it_has_a_place_never_started():
    assert guest_state(pod()) is None
    state = guest_state(pod(meta={"deletionTimestamp": f"{AT}01Z"}))
    assert (state.seen, state.end, state.node) == (Seen.ENDED, End.NEVER_STARTED, "")


def test_it_runs_as_soon_as_one_container_does_and_for_as_long_as_its_phase_says_so():
    waiting = {"name": "b", "state": {"waiting": {"reason": "ContainerCreating"}}}
    running = {"phase": "Pending", "containerStatuses": [ran(), waiting]}
    assert guest_state(pod(nodeName="n", status=running)).seen is Seen.RUNNING
    crashing = {"name": "a", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    again = {"phase": "Running", "startTime": f"{AT}00Z", "containerStatuses": [crashing]}
    state = guest_state(pod(nodeName="n", restartPolicy="Always", status=again))
    assert (state.seen, state.started_at % 60_000_000) == (Seen.RUNNING, 0)


def test_a_pull_that_fails_is_told_in_words():
    waiting = {"name": "a", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    state = guest_state(pod(nodeName="n", status={"startTime": f"{AT}00Z", "containerStatuses": [waiting]}))
    assert (state.seen, state.detail) == (Seen.PULLING, "the image cannot be pulled: no such image")


@pytest.mark.parametrize(
    ("state", "end", "code"),
    [
        (ended(ran(code=0), ran("b", code=0), phase="Succeeded"), End.EXITED, 0),
        (ended(ran(code=0), ran("b", code=3)), End.EXITED, 3),
        (ended(ran(code=137, reason="OOMKilled")), End.OUT_OF_MEMORY, None),
        (ended(ran(code=143), reason="Evicted", message="the node was low on memory"), End.LOST, None),
        (ended(ran(code=143), reason="DeadlineExceeded"), End.DEADLINE, None),
        (ended(reason="OutOfcpu", message="no room"), End.START_FAILED, None),
    ],
)
def test_how_it_ended(state, end, code):
    assert (state.seen, state.end, state.exit_code) == (Seen.ENDED, end, code)
    assert state.started_at <= state.ended_at


def test_a_namespace_in_which_we_may_not_act_is_closed_until_its_labels_change():
    lodgings = Lodgings(ManualClock(), now=lambda: 1)
    shown = view(pod(), system=SYSTEM, scheduler_name="mainstay")
    lodgings.changed(("ns", "web"), None, shown)
    plain, labelled = {}, {("", "ns"): Landlord(tenant="acme")}
    assert [guest.problem for guest in lodgings.guests(plain)] == [""]
    lodgings.close_to_us("ns")
    (told,) = [guest.problem for guest in lodgings.guests(plain)]
    assert "labels it mainstay.dev/tenant to let us in" in told
    assert [guest.problem for guest in lodgings.guests(labelled)] == [""]
