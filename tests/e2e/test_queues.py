"""Queues and the turn of runs, typed as an administrator and a user type them, on a platform of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.platform import Platform, platform, until

pytestmark = pytest.mark.xdist_group("command-line")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "04-share-with-queues"
SETS = EXAMPLE.parent / "06-pod-sets"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("platform") / "state") as running:
        yield running


def done(up: Platform, *arguments: str, code: int = 0) -> str:
    found = up.mainstay(*arguments)
    assert found.returncode == code, found.stdout + found.stderr
    return found.stdout + found.stderr


def test_the_example_is_shown_set_and_run_and_the_same_once_more_changes_nothing(up: Platform) -> None:
    queues, job = str(EXAMPLE / "queues.yaml"), str(EXAMPLE / "job.yaml")
    shown = up.json("plan", "-f", queues)["changes"]
    assert [(one["name"], one["change"]) for one in shown] == [
        ("ml", "new"),
        ("research", "new"),
        ("production", "new"),
        ("paper-deadline", "new"),
    ]
    assert "✓ 4 set" in done(up, "apply", "-y", "-f", queues)
    assert "the work of research is done" in done(up, "apply", "-y", "-f", job)
    run = up.json("show", "count")
    assert (run["queue"], run["priority"], run["phase"]) == ("research", 90, "succeeded")
    assert "nothing to change" in done(up, "apply", "-f", queues)
    assert {one["change"] for one in up.json("plan", "-f", queues)["changes"]} == {"same"}
    assert "lends at most" in done(up, "queue", "show", "production").lower()


def test_the_example_of_pod_sets_runs_each_rank_as_its_set_says(up: Platform) -> None:
    file = str(SETS / "job.yaml")
    (option,) = up.json("plan", "-f", file)["options"]
    assert [(one["name"], one["nodes"], one["resources"]["cpu"]) for one in option["sets"]] == [
        ("head", 1, 0.1),
        ("worker", 2, 0.3),
    ]
    said = done(up, "apply", "-y", "-f", file)
    assert "head 1x 0.1 CPUs, 100 MB + worker 2x 0.3 CPUs, 200 MB" in said
    assert "pi is about 3.1" in said
    run = up.json("show", "pi")
    assert (run["phase"], run["nodes"], [one["name"] for one in run["sets"]]) == ("succeeded", 3, ["head", "worker"])
    assert [up.mainstay("logs", "pi", "--node", rank).stdout for rank in "12"] == [
        "worker 0 of 2: rank 1\n",
        "worker 1 of 2: rank 2\n",
    ]
    shown = [line.split() for line in done(up, "show", "pi").splitlines() if line.startswith(run["id"])]
    assert [line[2] for line in shown] == ["head", "worker", "worker"]


def test_what_no_queue_may_ever_use_is_refused_at_the_line_of_the_set(up: Platform, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("run: echo\nsets:\n  - name: head\n  - name: worker\n    nodes: 2\n    resources: {cpu: 9000}\n")
    said = done(up, "apply", "-y", "-f", str(file), code=3)
    assert f"{file}:6:5: sets.1.resources: cannot run on this fleet: needs 2 x worker (9000 CPUs" in said


def test_a_fault_of_a_file_is_told_at_its_line_and_nothing_is_set(up: Platform, tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    text = "apiVersion: kueue.x-k8s.io/v1beta2\nkind: ClusterQueue\nmetadata: {name: %s}\nspec:\n  %s\n"
    file.write_text(text % ("strict", "queueingStrategy: LIFO"))
    assert f"{file}:5:3: spec.queueingStrategy: not supported" in done(up, "apply", "-y", "-f", str(file), code=2)
    file.write_text(text % ("first", "cohortName: team") + "---\n" + text % ("second", "cohortName: first"))
    assert f"{file}:7:1: second is below first, which is a queue" in done(up, "apply", "-y", "-f", str(file), code=3)
    assert {"strict", "first", "second"}.isdisjoint(
        one["name"] for one in json.loads(done(up, "queue", "list", "--json"))
    )


def test_a_queue_is_set_and_changed_from_the_command_line(up: Platform) -> None:
    done(up, "queue", "set", "teams", "--cohort")
    words = ("--parent", "teams", "--weight", "2", "--quota", "gpu=h100:8,cpu=64", "--quota", "memory=1TB")
    said = done(up, "queue", "set", "vision", *words, "--borrow", "gpu=H100:4", "--lend", "cpu=0")
    assert "warning: no node has H100 now" in said
    found = json.loads(done(up, "queue", "show", "vision", "--json"))
    assert {one["resource"]: (one["flavor"], one["nominal"]) for one in found["quotas"]} == {
        "cpu": ("default", 64),
        "memory": ("default", 1e12),
        "gpu": ("H100", 8),
    }
    done(up, "queue", "set", "vision", "--weight", "3", "--reserved-after", "1h30m")
    assert "a start for what has waited 1h 30m" in done(up, "queue", "show", "vision")
    table = done(up, "queue", "list")
    assert "  vision" in table
    assert "gpu H100 0 of 8" in table
    done(up, "queue", "set", "vision", "--quota", "none", "--parent", "none")
    assert json.loads(done(up, "queue", "show", "vision", "--json"))["quotas"] == []
    done(up, "queue", "remove", "vision")
    assert "no such queue: vision" in done(up, "queue", "show", "vision", code=4)


def test_nodes_are_named_by_their_labels_and_queues_have_quotas_of_them(up: Platform, tmp_path: Path) -> None:
    assert "there are none" in done(up, "flavor", "list")
    assert "no node that takes work is of it now" in done(up, "flavor", "set", "ssd", "--label", "disk=ssd")
    done(up, "flavor", "set", "licence", "--label", "licence in (a, b)", "--label", "!retiring", "--before", "ssd")
    assert [line.split()[0] for line in done(up, "flavor", "list").splitlines()] == ["FLAVOR", "licence", "ssd"]
    assert [one["node_labels"] for one in json.loads(done(up, "flavor", "list", "--json"))] == [
        ["licence in (a, b)", "!retiring"],
        ["disk=ssd"],
    ]
    done(up, "queue", "set", "design", "--quota", "cpu=licence:8,cpu=ssd:16,cpu=2")
    shown = json.loads(done(up, "queue", "show", "design", "--json"))["quotas"]
    assert {one["flavor"]: one["nominal"] for one in shown} == {"licence": 8, "ssd": 16, "default": 2}
    assert "these have a quota of it: design" in done(up, "flavor", "remove", "ssd", code=3)
    done(up, "queue", "remove", "design")
    assert done(up, "flavor", "remove", "ssd").strip() == "flavor ssd is removed"
    assert "no such flavor of nodes: ssd" in done(up, "flavor", "remove", "ssd", code=4)
    assert "is no name of a label" in done(up, "flavor", "set", "ssd", "--label", "=ssd", code=2)
    file = tmp_path / "kueue.yaml"
    file.write_text(KUEUE)
    assert [(one["kind"], one["name"], one["change"]) for one in up.json("plan", "-f", str(file))["changes"]] == [
        ("ResourceFlavor", "arm", "new"),
        ("ResourceFlavor", "licence", "changed"),
        ("ClusterQueue", "chips", "new"),
    ]
    done(up, "apply", "-y", "-f", str(file))
    assert [(one["name"], one["node_labels"]) for one in json.loads(done(up, "flavor", "list", "--json"))] == [
        ("arm", ["arch=arm64"]),
        ("licence", ["licence=a"]),
    ]
    assert "nothing to change" in done(up, "apply", "-f", str(file))
    done(up, "queue", "remove", "chips")


KUEUE = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: licence}
spec: {nodeLabels: {licence: a}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: arm}
spec: {nodeLabels: {arch: arm64}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: chips}
spec:
  resourceGroups:
    - coveredResources: [cpu]
      flavors:
        - {name: arm, resources: [{name: cpu, nominalQuota: 4}]}
        - {name: licence, resources: [{name: cpu, nominalQuota: 2}]}
"""


def test_whether_what_was_used_lately_counts_is_said_and_shown_on_the_command_line(up: Platform) -> None:
    assert done(up, "queue", "history").startswith("off: only what queues hold now counts")
    said = done(up, "queue", "history", "--half-life", "7d", "--entry", "5m")
    assert [line.split() for line in said.splitlines()[:3]] == [
        ["half-life", "7d", "0h"],
        ["weight", "1"],
        ["entry", "5m", "0s"],
    ]
    assert "by what everybody asks for" in done(up, "queue", "show", "default")
    assert "say the half-life too" in done(up, "queue", "history", "--weight", "2", code=2)
    assert "--off goes alone" in done(up, "queue", "history", "--off", "--half-life", "1h", code=2)
    assert "'soon' is not a duration" in done(up, "queue", "history", "--half-life", "soon", code=3)
    assert "off: only" in done(up, "queue", "history", "--off")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quota", "gpu"), "say what, and how much of it"),
        (("--quota", "gpu=H100"), "'H100' is not a number of GPUs"),
        (("--quota", "tpu=4"), "there is no resource 'tpu'"),
        (("--quota", "cpu=many"), "is not a number of cores"),
        (("--quota", "cpu=1,cpu=2"), "cpu is there twice"),
        (("--borrow", "cpu=1"), "of which no --quota is given"),
    ],
)
def test_a_quota_that_cannot_be_read_is_refused_with_an_example(
    up: Platform, words: tuple[str, ...], said: str
) -> None:
    assert said in done(up, "queue", "set", "vision", *words, code=2)


def test_a_run_is_held_reprioritized_and_released(up: Platform) -> None:
    done(up, "queue", "set", "single", "--quota", "pods=1")
    first = up.json("run", "--queue", "single", "--", sys.executable, "-c", "import time; time.sleep(600)")["id"]
    blocker = up.json("run", "--queue", "single", "-n", "wait", "--", sys.executable, "-c", "print(1)")["id"]
    until(lambda: up.json("show", blocker)["phase"] == "queued")
    assert f"{blocker} is held" in done(up, "hold", blocker)
    assert "held by" in done(up, "explain", blocker)
    assert "has priority 75" in done(up, "reprioritize", blocker, "high")
    assert "priority 75, held" in done(up, "show", blocker)
    assert "released by" in done(up, "release", blocker)
    done(up, "stop", blocker)
    done(up, "stop", first)
    assert "there is no class 'hgih'" in done(up, "reprioritize", blocker, "hgih", code=3)


def test_urgent_work_takes_the_place_of_other_work_which_runs_again_after_it(up: Platform) -> None:
    """One pod at a time: the urgent one is placed as soon as the other has ended, and that one then starts anew."""
    done(up, "queue", "set", "narrow", "--quota", "pods=1", "--preempt", "within-queue=lower-priority,min-runtime=0s")
    assert "within-queue=lower-priority" in done(up, "queue", "show", "narrow")
    long = ("--", sys.executable, "-c", "import time; time.sleep(600)")
    low = up.json("run", "--queue", "narrow", "--priority", "10", "-n", "low", *long)["id"]
    until(lambda: up.json("show", low)["phase"] == "running")
    high = up.json("run", "--queue", "narrow", "--priority", "90", "-n", "high", "--", "true")["id"]
    until(lambda: up.json("show", high)["phase"] == "succeeded")
    until(lambda: up.json("show", low)["phase"] == "running" and up.json("show", low)["attempt"] == 2)
    events = up.json("events", "--kind", "preemption")
    assert [(one["object"], one["reason"]["code"]) for one in events] == [(low, "Preempted"), (high, "Preempts")]
    assert f"preempted for {high}: more urgent or older work of its queue" in events[0]["reason"]["sentence"]
    done(up, "stop", low)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("within=lower-priority", "there are within-queue, reclaim"),
        ("reclaim=all", "it is never, lower-priority or any"),
        ("min-runtime=soon", "it is a time such as 10m"),
        ("reclaim=any,reclaim=never", "reclaim is there twice"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_with_what_there_is(up: Platform, words: str, said: str) -> None:
    assert said in done(up, "queue", "set", "vision", "--preempt", words, code=2)


def test_a_priority_is_named_and_forgotten(up: Platform) -> None:
    done(up, "priority", "set", "soon", "60", "--no-preemptible")
    assert {"name": "soon", "priority": 60, "preemptible": False} in json.loads(done(up, "priority", "list", "--json"))
    run = up.json("run", "--priority", "soon", "--", "true")
    assert (run["priority"], run["preemptible"]) == (60, False)
    done(up, "priority", "remove", "soon")
    assert "no such priority class: soon" in done(up, "priority", "remove", "soon", code=4)


def test_a_job_of_a_queue_that_is_not_there_is_refused_at_its_line(up: Platform, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("run: 'true'\nqueue: defualt\n")
    said = done(up, "apply", "-y", "-f", str(tmp_path / "job.yaml"), code=3)
    assert "job.yaml:2:1: queue: there is no queue 'defualt'" in said
    assert "the queues are: default" in said
