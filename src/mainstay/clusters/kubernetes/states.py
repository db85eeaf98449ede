"""From a pod as the API server shows it to what we report of it: pure functions.

An end is only ever told from a report of that end (R5): of the main container by its kubelet, or of the pod by
whoever may know that it never ran. A pod whose node is silent is UNKNOWN and keeps what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.objects import Condition, ContainerStatus, Pod, Running, Terminated
from mainstay.clusters.kubernetes.pods import DEAD_MAN_WORDS
from mainstay.clusters.kubernetes.quantities import instant
from mainstay.clusters.kubernetes.troubles import (
    HOPELESS_REASONS,
    PULL_REASONS,
    copying,
    hopeless,
    keeps_no_output,
    shown,
    status_of,
    unplaced,
)
from mainstay.domain.addresses import Tunnel
from mainstay.domain.allocation import End, PodState, Seen

START_FAILURES = frozenset({"StartError", "ContainerCannotRun"})
"""Of a container that was made and could not run: no such command, not executable."""
DISRUPTION_REASONS = frozenset({"Evicted", "Preempting", "NodeShutdown", "Terminated", "NodeLost"})
"""Of a pod that its kubelet or the control plane of its cluster ended."""
LOST_REASONS = frozenset({"ContainerStatusUnknown", "Unknown"})
"""The kubelet has lost sight of a container that it ran, or its runtime has: its machine lost power. Nobody knows its code, and
what they give as its end is when they came back.
"""
DEADLINE_REASON = "DeadlineExceeded"
ENDED_BY_KUBELET = frozenset({128 + 15, 128 + 9})
"""What a program says that has ended by TERM, or by KILL after its grace: by these a kubelet ends what somebody has deleted."""


def asked_at(pod: Pod, *, known: int = 0) -> int:
    """When somebody has asked for the end of a pod, at the latest (UTC microseconds); 0 if nobody has. `known`: as an earlier
    look had it.

    `deletionTimestamp` lies a grace after the request, unless the grace was shortened when it was over already: then it is
    the moment of that (Kubernetes, apiserver/pkg/registry/rest/delete.go: BeforeDelete). So it is once a kubelet has said
    its last word about a pod that a finalizer keeps: a request with a grace of 0, some time after the end.
    """
    meta = pod.metadata
    if not meta.deletion_timestamp:
        return 0
    told = instant(meta.deletion_timestamp) - (meta.deletion_grace_period_seconds or 0) * 1_000_000
    return min(told, known) if known else told


def state_of(pod: Pod, *, tunnel: str = "", asked: int | None = None) -> PodState:
    """What we report of a pod of ours; `tunnel` as for `views.view`. `asked`: when somebody asked for its end, if that is known
    better than by the pod itself.
    """
    meta = pod.metadata
    forgotten = names.FORGOTTEN in meta.labels
    if names.TOMBSTONE in meta.labels:
        was_there = names.LAST_NODE in meta.annotations
        why = "it vanished from the cluster" if was_there else "deleted before it was created"
        return _never_started(pod, why, forgotten=forgotten)
    main = status_of(pod, names.MAIN)
    if main is not None and main.state.terminated is not None:
        asked = asked_at(pod) if asked is None else asked
        return _ended(pod, main.state.terminated, asked=asked, forgotten=forgotten)
    if is_over(pod):
        if main is not None and main.state.running is not None:
            return _lost(pod, main.state.running, forgotten=forgotten)
        return _never_started(pod, _why(pod) or "its node did not run it", forgotten=forgotten)
    if meta.deletion_timestamp and not pod.spec.node_name:
        return _never_started(pod, "deleted before it was placed", forgotten=forgotten)
    if main is not None and main.state.running is not None:
        return _running(pod, main, tunnel)
    return _starting(pod, main)


def refusal(pod: Pod) -> str:
    """Why its kubelet did not take a pod that it was given, in words: no room, no device, not for this node."""
    status = pod.status
    refused = status.phase == "Failed" and status.reason and status.reason not in DISRUPTION_REASONS | {DEADLINE_REASON}
    return shown(f"{status.reason}: {status.message}") if refused and not status.container_statuses else ""


def guest_state(pod: Pod, *, asked: int | None = None) -> PodState | None:
    """What we report of a pod of others, by its UID; None while it waits for a place. `asked` as for `state_of`.

    Any of its containers that failed has failed the pod. One that is started again and again runs, and never ends.
    """
    uid, node = pod.metadata.uid, pod.spec.node_name
    starts = [instant(run.started_at) for run in _runs(pod) if run.started_at]
    if any(status.restart_count for status in pod.status.container_statuses):
        starts.append(instant(pod.status.start_time))  # of the first run only its pod still knows
    started = min((start for start in starts if start), default=0)
    if is_over(pod):
        return _guest_ended(pod, started, asked_at(pod) if asked is None else asked)
    if not node:
        if pod.metadata.deletion_timestamp:
            return PodState(
                name=uid, node="", seen=Seen.ENDED, end=End.NEVER_STARTED, detail="deleted before it was placed"
            )
        return None
    if started:
        ready = all(status.ready for status in pod.status.container_statuses)
        return PodState(name=uid, node=node, seen=Seen.RUNNING, started_at=started, ready=ready)
    reasons = [status.state.waiting.reason for status in pod.status.container_statuses if status.state.waiting]
    seen = Seen.STARTING if pod.status.start_time else Seen.NOTHING
    if any(reason in PULL_REASONS | HOPELESS_REASONS for reason in reasons):
        seen = Seen.PULLING
    return PodState(name=uid, node=node, seen=seen, detail=hopeless(pod))


def _guest_ended(pod: Pod, started: int, asked: int) -> PodState:
    """The first container that failed tells how; what its node refused to run never started."""
    ends = [status.state.terminated for status in pod.status.container_statuses if status.state.terminated]
    failed = sorted((end for end in ends if end.exit_code), key=lambda end: instant(end.finished_at))
    word, detail = _end(pod, failed[0], asked) if failed else (End.EXITED, "")
    code: int | None = failed[0].exit_code if failed else 0
    if pod.status.phase == "Failed" and not failed:
        word, detail = (End.LOST if started else End.START_FAILED), _why(pod) or "its node did not run it"
    ended = max((instant(end.finished_at) for end in ends), default=0)
    return PodState(
        name=pod.metadata.uid,
        node=pod.spec.node_name,
        seen=Seen.ENDED,
        started_at=started,
        ended_at=max(started, ended),
        end=word,
        exit_code=code if word is End.EXITED else None,
        detail=detail,
    )


def _runs(pod: Pod) -> Iterator[Running | Terminated]:
    for status in pod.status.container_statuses:
        if status.state.running is not None:
            yield status.state.running
        if status.state.terminated is not None:
            yield status.state.terminated


def node_of(pod: Pod) -> str:
    """Where it is, or is to be: what another scheduler is to put on a node of our choice holds that node from the start."""
    return pod.spec.node_name or pod.metadata.annotations.get(names.PLACE, "")


def _running(pod: Pod, main: ContainerStatus, tunnel: str) -> PodState:
    assert main.state.running is not None
    annotations = pod.metadata.annotations
    return PodState(
        name=pod.metadata.name,
        node=pod.spec.node_name,
        seen=Seen.RUNNING,
        started_at=instant(main.state.running.started_at),
        address=_address(pod, tunnel),
        ready=names.READY_PATH in annotations and main.ready,
        detail=keeps_no_output(pod),
    )


def _address(pod: Pod, tunnel: str) -> str:
    """Empty if it listens on no port, or its network is not there yet."""
    port = pod.metadata.annotations.get(names.PORT, "")
    if not port.isdecimal() or not pod.status.pod_ip:
        return ""
    if tunnel:
        return str(Tunnel(cluster=tunnel, pod=pod.metadata.name, port=int(port)))
    return f"{pod.status.pod_ip}:{port}"


def _starting(pod: Pod, main: ContainerStatus | None) -> PodState:
    """A pod that has its node may be started at any moment: that goes on record at once, lest it be made again if it vanishes."""
    waiting = main.state.waiting if main else None
    pulls = waiting is not None and waiting.reason in PULL_REASONS | HOPELESS_REASONS
    node = node_of(pod)
    seen = Seen.PULLING if pulls else Seen.STARTING if node else Seen.NOTHING
    return PodState(
        name=pod.metadata.name,
        node=node,
        seen=seen,
        detail=hopeless(pod) or unplaced(pod) or copying(pod) or keeps_no_output(pod),
    )


def _ended(pod: Pod, end: Terminated, *, asked: int, forgotten: bool) -> PodState:
    started, ended = instant(end.started_at), instant(end.finished_at)
    if not started and (names.VERDICT in pod.metadata.annotations or end.reason in LOST_REASONS):
        return _never_started(pod, shown(end.message) or "it was ended before it started", forgotten=forgotten)
    word, detail = _end(pod, end, asked)
    if end.reason in LOST_REASONS:
        ended = started
    return PodState(
        name=pod.metadata.name,
        node=pod.spec.node_name,
        seen=Seen.ENDED,
        # A container that was never run has no times, or those of the year 1.
        started_at=0 if word is End.START_FAILED else started,
        ended_at=max(started, ended),
        end=word,
        exit_code=end.exit_code if word is End.EXITED else None,
        detail=detail,
        forgotten=forgotten,
    )


def _end(pod: Pod, end: Terminated, asked: int) -> tuple[End, str]:
    """The order matters: an exit with 0 is one, whoever asked for the end; the rest is told by who ended it."""
    if end.reason in LOST_REASONS or end.message.startswith(DEAD_MAN_WORDS):
        return End.LOST, shown(end.message)
    if end.reason in START_FAILURES:
        return End.START_FAILED, shown(end.message)
    if end.reason == "OOMKilled":
        return End.OUT_OF_MEMORY, ""
    if end.exit_code != 0 and _ran_out_of_time(pod, end, asked):
        return End.DEADLINE, ""
    if end.exit_code != 0 and _filled_its_scratch(pod):
        return End.EXITED, _why(pod)
    if end.exit_code != 0 and _was_disrupted_before(pod, end):
        return End.LOST, _why(pod)
    if asked and _was_asked_to_end_before(pod, end, asked):
        return End.STOPPED, ""
    if end.exit_code == 0 and _lost_its_output(pod):
        return End.LOST, "its output was lost before it was fetched"
    return End.EXITED, ""


def _lost(pod: Pod, was: Running, *, forgotten: bool) -> PodState:
    """Its kubelet had it running when it was heard last, and the cluster has proof that nothing runs any more.

    For how long it ran nobody has witnessed, so that it is charged for no more than is on record.
    """
    return PodState(
        name=pod.metadata.name,
        node=pod.spec.node_name,
        seen=Seen.ENDED,
        started_at=instant(was.started_at),
        ended_at=instant(was.started_at),
        end=End.LOST,
        detail=_why(pod) or "its node went",
        forgotten=forgotten,
    )


def _never_started(pod: Pod, why: str, *, forgotten: bool) -> PodState:
    verdict = pod.metadata.annotations.get(names.VERDICT, "")
    return PodState(
        name=pod.metadata.name,
        node=pod.spec.node_name,
        seen=Seen.ENDED,
        end=End.START_FAILED if verdict else End.NEVER_STARTED,
        detail=shown(verdict or why),
        forgotten=forgotten,
    )


def is_over(pod: Pod) -> bool:
    """Nothing of it runs any more, helpers included."""
    return pod.status.phase in {"Failed", "Succeeded"}


def _was_disrupted_before(pod: Pod, end: Terminated) -> bool:
    """Evicted, preempted, drained, or its node went: the infrastructure ended it. Source: KEP-3329.

    A helper may outlive the main container by hours: what befalls it says nothing of an end that was before.
    """
    condition = _disruption(pod)
    if condition is not None:
        return _had_come(instant(condition.last_transition_time), end)
    return pod.status.phase == "Failed" and pod.status.reason in DISRUPTION_REASONS


def _filled_its_scratch(pod: Pod) -> bool:
    """Its kubelet ended it because it wrote more than the size that it asked for: its own doing, and trying again is no help.

    Source: the words of the eviction manager (Kubernetes, pkg/kubelet/eviction/helpers.go).
    """
    return pod.status.reason == "Evicted" and pod.status.message.startswith(("Usage of EmptyDir volume", "Container "))


def _disruption(pod: Pod) -> Condition | None:
    return next((c for c in pod.status.conditions if c.type == "DisruptionTarget" and c.status == "True"), None)


def deadline_of(pod: Pod, started_at: int) -> int:
    """When the run of a pod of ours that has started at `started_at` is to be ended; 0: never."""
    seconds = pod.metadata.annotations.get(names.DEADLINE, "")
    bounded = started_at and seconds.isdecimal() and 0 < len(seconds) <= 10
    return started_at + int(seconds) * 1_000_000 if bounded else 0


def _ran_out_of_time(pod: Pod, end: Terminated, asked: int) -> bool:
    """Whether its deadline came before its end, and before anything else that may have brought that about.

    Of a pod of ours only its own times tell: its kubelet gives no reason. A pod of others has a deadline as a whole, which
    counts from when its kubelet took it.
    """
    if pod.status.reason == DEADLINE_REASON:
        started = instant(pod.status.start_time)
        return _had_come(started + pod.spec.active_deadline_seconds * 1_000_000 if started else 0, end)
    moment = deadline_of(pod, instant(end.started_at))
    if not moment or instant(end.finished_at) < moment:
        return False
    condition = _disruption(pod)
    disrupted = instant(condition.last_transition_time) if condition is not None else 0
    return all(other >= moment for other in (asked, disrupted) if other)


def _had_come(moment: int, end: Terminated) -> bool:
    """Whether a moment was before an end. One that is not known was, and so was one in the same second."""
    return moment <= instant(end.finished_at) or not instant(end.finished_at)


def _lost_its_output(pod: Pod) -> bool:
    """Whether what keeps the output has ended before we let it go: with its node, or at the hands of somebody."""
    keeper = status_of(pod, names.OUTPUTS)
    return keeper is not None and keeper.state.terminated is not None and names.FORGOTTEN not in pod.metadata.labels


def _was_asked_to_end_before(pod: Pod, end: Terminated, asked: int) -> bool:
    """Whether it was ended because somebody had asked for that.

    Where the request may look later than it was (`asked_at`), and nobody watched, its exit code tells.
    """
    looks_late = (pod.metadata.deletion_grace_period_seconds or 0) <= 1 and asked == asked_at(pod)
    return instant(end.finished_at) >= asked or (looks_late and end.exit_code in ENDED_BY_KUBELET)


def _why(pod: Pod) -> str:
    """What the cluster says of the end of a pod, in its words."""
    condition = _disruption(pod)
    words = [pod.status.reason, pod.status.message]
    if condition is not None:
        words += [condition.reason, condition.message]
    return shown(": ".join(word for word in words if word))
