"""Who reaches whom under network policies: a simulator of as much of them as we write.

Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/. A pod that no policy selects for a direction
is open in it; one that some select takes what any of them lists; a connection needs leave at both ends. What it does not know
fails an assertion, so that nothing is let through for being overlooked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Labels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """Someone with an address in the network of pods."""

    namespace: str
    labels: Labels = field(default_factory=dict)
    address: str = "10.1.2.3"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Labels of namespaces, which the API server gives their name, and the policies in them."""

    namespaces: Mapping[str, Labels]
    policies: Mapping[str, tuple[Mapping[str, Any], ...]]

    def allows(self, one: Pod, other: Pod | str, port: int, protocol: str = "TCP") -> bool:
        """Whether a pod opens a connection to another, or to an address that is no pod."""
        out = self._passes("Egress", one, other, port, protocol)
        return out and (isinstance(other, str) or self._passes("Ingress", other, one, port, protocol))

    def _passes(self, way: str, here: Pod, there: Pod | str, port: int, protocol: str) -> bool:
        selecting = [
            policy["spec"]
            for policy in self.policies.get(here.namespace, ())
            if way in policy["spec"]["policyTypes"] and _selects(policy["spec"]["podSelector"], here.labels)
        ]
        key = {"Egress": "egress", "Ingress": "ingress"}[way]
        rules = [rule for spec in selecting for rule in spec.get(key, ())]
        return not selecting or any(self._lists(rule, there, port, protocol) for rule in rules)

    def _lists(self, rule: Mapping[str, Any], there: Pod | str, port: int, protocol: str) -> bool:
        peers = [*rule.get("to", ()), *rule.get("from", ())]
        ports = rule.get("ports", ())
        fits = not ports or any((one["protocol"], one["port"]) == (protocol, port) for one in ports)
        return fits and (not peers or any(self._is(peer, there) for peer in peers))

    def _is(self, peer: Mapping[str, Any], there: Pod | str) -> bool:
        assert peer.keys() <= {"ipBlock", "namespaceSelector", "podSelector"}
        if "ipBlock" in peer:
            return _within(peer["ipBlock"], there if isinstance(there, str) else there.address)
        if isinstance(there, str):
            return False
        home = {"kubernetes.io/metadata.name": there.namespace, **self.namespaces[there.namespace]}
        return _selects(peer["namespaceSelector"], home) and _selects(peer.get("podSelector", {}), there.labels)


def _selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def _within(block: Mapping[str, Any], address: str) -> bool:
    return _holds([block["cidr"]], address) and not _holds(block.get("except", ()), address)


def _holds(blocks: Iterable[str], address: str) -> bool:
    return any(ip_address(address) in ip_network(block) for block in blocks)
