"""What every store promises about models and endpoints, over both databases."""

from __future__ import annotations

import pytest

from mainstay.domain.errors import NotFound
from mainstay.domain.plan import (
    Deploy,
    DropCandidate,
    MoveEndpoint,
    RegisterModel,
    RemoveEndpoint,
    RowVersion,
    SwitchEndpoint,
)
from mainstay.domain.workload import Kind
from tests.stores import TENANT, WHY, Scene, scene, store

__all__ = ["scene", "store"]


def register(model: str, version: int) -> RegisterModel:
    return RegisterModel(
        model=model, version=version, tenant=TENANT, project="default", tree=f"t{version}", workload="w", reason=WHY
    )


def test_model_versions_count_from_one_without_a_gap(scene: Scene) -> None:
    assert scene.commit(register("m", 2)).refused
    scene.applied(register("m", 1), register("m", 2))
    assert scene.commit(register("m", 2)).refused
    scene.applied(register("other", 1))
    assert [row.version for row in scene.store.model_versions(tenant=TENANT, model="m")] == [2, 1]
    assert len(scene.store.model_versions(tenant=TENANT, model="")) == 3
    assert scene.store.model_versions(tenant="chemistry", model="m") == ()


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_lists_are_read_in_pages_that_hold_everything_once(scene: Scene, limit: int) -> None:
    scene.fleet(nodes=3, cluster="a")
    scene.fleet(nodes=2, cluster="b/c")
    scene.applied(*(register("m", version) for version in (1, 2, 3)), register("n", 1))
    for name in ("second", "first", "third"):
        scene.deploy(name)
    scene.deploy("foreign", tenant="chemistry")
    store = scene.store
    nodes, node = [], ("", "")
    while page := store.nodes(after=node, limit=limit):
        nodes += page
        node = (page[-1].cluster, page[-1].name)
    versions, version = [], None
    while found := store.model_versions(tenant=TENANT, model="", before=version, limit=limit):
        versions += found
        version = (found[-1].registered_at, found[-1].model, found[-1].version)
    names, name = [], ""
    while endpoints := store.endpoints(tenant=TENANT, after=name, limit=limit):
        names += [endpoint.name for endpoint in endpoints]
        name = names[-1]
    assert tuple(nodes) == store.nodes()
    assert [(row.cluster, row.name) for row in nodes] == sorted((row.cluster, row.name) for row in nodes)
    assert tuple(versions) == store.model_versions(tenant=TENANT, model="")
    assert [(row.model, row.version) for row in versions] == [("n", 1), ("m", 3), ("m", 2), ("m", 1)]
    assert names == ["first", "second", "third"]


def test_a_new_version_takes_over_and_what_served_is_stopped(scene: Scene) -> None:
    scene.fleet(cpus=8)
    first = scene.deploy(version=1)
    assert first.spec.kind is Kind.SERVICE
    before = scene.store.endpoint("digits", tenant=TENANT)
    assert (before.serving, before.candidate, before.candidate_version) == ("", first.id, 1)
    scene.run(first)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY))
    served = scene.store.endpoint("digits", tenant=TENANT)
    assert (served.serving, served.serving_key, served.serving_version) == (first.id, first.key, 1)
    assert (served.candidate, served.address) == ("", "127.0.0.1:1")
    assert served.version > before.version
    second = scene.deploy(version=2)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY))
    assert scene.workload(first.id).stop_requested
    assert not scene.workload(second.id).stop_requested


def test_an_older_candidate_is_stopped_by_a_newer_and_a_dropped_one_too(scene: Scene) -> None:
    first, second = scene.deploy(version=1), scene.deploy(version=2)
    assert scene.workload(first.id).stop_requested
    scene.applied(DropCandidate(tenant=TENANT, endpoint="digits", reason=WHY))
    assert scene.workload(second.id).stop_requested
    assert scene.store.endpoint("digits", tenant=TENANT).candidate == ""
    assert scene.commit(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY)).refused


def test_a_candidate_whose_stop_was_asked_for_does_not_take_over(scene: Scene) -> None:
    scene.fleet(cpus=8)
    first = scene.deploy(version=1)
    scene.run(first)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY))
    second = scene.deploy(version=2)
    scene.run(second)
    scene.applied(scene.stop(second))
    assert scene.commit(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY)).refused
    assert scene.store.endpoint("digits", tenant=TENANT).serving == first.id
    assert not scene.workload(first.id).stop_requested


def test_what_is_left_of_a_removed_endpoint_does_not_change(scene: Scene) -> None:
    scene.deploy()
    scene.applied(RemoveEndpoint(endpoint="digits", tenant=TENANT, reason=WHY))
    late = (
        SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY),
        DropCandidate(tenant=TENANT, endpoint="digits", reason=WHY),
        MoveEndpoint(tenant=TENANT, endpoint="digits", address="h:1", reason=WHY),
        RemoveEndpoint(endpoint="digits", tenant=TENANT, reason=WHY),
    )
    assert len(scene.commit(*late).refused) == len(late)


def test_a_service_with_a_taken_id_is_no_candidate(scene: Scene) -> None:
    new = scene.new(id=scene.submit().id, kind=Kind.SERVICE)
    deploy = Deploy(
        endpoint="digits", tenant=TENANT, project="default", model="digits", version=1, workload=new, reason=WHY
    )
    assert scene.commit(deploy).refused
    with pytest.raises(NotFound):
        scene.store.endpoint("digits", tenant=TENANT)


def test_a_removed_endpoint_is_gone_its_workloads_are_stopped_and_it_may_come_back(scene: Scene) -> None:
    first = scene.deploy(version=1)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY))
    second = scene.deploy(version=2)
    scene.applied(MoveEndpoint(tenant=TENANT, endpoint="digits", address="h:1", reason=WHY))
    scene.applied(RemoveEndpoint(endpoint="digits", tenant=TENANT, reason=WHY))
    assert scene.workload(first.id).stop_requested
    assert scene.workload(second.id).stop_requested
    with pytest.raises(NotFound):
        scene.store.endpoint("digits", tenant=TENANT)
    assert scene.store.endpoints(tenant=TENANT) == scene.store.snapshot(now=0, seed=0).endpoints == ()
    third = scene.deploy(version=2)
    back = scene.store.endpoint("digits", tenant=TENANT)
    assert (back.serving, back.candidate, back.address) == ("", third.id, "")


def test_the_endpoint_of_another_tenant_is_not_removed(scene: Scene) -> None:
    work = scene.deploy()
    assert scene.commit(RemoveEndpoint(endpoint="digits", tenant="chemistry", reason=WHY)).refused
    assert scene.store.endpoint("digits", tenant=TENANT).candidate == work.id
    assert not scene.workload(work.id).stop_requested


def test_tenants_name_their_endpoints_as_they_like_and_touch_no_other(scene: Scene) -> None:
    ours, theirs = scene.deploy(), scene.deploy(tenant="chemistry")
    scene.applied(DropCandidate(tenant="chemistry", endpoint="digits", reason=WHY))
    assert scene.store.endpoint("digits", tenant=TENANT).candidate == ours.id
    assert scene.store.endpoint("digits", tenant="chemistry").candidate == ""
    assert scene.workload(theirs.id, tenant="chemistry").stop_requested
    assert not scene.workload(ours.id).stop_requested
    assert {(row.tenant, row.name) for row in scene.store.snapshot(now=0, seed=0).endpoints} == {
        (TENANT, "digits"),
        ("chemistry", "digits"),
    }


def test_an_endpoint_moves_only_if_its_row_is_as_it_was_read(scene: Scene) -> None:
    scene.deploy()
    read = scene.store.endpoint("digits", tenant=TENANT).version
    guard = RowVersion(kind="endpoint", key="digits", tenant=TENANT, version=read)
    move = MoveEndpoint(tenant=TENANT, endpoint="digits", address="h:1", guards=(guard,), reason=WHY)
    scene.applied(move)
    assert scene.commit(move).refused
    assert scene.store.endpoint("digits", tenant=TENANT).address == "h:1"
