"""Nodes of a simulated cluster lie where their labels say, so that topology can be tried out without a fleet."""

from __future__ import annotations

import pytest

from mainstay.clusters.simulated import SimulatedConnector
from mainstay.domain.fleet import ClusterKind, ClusterRecord, ClusterSettings, Contact, Credentials, NodeGroup, Stay
from mainstay.domain.quantity import Resources
from tests.clock import ManualClock
from tests.stores import WHY


@pytest.mark.parametrize(
    ("chosen", "rack"), [((), "r1"), ((("rack", "acme.com/rack"),), "7")], ids=["of Kubernetes", "of an administrator"]
)
async def test_a_node_lies_in_the_domains_that_its_labels_say(chosen: tuple[tuple[str, str], ...], rack: str):
    labels = (("topology.kubernetes.io/zone", "z"), ("topology.kubernetes.io/rack", "r1"), ("acme.com/rack", "7"))
    group = NodeGroup(count=1, capacity=Resources(cpu_milli=1_000, memory_bytes=1 << 30), labels=labels)
    record = ClusterRecord(
        name="sim",
        kind=ClusterKind.SIMULATED,
        settings=ClusterSettings(nodes=(group,), topology=chosen),
        sealed="",
        identity="",
        wanted=Stay.KEPT,
        wanted_reason=WHY,
        seen=Contact.READY,
        seen_reason=WHY,
        observed_at=0,
        added_at=0,
        added_by="admin",
        version=1,
    )
    seen = await SimulatedConnector(ManualClock()).open(record, Credentials()).observe()
    assert [node.topology for node in seen.nodes] == [(("zone", "z"), ("rack", rack))]
