"""What a job says of the labels, the taints and the capacity of its nodes."""

from __future__ import annotations

import pytest

from mainstay.api.convert_jobs import job_request
from mainstay.domain.affinity import NodeNeed, Preference, Requirement, Spot, Toleration
from mainstay.wire.job import Job
from mainstay.wire.jobfile import JobFileError, parse
from mainstay.wire.node_labels import label_line, toleration


def needed(text: str) -> NodeNeed | None:
    return job_request(parse(f"run: echo\n{text}\n".encode(), source="job.yaml", name="x")).spec.need


def faults(text: str) -> str:
    with pytest.raises(JobFileError) as raised:
        parse(f"run: echo\n{text}\n".encode(), source="job.yaml", name="x")
    return str(raised.value)


def label(key: str, operator: str, *values: str) -> Requirement:
    return Requirement(key=key, operator=operator, values=values)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("disk=ssd", ("disk", "In", ("ssd",))),
        ("disk == ssd", ("disk", "In", ("ssd",))),
        ("disk=", ("disk", "In", ("",))),
        ("disk!=hdd", ("disk", "NotIn", ("hdd",))),
        ("zone in (b, a,a)", ("zone", "In", ("a", "b"))),
        ("zone notin (a)", ("zone", "NotIn", ("a",))),
        ("nvidia.com/gpu.memory > 40000", ("nvidia.com/gpu.memory", "Gt", ("40000",))),
        ("cores<16", ("cores", "Lt", ("16",))),
        ("disk", ("disk", "Exists", ())),
        ("!disk", ("disk", "DoesNotExist", ())),
        ("a-in", ("a-in", "Exists", ())),
        ("inner", ("inner", "Exists", ())),
        ("example.com/in in (x)", ("example.com/in", "In", ("x",))),
    ],
)
def test_a_line_is_read_as_kubectl_reads_it(line, meant):
    assert label_line(line) == meant


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no name of a label"),
        ("disk ssd", "no name of a label"),
        ("zone in a", "stand in brackets"),
        ("zone in", "stand in brackets"),
        ("cores>many", "no whole number"),
        ("disk=a b", "no value of a label"),
        ("disk=" + "x" * 64, "no value of a label"),
        ("UPPER.example/x/y", "no name of a label"),
        ("disk=>3", "no value of a label"),
        ("a=(b)", "no value of a label"),
        ("zone in (" + ",".join(f"v{number}" for number in range(101)) + ")", "101 values, at most 100"),
    ],
)
def test_a_line_that_is_none_says_what_may_be_written(line, why):
    with pytest.raises(ValueError, match=why):
        label_line(line)


def test_a_toleration_is_written_as_kubectl_taint_writes_it():
    assert toleration("dedicated=ml:NoSchedule") == ("dedicated", "Equal", "ml", "NoSchedule")
    assert toleration("dedicated=") == ("dedicated", "Equal", "", "")
    assert toleration("dedicated:NoExecute") == ("dedicated", "Exists", "", "NoExecute")
    assert toleration("dedicated") == ("dedicated", "Exists", "", "")
    for text in ("", "=ml", "dedicated=ml:Sometimes", "dedicated=a b", "dedicated:"):
        with pytest.raises(ValueError, match="is no taint"):
            toleration(text)


@pytest.mark.parametrize(
    "text",
    [
        "node_labels: {disk: ssd, zone: [b, a]}",
        "node_selector: {disk: ssd, zone: [b, a]}",
        "node_labels: [disk=ssd, 'zone in (a, b)']",
        "node_labels:\n- disk = ssd\n- zone in (b,a)",
    ],
)
def test_a_map_and_lines_say_the_same(text):
    assert needed(text) == NodeNeed(requirements=(label("disk", "In", "ssd"), label("zone", "In", "a", "b")))


def test_numbers_and_flags_are_values_as_they_are_written():
    assert needed("node_labels: {gpu: true, generation: 3}") == NodeNeed(
        requirements=(label("generation", "In", "3"), label("gpu", "In", "true"))
    )
    by_json = Job.model_validate({"run": "x", "node_labels": {"gpu": True, "generation": 3}})
    assert by_json.node_labels == ["gpu=true", "generation=3"]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("node_preferences: {disk: nvme}", [1]),
        ("node_preferences: disk=nvme", [1]),
        ("node_preferences: [disk=nvme]", [1]),
        ("node_preferences: [{labels: {disk: nvme}, weight: 10}]", [10]),
        ("node_preferences: [{labels: disk=nvme}, {labels: [disk=nvme], weight: 7}]", [1, 7]),
    ],
)
def test_preferences_have_a_short_form_and_weights(text, weights):
    nvme = (label("disk", "In", "nvme"),)
    assert needed(text) == NodeNeed(preferences=tuple(Preference(requirements=nvme, weight=one) for one in weights))


def test_tolerations_and_spot_are_part_of_the_need():
    assert needed("tolerations: [dedicated=ml]\nresources: {spot: only}") == NodeNeed(
        tolerations=(Toleration(key="dedicated", operator="Equal", value="ml"),), spot=Spot.ONLY
    )
    assert needed("resources: {spot: auto}") is None


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("node_labels: {disk: a b}", "2:1: node_labels.0", "no value of a label"),
        ("node_labels:\n- disk=ssd\n- zone in a", "4:3: node_labels.1", "stand in brackets"),
        ("node_labels: {UP/x/y: z}", "2:1: node_labels.0", "no name of a label"),
        ("node_preferences: [{labels: disk=ssd, weight: 0}]", "node_preferences.0.weight", "1 to 100"),
        ("node_preferences: [{labels: []}]", "node_preferences.0.labels", "at least 1"),
        ("node_preferences: [{labels: disk, wieght: 2}]", "node_preferences.0.wieght", "did you mean `weight`"),
        ("tolerations: ['dedicated=ml:Never']", "2:15: tolerations.0", "is no taint"),
        ("tolerations: dedicated", "2:1: tolerations", "should be a list"),
        ("node_lables: {disk: ssd}", "2:1: node_lables", "did you mean `node_labels`"),
        ("resources: {spot: often}", "resources.spot", "allowed: never, auto, only"),
    ],
)
def test_a_fault_is_told_at_its_line(text, place, said):
    told = faults(text)
    assert place in told
    assert said in told


def test_spot_is_of_all_pod_sets():
    sets = "sets: [{name: a, resources: {gpu: 1}}, {name: b}]"
    assert needed(f"{sets}\nresources: {{spot: never}}") == NodeNeed(spot=Spot.NEVER)
    assert "each pod set has its own" in faults(f"{sets}\nresources: {{spot: never, gpu: 1}}")
    assert "`spot` is of the whole job" in faults("sets: [{name: a, resources: {spot: only}}, {name: b}]")


def test_what_a_job_says_is_the_same_once_it_was_read_and_written_again():
    said = "node_labels: {zone: [a, b]}\nnode_preferences: {disk: nvme}\ntolerations: [dedicated]"
    job = parse(f"run: echo\n{said}\n".encode(), source="job.yaml", name="x")
    assert Job.model_validate(job.model_dump()) == job
    assert Job.model_validate_json(job.model_dump_json()) == job
