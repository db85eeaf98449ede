"""Which nodes a need admits: by the tables of the Kubernetes documentation, and what is kept of a node."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.domain.affinity import (
    LABELS_CHARACTERS_MAX,
    LABELS_MAX,
    NO_TRAITS,
    NodeNeed,
    NodeTraits,
    Preference,
    Requirement,
    Spot,
    Taint,
    Toleration,
    Traits,
    admits,
    holds,
    liking,
    need,
    tolerates,
    traits,
)

ML = Taint(key="dedicated", value="ml", effect="NoSchedule")


def must(key: str, operator: str, *values: str) -> Requirement:
    return Requirement(key=key, operator=operator, values=values)


@pytest.mark.parametrize(
    ("line", "value", "fits"),
    [
        (must("disk", "In", "ssd", "nvme"), "ssd", True),
        (must("disk", "In", "ssd"), "hdd", False),
        (must("disk", "In", "ssd"), None, False),
        (must("disk", "In", ""), "", True),
        (must("disk", "NotIn", "hdd"), "ssd", True),
        (must("disk", "NotIn", "hdd"), "hdd", False),
        (must("disk", "NotIn", "hdd"), None, True),
        (must("disk", "Exists"), "", True),
        (must("disk", "Exists"), None, False),
        (must("disk", "DoesNotExist"), None, True),
        (must("disk", "DoesNotExist"), "", False),
        (must("cores", "Gt", "16"), "17", True),
        (must("cores", "Gt", "16"), "16", False),
        (must("cores", "Lt", "16"), "-3", True),
        (must("cores", "Lt", "16"), "16", False),
        (must("cores", "Gt", "16"), "many", False),
        (must("cores", "Gt", "16"), None, False),
        (must("cores", "Gt", "16", "17"), "18", False),
        (must("cores", "Lt", "9" * 30), "1", False),
        (must("cores", "Near", "16"), "16", False),
    ],
)
def test_a_label_is_as_kubernetes_would_have_it(line, value, fits):
    assert holds(line, value) is fits


@pytest.mark.parametrize(
    ("toleration", "taint", "borne"),
    [
        (Toleration(key="dedicated", operator="Equal", value="ml"), ML, True),
        (Toleration(key="dedicated", operator="", value="ml"), ML, True),
        (Toleration(key="dedicated", operator="Equal", value="web"), ML, False),
        (Toleration(key="dedicated"), ML, True),
        (Toleration(key="dedicated", effect="NoExecute"), ML, False),
        (Toleration(key="dedicated", effect="NoSchedule"), ML, True),
        (Toleration(key="other"), ML, False),
        (Toleration(key=""), ML, True),
        (Toleration(key="", operator="Equal"), Taint(key="", effect="NoSchedule"), False),
    ],
)
def test_a_taint_is_tolerated_as_kubernetes_would_have_it(toleration, taint, borne):
    assert tolerates(toleration, taint) is borne


@pytest.mark.parametrize(
    ("wanted", "spot", "fits"),
    [
        (Spot.AUTO, False, True),
        (Spot.AUTO, True, True),
        (Spot.NEVER, True, False),
        (Spot.NEVER, False, True),
        (Spot.ONLY, False, False),
        (Spot.ONLY, True, True),
    ],
)
def test_whether_spot_will_do_is_for_the_need_to_say(wanted, spot, fits):
    assert admits(Traits(spot=spot), NodeNeed(spot=wanted)) is fits


def test_all_labels_must_be_so_and_every_hard_taint_is_tolerated():
    found = traits({"disk": "ssd", "zone": "a"}, [ML, Taint(key="soft", effect="PreferNoSchedule")])
    both = NodeNeed(requirements=(must("disk", "In", "ssd"), must("zone", "In", "a")))
    tolerant = (Toleration(key="dedicated"),)
    assert not admits(found, both)
    assert admits(found, NodeNeed(requirements=both.requirements, tolerations=tolerant))
    assert not admits(found, NodeNeed(requirements=(must("disk", "In", "hdd"),), tolerations=tolerant))
    assert not admits(traits({}, [ML, Taint(key="x", effect="NoExecute")]), NodeNeed(tolerations=tolerant)), (
        "of two taints one is not tolerated"
    )


def test_preferences_that_hold_add_up():
    disk, zone = must("disk", "In", "ssd"), must("zone", "In", "a")
    wanted = NodeNeed(
        preferences=(
            Preference(requirements=(disk,), weight=10),
            Preference(requirements=(zone,), weight=3),
            Preference(requirements=(disk, zone), weight=100),
        )
    )
    said = ({"disk": "ssd"}, {"zone": "a"}, {"disk": "ssd", "zone": "a"}, {"disk": "hdd"})
    assert [liking(traits(labels, ()), wanted) for labels in said] == [10, 3, 113, 0]


def test_equal_needs_are_equal_and_one_that_asks_for_nothing_is_none():
    lines = must("b", "Exists"), must("a", "Exists")
    assert need(requirements=lines) == need(requirements=(*lines[::-1], lines[0]))
    assert need() is None
    assert need(preferences=[Preference(requirements=lines)]).required is None
    assert need(spot=Spot.NEVER).required == NodeNeed(spot=Spot.NEVER)


@pytest.mark.parametrize(
    "labels",
    [
        {"karpenter.sh/capacity-type": "spot"},
        {"eks.amazonaws.com/capacityType": "SPOT"},
        {"cloud.google.com/gke-spot": "true"},
        {"cloud.google.com/gke-provisioning": "spot"},
        {"kubernetes.azure.com/scalesetpriority": "spot"},
    ],
)
def test_the_labels_of_the_providers_say_what_is_spot_and_so_do_their_taints(labels):
    ((key, value),) = labels.items()
    by_label, by_taint = traits(labels, ()), traits({}, [Taint(key=key, value=value, effect="NoSchedule")])
    assert by_label.spot
    assert by_taint.spot
    assert by_taint.taints == (), "whoever allows spot tolerates what only says that it is"
    assert not traits({key: "on-demand"}, ()).spot


def test_no_label_tells_a_node_from_all_others():
    said = {"kubernetes.io/hostname": "n1", "machine": "n1", "disk": "ssd", "has space": "x", "x": "a b"}
    assert traits(said, (), node="n1").labels == (("disk", "ssd"),)
    assert traits({}, (), node="n1") == NO_TRAITS


def test_so_much_is_kept_of_a_node_and_no_more():
    many = {f"feature.node.kubernetes.io/cpu-{number:03}": "true" for number in range(300)} | {"z": "last"}
    kept = traits(many, ()).labels
    assert len(kept) == LABELS_MAX
    assert ("z", "last") in kept, "features of the hardware go first"
    long = traits({f"k{number:03}": "x" * 63 for number in range(120)}, ()).labels
    assert sum(len(key) + len(value) + 2 for key, value in long) <= LABELS_CHARACTERS_MAX


def test_a_column_has_what_each_node_would_say():
    each = (NO_TRAITS, traits({"disk": "ssd"}, ()), traits({"disk": "ssd"}, [ML]))
    number = np.array([2, 1, 0, 1])
    table = NodeTraits(number=number, each=each, barred=np.zeros(4, dtype=np.bool_))
    wanted = NodeNeed(
        requirements=(must("disk", "Exists"),),
        preferences=(Preference(requirements=(must("disk", "In", "ssd"),), weight=5),),
    )
    assert table.admitted(wanted).tolist() == [False, True, False, True]
    assert table.liked(wanted).tolist() == [5, 5, 0, 5]
    assert table.untainted().admitted(wanted).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (must("disk", "In", "ssd"), "disk=ssd"),
        (must("disk", "In", "a", "b"), "disk in (a, b)"),
        (must("disk", "NotIn", "a", "b"), "disk notin (a, b)"),
        (must("disk", "NotIn", "a"), "disk!=a"),
        (must("disk", "Exists"), "disk"),
        (must("disk", "DoesNotExist"), "!disk"),
        (must("cores", "Gt", "3"), "cores>3"),
        (must("cores", "Lt", "3"), "cores<3"),
    ],
)
def test_a_requirement_is_shown_as_it_is_written(line, words):
    assert line.words == words
