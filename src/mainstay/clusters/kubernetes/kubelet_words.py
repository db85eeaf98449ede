"""What kubelets and container runtimes say when an image is not pulled, a command does not run or a port is not reached, in our
words.

Source of theirs: containerd and CRI-O with runc and crun (`OCI runtime exec failed: ...`), Kubernetes pkg/kubelet/images,
pkg/kubelet/server and pkg/cri/streaming. What is in none of these tables is told as it was said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mainstay.domain.reason import IN_FULL

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
_REACH = "can its node reach it, or is a proxy or a mirror needed?"
_SIGN_IN = "check its name, and let the nodes of its cluster sign in to its registry"
_PULL_BY_CAUSE = (
    ("it has no build for the processors of its node; build it for them too", ("no match for platform",)),
    (
        "its registry takes no more pulls for now; let the nodes sign in to it, or use a mirror",
        ("toomanyrequests", "429 Too Many Requests"),
    ),
    ("its node has no room for it; clear its disk, or take a smaller image", ("no space left on device",)),
    ("its registry is not reachable: no such host; check the name of the registry", ("no such host",)),
    (f"its registry is not reachable: connection refused; {_REACH}", ("connection refused",)),
    (f"its registry is not reachable: it hangs up; {_REACH}", ("connection reset",)),
    (f"its registry is not reachable: no route to it; {_REACH}", ("no route to host", "network is unreachable")),
    (
        f"its registry is not reachable: it does not answer in time; {_REACH}",
        ("i/o timeout", "handshake timeout", "deadline exceeded"),
    ),
    ("its registry is not trusted: its node does not know who signed its certificate", ("x509: ",)),
    ("its registry is not trusted: it does not speak TLS", ("HTTP response to HTTPS client",)),
    (
        f"not allowed, or there is no such image; {_SIGN_IN}",
        ("pull access denied", "insufficient_scope", "access to the resource is denied"),
    ),
    (
        f"not allowed; {_SIGN_IN}",
        ("401 Unauthorized", "403 Forbidden", "unauthorized: ", "no basic auth credentials"),
    ),
    (
        "not found: its registry has no such image or tag; check its name and its tag",
        ("manifest unknown", "name unknown", "not found"),
    ),
    ("that is no name of an image; one is registry.example.com/team/image:tag", ("invalid reference format",)),
    ("it is not on its node, and may not be pulled", ("pull policy of Never",)),
)
_PULL = tuple((mark, why) for why, marks in _PULL_BY_CAUSE for mark in marks)
"""In the order of what they mean: who is not reached finds nothing, and who may not look does not either."""
_NAMED = re.compile(r'\b(?:image|tag|name|reference) "([^"]+)"|docker://([^\s:"]+(?::[\w.-]+)?)')
_AROUND = re.compile(
    r'^(?:Back-off pulling image "[^"]*"(?:: )?|Failed to pull image "[^"]*": |Err\w+: |rpc error: code = \w+ desc = )+'
)


def of_image(said: str, *, what: str = "image") -> str:
    """Why an image is not pulled: which, why and what to do, and behind that what was said, the same whether its node tries it
    just now or waits before it tries again.
    """
    found = _NAMED.search(said)
    name = (found[1] or found[2]) if found else ""
    name = name.removeprefix("docker.io/").removeprefix("library/")
    cause = _AROUND.sub("", said)
    why = _first(_PULL, cause) or cause.rpartition(": ")[2] or "its node has failed to, and tries it again"
    words = f"{what} {name} cannot be pulled: {why}" if name else f"the {what} cannot be pulled: {why}"
    return f"{words}{IN_FULL}{cause}" if cause not in {"", why} else words


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
