"""What runs take of the caps of their tokens: from their submission until all that they have cost is in the ledger."""

from __future__ import annotations

from mainstay.domain.allocation import Seen
from mainstay.domain.plan import NewWorkload
from mainstay.domain.workload import Phase
from mainstay.store.rows import AllocationRow, CapUseRow, WorkloadRow
from mainstay.store.world import World


def take(world: World, new: NewWorkload, *, key: int) -> None:
    """Whether it may was asked before (`guards_access.token_may_take`)."""
    if new.at_most is not None:
        gpus, cost = new.at_most.gpus, new.at_most.cost_micros
        world.add_cap_use(CapUseRow(workload_key=key, token=new.token, gpus=gpus, cost_micros=cost))
        world.asked[new.token] = world.asked[new.token] + new.at_most


def charge(world: World, workload_key: int, micros: int) -> None:
    """What is in the ledger now is not reserved any more. One that has cost more than was reserved counts with what it cost."""
    use = world.cap_uses.get(workload_key)
    if use is None:
        return
    world.put_cap_use({**use, "cost_micros": max(0, use["cost_micros"] - micros)})
    token = world.tokens.get(use["token"])
    if token is not None and micros:
        world.put_token({**token, "spent_micros": token["spent_micros"] + micros})
    settle(world, world.workloads[workload_key])


def settle(world: World, row: WorkloadRow) -> None:
    """One that is over holds no GPUs; once all its usage is recorded, too, it takes nothing any more."""
    use = world.cap_uses.get(row["key"])
    if use is None or not Phase(row["phase"]).final:
        return
    if any(map(_may_cost, world.open_pods(row["key"]))):
        world.put_cap_use({**use, "gpus": 0})
    else:
        world.drop_cap_use(row["key"])


def _may_cost(pod: AllocationRow) -> bool:
    """Whether some of its usage is not recorded. One that has ended without having started costs nothing."""
    return pod["seen"] != Seen.ENDED or (pod["started_at"] > 0 and pod["metered_until"] < pod["ended_at"])
