"""The fence admits the highest epoch that anybody has shown it, and no lower one."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.errors import Conflict, ServerFailed
from mainstay.clusters.kubernetes.fence import TRUSTED_SECONDS, Fence
from mainstay.clusters.kubernetes.kinds import LEASES
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.domain.errors import Fenced, NotYet
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.server import Server


@pytest.fixture
def server() -> Server:
    return Server(ManualClock())


def fence(server: Server, system: str = "s", pace: Pace | None = None) -> Fence:
    return Fence(server, server.clock, pace or Pace(clock=server.clock), system=system)  # type: ignore[arg-type]


async def test_it_makes_what_it_needs_and_admits_who_comes_first(server):
    await fence(server).admit(3)
    assert {(kind, name) for kind, _, name in server.objects} == {
        ("namespaces", "mainstay"),
        ("leases", f"mainstay-{names.short('s')}"),
    }
    for document in server.objects.values():
        assert document["metadata"]["labels"] == {names.MANAGED_BY: "mainstay"}


async def test_a_lower_epoch_is_refused_by_every_handle(server):
    await fence(server).admit(5)
    for epoch in (4, 0):
        with pytest.raises(Fenced, match="has seen 5"):
            await fence(server).admit(epoch)
    await fence(server).admit(5)


async def test_who_was_overtaken_notices_once_its_look_is_no_longer_trusted(server):
    old, new = fence(server), fence(server)
    await old.admit(1)
    await new.admit(2)
    await old.admit(1)
    server.clock.advance(TRUSTED_SECONDS)
    with pytest.raises(Fenced):
        await old.admit(1)
    with pytest.raises(Fenced):
        await old.admit(1)


async def test_a_look_is_trusted_for_a_while_and_then_taken_again(server):
    one = fence(server)
    await one.admit(1)
    asked = len(server.calls)
    for _ in range(100):
        await one.admit(1)
    assert len(server.calls) == asked
    server.clock.advance(TRUSTED_SECONDS)
    await one.admit(1)
    assert server.calls[asked:] == [("get", "leases")]


async def test_of_many_at_once_the_highest_stays(server):
    results = await asyncio.gather(
        *(fence(server).admit(epoch) for epoch in (3, 1, 4, 1, 5, 9, 2, 6)), return_exceptions=True
    )
    assert {type(result) for result in results} <= {type(None), Fenced}
    lease = await server.get(LEASES, "mainstay", f"mainstay-{names.short('s')}")
    assert lease.spec.lease_transitions == 9


async def test_a_race_is_decided_by_the_version_of_the_object(server):
    await fence(server).admit(1)
    rival, raced = fence(server), []

    def overtake(verb: str, name: tuple[str, str, str]) -> None:
        if verb == "patch" and not raced:
            raced.append(True)
            task = asyncio.ensure_future(rival.admit(7))
            raced.append(task)
            msg = "changed meanwhile"
            raise Conflict(msg)

    server.before = overtake
    slow = fence(server)
    with contextlib.suppress(Fenced):  # it looks again, and may see the rival's mark at once
        await slow.admit(5)
    await raced[1]
    server.clock.advance(TRUSTED_SECONDS)
    with pytest.raises(Fenced):
        await slow.admit(5)


async def test_who_cannot_ask_is_not_admitted(server):
    def fail(verb: str, name: tuple[str, str, str]) -> None:
        msg = "away"
        raise ServerFailed(msg)

    server.before = fail
    with pytest.raises(ServerFailed):
        await fence(server).admit(1)


async def test_platforms_that_share_a_cluster_do_not_fence_each_other(server):
    await fence(server, "one").admit(9)
    await fence(server, "two").admit(1)


async def test_it_passes_the_gate_before_all_that_waits_there(server):
    pace, order = Pace(clock=server.clock, in_flight_max=1), list[str]()
    server.before = lambda verb, name: order.append(f"{verb} {name[0]}")
    may_end = asyncio.Event()

    async def create() -> None:
        order.append("create pods")

    writes = [asyncio.create_task(pace.write(may_end.wait))]
    await asyncio.sleep(0)
    writes += [asyncio.create_task(pace.write(create)) for _ in range(20)]
    await asyncio.sleep(0)
    admitted = asyncio.create_task(fence(server, pace=pace).admit(3))
    await asyncio.sleep(0.01)
    assert order == ["get leases"]
    may_end.set()
    await asyncio.gather(*writes, admitted)
    written = [one for one in order if "get" not in one]
    assert written[0] == "create leases"
    assert written.index("patch leases") <= 6, "each of its four writes waits for one that is under way, at most"
    assert written.count("create pods") == 20


async def test_of_many_that_are_admitted_at_once_one_writes(server):
    one = fence(server)
    await asyncio.gather(*(one.admit(2) for _ in range(50)))
    assert [verb for verb, plural in server.calls if plural == "leases"] == ["get", "create", "create", "patch", "get"]


@pytest.mark.parametrize("how", ["set back", "deleted"])
async def test_whoever_stands_in_the_gate_only_reads_and_is_admitted_anew_where_the_mark_was_lowered(server, how):
    """With one place in the gate, another write of theirs would wait for themselves."""
    pace = Pace(clock=server.clock, in_flight_max=1)
    one, mark = fence(server, pace=pace), ("leases", "mainstay", f"mainstay-{names.short('s')}")
    await one.admit(1)
    saved = server.objects[mark]
    await one.admit(4)
    if how == "set back":
        server.objects[mark] = saved
    else:
        del server.objects[mark]
    server.clock.advance(TRUSTED_SECONDS)
    asked = len(server.calls)
    async with asyncio.timeout(5):
        with pytest.raises(NotYet, match="set back"):
            await pace.write(lambda: one.still_admits(4))
        assert server.calls[asked:] == [("get", "leases")]
        await one.admit(4)
        await pace.write(lambda: one.still_admits(4))
    assert server.objects[mark]["spec"]["leaseTransitions"] == 4
    await fence(server).admit(5)
    server.clock.advance(TRUSTED_SECONDS)
    with pytest.raises(Fenced):
        await pace.write(lambda: one.still_admits(4))
