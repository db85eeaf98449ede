"""The client on a real API server: every verb, every way in, and the words for every way to be refused."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme

from mainstay.clusters.kubernetes import errors, local
from mainstay.clusters.kubernetes.api import Change, Patch
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.informer import Informer
from mainstay.clusters.kubernetes.kinds import (
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    Kind,
)
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.registered import registered
from mainstay.clusters.kubernetes.sources import Fixed
from testbed.control_plane import ControlPlane
from tests.integration.kubernetes.client import SystemClock, connection, credentials, pod_document

pytestmark = pytest.mark.xdist_group("api-server")


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[Connection]:
    opened = connection(control_plane)
    yield opened
    await opened.close()


async def refused(control_plane: ControlPlane, given: Credentials) -> errors.ApiError:
    stranger = Connection(Fixed(given), clock=SystemClock())
    try:
        with pytest.raises(errors.ApiError) as error:
            await stranger.get(NAMESPACES, "", "default")
    finally:
        await stranger.close()
    return error.value


# Verbs


async def test_a_pod_from_creation_to_its_end(api: Connection, namespace: str):
    made = await api.create(PODS, namespace, pod_document("one", labels={"app": "x"}))
    assert (made.metadata.key, made.status.phase, made.spec.node_name) == ((namespace, "one"), "Pending", "")
    with pytest.raises(errors.AlreadyExists):
        await api.create(PODS, namespace, pod_document("one"))
    with pytest.raises(errors.Conflict):
        await api.bind(namespace, "one", node="n", uid="of-another")
    await api.bind(namespace, "one", node="n", uid=made.metadata.uid)
    with pytest.raises(errors.Conflict):
        await api.bind(namespace, "one", node="m", uid=made.metadata.uid)
    running = {"status": {"phase": "Running", "podIP": "10.1.2.3"}}
    changed = await api.patch(PODS, namespace, "one", running, subresource="status")
    assert (changed.status.phase, changed.spec.node_name) == ("Running", "n")
    held = [{"op": "add", "path": "/metadata/finalizers", "value": ["mainstay.dev/end"]}]
    await api.patch(PODS, namespace, "one", held, how=Patch.JSON)
    with pytest.raises(errors.Conflict):
        await api.delete(PODS, namespace, "one", uid="of-another", grace_seconds=0)
    await api.delete(PODS, namespace, "one", uid=made.metadata.uid, grace_seconds=0)
    ending = await api.get(PODS, namespace, "one")
    assert (ending.metadata.finalizers, ending.metadata.deletion_timestamp is None) == (("mainstay.dev/end",), False)
    await api.patch(PODS, namespace, "one", {"metadata": {"finalizers": None}})
    with pytest.raises(errors.NotFound):
        await api.get(PODS, namespace, "one")
    with pytest.raises(errors.NotFound):
        await api.delete(PODS, namespace, "one")


async def test_what_is_wrong_is_said(api: Connection, namespace: str):
    with pytest.raises(errors.Invalid, match="metadata"):
        await api.create(PODS, namespace, pod_document("UPPER"))
    with pytest.raises(errors.Invalid):
        await api.create(PODS, namespace, b"not json")
    with pytest.raises(errors.NotFound, match="namespaces"):
        await api.create(PODS, "no-such-namespace", pod_document("one"))


async def test_server_side_apply_makes_and_changes(api: Connection, namespace: str):
    def document(value: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fence"}, "data": {"epoch": value}}

    for value in ("1", "2"):
        made = await api.patch(CONFIG_MAPS, namespace, "fence", document(value), how=Patch.APPLY)
        assert made.data == {"epoch": value}


async def test_a_change_of_an_older_version_is_a_conflict(api: Connection, namespace: str):
    made = await api.create(LEASES, namespace, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})
    renewed = {"metadata": {"resourceVersion": made.metadata.resource_version}, "spec": {"holderIdentity": "b"}}
    assert (await api.patch(LEASES, namespace, "l", renewed)).spec.holder_identity == "b"
    with pytest.raises(errors.Conflict):
        await api.patch(LEASES, namespace, "l", renewed)


async def test_each_kind_is_read(api: Connection, namespace: str):
    await api.create(SECRETS, namespace, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    await api.create(NODES, "", {"metadata": {"name": f"node-{namespace}"}, "spec": {"unschedulable": True}})
    told = {"metadata": {"name": "e"}, "involvedObject": {"namespace": namespace, "name": "x"}, "reason": "R"}
    await api.create(EVENTS, namespace, told)
    assert (await api.get(SECRETS, namespace, "s")).data == {"a": "Yg=="}
    assert (await api.get(NODES, "", f"node-{namespace}")).spec.unschedulable
    assert (await api.get(EVENTS, namespace, "e")).involved_object.name == "x"
    assert (await api.get(NAMESPACES, "", namespace)).status.phase == "Active"


async def test_an_eviction_asks_the_disruption_budget(api: Connection, namespace: str):
    await api.create(PODS, namespace, pod_document("one", labels={"app": "x"}))
    await api.bind(namespace, "one", node="n")
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await api.patch(PODS, namespace, "one", ready, subresource="status")
    budgets: Kind[Any] = Kind(
        name="PodDisruptionBudget", plural="poddisruptionbudgets", group="policy", type=NODES.type
    )
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
    await api.create(budgets, namespace, {"metadata": {"name": "b"}, "spec": spec})
    with pytest.raises(errors.Protected):
        await api.evict(namespace, "one")
    await api.delete(budgets, namespace, "b")
    await api.evict(namespace, "one", grace_seconds=0)


async def test_a_quota_and_a_policy_refuse_each_in_its_own_way(api: Connection, namespace: str):
    quotas: Kind[Any] = Kind(name="ResourceQuota", plural="resourcequotas", type=NODES.type)
    await api.create(quotas, namespace, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}})
    async with asyncio.timeout(20):
        while True:  # until the quota is counted
            try:
                made = await api.create(PODS, namespace, pod_document("one"))
                await api.delete(PODS, namespace, made.metadata.name, grace_seconds=0)
            except errors.OverQuota:
                break
            except errors.Rejected:  # its status is not known yet
                await asyncio.sleep(0.1)
    await api.delete(quotas, namespace, "q")
    strict = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await api.patch(NAMESPACES, "", namespace, strict)
    refused: errors.Rejected | None = None
    for number in range(100):  # until the server has heard of its own label
        try:
            await api.create(PODS, namespace, pod_document(f"two-{number}"))
            await asyncio.sleep(0.1)
        except errors.Rejected as error:
            refused = error
            break
    assert refused is not None
    assert "PodSecurity" in refused.message


async def test_a_namespace_that_goes_takes_nothing_new(api: Connection, namespace: str):
    held = {"metadata": {"name": "held", "finalizers": ["mainstay.dev/test"]}}
    await api.create(CONFIG_MAPS, namespace, held)
    await api.delete(NAMESPACES, "", namespace)
    with pytest.raises(errors.Terminating):
        await api.create(PODS, namespace, pod_document("one"))
    await api.patch(CONFIG_MAPS, namespace, "held", {"metadata": {"finalizers": None}})


async def test_who_it_is_and_what_it_may_do(control_plane: ControlPlane, api: Connection):
    assert (await api.version()).git_version.startswith("v1.")
    assert await api.cluster_uid() == control_plane.ask("/api/v1/namespaces/kube-system")["metadata"]["uid"]
    assert await api.can("create", PODS, namespace="default")
    assert abs(api.server_time() - time.time_ns() // 1_000) < 5_000_000


# Lists and watches


async def test_five_thousand_objects_in_pages_and_as_a_view(api: Connection, namespace: str):
    def one(number: int) -> Any:
        return lambda: api.create(
            CONFIG_MAPS, namespace, {"metadata": {"name": f"c{number}", "labels": {"n": f"{number % 5}"}}}
        )

    outcomes = await Pace(clock=SystemClock()).run([one(number) for number in range(5_000)])
    assert not [outcome for outcome in outcomes if isinstance(outcome, errors.ApiError)]
    pages = [page async for page in api.list_pages(CONFIG_MAPS, namespace=namespace, limit=700)]
    names = {item.metadata.name for page in pages for item in page.items}
    assert {f"c{number}" for number in range(5_000)} <= names
    assert len({page.resource_version for page in pages}) == 1
    assert len(pages) >= 8
    chosen = [len(page.items) async for page in api.list_pages(CONFIG_MAPS, namespace=namespace, selector="n=3")]
    assert chosen[:2] == [500, 500]
    assert sum(chosen) == 1_000
    view: Informer[Any, str] = Informer(
        api,
        CONFIG_MAPS,
        clock=SystemClock(),
        namespace=namespace,
        selector="n=3",
        project=lambda item: item.metadata.uid,
    )
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(view.run())
        await view.synced.wait()
        assert len(view.objects) == 1_000
        await api.delete(CONFIG_MAPS, namespace, "c3")
        await api.patch(CONFIG_MAPS, namespace, "c8", {"metadata": {"labels": {"n": "4"}}})  # leaves the selection
        while len(view.objects) != 998:
            await asyncio.sleep(0.02)
        task.cancel()


async def test_a_watch_tells_what_happens_after_a_version(api: Connection, namespace: str):
    made = await api.create(CONFIG_MAPS, namespace, {"metadata": {"name": "c"}})
    await api.patch(CONFIG_MAPS, namespace, "c", {"data": {"a": "b"}})
    await api.delete(CONFIG_MAPS, namespace, "c")
    told = []
    async with asyncio.timeout(20):
        async for event in api.watch(
            CONFIG_MAPS, made.metadata.resource_version, namespace=namespace, fields="metadata.name=c"
        ):
            told.append(event.change)
            if event.change is Change.DELETED:
                break
    assert told == [Change.MODIFIED, Change.DELETED]


async def test_a_version_that_is_none_is_refused(api: Connection):
    with pytest.raises(errors.ApiError):
        await anext(api.watch(PODS, "no-version"))


# Ways in


async def test_a_kubeconfig_file_and_a_registered_one(control_plane: ControlPlane):
    given = credentials(control_plane)
    embedded = json.loads(control_plane.kubeconfig.read_text())
    embedded["clusters"][0]["cluster"] = {
        "server": given.server,
        "certificate-authority-data": base64.b64encode(given.ca.encode()).decode(),
    }
    clock = SystemClock()
    for source in (local.kubeconfig(control_plane.kubeconfig, clock=clock), Fixed(registered(json.dumps(embedded)))):
        opened = Connection(source, clock=clock)
        assert (await opened.get(NAMESPACES, "", "default")).metadata.name == "default"
        await opened.close()


async def test_a_client_certificate_is_let_in(control_plane: ControlPlane):
    pair = control_plane.keys.authority.client("someone", user="someone", group="system:masters")
    given = credentials(control_plane, token="", certificate=pair.certificate.read_text(), key=pair.key.read_text())
    opened = Connection(Fixed(given), clock=SystemClock())
    assert await opened.can("delete", NODES)
    await opened.close()


async def test_wrong_credentials_are_told(control_plane: ControlPlane):
    error = await refused(control_plane, credentials(control_plane, token="wrong"))
    assert isinstance(error, errors.Unauthenticated)
    assert "renew" in error.hint


async def test_an_expired_client_certificate_is_told(control_plane: ControlPlane):
    year = timedelta(days=365)
    expired = control_plane.keys.authority._authority.issue_cert(
        "someone",
        organization_name="system:masters",
        not_before=datetime.now(UTC) - 2 * year,
        not_after=datetime.now(UTC) - year,
    )
    certificate, key = expired.cert_chain_pems[0].bytes().decode(), expired.private_key_pem.bytes().decode()
    error = await refused(control_plane, credentials(control_plane, token="", certificate=certificate, key=key))
    assert isinstance(error, errors.Unauthenticated)


async def test_the_certificate_of_an_unknown_authority_is_told(control_plane: ControlPlane):
    other = trustme.CA().cert_pem.bytes().decode()
    error = await refused(control_plane, credentials(control_plane, ca=other))
    assert isinstance(error, errors.Unreachable)
    assert "not signed by the authority" in error.message
    assert "certificate-authority-data" in error.hint


async def test_a_certificate_for_other_names_is_told_and_another_name_can_be_stated(control_plane: ControlPlane):
    wrong = credentials(control_plane, tls_server_name="elsewhere.example.org")
    error = await refused(control_plane, wrong)
    assert isinstance(error, errors.Unreachable)
    assert "for other names" in error.message
    stated = credentials(control_plane, tls_server_name="kubernetes.default.svc")
    opened = Connection(Fixed(stated), clock=SystemClock())
    assert (await opened.version()).major == "1"
    await opened.close()


async def test_nobody_may_do_anything_and_is_told_what_is_missing(control_plane: ControlPlane):
    pair = control_plane.keys.authority.client("nobody", user="nobody", group="nobodies")
    given = credentials(control_plane, token="", certificate=pair.certificate.read_text(), key=pair.key.read_text())
    opened = Connection(Fixed(given), clock=SystemClock())
    with pytest.raises(errors.Forbidden, match='cannot list resource "pods"') as error:
        await anext(opened.list_pages(PODS))
    assert "verb list on pods" in error.value.hint
    with pytest.raises(errors.Forbidden):
        await anext(opened.watch(PODS, "1"))
    assert not await opened.can("list", PODS)
    await opened.close()
