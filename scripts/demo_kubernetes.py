"""The main job on a real Kubernetes: what `make demo-kubernetes` runs.

A control plane and a node whose pods are real containers are started on this machine, the platform beside them, and the
cluster joins its fleet; from there on the steps are those of `demo.py`, bound to that cluster. All of it is gone at the end:
nothing of the test bed stays, and the platform keeps its state in the test bed's folder. The exit status is 0 only if every
step was true.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from demo import ROOT, StepFailedError, end_serving, mainstay, platform, say_what_is_next, steps, wait_for_interrupt

from mainstay.sdk import ApiError, Client
from testbed import control_plane, folders, images, mainstay_image, node, programs
from testbed.control_plane import ControlPlane

CLUSTER = "bed"
GONE_SECONDS_MAX = 60


def main() -> int:
    """Exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        prepare()
        with kubernetes() as bed, platform(state_in(bed), "--port", "0") as url, Client() as client:
            demonstrate(client, url, bed, began=began)
    except (StepFailedError, RuntimeError) as failure:  # RuntimeError: the test bed does not start, and says why
        print(f"\n✗ {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the cluster and all in it are gone", file=sys.stderr)
        return 130
    print("the cluster and all in it are gone")
    return 0


def prepare() -> None:
    """Build and install what is missing. Raises StepFailedError where this machine cannot run a node, at once if never."""
    refuse(node.why_never())
    for line in programs.build():
        say(line)
    subprocess.run([ROOT / "scripts" / "ensure-containerd"], check=True)
    refuse(node.why_not())


def refuse(reason: str) -> None:
    """Raises StepFailedError, if there is a reason to."""
    if reason:
        msg = f"no demo on Kubernetes on this machine: {reason}"
        raise StepFailedError(msg)


@contextlib.contextmanager
def kubernetes() -> Iterator[ControlPlane]:
    """A control plane and a node that has the images of the demo, until the end of the block."""
    began = time.monotonic()
    with control_plane.running() as bed:
        say(f"Kubernetes {programs.KUBERNETES} at {bed.url} after {time.monotonic() - began:.1f} s")
        with node.running(bed) as started:
            say(f"node {started.name} ready after {time.monotonic() - began:.1f} s")
            for image in (images.busybox(), mainstay_image.mainstay()):
                started.load(image)
            say(f"images loaded after {time.monotonic() - began:.1f} s")
            yield bed


def state_in(bed: ControlPlane) -> Path:
    """The state directory of the platform: it goes with the test bed. Commands and client look for the platform there."""
    state = bed.folder / "platform"
    os.environ["MAINSTAY_STATE"] = str(state)
    os.environ[folders.MARK] = str(bed.folder)  # so that what a killed demo leaves is found and ended by the next
    for name in ("MAINSTAY_SERVER", "MAINSTAY_TOKEN"):
        os.environ.pop(name, None)
    return state


def demonstrate(client: Client, url: str, bed: ControlPlane, *, began: float) -> None:
    """All that a user does. Raises StepFailedError."""
    words = ("--helper-image", images.BUSYBOX, "--image", mainstay_image.mainstay().reference)
    mainstay("cluster", "add", CLUSTER, "--kubeconfig", str(bed.kubeconfig), *words)
    run = steps(client, "--infra", CLUSTER)
    require_in_cluster(client, run)
    print(
        f"\n✓ trained, deployed, asked and billed on Kubernetes in {time.monotonic() - began:.1f} s, test bed included"
    )
    say_what_is_next(url, run)
    print(f"In another terminal, first:\n  export MAINSTAY_STATE={shlex.quote(os.environ['MAINSTAY_STATE'])}")
    print(f"The cluster itself: {shlex.quote(str(programs.path('kubectl')))} --kubeconfig {bed.kubeconfig} get pods -A")
    wait_for_interrupt()
    leave(client)


def require_in_cluster(client: Client, run: str) -> None:
    """Raises StepFailedError unless what was trained and what serves has run in containers of the cluster."""
    served = [client.get(endpoint.serving) for endpoint in client.endpoints()]
    for one in (client.get(run), *served):
        places = {pod.cluster for pod in one.view.pods}
        if places != {CLUSTER}:
            msg = f"{one.id} ran on {', '.join(sorted(places)) or 'nothing'} instead of {CLUSTER}"
            raise StepFailedError(msg)


def leave(client: Client) -> None:
    """End what runs and take the cluster out of the fleet, which is refused as long as anything of ours is there."""
    end_serving()
    mainstay("cluster", "drain", CLUSTER)
    print(f"\n$ mainstay cluster remove {CLUSTER}    (once its pods have ended)", flush=True)
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while True:
        try:
            client.remove_cluster(CLUSTER)
        except ApiError as error:
            if error.status != 409 or time.monotonic() > deadline:
                raise StepFailedError(str(error)) from error
            time.sleep(0.1)
        else:
            print(f"cluster {CLUSTER} is no longer of the fleet", flush=True)
            return


def say(line: str) -> None:
    """What the test bed does."""
    print(f"testbed: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
