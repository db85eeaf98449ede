"""The object of a pod: what its ranks are told."""

from __future__ import annotations

from mainstay.clusters.kubernetes import pods
from mainstay.clusters.kubernetes.settings import Settings
from tests.clusters import create

SETTINGS = Settings(system="here")


def told(rank: int, size: int, **changes: object) -> dict[str, str]:
    action = create(f"train-1-{rank}", "node", script="true", gang="train-1", rank=rank, size=size, **changes)
    main = pods.pod(action, SETTINGS)["spec"]["containers"][0]
    return {entry["name"]: entry["value"] for entry in main["env"]}


def test_ranks_know_the_others_by_their_service_and_themselves_by_their_own_hosts_file():
    domain = "g-train-1." + pods.namespace_of("train-1-0", create("train-1-0", "", script="").spec.owner, SETTINGS)
    first, second = told(0, 2), told(1, 2)
    assert first["MASTER_ADDR"] == "train-1-0"
    assert second["MASTER_ADDR"] == f"train-1-0.{domain}.svc"
    assert first["MAINSTAY_NODE_IPS"] == f"train-1-0,train-1-1.{domain}.svc"
    assert second["MAINSTAY_NODE_IPS"] == f"train-1-0.{domain}.svc,train-1-1"
    assert first["MASTER_PORT"] == second["MASTER_PORT"]


def test_a_pod_alone_needs_no_names():
    assert told(0, 1)["MASTER_ADDR"] == told(0, 1)["MAINSTAY_NODE_IPS"] == "localhost"


def test_one_of_an_elastic_gang_has_a_name_even_where_it_is_alone():
    """Others may join, and look for it there."""
    alone = create("train-1-0", "node", script="true", gang="train-1", elastic=True)
    assert pods.pod(alone, SETTINGS)["spec"]["subdomain"] == "g-train-1"
    assert told(0, 1, elastic=True)["MASTER_ADDR"] == "train-1-0"


def test_one_that_joins_late_knows_all_numbers_up_to_its_own():
    """Three are there, of which it is one: some of the numbers in between have left."""
    hosts = told(5, 3, elastic=True)["MAINSTAY_NODE_IPS"].split(",")
    assert [host.partition(".")[0] for host in hosts] == [f"train-1-{rank}" for rank in range(6)]
    assert hosts[5] == "train-1-5"
