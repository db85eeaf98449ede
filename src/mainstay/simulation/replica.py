"""One control plane process of a simulation: the real loops, cut into steps between which anything may happen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

from mainstay.control import decisions
from mainstay.control.decisions import DECISIONS, Decision, plan_of
from mainstay.control.effects import EffectLoop, View
from mainstay.control.tenure import LEASE_SECONDS, Tenure
from mainstay.domain.errors import Fenced, MainstayError
from mainstay.ports import Artifacts, Clock, Cluster, Store
from mainstay.simulation.faults import CALM, Dice

P = ParamSpec("P")
R = TypeVar("R")

Steps = AsyncGenerator[float, None]
"""A loop: each value is after how many seconds its next step is due."""

STEP_SECONDS = (0.005, 0.2)
PERIOD_SECONDS = (0.2, 1.5)
CALM_PERIOD_SECONDS = (1.0, 6.0)
"""Without faults nothing is learnt from looking often, and half of all events would be such looks."""
PAUSE_SECONDS = (1.0, 4 * LEASE_SECONDS)
"""A long pause: often past the end of a lease, so that a leader wakes up with a stale view of everything."""


class Inline:
    """`Offload` without threads: a simulation has one thread and one order."""

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here."""
        return function(*args, **kwargs)


class Replica:
    """A process: its own store handle, leases and loops. Thrown away when it crashes."""

    def __init__(
        self, name: str, store: Store, cluster: Cluster, artifacts: Artifacts, clock: Clock, dice: Dice
    ) -> None:
        self.name = name
        self.store = store
        self.clock = clock
        self._cluster = cluster
        self._artifacts = artifacts
        self._dice = dice
        self._effects: EffectLoop | None = None

    def loops(self) -> list[Steps]:
        """Every loop of the process, as `control.runner.loops` has them."""
        return [*(self._decision(decision) for decision in DECISIONS), self._effect()]

    async def close(self) -> None:
        """The process is gone: what it had under way is cut off."""
        if self._effects is not None:
            await self._effects.close()
        self.store.close()

    async def _decision(self, decision: Decision) -> Steps:
        lease = f"{decisions.LEASE}/{decision.name}"
        tenure = Tenure(self.store, self.clock, lease=lease, holder=self.name)
        while True:
            try:
                epoch = tenure.epoch()
                if epoch is not None:
                    snapshot = self.store.snapshot(now=self.clock.now(), seed=self.store.version())
                    yield self._step()
                    plan = plan_of(decision, snapshot, epoch=epoch)
                    if plan is not None:
                        yield self._step()
                        self.store.commit(plan)
            except Fenced:
                tenure.lost()
            except MainstayError:
                self._dice.counts["turn_failed"] += 1
            yield self._rest()

    async def _effect(self) -> Steps:
        tenure = Tenure(self.store, self.clock, lease=f"cluster/{self._cluster.name}", holder=self.name)
        offload = cast("Any", Inline())
        effects = EffectLoop(self.store, self._cluster, self._artifacts, self.clock, offload)
        self._effects = effects
        while True:
            try:
                epoch = tenure.epoch()
                if epoch is not None:
                    view = await effects.look()
                    yield self._step()
                    await effects.record(view, epoch)
                    for one in _one_by_one(view):
                        yield self._step()
                        await effects.carry_out(one, epoch)
            except Fenced:
                tenure.lost()
            except MainstayError:
                self._dice.counts["turn_failed"] += 1
            yield self._rest()

    def _rest(self) -> float:
        return self._dice.rng.uniform(*(CALM_PERIOD_SECONDS if self._dice.profile is CALM else PERIOD_SECONDS))

    def _step(self) -> float:
        """Mostly a blink; sometimes so long that the world has moved on."""
        if self._dice.throw("long_pause"):
            return self._dice.rng.uniform(*PAUSE_SECONDS)
        return self._dice.rng.uniform(*STEP_SECONDS)


def _one_by_one(view: View) -> list[View]:
    """The same view once per effect, so that anything may happen between two of them."""
    return [
        replace(view, reconciliation=replace(view.reconciliation, observations=(), effects=(effect,)))
        for effect in view.reconciliation.effects
    ]
