"""Queues as Kueue writes them: ClusterQueue, Cohort, ResourceFlavor, LocalQueue and WorkloadPriorityClass as ours.

What we cannot honour is a fault at its line, never left out in silence: a queue that behaves otherwise than it is
written would be found out at the worst moment. Source of the fields: kueue.sigs.k8s.io/docs/reference, v1beta1, v1beta2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

from pydantic import ValidationError

from mainstay.wire.faults import NAME_IN_WORDS
from mainstay.wire.job_values import NAME, PRIORITIES, PRIORITY_MAX
from mainstay.wire.jobfile import Document, Fault, JobFileError, Place, Value, documents
from mainstay.wire.requests import NamedFlavorRequest, NamedQueueRequest, PreemptionRequest, QuotaRequest

GROUP = "kueue.x-k8s.io"
VERSIONS = ("v1beta1", "v1beta2")
KINDS = ("ClusterQueue", "Cohort", "ResourceFlavor", "LocalQueue", "WorkloadPriorityClass")
MODEL_LABELS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "kubernetes.azure.com/accelerator",
    "accelerator",
)
"""Where nodes say the model of their GPUs: a flavor by one of these is that model."""
DEFAULT = "default"
FLAVOR_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
FLAVOR_NAME_IN_WORDS = f"lower-case letters, digits and dashes, 1 to 63, a letter among them; not {DEFAULT}"
RESOURCES: Mapping[str, str] = MappingProxyType(
    {"cpu": "cpu", "memory": "memory", "pods": "pods", "nvidia.com/gpu": "gpu"}
)
_MODEL = re.compile(
    r"(?:^|[^a-z0-9])(?P<model>[abhlptvkgm]\d{1,4}[a-z]{0,2}|rtx-?\d{4}|gb\d{3}|gh\d{3}|mi\d{3}[a-z]?)(?:[^a-z0-9]|$)"
)
_QUANTITY = re.compile(
    r"(?P<number>\d{1,18}(?:\.\d{1,9})?)(?:[eE](?P<power>\d{1,2})|(?P<suffix>[munkMGTPE]|[KMGTPE]i)?)\Z", re.ASCII
)
_SUFFIXES: Mapping[str, Decimal] = MappingProxyType(
    {
        **{name: Decimal(1_024) ** power for power, name in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
        **{name: Decimal(10) ** (3 * power) for power, name in enumerate("num", -3)},
        **{name: Decimal(10) ** (3 * power) for power, name in enumerate("kMGTPE", 1)},
    }
)
UNCHANGED: Mapping[str, tuple[Value, ...]] = MappingProxyType(
    {
        "queueingStrategy": ("", "BestEffortFIFO", "StrictFIFO"),
        "stopPolicy": ("", "None"),
        "namespaceSelector": ({},),
        "admissionChecks": ([],),
        "flavorFungibility.whenCanBorrow": ("", "Borrow", "MayStopSearch"),
        "flavorFungibility.whenCanPreempt": ("", "TryNextFlavor"),
    }
)
"""Fields of a ClusterQueue that may stand there, with the values that say what happens here anyway."""
PREEMPTION: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "withinClusterQueue": {
            "Never": "never",
            "LowerPriority": "lower-priority",
            "LowerOrNewerEqualPriority": "lower-or-newer-equal-priority",
        },
        "reclaimWithinCohort": {"Never": "never", "LowerPriority": "lower-priority", "Any": "any"},
        "borrowWithinCohort": {"Never": "never", "LowerPriority": "lower-priority"},
    }
)
"""What a ClusterQueue says of whom its work may displace, in our words."""
INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "queueingStrategy": "it is BestEffortFIFO or StrictFIFO",
        "stopPolicy": "hold its runs: mainstay hold RUN",
        "namespaceSelector": "every tenant may submit to every queue; write `{}`",
        "admissionChecks": "nothing but capacity and quota is checked",
        "admissionScope": "what was used lately counts for all queues or for none: mainstay queue history --half-life 7d",
        "flavorFungibility": "whatever is free and within the quotas is taken; leave it out",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalQueue:
    """A name that a namespace has for a queue."""

    namespace: str
    name: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What a file sets. All of a queue is said: what it had before and the file does not say is gone."""

    queues: tuple[NamedQueueRequest, ...] = ()
    flavors: tuple[NamedFlavorRequest, ...] = ()
    """Of nodes, in their order."""
    priorities: tuple[tuple[str, int], ...] = ()
    local_queues: tuple[LocalQueue, ...] = ()
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Name of a queue -> line and column of its document."""


def is_kueue(content: bytes) -> bool:
    """Whether the text looks like objects of Kueue, and not like a job."""
    return re.search(rb"^apiVersion:\s*[\"']?kueue\.x-k8s\.io/", content, re.MULTILINE) is not None


def parse(content: bytes, *, source: str) -> Import:
    """What the objects of a file are here. Raises JobFileError with every fault at its line."""
    reading = _Objects(source, documents(content, source=source))
    return reading.imported()


class _Objects:
    def __init__(self, source: str, found: Sequence[Document]) -> None:
        self._source = source
        self._documents = [document for document in found if document.value is not None]
        self._faults: list[Fault] = [fault for document in found for fault in document.faults]
        self._flavors: dict[str, str] = {}
        """ResourceFlavor -> flavor of ours."""
        self._node_flavors: dict[str, NamedFlavorRequest] = {}
        self._order = _Order()
        self._seen: set[tuple[str, ...]] = set()

    def imported(self) -> Import:
        queues: list[NamedQueueRequest] = []
        priorities: list[tuple[str, int]] = []
        local_queues: list[LocalQueue] = []
        places: dict[str, tuple[int, int]] = {}
        objects = [one for document in self._documents if (one := self._object(document)) is not None]
        for one in objects:
            if one.kind == "ResourceFlavor":
                self._flavor(one)
        for one in objects:
            match one.kind:
                case "ClusterQueue" | "Cohort":
                    if request := self._queue(one):
                        queues.append(request)
                        places[request.name] = one.document.at(())
                case "WorkloadPriorityClass":
                    priorities += self._priority(one)
                case "LocalQueue":
                    local_queues.append(self._local_queue(one))
                case _:
                    pass
        flavors = [self._node_flavors[name] for name in self._order.names() if name in self._node_flavors]
        if not self._faults and not queues and not priorities and not flavors and not local_queues:
            self._faults.append(Fault(line=1, column=1, field="", message="nothing to set: it holds no queue"))
        if self._faults:
            raise JobFileError(self._source, self._faults)
        return Import(
            queues=tuple(queues),
            flavors=tuple(flavors),
            priorities=tuple(priorities),
            local_queues=tuple(local_queues),
            places=places,
        )

    def _object(self, document: Document) -> _Object | None:
        value = document.value
        if not isinstance(value, dict):
            self._fault(document, (), "no object: it has no `apiVersion` and `kind`")
            return None
        group, _, version = str(value.get("apiVersion", "")).partition("/")
        kind = str(value.get("kind", ""))
        if group != GROUP or version not in VERSIONS:
            versions = " or ".join(f"{GROUP}/{known}" for known in VERSIONS)
            self._fault(document, ("apiVersion",), f"not {versions}; give what is no queue to its own platform")
            return None
        if kind not in KINDS:
            self._fault(document, ("kind",), f"not supported: there are {', '.join(KINDS)}")
            return None
        metadata, spec = value.get("metadata"), value.get("spec", {})
        name = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
        if not name or not isinstance(metadata, dict):
            self._fault(document, ("metadata", "name"), "it has no name")
            return None
        if not isinstance(spec, dict):
            self._fault(document, ("spec",), "should be a map of fields")
            return None
        namespace = str(metadata.get("namespace") or "default") if kind == "LocalQueue" else ""
        # Queues and cohorts are rows of one tree, and share their names.
        identity = ("queue" if kind in {"ClusterQueue", "Cohort"} else kind, namespace, name)
        if identity in self._seen:
            self._fault(document, ("metadata", "name"), f"{name} is there twice: queues and cohorts share their names")
            return None
        self._seen.add(identity)
        return _Object(document=document, kind=kind, name=name, namespace=namespace, value=value, spec=spec)

    def _flavor(self, one: _Object) -> None:
        """Of the nodes with its labels; by the label of their GPUs alone that model; without labels what has no other flavor."""
        self._only(one.document, ("spec",), one.spec, {"nodeLabels", "nodeTaints", "tolerations"})
        labels = one.spec.get("nodeLabels") or {}
        for unheeded in ("nodeTaints", "tolerations"):
            if one.spec.get(unheeded):
                words = "not supported: a job says which taints it puts up with, as `tolerations`; leave it out"
                self._fault(one.document, ("spec", unheeded), words)
        if not isinstance(labels, dict):
            self._fault(one.document, ("spec", "nodeLabels"), "should be a map of labels")
            labels = {}
        models = [str(labels[label]) for label in MODEL_LABELS if labels.get(label)]
        if labels.keys() <= set(MODEL_LABELS):
            self._flavors[one.name] = model_of(models[0]) if models else DEFAULT
            return
        self._flavors[one.name] = one.name
        if not FLAVOR_NAME.match(one.name) or one.name == DEFAULT:
            words = f"{one.name!r} is not allowed here: {FLAVOR_NAME_IN_WORDS}"
            self._fault(one.document, ("metadata", "name"), words)
            return
        try:
            self._node_flavors[one.name] = NamedFlavorRequest.model_validate({"name": one.name, "node_labels": labels})
            self._order.add(one.name)
        except ValidationError as error:
            for fault in error.errors():
                self._fault(one.document, ("spec", "nodeLabels"), str(fault["msg"]).removeprefix("Value error, "))

    def _queue(self, one: _Object) -> NamedQueueRequest | None:
        cohort = one.kind == "Cohort"
        parent_field = self._parent_field(one)
        known = {parent_field, "resourceGroups", "fairSharing"}
        if not cohort:
            known |= {name.partition(".")[0] for name in UNCHANGED} | {"preemption"}
            self._unchanged(one)
        self._only(one.document, ("spec",), one.spec, known)
        self._name(one.document, ("metadata", "name"), one.name)
        parent = str(one.spec.get(parent_field) or "")
        if parent:
            self._name(one.document, ("spec", parent_field), parent)
        quotas = list(self._quotas(one))
        weight = self._weight(one)
        preemption = PreemptionRequest() if cohort else self._preemption(one)
        order = "strict" if one.spec.get("queueingStrategy") == "StrictFIFO" else ""
        try:
            return NamedQueueRequest(
                name=one.name,
                parent=parent,
                cohort=cohort,
                weight=weight,
                quotas=quotas,
                preemption=preemption,
                order=order,
            )
        except ValidationError:
            return None  # its name is a fault that was found already

    def _parent_field(self, one: _Object) -> str:
        if one.kind == "Cohort":
            return "parentName"
        return "cohort" if str(one.value["apiVersion"]).endswith("/v1beta1") else "cohortName"

    def _unchanged(self, one: _Object) -> None:
        for name, values in UNCHANGED.items():
            path = tuple(name.split("."))
            value: Value | Mapping[str, Value] = one.spec
            for part in path:
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None and value not in values:
                self._fault(one.document, ("spec", *path), f"not supported: {INSTEAD[path[0]]}")
        value = one.spec.get("flavorFungibility")
        if isinstance(value, dict):
            self._only(one.document, ("spec", "flavorFungibility"), value, {"whenCanBorrow", "whenCanPreempt"})

    def _preemption(self, one: _Object) -> PreemptionRequest:
        given = one.spec.get("preemption") or {}
        place = ("spec", "preemption")
        if not isinstance(given, dict):
            self._fault(one.document, place, "should be a map of fields")
            return PreemptionRequest()
        self._only(one.document, place, given, set(PREEMPTION))
        borrow = given.get("borrowWithinCohort") or {}
        if not isinstance(borrow, dict):
            self._fault(one.document, (*place, "borrowWithinCohort"), "should be a map of fields")
            borrow = {}
        self._only(one.document, (*place, "borrowWithinCohort"), borrow, {"policy", "maxPriorityThreshold"})
        most = str(borrow.get("maxPriorityThreshold") or "")
        if most and not (re.fullmatch(r"\d{1,9}", most) and int(most) <= PRIORITY_MAX):
            words = f"{most} is not allowed: a priority here is 0 to {PRIORITY_MAX}"
            self._fault(one.document, (*place, "borrowWithinCohort", "maxPriorityThreshold"), words)
            most = ""
        said = {
            "within_queue": self._whom(one, "withinClusterQueue", given.get("withinClusterQueue"), ()),
            "reclaim": self._whom(one, "reclaimWithinCohort", given.get("reclaimWithinCohort"), ()),
            "borrow": self._whom(one, "borrowWithinCohort", borrow.get("policy"), ("policy",)),
            "borrow_priority_max": int(most) if most else None,
        }
        return PreemptionRequest.model_validate(said)

    def _whom(self, one: _Object, name: str, value: Value, below: Place) -> str:
        known = PREEMPTION[name]
        word = str(value or "Never")
        if word not in known:
            words = f"{word!r} is not one of {', '.join(known)}"
            self._fault(one.document, ("spec", "preemption", name, *below), words)
        return known.get(word, "never")

    def _quotas(self, one: _Object) -> Iterator[QuotaRequest]:
        said: dict[tuple[str, str], str] = {}
        for place, group in self._items(one.document, ("spec", "resourceGroups"), one.spec.get("resourceGroups")):
            self._only(one.document, place, group, {"coveredResources", "flavors"})
            before = ""
            for flavor_place, flavor in self._items(one.document, (*place, "flavors"), group.get("flavors")):
                self._only(one.document, flavor_place, flavor, {"name", "resources"})
                ours = self._known_flavor(one.document, flavor_place, str(flavor.get("name", "")))
                self._follows(one.document, flavor_place, ours, before)
                before = ours
                resources = self._items(one.document, (*flavor_place, "resources"), flavor.get("resources"))
                for at, resource in resources:
                    quota = self._quota(one.document, at, resource, ours)
                    if quota is None:
                        continue
                    cell = (quota.resource, quota.flavor)
                    if cell in said:
                        words = (
                            f"{quota.resource} of {quota.flavor} is there twice, for {said[cell]} too: one flavor here"
                        )
                        self._fault(one.document, at, words)
                        continue
                    said[cell] = str(flavor.get("name", ""))
                    yield quota

    def _follows(self, document: Document, place: Place, flavor: str, before: str) -> None:
        """Flavors are tried in one order by all queues, those of nodes first."""
        if flavor not in self._node_flavors or not before:
            return
        if before not in self._node_flavors:
            words = f"not supported: nodes of {flavor} are tried before others, so it stands before {before} here"
            self._fault(document, (*place, "name"), words)
        elif not self._order.comes_before(before, flavor):
            words = f"{flavor} comes before {before} in another queue: the order of flavors is one for all queues here"
            self._fault(document, (*place, "name"), words)

    def _quota(self, document: Document, place: Place, given: Mapping[str, Value], flavor: str) -> QuotaRequest | None:
        self._only(document, place, given, {"name", "nominalQuota", "borrowingLimit", "lendingLimit"})
        name = str(given.get("name", ""))
        slices = name.removeprefix("nvidia.com/mig-") if name.startswith("nvidia.com/mig-") else ""
        resource = "gpu" if slices else RESOURCES.get(name, "")
        if slices and flavor in self._node_flavors:
            self._fault(document, (*place, "name"), "not supported: slices have one quota, whatever nodes they are on")
            return None
        if not resource:
            words = f"not supported: {name or 'nothing'}; there are {', '.join(RESOURCES)} and nvidia.com/mig-..."
            self._fault(document, (*place, "name"), words)
            return None
        fields = {"nominal": "nominalQuota", "borrowing_limit": "borrowingLimit", "lending_limit": "lendingLimit"}
        amounts: dict[str, str] = {}
        for ours, theirs in fields.items():
            if given.get(theirs) is None:
                continue
            amount = amount_of(resource, str(given[theirs]))
            if amount is None:
                words = f"{given[theirs]!r} is no amount of {name} such as 8, 500m or 36Gi, or too large"
                self._fault(document, (*place, theirs), words)
                return None
            amounts[ours] = amount
        if "nominal" not in amounts:
            self._fault(document, place, "it says no nominalQuota")
            return None
        return QuotaRequest.model_validate({"resource": resource, "flavor": slices or flavor, **amounts})

    def _known_flavor(self, document: Document, place: Place, name: str) -> str:
        if name not in self._flavors:
            words = f"the file has no ResourceFlavor {name!r}, which says of which nodes or GPUs its quota is; add it"
            self._fault(document, (*place, "name"), words)
        return self._flavors.get(name, DEFAULT)

    def _weight(self, one: _Object) -> float:
        sharing = one.spec.get("fairSharing")
        given = sharing.get("weight") if isinstance(sharing, dict) else None
        if given is None:
            return 1.0
        value = quantity(str(given))
        if value is None or value > 1_000_000:
            self._fault(one.document, ("spec", "fairSharing", "weight"), f"{given!r} is no weight such as 1 or 2.5")
            return 1.0
        return float(value)

    def _priority(self, one: _Object) -> list[tuple[str, int]]:
        place = ("metadata", "name")
        self._name(one.document, place, one.name)
        if one.name in PRIORITIES:
            self._fault(
                one.document, place, f"{one.name} is always there, as {PRIORITIES[one.name]}; give it another name"
            )
        value = str(one.value.get("value", ""))
        if not re.fullmatch(r"\d{1,9}", value) or int(value) > PRIORITY_MAX:
            words = f"{value or 'nothing'} is not allowed: a priority here is 0 to {PRIORITY_MAX}; keep the order of your classes"
            self._fault(one.document, ("value",), words)
            return []
        return [(one.name, int(value))]

    def _local_queue(self, one: _Object) -> LocalQueue:
        self._only(one.document, ("spec",), one.spec, {"clusterQueue", "stopPolicy"})
        if str(one.spec.get("stopPolicy") or "None") != "None":
            self._fault(one.document, ("spec", "stopPolicy"), f"not supported: {INSTEAD['stopPolicy']}")
        queue = str(one.spec.get("clusterQueue") or "")
        if not queue:
            self._fault(one.document, ("spec", "clusterQueue"), "it names no ClusterQueue")
        return LocalQueue(namespace=one.namespace, name=one.name, queue=queue)

    def _items(self, document: Document, place: Place, given: Value) -> Iterator[tuple[Place, Mapping[str, Value]]]:
        if given is None:
            return
        if not isinstance(given, list):
            self._fault(document, place, "should be a list")
            return
        for number, item in enumerate(given):
            if isinstance(item, dict):
                yield (*place, number), item
            else:
                self._fault(document, (*place, number), "should be a map of fields")

    def _only(self, document: Document, place: Place, given: Mapping[str, Value], known: set[str]) -> None:
        for name in given:
            if name not in known:
                instead = INSTEAD.get(name)
                words = f": {instead}" if instead else f"; there are {', '.join(sorted(known))}"
                self._fault(document, (*place, name), f"not supported{words}")

    def _name(self, document: Document, place: Place, name: str) -> None:
        if not re.match(NAME, name):
            self._fault(document, place, f"{name!r} is not allowed here: {NAME_IN_WORDS}")

    def _fault(self, document: Document, place: Place, message: str) -> None:
        line, column = document.at(place)
        dotted = ".".join(map(str, place))
        self._faults.append(Fault(line=line, column=column, field=dotted, message=message))


class _Order:
    """Names of which some must come before others, else in the order in which they were added."""

    def __init__(self) -> None:
        self._after: dict[str, set[str]] = {}
        """Name -> those that must come behind it."""

    def add(self, name: str) -> None:
        """One that may come anywhere."""
        self._after.setdefault(name, set())

    def comes_before(self, name: str, other: str) -> bool:
        """Whether it can; then it does from now on."""
        if name in self._behind(other):
            return False
        self._after[name].add(other)
        return True

    def names(self) -> list[str]:
        """In their order."""
        left, found = list(self._after), list[str]()
        while left:
            name = next(one for one in left if not any(one in self._after[other] for other in left))
            left.remove(name)
            found.append(name)
        return found

    def _behind(self, name: str) -> set[str]:
        """The name itself, and all that must come behind it."""
        found, left = set[str](), [name]
        while left:
            one = left.pop()
            if one not in found:
                found.add(one)
                left += self._after[one]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    document: Document
    kind: str
    name: str
    namespace: str
    value: Mapping[str, Value]
    spec: Mapping[str, Value]


def model_of(label: str) -> str:
    """The model as nodes are known by it: `H100` out of `NVIDIA-H100-80GB-HBM3`; the label itself if it is unknown."""
    found = _MODEL.search(label.lower())
    return (found["model"].upper().replace("-", "") if found else label.upper()[:40]).replace(".", "-")


def quantity(text: str) -> Decimal | None:
    """A quantity as Kubernetes writes it: 500m, 36Gi, 1e3; None for what is none."""
    found = _QUANTITY.match(text.strip())
    if not found:
        return None
    scale = Decimal(10) ** int(found["power"]) if found["power"] else _SUFFIXES[found["suffix"] or ""]
    return Decimal(found["number"]) * scale


def amount_of(resource: str, text: str) -> str | None:
    """A quantity in the words of our quotas, rounded up to what is counted; None for what is none."""
    value = quantity(text)
    if value is None or value > 1 << 50:
        return None
    write: Callable[[int], str] = {"cpu": "{}m".format, "memory": "{}B".format}.get(resource, str)
    scaled = value * 1_000 if resource == "cpu" else value
    return write(int(scaled.to_integral_value(rounding="ROUND_CEILING")))
