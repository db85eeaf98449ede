"""What must hold for an action to be applied, one small function each; each answers why not, or None.

The first line: a plan is of the present leader (`epoch_holds`), and each decision acts on rows that are as it read
them (`row_version_holds`). The second line: what an action may do to a row at all, whoever asks; it holds where an
action states nothing that it read, and where a decision is wrong. Each function says what it stands behind.

They are looked up in this module at every use, so that a test can take one away. The simulation finds the first line
missing (tests/simulation/planted.py), tests/contracts/test_guards.py each of the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from mainstay.domain import affinity
from mainstay.domain.affinity import Restriction
from mainstay.domain.allocation import Seen
from mainstay.domain.capacity import Keeping
from mainstay.domain.errors import Invalid
from mainstay.domain.flavor import NODE_FLAVORS_MAX
from mainstay.domain.fleet import ClusterKind, NewCluster, Stay
from mainstay.domain.plan import (
    Advance,
    Allocate,
    CapacityLeft,
    Epoch,
    Grow,
    IdentifyCluster,
    OfCluster,
    Preempt,
    RecordUsage,
    RemoveCluster,
    RowVersion,
    SetNodeFlavor,
    Submit,
)
from mainstay.domain.preemption import DISPLACED_MAX, Slot
from mainstay.domain.quantity import Resources, is_shape
from mainstay.domain.queue import DEFAULT_QUEUE, NO_LIMIT, LocalQueue, QueueSpec, tree_of
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import PODS
from mainstay.domain.workload import ACTIVE, LEGAL_TRANSITIONS, WAITING, Kind, Phase
from mainstay.store import codec, codec_fleet, guards_access
from mainstay.store.codec import KINDS
from mainstay.store.rows import AllocationRow, EndpointRow, NodeRow, PriceRow, QueueRow, WorkloadRow
from mainstay.store.world import World, pod_of


def epoch_holds(held: Epoch, *, now: int) -> bool:
    """Whether the lease still has the number under which the plan was made. The fence of reliability.md M6: first line."""
    return held.number == now


def row_version_holds(world: World, guard: RowVersion) -> Reason | None:
    """The row is as it was read: first line. Alone it keeps a candidate from being taken for the one before it."""
    row = _row(world, guard)
    now = row["version"] if row else 0
    return None if now == guard.version else changed(f"{guard.kind} {guard.key}", read=guard.version, now=now)


def capacity_left(world: World, guard: CapacityLeft) -> Reason | None:
    """The node is ready, or admits what is to be put there; nobody keeps it out, its cluster takes work, so much
    is free now, and it takes so many pods more.

    Second line to the epoch: only one leader gives capacity away.
    """
    node = world.nodes.get(guard.node_key)
    if node is not None and _open(world, node, guard.restriction) and _has_room(node, guard):
        return None
    name = node["name"] if node else str(guard.node_key)
    return Reason(code=Code.CAPACITY_TAKEN, object=name, numbers={"node": name})


def place_is_not_kept(world: World, workload_key: int, guard: CapacityLeft) -> Reason | None:
    """So much of what it asks for is left beside what is kept on the node for other workloads, less what those still hold
    there that yield to them (`nomination.still_to_come`). The only line: who places and who keeps places are decisions of their
    own, and each acts on a view that the other may have changed.
    """
    node, kept = world.nodes.get(guard.node_key), _still_to_come(world, guard.node_key, but=workload_key)
    if node is None or not kept:
        return None
    wish = {**_columns(guard.resources), PODS: guard.pods}
    if all(_used(node, name) + kept[name] + amount <= _capacity(node, name) for name, amount in wish.items() if amount):
        return None
    return Reason(code=Code.CAPACITY_TAKEN, object=node["name"], numbers={"node": node["name"]})


def of_cluster(world: World, guard: OfCluster) -> Reason | None:
    """The only line: an agent names allocations and guests by their keys, and may know any number."""
    if guard.kind == "allocation":
        pod = world.allocations.get(guard.key)
        ours = pod is not None and pod["cluster"] == guard.cluster
    else:
        row = world.workloads.get(guard.key)
        ours = row is not None and row["cluster"] == guard.cluster and KINDS[row["kind"]] is Kind.POD
    if ours:
        return None
    return Reason(code=Code.OTHER_CLUSTER, object=f"{guard.kind} {guard.key}", numbers={"cluster": guard.cluster})


def attempt_may_start(row: WorkloadRow, action: Allocate) -> Reason | None:
    """The workload waits, for this attempt, and nobody holds it or asked for its stop. Second line to the row version."""
    wanted = not row["stop_requested"] and not row["held"]
    if row["phase"] in WAITING and row["attempt"] == action.attempt and wanted:
        return None
    return changed(row["id"], read=action.attempt, now=row["attempt"])


def no_attempt_lives(world: World, row: WorkloadRow) -> Reason | None:
    """No pod of the workload may still run: attempts never overlap (invariant I3).

    Second line to the lifecycle, which starts no next attempt before the last one has ended whole.
    """
    living = [pod for pod in world.open_pods(row["key"]) if pod["seen"] != Seen.ENDED]
    return changed(pod_of(living[0]), read=0, now=living[0]["version"]) if living else None


def slot_is_new(world: World, row: WorkloadRow, action: Allocate) -> Reason | None:
    """(workload, attempt, rank) is given out once, and to every rank of the gang at once (invariant I7).

    Second line to the scheduler; the third is that no two rows may have the same slot.
    """
    if not _whole(row, action.slots):
        return changed(row["id"], read=len(action.slots), now=row["nodes"])
    taken = any(pod["attempt"] == action.attempt for pod in world.open_pods(row["key"]))
    return Reason(code=Code.DUPLICATE, object=row["id"]) if taken else None


def may_preempt(world: World, row: WorkloadRow, action: Preempt) -> Reason | None:
    """It waits and nothing is kept for it; whoever yields runs, may be displaced, and yields whole. What has displaced a
    workload is not displaced by it. Second line to the row versions and to the decision.
    """
    wanted = not row["stop_requested"] and not row["held"] and not row["nominated"]
    if row["phase"] not in WAITING or row["attempt"] != action.attempt or not wanted:
        return changed(row["id"], read=action.attempt, now=row["attempt"])
    if not _whole(row, action.slots):
        return changed(row["id"], read=len(action.slots), now=row["nodes"])
    displacers = row["displaced_by"].split()
    for victim in action.victims:
        yields = world.workloads.get(victim.workload_key)
        if yields is None:
            return missing("workload", victim.workload_key)
        pods = [pod for pod in world.open_pods(yields["key"]) if not pod["surplus"]]
        living = [pod for pod in pods if pod["seen"] != Seen.ENDED]
        if victim.surplus:
            whole = may_go_on_without(world, yields, victim.allocation_keys) is None
        else:
            whole = sorted(pod["key"] for pod in living) == sorted(victim.allocation_keys)
        stays = any(pod["stop"] for pod in living) or not yields["preemptible"] or yields["stop_requested"]
        often = len(yields["displaced_by"].split()) >= DISPLACED_MAX
        if not whole or stays or often or yields["key"] == row["key"] or str(yields["key"]) in displacers:
            return changed(yields["id"], read=len(victim.allocation_keys), now=len(living))
    return None


def may_go_on_without(world: World, row: WorkloadRow, allocation_keys: Collection[int]) -> Reason | None:
    """It is elastic, these are ranks of its attempt, and without them rank 0 and its min count of ranks are left. Second line to
    the row versions and to the decision.
    """
    members = [pod for pod in world.open_pods(row["key"]) if pod["attempt"] == row["attempt"] and not pod["surplus"]]
    left = [pod["rank"] for pod in members if pod["key"] not in allocation_keys]
    known = len(left) + len(allocation_keys) == len(members)
    elastic = row["nodes_min"] < row["nodes_max"] and row["phase"] in ACTIVE and not row["stop_requested"]
    if known and elastic and 0 in left and len(left) >= row["nodes_min"]:
        return None
    return changed(row["id"], read=len(allocation_keys), now=len(members))


def may_grow(world: World, row: WorkloadRow, action: Grow) -> Reason | None:
    """It is elastic and runs, its rank 0 with it; the new ranks are numbered on, and it has no more than its max count then.

    Second line to the row versions and to the decision; the third is that no two rows may have the same slot.
    """
    pods = [pod for pod in world.open_pods(row["key"]) if pod["attempt"] == row["attempt"]]
    living = [pod["rank"] for pod in pods if pod["seen"] != Seen.ENDED and not pod["stop"]]
    begin = max((pod["rank"] for pod in pods), default=-1) + 1
    ranks = sorted(slot.rank for slot in action.slots)
    runs = row["phase"] == Phase.RUNNING and row["attempt"] == action.attempt and not row["stop_requested"]
    fits = len(living) + len(ranks) <= row["nodes_max"] and ranks == list(range(begin, begin + len(ranks)))
    if runs and row["nodes_min"] < row["nodes_max"] and 0 in living and fits:
        return None
    return changed(row["id"], read=len(ranks), now=len(living))


def phase_may_follow(row: WorkloadRow, action: Advance) -> Reason | None:
    """Only legal transitions; a final phase is absorbing (invariant I6). Second line to the row version."""
    before = Phase(row["phase"])
    same = before is action.phase and not before.final
    if same or (before, action.phase) in LEGAL_TRANSITIONS:
        return None
    return changed(row["id"], read=row["version"], now=row["version"])


def attempt_may_follow(row: WorkloadRow, action: Advance) -> Reason | None:
    """An attempt that was placed is never placed again: going back to wait takes a new number, all else keeps it.

    Second line to the lifecycle, which counts them.
    """
    back = row["phase"] in ACTIVE and action.phase in WAITING
    fits = action.attempt > row["attempt"] if back else action.attempt == row["attempt"]
    return None if fits else changed(row["id"], read=action.attempt, now=row["attempt"])


def pod_has_not_ended(row: AllocationRow) -> Reason | None:
    """Once ENDED, nothing changes an allocation's observation. Second line to reconcile, which asks for nothing then."""
    return Reason(code=Code.DUPLICATE, object=pod_of(row)) if row["seen"] == Seen.ENDED else None


def pod_may_close(world: World, row: AllocationRow) -> Reason | None:
    """It has ended, its usage is recorded, and its workload has drawn the conclusion.

    Closed earlier, the end would be out of sight of the lifecycle, and a run that succeeded would be done again.
    Second line to reconcile, which closes what is settled and metered.
    """
    if row["closed"]:
        return Reason(code=Code.DUPLICATE, object=pod_of(row))
    workload = world.workloads.get(row["workload_key"])
    concluded = workload is None or Phase(workload["phase"]).final or workload["attempt"] > row["attempt"]
    metered = row["started_at"] == 0 or max(row["metered_until"], row["started_at"]) >= row["ended_at"]
    if row["seen"] == Seen.ENDED and metered and concluded:
        return None
    return changed(pod_of(row), read=row["version"], now=row["version"])


def usage_is_next(row: AllocationRow, action: RecordUsage) -> Reason | None:
    """Records of one allocation join without gap or overlap, and none goes beyond its end.

    Second line to the row version; the third is that no two records of one allocation may begin at the same instant.
    """
    usage = action.usage
    expected = row["metered_until"] or row["started_at"]
    if usage.start < expected:
        return Reason(code=Code.DUPLICATE, object=pod_of(row))
    within = usage.start < usage.end and (row["seen"] != Seen.ENDED or usage.end <= row["ended_at"])
    if row["started_at"] and usage.start == expected and within:
        return None
    return changed(pod_of(row), read=usage.start, now=expected)


def price_fits_the_book(world: World, row: PriceRow) -> Reason | None:
    """One price for a SKU and instant, one currency for all; what was charged in the past stays as it was charged.

    The only line: a price is set by people, who state nothing that they read.
    """
    taken = (row["sku"], row["effective_from"]) in world.prices
    past = world.head["prices_at"] > 0 and row["effective_from"] < world.now
    if taken or past:
        return changed(row["sku"], read=row["effective_from"], now=world.now)
    currencies = {other["currency"] for other in world.prices.values()}
    if currencies - {row["currency"]}:
        numbers = {"given": row["currency"], "currency": min(currencies)}
        return Reason(code=Code.OTHER_CURRENCY, object=row["sku"], numbers=numbers)
    return None


def cluster_may_join(world: World, new: NewCluster) -> Reason | None:
    """One name for a cluster, one cluster for a name; a name comes back once nothing holds on to its last bearer.

    The only line: two names for one cluster would have two loops that take each other's pods for orphans.
    """
    row = world.clusters.get(new.name)
    here = row is not None and row["wanted"] != Stay.REMOVED
    if row is not None and here and (row["kind"], row["identity"]) != (new.kind.value, new.identity):
        return Reason(code=Code.CLUSTER_NAME_TAKEN, object=new.name)
    if not here and world.open_pods_of.get(new.name):
        return _cluster_in_use(world, new.name)
    if not here and new.kind is ClusterKind.LOCAL and len(world.tenants) > 1:
        return guards_access.one_user(new.name, tenants=len(world.tenants))
    return _known_as_another(world, new.name, new.identity)


def cluster_may_be(world: World, action: IdentifyCluster) -> Reason | None:
    """An agent may find its cluster once; from then on it is that one, and nobody else has it.

    The only line: an agent that was started for another cluster would take all pods of this one for lost.
    """
    row = world.clusters.get(action.cluster)
    if row is None or row["wanted"] == Stay.REMOVED:
        return no_such_cluster(action.cluster)
    if row["identity"] not in {"", action.identity}:
        numbers = {"known": row["identity"], "found": action.identity}
        return Reason(code=Code.CLUSTER_SWAPPED, object=action.cluster, numbers=numbers)
    if action.one_user and len(world.tenants) > 1:
        return guards_access.one_user(action.cluster, tenants=len(world.tenants))
    return _known_as_another(world, action.cluster, action.identity)


def cluster_may_leave(world: World, action: RemoveCluster) -> Reason | None:
    """Nothing runs there, or it is drained and somebody answers for it that nothing runs there. The only line.

    A machine that a replica brings along leaves with its replica.
    """
    row = world.clusters.get(action.cluster)
    if row is None or row["wanted"] == Stay.REMOVED:
        return no_such_cluster(action.cluster)
    answered_for = action.lost and row["wanted"] == Stay.DRAINING
    local = row["kind"] == ClusterKind.LOCAL
    if world.open_pods_of.get(action.cluster) and (local or not answered_for):
        return _cluster_in_use(world, action.cluster)
    return None


def may_be_held(row: WorkloadRow) -> Reason | None:
    """It waits. The only line: a user states nothing that they read."""
    return None if row["phase"] in WAITING else _not_waiting(row)


def tenant_may_submit(world: World, action: Submit) -> Reason | None:
    """It has fewer open workloads than it may. The only line: nobody who submits has counted those of others."""
    tenant = codec.storable(action.workload.tenant)
    if not action.open_max or world.open_work[tenant] < action.open_max:
        return None
    numbers = {"open": world.open_work[tenant], "most": action.open_max}
    return Reason(code=Code.TOO_MANY_OPEN, object=tenant, numbers=numbers)


def may_be_reprioritized(row: WorkloadRow) -> Reason | None:
    """It is not over: what it was charged as stays on record. The only line."""
    return _not_waiting(row) if Phase(row["phase"]).final else None


def queue_may_be(world: World, queue: QueueSpec) -> Reason | None:
    """With it all queues are still one tree, and no open workload is in what becomes a cohort. The only line."""
    if queue.cohort and world.open_workloads_of.get(queue.name):
        return _queue_in_use(world, queue.name)
    others = [codec.queue_of(row).queue for name, row in world.queues.items() if name != queue.name]
    try:
        tree_of([*others, queue])
    except Invalid as error:
        return Reason(code=Code.QUEUE_IMPOSSIBLE, object=queue.name, numbers={"detail": error.message})
    return _has_local_names(world, queue.name) if queue.cohort else None


def queue_may_leave(world: World, name: str) -> Reason | None:
    """Nothing is in it and nothing below it. The only line."""
    if name not in world.queues:
        return Reason(code=Code.NO_SUCH_QUEUE, object=name)
    if world.open_workloads_of.get(name) or any(row["parent"] == name for row in world.queues.values()):
        return _queue_in_use(world, name)
    return _has_local_names(world, name)


def _has_local_names(world: World, queue: str) -> Reason | None:
    """Names of namespaces would stand for nothing: their pods would wait in the default queue, without a word."""
    named = [f"{row['namespace']}/{row['name']}" for row in world.local_queues.values() if row["queue"] == queue]
    if not named:
        return None
    detail = f"queue {queue} is what {', '.join(sorted(named)[:3])} stands for ({len(named)} in all): mainstay queue local remove"
    return Reason(code=Code.QUEUE_IMPOSSIBLE, object=queue, numbers={"detail": detail})


def local_queue_may_be(world: World, local: LocalQueue) -> Reason | None:
    """What it stands for takes workloads. The only line."""
    row = world.queues.get(local.queue)
    if (row is None and local.queue != DEFAULT_QUEUE) or (row is not None and row["cohort"]):
        return Reason(code=Code.NO_SUCH_QUEUE, object=local.queue)
    return None


def node_flavor_may_be(world: World, action: SetNodeFlavor) -> Reason | None:
    """The one that it is to come before is there, and there are not too many. The only line."""
    name, others = action.flavor.name, world.node_flavors.keys() - {action.flavor.name}
    if action.before and action.before not in others:
        return Reason(code=Code.NO_SUCH_NODE_FLAVOR, object=action.before)
    if len(others) >= NODE_FLAVORS_MAX:
        return Reason(code=Code.TOO_MANY_NODE_FLAVORS, object=name, numbers={"most": NODE_FLAVORS_MAX})
    return None


def node_flavor_may_leave(world: World, name: str) -> Reason | None:
    """No queue or cohort has a quota of it. The only line."""
    if name not in world.node_flavors:
        return Reason(code=Code.NO_SUCH_NODE_FLAVOR, object=name)
    users = [
        queue
        for queue, row in world.queues.items()
        if any(cell[0] == name for cell in codec.queue_of(row).queue.quotas)
    ]
    if users:
        return Reason(code=Code.NODE_FLAVOR_IN_USE, object=name, numbers={"queues": ", ".join(sorted(users))})
    return None


def node_is_kept_as(row: NodeRow, keeping: Keeping) -> Reason | None:
    """Whoever takes a word back takes back no other: no suspicion is forgotten with a cordon. The only line."""
    if row["closure"] in {"", keeping.value}:
        return None
    numbers = {"state": row["closure"], "asked": keeping.value}
    return Reason(code=Code.NODE_CLOSED_OTHERWISE, object=row["name"], numbers=numbers)


def no_such_node(name: str) -> Reason:
    """The refusal of whoever acted on a node that no cluster of the fleet has."""
    return Reason(code=Code.NO_SUCH_NODE, object=name)


def _whole(row: WorkloadRow, slots: Sequence[Slot]) -> bool:
    """Whether these are ranks from 0 on, without a gap, as many as the workload may start with."""
    ranks = sorted(slot.rank for slot in slots)
    return row["nodes_min"] <= len(ranks) <= row["nodes"] and ranks == list(range(len(ranks)))


def _known_as_another(world: World, name: str, identity: str) -> Reason | None:
    for other in world.clusters.values():
        same = identity != "" and other["identity"] == identity and other["name"] != name
        if same and other["wanted"] != Stay.REMOVED:
            return Reason(code=Code.CLUSTER_KNOWN, object=name, numbers={"other": other["name"]})
    return None


def no_such_cluster(name: str) -> Reason:
    """The refusal of whoever acted on a cluster that is not of the fleet."""
    return Reason(code=Code.NO_SUCH_CLUSTER, object=name)


def _cluster_in_use(world: World, name: str) -> Reason:
    return Reason(code=Code.CLUSTER_IN_USE, object=name, numbers={"pods": world.open_pods_of[name]})


def _not_waiting(row: WorkloadRow) -> Reason:
    return Reason(code=Code.NOT_WAITING, object=row["id"], numbers={"phase": Phase(row["phase"]).word})


def _queue_in_use(world: World, name: str) -> Reason:
    children = sum(row["parent"] == name for row in world.queues.values())
    numbers = {"workloads": world.open_workloads_of.get(name, 0), "children": children}
    return Reason(code=Code.QUEUE_IN_USE, object=name, numbers=numbers)


def changed(object_: str, *, read: int, now: int) -> Reason:
    """The refusal of whoever acted on what is no longer so."""
    return Reason(code=Code.GUARD_FAILED, object=object_, numbers={"read": read, "now": now})


def missing(kind: str, key: int | str) -> Reason:
    """The refusal of whoever acted on what does not exist."""
    return Reason(code=Code.GUARD_FAILED, object=f"{kind} {key}", numbers={"now": 0})


def _row(world: World, guard: RowVersion) -> WorkloadRow | AllocationRow | NodeRow | EndpointRow | QueueRow | None:
    match guard.kind:
        case "workload":
            return world.workloads.get(int(guard.key))
        case "allocation":
            return world.allocations.get(int(guard.key))
        case "node":
            return world.nodes.get(int(guard.key))
        case "endpoint":
            return world.endpoints.get((guard.tenant, str(guard.key)))
        case "queue":
            return world.queues.get(str(guard.key))


def _open(world: World, node: NodeRow, restriction: Restriction) -> bool:
    if isinstance(restriction, str):
        admitted = restriction in node["admits"].split() if restriction else bool(node["ready"])
    else:
        admitted = bool(node["ready"] or node["barred"]) and affinity.admits(world.traits[node["traits"]], restriction)
    return admitted and not node["closure"] and world.takes_work(node["cluster"])


def _still_to_come(world: World, node_key: int, *, but: int) -> Counter[str]:
    """By column what is kept on a node for all other workloads and is not held there by those who yield to them."""
    found: Counter[str] = Counter()
    kept: dict[int, Counter[str]] = {}
    for key, held in world.kept.get(node_key, ()):
        row = world.workloads.get(key)
        if key != but and (row is None or row["nominated"]):
            kept.setdefault(key, Counter()).update(_columns(held))
    for key, amounts in kept.items():
        for pod, held in world.yielding.get((node_key, key), ()):
            seen = world.allocations.get(pod)
            if seen is None or seen["seen"] != Seen.ENDED:
                amounts.subtract(_columns(held))
        found.update(+amounts)
    return found


def _columns(held: Resources) -> dict[str, int]:
    """What one pod holds, by the name of what a node has so much of: a shape, or `gpus`."""
    gpus = held.gpu_model if is_shape(held.gpu_model) else "gpus"
    return {"cpu_milli": held.cpu_milli, "memory_bytes": held.memory_bytes, gpus: held.gpus, PODS: 1}


def _used(node: NodeRow, name: str) -> int:
    used = {
        "cpu_milli": node["used_cpu_milli"],
        "memory_bytes": node["used_memory_bytes"],
        "gpus": node["used_gpus"],
        PODS: node["used_pods"],
    }
    return used[name] if name in used else codec.counts_of(node["used_shapes"]).get(name, 0)


def _capacity(node: NodeRow, name: str) -> int:
    there = {
        "cpu_milli": node["cpu_milli"],
        "memory_bytes": node["memory_bytes"],
        "gpus": node["gpus"],
        PODS: NO_LIMIT if node["pods_max"] == codec_fleet.NO_LIMIT else node["pods_max"],
    }
    return there[name] if name in there else codec.counts_of(node["shapes"]).get(name, 0)


def _free(node: NodeRow, wish: Resources) -> bool:
    return (
        _devices_free(node, wish)
        and node["used_cpu_milli"] + wish.cpu_milli <= node["cpu_milli"]
        and node["used_memory_bytes"] + wish.memory_bytes <= node["memory_bytes"]
    )


def _has_room(node: NodeRow, guard: CapacityLeft) -> bool:
    takes_pods = node["pods_max"] == codec_fleet.NO_LIMIT or node["used_pods"] + guard.pods <= node["pods_max"]
    return takes_pods and _free(node, guard.resources)


def _devices_free(node: NodeRow, wish: Resources) -> bool:
    if not wish.gpus:
        return True
    if is_shape(wish.gpu_model):
        used = codec.counts_of(node["used_shapes"]).get(wish.gpu_model, 0)
        return used + wish.gpus <= codec.counts_of(node["shapes"]).get(wish.gpu_model, 0)
    return wish.gpu_model in {"", node["gpu_model"]} and node["used_gpus"] + wish.gpus <= node["gpus"]
