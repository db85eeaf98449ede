"""When a workload that waits is expected to start: by drawing how long everything still runs, and playing what then happens.

Each of a few plays (replay.py) is as likely as another, and so is what really happens if run times are as they are drawn: of 19
plays the tenth start is one that half of all starts are before, and the 18th one that nine of ten are before (order statistics:
Wilks, "Determination of Sample Sizes for Setting Tolerance Limits", Annals of Mathematical Statistics 12, 1941). Nothing is
submitted, stopped or displaced in a play, no node fails and none comes.

The work is bounded by counting it, never by a clock, so the same snapshot has the same answer. Where more goes before a workload
than can be played, the answer is before when it does *not* start.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mainstay.decide import admission
from mainstay.decide.condensing import Condenser
from mainstay.decide.offers import NOBODY_KNOWS
from mainstay.decide.placement.fill import Policy
from mainstay.decide.replay import Replay, Start
from mainstay.decide.reservation import NEVER
from mainstay.decide.retry import mix
from mainstay.decide.rows import only_workloads, rows_by_key, with_workload
from mainstay.decide.run_times import seconds_left
from mainstay.decide.shapes import shape_numbers
from mainstay.decide.submitters import in_turn
from mainstay.decide.turns import asked_by, whole_fleet
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, duration_words
from mainstay.domain.snapshot import NOBODY, Snapshot
from mainstay.domain.volume import VolumeNeed
from mainstay.domain.workload import Kind, Phase, WorkloadSpec

DRAWS, DRAWS_FEW = 19, 9
"""Half and nine tenths of one more are whole numbers. As many as the work allows: all, or the first few."""
CYCLES_MIN = 2
"""With fewer for each play nothing is found."""
NODES_OF_PART, CYCLES_OF_PART = 1_024, 6
"""Where only a part of the fleet is played: so many nodes at most, and at least so many cycles for each play."""
WITHIN = 1 / 16
"""And of each start it is told within so much of the wait."""
ROWS_MAX = 128
"""So many of those before it take part, those first that are nearest to the front of their queue."""
ROWS_FEW = 16
"""If no more wait, those behind it take part too: they fill gaps, and delay it only until its start is reserved."""
WORK_MAX = 400_000
"""About a microsecond of one core each, without machine code."""
CYCLE_MAX = 110_000
"""Where one cycle is more work than that, a part of the fleet is played (condensing.py): of all of it the few plays that tell
anything would take seconds.
"""
JOB = tuple(Kind).index(Kind.JOB)
RUNS_MAX = 1 << 20
"""Of more that run, or wait, even that would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedStart:
    """Instants in UTC microseconds; 0 where it is not known."""

    asked_at: int
    p50: int = 0
    """By then it has started in half of the cases."""
    p90: int = 0
    """In nine of ten."""
    not_before: int = 0
    """Where `p50` is not known since too much goes before it: half of the time it has not started by then."""
    detail: str = ""
    """Why one of them is not known."""

    @property
    def sentence(self) -> str:
        """In words, without a full stop."""
        if self.not_before:
            return f"not expected to start before {_within(self.not_before, self.asked_at)}: {self.detail}"
        if not self.p50:
            return f"nobody knows when it starts: {self.detail}"
        if self.p50 <= self.p90 <= self.asked_at:
            return "expected to start now"
        half = _within(self.p50, self.asked_at)
        if not self.p90:
            return f"expected to start within {half} half of the time; how much later else, nobody knows: {self.detail}"
        most = _within(self.p90, self.asked_at)
        if half == most:
            return f"expected to start within {half}"
        return f"expected to start within {half} half of the time, and within {most} nine times of ten"


def expected_start(snapshot: Snapshot, row: int, policy: Policy) -> ExpectedStart:
    """Of the workload in this row, which waits. `snapshot` as `nomination.reserved` has it.

    Costs about half a second of one core, and a few on the largest fleets. Randomness is that of the
    snapshot and of the keys in it: asked twice about the same world, it says the same.
    """
    world, at, left_out = _taking_part(snapshot, row)
    starts = _starts(world, at, policy) if _work(world) <= CYCLE_MAX else _starts_of_parts(world, at, policy)
    if not starts:
        crowd = _crowd_started_at(snapshot, row)
        return ExpectedStart(asked_at=snapshot.now, not_before=crowd if crowd > snapshot.now else 0, detail=_TOO_LARGE)
    found = _told(starts, now=snapshot.now, left_out=left_out)
    if found.not_before:
        return replace(found, not_before=max(found.not_before, _crowd_started_at(snapshot, row)))
    return found


def _starts(world: Snapshot, row: int, policy: Policy) -> list[Start]:
    """How each play of the whole goes out: of all draws, or of the first few."""
    replay = Replay(world, row, policy)
    left = max(WORK_MAX // _work(world), DRAWS_FEW * CYCLES_MIN)
    each = left // DRAWS_FEW
    starts: list[Start] = []
    for part in _parts(world):
        if len(starts) >= DRAWS_FEW and left < each:
            return starts[:DRAWS_FEW]
        starts.append(replay.play(part, cycles_max=each))
        left -= starts[-1].cycles
    return starts


def _starts_of_parts(world: Snapshot, row: int, policy: Policy) -> list[Start]:
    """How each play of a part of the fleet goes out, of a few draws; none where even that would be too much."""
    if world.workloads.key.size > RUNS_MAX:
        return []
    condenser, starts = Condenser(world, row, policy, nodes_max=NODES_OF_PART), list[Start]()
    for draw in itertools.islice(_parts(world), DRAWS_FEW if condenser.possible else 0):
        part = condenser.part(draw)
        work = _work(part.snapshot)
        if work > CYCLE_MAX:
            return []
        cycles = max(WORK_MAX // (DRAWS_FEW * work), CYCLES_OF_PART)
        replay = Replay(part.snapshot, part.row, policy, until=part.until, within=WITHIN)
        starts.append(replay.play(part.draw, cycles_max=cycles))
    return starts


def submitted(
    snapshot: Snapshot,
    *,
    spec: WorkloadSpec,
    priority: int,
    queue: int,
    submitter: str = NOBODY,
    volumes: VolumeNeed | None = None,
    seconds_on: Mapping[str, int] = NOBODY_KNOWS,
) -> tuple[Snapshot, int]:
    """The same world with a workload in it that was submitted now, to the queue in this row; and the row of the workload.
    `seconds_on` as of `offers_of`.
    """
    first, table = spec.choices[0], snapshot.workloads
    # Behind those of pods, too, whose workload is over and not in the table any more.
    key = int(max(table.key.max(initial=0), snapshot.allocations.workload_key.max(initial=0))) + 1
    asked = (*spec.choices, *(one.resources for one in spec.sets))
    models = dict.fromkeys((*snapshot.gpu_models, *(one.gpu_model for one in asked)))
    clusters = dict.fromkeys((*snapshot.cluster_names, spec.cluster))
    submitters = dict.fromkeys((*snapshot.submitters, submitter))
    images = dict.fromkeys((*snapshot.images, spec.image))
    columns = {
        "key": key,
        "phase": int(Phase.QUEUED),
        "priority": priority,
        "queue": queue,
        "submitter": list(submitters).index(submitter),
        "attempt": 1,
        "submitted_at": snapshot.now,
        "preemptible": 1,
        "nodes": spec.nodes,
        "nodes_min": spec.nodes_min,
        "nodes_max": spec.nodes_max,
        "cpu_milli": first.cpu_milli,
        "memory_bytes": first.memory_bytes,
        "gpus": first.gpus,
        "gpu_model": list(models).index(first.gpu_model),
        "cluster": list(clusters).index(spec.cluster),
        "volumes": len(snapshot.volume_needs) if volumes else 0,
        "topology": len(snapshot.topologies) if spec.topology else 0,
        "restriction": len(snapshot.restrictions) if spec.need else 0,
        "max_duration_seconds": spec.max_duration_seconds,
        "stop_grace_seconds": spec.stop_grace_seconds,
    }
    if table.image is not None:
        columns["image"] = list(images).index(spec.image)
    workloads = with_workload(table, columns, others=dict(first.others))
    if len(spec.choices) > 1 or not (spec.sets or first.is_plain):
        workloads = replace(workloads, choices={**table.choices, key: spec.choices})
    if spec.equals > 1:
        workloads = replace(workloads, equals={**table.equals, key: spec.equals})
    if seconds_on:
        workloads = replace(workloads, typical_on={**table.typical_on, key: tuple(sorted(seconds_on.items()))})
    if spec.sets:
        workloads = replace(workloads, sets={**table.sets, key: spec.sets})
    world = replace(
        snapshot,
        workloads=workloads,
        gpu_models=tuple(models),
        cluster_names=tuple(clusters),
        submitters=tuple(submitters),
        images=tuple(images),
        volume_needs=(*snapshot.volume_needs, volumes),
        topologies=(*snapshot.topologies, spec.topology),
        restrictions=(*snapshot.restrictions, spec.restricted_to),
    )
    return world, table.key.size


def unlearned(snapshot: Snapshot) -> Ints:
    """Keys of those whose run times matter where a start is played, and whose rows may be behind: what waits nearest to the front
    of its queue learned them when it was queued, and of what runs nothing may have been known at its start. At most ROWS_MAX
    of each.
    """
    table = snapshot.workloads
    holds, waits = _holding_and_waiting(snapshot)
    front = waits[np.lexsort((waits, _place_in_queue(snapshot, waits)))[:ROWS_MAX]]
    strange = np.flatnonzero(holds & (table.kind == JOB) & (table.typical_seconds == 0))[:ROWS_MAX]
    return table.key[np.union1d(front, strange)]


def with_typical(snapshot: Snapshot, known: Mapping[int, tuple[int, int]]) -> Snapshot:
    """The same world where runs of these workloads take so long: as `workload.typical`, by key."""
    table = snapshot.workloads
    rows = rows_by_key(table.key, np.fromiter(known, dtype=np.int64, count=len(known)))
    here, found = rows >= 0, np.array([*known.values()], dtype=np.int64).reshape(-1, 2)
    seconds, spread = table.typical_seconds.copy(), table.spread_permille.copy()
    seconds[rows[here]], spread[rows[here]] = found[here, 0], found[here, 1]
    return replace(snapshot, workloads=replace(table, typical_seconds=seconds, spread_permille=spread))


def _holding_and_waiting(snapshot: Snapshot) -> tuple[Bools, Ints]:
    """[workloads] Whether each holds places; and the rows of those that wait for some and may be given them."""
    held, table = snapshot.allocations, snapshot.workloads
    holds = np.isin(table.key, held.workload_key[held.seen != Seen.ENDED])
    return holds, np.flatnonzero(admission.waiting(snapshot) & ~table.held & ~table.stop_requested & ~holds)


def _taking_part(snapshot: Snapshot, row: int) -> tuple[Snapshot, int, bool]:
    """The world with those only that hold something or wait near the front; its row there; whether others go before it."""
    table = snapshot.workloads
    holds, waits = _holding_and_waiting(snapshot)
    place = _place_in_queue(snapshot, waits)
    mine = int(place[waits == row][0])
    before = place < mine if waits.size > ROWS_FEW else waits >= 0
    nearest = np.flatnonzero(before)[np.lexsort((waits[before], place[before]))]
    chosen, rest = nearest[:ROWS_MAX], nearest[ROWS_MAX:]
    takes_part: Bools = holds.copy()
    takes_part[waits[chosen]] = True
    takes_part[row] = True
    rows = np.flatnonzero(takes_part)
    world = replace(snapshot, workloads=only_workloads(table, rows))
    return world, int(np.searchsorted(rows, row)), bool(rest.size)


def _crowd_started_at(snapshot: Snapshot, row: int) -> int:
    """Not before that can all those of its queue have started that are before it, on all nodes together.

    What they take by the middle of what is known of them, less the longest of them on a full fleet: that may still run then.
    """
    table = snapshot.workloads
    waits = np.flatnonzero(admission.waiting(snapshot) & (table.queue == table.queue[row]))
    place = _place_in_queue(snapshot, waits)
    before = waits[place < place[waits == row]]
    middle = np.full(before.size, 0.5)
    seconds = seconds_left(table, before, ran_seconds=np.zeros(before.size), part=middle)
    seconds[~np.isfinite(seconds)] = 0.0
    whole = whole_fleet(snapshot)
    work = (asked_by(snapshot, before) / whole * seconds[:, np.newaxis]).sum(axis=0).max(initial=0.0)
    return snapshot.now + int(max(0.0, work - seconds.max(initial=0.0)) * MICROSECONDS_PER_SECOND)


def _place_in_queue(snapshot: Snapshot, rows: Ints) -> Ints:
    """Of each, how many of its own queue are before it. `rows` ascending."""
    table = snapshot.workloads
    ranked = rows[np.lexsort((table.key[rows], table.submitted_at[rows], -table.priority[rows]))]
    turns = in_turn(snapshot, ranked)
    turns = turns[table.queue[turns].argsort(kind="stable")]
    queue, place = table.queue[turns], np.empty(rows.size, dtype=np.int64)
    place[np.searchsorted(rows, turns)] = np.arange(rows.size) - np.searchsorted(queue, queue)
    return place


def _work(world: Snapshot) -> int:
    """About so many microseconds takes a cycle of a play. Measured without machine code, rounded."""
    waits = np.flatnonzero(admission.waiting(world))
    shapes = int(shape_numbers(world, waits, timed=True).max(initial=-1)) + 1
    nodes, pods = world.nodes.key.size, world.allocations.key.size
    return 5_000 + 40 * waits.size + 60 * shapes + 12 * nodes + nodes * shapes // 10 + pods


def _parts(world: Snapshot) -> Iterator[Floats]:
    """Of each draw, one number for each workload: spread evenly over [0, 1) for each, and independent between workloads.

    Each of as many equal parts of what one may take is drawn once (Latin hypercube: McKay, Beckman and Conover, Technometrics
    21, 1979), so few draws tell as much as many. Which in which draw: a line modulo their number, which is prime. What is drawn
    for a workload follows from its key and the seed, whoever else is there.
    """
    own = _mixed(world.workloads.key.astype(np.uint64) + np.uint64(mix(world.seed)))
    slope, begin = own % np.uint64(DRAWS - 1) + np.uint64(1), (own >> np.uint64(32)) % np.uint64(DRAWS)
    for number in range(DRAWS):
        stratum = (slope * np.uint64(number) + begin) % np.uint64(DRAWS)
        inside = (_mixed(own + np.uint64(number + 1)) >> np.uint64(11)) / float(1 << 53)
        yield (stratum + inside) / DRAWS


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """64 well-spread bits of each. Source: splitmix64 (Steele 2014), as `mix`."""
    state = numbers + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


_NOTHING_ENDS = (
    "it has no place even when all has ended that has a time limit or a history;"
    " what would tell: a max_duration of the runs that hold its places or go before it, or a default-max-duration of their queues"
)
_TOO_LARGE = "so much runs that it is not played to its end"
_TOO_MUCH = "too much goes before it to see farther"


def _told(starts: list[Start], *, now: int, left_out: bool) -> ExpectedStart:
    """What so many starts say. `left_out`: it may be later than any of them."""
    ranked = sorted(starts)
    half, most = (len(ranked) + 1) // 2, (9 * (len(ranked) + 1)) // 10
    p50, p90 = ranked[half - 1].at, ranked[most - 1].at
    if left_out or not all(start.seen for start in ranked[:half]):
        known = p50 < NEVER
        return ExpectedStart(asked_at=now, not_before=p50 if known else 0, detail=_TOO_MUCH if known else _NOTHING_ENDS)
    if p50 == NEVER:
        return ExpectedStart(asked_at=now, detail=_NOTHING_ENDS)
    if p90 == NEVER:
        return ExpectedStart(asked_at=now, p50=p50, detail=_NOTHING_ENDS)
    if not all(start.seen for start in ranked[:most]):
        return ExpectedStart(asked_at=now, p50=p50, detail=_TOO_MUCH)
    return ExpectedStart(asked_at=now, p50=p50, p90=p90)


def _within(instant: int, now: int) -> str:
    return duration_words(-(-(instant - now) // MICROSECONDS_PER_SECOND))
