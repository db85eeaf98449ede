"""Claims and volumes as an API server shows them: whose they are, which nodes reach them, and in which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.guests import landlord
from mainstay.clusters.kubernetes.objects import Namespace, PersistentVolume, VolumeClaim
from mainstay.clusters.kubernetes.picture import Picture
from mainstay.clusters.kubernetes.storage import SILENT_SECONDS_MAX
from mainstay.domain.allocation import Owner
from mainstay.domain.volume import REACH_PREFIX, VolumeState
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.objects import SYSTEM, T0, node

OWNER = Owner(tenant="physics", project="vision")
HOME = names.namespace(OWNER, system=SYSTEM)


class Watched:
    """A picture whose informers are told of objects."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.picture = Picture(self, self.clock, system=SYSTEM)  # type: ignore[arg-type]  # nothing is asked but the time
        labels = {names.TENANT: OWNER.tenant, names.PROJECT: OWNER.project}
        self.namespace(HOME, labels)
        self.storage = self.picture.storage
        for one in (self.storage._claims, self.storage._volumes):
            one.synced.set()
            one.last_contact = self.clock.monotonic()
        for name, zone in (("n1", "a"), ("n2", "b"), ("n3", "b")):
            labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
            self.picture._nodes._put(node(name, allocatable={"cpu": "4", "memory": "4Gi"}, labels=labels))

    def list_pages(self) -> None: ...

    watch = list_pages

    def server_time(self) -> int:
        return T0

    def namespace(self, name: str, labels: dict[str, str]) -> None:
        shown = msgspec.convert({"metadata": {"name": name, "labels": labels}}, Namespace)
        assert landlord(shown) is not None
        self.picture._namespaces._put(shown)

    def claim(self, name: str, *, namespace: str = HOME, volume: str = "", **meta: Any) -> None:
        shown = {
            "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", **meta},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": "fast",
                "volumeName": volume,
            },
            "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}} if volume else {"phase": "Pending"},
        }
        self.storage._claims._put(msgspec.convert(shown, VolumeClaim))

    def volume(self, name: str, *terms: dict[str, Any]) -> None:
        affinity = {"required": {"nodeSelectorTerms": list(terms)}} if terms else {}
        shown = {"metadata": {"name": name}, "spec": {"nodeAffinity": affinity}}
        self.storage._volumes._put(msgspec.convert(shown, PersistentVolume))

    def states(self) -> dict[str, VolumeState]:
        found = self.picture.volumes()
        assert found is not None
        return {state.name: state for state in found}

    def reaching(self, name: str) -> list[str]:
        reach = self.states()[name].reach
        return [state.name for state in self.picture.nodes() if reach in state.admits]


def within(key: str, *values: str, operator: str = "In") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def test_a_claim_is_what_its_volume_is_and_belongs_to_the_project_of_its_namespace() -> None:
    shown = Watched()
    shown.claim("data", volume="pv-1")
    shown.volume("pv-1")
    shown.claim("wanted")
    shown.claim("others", namespace="kube-system", volume="pv-1")
    # Somebody writes our labels on a namespace of his own.
    shown.namespace("mine", {names.TENANT: OWNER.tenant, names.PROJECT: OWNER.project})
    shown.claim("forged", namespace="mine", volume="pv-1")
    states = shown.states()
    assert list(states) == ["data", "wanted"]
    data = states["data"]
    assert (data.owner, data.size_bytes, data.access, data.storage_class) == (
        OWNER,
        2 << 30,
        ("ReadWriteOnce",),
        "fast",
    )
    assert (data.bound, data.reach, data.place, data.leaving) == (True, "", "", False)
    assert (states["wanted"].bound, states["wanted"].size_bytes) == (False, 1 << 30)
    shown.claim("data", volume="pv-1", deletionTimestamp="2026-01-01T00:00:00Z")
    assert shown.states()["data"].leaving


@pytest.mark.parametrize(
    ("terms", "nodes", "words"),
    [
        ([within("kubernetes.io/hostname", "n2")], ["n2"], "on node n2"),
        ([within("topology.kubernetes.io/zone", "b")], ["n2", "n3"], "in zone b"),
        ([within("topology.kubernetes.io/zone", "a"), within("kubernetes.io/hostname", "n3")], ["n1", "n3"], "on nodes with"),
        ([within("kubernetes.io/hostname", "gone")], [], "on node gone"),
        ([within("kubernetes.io/hostname", operator="Exists")], ["n1", "n2", "n3"], "on nodes with kubernetes.io/hostname"),
    ],
)  # fmt: skip
def test_a_volume_is_reached_by_the_nodes_that_it_asks_for(
    terms: list[dict[str, Any]], nodes: list[str], words: str
) -> None:
    shown = Watched()
    shown.claim("data", volume="pv-1")
    assert shown.states()["data"].reach == ""  # nothing is known yet
    shown.volume("pv-1", *terms)
    state = shown.states()["data"]
    assert state.reach.startswith(REACH_PREFIX)
    assert state.place.startswith(words)
    assert shown.reaching("data") == nodes


def test_what_a_volume_asks_that_we_do_not_understand_is_left_to_its_cluster() -> None:
    shown = Watched()
    shown.claim("data", volume="pv-1")
    shown.volume("pv-1", {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]})
    assert (shown.states()["data"].reach, shown.states()["data"].bound) == ("", True)


def test_nodes_forget_what_no_claim_asks_any_more() -> None:
    shown = Watched()
    shown.claim("data", volume="pv-1")
    shown.volume("pv-1", within("kubernetes.io/hostname", "n1"))
    assert shown.reaching("data") == ["n1"]
    shown.storage._claims._forget((HOME, "data"))
    assert all(state.admits == () for state in shown.picture.nodes())


def test_where_claims_cannot_be_seen_nothing_is_said_of_them() -> None:
    shown = Watched()
    shown.claim("data", volume="pv-1")
    shown.clock.advance(SILENT_SECONDS_MAX + 1)
    assert shown.picture.volumes() is None
    never = Picture(shown, shown.clock, system=SYSTEM)  # type: ignore[arg-type]
    assert never.volumes() is None
