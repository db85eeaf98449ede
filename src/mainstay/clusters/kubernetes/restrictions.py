"""Which nodes a pod of others may use: its selector, its required affinity and its tolerations. Pure functions.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/ and .../taint-and-toleration/; what a node
only should have (preferred affinity, PreferNoSchedule) is no condition. What a line of it means is said in `domain.affinity`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mainstay.clusters.kubernetes.objects import Node, PodSpec
from mainstay.domain.affinity import Requirement, Taint, Toleration, borne, holds

_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"})
_FIELDS = frozenset({"metadata.name"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRequirement:
    """One line of an affinity: what a label (or field) of the node must be."""

    must: Requirement
    of_field: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """What a node must be like. Equal for pods that may use the same nodes; `name` is a function of all the rest."""

    selector: tuple[tuple[str, str], ...]
    terms: tuple[tuple[FieldRequirement, ...], ...] | None
    """One of them must hold whole; None: there is no such condition; an empty one never holds."""
    tolerations: tuple[Toleration, ...]
    devices: tuple[str, ...] = ()
    """Resources by which it asks for GPUs: a node that offers its own to claims only would refuse it."""
    name: str


Terms: TypeAlias = tuple[tuple[FieldRequirement, ...], ...]
"""One of them must hold whole; an empty one never holds."""


def terms_of(selector: Any) -> Terms | None:
    """Of a NodeSelector, as the volumes of a cluster have it; None if there is none, or one that we do not understand."""
    if not selector:
        return None
    try:
        return tuple(_term(term) for term in _mapping(selector)["nodeSelectorTerms"])
    except (KeyError, TypeError, ValueError):
        return None


def terms_name(terms: Terms) -> str:
    """The same for the same terms."""
    return hashlib.sha256(json.dumps(_plain(terms)).encode()).hexdigest()[:16]


def meets(node: Node, terms: Terms) -> bool:
    """Whether one of the terms holds for a node."""
    return any(_term_holds(node, term) for term in terms)


def restriction(spec: PodSpec, *, devices: Iterable[str] = ()) -> Restriction | None:
    """None if it says something that we do not understand. `devices`: the resources by which it asks for GPUs."""
    terms = _terms(spec.affinity)
    if terms is _STRANGE:
        return None
    selector = tuple(sorted(spec.node_selector.items()))
    said = sorted({(t.key, t.operator, t.value, t.effect) for t in spec.tolerations})
    kinds = tuple(sorted(devices))
    given = [selector, _plain(terms), said, *([kinds] if kinds else [])]
    name = hashlib.sha256(json.dumps(given).encode()).hexdigest()[:16]
    tolerations = tuple(Toleration(key=key, operator=op, value=value, effect=effect) for key, op, value, effect in said)
    return Restriction(selector=selector, terms=terms, tolerations=tolerations, devices=kinds, name=name)


def admits(node: Node, wanted: Restriction) -> bool:
    """Whether a pod may be put on a node, as far as labels, taints and kinds of devices go."""
    labels = node.metadata.labels
    return (
        all(labels.get(key) == value for key, value in wanted.selector)
        and (wanted.terms is None or meets(node, wanted.terms))
        and all(name in node.status.allocatable for name in wanted.devices)
        and borne(taints_of(node), wanted.tolerations)
    )


def taints_of(node: Node) -> tuple[Taint, ...]:
    """Those of a node."""
    return tuple(Taint(key=one.key, value=one.value, effect=one.effect) for one in node.spec.taints)


_STRANGE: tuple[tuple[FieldRequirement, ...], ...] = ((),)
"""Stands for an affinity that we do not understand; only ever compared by identity."""


def _terms(affinity: Mapping[str, Any] | None) -> tuple[tuple[FieldRequirement, ...], ...] | None:
    required = _mapping(_mapping(affinity).get("nodeAffinity")).get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return None
    try:
        return tuple(_term(term) for term in _mapping(required)["nodeSelectorTerms"])
    except (KeyError, TypeError, ValueError):
        return _STRANGE


def _term(term: Any) -> tuple[FieldRequirement, ...]:
    """Raises KeyError, TypeError, ValueError for anything that is not in the API as we know it."""
    if set(term) - {"matchExpressions", "matchFields"}:
        raise ValueError(term)
    lines = [(line, False) for line in term.get("matchExpressions") or ()]
    lines += [(line, True) for line in term.get("matchFields") or ()]
    return tuple(_requirement(line, of_field=of_field) for line, of_field in lines)


def _requirement(line: Any, *, of_field: bool) -> FieldRequirement:
    key, operator, values = line["key"], line["operator"], tuple(line.get("values") or ())
    understood = operator in _OPERATORS and all(isinstance(value, str) for value in values)
    if not understood or (of_field and key not in _FIELDS):
        raise ValueError(line)
    return FieldRequirement(must=Requirement(key=key, operator=operator, values=values), of_field=of_field)


def _term_holds(node: Node, term: Sequence[FieldRequirement]) -> bool:
    """An empty term matches nothing."""
    return bool(term) and all(holds(line.must, _value(node, line)) for line in term)


def _value(node: Node, line: FieldRequirement) -> str | None:
    return node.metadata.name if line.of_field else node.metadata.labels.get(line.must.key)


def _mapping(tree: Any) -> Mapping[str, Any]:
    return tree if isinstance(tree, Mapping) else {}


def _plain(terms: tuple[tuple[FieldRequirement, ...], ...] | None) -> Any:
    """For JSON."""
    if terms is None:
        return None
    return [[(line.must.key, line.must.operator, line.must.values, line.of_field) for line in term] for term in terms]
