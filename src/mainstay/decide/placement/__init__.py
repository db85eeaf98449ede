"""Where pods go: what is feasible, what is best, and gangs whole or not at all. Policies by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mainstay.decide.placement.best_fit import best_fit
from mainstay.decide.placement.fill import Policy
from mainstay.decide.placement.least_waste import least_waste
from mainstay.decide.placement.spread import spread
from mainstay.domain.queue import QueueTree

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "least-waste": Policy(least_waste, sign=1, heeds=True),
        "best-fit": Policy(best_fit, sign=1),
        "spread": Policy(spread, stacks=False, sign=-1),
    }
)
"""Every placement policy; the first is the default."""
DEFAULT_POLICY = next(iter(POLICIES))


def policies_of(tree: QueueTree, default: Policy) -> tuple[Policy, ...]:
    """[queues] The policy of each; one that is not there any more counts as none."""
    return tuple(POLICIES.get(name, default) for name in tree.placements)
