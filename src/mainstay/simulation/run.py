"""One seed, one world: replicas, users and faults in one ordered queue. The same seed gives the same trace, to the byte."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from mainstay.clusters.simulated import Behaviour, Lodgers, Machines, SimulatedCluster
from mainstay.decide.billing import default_price_book
from mainstay.domain.allocation import CreatePod
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import MainstayError
from mainstay.domain.plan import Plan, SetPrice, SetQueue
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import DEFAULT_QUEUE, QueueSpec
from mainstay.domain.reason import Code, Reason
from mainstay.ports import Cluster, Store
from mainstay.simulation.administrators import Administrator
from mainstay.simulation.checks import Checks
from mainstay.simulation.faults import CALM, STEADY, CrashError, Dice, FaultyCluster, FaultyStore, Leaders, Profile
from mainstay.simulation.files import MemoryArtifactStore
from mainstay.simulation.history import all_events
from mainstay.simulation.owners import ANY_NODE, GPU_NODE, Owners
from mainstay.simulation.pace import Steps, in_steps
from mainstay.simulation.replica import Outside, Replica
from mainstay.simulation.time import VirtualClock, VirtualTime
from mainstay.simulation.users import MODEL, USERS, Answers, User
from mainstay.store.engine import Sqlite
from mainstay.store.store import SqlStore

REPLICAS = 2
RESTART_SECONDS = (0.5, 15.0)
USER_SECONDS = (0.05, 2.0)
CALM_USER_SECONDS = (1.0, 6.0)
WORLD_SECONDS = (1.0, 8.0)
CONNECTED_SECONDS, CUT_OFF_SECONDS = (0.5, 8.0), (5.0, 90.0)
LONGER = 4
"""So many times as long do pods run where nodes are cut off, so that most cuts meet some; and where work displaces other."""
ADMINISTRATOR_SECONDS = (2.0, 20.0)
COMMITS_CHECKED_EVERY = 25
"""Events between two looks at the rows; the witness is looked at after every event."""
SETTLED_EVERY = 50
SETTLE_SECONDS_MAX = 1_800.0
"""Eight times the longest of sixty seeds: what has not settled by then never will."""
CLOCK_JUMPS_SECONDS = (-86_400, -3_600, -60, 60, 3_600, 86_400)
NODES = (
    NodeState(
        name="cpu-0",
        capacity=Resources(cpu_milli=8_000, memory_bytes=16 * BYTES_PER_GIB),
        ready=True,
        marked=False,
        admits=(ANY_NODE,),
    ),
    NodeState(
        name="cpu-1",
        capacity=Resources(cpu_milli=4_000, memory_bytes=16 * BYTES_PER_GIB),
        ready=True,
        marked=False,
        admits=(ANY_NODE,),
    ),
    NodeState(
        name="gpu-0",
        capacity=Resources(cpu_milli=16_000, memory_bytes=32 * BYTES_PER_GIB, gpus=4, gpu_model="H100"),
        ready=True,
        marked=False,
        admits=(ANY_NODE, GPU_NODE),
    ),
)


@dataclass(slots=True)
class Outcome:
    """What one seed found."""

    seed: int
    events: int = 0
    violations: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    workloads: int = 0
    pods: int = 0
    displaced: int = 0
    """How often work was displaced for other."""
    shrunk: int = 0
    """How often an elastic run went on with fewer ranks."""
    grown: int = 0
    """And how often with more."""
    of_sets: int = 0
    """Pods of jobs with several pod sets."""
    trace: str = ""
    """Hash over everything that happened, in order."""


@dataclass(slots=True)
class _Process:
    """A replica, and whether it is up: a step of an earlier life finds another number and is dropped."""

    replica: Replica
    clock: VirtualClock
    life: int = 0


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, *, profile: Profile, folder: Path, others: Others) -> None:
        guests, partitions = others.guests, others.partitions
        self._partitions = partitions
        self._preemption = others.preemption
        loops = {"preemption": others.preemption, "growth": others.elastic}
        self._without = frozenset(name for name, there in loops.items() if not there)
        self.outcome = Outcome(seed=seed)
        self._rng = random.Random(seed)
        self._time = VirtualTime()
        self._dice = Dice(random.Random(self._rng.random()), profile.scaled(self._rng), self.outcome.faults)
        self._leaders = Leaders()
        behaviours = random.Random(self._rng.random())
        self.machines = Machines(
            VirtualClock(self._time),
            tuple(map(_narrow, NODES)) if others.preemption else NODES,
            behaviour=lambda action: _behaviour(
                action, behaviours, longer=LONGER if partitions or others.preemption else 1
            ),
        )
        self.lodgers = Lodgers(self.machines)
        self._owners = Owners(self.machines, self.lodgers, random.Random(f"owners/{seed}")) if guests else None
        self._administrator = Administrator(sorted(self.machines.nodes), random.Random(f"administrator/{seed}"))
        self._artifacts = MemoryArtifactStore()
        self._answers = Answers()
        self._users = [User(one, self._dice, self._answers, elastic=others.elastic, sets=others.sets) for one in USERS]
        self._checks = Checks(self.machines, self.lodgers)
        self._trace = hashlib.sha256()
        self._queue: list[tuple[float, int, int, int, Steps]] = []
        self._numbers = itertools.count()
        self._database = Sqlite(folder / "world.db", durable=False)
        self._observer = self._open()
        self._processes = [self._process(number) for number in range(REPLICAS)]

    async def run(self, events: int) -> Outcome:
        """So many events under faults, then a calm until all is settled, then the last checks."""
        self._set_prices()
        if self._preemption:
            self._let_urgent_work_displace()
        for number, process in enumerate(self._processes):
            self._begin(number, process)
        for user in self._users:
            self._push(0.0, -1, 0, self._user_steps(user))
        self._push(0.0, -1, 0, self._world_steps())
        self._push(0.0, -1, 0, self._administrator_steps())
        if self._partitions:
            self._push(0.0, -1, 0, self._network_steps())
        while self.outcome.events < events and not self._found():
            await self._event()
        self._calm()
        if not self._found():
            self._checks.in_between(self._observer)
        deadline = self._time.seconds + SETTLE_SECONDS_MAX
        while self._time.seconds < deadline and not self._found():
            await self._event()
            if self.outcome.events % SETTLED_EVERY == 0 and self._settled():
                break
        self._finish()
        for process in self._processes:
            await process.replica.close()
        self._database.close()
        return self.outcome

    async def _event(self) -> None:
        due, _, number, life, steps = heapq.heappop(self._queue)
        self._time.seconds = max(self._time.seconds, due)
        process = self._processes[number] if number >= 0 else None
        if process is not None and process.life != life:
            await steps.aclose()
            return
        self.outcome.events += 1
        try:
            delay = await anext(steps, None)
        except CrashError:
            await self._crash(number)
            delay = None
        # Tasks that a step has started (fetching output) go on now, before anything else happens.
        await asyncio.sleep(0)
        if delay is not None:
            self._push(self._time.seconds + delay, number, life, steps)
        self._checks.after_event()
        if self.outcome.events % COMMITS_CHECKED_EVERY == 0:
            self._checks.after_commits(self._observer)
        self._note(f"{due:.6f} {number} {delay}")

    def _found(self) -> bool:
        return bool(self._checks.violations or self._leaders.violations or self._answers.violations)

    def _finish(self) -> None:
        if not self._found():
            self._checks.at_the_end(self._observer, self._answers)
        self.outcome.violations = [*self._leaders.violations, *self._answers.violations, *self._checks.violations]
        self.outcome.workloads = len(self._answers.submitted) + len(self._answers.deployed)
        self.outcome.pods = len(self.machines.processes)
        specs = [process.spec for process in self.machines.processes.values() if process.spec is not None]
        self.outcome.of_sets = sum("MAINSTAY_SET" in dict(spec.env) for spec in specs)
        for line in self.machines.witness:
            self._note(f"{line.at} {line.pod} {line.running}")
        for event in all_events(self._observer):
            self.outcome.displaced += event.reason.code is Code.PREEMPTED and event.kind == "preemption"
            self.outcome.shrunk += event.reason.code is Code.SHRUNK
            self.outcome.grown += event.reason.code is Code.GROWN
            self._note(f"{event.seq} {event.at} {event.object} {event.reason}")
        self.outcome.trace = self._trace.hexdigest()

    def _settled(self) -> bool:
        """Every request is answered, every workload final, every allocation closed, and every node let in."""
        if any(user.waits for user in self._users) or any(node.marked for node in self.machines.nodes.values()):
            return False
        snapshot = self._observer.snapshot(now=0, seed=0)
        return not snapshot.workloads.key.size and not snapshot.allocations.key.size

    def _calm(self) -> None:
        """Faults stop. Clocks are set right, as an operator would."""
        self._dice.profile = CALM
        for process in self._processes:
            process.clock.offset_us = 0
        for name, node in self.machines.nodes.items():
            if not node.ready:
                self.machines.return_node(name)

    async def _user_steps(self, user: User) -> Steps:
        """One request after the other, each to some process. One that is slow may be sent again while it is under way."""
        while True:
            number = self._dice.rng.randrange(REPLICAS)
            process = self._processes[number]
            work = user.settle if self._dice.profile is CALM else user.act
            request = in_steps(work(process.replica.services), wait=process.replica.step)
            try:
                async for seconds in request:
                    if self._dice.throw("user_impatient"):
                        user.lose_patience()
                        self._push(self._time.seconds + seconds, number, process.life, request)
                        break
                    yield seconds
                    if self._processes[number] is not process:
                        await request.aclose()
                        break
            except CrashError:
                await self._crash(number)
            except MainstayError:
                self.outcome.faults["request_failed"] += 1
            calm = self._dice.profile is CALM
            yield self._dice.rng.uniform(*(CALM_USER_SECONDS if calm else USER_SECONDS))

    async def _administrator_steps(self) -> Steps:
        """One word after the other, each to some process."""
        rng = random.Random(f"administrator-steps/{self.outcome.seed}")
        while True:
            yield rng.uniform(*(CALM_USER_SECONDS if self._dice.profile is CALM else ADMINISTRATOR_SECONDS))
            number = rng.randrange(REPLICAS)
            process = self._processes[number]
            work = self._administrator.settle if self._dice.profile is CALM else self._administrator.act
            request = in_steps(work(process.replica.services), wait=process.replica.step)
            try:
                async for seconds in request:
                    yield seconds
                    if self._processes[number] is not process:
                        await request.aclose()
                        break
            except CrashError:
                await self._crash(number)
            except MainstayError:
                self.outcome.faults["request_failed"] += 1

    async def _network_steps(self) -> Steps:
        """One node at a time is cut off, by dice of its own, and hears of the world again after a while."""
        rng = random.Random(f"network/{self.outcome.seed}")
        while True:
            yield rng.uniform(*CONNECTED_SECONDS)
            if self._dice.profile is CALM:
                continue
            node = rng.choice(sorted(self.machines.nodes))
            self.machines.cut_off(node)
            self.outcome.faults["node_cut_off"] += 1
            yield rng.uniform(*CUT_OFF_SECONDS)
            if not self.machines.nodes[node].ready:
                self.machines.return_node(node)

    async def _world_steps(self) -> Steps:
        down: list[str] = []
        while True:
            self.machines.settle()
            self._let_owners_act()
            if self._dice.throw("pod_lost") and (live := self.machines.live()):
                self.machines.lose(self._dice.rng.choice(live).name, detail="a fault of the simulation")
            if self._dice.throw("node_lost"):
                down.append(self._dice.rng.choice(sorted(self.machines.nodes)))
                self.machines.lose_node(down[-1])
            elif down and self._dice.rng.random() < 0.5:
                self.machines.return_node(down.pop())
            if self._dice.throw("clock_jump"):
                process = self._dice.rng.choice(self._processes)
                process.clock.offset_us = self._dice.rng.choice(CLOCK_JUMPS_SECONDS) * 1_000_000
            yield self._dice.rng.uniform(*WORLD_SECONDS)

    def _let_owners_act(self) -> None:
        if self._owners is not None:
            if self._dice.profile is CALM:
                self._owners.settle()
            else:
                self._owners.act()

    async def _crash(self, number: int) -> None:
        """The process is gone with all it held in memory; another one comes up after a while."""
        process = self._processes[number]
        await process.replica.close()
        clock = process.clock
        self._processes[number] = fresh = self._process(number, clock=clock)
        fresh.life = process.life + 1
        self._begin(number, fresh, after=self._dice.rng.uniform(*RESTART_SECONDS))

    def _begin(self, number: int, process: _Process, *, after: float = 0.0) -> None:
        for steps in process.replica.loops():
            self._push(self._time.seconds + after + self._dice.rng.random(), number, process.life, steps)

    def _process(self, number: int, *, clock: VirtualClock | None = None) -> _Process:
        clock = clock or VirtualClock(self._time)
        store = cast("Store", FaultyStore(self._open(), self._dice, self._leaders))
        cluster = cast(
            "Cluster", FaultyCluster(SimulatedCluster("sim", self.machines, self.lodgers), self._dice, self._leaders)
        )
        outside = Outside(store=store, clusters={cluster.name: cluster}, artifacts=self._artifacts)
        replica = Replica(f"replica-{number}", outside, clock, self._dice, without=self._without)
        return _Process(replica=replica, clock=clock)

    def _open(self) -> SqlStore:
        """A handle with caches of its own. The database under them is one: no transaction outlasts a step."""
        return SqlStore(self._database)

    def _set_prices(self) -> None:
        actions = tuple(
            SetPrice(price=price, reason=Reason(code=Code.PRICE_SET, object=price.sku))
            for price in default_price_book()
        )
        self._observer.commit(Plan(actor="simulation", now=1, actions=actions, atomic=True))

    def _let_urgent_work_displace(self) -> None:
        policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_OR_NEWER_EQUAL_PRIORITY)
        queue = QueueSpec(name=DEFAULT_QUEUE, preemption=policy)
        action = SetQueue(queue=queue, reason=Reason(code=Code.QUEUE_SET, object=queue.name))
        self._observer.commit(Plan(actor="simulation", now=1, actions=(action,), atomic=True))

    def _push(self, due: float, number: int, life: int, steps: Any) -> None:
        heapq.heappush(self._queue, (due, next(self._numbers), number, life, steps))

    def _note(self, line: str) -> None:
        self._trace.update(line.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What else there is in a world."""

    guests: bool = False
    """Others make pods there too."""
    partitions: bool = False
    """Nodes are cut off."""
    preemption: bool = False
    """Urgent and older work displaces other."""
    elastic: bool = False
    """Programs go on with more ranks or fewer."""
    sets: bool = False
    """Ranks of a job are not all alike."""


def simulate(
    seed: int,
    *,
    events: int,
    profile: Profile | None = None,
    guests: bool = False,
    partitions: bool = False,
    preemption: bool = False,
    elastic: bool = False,
    sets: bool = False,
) -> Outcome:
    """Run one seed in a scratch directory in memory, in a world with `Others`."""
    shared = Path("/dev/shm")  # noqa: S108 the point is that it is memory
    parent = shared if shared.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="mainstay-sim-", dir=parent))
    try:
        given = profile or (STEADY if partitions else Profile())
        others = Others(guests=guests, partitions=partitions, preemption=preemption, elastic=elastic, sets=sets)
        return asyncio.run(_simulate(seed, events=events, profile=given, folder=folder, others=others))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _simulate(seed: int, *, events: int, profile: Profile, folder: Path, others: Others) -> Outcome:
    return await World(seed, profile=profile, folder=folder, others=others).run(events)


def _narrow(node: NodeState) -> NodeState:
    """With a quarter of its CPUs: little of the work fits beside other."""
    return replace(node, capacity=replace(node.capacity, cpu_milli=node.capacity.cpu_milli // 4))


def _behaviour(action: CreatePod, rng: random.Random, *, longer: int) -> Behaviour:
    files = {"log": action.name.encode(), f"{MODEL}/weights": action.name.partition("-")[0].encode()}
    return Behaviour(
        starts_after=rng.uniform(0.1, 1.5),
        runs_for=longer * rng.choice((0.3, 1.0, 3.0, 8.0, 30.0)),
        exit_code=rng.choice((0, 0, 0, 0, 0, 1, 137)),
        ignores_term=rng.random() < 0.2,
        files=files if rng.random() < 0.5 else {},
    )
