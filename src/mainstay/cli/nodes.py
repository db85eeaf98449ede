"""The nodes of the fleet."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mainstay.cli.exits import Exit
from mainstay.cli.groups import Group
from mainstay.cli.show import ago, counted, gib, json_option, memory_of_gpu, out, print_json, print_table, say, used_of

if TYPE_CHECKING:
    from mainstay.sdk.client import Client
    from mainstay.wire.views import NodeView

LOOK_SECONDS = 1.0
STRANGERS_SHOWN = 10
reason_option = click.option("--reason", default="", metavar="TEXT", help="Why: shown wherever the node is.")


@click.group(cls=Group)
def node() -> None:
    """List nodes, keep work off them, empty them. NODE is a name, or CLUSTER/NAME where several clusters have it."""


@click.command()
@json_option
def nodes(*, as_json: bool) -> None:
    """List nodes, whether they take work, what they have and what is used of it."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.nodes()
    if as_json:
        print_json(found)
        return
    columns = ("NODE", "CLUSTER", "STATE", "CPU", "MEMORY (GIB)", "GPUS", "PODS", "REASON")
    print_table(columns, map(_row, found))


node.add_command(nodes, "list")


@node.command()
@click.argument("name", metavar="NODE")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show one node, what is wrong with it, and the pods on it."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.node(name)
    if as_json:
        print_json(found)
        return
    for word, value in _facts(found):
        if value:
            out(f"{word:<12} {value}")
    if found.pods:
        out("")
        rows = ((pod.pod, pod.tenant, pod.state, pod.detail) for pod in found.pods)
        print_table(("POD", "TENANT", "STATE", "DRAIN"), rows)


@node.command()
@click.argument("name", metavar="NODE")
@reason_option
@json_option
def cordon(name: str, *, reason: str, as_json: bool) -> None:
    """Place nothing new on a node; what runs there runs on. For administrators, as all that follows."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.cordon_node(name, reason=reason)
    if as_json:
        print_json(found)
    say(f"nothing new is placed on {found.name}; its pods run on")
    say(f"  next: mainstay node drain {name} | mainstay node uncordon {name}")


@node.command()
@click.argument("name", metavar="NODE")
@json_option
def uncordon(name: str, *, as_json: bool) -> None:
    """Let a node take work again; ends a drain."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.uncordon_node(name)
    if as_json:
        print_json(found)
    _say_whether_it_takes_work(found)


@node.command()
@click.argument("name", metavar="NODE")
@reason_option
@click.option("--for", "duration", default="", metavar="DURATION", help="E.g. 2h. Default: until it is released.")
@json_option
def quarantine(name: str, *, reason: str, duration: str, as_json: bool) -> None:
    """Keep a node out for a suspicion, until it is released; what runs there runs on."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.quarantine_node(name, reason=reason, duration=duration)
    if as_json:
        print_json(found)
    until = f" until {found.until:%Y-%m-%d %H:%M} UTC" if found.until else ""
    say(f"{found.name} is in quarantine{until}; its pods run on")
    say(f"  next: mainstay node drain {name} | mainstay node release {name}")


@node.command()
@click.argument("name", metavar="NODE")
@json_option
def release(name: str, *, as_json: bool) -> None:
    """End the quarantine of a node."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.release_node(name)
    if as_json:
        print_json(found)
    _say_whether_it_takes_work(found)


@node.command()
@click.argument("name", metavar="NODE")
@reason_option
@click.option(
    "--wait",
    default="",
    metavar="DURATION",
    help="E.g. 30m: what reaches its max_duration within it is left to its end.",
)
@click.option("-d", "--detach", is_flag=True, help="Do not follow.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def drain(name: str, *, reason: str, wait: str, detach: bool, yes: bool, as_json: bool) -> int:
    """Empty a node: its pods end with their grace and start elsewhere. Follows until it is empty; Ctrl-C only stops that.

    Pods of others that mainstay has not placed are left alone and listed. `mainstay node uncordon` ends a drain.
    """
    from mainstay.sdk.client import Client

    with Client() as client:
        if not yes and (running := client.node(name).pods_left) and not _confirmed(name, running):
            return Exit.INTERRUPTED
        found = client.drain_node(name, reason=reason, wait=wait)
        if not detach:
            try:
                found = _followed(client, name)
            except KeyboardInterrupt:
                say(f"\n  detached; the drain goes on.   mainstay node show {name} | mainstay node uncordon {name}")
                return Exit.INTERRUPTED
    if as_json:
        print_json(found)
    if detach:
        say(f"{found.name} is being drained")
        say(f"  next: mainstay node show {name} | mainstay node uncordon {name}")
        return Exit.OK
    if found.state not in {"draining", "quarantined"}:
        say(f"the drain of {found.name} was ended: it is {found.state}")
        return Exit.FAILED
    say(f"✓ nothing of mainstay runs on {found.name} any more", colour="green")
    for stranger in found.strangers[:STRANGERS_SHOWN]:
        say(f"  left alone: {stranger}")
    if len(found.strangers) > STRANGERS_SHOWN:
        say(f"  left alone: {len(found.strangers) - STRANGERS_SHOWN} more")
    say(f"  next: mainstay node uncordon {name}")
    return Exit.OK


def _confirmed(name: str, running: int) -> bool:
    """Raises UsageError where nobody can be asked."""
    what = f"{counted(running, 'pod')} on {name} will be ended, and started elsewhere"
    if not sys.stdin.isatty():
        msg = f"{what}; nobody is there to be asked: add -y to drain it without asking"
        raise click.UsageError(msg)
    return click.confirm(f"{what}. Drain it?", err=True)


def _followed(client: Client, name: str) -> NodeView:
    """Until it is empty, or is no longer drained; each pod's words are said when they change."""
    told: dict[str, str] = {}
    left = -1
    while True:
        found = client.node(name)
        for pod in found.pods:
            if told.get(pod.pod) != pod.detail:
                told[pod.pod] = pod.detail
                say(f"  {pod.pod} {pod.detail}")
        for gone in [pod for pod in told if pod not in {one.pod for one in found.pods}]:
            del told[gone]
            say(f"  {gone} has left")
        if found.pods_left != left and found.pods_left:
            left = found.pods_left
            say(f"  {found.name}: {counted(left, 'pod')} left")
        if not found.pods_left or found.state not in {"draining", "quarantined"}:
            return found
        time.sleep(LOOK_SECONDS)


def _say_whether_it_takes_work(found: NodeView) -> None:
    if found.state == "ready":
        say(f"{found.name} takes work again")
    else:
        say(f"{found.name} is {found.state}: {found.reason.sentence if found.reason else ''}")


def _row(found: NodeView) -> Sequence[str]:
    state = found.cluster_state if found.state == "ready" else found.state
    state = f"{state}, spot" if found.spot else state
    said = [found.reason.sentence] if found.reason else []
    return (
        found.name,
        found.cluster,
        state,
        used_of(found.used.cpu, found.capacity.cpu),
        f"{gib(found.used.memory_bytes)} of {gib(found.capacity.memory_bytes)}",
        _devices(found),
        _pods(found),
        "; ".join([*said, *found.complaints]),
    )


def _devices(found: NodeView) -> str:
    words = (
        f"{one.used} of {one.total} {one.model}".rstrip()
        + (f" with {memory_of_gpu(one.memory_bytes)}" if one.memory_bytes else "")
        + (f" ({one.unhealthy} unhealthy)" if one.unhealthy else "")
        for one in found.devices
    )
    return ", ".join(words) or "none"


def _pods(found: NodeView) -> str:
    return str(found.pods_used) if found.pods_max is None else f"{found.pods_used} of {found.pods_max}"


def _facts(found: NodeView) -> Sequence[tuple[str, str]]:
    why = f": {found.reason.sentence}" if found.reason else ""
    return (
        ("name", found.name),
        ("cluster", found.cluster if found.cluster_state == "ready" else f"{found.cluster} ({found.cluster_state})"),
        ("state", f"{found.state}{why}"),
        ("since", f"{ago(found.since)} ago" if found.since else ""),
        ("until", f"{found.until:%Y-%m-%d %H:%M} UTC" if found.until else ""),
        ("complaints", "; ".join(found.complaints)),
        ("spot", "yes: its provider may take it away" if found.spot else ""),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(found.labels.items()))),
        ("taints", ", ".join(found.taints)),
        ("cpu", used_of(found.used.cpu, found.capacity.cpu)),
        (
            "memory",
            f"{gib(found.used.memory_bytes)} of {gib(found.capacity.memory_bytes)} GiB",
        ),
        ("gpus", _devices(found)),
        ("pods", _pods(found)),
        ("others", ", ".join(found.strangers)),
    )
