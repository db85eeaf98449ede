"""Affinity: which nodes a workload may use and which it prefers, by their labels, their taints and whether they are spot.

One rule for jobs of ours and for pods of others. Source of what holds: Kubernetes, assign-pod-node and taint-and-toleration
(https://kubernetes.io/docs/concepts/scheduling-eviction/).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from mainstay.domain.arrays import Bools, Ints

HARD_EFFECTS = frozenset({"NoSchedule", "NoExecute"})
"""Taints with another effect (PreferNoSchedule) keep nothing out."""
LABELS_MAX, LABELS_CHARACTERS_MAX, TAINTS_MAX = 128, 8_192, 32
"""So much is kept of one node; of more labels, those of hardware features (node feature discovery) go first."""
LAST_KEPT = "feature.node.kubernetes.io/"
OF_ONE_NODE = frozenset({"kubernetes.io/hostname", "alpha.eksctl.io/instance-id", "node.kubernetes.io/instance-id"})
"""Labels that say which node it is: nobody asks for one by its name."""

SPOT_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "karpenter.sh/capacity-type": "spot",
        "eks.amazonaws.com/capacityType": "SPOT",
        "cloud.google.com/gke-spot": "true",
        "cloud.google.com/gke-provisioning": "spot",
        "cloud.google.com/gke-preemptible": "true",
        "kubernetes.azure.com/scalesetpriority": "spot",
    }
)
"""How the providers mark a node that may be taken away: Karpenter, EKS, GKE, AKS. Some taint it with the same words."""


class Spot(StrEnum):
    """Whether capacity that may be taken away will do."""

    NEVER = "never"
    AUTO = "auto"
    """It will, where there is room on it; so will any other."""
    ONLY = "only"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Taint:
    """What keeps pods off a node that do not tolerate it."""

    key: str
    value: str = ""
    effect: str

    @property
    def words(self) -> str:
        """As `kubectl taint` writes it: `dedicated=ml:NoSchedule`."""
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Toleration:
    """Taints that a pod puts up with."""

    key: str
    """Empty, with `Exists`: every taint."""
    operator: str = "Exists"
    value: str = ""
    effect: str = ""
    """Empty: any."""

    @property
    def words(self) -> str:
        """`dedicated=ml:NoSchedule`, `dedicated`."""
        value = f"={self.value}" if self.operator != "Exists" else ""
        return f"{self.key}{value}{f':{self.effect}' if self.effect else ''}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Requirement:
    """What one label of a node must be: In, NotIn, Exists, DoesNotExist, Gt or Lt, as of Kubernetes."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """As `kubectl -l` takes it: `disk=ssd`, `zone in (a, b)`, `!retiring`, `cores>16`."""
        match self.operator, self.values:
            case "In", (value,):
                return f"{self.key}={value}"
            case "NotIn", (value,):
                return f"{self.key}!={value}"
            case "Exists", _:
                return self.key
            case "DoesNotExist", _:
                return f"!{self.key}"
            case "Gt" | "Lt", (value,):
                return f"{self.key}{'>' if self.operator == 'Gt' else '<'}{value}"
        return f"{self.key} {self.operator.lower()} ({', '.join(self.values)})"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Preference:
    """Nodes for which all of this holds are preferred by so much."""

    requirements: tuple[Requirement, ...]
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNeed:
    """Which nodes a workload of ours may use, and which it prefers. Made by `need`, so that equal ones are equal."""

    requirements: tuple[Requirement, ...] = ()
    """All of them must hold."""
    preferences: tuple[Preference, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    spot: Spot = Spot.AUTO

    @property
    def required(self) -> NodeNeed | None:
        """Without what it only prefers."""
        return need(requirements=self.requirements, tolerations=self.tolerations, spot=self.spot)

    @property
    def words(self) -> str:
        """As what is asked for goes on: `4 CPUs, 16 GiB on nodes with disk=ssd, not spot`."""
        parts = [f"with {' and '.join(one.words for one in self.requirements)}"] if self.requirements else []
        parts += {Spot.NEVER: ["that are not spot"], Spot.ONLY: ["that are spot"], Spot.AUTO: []}[self.spot]
        return f" on nodes {' and '.join(parts)}" if parts else ""


Restriction: TypeAlias = str | NodeNeed
"""Which nodes will do: a name that nodes themselves say they admit (guests), or a need (jobs of ours). Empty: every one that
is ready.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What needs look at of a node. Nodes that are alike in it share one."""

    labels: tuple[tuple[str, str], ...] = ()
    """(key, value), by key."""
    taints: tuple[Taint, ...] = ()
    """Those that keep our pods out which do not tolerate them, sorted."""
    spot: bool = False
    """Its provider may take it away."""

    def value(self, key: str) -> str | None:
        """Of a label; None if the node does not have it."""
        at = bisect.bisect_left(self.labels, (key,))
        return self.labels[at][1] if at < len(self.labels) and self.labels[at][0] == key else None


NO_TRAITS = Traits()


def need(
    *,
    requirements: Iterable[Requirement] = (),
    preferences: Iterable[Preference] = (),
    tolerations: Iterable[Toleration] = (),
    spot: Spot = Spot.AUTO,
) -> NodeNeed | None:
    """In one order, each part once; None if it asks for nothing."""
    found = NodeNeed(
        requirements=tuple(sorted(set(requirements))),
        preferences=tuple(
            sorted({replace(one, requirements=tuple(sorted(set(one.requirements)))) for one in preferences})
        ),
        tolerations=tuple(sorted(set(tolerations))),
        spot=spot,
    )
    return None if found == NodeNeed() else found


def holds(line: Requirement, value: str | None) -> bool:
    """Whether a label with this value (None: the node does not have it) is as it must be."""
    match line.operator:
        case "In":
            return value in line.values
        case "NotIn":
            return value not in line.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" if len(line.values) == 1:
            number, limit = _number(value), _number(line.values[0])
            if number is None or limit is None:
                return False
            return number > limit if line.operator == "Gt" else number < limit
    return False


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether a pod with this toleration puts up with the taint."""
    if (toleration.effect and toleration.effect != taint.effect) or (toleration.key and toleration.key != taint.key):
        return False
    if toleration.operator == "Exists":
        return True
    return toleration.operator in {"", "Equal"} and bool(toleration.key) and toleration.value == taint.value


def borne(taints: Iterable[Taint], tolerations: Sequence[Toleration]) -> bool:
    """Whether every one that keeps pods out is tolerated."""
    return all(any(tolerates(one, taint) for one in tolerations) for taint in taints if taint.effect in HARD_EFFECTS)


def meets(traits: Traits, wanted: NodeNeed) -> bool:
    """Whether a node has what is needed, whatever its taints."""
    if wanted.spot is not Spot.AUTO and traits.spot is not (wanted.spot is Spot.ONLY):
        return False
    return _all_hold(wanted.requirements, traits)


def admits(traits: Traits, wanted: NodeNeed) -> bool:
    """Whether a node may be used, as far as its labels, its taints and its capacity type go."""
    return borne(traits.taints, wanted.tolerations) and meets(traits, wanted)


def liking(traits: Traits, wanted: NodeNeed) -> int:
    """By how much a node is preferred: the sum of the weights of all preferences that hold."""
    return sum(one.weight for one in wanted.preferences if _all_hold(one.requirements, traits))


@dataclass(frozen=True, kw_only=True)
class NodeTraits:
    """The traits of each node of a snapshot."""

    number: Ints
    """[nodes] Index into `each`."""
    each: tuple[Traits, ...]
    barred: Bools
    """[nodes] It is not ready, but only for its taints; nobody keeps it out, and its cluster takes work."""

    def admitted(self, wanted: NodeNeed) -> Bools:
        """[nodes] As `admits`. O(traits that differ + nodes)."""
        found: Bools = self._numbered([admits(one, wanted) for one in self.each]).astype(np.bool_)
        return found

    def liked(self, wanted: NodeNeed) -> Ints:
        """[nodes] As `liking`."""
        return self._numbered([liking(one, wanted) for one in self.each])

    def untainted(self) -> NodeTraits:
        """The same nodes, had none of them a taint."""
        return replace(self, each=tuple(replace(one, taints=()) for one in self.each))

    def of(self, row: int) -> Traits:
        """Those of the node in this row."""
        return self.each[int(self.number[row])]

    def _numbered(self, by_number: Sequence[int]) -> Ints:
        return np.array(by_number, dtype=np.int64)[self.number]


def traits(labels: Mapping[str, str], taints: Iterable[Taint], *, node: str = "") -> Traits:
    """As much of it as is kept of a node of this name. Labels that tell it from every other node are left out."""
    hard = [one for one in taints if one.effect in HARD_EFFECTS]
    return Traits(
        labels=_kept(labels, node),
        taints=tuple(sorted({one for one in hard if not is_spot_taint(one)})[:TAINTS_MAX]),
        spot=any(labels.get(key) == value for key, value in SPOT_LABELS.items())
        or any(SPOT_LABELS.get(one.key) == one.value for one in hard),
    )


def is_spot_taint(taint: Taint) -> bool:
    """Whether it says no more than that the node may be taken away: whoever allows that tolerates it. One that would end what
    runs there (NoExecute) says more.
    """
    return taint.effect == "NoSchedule" and SPOT_LABELS.get(taint.key) == taint.value


SPOT_TOLERATIONS = tuple(
    Toleration(key=key, operator="Equal", value=value) for key, value in sorted(SPOT_LABELS.items())
)
"""Of the pods of what allows spot."""


def _kept(labels: Mapping[str, str], node: str) -> tuple[tuple[str, str], ...]:
    """By key. Of most nodes it is all that is not of this node alone, which is seen at a glance."""
    pairs = sorted(pair for pair in labels.items() if pair[0] not in OF_ONE_NODE and (not node or pair[1] != node))
    if len(pairs) <= LABELS_MAX:
        text = "".join(map("".join, pairs))
        if len(text) + 2 * len(pairs) <= LABELS_CHARACTERS_MAX and _is_plain(text):
            return tuple(pairs)
    kept: list[tuple[str, str]] = []
    characters = 0
    for key, value in sorted(pairs, key=lambda pair: pair[0].startswith(LAST_KEPT)):
        characters += len(key) + len(value) + 2
        if len(kept) == LABELS_MAX or characters > LABELS_CHARACTERS_MAX:
            break
        if _is_plain(key + value):
            kept.append((key, value))
    return tuple(sorted(kept))


def _is_plain(text: str) -> bool:
    """As Kubernetes has labels: what is kept of a node is written with spaces between them."""
    return " " not in text and text.isprintable()


def _all_hold(requirements: Iterable[Requirement], there: Traits) -> bool:
    return all(holds(line, there.value(line.key)) for line in requirements)


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None and len(text) < 20 else None
    except ValueError:
        return None
