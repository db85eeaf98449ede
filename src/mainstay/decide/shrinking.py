"""Elastic attempts go on with fewer ranks: which may be left out, and when.

Ranks beside the lowest `min` that live are surplus. A rank that is left out has its pod stopped, and its end is no failure.
Rank 0 never is: the ranks meet at its address, and it speaks for the attempt. The program finds out by its own rendezvous who is
left (PyTorch: torchrun restarts its workers with those that are there).

1. A rank that is lost to the infrastructure is left out if at least `min` others are left.
2. Once rank 0 has ended well, one that joined later is left out if it does not run yet or has failed: it came too late.
3. Of a node that is drained, all ranks are left out if enough are left elsewhere; otherwise the whole attempt moves.
4. Who displaces takes surplus before anything else (`preemption.holders`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.decide.attempt import Pod, Run
from mainstay.domain.allocation import USER_ENDS, End, Seen
from mainstay.domain.plan import Shrink
from mainstay.domain.reason import Code, Reason


def members(pods: Sequence[Pod]) -> list[Pod]:
    """Those that the attempt has not been left without."""
    return [pod for pod in pods if not pod.surplus]


def without(run: Run, pods: Sequence[Pod], out: Sequence[Pod], why: str) -> Shrink | None:
    """Let the attempt go on without some of its pods; None if it cannot.

    It cannot if it is being stopped as a whole, or has failed.
    """
    left = [pod for pod in members(pods) if pod not in out]
    if not out or not run.elastic or run.stop_requested or len(left) < run.nodes_min or left[0].rank:
        return None
    if any(pod.stop or (not pod.alive and not pod.ended_well) for pod in left):
        return None
    return Shrink(
        guards=(run.guard, *(pod.guard for pod in pods)),
        reason=Reason(code=Code.SHRUNK, numbers={"count": len(out), "why": why}),
        workload_key=run.key,
        attempt=run.attempt,
        allocation_keys=tuple(pod.key for pod in out),
    )


def without_lost(run: Run, pods: Sequence[Pod]) -> Shrink | None:
    """Without the ranks that are lost, or that came too late."""
    if not run.elastic:
        return None
    lost = [pod for pod in members(pods) if _is_lost(pod)]
    if lost:
        ranks = ", ".join(str(pod.rank) for pod in lost)
        return without(run, pods, lost, f"rank {ranks} was lost to the infrastructure: {lost[0].end.value}")
    return without(run, pods, _late(pods), "rank 0 has ended well before they took part")


def _is_lost(pod: Pod) -> bool:
    return not pod.alive and not pod.stop and pod.end not in USER_ENDS and pod.end is not End.DEADLINE


def _late(pods: Sequence[Pod]) -> list[Pod]:
    judged = members(pods)
    if not judged or judged[0].rank or not judged[0].ended_well:
        return []
    first, *others = judged
    joined = [pod for pod in others if pod.created_at > first.created_at and not pod.stop]
    return [pod for pod in joined if (pod.seen < Seen.RUNNING if pod.alive else not pod.ended_well)]
