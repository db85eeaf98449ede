"""Cycles over queues: against an oracle that goes workload by workload, and laws of quotas and of turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, note, settings
from hypothesis import strategies as st

from mainstay.decide import admission
from mainstay.decide.allowance import held_by_queue
from mainstay.decide.cycle import Cycle
from mainstay.decide.kernel import share as share_of
from mainstay.decide.placement import POLICIES
from mainstay.decide.quota import available, quotas_of, usage
from mainstay.decide.schedule import schedule
from mainstay.decide.turns import asked_by, ledger_of
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import NO_LIMIT, QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, allocation, node, workload, world

CPU = ("default", "cpu")


def started(snapshot: Snapshot) -> set[int]:
    """Keys of the workloads that a whole cycle places."""
    cycle = Cycle(snapshot, POLICIES["best-fit"])
    return {int(snapshot.workloads.key[row]) for batch in cycle.placements() for row in batch.rows}


def team(name: str, *, weight: float = 1, parent: str = "", cpus: int | None = None, **limits: int) -> QueueSpec:
    quotas = {}
    if cpus is not None:
        thousandths = {f"{kind}_limit": limit * 1000 for kind, limit in limits.items()}
        quotas[CPU] = Quota(nominal=cpus * 1000, **thousandths)
    return QueueSpec(name=name, weight=weight, parent=parent, quotas=quotas)


def jobs(**counts: int) -> list:
    """So many of each queue, one core each; the queues take turns in being the oldest."""
    names = [name for turn in range(max(counts.values())) for name, count in counts.items() if turn < count]
    return [workload(key, queue=name, submitted_at=NOON + key) for key, name in enumerate(names, 1)]


def by_queue(snapshot: Snapshot) -> dict[str, int]:
    """How many of each queue a cycle starts."""
    keys = started(snapshot)
    rows = [row for row, key in enumerate(snapshot.workloads.key.tolist()) if key in keys]
    names = [snapshot.queues.names[number] for number in snapshot.workloads.queue[rows].tolist()]
    return {name: names.count(name) for name in sorted(set(names))}


def test_queues_share_evenly_what_they_ask_for_together():
    snapshot = world(nodes=[node(cpus=10)], queues=[team("a"), team("b")], workloads=jobs(a=20, b=20))
    assert by_queue(snapshot) == {"a": 5, "b": 5}


def test_weights_divide_what_is_there():
    snapshot = world(nodes=[node(cpus=9)], queues=[team("a", weight=2), team("b")], workloads=jobs(a=20, b=20))
    assert by_queue(snapshot) == {"a": 6, "b": 3}


def test_what_one_queue_does_not_want_is_the_others():
    snapshot = world(nodes=[node(cpus=10)], queues=[team("a"), team("b")], workloads=jobs(a=20, b=2))
    assert by_queue(snapshot) == {"a": 8, "b": 2}


def test_what_a_queue_holds_already_counts():
    running = [allocation(100, cpus=4)]
    waiting = [*jobs(a=20, b=20), workload(100, queue="a", phase=5)]
    snapshot = world(nodes=[node(cpus=12)], queues=[team("a"), team("b")], workloads=waiting, allocations=running)
    assert by_queue(snapshot) == {"a": 2, "b": 6}


def test_cohorts_share_among_each_other_before_their_queues_do():
    rows = [QueueSpec(name="x", cohort=True), team("a", parent="x"), team("b", parent="x"), team("c")]
    snapshot = world(nodes=[node(cpus=8)], queues=rows, workloads=jobs(a=20, b=20, c=20))
    assert by_queue(snapshot) == {"a": 2, "b": 2, "c": 4}


def test_a_queue_of_weight_0_takes_only_what_nobody_else_wants():
    snapshot = world(nodes=[node(cpus=6)], queues=[team("a", weight=0), team("b")], workloads=jobs(a=20, b=4))
    assert by_queue(snapshot) == {"a": 2, "b": 4}


def test_a_quota_bounds_its_queue_and_what_waits_hears_the_figures():
    snapshot = world(nodes=[node(cpus=10)], queues=[team("a", cpus=3)], workloads=jobs(a=5))
    actions = schedule(snapshot)
    assert len([action for action in actions if isinstance(action, Allocate)]) == 3
    reasons = [action.reason for action in actions if isinstance(action, Advance)]
    assert [reason.code for reason in reasons] == [Code.WAITS_FOR_QUOTA] * 2
    assert reasons[0].sentence == (
        "waits for the quota of queue a: needs 1 CPU, 1 GiB, and may use 0 CPUs more of cpu (default):"
        " it uses 3 CPUs, 3 CPUs are its own"
    )


def test_idle_quota_is_borrowed_up_to_the_limits():
    rows = [team("a", parent="all", cpus=2, borrowing=3), team("b", parent="all", cpus=8, lending=6)]
    snapshot = world(nodes=[node(cpus=16)], queues=rows, workloads=jobs(a=16))
    assert by_queue(snapshot) == {"a": 5}


def test_what_is_borrowed_is_shared_not_what_is_a_queues_own():
    rows = [team("a", parent="all", cpus=4), team("b", parent="all", cpus=0), team("c", parent="all", cpus=4)]
    snapshot = world(nodes=[node(cpus=8)], queues=rows, workloads=jobs(a=16, b=16))
    assert by_queue(snapshot) == {"a": 6, "b": 2}


def test_a_gang_counts_whole_against_the_quota():
    gang = workload(1, queue="a", nodes=4)
    assert started(world(nodes=[node(cpus=16)], queues=[team("a", cpus=3)], workloads=[gang])) == set()
    assert started(world(nodes=[node(cpus=16)], queues=[team("a", cpus=4)], workloads=[gang])) == {1}


def gpu_team(**gpus: int) -> QueueSpec:
    return QueueSpec(name="a", quotas={(model, "gpu"): Quota(nominal=count) for model, count in gpus.items()})


def test_quotas_tell_gpu_models_apart():
    nodes = [node(gpus=8, gpu_model="H100"), node(gpus=8, gpu_model="L4")]
    waiting = [workload(key, queue="a", gpus=1, gpu_model=model) for key, model in enumerate(["H100", "H100", "L4"], 1)]
    snapshot = world(nodes=nodes, queues=[gpu_team(H100=1)], workloads=waiting)
    assert started(snapshot) == {1}
    told = {action.workload_key: action.reason.code for action in schedule(snapshot) if isinstance(action, Advance)}
    assert told == {2: Code.WAITS_FOR_QUOTA, 3: Code.NO_QUOTA}


def test_where_any_model_will_do_one_is_found_that_has_quota():
    nodes = [node(gpus=8, gpu_model="H100"), node(gpus=8, gpu_model="L4")]
    waiting = [workload(key, queue="a", gpus=1) for key in range(1, 6)]
    cycle = Cycle(world(nodes=nodes, queues=[gpu_team(H100=1, L4=2)], workloads=waiting), POLICIES["best-fit"])
    placed = [int(row) for batch in cycle.placements() for row in batch.nodes.ravel()]
    assert sorted(placed) == [0, 1, 1]


def test_a_quota_of_gpus_leaves_work_without_them_alone():
    snapshot = world(nodes=[node(cpus=4)], queues=[gpu_team(H100=0)], workloads=jobs(a=4))
    assert by_queue(snapshot) == {"a": 4}


@dataclass(frozen=True)
class Contest:
    """A fleet of one node, on which nothing but the sum of cores counts."""

    snapshot: Snapshot
    cpus: int

    @property
    def words(self) -> str:
        """For whoever reads a failure."""
        tree, table = self.snapshot.queues, self.snapshot.workloads
        rows = [
            f"{name}: parent {parent}, weight {weight}, nominal {nominal}, borrows {borrows}, lends {lends}"
            for name, parent, weight, nominal, borrows, lends in zip(
                tree.names,
                tree.parent,
                tree.weight,
                tree.nominal,
                tree.borrowing_limit,
                tree.lending_limit,
                strict=True,
            )
        ]
        jobs = [
            f"{key} in {tree.names[queue]}: {cpu}, priority {priority}, {at}"
            for key, queue, cpu, priority, at in zip(
                table.key, table.queue, table.cpu_milli, table.priority, table.submitted_at - NOON, strict=True
            )
        ]
        return "\n".join((f"{self.cpus} cores", *rows, *jobs))


AMOUNT = st.one_of(st.none(), st.integers(0, 6))


@st.composite
def contests(draw: st.DrawFn) -> Contest:
    cohorts = [
        QueueSpec(
            name=name,
            cohort=True,
            parent=draw(st.sampled_from(["", *names])),
            weight=draw(st.integers(0, 3)),
            quotas={CPU: Quota(nominal=1000 * draw(st.integers(0, 4)))} if draw(st.booleans()) else {},
        )
        for name, names in (("x", ()), ("y", ("x",)))
    ]
    queues = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        parent = draw(st.sampled_from(["", "x", "y"]))
        limits = [draw(AMOUNT) if parent else None for _ in range(2)]
        nominal = draw(AMOUNT)
        borrowing, lending = (None if limit is None else 1000 * limit for limit in limits)
        if lending is not None and nominal is not None:
            lending = min(lending, 1000 * nominal)
        quotas = (
            {}
            if nominal is None
            else {CPU: Quota(nominal=1000 * nominal, borrowing_limit=borrowing, lending_limit=lending)}
        )
        queues.append(QueueSpec(name=name, parent=parent, weight=draw(st.integers(0, 3)), quotas=quotas))
    cpus = draw(st.integers(1, 12))
    waiting = [
        workload(
            key,
            queue=draw(st.sampled_from([row.name for row in queues])),
            submitter=draw(st.sampled_from(["", "ann", "bob", "cho"])),
            cpus=draw(st.integers(1, 3)),
            gib=0,
            priority=draw(st.integers(0, 2)),
            submitted_at=NOON + draw(st.integers(0, 3)),
        )
        for key in range(1, draw(st.integers(1, 14)) + 1)
    ]
    running, held = [], []
    for key in range(100, 100 + draw(st.integers(0, 2))):
        queue, submitter = draw(st.sampled_from([row.name for row in queues])), draw(st.sampled_from(["ann", "bob"]))
        running.append(workload(key, queue=queue, submitter=submitter, phase=Phase.RUNNING, gib=0))
        held.append(allocation(key, cpus=1, gib=0))
    fleet = [node(cpus=cpus + len(held))]
    snapshot = world(nodes=fleet, queues=[*cohorts, *queues], workloads=[*waiting, *running], allocations=held)
    return Contest(snapshot=snapshot, cpus=cpus)


def cores_of_submitters(snapshot: Snapshot) -> dict[tuple[int, int], int]:
    """(queue, submitter) -> thousandths of a core that they hold in it."""
    table, held = snapshot.workloads, snapshot.allocations
    found: dict[tuple[int, int], int] = {}
    for key, amount in zip(held.workload_key.tolist(), held.cpu_milli.tolist(), strict=True):
        row = table.key.tolist().index(key)
        who = int(table.queue[row]), int(table.submitter[row])
        found[who] = found.get(who, 0) + amount
    return found


def one_by_one(contest: Contest) -> set[int]:  # noqa: C901 - the rules side by side
    """The meaning of a cycle, word for word: whose turn it is takes what it asks for, if that is left and allowed."""
    snapshot = contest.snapshot
    tree, table = snapshot.queues, snapshot.workloads
    quotas, ledger = quotas_of(tree), ledger_of(snapshot)
    own, left = held_by_queue(snapshot), contest.cpus * 1000
    line = [int(row) for row in admission.order(snapshot)]
    asked = dict(zip(line, asked_by(snapshot, np.array(line)), strict=True))
    rank = {row: place for place, row in enumerate(line)}
    found: set[int] = set()
    given = cores_of_submitters(snapshot)
    several = {
        int(queue)
        for queue in table.queue[line]
        if len({table.submitter[row] for row in line if table.queue[row] == queue}) > 1
    }

    def head(owner: int) -> int | None:
        """Who is next of a queue or cohort: of its children the one with the least share, counting its next."""
        if not tree.cohort[owner]:
            mine = [row for row in line if table.queue[row] == owner]
            firsts = [
                min((row for row in mine if table.submitter[row] == one), key=in_line)
                for one in {int(table.submitter[row]) for row in mine}
            ]
            return min(firsts, key=turn if owner in several else in_line, default=None)
        return best([child for child in range(len(tree.names)) if tree.parent[child] == owner])

    def best(owners: list[int]) -> int | None:
        heads = [(owner, row) for owner in owners if (row := head(owner)) is not None]
        return min(heads, key=lambda pair: (share(*pair), rank[pair[1]]))[1] if heads else None

    def in_line(row: int) -> tuple[int, ...]:
        return (-int(table.priority[row]), int(table.submitted_at[row]), int(table.key[row]))

    def turn(row: int) -> tuple[float, ...]:
        """The more urgent, then whose submitter holds the least of the queue, then the older."""
        holds = given.get((int(table.queue[row]), int(table.submitter[row])), 0)
        return (-int(table.priority[row]), holds, rank[row])

    def share(owner: int, row: int) -> float:
        return share_of(ledger, owner, asked[row], int(table.queue[row]))

    roots = [row for row, parent in enumerate(tree.parent.tolist()) if parent < 0]
    while (row := best(roots)) is not None:
        queue, cpus = int(table.queue[row]), int(table.cpu_milli[row])
        column = tree.cells.index(CPU) if CPU in tree.cells else -1
        limited = column >= 0 and bool(tree.defined[queue, column])
        may = not limited or available(quotas, usage(quotas, own))[queue, column] >= cpus
        if may and left >= cpus:
            found.add(int(table.key[row]))
            left -= cpus
            if limited:
                own[queue, column] += cpus
            at, more = queue, asked[row]
            while at >= 0:
                before = np.maximum(0, ledger.held[at] - ledger.kept[at])
                ledger.held[at] += more
                more = np.maximum(0, ledger.held[at] - ledger.kept[at]) - before
                at = int(tree.parent[at])
            who = queue, int(table.submitter[row])
            given[who] = given.get(who, 0) + cpus
            line.remove(row)
        else:
            line = [
                other for other in line if table.cpu_milli[other] != cpus or (not may and table.queue[other] != queue)
            ]
    return found


@settings(max_examples=400)
@given(contests())
def test_a_cycle_starts_whom_single_turns_would_start(contest):
    note(contest.words)
    assert started(contest.snapshot) == one_by_one(contest)


@given(contests())
def test_no_quota_is_exceeded(contest):
    snapshot = contest.snapshot
    tree, keys = snapshot.queues, started(snapshot)
    if CPU not in tree.cells:
        return
    quotas, own, column = quotas_of(tree), held_by_queue(snapshot), tree.cells.index(CPU)
    before = usage(quotas, own)
    for row, key in enumerate(snapshot.workloads.key.tolist()):
        queue = int(snapshot.workloads.queue[row])
        if key in keys and tree.defined[queue, column]:
            own[queue, column] += int(snapshot.workloads.cpu_milli[row])
    used = usage(quotas, own)
    limited = tree.borrowing_limit < NO_LIMIT
    most = np.maximum(before, quotas.subtree)
    assert (used - most <= tree.borrowing_limit)[limited].all()
    roots = tree.parent < 0
    assert (used <= most)[roots & tree.defined.any(axis=1)].all()


def test_who_waits_for_any_of_several_is_told_of_one_of_which_the_queue_has_a_quota():
    nodes = [node(gpus=8, gpu_model="H100"), node(gpus=8, gpu_model="L4")]
    choices = tuple(Resources(cpu_milli=1000, gpus=8, gpu_model=model) for model in ("L4", "H100"))
    first, second = workload(1, queue="a", gpus=8, gpu_model="H100"), workload(2, queue="a", choices=choices)
    snapshot = world(nodes=nodes, queues=[gpu_team(H100=8)], workloads=[first, second])
    (told,) = [action.reason for action in schedule(snapshot) if isinstance(action, Advance)]
    assert (told.code, told.numbers["flavor"], told.numbers["left"]) == (Code.WAITS_FOR_QUOTA, "H100", "0")
