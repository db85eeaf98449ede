"""What each node has left follows from the pods that are there, in whatever order they came, changed and went."""

from __future__ import annotations

import asyncio
import random
import re
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.picture import (
    ORPHAN_SECONDS,
    REPORT_SECONDS,
    SETTLED_SECONDS,
    SILENT_SECONDS_MAX,
    Picture,
)
from mainstay.clusters.kubernetes.views import view
from mainstay.clusters.kubernetes.waiting import Inquiry, Words
from mainstay.domain.allocation import End, Seen
from mainstay.domain.errors import Denied, Unavailable
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.objects import STARTED, SYSTEM, T0, node, pod

RUNNING = {"running": {"startedAt": STARTED}}
NODES = ("n1", "n2")


class Watched:
    """A picture that is told of objects as its informers would be told."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.picture = Picture(self, self.clock, system=SYSTEM)  # type: ignore[arg-type]  # nothing is asked but the time
        self.seen_at = T0
        for name in NODES:
            self.node(node(name, allocatable={"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "8"}))

    def list_pages(self) -> None: ...

    watch = list_pages

    def server_time(self) -> int:
        return self.seen_at

    def node(self, shown) -> None:
        self.picture._nodes._put(shown)

    def pod(self, shown: Pod) -> None:
        self.picture._pods._put(shown)

    def gone(self, shown: Pod) -> None:
        self.picture._pods._drop(shown)

    def at(self, seconds: float) -> None:
        self.seen_at = T0 + round(seconds * 1_000_000)
        for informer in self.picture._informers:
            informer._heard(self.seen_at)

    def reported(self, name: str = "run-1-0"):
        return {state.name: state for state in self.picture.pods()}[name]


def with_cpu(name: str, cpu: str, *, on: str, ours: bool, phase: str = "Running", gpus: int = 0) -> Pod:
    resources = {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"nvidia.com/gpu": gpus}}
    spec = {"containers": [{"name": names.MAIN, "resources": resources}]}
    labels = {} if ours else {names.SYSTEM: "another"}
    return pod(name, node=on, spec=spec, status={"phase": phase}, labels=labels)


shown = st.builds(
    with_cpu,
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["1", "250m", "2", "-1"]),
    on=st.sampled_from(["", *NODES]),
    ours=st.booleans(),
    phase=st.sampled_from(["Running", "Pending", "Succeeded", "Failed"]),
    gpus=st.integers(0, 2),
)


@given(events=st.lists(st.tuples(shown, st.booleans()), max_size=40), seed=st.integers())
def test_room_is_conserved_in_whatever_order_pods_come_change_and_go(events, seed):
    watched = Watched()
    there: dict[str, Pod] = {}
    for one, goes in events:
        if goes and one.metadata.name in there:
            watched.gone(there.pop(one.metadata.name))
        else:
            there[one.metadata.name] = one
            watched.pod(one)
    anew = Watched()
    for one in random.Random(seed).sample(list(there.values()), len(there)):
        anew.pod(one)
    assert watched.picture.nodes() == anew.picture.nodes()
    for name in NODES:
        assert watched.picture.free(name) == anew.picture.free(name) == _left(there, name)
    assert watched.picture.ours == anew.picture.ours
    for one in list(there.values()):
        watched.gone(one)
    assert watched.picture._used == {}
    assert watched.picture.nodes() == Watched().picture.nodes()


def _left(there: dict[str, Pod], on: str) -> Resources:
    held = [view(one, system=names.short(SYSTEM)).holds for one in there.values() if one.spec.node_name == on]
    return Resources(
        cpu_milli=16_000 - sum(one.cpu_milli for one in held),
        memory_bytes=64 * BYTES_PER_GIB - sum(one.memory_bytes for one in held),
        gpus=8 - sum(one.gpus for one in held),
    )


def buried(name: str, last_node: str) -> Pod:
    return pod(
        name,
        node="",
        labels={names.TOMBSTONE: "true"},
        annotations={names.LAST_NODE: last_node},
        status={"phase": "Pending"},
        creationTimestamp=STARTED,
    )


POD_NAMES, PULLS = st.sampled_from(["a", "b"]), {"waiting": {"reason": "ContainerCreating"}}
EVENTS = st.one_of(
    st.tuples(
        st.just("pod"),
        st.builds(pod, POD_NAMES, node=st.just("n1"), main=st.sampled_from([RUNNING, PULLS])),
    ),
    st.tuples(st.just("pod"), st.builds(buried, POD_NAMES, st.sampled_from(["", "n1"]))),
    st.tuples(st.just("gone"), POD_NAMES),
    st.tuples(st.just("words"), POD_NAMES),
    st.tuples(st.just("node"), st.sampled_from(["True", "Unknown"])),
    st.tuples(st.just("later"), st.sampled_from([SETTLED_SECONDS, ORPHAN_SECONDS, REPORT_SECONDS])),
)


@given(st.lists(EVENTS, min_size=3, max_size=20))
@example(
    [
        ("pod", pod("a", main=RUNNING)),
        ("later", 600),
        ("node", "Unknown"),
        ("node", "True"),
        ("later", SETTLED_SECONDS),
    ]
)
def test_whoever_looks_all_the_time_sees_what_sees_whoever_looks_once(events):
    often, once = Watched(), Watched()
    now, there = 0, {}
    for number, (kind, what) in enumerate(events):
        if kind == "pod":
            there[what.metadata.name] = what
        now += what if kind == "later" else 0
        for watched in (often, once):
            if kind == "pod":
                watched.pod(what)
            elif kind == "gone" and what in there:
                watched.gone(there[what])
            elif kind == "node":
                watched.node(node("n1", ready=what, since=at(now)))
            elif kind == "later":
                watched.at(now)
            elif kind == "words" and (known := watched.picture.ours.get(what)):
                told = Words(seen=Seen.PULLING, detail=f"pulls {number}")
                watched.picture.waiting._asked[what] = Inquiry(known=known, next_at=0, words=told)
        if kind == "gone":
            there.pop(what, None)
        seen = often.picture.pods(), often.picture.nodes()
    silent = once.picture.silent()
    assert set(seen[0]) == {once.picture._reported(known, silent) for known in once.picture.ours.values()}
    assert seen[1] == once.picture.nodes()
    assert often.picture.pods() is often.picture.pods()
    ours = often.picture.ours
    assert often.picture.restless == {name: known for name, known in ours.items() if known.is_restless}
    assert often.picture.logged == {name: known for name, known in ours.items() if known.is_logged}


def test_what_strangers_take_is_not_offered_and_what_ours_take_is():
    watched = Watched()
    watched.pod(with_cpu("theirs", "2", on="n1", ours=False))
    watched.pod(with_cpu("ours", "4", on="n1", ours=True))
    assert watched.picture.nodes()[0].capacity.cpu_milli == 14_000
    assert watched.picture.free("n1").cpu_milli == 10_000


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_that_meets_the_first_list_is_not_swallowed(steps):
    watched = Watched()
    watched.at(0)
    informers = watched.picture._informers
    watched.picture._tasks = [asyncio.create_task(asyncio.sleep(0))]
    for informer in informers[:-1]:
        informer.synced.set()
    looking = asyncio.create_task(watched.picture.ready())
    await asyncio.sleep(0.01)
    informers[-1].synced.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    if looking.cancel():
        with pytest.raises(asyncio.CancelledError):
            await looking


def test_a_node_that_changes_is_shown_as_it_is_now():
    watched = Watched()
    assert all(state.ready for state in watched.picture.nodes())
    watched.node(node("n1", unschedulable=True))
    assert [state.ready for state in watched.picture.nodes()] == [False, True]
    assert watched.picture.why_not("n1") == "cordoned in its cluster"
    assert watched.picture.why_not("n9") == "it is not there"


def test_which_nodes_have_the_image_of_a_pod_of_ours_is_told_once_there_is_one():
    watched = Watched()
    has = {"images": [{"names": ["ghcr.io/acme/train:v1"], "sizeBytes": 900}]}
    shown = node("n2")
    watched.node(msgspec.structs.replace(shown, status=msgspec.convert(has, type(shown.status))))
    assert [state.images for state in watched.picture.nodes()] == [(), ()]
    watched.pod(pod(spec={"containers": [{"name": "main", "image": "ghcr.io/acme/train:v1"}]}))
    assert [state.images for state in watched.picture.nodes()] == [(), (("ghcr.io/acme/train:v1", 900),)]
    watched.node(node("n2"))
    assert [state.images for state in watched.picture.nodes()] == [(), ()]


def test_a_pod_on_a_silent_node_is_unknown_unless_its_end_was_reported():
    watched = Watched()
    watched.pod(pod(main=RUNNING))
    watched.pod(pod("ended-1-0", main={"terminated": {"exitCode": 0, "startedAt": STARTED, "finishedAt": STARTED}}))
    watched.node(node("n1", ready="Unknown"))
    assert watched.reported().seen is Seen.UNKNOWN
    assert "n1" in watched.reported().detail
    assert watched.reported("ended-1-0").end is End.EXITED
    watched.node(node("n1"))
    assert watched.reported().seen is Seen.RUNNING


def test_a_node_that_is_back_is_believed_once_it_had_the_time_to_tell_what_became_of_its_pods():
    watched = Watched()
    watched.pod(pod(main=RUNNING))
    watched.node(node("n1", ready="Unknown"))
    watched.at(600)
    watched.node(node("n1", since=at(600)))
    watched.pod(pod("new-1-0", main={"running": {"startedAt": at(601)}}))
    assert (watched.reported().seen, watched.reported("new-1-0").seen) == (Seen.UNKNOWN, Seen.RUNNING)
    assert "is back and has not said yet" in watched.reported().detail
    watched.at(600 + SETTLED_SECONDS)
    assert watched.reported().seen is Seen.RUNNING


def test_a_platform_that_has_just_started_knows_a_node_that_is_just_back():
    watched = Watched()
    watched.at(600)
    watched.node(node("n3", since=at(595)))
    watched.pod(pod(main=RUNNING, node="n3"))
    assert watched.reported().seen is Seen.UNKNOWN
    watched.at(595 + SETTLED_SECONDS)
    assert watched.reported().seen is Seen.RUNNING


def at(seconds: int) -> str:
    """So long after `STARTED`."""
    moment = datetime.fromisoformat(STARTED) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_pod_whose_node_object_is_gone_is_told_as_it_was_seen_last():
    watched = Watched()
    watched.pod(pod(main=RUNNING, node="n9"))
    assert watched.reported().seen is Seen.RUNNING


def tombstone(last_node: str) -> Pod:
    return pod(
        node="",
        labels={names.TOMBSTONE: "true"},
        annotations={names.LAST_NODE: last_node} if last_node else {},
        status={"phase": "Pending"},
        creationTimestamp=STARTED,
    )


def test_what_vanished_has_ended_only_once_its_node_had_the_time_to_end_it():
    watched = Watched()
    watched.pod(tombstone("n1"))
    watched.at(ORPHAN_SECONDS + REPORT_SECONDS - 1)
    assert watched.reported().seen is Seen.UNKNOWN
    watched.at(ORPHAN_SECONDS + REPORT_SECONDS)
    assert watched.reported().end is End.NEVER_STARTED


def test_what_vanished_from_a_silent_node_is_unknown_for_as_long_as_that_is_silent():
    watched = Watched()
    watched.pod(tombstone("n1"))
    watched.node(node("n1", ready="Unknown"))
    watched.at(10_000)
    assert watched.reported().seen is Seen.UNKNOWN
    off = [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]
    watched.node(node("n1", ready="Unknown", taints=off))
    assert watched.reported().end is End.NEVER_STARTED


@pytest.mark.parametrize("last_node", ["", "n9"])
def test_what_was_nowhere_or_on_a_node_that_is_gone_needs_nobodys_word(last_node):
    watched = Watched()
    watched.pod(tombstone(last_node))
    watched.at(0)
    assert watched.reported().end is End.NEVER_STARTED


def test_ends_are_known_up_to_a_little_before_the_last_word_of_both_views():
    watched = Watched()
    assert watched.picture.seen_until == 0
    watched.at(100)
    assert watched.picture.seen_until == T0 + (100 - REPORT_SECONDS) * 1_000_000


async def test_a_view_that_heard_nothing_for_too_long_is_none():
    watched = Watched()
    for informer in watched.picture._informers:
        informer.synced.set()
        informer._heard(T0)
    for informer in (watched.picture._slices, watched.picture._claims):
        informer.tried.set()
    watched.picture._tasks = [None]  # type: ignore[list-item]  # they run already
    await watched.picture.ready()
    watched.clock.advance(SILENT_SECONDS_MAX + 1)
    with pytest.raises(Unavailable, match="cannot be seen"):
        await watched.picture.ready()


async def test_who_is_told_to_stop_while_it_looks_stops():
    watched = Watched()
    for informer in watched.picture._informers:
        informer.synced.set()
        informer._heard(T0)
    watched.picture._tasks = [None]  # type: ignore[list-item]  # they run already

    async def looks_and_works_on() -> None:
        await watched.picture.ready()
        await asyncio.sleep(0)

    for turns in range(6):
        task = asyncio.create_task(looks_and_works_on())
        for _ in range(turns):
            await asyncio.sleep(0)
        told = task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() == told


@pytest.mark.parametrize(("code", "seen"), [(1, End.STOPPED), (0, End.STOPPED), (143, End.STOPPED)])
def test_whoever_saw_a_pod_asked_to_end_knows_that_also_when_its_kubelet_has_said_its_last_word(code, seen):
    """Its last word, a request with a grace of 0, moves the timestamp of the first one behind the end."""
    watched = Watched()
    watched.pod(pod(main=RUNNING))
    watched.pod(pod(main=RUNNING, deletionTimestamp="2026-01-01T10:01:25Z", deletionGracePeriodSeconds=30))
    end = {"terminated": {"exitCode": code, "startedAt": STARTED, "finishedAt": "2026-01-01T10:00:57Z"}}
    watched.pod(pod(main=end, deletionTimestamp="2026-01-01T10:01:05Z", deletionGracePeriodSeconds=0))
    assert watched.reported("run-1-0").end is seen


def test_an_end_before_the_request_is_an_end_by_itself_also_for_whoever_saw_that():
    watched = Watched()
    watched.pod(pod(main=RUNNING, deletionTimestamp="2026-01-01T10:01:30Z", deletionGracePeriodSeconds=30))
    end = {"terminated": {"exitCode": 143, "startedAt": STARTED, "finishedAt": "2026-01-01T10:00:57Z"}}
    watched.pod(pod(main=end, deletionTimestamp="2026-01-01T10:01:05Z", deletionGracePeriodSeconds=0))
    assert watched.reported("run-1-0").end is End.EXITED


def test_what_was_asked_of_another_pod_of_the_name_says_nothing():
    watched = Watched()
    watched.pod(pod(main=RUNNING, deletionTimestamp="2026-01-01T10:00:31Z", deletionGracePeriodSeconds=30))
    end = {"terminated": {"exitCode": 3, "startedAt": STARTED, "finishedAt": "2026-01-01T10:00:57Z"}}
    watched.pod(pod(main=end, uid="another", deletionTimestamp="2026-01-01T10:01:05Z", deletionGracePeriodSeconds=0))
    assert watched.reported("run-1-0").end is End.EXITED


def test_pods_of_one_uid_are_told_by_name_until_one_is_left():
    watched = Watched()
    for name in ("a-1-0", "b-1-0", "c-1-0"):
        watched.pod(pod(name, main=RUNNING))
    watched.picture.require_sane()
    for name in ("b-1-0", "c-1-0"):
        watched.pod(pod(name, main=RUNNING, uid="uid-a-1-0"))
    with pytest.raises(Denied) as refused:
        watched.picture.require_sane()
    assert re.search(r"the UID uid-a-1-0: \S+/a-1-0, \S+/b-1-0, \S+/c-1-0$", refused.value.message)
    assert "delete all of them but one" in refused.value.hint
    watched.gone(pod("a-1-0", main=RUNNING))
    with pytest.raises(Denied) as refused:
        watched.picture.require_sane()
    assert re.search(r"UID uid-a-1-0: \S+/b-1-0, \S+/c-1-0$", refused.value.message)
    watched.gone(pod("b-1-0", uid="uid-a-1-0"))
    watched.picture.require_sane()
    watched.pod(pod("d-1-0", main=RUNNING))
    watched.picture.require_sane()


def test_uids_of_pods_that_do_not_concern_us_are_their_own_matter():
    watched = Watched()
    for name in ("a", "b"):
        watched.pod(with_cpu(name, "1", on="n1", ours=False))
        watched.pod(pod(name, labels={names.SYSTEM: "another"}, uid="same"))
    watched.picture.require_sane()


def test_every_pod_that_is_not_over_is_one_of_those_that_its_node_takes():
    watched = Watched()
    assert watched.picture.pods_free("n1") is None
    watched.node(node("n1", allocatable={"cpu": "16", "memory": "64Gi", "pods": "5"}))
    watched.pod(pod("a", labels={names.SYSTEM: "another"}))  # asks for nothing, and is one all the same
    watched.pod(with_cpu("b", "1", on="n1", ours=True))
    assert (watched.picture.nodes()[0].pods_max, watched.picture.pods_free("n1")) == (4, 3)
    watched.pod(with_cpu("c", "1", on="n1", ours=True))
    watched.pod(with_cpu("b", "1", on="n1", ours=True, phase="Succeeded"))
    assert (watched.picture.nodes()[0].pods_max, watched.picture.pods_free("n1")) == (4, 3)
    watched.gone(pod("a", labels={names.SYSTEM: "another"}))
    watched.gone(with_cpu("c", "1", on="n1", ours=True))
    assert (watched.picture.nodes()[0].pods_max, watched.picture.pods_free("n1")) == (5, 5)


def test_nodes_that_are_alike_share_what_they_say_of_themselves_and_what_none_is_any_more_is_forgotten(monkeypatch):
    monkeypatch.setattr("mainstay.clusters.kubernetes.picture.KINDS_SPARE", 3)
    watched = Watched()
    for beat in range(20):
        for name in NODES:
            watched.node(node(name, labels={"kubernetes.io/hostname": name, "beat": str(beat)}))
        first, second = watched.picture.nodes()
        assert first.traits is second.traits
        assert first.traits.labels == (("beat", str(beat)),)
        assert len(watched.picture._kinds) <= 3 + 2 * len(NODES)
