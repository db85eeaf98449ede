"""The adapter under the account that we ship, with every request written down by the API server.

It uses all that it is granted and nothing else, and what it makes is harmless, ours by its labels, and gone after its workload.
All that the platform does in a cluster is done here: jobs, volumes, secrets, devices, nodes, ways into pods, and pods of others,
these by an agent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings

from mainstay.app import SystemClock
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes import KubernetesConnector, chores, fence, names, pods, surroundings
from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.permissions import PERMISSIONS
from mainstay.clusters.kubernetes.registered import registered
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.sources import Fixed
from mainstay.domain.allocation import DeletePod, DropVolume, End, ForgetPod, MarkNode, Seen
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Fenced, Gone
from mainstay.domain.fleet import ClusterSettings, Credentials
from mainstay.domain.quantity import Resources
from mainstay.domain.secret import SecretUse
from mainstay.domain.workload import Phase, Volume
from mainstay.ports import ArtifactStore, Cluster
from testbed import control_plane, images, node
from testbed.control_plane import ControlPlane
from testbed.fixtures import unavailable, until
from tests.clusters import OWNER, Program, RealCluster, Rig, create, mount
from tests.drawer import Drawer
from tests.integration.kubernetes.census import Counted, census
from tests.integration.kubernetes.guests import container, platform
from tests.integration.kubernetes.installed import ACCOUNT, MANIFESTS, apply, can, kubeconfig, kubectl
from tests.unit.clusters.kubernetes.objects import creations
from tests.unit.clusters.kubernetes.restricted import faults

pytestmark = pytest.mark.xdist_group("kubernetes")

SYSTEM = "audited"
RESEARCH = "research"
"""The namespace of others."""
NEWER = {("create", "pods/exec"), ("create", "pods/portforward")}
"""Granted for API servers from 1.35 on: they ask for it where something is opened over a WebSocket, older ones for `get`."""
SURVIVES = {
    ("namespaces", ""),
    ("serviceaccounts", "default"),
    ("serviceaccounts", names.ACCOUNT),
    ("networkpolicies", "mainstay"),
    ("resourcequotas", "mainstay"),
    ("configmaps", "kube-root-ca.crt"),
    ("persistentvolumeclaims", "ckpt"),
    ("leases", names.fence(SYSTEM)),
    ("leases", names.fence(f"{SYSTEM}-hosting")),
}
"""What is there after all workloads have gone: the home of the project, what its cluster puts into every namespace, the claim
that outlives runs, and the fences. Events go by themselves after an hour.
"""
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
ANYBODY = {("create", "selfsubjectaccessreviews")}
"""What every account may do."""


@pytest.fixture(scope="module")
def real() -> Iterator[RealCluster]:
    """A cluster that writes down what our account does, with what we ship for it."""
    if reason := node.why_not():
        unavailable(reason)
    with control_plane.running(audited=ACCOUNT) as plane, node.running(plane) as started:
        started.load(images.busybox())
        apply(plane, MANIFESTS / "overlays" / "remote-cluster")
        until(lambda: plane.ask("/api/v1/namespaces/mainstay/secrets/mainstay-token").get("data", {}).get("token"))
        yield RealCluster(control_plane=plane, node=started)


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return open_artifacts(str(tmp_path / "artifacts"))


@pytest.fixture
async def rig(real: RealCluster, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(chores, "BURIAL_SECONDS", 0.5)
    clock, drawer = SystemClock(), Drawer()
    source = Fixed(registered(kubeconfig(real.control_plane)))

    def made() -> KubernetesCluster:
        return KubernetesCluster(
            name="k8s",
            api=Connection(source, clock=clock),
            artifacts=artifacts,
            secrets=drawer,
            clock=clock,
            settings=Settings(system=SYSTEM, image=images.BUSYBOX, helper_image=images.BUSYBOX),
            tombstone_seconds=1,
        )

    rig = Rig(cluster=made(), node=real.node.name, remake=made, let_pass=asyncio.sleep, now=clock.now, drawer=drawer)
    yield rig
    await rig.close()


async def everything(rig: Rig, artifacts: ArtifactStore) -> None:
    """One of each thing that the platform does in a cluster."""
    code = b'echo from the code; printf weights > "$MAINSTAY_OUTPUT_DIR/model"\n'
    digest = hashlib.sha256(code).hexdigest()

    async def content() -> AsyncIterator[bytes]:
        yield code

    await artifacts.of(OWNER).put(digest, content())
    tree = await artifacts.of(OWNER).put_tree(Tree(entries=(Entry(path="run.sh", size=len(code), digest=digest),)))
    gang = {"gang": "gang-1", "size": 2}
    rig.drawer.values["token"] = b"canary"
    token = {"secrets": (SecretUse(name="token"),)}
    await rig.create("g-1-0", Program(), argv=("/bin/sh", "run.sh"), mounts=mount(tree, "."), rank=0, **gang, **token)
    said = ("/bin/sh", "-c", 'printf "%s\\n" "$A" "$@"', "sh", "$(HOME)", "$$(HOME)", "$$")
    await rig.create("g-1-1", Program(), argv=said, env=(("A", "$$(HOME)"),), rank=1, **gang)
    for name in ("g-1-0", "g-1-1"):
        ended = await rig.seen(name, Seen.ENDED)
        assert (ended.end, ended.exit_code) == (End.EXITED, 0), ended
    assert await whole_log(rig, "g-1-0") == "from the code\n"
    assert await rig.output("g-1-0") == {"model": "weights"}
    for closed in (True, False):
        while (await rig.cluster.observe()).nodes[0].marked is not closed:
            await rig.act(MarkNode(name=rig.node, closed=closed, words="by a test", at=1))
            await rig.let_pass(0.1)
    long = await rig.create("long-1-0", Program(runs_for=30))
    await rig.seen("long-1-0", Seen.RUNNING)
    await look_inside(rig, "long-1-0")
    rig.again()
    await rig.act(long)
    await rig.act(DeletePod(name="long-1-0", grace_seconds=1))
    assert (await rig.seen("long-1-0", Seen.ENDED)).end is End.STOPPED
    await rig.act(DeletePod(name="never-1-0", grace_seconds=1, owner=OWNER))
    with pytest.raises(Gone):
        await rig.create("never-1-0", Program())
    await rig.create("kept-1-0", Program(), volumes=(Volume(path="/ckpt", name="ckpt", size_bytes=1_000),))
    await rig.act(DeletePod(name="kept-1-0", grace_seconds=1))
    await rig.seen("kept-1-0", Seen.ENDED)
    for name in ("g-1-0", "g-1-1", "long-1-0", "never-1-0", "kept-1-0"):
        await rig.until(ForgetPod(name=name))
    while "ckpt" not in {volume.name for volume in (await rig.cluster.observe()).volumes or ()}:
        await rig.let_pass(0.1)
    await rig.act(DropVolume(name="ckpt", owner=OWNER))
    while (await rig.cluster.observe()).volumes:
        await rig.let_pass(0.1)
    assert await rig.log("g-1-1") == "$$(HOME)\n$(HOME)\n$$(HOME)\n$$\n"


async def look_inside(rig: Rig, pod: str) -> None:
    """As `mainstay exec` and `mainstay port-forward` do."""
    async with rig.cluster.exec(pod, ("/bin/true",)) as process:
        while await process.receive() is not None:
            pass
    async with rig.cluster.connect(pod, 9_000):
        pass


async def claim_a_gpu(rig: Rig, plane: ControlPlane) -> None:
    """No driver is there to hand it out, so it never runs; what the API server takes of it is what counts here."""
    slice_ = {
        "driver": "gpu.example.com",
        "nodeName": rig.node,
        "pool": {"name": rig.node, "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "Example H100"}}}],
    }
    version = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "by-hand"}}
    path = "/apis/resource.k8s.io/v1"
    plane.ask(f"{path}/resourceslices", method="POST", body={**version, "spec": slice_})
    async with asyncio.timeout(30):
        while not [node for node in (await rig.cluster.observe()).nodes if node.capacity.gpus]:
            await rig.let_pass(0.1)
    asked = Resources(cpu_milli=200, memory_bytes=128 << 20, gpus=1, gpu_model="H100")
    await rig.create("gpu-1-0", Program(), resources=asked)
    async with asyncio.timeout(30):
        while not plane.ask(f"{path}/resourceclaims")["items"]:
            await rig.cluster.observe()
            await rig.let_pass(0.1)
    (pod,) = plane.ask("/api/v1/pods?fieldSelector=metadata.name=gpu-1-0")["items"]
    assert pod["status"]["qosClass"] == "Guaranteed"
    await rig.act(DeletePod(name="gpu-1-0", grace_seconds=1))
    await rig.seen("gpu-1-0", Seen.ENDED)
    await rig.until(ForgetPod(name="gpu-1-0"))
    plane.ask(f"{path}/resourceslices/by-hand", method="DELETE")


async def host(plane: ControlPlane, node: str, folder: Path) -> None:
    """Pods of others: told why they wait, placed once we are let in, stopped. By an agent."""
    plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": RESEARCH}})
    until(lambda: plane.ask(f"/api/v1/namespaces/{RESEARCH}/serviceaccounts")["items"])
    theirs = registered(kubeconfig(plane))
    small = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    sleeps = [container(image=images.BUSYBOX, command=["sleep", "60"], resources=small)]
    async with platform(
        plane, RESEARCH, folder, system=f"{SYSTEM}-hosting", scheduler="audited", agent=True, credentials=theirs
    ) as ours:
        ours.make_pod("web", containers=sleeps)
        ours.make_pod("of-a-group", containers=sleeps, labels={names.GROUP_LABEL: "nobody-says-how-many"})
        ours.make_pod("of-volcano", containers=sleeps, annotations={names.GROUP_ANNOTATION: "nor-here"})
        await ours.until(lambda: any("labels it mainstay.dev/tenant" in said for said in ours.told("web")))
        assert not (ours.pod("web") or {})["spec"].get("nodeName")
        ours.label_namespace(**{names.TENANT: "acme"})
        await ours.until(lambda: "running" in str((ours.pod("web") or {})["status"].get("containerStatuses")))
        await ours.until(lambda: ours.told("of-a-group") and ours.told("of-volcano"))
        await ours.until(lambda: ours.phases()["web"] is Phase.RUNNING)
        ours.stop("web")
        await ours.until(lambda: ours.pod("web") is None)
    plane.ask(f"/api/v1/namespaces/{RESEARCH}", method="DELETE")


async def why_it_waits(rig: Rig, plane: ControlPlane) -> None:
    """A pod whose image is nowhere: its events are asked for after a few seconds."""
    await rig.create("waits-1-0", Program(), image="localhost/absent:1")
    while ("list", "events") not in {used(event) for event in requests(plane)}:
        await rig.cluster.observe()
        await rig.let_pass(0.2)
    await rig.act(DeletePod(name="waits-1-0", grace_seconds=1))
    await rig.seen("waits-1-0", Seen.ENDED)
    await rig.until(ForgetPod(name="waits-1-0"))


async def whole_log(rig: Rig, pod: str) -> str:
    while not (chunk := await rig.cluster.read_log(pod, offset=0, limit=1_000)).ended:
        await rig.let_pass(0.05)
    return chunk.data.decode()


def requests(plane: ControlPlane) -> list[dict[str, Any]]:
    return [event for event in plane.audit() if event.get("objectRef")]


def used(event: dict[str, Any]) -> tuple[str, str]:
    where = event["objectRef"]
    sub = where.get("subresource", "")
    return event["verb"], f"{where['resource']}/{sub}" if sub else where["resource"]


async def test_it_uses_what_it_is_granted_and_leaves_nothing(
    rig: Rig, artifacts: ArtifactStore, real: RealCluster, tmp_path: Path
) -> None:
    plane = real.control_plane
    before = census(plane)
    await everything(rig, artifacts)
    await why_it_waits(rig, plane)
    await claim_a_gpu(rig, plane)
    await host(plane, rig.node, tmp_path / "hosting")
    (namespace,) = plane.ask(f"/api/v1/namespaces?labelSelector={names.SYSTEM}")["items"]
    place = f"/api/v1/namespaces/{namespace['metadata']['name']}"
    while plane.ask(f"{place}/pods")["items"]:  # the looks of a leader bury
        await rig.cluster.observe()
        await rig.let_pass(0.2)
    until(lambda: all(one[1] != RESEARCH for one in census(plane)))
    for _ in range(60):  # owners first, and what they own after them
        if not (left := left_of(plane, before)):
            break
        await asyncio.sleep(0.5)
    assert not left
    events = requests(plane)
    assert "canary" not in json.dumps(events)
    refused = [event for event in events if event["responseStatus"]["code"] in {401, 403}]
    for event in refused:  # only where others had not let us in yet
        assert event["objectRef"]["namespace"] == RESEARCH, event
        assert names.CONFINING_POLICY in event["responseStatus"]["message"]
    granted = {(verb, one.resource) for one in PERMISSIONS for verb in one.verbs}
    assert {used(event) for event in events} - ANYBODY == granted - NEWER
    for event in events:
        if event["verb"] == "create" and event["objectRef"]["resource"] != "selfsubjectaccessreviews":
            _is_ours(event, namespace["metadata"]["name"])


def left_of(plane: ControlPlane, before: set[Counted]) -> set[Counted]:
    """What has been made since and should be gone."""
    made = (one for one in census(plane) - before if one[0] != "events" and one[1] != "kube-node-lease")
    return {one for one in made if one[::2] not in SURVIVES and one[0] != "namespaces"}


def _is_ours(event: dict[str, Any], namespace: str) -> None:
    where = event["objectRef"]
    if where.get("subresource") in {"binding", "eviction"}:
        assert where["namespace"] == RESEARCH
        return
    if where.get("subresource"):
        assert where["namespace"] == namespace
        return
    document = event["requestObject"]
    labels = document["metadata"]["labels"]
    assert labels[names.MANAGED_BY] == "mainstay"
    match where["resource"]:
        case "leases":
            assert where["namespace"] == names.CONTROL_NAMESPACE
            return
        case "events":
            assert (where["namespace"], document["involvedObject"]["kind"]) == (RESEARCH, "Pod")
            return
        case "pods":
            assert not faults(document)
            assert document["metadata"]["finalizers"] == [names.RECORDED]
        case "services" | "resourceclaims":
            assert document["metadata"]["ownerReferences"][0]["kind"] == "Pod"
        case "namespaces":
            assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels[names.SYSTEM] == names.short(SYSTEM)
    assert where.get("namespace", namespace) == namespace


async def test_a_leader_of_the_past_is_refused_under_our_account_too(
    rig: Rig, real: RealCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It believes for ever that it leads, and has nothing but what it may do."""
    monkeypatch.setattr(fence, "TRUSTED_SECONDS", 1e9)
    plane = real.control_plane
    until(lambda: plane.ask(f"{POLICIES}/mainstay-fenced").get("status", {}).get("typeChecking") is not None)
    await rig.act(DeletePod(name="old-1-0", grace_seconds=1, owner=OWNER), epoch=1_000_001)
    old = rig.cluster
    rig.again()
    await rig.act(DeletePod(name="new-1-0", grace_seconds=1, owner=OWNER), epoch=1_000_002)
    rig.epoch = 1_000_002
    with pytest.raises(Fenced, match=names.FENCE_POLICY):
        await mark_for_too_long(old, rig.node, epoch=1_000_001)
    words = [event["responseStatus"].get("message", "") for event in requests(plane) if event["verb"] == "patch"]
    assert any(names.FENCE_POLICY in said for said in words)
    while (await rig.cluster.observe()).nodes[0].marked:
        await rig.act(MarkNode(name=rig.node, closed=False, words="", at=1))
        await rig.let_pass(0.1)
    for name in ("old-1-0", "new-1-0"):
        await rig.until(ForgetPod(name=name))


async def mark_for_too_long(cluster: Cluster, node: str, *, epoch: int) -> None:
    """The API server hears of a new leader by a watch."""
    for number in range(100):
        await cluster.observe()
        await cluster.act(MarkNode(name=node, closed=number % 2 == 0, words="too late", at=1), epoch=epoch)
        await asyncio.sleep(0.05)


def test_the_namespace_of_a_project_refuses_what_the_restricted_profile_forbids(real: RealCluster) -> None:
    """By the API server itself, whoever asks for it."""
    plane, name = real.control_plane, names.namespace(OWNER, system="enforced")
    plane.ask(
        "/api/v1/namespaces", method="POST", body=surroundings.namespace(name, OWNER, Settings(system="enforced"))
    )
    plane.ask(
        f"/api/v1/namespaces/{name}/serviceaccounts",
        method="POST",
        body=surroundings.account(OWNER, Settings(system="enforced")),
    )
    good = pods.pod(create("x-1-0", real.node.name, script="true"), Settings(system="enforced"))
    bad = json.loads(json.dumps(good))
    bad["spec"]["hostNetwork"] = True
    path = f"/api/v1/namespaces/{name}/pods?dryRun=All"
    try:
        plane.ask(path, method="POST", body=good)
        with pytest.raises(httpx2.HTTPStatusError) as refused:
            plane.ask(path, method="POST", body=bad)
        assert 'violates PodSecurity "restricted' in refused.value.response.json()["message"]
    finally:
        plane.ask(f"/api/v1/namespaces/{name}", method="DELETE")


async def test_the_credentials_pass_the_check_of_a_new_cluster(real: RealCluster, tmp_path: Path) -> None:
    connector = KubernetesConnector(open_artifacts(str(tmp_path)), Drawer(), SystemClock(), system=SYSTEM)
    text = kubeconfig(real.control_plane)
    facts = await connector.check(ClusterSettings(), Credentials(kubeconfig=text))
    assert (facts.missing, facts.warnings) == ((), ())
    kubectl(real.control_plane, "delete", "rolebinding", "--namespace=mainstay", "mainstay")
    try:
        missing = (await connector.check(ClusterSettings(), Credentials(kubeconfig=text))).missing
        assert missing == ("get, create, patch leases (to let one leader act at a time)",)
    finally:
        apply(real.control_plane, MANIFESTS / "overlays" / "remote-cluster")


FAR_TOO_MUCH = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("watch", "secrets"),
    ("create", "secrets"),
    ("get", "nodes/proxy"),
    ("create", "nodes/proxy"),
    ("update", "nodes"),
    ("delete", "nodes"),
    ("delete", "nodes"),
    ("delete", "namespaces"),
    ("patch", "namespaces"),
    ("update", "namespaces"),
    ("create", "serviceaccounts/token"),
    ("impersonate", "users"),
    ("create", "pods/attach"),
    ("patch", "pods/status"),
    ("patch", "pods/ephemeralcontainers"),
    ("deletecollection", "pods"),
    ("create", "configmaps"),
]


@pytest.mark.parametrize(("verb", "resource"), FAR_TOO_MUCH)
def test_the_account_may_not_do_what_it_does_not_need(real: RealCluster, verb: str, resource: str) -> None:
    for namespace in ("", "kube-system", "mainstay"):
        assert not can(real.control_plane, verb, resource, namespace=namespace)


@pytest.mark.parametrize("verb", ["bind", "escalate", "create", "patch"])
def test_the_account_may_not_give_itself_more(real: RealCluster, verb: str) -> None:
    for resource in ("roles", "clusterroles", "rolebindings", "clusterrolebindings"):
        assert not can(real.control_plane, verb, resource, group="rbac.authorization.k8s.io", namespace="mainstay")


def test_the_account_sees_no_leases_but_its_own(real: RealCluster) -> None:
    allowed = {
        namespace: can(real.control_plane, "patch", "leases", group="coordination.k8s.io", namespace=namespace)
        for namespace in ("mainstay", "kube-system", "kube-node-lease")
    }
    assert allowed == {"mainstay": True, "kube-system": False, "kube-node-lease": False}


def as_account(plane: ControlPlane, *words: str, given: str = "") -> str:
    """What the API server says to the account: its complaint, where it refuses."""
    try:
        return kubectl(plane, f"--as={ACCOUNT}", *words, given=given)
    except AssertionError as error:
        return str(error)


def _is_confined(plane: ControlPlane, *words: str, given: str) -> bool:
    """A policy takes effect a moment after it was made."""
    return "mainstay-confined" in as_account(plane, *words, given=given)


def test_the_account_is_confined_to_the_namespaces_that_it_makes(real: RealCluster) -> None:
    plane = real.control_plane
    harmless = pods.pod(create("x-1-0", real.node.name, script="true"), Settings(system=SYSTEM))
    harmless["spec"]["serviceAccountName"] = "default"
    for namespace in ("kube-system", "default", "mainstay"):
        words = ("create", "-f", "-", f"--namespace={namespace}", "--dry-run=server")
        until(partial(_is_confined, plane, *words, given=json.dumps(harmless)))
    kubectl(plane, "run", "victim", f"--image={images.BUSYBOX}", "--namespace=kube-system")
    try:
        for words in (("delete", "pod", "victim"), ("exec", "victim", "--", "true"), ("label", "pod", "victim", "a=b")):
            said = as_account(plane, "--namespace=kube-system", *words)
            assert "mainstay-confined" in said, said
    finally:
        kubectl(plane, "delete", "pod", "victim", "--namespace=kube-system", "--grace-period=0", "--force")
    assert "mainstay-namespaces" in as_account(plane, "create", "namespace", "other", "--dry-run=server")


FOREIGN = [
    {"metadata": {"labels": {"tier": "mine"}}},
    {"metadata": {"labels": {"kubernetes.io/hostname": None}}},
    {"metadata": {"annotations": {"of-others": "changed"}}},
    {"metadata": {"annotations": {"of-others": None}}},
    {"metadata": {"annotations": {"new": "by us"}}},
    {"metadata": {"finalizers": ["example.com/stays"]}},
    {"spec": {"taints": [{"key": "out", "effect": "NoExecute"}]}},
    {"spec": {"unschedulable": True, "providerID": "other://machine"}},
]
"""What whoever has the token could do to nodes, if its role were all."""


def test_the_account_may_cordon_a_node_and_change_nothing_else_of_it(real: RealCluster) -> None:
    plane, path = real.control_plane, f"/api/v1/nodes/{real.node.name}"
    plane.ask(path, method="PATCH", body={"metadata": {"annotations": {"of-others": "as it was"}}})

    def refusal(change: dict[str, Any]) -> str:
        try:
            plane.ask(f"{path}?dryRun=All", method="PATCH", body=change, user=ACCOUNT)
        except httpx2.HTTPStatusError as error:
            return str(error.response.json()["message"])
        return ""

    until(lambda: plane.ask(f"{POLICIES}/mainstay-nodes").get("status", {}).get("typeChecking") is not None)
    assert not plane.ask(f"{POLICIES}/mainstay-nodes")["status"]["typeChecking"].get("expressionWarnings")
    until(lambda: "mainstay-nodes" in refusal(FOREIGN[0]))
    for change in FOREIGN:
        assert "may only cordon nodes" in refusal(change), change
    marks = dict.fromkeys((names.CORDONED, names.CORDON_REASON, names.LET_IN), "1")
    for written in (marks, dict.fromkeys(marks)):
        assert not refusal({"metadata": {"annotations": written}, "spec": {"unschedulable": True}})


def test_the_api_server_takes_every_pod_that_we_may_make(real: RealCluster) -> None:
    plane = real.control_plane
    setting = Settings(system=SYSTEM)
    name = names.namespace(OWNER, system="dry-run")
    plane.ask("/api/v1/namespaces", method="POST", body=surroundings.namespace(name, OWNER, setting))
    plane.ask(f"/api/v1/namespaces/{name}/serviceaccounts", method="POST", body=surroundings.account(OWNER, setting))

    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
    @given(action=creations())
    def holds(action: Any) -> None:
        document = pods.pod(action, setting)
        spec = action.spec
        answer = plane.ask(
            f"/api/v1/namespaces/{name}/pods?dryRun=All&fieldValidation=Strict", method="POST", body=document
        )
        assert not faults(answer)
        if spec.resources.gpus:
            assert answer["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
            # What cannot be parted between two containers is far less than any container starts with.
            is_whole = spec.resources.cpu_milli > 1 and spec.resources.memory_bytes > 1
            assert not is_whole or answer["status"]["qosClass"] == "Guaranteed"

    holds()
    plane.ask(f"/api/v1/namespaces/{name}", method="DELETE")
