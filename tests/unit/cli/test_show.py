"""Tables on terminals of any width: an id that is broken cannot be copied, a figure that is cut is another one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import get_args

import click
import pytest

from mainstay.cli.runs import EVENT_KINDS
from mainstay.cli.show import SENTENCE_WIDTH, counted, figure, gib, table_text
from mainstay.domain.plan import EventKind

COLUMNS = ("SEQ", "OF", "TOTAL", "WHY")
ROW = ("207", "digits-parallel-0j94m7g6-1-0", "1234567.000204", "gave up after 3 attempts; the last: rank 0 was lost")


def table(
    monkeypatch: pytest.MonkeyPatch, width: int, *, columns: Sequence[str] = COLUMNS, row: Sequence[str] = ROW
) -> list[str]:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    return click.unstyle(table_text(columns, [row])).splitlines()


@pytest.mark.parametrize("width", [20, 80, 100, 200])
def test_an_id_and_a_figure_are_whole_at_any_width(monkeypatch, width):
    _, first, *more = table(monkeypatch, width)
    assert first.startswith("207  digits-parallel-0j94m7g6-1-0  1234567.000204  gave up after")
    assert " ".join([first.split("  ")[-1], *(line.strip() for line in more)]) == ROW[-1]


def test_a_sentence_is_broken_to_the_width_and_no_narrower_than_can_be_read(monkeypatch):
    assert max(map(len, table(monkeypatch, 100))) <= 100
    narrow = table(monkeypatch, 20)
    assert len(narrow) == 3
    assert max(len(line.strip()) for line in narrow[2:]) > SENTENCE_WIDTH / 2


def test_a_bill_of_usual_names_fits_on_80_columns(monkeypatch):
    columns = ("WORKLOAD", "CORE HOURS", "GIB HOURS", "GPU HOURS", "CHARGED", "ACCRUING", "TOTAL")
    row = ("digits-erj9xtpn", "0.0054", "0.0050", "0.0000", "0.000204", "0.000000", "0.000204")
    assert max(map(len, table(monkeypatch, 80, columns=columns, row=row))) <= 80


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0"), (1.0, "1"), (0.125, "0.125"), (2.5, "2.5"), (1300, "1,300"), (1.3e6, "1,300,000"), (1e-6, "<0.001")],
)
def test_a_figure_has_no_exponent(value, told):
    assert figure(value) == told


def test_one_of_something_is_one():
    assert [counted(count, "pod") for count in (0, 1, 2)] == ["0 pods", "1 pod", "2 pods"]
    assert counted(0.5, "CPU") == "0.5 CPUs"


def test_memory_of_a_column_is_in_gib_throughout():
    assert [gib(size << 20) for size in (0, 64, 512, 131_072, 1_331_200)] == ["0", "0.062", "0.5", "128", "1,300"]


def test_events_can_be_asked_for_by_every_kind_that_there_is():
    assert set(EVENT_KINDS) == set(get_args(EventKind))
