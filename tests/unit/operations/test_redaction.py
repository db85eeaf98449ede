"""A reader of a log is shown no secret of the run: at whatever offset, in whatever pieces, with gaps, while it grows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mainstay.domain.capacity import LogChunk
from mainstay.domain.masking import Masks, patterns_of
from mainstay.domain.secret import Sealed, SecretUse
from mainstay.operations.redaction import masked_log, masks_of
from mainstay.operations.sealing import KEY_BYTES, Sealing

CANARY = b"canary-7d1f-canary"
MASKS = Masks(patterns_of([CANARY]))
SEALING, OTHER = Sealing(key=b"a" * KEY_BYTES), Sealing(key=b"b" * KEY_BYTES)


class LogOf:
    """A cluster with one log; its first bytes may be gone, and it may still grow."""

    def __init__(self, content: bytes, *, gone: int = 0, ended: bool = True, most: int = 1 << 20) -> None:
        self.gap: tuple[int, int] | None = None
        self.content, self.gone, self.ended, self.most = content, gone, ended, most

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        assert pod == "p"
        start = max(offset, self.gone)
        data = self.content[start : start + min(limit, self.most)]
        if self.gap and start < self.gap[1]:
            data = data[: max(0, self.gap[0] - start)]
            if not data:
                jumped = await self.read_log(pod, offset=self.gap[1], limit=limit)
                return replace(jumped, dropped=self.gap[1] - offset)
        end = start + len(data)
        over = self.ended and end >= len(self.content)
        return LogChunk(data=data, next_offset=end, dropped=start - offset, ended=over)


async def read_all(log: Any, *, limit: int, offset: int = 0) -> tuple[bytes, int]:
    text, dropped = b"", 0
    while True:
        chunk = await masked_log(log, "p", MASKS, offset=offset, limit=limit)
        assert len(chunk.data) <= limit
        assert chunk.next_offset == offset + chunk.dropped + len(chunk.data)
        text, dropped, offset = text + chunk.data, dropped + chunk.dropped, chunk.next_offset
        if chunk.ended or not (chunk.data or chunk.dropped):
            return text, dropped


@given(
    parts=st.lists(st.sampled_from([CANARY, CANARY[:7], b"step\n", b"c", b"loss 0.1 "]), max_size=12),
    limit=st.integers(1, 60),
    gone=st.integers(0, 30),
)
@settings(deadline=None)
async def test_pieces_of_any_size_are_the_masked_log(parts: list[bytes], limit: int, gone: int) -> None:
    content = b"".join(parts)
    gone = min(gone, len(content))
    text, dropped = await read_all(LogOf(content, gone=gone), limit=limit)
    assert text == MASKS.masked(content[gone:])
    assert dropped == gone


@given(offset=st.integers(0, 60))
@settings(deadline=None)
async def test_a_reader_that_begins_within_a_value_is_shown_none_of_it(offset: int) -> None:
    content = b"step\n" + CANARY + b" and on"
    text, _ = await read_all(LogOf(content), limit=1_000, offset=min(offset, len(content)))
    assert text == MASKS.masked(content)[offset:]


async def test_what_may_be_the_beginning_of_a_value_waits_for_the_rest() -> None:
    log = LogOf(b"token: canary-7", ended=False)
    first = await masked_log(log, "p", MASKS, offset=0, limit=100)
    assert (first.data, first.next_offset, first.ended) == (b"token: ", 7, False)
    log.content = b"token: " + CANARY + b"\n"
    second = await masked_log(log, "p", MASKS, offset=7, limit=100)
    assert second.data == b"*" * len(CANARY) + b"\n"
    log.content, log.ended = b"token: canary-7", True
    assert (await masked_log(log, "p", MASKS, offset=7, limit=100)).data == b"canary-7"


async def test_a_cluster_that_gives_little_at_a_time_is_read_on() -> None:
    content = b"x" * 100 + CANARY + b"y" * 50
    text, _ = await read_all(LogOf(content, most=8), limit=8)
    assert len(text) == len(content)


async def test_a_gap_ends_what_is_held_back_and_the_log_goes_on_behind_it() -> None:
    log = LogOf(b"one canary-7 lost " + CANARY + b" end", ended=False)
    log.gap = (12, 18)
    text, dropped = await read_all(log, limit=50)
    assert text == b"one canary-7" + b"*" * len(CANARY) + b" end"
    assert dropped == 6


def test_the_values_of_now_and_those_that_were_handed_are_masked_and_what_cannot_be_opened_is_said() -> None:
    sealed = {
        "a": Sealed(tenant="t", name="a", version=2, text=SEALING.sealed_secret("t", "a", CANARY)),
        "b": Sealed(tenant="t", name="b", version=2, text=OTHER.sealed_secret("t", "b", b"another")),
    }
    earlier = Sealed(tenant="t", name="a", version=1, text=SEALING.sealed_secret("t", "a", b"before it"))
    store: Any = SimpleNamespace(
        sealed_secrets=lambda names, tenant: {n: sealed[n] for n in names if tenant == "t"},
        handed_secrets=lambda key: (earlier,) if key == 7 else (),
    )
    workload: Any = SimpleNamespace(
        id="w", tenant="t", spec=SimpleNamespace(secrets=(SecretUse(name="a"), SecretUse(name="b")))
    )
    allocation: Any = SimpleNamespace(key=7, pod="w-1-0")
    with capture_logs() as said:
        masks = masks_of(store, SEALING, workload, allocation)
    assert masks.masked(CANARY + b" another before it") == b"*" * len(CANARY) + b" another *********"
    assert [(line["event"], line["pod"], line["secret"]) for line in said] == [("not_masked", "w-1-0", "b")]
    workload.spec.secrets, allocation.key = (), 8
    assert masks_of(store, SEALING, workload, allocation).patterns == []
