"""From a pod that others made to what we report of it: pure functions.

It is read as leniently as a stranger's words: it says what it needs and in which queue it waits, and never whom it is
billed to. What it needs and we do not understand is named, and it is left to wait.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.devices import GPU_RESOURCE, shape_name
from mainstay.clusters.kubernetes.nodes import requests, slices
from mainstay.clusters.kubernetes.objects import Container, Namespace, Pod, PodSpec
from mainstay.clusters.kubernetes.quantities import whole
from mainstay.clusters.kubernetes.restrictions import Restriction, restriction
from mainstay.clusters.kubernetes.topology import level_of
from mainstay.domain.guest import plain_name
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import PRIORITY_MAX, local_name
from mainstay.domain.topology import TopologyNeed, need_of

DEFAULT_QUEUE = DEFAULT_TENANT = "default"
PRIORITY = 50
"""Ours: of what says nothing, and the highest."""
SYSTEM_CLASS = 2_000_001_000
"""The highest priority class of Kubernetes, `system-node-critical`."""
DEFAULT_GRACE_SECONDS = 30
UNDERSTOOD = frozenset({"cpu", "memory", "ephemeral-storage", GPU_RESOURCE})
"""Amounts that we count, and one that kubelets see to by themselves."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a guest asks for. Does not change while it waits."""

    name: str
    queue: str
    priority: int
    resources: Resources
    restriction: Restriction | None
    grace_seconds: int
    max_duration_seconds: int
    group: str
    group_size: int
    """As it says itself; 0: it does not."""
    of_volcano: bool
    """Its group is one of Volcano's."""
    problem: str
    topology: TopologyNeed | None = None
    """How it would lie to its like; None if it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landlord:
    """Whom the guests of a namespace are billed to, as its administrator has written on it; empty: nothing is written."""

    tenant: str = ""
    project: str = ""


def wish(pod: Pod) -> Wish:
    """Of a pod that names us as its scheduler."""
    meta, spec = pod.metadata, pod.spec
    where = restriction(spec, devices=_kinds_of_gpus(_amounts(spec)))
    grace = spec.termination_grace_period_seconds
    of_volcano = names.GROUP_LABEL not in meta.labels
    return Wish(
        name=meta.name,
        queue=_queue(pod),
        priority=priority(spec.priority or 0),
        resources=_resources(pod),
        restriction=where,
        grace_seconds=DEFAULT_GRACE_SECONDS if grace is None else max(0, grace),
        max_duration_seconds=max(0, spec.active_deadline_seconds or 0),
        group=meta.annotations.get(names.GROUP_ANNOTATION, "") if of_volcano else meta.labels[names.GROUP_LABEL],
        group_size=whole(meta.annotations.get(names.GROUP_SIZE)),
        of_volcano=of_volcano,
        problem="; ".join(_problems(pod, understood=where is not None)),
        topology=_topology(pod),
    )


def _queue(pod: Pod) -> str:
    """By the label of ours, else by the name that its namespace has for one, to be looked up when it is submitted."""
    labels = pod.metadata.labels
    if names.QUEUE not in labels and (local := labels.get(names.LOCAL_QUEUE)):
        return local_name(pod.metadata.namespace, local)
    return labels.get(names.QUEUE, DEFAULT_QUEUE)


def _resources(pod: Pod) -> Resources:
    """Slices of GPUs of one shape are asked for like GPUs of one model."""
    asked, parts = requests(pod), slices(pod)
    if asked.gpus or len(parts) != 1:
        return asked
    resource, count = parts[0]
    return replace(asked, gpus=count, gpu_model=shape_name(resource))


def landlord(namespace: Namespace) -> Landlord | None:
    """None where nothing is written."""
    labels = namespace.metadata.labels
    found = Landlord(tenant=labels.get(names.TENANT, ""), project=labels.get(names.PROJECT, ""))
    return None if found == Landlord() else found


def owner(namespace: str, written: Landlord | None) -> tuple[str, str, str]:
    """Tenant and project of the guests of a namespace, and what is wrong with what is written on it."""
    tenant = (written and written.tenant) or DEFAULT_TENANT
    project = (written and written.project) or plain_name(namespace)
    wrong = [name for name in (tenant, project) if not _NAME.match(name)]
    if wrong:
        return (
            DEFAULT_TENANT,
            plain_name(namespace),
            f"the label of its namespace names no tenant or project: {wrong[0]}",
        )
    return tenant, project, ""


def priority(given: int) -> int:
    """Theirs, from -2³¹ to 2·10⁹, as one of ours: monotonic, 0 in the middle. By orders of magnitude, as classes are given."""
    share = math.log1p(min(abs(given), SYSTEM_CLASS)) / math.log1p(SYSTEM_CLASS)
    return PRIORITY + round(math.copysign(share * (PRIORITY_MAX - PRIORITY), given))


def _problems(pod: Pod, *, understood: bool) -> Iterator[str]:
    """Each begins like `it asks for ...`."""
    spec = pod.spec
    if not understood:
        yield "it has a node affinity of an unknown form"
    yield from _relations(spec)
    if (label := pod.metadata.annotations.get(names.NEAR_REQUIRED)) and not level_of(label):
        yield f"it requires to lie near its group by {label[:100]}, a label of no level that is known ({names.NEAR_REQUIRED})"
    if any(volume.persistent_volume_claim is not None or volume.ephemeral is not None for volume in spec.volumes):
        yield "it has a volume that must be bound first (persistentVolumeClaim)"
    if spec.resource_claims:
        yield "it claims devices (resourceClaims)"
    if spec.resources.requests or spec.resources.limits:
        yield "it asks for amounts as a whole pod (spec.resources)"
    if any(port.host_port for container in _containers(spec) for port in container.ports):
        yield "it asks for a port of its node (hostPort)"
    amounts = _amounts(spec)
    if strange := sorted(name for name in amounts - UNDERSTOOD if not shape_name(name)):
        yield f"it asks for {', '.join(strange)[:200]}"
    if len(_kinds_of_gpus(amounts)) > 1:
        yield "it asks for GPUs of several kinds"
    if not _NAME.match(pod.metadata.labels.get(names.QUEUE, DEFAULT_QUEUE)):
        yield f"its label {names.QUEUE} is not the name of a queue"


def _kinds_of_gpus(amounts: Iterable[str]) -> set[str]:
    return {name for name in amounts if name == GPU_RESOURCE or shape_name(name)}


def _relations(spec: PodSpec) -> Iterator[str]:
    """To other pods."""
    for kind, words in (("podAffinity", "to be near other pods"), ("podAntiAffinity", "to be away from other pods")):
        rules = (spec.affinity or {}).get(kind)
        if isinstance(rules, dict) and rules.get("requiredDuringSchedulingIgnoredDuringExecution"):
            yield f"it requires {words} ({kind})"
    if any(rule.when_unsatisfiable != "ScheduleAnyway" for rule in spec.topology_spread_constraints):
        yield "it requires to be spread (topologySpreadConstraints)"


def _topology(pod: Pod) -> TopologyNeed | None:
    """Near as Kueue has it, in annotations of the pod, and apart as Kubernetes has it."""
    required, preferred = (
        level_of(pod.metadata.annotations.get(name, "")) for name in (names.NEAR_REQUIRED, names.NEAR_PREFERRED)
    )
    return need_of(required or preferred, required=bool(required), apart=map(level_of, _apart(pod)))


def _apart(pod: Pod) -> Iterator[str]:
    """The labels of nodes over which it prefers its like to lie apart: those of its kind, so that it is one of them."""
    for rule in pod.spec.topology_spread_constraints:
        if _is_like(pod, rule.label_selector):
            yield rule.topology_key
    rules = (pod.spec.affinity or {}).get("podAntiAffinity")
    preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") if isinstance(rules, dict) else None
    for rule in preferred if isinstance(preferred, list) else ():
        term = rule.get("podAffinityTerm") if isinstance(rule, dict) else None
        if isinstance(term, dict) and _is_like(pod, term.get("labelSelector")):
            yield str(term.get("topologyKey"))


def _is_like(pod: Pod, selector: Any) -> bool:
    """Whether a selector finds the pod that has it, as far as labels go. One that says more is none that we understand."""
    labels = selector.get("matchLabels") if isinstance(selector, dict) and set(selector) == {"matchLabels"} else None
    return isinstance(labels, dict) and bool(labels) and labels.items() <= pod.metadata.labels.items()


def _containers(spec: PodSpec) -> tuple[Container, ...]:
    return (*spec.containers, *spec.init_containers)


def _amounts(spec: PodSpec) -> set[str]:
    return {
        name
        for one in _containers(spec)
        for amounts in (one.resources.requests, one.resources.limits)
        for name in amounts
    }
