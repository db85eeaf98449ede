"""The compiled loop of a cycle: against NumPy, which looks at all nodes each time, and against the same lines in Python."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mainstay.decide import compiled, cycle, kernel, placement, quota, turns
from mainstay.decide.allowance import Allowance
from mainstay.decide.cycle import Cycle
from mainstay.decide.placement import POLICIES, fit
from mainstay.decide.preemption.balance import ROOTS, Balance
from mainstay.domain.history import HistoryPolicy
from mainstay.domain.quantity import BYTES_PER_GIB, MEMORY_LABEL, Resources
from mainstay.domain.queue import RESERVED_AFTER_SECONDS, QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AHistory, allocation, flavor, node, workload, world

ROOT = Path(__file__).parents[3]
machine_code = pytest.mark.xdist_group("machine-code")
"""One process for all that compile the whole kernel, which takes long where no other has kept it yet."""
Plan = list[tuple[int, tuple[int, ...], str]]
MODELS = ("", "A100", "L4")
SLICE = "1g.10gb"
POOLS = ("", "spot", "owned")


def with_placements(snapshot: Snapshot, **names: str) -> Snapshot:
    """The same, with policies of their own for the queues of these names."""
    tree = snapshot.queues
    placements = tuple(names.get(name, "") for name in tree.names)
    return replace(snapshot, queues=replace(tree, placements=placements))


def plan(
    snapshot: Snapshot, policy: str = "least-waste", *, by_numpy: bool = False, **options: int
) -> tuple[Plan, set, dict]:
    """(workload key, node row of each rank, model or slice) of all that a cycle places; what it gave up; starts it reserved."""
    known = {name: replace(one, sign=0) for name, one in POLICIES.items()} if by_numpy else POLICIES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "POLICIES", known)
        one = Cycle(snapshot, known[policy])
    found = [
        (
            int(snapshot.workloads.key[row]),
            tuple(nodes),
            placed.parts[0].request.shape or snapshot.gpu_models[max(0, placed.parts[0].request.gpu_model)],
        )
        for placed in one.placements(**options)
        for row, nodes in zip(placed.rows.tolist(), placed.nodes.tolist(), strict=True)
    ]
    later = {row: (start.starts_at, tuple(start.nodes)) for row, start in one.reserved.items()}
    return sorted(found), one.failed, later


def a_world(seed: int, *, nodes: int = 100, jobs: int = 60) -> Snapshot:
    """Anything that a request may ask for, on a fleet of several blocks that cannot hold it all."""
    rng = random.Random(seed)
    others, pools = rng.random() < 0.5, rng.choice((("",), POOLS))
    fleet = [
        node(
            cpus=rng.choice((0, 2, 4, 8)),
            gib=rng.choice((4, 8, 32)),
            gpus=(gpus := rng.choice((0, 0, 0, 1, 4))),
            gpu_model=rng.choice((*MODELS[1:], *MODELS)) if gpus else "",
            shapes={SLICE: 2} if rng.random() < 0.1 else {},
            used_cpus=rng.choice((0, 0, 1, 5)),
            others={"disk": rng.choice((0, 5, 20)), "pods": rng.choice((1, 3, 20))} if others else {},
            cluster=rng.choice(("east", "west")),
            ready=rng.random() < 0.9,
            admits=("guest",) if rng.random() < 0.3 else (),
            labels={"pool": rng.choice(pools)},
            images=rng.choice(({}, {}, {"a": 400, "b": 5_000}, {"b": 900}, {"c": 20})),
        )
        for _ in range(rng.randint(1, nodes))
    ]
    limits = {} if rng.random() < 0.5 else {("default", "cpu"): Quota(nominal=rng.randint(0, 60) * 1000)}
    if rng.random() < 0.5:
        limits[rng.choice(("default", "L4")), "gpu"] = Quota(nominal=rng.randint(0, 8))
    for pool in pools[1:] if rng.random() < 0.7 else ():
        limits[pool, rng.choice(("cpu", "gpu", "pods"))] = Quota(
            nominal=(nominal := rng.choice((2, 9, 30_000))),
            borrowing_limit=rng.choice((None, 0, 1, 5_000)),
            lending_limit=rng.choice((None, 0, nominal)),
        )
    queues = [
        QueueSpec(name="a", parent="all", weight=rng.choice((0, 1, 2)), quotas=limits),
        QueueSpec(name="b", parent="all", quotas=limits if rng.random() < 0.5 else {}),
        QueueSpec(name="c"),
    ]
    asked = [
        {
            "nodes": (ranks := rng.choice((1, 1, 1, 2, 5, 40))),
            "nodes_min": rng.choice((0, 0, 1, (ranks + 1) // 2)),
            "cpus": rng.choice((0, 1, 2, 3)),
            "gib": rng.choice((0, 1, 6)),
            "gpus": (gpus := rng.choice((0, 0, 1, 2))),
            "gpu_model": rng.choice((*MODELS, SLICE)) if gpus else "",
            "others": rng.choice(({}, {"disk": 4}, {"disk": 1}, {"nothing has it": 1})) if rng.random() < 0.3 else {},
            "cluster": rng.choice(("", "", "west")),
            "image": rng.choice(("", "a", "b", "c", "nowhere")),
            "restriction": rng.choice(("", "", "", "guest")),
            "max_duration_seconds": rng.choice((0, 600, 1_200, 3_000)),
            "choices": tuple(
                Resources(cpu_milli=1000 * rng.randint(1, 4), memory_bytes=BYTES_PER_GIB, gpus=gpus) for _ in range(2)
            )
            if rng.random() < 0.2
            else (),
        }
        for _ in range(8)
    ]
    waiting = [
        workload(
            key,
            queue=rng.choice("abc"),
            submitter=rng.choice(("", "ann", "bob", "cho")),
            priority=rng.choice((0, 0, 1)),
            submitted_at=NOON + rng.randint(0, 9) * SECOND,
            **rng.choice(asked),
        )
        for key in range(1, jobs + 1)
    ]
    running = [
        allocation(1_000 + at, node_key=rng.randint(1, len(fleet)), cpus=2, gib=1, started_at=NOON, **rng.choice(held))
        for held in [({}, {"gpus": 1, "gpu_model": "L4"}, {"gpus": 1, "gpu_model": SLICE})]
        for at in range(rng.choice((0, 20)))
    ]
    holders = [
        workload(
            pod.workload_key,
            submitter="bob",
            queue="c",
            phase=Phase.RUNNING,
            max_duration_seconds=rng.choice((0, 900, 2_000)),
        )
        for pod in running
    ]
    long_after = NOON + rng.choice((0, RESERVED_AFTER_SECONDS + 5)) * SECOND
    policy = HistoryPolicy(half_life_seconds=rng.choice((0, 3_600)), weight=rng.choice((1, 3)), entry_seconds=60)
    past = [AHistory(queue=name, cpus=rng.choice((0, 7, 90)), gpus=rng.choice((0, 0.3, 9))) for name in "abc"]
    return world(
        nodes=fleet,
        queues=queues,
        flavors=[flavor(pool) for pool in pools if pool],
        workloads=[*waiting, *holders],
        allocations=running,
        now=long_after,
        history_policy=policy,
        history=past,
    )


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from(sorted(POLICIES)))
def test_places_are_those_that_a_look_at_all_nodes_finds(seed, policy):
    snapshot = a_world(seed)
    assert plan(snapshot, policy) == plan(snapshot, policy, by_numpy=True)


policies = st.sampled_from(("", *POLICIES))


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from(sorted(POLICIES)), policies, policies)
def test_so_they_are_where_each_queue_has_a_policy_of_its_own(seed, policy, of_a, of_b):
    snapshot = with_placements(a_world(seed), a=of_a, b=of_b)
    started = Cycle(snapshot, POLICIES[policy])
    assert not started._asked.requests.asks.any()
    assert plan(snapshot, policy) == plan(snapshot, policy, by_numpy=True)


@machine_code
@settings(max_examples=20)
@given(st.integers(0, 2**32))
@example(174)  # a start is reserved for one that asks for nothing
def test_compiled_or_not_the_plan_is_the_same(seed):
    snapshot = with_placements(a_world(seed), a="spread", b="best-fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycle, "kernel_for", lambda _: compiled.machine_code())
        by_machine_code = plan(snapshot)
        patch.setattr(cycle, "kernel_for", lambda _: kernel)
        assert plan(snapshot) == by_machine_code


def test_machine_code_is_made_for_many_steps_and_used_once_it_is_there(monkeypatch):
    made = functools.cache(lambda: "machine code")
    monkeypatch.setattr(compiled, "machine_code", made)
    assert compiled.kernel_for(compiled.STEPS_MAX) is kernel
    assert compiled.kernel_for(compiled.STEPS_MAX + 1) == "machine code"
    assert compiled.kernel_for(1) == "machine code"


def test_without_numba_plain_lines_do_it_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled.machine_code.__wrapped__() is kernel


def test_machine_code_that_one_process_kept_is_read_by_the_next(tmp_path):
    lines = """
from mainstay.decide import compiled, turns
from tests.worlds import world
ledger = turns.ledger_of(world())
share = compiled.machine_code().share
assert share(ledger, 0, ledger.held[0], 0) == 0
print(sum(share.stats.cache_hits.values()))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    read = [
        subprocess.run(
            [sys.executable, "-c", lines], check=True, env=environment, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert read == ["0\n", "1\n"]


def test_machine_code_that_another_version_kept_is_not_read(tmp_path):
    """Its tuples may have other names: to read it would fail, and with it every cycle of a large fleet."""
    package, program = tmp_path / "mainstay", Path(compiled.__file__).parents[1]
    for part in ("domain", "decide"):
        shutil.copytree(program / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").touch()
    lines = """
from mainstay.decide import columns, compiled
import numpy as np
rows = np.ones((1, 3), dtype=np.int64)
ledger = columns.{tuple}(np.zeros(1, dtype=np.int64), np.ones(1), rows, rows, rows, rows, np.zeros((1, 3)))
share = compiled.machine_code().share
share(ledger, 0, rows[0], 0)
print(sum(share.stats.cache_hits.values()))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    read = []
    for name in ("Ledger", "Account"):
        for source in (package / "decide" / file for file in ("columns.py", "kernel.py")):
            source.write_text(re.sub(r"\bLedger\b", name, source.read_text()))
        command = [
            sys.executable,
            "-S",
            "-c",
            "import sys; sys.path += sys.argv[1:]\n" + lines.replace("{tuple}", name),
        ]
        numpy = str(Path(np.__file__).parents[1])
        done = subprocess.run(
            [*command, numpy], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        read.append((done.returncode, done.stdout, done.stderr[-300:]))
    assert read == [(0, "0\n", "")] * 2


def test_machine_code_makes_no_array():
    """Nobody counts who uses one, so it would never be given back."""
    functions = [one for one in ast.parse(inspect.getsource(kernel)).body if isinstance(one, ast.FunctionDef)]
    uses = {
        part.attr
        for function in functions
        for part in ast.walk(function)
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "np"
    }
    called = {
        part.func.attr
        for function in functions
        for part in ast.walk(function)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute)
    }
    assert (uses, called) == ({"inf"}, set())
    assert len(functions) > 20


def test_a_small_fleet_loads_no_compiler():
    """Although it decides: a whole cycle."""
    lines = """
import sys
from mainstay.decide.schedule import schedule
from tests.worlds import node, workload, world
actions = schedule(world(nodes=[node(), node()], workloads=[workload(1), workload(2, nodes=2, cpus=12), workload(3, cpus=64)]))
assert [type(action).__name__ for action in actions] == ["Allocate", "Allocate", "Advance"], actions
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", lines], check=True, cwd=ROOT)


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_a_limit_ends_a_cycle_early_and_changes_nothing_before(seed, limit):
    snapshot = a_world(seed, nodes=40, jobs=30)
    whole, *_ = plan(snapshot)
    part, *_ = plan(snapshot, limit=limit)
    assert set(part) <= set(whole)
    assert len(part) == min(limit, len(whole))


def test_what_does_not_fit_into_memory_is_found_all_the_same(monkeypatch):
    snapshot = a_world(11)
    known = plan(snapshot)
    monkeypatch.setattr("mainstay.decide.asked.REMEMBERED_MAX", 0)
    assert plan(snapshot) == known


def choosing(seed: int) -> Snapshot:
    """Six shapes of several choices each, of which a large fleet cannot hold all; one of them only one workload has."""
    rng = random.Random(seed)
    fleet = [
        node(
            cpus=rng.choice((4, 8, 16)),
            gpus=4,
            gpu_model=rng.choice(MODELS),
            labels={MEMORY_LABEL: str(rng.choice((24_576, 81_920)))},
            cluster=rng.choice(("east", "west")),
        )
        for _ in range(150)
    ]

    def one(gpus: int, model: str = "", gb: int = 0) -> Resources:
        return Resources(cpu_milli=1_000 * gpus, gpus=gpus, gpu_model=model, gpu_memory_bytes=gb * 10**9)

    shapes = [
        {"choices": (one(1), one(2)), "equals": 2},
        {"choices": (one(2, "L4"), one(1, "A100"), one(3)), "equals": 2},
        {"choices": (one(1, gb=40),)},
        {"choices": (one(4), one(1, gb=24)), "equals": 2, "max_duration_seconds": 600},
        {"choices": (one(2, gb=80), one(2)), "nodes": 3, "nodes_min": 1},
    ]
    jobs = [{"choices": (one(3, "A100"), one(4)), "equals": 2}, *rng.choices(shapes, k=400)]
    return world(
        nodes=fleet,
        workloads=[
            workload(key, queue=rng.choice("ab"), priority=rng.choice((0, 1)), submitted_at=NOON - key * SECOND, **job)
            for key, job in enumerate(jobs, 1)
        ],
        queues=[QueueSpec(name="a", quotas={("default", "gpu"): Quota(nominal=400)}), QueueSpec(name="b")],
    )


@pytest.mark.parametrize("slots", [0, 3, 7, 1_000])
def test_what_shapes_with_choices_find_is_remembered_as_far_as_there_is_room(monkeypatch, slots):
    """Where there is none, or not for all, the same places are found."""
    snapshot = choosing(slots)
    known = plan(snapshot, by_numpy=True)
    started = Cycle(snapshot, POLICIES["least-waste"])
    monkeypatch.setattr("mainstay.decide.asked.REMEMBERED_MAX", slots * started.free.nodes.changes.size)
    assert plan(snapshot) == known
    assert len(known[0]) > 50
    started = Cycle(snapshot, POLICIES["least-waste"])
    for _ in started.placements():
        pass
    asked, shapes = started._asked.requests, started._asked.requests.begin.size
    given = [asked.slot[asked.begin[at] : asked.end[at]] for at in range(shapes) if asked.begin[at] >= shapes]
    flat = np.concatenate(given)
    flat = flat[flat != kernel.NONE]
    assert flat.size == np.unique(flat).size
    assert flat.size <= slots
    assert int(flat.max(initial=-1)) < asked.after.shape[0] - 1 <= max(slots, shapes)
    if slots == 1_000:
        many = [(started.numbers == at).sum() > 1 and asked.ranks[at] == 1 for at in range(shapes)]
        assert sum(many) == 4
        assert [(one != kernel.NONE).all() for one in given] == many
        assert [(one != kernel.NONE).any() for one in given] == many


def test_what_is_found_is_read_whenever_there_is_no_room_for_more(monkeypatch):
    snapshot = a_world(12)
    known = plan(snapshot)
    monkeypatch.setattr(cycle, "AT_ONCE", 41)
    assert plan(snapshot) == known


@pytest.mark.parametrize("policy", ["best-fit", "spread", "least-waste"])
def test_blocks_know_what_their_nodes_have(policy):
    """After whatever is taken and given back: of a block only what may have changed is looked at again."""
    snapshot = with_placements(a_world(13), a="spread", b="best-fit")
    free = Cycle(snapshot, POLICIES[policy]).free
    assert free.nodes.lowest.shape[0] == (4 if policy in {"spread", "best-fit"} else 6)
    rng = np.random.default_rng(1)
    for _ in range(400):
        row, pods = int(rng.integers(free.key.size)), int(rng.choice((2, 1, 1, -1)))
        kernel.take(free.nodes, row, pods, rng.integers(0, 2, free.nodes.weight.size))
        again = fit._nodes_of(
            free.nodes.free,
            free.nodes.weight,
            free.nodes.apart,
            gpu_model=free.gpu_model,
            cluster=free.cluster,
            rankings=free.nodes.rankings,
            usual=free.nodes.usual,
        )
        for name in ("left", "wasted", "peak", "lowest"):
            np.testing.assert_array_equal(getattr(free.nodes, name), getattr(again, name))


@machine_code
def test_one_kernel_is_compiled_whatever_the_columns_of_a_snapshot_are_like(monkeypatch):
    monkeypatch.setattr(cycle, "kernel_for", lambda _: compiled.machine_code())
    snapshot = a_world(14)
    plan(snapshot)
    go_on = compiled.machine_code().go_on
    before = len(go_on.signatures)
    for table in (snapshot.nodes, snapshot.workloads, snapshot.allocations, snapshot.queues):
        for name in table.__dataclass_fields__:
            column = getattr(table, name)
            if isinstance(column, np.ndarray):
                spread = np.repeat(column, 2, axis=0)[::2]
                spread.flags.writeable = False
                object.__setattr__(table, name, spread)
    plan(snapshot)
    assert len(go_on.signatures) == before


@given(st.integers(0, 2**32))
def test_a_share_is_the_same_asked_of_one_queue_of_all_or_of_the_balance(seed):
    snapshot = a_world(seed, nodes=3, jobs=3)
    ledger, balance = turns.ledger_of(snapshot), Balance(snapshot)
    rng = np.random.default_rng(seed)
    queue, more = np.arange(ledger.weight.size), rng.integers(0, 1 << 40, ledger.held.shape)
    expected = ledger.shares(queue, ledger.held + more).tolist()
    assert [kernel.share(ledger, number, more[number], number) for number in queue.tolist()] == expected
    assert [balance.share(number, tuple(more[number].tolist()))[0] for number in queue.tolist()] == expected


@given(st.integers(0, 2**32))
def test_a_share_with_more_is_that_of_a_world_in_which_it_is_held(seed):
    """Also where queues and cohorts keep some of their own to themselves: what is used of that counts nowhere above them."""
    rng = random.Random(seed)

    def quota(**limits: int | None) -> dict[tuple[str, str], Quota]:
        own = 1_000 * rng.randint(0, 6)
        return {("default", "cpu"): Quota(nominal=own, lending_limit=rng.choice((None, 0, own // 2)), **limits)}

    queues = [
        QueueSpec(name="root", cohort=True, quotas={("default", "cpu"): Quota(nominal=4_000)}),
        QueueSpec(name="mid", cohort=True, parent="root", quotas=quota()),
        *(QueueSpec(name=name, parent="mid", quotas=quota()) for name in "ab"),
        QueueSpec(name="c", parent="root", quotas=quota()),
    ]
    work = [workload(key, queue=rng.choice("abc"), phase=Phase.RUNNING) for key in range(1, 5)]
    pods = [allocation(one.key, cpus=rng.randint(1, 6), gib=0) for one in work]
    before, after = (
        world(nodes=[node(cpus=100)], queues=queues, workloads=work, allocations=pods[:count]) for count in (3, 4)
    )
    ledger, then, balance = turns.ledger_of(before), turns.ledger_of(after), Balance(before)
    queue = before.queues.names.index(work[3].queue)
    more = (int(after.allocations.cpu_milli[3]), 0, 0)
    path = balance.up_to(queue, ROOTS)[:-1]
    expected = [kernel.share(then, row, np.zeros(3, dtype=np.int64), row) for row in path]
    assert [kernel.share(ledger, row, np.array(more), queue) for row in path] == expected
    assert [balance.share(row, more, below=queue)[0] for row in path] == expected
    balance.hold(queue, {}, more)
    assert [balance.share(row)[0] for row in path] == expected
    balance.hold(queue, {}, more, sign=-1)
    assert balance.shares().tolist() == Balance(before).shares().tolist()


@given(st.integers(0, 2**32))
def test_what_a_queue_may_use_is_the_same_asked_of_all_of_one_and_of_the_balance(seed):
    """`quota.available` of all, the kernel's of one queue, and that of preemption, which is kept current by hand."""
    rng = random.Random(seed)

    def quotas(*, root: bool) -> dict[tuple[str, str], Quota]:
        own = {("default", resource): rng.randint(0, 9) for resource in ("cpu", "pods") if rng.random() < 0.8}
        return {
            cell: Quota(
                nominal=nominal,
                borrowing_limit=None if root else rng.choice((None, 0, 3)),
                lending_limit=None if root else rng.choice((None, 0, nominal // 2)),
            )
            for cell, nominal in own.items()
        }

    names = [f"cohort{number}" for number in range(rng.randint(1, 5))]
    parents = {name: rng.choice(("", *names[:at])) for at, name in enumerate(names)}
    parents |= {f"queue{at}": rng.choice(("", *names)) for at in range(3)}
    queues = [
        QueueSpec(name=name, parent=parent, cohort=name in names, quotas=quotas(root=not parent))
        for name, parent in parents.items()
    ]
    snapshot = world(nodes=[node()], queues=queues)
    balance, tree, quotas_ = Balance(snapshot), Allowance(snapshot).quota, quota.quotas_of(snapshot.queues)
    rows = [snapshot.queues.names.index(f"queue{at}") for at in range(3)]
    own = np.zeros_like(quotas_.subtree)
    for _ in range(6):
        row, amount = rng.choice(rows), rng.randint(0, 6)
        for column in range(own.shape[1]):
            own[row, column] += amount
            balance.hold(row, {column: amount}, (0, 0, 0))
        used = quota.usage(quotas_, own)
        expected = quota.available(quotas_, used)
        tree.used[:] = used
        for queue in range(own.shape[0]):
            for column in range(own.shape[1]):
                assert kernel.available(tree, queue, column) == expected[queue, column]
                assert balance._available(queue, column) == expected[queue, column]
