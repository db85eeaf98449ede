"""Set, remove: queues and cohorts, flavors of nodes, and names of priorities."""

from __future__ import annotations

from mainstay.domain.flavor import placed_before
from mainstay.domain.plan import (
    RemoveLocalQueue,
    RemoveNodeFlavor,
    RemovePriorityClass,
    RemoveQueue,
    SetLocalQueue,
    SetNodeFlavor,
    SetPriorityClass,
    SetQueue,
)
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


def set_local_queue(world: World, action: SetLocalQueue) -> Reason | None:
    """What is said again is not written again."""
    local = action.local
    if refusal := guards.local_queue_may_be(world, local):
        return refusal
    known = world.local_queues.get((local.cluster, local.namespace, local.name))
    if known is None or known["queue"] != local.queue:
        world.put_local_queue(codec.local_queue_row(local, actor=world.actor, now=world.now))
        world.log("queue", local.queue, action.reason)
    return None


def remove_local_queue(world: World, action: RemoveLocalQueue) -> Reason | None:
    """Pods that say it from now on wait in the default queue."""
    key = action.cluster, action.namespace, action.name
    known = world.local_queues.get(key)
    if known is None:
        return Reason(code=Code.NO_SUCH_LOCAL_QUEUE, object=f"{action.namespace}/{action.name}")
    world.drop_local_queue(key)
    world.log("queue", known["queue"], action.reason)
    return None


def set_node_flavor(world: World, action: SetNodeFlavor) -> Reason | None:
    """What is said again is not written again, and of others no more than their place."""
    if refusal := guards.node_flavor_may_be(world, action):
        return refusal
    known = {name: codec.node_flavor_of(row).flavor for name, row in world.node_flavors.items()}
    order = placed_before(known.values(), action.flavor, action.before)
    said = known.get(action.flavor.name) != action.flavor or order != list(known.values())
    for place, flavor in enumerate(order):
        if flavor.name == action.flavor.name:
            if said:
                row = codec.node_flavor_row(flavor, place=place, actor=world.actor, now=world.now)
                world.put_node_flavor(row)
                world.log("flavor", flavor.name, action.reason)
        elif (other := world.node_flavors[flavor.name])["place"] != place:
            world.put_node_flavor({**other, "place": place})
    return None


def remove_node_flavor(world: World, action: RemoveNodeFlavor) -> Reason | None:
    """Its nodes are of the next flavor that they meet, or of none."""
    if refusal := guards.node_flavor_may_leave(world, action.name):
        return refusal
    world.drop_node_flavor(action.name)
    world.log("flavor", action.name, action.reason)
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
