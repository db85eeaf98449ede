"""The guests of a simulated cluster: pods that others make there and that are bound at most once, as on a real one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mainstay.clusters.simulated.machines import Behaviour, Machines, Process
from mainstay.domain.allocation import BindPod, End, EvictPod, Owner, PodSpec, PodState, ReleasePod, Seen, TellPod
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import Gone, Invalid, NoCapacity
from mainstay.domain.guest import Guest


@dataclass(slots=True)
class Lodger:
    """A pod of others. `guest` is as it was made; it has a process once it has a place."""

    guest: Guest
    behaviour: Behaviour
    process: Process | None = None
    released: int = 0
    """The last attempt that may not bind it any more."""
    withdrawn_at: int = 0
    """Its owner, or an eviction, has deleted it before it had a place; 0 if nobody has."""
    words: str = ""
    """What it was told last."""

    @property
    def waits(self) -> bool:
        """For a place."""
        return self.process is None and not self.withdrawn_at


class Lodgers:
    """On machines, for as long as those live."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self.by_uid: dict[str, Lodger] = {}

    def arrive(self, guest: Guest, behaviour: Behaviour) -> None:
        """Somebody has made a pod that asks us for a place."""
        self.by_uid[guest.pod.uid] = Lodger(guest=guest, behaviour=behaviour)

    def withdraw(self, uid: str, *, grace_seconds: float = 0.0) -> None:
        """It is deleted, by its owner or by an eviction."""
        lodger = self.by_uid[uid]
        if lodger.process is not None:
            self._machines.delete(lodger.process.name, grace_seconds=grace_seconds)
        else:
            lodger.withdrawn_at = lodger.withdrawn_at or self._machines.clock.now()

    def bind(self, action: BindPod) -> None:
        """As an adapter does, that looks before it asks. Raises Gone, Invalid, NoCapacity."""
        lodger = self._free(action)
        if lodger.process is None:
            node = self._machines.nodes.get(action.node)
            if node is None or not admits(node, action.restriction):
                msg = f"node {action.node} does not take {action.pod.name}"
                raise Invalid(msg, object_=action.node)
            self._machines.require_room(action.name, action.node, action.holds)
            self._swap(lodger, action)

    def bind_late(self, action: BindPod) -> None:
        """It was on its way for long: the API server itself compares, swaps and looks at no node. Raises Gone."""
        lodger = self._free(action)
        if lodger.process is None:
            try:
                self._machines.require_room(action.name, action.node, action.holds)
            except NoCapacity as error:
                self._machines.refuse(self._swap(lodger, action), error.message)
            else:
                self._swap(lodger, action)

    def _free(self, action: BindPod) -> Lodger:
        """One that may be placed like that, or is already. Raises Gone."""
        lodger = self.by_uid.get(action.pod.uid)
        if lodger is None or lodger.withdrawn_at or lodger.released >= action.attempt:
            msg = f"pod {action.pod.name} is gone, or was let go of"
            raise Gone(msg, object_=action.name)
        if lodger.process is not None and (lodger.process.name, lodger.process.node) != (action.name, action.node):
            msg = f"pod {action.pod.name} has another place"
            raise Gone(msg, object_=action.name)
        return lodger

    def _swap(self, lodger: Lodger, action: BindPod) -> Process:
        spec = _spec(action, lodger.guest)
        lodger.process = self._machines.start(action.name, action.node, spec, lodger.behaviour, guest=True)
        return lodger.process

    def release(self, action: ReleasePod) -> None:
        """No binding of this attempt reaches it any more."""
        lodger = self.by_uid.get(action.pod.uid)
        if lodger is not None:
            lodger.released = max(lodger.released, action.attempt)

    def evict(self, action: EvictPod) -> None:
        """Nothing happens to one that is gone."""
        if action.pod.uid in self.by_uid:
            self.withdraw(action.pod.uid, grace_seconds=action.grace_seconds)

    def tell(self, action: TellPod) -> None:
        """Kept for who wants to read it."""
        if action.pod.uid in self.by_uid:
            self.by_uid[action.pod.uid].words = action.words

    def guests(self) -> tuple[Guest, ...]:
        """By UID."""
        return tuple(replace(lodger.guest, state=self._state(uid)) for uid, lodger in sorted(self.by_uid.items()))

    def _state(self, uid: str) -> PodState | None:
        lodger = self.by_uid[uid]
        if lodger.process is not None:
            return replace(self._machines.state(lodger.process), name=uid)
        if not lodger.withdrawn_at:
            return None
        return PodState(
            name=uid, node="", seen=Seen.ENDED, end=End.NEVER_STARTED, detail="deleted before it was placed"
        )


def admits(node: NodeState, restriction: str) -> bool:
    """Whether guests with this restriction are placed on a node now."""
    return node.ready and restriction in node.admits


def _spec(action: BindPod, guest: Guest) -> PodSpec:
    """As much of it as machines care for."""
    return PodSpec(
        owner=Owner(tenant=guest.tenant, project=guest.project),
        image="",
        argv=(),
        env=(),
        mounts=(),
        resources=action.holds,
        cpu_limit_milli=0,
        memory_limit_bytes=0,
        stop_grace_seconds=guest.grace_seconds,
        deadline_seconds=guest.max_duration_seconds,
        gang=action.name.rpartition("-")[0],
        rank=0,
        size=1,
        port=False,
        ready_path="",
    )
