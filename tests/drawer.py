"""Secrets for tests of clusters: `ports.Secrets` in memory. The contract suite runs over it and over the real one."""

from __future__ import annotations

from dataclasses import dataclass, field

from mainstay.domain.allocation import Owner
from mainstay.domain.errors import Gone, Invalid, NotFound
from mainstay.domain.secret import Handed, SecretUse


@dataclass(slots=True)
class Drawer:
    """What is in it by name, and what each pod asks for."""

    values: dict[str, bytes] = field(default_factory=dict)
    pods: dict[str, tuple[Owner, tuple[SecretUse, ...]]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    given: dict[str, list[bytes]] = field(default_factory=dict)
    """What each pod was handed."""

    async def of(self, pod: str, *, owner: Owner) -> tuple[Handed, ...]:
        """As the port says."""
        found = self.pods.get(pod)
        if found is None or found[0] != owner:
            raise NotFound(pod)
        if pod in self.ended:
            raise Gone(pod)
        for use in found[1]:
            if use.name not in self.values:
                msg = f"there is no secret {use.name} any more"
                raise Invalid(msg)
        self.asked.append(pod)
        handed = tuple(Handed(use=use, value=self.values[use.name]) for use in found[1])
        self.given[pod] = sorted({*self.given.get(pod, []), *(one.value for one in handed)})
        return handed

    async def handed(self, pod: str, *, owner: Owner) -> tuple[bytes, ...]:
        """As the port says."""
        if pod not in self.pods or self.pods[pod][0] != owner:
            raise NotFound(pod)
        return tuple(self.given.get(pod, ()))
