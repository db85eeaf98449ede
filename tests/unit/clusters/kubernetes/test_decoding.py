"""What a cluster says is read as far as it can be read: one lie hides nothing else, and nothing is taken for an empty answer."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes import decoding
from mainstay.clusters.kubernetes.api import Change
from mainstay.clusters.kubernetes.errors import ApiError, Expired, Garbled
from mainstay.clusters.kubernetes.kinds import NODES, PODS
from tests.unit.clusters.kubernetes.misbehaving import event, pod, pods


def names(body: Any) -> list[str]:
    page, _ = decoding.page(PODS, json.dumps(body).encode())
    return [item.metadata.name for item in page.items]


def test_the_fields_in_use_are_read() -> None:
    body = {
        "metadata": {"name": "gpu-0", "uid": "u", "labels": {"a": "b"}},
        "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}], "providerID": "aws:///i-1"},
        "status": {
            "allocatable": {"cpu": "-3", "nvidia.com/gpu": 8},
            "nodeInfo": {"bootID": "b", "kubeletVersion": "v1"},
        },
    }
    node = decoding.one(NODES.type, json.dumps(body).encode())
    assert (node.metadata.name, node.spec.provider_id, node.spec.taints[0].effect) == (
        "gpu-0",
        "aws:///i-1",
        "NoSchedule",
    )
    assert (node.status.allocatable["cpu"], node.status.node_info.boot_id) == ("-3", "b")


def test_a_page_carries_its_version_and_the_token_of_the_next() -> None:
    page, following = decoding.page(PODS, json.dumps(pods(pod("x"), version="7", following="more")).encode())
    assert (page.resource_version, following, len(page.items)) == ("7", "more", 1)


def test_null_is_absent() -> None:
    odd = pod("odd", labels=None, finalizers=None) | {"spec": {"containers": None, "nodeName": "n"}, "status": None}
    assert names(pods(pod("before"), odd, pod("after"))) == ["before", "odd", "after"]
    assert names(pods() | {"items": None}) == []


@pytest.mark.parametrize(
    "lie",
    [
        pod("lie") | {"spec": 7},
        pod("lie") | {"status": {"containerStatuses": [{"restartCount": "many"}]}},
        pod("lie") | {"spec": {"containers": "none"}},
        pod("lie", labels=["a"]),
    ],
)
def test_an_object_that_lies_hides_no_other_and_is_named(lie: Any) -> None:
    page, _ = decoding.page(PODS, json.dumps(pods(pod("before"), lie, pod("after"))).encode())
    assert [item.metadata.name for item in page.items] == ["before", "after"]
    assert [(odd.namespace, odd.name, odd.uid) for odd in page.unreadable] == [("a", "lie", "lie")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>log in</html>",
        b'{"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [',
        b'{"kind": "PodList", "metadata": {"resourceVersion": "1"}}',
        b'{"kind": "PodList", "metadata": {}, "items": []}',
        b'{"kind": "NodeList", "metadata": {"resourceVersion": "1"}, "items": []}',
        b'{"kind": "Status", "metadata": {}, "status": "Success"}',
        b"[" * 100_000,
        b"null",
    ],
)
def test_what_is_not_the_list_is_never_taken_for_an_empty_one(body: bytes) -> None:
    with pytest.raises(Garbled):
        decoding.page(PODS, body)


def test_huge_fields_that_nobody_asked_for_are_skipped() -> None:
    assert names(pods(pod("x") | {"status": {"images": ["i" * 1_000_000]}})) == ["x"]


def test_events_are_read_with_their_version() -> None:
    found = decoding.event(PODS, event("MODIFIED", pod("x", version="9")))
    assert (found.change, found.object.metadata.name, found.resource_version) == (Change.MODIFIED, "x", "9")


def test_a_bookmark_with_nulls_is_a_bookmark() -> None:
    body = {"metadata": {"resourceVersion": "12", "creationTimestamp": None}, "spec": {"containers": None}}
    found = decoding.event(PODS, event("BOOKMARK", body))
    assert (found.change, found.resource_version) == (Change.BOOKMARK, "12")


def test_an_error_event_is_raised_as_what_it_says() -> None:
    status = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}
    with pytest.raises(Expired, match="too old"):
        decoding.event(PODS, event("ERROR", status))


def test_an_event_about_a_liar_still_moves_the_version() -> None:
    found = decoding.event(PODS, event("ADDED", pod("lie", version="9") | {"spec": 7}))
    assert (found.change, found.object.metadata.name, found.resource_version) == (Change.UNREADABLE, "lie", "9")


@pytest.mark.parametrize(
    "line", [b'{"type": "ADD', b'{"type": "RENAMED", "object": {}}', b'{"type": "ERROR", "object": 7}', b"\xff"]
)
def test_half_a_line_and_unknown_words_are_garbled(line: bytes) -> None:
    with pytest.raises(Garbled):
        decoding.event(PODS, line)


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                _words := [
                    "metadata",
                    "name",
                    "uid",
                    "labels",
                    "spec",
                    "status",
                    "containers",
                    "resources",
                    "requests",
                    "phase",
                    "conditions",
                    "state",
                    "waiting",
                    "kind",
                    "items",
                    "type",
                    "object",
                    "code",
                    "details",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(json_trees)
def test_no_object_breaks_a_page(tree: Any) -> None:
    page, _ = decoding.page(PODS, json.dumps(pods(pod("before"), tree, pod("after"))).encode())
    assert len(page.items) + len(page.unreadable) + (tree is None) >= 3
    assert (page.items[0].metadata.name, page.items[-1].metadata.name) == ("before", "after")


@given(json_trees)
def test_no_answer_breaks_its_reader_but_as_an_api_error(tree: Any) -> None:
    whole = json.dumps(tree).encode()
    for line in (
        whole,
        event("ADDED", tree),
        event("ERROR", tree),
        json.dumps({"type": tree, "object": tree}).encode(),
    ):
        with contextlib.suppress(ApiError):
            decoding.event(PODS, line)
    for page in (tree, {"kind": tree, "metadata": tree, "items": [tree]}, pods() | {"metadata": tree}):
        with contextlib.suppress(ApiError):
            decoding.page(PODS, json.dumps(page).encode())
