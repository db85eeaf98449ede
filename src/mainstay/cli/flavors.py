"""`flavor list|set|remove`: nodes by their labels, for quotas of queues."""

from __future__ import annotations

import click

from mainstay.cli.groups import Group
from mainstay.cli.show import figure, json_option, memory, print_json, print_table, say


@click.group(cls=Group)
def flavor() -> None:
    """Name nodes by their labels, so that queues have quotas of them: list such flavors, set, order and remove them."""


@flavor.command(name="list")
@json_option
def list_flavors(*, as_json: bool) -> None:
    """List the flavors of nodes, with what those of their nodes have that take work.

    A node is of the first that it meets, and work takes the first of which its queue may use enough and that has room for it.
    """
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.flavors()
    if as_json:
        print_json(found)
        return
    if not found:
        say("there are none: name nodes with mainstay flavor set NAME --label disk=ssd")
        return
    rows = (
        (
            one.name,
            ", ".join(one.node_labels),
            str(one.nodes),
            figure(one.cores),
            memory(one.memory_bytes),
            str(one.gpus),
            ", ".join(one.queues),
        )
        for one in found
    )
    columns = ("FLAVOR", "LABELS", "NODES", "CPUS", "MEMORY", "GPUS", "QUOTAS IN")
    print_table(columns, rows, right=columns[2:6])


@flavor.command(name="set")
@click.argument("name", metavar="FLAVOR")
@click.option(
    "--label",
    multiple=True,
    metavar="LABEL",
    help="What its nodes are: disk=ssd, zone in (a, b), !retiring. All of them must hold, and all are said together.",
)
@click.option(
    "--before", metavar="FLAVOR", default="", help="The flavor that it comes just before. A new one comes last."
)
@json_option
def set_flavor(name: str, *, label: tuple[str, ...], before: str, as_json: bool) -> None:
    """Set a flavor of nodes, or change one that is there: what is not given stays as it is. For administrators.

    \b
    mainstay flavor set spot --label karpenter.sh/capacity-type=spot
    mainstay flavor set owned --label owner=us --before spot
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from pydantic import ValidationError

    from mainstay.sdk.client import Client
    from mainstay.wire.requests import FlavorRequest

    try:
        request = FlavorRequest(node_labels=list(label) or None, before=before)
    except ValidationError as error:
        msg = f"--label {str(error.errors()[0]['msg']).removeprefix('Value error, ')}"
        raise click.UsageError(msg) from error
    with Client() as client:
        made = client.set_flavor(name, request)
    if as_json:
        print_json(made)
    say(f"✓ flavor {made.name} is set: nodes with {', '.join(made.node_labels)}", colour="green")
    if not made.nodes:
        say("  warning: no node that takes work is of it now")
    say(f"  next: mainstay queue set QUEUE --quota cpu={made.name}:64 | mainstay flavor list")


@flavor.command(name="remove")
@click.argument("name", metavar="FLAVOR")
@json_option
def remove_flavor(name: str, *, as_json: bool) -> None:
    """Forget a flavor of nodes. Refused while a queue or cohort has a quota of it. For administrators."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_flavor(name)
    if as_json:
        print_json({"removed": name})
    say(f"flavor {name} is removed")
