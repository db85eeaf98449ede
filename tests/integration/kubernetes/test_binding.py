"""Pods that name claims: bound by the scheduler of Kubernetes itself, on the node that we gave them or not at all."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mainstay.app import SystemClock
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.sources import Fixed
from mainstay.domain.allocation import End, Seen
from mainstay.domain.errors import NoCapacity
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import Volume
from testbed.control_plane import ControlPlane
from tests.clusters import OWNER, Program, Rig
from tests.drawer import Drawer

pytestmark = pytest.mark.xdist_group("api-server")
STORAGE, DEVICES = "/apis/storage.k8s.io/v1", "/apis/resource.k8s.io/v1"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.scheduler.start()
    yield control_plane
    control_plane.scheduler.stop()


@pytest.fixture
def system() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def home(system: str) -> str:
    """The namespace of the pods of a test."""
    return names.namespace(OWNER, system=system)


@pytest.fixture
async def rig(plane: ControlPlane, hollow_nodes: tuple[str, ...], tmp_path: Path, system: str) -> AsyncIterator[Rig]:
    clock, settings = SystemClock(), Settings(system=system, image="any", helper_image="any")
    keys = plane.keys
    credentials = Credentials(server=plane.url, ca=keys.authority.certificate.read_text(), token=keys.token)

    def made() -> KubernetesCluster:
        return KubernetesCluster(
            name="k8s",
            api=Connection(Fixed(credentials), clock=clock),
            artifacts=open_artifacts(str(tmp_path)),
            secrets=Drawer(),
            clock=clock,
            settings=settings,
            patience_seconds=2.0,
        )

    rig = Rig(cluster=made(), node=hollow_nodes[0], remake=made, let_pass=asyncio.sleep, now=clock.now)
    yield rig
    await rig.cluster.close()


def storage_class(plane: ControlPlane, *, binding: str = "WaitForFirstConsumer") -> str:
    name = f"class-{secrets.token_hex(4)}"
    how = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": binding}
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, **how}
    plane.ask(f"{STORAGE}/storageclasses", method="POST", body=body)
    return name


def volume_on(plane: ControlPlane, node: str, class_: str) -> None:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_,
        "local": {"path": "/somewhere"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{class_}-{node}"}, "spec": spec}
    plane.ask("/api/v1/persistentvolumes", method="POST", body=body)


def claim(class_: str) -> tuple[Volume, ...]:
    return (Volume(path="/ckpt", name="ckpt", size_bytes=1_000, storage_class=class_),)


async def told(rig: Rig, name: str, words: str) -> None:
    """Until a pod says so."""
    async with asyncio.timeout(20):
        while (state := await rig.state(name)) is None or words not in state.detail:
            await rig.let_pass(0.1)


async def test_a_claim_is_bound_where_we_put_the_pod_and_nowhere_else(
    rig: Rig, plane: ControlPlane, hollow_nodes: tuple[str, ...], home: str
):
    class_ = storage_class(plane)
    for node in hollow_nodes[:3]:
        volume_on(plane, node, class_)
    rig.node = hollow_nodes[1]
    await rig.create("p-1-0", Program(), volumes=claim(class_))
    state = await rig.seen("p-1-0", Seen.RUNNING)
    assert state.node == hollow_nodes[1]
    found = plane.ask(f"/api/v1/namespaces/{home}/persistentvolumeclaims/ckpt")
    assert found["spec"]["volumeName"] == f"{class_}-{hollow_nodes[1]}"
    plane.ask(f"/api/v1/namespaces/{home}/pods/p-1-0", method="DELETE")
    assert plane.ask(f"/api/v1/namespaces/{home}/persistentvolumeclaims/ckpt")["status"]["phase"] == "Bound"


async def test_a_volume_that_lies_elsewhere_is_told_and_the_pod_is_given_up(
    rig: Rig, plane: ControlPlane, hollow_nodes: tuple[str, ...], home: str
):
    class_ = storage_class(plane)
    volume_on(plane, hollow_nodes[0], class_)
    await rig.create("p-1-0", Program(), volumes=claim(class_))
    await rig.seen("p-1-0", Seen.RUNNING)
    rig.node = hollow_nodes[1]
    await rig.create("q-1-0", Program(), volumes=claim(class_))
    await told(rig, "q-1-0", "its volume lies where this node cannot reach it")
    ended = await rig.seen("q-1-0", Seen.ENDED)
    assert (ended.end, ended.started_at) == (End.START_FAILED, 0)
    assert "its volume lies where this node cannot reach it" in ended.detail


async def test_a_claim_for_which_there_is_no_volume_is_told(rig: Rig, plane: ControlPlane):
    await rig.create("p-1-0", Program(), volumes=claim(storage_class(plane)))
    await told(rig, "p-1-0", "no volume fits its claim, and its storage class makes none")
    await rig.create("q-1-0", Program(), volumes=(Volume(path="/a", name="other", size_bytes=9, storage_class="none"),))
    await told(rig, "q-1-0", "its claim")


async def test_a_claim_that_is_removed_while_its_pod_waits_is_told(rig: Rig, plane: ControlPlane, home: str):
    await rig.create("p-1-0", Program(), volumes=claim(storage_class(plane)))
    path = f"/api/v1/namespaces/{home}/persistentvolumeclaims/ckpt"
    plane.ask(path, method="DELETE")
    await told(rig, "p-1-0", "its claim is ")  # being deleted, or by now not there any more


async def test_gpus_that_a_driver_offers_are_counted_claimed_given_and_free_again(
    rig: Rig, plane: ControlPlane, hollow_nodes: tuple[str, ...], home: str
):
    driver, node = f"gpu.d{secrets.token_hex(4)}.example.com", hollow_nodes[2]
    rig.node = node
    mine = {"cel": {"expression": f'device.driver == "{driver}"'}}
    make(plane, "deviceclasses", "DeviceClass", driver, {"selectors": [mine]})
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    kinds = [("h0", "H100"), ("h1", "H100"), ("t0", "T4")]
    devices = [{"name": name, "attributes": {"model": {"string": f"Example {model}"}}} for name, model in kinds]
    make(
        plane,
        "resourceslices",
        "ResourceSlice",
        driver,
        {"driver": driver, "nodeName": node, "pool": pool, "devices": devices},
    )
    try:
        await until_gpus(rig, node, 3)
        await rig.create("p-1-0", Program(runs_for=600), resources=two_gpus())
        state = await rig.seen("p-1-0", Seen.RUNNING)
        assert state.node == node
        claim = plane.ask(f"{DEVICES}/namespaces/{home}/resourceclaims/p-1-0")
        given_ = {one["device"] for one in claim["status"]["allocation"]["devices"]["results"]}
        assert given_ == {"h0", "h1"}
        assert claim["metadata"]["ownerReferences"][0]["name"] == "p-1-0"
        with pytest.raises(NoCapacity, match="needs 2 GPUs, 1 are free"):
            await rig.act(rig.creation("q-1-0", Program(), resources=two_gpus()))
        await until_gpus(rig, node, 3)  # ours are no less there for being given to ours
        theirs = {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": driver}}]}}
        make(plane, f"namespaces/{home}/resourceclaims", "ResourceClaim", "theirs", theirs)
        status = {
            "allocation": {"devices": {"results": [{"request": "one", "driver": driver, "pool": node, "device": "t0"}]}}
        }
        found = plane.ask(f"{DEVICES}/namespaces/{home}/resourceclaims/theirs")
        path = f"{DEVICES}/namespaces/{home}/resourceclaims/theirs"
        plane.ask(f"{path}/status", method="PUT", body={**found, "status": status})
        await until_gpus(rig, node, 2)
    finally:
        plane.ask(f"{DEVICES}/resourceslices/{driver}", method="DELETE")
    await until_gpus(rig, node, 0)


async def test_devices_of_other_makers_are_counted_and_given_by_the_name_of_their_resource(
    rig: Rig, plane: ControlPlane, hollow_nodes: tuple[str, ...], home: str
):
    node, asked = hollow_nodes[2], Resources(cpu_milli=200, memory_bytes=128 << 20, gpus=2, gpu_model="example.com/tpu")
    rig.node = node
    give_devices(plane, node, "3")
    try:
        await until_shapes(rig, node, (("example.com/tpu", 3),))
        await rig.create("p-1-0", Program(runs_for=600), resources=asked)
        await rig.seen("p-1-0", Seen.RUNNING)
        pod = plane.ask(f"/api/v1/namespaces/{home}/pods/p-1-0")
        assert pod["spec"]["containers"][0]["resources"]["limits"]["example.com/tpu"] == "2"
        with pytest.raises(NoCapacity, match=r"needs 2 example\.com/tpu, 1 are free"):
            await rig.act(rig.creation("q-1-0", Program(), resources=asked))
    finally:
        give_devices(plane, node, "0")
    await until_shapes(rig, node, ())


def give_devices(plane: ControlPlane, node: str, count: str) -> None:
    """As its device plugin would have its kubelet say."""
    while True:
        found = plane.ask(f"/api/v1/nodes/{node}")
        for amounts in ("capacity", "allocatable"):
            found["status"][amounts]["example.com/tpu"] = count
        try:
            plane.ask(f"/api/v1/nodes/{node}/status", method="PUT", body=found)
        except httpx2.HTTPStatusError as error:
            if error.response.status_code != 409:  # the simulator of its kubelet was faster
                raise
        else:
            return


async def until_shapes(rig: Rig, node: str, shapes: tuple[tuple[str, int], ...]) -> None:
    async with asyncio.timeout(60):
        while next(one.shapes for one in (await rig.cluster.observe()).nodes if one.name == node) != shapes:
            await rig.let_pass(0.1)


async def test_a_claim_that_no_device_class_can_serve_is_told(
    rig: Rig, plane: ControlPlane, hollow_nodes: tuple[str, ...], home: str
):
    await rig.create("p-1-0", Program(), devices=("nobody.example.com:1",))
    await told(rig, "p-1-0", "its claim names a DeviceClass that this cluster does not have")


def two_gpus() -> Resources:
    return Resources(cpu_milli=200, memory_bytes=128 << 20, gpus=2, gpu_model="H100")


def make(plane: ControlPlane, path: str, kind: str, name: str, spec: dict[str, Any]) -> None:
    document = {"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    plane.ask(f"{DEVICES}/{path}", method="POST", body=document)


async def until_gpus(rig: Rig, node: str, count: int) -> None:
    """Until a node is reported with so many that pods of ours may use."""
    async with asyncio.timeout(20):
        while {one.name: one.capacity.gpus for one in (await rig.cluster.observe()).nodes}[node] != count:
            await rig.let_pass(0.1)


async def test_devices_are_claimed_and_who_finds_none_is_told(
    rig: Rig, plane: ControlPlane, hollow_nodes: tuple[str, ...], home: str
):
    driver, template = f"d{secrets.token_hex(4)}.example.com", "one-device"
    mine = {"cel": {"expression": f'device.driver == "{driver}"'}}
    version = {"apiVersion": "resource.k8s.io/v1"}
    plane.ask(
        f"{DEVICES}/deviceclasses",
        method="POST",
        body={**version, "kind": "DeviceClass", "metadata": {"name": driver}, "spec": {"selectors": [mine]}},
    )
    pool = {"name": hollow_nodes[0], "generation": 1, "resourceSliceCount": 1}
    slice_ = {"driver": driver, "nodeName": hollow_nodes[0], "pool": pool, "devices": [{"name": "d0"}]}
    plane.ask(
        f"{DEVICES}/resourceslices",
        method="POST",
        body={**version, "kind": "ResourceSlice", "metadata": {"name": driver}, "spec": slice_},
    )
    await rig.create("p-1-0", Program(), devices=(template,))
    await told(rig, "p-1-0", f'resourceclaimtemplate.resource.k8s.io "{template}" not found')
    asked = {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": driver}}]}}
    plane.ask(
        f"{DEVICES}/namespaces/{home}/resourceclaimtemplates",
        method="POST",
        body={
            **version,
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": template},
            "spec": {"spec": asked},
        },
    )
    state = await rig.seen("p-1-0", Seen.RUNNING)
    assert state.node == hollow_nodes[0]
    await rig.create("q-1-0", Program(), devices=(template,))
    await told(rig, "q-1-0", "this node has not the devices that are claimed, or they are in use")
    claims = plane.ask(f"{DEVICES}/namespaces/{home}/resourceclaims")["items"]
    assert len(claims) == 2
