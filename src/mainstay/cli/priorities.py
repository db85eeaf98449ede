"""`priority list|set|remove`: names for priorities."""

from __future__ import annotations

import click

from mainstay.cli.groups import Group
from mainstay.cli.show import json_option, print_json, print_table, say


@click.group(cls=Group)
def priority() -> None:
    """List, set and remove names for priorities. A higher number is more urgent."""


@priority.command(name="list")
@json_option
def list_priorities(*, as_json: bool) -> None:
    """List the names that jobs may give as their priority, the most urgent first."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.priorities()
    if as_json:
        print_json(found)
        return
    rows = ((one.name, str(one.priority), "yes" if one.preemptible else "no") for one in found)
    print_table(("NAME", "PRIORITY", "PREEMPTIBLE"), rows, right=("PRIORITY",))


@priority.command(name="set")
@click.argument("name")
@click.argument("number", metavar="0-100", type=click.IntRange(0, 100))
@click.option(
    "--preemptible/--no-preemptible",
    default=True,
    show_default=True,
    help="Whether more urgent work may take the place of what has it.",
)
@json_option
def set_priority(name: str, number: int, *, preemptible: bool, as_json: bool) -> None:
    """Give a priority a name. Runs keep the number that they were submitted with. For administrators."""
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.set_priority(name, number, preemptible=preemptible)
    if as_json:
        print_json(made)
    say(f"✓ priority {made.name} is {made.priority}", colour="green")
    say(f"  next: `priority: {made.name}` in a job file, or mainstay run --priority {made.name} -- COMMAND")


@priority.command(name="remove")
@click.argument("name")
@json_option
def remove_priority(name: str, *, as_json: bool) -> None:
    """Forget a name. Job files that give it are refused from now on. For administrators."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_priority(name)
    if as_json:
        print_json({"removed": name})
    say(f"priority {name} is removed")
