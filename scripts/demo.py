"""The main job, from nothing to a trained, deployed and billed model: what `make demo` runs.

It starts the platform on this machine and then does what a user would do, with the same commands, each printed
before it runs. With a terminal the platform keeps running until Ctrl-C. The exit status is 0 only if every step was true.
`demo_kubernetes.py` does the same on another cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mainstay.sdk import Client

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "01-first-job"
MODEL = "digits"
STARTED_SECONDS_MAX = 30
READY_SECONDS_MAX = 60
ACCURACY_MIN = 0.9
"""What a small network reaches on these digits with ease; below it something is broken."""


def main() -> int:
    """Exit status."""
    began = time.monotonic()
    with platform(Path(os.environ.get("MAINSTAY_STATE", Path.home() / ".mainstay"))) as url, Client() as client:
        try:
            run = steps(client)
        except StepFailedError as failure:
            print(f"\n✗ {failure}", file=sys.stderr)
            return 1
        print(f"\n✓ trained, deployed, asked and billed in {time.monotonic() - began:.1f} s")
        say_what_is_next(url, run)
        wait_for_interrupt()
    return 0


class StepFailedError(Exception):
    """A step was not true."""


def steps(client: Client, *where: str) -> str:
    """Train, deploy, ask and bill; the id of the training run. `where`: options of the commands that place something.

    Raises StepFailedError.
    """
    run = train(client, *where)
    mainstay("deploy", run, *where)
    wait_until_ready(client)
    predict(client, run)
    mainstay("cost")
    return run


@contextlib.contextmanager
def platform(state: Path, *options: str) -> Iterator[str]:
    """A platform on a state directory: the one that runs already, or one of our own until the end."""
    file = state / "server.json"
    if is_answering(file):
        url = json.loads(file.read_text())["url"]
        print(f"a platform is running already at {url}")
        yield url
        return
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = state / "up.log"
    print(f"$ mainstay up    (state: {state}, log: {log})", flush=True)
    # A session of its own: Ctrl-C reaches this script, which then ends the platform in order.
    command = [sys.executable, "-m", "mainstay", "up", "--state", str(state), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + STARTED_SECONDS_MAX
        while not is_answering(file):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the platform did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield json.loads(file.read_text())["url"]
        end_serving()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def end_serving() -> None:
    """Pods outlive the platform, as they do on any cluster; a demo leaves none behind."""
    with Client() as client:
        for endpoint in client.endpoints():
            client.remove_endpoint(endpoint.name)
        for run in client.list():
            run.stop()
        while client.list():
            time.sleep(0.05)


def is_answering(file: Path) -> bool:
    """Whether the platform that wrote `file` answers."""
    try:
        where = json.loads(file.read_text())
        with Client(server=where["url"], token=where["token"], retries=0) as client:
            client.server()
    except Exception:  # whatever is wrong with it, it does not answer
        return False
    return True


def train(client: Client, *where: str) -> str:
    """Submit the example with its log on the terminal; the id of the workload. It must have succeeded and learnt."""
    before = {run.id for run in client.list(name=MODEL, all=True)}
    mainstay("apply", "-f", str(EXAMPLE / "job.yaml"), "-y", *where)
    made = [run for run in client.list(name=MODEL, all=True) if run.id not in before and run.kind == "job"]
    if not made or made[0].phase != "succeeded":
        msg = f"the training run is {made[0].phase if made else 'missing'}"
        raise StepFailedError(msg)
    return made[0].id


def wait_until_ready(client: Client) -> None:
    """Until the endpoint answers with the version that was just deployed."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while (endpoint := client.endpoint(MODEL)).candidate_version or endpoint.state != "ready":
        if time.monotonic() > deadline:
            msg = f"the endpoint is {endpoint.state} after {READY_SECONDS_MAX} s"
            raise StepFailedError(msg)
        time.sleep(0.1)
    print(f"endpoint {endpoint.name} serves version {endpoint.serving_version} at {endpoint.url}")


def predict(client: Client, run: str) -> None:
    """Send images that the training never saw, and compare the answers with the truth."""
    with tempfile.TemporaryDirectory() as folder:
        client.get(run).download(folder)
        request = json.loads((Path(folder) / "held_out.json").read_text())
        truth = json.loads((Path(folder) / "held_out_labels.json").read_text())
        accuracy = json.loads((Path(folder) / "metrics.json").read_text())["accuracy_held_out"]
    print(f"\n$ POST /endpoints/{MODEL}/v2/models/{MODEL}/infer    ({len(truth)} held-out images)")
    answer = client.predict(MODEL, request)
    said = [int(label) for output in answer["outputs"] if output["name"] == "label" for label in output["data"]]
    print(f"  answer: {said}\n  truth:  {truth}")
    right = sum(one == other for one, other in zip(said, truth, strict=True))
    if accuracy < ACCURACY_MIN or right < ACCURACY_MIN * len(truth) - 1:
        msg = f"{right} of {len(truth)} answers are right and the held-out accuracy is {accuracy:.3f}: not a trained model"
        raise StepFailedError(msg)


def mainstay(*arguments: str) -> None:
    """Run one command as a user would; it must succeed."""
    print(f"\n$ mainstay {' '.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "mainstay", *arguments], check=False, stdin=subprocess.DEVNULL)
    if status.returncode:
        msg = f"`mainstay {arguments[0]}` ended with status {status.returncode}"
        raise StepFailedError(msg)


def say_what_is_next(url: str, run: str) -> None:
    """The commands to go on with."""
    print(
        f"""
The platform's API is at {url}/v1 and its page at {url}/ (`mainstay login --page` prints a link that signs you in).
Go on with:
  mainstay ps -a                       all runs
  mainstay show {run}        this run, with its pods and reasons
  mainstay logs {run}        its log
  mainstay endpoints                   what is served
  mainstay run -- python -c 'print(6 * 7)'   anything else"""
    )


def wait_for_interrupt() -> None:
    """Keep the platform running until Ctrl-C, where there is a terminal to type it at."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("\nHere is no terminal to wait at: it ends now. `mainstay up` starts a platform that stays.", flush=True)
        return
    print("\nThe platform keeps running. Ctrl-C ends it and what it serves.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
