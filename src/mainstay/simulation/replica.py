"""One control plane process of a simulation: the real loops, cut into steps between which anything may happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mainstay.control import decisions, runner
from mainstay.control.decisions import DECISIONS, Decision, plan_of
from mainstay.control.effects import BUSY_SECONDS
from mainstay.control.loop import Loop
from mainstay.control.tenure import LEASE_SECONDS, Tenure
from mainstay.domain.errors import Fenced, MainstayError
from mainstay.operations.agents import Agents
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.operations.services import Services
from mainstay.operations.waiting import WaitingReasons
from mainstay.outbound import Outbound
from mainstay.ports import ArtifactStore, Cluster, Store
from mainstay.simulation.faults import CALM, Dice
from mainstay.simulation.pace import Inline, Steps, in_steps
from mainstay.simulation.time import VirtualClock

STEP_SECONDS = (0.005, 0.3)
"""Long beside the periods, so that most of what is decided is decided on a view that somebody else has changed."""
PERIOD_SECONDS = (0.2, 1.5)
IDLE_PERIOD_SECONDS = (1.0, 6.0)
"""Without faults, or while another process leads, nothing is learnt from looking often: most events would be such looks."""
PAUSES_SECONDS = ((0.5, LEASE_SECONDS), (LEASE_SECONDS, 4 * LEASE_SECONDS))
"""Long pauses. After the one we still lead, with a stale view; after the other somebody else does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a process works on, behind its faults."""

    store: Store
    clusters: Mapping[str, Cluster]
    artifacts: ArtifactStore


class Replica:
    """A process: its own store handle, leases and loops. Thrown away when it crashes."""

    def __init__(
        self, name: str, outside: Outside, clock: VirtualClock, dice: Dice, *, without: frozenset[str] = frozenset()
    ) -> None:
        """`without`: names of decisions that have nothing to do in this world, and so draw nothing."""
        self.name = name
        self.clock = clock
        offload = Inline()
        self.services = Services(
            store=outside.store,
            waiting=WaitingReasons(outside.store, later=offload.later),
            artifacts=outside.artifacts,
            clusters=dict(outside.clusters),
            connectors={},
            outbound=Outbound(),
            sealing=Sealing(key=bytes(KEY_BYTES)),
            clock=clock,
            draw=dice.rng.choice,
            offload=offload,
            pulse=Pulse(),
            authenticate=lambda _: None,
            agents=Agents(clock),
            system="simulation",
            url="",
        )
        self._dice = dice
        self._decisions = [one for one in DECISIONS if one.name not in without]
        loops = runner.loops(self.services, holder=name)
        self._effects = [loop for loop in loops if loop.name.startswith("cluster/")]

    def loops(self) -> list[Steps]:
        """Every loop of the process, as `control.runner.loops` has them, but the one that follows the table of clusters."""
        return [*map(self._decision, self._decisions), *map(self._effect, self._effects)]

    async def close(self) -> None:
        """The process is gone: what it had under way is cut off."""
        for loop in self._effects:
            if loop.close:
                await loop.close()

    def step(self) -> float:
        """Mostly a blink; sometimes so long that the world has moved on."""
        if self._dice.throw("long_pause"):
            return self._dice.rng.uniform(*self._dice.rng.choice(PAUSES_SECONDS))
        return self._dice.rng.uniform(*STEP_SECONDS)

    async def _decision(self, decision: Decision) -> Steps:
        """As the runner has it, with a pause where only other processes could interfere: between read and commit."""
        store = self.services.store
        tenure = Tenure(store, self.clock, lease=f"{decisions.LEASE}/{decision.name}", holder=self.name)
        while True:
            epoch = None
            try:
                epoch = tenure.epoch()
                if epoch is not None:
                    yield self.step()
                    snapshot = store.snapshot(now=self.clock.now(), seed=store.version())
                    plan = plan_of(decision, snapshot, epoch=epoch)
                    if plan is not None:
                        yield self.step()
                        store.commit(plan)
            except Fenced:
                tenure.lost()
            except MainstayError:
                self._dice.counts["turn_failed"] += 1
            yield self._rest(leads=epoch is not None)

    async def _effect(self, loop: Loop) -> Steps:
        soon = True

        async def turn() -> None:
            nonlocal soon
            soon = (await loop.turn()).wait <= BUSY_SECONDS

        while True:
            try:
                async for seconds in in_steps(turn(), wait=self.step):
                    yield seconds
            except Fenced:
                self._dice.counts["fenced"] += 1
            except MainstayError:
                self._dice.counts["turn_failed"] += 1
            yield self._rest(leads=soon)

    def _rest(self, *, leads: bool) -> float:
        often = leads and self._dice.profile is not CALM
        return self._dice.rng.uniform(*(PERIOD_SECONDS if often else IDLE_PERIOD_SECONDS))
