"""The command line against a real platform, typed as its user types it."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainstay.cli.main import ALIASES
from tests.e2e import warm
from tests.e2e.platform import Platform, environment_of, mainstay, platform, until

pytestmark = pytest.mark.xdist_group("command-line")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("platform") / "state") as running:
        yield running


def submitted(up: Platform, *arguments: str) -> str:
    """The id of a run that nobody follows."""
    return str(up.json("run", *arguments)["id"])


def finished(up: Platform, ref: str) -> str:
    until(lambda: up.json("show", ref)["finished_at"])
    return str(up.json("show", ref)["phase"])


def test_a_run_prints_its_log_to_stdout_and_its_way_to_stderr(up):
    done = up.mainstay("run", "-y", "--name", "answer", "--", sys.executable, "-c", "print(6 * 7)")
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert "pending" in done.stderr
    assert "✓ succeeded in" in done.stderr
    assert "next: mainstay show answer-" in done.stderr


def test_a_run_that_fails_ends_with_1_and_says_why_and_what_next(up):
    done = up.mainstay("run", "-y", "--", "/bin/sh", "-c", "echo before; exit 3")
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "✗ failed" in done.stderr
    assert "exit code 3" in done.stderr
    assert "mainstay logs" in done.stderr


def test_a_run_whose_output_cannot_be_kept_has_failed_and_says_why(up):
    script = 'touch "$MAINSTAY_OUTPUT_DIR/$(printf "a\\nb")"; echo done'
    done = up.mainstay("run", "-y", "--name", "odd", "--", "/bin/sh", "-c", script)
    assert (done.returncode, done.stdout) == (1, "done\n")
    assert "its output could not be kept" in done.stderr
    assert "give it a plain name" in up.mainstay("show", "odd").stdout


def test_without_a_terminal_nothing_is_submitted_that_nobody_agreed_to(up):
    before = len(up.json("ps", "-a"))
    done = up.mainstay("run", "--", "true")
    assert done.returncode == 2
    assert "add -y" in done.stderr
    assert len(up.json("ps", "-a")) == before


def test_at_a_terminal_the_plan_is_shown_and_no_means_no(up):
    before = len(up.json("ps", "-a"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        warm.command("run", "--", "true"),
        env=up.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, b"n\n")
    _, said = process.communicate(timeout=20)
    os.close(ours)
    os.close(theirs)
    assert "WHERE" in said
    assert "nothing was submitted" in said
    assert process.returncode == 130
    assert len(up.json("ps", "-a")) == before


def test_options_reach_the_pod(up):
    up.environment["FROM_HERE"] = "yes"
    done = up.mainstay(
        *("run", "-y", "--env", "A=1=2", "--env", "FROM_HERE", "--cpus", "0.5", "--memory", "200MB", "--"),
        *("/bin/sh", "-c", "echo $A $FROM_HERE $MAINSTAY_NODE_RANK/$MAINSTAY_NUM_NODES"),
    )
    assert done.stdout == "1=2 yes 0/1\n"


def test_the_log_of_every_node_can_be_read(up):
    ref = submitted(
        up, "--nodes", "2", "--cpus", "0.2", "--memory", "100MB", "--", "/bin/sh", "-c", "echo n$MAINSTAY_NODE_RANK"
    )
    assert finished(up, ref) == "succeeded"
    assert [up.mainstay("logs", ref, "--node", node).stdout for node in "01"] == ["n0\n", "n1\n"]
    assert up.mainstay("logs", ref, "--node", "2").returncode == 4


def test_an_elastic_run_starts_with_as_many_nodes_as_there_is_room_for(up):
    """Far more than this machine has: it takes what there is, and each is told what it may expect."""
    script = "echo $MAINSTAY_NODE_RANK $MAINSTAY_NUM_NODES $MAINSTAY_NNODES"
    ref = submitted(up, "--nodes", "1:900", "--cpus", "0.2", "--memory", "100MB", "--", "/bin/sh", "-c", script)
    assert finished(up, ref) == "succeeded"
    run = up.json("show", ref)
    count = len([pod for pod in run["pods"] if pod["attempt"] == run["attempt"]])
    assert 1 <= count < 900
    assert (run["ranks"], run["nodes_min"], run["nodes_max"]) == (count, 1, 900)
    last = str(count - 1)
    assert up.mainstay("logs", ref, "--node", last).stdout == f"{last} {count} 1:900\n"
    assert f"{count} of 1 to 900 nodes" in up.mainstay("show", ref).stdout
    assert f"{count} of 1-900x " in up.mainstay("ps", "-a").stdout


def test_ctrl_c_detaches_and_the_run_goes_on_until_it_is_stopped(up):
    process = up.start("run", "-y", "--name", "long", "--", "/bin/sh", "-c", "echo started; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "detached; long goes on" in said
    (run,) = up.json("ps", "--name", "long")
    assert run["phase"] == "running"
    assert up.mainstay("stop", run["id"]).returncode == 0
    assert finished(up, run["id"]) == "stopped"


def test_a_followed_log_ends_with_its_run_and_loses_nothing(up):
    script = "for i in $(seq 1 300); do echo line $i; [ $((i % 100)) = 0 ] && sleep 0.1; done; true"
    ref = submitted(up, "--", "/bin/sh", "-c", script)
    done = up.mainstay("logs", "-f", ref)
    assert done.returncode == 0
    assert done.stdout == "".join(f"line {number}\n" for number in range(1, 301))


def test_a_job_file_runs_in_its_folder_s_files(up, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "hello.txt").write_text("from the folder\n")
    (tmp_path / "code" / "job.yaml").write_text("name: files\nworkdir: .\nrun: cat hello.txt\n")
    done = up.mainstay("apply", "-y", "-f", str(tmp_path / "code" / "job.yaml"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "from the folder\n")


def test_options_go_before_the_job_file(up, tmp_path):
    (tmp_path / "job.yaml").write_text("name: ours\nrun: echo hello\n")
    cluster = up.json("nodes")[0]["cluster"]
    asked = ("-f", "job.yaml", "--infra")
    refused = up.mainstay("plan", *asked, "nowhere", cwd=tmp_path)
    assert refused.returncode != 0
    assert "infra: there is no cluster 'nowhere'" in refused.stderr
    done = up.mainstay("apply", "-y", "-n", "theirs", *asked, cluster, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert up.json("show", "theirs")["infra"] == cluster


def test_a_job_comes_from_standard_input_too(up, tmp_path):
    done = up.mainstay("apply", "-y", "-f", "-", input="run: echo piped\n", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "piped\n")


def test_faults_of_a_job_file_are_told_at_their_lines_and_nothing_is_sent(up, tmp_path):
    (tmp_path / "job.yaml").write_text("run: echo\nresorces: {}\nnodes: 0\n")
    done = up.mainstay("apply", "-y", "-f", "job.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "job.yaml:2:1: resorces: there is no such field; did you mean `resources`?"
    assert done.stderr.splitlines()[1].startswith("job.yaml:3:1: nodes: ")


def test_a_folder_that_cannot_be_sent_is_told_and_nothing_is_submitted(up, tmp_path):
    (tmp_path / "job.yaml").write_text("name: nowhere\nrun: 'true'\nworkdir: code\n")
    done = up.mainstay("apply", "-y", "-f", "job.yaml", cwd=tmp_path)
    assert (done.returncode, f"not a folder: {tmp_path / 'code'}" in done.stderr) == (2, True)
    assert up.json("ps", "-a", "--name", "nowhere") == []


def test_a_plan_of_what_can_never_fit_says_what_would(up, tmp_path):
    (tmp_path / "job.yaml").write_text("run: echo\nresources: {cpu: 4000}\n")
    found = up.json("plan", "-f", str(tmp_path / "job.yaml"))
    assert found["would_start_if"][0]["change"] == "cpus"
    assert "would start now with cpus" in up.mainstay("plan", "-f", str(tmp_path / "job.yaml")).stdout


def test_what_waits_is_explained(up):
    up.mainstay("queue", "set", "shut", "--quota", "pods=1")
    first = submitted(up, "--queue", "shut", "--", "sleep", "60")
    ref = submitted(up, "--queue", "shut", "--name", "second", "--", "true")
    until(lambda: up.json("show", ref)["phase"] == "queued")
    assert "waits for the quota of queue shut" in up.mainstay("explain", ref).stdout
    logs = up.mainstay("logs", ref)
    assert (logs.returncode, logs.stdout) == (0, "")
    assert "has no log yet: it is queued" in logs.stderr
    up.mainstay("stop", ref)
    up.mainstay("stop", first)


def test_what_could_never_run_is_refused_with_the_nearest_that_could(up):
    done = up.mainstay("run", "-y", "--cpus", "500", "--", "true")
    assert done.returncode == 3
    assert "cannot run on this fleet: needs 500 CPUs" in done.stderr
    assert "the nearest that could run: cpus" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "nope"), 4, "no such workload: nope"),
        (("logs", "nope"), 4, "hint:"),
        (("rn", "--", "true"), 2, "Did you mean run?"),
        (("apply", "-f", "nope.yaml"), 2, "cannot read nope.yaml"),
        (("run", "-y", "--memory", "lots", "--", "true"), 2, "memory: "),
        (("run", "-y", "--env", "NOT_SET_ANYWHERE", "--", "true"), 2, "no such variable here"),
        (("run", "-y"), 2, "Missing argument"),
        (("deploy", "nope"), 4, "nope"),
        (("cost", "--since", "yesterday"), 3, "since"),
        (("login", "--server", "http://192.0.2.1", "--token-stdin"), 6, "http"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence_with_its_exit_code(up, arguments, code, said):
    done = up.mainstay(*arguments, input="token\n")
    assert said in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_single_fault_is_told_once(up):
    assert up.mainstay("cost", "--since", "yesterday").stderr.count("since") == 1


def test_the_examples_of_a_command_stand_on_lines_of_their_own(up):
    assert "\n  mainstay run -- python -c 'print(6 * 7)'\n" in up.mainstay("run", "--help").stdout


STEERING = "a\x9b31mb\x07c"
"""The one-byte beginning of an escape sequence, and the bell."""


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", STEERING),
        (STEERING,),
        ("run", "-y", "--memory", STEERING, "--", "true"),
        ("apply", "-y", "-f", "odd.yaml"),
        ("plan", "-f", f"{STEERING}.yaml"),
    ],
    ids=["reference", "command", "option", "job file", "name of a file"],
)
def test_nothing_that_is_told_steers_the_terminal(up, arguments, tmp_path):
    (tmp_path / "odd.yaml").write_text('run: "true"\n"a\\x9b31mb\\x07c": 1\n')
    done = up.mainstay(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert "31mb" in done.stderr
    assert not set(done.stderr) & {"\x9b", "\x07"}


def test_what_a_pod_says_of_itself_does_not_steer_the_terminal(up):
    done = up.mainstay("run", "-y", "-n", "odd-command", "--", f"/{STEERING}")
    shown = up.mainstay("show", "odd-command")
    assert (done.returncode, shown.returncode) == (1, 0)
    for text in (done.stdout, done.stderr, shown.stdout, shown.stderr):
        assert not set(text) & {"\x9b", "\x07"}
    assert "a\ufffd31mb\ufffdc" in shown.stdout


@pytest.mark.parametrize(("word", "ours"), sorted(ALIASES.items()))
def test_the_words_of_other_platforms_mean_the_same(up, word, ours):
    assert up.mainstay(word, "--help").stdout.split("\n")[1:] == up.mainstay(ours, "--help").stdout.split("\n")[1:]


def test_a_run_is_named_on_the_command_line(up, tmp_path):
    (tmp_path / "job.yaml").write_text("name: in-the-file\nrun: 'true'\n")
    assert up.json("run", "-n", "short", "--", "true")["name"] == "short"
    assert up.json("apply", "-f", str(tmp_path / "job.yaml"), "-n", "instead")["name"] == "instead"
    bad = up.mainstay("apply", "-y", "-f", str(tmp_path / "job.yaml"), "-n", "No")
    assert (bad.returncode, "name: " in bad.stderr) == (2, True)
    told = up.mainstay("launch", "-y", "job.yaml")
    assert (told.returncode, "mainstay apply -f job.yaml" in told.stderr) == (2, True)


def test_what_a_run_left_has_json_too(up, tmp_path):
    ref = submitted(up, "--", "/bin/sh", "-c", 'echo one; echo two > "$MAINSTAY_OUTPUT_DIR/file"')
    assert finished(up, ref) == "succeeded"
    pieces = [json.loads(line) for line in up.mainstay("logs", "--json", ref).stdout.splitlines()]
    assert "".join(piece["text"] for piece in pieces) == "one\n"
    assert {piece["attempt"] for piece in pieces} == {1}
    (path,) = up.json("download", ref, str(tmp_path))["files"]
    assert Path(path).read_text() == "two\n"


@pytest.mark.parametrize(
    "arguments", [("ps", "-a"), ("events",), ("nodes",), ("gpus",), ("endpoints",), ("models",), ("cost",)]
)
def test_every_list_has_a_table_and_json(up, arguments):
    assert up.mainstay(*arguments).returncode == 0
    up.json(*arguments)


def test_the_bill_adds_up_to_its_total(up):
    up.mainstay("run", "-y", "--", "sleep", "0.5")
    bill = up.json("cost")
    assert sum(round(float(line["total"]) * 1e6) for line in bill["lines"]) == round(float(bill["total"]) * 1e6)
    assert float(bill["total"]) > 0


def test_events_resume_and_follow(up):
    process = up.start("events", "-f", "--json", "-n", "1")
    ref = submitted(up, "--name", "seen", "--", "true")
    assert process.stdout is not None
    assert any(ref in line and "succeeded" in line for line in iter(process.stdout.readline, ""))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_watched_list_that_goes_elsewhere_than_a_terminal_is_printed_again_after_every_change(up, options):
    process = up.start("ps", "-a", "-w", *options)
    assert process.stdout is not None
    first = process.stdout.readline()
    ref = submitted(up, "--name", "watched", "--", "true")
    assert any(ref in line and "succeeded" in line for line in iter(process.stdout.readline, ""))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert first.startswith("[" if options else "ID ")


def test_the_head_of_a_long_list_is_no_error(up):
    process = up.start("events", "-n", "1000")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(10) == 0


def test_a_login_is_remembered_and_forgotten(up, tmp_path):
    token = (up.state / "token").read_text()
    environment = {**environment_of(tmp_path / "none"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    refused = mainstay("ps", environment=environment)
    assert (refused.returncode, "mainstay login" in refused.stderr) == (6, True)
    done = mainstay("login", "--server", up.url, "--token-stdin", environment=environment, input=token + "\n")
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    here = json.loads(mainstay("login", "--json", environment=environment).stdout)
    assert (here["url"], here["principal"]) == (up.url, "admin")
    link = json.loads(mainstay("login", "--page", "--json", environment=environment).stdout)
    assert link["url"].startswith(f"{up.url}/sign-in#")
    assert (tmp_path / "config" / "mainstay" / "config.json").stat().st_mode & 0o777 == 0o600
    assert mainstay("ps", environment=environment).returncode == 0
    assert json.loads(mainstay("logout", "--json", environment=environment).stdout) == {"forgotten": True}
    assert json.loads(mainstay("logout", "--json", environment=environment).stdout) == {"forgotten": False}
    assert mainstay("ps", environment=environment).returncode == 6


def test_a_wrong_token_is_not_remembered(up, tmp_path):
    environment = {**environment_of(tmp_path / "none"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = mainstay("login", "--server", up.url, "--token-stdin", environment=environment, input="wrong\n")
    assert done.returncode == 5
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(up, shell):
    assert "_MAINSTAY_COMPLETE" in up.mainstay("completion", shell).stdout


def test_completion_offers_the_commands(up):
    environment = {
        **up.environment,
        "_MAINSTAY_COMPLETE": "bash_complete",
        "COMP_WORDS": "mainstay de",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [Path(sys.executable).parent / "mainstay"], env=environment, capture_output=True, text=True, check=False
    )
    assert "plain,deploy" in done.stdout


def test_help_is_instant_because_it_loads_nothing(up):
    script = (
        "import sys\nfrom mainstay.__main__ import main\nsys.argv = ['mainstay', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'pydantic', 'httpx2', 'rich', 'yaml', 'numpy', 'sqlalchemy', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_platform_ends_in_order_and_pods_outlive_it(tmp_path):
    state = tmp_path / "state"
    with platform(state) as first:
        ref = submitted(first, "--name", "outlives", "--", "/bin/sh", "-c", "sleep 6; echo done")
        until(lambda: first.json("show", ref)["phase"] == "running")
        began = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(10) == 0
        assert time.monotonic() - began < 5
        assert not (state / "server.json").exists()
    with platform(state) as second:
        assert second.mainstay("logs", "-f", ref).stdout == "done\n"
        assert finished(second, ref) == "succeeded"
        assert second.json("show", ref)["attempt"] == 1


def test_a_cluster_joins_takes_work_is_drained_and_leaves_while_the_platform_runs(up):
    added = up.mainstay("cluster", "add", "sim", "--simulated", "3xcpu=4,memory=8GB,gpu=H100:8")
    assert added.returncode == 0, added.stderr
    assert "✓ cluster sim is in the fleet" in added.stderr
    until(lambda: "3 of 3" in up.mainstay("cluster", "ls").stdout)
    done = up.mainstay("run", "-y", "--gpus", "H100:8", "--infra", "sim", "--name", "far", "--", "true")
    assert done.returncode == 0, done.stderr
    assert "simulated: far-" in done.stdout
    up.mainstay("cluster", "drain", "sim")
    waits = submitted(up, "-d", "-y", "--infra", "sim", "--name", "waits", "--", "true")
    until(lambda: "waits for cluster sim: drained by admin" in up.mainstay("explain", waits).stdout)
    up.mainstay("stop", waits)
    until(lambda: up.mainstay("cluster", "remove", "sim").returncode == 0)
    assert "sim" not in up.mainstay("cluster", "list").stdout
    assert "sim-0001" not in up.mainstay("nodes").stdout


def test_the_replicas_of_the_example_lie_on_three_hosts_and_a_fourth_is_refused(up, tmp_path):
    file = Path(__file__).parents[2] / "examples" / "05-spread-replicas" / "job.yaml"
    assert up.mainstay("cluster", "add", "small", "--simulated", "3xcpu=4,memory=8GB").returncode == 0
    until(lambda: "3 of 3" in up.mainstay("cluster", "ls").stdout)
    (option,) = up.json("plan", "-f", str(file), "--infra", "small")["options"]
    assert option["starts"] == "now"
    made = up.json("apply", "-y", "-d", "-f", str(file), "--infra", "small")
    until(lambda: len({pod["node"] for pod in up.json("show", made["id"])["pods"]}) == 3)
    more = tmp_path / "job.yaml"
    more.write_text(file.read_text().replace("nodes: 3", "nodes: 4"))
    refused = up.mainstay("apply", "-y", "-d", "-f", str(more), "--infra", "small")
    assert refused.returncode == 3
    assert "there is room for 3 of 4: 3 hosts with room" in refused.stderr
    assert "spread at most 2 per host instead of at most 1 per host" in refused.stderr
    up.mainstay("stop", made["id"])
    until(lambda: up.mainstay("cluster", "remove", "small").returncode == 0)


def test_the_job_of_the_example_goes_where_its_labels_are_and_asks_for_none_that_nobody_has(up):
    file = Path(__file__).parents[2] / "examples" / "07-choose-nodes" / "job.yaml"
    said = (file.parent / "README.md").read_text().replace("\\\n", " ")
    (add,) = [line for line in said.splitlines() if line.startswith("$ mainstay cluster add")]
    assert up.mainstay(*shlex.split(add)[2:]).returncode == 0
    until(lambda: "5 of 5" in up.mainstay("cluster", "ls").stdout or "4 of 5" in up.mainstay("cluster", "ls").stdout)
    (option,) = up.json("plan", "-f", str(file), "--infra", "mixed")["options"]
    assert option["starts"] == "now"
    made = up.json("apply", "-y", "-d", "-f", str(file), "--infra", "mixed")
    assert made["node_labels"] == ["disk in (nvme, ssd)"]
    assert (made["tolerations"], made["spot"]) == (["dedicated=ml"], "never")
    until(lambda: [pod["node"] for pod in up.json("show", made["id"])["pods"]] == ["mixed-0004"])
    nodes = {one["name"]: one for one in up.json("nodes")}
    assert [name for name in sorted(nodes) if nodes[name]["spot"]] == ["mixed-0005"]
    assert nodes["mixed-0004"]["taints"] == ["dedicated=ml:NoSchedule"]
    assert json.loads(up.mainstay("node", "show", "mixed-0003", "--json").stdout)["labels"] == {"disk": "ssd"}
    refused = up.mainstay("run", "-y", "-d", "--infra", "mixed", "--node-label", "disk=tape", "--", "true")
    assert refused.returncode == 3
    assert "no node has disk=tape: disk is hdd, nvme, ssd" in refused.stderr
    (option,) = up.json("plan", "-f", str(file), "--infra", "local")["options"]
    assert option["starts"] == "never", "this machine has no such label"
    up.mainstay("stop", made["id"])
    until(lambda: up.mainstay("cluster", "remove", "mixed").returncode == 0)


def test_the_jobs_of_the_example_take_the_cheapest_that_is_free_with_enough_memory_and_at_last_a_part(up):
    file = Path(__file__).parents[2] / "examples" / "08-choose-gpus" / "job.yaml"
    said = (file.parent / "README.md").read_text().replace("\\\n", " ")
    (add,) = [line for line in said.splitlines() if line.startswith("$ mainstay cluster add")]
    assert up.mainstay(*shlex.split(add)[2:]).returncode == 0
    until(lambda: "5 of 5" in up.mainstay("cluster", "ls").stdout)
    gpus = {(one["model"], one["total"]): one for one in up.json("gpus") if one["cluster"] == "gpus"}
    assert gpus["H100", 1]["memory_bytes"] == 80 * 10**9 >> 20 << 20
    (option,) = up.json("plan", "-f", str(file), "--infra", "gpus")["options"]
    assert option["where"] == "gpus-0004"
    assert "4 x A10 (3.00 USD an hour), the least expected cost of 3" in option["reason"]["sentence"]
    refused = up.mainstay("run", "-y", "-d", "--infra", "gpus", "--gpus", "200GB", "--", "true")
    assert refused.returncode == 3
    assert "no GPU is known to have 200 GB: the largest are" in refused.stderr
    part = up.json("run", "-y", "-d", "--infra", "gpus", "--gpus", "0.5", "--", "true")
    until(lambda: [pod["node"] for pod in up.json("show", part["id"])["pods"]] == ["gpus-0005"])
    assert up.json("show", part["id"])["pods"][0]["resources"]["gpu_model"] == "T4.shared"
    up.mainstay("stop", part["id"])
    until(lambda: up.mainstay("cluster", "remove", "gpus").returncode == 0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "east", "--kubeconfig", "no-such-file"), 2, "no-such-file"),
        (("add", "east", "--simulated", "3x"), 2, "is no group of nodes"),
        (("add", "Not_A_Name", "--simulated", "1xcpu=1"), 2, "name:"),
        (("add", "east"), 3, "no way into the cluster"),
        (("show", "locla"), 4, "did you mean local?"),
        (("drain", "nowhere"), 4, "no such cluster: nowhere"),
    ],
)
def test_a_cluster_command_that_is_wrong_says_so_and_ends_with_its_code(up, arguments, code, said):
    done = up.mainstay("cluster", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_job_for_a_cluster_that_is_not_there_is_refused_with_the_nearest(up):
    done = up.mainstay("run", "-y", "--infra", "lokal", "--", "true")
    assert done.returncode == 3
    assert "infra: there is no cluster 'lokal'" in done.stderr
    assert "did you mean local?" in done.stderr


def test_clusters_are_there_again_after_a_restart_and_a_damaged_key_ends_the_start_with_a_sentence(tmp_path):
    state = tmp_path / "state"
    with platform(state) as first:
        first.mainstay("cluster", "add", "sim", "--simulated", "2xcpu=4,memory=8GB")
    with platform(state) as second:
        until(lambda: "2 of 2" in second.mainstay("cluster", "list").stdout)
    key = state / "secrets-key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.write_text("nonsense")
    done = mainstay("up", "--port", "0", "--state", str(state), environment=environment_of(state))
    assert done.returncode == 1
    assert "there is no key in" in done.stderr
    key.chmod(0o644)
    done = mainstay("up", "--port", "0", "--state", str(state), environment=environment_of(state))
    assert "chmod 600" in done.stderr
