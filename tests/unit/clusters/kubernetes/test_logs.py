"""A log is one stream with offsets of its own, however often its source breaks, and stays when its pod is gone."""

from __future__ import annotations

import asyncio

import pytest

from mainstay.clusters.kubernetes import logs as module
from mainstay.clusters.kubernetes.errors import Invalid, NotFound, Unreachable
from mainstay.clusters.kubernetes.log_lines import GAP
from mainstay.clusters.kubernetes.logs import Logs
from mainstay.domain import errors
from mainstay.simulation.files import MemoryArtifacts
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.server import Server


class Rig:
    def __init__(self) -> None:
        self.server = Server(ManualClock())
        self.artifacts = MemoryArtifacts()
        self.handed: dict[str, tuple[bytes, ...]] = {}
        self.fault: Exception | None = None
        self.asked = 0
        self.logs = self.anew()

    def anew(self) -> Logs:
        return Logs(self.server, self.artifacts, self.server.clock, cluster="k8s", handed=self.handed_to)  # type: ignore[arg-type]

    async def handed_to(self, pod: str) -> tuple[bytes, ...]:
        self.asked += 1
        if self.fault:
            raise self.fault
        return self.handed.get(pod, ())

    async def read(self, offset: int = 0, limit: int = 1_000, *, ended: bool = True):
        return await self.logs.read("p", "ns", offset=offset, limit=limit, ended=ended)

    async def copied(self, *, ended: bool = True) -> None:
        followed = self.logs.follow("p", "ns", ended=ended, wanted=True)
        assert followed is not None
        for _ in range(100):
            await asyncio.sleep(0)
            if followed.task is None:
                return

    async def kept(self) -> None:
        for _ in range(100):
            if await self.logs.keep("p", "ns"):
                return
            await asyncio.sleep(0.001)
        raise AssertionError


@pytest.fixture
async def rig():
    made = Rig()
    yield made
    await made.logs.close()


async def test_pieces_follow_each_other_without_gap_or_repeat(rig):
    rig.server.logs["p"] = [b"one\n", b"two\n", b"three\n"]
    await rig.copied()
    text, offset = b"", 0
    while True:
        chunk = await rig.read(offset, 3)
        assert (chunk.dropped, chunk.next_offset) == (0, offset + len(chunk.data))
        text, offset = text + chunk.data, chunk.next_offset
        if chunk.ended:
            break
    assert text == b"one\ntwo\nthree\n"


async def test_a_stream_that_broke_goes_on_where_it_was(rig):
    rig.server.logs["p"] = [b"one\n", b"tw", Unreachable("cut")]
    await rig.copied(ended=False)
    assert (await rig.read(ended=False)).data == b"one\ntw"
    rig.server.logs["p"] = [b"on", b"e\ntwo\n", b"three\n"]
    await rig.copied(ended=False)  # the one that the reader has started
    await rig.copied()
    chunk = await rig.read()
    assert (chunk.data, chunk.ended) == (b"one\ntwo\nthree\n", True)


async def test_a_log_that_is_followed_has_not_ended(rig):
    rig.server.logs["p"] = [b"one\n"]
    await rig.copied(ended=False)
    assert not (await rig.read(ended=False)).ended


async def test_what_lies_too_far_back_is_said_to_be_dropped(rig, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES_MAX", 10)
    rig.server.logs["p"] = [bytes([65 + number]) * 6 for number in range(8)]
    await rig.copied()
    chunk = await rig.read()
    assert chunk.dropped > 0
    assert chunk.next_offset == 48
    assert chunk.data == b"AAAAAABBBBBBCCCCCCDDDDDDEEEEEEFFFFFFGGGGGGHHHHHH"[chunk.dropped :]
    assert len(chunk.data) <= 20
    await rig.kept()
    kept = await rig.logs.read_kept("p", offset=0, limit=1_000)
    assert (kept.data, kept.dropped, kept.next_offset, kept.ended) == (chunk.data, chunk.dropped, 48, True)
    rest = await rig.logs.read_kept("p", offset=40, limit=1_000)
    assert (rest.data, rest.dropped, rest.next_offset) == (b"GGHHHHHH", 0, 48)


async def test_what_a_kubelet_has_rotated_away_while_the_stream_was_cut_is_told_and_nothing_else_is_lost(rig):
    written = [b"%03d\n" % number for number in range(160)]
    rig.server.logs["p"] = [b"".join(written[:100]), Unreachable("cut")]
    await rig.copied(ended=False)
    rig.server.rotated = 120
    rig.server.logs["p"] = [b"".join(written[:150])]
    await rig.copied(ended=False)
    rig.server.logs["p"] = [b"".join(written)]
    await rig.kept()
    kept = await rig.logs.read_kept("p", offset=0, limit=10_000)
    assert kept.data == b"".join(written[:100]) + GAP + b"".join(written[120:])


async def test_a_log_that_broke_and_is_gone_says_that_more_may_be_missing(rig):
    rig.server.logs["p"] = [b"one\ntw", Unreachable("cut")]
    await rig.copied(ended=False)
    del rig.server.logs["p"]
    await rig.kept()
    assert (await rig.logs.read_kept("p", offset=0, limit=1_000)).data == b"one\ntw\n" + GAP


async def test_a_kept_log_is_read_by_whoever_asks(rig):
    rig.server.logs["p"] = [b"one\n", b"two\n"]
    await rig.kept()
    rig.logs.drop("p")
    del rig.server.logs["p"]
    other = rig.anew()
    whole = await other.read_kept("p", offset=0, limit=100)
    assert (whole.data, whole.next_offset, whole.ended) == (b"one\ntwo\n", 8, True)
    part = await other.read_kept("p", offset=2, limit=3)
    assert (part.data, part.next_offset, part.ended) == (b"e\nt", 5, False)
    beyond = await other.read_kept("p", offset=50, limit=3)
    assert (beyond.data, beyond.next_offset, beyond.ended) == (b"", 50, True)


async def test_keeping_twice_is_keeping_once(rig):
    rig.server.logs["p"] = [b"one\n"]
    await rig.kept()
    await rig.kept()
    assert (await rig.logs.read_kept("p", offset=0, limit=10)).data == b"one\n"


async def test_an_empty_log_is_kept_too(rig):
    rig.server.logs["p"] = []
    await rig.kept()
    assert (await rig.logs.read_kept("p", offset=0, limit=10)).ended


async def test_the_log_of_a_container_that_is_gone_is_what_was_heard_of_it(rig):
    rig.server.logs["p"] = [b"one\n"]
    await rig.copied(ended=False)
    del rig.server.logs["p"]
    await rig.kept()
    assert (await rig.logs.read_kept("p", offset=0, limit=10)).data == b"one\n"


async def test_the_end_of_a_pod_that_never_ran_does_not_wait_for_a_log(rig):
    refusal = Invalid('container "main" in pod "p" is terminated')
    rig.server.logs["p"] = [refusal]
    await rig.kept()
    assert rig.server.clock.slept == []
    assert (await rig.logs.read_kept("p", offset=0, limit=10)).data == b""


async def test_nobody_has_no_log(rig):
    with pytest.raises(errors.NotFound):
        await rig.logs.read_kept("nobody", offset=0, limit=10)
    assert issubclass(NotFound, errors.NotFound)


async def test_only_so_many_are_followed_unless_somebody_reads(rig, monkeypatch):
    monkeypatch.setattr(module, "FOLLOWED_MAX", 1)
    rig.server.logs |= {"p": [b"x"], "q": [b"y"]}
    assert rig.logs.follow("p", "ns", ended=False) is not None
    assert rig.logs.follow("q", "ns", ended=False) is None
    assert rig.logs.follow("q", "ns", ended=False, wanted=True) is not None


async def test_a_log_that_is_read_takes_the_place_of_the_one_that_was_read_longest_ago(rig, monkeypatch):
    monkeypatch.setattr(module, "FOLLOWED_MAX", 2)
    rig.server.logs |= {name: [name.encode()] for name in "opqr"}
    for name in "opq":
        await rig.logs.read(name, "ns", offset=0, limit=9, ended=False)
        rig.server.clock.advance(1.0)
    assert rig.logs._followed.keys() == {"o", "p", "q"}  # somebody may still be reading each of them
    rig.server.clock.advance(module.READ_SECONDS)
    await rig.logs.read("o", "ns", offset=0, limit=9, ended=False)
    await rig.logs.read("r", "ns", offset=0, limit=9, ended=False)
    assert rig.logs._followed.keys() == {"o", "q", "r"}


async def test_all_logs_together_hold_so_much_and_no_more(rig, monkeypatch):
    monkeypatch.setattr(module, "HELD_BYTES_MAX", 50)
    rig.server.logs |= {f"p{number}": [b"x" * 19 + b"\n"] * 2 for number in range(4)}
    for number in range(4):
        await rig.logs.read(f"p{number}", "ns", offset=0, limit=99, ended=True)
        rig.server.clock.advance(1.0)
        for _ in range(100):
            await asyncio.sleep(0)
    assert rig.logs._followed.keys() == {"p3"}
    assert len((await rig.logs.read("p3", "ns", offset=0, limit=99, ended=True)).data) == 40
    again = rig.logs.follow("p0", "ns", ended=True, wanted=True)  # whoever comes back to one gets it anew
    assert again is not None
    while again.task:
        await asyncio.sleep(0)
    assert len((await rig.logs.read("p0", "ns", offset=0, limit=99, ended=True)).data) == 40


async def test_a_log_that_was_let_go_of_and_whose_beginning_is_gone_says_so(rig, monkeypatch):
    monkeypatch.setattr(module, "HELD_BYTES_MAX", 50)
    rig.server.logs |= {"p": [b"one\n", b"x" * 40 + b"\n"], "q": [b"y" * 40]}
    await rig.copied()
    assert rig.logs.follow("q", "ns", ended=True, wanted=True) is not None
    while "p" in rig.logs._followed:
        await asyncio.sleep(0)
    rig.server.rotated = 1
    await rig.kept()
    assert (await rig.logs.read_kept("p", offset=0, limit=999)).data == GAP + b"x" * 40 + b"\n"
    rig.logs.drop("p")
    rig.logs.drop("q")
    assert not rig.logs.known


async def test_a_log_that_is_being_stored_is_not_let_go_of(rig, monkeypatch):
    monkeypatch.setattr(module, "HELD_BYTES_MAX", 50)
    rig.server.logs |= {"p": [b"x" * 40], "q": [b"y" * 40]}
    await rig.copied()
    put, stored = rig.artifacts.put, asyncio.Event()

    async def slow(*given: object) -> None:
        await stored.wait()
        await put(*given)

    rig.artifacts.put = slow
    keeping = asyncio.create_task(rig.logs.keep("p", "ns"))
    await asyncio.sleep(0.01)
    assert rig.logs.follow("q", "ns", ended=True, wanted=True) is not None
    for _ in range(100):
        await asyncio.sleep(0)
    assert rig.logs._followed.keys() == {"p", "q"}
    stored.set()
    assert await keeping
    assert (await rig.logs.read_kept("p", offset=0, limit=99)).data == b"x" * 40


async def test_logs_of_two_clusters_do_not_meet():
    assert module.slot_of("a", "p") != module.slot_of("b", "p")


async def test_secrets_that_were_handed_in_are_masked_in_what_is_kept_also_when_they_come_in_two_pieces(rig):
    rig.handed["p"] = (b"canary-7d1f\n",)
    rig.server.logs["p"] = [b"token canary", b"-7d1f.\n", b"canary-"]
    await rig.copied()
    await rig.kept()
    rig.logs.drop("p")
    chunk = await rig.logs.read_kept("p", offset=0, limit=100)
    assert chunk.data == b"token ***********.\ncanary-"
    assert chunk.ended


async def test_a_log_is_masked_by_what_is_on_record_once_its_pod_speaks_and_by_whoever_follows_it_anew(rig):
    rig.server.logs["p"] = []
    await rig.copied(ended=False)
    assert rig.asked == 0
    rig.handed["p"] = (b"canary-7d1f",)
    for _ in range(2):
        await rig.logs.close()
        rig.logs = rig.anew()
        rig.server.logs["p"] = [b"token canary-7d1f\n", b"and canary-7d1f\n"]
        await rig.copied()
        assert (await rig.read()).data == b"token ***********\nand ***********\n"
    assert rig.asked == 2


async def test_nothing_that_a_pod_says_is_passed_on_while_nobody_can_tell_what_it_was_handed(rig):
    rig.fault = errors.Unavailable("the database is away")
    rig.server.logs["p"] = [b"token canary-7d1f\n"]
    await rig.copied()
    assert (await rig.read()).data == b""
    rig.fault, rig.handed["p"] = None, (b"canary-7d1f",)
    await rig.copied()
    await rig.copied()
    chunk = await rig.read()
    assert (chunk.data, chunk.ended) == (b"token ***********\n", True)
