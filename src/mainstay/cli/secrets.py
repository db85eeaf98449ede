"""`secret set|list|remove`: values come from a file, standard input or the keyboard, never from the command line."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click

from mainstay.cli.show import ago, json_option, print_json, print_table, say

BYTES_MAX = 64 * 1024
"""Of a value, as the platform takes it."""


@click.group()
def secret() -> None:
    """Set, list and remove secrets. Jobs ask for them by name; nobody can read them back."""


@secret.command(name="set")
@click.argument("name")
@click.option(
    "--file", type=click.File("rb"), metavar="FILE", help="Its content is the value. Without it: standard input."
)
@json_option
def set_(name: str, *, file: BinaryIO | None, as_json: bool) -> None:
    """Store a secret, or a new value of one that is there.

    \b
    mainstay secret set hf-token < token.txt
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.sdk.client import Client

    value = _value(name, file)
    with Client() as client:
        made = client.set_secret(name, value)
    if as_json:
        print_json(made)
    say(f"✓ secret {made.name} is set ({len(value)} bytes)", colour="green")
    say(f"  next: `secrets: [{made.name}]` in a job file puts it into $MAINSTAY_SECRETS_DIR/{made.name}")


@secret.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the names of secrets, and who set them when."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.secrets()
    if as_json:
        print_json(found)
        return
    print_table(("SECRET", "SET", "BY"), ((one.name, f"{ago(one.set_at)} ago", one.set_by) for one in found))
    if not found:
        say("no secret yet: mainstay secret set NAME < FILE")


@secret.command()
@click.argument("name")
@json_option
def remove(name: str, *, as_json: bool) -> None:
    """Forget a secret. Pods that have it keep it; those that start later fail, and say why."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_secret(name)
    if as_json:
        print_json({"removed": name})
    say(f"secret {name} is removed")


def _value(name: str, file: BinaryIO | None) -> bytes:
    """At a terminal it is asked for and not shown; the line break of a typed value is none of it."""
    if file is not None:
        return _whole(file)
    if sys.stdin.isatty():
        typed: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
        return typed.encode()
    return _whole(sys.stdin.buffer)


def _whole(file: BinaryIO) -> bytes:
    """No more than can be sent is read: what has no end would fill the memory."""
    value = file.read(BYTES_MAX + 1)
    if len(value) > BYTES_MAX:
        msg = f"the value has more than {BYTES_MAX:,} bytes; larger files go into `workdir`, or into a volume"
        raise click.UsageError(msg)
    return value
