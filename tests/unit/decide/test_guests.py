"""Guests against workloads and allocations: each case that we know, and what must hold whatever is reported."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.guests import (
    GROUP_PODS_MAX,
    TELL_AGAIN_SECONDS,
    TELL_PAUSE_SECONDS,
    Hosting,
    Memory,
    Told,
    host,
    workload_id,
)
from mainstay.decide.reconcile import MISSING_GRACE_SECONDS
from mainstay.domain.access import project_gone
from mainstay.domain.allocation import (
    Allocation,
    BindPod,
    End,
    EvictPod,
    Owner,
    PodAction,
    PodState,
    SeekPod,
    Seen,
    TellPod,
    Wanted,
)
from mainstay.domain.guest import Group, Guest, plain_name
from mainstay.domain.plan import Advance, ClosePod, ObservePod, Submit
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.workload import Kind, Phase, PodRef, Workload, WorkloadSpec
from tests.worlds import NOON, SECOND

START = NOON - 60 * SECOND
AMOUNT = Resources(cpu_milli=1_000)


def guest(name: str = "web", **values) -> Guest:
    given_ = {
        "pod": PodRef(namespace="ns", name=name, uid=f"uid-{name}"),
        "tenant": "acme", "project": "nlp", "queue": "default", "priority": 50,
        "resources": AMOUNT, "restriction": "r", "grace_seconds": 7, **values,
    }  # fmt: skip
    return Guest(**given_)


def placed(name: str = "web", seen: Seen = Seen.RUNNING, node: str = "n", **values) -> Guest:
    return guest(name, state=PodState(name=f"uid-{name}", node=node, seen=seen, **values))


def of_group(*names: str, size: int | None, **values) -> tuple[Guest, ...]:
    return tuple(guest(name, group=Group(name="g", size=size), **values) for name in names)


def adopted(*guests: Guest, phase: Phase = Phase.PENDING, reason: Code = Code.SUBMITTED, **values) -> Workload:
    spec = WorkloadSpec(
        kind=Kind.POD, name="web", run=(), nodes=len(guests), choices=(AMOUNT,), cluster="c",
        guests=tuple(one.pod for one in guests), restriction="r", stop_grace_seconds=7,
    )  # fmt: skip
    given_ = {
        "key": 1, "id": workload_id("web", (one.pod.uid for one in guests)), "tenant": "acme", "project": "nlp",
        "queue": "default", "submitted_by": "cluster/c", "priority": 50, "spec": spec, "phase": phase,
        "reason": Reason(code=reason), "attempt": 1, "infrastructure_failures": 0, "user_failures": 0,
        "stop_requested": False, "submitted_at": START, "not_before": 0, "started_at": 0, "finished_at": 0,
        "output": "", "version": 3, **values,
    }  # fmt: skip
    return Workload(**given_)


def row(workload: Workload, rank: int = 0, *, settled: bool = False, **values) -> Wanted:
    given_ = {
        "key": 10 + rank, "workload_key": workload.key, "workload": workload.id, "tenant": "acme", "project": "nlp",
        "attempt": workload.attempt, "rank": rank, "ranks": 1, "node": "n", "cluster": "c", "resources": AMOUNT,
        "stop": False,
        "seen": Seen.NOTHING, "ready": False, "address": "", "created_at": START, "started_at": 0, "ended_at": 0,
        "metered_until": 0, "end": None, "exit_code": None, "detail": "", "closed": False, "version": 5, **values,
    }  # fmt: skip
    return Wanted(allocation=Allocation(**given_), spec=workload.spec, settled=settled)


def look(guests=(), rows=(), open_=(), *, tick: int = NOON, memory: Memory | None = None) -> Hosting:
    return host("c", tuple(guests), tuple(rows), tuple(open_), now=NOON, tick=tick, memory=memory or Memory())


def acts(found: Hosting) -> list[PodAction]:
    return [effect for effect in found.effects if not isinstance(effect, TellPod)]


def words(found: Hosting) -> dict[str, str]:
    return {effect.pod.name: effect.words for effect in found.effects if isinstance(effect, TellPod)}


def test_who_waits_is_submitted_as_its_owner_would_and_pinned_to_its_cluster():
    (action,) = look([guest(max_duration_seconds=9)]).actions
    assert isinstance(action, Submit)
    new, spec = action.workload, action.workload.spec
    assert (new.tenant, new.project, new.queue, new.submitted_by) == ("acme", "nlp", "default", "cluster/c")
    assert (spec.kind, spec.name, spec.cluster, spec.restriction, spec.nodes) == (Kind.POD, "web", "c", "r", 1)
    assert (spec.guests[0].uid, spec.choices, spec.max_duration_seconds) == ("uid-web", (AMOUNT,), 9)


def test_who_comes_for_a_project_that_was_removed_is_told_so_and_not_submitted():
    gone = project_gone("nlp", NOON)
    memory = Memory(gone={Owner(tenant="acme", project="nlp"): gone})
    found = look([guest(), guest("db", project="cv"), *of_group("a", "b", size=2)], memory=memory)
    assert [action.workload.spec.name for action in found.actions if isinstance(action, Submit)] == ["db"]
    assert words(found) == dict.fromkeys(("web", "a", "b"), gone.sentence)
    assert found.memory.gone == memory.gone


def test_the_same_pod_is_the_same_workload_and_another_under_its_name_is_another():
    (first,), (again,) = look([guest()]).actions, look([guest(priority=9)]).actions
    (other,) = look([guest(pod=PodRef(namespace="ns", name="web", uid="new"))]).actions
    assert first.workload.id == again.workload.id != other.workload.id


def test_who_is_on_record_is_not_submitted_again():
    assert look([guest()], open_=[adopted(guest())]).actions == ()


def test_who_waits_although_its_workload_is_over_is_evicted_and_not_submitted():
    (new,) = look([guest()]).actions
    memory = Memory(finished=frozenset({new.workload.id, "another"}))
    found = look([guest()], memory=memory)
    assert found.actions == ()
    assert acts(found) == [EvictPod(name=new.workload.id, node="", pod=guest().pod, grace_seconds=7)]
    assert found.memory.finished == {new.workload.id}


def test_who_cannot_be_placed_is_told_why_and_not_submitted():
    found = look([guest(problem="it asks for the moon")])
    assert found.actions == ()
    assert words(found) == {"web": "cannot be placed by mainstay: it asks for the moon"}


def test_who_is_on_record_and_cannot_be_placed_any_more_is_told_why():
    shut = guest(problem="we may not act in its namespace")
    found = look([shut], open_=[adopted(guest(), phase=Phase.QUEUED, reason=Code.NOT_BOUND)])
    assert words(found) == {"web": "cannot be placed by mainstay: we may not act in its namespace"}
    assert found.actions == ()


def test_a_group_waits_until_enough_of_it_is_there_and_is_then_one_workload_in_the_order_of_names():
    early = look(of_group("w-2", "w-10", size=3))
    assert early.actions == ()
    assert words(early)["w-2"] == "waits for its group g: 2 of 3 pods are there"
    (action,) = look(of_group("w-10", "w-2", "w-1", size=3)).actions
    assert [pod.name for pod in action.workload.spec.guests] == ["w-1", "w-2", "w-10"]
    assert (action.workload.spec.nodes, action.workload.spec.name) == (3, "g")


def test_a_group_lies_as_its_first_pod_would():
    apart = TopologyNeed(spread=Spread(level="host"))
    (action,) = look(of_group("w-1", "w-2", size=2, topology=apart)).actions
    assert action.workload.spec.topology == apart
    (action,) = look(of_group("w-1", "w-2", size=2)).actions
    assert action.workload.spec.topology is None


def test_groups_of_two_namespaces_are_two():
    here, there = of_group("a", "b", size=2)
    there = replace(there, pod=replace(there.pod, namespace="other"))
    assert look([here, there]).actions == ()


def test_a_group_whose_size_nobody_says_waits_and_says_so():
    assert "no annotation says how many" in words(look(of_group("a", "b", size=0)))["a"]


def test_of_a_group_that_nobody_has_read_yet_nothing_is_told():
    found = look(of_group("a", "b", size=None))
    assert (found.actions, words(found)) == ((), {})


def test_pods_of_a_group_that_ask_for_different_amounts_are_pod_sets_called_after_their_first_pods():
    large = Resources(cpu_milli=2_000)
    small = of_group("g-head", "g-tail", size=4)
    found = look([replace(one, resources=large) for one in of_group("g-w-2", "g-w-10", size=4)] + list(small))
    spec = found.actions[0].workload.spec
    assert [pod.name for pod in spec.guests] == ["g-w-2", "g-w-10", "g-head", "g-tail"]
    assert [(one.name, one.nodes, one.resources) for one in spec.sets] == [("g-w-2", 2, large), ("g-head", 2, AMOUNT)]
    assert (spec.nodes, spec.choices) == (4, (large,))


def test_a_group_of_pods_that_ask_for_different_nodes_or_too_many_amounts_waits_and_says_so():
    first, second = of_group("a", "b", size=2)
    found = look([first, replace(second, restriction="other")])
    assert found.actions == ()
    assert "ask for different nodes, or for more than 16 different amounts" in words(found)["b"]
    many = of_group(*(f"w-{number}" for number in range(17)), size=17)
    found = look([replace(one, resources=Resources(cpu_milli=number)) for number, one in enumerate(many, 1)])
    assert found.actions == ()
    assert "more than 16 different amounts" in words(found)["w-0"]


def test_of_a_very_large_group_the_first_are_one_workload_and_the_rest_wait_behind_them_and_say_so():
    crowd = of_group(*(f"w-{number}" for number in range(2 * GROUP_PODS_MAX + 5)), size=3)
    left, sizes, rows, open_ = list(crowd), [], [], []
    while left:
        found = look(list(crowd), rows, open_)
        (action,) = found.actions
        sizes.append(len(action.workload.spec.guests))
        told = words(found)
        placed_ = {pod.name for pod in action.workload.spec.guests}
        assert [pod.name for pod in action.workload.spec.guests] == [one.pod.name for one in left[: sizes[-1]]]
        left = left[sizes[-1] :]
        assert told.keys().isdisjoint(placed_)
        assert set(told.values()) == (
            {f"waits behind {GROUP_PODS_MAX} pods of its group g, which are placed first"} if left else set()
        )
        open_.append(adopted(*(one for one in crowd if one.pod.name in placed_), key=len(sizes)))
    assert sizes == [GROUP_PODS_MAX, GROUP_PODS_MAX, 5]


def test_a_group_that_is_to_be_placed_whole_and_is_too_large_waits_and_says_so():
    found = look(of_group("a", "b", size=GROUP_PODS_MAX + 1))
    assert found.actions == ()
    assert words(found)["a"] == (
        "cannot be placed by mainstay: its group g is to be placed whole and has 1001 pods; at most 1000 are placed together"
    )


def test_what_is_said_to_a_crowd_is_put_into_words_once(monkeypatch):
    formed = []

    def sentence(reason: Reason) -> str:
        formed.append(reason.code)
        return str(reason.code)

    monkeypatch.setattr(Reason, "sentence", property(sentence))
    crowd = of_group(*(f"w-{number}" for number in range(5 * GROUP_PODS_MAX)), size=3)
    waiting = adopted(*crowd[:GROUP_PODS_MAX], phase=Phase.QUEUED, reason=Code.NO_NODES)
    look(crowd, open_=[waiting])
    assert sorted(formed) == [Code.NO_NODES, Code.WAITS_BEHIND_GROUP]


def test_who_joins_a_group_that_is_placed_is_placed_alone():
    first, second, third = of_group("a", "b", "c", size=2)
    open_ = adopted(first, second, phase=Phase.RUNNING)
    running = [replace(one, state=PodState(name=one.pod.uid, node="n", seen=Seen.RUNNING)) for one in (first, second)]
    (action,) = [action for action in look([*running, third], open_=[open_]).actions if isinstance(action, Submit)]
    assert [pod.name for pod in action.workload.spec.guests] == ["c"]


def test_who_has_ended_does_not_count_for_its_group():
    first, second = of_group("a", "b", size=2)
    over = replace(first, state=PodState(name="uid-a", node="n", seen=Seen.ENDED, end=End.EXITED, exit_code=0))
    assert look([over, second]).actions == ()


def test_an_allocation_is_bound_to_its_node_and_no_later_than_it_is_seen():
    open_ = adopted(guest(), phase=Phase.STARTING)
    (bind,) = acts(look([guest()], [row(open_)], [open_]))
    assert isinstance(bind, BindPod)
    assert (bind.node, bind.pod, bind.attempt, bind.holds, bind.restriction) == ("n", guest().pod, 1, AMOUNT, "r")
    assert acts(look([placed(seen=Seen.NOTHING)], [row(open_)], [open_])) == []
    assert acts(look([guest()], [row(open_, seen=Seen.RUNNING, started_at=START)], [open_])) == []


def test_what_has_become_of_it_goes_on_record_under_our_name():
    open_ = adopted(guest(), phase=Phase.STARTING)
    (action,) = look([placed(started_at=START)], [row(open_)], [open_]).actions
    assert isinstance(action, ObservePod)
    assert (action.state.name, action.state.seen) == (f"{open_.id}-1-0", Seen.RUNNING)


def test_an_end_is_recorded_then_closed_without_being_forgotten():
    open_ = adopted(guest(), phase=Phase.RUNNING)
    over = placed(seen=Seen.ENDED, started_at=START, ended_at=NOON, end=End.EXITED, exit_code=0)
    (action,) = look([over], [row(open_, seen=Seen.RUNNING, started_at=START)], [open_]).actions
    assert (action.state.end, action.state.exit_code) == (End.EXITED, 0)
    ended = {"seen": Seen.ENDED, "started_at": START, "ended_at": NOON, "metered_until": NOON, "end": End.EXITED}
    found = look([over], [row(open_, settled=True, **ended)], [])
    assert [type(one) for one in found.actions] == [ClosePod]
    assert acts(found) == []


def test_what_is_not_reported_is_only_unknown_and_is_looked_for_after_a_while():
    open_ = adopted(guest(), phase=Phase.RUNNING)
    first = look([], [row(open_, seen=Seen.RUNNING, started_at=START)], [open_])
    assert first.actions[0].state.seen is Seen.UNKNOWN
    assert first.effects == ()
    later = NOON + MISSING_GRACE_SECONDS * SECOND
    unknown = row(open_, seen=Seen.UNKNOWN, started_at=START)
    assert look([], [unknown], [open_], tick=later - 1, memory=first.memory).effects == ()
    found = look([], [unknown], [open_], tick=later, memory=first.memory)
    assert found.effects == (SeekPod(name=f"{open_.id}-1-0", node="n", pod=guest().pod),)
    assert found.actions == ()


def test_who_was_placed_by_somebody_else_never_starts_here():
    open_ = adopted(guest(), phase=Phase.STARTING)
    (action,) = look([placed(node="other")], [row(open_)], [open_]).actions
    assert (action.state.end, action.state.detail) == (
        End.NEVER_STARTED,
        "it was placed on other by somebody else",
    )


def test_what_is_no_longer_wanted_is_evicted_whether_it_is_placed_or_not():
    open_ = adopted(guest(), phase=Phase.RUNNING)
    for reported in ([guest()], [placed(started_at=START)], []):
        (evict,) = acts(look(reported, [row(open_, stop=True)], [open_]))
        assert evict == EvictPod(name=f"{open_.id}-1-0", node="n", pod=guest().pod, grace_seconds=7)


def test_a_workload_that_waits_for_a_pod_that_is_gone_is_withdrawn_after_a_while():
    open_ = adopted(guest())
    first = look([], open_=[open_])
    assert first.actions == ()
    later = NOON + MISSING_GRACE_SECONDS * SECOND
    (action,) = look([], open_=[open_], tick=later, memory=first.memory).actions
    assert isinstance(action, Advance)
    assert (action.phase, action.reason.code, action.guards[0].version) == (Phase.STOPPED, Code.WITHDRAWN, 3)


@pytest.mark.parametrize("reported", [placed(node="other"), placed(seen=Seen.ENDED, node="", end=End.NEVER_STARTED)])
def test_a_workload_that_waits_for_a_pod_that_does_not_is_withdrawn_at_once(reported):
    (action,) = look([reported], open_=[adopted(guest())]).actions
    assert (action.phase, action.reason.code) == (Phase.STOPPED, Code.WITHDRAWN)


def test_one_of_a_group_that_alone_got_no_place_waits_by_itself():
    first, second = of_group("a", "b", size=2)
    open_ = adopted(first, second, phase=Phase.RUNNING)
    running = replace(first, state=PodState(name="uid-a", node="n", seen=Seen.RUNNING, started_at=START))
    rows = [
        row(open_, 0, seen=Seen.RUNNING, started_at=START),
        row(open_, 1, seen=Seen.ENDED, end=End.NEVER_STARTED, ended_at=NOON),
    ]
    (action,) = [one for one in look([running, second], rows, [open_]).actions if isinstance(one, Submit)]
    assert [pod.name for pod in action.workload.spec.guests] == ["b"]


def test_who_waits_is_told_why_once_and_again_within_the_hour():
    open_ = adopted(guest(), phase=Phase.QUEUED, reason=Code.NO_NODES)
    first = look([guest()], open_=[open_])
    assert words(first) == {"web": "no node is ready"}
    assert words(look([guest()], open_=[open_], tick=NOON + SECOND, memory=first.memory)) == {}
    later = NOON + TELL_AGAIN_SECONDS * SECOND
    assert words(look([guest()], open_=[open_], tick=later, memory=first.memory)) == {"web": "no node is ready"}


def test_a_reason_that_changes_all_the_time_is_not_told_all_the_time():
    open_ = adopted(guest(), phase=Phase.QUEUED, reason=Code.NO_NODES)
    memory = Memory(told={"uid-web": Told(words="something else", at=NOON)})
    soon, later = (NOON + seconds * SECOND for seconds in (TELL_PAUSE_SECONDS - 1, TELL_PAUSE_SECONDS))
    assert words(look([guest()], open_=[open_], tick=soon, memory=memory)) == {}
    assert words(look([guest()], open_=[open_], tick=later, memory=memory)) == {"web": "no node is ready"}


@pytest.mark.parametrize(
    ("given_", "plain"),
    [
        ("web", "web"),
        ("web.v1", "web-v1"),
        ("a" * 40, "a" * 40),
        ("a" * 41, f"{'a' * 31}-"),
    ],
)
def test_a_name_of_theirs_becomes_one_of_ours(given_, plain):
    assert plain_name(given_).startswith(plain)
    assert len(plain_name(given_)) <= 40


SEEN = st.sampled_from([None, Seen.NOTHING, Seen.STARTING, Seen.RUNNING, Seen.UNKNOWN, Seen.ENDED])


@given(
    reported=st.lists(st.tuples(SEEN, st.sampled_from(["n", "other", ""]), st.booleans()), max_size=4),
    on_record=st.sampled_from([Seen.NOTHING, Seen.STARTING, Seen.RUNNING, Seen.UNKNOWN, Seen.ENDED]),
    stop=st.booleans(),
)
def test_nothing_is_bound_that_does_not_wait_and_nothing_is_evicted_that_is_wanted(reported, on_record, stop):
    guests = [
        guest(f"p{number}", group=Group(name="g", size=2) if grouped else None)
        if seen is None
        else placed(f"p{number}", seen, node, started_at=START if seen >= Seen.RUNNING else 0)
        for number, (seen, node, grouped) in enumerate(reported)
    ]
    open_ = adopted(guest("p0"), phase=Phase.STARTING)
    end = End.NEVER_STARTED if on_record is Seen.ENDED else None
    found = look(guests, [row(open_, stop=stop, seen=on_record, end=end)], [open_])
    waiting = {one.pod.uid for one in guests if one.waits}
    assert all(effect.pod.uid in waiting for effect in found.effects if isinstance(effect, BindPod))
    assert all(stop and effect.pod.uid == "uid-p0" for effect in found.effects if isinstance(effect, EvictPod))
    submitted = [pod.uid for one in found.actions if isinstance(one, Submit) for pod in one.workload.spec.guests]
    assert set(submitted) <= waiting - {"uid-p0"}
    assert len(submitted) == len(set(submitted))
