"""From a pod as the API server shows it to what we report of it: pure functions.

An end is only ever told from a report of that end (R5): of the main container by its kubelet, or of the pod by
whoever may know that it never ran. A pod whose node is silent is UNKNOWN and keeps what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.nodes import requests
from mainstay.clusters.kubernetes.objects import ContainerStatus, Pod, Running, Terminated
from mainstay.clusters.kubernetes.quantities import instant
from mainstay.domain.addresses import Tunnel
from mainstay.domain.allocation import End, PodState, Seen
from mainstay.domain.quantity import Resources

NOTHING = Resources()
PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"})
HOPELESS_REASONS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
START_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
START_FAILURES = frozenset({"StartError", "ContainerCannotRun"})
"""Of a container that was made and could not run: no such command, not executable."""
LOST_REASONS = frozenset({"ContainerStatusUnknown"})
"""The kubelet has lost sight of a container that it ran."""
DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that we keep of a pod: our own or one that only takes room."""

    namespace: str
    uid: str
    node: str
    holds: Resources
    """Of its node, until it has ended in every container."""
    state: PodState | None = None
    """What we report of it; None if it is not ours."""
    identity: str = ""
    gang: str = ""
    deleting: int = 0
    """Its grace in seconds once somebody has asked for its end; 0 if nobody has."""
    waits_for_files: bool = False
    mounts: str = ""
    keeps_output: bool = False
    serves: bool = False
    """It listens on a port and leaves no output."""
    logged: bool = False
    """Its main container has started: there is a log."""
    hopeless: str = ""
    """Why it cannot start as things stand, in words; empty if nothing is wrong."""
    created_at: int = 0
    """Server's time, UTC microseconds."""
    tombstone: bool = False
    last_node: str = ""
    forgotten_at: int = 0
    """Unix seconds; 0 while its end is not on record."""


def view(pod: Pod, *, system: str, tunnel: str = "") -> View:
    """What is kept of a pod. `system` is the mark of our own ones; `tunnel` the name of a cluster whose pods' own
    addresses are of no use to us.
    """
    meta = pod.metadata
    node = pod.spec.node_name
    holds = NOTHING if _is_over(pod) or not node else requests(pod)
    deleting = max(1, meta.deletion_grace_period_seconds or 0) if meta.deletion_timestamp else 0
    if meta.labels.get(names.SYSTEM) != system:
        return View(namespace=meta.namespace, uid=meta.uid, node=node, holds=holds, deleting=deleting)
    files, outputs, main = (_status(pod, name) for name in (names.FILES, names.OUTPUTS, names.MAIN))
    return View(
        namespace=meta.namespace,
        uid=meta.uid,
        node=node,
        holds=holds,
        state=state_of(pod, tunnel=tunnel),
        identity=meta.annotations.get(names.IDENTITY, ""),
        gang=meta.labels.get(names.GANG, ""),
        deleting=deleting,
        waits_for_files=files is not None and files.state.running is not None,
        mounts=meta.annotations.get(names.MOUNTS, ""),
        keeps_output=outputs is not None and outputs.state.running is not None,
        serves=names.PORT in meta.annotations,
        logged=main is not None and (main.state.running is not None or main.state.terminated is not None),
        hopeless=hopeless(pod),
        created_at=instant(meta.creation_timestamp),
        tombstone=names.TOMBSTONE in meta.labels,
        last_node=meta.annotations.get(names.LAST_NODE, ""),
        forgotten_at=_seconds(meta.labels.get(names.FORGOTTEN, "")),
    )


def state_of(pod: Pod, *, tunnel: str = "") -> PodState:
    """What we report of a pod of ours; `tunnel` as for `view`."""
    meta = pod.metadata
    forgotten = names.FORGOTTEN in meta.labels
    if names.TOMBSTONE in meta.labels:
        return _never_started(pod, "deleted before it was created", forgotten=forgotten)
    main = _status(pod, names.MAIN)
    if main is not None and main.state.terminated is not None:
        return _ended(pod, main.state.terminated, forgotten=forgotten)
    if _is_over(pod):
        if main is not None and main.state.running is not None:
            return _lost(pod, main.state.running, forgotten=forgotten)
        return _never_started(pod, _why(pod) or "its node did not run it", forgotten=forgotten)
    if meta.deletion_timestamp and not pod.spec.node_name:
        return _never_started(pod, "deleted before it was placed", forgotten=forgotten)
    if main is not None and main.state.running is not None:
        return _running(pod, main, tunnel)
    return _starting(pod, main)


def hopeless(pod: Pod) -> str:
    """Why a pod that has not started cannot, as its kubelet says; empty if nothing is wrong."""
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        waiting = status.state.waiting
        if waiting is not None and waiting.reason in PULL_REASONS | HOPELESS_REASONS | START_REASONS:
            return _shown(f"{waiting.reason}: {waiting.message}")
    return ""


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
    """Nothing is told of a pod before its kubelet has taken it."""
    waiting = main.state.waiting if main else None
    reason = waiting.reason if waiting else ""
    seen = Seen.STARTING if pod.status.start_time else Seen.NOTHING
    if reason in PULL_REASONS | HOPELESS_REASONS:
        seen = Seen.PULLING
    return PodState(name=pod.metadata.name, node=pod.spec.node_name, seen=seen, detail=hopeless(pod))


def _ended(pod: Pod, end: Terminated, *, forgotten: bool) -> PodState:
    started, ended = instant(end.started_at), instant(end.finished_at)
    if not started and (names.VERDICT in pod.metadata.annotations or end.reason in LOST_REASONS):
        return _never_started(pod, _shown(end.message) or "it was ended before it started", forgotten=forgotten)
    word, detail = _end(pod, end)
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


def _end(pod: Pod, end: Terminated) -> tuple[End, str]:
    """The order matters: an exit with 0 is one, whoever asked for the end; the rest is told by who ended it."""
    if end.reason in LOST_REASONS:
        return End.LOST, _shown(end.message)
    if end.reason in START_FAILURES:
        return End.START_FAILED, _shown(end.message)
    if end.reason == "OOMKilled":
        return End.OUT_OF_MEMORY, ""
    if pod.status.reason == "DeadlineExceeded" and end.exit_code != 0:
        return End.DEADLINE, ""
    if _is_disrupted(pod) and end.exit_code != 0:
        return End.LOST, _why(pod)
    if _was_asked_to_end_before(pod, end):
        return End.STOPPED, ""
    return End.EXITED, ""


def _lost(pod: Pod, was: Running, *, forgotten: bool) -> PodState:
    """Its kubelet had it running when it was heard last, and the cluster has proof that nothing runs any more."""
    return PodState(
        name=pod.metadata.name,
        node=pod.spec.node_name,
        seen=Seen.ENDED,
        started_at=instant(was.started_at),
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
        detail=_shown(verdict or why),
        forgotten=forgotten,
    )


def _is_over(pod: Pod) -> bool:
    """Nothing of it runs any more, helpers included."""
    return pod.status.phase in {"Failed", "Succeeded"}


def _is_disrupted(pod: Pod) -> bool:
    """Evicted, preempted, drained, or its node went: the infrastructure ended it. Source: KEP-3329."""
    return any(c.type == "DisruptionTarget" and c.status == "True" for c in pod.status.conditions) or (
        pod.status.phase == "Failed"
        and pod.status.reason in {"Evicted", "Preempting", "NodeShutdown", "Terminated", "NodeLost"}
    )


def _was_asked_to_end_before(pod: Pod, end: Terminated) -> bool:
    """`deletionTimestamp` lies a grace after the request."""
    meta = pod.metadata
    if not meta.deletion_timestamp:
        return False
    asked = instant(meta.deletion_timestamp) - (meta.deletion_grace_period_seconds or 0) * 1_000_000
    return instant(end.finished_at) >= asked


def _why(pod: Pod) -> str:
    """What the cluster says of the end of a pod, in its words."""
    condition = next((c for c in pod.status.conditions if c.type == "DisruptionTarget" and c.status == "True"), None)
    words = [pod.status.reason, pod.status.message]
    if condition is not None:
        words += [condition.reason, condition.message]
    return _shown(": ".join(word for word in words if word))


def _status(pod: Pod, container: str) -> ContainerStatus | None:
    statuses = (*pod.status.container_statuses, *pod.status.init_container_statuses)
    return next((status for status in statuses if status.name == container), None)


def _seconds(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def _shown(text: str) -> str:
    """One line, and not too much of it: a cluster may say anything."""
    return " ".join(text.split())[:DETAIL_CHARACTERS]
