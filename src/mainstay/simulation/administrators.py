"""Who looks after the nodes of a simulated cluster: keeps some out, drains and quarantines them, and lets them in again.

What is said of a node may be said through a process that dies while it is written down, twice, or against what another has
said: only what is on record counts.
"""

from __future__ import annotations

import random

from mainstay.domain.errors import Conflict
from mainstay.operations import nodes
from mainstay.operations.principal import Done, Principal
from mainstay.operations.services import Services

ROOT = Principal(name="root", tenant="platform", role="platform-admin")
KEPT_OUT_MAX = 1
"""Of the nodes: most of the work must go on."""
WAITS_SECONDS = (0, 0, 5, 60)
QUARANTINES_SECONDS = (0, 3, 30)


class Administrator:
    """Acts by dice of its own: what it does changes no other draw."""

    def __init__(self, names: list[str], rng: random.Random) -> None:
        self._names, self._rng = names, rng

    async def act(self, services: Services) -> None:
        """Say one thing of one node. Raises CrashError if the process that is told dies."""
        found = {row.name: row for row in services.store.nodes()}
        if not found:
            return
        out = [name for name, row in found.items() if row.closure is not None]
        if out and (len(out) >= KEPT_OUT_MAX or self._rng.random() < 0.5):
            await self._say(services, self._rng.choice(("uncordon", "release", "drain", "quarantine")), out[0])
        else:
            await self._say(
                services, self._rng.choice(("cordon", "drain", "drain", "quarantine")), self._rng.choice(self._names)
            )

    async def settle(self, services: Services) -> None:
        """Every node is let in again."""
        for row in services.store.nodes():
            if row.closure is not None:
                await self._say(services, "release" if row.closure.word == "quarantined" else "uncordon", row.name)

    async def _say(self, services: Services, verb: str, name: str) -> None:
        wait, seconds = self._rng.choice(WAITS_SECONDS), self._rng.choice(QUARANTINES_SECONDS)
        now = services.clock.now()

        def said() -> Done | None:
            place = ("sim", name)
            try:
                match verb:
                    case "cordon":
                        return nodes.cordon(services.store, ROOT, place, why="", now=now, request=None, reply=_nothing)
                    case "drain":
                        return nodes.drain(
                            services.store,
                            ROOT,
                            place,
                            why="",
                            wait_seconds=wait,
                            now=now,
                            request=None,
                            reply=_nothing,
                        )
                    case "quarantine":
                        return nodes.quarantine(
                            services.store, ROOT, place, why="", seconds=seconds, now=now, request=None, reply=_nothing
                        )
                    case "uncordon":
                        return nodes.uncordon(services.store, ROOT, place, now=now, request=None, reply=_nothing)
                    case _:
                        return nodes.release(services.store, ROOT, place, now=now, request=None, reply=_nothing)
            except Conflict:
                return None  # it is kept out otherwise

        await services.offload(said)


def _nothing(_: object) -> str:
    return ""
