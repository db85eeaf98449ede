"""The object of a pod: what its ranks are told."""

from __future__ import annotations

from mainstay.clusters.kubernetes import pods
from mainstay.clusters.kubernetes.settings import Settings
from tests.clusters import create

SETTINGS = Settings(system="here")


def told(rank: int, size: int) -> dict[str, str]:
    action = create(f"train-1-{rank}", "node", script="true", gang="train-1", rank=rank, size=size)
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
