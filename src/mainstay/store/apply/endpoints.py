"""Models and endpoints: register, deploy, switch, drop, move, remove. Names of endpoints are unique within a tenant."""

from __future__ import annotations

from mainstay.domain.allocation import Seen
from mainstay.domain.caps import AtMost
from mainstay.domain.plan import (
    Deploy,
    DropCandidate,
    MoveEndpoint,
    NewWorkload,
    RedeployEndpoint,
    RegisterModel,
    RemoveEndpoint,
    SwitchEndpoint,
)
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec, guards, guards_access
from mainstay.store.apply.workloads import id_is_free, stop_workload, store_workload
from mainstay.store.rows import EndpointRow, ModelRow
from mainstay.store.world import World


def register_model(world: World, action: RegisterModel) -> Reason | None:
    """Versions count from 1 without a gap: another number than the next is refused."""
    known = (action.tenant, action.model)
    last = world.last_model_version.get(known, 0)
    if action.version != last + 1:
        return guards.changed(f"model {action.model}", read=action.version - 1, now=last)
    world.last_model_version[known] = action.version
    world.changes.models.append(
        ModelRow(
            tenant=action.tenant,
            model=action.model,
            number=action.version,
            project=action.project,
            tree=action.tree,
            workload=action.workload,
            registered_at=world.now,
        )
    )
    world.log("model", action.model, action.reason, tenant=action.tenant)
    return None


def deploy(world: World, action: Deploy) -> Reason | None:
    """The workload is stored and becomes the candidate; an older candidate is stopped.

    A removed endpoint starts afresh.
    """
    row = world.endpoints.get((action.tenant, action.endpoint))
    refusal = guards_access.token_may_take(world, action.workload) or id_is_free(action.workload, world)
    if refusal:
        return refusal
    workload = store_workload(world, action.workload, action.reason)
    if row is None:
        row = _new_row(world, action)
        world.add_endpoint(row)
    elif row["removed"]:
        row.update(_new_row(world, action))
    _stop(world, row["candidate_key"], action.reason)
    row["model"] = action.model
    row["project"] = action.project
    row["candidate_version"] = action.version
    row["candidate"] = workload["id"]
    row["candidate_key"] = workload["key"]
    world.touch_endpoint(row)
    world.log("endpoint", row["name"], action.reason, tenant=row["tenant"])
    return None


def redeploy_endpoint(world: World, action: RedeployEndpoint) -> Reason | None:
    """A copy of the workload that serves becomes the candidate: as submitted by whoever submitted that.

    It counts for the same token, and is not asked about: the platform moves it, and nobody wants more than before.
    """
    row = world.endpoints.get((action.tenant, action.endpoint))
    if row is None or row["removed"] or not row["serving_key"] or row["candidate_key"]:
        return guards.missing("endpoint without a candidate", action.endpoint)
    serving = world.workloads.get(row["serving_key"])
    if serving is None or serving["stop_requested"]:
        return guards.missing("workload of endpoint", action.endpoint)
    use = world.cap_uses.get(serving["key"])
    new = NewWorkload(
        id=action.workload,
        tenant=serving["tenant"],
        project=serving["project"],
        queue=serving["queue"],
        submitted_by=serving["submitted_by"],
        priority=serving["priority"],
        preemptible=bool(serving["preemptible"]),
        token=serving["token"],
        at_most=AtMost(gpus=use["gpus"], cost_micros=use["cost_micros"]) if use else None,
        spec=codec.spec_of(world.specifications[serving["key"]]),
    )
    refusal = id_is_free(new, world)
    if refusal:
        return refusal
    workload = store_workload(world, new, action.reason)
    row["candidate_version"] = row["serving_version"]
    row["candidate"], row["candidate_key"] = workload["id"], workload["key"]
    world.touch_endpoint(row)
    world.log("endpoint", row["name"], action.reason, tenant=row["tenant"])
    return None


def switch_endpoint(world: World, action: SwitchEndpoint) -> Reason | None:
    """The candidate serves, at the address where it answers; what served before is stopped."""
    row = world.endpoints.get((action.tenant, action.endpoint))
    if row is None or row["removed"] or not row["candidate_key"]:
        return guards.missing("candidate of endpoint", action.endpoint)
    if world.workloads[row["candidate_key"]]["stop_requested"]:
        return guards.missing("running candidate of endpoint", action.endpoint)
    _stop(world, row["serving_key"], Reason(code=Code.REPLACED, object=row["name"], numbers=_numbers(row)))
    row["serving_version"] = row["candidate_version"]
    row["serving"] = row["candidate"]
    row["serving_key"] = row["candidate_key"]
    row["address"] = _address(world, row["candidate_key"])
    _clear_candidate(row)
    world.touch_endpoint(row)
    world.log("endpoint", row["name"], action.reason, tenant=row["tenant"])
    return None


def drop_candidate(world: World, action: DropCandidate) -> Reason | None:
    """The candidate is stopped; what serves goes on."""
    row = world.endpoints.get((action.tenant, action.endpoint))
    if row is None or row["removed"] or not row["candidate_key"]:
        return guards.missing("candidate of endpoint", action.endpoint)
    _stop(world, row["candidate_key"], action.reason)
    _clear_candidate(row)
    world.touch_endpoint(row)
    world.log("endpoint", row["name"], action.reason, tenant=row["tenant"])
    return None


def move_endpoint(world: World, action: MoveEndpoint) -> Reason | None:
    """Nothing happens if the address is the one on record."""
    row = world.endpoints.get((action.tenant, action.endpoint))
    if row is None or row["removed"]:
        return guards.missing("endpoint", action.endpoint)
    if row["address"] != action.address:
        row["address"] = action.address
        world.touch_endpoint(row)
        world.log("endpoint", row["name"], action.reason, tenant=row["tenant"])
    return None


def remove_endpoint(world: World, action: RemoveEndpoint) -> Reason | None:
    """Both workloads are stopped. The row stays, so that its history can be read."""
    row = world.endpoints.get((action.tenant, action.endpoint))
    if row is None or row["removed"]:
        return guards.missing("endpoint", action.endpoint)
    _stop(world, row["serving_key"], action.reason)
    _stop(world, row["candidate_key"], action.reason)
    _clear_candidate(row)
    row["removed"] = 1
    row["address"] = ""
    world.touch_endpoint(row)
    world.log("endpoint", row["name"], action.reason, tenant=row["tenant"])
    return None


def _stop(world: World, workload_key: int, reason: Reason) -> None:
    workload = world.workloads.get(workload_key)
    if workload is not None:
        stop_workload(world, workload, reason)


def _address(world: World, workload_key: int) -> str:
    """Where rank 0 of the attempt that counts answers; empty if it does not."""
    workload = world.workloads[workload_key]
    for pod in world.open_pods(workload_key):
        if pod["attempt"] == workload["attempt"] and pod["rank"] == 0 and pod["seen"] != Seen.ENDED:
            return pod["address"]
    return ""


def _clear_candidate(row: EndpointRow) -> None:
    row["candidate_version"] = 0
    row["candidate"] = ""
    row["candidate_key"] = 0


def _numbers(row: EndpointRow) -> dict[str, int | float | str]:
    return {"endpoint": row["name"], "version": row["candidate_version"]}


def _new_row(world: World, action: Deploy) -> EndpointRow:
    return EndpointRow(
        name=action.endpoint,
        tenant=action.tenant,
        project=action.project,
        model=action.model,
        serving_version=0,
        serving="",
        serving_key=0,
        candidate_version=0,
        candidate="",
        candidate_key=0,
        address="",
        removed=0,
        updated_at=world.now,
        version=world.version,
    )
