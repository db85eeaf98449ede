"""The names that we give in a cluster. They derive from our ids alone (law 2): whoever creates twice creates once."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import zlib
from collections.abc import Mapping

from mainstay.domain.allocation import Owner

PREFIX = "mainstay.dev"
"""Of our labels and annotations; users may set none with it."""

MANAGED_BY = "app.kubernetes.io/managed-by"
SYSTEM = f"{PREFIX}/system"
"""Which platform it belongs to: several may share a cluster."""
TENANT = f"{PREFIX}/tenant"
PROJECT = f"{PREFIX}/project"
GANG = f"{PREFIX}/gang"
RANK = f"{PREFIX}/rank"
TOMBSTONE = f"{PREFIX}/tombstone"
"""A pod that never runs: its name is taken so that a late creation is refused (law 3)."""
FORGOTTEN = f"{PREFIX}/forgotten"
"""Since when (Unix seconds) the end of a pod is on record with us. The object stays a while as its own tombstone."""

FENCE_POLICY = "mainstay-fenced"
"""Who refuses what a leader of the past makes and changes (deploy/kubernetes/components/fenced)."""
CONFINING_POLICY = "mainstay-confined"
"""Who refuses what our account does where it has no business (deploy/kubernetes/components/confined)."""

IDENTITY = f"{PREFIX}/identity"
"""Digest of all that was asked for: tells a repetition from another pod under one name."""
MOUNTS = f"{PREFIX}/mounts"
"""JSON list of [path, tree]: what has to be delivered before it starts."""
SECRETS = f"{PREFIX}/secrets"
"""That secrets have to be handed in before it starts: their names, for people. Which they are the platform looks up."""
OBJECTS = f"{PREFIX}/objects"
"""JSON list of [path, source, target, secret]: what is copied from and to object stores. Names and addresses, no credential."""
PLACE = f"{PREFIX}/place"
"""The node that it was given, where another scheduler binds it there: what it holds is held from the start."""
CLAIM = f"{PREFIX}/claim"
"""JSON of the requests for devices in the claim that goes with a pod: [name, class, count, selector]."""
CLAIMED = f"{PREFIX}/claimed"
"""RESOURCE COUNT of the GPUs among them, which our accounts count."""
READY_PATH = f"{PREFIX}/ready-path"
PORT = f"{PREFIX}/port"
VERDICT = f"{PREFIX}/verdict"
"""Why we gave the pod up before it ever ran."""
LAST_NODE = f"{PREFIX}/last-node"
"""On a tombstone: the node that must confirm that nothing of the pod runs any more."""

RENEWED = f"{PREFIX}/renewed"
"""On a pod that ends itself where it is cut off: when it was renewed last (Unix seconds), or that it never is again."""
DEADLINE = f"{PREFIX}/deadline"
"""After how many seconds of its run a pod is ended by its kubelet."""
CORDONED = f"{PREFIX}/cordoned"
"""On a node: which platform has cordoned it. Only that one takes it back."""
CORDON_REASON = f"{PREFIX}/cordon-reason"
"""On a node: why, for people."""
LET_IN = f"{PREFIX}/let-in"
"""On a node: when (Unix seconds) it was uncordoned or released last. What it refused before counts no more."""

QUEUE = f"{PREFIX}/queue"
"""On a guest: the queue in which it waits."""
LOCAL_QUEUE = "kueue.x-k8s.io/queue-name"
"""On a guest that has no label of ours: the name that its namespace has for a queue. Source: Kueue's LocalQueue."""
GROUP_SIZE = f"{PREFIX}/group-size"
"""On a guest: how many pods its group has, where no PodGroup says so."""
WORKLOAD = f"{PREFIX}/workload"
"""On a guest that we placed: what it is with us. For people; we know it by its UID."""
RELEASED = f"{PREFIX}/released"
"""On a guest that waits again: the last attempt that may not place it any more."""
GROUP_LABEL = "scheduling.x-k8s.io/pod-group"
"""Source: scheduler-plugins, KEP-42 (coscheduling)."""
GROUP_ANNOTATION = "scheduling.k8s.io/group-name"
"""Source: Volcano; Kubeflow and Spark operators write it."""
NEAR_REQUIRED = "kueue.x-k8s.io/podset-required-topology"
NEAR_PREFERRED = "kueue.x-k8s.io/podset-preferred-topology"
"""On a guest: the label of nodes in one domain of which its group must lie, or had better. Source: Kueue, KEP-2724."""

RECORDED = f"{PREFIX}/recorded"
"""Our finalizer: the object stays until its end is on record with us."""

MAIN, FILES, OUTPUTS = "main", "files", "outputs"
"""Containers: the user's; the one that waits for code; the one that keeps output until it was fetched."""

NOBODY = "/"
"""No label can be that."""
CONTROL_NAMESPACE = "mainstay"
ACCOUNT = "mainstay"
"""The service account of pods in a namespace of ours: bound to nothing, and there before the first pod is."""
_READABLE = 20
"""Letters of tenant and project in the name of a namespace, for people; the digest makes it unique."""


@functools.lru_cache(maxsize=10_000)
def namespace(owner: Owner, *, system: str, shard: int = 0) -> str:
    """Where the pods of a project live: a DNS label, whatever the names are. Injective: the digest covers platform, tenant and
    project, as JSON, so that none of them flows into another (security.md A1).
    """
    digest = hashlib.sha256(json.dumps([system, owner.tenant, owner.project]).encode()).digest()
    mark = base64.b32encode(digest)[:10].decode().lower()
    tail = f"-{shard}" if shard else ""
    return f"ms-{_readable(owner.tenant)}-{_readable(owner.project)}-{mark}{tail}"


def mark(labels: Mapping[str, str], namespace_: str, *, system: str) -> str:
    """The mark of `system` on an object of ours, else what no label can be.

    A stranger may put our labels on his pod. Ours are where we would have put them: in the namespace of the project that
    they name, where nobody else has any business.
    """
    owner = Owner(tenant=labels.get(TENANT, ""), project=labels.get(PROJECT, ""))
    home = namespace(owner, system=system)
    at_home = namespace_ == home or (namespace_.startswith(f"{home}-") and namespace_[len(home) + 1 :].isdecimal())
    return short(system) if at_home else NOBODY


def shard_of(gang: str, shards: int) -> int:
    """The ranks of a gang meet in one namespace; gangs spread over those of their project (3,000 pods each, SIGSCALE)."""
    return zlib.crc32(gang.encode()) % shards


def gang_of(pod: str) -> str:
    """`WORKLOAD-ATTEMPT-RANK` without the rank."""
    return pod.rpartition("-")[0]


def gang_service(gang: str) -> str:
    """The headless service by which ranks find each other. Begins with a letter (RFC 1035), as some gangs do not."""
    return f"g-{gang}"


def fence(system: str) -> str:
    """The Lease that tells which epoch acts."""
    return f"mainstay-{short(system)}"


def leader(system: str, epoch: int) -> str:
    """A leader as the field manager of what it makes and changes: the API server may compare it with the fence."""
    return f"{fence(system)}/{epoch}"


@functools.lru_cache(maxsize=64)
def short(system: str) -> str:
    """The platform as the value of a label and in names."""
    return hashlib.sha256(system.encode()).hexdigest()[:12]


def _readable(name: str) -> str:
    return re.sub(r"[^a-z0-9-]", "-", name.lower())[:_READABLE].strip("-")


def labels(owner: Owner, *, system: str) -> dict[str, str]:
    """On everything that we make for a project."""
    return {MANAGED_BY: "mainstay", SYSTEM: short(system), TENANT: owner.tenant, PROJECT: owner.project}
