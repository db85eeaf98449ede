"""Whether what is asked for could ever run: on the fleet as it is, and by all that its queue may ever use."""

from __future__ import annotations

from collections.abc import Iterable

from mainstay.decide.possible import Impossible, impossible
from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import Stay
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import WorkloadSpec
from mainstay.ports import Store


def require_room(store: Store, jobs: Iterable[tuple[WorkloadSpec, str]], *, now: int) -> None:
    """Raises Invalid for a specification that could never run in its queue, with the figures and what could.

    What fits the world as it was seen last is possible: nodes come and are made larger, and hardly ever leave. Only for what does
    not is it looked at anew.
    """
    different = {
        (spec.nodes_min, spec.choices, spec.sets, spec.topology, spec.need, spec.cluster, queue): (spec, queue)
        for spec, queue in jobs
    }
    seen = store.snapshot(now=now, seed=0, fresh=False)
    for spec, queue in different.values():
        if not _fitted(seen, spec, queue) and (found := never(store, spec, queue, now=now)):
            raise _refused(found, spec)


def never(store: Store, spec: WorkloadSpec, queue: str, *, now: int) -> Impossible | None:
    """Why this could never run in its queue, on the fleet as it is now; None if it could, or if nobody knows."""
    snapshot, clusters = store.snapshot(now=now, seed=0), store.clusters()
    gone = {row.name for row in clusters if row.wanted is Stay.REMOVED}
    fleet = ({row.name for row in clusters} | set(snapshot.nodes.clusters)) - gone
    return impossible(snapshot, spec=spec, queue=queue, fleet=fleet)


def _fitted(seen: Snapshot, spec: WorkloadSpec, queue: str) -> bool:
    """Whether that world could hold it, as far as it knows of nodes and of the queue."""
    known = queue in seen.queues.names and (
        spec.cluster in seen.nodes.clusters if spec.cluster else bool(seen.nodes.key.size)
    )
    return known and impossible(seen, spec=spec, queue=queue) is None


def _refused(found: Impossible, spec: WorkloadSpec) -> Invalid:
    field = {Code.NEVER_FITS: "resources", Code.NO_SUCH_NODES: str(found.reason.numbers.get("field", ""))}.get(
        found.reason.code, "queue"
    )
    if field == "resources" and spec.sets:
        short = [one.name for one in spec.sets].index(str(found.reason.numbers["set"]))
        field = f"sets.{short}.resources"
    hint = f"the nearest that could run: {' or '.join(found.nearest)}" if found.nearest else ""
    return Invalid(f"{field}: {found.reason.sentence}", object_=field, hint=hint, numbers=found.reason.numbers)
