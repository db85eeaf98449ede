"""GPUs that drivers offer in ResourceSlices, and claims that take them (dynamic resource allocation, resource.k8s.io/v1).

Sources: KEP-4381; the drivers gpu.nvidia.com (https://github.com/NVIDIA/k8s-dra-driver-gpu), gpu.amd.com, gpu.intel.com and
gpu.example.com. A driver whose name begins with `gpu.` offers GPUs, and comes with a DeviceClass of its name.

Not counted: devices that several nodes reach, and parts that are cut out of a device only once they are asked for.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mainstay.clusters.kubernetes.devices import Devices, model_of, slice_shape
from mainstay.clusters.kubernetes.objects import Device, ResourceClaim, ResourceSlice

GPU_DRIVER = "gpu."
MODEL_ATTRIBUTES = ("productName", "model", "family")
"""Where the drivers write it, the first that is there."""
PROFILE, TYPE, MIG = "profile", "type", "mig"
BLOCKED = frozenset({"NoSchedule", "NoExecute"})
"""Effects of taints on a device (KEP-5055)."""
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}\Z")

DeviceKey = tuple[str, str, str]
"""(driver, pool, device): what a claim is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """One device of a node."""

    key: DeviceKey
    model: str
    device_class: str
    selector: str
    works: bool

    @property
    def resource(self) -> str:
        """What stands for it where devices are counted by resource: no resource of a node has two slashes."""
        return f"{self.key[0]}/{self.device_class}/{self.model}"


def taken_by_others(claim: ResourceClaim, *, ours: bool) -> tuple[DeviceKey, ...]:
    """The devices that a claim has. Those of our own claims are in our accounts already; administrators take nothing away."""
    if ours or claim.status.allocation is None:
        return ()
    results = claim.status.allocation.devices.results
    return tuple((one.driver, one.pool, one.device) for one in results if not one.admin_access)


class Offered:
    """Of one cluster; kept by the changes of its slices and claims."""

    def __init__(self) -> None:
        self._slices: dict[str, ResourceSlice] = {}
        self._taken: Counter[DeviceKey] = Counter()
        self._by_node: Mapping[str, tuple[_Offer, ...]] = {}
        self._nodes: Mapping[DeviceKey, str] = {}
        self._is_old = self._has_news = False

    def slice_changed(self, name: str, new: ResourceSlice | None) -> None:
        """A slice came, changed or went: what nodes have is found out when somebody asks."""
        if new is None:
            self._slices.pop(name, None)
        else:
            self._slices[name] = new
        self._is_old = self._has_news = True

    def claim_changed(self, old: tuple[DeviceKey, ...] | None, new: tuple[DeviceKey, ...] | None) -> None:
        """A claim was given devices, or has let go of them."""
        self._taken.subtract(old or ())
        self._taken.update(new or ())
        for key in old or ():
            if self._taken[key] <= 0:
                del self._taken[key]

    def node_of(self, key: DeviceKey) -> str:
        """Empty if no node has it."""
        self._look()
        return self._nodes.get(key, "")

    def has_news(self) -> bool:
        """Whether slices have changed since the last call."""
        news, self._has_news = self._has_news, False
        return news

    def devices(self, node: str) -> tuple[Devices, ...]:
        """The kinds that a node has, by resource."""
        kinds: dict[str, list[_Offer]] = defaultdict(list)
        for offer in self._of(node):
            kinds[offer.resource].append(offer)
        return tuple(
            Devices(
                model=offers[0].model,
                resource=resource,
                has=len(offers),
                gives=sum(offer.works for offer in offers),
                device_class=offers[0].device_class,
                selector=" || ".join(sorted({offer.selector for offer in offers if offer.selector})),
            )
            for resource, offers in sorted(kinds.items())
        )

    def taken(self, node: str) -> Counter[str]:
        """By others, by resource."""
        return Counter(offer.resource for offer in self._of(node) if self._taken[offer.key] > 0)

    def _of(self, node: str) -> tuple[_Offer, ...]:
        self._look()
        return self._by_node.get(node, ())

    def _look(self) -> None:
        if self._is_old:
            self._is_old = False
            self._by_node = _offers(self._slices.values())
            self._nodes = {offer.key: node for node, offers in self._by_node.items() for offer in offers}


def _offers(slices: Iterable[ResourceSlice]) -> dict[str, tuple[_Offer, ...]]:
    """By node. Of a pool only the newest generation counts, and only once all of it is there: so the scheduler sees it too."""
    pools: dict[tuple[str, str], list[ResourceSlice]] = defaultdict(list)
    for one in slices:
        pools[one.spec.driver, one.spec.pool.name].append(one)
    found: dict[str, list[_Offer]] = defaultdict(list)
    for members in pools.values():
        newest = max(one.spec.pool.generation for one in members)
        current = [one for one in members if one.spec.pool.generation == newest]
        if len(current) < current[0].spec.pool.resource_slice_count:
            continue
        for one in current:
            if one.spec.node_name:
                offers = (_offer(one, device) for device in one.spec.devices)
                found[one.spec.node_name].extend(offer for offer in offers if offer is not None)
    return {node: tuple(sorted(offers, key=lambda offer: offer.key)) for node, offers in found.items()}


def _offer(of: ResourceSlice, device: Device) -> _Offer | None:
    """None for what is no GPU, and for a part that others overlap."""
    driver = of.spec.driver
    if not driver.startswith(GPU_DRIVER):
        return None
    kind, profile = _text(driver, device, TYPE), slice_shape(_text(driver, device, PROFILE))
    if profile and device.consumes_counters:
        return None
    attribute = next((name for name in MODEL_ATTRIBUTES if _text(driver, device, name)), "")
    model = model_of(_text(driver, device, attribute)) if attribute else ""
    told = (TYPE, PROFILE) if profile else (TYPE, attribute)
    is_slice = bool(profile) and kind == MIG
    return _Offer(
        key=(driver, of.spec.pool.name, device.name),
        model=profile if is_slice else model,
        device_class=f"{MIG}.{driver.removeprefix(GPU_DRIVER)}" if is_slice else driver,
        selector=_selector(driver, device, [name for name in told if name]),
        works=not any(taint.effect in BLOCKED for taint in device.taints),
    )


def _selector(driver: str, device: Device, attributes: Iterable[str]) -> str:
    """In CEL: devices that say the same of themselves. Empty if they say nothing."""
    said = [(name, text) for name in attributes if (text := _text(driver, device, name))]
    place = f"device.attributes[{json.dumps(driver)}]"
    parts = [f"has({place}.{name}) && {place}.{name} == {json.dumps(text)}" for name, text in said]
    return f"({' && '.join(parts)})" if parts else ""


def _text(driver: str, device: Device, name: str) -> str:
    """An attribute that is text; without a domain it is one of the driver."""
    if not _IDENTIFIER.match(name):
        return ""
    value = device.attributes.get(name) or device.attributes.get(f"{driver}/{name}")
    return value.string if value is not None else ""
