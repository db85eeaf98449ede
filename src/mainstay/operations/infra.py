"""Where a job must run: whether the fleet has that cluster, and whether it is said for jobs whose volumes lie in one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import Stay
from mainstay.domain.workload import WorkloadSpec
from mainstay.ports import Store


def require_known(store: Store, names: Iterable[str]) -> None:
    """Raises Invalid for a cluster that is not of the fleet, with the nearest spelling; the empty name is any."""
    asked = sorted(set(names) - {""})
    if not asked:
        return
    known = _fleet(store)
    for name in asked:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the fleet has: {', '.join(sorted(known)) or 'no cluster'}"
            msg = f"infra: there is no cluster {name!r}"
            raise Invalid(msg, object_="infra", hint=hint)


def require_one_home(store: Store, specs: Iterable[WorkloadSpec]) -> None:
    """Raises Invalid for a job with a volume that outlives it, if that could be another one with every run.

    A volume lies in one cluster: a run in another one would find none of what the last one left, or make it anew.
    """
    asked = [volume.name for spec in specs if not spec.cluster for volume in spec.volumes if volume.name]
    fleet = _fleet(store) if asked else set()
    if len(fleet) > 1:
        msg = f"volumes: {asked[0]} lies in one cluster, and the fleet has {len(fleet)}"
        raise Invalid(msg, object_="volumes", hint=f"say which in `infra`: {', '.join(sorted(fleet))}")


def _fleet(store: Store) -> set[str]:
    return {row.name for row in store.clusters() if row.wanted is not Stay.REMOVED}
