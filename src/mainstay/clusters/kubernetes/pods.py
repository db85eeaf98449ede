"""From the pod that is wanted to the object that the API server gets: a pure function.

What users may say is a short list (security.md A3): command, environment, image, amounts. All else is ours, and fits
the restricted profile of the Pod Security Standards whatever they say (A2, A4).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.devices import GPU_RESOURCE, Devices
from mainstay.clusters.kubernetes.kinds import RESOURCE_CLAIMS
from mainstay.clusters.kubernetes.names import FILES, MAIN, OUTPUTS
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.affinity import SPOT_TOLERATIONS, Requirement, Spot
from mainstay.domain.allocation import CreatePod, DeletePod, Owner, PodSpec
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import Volume

Document = dict[str, Any]
"""An object as JSON; Any: trees of JSON."""

USER = 1_000
"""Whoever the image says, nobody runs as root, and files are written by one user."""
ROOT = "/mainstay"
WORK, OUTPUT, HOME, SIGN, SECRETS, TMP, SHARED_MEMORY = (
    "/mainstay/work",
    "/mainstay/output",
    "/mainstay/home",
    "/mainstay/sign",
    "/mainstay/secrets",
    "/tmp",  # noqa: S108 a volume of the pod's own
    "/dev/shm",  # noqa: S108
)
VOLUMES = {"work": WORK, "output": OUTPUT, "home": HOME, "tmp": TMP}
SECRETS_BYTES = "16Mi"
"""Of memory, at most: far more than any job has."""
SIGN_BYTES = "1Mi"
"""Of what holds a mark of ours and nothing else. What a job writes is limited by the disk of its node alone: we cannot know."""
BINDER = "default-scheduler"
"""Of the cluster: it binds what claims of storage a pod names, and puts it on the node that we chose."""
PLUGIN = Devices(model="", resource=GPU_RESOURCE, has=0, gives=0)
"""GPUs as a device plugin offers them."""
GPUS, CLAIMED = "gpus", "claimed"
"""A request for devices in the claim that we make for a pod, and that claim in the pod."""
PORT = 8_080
"""Where a service listens: every pod has an address of its own."""
GANG_PORT = 29_500
READ_WRITE_ONCE = "ReadWriteOnce"

ALIVE, PULSE = "/mainstay/alive", "/mainstay/pulse"
"""Where a pod hears that it was renewed, and remembers when it did."""
REVOKED = "revoked"
DEAD_MAN_WORDS = "mainstay: cut off, and not renewed for too long"
DEAD_MAN_PERIOD_SECONDS = 10

NOBODY_LISTENS = 9
"""The port for `discard` (RFC 863). A probe that asks for a page there fails, as it must once the time of a pod is over."""

KEEPER = Resources(cpu_milli=100, memory_bytes=32 << 20)
"""Of a pod with GPUs, for the container that keeps its output: a shell and tar."""
COPIER = Resources(cpu_milli=500, memory_bytes=384 << 20)
"""Likewise where that copies to object stores: as much as `mainstay.transfer` has on its way at once, and Python."""

WAIT_FOR_FILES = f"trap 'exit 1' TERM; until [ -e {SIGN}/complete ]; do sleep 0.1; done"
KEEP_OUTPUTS = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"

_NO_PRIVILEGES: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def identity(action: CreatePod) -> str:
    """The same for the same request."""
    spec = msgspec.to_builtins(action.spec)
    if not action.spec.dead_man_seconds:
        del spec["dead_man_seconds"]  # pods that were made before there was one are still the same
    if not action.spec.elastic:
        del spec["elastic"]  # likewise
    if not action.spec.need:
        del spec["need"]  # likewise
    document = [action.node, spec]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def meets_others(spec: PodSpec) -> bool:
    """Whether it belongs to a gang, or to one that may become one."""
    return spec.size > 1 or spec.elastic


def namespace_of(pod: str, owner: Owner, settings: Settings) -> str:
    """Where a pod lives."""
    shard = names.shard_of(names.gang_of(pod), settings.namespaces_per_project)
    return names.namespace(owner, system=settings.system, shard=shard)


def pod(action: CreatePod, settings: Settings, *, device: Devices = PLUGIN, maps_users: bool = False) -> Document:
    """The object of a pod. It names its node: one write, where creating and binding are two.

    `device`: how that node offers the GPUs, or slices of them, that are asked for. `maps_users`: its runtime can give a pod users
    of its own.
    A pod that names claims of storage or devices may not: its cluster's own scheduler binds them. It may choose no node but ours.
    """
    spec, claimed = action.spec, claimed_devices(action, device)
    binds = bool(claimed) or needs_binding(spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": action.name,
            "labels": {
                **names.labels(spec.owner, system=settings.system),
                names.GANG: spec.gang,
                names.RANK: str(spec.rank),
            },
            "annotations": {**dict(_annotations(action, binds=binds)), **_claim_annotations(device, claimed)},
            "finalizers": [names.RECORDED],
        },
        "spec": {
            **_POD_DEFAULTS,
            **_placed(action, binds=binds),
            **({"hostUsers": False} if maps_users and not binds and not spec.resources.gpus else {}),
            "hostname": action.name,
            **({"subdomain": names.gang_service(spec.gang)} if meets_others(spec) else {}),
            "terminationGracePeriodSeconds": max(1, spec.stop_grace_seconds),
            "tolerations": list(_tolerations(action, device, binds=binds)),
            "initContainers": [_files(action, settings)] if waits_to_be_handed_something(spec) else [],
            "containers": [
                _main(action, settings, device, claimed),
                *([_outputs(action, settings)] if _keeps_output(action) else []),
            ],
            "volumes": list(_volumes(action)),
            **_device_claims(action, claimed),
        },
    }


def waits_to_be_handed_something(spec: PodSpec) -> bool:
    """Whether files or secrets must be there before it starts."""
    return bool(spec.mounts or seen_secrets(spec) or any(volume.source for volume in spec.volumes))


def seen_secrets(spec: PodSpec) -> list[str]:
    """The secrets that the pod itself sees."""
    return [use.name for use in spec.secrets if use.file]


def needs_binding(spec: PodSpec) -> bool:
    """Whether it names claims, of storage or of devices, which may have to be bound where it is to run."""
    return bool(spec.devices) or any(volume.name or volume.storage_class for volume in spec.volumes)


def claim(volume: Volume, owner: Owner, settings: Settings) -> Document:
    """A claim of storage that outlives the runs that use it: nobody owns it, and it goes only when somebody removes it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume.name, "labels": names.labels(owner, system=settings.system)},
        "spec": _claim_spec(volume),
    }


def _claim_spec(volume: Volume) -> Document:
    return {
        "accessModes": [volume.access or READ_WRITE_ONCE],
        "resources": {"requests": {"storage": str(volume.size_bytes)}},
        **({"storageClassName": volume.storage_class} if volume.storage_class else {}),
    }


def _placed(action: CreatePod, *, binds: bool) -> Document:
    asked = action.spec.need.requirements if action.spec.need else ()
    term: Document = {}
    if asked:
        term["matchExpressions"] = [_expression(one) for one in asked]
    if binds:
        term["matchFields"] = [{"key": "metadata.name", "operator": "In", "values": [action.node]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    affinity = {"affinity": {"nodeAffinity": required}} if term else {}
    return {**({"schedulerName": BINDER} if binds else {"nodeName": action.node}), **affinity}


def _expression(one: Requirement) -> Document:
    return {"key": one.key, "operator": one.operator, **({"values": list(one.values)} if one.values else {})}


def claimed_devices(action: CreatePod, device: Devices) -> list[list[str | int]]:
    """What the claim that we make for a pod asks for: [name, class, count, selector]; nothing if it needs none.

    `CLASS:COUNT` among its devices asks for devices of a DeviceClass; without a count it is a template of a claim.
    """
    asked: list[list[str | int]] = []
    if device.device_class and action.spec.resources.gpus:
        asked.append([GPUS, device.device_class, action.spec.resources.gpus, device.selector])
    for number, text in enumerate(action.spec.devices):
        class_, _, count = text.partition(":")
        if count:
            asked.append([_device_name(number), class_, int(count), ""])
    return asked


def device_claim(pod: Pod) -> Document:
    """The claim of devices of a pod that is there. It goes with the pod."""
    meta = pod.metadata
    kept = (names.MANAGED_BY, names.SYSTEM, names.TENANT, names.PROJECT)
    requests = [
        {
            "name": name,
            "exactly": {
                "deviceClassName": class_,
                "allocationMode": "ExactCount",
                "count": count,
                **({"selectors": [{"cel": {"expression": selector}}]} if selector else {}),
            },
        }
        for name, class_, count, selector in json.loads(meta.annotations[names.CLAIM])
    ]
    return {
        "apiVersion": RESOURCE_CLAIMS.api_version,
        "kind": RESOURCE_CLAIMS.name,
        "metadata": {
            "name": meta.name,
            "labels": {name: meta.labels[name] for name in kept},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid}],
        },
        "spec": {"devices": {"requests": requests}},
    }


def _claim_annotations(device: Devices, claimed: list[list[str | int]]) -> Document:
    if not claimed:
        return {}
    gpus = {names.CLAIMED: f"{device.resource} {claimed[0][2]}"} if claimed[0][0] == GPUS else {}
    return {names.CLAIM: json.dumps(claimed), **gpus}


def _device_claims(action: CreatePod, claimed: list[list[str | int]]) -> Document:
    """A claim of its own per template, made by the cluster and gone with the pod (KEP-4381), and the one that we make."""
    templates = [(number, text) for number, text in enumerate(action.spec.devices) if ":" not in text]
    claims = [{"name": _device_name(number), "resourceClaimTemplateName": text} for number, text in templates]
    if claimed:
        claims.append({"name": CLAIMED, "resourceClaimName": action.name})
    return {"resourceClaims": claims} if claims else {}


def _device_name(number: int) -> str:
    return f"device-{number}"


def tombstone(action: DeletePod, settings: Settings, *, image: str) -> Document:
    """An object that takes the name of a pod and never runs: it has a gate that nobody opens (KEP-3521)."""
    assert action.owner is not None
    container = {"name": MAIN, "image": image, "command": ["/bin/false"], "securityContext": dict(_NO_PRIVILEGES)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": action.name,
            "labels": {**names.labels(action.owner, system=settings.system), names.TOMBSTONE: "true"},
            "annotations": {names.LAST_NODE: action.node} if action.node else {},
            "finalizers": [names.RECORDED],
        },
        "spec": {
            **_POD_DEFAULTS,
            "schedulingGates": [{"name": names.TOMBSTONE}],
            "terminationGracePeriodSeconds": max(1, action.grace_seconds),
            "containers": [container],
        },
    }


_POD_DEFAULTS: Mapping[str, Any] = {
    "restartPolicy": "Never",
    # A process with the number 1 that does not handle SIGTERM never gets it: a stop would take its whole grace.
    "shareProcessNamespace": True,
    "serviceAccountName": names.ACCOUNT,
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


def _annotations(action: CreatePod, *, binds: bool) -> Iterator[tuple[str, str]]:
    spec = action.spec
    yield names.IDENTITY, identity(action)
    if spec.mounts:
        yield names.MOUNTS, json.dumps([[mount.path, mount.tree] for mount in spec.mounts])
    if spec.secrets:
        yield names.SECRETS, " ".join(dict.fromkeys(use.name for use in spec.secrets))
    objects = [
        [mount_path(volume), volume.source, volume.target, volume.secret]
        for volume in spec.volumes
        if volume.source or volume.target
    ]
    if objects:
        yield names.OBJECTS, json.dumps(objects)
    if binds:
        yield names.PLACE, action.node
    if spec.port:
        yield names.PORT, str(PORT)
    if spec.ready_path:
        yield names.READY_PATH, spec.ready_path
    if spec.dead_man_seconds:
        yield names.RENEWED, "0"
    if spec.deadline_seconds:
        yield names.DEADLINE, str(spec.deadline_seconds)


def _main(action: CreatePod, settings: Settings, device: Devices, claimed: list[list[str | int]]) -> Document:
    spec = action.spec
    container: Document = {
        "name": MAIN,
        "image": spec.image or settings.image,
        "command": list(map(_literal, spec.argv)),
        "workingDir": WORK,
        "env": [{"name": name, "value": _literal(value)} for name, value in _environment(action, settings)],
        "resources": _resources(action, device),
        "securityContext": dict(_NO_PRIVILEGES),
        "volumeMounts": [
            *({"name": name, "mountPath": path} for name, path in VOLUMES.items()),
            {"name": "shared-memory", "mountPath": SHARED_MEMORY},
            *([{"name": "secrets", "mountPath": SECRETS, "readOnly": True}] if seen_secrets(spec) else []),
            *(_mount(number, volume) for number, volume in enumerate(spec.volumes)),
        ],
    }
    if claims := _device_claims(action, claimed).get("resourceClaims"):
        container["resources"] = {**container["resources"], "claims": [{"name": claim["name"]} for claim in claims]}
    if spec.port:
        container["ports"] = [{"containerPort": PORT}]
    if spec.ready_path:
        check = {"httpGet": {"path": spec.ready_path, "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5}
        container["readinessProbe"] = check
    if spec.dead_man_seconds:
        mounts = ({"name": name, "mountPath": path} for name, path in (("alive", ALIVE), ("pulse", PULSE)))
        container["volumeMounts"] = [*container["volumeMounts"], *mounts]
        script = dead_man(spec.dead_man_seconds, deadline_seconds=spec.deadline_seconds)
        container["livenessProbe"] = {
            "exec": {"command": ["/bin/sh", "-c", _literal(script)]},
            "periodSeconds": DEAD_MAN_PERIOD_SECONDS,
            "timeoutSeconds": DEAD_MAN_PERIOD_SECONDS,
            "failureThreshold": 3,
        }
    elif spec.deadline_seconds:
        container["livenessProbe"] = deadline(spec.deadline_seconds)
    return container


def deadline(seconds: int) -> Document:
    """A probe that is made for the first time so long after the container has started, and fails: its kubelet then ends this
    container and no other, with the grace of the pod.

    The deadline of a pod (activeDeadlineSeconds) would count the pull of its image too, and end what keeps its output.
    """
    return {
        "httpGet": {"path": "/", "port": NOBODY_LISTENS},
        "initialDelaySeconds": seconds,
        "periodSeconds": 1,
        "timeoutSeconds": 1,
        "failureThreshold": 1,
    }


def dead_man(seconds: int, *, deadline_seconds: int = 0) -> str:
    """What a kubelet asks of a pod, also while it is cut off itself: has it been renewed within so long, is its time not over?

    The kubelet writes what it has heard last of the pod's own annotations into a file. How long ago that was is told by a
    clock that no jump of the wall clock moves (CLOCK_BOOTTIME). It needs a shell in the image, and nothing else.
    """
    over = (
        f"read first < {PULSE}/first 2>/dev/null || {{ first=$up; echo $up > {PULSE}/first; }}; "
        f"[ $((up - first)) -lt {deadline_seconds} ] || exit 1; "
    )
    return (
        f"read up rest < /proc/uptime; up=${{up%%.*}}; {over if deadline_seconds else ''}"
        f"read now < {ALIVE}/renewed; "
        f"read last at < {PULSE}/last 2>/dev/null; "
        f'if [ "$now" != {REVOKED} ]; then '
        f'if [ "$now" != "$last" ]; then echo "$now $up" > {PULSE}/last; exit 0; fi; '
        f"if [ $((up - at)) -lt {seconds} ]; then exit 0; fi; fi; "
        f"echo '{DEAD_MAN_WORDS}' > /dev/termination-log; exit 1"
    )


def _mount(number: int, volume: Volume) -> Document:
    only = {"readOnly": True} if volume.read_only else {}
    return {"name": _volume_name(number), "mountPath": mount_path(volume), **only}


def mount_path(volume: Volume) -> str:
    """Relative paths lie in the working directory, as they do on a machine without containers."""
    return volume.path if volume.path.startswith("/") else f"{WORK}/{volume.path}"


def _volume_name(number: int) -> str:
    return f"volume-{number}"


def _literal(text: str) -> str:
    """The kubelet expands `$(NAME)` in commands and values, and makes one dollar of every two, so each is written twice."""
    return text.replace("$", "$$")


def _environment(action: CreatePod, settings: Settings) -> list[tuple[str, str]]:
    """The users' variables, then ours: a rank must not be told that it is another one."""
    spec = action.spec
    given = {"HOME": HOME, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "TMPDIR": TMP, **dict(spec.env)}
    hosts = _hosts(action, settings)
    ours = {
        "MAINSTAY_OUTPUT_DIR": OUTPUT,
        "MAINSTAY_MASTER_ADDR": hosts[0],
        "MAINSTAY_NODE_IPS": ",".join(hosts),
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": str(GANG_PORT),
        **({"MAINSTAY_SECRETS_DIR": SECRETS} if seen_secrets(spec) else {}),
        **({"PORT": str(PORT), "MAINSTAY_HOST": "0.0.0.0"} if spec.port else {}),  # noqa: S104 inside the pod
        **_IN_PLACE_OF_THE_IMAGES,
        **({} if spec.resources.gpus or spec.devices else {"NVIDIA_VISIBLE_DEVICES": "void"}),
    }
    return sorted({**given, **ours}.items())


_IN_PLACE_OF_THE_IMAGES: Final = {"LD_PRELOAD": "", "LD_AUDIT": ""}
"""What an image brings along is a variable of the container, and hooks of a runtime on the node have run with those: a library of
the image as root of the node (CVE-2025-23266; security.md A9). And an image that says that all GPUs are visible must not be
believed where none was given.
"""


def _hosts(action: CreatePod, settings: Settings) -> list[str]:
    """By rank. Ranks that have just started may not be found for a few seconds: whoever connects tries again.

    Of an elastic gang some may have left by now; rank 0 never has.
    """
    spec = action.spec
    if not meets_others(spec):
        return ["localhost"]
    domain = f"{names.gang_service(spec.gang)}.{namespace_of(action.name, spec.owner, settings)}.svc"
    hosts = [f"{names.gang_of(action.name)}-{rank}.{domain}" for rank in range(max(spec.size, spec.rank + 1))]
    # Rank 0 listens at its name at once, and the service knows it only seconds later; its own hosts file always does.
    hosts[spec.rank] = action.name
    return hosts


def _resources(action: CreatePod, device: Devices) -> Document:
    """Where there are GPUs, limits are what is requested: such a pod is the last to be evicted (Guaranteed).

    What the container that keeps its output gets is taken off: the pod is given, and billed, what was asked for and no more.
    """
    spec, wanted = action.spec, action.spec.resources
    if wanted.gpus:
        kept = _kept_back(action)
        left = Resources(
            cpu_milli=wanted.cpu_milli - kept.cpu_milli, memory_bytes=wanted.memory_bytes - kept.memory_bytes
        )
        whole = {**_amounts(left), **({} if device.device_class else {device.resource: str(wanted.gpus)})}
        return {"requests": whole, "limits": whole}
    requests, limits = _amounts(wanted), {}
    if spec.cpu_limit_milli:
        limits["cpu"] = f"{spec.cpu_limit_milli}m"
    if spec.memory_limit_bytes:
        limits["memory"] = str(spec.memory_limit_bytes)
    return {"requests": requests, "limits": limits}


def _kept_back(action: CreatePod) -> Resources:
    """What the container that keeps the output takes of a pod with GPUs: half of it at most, of the little that tests ask for."""
    if not _keeps_output(action):
        return Resources()
    wanted = action.spec.resources
    share = COPIER if any(volume.target for volume in action.spec.volumes) else KEEPER
    return Resources(
        cpu_milli=min(share.cpu_milli, wanted.cpu_milli // 2),
        memory_bytes=min(share.memory_bytes, wanted.memory_bytes // 2),
    )


def _amounts(amount: Resources) -> dict[str, str]:
    return {"cpu": f"{amount.cpu_milli}m", "memory": str(amount.memory_bytes)}


def _bounded(helper: Document, action: CreatePod, amount: Resources) -> Document:
    """A helper of a pod with GPUs: one container without limits would cost the whole pod its class."""
    if not action.spec.resources.gpus:
        return helper
    return {**helper, "resources": {"requests": _amounts(amount), "limits": _amounts(amount)}}


def _tolerations(action: CreatePod, device: Devices, *, binds: bool) -> Iterator[Document]:
    """A node that is away for a while keeps its pods: whether they are dead is for us to find out (R5)."""
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        yield {"key": key, "operator": "Exists", "effect": "NoExecute"}
    # A scheduler looks at taints that a pod which names its node need not put up with. We only give a pod such a node if it may.
    if action.spec.resources.gpus or binds:
        yield {"key": GPU_RESOURCE, "operator": "Exists"}
    if action.spec.resources.gpus and not device.device_class and device.resource not in {"", GPU_RESOURCE}:
        yield {"key": device.resource, "operator": "Exists"}
    need = action.spec.need
    spot = SPOT_TOLERATIONS if binds and (need is None or need.spot is not Spot.NEVER) else ()
    for one in (*(need.tolerations if need else ()), *spot):
        said = {"key": one.key, "operator": one.operator, "value": one.value, "effect": one.effect}
        yield {name: text for name, text in said.items() if text}


def _keeps_output(action: CreatePod) -> bool:
    """Rank 0 of what may end well speaks for its gang; a service never does."""
    return action.spec.rank == 0 and not action.spec.port


def _files(action: CreatePod, settings: Settings) -> Document:
    """Waits until code and secrets have been handed in. No path from the pod to us, and no credential for it, is needed."""
    secrets = {"secrets": SECRETS} if seen_secrets(action.spec) else {}
    sources = {number: volume for number, volume in enumerate(action.spec.volumes) if volume.source}
    helper = _helper(FILES, settings, WAIT_FOR_FILES, work=WORK, sign=SIGN, **secrets)
    # Nothing else of the pod runs yet.
    return _bounded(_with_objects(helper, sources, settings), action, action.spec.resources)


def _outputs(action: CreatePod, settings: Settings) -> Document:
    """Keeps the output until it was fetched, also while we are away."""
    targets = {number: volume for number, volume in enumerate(action.spec.volumes) if volume.target}
    helper = _helper(OUTPUTS, settings, KEEP_OUTPUTS, output=OUTPUT)
    return _bounded(_with_objects(helper, targets, settings), action, _kept_back(action))


def _with_objects(helper: Document, volumes: Mapping[int, Volume], settings: Settings) -> Document:
    """What copies from or to object stores needs more than a shell: `mainstay.transfer`, which the cluster's own image has."""
    if not volumes:
        return helper
    mounts = [*helper["volumeMounts"], *(_mount(number, volume) for number, volume in volumes.items())]
    return {**helper, "image": settings.image, "volumeMounts": mounts}


def _helper(name: str, settings: Settings, script: str, **mounts: str) -> Document:
    return {
        "name": name,
        "image": settings.helper_image,
        "command": ["/bin/sh", "-c", script],
        "securityContext": dict(_NO_PRIVILEGES),
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }


def _volumes(action: CreatePod) -> Iterator[Document]:
    for name in VOLUMES:
        yield {"name": name, "emptyDir": {}}
    if waits_to_be_handed_something(action.spec):
        yield {"name": "sign", "emptyDir": {"sizeLimit": SIGN_BYTES}}
    if action.spec.dead_man_seconds:
        heard = {"path": "renewed", "fieldRef": {"fieldPath": f"metadata.annotations['{names.RENEWED}']"}}
        yield {"name": "alive", "downwardAPI": {"items": [heard]}}
        yield {"name": "pulse", "emptyDir": {"sizeLimit": SIGN_BYTES}}
    if seen_secrets(action.spec):
        yield {"name": "secrets", "emptyDir": {"medium": "Memory", "sizeLimit": SECRETS_BYTES}}
    for number, volume in enumerate(action.spec.volumes):
        yield {"name": _volume_name(number), **_source(volume)}
    # Data loaders share memory; the default of 64 MiB kills them. It counts as memory of the pod.
    size = str(action.spec.resources.memory_bytes)
    yield {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def _source(volume: Volume) -> Document:
    if volume.name:
        return {"persistentVolumeClaim": {"claimName": volume.name, "readOnly": volume.read_only}}
    if volume.storage_class:
        return {"ephemeral": {"volumeClaimTemplate": {"spec": _claim_spec(volume)}}}
    return {"emptyDir": {"sizeLimit": str(volume.size_bytes)} if volume.size_bytes else {}}
