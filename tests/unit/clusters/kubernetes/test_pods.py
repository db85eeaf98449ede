"""Whatever a user writes, the pod that comes of it is harmless, says what was meant, and is the same for the same request."""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from pydantic import ValidationError

from mainstay.clusters.kubernetes import names, pods, surroundings
from mainstay.clusters.kubernetes.names import FILES, MAIN, OUTPUTS
from mainstay.clusters.kubernetes.nodes import requests
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.domain.affinity import SPOT_LABELS, NodeNeed, Requirement, Spot, Toleration
from mainstay.domain.allocation import CreatePod, DeletePod
from mainstay.domain.quantity import Resources
from mainstay.domain.secret import SecretUse
from mainstay.domain.workload import Mount, Volume
from mainstay.wire.job import Job
from tests.clusters import OWNER, create
from tests.unit.clusters.kubernetes.objects import SETTINGS, creations, owners
from tests.unit.clusters.kubernetes.restricted import faults
from tests.unit.clusters.kubernetes.safe import dangers

OURS = {
    "apiVersion",
    "kind",
    "metadata",
    "spec",
}
SPEC_FIELDS = {
    "restartPolicy",
    "shareProcessNamespace",
    "serviceAccountName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "securityContext",
    "nodeName",
    "hostUsers",
    "schedulerName",
    "affinity",
    "resourceClaims",
    "hostname",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "initContainers",
    "containers",
    "volumes",
}
"""All that a pod of ours may say of itself."""
CONTAINER_FIELDS = {
    "name", "image", "command", "workingDir", "env", "resources", "securityContext", "volumeMounts", "ports", "readinessProbe",
    "livenessProbe",
}  # fmt: skip


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [*document["spec"]["initContainers"], *document["spec"]["containers"]]


def main(document: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in document["spec"]["containers"] if one["name"] == MAIN)


@given(action=creations())
def test_every_pod_passes_the_restricted_profile(action):
    assert faults(pods.pod(action, SETTINGS)) == []


@given(owner=owners)
def test_a_tombstone_passes_it_too_and_never_runs(owner):
    document = pods.tombstone(DeletePod(name="run-1-0", grace_seconds=1, owner=owner), SETTINGS, image="busybox")
    assert faults(document) == []
    assert document["spec"]["schedulingGates"]
    assert "nodeName" not in document["spec"]


@given(action=creations())
def test_a_pod_says_nothing_but_what_is_listed_here(action):
    document = pods.pod(action, SETTINGS)
    assert document.keys() <= OURS
    assert document["spec"].keys() <= SPEC_FIELDS
    for container in containers(document):
        assert container.keys() <= CONTAINER_FIELDS
        assert {key for port in container.get("ports", []) for key in port} <= {"containerPort"}
        assert {key for variable in container.get("env", []) for key in variable} <= {"name", "value"}
    kinds = {kind for volume in document["spec"]["volumes"] for kind in volume}
    assert {"name", "emptyDir"} <= kinds <= {"name", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    ours = [volume for volume in document["spec"]["volumes"] if volume["name"] in {"sign", "pulse", "secrets"}]
    assert all("sizeLimit" in volume["emptyDir"] for volume in ours)
    assert document["spec"]["automountServiceAccountToken"] is False
    assert {taint["key"] for taint in document["spec"]["tolerations"]} <= {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "nvidia.com/gpu",
        *SPOT_LABELS,
    }


def test_what_a_workload_needs_of_its_nodes_is_told_to_whoever_looks_at_it_again():
    """A kubelet refuses a pod whose affinity its node does not meet, and a taint evicts one that does not tolerate it."""
    need = NodeNeed(
        requirements=(
            Requirement(key="disk", operator="In", values=("ssd",)),
            Requirement(key="retiring", operator="DoesNotExist"),
        ),
        tolerations=(Toleration(key="dedicated", operator="Equal", value="ml", effect="NoExecute"),),
    )
    plain = create("p-1-0", "n1", script="true")
    action = replace(plain, spec=replace(plain.spec, need=need))
    document = pods.pod(action, SETTINGS)["spec"]
    required = document["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    lines = [{"key": "disk", "operator": "In", "values": ["ssd"]}, {"key": "retiring", "operator": "DoesNotExist"}]
    assert required == {"nodeSelectorTerms": [{"matchExpressions": lines}]}
    assert document["nodeName"] == action.node
    tolerated = {"key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoExecute"}
    assert tolerated in document["tolerations"]
    assert faults(pods.pod(action, SETTINGS)) == []
    bound = replace(action, spec=replace(action.spec, devices=("nic.example.com:1",)))
    (term,) = pods.pod(bound, SETTINGS)["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term.keys() == {"matchExpressions", "matchFields"}, "all of one term must hold"
    assert pods.identity(plain) == pods.identity(replace(plain, spec=replace(plain.spec, need=None)))
    assert pods.identity(action) != pods.identity(plain)


def test_a_pod_that_the_scheduler_of_its_cluster_binds_may_go_to_spot_nodes_unless_it_never_may():
    plain = create("p-1-0", "n1", script="true", devices=("nic.example.com:1",))
    for need, may in ((None, True), (NodeNeed(spot=Spot.ONLY), True), (NodeNeed(spot=Spot.NEVER), False)):
        document = pods.pod(replace(plain, spec=replace(plain.spec, need=need)), SETTINGS)
        assert (SPOT_LABELS.keys() <= {one["key"] for one in document["spec"]["tolerations"]}) is may


@given(action=creations())
def test_a_pod_with_claims_may_be_bound_to_the_node_that_we_chose_and_to_no_other(action):
    document = pods.pod(action, SETTINGS)
    spec = document["spec"]
    claims = [one for one in spec["volumes"] if one.keys() & {"ephemeral", "persistentVolumeClaim"}]
    claims += spec.get("resourceClaims", [])
    assert bool(claims) == ("nodeName" not in spec)
    if claims:
        ((term,),) = (
            affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
            for affinity in [spec["affinity"]["nodeAffinity"]]
        )
        assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
        assert spec["schedulerName"] == "default-scheduler"
        assert document["metadata"]["annotations"][names.PLACE] == "n1"


def test_secrets_are_in_memory_read_only_and_only_named():
    action = create("p-1-0", "n1", script="true", secrets=(SecretUse(name="hf-token", env="HF_TOKEN"),))
    document = pods.pod(action, SETTINGS)
    (volume,) = [one for one in document["spec"]["volumes"] if one["name"] == "secrets"]
    assert volume["emptyDir"]["medium"] == "Memory"
    (mounted,) = [one for one in main(document)["volumeMounts"] if one["name"] == "secrets"]
    assert mounted == {"name": "secrets", "mountPath": pods.SECRETS, "readOnly": True}
    assert "HF_TOKEN" not in {one["name"] for one in main(document)["env"]}
    assert [one["name"] for one in document["spec"]["initContainers"]] == [FILES]


def test_volumes_lie_where_they_were_asked_for():
    given_ = (
        Volume(path="/data", name="sets", read_only=True),
        Volume(path="scratch", size_bytes=1_000),
        Volume(path="/big", size_bytes=2_000, storage_class="fast"),
    )
    document = pods.pod(create("p-1-0", "n1", script="true", volumes=given_), SETTINGS)
    sources = {one["name"]: one for one in document["spec"]["volumes"]}
    assert sources["volume-0"]["persistentVolumeClaim"] == {"claimName": "sets", "readOnly": True}
    assert sources["volume-1"]["emptyDir"] == {"sizeLimit": "1000"}
    template = sources["volume-2"]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (template["storageClassName"], template["resources"]["requests"]) == ("fast", {"storage": "2000"})
    places = {one["name"]: one["mountPath"] for one in main(document)["volumeMounts"]}
    assert (places["volume-0"], places["volume-1"]) == ("/data", f"{pods.WORK}/scratch")


@given(action=creations())
def test_nothing_that_a_user_writes_is_expanded(action):
    container = main(pods.pod(action, SETTINGS))
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    given_, ours = dict(action.spec.env), variables.keys() - dict(action.spec.env).keys()
    assert tuple(expanded(text, variables) for text in container["command"]) == action.spec.argv
    for name, value in variables.items():
        if name in given_ and name not in {"PORT", "MASTER_PORT", "MASTER_ADDR"}:
            assert expanded(value, variables) == given_[name]
    assert {"MAINSTAY_OUTPUT_DIR", "MASTER_ADDR"} <= ours


def expanded(text: str, variables: dict[str, str]) -> str:
    """As the kubelet does it. Source: k8s.io/kubernetes/third_party/forked/golang/expansion."""
    out, at = "", 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text):
            following = text[at + 1]
            end = text.find(")", at + 2)
            if following == "$":
                out, at = out + "$", at + 2
            elif following == "(" and end >= 0:
                name = text[at + 2 : end]
                out, at = out + variables.get(name, f"$({name})"), end + 1
            elif following == "(":
                out, at = out + "$(", at + 2
            else:
                out, at = out + "$" + following, at + 2
        else:
            out, at = out + text[at], at + 1
    return out


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(B)", "$(B)"),
        ("$$", "$"),
        ("$", "$"),
        ("$(A", "$(A"),
        ("$x", "$x"),
    ],
)
def test_the_expansion_of_this_test_is_that_of_the_kubelet(text, result):
    assert expanded(text, {"A": "1"}) == result


@given(action=creations())
def test_a_rank_is_not_told_that_it_is_another_one(action):
    hostile = dataclasses.replace(
        action, spec=dataclasses.replace(action.spec, env=(("MASTER_ADDR", "evil"), ("MAINSTAY_OUTPUT_DIR", "/etc")))
    )
    for one in (action, hostile):
        variables = {entry["name"]: entry["value"] for entry in main(pods.pod(one, SETTINGS))["env"]}
        assert variables["MAINSTAY_OUTPUT_DIR"] == pods.OUTPUT
        assert variables["MASTER_ADDR"] != "evil"
        assert len(variables["MAINSTAY_NODE_IPS"].split(",")) == one.spec.size


@given(action=creations())
def test_the_same_request_is_the_same_object_and_any_other_has_another_identity(action):
    assert pods.pod(action, SETTINGS) == pods.pod(copy.deepcopy(action), SETTINGS)
    others = [
        dataclasses.replace(action, node="n2"),
        dataclasses.replace(action, spec=dataclasses.replace(action.spec, argv=(*action.spec.argv, "x"))),
        dataclasses.replace(action, spec=dataclasses.replace(action.spec, rank=action.spec.rank + 1)),
    ]
    assert pods.identity(action) not in {pods.identity(other) for other in others}


def service_of(action: CreatePod) -> dict[str, Any]:
    """As the cluster shows its pod, so is its service."""
    shown = copy.deepcopy(pods.pod(action, SETTINGS))
    shown["metadata"]["uid"] = "uid"
    return surroundings.gang_service(msgspec.convert(shown, Pod))


@given(action=creations())
def test_every_object_says_whose_it_is(action):
    owner = action.spec.owner
    tombstone = DeletePod(name=action.name, grace_seconds=1, owner=owner)
    for document in (
        pods.pod(action, SETTINGS),
        service_of(action),
        surroundings.namespace("ms-x", owner, SETTINGS),
        surroundings.default_deny(owner, SETTINGS),
        pods.tombstone(tombstone, SETTINGS, image="busybox"),
    ):
        labels = document["metadata"]["labels"]
        assert labels[names.MANAGED_BY] == "mainstay"
        assert labels[names.SYSTEM] == names.short(SETTINGS.system)
        assert (labels[names.TENANT], labels[names.PROJECT]) == (owner.tenant, owner.project)


@given(action=creations())
def test_an_object_stays_until_its_end_is_on_record(action):
    assert pods.pod(action, SETTINGS)["metadata"]["finalizers"] == [names.RECORDED]


@given(action=creations())
def test_a_pod_holds_exactly_what_was_asked_for_helpers_included(action):
    assert requests(msgspec.convert(pods.pod(action, SETTINGS), Pod)) == action.spec.resources


@given(action=creations())
def test_with_gpus_every_container_is_limited_to_what_it_requests(action):
    document, wanted = pods.pod(action, SETTINGS), action.spec.resources
    if not wanted.gpus:
        assert all("resources" not in one for one in containers(document) if one["name"] != MAIN)
        return
    for one in containers(document):
        assert one["resources"]["requests"] == one["resources"]["limits"]
        assert {"cpu", "memory"} <= one["resources"]["limits"].keys()
        assert ("nvidia.com/gpu" in one["resources"]["limits"]) == (one["name"] == MAIN)


def test_who_keeps_the_output_of_a_pod_with_gpus_takes_little_of_it_and_more_only_to_copy():
    asked = Resources(cpu_milli=8_000, memory_bytes=64 << 30, gpus=1)
    amounts = {}
    for volumes in ((), (Volume(path="/out", target="s3://bucket/x"),)):
        document = pods.pod(create("p-1-0", "n1", script="", resources=asked, volumes=volumes), SETTINGS)
        amounts[len(volumes)] = {one["name"]: one["resources"]["limits"] for one in containers(document)}
    assert amounts[0][OUTPUTS] == {"cpu": "100m", "memory": str(32 << 20)}
    assert amounts[0][MAIN] == {"cpu": "7900m", "memory": str((64 << 30) - (32 << 20)), "nvidia.com/gpu": "1"}
    assert amounts[1][OUTPUTS] == {"cpu": "500m", "memory": str(384 << 20)}
    other = pods.pod(create("p-1-1", "n1", script="", resources=asked, rank=1, size=2), SETTINGS)
    assert main(other)["resources"]["limits"]["cpu"] == "8000m"


def test_a_deadline_is_kept_by_the_kubelet_and_ends_the_run_alone():
    document = pods.pod(create("p-1-0", "n1", script="true", deadline_seconds=90), SETTINGS)
    assert "activeDeadlineSeconds" not in document["spec"]
    probe = main(document)["livenessProbe"]
    assert (probe["initialDelaySeconds"], probe["failureThreshold"], probe["httpGet"]["port"]) == (90, 1, 9)
    assert [one["name"] for one in containers(document) if "livenessProbe" in one] == [MAIN]
    assert document["metadata"]["annotations"][names.DEADLINE] == "90"
    assert "livenessProbe" not in main(pods.pod(create("p-1-0", "n1", script="true"), SETTINGS))


def test_helpers_are_there_for_what_they_do_and_for_nothing_else():
    job = pods.pod(create("run-1-0", "n1", script="true"), SETTINGS)
    assert [one["name"] for one in containers(job)] == [MAIN, OUTPUTS]
    mounts = (Mount(path=".", tree="0" * 64),)
    assert [
        one["name"] for one in containers(pods.pod(create("run-1-0", "n1", script="", mounts=mounts), SETTINGS))
    ] == [
        FILES,
        MAIN,
        OUTPUTS,
    ]
    assert [
        one["name"] for one in containers(pods.pod(create("run-1-1", "n1", script="", rank=1, size=2), SETTINGS))
    ] == [MAIN]
    service = pods.pod(create("run-1-0", "n1", script="", port=True, ready_path="/ready"), SETTINGS)
    assert [one["name"] for one in containers(service)] == [MAIN]
    assert main(service)["readinessProbe"]["httpGet"] == {"path": "/ready", "port": pods.PORT}


def test_the_service_of_a_gang_goes_with_its_first_rank_and_finds_all_of_them():
    action = create("run-1-0", "n1", script="", gang="run-1", size=2)
    service, pod = service_of(action), pods.pod(action, SETTINGS)
    assert service["metadata"]["ownerReferences"][0]["uid"] == "uid"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    hosts = {entry["name"]: entry["value"] for entry in main(pod)["env"]}["MAINSTAY_NODE_IPS"].split(",")
    assert [host.partition(".")[0] for host in hosts] == ["run-1-0", "run-1-1"]


def test_a_namespace_enforces_the_restricted_profile_of_a_version_that_is_pinned():
    labels = surroundings.namespace("ms-x", OWNER, SETTINGS)["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
    assert labels["pod-security.kubernetes.io/enforce-version"].startswith("v1.")


@given(action=creations())
def test_a_pod_has_users_of_its_own_where_its_node_can_and_nothing_of_it_is_of_the_node(action):
    spec = pods.pod(action, SETTINGS, maps_users=True)["spec"]
    own = "nodeName" in spec and not action.spec.resources.gpus
    assert spec.get("hostUsers") is (False if own else None)
    assert "hostUsers" not in pods.pod(action, SETTINGS)["spec"]
    assert dangers(pods.pod(action, SETTINGS, maps_users=True)) == []


FORBIDDEN = {
    "hostNetwork": True, "hostPID": True, "hostIPC": True, "privileged": True, "securityContext": {"privileged": True},
    "capabilities": {"add": ["SYS_ADMIN"]}, "sysctls": [{"name": "kernel.msgmax", "value": "1"}], "nodeName": "n1",
    "nodeSelector": {"a": "b"}, "schedulerName": "other", "runtimeClassName": "none", "serviceAccountName": "default",
    "serviceAccount": "default", "automountServiceAccountToken": True, "tolerations": [{"operator": "Exists"}],
    "priorityClassName": "system-node-critical", "ownerReferences": [{"kind": "Pod"}], "finalizers": ["a/b"],
    "volumes": [{"name": "root", "hostPath": {"path": "/"}}], "volumeMounts": [{"name": "root", "mountPath": "/host"}],
    "hostAliases": [{"ip": "127.0.0.1"}], "hostPort": 80, "initContainers": [{"name": "x"}], "containers": [{"name": "x"}],
    "ephemeralContainers": [{"name": "x"}], "affinity": {}, "dnsConfig": {}, "imagePullSecrets": [{"name": "x"}],
    "shareProcessNamespace": True, "annotations": {"a": "b"}, "labels": {"a": "b"}, "pod_spec": {"hostNetwork": True},
    "podSpec": {}, "spec": {}, "metadata": {}, "envFrom": [{"secretRef": {"name": "x"}}],
}  # fmt: skip


@pytest.mark.parametrize("field", FORBIDDEN, ids=FORBIDDEN.keys())
def test_a_job_file_cannot_reach_a_field_of_a_pod_that_is_ours(field):
    plain = {"run": "true"}
    Job.model_validate(plain)
    for document in (plain | {field: FORBIDDEN[field]}, plain | {"resources": {field: FORBIDDEN[field]}}):
        with pytest.raises(ValidationError):
            Job.model_validate(document)


def test_a_variable_may_not_be_read_from_elsewhere():
    for env in ({"A": {"valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}}, [{"name": "A", "valueFrom": {}}]):
        with pytest.raises(ValidationError):
            Job.model_validate({"run": "true", "env": env})


BROKEN = [
    ("hostNetwork", True),
    ("hostPID", True),
    ("hostIPC", True),
    ("volumes", [{"name": "x", "hostPath": {"path": "/"}}]),
    ("securityContext", {}),
    ("securityContext", {"runAsNonRoot": True}),
    ("securityContext", {"runAsNonRoot": True, "runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}),
    ("securityContext", {"runAsNonRoot": True, "seccompProfile": {"type": "Unconfined"}}),
    (
        "securityContext",
        {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "sysctls": [{"name": "a"}]},
    ),
    (
        "securityContext",
        {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"user": "u"}},
    ),
    (
        "securityContext",
        {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Unconfined"}},
    ),
]
BROKEN_CONTAINERS: list[dict[str, Any]] = [
    {"privileged": True},
    {"allowPrivilegeEscalation": True},
    {"capabilities": {}},
    {"capabilities": {"drop": ["ALL"], "add": ["X"]}},
    {"procMount": "Unmasked"},
    {"runAsUser": 0},
    {"runAsNonRoot": False},
    {"seccompProfile": {"type": "Unconfined"}},
]


def test_the_checker_of_this_test_finds_what_the_profile_forbids():
    good = json.loads(json.dumps(pods.pod(create("run-1-0", "n1", script="true"), SETTINGS)))
    assert not faults(good)
    for field, value in BROKEN:
        assert faults({**good, "spec": {**good["spec"], field: value}}), (field, value)
    for change in BROKEN_CONTAINERS:
        bad = copy.deepcopy(good)
        bad["spec"]["containers"][0]["securityContext"] |= change
        assert faults(bad), change
    for change in ({"ports": [{"hostPort": 80}]}, {"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}):
        bad = copy.deepcopy(good)
        bad["spec"]["containers"][0] |= change
        assert faults(bad), change


@given(action=creations())
def test_what_an_image_says_to_hooks_on_the_node_counts_for_nothing(action):
    """CVE-2025-23266: a library that an image preloads ran as root of the node, in a hook of the runtime."""
    variables = {entry["name"]: entry["value"] for entry in main(pods.pod(action, SETTINGS))["env"]}
    assert variables["LD_PRELOAD"] == variables["LD_AUDIT"] == ""
    given_gpus = bool(action.spec.resources.gpus or action.spec.devices)
    assert ("NVIDIA_VISIBLE_DEVICES" in variables) is not given_gpus
