"""A view is what was listed last plus what a watch told since; whatever goes wrong, a list makes it true again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mainstay.clusters.kubernetes.api import Page
from mainstay.clusters.kubernetes.errors import (
    ApiError,
    Expired,
    Forbidden,
    Garbled,
    ServerFailed,
    Silent,
    TooManyRequests,
    Unreachable,
)
from mainstay.clusters.kubernetes.informer import GONE_SECONDS, REST_SECONDS_MAX, Informer, Key, looks_older
from mainstay.clusters.kubernetes.kinds import PODS
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.transport import ANSWER_SECONDS
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.misbehaving import connected, event, pod, pods, refuses, says, streams
from tests.unit.clusters.kubernetes.world import World

Seen = tuple[str, str]


def seen(item: Pod) -> Seen:
    return item.metadata.uid, item.status.phase


class Mirror:
    """What somebody knows who only hears of changes."""

    def __init__(self) -> None:
        self.objects: dict[Key, Any] = {}
        self.told: list[Any] = []

    def change(self, key: Key, old: Any, new: Any) -> None:
        assert self.objects.get(key) == old
        assert old != new
        self.told.append(new)
        if new is None:
            del self.objects[key]
        else:
            self.objects[key] = new


@asynccontextmanager
async def informed(world: Any, **options: Any) -> AsyncIterator[tuple[Informer[Pod, Any], Mirror]]:
    mirror = Mirror()
    options = {"project": seen, "clock": ManualClock(), "dice": random.Random(1)} | options
    informer: Informer[Pod, Any] = Informer(world, PODS, on_change=mirror.change, **options)
    task = asyncio.create_task(informer.run())
    try:
        yield informer, mirror
        assert not task.done()
        assert mirror.objects == informer.objects
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def truth(world: World) -> dict[Key, Seen]:
    return {("a", name): seen(item) for name, item in world.objects.items()}


async def test_it_lists_then_follows() -> None:
    world = World()
    for name in ("x", "y", "z"):
        world.put(name, "Pending")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        assert informer.objects == truth(world)
        world.put("x", "Running")
        world.delete("y")
        world.put("z", "Running", anew=True)
        await settle()
        assert informer.objects == truth(world)
        assert (informer.counters.lists, informer.counters.events) == (1, 4)


async def test_an_answer_that_comes_after_what_the_watch_has_told_changes_nothing() -> None:
    world = World()
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        made = world.put("x", "Pending")
        world.put("x", "Failed")
        await settle()
        assert informer.learn(made) == seen(world.objects["x"])
        assert informer.objects == truth(world)


@pytest.mark.parametrize("version", ["11", "9999", "opaque"])
async def test_an_answer_that_comes_after_the_watch_has_told_of_the_end_brings_nothing_back(version: str) -> None:
    world = World()
    async with informed(world) as (informer, mirror):
        await informer.synced.wait()
        made = world.put("x", "Pending")
        world.delete("x")
        await settle()
        made = structs.replace(made, metadata=structs.replace(made.metadata, resource_version=version))
        assert informer.learn(made) == seen(made), "whoever asked is told what the answer was"
        assert informer.objects == {}
        anew = world.put("x", "Pending")
        assert informer.learn(anew) == seen(anew)
        informer.learn(made)
        await settle()
        assert informer.objects == truth(world)
        assert [told and told[0] for told in mirror.told] == ["uid-1", None, "uid-2"]


async def test_what_is_told_out_of_order_after_its_end_brings_nothing_back() -> None:
    world = World()
    world.put("x", "Pending")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        await settle()
        world.swap = True  # the change is told after the end
        world.put("x", "Running")
        world.delete("x")
        await settle()
        assert (informer.counters.events, informer.objects) == (2, {})


async def test_what_had_ended_is_there_again_once_its_cluster_was_set_back() -> None:
    world = World()
    world.put("x", "Pending")
    saved = world.saved()
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        await settle()
        world.put("x", "Running")
        world.delete("x")
        await settle()
        world.restore(saved, Unreachable("restarted"))
        await settle()
        assert informer.objects == truth(world) != {}
        informer.learn(world.put("x", "renewed"))
        await settle()
        assert informer.objects == truth(world)


async def test_the_versions_of_ends_count_for_nothing_after_a_list() -> None:
    """A cluster that was set back gives lower ones: what it tells must not look late."""
    world = World()
    world.put("x", "Pending")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        await settle()
        back = world.objects["x"]
        world.version = 1_000
        world.delete("x")
        await settle()
        world.restore(({}, [], 20, 0), Unreachable("restarted"))
        await settle()
        world.objects["x"] = back
        world.put("x", "selected again")
        await settle()
        assert informer.objects == truth(world) != {}


async def test_the_end_of_an_object_is_remembered_for_as_long_as_an_answer_may_take() -> None:
    world, clock = World(), ManualClock()
    async with informed(world, clock=clock) as (informer, _):
        await informer.synced.wait()
        gone = []
        for _ in range(3):
            gone.append(world.put("x", "Pending"))
            world.delete("x")
            await settle()
            clock.advance(GONE_SECONDS / 2)
        for made in gone[1:]:
            informer.learn(made)
        assert informer.objects == {}
        assert len(informer._gone) == 2
        assert GONE_SECONDS > ANSWER_SECONDS


async def test_an_answer_that_comes_before_the_watch_is_taken_in_at_once() -> None:
    world = World()
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        made = world.put("x", "Pending")
        assert informer.learn(made) == seen(made)
        assert informer.objects == truth(world)


async def test_an_older_change_that_the_watch_tells_after_an_answer_does_not_hide_the_newer_one() -> None:
    world = World()
    world.put("x", "Pending")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        await settle()
        world.put("x", "Running")
        informer.learn(world.put("x", "renewed"))
        await settle()
        assert informer.objects == truth(world)


@dataclass(slots=True)
class Asked(World):
    """Something happens while a list is under way, by page: before it is handed over, and after the list was made."""

    meanwhile: dict[int, Callable[[], object]] = field(default_factory=dict)

    async def list_pages(self, kind: Any, **asked: Any) -> AsyncGenerator[Page[Pod], None]:
        number = 0
        async for page in World.list_pages(self, kind, **asked):
            self.meanwhile.pop(number, lambda: None)()
            number += 1
            yield page


@pytest.mark.parametrize("name", ["w", "z"])  # before its page comes, and after
async def test_an_answer_that_comes_during_a_list_is_not_set_back_by_it(name: str) -> None:
    world = Asked()
    for there in "zyxw":
        world.put(there, "Pending")
    async with informed(world) as (informer, mirror):
        await informer.synced.wait()
        await settle()
        mirror.told.clear()
        world.meanwhile[1] = lambda: informer.learn(world.put(name, "renewed"))
        world.end(Expired("relist"))
        await settle()
        assert (informer.counters.lists, informer.objects) == (2, truth(world))
        assert mirror.told == [seen(world.objects[name])]  # at no moment anything else
        world.put(name, "Failed")
        await settle()
        assert informer.objects == truth(world)


@pytest.mark.parametrize("page", [0, 1])
async def test_an_answer_that_is_older_than_the_list_does_not_stay_in_its_place(page: int) -> None:
    """It was on its way while what it shows changed, or went."""
    world = Asked()
    for name in "zyx":
        world.put(name, "Pending")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        await settle()
        world.lose = 4
        late = [world.put("z", "late"), world.put("v", "late")]
        world.put("z", "Running")
        world.delete("v")
        world.meanwhile[page] = lambda: [informer.learn(answer) for answer in late]
        world.end(Expired("relist"))
        await settle()
        assert (informer.counters.lists, informer.objects) == (2, truth(world))


async def test_what_does_not_change_in_the_projection_is_not_told() -> None:
    world = World()
    world.put("x", "Pending")
    async with informed(world, project=lambda item: item.metadata.uid) as (informer, mirror):
        await informer.synced.wait()
        mirror.objects.clear()  # any further call would now fail
        world.put("x", "Running")
        await settle()
        assert informer.counters.events == 1
        mirror.objects.update(informer.objects)


async def test_what_is_projected_to_nothing_is_not_kept() -> None:
    world = World()
    async with informed(world, project=lambda item: seen(item) if item.status.phase != "Succeeded" else None) as (
        view,
        _,
    ):
        await view.synced.wait()
        world.put("x", "Running")
        world.put("y", "Succeeded")
        await settle()
        assert set(view.objects) == {("a", "x")}
        world.put("x", "Succeeded")
        await settle()
        assert not view.objects


async def test_an_interrupted_watch_goes_on_where_it_was() -> None:
    world = World()
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.put("x", "Pending")
        await settle()
        for error in (None, Unreachable("cut"), Silent("silent"), Garbled("half a line"), ServerFailed("500")):
            world.end(error)
            world.put("x", f"after {error}")
            await settle()
            assert informer.objects == truth(world)
        assert (informer.counters.lists, informer.counters.reconnects) == (1, 5)


async def test_a_version_that_is_too_old_leads_to_a_list() -> None:
    world = World()
    world.put("x", "Pending")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.lose = 2
        world.delete("x")
        world.put("y", "Pending")
        world.compact()
        world.end(Unreachable("cut"))
        await settle()
        assert informer.objects == truth(world)
        assert informer.counters.lists == 2


@pytest.mark.parametrize(
    "failure", [ServerFailed("500"), Unreachable("cut"), Garbled("half"), Forbidden("no"), Expired("410")]
)
async def test_a_list_that_fails_is_made_again_and_nothing_counts_as_gone_before_it_is_whole(failure: ApiError) -> None:
    world = World()
    for number in range(6):
        world.put(f"x{number}", "Pending")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.compact()
        world.put("y", "Pending")
        world.page_failures = [failure, failure, failure]
        world.end(Expired("410"))
        await settle()
        assert len(informer.objects) == 7
        assert informer.objects == truth(world)
        assert informer.counters.failures == 4


async def test_it_is_not_synced_before_all_has_been_listed() -> None:
    world = World(list_failures=[Forbidden("no")] * 3)
    async with informed(world) as (informer, _):
        await asyncio.sleep(0)
        assert not informer.synced.is_set()
        assert isinstance(informer.last_error, Forbidden)
        await informer.synced.wait()
        assert informer.last_error is None


async def test_a_cluster_that_was_set_back_is_listed_again_though_the_watch_would_be_silent() -> None:
    world = World()
    world.put("x", "Pending")
    saved = world.saved()
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.put("x", "Running")
        world.put("y", "Pending")
        await settle()
        world.restore(saved, Unreachable("restarted"))
        await settle()
        assert informer.objects == truth(world)
        world.put("x", "Failed")
        await settle()
        assert informer.objects == truth(world)


async def test_a_server_that_was_away_is_listed_again_whatever_its_version_says() -> None:
    world = World()
    world.put("x", "Pending")
    saved = world.saved()
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.put("x", "Running")
        await settle()
        world.restore(saved, Unreachable("cut"))
        for _ in range(5):
            world.put("y", "Pending", anew=True)
        world.list_failures = [Unreachable("refused")]
        await settle()
        assert informer.objects == truth(world)


async def test_a_bookmark_from_the_past_leads_to_a_list() -> None:
    world = World()
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.put("x", "Pending")
        await settle()
        world.objects, world.history, world.version = {}, [], 5
        world.bookmark()
        await settle()
        assert informer.objects == {}
        assert informer.counters.lists == 2


async def test_late_news_of_a_deleted_pod_say_nothing_of_the_one_that_has_its_name_now() -> None:
    world = World()
    world.put("x", "Running")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.swap = True  # the DELETED is told after the ADDED
        world.put("x", "Pending", anew=True)
        await settle()
        assert informer.objects == truth(world)


async def test_an_object_that_cannot_be_read_is_not_gone() -> None:
    world = World()
    world.put("x", "Running")
    world.put("y", "Running")
    async with informed(world) as (informer, _):
        await informer.synced.wait()
        world.lies = {"x"}
        world.lose = 1
        world.delete("y")
        world.end(Expired("410"))
        await settle()
        assert set(informer.objects) == {("a", "x")}
        assert informer.counters.unreadable == 1


async def test_while_one_object_does_not_even_say_its_name_none_is_gone() -> None:
    nameless = pods({"spec": 7}, version="2")
    answers = (says(pods(pod("x"))), refuses(410, "Expired"), says(nameless), streams(30.0))
    async with connected(*answers) as (api, _), informed(api) as (informer, _):
        while informer.counters.lists < 2:
            await asyncio.sleep(0.01)
        assert set(informer.objects) == {("a", "x")}


async def test_another_cluster_at_the_same_address_does_not_replace_the_view() -> None:
    world, others, another = World(), [False], ServerFailed("this is another cluster")
    world.put("x", "Running")

    async def confirm() -> None:
        if others[0]:
            raise another

    async with informed(world, confirm=confirm) as (informer, _):
        await informer.synced.wait()
        others[0], world.objects = True, {}
        world.end(Expired("410"))
        await settle()
        assert set(informer.objects) == {("a", "x")}
        assert str(informer.last_error) == "this is another cluster"


async def test_it_rests_longer_after_each_failure_and_never_less_than_it_was_asked_to() -> None:
    clock, world = ManualClock(), World()
    asked = TooManyRequests("later")
    asked.retry_after = 100.0
    world.list_failures = [Unreachable("down") for _ in range(40)] + [asked]
    async with informed(world, clock=clock) as (informer, _):
        await informer.synced.wait()
        assert max(clock.slept[:3]) <= 1.0
        assert REST_SECONDS_MAX / 2 < max(clock.slept[:40]) <= REST_SECONDS_MAX
        assert 100.0 <= clock.slept[40] <= 100.0 + REST_SECONDS_MAX
        assert len(set(clock.slept)) == len(clock.slept)


async def test_a_server_that_lists_but_never_watches_is_not_hammered() -> None:
    clock, world = ManualClock(), World()
    world.watch_failures = [Expired("410") for _ in range(20)]
    async with informed(world, clock=clock) as (informer, _):
        while world.watch_failures:
            await asyncio.sleep(0)
        assert informer.counters.lists <= 21
        assert sum(clock.slept) > 60.0


async def test_watches_that_end_without_a_word_are_rested_between() -> None:
    clock, world = ManualClock(), World()
    async with informed(world, clock=clock) as (informer, _):
        await informer.synced.wait()
        for _ in range(20):
            while not world.watches:
                await asyncio.sleep(0)
            world.end()
            await settle()
        assert informer.counters.failures == len(clock.slept) == 20
        assert sum(clock.slept) > 60.0


async def test_it_lists_again_after_its_period_though_nothing_is_wrong() -> None:
    world = World()
    async with informed(world, relist_seconds=0.05) as (informer, _):
        await informer.synced.wait()
        world.put("x", "Pending")
        world.lose = 1
        world.delete("x")
        while informer.counters.lists < 3:
            await asyncio.sleep(0.01)
        await settle()
        assert informer.objects == {}
        assert informer.counters.failures == 0


async def test_contact_is_any_word_of_the_server() -> None:
    clock, world = ManualClock(), World()
    async with informed(world, clock=clock) as (informer, _):
        await informer.synced.wait()
        await settle()
        clock.advance(50.0)
        world.bookmark()
        await settle()
        assert informer.last_contact == clock.seconds
        assert (informer.counters.bookmarks, informer.server_time_seen) == (1, 1)


@pytest.mark.parametrize(
    ("version", "other", "older"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("9", "9", False),
        ("a", "10", False),
        ("9", "", False),
        ("9" * 5_000, "1", False),
    ],
)
def test_versions_are_only_ever_a_hint(version: str, other: str, older: bool) -> None:  # noqa: FBT001
    assert looks_older(version, other) is older


async def test_over_http_too() -> None:
    told = event("ADDED", pod("y", version="2")) + event("DELETED", pod("x", version="3"))
    answers = (says(pods(pod("x"), following="p")), says(pods(pod("z"))), streams(told, 30.0))
    async with connected(*answers) as (api, _), informed(api) as (informer, _):
        while informer.counters.events < 2:
            await asyncio.sleep(0.01)
        assert set(informer.objects) == {("a", "y"), ("a", "z")}
        assert informer.counters.bytes > len(told)


# Whatever happens


def name_and(*more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from("wxyz"), *more)


def learn_late(world: World, kept: dict[str, Any]) -> None:
    """An answer that took its time. What went meanwhile without a word of that would be back until the next list."""
    answer = kept.pop("answer", None)
    there = answer and world.objects.get(answer.metadata.name)
    is_there = there and there.metadata.uid == answer.metadata.uid
    if answer and (is_there or kept["listed_after"] or answer.metadata.uid in kept["gone"]()):
        kept["learn"](answer)


Step = Callable[[World, dict[str, Any]], None]
faults = st.sampled_from(
    [Unreachable("cut"), Silent("silent"), Garbled("half a line"), ServerFailed("500"), Expired("410"), None]
)
steps: st.SearchStrategy[Step] = st.one_of(
    name_and(st.sampled_from("pqr"), st.booleans()).map(
        lambda it: lambda world, _: world.put(it[0], it[1], anew=it[2])
    ),
    name_and(st.sampled_from("pqr")).map(lambda it: lambda world, kept: kept["learn"](world.put(*it))),
    name_and(st.sampled_from("pqr")).map(lambda it: lambda world, kept: kept.update(answer=world.put(*it))),
    st.just(learn_late),
    name_and().map(lambda it: lambda world, _: world.delete(it[0])),
    st.just(lambda world, _: setattr(world, "lose", world.lose + 1)),
    st.just(lambda world, _: setattr(world, "double", world.double + 1)),
    st.just(lambda world, _: setattr(world, "swap", True)),
    st.just(lambda world, _: world.bookmark()),
    st.just(lambda world, _: world.compact()),
    faults.map(lambda error: lambda world, _: world.end(error)),
    faults.map(lambda error: lambda world, _: world.list_failures.extend([error] if error else [])),
    faults.map(lambda error: lambda world, _: world.page_failures.extend([error] if error else [])),
)
restores: st.SearchStrategy[Step] = st.sampled_from(
    [
        lambda world, kept: kept.update(saved=world.saved()),
        lambda world, kept: world.restore(kept["saved"], Unreachable("restarted")) if "saved" in kept else None,
    ]
)


@given(st.lists(st.tuples(steps | restores, st.integers(0, 60)), max_size=30))
def test_whatever_happens_the_next_list_makes_the_view_true(plan: list[tuple[Step, int]]) -> None:
    async def story() -> None:
        world: World = World()
        async with informed(world) as (informer, mirror):
            kept: dict[str, Any] = {"learn": informer.learn, "listed_after": True}
            for step, turns in plan:
                step(world, kept)
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert mirror.objects == informer.objects
            await settle()
            world.end(Expired("in doubt"))
            while not world.watches:
                await asyncio.sleep(0)
            await settle()
            assert informer.objects == truth(world)

    asyncio.run(story())


@given(st.lists(st.tuples(steps, st.integers(0, 60)), max_size=30))
def test_without_losses_and_doubts_no_list_is_needed(plan: list[tuple[Step, int]]) -> None:
    """Cut, doubled and compacted watches, failing lists: the view is true as soon as the server is left in peace."""

    async def story() -> None:
        world: World = World()
        async with informed(world) as (informer, _):
            kept: dict[str, Any] = {"learn": informer.learn, "listed_after": False, "gone": lambda: informer._gone}
            for step, turns in plan:
                step(world, kept)
                world.lose, world.swap = 0, False
                for _ in range(turns):
                    await asyncio.sleep(0)
            while not world.watches:
                await asyncio.sleep(0)
            await settle()
            assert informer.objects == truth(world)

    asyncio.run(story())
