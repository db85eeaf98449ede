"""`audit`, `audit verify|export|tail|redact|keys`: who changed what, and whether the record of it still stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import counted, json_option, out, print_json, print_table, say

if TYPE_CHECKING:
    from mainstay.chain import Fault, Head, Verifier
    from mainstay.chain.anchors import Anchor
    from mainstay.sdk.client import Client
    from mainstay.wire.audit import AuditRowsView, AuditRowView

TAIL_SECONDS = 1.0
PROGRESS_ROWS = 50_000


@click.group(invoke_without_command=True)
@click.option("-n", "--most", type=click.IntRange(1), default=100, show_default=True, help="The last so many.")
@json_option
@click.pass_context
def audit(context: click.Context, *, most: int, as_json: bool) -> None:
    """Print who changed what, of all tenants, the newest last; verify, export or follow it. For administrators."""
    if context.invoked_subcommand is not None:
        return
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.audit(most=most)[::-1]
    if as_json:
        print_json(found)
        return
    rows = (
        (str(row.seq), f"{row.at:%Y-%m-%d %H:%M:%S}", row.actor, row.tenant, row.action, row.object, row.detail)
        for row in found
    )
    print_table(("SEQ", "AT (UTC)", "WHO", "TENANT", "ACTION", "WHAT", "DETAIL"), rows)


@audit.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--public-key",
    "key_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Keys whose anchors count, as `mainstay audit keys` printed them. Default: those of the platform; none for a FILE.",
)
@click.option(
    "--anchors",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A copy of the folder of anchors. Default: those that the platform, or the FILE, shows.",
)
def verify(file: Path | None, key_file: Path | None, folder: Path | None) -> int:
    """Check every row of the audit against its chain and its anchors: of the platform, or of an exported FILE, offline.

    Exit code 1 if a row was changed, deleted, put in, moved, or cut off.
    """
    keys = frozenset(key_file.read_text().split()) if key_file else frozenset()
    kept = _anchors_in(folder) if folder else None
    return _verify_file(file, keys, kept) if file else _verify_platform(keys, kept)


@audit.command()
@click.option("--after", type=click.IntRange(0), default=0, help="Begin behind the row with this number.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Into this file, going on where it ends. Default: standard output.",
)
def export(after: int, output: Path | None) -> None:
    """Write the rows with their hashes and the newest anchors as JSON lines: what `audit verify FILE` reads.

    \b
    mainstay audit export -o audit.jsonl    # again to add what has come since
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.cli import audit_file
    from mainstay.sdk.client import Client

    if output and after:
        msg = "--after is for standard output: a file goes on where it ends"
        raise click.UsageError(msg)
    with Client() as client:
        if output is None:
            _export(client, sys.stdout, _row_before(client, after), fresh=True)
            return
        fresh = not output.exists() or not output.stat().st_size
        try:
            start = _row_before(client, 0) if fresh else audit_file.last_row(output)
        except audit_file.NotAnAudit as error:
            raise click.ClickException(str(error)) from error
        with output.open("a", encoding="utf-8") as file:
            count = _export(client, file, start, fresh=fresh)
    say(f"✓ {count:,} rows added to {output}", colour="green")


@audit.command()
@click.option("-n", "--most", type=click.IntRange(0), default=10, show_default=True, help="The last so many first.")
@click.option("--json", "as_json", is_flag=True, help="Each row as a line of JSON.")
def tail(*, most: int, as_json: bool) -> None:
    """Follow the audit: each row as it is written, until Ctrl-C. Each is checked against the one before."""
    from mainstay.chain import Verifier
    from mainstay.sdk.client import Client

    with Client() as client:
        first = client.audit_rows(limit=1).head
        start = _row_before(client, max(0, first.seq - most))
        chain = Verifier(start=start)
        while True:
            found = client.audit_rows(after=chain.head.seq)
            for row in found.rows:
                if fault := chain.take(row):
                    raise click.ClickException(fault.sentence)
                out(row.model_dump_json() if as_json else _line(row))
            if not found.rows:
                time.sleep(TAIL_SECONDS)


@audit.command()
@click.argument("seq", type=click.IntRange(1))
@click.option("--why", required=True, help="Goes on record.")
def redact(seq: int, why: str) -> None:
    """Take the detail of a row out, for good: what must not be kept. The row stays, and the chain still holds."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.redact_audit(seq, why)
    say(f"✓ the detail of row {seq} is taken out", colour="green")


@audit.command()
def keys() -> None:
    """Print the public keys that sign anchors, one a line: keep them where the platform cannot change them."""
    from mainstay.sdk.client import Client

    with Client() as client:
        for key in client.audit_anchors().keys:
            out(key)


def _verify_platform(trusted: frozenset[str], kept: list[Anchor] | None) -> int:
    from mainstay.chain import Head, Verifier
    from mainstay.chain.anchors import read
    from mainstay.sdk.client import Client

    with Client() as client:
        said = client.audit_anchors()
        anchors = kept if kept is not None else [read(text) for text in said.anchors]
        heads = _trusted(anchors, trusted or frozenset(said.keys), said.system)
        chain, head = Verifier(heads), None
        for page in _pages(client, 0):
            head = head or Head(seq=page.head.seq, hash=page.head.hash)
            if _take(chain, page.rows):
                break
    # The head of the first page: rows that came since are more than it promises.
    promised = head if head and head.seq >= chain.head.seq else None
    return _verdict(chain, chain.end(promised), heads)


def _verify_file(path: Path, trusted: frozenset[str], kept: list[Anchor] | None) -> int:
    from mainstay.chain import Verifier
    from mainstay.cli.audit_file import NotAnAudit, anchors_in, opened
    from mainstay.wire.audit import AuditRowView

    try:
        start, read = opened(path)
        heads = _trusted(kept if kept is not None else anchors_in(path), trusted, start.system)
        chain = Verifier(heads, start=start.after)
        _take(chain, (line for line in read if isinstance(line, AuditRowView)))
    except (NotAnAudit, ValueError) as error:
        raise click.ClickException(str(error)) from error
    return _verdict(chain, chain.end(), heads)


def _take(chain: Verifier, rows: Iterable[AuditRowView]) -> Fault | None:
    for row in rows:
        if chain.take(row):
            return chain.fault
        if row.seq % PROGRESS_ROWS == 0:
            say(f"  {row.seq:,} rows hold")
    return None


def _verdict(chain: Verifier, fault: Fault | None, anchors: list[Head]) -> int:
    if fault is not None:
        say(f"✗ {fault.sentence}", colour="red")
        say("  rows before it hold; compare with an export or a backup from before")
        return Exit.FAILED
    say(f"✓ {chain.head.seq:,} rows hold", colour="green")
    if anchors:
        newest = max(anchors, key=lambda one: one.seq)
        say(f"  checked against {counted(len(anchors), 'anchor')}, the newest of row {newest.seq:,}")
        say("  what came after that row may have been cut off since")
    else:
        say("  no anchor was checked: that the end is missing, or that all was rewritten, cannot be seen without")
        say("  hint: give --public-key, and --anchors if the file has none")
    return Exit.OK


def _trusted(anchors: Iterable[Anchor], keys: frozenset[str], system: str) -> list[Head]:
    """The heads whose signature is of one of these keys and that are of this platform; the others are counted and said."""
    heads, others = [], 0
    for anchor in anchors:
        if anchor.system == system and anchor.signed_by(keys):
            heads.append(anchor.head)
        else:
            others += 1
    if others and keys:
        say(
            f"  {counted(others, 'anchor')} of another platform, or signed by a key that is not known here: not looked at"
        )
    return heads


def _anchors_in(folder: Path) -> list[Anchor]:
    from mainstay.chain.anchors import read

    try:
        return [read(path.read_bytes()) for path in sorted(folder.rglob("*.json"))]
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _export(client: Client, file: TextIO, start: Head, *, fresh: bool) -> int:
    from mainstay.cli import audit_file

    anchors = client.audit_anchors()
    if fresh:
        audit_file.begin(file, anchors.system, start)
    count = 0
    for page in _pages(client, start.seq):
        for row in page.rows:
            audit_file.add_row(file, row)
        count += len(page.rows)
    for text in anchors.anchors:
        audit_file.add_anchor(file, text)
    return count


def _pages(client: Client, after: int) -> Iterator[AuditRowsView]:
    """To the end as it is when it is reached; the first one also where there is no row."""
    page = client.audit_rows(after=after)
    yield page
    while page.rows:
        page = client.audit_rows(after=page.rows[-1].seq)
        if page.rows:
            yield page


def _row_before(client: Client, seq: int) -> Head:
    """The row with this number: what comes after it is chained to it."""
    from mainstay.chain import START, Head

    if seq == 0:
        return START
    rows = client.audit_rows(after=seq - 1, limit=1).rows
    if not rows or rows[0].seq != seq:
        msg = f"the audit has no row {seq:,}"
        raise click.ClickException(msg)
    return Head(seq=seq, hash=rows[0].hash)


def _line(row: AuditRowView) -> str:
    from mainstay.cli.show import plain

    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(row.at / 1e6))
    words = (str(row.seq), at, row.actor, row.tenant, row.action, row.object, row.detail)
    return plain("  ".join(word for word in words if word))
