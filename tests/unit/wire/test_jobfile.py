"""A job file: a few lines run, and every fault is named at its place, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mainstay.wire.job import NOT_YET, VALUES_NOT_YET, Job, Nodes
from mainstay.wire.jobfile import SIZE_MAX, Fault, JobFileError, name_of, parse, place_of, read


def job(text: str, name: str = "folder") -> Job:
    return parse(text.encode(), source="job.yaml", name=name)


def faults(text: str | bytes) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(JobFileError) as caught:
        parse(content, source="job.yaml")
    return str(caught.value).splitlines()


def test_one_line_is_a_job_named_after_its_folder(tmp_path):
    folder = tmp_path / "Fraud Model (v2)"
    folder.mkdir()
    (folder / "job.yaml").write_text("run: python train.py\n")
    found = read(folder / "job.yaml")
    assert (found.name, found.run, found.nodes) == ("fraud-model-v2", "python train.py", Nodes(min=1, max=1))


def test_the_sample_of_a_peer_s_user_is_read_with_its_aliases():
    found = job(
        "name: bert\nnum_nodes: 2\nenvs: {LR: 0.10}\nresources: {accelerators: 'H100:8', cpus: 4+}\n"
        "commands:\n  - pip install -r requirements.txt\n  - torchrun train.py\npriority: high\nmax_duration: 12h\n"
    )
    assert (found.nodes.max, found.priority, found.env) == (2, 75, {"LR": "0.10"})
    assert (found.resources.gpu, found.resources.cpu) == ("H100:8", "4+")
    assert found.run == "pip install -r requirements.txt\ntorchrun train.py"


@pytest.mark.parametrize(
    "word", ["NO", "no", "off", "on", "Yes", "1.10", "12:30", "017", "0x1F", "1e3", "1_000", "2026-11-24"]
)
def test_a_plain_word_keeps_the_text_it_was_written_with(word):
    assert job(f"run: echo\nenv:\n  WORD: {word}\n").env == {"WORD": word}


def test_a_field_whose_lines_are_all_commented_out_is_as_if_it_were_not_there():
    assert job("run: echo\nenv:\n#  A: b\nmax_duration:\nresources: ~\n") == job("run: echo\n")


def test_all_faults_are_told_at_once_in_the_order_of_the_lines():
    assert faults("run: echo\nresorces: {gpu: 1}\nnodes: zero\nresources:\n  memory: lots\ntype: jobb\n") == [
        "job.yaml:2:1: resorces: there is no such field; did you mean `resources`?",
        "job.yaml:3:1: nodes: input should be a valid integer, unable to parse string as an integer; allowed: 1 to 1000, MIN:MAX",
        next(
            line for line in faults("run: echo\n\n\nresources:\n  memory: lots\n") if ":5:3: resources.memory" in line
        ),
        "job.yaml:6:1: type: input should be 'job' or 'service'; did you mean `job`?",
    ]


@pytest.mark.parametrize(
    ("given", "bounds", "written"),
    [
        ("4", (4, 4, 4), 4),
        ("2:8", (2, 8, 8), {"min": 2, "max": 8, "desired": 0}),
        ("'2:8'", (2, 8, 8), {"min": 2, "max": 8, "desired": 0}),
        ("3:3", (3, 3, 3), 3),
        ("{min: 2, max: 8, desired: 4}", (2, 4, 8), {"min": 2, "max": 8, "desired": 4}),
    ],
)
def test_nodes_are_a_number_or_bounds(given, bounds, written):
    job = parse(f"run: echo\nnodes: {given}\n".encode(), source="x")
    assert (job.nodes.min, job.nodes.count, job.nodes.max) == bounds
    assert job.model_dump(mode="json")["nodes"] == written
    assert Job.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nodes: 0", "; allowed: 1 to 1000, MIN:MAX"),
        ("num_nodes: 1001", "; allowed: 1 to 1000, MIN:MAX"),
        ("nodes: 8:2", "nodes: `min` 8, `desired` 2 and `max` 2 are not in this order"),
        ("nodes: {min: 2}", "nodes.max: field required"),
        ("nodes: {min: 2, max: 2000}", "nodes.max: input should be less than or equal to 1000; allowed: 1 to 1000"),
        ("nodes: {min: 2, max: 3, most: 3}", "nodes.most: there is no such field"),
        ("retry: {user: -1}", "; allowed: 0 to 100"),
        ("priority: 101", "; allowed: 0 to 100, low, normal, high, urgent"),
        ("priority: Urgent", "; did you mean `urgent`?"),
        ("cpus: 4", "; did you mean `resources.cpu`?"),
        ("accelerators: H100", "; did you mean `resources.gpu`?"),
        ("spot: auto", "; did you mean `resources.spot`?"),
        ("name: A b", "at most 40 lower-case letters, digits and dashes"),
    ],
)
def test_a_fault_says_what_may_stand_there_or_where_it_belongs(line, told):
    (said,) = faults(f"run: echo\n{line}\n")
    assert said.startswith("job.yaml:2:")
    assert told in said


SETS = """
run: python actor.py
sets:
  - name: learner
    resources: {gpu: "H100:8", cpu: 4..8}
    run: python learner.py
  - {name: actor, nodes: 8, resources: {cpu: 2}}
"""


def test_a_job_may_have_pod_sets_each_with_its_own_nodes_resources_and_command():
    job = parse(SETS.encode(), source="x")
    learner, actor = job.sets
    assert (learner.name, learner.nodes, learner.resources.gpu) == ("learner", 1, "H100:8")
    assert (actor.name, actor.nodes, actor.resources.cpu, actor.arguments) == ("actor", 8, "2", ())
    assert learner.arguments == ("/bin/sh", "-c", "python learner.py")
    assert job.arguments == ("/bin/sh", "-c", "python actor.py")
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_where_each_set_has_its_own_command_the_job_needs_none():
    job = parse(b"sets: [{name: a, run: one}, {name: b, command: [two]}]", source="x")
    assert [one.arguments for one in job.sets] == [("/bin/sh", "-c", "one"), ("two",)]
    assert job.arguments == ("/bin/sh", "-c", "one")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("run: x\nsets:\n- name: a", "job.yaml:2:1: sets: one pod set is a job with `nodes` and `resources`"),
        ("run: x\nsets:\n- name: a\n- name: a", "job.yaml:2:1: sets: two pod sets are named a"),
        ("run: x\nsets:\n- name: a\n- name: b\n  nodes: 0", "job.yaml:5:3: sets.1.nodes: "),
        (
            "run: x\nsets:\n- name: a\n- name: b\n  nodes: 2:8",
            "job.yaml:5:3: sets.1.nodes: a pod set has exactly so many",
        ),
        ("run: x\nsets:\n- name: a\n- name: b\n  cpus: 2", "job.yaml:5:3: sets.1.cpus: there is no such field"),
        (
            "run: x\nsets:\n- name: a\n- name: b\n  resources: {any_of: [{cpu: 2}]}",
            "job.yaml:5:3: sets.1.resources: a pod set asks for one amount",
        ),
        ("run: x\nsets:\n- name: a\n- name: b\n  resources: {cpu: lots}", "job.yaml:5:15: sets.1.resources.cpu: "),
        ("run: x\nnodes: 2\nsets:\n- name: a\n- name: b", "job.yaml:3:1: sets: each pod set has its own `nodes`"),
        ("run: x\nnodes: 2:4\nsets:\n- name: a\n- name: b", "job.yaml:3:1: sets: an elastic job has no pod sets"),
        (
            "run: x\nsets:\n- name: a\n- name: b\nresources: {cpu: 2}",
            "job.yaml:5:1: resources: each pod set has its own `resources`",
        ),
        (
            "run: x\nsets:\n- name: a\n- name: b\nspread: host",
            "job.yaml:5:1: spread: a job with pod sets cannot be spread",
        ),
        ("type: service\nrun: x\nsets:\n- name: a\n- name: b", "job.yaml:3:1: sets: a service has no pod sets"),
        ("run: x\nsets:\n- {name: a, nodes: 600}\n- {name: b, nodes: 600}", "job.yaml:2:1: sets: 1200 nodes in all"),
        ("sets:\n- {name: a, run: x}\n- name: b", "or one of them for each of the `sets`"),
        ("run: x\nsets:\n- {name: a, run: x, command: y}\n- name: b", "job.yaml:3:3: sets.0: give either `run`"),
        (
            "run: x\nsets:\n- name: a\n- name: b\nvolumes: [{name: v, path: /v, size: 1GB}]",
            "job.yaml:5:1: volumes: volume v: 2 nodes need `access: ReadWriteMany`",
        ),
    ],
)
def test_pod_sets_that_make_no_job_are_refused_at_their_line(lines, told):
    (said,) = faults(f"{lines}\n")
    assert told in said


def test_the_line_of_a_set_is_found_again_by_its_field(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(SETS)
    assert place_of(file, "sets.1.resources") == (7, 29)
    assert place_of(file, "sets.0.resources") == (5, 5)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("run: !!python/object/apply:os.system [id]", "job.yaml:1:6: run: tags are not read"),
        ("run: !env HOME", "job.yaml:1:6: run: tags are not read"),
        ("command: [echo, !!binary aGk=]", "job.yaml:1:17: command.1: tags are not read"),
        ('run: "a\\0b"', "job.yaml:1:6: run: a NUL character"),
    ],
)
def test_what_is_no_plain_value_is_refused_at_its_place(line, told):
    (said,) = faults(f"{line}\n")
    assert said.startswith(told)


def test_a_fault_of_an_alias_is_told_where_the_alias_stands():
    (line,) = faults("run: echo\nresources:\n  accelerators: many of them\n")
    assert line.startswith("job.yaml:3:3: resources.")


def test_a_fault_within_a_list_is_told_at_its_item():
    (line,) = faults("run: echo\nresources:\n  any_of:\n    - {gpu: 1}\n    - {gpu: 1, cpuz: 2}\n")
    assert line == "job.yaml:5:16: resources.any_of.1.cpuz: there is no such field; did you mean `cpu`?"


def test_a_field_given_twice_names_both_places_also_under_another_name():
    assert faults("run: a\nnodes: 1\nrun: b\n") == ["job.yaml:3:1: run: given twice, first in line 1"]
    (line,) = faults("run: a\nnodes: 1\nnum_nodes: 2\n")
    assert line == "job.yaml:3:1: num_nodes: given twice: `num_nodes` is another name of `nodes`"


@pytest.mark.parametrize(("field", "value"), sorted(VALUES_NOT_YET))
def test_a_value_that_is_not_supported_yet_says_what_to_do_instead(field, value):
    line = f"{field}: {value}" if field in Job.model_fields else f"resources: {{{field}: {value}}}"
    (told,) = faults(f"run: echo\n{line}\n")
    assert told.endswith(f"{field}: not supported yet: {VALUES_NOT_YET[field, value]}")


@pytest.mark.parametrize("value", ["[]", "{}", "1", "sometimes"])
def test_a_value_of_a_choice_that_is_none_is_told_with_those_that_are(value):
    (told,) = faults(f"run: echo\nresources: {{spot: {value}}}\n")
    assert "never" in told
    assert "auto" in told


@pytest.mark.parametrize("field", sorted(NOT_YET))
def test_a_field_that_is_not_supported_yet_says_what_to_do_instead(field):
    assert faults(f"run: echo\n{field}: x\n") == [f"job.yaml:2:1: {field}: not supported yet: {NOT_YET[field]}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no job"),
        ("# nothing\n", "no job"),
        ("- run: echo\n", "no job"),
        ("just a sentence\n", "no job"),
        ("{}", "give either `run`"),
        ("run: a\ncommand: [b]\n", "give either `run`"),
        ("run: [", "1:7: not valid YAML"),
        ("run: a\n---\nrun: b\n", "3:1: a second document"),
        ("a: &a {run: x}\n<<: *a\n", "merge keys"),
        ("? [a, b]\n: c\n", "plain text"),
        ("run: a\nx: &x\n  y: *x\n", "nested deeper"),
        ("[" * 3_000, "nested deeper"),
        ("run: \x07\n", "special characters"),
        (b"run: \xff\n", "not UTF-8"),
        ("x" * (SIZE_MAX + 1), "at most"),
    ],
)
def test_what_is_no_job_is_told_in_a_sentence(text, said):
    assert any(said in line for line in faults(text))


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "too many values" in faults("\n".join(lines))[0]


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    assert parse(b"\xef\xbb\xbfrun: echo\r\nnodes: 2\r\n", source="x").nodes.count == 2


@given(st.text(max_size=60))
def test_any_folder_gives_a_valid_name(folder):
    Job(run="echo", name=name_of(Path("/") / folder.replace("\0", "")))


@given(st.binary(max_size=200) | st.text("abrun: {}[]&*!|>-\n\t'\"#,?~", max_size=80).map(str.encode))
def test_any_bytes_are_a_job_or_named_faults(content):
    assert all(fault.line >= 1 and fault.column >= 1 and fault.message for fault in found_in(content))


def found_in(content: bytes) -> tuple[Fault, ...]:
    try:
        parse(content, source="x")
    except JobFileError as error:
        return error.faults or (Fault(line=0, column=0, field="", message=""),)
    return ()


@pytest.mark.parametrize("text", ["0s", "0", "0h"])
def test_no_time_at_all_is_not_no_limit(text: str):
    with pytest.raises(ValidationError, match="leave it out for no limit"):
        Job(run="true", max_duration=text)


def test_secrets_are_asked_for_by_name_in_any_of_the_usual_ways():
    listed = job("run: echo\nsecrets:\n  - hf-token\n  - {name: wandb, env: WANDB_API_KEY}\n")
    mapped = job("run: echo\nsecrets: {WANDB_API_KEY: wandb}\n")
    inside = job("run: echo\nenv: ['A=1', 'WANDB_API_KEY=${{ secrets.wandb }}']\nsecrets: [hf-token]\n")
    assert [(use.name, use.env) for use in listed.secrets] == [("hf-token", ""), ("wandb", "WANDB_API_KEY")]
    assert [(use.name, use.env) for use in mapped.secrets] == [("wandb", "WANDB_API_KEY")]
    assert (inside.env, inside.secrets) == ({"A": "1"}, listed.secrets)


def test_volumes_are_claims_with_a_name_and_scratch_without_one():
    found = job(
        "run: echo\nvolumes:\n  - ckpt:/ckpt\n  - {path: scratch, size: 50GB}\n"
        "  - {claim: sets, path: /data/, read_only: true}\n  - {name: new, path: new, size: 1Ti, storage_class: fast}\n"
    ).volumes
    assert [(volume.name, volume.path, volume.size, volume.read_only) for volume in found] == [
        ("ckpt", "/ckpt", "", False),
        ("", "scratch", "50GB", False),
        ("sets", "/data", "", True),
        ("new", "new", "1Ti", False),
    ]


@pytest.mark.parametrize(
    ("field", "place"),
    [("secrets", (3, 1)), ("env", (2, 1)), ("env.A", (2, 1)), ("resources.gpu", None), ("", None), ("t-1", None)],
)
def test_a_field_that_the_platform_refuses_is_found_again(tmp_path: Path, field: str, place: tuple[int, int] | None):
    (tmp_path / "job.yaml").write_text("run: echo\nenvs: {A: x}\nsecrets: [a]\n")
    assert place_of(tmp_path / "job.yaml", field) == place
    assert place_of(tmp_path / "gone.yaml", field) is None


def test_a_folder_in_files_is_the_workdir_as_peers_mean_it():
    assert job("run: echo\nfiles: src\n").workdir == "src"
    assert job("run: echo\nfiles:\n  conf/a.yaml: |\n    lr: 0.1\n").files == {"conf/a.yaml": "lr: 0.1\n"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("secrets: [.hidden]", "2:11: secrets.0.name"),
        ("secrets:\n  - name: a\n    env: 1A", "4:5: secrets.0.env: not a variable: letters, digits and underscores"),
        ("secrets: [../a]", "2:11: secrets.0.name: the name of a secret has letters, digits"),
        ("secrets: a", "2:1: secrets: should be a list: `secrets: [...]`"),
        ("secrets: [{name: a, env: MAINSTAY_SECRETS_DIR}]", "MAINSTAY_SECRETS_DIR is the platform's own; choose"),
        ("env: {MAINSTAY_RANK: '${{ secrets.a }}'}", "2:1: env: 'MAINSTAY_RANK' cannot be the variable of a secret"),
        ("env: {1A: '${{ secrets.a }}'}", "2:1: env: '1A' cannot be the variable of a secret: letters, digits"),
        ("secrets: [{name: a, evn: A}]", "secrets.0.evn: there is no such field; did you mean `env`?"),
        ("env: {A: x}\nsecrets: [{name: a, env: A}]", "3:1: secrets: the variable A is given twice"),
        ("secrets: [{name: a, env: A}, {name: b, env: A}]", "the variable A is given twice"),
        ("env: {URL: 'https://u:${{ secrets.a }}@h'}", "env: in the variable URL a secret does not stand alone"),
        ("files: {../a: x}", "files: '../a' is not a path beside the code"),
        ("files: {/etc/passwd: x}", "is not a path beside the code"),
        ("files: {'a//b': x}", "is not a path beside the code"),
        (
            "files: {a: " + "x" * 262_145 + "}",
            "files: 262,145 bytes in all, at most 262,144; put larger ones into `workdir`",
        ),
        ("volumes: [{path: /}]", "2:12: volumes.0.path: '/' is not a path"),
        ("volumes: [{path: ../a}]", "volumes.0.path: '../a' is not a path"),
        ("volumes: [{path: /etc/ssl}]", "belongs to the system"),
        ("volumes: [{path: /a, size: lots}]", "volumes.0.size: 'lots' is not a size such as 50GB"),
        ("volumes: [{path: /a, name: Data}]", "volumes.0.name: a name has at most 253 lower-case letters"),
        ("volumes: [{path: a, source: ftp://b}]", "volumes.0.source: not an address such as s3://bucket/prefix"),
        ("volumes: [{path: a, name: a, access: RWX}]", "allowed: ReadWriteOnce, ReadOnlyMany"),
        ("volumes: [{path: a}, {path: a/}]", "2:1: volumes: two have the path a; give each a path of its own"),
        ("files: {a/b: x}\nvolumes: [{path: a}]", "3:1: volumes: the volume a would hide a/b of `files`; choose"),
        ("files: {a: x}\nvolumes: [{path: a/b}]", "3:1: volumes: the volume a/b would hide a of `files`"),
        ("files: {a: x, a-b: x, a/b: y}", "2:1: files: a is a file, and a/b needs a folder of that name; rename"),
        (
            "devices: [Mig]",
            "2:11: devices.0: a ResourceClaimTemplate by its name, or devices of a DeviceClass as CLASS:COUNT",
        ),
        ("volumes: [{path: /a, read_only: true}]", "`read_only` is for claims"),
        ("volumes: [{path: /a, access: ReadWriteMany}]", "`access` is for claims"),
        ("volumes: [{path: /a, storage_class: fast}]", "`storage_class` is for what is made; give a `size`"),
        ("volumes: [{path: /a, name: a, acces: x}]", "did you mean `access`?"),
        ("volumes: ['a:/a', 'b:/a/b']", "2:1: volumes: two lie in each other: /a and /a/b"),
        (
            "nodes: 2\nvolumes: [{path: /a, name: a, size: 1GB}]",
            "3:1: volumes: volume a: 2 nodes need `access: ReadWriteMany`",
        ),
    ],
)
def test_a_fault_of_secrets_files_and_volumes_is_told_at_its_place(text: str, told: str):
    (fault,) = faults(f"run: echo\n{text}\n")
    assert told in fault
