"""Which nodes a pod may use: by the tables of the Kubernetes documentation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mainstay.clusters.kubernetes.objects import Node, PodSpec
from mainstay.clusters.kubernetes.restrictions import admits, restriction


def node(*, taints: Any = (), **labels: str) -> Node:
    return msgspec.convert({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": list(taints)}}, Node)


def spec(**values: Any) -> PodSpec:
    return msgspec.convert(values, PodSpec)


def required(*terms: Any) -> dict[str, Any]:
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    return {"nodeAffinity": {key: {"nodeSelectorTerms": list(terms)}}}


def line(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def may_use(found: Node, **values: Any) -> bool:
    wanted = restriction(spec(**values))
    assert wanted is not None
    return admits(found, wanted)


GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({}, True),
        ({"nodeSelector": {"pool": "a"}}, True),
        ({"nodeSelector": {"pool": "a", "zone": "z"}}, False),
        ({"affinity": required(line("pool", "In", "a", "b"))}, True),
        ({"affinity": required(line("pool", "NotIn", "a"))}, False),
        ({"affinity": required(line("zone", "NotIn", "a"))}, True),
        ({"affinity": required(line("pool", "Exists"))}, True),
        ({"affinity": required(line("pool", "DoesNotExist"))}, False),
        ({"affinity": required(line("cores", "Gt", "7"))}, True),
        ({"affinity": required(line("cores", "Lt", "8"))}, False),
        ({"affinity": required(line("pool", "Gt", "7"))}, False),
        ({"affinity": required(line("zone", "Exists"), line("pool", "In", "a"))}, True),
        ({"affinity": required({})}, False),
        ({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}}}, True),
        (
            {"affinity": required({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})},
            True,
        ),
    ],
)
def test_selector_and_affinity(values, fits):
    assert may_use(node(pool="a", cores="8"), **values) is fits


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (None, False),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "no", "effect": "NoSchedule"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_taints_keep_off_whom_does_not_tolerate_them(toleration, fits):
    tolerations = [toleration] if toleration else []
    assert may_use(node(taints=[GPU]), tolerations=tolerations) is fits


def test_a_taint_that_only_prefers_keeps_nobody_off():
    assert may_use(node(taints=[{**GPU, "effect": "PreferNoSchedule"}]))


@pytest.mark.parametrize(
    "affinity",
    [
        required(line("pool", "Near", "a")),
        required({"matchSomething": []}),
        required({"matchExpressions": [{"operator": "In"}]}),
        required({"matchExpressions": [{"key": "pool", "operator": "In", "values": [1]}]}),
        required({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}),
        required("pool"),
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"terms": []}}},
    ],
)
def test_an_affinity_of_an_unknown_form_is_said_to_be_one(affinity):
    assert restriction(spec(affinity=affinity)) is None


def test_pods_that_may_use_the_same_nodes_share_a_restriction():
    first, again, other = (
        restriction(spec(nodeSelector=selector))
        for selector in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "1"})
    )
    assert first == again
    assert first is not None
    assert other is not None
    assert first.name != other.name
