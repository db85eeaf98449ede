"""The API server itself holds what pods of projects may be, by the policies that we ship.

In a namespace under no profile at all: what is refused here is refused by our policies alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from mainstay.clusters.kubernetes import names, pods, surroundings
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.allocation import DeletePod
from mainstay.outbound import Outbound
from mainstay.registries import Registries
from mainstay.registries.keys import image_key
from testbed import programs
from testbed.control_plane import ControlPlane
from testbed.fixtures import until
from tests.clusters import OWNER, create
from tests.images import Signer, image_registry
from tests.integration.kubernetes.installed import ACCOUNT, MANIFESTS, apply, kubectl
from tests.unit.clusters.kubernetes.hostile import (
    ALLOWED,
    DIGEST,
    FORBIDDEN,
    FROM_ELSEWHERE,
    FROM_THERE,
    HARMLESS,
    Change,
    changed,
    changes,
)
from tests.unit.clusters.kubernetes.objects import creations
from tests.unit.clusters.kubernetes.safe import dangers

pytestmark = pytest.mark.xdist_group("api-server")

SYSTEM = "isolated"
SETTINGS = Settings(system=SYSTEM)
HOME = "ms-isolated"
PLAIN = pods.pod(create("run-1-0", "n1", script="true"), SETTINGS)
EXAMPLES = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "harden.md"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
OURS = ("mainstay-pods", "mainstay-services", "mainstay-allowed", "mainstay-namespaces")


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With the policies, and a namespace of a project that is under no profile."""
    folder = tmp_path_factory.mktemp("policies")
    parts = {
        "resources": [MANIFESTS / "access"],
        "components": [MANIFESTS / "components" / "confined", MANIFESTS / "components" / "isolated"],
    }
    document = {key: [os.path.relpath(path, folder) for path in paths] for key, paths in parts.items()}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    kubectl(control_plane, "apply", "-f", str(MANIFESTS / "access" / "namespace.yaml"))
    apply(control_plane, folder)
    labels = names.labels(OWNER, system=SYSTEM)
    control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": HOME, "labels": labels}})
    home = f"/api/v1/namespaces/{HOME}"
    control_plane.ask(f"{home}/serviceaccounts", method="POST", body=surroundings.account(OWNER, SETTINGS))
    sandbox = {"metadata": {"name": "of-the-node"}, "handler": "runc"}
    control_plane.ask("/apis/node.k8s.io/v1/runtimeclasses", method="POST", body=sandbox)
    until(lambda: refusal(control_plane, changed(PLAIN, FORBIDDEN[0])))
    yield control_plane
    control_plane.ask("/apis/node.k8s.io/v1/runtimeclasses/of-the-node", method="DELETE")
    control_plane.ask(home, method="DELETE")
    kubectl(control_plane, "delete", "-k", str(folder), "--wait=false")


def refusal(plane: ControlPlane, body: Any, *, kind: str = "pods") -> str:
    """What the API server says to a new object; empty if it takes it."""
    try:
        plane.ask(f"/api/v1/namespaces/{HOME}/{kind}?dryRun=All", method="POST", body=body)
    except httpx2.HTTPStatusError as error:
        return str(error.response.json()["message"])
    return ""


@pytest.mark.parametrize("name", OURS)
def test_the_api_server_understands_each_of_our_rules(plane: ControlPlane, name: str) -> None:
    """A field that it does not have would be refused only once a pod is made."""
    until(lambda: plane.ask(f"{POLICIES}/{name}").get("status", {}).get("typeChecking") is not None)
    assert not plane.ask(f"{POLICIES}/{name}")["status"]["typeChecking"].get("expressionWarnings")


@pytest.mark.parametrize("change", FORBIDDEN, ids=map(str, FORBIDDEN))
def test_a_pod_that_leaves_the_safe_set_is_refused_with_our_words(plane: ControlPlane, change: Change) -> None:
    said = refusal(plane, changed(PLAIN, change))
    assert "'mainstay-pods'" in said, said
    assert "of a project" in said


@pytest.mark.parametrize("change", HARMLESS, ids=map(str, HARMLESS))
def test_a_pod_that_stays_within_it_is_taken(plane: ControlPlane, change: Change) -> None:
    assert not refusal(plane, changed(PLAIN, change))


def test_of_any_pods_it_takes_those_that_the_checker_calls_safe(plane: ControlPlane) -> None:
    @EXAMPLES
    @given(action=creations(), some=changes)
    def holds(action: Any, some: list[Change]) -> None:
        document = changed(pods.pod(action, SETTINGS), *some)
        said = refusal(plane, document)
        if "is invalid" in said:  # two changes that no pod can have at once, whoever makes it
            return
        assert ("'mainstay-pods'" in said) is bool(dangers(document)), (said, dangers(document))

    holds()


def test_it_takes_all_that_we_render(plane: ControlPlane) -> None:
    @EXAMPLES
    @given(action=creations())
    def holds(action: Any) -> None:
        for maps_users in (False, True):
            assert not refusal(plane, pods.pod(action, SETTINGS, maps_users=maps_users))

    holds()
    gone = DeletePod(name="gone-1-0", grace_seconds=1, owner=OWNER)
    assert not refusal(plane, pods.tombstone(gone, SETTINGS, image="busybox"))


def test_what_is_there_may_be_marked_and_let_go_of_and_takes_nothing_in(plane: ControlPlane) -> None:
    path = f"/api/v1/namespaces/{HOME}/pods"
    there = pods.pod(create("there-1-0", "n1", script="true"), SETTINGS)
    plane.ask(path, method="POST", body=there)
    tolerates = [*there["spec"]["tolerations"], {"operator": "Exists"}]

    def said(change: Any, sub: str = "") -> str:
        try:
            plane.ask(f"{path}/there-1-0{sub}?dryRun=All", method="PATCH", body=change)
        except httpx2.HTTPStatusError as error:
            return str(error.response.json()["message"])
        return ""

    assert not said({"metadata": {"labels": {names.FORGOTTEN: "1"}, "finalizers": None}})
    assert "tolerates no taint" in said({"spec": {"tolerations": tolerates}})
    looks = {"name": "looks", "image": "busybox", "securityContext": {"privileged": True}}
    added = {"spec": {"ephemeralContainers": [looks]}}
    assert "nothing is added to it" in said(added, "/ephemeralcontainers")
    plane.ask(f"{path}/there-1-0", method="PATCH", body={"metadata": {"finalizers": None}})
    plane.ask(f"{path}/there-1-0?gracePeriodSeconds=0", method="DELETE")


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "LoadBalancer"},
        {"type": "NodePort"},
        {"type": "ExternalName", "externalName": "kubernetes.default.svc"},
        {"clusterIP": "None", "externalIPs": ["203.0.113.1"]},
        {},
    ],
)
def test_a_service_of_a_project_opens_no_way_in(plane: ControlPlane, spec: dict[str, Any]) -> None:
    ports = {"ports": [{"port": 80}], "selector": {"a": "b"}}
    body = {"metadata": {"name": "g-run-1"}, "spec": {**ports, **spec}}
    assert "is headless" in refusal(plane, body, kind="services")
    assert not refusal(plane, {**body, "spec": {"clusterIP": "None", **ports}}, kind="services")


@pytest.fixture
def allowed(plane: ControlPlane) -> Iterator[ControlPlane]:
    path = "/api/v1/namespaces/mainstay/configmaps"
    said = {"repositories": ALLOWED, "digests": "required", "tolerations": "dedicated example.com/pool"}
    plane.ask(path, method="POST", body={"metadata": {"name": "mainstay-allowed"}, "data": said})
    until(lambda: "mainstay-allowed" in refusal(plane, of_image("evil.example/x")))
    yield plane
    plane.ask(f"{path}/mainstay-allowed", method="DELETE")
    until(lambda: not refusal(plane, of_image("evil.example/x")))


def test_the_command_of_the_page_says_what_is_allowed(plane: ControlPlane) -> None:
    (script,) = re.findall(rf"<!-- tried: \S*{Path(__file__).name} -->\n```sh\n(.+?)```", PAGE.read_text(), re.DOTALL)
    path = f"{programs.path('kubectl').parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(plane.kubeconfig)}
    subprocess.run(["bash", "-euc", script], env=environment, check=True, capture_output=True)
    try:
        until(lambda: "images of projects come from" in refusal(plane, of_image(f"evil.example/x{DIGEST}")))
        assert not refusal(plane, of_image(f"python{DIGEST}"))
        assert "named by their digest" in refusal(plane, of_image("python"))
    finally:
        kubectl(plane, "delete", "configmap", "--namespace=mainstay", "mainstay-allowed")
        until(lambda: not refusal(plane, of_image("evil.example/x")))


def of_image(image: str) -> dict[str, Any]:
    return changed(PLAIN, *((f"spec.containers.{number}.image", image) for number in range(2)))


def test_images_come_from_where_an_administrator_allows_and_by_their_digest(allowed: ControlPlane) -> None:
    for image in FROM_THERE:
        assert not refusal(allowed, of_image(image)), image
        assert "named by their digest" in refusal(allowed, of_image(image.partition("@")[0])), image
    for image in FROM_ELSEWHERE:
        assert "images of projects come from" in refusal(allowed, of_image(image)), image
    one = changed(of_image(FROM_THERE[0]), ("spec.containers.1.image", FROM_ELSEWHERE[0]))
    assert "images of projects come from" in refusal(allowed, one)


def test_what_was_verified_is_the_digest_that_the_pod_names_and_the_api_server_demands(plane: ControlPlane) -> None:
    path, signer = "/api/v1/namespaces/mainstay/configmaps", Signer()
    with image_registry() as registry:
        digest = registry.push("ml/train", "1")
        registry.signed("ml/train", digest, signer)
        verified = asyncio.run(
            Registries(outbound=Outbound(), keys=[image_key(signer.public)]).pinned(f"{registry.host}/ml/train:1")
        )
        said = {"repositories": f"{registry.host}/ml", "digests": "required"}
    plane.ask(path, method="POST", body={"metadata": {"name": "mainstay-allowed"}, "data": said})
    try:
        until(lambda: "mainstay-allowed" in refusal(plane, of_image("evil.example/x")))
        settings = dataclasses.replace(SETTINGS, helper_image=verified)
        body = pods.pod(create("signed-1-0", "n1", script="true", image=verified), settings)
        assert {one["image"] for one in body["spec"]["containers"]} == {f"{said['repositories']}/train:1@{digest}"}
        assert not refusal(plane, body)
        assert "named by their digest" in refusal(plane, of_image(verified.partition("@")[0]))
    finally:
        plane.ask(f"{path}/mainstay-allowed", method="DELETE")
        until(lambda: not refusal(plane, of_image("evil.example/x")))


def test_taints_are_tolerated_that_an_administrator_allows(allowed: ControlPlane) -> None:
    def said(key: str, *more: Change) -> str:
        tolerations = ("spec.tolerations", [{"key": key, "operator": "Exists"}])
        return refusal(allowed, changed(of_image(FROM_THERE[0]), tolerations, *more))

    for key in ("dedicated", "example.com/pool", "nvidia.com/gpu", "cloud.google.com/gke-spot"):
        assert not said(key), key
    for key in ("dedicated2", "other", "example.com/poo", "amd.com/gpu"):
        assert "tolerate no taints but" in said(key), key
    device = ("spec.containers.0.resources.limits", {"amd.com/gpu": "1"})
    assert not said("amd.com/gpu", device), "a node of such devices is for who asks for them"


def test_our_account_relaxes_no_namespace_whatever_its_role_says(plane: ControlPlane) -> None:
    """As if somebody had given it everything."""
    words = ("clusterrolebinding", "too-much", "--clusterrole=cluster-admin", "--serviceaccount=mainstay:mainstay")
    kubectl(plane, "create", *words)
    relaxed = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    try:
        for name in (HOME, "default", "kube-system", "mainstay"):
            with pytest.raises(httpx2.HTTPStatusError) as refused:
                plane.ask(f"/api/v1/namespaces/{name}?dryRun=All", method="PATCH", body=relaxed, user=ACCOUNT)
            assert "'mainstay-namespaces'" in refused.value.response.json()["message"]
        good = surroundings.namespace("ms-new", OWNER, SETTINGS)
        plane.ask("/api/v1/namespaces?dryRun=All", method="POST", body=good, user=ACCOUNT)
        bad = json.loads(json.dumps(good).replace("restricted", "baseline"))
        with pytest.raises(httpx2.HTTPStatusError):
            plane.ask("/api/v1/namespaces?dryRun=All", method="POST", body=bad, user=ACCOUNT)
    finally:
        kubectl(plane, "delete", "clusterrolebinding", "too-much")


def test_a_project_is_kept_from_ways_in_and_from_what_makes_pods_by_its_quota(plane: ControlPlane) -> None:
    base = f"/api/v1/namespaces/{HOME}"
    plane.ask(f"{base}/resourcequotas", method="POST", body=surroundings.quota(OWNER, SETTINGS))
    until(lambda: plane.ask(f"{base}/resourcequotas/mainstay").get("status", {}).get("hard"))
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    daemons = {
        "metadata": {"name": "everywhere"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    with pytest.raises(httpx2.HTTPStatusError) as refused:
        plane.ask(f"/apis/apps/v1/namespaces/{HOME}/daemonsets?dryRun=All", method="POST", body=daemons)
    assert "exceeded quota: mainstay" in refused.value.response.json()["message"]
    assert not refusal(plane, PLAIN)
    policy = surroundings.default_deny(OWNER, SETTINGS)
    path = f"/apis/networking.k8s.io/v1/namespaces/{HOME}/networkpolicies?dryRun=All&fieldValidation=Strict"
    plane.ask(path, method="POST", body=policy)


def test_what_we_ship_is_what_an_overlay_takes_in() -> None:
    for overlay in ("agent", "example", "remote-cluster"):
        said = yaml.safe_load(Path(MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text())
        assert "../../components/isolated" in said["components"]
