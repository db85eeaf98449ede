"""How values look on a terminal, and the same as JSON."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mainstay.wire.views import OptionView, ResourcesView, WorkloadView

F = TypeVar("F", bound=Callable[..., Any])
BYTES_PER_GIB = 1 << 30
MEMORY_UNITS = (("GiB", 1 << 30), ("GB", 10**9), ("MiB", 1 << 20), ("MB", 10**6))
GAP = 2
SENTENCE_WIDTH = 30
"""Broken into narrower lines than this, a sentence is harder to read than on a line that the terminal breaks."""
PIPE_WIDTH = 2_000
"""A table into a file or pipe is as wide as its content."""
MARKS = {"succeeded": "green", "running": "cyan", "ready": "green", "failed": "red", "unavailable": "red"}


def out(text: str) -> None:
    """A line of the result, on stdout."""
    click.echo(plain(text))


def say(text: str, *, colour: str | None = None, end: bool = True) -> None:
    """A line about the result, on stderr: `mainstay logs RUN > file` is the log alone."""
    click.secho(plain(text), fg=colour, nl=end, err=True)


def json_option(command: F) -> F:
    """`--json`: the API's own objects instead of a table."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are those of the API.")(command)


def print_json(found: BaseModel | Sequence[BaseModel] | Mapping[str, Any]) -> None:
    """One object, or an array."""
    if isinstance(found, Mapping):
        content: Any = found
    elif isinstance(found, Sequence):
        content = [item.model_dump(mode="json") for item in found]
    else:
        content = found.model_dump(mode="json")
    click.echo(json.dumps(content, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table; columns named in `right` are aligned to the right."""
    click.echo(table_text(columns, rows, right=right), nl=False)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """A table as text, in colours if it goes to a terminal. The last column is broken to its width, an id or a figure never."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    cells = [[plain(cell) for cell in row] for row in rows]
    for number, name in enumerate(columns):
        breaks = terminal and number == len(columns) - 1
        texts = [name, *(row[number] for row in cells)]
        widest = max(map(cell_len, texts))
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=not breaks,
            min_width=min(widest, SENTENCE_WIDTH) if breaks else widest,
        )
    for row in cells:
        table.add_row(*(Text(cell, style=MARKS.get(cell, "")) for cell in row))
    console = Console(width=None if terminal else PIPE_WIDTH, highlight=False)
    least = sum(column.min_width or 0 for column in table.columns) + GAP * (len(columns) - 1)
    console.width = max(console.width, least)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().split("\n"))


def plain(text: str) -> str:
    """Without control characters: what a job is called or prints never steers the terminal (CWE-150)."""
    return "".join(letter if letter in "\n\t" or unicodedata.category(letter) != "Cc" else "\ufffd" for letter in text)


def ago(moment: datetime | None) -> str:
    """How long ago, in one or two units."""
    return duration((datetime.now(UTC) - moment).total_seconds()) if moment else ""


def ahead(moment: datetime) -> str:
    """In how long, in one or two units."""
    return duration((moment - datetime.now(UTC)).total_seconds())


def lasted(run: WorkloadView) -> str:
    """How long its attempts ran together, the one that runs included; empty if none ever did."""
    if run.started_at is None:
        return ""
    running = (datetime.now(UTC) - run.running_since).total_seconds() if run.running_since else 0.0
    return duration(run.ran_seconds + running)


def why(run: WorkloadView) -> str:
    """Why it is in its state, as a list shows it, and if it is stopping, for how long."""
    return f"for {ago(run.stopping_since)}; {run.reason.brief}" if run.stopping_since else run.reason.brief


def duration(seconds: float) -> str:
    """0.4s, 12s, 3m 20s, 2h 5m, 3d 4h."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    for size, unit, below, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // below}{small}"
    return f"{whole}s"


def wanted(run: WorkloadView, *, ranks: int = 0) -> str:
    """As `asked_for`; while it is open which of its choices it gets, all of them: `1 CPU, 1 GiB, H100:1 or 1 CPU, 1 GiB`."""
    each = [run.model_copy(update={"resources": one}) for one in run.choices] or [run]
    return " or ".join(asked_for(one, ranks=ranks) for one in each)


def asked_for(run: WorkloadView | OptionView, *, ranks: int = 0) -> str:
    """`2x 4 CPUs, 16 GiB, H100:8`; of an elastic job `2-8x 4 CPUs, 16 GiB`, and once it has `ranks`: `6 of 2-8x ...`; of pod sets
    `head 1x 2 CPUs, 4 GiB + worker 8x 4 CPUs, 16 GiB, H100:1`.
    """
    if run.sets:
        return " + ".join(f"{one.name} {one.nodes}x {resources(one.resources)}" for one in run.sets)
    if not run.nodes_max:
        return resources(run.resources, run.nodes)
    got = f"{ranks} of " if ranks else ""
    return f"{got}{run.nodes_min}-{run.nodes_max}x {resources(run.resources)}"


def resources(request: ResourcesView, nodes: int = 1) -> str:
    """2x 4 CPUs, 16 GiB, H100:8."""
    parts = [counted(request.cpu, "CPU"), memory(request.memory_bytes)]
    if request.gpus:
        size = [memory(request.gpu_memory_bytes).replace(" ", "")] if request.gpu_memory_bytes else []
        parts.append(":".join((request.gpu_model or "GPU", *size, figure(request.gpu_part or request.gpus))))
    return (f"{nodes}x " if nodes > 1 else "") + ", ".join(parts)


def memory_of_gpu(size: int) -> str:
    """As its driver says it: `79.6 GiB`; empty if nobody knows."""
    return f"{figure(round(size / BYTES_PER_GIB, 1))} GiB" if size else ""


def memory(size: int) -> str:
    """In the units it was most likely written in: 1 GB, 16 GiB, 512 MiB."""
    for unit, bytes_per_unit in MEMORY_UNITS:
        if size and size % bytes_per_unit == 0:
            return f"{figure(size // bytes_per_unit)} {unit}"
    return f"{gib(size)} GiB"


def gib(size: int) -> str:
    """Of a column that is in GiB throughout: `0.5`, `16`, `1,300.2`."""
    exact = size / BYTES_PER_GIB
    return figure(round(exact, 1) if exact >= 1 else exact)


def figure(value: float) -> str:
    """Up to three decimals, thousands apart, and never an exponent: `4`, `0.125`, `1,300`."""
    text = f"{value:,.3f}".rstrip("0").rstrip(".")
    return "<0.001" if text == "0" and value > 0 else text


def counted(count: float, noun: str) -> str:
    """So many of what can be counted: `1 pod`, `3 pods`, `0.5 CPUs`."""
    return f"{figure(count)} {noun}" if count == 1 else f"{figure(count)} {noun}s"


def used_of(used: float, capacity: float) -> str:
    """`2.5 of 32`."""
    return f"{figure(used)} of {figure(capacity)}"


def money(amount: str, currency: str = "USD") -> str:
    """Cents, and more digits where there are no cents to show: $12.30, $0.0042."""
    value = Decimal(amount)
    digits = 2 if not value or abs(value) >= Decimal("0.1") else 6
    sign = "$" if currency == "USD" else f"{currency} "
    return f"{sign}{value:,.{digits}f}"
