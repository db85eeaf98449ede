"""Outputs: kept, waited for while the artifacts are away, and told where they can never be kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.artifacts.objects import open_artifacts
from mainstay.control.outputs import PATIENCE_SECONDS, RETRY_SECONDS_MAX, Output, Outputs
from mainstay.decide.reconcile import not_copied, without_output
from mainstay.domain.allocation import End, Owner, PodState, Seen
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.plan import ObservePod
from mainstay.domain.reason import Code, Reason
from tests.clock import ManualClock

POD: Any = SimpleNamespace(pod="p-1-0", workload="p", attempt=1, owner=Owner(tenant="acme", project="vision"))


class Leaving:
    """A cluster on which a pod left one file, or whose files cannot be read."""

    def __init__(self, *failures: Exception, copying: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.copying = list(copying)
        self.asked = self.copied = 0

    async def copy_out(self, pod: str) -> None:
        self.copied += 1
        if self.copying:
            raise self.copying.pop(0)

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        yield "model/weights", 2, False, _content(b"ab")


async def _content(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def collect(outputs: Outputs, clock: ManualClock, *, seconds: float = 0.0) -> Output | None:
    """As turns do: ask, let the fetch come to its end, ask again; time passes in between."""
    until = clock.monotonic() + seconds
    while clock.monotonic() <= until:
        outputs.collected(POD)
        fetching = [fetch.task for fetch in outputs._fetches.values() if fetch.task]
        async with asyncio.timeout(60):
            await asyncio.gather(*fetching, return_exceptions=True)
        if found := outputs.collected(POD):
            return found
        clock.advance(10)
    return None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_an_output_is_kept_as_a_tree(tmp_path: Path, clock: ManualClock) -> None:
    artifacts = open_artifacts(str(tmp_path))
    cluster: Any = Leaving()
    found = await collect(Outputs(cluster, artifacts, clock), clock)
    assert found is not None
    assert [entry.path for entry in (await artifacts.of(POD.owner).tree(found.tree)).entries] == ["model/weights"]
    assert await artifacts.of(POD.owner).head("p/output") == (1, found.tree)


async def test_why_an_output_is_still_awaited_is_told_once_for_each_failure_that_does_not_pass_soon(
    tmp_path: Path, clock: ManualClock
) -> None:
    away = [Unavailable(f"the helper has not started: {number}") for number in range(4)]
    cluster: Any = Leaving(*away)
    outputs = Outputs(cluster, open_artifacts(str(tmp_path)), clock)
    assert outputs.news(POD.pod) == ""
    told = []
    for _ in range(5):
        found = await collect(outputs, clock)
        clock.advance(RETRY_SECONDS_MAX)
        told.append(outputs.news(POD.pod))
        assert outputs.news(POD.pod) == ""
    assert told == ["", "", "the helper has not started: 2", "the helper has not started: 3", ""]
    assert found is not None


async def test_what_can_never_be_kept_is_told_at_once_with_what_to_do(tmp_path: Path, clock: ManualClock) -> None:
    cluster: Any = Leaving(Invalid("the output has more than 20000 files", hint="pack them"))
    found = await collect(Outputs(cluster, open_artifacts(str(tmp_path)), clock), clock)
    assert found == Output(fault="the output has more than 20000 files; pack them")


async def test_a_failure_that_passes_is_waited_for(tmp_path: Path, clock: ManualClock) -> None:
    cluster: Any = Leaving(Unavailable("away"), OSError("broken"), Unavailable("away"))
    found = await collect(Outputs(cluster, open_artifacts(str(tmp_path)), clock), clock, seconds=60)
    assert found is not None
    assert (found.fault, len(found.tree), cluster.asked) == ("", 64, 4)


async def test_a_failure_that_stays_ends_the_wait_after_an_hour_and_few_tries(
    tmp_path: Path, clock: ManualClock
) -> None:
    cluster: Any = Leaving(*[Unavailable("the artifacts are away")] * 1_000)
    outputs = Outputs(cluster, open_artifacts(str(tmp_path)), clock)
    assert await collect(outputs, clock, seconds=PATIENCE_SECONDS - 60) is None
    assert await collect(outputs, clock, seconds=120) == Output(fault="the artifacts are away")
    assert cluster.asked <= PATIENCE_SECONDS / RETRY_SECONDS_MAX + 10


def test_an_end_whose_output_was_not_kept_says_so() -> None:
    state = PodState(name="p-1-0", node="n", seen=Seen.ENDED, end=End.EXITED, exit_code=0)
    seen = ObservePod(allocation_key=1, state=state, reason=Reason(code=Code.POD_ENDED))
    told = without_output(seen, "too many files")
    assert (told.state.end, told.state.exit_code, told.state.detail) == (End.OUTPUT_NOT_STORED, 0, "too many files")
    assert told.reason.numbers == {"end": "output_not_stored", "exit_code": 0, "detail": "too many files"}


async def test_a_store_that_refuses_for_good_costs_the_copy_and_not_the_output(
    tmp_path: Path, clock: ManualClock
) -> None:
    cluster: Any = Leaving(copying=[Invalid("InvalidAccessKeyId", hint="set the secret again")])
    artifacts = open_artifacts(str(tmp_path))
    found = await collect(Outputs(cluster, artifacts, clock), clock)
    assert found is not None
    assert (found.fault, found.copy_fault) == ("", "InvalidAccessKeyId; set the secret again")
    assert await artifacts.of(POD.owner).head("p/output") == (1, found.tree)


async def test_a_store_that_is_away_is_waited_for_and_after_an_hour_the_output_is_kept_without_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    cluster: Any = Leaving(copying=[Unavailable("the store is away")] * 3)
    found = await collect(Outputs(cluster, open_artifacts(str(tmp_path)), clock), clock, seconds=120)
    assert found is not None
    assert (len(found.tree), found.copy_fault, cluster.copied) == (64, "", 4)
    cluster = Leaving(copying=[Unavailable("the store is away")] * 1_000)
    outputs = Outputs(cluster, open_artifacts(str(tmp_path)), clock)
    assert await collect(outputs, clock, seconds=PATIENCE_SECONDS - 60) is None
    assert cluster.asked == 0
    found = await collect(outputs, clock, seconds=120)
    assert found is not None
    assert (len(found.tree), found.fault, found.copy_fault) == (64, "", "the store is away")


async def test_artifacts_that_are_away_after_a_copy_was_refused_are_waited_for(
    tmp_path: Path, clock: ManualClock
) -> None:
    cluster: Any = Leaving(Unavailable("artifacts"), copying=[Invalid("no"), Invalid("no")])
    found = await collect(Outputs(cluster, open_artifacts(str(tmp_path)), clock), clock, seconds=60)
    assert found is not None
    assert (len(found.tree), found.copy_fault) == (64, "no")


def test_an_end_of_which_something_was_not_copied_says_so_and_names_its_output() -> None:
    state = PodState(name="p-1-0", node="n", seen=Seen.ENDED, end=End.EXITED, exit_code=0)
    seen = ObservePod(allocation_key=1, state=state, reason=Reason(code=Code.POD_ENDED))
    told = not_copied(seen, "InvalidAccessKeyId", output="d" * 64)
    assert (told.state.end, told.state.exit_code, told.state.detail) == (End.COPY_REFUSED, 0, "InvalidAccessKeyId")
    assert told.output == "d" * 64
