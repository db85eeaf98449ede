"""What every store promises, over both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mainstay.domain.allocation import ENDS, End, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import Conflict, Fenced, Invalid, KeyReused, NotFound
from mainstay.domain.plan import (
    CapacityLeft,
    CordonNode,
    DropCandidate,
    EnterPod,
    Epoch,
    MoveEndpoint,
    ObserveNodes,
    RemoveEndpoint,
    RowVersion,
    StopPod,
    Submit,
    SwitchEndpoint,
)
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Kind, Phase, PodSet, RetryPolicy
from mainstay.ports import EventFilter, WorkloadFilter
from tests.stores import ALL, NOON, SECOND, TENANT, USER, WHY, Scene, idempotency, one_cpu, scene, spec, store

__all__ = ["scene", "store"]


# Submitting


def test_a_submitted_workload_is_read_back_as_it_was_given(scene: Scene) -> None:
    hostile = spec(env=(("GREETING", "grüße \N{SNOWMAN} \x01 ''\";--"),), setup="pip install x", nodes=3)
    work = scene.submit(env=hostile.env, setup=hostile.setup, nodes=3, retry=RetryPolicy(user_max=2))
    assert work.spec == replace(hostile, retry=RetryPolicy(user_max=2))
    assert (work.phase, work.attempt, work.stop_requested) == (Phase.PENDING, 1, False)
    assert (work.submitted_at, work.finished_at, work.output) == (scene.now, 0, "")
    assert work.reason == Reason(code=Code.SUBMITTED)
    assert work.version == scene.store.version()


def test_a_taken_id_is_refused_and_an_atomic_plan_with_it_stores_nothing(scene: Scene) -> None:
    work = scene.submit()
    plan = [Submit(workload=new, reason=WHY) for new in (scene.new(), scene.new(id=work.id))]
    with pytest.raises(Conflict):
        scene.commit(*plan, atomic=True)
    assert len(scene.all()) == 1
    result = scene.commit(*plan)
    assert [(row.index, row.reason.code) for row in result.refused] == [(1, Code.DUPLICATE)]
    assert result.applied == 1


def test_a_thousand_submissions_are_one_version_with_gapless_events_and_audit(scene: Scene) -> None:
    scene.applied(*(Submit(workload=scene.new(), reason=WHY) for _ in range(1_000)), atomic=True)
    assert scene.store.version() == 1
    events = scene.store.events(tenant=TENANT, workload="", after=0, limit=ALL)
    rows = scene.store.audit(after=0, limit=ALL)
    assert [event.seq for event in events] == [row.seq for row in rows] == list(range(1, 1_001))
    assert {row.action for row in rows} == {"submit"}
    assert [work.key for work in scene.all()] == sorted((work.key for work in scene.all()), reverse=True)


def test_text_that_is_not_unicode_is_the_users_error_and_nothing_is_stored(scene: Scene) -> None:
    with pytest.raises(Invalid):
        scene.submit(setup="\ud800")
    assert scene.all() == ()


def test_workloads_are_listed_newest_first_by_pages_and_by_what_they_are(scene: Scene) -> None:
    first, second = scene.submit(name="a"), scene.submit(name="b", project="lab")
    other = scene.submit(name="a", tenant="chemistry")
    assert [work.key for work in scene.all()] == [other.key, second.key, first.key]

    def listed(before: int = 0, limit: int = ALL, **which: object) -> list[int]:
        found = scene.store.workloads(WorkloadFilter(**which), before=before, limit=limit)
        return [work.key for work in found]

    assert listed(tenant=TENANT, limit=1) == [second.key]
    assert listed(tenant=TENANT, before=second.key) == [first.key]
    assert listed(tenant=TENANT, project="lab") == [second.key]
    assert listed(name="a") == [other.key, first.key]
    assert listed(phases=(Phase.RUNNING,)) == []


def test_a_workload_is_found_by_id_and_the_newest_by_name_within_its_tenant(scene: Scene) -> None:
    older, newer = scene.submit(name="a"), scene.submit(name="a")
    assert scene.workload(older.id).key == older.key
    assert scene.workload("a").key == newer.key
    for reference in ("b", "a\0", "\ud800"):
        with pytest.raises(NotFound):
            scene.workload(reference)
    with pytest.raises(NotFound):
        scene.workload(older.id, tenant="chemistry")


def test_a_name_that_a_job_and_a_service_share_means_the_job(scene: Scene) -> None:
    job = scene.submit(name="digits")
    service = scene.submit(name="digits", kind=Kind.SERVICE)
    assert scene.workload("digits").key == job.key
    assert scene.workload(service.id).key == service.key
    alone = scene.submit(name="alone", kind=Kind.SERVICE)
    assert scene.workload("alone").key == alone.key


# Idempotency


def test_the_same_key_gives_the_stored_reply_and_changes_nothing(scene: Scene) -> None:
    def submit(reply: str) -> str | None:
        action = Submit(workload=scene.new(), reason=WHY)
        return scene.commit(action, atomic=True, idempotency=idempotency("k", reply=reply)).reply

    assert submit("one") is None
    version = scene.store.version()
    assert submit("two") == "one"
    assert (len(scene.all()), scene.store.version()) == (1, version)


def test_the_same_key_with_another_body_is_refused(scene: Scene) -> None:
    scene.commit(Submit(workload=scene.new(), reason=WHY), idempotency=idempotency("k"))
    with pytest.raises(KeyReused):
        scene.commit(Submit(workload=scene.new(), reason=WHY), idempotency=idempotency("k", body="other"))
    assert len(scene.all()) == 1


def test_a_plan_that_fails_leaves_its_key_free(scene: Scene) -> None:
    work = scene.submit()
    with pytest.raises(Conflict):
        scene.commit(Submit(workload=scene.new(id=work.id), reason=WHY), atomic=True, idempotency=idempotency("k"))
    assert scene.commit(Submit(workload=scene.new(), reason=WHY), idempotency=idempotency("k")).reply is None


def test_what_was_replied_can_be_asked_for_without_doing_anything(scene: Scene) -> None:
    assert scene.store.replied(idempotency("k")) is None
    scene.commit(Submit(workload=scene.new(), reason=WHY), idempotency=idempotency("k", reply="first"))
    assert scene.store.replied(idempotency("k", reply="other")) == "first"
    with pytest.raises(KeyReused):
        scene.store.replied(idempotency("k", body="other"))


def test_keys_are_kept_for_a_week_and_go_a_few_at_a_time(scene: Scene) -> None:
    for number in range(9):
        scene.commit(Submit(workload=scene.new(), reason=WHY), idempotency=idempotency(f"old-{number}"))
    scene.now += 7 * 86_400 * SECOND
    kept = []
    for number in range(3):
        scene.commit(Submit(workload=scene.new(), reason=WHY), idempotency=idempotency(f"new-{number}"))
        kept.append(sum(scene.store.replied(idempotency(f"old-{old}")) is not None for old in range(9)))
    assert kept == [5, 1, 0]
    assert scene.store.replied(idempotency("new-0")) == "reply"


def test_fifty_parallel_commits_under_one_key_submit_once(scene: Scene) -> None:
    actions = [Submit(workload=scene.new(), reason=WHY) for _ in range(50)]

    def submit(number: int) -> str | None:
        key = idempotency("k", reply=str(number))
        return scene.commit(actions[number], atomic=True, idempotency=key).reply

    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(submit, range(50)))
    (winner,) = (number for number, reply in enumerate(replies) if reply is None)
    assert {reply for reply in replies if reply is not None} == {str(winner)}
    assert len(scene.all()) == 1


# Leases and epochs


def test_a_lease_is_kept_by_its_holder_and_passes_on_after_its_end_under_a_higher_epoch(scene: Scene) -> None:
    first = scene.lead("a")
    assert first == Epoch(name="decisions", number=1)
    assert scene.lead("b", after_seconds=9.9) is None
    assert scene.lead("a", after_seconds=9) == first
    assert scene.lead("b", after_seconds=18.9) is None
    assert scene.lead("b", after_seconds=19) == Epoch(name="decisions", number=2)
    assert scene.lead("a", after_seconds=20) is None
    assert scene.lead("a", after_seconds=30) == Epoch(name="decisions", number=3)


def test_a_plan_of_a_passed_epoch_is_refused_whole(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    old = scene.lead("a")
    scene.lead("b", after_seconds=60)
    version = scene.store.version()
    with pytest.raises(Fenced):
        scene.commit(scene.allocate(work), epoch=old)
    assert (scene.store.version(), scene.store.allocations(work.key)) == (version, ())


def test_a_lease_that_was_taken_under_a_clock_far_ahead_holds_up_nobody(scene: Scene) -> None:
    scene.lead("a", after_seconds=86_400)
    assert scene.lead("b") == Epoch(name="decisions", number=2)
    scene.lead("b", after_seconds=5)
    assert scene.lead("a") is None


def test_of_many_holders_at_once_one_gets_the_lease(scene: Scene) -> None:
    with ThreadPoolExecutor(8) as threads:
        epochs = list(threads.map(lambda number: scene.lead(f"h{number}"), range(24)))
    assert [epoch for epoch in epochs if epoch] == [Epoch(name="decisions", number=1)]


# Allocating


def test_an_allocation_takes_its_slots_and_moves_the_workload_to_starting(scene: Scene) -> None:
    scene.fleet(cpus=4)
    work = scene.submit(nodes=2)
    scene.applied(scene.allocate(work))
    pods = scene.store.allocations(work.key)
    assert [(pod.attempt, pod.rank, pod.seen, pod.node) for pod in pods] == [
        (1, 0, Seen.NOTHING, "local-0"),
        (1, 1, Seen.NOTHING, "local-0"),
    ]
    assert scene.workload(work.id).phase is Phase.STARTING
    assert scene.store.nodes()[0].used == Resources(cpu_milli=2_000, memory_bytes=2 << 30)


def test_capacity_is_checked_in_the_transaction_also_without_a_guard(scene: Scene) -> None:
    (node,) = scene.fleet(cpus=2)
    first, second = scene.submit(nodes=2), scene.submit()
    result = scene.commit(scene.allocate(first), scene.allocate(second))
    assert [(row.index, row.reason.code) for row in result.refused] == [(1, Code.CAPACITY_TAKEN)]
    guard = CapacityLeft(node_key=node.key, resources=one_cpu())
    assert scene.commit(scene.stop(second), replace(scene.stop(second), guards=(guard,))).refused[0].index == 1
    assert scene.workload(second.id).phase is Phase.PENDING


def test_a_gang_is_placed_whole_or_not_at_all(scene: Scene) -> None:
    big, small = scene.fleet(cpus=4)[0], scene.fleet(cpus=1, cluster="small")[0]
    work = scene.submit(nodes=3)
    slots = tuple(
        Slot(rank=rank, node_key=node.key, resources=one_cpu()) for rank, node in enumerate((big, small, small))
    )
    assert scene.commit(scene.allocate(work, slots=slots)).refused[0].reason.code is Code.CAPACITY_TAKEN
    assert scene.commit(scene.allocate(work, slots=slots[:2])).refused
    assert scene.store.allocations(work.key) == ()
    assert {node.used.cpu_milli for node in scene.store.nodes()} == {0}


def test_a_node_that_is_not_ready_takes_nothing(scene: Scene) -> None:
    scene.fleet(ready=False)
    assert scene.commit(scene.allocate(scene.submit())).refused[0].reason.code is Code.CAPACITY_TAKEN


def test_an_attempt_starts_once_and_only_while_the_workload_waits_for_it(scene: Scene) -> None:
    scene.fleet(cpus=8)
    work, stopped = scene.submit(), scene.submit()
    scene.applied(scene.stop(stopped))
    assert scene.commit(scene.allocate(stopped)).refused
    assert scene.commit(scene.allocate(work, attempt=2)).refused
    scene.place(work)
    assert scene.commit(scene.allocate(work)).refused
    assert scene.store.nodes()[0].used.cpu_milli == 1_000


def test_the_next_attempt_waits_until_every_pod_of_the_last_has_ended(scene: Scene) -> None:
    scene.fleet(cpus=8)
    work = scene.submit(nodes=2)
    scene.run(work)
    first, second = scene.store.allocations(work.key)
    scene.end(first, exit_code=1)
    scene.applied(scene.advance(work, Phase.PENDING, attempt=2))
    again = scene.workload(work.id)
    assert scene.commit(scene.allocate(again)).refused
    scene.end(second, exit_code=1)
    scene.applied(scene.allocate(again))
    assert [(pod.attempt, pod.rank) for pod in scene.store.allocations(work.key)] == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_an_action_whose_row_has_changed_since_is_refused_with_both_versions(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    scene.applied(scene.stop(work))
    guard = RowVersion(kind="workload", key=work.key, version=work.version)
    (refused,) = scene.commit(scene.advance(work, Phase.QUEUED, guards=(guard,))).refused
    assert refused.reason.code is Code.GUARD_FAILED
    assert refused.reason.numbers == {"read": work.version, "now": work.version + 1}


def test_a_plan_that_applies_nothing_uses_no_version(scene: Scene) -> None:
    work = scene.submit()
    version = scene.store.version()
    stale = RowVersion(kind="workload", key=work.key, version=0)
    result = scene.commit(scene.advance(work, Phase.QUEUED, guards=(stale,)))
    assert (result.version, result.applied, scene.store.version()) == (version, 0, version)
    scene.applied()
    assert scene.store.version() == version


def test_actions_on_what_does_not_exist_are_refused(scene: Scene) -> None:
    scene.fleet()
    ghost = replace(scene.submit(), key=999)
    pod = replace(scene.place(scene.submit()), key=999)
    actions = [
        scene.allocate(ghost),
        scene.advance(ghost, Phase.QUEUED),
        scene.stop(ghost),
        scene.see(pod, Seen.RUNNING),
        scene.close(pod),
        scene.usage(pod, start=1, end=2),
        StopPod(allocation_key=999, reason=WHY),
        EnterPod(allocation_key=999, reason=WHY),
        SwitchEndpoint(tenant=TENANT, endpoint="none", reason=WHY),
        DropCandidate(tenant=TENANT, endpoint="none", reason=WHY),
        MoveEndpoint(tenant=TENANT, endpoint="none", address="", reason=WHY),
        RemoveEndpoint(endpoint="none", tenant=TENANT, reason=WHY),
    ]
    result = scene.commit(*actions)
    assert [row.index for row in result.refused] == list(range(len(actions)))


def test_entering_a_pod_leaves_it_as_it_is_and_is_recorded_until_it_has_ended(scene: Scene) -> None:
    scene.fleet()
    pod = scene.place(scene.submit())
    entering = EnterPod(
        allocation_key=pod.key, reason=Reason(code=Code.COMMAND_RUN, numbers={"by": USER, "command": "ls"})
    )
    before = scene.store.audit(after=0, limit=ALL)
    scene.applied(entering)
    (row,) = scene.store.audit(after=before[-1].seq, limit=ALL)
    assert (row.actor, row.tenant, row.action, row.object) == (USER, TENANT, "enter_pod", pod.pod)
    assert row.detail == f"{USER} runs a command in it: ls"
    assert scene.store.allocations(pod.workload_key) == (pod,)
    scene.end(pod)
    assert scene.commit(entering).refused


# Phases


def test_a_workload_finished_when_its_last_pod_ended_and_not_when_that_was_heard(scene: Scene) -> None:
    scene.fleet()
    for late, finished in ((3_600, lambda ended: ended), (-3_600, lambda _: scene.now)):
        work = scene.submit()
        pod = scene.run(work)
        ended = max(scene.now, pod.started_at) + SECOND
        scene.now = ended + max(late, 0) * SECOND
        scene.end(pod, ended_at=ended if late > 0 else scene.now - late * SECOND)
        scene.applied(scene.advance(scene.workload(work.id), Phase.SUCCEEDED))
        shown = scene.workload(work.id)
        assert (shown.finished_at, shown.started_at) == (finished(ended), pod.started_at)


def test_final_is_final(scene: Scene) -> None:
    work = scene.submit()
    scene.applied(scene.advance(work, Phase.STOPPED))
    for phase in Phase:
        assert scene.commit(scene.advance(work, phase)).refused
    assert scene.workload(work.id).phase is Phase.STOPPED
    assert scene.workload(work.id).finished_at > 0
    version = scene.store.version()
    scene.applied(scene.stop(work))
    assert scene.store.version() == version


def test_a_waiting_workload_cannot_succeed(scene: Scene) -> None:
    assert scene.commit(scene.advance(scene.submit(), Phase.SUCCEEDED)).refused


def test_going_back_to_wait_takes_a_new_attempt_and_everything_else_keeps_it(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    assert scene.commit(scene.advance(work, Phase.QUEUED, attempt=2)).refused
    scene.place(work)
    assert scene.commit(scene.advance(work, Phase.PENDING)).refused
    scene.applied(scene.advance(work, Phase.PENDING, attempt=2, not_before=NOON * 2, user_failures=1))
    again = scene.workload(work.id)
    assert (again.attempt, again.not_before, again.user_failures) == (2, NOON * 2, 1)


def test_the_start_of_a_job_is_that_of_its_first_pod_even_if_nobody_saw_it_run(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    pod = scene.place(work)
    scene.end(pod, started_at=NOON + 7)
    scene.applied(scene.advance(work, Phase.SUCCEEDED))
    assert scene.workload(work.id).started_at == NOON + 7


# Pods


def test_an_end_frees_the_capacity_once_and_nothing_changes_it_after(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    ended = scene.end(pod, exit_code=3, detail="boom \0 \ud800")
    assert (ended.end, ended.exit_code, ended.ready, ended.address) == (End.EXITED, 3, False, "")
    assert scene.store.nodes()[0].used.cpu_milli == 0
    assert scene.commit(scene.see(pod, Seen.RUNNING), scene.see(pod, Seen.ENDED)).applied == 0
    assert scene.pod(pod) == ended
    assert scene.store.nodes()[0].used.cpu_milli == 0


def test_what_a_pod_waits_for_stands_with_its_workload_and_each_change_is_an_event(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    pod = scene.place(work)
    for words in ("pulls a", "pulls a", "pulls b"):
        scene.applied(scene.see(pod, Seen.PULLING, detail=words))
    assert scene.workload(work.id).reason.sentence.endswith(": pulls b")
    (listed,) = scene.all()
    assert listed.reason == scene.workload(work.id).reason
    about = scene.store.events(tenant=TENANT, workload=work.id, after=0, limit=100)
    assert len([event for event in about if event.object == pod.pod]) == 2
    scene.applied(scene.see(pod, Seen.RUNNING))
    assert "pulls" not in scene.workload(work.id).reason.sentence


def test_a_pod_that_could_not_start_says_why_at_its_workload(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    pod = scene.place(work)
    scene.applied(scene.see(pod, Seen.ENDED, end=End.START_FAILED, detail="no such command"))
    reason = Reason(code=Code.START_FAILED, numbers={"rank": 0, "detail": "see its pod"})
    scene.applied(scene.advance(scene.workload(work.id), Phase.FAILED, reason=reason))
    assert scene.workload(work.id).reason.sentence == "rank 0 could not start: no such command"


def test_an_observation_that_says_nothing_new_writes_nothing(scene: Scene) -> None:
    scene.fleet()
    pod = scene.place(scene.submit())
    scene.applied(scene.see(pod, Seen.STARTING))
    version = scene.store.version()
    scene.applied(scene.see(pod, Seen.STARTING))
    assert scene.store.version() == version
    events = len(scene.store.events(tenant=TENANT, workload=pod.workload, after=0, limit=ALL))
    scene.applied(scene.see(pod, Seen.STARTING, address="127.0.0.1:80"))
    assert scene.pod(pod).address == "127.0.0.1:80"
    assert len(scene.store.events(tenant=TENANT, workload=pod.workload, after=0, limit=ALL)) == events


def test_the_start_of_a_pod_is_written_once_and_its_end_is_not_before_it(scene: Scene) -> None:
    scene.fleet()
    pod = scene.place(scene.submit())
    scene.applied(scene.see(pod, Seen.RUNNING, started_at=NOON + 50))
    scene.applied(scene.see(pod, Seen.RUNNING, started_at=NOON + 90))
    ended = scene.end(pod, started_at=0, ended_at=NOON + 10)
    assert (ended.started_at, ended.ended_at) == (NOON + 50, NOON + 50)


def test_output_counts_only_from_rank_0_of_the_attempt_that_counts(scene: Scene) -> None:
    scene.fleet(cpus=8)
    work = scene.submit(nodes=2)
    scene.run(work)
    first, second = scene.store.allocations(work.key)
    well = {"end": End.EXITED, "exit_code": 0}
    scene.applied(scene.see(second, Seen.ENDED, output="rank1", **well))
    assert scene.workload(work.id).output == ""
    scene.applied(scene.advance(work, Phase.PENDING, attempt=2))
    scene.applied(scene.see(first, Seen.ENDED, output="late", **well))
    assert scene.workload(work.id).output == ""
    again = scene.place(scene.workload(work.id))
    scene.applied(scene.see(again, Seen.ENDED, output="tree", **well))
    assert scene.workload(work.id).output == "tree"


def test_what_an_attempt_left_that_does_not_count_is_no_output(scene: Scene) -> None:
    scene.fleet(cpus=8)
    work = scene.submit(nodes=2)
    scene.run(work)
    first, _ = scene.store.allocations(work.key)
    scene.applied(scene.see(first, Seen.ENDED, output="early", end=End.EXITED, exit_code=0))
    scene.applied(scene.advance(work, Phase.PENDING, attempt=2))
    assert scene.workload(work.id).output == ""


def test_what_an_attempt_left_that_ended_well_but_for_a_copy_stays_its_output(scene: Scene) -> None:
    scene.fleet(cpus=8)
    for last, kept in ((End.COPY_REFUSED, "tree"), (End.OUTPUT_NOT_STORED, "")):
        work = scene.submit()
        pod = scene.run(work)
        scene.applied(scene.see(pod, Seen.ENDED, output="tree", end=last, exit_code=0))
        scene.applied(scene.advance(work, Phase.FAILED))
        assert scene.workload(work.id).output == kept
    again = scene.submit()
    pod = scene.run(again)
    scene.applied(scene.see(pod, Seen.ENDED, output="tree", end=End.COPY_REFUSED, exit_code=0))
    scene.applied(scene.advance(again, Phase.PENDING, attempt=2))
    assert scene.workload(again.id).output == ""


def test_events_are_chosen_by_kind_and_object_and_those_of_the_platform_only_for_who_asks(scene: Scene) -> None:
    scene.fleet(nodes=2)
    scene.submit()
    scene.applied(CordonNode(cluster="local", node="local-1", reason=WHY))
    store = scene.store

    def found(**given: Any) -> list[tuple[str, str]]:
        which = EventFilter(**given)
        events = store.events(tenant=TENANT, workload="", after=0, limit=ALL, which=which)
        assert store.last_events(tenant=TENANT, workload="", limit=ALL, which=which) == events
        assert [event.seq for event in events] == sorted(event.seq for event in events)
        # Page by page it is the same.
        paged, after = [], 0
        while page := store.events(tenant=TENANT, workload="", after=after, limit=1, which=which):
            paged += page
            after = page[-1].seq
        assert tuple(paged) == events
        last = store.last_events(tenant=TENANT, workload="", limit=1, which=which)
        assert last == events[-1:]
        return [(event.kind, event.object) for event in events]

    everything = found(platform=True)
    assert {kind for kind, _ in everything} == {"node", "workload"}
    assert {kind for kind, _ in found()} == {"workload"}
    assert found(kinds=("node",)) == []
    nodes = found(platform=True, kinds=("node", "cluster"))
    assert nodes == [one for one in everything if one[0] == "node"]
    cordoned = found(platform=True, object="local-1")
    assert cordoned == [("node", "local-1")] * 2
    assert found(platform=True, kinds=("cluster",), object="local-1") == []
    (work,) = scene.all()
    which = EventFilter(platform=True)
    of_work = store.events(tenant=TENANT, workload=work.id, after=0, limit=ALL, which=which)
    assert {event.workload for event in of_work} == {work.id}


def test_a_stop_of_a_pod_is_written_once(scene: Scene) -> None:
    scene.fleet()
    pod = scene.place(scene.submit())
    scene.applied(StopPod(allocation_key=pod.key, reason=WHY))
    version = scene.store.version()
    scene.applied(StopPod(allocation_key=pod.key, reason=WHY))
    assert (scene.pod(pod).stop, scene.store.version()) == (True, version)


def test_a_pod_closes_when_it_has_ended_is_metered_and_its_workload_has_moved_on(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    pod = scene.run(work)
    assert scene.commit(scene.close(pod)).refused
    ended = scene.end(pod)
    assert scene.commit(scene.close(pod)).refused
    scene.applied(scene.usage(pod, start=ended.started_at, end=ended.ended_at))
    assert scene.commit(scene.close(pod)).refused
    assert [row.settled for row in scene.store.wanted("local")] == [False]
    scene.applied(scene.advance(work, Phase.SUCCEEDED))
    assert [row.settled for row in scene.store.wanted("local")] == [True]
    scene.applied(scene.close(pod))
    assert scene.store.wanted("local") == ()
    assert scene.store.snapshot(now=0, seed=0).allocations.key.size == 0
    assert scene.commit(scene.close(pod)).refused[0].reason.code is Code.DUPLICATE


def test_a_pod_that_ended_in_the_instant_of_its_start_closes_without_usage(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    pod = scene.run(work)
    scene.end(pod, ended_at=pod.started_at)
    scene.applied(scene.advance(work, Phase.SUCCEEDED))
    scene.applied(scene.close(pod))


# Wanted


def test_wanted_is_what_is_not_closed_with_its_specification_by_cluster_and_key(scene: Scene) -> None:
    here, there = scene.fleet(cluster="a")[0], scene.fleet(cluster="b")[0]
    works = [scene.submit(name=f"w{number}") for number in range(4)]
    for work, node in zip(works, (here, there, here, there), strict=True):
        scene.applied(scene.allocate(work, node=node))
    rows = scene.store.wanted("a")
    assert [(row.allocation.workload, row.spec.name) for row in rows] == [(works[0].id, "w0"), (works[2].id, "w2")]
    assert [row.allocation for row in rows] == [scene.store.allocations(works[n].key)[0] for n in (0, 2)]
    assert scene.store.wanted("none") == ()


def test_wanted_tells_that_an_older_attempt_is_settled_by_the_next(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    scene.end(scene.run(work), exit_code=1)
    assert [row.settled for row in scene.store.wanted("local")] == [False]
    scene.applied(scene.advance(work, Phase.PENDING, attempt=2))
    assert [row.settled for row in scene.store.wanted("local")] == [True]
    scene.place(scene.workload(work.id))
    assert [row.settled for row in scene.store.wanted("local")] == [True, False]


def test_closed_finds_what_has_left_the_columns_by_the_name_of_its_pod(scene: Scene) -> None:
    scene.fleet()
    gone, open_ = scene.submit(name="gone"), scene.submit(name="open")
    pod = scene.end(scene.run(gone), exit_code=1)
    scene.applied(scene.advance(gone, Phase.FAILED), scene.usage(pod, start=pod.started_at, end=pod.ended_at))
    scene.applied(scene.close(pod))
    other = scene.place(open_)
    odd = ("", "-", "gone", f"{gone.id}-2-0", f"{gone.id}-1-1", f"{gone.id}-x-0", "no-such-1-0", "a\0b-1-0")
    (found,) = scene.store.closed("local", (pod.pod, other.pod, *odd))
    assert (found.allocation, found.spec, found.settled) == (scene.pod(pod), gone.spec, True)
    assert scene.store.closed("elsewhere", (pod.pod,)) == ()
    assert scene.store.closed("local", ()) == ()


# Nodes


def test_nodes_are_added_changed_and_not_ready_once_they_are_not_reported(scene: Scene) -> None:
    first, second = scene.fleet(nodes=2)
    version = scene.store.version()
    scene.fleet(nodes=2)
    assert scene.store.version() == version
    scene.fleet(nodes=1, cpus=8)
    after = scene.store.nodes()
    assert [node.ready for node in after] == [True, False]
    assert after[0].capacity.cpu_milli == 8_000
    assert after[0].version > first.version
    scene.applied(ObserveNodes(cluster="other", nodes=(), reason=WHY))
    assert [node.ready for node in scene.store.nodes()] == [True, False]
    assert second.key == after[1].key


# Snapshot


def test_a_snapshot_shows_what_is_open_in_columns(scene: Scene) -> None:
    (node,) = scene.fleet(cpus=8)
    choices = (one_cpu(gpus=0), one_cpu(cpu_milli=500))
    waiting = scene.submit(choices=choices, max_duration_seconds=60, retry=RetryPolicy(always=True))
    pod = scene.run(scene.submit(kind=Kind.SERVICE))
    done = scene.submit()
    scene.applied(scene.advance(done, Phase.FAILED))
    seen = scene.store.snapshot(now=5, seed=6)
    assert (seen.now, seen.seed, seen.version) == (5, 6, scene.store.version())
    table = seen.workloads
    assert table.key.tolist() == [waiting.key, pod.workload_key]
    assert table.phase.tolist() == [Phase.PENDING, Phase.RUNNING]
    assert table.kind.tolist() == [0, 1]
    assert (table.max_duration_seconds[0], table.retry_always.tolist()) == (60, [True, False])
    assert table.choices == {waiting.key: choices}
    assert seen.nodes.names == (node.name,)
    assert seen.nodes.clusters == ("local",)
    assert seen.nodes.used_cpu_milli.tolist() == [1_000]
    assert seen.allocations.key.tolist() == [pod.key]
    assert seen.allocations.end.tolist() == [-1]
    assert seen.owners == {pod.workload_key: (TENANT, "default", pod.workload)}
    assert seen.addresses == {pod.key: "127.0.0.1:1"}
    scene.end(pod, end=End.OUT_OF_MEMORY, exit_code=None)
    after = scene.store.snapshot(now=5, seed=6)
    assert after.allocations.end.tolist() == [ENDS.index(End.OUT_OF_MEMORY)]
    assert after.allocations.exit_code.tolist() == [-1]
    assert after.addresses == {}


def test_a_snapshot_has_the_pod_sets_of_what_is_open(scene: Scene) -> None:
    (node,) = scene.fleet(cpus=8)
    head = PodSet(name="head", nodes=1, resources=one_cpu(cpu_milli=500, gpus=0), run=("head",), cpu_limit_milli=9)
    worker = PodSet(name="worker", nodes=2, resources=one_cpu(cpu_milli=2_000, gpus=0))
    work = scene.submit(nodes=3, sets=(head, worker), choices=(head.resources,))
    assert scene.workload(work.id).spec.sets == (head, worker)
    plain = scene.submit()
    asked = tuple(replace(one, run=(), cpu_limit_milli=0) for one in (head, worker))
    before = scene.store.snapshot(now=0, seed=0).workloads
    assert (before.sets, before.choices) == ({work.key: asked}, {})
    assert before.nodes.tolist() == [3, 1]
    slots = tuple(
        Slot(rank=rank, node_key=node.key, resources=held)
        for rank, held in enumerate((head.resources, worker.resources, worker.resources))
    )
    scene.applied(replace(scene.allocate(work), slots=slots))
    held = scene.store.snapshot(now=0, seed=0)
    assert held.allocations.cpu_milli.tolist() == [500, 2_000, 2_000]
    assert held.nodes.used_cpu_milli.tolist() == [4_500]
    scene.applied(scene.advance(work, Phase.FAILED))
    after = scene.store.snapshot(now=0, seed=0).workloads
    assert (after.key.tolist(), after.sets) == ([plain.key], {})


def test_devices_of_several_kinds_on_one_node_are_each_checked(scene: Scene) -> None:
    capacity = Resources(cpu_milli=8_000, memory_bytes=8 << 30, gpus=2, gpu_model="H100")
    state = NodeState(name="n", capacity=capacity, ready=True, shapes=(("1g.10gb", 2),))
    scene.applied(ObserveNodes(cluster="local", nodes=(state,), reason=WHY))
    (node,) = scene.store.nodes()

    def slots(whole: int, slices: int) -> tuple[Slot, ...]:
        held = (one_cpu(gpus=whole, gpu_model="H100"), one_cpu(gpus=slices, gpu_model="1g.10gb"))
        return tuple(Slot(rank=rank, node_key=node.key, resources=one) for rank, one in enumerate(held))

    first = scene.submit(nodes=2)
    for whole, slices in ((3, 1), (1, 3)):
        (refused,) = scene.commit(replace(scene.allocate(first), slots=slots(whole, slices))).refused
        assert refused.reason.code is Code.CAPACITY_TAKEN
    scene.applied(replace(scene.allocate(first), slots=slots(2, 2)))
    assert dict(scene.store.snapshot(now=0, seed=0).nodes.used_shapes)["1g.10gb"].tolist() == [2]


def test_a_snapshot_never_changes_and_shares_what_did_not(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    before = scene.store.snapshot(now=0, seed=0)
    phase, keys = before.workloads.phase.copy(), before.workloads.key
    scene.place(work)
    after = scene.store.snapshot(now=0, seed=0)
    assert np.array_equal(before.workloads.phase, phase)
    assert before.allocations.key.size == 0
    assert after.workloads.phase.tolist() == [Phase.STARTING]
    assert after.workloads.key is keys
    assert after.nodes.cpu_milli is before.nodes.cpu_milli
    with pytest.raises(ValueError, match="read-only"):
        after.workloads.phase[0] = 0


# Logs


def test_events_are_resumed_after_a_sequence_and_told_by_workload_and_tenant(scene: Scene) -> None:
    scene.fleet()
    one, other = scene.submit(), scene.submit(tenant="chemistry")
    scene.place(one)
    mine = scene.store.events(tenant=TENANT, workload="", after=0, limit=ALL)
    assert {event.workload for event in mine} == {one.id}
    assert scene.store.events(tenant=TENANT, workload=other.id, after=0, limit=ALL) == ()
    everything = scene.store.events(tenant="", workload="", after=0, limit=ALL)
    assert [event.seq for event in everything] == list(range(1, len(everything) + 1))
    assert everything[0].kind == "node"
    assert scene.store.events(tenant="", workload="", after=2, limit=1) == everything[2:3]
    steps = [(event.phase_before, event.phase_after) for event in mine]
    assert steps == [(None, Phase.PENDING), (Phase.PENDING, Phase.STARTING)]
    assert mine[-1].reason == WHY
    assert (mine[-1].actor, mine[-1].at) == (USER, scene.now)


def test_a_request_is_audited_and_a_decision_is_not(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit()
    scene.applied(scene.stop(work))
    scene.applied(scene.advance(work, Phase.STOPPED), epoch=scene.lead())
    rows = scene.store.audit(after=0, limit=ALL)
    assert [(row.seq, row.action, row.object) for row in rows] == [
        (1, "observe_nodes", "local-0"),
        (2, "submit", work.id),
        (3, "request_stop", work.id),
    ]
    assert scene.store.audit(after=2, limit=ALL) == rows[2:]
    assert (rows[1].actor, rows[1].tenant) == (USER, TENANT)


def test_the_identity_of_a_database_stays(scene: Scene) -> None:
    assert len(scene.store.system()) == 32
    assert scene.store.system() == scene.store.system()
    assert SECOND == 1_000_000
