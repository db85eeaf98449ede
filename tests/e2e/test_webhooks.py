"""Webhooks as a user types them: the example on a platform of this machine, with its own receiver."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.platform import Platform, platform, until

pytestmark = pytest.mark.xdist_group("command-line")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "09-webhooks"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    state = tmp_path_factory.mktemp("platform") / "state"
    with platform(state, "--outbound-allow", "127.0.0.0/8", "--outbound-allow", "::1/128") as running:
        yield running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def receiver(port: int, secret: str, log: Path) -> Iterator[None]:
    """That of the example; what it prints is in `log`."""
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, EXAMPLE / "receiver.py", str(port)], stdin=subprocess.PIPE, stdout=out, text=True
        )
        assert process.stdin is not None
        process.stdin.write(f"{secret}\n")
        process.stdin.close()
        try:
            yield
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    """Whether it does; nobody without the secret is let in."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/",
        data=b"{}",
        headers={"webhook-id": "x", "webhook-timestamp": "0", "webhook-signature": "v1,x"},
    )
    try:
        urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401
    except OSError:
        return False
    msg = "it took a message that nobody has signed"
    raise AssertionError(msg)


def test_the_example_is_told_what_happens_also_after_it_was_away(up: Platform, tmp_path: Path):
    port, log = free_port(), tmp_path / "log"
    added = up.mainstay(
        "webhook", "add", f"http://127.0.0.1:{port}/", "--name", "here", "--events", "run.submitted,run.finished"
    )
    assert added.returncode == 0, added.stderr
    secret = added.stdout.strip()
    assert secret.startswith("whsec_")
    log.touch()
    failed = up.mainstay("webhook", "test", "here")
    assert (failed.returncode, "cannot be reached" in failed.stderr) == (1, True)
    with receiver(port, secret, log):
        until(lambda: answers(port))
        tried = up.mainstay("webhook", "test", "here")
        assert (tried.returncode, "it arrived: 204" in tried.stderr) == (0, True), tried.stderr
        done = up.mainstay("apply", "-y", "-f", str(EXAMPLE / "job.yaml"))
        assert done.returncode == 0, done.stderr
        until(lambda: len(log.read_text().splitlines()) == 3)
    words = [line.split()[0] for line in log.read_text().splitlines()]
    assert (words[0], sorted(words[1:])) == ("webhook.test", ["run.submitted", "run.succeeded"])
    assert up.mainstay("apply", "-y", "-f", str(EXAMPLE / "job.yaml")).returncode == 0

    def waiting() -> list[dict[str, str]]:
        found = json.loads(up.mainstay("webhook", "deliveries", "here", "--json").stdout)
        return [one for one in found if one["outcome"] == "pending" and one["attempts"]]

    until(lambda: bool(waiting()))
    assert "cannot be reached" in waiting()[0]["detail"]
    with receiver(port, secret, log):
        until(lambda: len(log.read_text().splitlines()) == 5)
    until(lambda: "ok" in up.mainstay("webhook", "list").stdout)
    shown = up.mainstay("webhook", "list", "--json").stdout + up.mainstay("events").stdout + up.mainstay("audit").stdout
    assert secret not in shown
    assert up.mainstay("webhook", "remove", "here").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "https://10.0.0.1/"), 3, "it is private"),
        (("add", "https://169.254.169.254/"), 3, "link-local"),
        (("add", "http://8.8.8.8/"), 3, "http is for this machine only"),
        (("add", "https://8.8.8.8/", "--events", "run.finish"), 3, "did you mean run.finished?"),
        (("test", "nowhere"), 4, "no such webhook: nowhere"),
        (("remove", "nowhere"), 4, "no such webhook: nowhere"),
        (("deliveries", "nowhere"), 4, "no such webhook: nowhere"),
    ],
)
def test_a_webhook_command_that_is_wrong_says_so_and_ends_with_its_code(up: Platform, arguments, code, said):
    done = up.mainstay("webhook", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_secret_is_rotated_and_printed_alone(up: Platform):
    first = up.mainstay("webhook", "add", "https://8.8.8.8/", "--name", "public", "--events", "model.registered")
    new = up.mainstay("webhook", "rotate", "public")
    assert (first.returncode, new.returncode) == (0, 0), first.stderr + new.stderr
    assert len({first.stdout, new.stdout}) == 2
    assert new.stdout.startswith("whsec_")
    assert len(new.stdout.splitlines()) == 1
