"""The figures of the security report: each test that measures one says so, and they stand together at the end of the run.

Only what this run has measured, by tests that passed. What several tests count under one name is added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeAlias

import pytest

Figure: TypeAlias = Callable[[str, int], None]
"""What was counted, and how much of it there was."""
_NAME = "security figure"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Counts for the report. It travels with the result of the test, also from another process."""

    def count(what: str, number: int) -> None:
        request.node.user_properties.append((_NAME, (what, number)))

    return count


def counted(reports: Iterable[pytest.TestReport]) -> Counter[str]:
    """What tests have counted that passed, in the order of their names. Each test reports more than once."""
    said = {
        (report.nodeid, position): value
        for report in reports
        if report.when == "call" and report.passed
        for position, (name, value) in enumerate(report.user_properties)
        if name == _NAME
    }
    totals: Counter[str] = Counter()
    for _, (what, number) in sorted(said.items()):
        totals[what] += number
    return totals


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, if anything was counted."""
    if totals := counted(terminalreporter.stats.get("passed", ())):
        terminalreporter.section("security: what this run has measured")
        for what, number in totals.items():
            terminalreporter.write_line(f"{number:>9,}  {what}")
