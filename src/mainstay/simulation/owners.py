"""The owners of guests: they make pods in a simulated cluster, singly and in groups, and delete some of them; and who
administers its nodes.
"""

from __future__ import annotations

import random
from dataclasses import replace

from mainstay.clusters.simulated import Behaviour, Lodgers, Machines
from mainstay.domain.guest import Group, Guest
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import PodRef
from mainstay.simulation.users import TENANTS

GUESTS_MAX = 60
DEEDS = 3
"""Done at a time: many pods, or few of the faults would meet one."""
ANY_NODE, GPU_NODE = "any", "gpu"
"""Restrictions: of all nodes, and of those with GPUs."""
SIZES = (
    Resources(cpu_milli=500, memory_bytes=BYTES_PER_GIB),
    Resources(cpu_milli=2_000, memory_bytes=BYTES_PER_GIB),
    Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB, gpus=1),
)


class Owners:
    """Act by dice of their own: what they do changes no other draw."""

    def __init__(self, machines: Machines, lodgers: Lodgers, rng: random.Random) -> None:
        self._machines, self._lodgers, self._rng = machines, lodgers, rng
        self._admits = {name: node.admits for name, node in machines.nodes.items()}
        self._unfinished: list[Guest] = []
        """Members of a group that are still to come."""

    def act(self) -> None:
        """Do a few things."""
        self._taint()
        for _ in range(DEEDS):
            self._do()

    def _do(self) -> None:
        choice = self._rng.random()
        if self._unfinished and choice < 0.6:
            self._arrive(self._unfinished.pop())
        elif len(self._lodgers.by_uid) < GUESTS_MAX and choice < 0.8:
            self._make(self._rng.choice((1, 1, 1, 2, 3)))
        elif choice > 0.9 and self._lodgers.by_uid:
            self._lodgers.withdraw(self._rng.choice(sorted(self._lodgers.by_uid)))

    def settle(self) -> None:
        """Nobody waits for ever: what has no place by now is given up."""
        self._unfinished.clear()
        for name, admits in self._admits.items():
            self._machines.nodes[name] = replace(self._machines.nodes[name], admits=admits)
        for uid, lodger in self._lodgers.by_uid.items():
            if lodger.waits and self._rng.random() < 0.1:
                self._lodgers.withdraw(uid)

    def _taint(self) -> None:
        """An administrator puts taints on nodes that no guest tolerates, and takes them away."""
        for name, admits in self._admits.items():
            tainted = self._rng.random() < 0.3
            self._machines.nodes[name] = replace(self._machines.nodes[name], admits=() if tainted else admits)

    def _make(self, size: int) -> None:
        number = len(self._lodgers.by_uid)
        tenant, resources = self._rng.choice(TENANTS), self._rng.choice(SIZES)
        restriction = self._rng.choice((ANY_NODE, ANY_NODE, GPU_NODE))
        members = [
            Guest(
                pod=PodRef(namespace=tenant, name=f"pod{number}-{rank}", uid=f"uid-{number}-{rank}"),
                tenant=tenant,
                project="guests",
                queue="default",
                priority=self._rng.choice((25, 50, 75)),
                resources=resources,
                restriction=restriction,
                grace_seconds=self._rng.choice((0, 5)),
                group=Group(name=f"group{number}", size=size) if size > 1 else None,
            )
            for rank in range(size)
        ]
        self._arrive(members.pop())
        self._unfinished += members

    def _arrive(self, guest: Guest) -> None:
        behaviour = Behaviour(
            starts_after=self._rng.uniform(0.1, 1.5),
            runs_for=self._rng.choice((0.3, 3.0, 30.0)),
            exit_code=self._rng.choice((0, 0, 0, 1)),
            ignores_term=self._rng.random() < 0.2,
        )
        self._lodgers.arrive(guest, behaviour)
