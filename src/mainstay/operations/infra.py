"""Where a job must run: whether the fleet has that cluster, and whether it is said for jobs whose volumes lie in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import ClusterKind, ClusterRecord, Stay
from mainstay.domain.quantity import memory_words
from mainstay.domain.topology import TopologyNeed, known_levels
from mainstay.domain.volume import VolumeRecord, named
from mainstay.domain.workload import Phase, Workload, WorkloadSpec
from mainstay.ports import Store, WorkloadFilter

OPEN_LOOKED_AT = 10_000
"""Of so many open workloads is looked whether one makes a volume; in a tenant with more, a missing one is told late."""


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


def require_levels(store: Store, specs: Iterable[WorkloadSpec]) -> None:
    """Raises Invalid for a gang that is to lie in one domain, or in many, of a level of which its clusters say nothing, with the
    levels of which they do. Where there is no node yet, nobody knows.
    """
    asked = sorted({(*one, spec.cluster) for spec in specs if spec.nodes_max > 1 for one in _levels(spec.topology)})
    if not asked:
        return
    nodes = store.snapshot(now=0, seed=0).nodes
    for field, level, cluster in asked:
        known = known_levels(nodes.levels, nodes.clusters, cluster=cluster)
        if known and level not in known:
            where = f" of cluster {cluster}" if cluster else ""
            msg = f"{field}: of no node{where} is it known in which {level} it is"
            hint = f"known{where}: {', '.join(known)}; administrators name the labels of nodes that say it"
            raise Invalid(msg, object_=field, hint=hint)


def _levels(need: TopologyNeed | None) -> Iterator[tuple[str, str]]:
    """(field of the job file, level that it names)."""
    if need and need.level:
        yield "topology", need.level
    if need and need.spread:
        yield "spread", need.spread.level


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


def require_volumes(store: Store, tenant: str, jobs: Sequence[tuple[str, WorkloadSpec]]) -> None:
    """Raises Invalid for a job of a project with a volume that is smaller than it asks for, or that nobody makes.

    Only where its cluster is known, and is one that reports its volumes: of others nobody knows what is there.
    """
    asked = [(project, spec, volume) for project, spec in jobs for volume in spec.volumes if volume.name]
    if not asked:
        return
    records, fleet = store.volumes(tenant=tenant), store.clusters()
    made = {(project, volume.name) for project, _, volume in asked if volume.size_bytes}
    for project, spec, volume in asked:
        mine = [one for one in records if (one.state.owner.project, one.state.name) == (project, volume.name)]
        there = [one for one in mine if spec.cluster in {"", one.cluster}]
        if len(there) == 1:
            _require_size(there[0], volume.size_bytes)
        elif not there and (project, volume.name) not in made and _is_known(spec.cluster, fleet, records):
            _require_maker(store, tenant, project, volume.name)


def _require_size(found: VolumeRecord, size_bytes: int) -> None:
    has = found.state.size_bytes
    if has and size_bytes > has:
        name = found.state.name
        msg = f"volumes: {name} has {memory_words(has)}, and {memory_words(size_bytes)} are asked for"
        raise Invalid(msg, object_="volumes", hint=f"leave its size out, or grow it; it lies {found.words}")


def _require_maker(store: Store, tenant: str, project: str, name: str) -> None:
    """One that another workload names may be made any moment."""
    if any(one.project == project and name in named(one.spec.volumes) for one in _open_workloads(store, tenant)):
        return
    msg = f"volumes: there is no {name} in project {project}"
    raise Invalid(msg, object_="volumes", hint="say its size to have it made, e.g. `size: 10GB`; mainstay volume list")


def _open_workloads(store: Store, tenant: str) -> Iterable[Workload]:
    which = WorkloadFilter(tenant=tenant, phases=tuple(phase for phase in Phase if not phase.final))
    return store.workloads(which, before=0, limit=OPEN_LOOKED_AT)


def _is_known(cluster: str, fleet: Iterable[ClusterRecord], records: Iterable[VolumeRecord]) -> bool:
    """Whether we know which volumes there are where the job runs: on the machine of the platform, or where any was reported."""
    here = [row for row in fleet if row.wanted is not Stay.REMOVED and cluster in {"", row.name}]
    if len(here) != 1:
        return False
    return here[0].kind is ClusterKind.LOCAL or any(one.cluster == here[0].name for one in records)


def _fleet(store: Store) -> set[str]:
    return {row.name for row in store.clusters() if row.wanted is not Stay.REMOVED}
