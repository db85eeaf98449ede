"""`python -m testbed`: a Kubernetes on this machine until Ctrl-C.

`python -m testbed build` only builds its programs, and `is-built` says by its exit status whether that is done.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator

from testbed import hollow, images, mainstay_image, node, programs
from testbed.control_plane import ControlPlane, running
from testbed.hollow import HollowNode


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["up", "build", "is-built"], default="up")
    parser.add_argument("--nodes", type=int, default=10, help="hollow nodes")
    parser.add_argument("--real-nodes", type=int, choices=[0, 1], help="by default one, where this machine can run it")
    parser.add_argument(
        "--others", action="store_true", help="build the API servers of other versions and an operator, too"
    )
    parser.add_argument("--durable", action="store_true", help="wait for the disk, as outside of tests")
    options = parser.parse_args()
    if options.what == "is-built":
        return 1 if programs.missing() else 0
    for line in programs.build(*(programs.others() if options.others else ())):
        _say(line)
    if options.what == "build":
        _say(f"the programs of Kubernetes {programs.KUBERNETES} are in {programs.folder()}")
        return 0
    reason = "" if options.real_nodes == 0 else node.why_not()
    if reason:
        _say(f"no real node: {reason}")
    if reason and options.real_nodes:
        return 1
    up(hollow_nodes=options.nodes, real=options.real_nodes != 0 and not reason, durable=options.durable)
    return 0


def up(*, hollow_nodes: int, real: bool, durable: bool) -> None:
    """Until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as parts:
        began = time.monotonic()
        control_plane = parts.enter_context(running(durable=durable))
        _say(f"Kubernetes {programs.KUBERNETES} at {control_plane.url} after {time.monotonic() - began:.1f} s")
        control_plane.scheduler.start()
        parts.enter_context(_with_hollow_nodes(control_plane, hollow_nodes))
        if real:
            parts.enter_context(_with_real_node(control_plane))
        _say(f"ready after {time.monotonic() - began:.1f} s; Ctrl-C ends it and leaves nothing")
        print(f"  export KUBECONFIG={control_plane.kubeconfig}")
        print(f"  {shlex.quote(str(programs.path('kubectl')))} get nodes", flush=True)
        signal.pause()
    print("\ntestbed: ended", file=sys.stderr)


@contextlib.contextmanager
def _with_hollow_nodes(control_plane: ControlPlane, count: int) -> Iterator[None]:
    began = time.monotonic()
    with hollow.simulated(control_plane) as simulator:
        names = []
        for name in hollow.add(control_plane, (HollowNode(name=f"hollow-{number}") for number in range(count))):
            names.append(name)
            if sys.stderr.isatty():
                print(f"\r{len(names)} of {count} nodes", end="\r", file=sys.stderr, flush=True)
        simulator.wait_until(lambda: hollow.are_ready(control_plane, names), seconds=hollow.START_SECONDS_MAX)
        _say(f"{count} hollow nodes ready in {time.monotonic() - began:.1f} s")
        yield


@contextlib.contextmanager
def _with_real_node(control_plane: ControlPlane) -> Iterator[None]:
    began = time.monotonic()
    with node.running(control_plane) as started:
        _say(f"the real node {started.name} at {started.address} ready in {time.monotonic() - began:.1f} s")
        for image in (images.busybox(), mainstay_image.mainstay()):
            began = time.monotonic()
            started.load(image)
            _say(f"{image.reference} loaded in {time.monotonic() - began:.1f} s")
        yield


def _say(line: str) -> None:
    print(f"testbed: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
