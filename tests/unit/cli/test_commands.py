"""Commands against a platform behind a real socket: what they print, and what they ask before they act."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mainstay.api.app import create_api
from mainstay.cli.exits import Exit
from mainstay.domain.allocation import Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes, StopPod
from mainstay.domain.reason import Code
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.workload import Phase
from tests.e2e import warm
from tests.stores import SECOND, WHY
from tests.unit.api.conftest import PEOPLE, site_of
from tests.unit.web.site import LogCluster, Server, Site, services_of, size

pytestmark = pytest.mark.xdist_group("command-line")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with services_of(tmp_path, url=f"http://127.0.0.1:{port}") as given:
        services = replace(given, authenticate=PEOPLE.get, clusters={"local": LogCluster()})
        app = create_api(services)
        server = Server(port=port)
        server.start(app)
        monkeypatch.setenv("MAINSTAY_SERVER", services.url)
        monkeypatch.setenv("MAINSTAY_TOKEN", "admin-token")
        made = site_of(services, app)
        made.fleet()
        made.prices()
        yield made
        server.stop()


def mainstay(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: click remembers in its commands how they were called. Nobody sits there to be asked."""
    command = warm.command(*arguments)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


def test_gpus_that_are_unhealthy_get_a_column_only_where_there_are_any(site: Site) -> None:
    assert "UNHEALTHY" not in mainstay("gpus").stdout
    sick = NodeState(
        name="boreas", capacity=size(cpus=64, gib=512, gpus=7, gpu_model="H100"), ready=True, unhealthy=(("H100", 1),)
    )
    site.scene.applied(ObserveNodes(cluster="local", nodes=(sick,), reason=WHY))
    head, row, *_ = mainstay("gpus").stdout.splitlines()
    assert head.split() == ["MODEL", "CLUSTER", "MEMORY", "USED", "TOTAL", "UNHEALTHY", "PRICE"]
    assert row.split()[:7] == ["H100", "local", "80", "GiB", "0", "7", "1"]


def test_what_has_ended_runs_no_longer_also_before_the_conclusion_is_drawn(site: Site) -> None:
    work = site.at(100).scene.submit(name="short", choices=(size(cpus=1, gib=1),))
    site.place(work, "atlas")
    site.running(work)
    (pod,) = site.pods(work)
    site.ended(work)
    assert site.scene.workload(work.id).phase is Phase.RUNNING
    assert site.pods(work)[0].ended_at - pod.started_at < 10 * SECOND
    shown = mainstay("show", work.id).stdout
    ran = next(line.split()[1] for line in shown.splitlines() if line.startswith("ran "))
    assert float(ran.removesuffix("s")) < 10, shown


def test_of_several_runs_none_is_stopped_if_one_is_not_there(site: Site) -> None:
    works = [site.scene.submit(name=name) for name in ("one", "two")]
    refused = mainstay("stop", "one", "nobody", "two")
    assert "nobody" in refused.stderr
    assert not any(site.scene.workload(work.id).stop_requested for work in works)
    assert mainstay("stop", "one", "two").stdout.count("stop") == 2


def test_a_run_that_is_stopping_says_so_and_for_how_long(site: Site) -> None:
    work = site.scene.submit(name="train", choices=(size(cpus=1, gib=1),))
    site.place(work, "atlas")
    site.running(work)
    assert " running " in mainstay("ps").stdout
    site.scene.applied(site.scene.stop(work))
    assert " stopping " in mainstay("ps").stdout
    site.at(90).scene.applied(StopPod(allocation_key=site.pods(work)[0].key, reason=WHY))
    assert re.search(r" for \dm \d+s", mainstay("ps").stdout)
    shown = mainstay("show", work.id).stdout
    (line,) = (line for line in shown.splitlines() if line.startswith("stopping"))
    assert line.endswith(" ago")
    assert " stopping " in shown.splitlines()[-1]


def test_a_run_that_is_stopping_is_nowhere_said_to_run(site: Site) -> None:
    work = site.scene.submit(name="train", choices=(size(cpus=1, gib=1),))
    site.place(work, "atlas")
    site.running(work)
    site.scene.applied(site.scene.stop(work), StopPod(allocation_key=site.pods(work)[0].key, reason=WHY))
    assert mainstay("explain", work.id).stdout == f"{work.id}: stopping: was told to end\n"
    for command in (("ps",), ("show", work.id), ("stop", work.id)):
        said = mainstay(*command).stdout
        assert "stopping" in said
        assert not re.search(r"\brun(s|ning)\b", said.replace("\nruns ", "")), said


def test_lists_tell_the_first_clause_of_what_a_node_says_and_show_and_explain_all_of_it(site: Site) -> None:
    cause = f"failed to pull: {'resolve: ' * 40}not found"
    pulls, lonely = (site.scene.submit(name=name, choices=(size(cpus=1, gib=1),)) for name in ("pulls", "lonely"))
    for work in (pulls, lonely):
        site.place(work, "atlas")
    site.scene.applied(
        site.scene.see(
            site.pods(pulls)[0], Seen.PULLING, detail=f"image a:1 cannot be pulled: not found; in full: {cause}"
        ),
    )
    site.advance(site.scene.workload(pulls.id), Phase.PULLING, Code.POD_STARTING)
    site.running(lonely)
    helper = "the helper that keeps its output does not start"
    site.scene.applied(site.scene.see(site.pods(lonely)[0], Seen.RUNNING, detail=helper))
    listed = mainstay("ps").stdout
    assert "pods are starting: image a:1 cannot be pulled: not found\n" in listed
    assert f"runs: {helper}" in listed
    for work, words in ((pulls, cause), (lonely, helper)):
        assert words in mainstay("show", work.id).stdout
        assert words in mainstay("explain", work.id).stdout


def test_a_job_file_is_planned_and_submitted_with_another_count_of_nodes(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: wide\nrun: python train.py\nnodes: 2\nresources: {cpu: 1, memory: 1GB}\n")
    asked = [
        json.loads(mainstay("plan", "-f", str(file), "--json", *more).stdout)["options"][0]
        for more in ((), ("--nodes", "3"), ("--nodes", "1:4"))
    ]
    assert [(one["nodes_min"], one["nodes_max"]) for one in asked] == [(0, 0), (0, 0), (1, 4)]
    assert [one["nodes"] for one in asked[:2]] == [2, 3]
    assert json.loads(mainstay("apply", "-y", "--json", "-f", str(file), "--nodes", "3").stdout)["nodes"] == 3
    wrong = mainstay("plan", "-f", str(file), "--nodes", "many")
    assert wrong.returncode == Exit.USAGE
    assert "nodes" in wrong.stderr


def test_a_run_of_several_attempts_ran_without_what_it_waited_between_them(site: Site) -> None:
    work = site.at(3_600).scene.submit(name="flaky", choices=(size(cpus=1, gib=1),))
    site.place(work, "atlas")
    site.running(work)
    site.ended(work, exit_code=1)
    again = site.scene.advance(site.scene.workload(work.id), Phase.PENDING, attempt=2)
    site.at(1_800).scene.applied(again)
    row = next(line for line in mainstay("ps").stdout.splitlines() if work.id in line)
    assert "1h 0m" in row
    assert row.count("h ") == 1, row


def test_a_large_cluster_is_listed_in_figures_that_can_be_read(site: Site) -> None:
    many = tuple(NodeState(name=f"n-{number}", capacity=size(cpus=64, gib=512), ready=True) for number in range(20))
    site.scene.applied(ObserveNodes(cluster="big", nodes=many, reason=WHY))
    assert mainstay("cluster", "add", "big", "--simulated", "20xcpu=64,memory=512GiB").returncode == Exit.OK
    row = next(line for line in mainstay("cluster", "list").stdout.splitlines() if line.startswith("big "))
    assert "0 of 1,280" in row
    assert "0 of 10,240" in row


def test_the_log_of_an_earlier_attempt_is_asked_for_by_its_number(site: Site) -> None:
    work = site.scene.submit(name="flaky", choices=(size(cpus=1, gib=1),))
    for attempt in (1, 2):
        work = site.scene.workload(work.id)
        site.place(work, "atlas")
        site.running(work)
        site.cluster.logs[f"{work.id}-{attempt}-0"] = f"attempt {attempt}\n".encode()
        site.ended(work, exit_code=1)
        site.scene.applied(site.scene.advance(site.scene.workload(work.id), Phase.PENDING, attempt=attempt + 1))
    assert mainstay("logs", work.id).stdout == "attempt 2\n"
    assert mainstay("logs", "--attempt", "1", work.id).stdout == "attempt 1\n"
    assert "there is no attempt 4" in mainstay("logs", "--attempt", "4", work.id).stderr


def test_the_audit_says_who_changed_what_the_newest_last(site: Site) -> None:
    assert mainstay("node", "cordon", "atlas", "--reason", "fans").returncode == Exit.OK
    last = mainstay("audit", "-n", "1").stdout.splitlines()[-1].split()
    assert "cordon_node" in last
    assert "root" in last
    (row,) = json.loads(mainstay("audit", "-n", "1", "--json").stdout)
    assert (row["actor"], row["action"]) == ("root", "cordon_node")


def test_a_node_with_pods_is_drained_only_by_who_says_so(site: Site) -> None:
    work = site.scene.submit(name="train", choices=(size(cpus=1, gib=1),))
    site.place(work, "atlas")
    site.running(work)
    asked = mainstay("node", "drain", "atlas", "-d")
    assert asked.returncode == Exit.USAGE
    assert "1 pod on atlas will be ended" in asked.stderr
    assert "add -y" in asked.stderr
    assert site.services.store.closed_nodes("local") == {}
    assert mainstay("node", "drain", "atlas", "-d", "-y").returncode == Exit.OK
    assert list(site.services.store.closed_nodes("local")) == ["atlas"]


def test_a_node_without_pods_is_drained_without_a_question(site: Site) -> None:
    assert mainstay("node", "drain", "atlas", "-d").returncode == Exit.OK


def test_a_run_asks_for_one_rack(site: Site) -> None:
    racks = tuple(
        NodeState(name=f"n-{number}", capacity=size(cpus=2, gib=8), ready=True, topology=(("rack", f"r{number % 2}"),))
        for number in range(4)
    )
    site.scene.applied(ObserveNodes(cluster="local", nodes=racks, reason=WHY))
    run = "run", "-n", "train", "-y", "-d", "--nodes", "2", "--cpus", "2", "--topology"
    made = mainstay(*run, "required=rack", "--", "true")
    assert made.returncode == Exit.OK, made.stderr
    assert "placed on n-0, n-2" in made.stderr
    assert site.scene.all()[-1].spec.topology == TopologyNeed(level="rack", required=True)
    assert "topology   required rack" in mainstay("show", site.scene.all()[-1].id).stdout
    assert "known: rack, host" in mainstay(*run, "preferred=block", "--", "true").stderr
    assert "allowed: zone, block, rack, host" in mainstay(*run, "required=row", "--", "true").stderr
    assert "say required=LEVEL" in mainstay(*run, "rack", "--", "true").stderr


def test_a_run_asks_to_lie_apart(site: Site) -> None:
    nodes = tuple(NodeState(name=f"n-{number}", capacity=size(cpus=2, gib=8), ready=True) for number in range(2))
    site.scene.applied(ObserveNodes(cluster="local", nodes=nodes, reason=WHY))
    apart = "run", "-y", "-d", "--nodes", "2", "-n", "web", "--spread"
    assert "placed on n-0, n-1" in mainstay(*apart, "host=1", "--", "true").stderr
    assert "spread     at most 1 per host" in mainstay("show", "web").stdout
    assert mainstay(*apart, "host", "-n", "even", "--", "true").returncode == Exit.OK
    needs = {work.spec.name: work.spec.topology for work in site.scene.all()}
    assert needs["even"] == TopologyNeed(spread=Spread(level="host"))
    assert "allowed: zone, block, rack, host" in mainstay(*apart, "row=1", "--", "true").stderr
    assert "valid integer" in mainstay(*apart, "host=few", "--", "true").stderr


def test_labels_of_levels_are_named_when_a_cluster_is_added(site: Site) -> None:
    add = "cluster", "add", "sim", "--simulated", "1xcpu=4,memory=4GB", "--topology"
    assert mainstay(*add, "rack=acme.com/rack").returncode == Exit.OK
    assert "rack by acme.com/rack" in mainstay("cluster", "show", "sim").stdout
    assert mainstay(*add, "rack").returncode == Exit.USAGE
