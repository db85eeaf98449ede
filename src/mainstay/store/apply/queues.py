"""Set, remove: queues and cohorts, and names of priorities."""

from __future__ import annotations

from mainstay.domain.plan import RemovePriorityClass, RemoveQueue, SetPriorityClass, SetQueue
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec, guards
from mainstay.store.rows import PriorityClassRow
from mainstay.store.world import World


def set_queue(world: World, action: SetQueue) -> Reason | None:
    """What is said again is not written again."""
    if refusal := guards.queue_may_be(world, action.queue):
        return refusal
    known = world.queues.get(action.queue.name)
    if known is None or codec.queue_of(known).queue != action.queue:
        world.put_queue(codec.queue_row(action.queue, actor=world.actor, now=world.now, version=world.version))
        world.log("queue", action.queue.name, action.reason)
    return None


def remove_queue(world: World, action: RemoveQueue) -> Reason | None:
    """Workloads that are over still name it; one that is submitted to it in the meantime counts in the default queue."""
    if refusal := guards.queue_may_leave(world, action.queue):
        return refusal
    world.drop_queue(action.queue)
    world.drop_history(action.queue)
    world.log("queue", action.queue, action.reason)
    return None


def set_priority_class(world: World, action: SetPriorityClass) -> Reason | None:
    """Workloads keep the number that they were submitted with."""
    wanted, known = action.priority_class, world.priority_classes.get(action.priority_class.name)
    if known is None or codec.priority_class_of(known) != wanted:
        row = PriorityClassRow(
            name=wanted.name,
            priority=wanted.priority,
            preemptible=int(wanted.preemptible),
            set_at=world.now,
            set_by=world.actor,
        )
        world.put_priority_class(row)
        world.log("priority_class", wanted.name, action.reason)
    return None


def remove_priority_class(world: World, action: RemovePriorityClass) -> Reason | None:
    """Job files that name it are refused from now on."""
    if action.name not in world.priority_classes:
        return Reason(code=Code.NO_SUCH_PRIORITY_CLASS, object=action.name)
    world.drop_priority_class(action.name)
    world.log("priority_class", action.name, action.reason)
    return None
