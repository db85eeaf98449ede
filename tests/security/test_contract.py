"""The short form of `make bench-contract`: requests in sequences, and what they leave in the audit."""

from __future__ import annotations

from benchmarks.contract import compared
from tests.figures import Figure


def test_requests_in_sequences_break_nothing_and_each_change_is_in_the_audit(figure: Figure):
    tally = compared(700, number=7)
    assert not +tally.server_errors
    assert not +tally.breaks
    assert not +tally.unrecorded
    assert tally.writes.total()
    figure("requests drawn from the description of the API: 0 answers of 5xx", tally.cases.total())
    figure("changes by these requests: each in the audit", tally.writes.total())
