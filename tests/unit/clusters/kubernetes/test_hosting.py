"""What is done for guests: all have their turn, and nobody is told what is not so."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.errors import Unreachable
from mainstay.clusters.kubernetes.hosting import GROUP_AGAIN_SECONDS, GROUPS_MAX, Hosting
from mainstay.clusters.kubernetes.lodgings import Lodgings
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.views import view
from mainstay.domain.allocation import BindPod, EvictPod, ReleasePod, TellPod
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import PodRef
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.server import Server

SYSTEM = "1f00"


class Host(Server):
    """One that places and evicts as well, and says nothing of it."""

    async def bind(self, namespace: str, pod: str, **_: Any) -> None:
        self._told("bind", ("pods", namespace, pod))

    async def evict(self, namespace: str, pod: str, **_: Any) -> None:
        self._told("evict", ("pods", namespace, pod))

    async def patch(self, *asked: Any, by: str) -> Any:
        return await super().patch(*asked)


class Groups:
    """Guests that wait, each of a group of its own, on a server where some of their PodGroups are."""

    def __init__(self, count: int) -> None:
        self.clock = ManualClock()
        self.server = Host(self.clock)
        self.pace = Pace(clock=self.clock, in_flight_max=1)
        self.lodgings = Lodgings(self.clock, now=self.clock.now)
        self.names = [f"g{number}" for number in range(count)]
        for name in self.names:
            meta = {"name": name, "namespace": "ns", "uid": name, "labels": {names.GROUP_LABEL: name}}
            spec = {"schedulerName": "mainstay", "containers": [{"name": "a"}]}
            made = view(
                msgspec.convert({"metadata": meta, "spec": spec}, Pod), system=SYSTEM, scheduler_name="mainstay"
            )
            self.lodgings.changed(("ns", name), None, made)
        picture: Any = SimpleNamespace(lodgings=self.lodgings, why_no_guest=lambda *_: "")  # as much as is used
        self.hosting = Hosting(
            self.server,  # type: ignore[arg-type]  # as much of it as is used
            self.clock,
            picture,
            self.pace,
            system=SYSTEM,
            require_room=lambda _pod, _node, _amount: None,
        )

    def make(self, name: str, size: int) -> None:
        self.server.objects["podgroups", "ns", name] = {"metadata": {"name": name}, "spec": {"minMember": size}}

    async def round(self) -> int:
        """How many were asked for in it."""
        before = len(self.server.calls)
        self.clock.advance(1.0)
        await self.hosting.look_up_groups()
        return len(self.server.calls) - before

    def sizes(self) -> list[int | None]:
        """As they are reported, by the order of their names."""
        told = {guest.pod.name: guest.group for guest in self.lodgings.guests({})}
        return [group.size for name in self.names if (group := told[name])]


@pytest.mark.parametrize("there", [0, 60, 120])
async def test_every_group_has_its_turn_whatever_is_found_of_those_before_it(there: int) -> None:
    groups = Groups(120)
    for name in groups.names[:there]:
        groups.make(name, 2)
    assert groups.sizes() == [None] * 120
    assert await groups.round() == GROUPS_MAX
    assert groups.sizes().count(None) == 120 - GROUPS_MAX  # of these nobody says that they are not there
    for _ in range(2):
        assert await groups.round() <= GROUPS_MAX
    assert groups.sizes() == [2] * there + [0] * (120 - there)


async def test_a_group_that_is_made_late_is_found_among_many_that_are_not_there() -> None:
    groups = Groups(120)
    for _ in range(3):
        await groups.round()
    groups.make("g119", 4)
    for _ in range(3):
        assert await groups.round() == GROUPS_MAX
    assert groups.sizes() == [0] * 119 + [4]


async def test_a_size_that_is_known_is_read_again_after_a_while_and_not_before() -> None:
    groups = Groups(1)
    groups.make("g0", 2)
    assert (await groups.round(), await groups.round()) == (1, 0)
    groups.make("g0", 3)
    groups.clock.advance(GROUP_AGAIN_SECONDS)
    assert await groups.round() == 1
    assert groups.sizes() == [3]
    del groups.server.objects["podgroups", "ns", "g0"]
    groups.clock.advance(GROUP_AGAIN_SECONDS)
    await groups.round()
    assert groups.sizes() == [3]


async def test_one_that_cannot_be_read_does_not_keep_the_others() -> None:
    groups = Groups(3)
    for name in groups.names:
        groups.make(name, 2)

    def fail(_verb: str, asked: tuple[str, str, str]) -> None:
        if asked[2] == "g0":
            msg = "cut"
            raise Unreachable(msg)

    groups.server.before = fail
    for _ in range(2):
        with pytest.raises(Unreachable):  # in the second round it comes last
            await groups.round()
    assert groups.sizes() == [None, 2, 2]


GUEST = PodRef(namespace="ns", name="g0", uid="g0")
BIND = BindPod(name="w", node="n", pod=GUEST, attempt=1, holds=Resources(), restriction="")


@pytest.mark.parametrize(
    ("verb", "write"),
    [
        ("bind", lambda hosting: hosting.bind(BIND, by="us")),
        ("patch", lambda hosting: hosting.release(ReleasePod(name="w", pod=GUEST, attempt=1), by="us")),
        ("evict", lambda hosting: hosting.evict(EvictPod(name="w", node="n", pod=GUEST, grace_seconds=1), by="us")),
        ("create", lambda hosting: hosting.tell(TellPod(name="w", pod=GUEST, words="it waits"))),
    ],
)
async def test_what_is_written_for_guests_waits_for_its_turn(verb: str, write: Any) -> None:
    groups, first = Groups(1), asyncio.Event()
    ahead = asyncio.create_task(groups.pace.write(first.wait))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(write(groups.hosting))
    for _ in range(20):
        await asyncio.sleep(0)
    assert groups.server.calls == []
    first.set()
    await asyncio.gather(ahead, waiting)
    assert [asked for asked, _ in groups.server.calls] == [verb]
