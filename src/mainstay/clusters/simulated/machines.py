"""The machines of a simulated cluster: what goes on there whether or not anybody looks.

They outlive every adapter, as real machines do. Time passes by the monotonic clock that they are given; whoever asks
brings them up to date first. Everything that happens to a process is written down by a witness that no database of
ours can touch: it is what the simulation holds the platform's own records against.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from mainstay.domain.affinity import NodeNeed, admits
from mainstay.domain.allocation import CreatePod, End, PodSpec, PodState, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import Conflict, Fenced, Gone, NoCapacity
from mainstay.domain.image import IMAGES_MAX
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources, is_shape
from mainstay.ports import Clock

PORT_FIRST = 20_000
SLOWEST_CLOCK = 1.04
"""The clocks of nodes are slower than ours."""
PROBE_SECONDS = 5.0
CUT_OFF = "cut off, and not renewed for too long"
IMAGE_BYTES = 1 << 30
"""Every image is so large."""
TELL_SECONDS = 0.5
"""Between the first word of a node that is back and that of its processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the process of a pod does. Durations in seconds."""

    starts_after: float = 1.0
    runs_for: float = 10.0
    exit_code: int = 0
    ignores_term: bool = False
    lines: tuple[bytes, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """What a process did, by the machines' own clock (UTC microseconds)."""

    at: int
    pod: str
    gang: str
    node: str
    resources: Resources
    running: bool
    """True: it started. False: it ended."""


@dataclass(slots=True)
class Process:
    """A pod by name, for ever: once it has ended only `forgotten` changes."""

    name: str
    node: str
    spec: PodSpec | None
    behaviour: Behaviour
    due: float
    """When the next thing happens to it by itself (monotonic seconds)."""
    seen: Seen = Seen.STARTING
    started: float = 0.0
    started_at: int = 0
    ended_at: int = 0
    end: End | None = None
    exit_code: int | None = None
    detail: str = ""
    cause: End | None = None
    """Why it was told to end, if it was."""
    port: int = 0
    forgotten: bool = False
    revoked: bool = False
    """Nobody renews it any more."""
    dead_man: float = 0.0
    """When it ends itself (monotonic seconds), on a node that is cut off; 0: it does not."""
    guest: bool = False
    """Others made it: it is reported as a guest."""
    asked_to_end: bool = False
    """While nobody heard of its node, nor did that hear of anything."""
    unheard: bool = False
    """It ended while nobody heard of its node."""

    @property
    def alive(self) -> bool:
        """Holds its node's resources."""
        return self.seen is not Seen.ENDED


class Machines:
    """The nodes, their processes and their witness."""

    def __init__(
        self, clock: Clock, nodes: tuple[NodeState, ...], *, behaviour: Callable[[CreatePod], Behaviour]
    ) -> None:
        """`behaviour` is asked once per pod, when it is created."""
        self.clock = clock
        self.nodes = {node.name: node for node in nodes}
        self.witness: list[Witnessed] = []
        self.epoch = 0
        self.processes: dict[str, Process] = {}
        self._silent: set[str] = set()
        """Nodes that nobody hears of: cut off, or without power."""
        self._heard_at: dict[str, float] = {}
        """When nodes that are back tell of their processes (monotonic seconds)."""
        self._behaviour = behaviour
        self._due: list[tuple[float, str]] = []
        self._ports = PORT_FIRST

    def settle(self) -> None:
        """Let everything happen that is due by now, in the order of time and then of names."""
        moment = self.clock.monotonic()
        while self._due and self._due[0][0] <= moment:
            due, name = heapq.heappop(self._due)
            process = self.processes.get(name)
            if process is None:  # Forgotten meanwhile.
                continue
            if process.alive and process.dead_man == due:
                self._end(process, End.LOST, None, CUT_OFF, moment=due)
            elif process.alive and process.due == due:
                self._happen(process, due)

    def fence(self, epoch: int) -> None:
        """Raises Fenced if a higher epoch has acted."""
        if epoch < self.epoch:
            msg = f"epoch {epoch} has passed, now {self.epoch}"
            raise Fenced(msg, numbers={"held": epoch, "now": self.epoch})
        self.epoch = epoch

    def create(self, action: CreatePod) -> None:
        """Idempotent by name. Raises Gone, Conflict, NoCapacity."""
        known = self.processes.get(action.name)
        if known is not None:
            _check_same(known, action)
            return
        if action.node not in self.nodes:
            msg = f"no such node: {action.node}"
            raise NoCapacity(msg, object_=action.node)
        self.require_room(action.name, action.node, action.spec.resources, need=action.spec.need)
        process = self.start(action.name, action.node, action.spec, self._behaviour(action))
        if action.spec.port:
            self._ports += 1
            process.port = self._ports

    def start(self, name: str, node: str, spec: PodSpec, behaviour: Behaviour, *, guest: bool = False) -> Process:
        """A process on a node that has room for it."""
        due = self.clock.monotonic() + behaviour.starts_after
        process = Process(name=name, node=node, spec=spec, behaviour=behaviour, due=due, guest=guest)
        self.processes[name] = process
        heapq.heappush(self._due, (process.due, process.name))
        return process

    def delete(self, name: str, *, grace_seconds: float) -> None:
        """Stop it, or leave a tombstone where there is nothing."""
        process = self.processes.get(name)
        if process is None:
            self.processes[name] = self._tombstone(name)
            return
        if not process.alive:
            return
        if process.node in self._silent:
            process.asked_to_end = True  # its node hears of it once it is back
            return
        if process.seen is not Seen.RUNNING:
            self._end(process, End.NEVER_STARTED, None, "stopped before it started")
            return
        process.cause = process.cause or End.STOPPED
        grace = grace_seconds if process.behaviour.ignores_term else 0.0
        self._schedule(process, min(process.due, self.clock.monotonic() + grace))
        self.settle()

    def forget(self, name: str) -> None:
        """Only the tombstone stays. A pod that lives is left alone."""
        process = self.processes.get(name)
        if process is not None and not process.alive:
            process.forgotten = True

    def lose(self, name: str, *, detail: str) -> None:
        """The infrastructure takes a process away."""
        process = self.processes[name]
        if process.alive:
            self._end(process, End.LOST, None, detail)

    def refuse(self, process: Process, why: str) -> None:
        """Its node does not run it."""
        self._end(process, End.START_FAILED, None, why)

    def cut_off(self, node: str) -> None:
        """Nobody hears of a node any more; what runs there runs on, but for what ends itself where nobody renews it."""
        self.settle()
        self.nodes[node] = replace(self.nodes[node], ready=False, barred=False, problem="it is not heard of")
        self._silent.add(node)
        for process in self.live(node):
            seconds = process.spec.dead_man_seconds if process.spec else 0
            if seconds and not process.dead_man:
                process.dead_man = self.clock.monotonic() + seconds * SLOWEST_CLOCK + PROBE_SECONDS
                heapq.heappush(self._due, (process.dead_man, process.name))

    def lose_node(self, node: str) -> None:
        """A node loses power, and all that runs there is gone at once. Nobody hears of that before it is back."""
        self.cut_off(node)
        for process in self.live(node):
            if process.seen is Seen.RUNNING:
                self._end(process, End.LOST, None, f"node {node} went down")
                process.ended_at = process.started_at  # nobody knows when
            else:
                process.due = inf

    def return_node(self, node: str) -> None:
        """It is back, and hears what is wanted; a moment later it tells what became of its processes, and starts the others."""
        self.nodes[node] = heeding_taints(replace(self.nodes[node], ready=True, problem=""))
        self._silent.discard(node)
        heard_at = self._heard_at[node] = self.clock.monotonic() + TELL_SECONDS
        for process in self.live(node):
            process.dead_man = 0.0
            if process.revoked:
                self._end(process, End.LOST, None, CUT_OFF)
            elif process.asked_to_end:
                grace = process.spec.stop_grace_seconds if process.spec else 0
                self.delete(process.name, grace_seconds=grace)
            elif process.seen is not Seen.RUNNING and process.due == inf:
                self._schedule(process, heard_at + process.behaviour.starts_after)

    def revoke(self, name: str) -> None:
        """It is not renewed any more."""
        process = self.processes.get(name)
        if process is not None:
            process.revoked = True

    def mark(self, node: str, *, closed: bool) -> None:
        """Its other schedulers keep new pods off it, or do so no longer. Nothing happens to a node that is not there."""
        if node in self.nodes:
            self.nodes[node] = replace(self.nodes[node], marked=closed)

    def live(self, node: str = "") -> list[Process]:
        """Processes that have not ended, by name; of one node if it is given."""
        found = [process for process in self.processes.values() if process.alive and node in {"", process.node}]
        return sorted(found, key=lambda process: process.name)

    def known(self) -> list[Process]:
        """Processes that are ours and not forgotten, by name."""
        ours = (process for process in self.processes.values() if not process.forgotten and not process.guest)
        return sorted(ours, key=lambda process: process.name)

    def state(self, process: Process) -> PodState:
        """What is reported of it."""
        if self._tells_nothing(process.node) and (process.alive or process.unheard):
            return PodState(
                name=process.name,
                node=process.node,
                seen=Seen.UNKNOWN,
                started_at=process.started_at,
                detail=f"node {process.node} does not report any more",
                revoked=process.revoked,
            )
        serves = process.port and process.seen is Seen.RUNNING
        return PodState(
            name=process.name,
            node=process.node,
            seen=process.seen,
            started_at=process.started_at,
            ended_at=process.ended_at,
            end=process.end,
            exit_code=process.exit_code,
            detail=process.detail,
            address=f"{process.node}:{process.port}" if serves else "",
            ready=process.seen is Seen.RUNNING,
            forgotten=process.forgotten,
        )

    def _tells_nothing(self, node: str) -> bool:
        return node in self._silent or self.clock.monotonic() < self._heard_at.get(node, 0.0)

    def _happen(self, process: Process, moment: float) -> None:
        if process.seen is Seen.STARTING:
            process.seen = Seen.RUNNING
            process.started = moment
            process.started_at = self._wall(moment)
            self._pulled(process)
            self._write_down(process, at=process.started_at, running=True)
            self._schedule(process, moment + self._lasts(process))
            return
        match process.cause or self._own_end(process):
            case End.STOPPED:
                self._end(process, End.STOPPED, None, "stopped on request", moment=moment)
            case End.DEADLINE:
                self._end(process, End.DEADLINE, None, "reached its limit", moment=moment)
            case _:
                self._end(process, End.EXITED, process.behaviour.exit_code, "", moment=moment)

    def _pulled(self, process: Process) -> None:
        """Its node has its image from now on."""
        image, node = process.spec.image if process.spec else "", self.nodes[process.node]
        if image and image not in dict(node.images) and len(node.images) < IMAGES_MAX:
            images = tuple(sorted((*node.images, (image, IMAGE_BYTES))))
            self.nodes[process.node] = replace(node, images=images)

    def _lasts(self, process: Process) -> float:
        limit = process.spec.deadline_seconds if process.spec else 0
        return min(process.behaviour.runs_for, limit) if limit else process.behaviour.runs_for

    def _own_end(self, process: Process) -> End:
        limit = process.spec.deadline_seconds if process.spec else 0
        return End.DEADLINE if limit and process.behaviour.runs_for > limit else End.EXITED

    def _end(
        self, process: Process, end: End, exit_code: int | None, detail: str, *, moment: float | None = None
    ) -> None:
        at = self._wall(self.clock.monotonic() if moment is None else moment)
        ran = process.seen is Seen.RUNNING
        process.seen, process.end, process.exit_code, process.detail = Seen.ENDED, end, exit_code, detail
        process.ended_at = at
        process.unheard = self._tells_nothing(process.node)
        if ran:
            self._write_down(process, at=at, running=False)

    def _write_down(self, process: Process, *, at: int, running: bool) -> None:
        assert process.spec is not None
        self.witness.append(
            Witnessed(
                at=at,
                pod=process.name,
                gang=process.spec.gang,
                node=process.node,
                resources=process.spec.resources,
                running=running,
            )
        )

    def _schedule(self, process: Process, due: float) -> None:
        process.due = due
        heapq.heappush(self._due, (due, process.name))

    def _tombstone(self, name: str) -> Process:
        at = self.clock.now()
        return Process(
            name=name,
            node="",
            spec=None,
            behaviour=Behaviour(),
            due=0.0,
            seen=Seen.ENDED,
            ended_at=at,
            end=End.NEVER_STARTED,
            detail="deleted before it was created",
        )

    def require_room(self, pod: str, name: str, wanted: Resources, *, need: NodeNeed | None = None) -> None:
        """Raises NoCapacity."""
        node = self.nodes[name]
        held = [process.spec.resources for process in self.live(name) if process.spec]
        wish = [*held, wanted]
        if (
            not (node.ready if need is None else (node.ready or node.barred) and admits(node.traits, need))
            or sum(part.cpu_milli for part in wish) > node.capacity.cpu_milli
            or sum(part.memory_bytes for part in wish) > node.capacity.memory_bytes
            or any(_of_kind(wish, kind) > count for kind, count in _devices(node))
            or wanted.gpus > dict(_devices(node)).get(wanted.gpu_model if is_shape(wanted.gpu_model) else "", 0)
        ):
            msg = f"node {name} has no room for {pod}"
            raise NoCapacity(msg, object_=name)

    def _wall(self, moment: float) -> int:
        """The machines' wall time of a monotonic moment of the past."""
        return self.clock.now() - round((self.clock.monotonic() - moment) * MICROSECONDS_PER_SECOND)


def heeding_taints(node: NodeState) -> NodeState:
    """As it reports itself: one with taints is ready for nobody but for whom tolerates them."""
    taints = node.traits.taints
    if not taints:
        return node
    return replace(node, ready=False, barred=True, problem=f"tainted: {', '.join(one.key for one in taints)}")


def _devices(node: NodeState) -> tuple[tuple[str, int], ...]:
    """Slices of GPUs by shape, and whole ones under the empty name."""
    return (("", node.capacity.gpus), *node.shapes)


def _of_kind(amounts: list[Resources], kind: str) -> int:
    return sum(one.gpus for one in amounts if kind == (one.gpu_model if is_shape(one.gpu_model) else ""))


def _check_same(known: Process, action: CreatePod) -> None:
    if not known.alive or known.spec is None:
        msg = f"pod {action.name} has ended; its name is not used again"
        raise Gone(msg, object_=action.name)
    if (known.node, known.spec) != (action.node, action.spec):
        msg = f"pod {action.name} exists with another specification"
        raise Conflict(msg, object_=action.name)
