"""`volume list|show|remove`: volumes that outlive runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mainstay.cli.show import json_option, memory, out, print_json, print_table, say

if TYPE_CHECKING:
    from mainstay.wire.views import NamedVolumeView

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def volume() -> None:
    """List and remove volumes that outlive runs. A job that names one with a `size` makes it."""


def which(command: F) -> F:
    """Options that tell volumes of one name apart."""
    for option in (
        click.option("--cluster", default="", help="Where it lies, if several clusters have one of that name."),
        click.option("--project", default="", help="Whose it is, if several projects have one of that name."),
    ):
        command = option(command)
    return command


@volume.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List volumes: where each lies, how large it is, and what uses it."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.volumes()
    if as_json:
        print_json(found)
        return
    columns = ("VOLUME", "PROJECT", "CLUSTER", "PLACE", "SIZE", "STATE", "USED BY")
    print_table(columns, (_row(one) for one in found), right=("SIZE",))
    if not found:
        say("no volume yet: `volumes: [{path: data, name: NAME, size: 10GB}]` in a job file makes one")


@volume.command()
@click.argument("name")
@which
@json_option
def show(name: str, *, project: str, cluster: str, as_json: bool) -> None:
    """Show one volume."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.volume(name, project=project, cluster=cluster)
    if as_json:
        print_json(found)
        return
    for title, text in (
        ("volume", found.name),
        ("project", found.project),
        ("lies", f"in cluster {found.cluster}" + (f", {found.place}" if found.place else "")),
        ("size", _size(found)),
        ("access", ", ".join(found.access)),
        ("class", found.storage_class),
        ("state", found.state),
        ("used by", ", ".join(found.used_by) or "nothing"),
    ):
        if text:
            out(f"{title:<9}{text}")


@volume.command()
@click.argument("name")
@which
@json_option
def remove(name: str, *, project: str, cluster: str, as_json: bool) -> None:
    """Delete a volume with all that is in it. Refused while a run uses it or waits to."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_volume(name, project=project, cluster=cluster)
    if as_json:
        print_json({"removed": name})
    say(f"volume {name} is being removed, with all that is in it")


def _row(one: NamedVolumeView) -> tuple[str, ...]:
    used = ", ".join(one.used_by[:3]) + (f" and {len(one.used_by) - 3} more" if len(one.used_by) > 3 else "")
    return one.name, one.project, one.cluster, one.place, _size(one), one.state, used


def _size(one: NamedVolumeView) -> str:
    return memory(one.size_bytes) if one.size_bytes else ""
