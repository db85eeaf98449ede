"""The short form of `make bench-contract`: requests in sequences, and what they leave in the audit."""

from __future__ import annotations

from benchmarks.contract import compared


def test_requests_in_sequences_break_nothing_and_each_change_is_in_the_audit():
    tally = compared(700, number=7)
    assert not +tally.server_errors
    assert not +tally.breaks
    assert not +tally.unrecorded
    assert tally.writes.total()
    print(f"\n{tally.cases.total()} requests, {tally.writes.total()} changes: nothing broken, all in the audit")
