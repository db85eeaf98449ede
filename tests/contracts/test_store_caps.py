"""What every store promises about the caps of a token: all its runs together stay within them, over both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mainstay.domain.allocation import Allocation, End, Seen
from mainstay.domain.caps import AtMost, CapUse
from mainstay.domain.errors import Forbidden
from mainstay.domain.plan import (
    Deploy,
    Plan,
    RedeployEndpoint,
    RemoveMember,
    RevokeToken,
    StopPod,
    Submit,
    SwitchEndpoint,
)
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Kind, Phase, Workload
from mainstay.operations import sessions, tokens
from mainstay.operations.principal import Principal
from mainstay.store import SqlStore, tables
from tests.databases import empty_sqlite
from tests.stores import TENANT, USER, WHY, Scene, scene, store

__all__ = ["scene", "store"]

SUBMITTED = Reason(code=Code.SUBMITTED)


def asking(scene: Scene, token: str, *, gpus: int = 0, cost: int = 0, **what: Any) -> Submit:
    most = AtMost(gpus=gpus, cost_micros=cost)
    return Submit(workload=scene.new(token=token, at_most=most, **what), reason=SUBMITTED)


def submit(scene: Scene, token: str, **what: Any) -> Workload:
    action = asking(scene, token, **what)
    scene.applied(action, atomic=True)
    return scene.workload(action.workload.id)


def used(scene: Scene, token: str) -> CapUse:
    return scene.store.cap_uses([token])[token]


def spent(scene: Scene, token: str) -> int:
    """By the ledger: all charges of all runs of a token."""
    work, pods, charges = tables.workloads, tables.allocations, tables.charges
    joined = charges.join(pods, pods.c.key == charges.c.allocation_key).join(work, work.c.key == pods.c.workload_key)
    query = sa.select(sa.func.sum(charges.c.cost_micros)).select_from(joined).where(work.c.token == token)
    return int(scene.store._database.read(lambda connection: connection.scalar(query)) or 0)


def metered(scene: Scene, pod: Allocation, *, cost: int) -> None:
    """All that it has used until its end."""
    scene.applied(scene.usage(pod, start=pod.metered_until or pod.started_at, end=pod.ended_at, cost=cost))


def over(scene: Scene, work: Workload, phase: Phase = Phase.SUCCEEDED) -> None:
    scene.applied(scene.advance(scene.workload(work.id), phase))


def test_all_open_runs_of_a_token_together_hold_as_many_gpus_as_it_may_and_no_more(scene: Scene) -> None:
    token = scene.capped(gpus=8)
    submit(scene, token, gpus=6)
    with pytest.raises(Forbidden) as refused:
        submit(scene, token, gpus=3)
    assert refused.value.message == (
        f"token {token} may hold 8 GPUs at a time: its open runs ask for 6, and 3 more would be too many"
    )
    assert refused.value.numbers == {"cap": 8, "held": 6, "asked": 3}
    submit(scene, token, gpus=2)
    submit(scene, token, gpus=0)
    assert used(scene, token) == CapUse(gpus=8)


def test_what_its_runs_have_cost_and_may_cost_yet_is_never_more_than_a_token_may_spend(scene: Scene) -> None:
    token = scene.capped(spend_micros=500_000)
    scene.fleet()
    work = submit(scene, token, cost=300_000)
    with pytest.raises(Forbidden) as refused:
        submit(scene, token, cost=200_001)
    assert refused.value.message == (
        f"token {token} may spend 0.5: its runs have cost 0, those that are open may cost 0.3 more, and 0.200001 on top"
        " would be too much"
    )
    assert refused.value.numbers == {"cap": "0.5", "spent": "0", "reserved": "0.3", "asked": "0.200001"}
    ended = scene.end(scene.run(work))
    over(scene, work)
    metered(scene, ended, cost=40_000)
    assert used(scene, token) == CapUse(spent_micros=40_000)
    with pytest.raises(Forbidden):
        submit(scene, token, cost=460_001)
    submit(scene, token, cost=460_000)
    assert used(scene, token) == CapUse(spent_micros=40_000, reserved_micros=460_000)


def test_of_many_that_are_submitted_together_all_count_or_none_is_taken(scene: Scene) -> None:
    token = scene.capped(gpus=4)
    with pytest.raises(Forbidden) as refused:
        scene.applied(*(asking(scene, token, gpus=1) for _ in range(5)), atomic=True)
    assert refused.value.numbers == {"cap": 4, "held": 0, "asked": 5}
    assert (scene.all(), used(scene, token)) == ((), CapUse())
    scene.applied(*(asking(scene, token, gpus=1) for _ in range(4)), atomic=True)
    assert used(scene, token) == CapUse(gpus=4)


def test_tokens_do_not_count_for_each_other_and_one_without_caps_counts_nothing(scene: Scene) -> None:
    one, other = scene.capped(gpus=1), scene.capped(gpus=1)
    submit(scene, one, gpus=1)
    submit(scene, other, gpus=1)
    free = scene.submit(token="000000000000")
    assert (used(scene, one), used(scene, other)) == (CapUse(gpus=1), CapUse(gpus=1))
    assert scene.store.cap_uses(["000000000000"]) == {}
    assert free.token == "000000000000"


def test_a_run_remembers_its_token_and_counts_for_it_after_that_is_revoked(scene: Scene) -> None:
    token = scene.capped(gpus=2)
    work = submit(scene, token, gpus=2)
    scene.applied(RevokeToken(tenant=TENANT, id=token, reason=WHY))
    assert scene.workload(work.id).token == token
    assert used(scene, token) == CapUse(gpus=2)


def test_with_a_token_that_is_gone_nothing_is_submitted_and_what_it_has_submitted_goes_on(scene: Scene) -> None:
    token = scene.capped(spend_micros=1_000)
    scene.fleet()
    work = submit(scene, token, cost=1_000)
    pod = scene.run(work)
    scene.applied(RemoveMember(tenant=TENANT, name="ci", within=frozenset(tokens.Permission), reason=WHY))
    assert scene.commit(asking(scene, token, cost=0)).refused[0].reason.code is Code.NO_SUCH_TOKEN
    ended = scene.end(pod)
    metered(scene, ended, cost=10)
    over(scene, work)
    assert scene.workload(work.id).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("phase", [Phase.STOPPED, Phase.FAILED])
def test_one_that_never_had_a_place_takes_nothing_once_it_is_over(scene: Scene, phase: Phase) -> None:
    token = scene.capped(gpus=1, spend_micros=10)
    work = submit(scene, token, gpus=1, cost=10)
    scene.applied(scene.stop(work))
    assert used(scene, token) == CapUse(gpus=1, reserved_micros=10)
    over(scene, work, phase)
    assert used(scene, token) == CapUse()


def test_the_reservation_gives_way_to_what_it_costs_hour_by_hour_and_goes_with_the_last_record(scene: Scene) -> None:
    token = scene.capped(gpus=1, spend_micros=100)
    scene.fleet()
    work = submit(scene, token, gpus=1, cost=100)
    pod = scene.run(work)
    scene.applied(scene.usage(pod, start=pod.started_at, end=pod.started_at + 10, cost=30))
    assert used(scene, token) == CapUse(gpus=1, spent_micros=30, reserved_micros=70)
    ended = scene.end(scene.pod(pod), ended_at=scene.now + 20)
    assert used(scene, token).gpus == 1
    over(scene, work)
    assert used(scene, token) == CapUse(gpus=0, spent_micros=30, reserved_micros=70)
    metered(scene, ended, cost=5)
    assert used(scene, token) == CapUse(spent_micros=35)
    assert spent(scene, token) == 35


def test_usage_that_is_recorded_before_the_run_is_known_to_be_over_ends_its_reservation_with_it(scene: Scene) -> None:
    token = scene.capped(spend_micros=100)
    scene.fleet()
    work = submit(scene, token, cost=100)
    metered(scene, scene.end(scene.run(work)), cost=20)
    assert used(scene, token) == CapUse(spent_micros=20, reserved_micros=80)
    over(scene, work)
    assert used(scene, token) == CapUse(spent_micros=20)


def test_what_is_told_twice_counts_once(scene: Scene) -> None:
    token = scene.capped(spend_micros=100)
    scene.fleet()
    work = submit(scene, token, cost=100)
    ended = scene.end(scene.run(work))
    record = scene.usage(ended, start=ended.started_at, end=ended.ended_at, cost=20)
    scene.applied(record)
    assert scene.commit(record).refused[0].reason.code is Code.DUPLICATE
    over(scene, work)
    assert scene.commit(scene.advance(work, Phase.SUCCEEDED)).refused
    assert scene.commit(record).refused
    assert used(scene, token) == CapUse(spent_micros=20)


def test_an_end_that_nobody_was_told_of_for_long_is_settled_when_its_pod_is_closed(scene: Scene) -> None:
    """Another attempt was allowed beside it, succeeded, and the lost pod turns out never to have started."""
    token = scene.capped(gpus=1, spend_micros=100)
    scene.fleet()
    work = submit(scene, token, gpus=1, cost=100)
    lost = scene.place(work)
    over(scene, work, Phase.FAILED)
    assert used(scene, token) == CapUse(gpus=0, reserved_micros=100)
    scene.applied(scene.see(lost, Seen.ENDED, end=End.NEVER_STARTED, ended_at=scene.now))
    scene.applied(scene.close(lost))
    assert used(scene, token) == CapUse()


def test_one_that_costs_more_than_was_reserved_counts_with_what_it_costs(scene: Scene) -> None:
    """A price has risen meanwhile."""
    token = scene.capped(spend_micros=100)
    scene.fleet()
    work = submit(scene, token, cost=60)
    metered(scene, scene.end(scene.run(work)), cost=90)
    assert used(scene, token) == CapUse(spent_micros=90)
    over(scene, work)
    assert used(scene, token) == CapUse(spent_micros=90)
    with pytest.raises(Forbidden):
        submit(scene, token, cost=11)


def test_an_endpoint_counts_until_it_has_ended_and_a_copy_that_the_platform_makes_is_not_refused(scene: Scene) -> None:
    token = scene.capped(gpus=2)
    scene.fleet()

    def deploy(gpus: int) -> Workload:
        new = scene.new(name="digits", kind=Kind.SERVICE, token=token, at_most=AtMost(gpus=gpus))
        what = {"endpoint": "digits", "tenant": TENANT, "project": "default", "model": "digits", "version": 1}
        scene.applied(Deploy(**what, workload=new, reason=WHY), atomic=True)
        return scene.workload(new.id)

    with pytest.raises(Forbidden):
        deploy(3)
    service = deploy(2)
    scene.run(service)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY))
    scene.applied(RedeployEndpoint(tenant=TENANT, endpoint="digits", workload="digits-copy", reason=WHY))
    assert scene.workload("digits-copy").token == token
    assert used(scene, token) == CapUse(gpus=4)
    with pytest.raises(Forbidden):
        submit(scene, token, gpus=1)


def test_of_those_who_submit_at_once_no_more_get_in_than_the_cap_has_room_for(scene: Scene) -> None:
    token = scene.capped(gpus=5, spend_micros=1_000)
    plans = [
        Plan(actor=USER, now=scene.now, actions=(asking(scene, token, gpus=1, cost=1),), atomic=True) for _ in range(12)
    ]
    refused: list[Forbidden] = []

    def commit(plan: Plan) -> None:
        try:
            scene.store.commit(plan)
        except Forbidden as error:
            refused.append(error)

    threads = [threading.Thread(target=commit, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (used(scene, token), len(refused)) == (CapUse(gpus=5, reserved_micros=5), 7)


def test_a_crash_in_the_middle_of_a_commit_leaves_the_use_as_it_was(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = scene.capped(gpus=4, spend_micros=100)
    scene.fleet()
    work = submit(scene, token, gpus=1, cost=10)
    ended = scene.end(scene.run(work))
    before = used(scene, token)
    with monkeypatch.context() as patch:
        patch.setattr("mainstay.store.write._write_head", _crash)
        for action in (
            asking(scene, token, gpus=1, cost=10),
            scene.usage(ended, start=ended.started_at, end=ended.ended_at, cost=3),
            scene.advance(scene.workload(work.id), Phase.SUCCEEDED),
        ):
            with pytest.raises(RuntimeError):
                scene.commit(action)
    assert (used(scene, token), spent(scene, token)) == (before, 0)
    metered(scene, ended, cost=3)
    over(scene, work)
    assert used(scene, token) == CapUse(spent_micros=3)


def _crash(*_: object) -> None:
    raise RuntimeError


def test_sessions_of_a_token_count_with_it_through_however_many_links(scene: Scene) -> None:
    token = scene.capped(gpus=2)
    found = scene.store.authority(token)
    assert found is not None
    who = tokens._principal(found, now=scene.now)
    assert who.root == token
    for _ in range(2):
        cookie = sessions.exchange(scene.store, sessions.link(scene.store, who, now=scene.now), now=scene.now)
        session = sessions.session(scene.store, cookie, now=scene.now)
        assert session is not None
        who = session.principal
        assert (who.root, who.token == token) == (token, False)


def test_sessions_that_no_token_is_behind_count_for_none(scene: Scene) -> None:
    scene.person("ada", now=scene.now)
    cookie = sessions.begin(scene.store, Principal(name="ada", tenant=TENANT, role="user"), now=scene.now)
    session = sessions.session(scene.store, cookie, now=scene.now)
    assert session is not None
    assert session.principal.root == ""


def test_runs_to_stop_are_named_the_newest_first_without_those_that_are_to_stop(scene: Scene) -> None:
    token = scene.capped(gpus=9)
    works = [submit(scene, token, gpus=1) for _ in range(4)]
    scene.applied(scene.stop(works[3]))
    over(scene, works[0], Phase.STOPPED)
    assert scene.store.capped_runs(token, limit=5) == (works[2].id, works[1].id)


class Model:
    """Drives one store at random, and knows nothing of how it counts."""

    def __init__(self, store: SqlStore) -> None:
        self.scene = Scene(store)
        self.scene.fleet(cpus=1_000)
        self.token = self.scene.capped(gpus=6, spend_micros=1_000)
        self.most: dict[str, AtMost] = {}
        self.cost: dict[str, int] = {}

    def open(self) -> list[Workload]:
        return [work for work in self.scene.all() if not work.phase.final]

    def pods(self) -> Iterator[tuple[Workload, Allocation]]:
        for work in self.scene.all():
            for pod in self.scene.store.allocations(work.key):
                yield work, pod

    def submit(self, number: int) -> None:
        most = AtMost(gpus=number % 5, cost_micros=(number * 97) % 500)
        count = 1 + number % 3
        actions = [asking(self.scene, self.token, gpus=most.gpus, cost=most.cost_micros) for _ in range(count)]
        try:
            self.scene.applied(*actions, atomic=True)
        except Forbidden:
            held, exposed = self.held(), self.exposed()
            assert held + count * most.gpus > 6 or exposed + count * most.cost_micros > 1_000
            return
        self.most |= {action.workload.id: most for action in actions}

    def start(self, number: int) -> None:
        waiting = [work for work in self.open() if work.phase is Phase.PENDING and not work.stop_requested]
        if waiting:
            self.scene.run(waiting[number % len(waiting)])

    def end(self, number: int) -> None:
        living = [pod for _, pod in self.pods() if pod.seen is not Seen.ENDED]
        if living:
            self.scene.end(living[number % len(living)], exit_code=number % 2)

    def meter(self, number: int) -> None:
        """As far as it goes, and never more than was to be expected at most."""
        for work, pod in self.pods():
            start, end = pod.metered_until or pod.started_at, pod.ended_at or self.scene.now
            if pod.started_at and start < end:
                left = self.most[work.id].cost_micros - self.cost.get(work.id, 0)
                cost = left and number % left
                self.scene.applied(self.scene.usage(pod, start=start, end=end, cost=cost))
                self.cost[work.id] = self.cost.get(work.id, 0) + cost

    def conclude(self, number: int) -> None:
        """A stop, a success or another attempt: of what has no pod that lives."""
        for work in self.open():
            pods = [pod for pod in self.scene.store.allocations(work.key) if pod.attempt == work.attempt]
            if work.phase is Phase.PENDING and (work.stop_requested or number % 3 == 0):
                self.scene.applied(self.scene.advance(work, Phase.STOPPED))
            elif pods and all(pod.seen is Seen.ENDED for pod in pods):
                again = number % 2 and not work.stop_requested
                step = self.scene.advance(work, Phase.PENDING if again else Phase.SUCCEEDED)
                self.scene.applied(replace(step, attempt=work.attempt + 1) if again else step)

    def stop(self, number: int) -> None:
        work = self.open()
        if work:
            self.scene.applied(self.scene.stop(work[number % len(work)]))
        for _, pod in self.pods():
            if pod.seen is not Seen.ENDED and number % 2:
                self.scene.applied(StopPod(allocation_key=pod.key, reason=WHY))

    def close(self, _: int) -> None:
        self.scene.commit(*(self.scene.close(pod) for _, pod in self.pods()))

    def held(self) -> int:
        return sum(self.most[work.id].gpus for work in self.open())

    def exposed(self) -> int:
        """What has been charged, and what all those may cost yet that are open or not wholly metered."""
        owing = {
            work.id
            for work, pod in self.pods()
            if pod.seen is not Seen.ENDED or (pod.started_at and pod.metered_until < pod.ended_at)
        }
        may = owing | {work.id for work in self.open()}
        left = sum(self.most[id_].cost_micros - self.cost.get(id_, 0) for id_ in may)
        return sum(self.cost.values()) + left

    def check(self) -> None:
        found = used(self.scene, self.token)
        assert found.gpus == self.held() <= 6
        assert found.spent_micros == sum(self.cost.values()) == spent(self.scene, self.token)
        assert found.spent_micros + found.reserved_micros == self.exposed() <= 1_000


STEPS = ("submit", "submit", "start", "start", "end", "meter", "conclude", "stop", "close")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=some.lists(some.tuples(some.sampled_from(STEPS), some.integers(0, 10_000)), max_size=30))
def test_whatever_happens_in_whatever_order_the_sums_are_right_and_within_the_caps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    opened = empty_sqlite(Path(tmp_path_factory.mktemp("caps")) / "mainstay.db")
    try:
        model = Model(opened)
        for step, number in steps:
            getattr(model, step)(number)
            model.check()
    finally:
        opened.close()
