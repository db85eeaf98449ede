"""What kubelets and container runtimes say when a command does not run or a port is not reached, in our words.

Source of theirs: containerd and CRI-O with runc and crun (`OCI runtime exec failed: ...`), Kubernetes pkg/kubelet/server and
pkg/cri/streaming. What is in none of these tables is told as it was said.
"""

from __future__ import annotations

from collections.abc import Iterable

_COMMAND = (
    ("executable file not found", "no such program"),
    ("not found in $PATH", "no such program"),
    ("no such file or directory", "no such file"),
    ("permission denied", "it may not be executed"),
    ("exec format error", "it is no program for this kind of machine"),
    ("is a directory", "it is a directory"),
)
_CONTAINER = (
    ("container not found", "its container does not run"),
    ("is not running", "its container does not run"),
    ("not in running state", "its container does not run"),
    ("is not created or running", "its container does not run"),
    ("stopped state", "its container has ended"),
    ("pod does not exist", "its node knows nothing of it (any more)"),
    ("task not found", "its container has ended"),
    ("no running task", "its container has ended"),
)


def of_command(program: str, said: str) -> str:
    """Why a command did not run."""
    if why := _first(_CONTAINER, said):
        return why
    if why := _first(_COMMAND, said):
        return f"cannot run {program}: {why}"
    return said


def of_port(pod: str, port: int, said: str) -> str:
    """Why a connection to a port of a pod was not made."""
    if "connection refused" in said:
        return f"nothing of pod {pod} listens on port {port}"
    return of_pod(pod, said) or f"port {port} of pod {pod} cannot be reached: {said}"


def of_pod(pod: str, said: str) -> str:
    """Why a pod takes no connection; empty if its node said nothing that we know."""
    why = _first(_CONTAINER, said)
    return f"pod {pod} cannot be entered: {why}" if why else ""


def _first(table: Iterable[tuple[str, str]], said: str) -> str:
    return next((ours for theirs, ours in table if theirs in said), "")
