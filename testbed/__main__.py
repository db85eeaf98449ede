"""`python -m testbed`: a Kubernetes on this machine until Ctrl-C. `python -m testbed build`: only its programs."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time

from testbed import hollow, programs
from testbed.control_plane import running
from testbed.hollow import HollowNode


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["up", "build"], default="up")
    parser.add_argument("--nodes", type=int, default=10, help="hollow nodes")
    parser.add_argument("--durable", action="store_true", help="wait for the disk, as outside of tests")
    options = parser.parse_args()
    for line in programs.build():
        print(f"testbed: {line}", flush=True)
    if options.what == "up":
        up(nodes=options.nodes, durable=options.durable)
    return 0


def up(*, nodes: int, durable: bool) -> None:
    """Until Ctrl-C or SIGTERM."""
    began = time.monotonic()
    with running(durable=durable) as control_plane, hollow.simulated(control_plane) as simulator:
        names = []
        for name in hollow.add(control_plane, (HollowNode(name=f"hollow-{number}") for number in range(nodes))):
            names.append(name)
            if sys.stderr.isatty():
                print(f"\r{len(names)} of {nodes} nodes", end="", file=sys.stderr, flush=True)
        simulator.wait_until(lambda: hollow.are_ready(control_plane, names), seconds=hollow.START_SECONDS_MAX)
        kubectl = shlex.quote(str(programs.path("kubectl")))
        print(f"\nKubernetes {programs.KUBERNETES} with {nodes} hollow nodes at {control_plane.url}", end=" ")
        print(f"after {time.monotonic() - began:.1f} s; Ctrl-C ends it and leaves nothing")
        print(f"  export KUBECONFIG={control_plane.kubeconfig}\n  {kubectl} get nodes", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("\ntestbed: ends", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
