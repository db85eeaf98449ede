"""Whom a workload that waits could displace, or why nobody yields for it: in words, which name no run of anybody."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mainstay.decide.preemption.holders import Holders
from mainstay.decide.preemption.rules import Wish
from mainstay.decide.preemption.search import Search
from mainstay.decide.preemption.staying import Staying
from mainstay.decide.preemption.trial import Displacement
from mainstay.decide.shapes import Shape
from mainstay.domain.preemption import Borrow, FairShare, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.quantity import counted
from mainstay.domain.queue import PRIORITY_MAX
from mainstay.domain.snapshot import Snapshot


def outlook(snapshot: Snapshot, wish: Wish, shape: Shape) -> str:
    """A sentence without its full stop; empty where it needs nobody to yield, or no queue here displaces anything.

    Costs one turn of the decision.
    """
    if not any(policy.displaces for policy in snapshot.queues.policies):
        return ""
    name, policy = snapshot.queues.names[wish.queue], snapshot.queues.policies[wish.queue]
    if not policy.displaces:
        return f"nobody yields for it: work of queue {name} displaces none"
    search = Search(snapshot)
    if search.places_now(wish, shape):
        return ""
    late = _late(search.staying, wish, shape)
    displaced = search.displace(wish, shape)
    if displaced is not None:
        who = _who(snapshot, search.staying.holders, displaced)
        if who and (words := shape.placed_words(displaced.parts)):
            who = f"{who}; it would have {words}, for which the least is lost"
        return "; ".join(filter(None, (who, *late)))
    bound = ("it delays no start that is reserved before its turn",) if search.staying.binding(wish, shape) else ()
    why = "; ".join((*late, *bound, *_why_nobody(search.staying.holders, wish, name, policy)))
    return f"nobody yields for it: {why}"


def _late(staying: Staying, wish: Wish, shape: Shape) -> tuple[str, ...]:
    """Whoever should have made room and has not, if that would be enough."""
    if not staying.places_without_stuck(wish.queue, shape):
        return ()
    stuck = int(np.count_nonzero(staying.holders.stuck))
    have = "has" if stuck == 1 else "have"
    return (f"it would have room if those had ended that were told to: {counted(stuck, 'pod')} {have} not in time",)


def _who(snapshot: Snapshot, holders: Holders, displaced: Displacement) -> str:
    units = [unit for unit, _ in displaced.units]
    if not units:
        return ""
    pods = sum(int(holders.first[unit + 1] - holders.first[unit]) for unit in units)
    runs = dict.fromkeys(int(holders.whole[unit]) for unit in units)
    names = [snapshot.queues.names[int(holders.queue[unit])] for unit in runs]
    by_queue = ", ".join(f"{names.count(name)} in queue {name}" for name in sorted(set(names)))
    surplus = sum(int(holders.whole[unit]) not in units for unit in units)
    what = (
        f"{counted(pods, 'pod')}"
        if not surplus
        else f"{counted(pods, 'pod')}, without {surplus} of which its run goes on"
    )
    return f"could take the place of {counted(len(runs), 'run')} ({what}): {by_queue}"


def _why_nobody(holders: Holders, wish: Wish, name: str, policy: PreemptionPolicy) -> Iterator[str]:
    here = holders.queue == wish.queue
    own = holders.priority[here & (holders.may_yield | holders.protected)]
    if policy.within_queue is WithinQueue.NEVER:
        yield f"work of queue {name} does not displace work of its own queue"
    elif own.size and int(own.min()) >= wish.priority and policy.within_queue is WithinQueue.LOWER_PRIORITY:
        yield _lacks_priority(name, int(own.min()), wish.priority)
    elif not own.size:
        yield f"nothing runs in queue {name} that may yield"
    else:
        yield f"all that may yield in queue {name} would not make room enough"
    if protected := int(np.count_nonzero(holders.protected)):
        be = "is within its" if protected == 1 else "are within their"
        yield f"{counted(protected, 'run')} {be} minimum run time"
    if policy.reclaim is not Reclaim.NEVER:
        yield f"queue {name} has nothing of its own that others hold and that would suffice"
    if policy.borrow is not Borrow.NEVER:
        yield "no less urgent work of other queues holds so much that they have borrowed"
    if policy.fair_share is not FairShare.NEVER:
        yield "no other queue holds so much more than its fair share"
    if wish.displacers:
        yield "it does not displace those for whom it was displaced itself"


def _lacks_priority(queue: str, least: int, priority: int) -> str:
    """`least`: of all that may yield."""
    if least >= PRIORITY_MAX:
        return f"what runs in queue {queue} is as urgent as can be"
    return f"in queue {queue} that needs a priority above {least}; yours is {priority}"
