"""`secret ...`: values come from a file, standard input or the keyboard, never from the command line. And keys that seal them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, BinaryIO

import click

from mainstay.cli.show import ago, json_option, print_json, print_table, say

if TYPE_CHECKING:
    from mainstay.wire.views import KeyView

KEY = re.compile(r"msk_[0-9a-f]{64}\Z")
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


@secret.command(name="rotate-key")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=lambda: Path(os.environ.get("MAINSTAY_STATE") or Path.home() / ".mainstay") / "secrets-key",
    help="Default: `secrets-key` in $MAINSTAY_STATE or ~/.mainstay.",
)
@click.option("--second", is_flag=True, help="It opens only, for now: until every replica has it.")
@click.option("--first", is_flag=True, help="No new key: the second one begins to seal.")
def rotate_key(key_file: Path, *, second: bool, first: bool) -> None:
    """Put a new key into the file of keys: it seals from the next start on, and what older ones have sealed is sealed anew.

    On the machine of the platform. With several replicas: --second, copy the file and restart each; then --first, and again.
    """
    from mainstay.sdk.config import write_private

    keys = [line.strip() for line in key_file.read_text().splitlines() if line.strip()]
    if not keys or not all(KEY.match(key) for key in keys):
        msg = f"{key_file}: not a file of keys"
        raise click.ClickException(msg)
    if first and (second or len(keys) < 2):
        msg = f"{key_file}: there is no second key to seal with; make one with --second"
        raise click.UsageError(msg)
    new = keys.pop(1) if first else f"msk_{token_hex(32)}"
    keys.insert(int(second), new)
    write_private(key_file, "".join(f"{key}\n" for key in keys))
    say(f"✓ {key_file} has {len(keys)} keys", colour="green")
    say("  next: restart the platform; `mainstay secret keys` says when an older one may be dropped")


@secret.command()
@json_option
def keys(*, as_json: bool) -> None:
    """List the keys that seal, by name, and how much each has sealed. For administrators."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.sealing_keys()
    if as_json:
        print_json(found)
        return
    print_table(("KEY", "SEALED", "STATE"), ((one.id, f"{one.sealed:,}", _state(one)) for one in found))


def _state(key: KeyView) -> str:
    if key.seals:
        return "seals"
    if not key.held:
        return "not here: what it has sealed cannot be opened"
    return "opens" if key.sealed else "opens nothing any more: take its line out of the file of keys"


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
