"""What is told of a pod: an end only from a report of that end, and who brought it about."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.states import state_of
from mainstay.clusters.kubernetes.troubles import DETAIL_CHARACTERS, hopeless
from mainstay.clusters.kubernetes.views import View, view
from mainstay.domain.allocation import End, Seen
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from tests.unit.clusters.kubernetes.objects import ENDED, LATER, STARTED, SYSTEM, T0, own_view, pod

RUNNING = {"running": {"startedAt": STARTED}}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API"}
US = 1_000_000


def terminated(
    code: int = 0, reason: str = "", *, at: str = ENDED, since: str | None = STARTED, message: str = ""
) -> Any:
    reason = reason or ("Error" if code else "Completed")
    end = {"exitCode": code, "reason": reason, "startedAt": since, "finishedAt": at, "message": message}
    return {"terminated": {name: value for name, value in end.items() if value is not None}}


def waiting(reason: str, message: str = "") -> Any:
    return {"waiting": {"reason": reason, "message": message}}


def deleted(at: str, grace: int) -> dict[str, Any]:
    return {"deletionTimestamp": at, "deletionGracePeriodSeconds": grace}


def failed(reason: str = "", message: str = "", *conditions: dict[str, str]) -> dict[str, Any]:
    return {"phase": "Failed", "reason": reason, "message": message, "conditions": list(conditions)}


def disrupted(at: str, reason: str = "EvictionByEvictionAPI") -> dict[str, str]:
    return {**DISRUPTED, "reason": reason, "lastTransitionTime": at}


ENDS: dict[str, tuple[Pod, End, int | None]] = {
    "exit 0": (pod(main=terminated()), End.EXITED, 0),
    "exit 3": (pod(main=terminated(3)), End.EXITED, 3),
    "exit 137 by nobody of ours": (pod(main=terminated(137)), End.EXITED, 137),
    "killed for memory": (pod(main=terminated(137, "OOMKilled")), End.OUT_OF_MEMORY, None),
    "killed for memory while being deleted": (
        pod(main=terminated(137, "OOMKilled"), **deleted(LATER, 300)),
        End.OUT_OF_MEMORY,
        None,
    ),
    "deadline of its run": (pod(main=terminated(137), annotations={names.DEADLINE: "60"}), End.DEADLINE, None),
    "exit 0 at the deadline of its run": (pod(main=terminated(0), annotations={names.DEADLINE: "60"}), End.EXITED, 0),
    "exit 3 before the deadline of its run": (
        pod(main=terminated(3), annotations={names.DEADLINE: "61"}),
        End.EXITED,
        3,
    ),
    "deadline that came while it waited for its output to be fetched, long after its end": (
        pod(main=terminated(3), annotations={names.DEADLINE: "90"}, **deleted(LATER, 30)),
        End.EXITED,
        3,
    ),
    "deleted before its deadline came, within its grace": (
        pod(main=terminated(137), annotations={names.DEADLINE: "60"}, **deleted(ENDED, 30)),
        End.STOPPED,
        None,
    ),
    "deleted after its deadline had come": (
        pod(main=terminated(137), annotations={names.DEADLINE: "60"}, **deleted(ENDED, 0)),
        End.DEADLINE,
        None,
    ),
    "drained before its deadline came": (
        pod(main=terminated(137), annotations={names.DEADLINE: "60"}, status={"conditions": [disrupted(STARTED)]}),
        End.LOST,
        None,
    ),
    "a deadline that is no number": (pod(main=terminated(3), annotations={names.DEADLINE: "soon"}), End.EXITED, 3),
    "deadline": (
        pod(main=terminated(143), status=failed("DeadlineExceeded", "too long"), spec={"activeDeadlineSeconds": 60}),
        End.DEADLINE,
        None,
    ),
    "exit 0 at the deadline": (
        pod(main=terminated(0), status=failed("DeadlineExceeded"), spec={"activeDeadlineSeconds": 60}),
        End.EXITED,
        0,
    ),
    "exit 3 long before the deadline that ended its helpers": (
        pod(main=terminated(3), status=failed("DeadlineExceeded"), spec={"activeDeadlineSeconds": 600}),
        End.EXITED,
        3,
    ),
    "evicted by its kubelet": (
        pod(main=terminated(137), status=failed("Evicted", "The node was low on memory.")),
        End.LOST,
        None,
    ),
    "drained": (pod(main=terminated(143), status={"conditions": [DISRUPTED]}, **deleted(ENDED, 0)), End.LOST, None),
    "drained and exit 0": (pod(main=terminated(0), status={"conditions": [DISRUPTED]}), End.EXITED, 0),
    "exit 3 before a drain": (pod(main=terminated(3), status={"conditions": [disrupted(LATER)]}), End.EXITED, 3),
    "exit 143 in a drain": (pod(main=terminated(143), status={"conditions": [disrupted(STARTED)]}), End.LOST, None),
    "a disruption that was called off": (
        pod(main=terminated(3), status={"conditions": [{**DISRUPTED, "status": "False"}]}),
        End.EXITED,
        3,
    ),
    "node shut down": (
        pod(
            main=terminated(137),
            status=failed("Terminated", "Pod was terminated in response to imminent node shutdown."),
        ),
        End.LOST,
        None,
    ),
    "preempted for a critical pod": (
        pod(main=terminated(137), status=failed("Preempting", "Preempted in order to admit critical pod")),
        End.LOST,
        None,
    ),
    "node gone while it ran": (
        pod(
            main=RUNNING,
            status=failed(
                "", "", {**DISRUPTED, "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists"}
            ),
        ),
        End.LOST,
        None,
    ),
    "kubelet lost sight of what it ran": (pod(main=terminated(137, "ContainerStatusUnknown")), End.LOST, None),
    "kubelet lost sight of what it never saw": (
        pod(main=terminated(137, "ContainerStatusUnknown", since=None, at=ENDED, message="could not be located")),
        End.NEVER_STARTED,
        None,
    ),
    "no such command": (
        pod(main=terminated(128, "StartError", since="1970-01-01T00:00:00Z", message="exec: not found")),
        End.START_FAILED,
        None,
    ),
    "not executable": (
        pod(main=terminated(126, "ContainerCannotRun", message="permission denied")),
        End.START_FAILED,
        None,
    ),
    "deleted while it ran": (pod(main=terminated(143), **deleted(ENDED, 0)), End.STOPPED, None),
    "deleted and killed after its grace": (pod(main=terminated(137), **deleted(ENDED, 30)), End.STOPPED, None),
    "deleted while it ran, and its kubelet has said its last word since": (
        pod(main=terminated(143), **deleted(LATER, 0)),
        End.STOPPED,
        None,
    ),
    "deleted and killed after its grace, and the grace was shortened since": (
        pod(main=terminated(137), **deleted(LATER, 1)),
        End.STOPPED,
        None,
    ),
    "failed before somebody deleted it for good": (pod(main=terminated(3), **deleted(LATER, 0)), End.EXITED, 3),
    "ended by TERM before somebody deleted it": (pod(main=terminated(143), **deleted(LATER, 30)), End.EXITED, 143),
    "deleted and exit 0": (pod(main=terminated(0), **deleted(ENDED, 30)), End.STOPPED, None),
    "ended before somebody deleted it": (pod(main=terminated(3), **deleted(LATER, 30)), End.EXITED, 3),
    "deleted before it was placed": (pod(node="", **deleted(ENDED, 0)), End.NEVER_STARTED, None),
    "deleted before its node ran it": (
        pod(main=waiting("PodInitializing"), status=failed(), **deleted(ENDED, 1)),
        End.NEVER_STARTED,
        None,
    ),
    "no room for its processors": (
        pod(status=failed("OutOfcpu", "Node didn't have enough resource: cpu")),
        End.NEVER_STARTED,
        None,
    ),
    "no device": (
        pod(status=failed("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present")),
        End.NEVER_STARTED,
        None,
    ),
    "node refused it": (pod(status=failed("NodeAffinity", "Predicate NodeAffinity failed")), End.NEVER_STARTED, None),
    "its helper failed": (pod(main=waiting("PodInitializing"), status=failed("", "")), End.NEVER_STARTED, None),
    "given up": (
        pod(main=waiting("ErrImagePull"), status=failed(), annotations={names.VERDICT: "ErrImagePull: no such image"}),
        End.START_FAILED,
        None,
    ),
    "given up, and never seen": (
        pod(main=terminated(137, since=None), annotations={names.VERDICT: "no such image"}),
        End.START_FAILED,
        None,
    ),
    "tombstone": (pod(node="", labels={names.TOMBSTONE: "true"}, status={"phase": "Pending"}), End.NEVER_STARTED, None),
    "tombstone of what was on a node": (
        pod(node="", labels={names.TOMBSTONE: "true"}, annotations={names.LAST_NODE: "n"}, status={"phase": "Pending"}),
        End.NEVER_STARTED,
        None,
    ),
    "succeeded without a word of its container": (pod(status={"phase": "Succeeded"}), End.NEVER_STARTED, None),
}


@pytest.mark.parametrize(("seen", "end", "code"), ENDS.values(), ids=ENDS.keys())
def test_an_end_is_told_by_who_brought_it_about(seen, end, code):
    state = state_of(seen)
    assert (state.seen, state.end, state.exit_code) == (Seen.ENDED, end, code)


LIVES: dict[str, tuple[Pod, Seen]] = {
    "not taken by its kubelet": (pod(status={"phase": "Pending", "startTime": None}), Seen.STARTING),
    "taken": (pod(main=waiting("ContainerCreating"), status={"phase": "Pending"}), Seen.STARTING),
    "waiting for files": (pod(main=waiting("PodInitializing"), status={"phase": "Pending"}), Seen.STARTING),
    "no such image": (pod(main=waiting("ErrImagePull", "not found"), status={"phase": "Pending"}), Seen.PULLING),
    "registry away": (pod(main=waiting("ImagePullBackOff", "i/o timeout"), status={"phase": "Pending"}), Seen.PULLING),
    "image with a wrong name": (pod(main=waiting("InvalidImageName"), status={"phase": "Pending"}), Seen.PULLING),
    "secret missing": (pod(main=waiting("CreateContainerConfigError"), status={"phase": "Pending"}), Seen.STARTING),
    "running": (pod(main=RUNNING), Seen.RUNNING),
    "running and asked to end": (pod(main=RUNNING, **deleted(LATER, 300)), Seen.RUNNING),
    "running and about to be drained": (pod(main=RUNNING, status={"conditions": [DISRUPTED]}), Seen.RUNNING),
    "deleted before it ran, its kubelet has not said": (
        pod(main=waiting("ContainerCreating"), status={"phase": "Pending"}, **deleted(LATER, 30)),
        Seen.STARTING,
    ),
    "phase unknown": (pod(main=RUNNING, status={"phase": "Unknown"}), Seen.RUNNING),
    "no statuses at all": (pod(status={"phase": "Running"}), Seen.STARTING),
}


@pytest.mark.parametrize(("shown", "seen"), LIVES.values(), ids=LIVES.keys())
def test_without_a_report_of_its_end_nothing_has_ended(shown, seen):
    state = state_of(shown)
    assert (state.seen, state.end) == (seen, None)


def test_times_are_those_of_the_main_container():
    state = state_of(pod(main=terminated(0)))
    assert (state.started_at, state.ended_at) == (T0, T0 + 60 * US)
    assert state_of(pod(main=RUNNING)).started_at == T0


def test_what_never_ran_has_no_times():
    for name in ("no such command", "kubelet lost sight of what it never saw", "given up, and never seen", "tombstone"):
        assert state_of(ENDS[name][0]).started_at == 0, name


def test_the_words_of_the_cluster_are_told():
    said = {name: state_of(ENDS[name][0]).detail for name in ENDS}
    assert said["no such command"] == "exec: not found"
    assert "low on memory" in said["evicted by its kubelet"]
    assert "Eviction API" in said["drained"]
    assert "PodGC: node no longer exists" in said["node gone while it ran"]
    assert "OutOfcpu" in said["no room for its processors"]
    assert "no healthy devices" in said["no device"]
    assert said["given up"] == "ErrImagePull: no such image"
    assert said["tombstone"] == "deleted before it was created"
    assert said["tombstone of what was on a node"] == "it vanished from the cluster"
    assert state_of(LIVES["no such image"][0]).detail.startswith("the image cannot be pulled: not found")


def test_a_service_has_an_address_while_it_runs_and_is_ready_when_its_kubelet_says_so():
    annotations = {names.PORT: "8080", names.READY_PATH: "/ready"}
    main = {"name": names.MAIN, "state": RUNNING, "ready": True}
    state = state_of(pod(status={"podIP": "10.1.2.3", "containerStatuses": [main]}, annotations=annotations))
    assert (state.address, state.ready) == ("10.1.2.3:8080", True)
    unasked = state_of(pod(status={"containerStatuses": [main]}, annotations={names.PORT: "8080"}))
    assert (unasked.address, unasked.ready) == ("", False)


@pytest.mark.parametrize("label", ["1767261600", "0", "", "soon", "-1", "9" * 40])
def test_what_is_forgotten_stays_so_whatever_its_label_says(label):
    for shown in (
        pod(main=terminated(), labels={names.FORGOTTEN: label}),
        pod(status=failed(), labels={names.FORGOTTEN: label}),
    ):
        assert state_of(shown).forgotten
        assert own_view(shown).forgotten_at > 0


def test_a_pod_holds_its_room_until_every_container_has_ended():
    spec = {"containers": [{"name": names.MAIN, "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}]}
    held = Resources(cpu_milli=2_000, memory_bytes=BYTES_PER_GIB)
    mark = names.short(SYSTEM)
    assert view(pod(main=terminated(), spec=spec), system=mark).holds == held
    assert view(pod(main=terminated(), spec=spec, status={"phase": "Succeeded"}), system=mark).holds == Resources()
    assert view(pod(node="", spec=spec), system=mark).holds == Resources()


def test_of_a_strangers_pod_only_its_room_is_kept():
    for mark in ("another platform", ""):
        stranger = view(pod(main=terminated(), labels={names.SYSTEM: mark}), system=names.short(SYSTEM))
        assert type(stranger) is View


def test_what_keeps_a_pod_from_starting_is_found_in_any_of_its_containers():
    helper = {"name": names.FILES, "state": waiting("ImagePullBackOff", "no such image")}
    waits = pod(status={"initContainerStatuses": [helper]})
    assert hopeless(waits) == "the helper image cannot be pulled: no such image"
    assert hopeless(pod(main=waiting("CreateContainerError", "bad")))
    assert not hopeless(pod(main=waiting("ContainerCreating")))
    assert not hopeless(pod(main=RUNNING))


def test_what_can_never_be_an_image_is_hopeless_for_good():
    mark = names.short(SYSTEM)
    assert view(pod(main=waiting("InvalidImageName", "what")), system=mark).for_good
    assert not view(pod(main=waiting("ImagePullBackOff", "what")), system=mark).for_good


def test_a_helper_that_does_not_start_is_told_while_the_job_runs_and_ends_nothing():
    said = 'Back-off pulling image "busybox:1.36": ErrImagePull: dial tcp 10.0.0.1:443: connect: connection refused'
    helper = {"name": names.OUTPUTS, "state": waiting("ImagePullBackOff", said)}
    for main in (RUNNING, waiting("ContainerCreating")):
        seen = pod(status={"containerStatuses": [{"name": names.MAIN, "state": main}, helper]})
        assert state_of(seen).detail.startswith(
            "the helper that keeps its output does not start: helper image busybox:1.36 cannot be pulled: its registry is not"
            " reachable: connection refused"
        )
        assert not view(seen, system=names.short(SYSTEM)).hopeless
    coming = {"name": names.OUTPUTS, "state": waiting("ContainerCreating")}
    both = pod(status={"containerStatuses": [{"name": names.MAIN, "state": RUNNING}, coming]})
    assert state_of(both).detail == ""


words = st.sampled_from(
    ["", "Failed", "Succeeded", "Running", "Pending", "Evicted", "OOMKilled", "DeadlineExceeded", "ContainerStatusUnknown",
     "StartError", "DisruptionTarget", "True", "main", "files", "outputs", STARTED, ENDED, LATER, "0001-01-01T00:00:00Z", "never",
     names.TOMBSTONE, names.FORGOTTEN, names.VERDICT, names.SYSTEM, names.PORT, names.short(SYSTEM)]
) | st.text(max_size=1_200)  # fmt: skip
figures = st.integers(-(1 << 63), (1 << 63) - 1)
states = st.fixed_dictionaries(
    {},
    optional={
        "waiting": st.fixed_dictionaries({"reason": words, "message": words}),
        "running": st.fixed_dictionaries({"startedAt": words}),
        "terminated": st.fixed_dictionaries(
            {"exitCode": figures, "reason": words, "message": words, "startedAt": words, "finishedAt": words}
        ),
    },
)
statuses = st.lists(st.fixed_dictionaries({"name": words, "state": states, "ready": st.booleans()}), max_size=4)
lies = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {
                "name": words,
                "labels": st.dictionaries(words, words, max_size=4),
                "annotations": st.dictionaries(words, words, max_size=4),
            },
            optional={"deletionTimestamp": words, "deletionGracePeriodSeconds": figures, "creationTimestamp": words},
        ),
        "spec": st.fixed_dictionaries({"nodeName": words}, optional={"activeDeadlineSeconds": figures}),
        "status": st.fixed_dictionaries(
            {
                "phase": words,
                "reason": words,
                "message": words,
                "startTime": words,
                "containerStatuses": statuses,
                "initContainerStatuses": statuses,
                "conditions": st.lists(
                    st.fixed_dictionaries(
                        {"type": words, "status": words, "reason": words, "lastTransitionTime": words}
                    ),
                    max_size=3,
                ),
            }
        ),
    }
)


@given(document=lies)
def test_whatever_a_cluster_says_is_told_as_a_state_that_makes_sense(document):
    shown = msgspec.convert(document, Pod)
    view(shown, system=names.short(SYSTEM))
    state = state_of(shown)
    assert (state.end is not None) == (state.seen is Seen.ENDED)
    assert (state.exit_code is not None) == (state.end is End.EXITED)
    assert state.started_at >= 0
    assert not state.ended_at or state.ended_at >= state.started_at
    assert len(state.detail) <= DETAIL_CHARACTERS
    assert "\n" not in state.detail
    if state.forgotten:
        assert state.seen is Seen.ENDED


def test_a_machine_that_lost_power_is_no_failure_of_the_user_and_its_absence_costs_nothing():
    """As seen on a real node: the times of both containers end when their runtime came back."""
    gone = {"exitCode": 255, "reason": "Unknown", "startedAt": STARTED, "finishedAt": LATER}
    state = state_of(pod(main={"terminated": gone}, status=failed()))
    assert (state.end, state.exit_code, state.started_at, state.ended_at) == (End.LOST, None, T0, T0)


def test_who_ended_well_and_lost_its_output_has_to_do_it_again():
    statuses = [
        {"name": names.MAIN, "state": terminated(0)},
        {"name": names.OUTPUTS, "state": {"terminated": {"exitCode": 255, "reason": "Unknown"}}},
    ]
    shown = {"phase": "Failed", "containerStatuses": statuses}
    assert state_of(pod(status=shown)).end is End.LOST
    assert state_of(pod(status=shown, labels={names.FORGOTTEN: "1767261660"})).end is End.EXITED


def test_who_fills_his_scratch_has_failed_by_his_own_doing_and_is_told_so():
    words = 'Usage of EmptyDir volume "volume-0" exceeds the limit "10Mi". '
    state = state_of(
        pod(main=terminated(137), status=failed("Evicted", words, disrupted(ENDED, "TerminationByKubelet")))
    )
    assert (state.end, state.exit_code) == (End.EXITED, 137)
    assert "exceeds the limit" in state.detail
    pressed = failed("Evicted", "The node was low on resource: memory.", disrupted(ENDED, "TerminationByKubelet"))
    assert state_of(pod(main=terminated(137), status=pressed)).end is End.LOST


SAID = {
    "1 node(s) had volume node affinity conflict": "another zone or machine",
    "1 node(s) didn't match PersistentVolume's node affinity": "another zone or machine",
    "pod has unbound immediate PersistentVolumeClaims": "its claim is not bound",
    "1 node(s) didn't find available persistent volumes to bind": "no volume fits its claim",
    'persistentvolumeclaim "ckpt" not found': "its claim is not there any more",
    'persistentvolumeclaim "ckpt" is being deleted': "its claim is being deleted",
    "1 Insufficient cpu": "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu",
}


@pytest.mark.parametrize(("message", "told"), SAID.items())
def test_why_a_scheduler_does_not_bind_a_pod_of_ours_is_told_in_words(message: str, told: str):
    said = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": f"0/1 nodes are available: {message}",
    }
    waits = pod(node="", status={"phase": "Pending", "conditions": [said]}, annotations={names.PLACE: "n1"})
    state = state_of(waits)
    assert (state.seen, state.node) == (Seen.STARTING, "n1")
    assert told in state.detail
    shown = own_view(waits)
    assert (shown.node, shown.hopeless) == ("n1", state.detail)


def test_that_much_is_copied_before_the_start_is_told():
    helper = {"name": names.FILES, "state": {"running": {"startedAt": STARTED}}}
    waits = {"phase": "Pending", "initContainerStatuses": [helper]}
    assert state_of(pod(status=waits, annotations={names.OBJECTS: "[]"})).detail != ""
    assert state_of(pod(status=waits)).detail == ""
