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
        return tuple(Handed(use=use, value=self.values[use.name]) for use in found[1])
