"""Tables on terminals of any width: an id that is broken cannot be copied, a figure that is cut is another one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import get_args

import click
import pytest

from mainstay.cli.runs import EVENT_KINDS
from mainstay.cli.show import SENTENCE_WIDTH, table_text
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


def test_events_can_be_asked_for_by_every_kind_that_there_is():
    assert set(EVENT_KINDS) == set(get_args(EventKind))
