"""Queues as Kueue writes them: what is read of them, and what is refused at which line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mainstay.clusters.kubernetes import devices
from mainstay.clusters.kubernetes.objects import Node
from mainstay.wire import kueue
from mainstay.wire.jobfile import JobFileError

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "04-share-with-queues" / "queues.yaml"
FLAVORS = """\
apiVersion: kueue.x-k8s.io/v1beta1
kind: ResourceFlavor
metadata: {name: plain}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: ResourceFlavor
metadata: {name: h100}
spec:
  nodeLabels: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}
---
"""
QUEUE = """\
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata:
  name: research
spec:
"""
BEGIN = FLAVORS.count("\n") + 1
"""The line in which the queue begins."""


def parsed(text: str) -> kueue.Import:
    return kueue.parse(text.encode(), source="queues.yaml")


def refused(text: str) -> list[str]:
    with pytest.raises(JobFileError) as error:
        parsed(text)
    return [fault.sentence("f") for fault in error.value.faults]


def test_a_queue_is_read_with_its_quotas_limits_weight_and_cohort() -> None:
    text = f"""{FLAVORS}{QUEUE}  cohort: ml
  namespaceSelector: {{}}
  queueingStrategy: BestEffortFIFO
  preemption:
    withinClusterQueue: LowerOrNewerEqualPriority
    reclaimWithinCohort: Any
    borrowWithinCohort: {{policy: LowerPriority, maxPriorityThreshold: 40}}
  fairSharing: {{weight: "2500m"}}
  resourceGroups:
    - coveredResources: [cpu, memory, pods]
      flavors:
        - name: plain
          resources:
            - {{name: cpu, nominalQuota: 500m}}
            - {{name: memory, nominalQuota: 36Gi, lendingLimit: 1Gi}}
            - {{name: pods, nominalQuota: 1k}}
    - coveredResources: [nvidia.com/gpu, nvidia.com/mig-1g.10gb]
      flavors:
        - name: h100
          resources:
            - {{name: nvidia.com/gpu, nominalQuota: 8, borrowingLimit: 4}}
            - {{name: nvidia.com/mig-1g.10gb, nominalQuota: "0"}}
"""
    (queue,) = parsed(text).queues
    assert (queue.name, queue.parent, queue.cohort, queue.weight) == ("research", "ml", False, 2.5)
    assert queue.preemption is not None
    assert queue.preemption.model_dump(exclude_defaults=True) == {
        "within_queue": "lower-or-newer-equal-priority",
        "reclaim": "any",
        "borrow": "lower-priority",
        "borrow_priority_max": 40,
    }
    assert [
        (one.resource, one.flavor, one.nominal, one.borrowing_limit, one.lending_limit) for one in queue.quotas or ()
    ] == [
        ("cpu", "default", "500m", None, None),
        ("memory", "default", f"{36 << 30}B", None, f"{1 << 30}B"),
        ("pods", "default", "1000", None, None),
        ("gpu", "H100", "8", "4", None),
        ("gpu", "1g.10gb", "0", None, None),
    ]


@pytest.mark.parametrize(
    ("version", "kind", "field"),
    [
        ("v1beta1", "ClusterQueue", "cohort"),
        ("v1beta2", "ClusterQueue", "cohortName"),
        ("v1beta1", "Cohort", "parentName"),
        ("v1beta2", "Cohort", "parentName"),
    ],
)
def test_both_versions_name_the_parent_in_their_own_way(version: str, kind: str, field: str) -> None:
    text = f"apiVersion: kueue.x-k8s.io/{version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{{field}: ml}}\n"
    (queue,) = parsed(text).queues
    assert (queue.parent, queue.cohort) == ("ml", kind == "Cohort")
    other = {"cohort": "cohortName", "cohortName": "cohort", "parentName": "parent"}[field]
    assert refused(text.replace(f"{field}:", f"{other}:"))[0].startswith(f"f:4:8: spec.{other}: not supported")


def test_priorities_and_local_queues_are_read() -> None:
    text = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: WorkloadPriorityClass
metadata: {name: paper}
value: 90
description: before conferences
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: user-queue, namespace: team-a}
spec: {clusterQueue: research}
"""
    found = parsed(text)
    assert found.priorities == (("paper", 90),)
    assert found.local_queues == (kueue.LocalQueue(namespace="team-a", name="user-queue", queue="research"),)


@pytest.mark.parametrize(
    ("spec", "line", "words"),
    [
        ("  queueingStrategy: LIFO\n", 5, "spec.queueingStrategy: not supported: it is BestEffortFIFO or StrictFIFO"),
        ("  stopPolicy: Hold\n", 5, "spec.stopPolicy: not supported"),
        ("  namespaceSelector: {matchLabels: {a: b}}\n", 5, "every tenant may submit to every queue"),
        ("  admissionChecks: [dws]\n", 5, "spec.admissionChecks: not supported"),
        ("  preemption:\n    reclaimWithinCohort: Some\n", 6, "'Some' is not one of Never, LowerPriority, Any"),
        (
            "  preemption:\n    borrowWithinCohort: {policy: LowerPriority, maxPriorityThreshold: 1000}\n",
            6,
            "1000 is not allowed: a priority here is 0 to 100",
        ),
        ("  preemption:\n    other: Any\n", 6, "spec.preemption.other: not supported"),
        ("  flavorFungibility:\n    whenCanBorrow: TryNextFlavor\n", 6, "not supported"),
        ("  admissionScope: {}\n", 5, "spec.admissionScope: not supported: what was used lately"),
        ("  cohort: ML\n", 5, "'ML' is not allowed here"),
        ("  fairSharing: {weight: -1}\n", 5, "'-1' is no weight"),
        ("  resourceGroups: 4\n", 5, "should be a list"),
        ("  resourceGroups: [4]\n", 5, "should be a map"),
        ("  resourceGroups:\n  - flavors:\n    - name: nope\n", 7, "the file has no ResourceFlavor 'nope'"),
    ],
)
def test_what_cannot_be_honoured_is_a_fault_at_its_line(spec: str, line: int, words: str) -> None:
    (first, *_) = refused(FLAVORS + QUEUE + spec)
    assert first.startswith(f"f:{BEGIN + line}:"), first
    assert words in first


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ("{name: example.com/tpu, nominalQuota: 1}", "not supported: example.com/tpu"),
        ("{name: cpu, nominalQuota: many}", "'many' is no amount of cpu"),
        ("{name: cpu, nominalQuota: -1}", "'-1' is no amount of cpu"),
        ("{name: cpu, nominalQuota: 9223372036854775808}", "is no amount of cpu"),
        ("{name: memory, nominalQuota: 9E}", "is no amount of memory"),
        ("{name: cpu}", "it says no nominalQuota"),
        ("{name: cpu, nominalQuota: 1, max: 2}", "max: not supported"),
    ],
)
def test_a_quota_that_is_none_is_a_fault(resource: str, words: str) -> None:
    group = f"  resourceGroups:\n  - flavors:\n    - name: plain\n      resources:\n      - {resource}\n"
    (first, *_) = refused(FLAVORS + QUEUE + group)
    assert first.startswith(f"f:{BEGIN + 9}:"), first
    assert words in first


def test_two_flavors_that_are_one_here_are_a_fault() -> None:
    group = "  resourceGroups:\n  - flavors:\n"
    for flavor in ("plain", "other"):
        group += f"    - name: {flavor}\n      resources:\n      - {{name: cpu, nominalQuota: 1}}\n"
    other = FLAVORS.split("---", maxsplit=1)[0].replace("plain", "other") + "---\n"
    (first,) = refused(other + FLAVORS + QUEUE + group)
    assert "cpu of default is there twice, for plain too" in first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apiVersion: kueue.x-k8s.io/v1alpha1\nkind: Cohort\nmetadata: {name: a}\n", "f:1:1: apiVersion: not kueue"),
        ("apiVersion: kueue.x-k8s.io/v1beta2\nkind: Topology\nmetadata: {name: a}\n", "f:2:1: kind: not supported"),
        ("apiVersion: kueue.x-k8s.io/v1beta2\nkind: Cohort\n", "it has no name"),
        ("apiVersion: kueue.x-k8s.io/v1beta2\nkind: Cohort\nmetadata: {name: a}\nspec: 4\n", "f:4:1: spec: should be"),
        ("apiVersion: kueue.x-k8s.io/v1beta2\nkind: Cohort\nmetadata: {name: a.b}\n", "'a.b' is not allowed here"),
        ("apiVersion: kueue.x-k8s.io/v1beta2\nkind: [\n", "not valid YAML"),
        ("- apiVersion: kueue.x-k8s.io/v1beta2\n", "no object"),
        (FLAVORS, "nothing to set"),
    ],
)
def test_what_is_no_queue_is_refused(text: str, words: str) -> None:
    assert words in refused(text)[0]


@pytest.mark.parametrize("value", ["101", "-1", "1000000", "many", ""])
def test_a_priority_that_is_none_here_is_refused_at_its_line(value: str) -> None:
    text = f"apiVersion: kueue.x-k8s.io/v1beta2\nkind: WorkloadPriorityClass\nmetadata: {{name: a}}\nvalue: '{value}'\n"
    assert refused(text)[0].startswith("f:4:1: value: ")


def flavor_of(name: str, labels: str, more: str = "") -> str:
    head = f"apiVersion: kueue.x-k8s.io/v1beta2\nkind: ResourceFlavor\nmetadata: {{name: {name}}}\n"
    return f"{head}spec:\n  nodeLabels: {labels}\n{more}---\n"


def queue_of(name: str, *flavors: str, resource: str = "cpu") -> str:
    text = QUEUE.replace("research", name) + "  resourceGroups:\n  - flavors:\n"
    for flavor in flavors:
        text += f"    - name: {flavor}\n      resources: [{{name: {resource}, nominalQuota: 1}}]\n"
    return f"{text}---\n"


POOLS = "".join(flavor_of(name, f"{{pool: {name}}}") for name in ("a", "b", "c"))


def test_a_flavor_by_any_labels_is_one_of_nodes() -> None:
    both = "{nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3, lifecycle: spot, zone: true}"
    found = parsed(flavor_of("spot-h100", both) + FLAVORS + queue_of("research", "spot-h100", "h100", "plain"))
    (flavor,) = found.flavors
    assert (flavor.name, flavor.node_labels) == (
        "spot-h100",
        ["nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3", "lifecycle=spot", "zone=true"],
    )
    assert [quota.flavor for quota in found.queues[0].quotas or ()] == ["spot-h100", "H100", "default"]


@pytest.mark.parametrize(
    ("queues", "order"),
    [
        ((), "abc"),
        ((("c", "a"),), "bca"),
        ((("c",), ("b", "c")), "abc"),
        ((("b", "a"), ("c", "b")), "cba"),
        ((("c", "b"), ("b", "a")), "cba"),
    ],
)
def test_flavors_of_nodes_come_in_the_order_in_which_queues_try_them(
    queues: tuple[tuple[str, ...]], order: str
) -> None:
    text = POOLS + "".join(queue_of(f"q{number}", *flavors) for number, flavors in enumerate(queues))
    assert "".join(flavor.name for flavor in parsed(text).flavors) == order


def test_an_order_that_is_not_one_for_all_queues_is_refused_at_its_line() -> None:
    queues = queue_of("q1", "a", "b") + queue_of("q2", "b", "c") + queue_of("q3", "c", "a")
    (only,) = refused(POOLS + queues)
    assert only.endswith("a comes before c in another queue: the order of flavors is one for all queues here")
    (only,) = refused(FLAVORS + POOLS + queue_of("q", "plain", "a"))
    assert "nodes of a are tried before others, so it stands before default here" in only


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (flavor_of("default", "{pool: a}"), "f:3:12: metadata.name: 'default' is not allowed here"),
        (flavor_of("a.b", "{pool: a}"), "'a.b' is not allowed here: lower-case letters"),
        (flavor_of("a", "{-pool: a}"), "f:5:3: spec.nodeLabels: '-pool=a': '-pool' is no name of a label"),
        (flavor_of("a", "[pool]"), "should be a map of labels"),
        (flavor_of("a", "{pool: a}", "  nodeTaints: [{key: a, effect: NoSchedule}]\n"), "nodeTaints: not supported"),
        (POOLS + queue_of("q", "a", resource="nvidia.com/mig-1g.10gb"), "slices have one quota"),
    ],
)
def test_a_flavor_that_cannot_be_honoured_is_a_fault_and_only_one(text: str, words: str) -> None:
    (only,) = refused(text + FLAVORS + queue_of("research", "plain"))
    assert words in only


def test_one_name_for_two_is_refused() -> None:
    cohort = "---\napiVersion: kueue.x-k8s.io/v1beta2\nkind: Cohort\nmetadata: {name: research}\n"
    assert "research is there twice" in refused(QUEUE + "  cohort: ml\n" + cohort)[0]


def test_a_strict_queue_has_the_order_strict() -> None:
    content = (QUEUE + "  queueingStrategy: StrictFIFO\n").encode()
    assert [one.order for one in kueue.parse(content, source="queues.yaml").queues] == ["strict"]


def test_every_fault_of_a_file_is_told_in_the_order_of_its_lines() -> None:
    found = refused(QUEUE + "  stopPolicy: Hold\n  queueingStrategy: LIFO\n  cohort: ML\n")
    assert [words.split(":")[1] for words in found] == ["6", "7", "8"]


def test_the_example_is_read() -> None:
    content = EXAMPLE.read_bytes()
    assert kueue.is_kueue(content)
    found = kueue.parse(content, source="queues.yaml")
    assert [(one.name, one.cohort) for one in found.queues] == [
        ("ml", True),
        ("research", False),
        ("production", False),
    ]
    assert found.priorities == (("paper-deadline", 90),)


def test_a_job_is_no_file_of_queues() -> None:
    assert not kueue.is_kueue(b"run: echo kueue.x-k8s.io/v1beta1\n")


@pytest.mark.parametrize(
    "label", ["NVIDIA-H100-80GB-HBM3", "nvidia-tesla-t4", "NVIDIA-A100-SXM4-40GB", "nvidia-l4", "a10g", "Some.Thing"]
)
def test_a_flavor_is_the_model_that_nodes_of_its_label_are_known_by(label: str) -> None:
    node = msgspec.convert({"metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": label}}}, Node)
    assert kueue.model_of(label) == devices.gpu_model(node)
    assert kueue.MODEL_LABELS == devices.MODEL_LABELS
