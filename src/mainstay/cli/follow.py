"""Following a run: its stages while it waits, its log while it runs, its result, and what to do next.

What belongs to the run goes to stdout, what we say about it to stderr: `mainstay run ... > file` is the log alone.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import duration, lasted, money, say
from mainstay.sdk.runs import FINAL

if TYPE_CHECKING:
    from mainstay.sdk.client import Client, Run

LOOK_SECONDS, LOOK_SECONDS_MAX = 0.04, 0.5
PATIENCE_SECONDS = 2.0
"""Who waits longer in one stage is told why."""


def follow(client: Client, run: Run) -> Exit:
    """Up to the end of the run. Ctrl-C stops following and nothing else."""
    try:
        say_stages(run)
        print_log(client, run.id, follow=True)
        run.wait(check=False)
    except KeyboardInterrupt:
        say(f"\n  detached; {run.name} goes on.   mainstay logs -f {run.id} | mainstay stop {run.id}")
        return Exit.INTERRUPTED
    return say_result(client, run)


def say_stages(run: Run) -> None:
    """One line: queued 2.1s > starting 0.3s > running."""
    phase, since, told, pause = run.phase, time.monotonic(), "", LOOK_SECONDS
    say(f"  {phase}", end=False)
    while phase not in FINAL and phase != "running":
        time.sleep(pause)
        pause = min(pause * 1.1, LOOK_SECONDS_MAX)
        run.refresh()
        waited = time.monotonic() - since
        if run.phase != phase:
            phase, since, pause = run.phase, time.monotonic(), LOOK_SECONDS
            say(f" {duration(waited)} > {phase}", end=False)
        elif waited > PATIENCE_SECONDS and run.reason.brief != told:
            told = run.reason.brief
            say(f"\n  {told}   (mainstay explain {run.id})\n  {phase}", end=False)
    say("")
    if phase == "running" and max(run.view.nodes, run.view.ranks) > 1:
        say(f"  the log of node 0 of {run.view.ranks or run.view.nodes}; others: mainstay logs {run.id} --node N")


def print_log(
    client: Client, ref: str, *, rank: int = 0, attempt: int = 0, follow: bool, as_json: bool = False
) -> bool:
    """Pieces as they come, as JSON one per line; whether there was any."""
    found = False
    for piece in client.logs(ref, rank=rank, attempt=attempt, follow=follow):
        found = True
        if as_json:
            click.echo(piece.model_dump_json())
            continue
        if piece.dropped:
            say(f"  … {piece.dropped:,} bytes of the log are no longer kept …")
        sys.stdout.write(piece.text)
        sys.stdout.flush()
    return found


def say_result(client: Client, run: Run) -> Exit:
    """How it ended, how long it ran, what it cost, and the commands to go on with."""
    if run.phase != "succeeded":
        say(f"✗ {run.phase} after {lasted(run.view) or '0s'}: {run.reason.sentence}", colour="red")
        say(f"  next: mainstay show {run.id} | mainstay logs {run.id} | mainstay events {run.id}")
        return Exit.FAILED
    cost = next((line for line in client.cost().lines if line.group == run.id), None)
    price = f", {money(cost.total, cost.currency)}" if cost else ""
    say(f"✓ succeeded in {lasted(run.view)}{price}", colour="green")
    output = f"mainstay deploy {run.id} | mainstay download {run.id} | " if run.view.output else ""
    say(f"  next: {output}mainstay show {run.id} | mainstay cost")
    return Exit.OK
