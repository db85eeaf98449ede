"""Where a job must run: whether the fleet has that cluster, and whether it is said for jobs whose volumes lie in one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import Stay
from mainstay.domain.volume import named
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


def require_one_home(store: Store, tenant: str, jobs: Iterable[tuple[str, WorkloadSpec]]) -> None:
    """Raises Invalid for a job of a project with a volume that outlives it, if that could be another one with every run.

    A volume lies in one cluster, and a job that names one that is on record runs there. One that is on record nowhere is
    made by the first run, and by another one in another cluster once more.
    """
    asked = {(project, name) for project, spec in jobs if not spec.cluster for name in named(spec.volumes)}
    fleet = _fleet(store) if asked else set()
    if len(fleet) <= 1:
        return
    places: dict[tuple[str, str], list[str]] = {}
    for record in store.volumes(tenant=tenant):
        places.setdefault((record.state.owner.project, record.state.name), []).append(record.cluster)
    for project, name in sorted(asked):
        found = places.get((project, name), [])
        if len(found) > 1:
            msg = f"volumes: there is a {name} in each of {', '.join(found)}"
            raise Invalid(msg, object_="volumes", hint=f"say which in `infra`: {', '.join(found)}")
        if not found:
            msg = f"volumes: {name} is in none of the {len(fleet)} clusters of the fleet yet"
            hint = f"say in `infra` where it is to be made: {', '.join(sorted(fleet))}"
            raise Invalid(msg, object_="volumes", hint=hint)


def _fleet(store: Store) -> set[str]:
    return {row.name for row in store.clusters() if row.wanted is not Stay.REMOVED}
