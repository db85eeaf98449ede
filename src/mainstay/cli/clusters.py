"""The clusters of the fleet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from mainstay.cli.exits import Exit
from mainstay.cli.groups import Group
from mainstay.cli.show import ago, gib, json_option, out, print_json, print_table, say, used_of

if TYPE_CHECKING:
    from mainstay.wire.views import ClusterView, ResourcesView

SIMULATED = re.compile(r"(?P<count>[1-9][0-9]*)x(?P<parts>[^,=]+=[^,]+(,[^,=]+=[^,]+)*)\Z")


@click.group(cls=Group)
def cluster() -> None:
    """Add, list, drain and remove clusters. For administrators."""


class Nodes(click.ParamType[dict[str, Any]]):
    """`100xcpu=32,memory=128GB,gpu=H100:8`."""

    name = "nodes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """A group of equal nodes, as the API takes it."""
        found = SIMULATED.match(value)
        parts = [part.partition("=")[::2] for part in found["parts"].split(",")] if found else []
        if not found or {name for name, _ in parts} - {"cpu", "memory", "gpu", "label", "taint"}:
            example = "100xcpu=32,memory=128GB,gpu=H100:8,label=disk=ssd,taint=dedicated=ml"
            self.fail(f"{value!r} is no group of nodes; e.g. {example}", param, ctx)
        labels = dict(text.partition("=")[::2] for name, text in parts if name == "label")
        taints = [text for name, text in parts if name == "taint"]
        amounts = {name: text for name, text in parts if name not in {"label", "taint"}}
        return {"count": int(found["count"]), **amounts, "labels": labels, "taints": taints}


@cluster.command()
@click.argument("name")
@click.option(
    "--kubeconfig",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="Sent and kept encrypted; tokens and certificates in it, no programs to run. `-`: standard input.",
)
@click.option("--context", default="", help="Of that file; without one, of the platform's own kubeconfig.")
@click.option("--in-cluster", is_flag=True, help="The cluster in which the platform itself runs.")
@click.option("--namespaces-per-project", type=click.IntRange(1, 100), default=1, show_default=True)
@click.option("--helper-image", default="", metavar="IMAGE", help="Of the helper beside each pod.")
@click.option("--image", default="", metavar="IMAGE", help="Of jobs that name none.")
@click.option(
    "--simulated",
    type=Nodes(),
    multiple=True,
    metavar="COUNTxcpu=..,memory=..,gpu=..",
    help="Nodes in memory only; also label=KEY=VALUE, taint=KEY=VALUE.",
)
@click.option(
    "--topology",
    multiple=True,
    metavar="LEVEL=LABEL",
    help="The label of nodes that says their zone, block or rack; again for more. Default: those of the large providers.",
)
@click.option("--agent", is_flag=True, help="An agent beside it carries it: prints the agent's token, once.")
@json_option
def add(
    *,
    name: str,
    kubeconfig: TextIO | None,
    simulated: tuple[Any, ...],
    topology: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Try the credentials of a cluster and add it; one that is there takes new settings and credentials."""
    from pydantic import ValidationError

    from mainstay.sdk.client import Client
    from mainstay.wire.requests import ClusterRequest

    text = kubeconfig.read() if kubeconfig else ""
    try:
        labels = dict(one.partition("=")[::2] for one in topology)
        given = {"name": name, "kubeconfig": text, "simulated": list(simulated), "topology": labels}
        request = ClusterRequest.model_validate(given | settings)
    except ValidationError as error:
        # Without the values: one of them may be a kubeconfig.
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise click.UsageError("; ".join(faults)) from None
    with Client() as client:
        found = client.add_cluster(request)
    if as_json:
        print_json(found)
    for warning in found.warnings:
        say(f"note: {warning}", colour="yellow")
    say(f"✓ cluster {found.name} is in the fleet{f': {found.server}' if found.server else ''}", colour="green")
    if settings["agent"]:
        _say_token(found.name, found.token, as_json=as_json)
        return
    say(f"  next: mainstay cluster show {found.name} | mainstay nodes")


@cluster.command()
@click.argument("name")
@json_option
def token(name: str, *, as_json: bool) -> None:
    """Make a new token for the agent of a cluster. The one before it ends at once."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.renew_agent_token(name)
    if as_json:
        print_json(found)
    else:
        out(found.token)
    say("  this is its token; it is not shown again. Put it into the file that its agent reads")


@cluster.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List clusters, whether they take work, and what is used of them."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.clusters()
    if as_json:
        print_json(found)
        return
    columns = ("CLUSTER", "KIND", "STATE", "NODES", "CPU", "MEMORY (GIB)", "GPUS", "REASON")
    print_table(columns, map(_row, found))
    if not found:
        say("no cluster yet: mainstay cluster add NAME --kubeconfig FILE")


@cluster.command()
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show one cluster."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.cluster(name)
    if as_json:
        print_json(found)
        return
    for word, value in _facts(found):
        if value:
            out(f"{word:<12} {value}")


@cluster.command()
@click.argument("name")
@json_option
def drain(name: str, *, as_json: bool) -> None:
    """Place nothing new on a cluster; what runs there runs on."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.drain_cluster(name)
    if as_json:
        print_json(found)
    say(f"nothing new is placed on {name}; its pods run on")
    say(f"  next: mainstay cluster resume {name} | mainstay cluster remove {name}")


@cluster.command()
@click.argument("name")
@json_option
def resume(name: str, *, as_json: bool) -> None:
    """Let a drained cluster take work again."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.resume_cluster(name)
    if as_json:
        print_json(found)
    say(f"{name} takes work again" if found.state == "ready" else f"{name} is {found.state}: {found.reason.sentence}")


@cluster.command()
@click.argument("name")
@click.option(
    "--lost",
    is_flag=True,
    help="It is drained and its machines are off for good: what it held is lost, and starts elsewhere.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def remove(name: str, *, lost: bool, yes: bool, as_json: bool) -> int:
    """Take a cluster out of the fleet, once nothing of ours runs there. The cluster itself stays as it is."""
    from mainstay.sdk.client import Client

    question = f"Is it certain that nothing of {name} runs any more? Its jobs will start a second time elsewhere."
    if lost and not yes and not click.confirm(question, err=True):
        return Exit.INTERRUPTED
    with Client() as client:
        client.remove_cluster(name, lost=lost)
    if as_json:
        print_json({"removed": name})
    say(f"cluster {name} is no longer of the fleet")
    return Exit.OK


def _say_token(name: str, token: str, *, as_json: bool) -> None:
    """The token alone on standard output, so that it can go into a file."""
    if not token:
        say(f"  its token stays as it is; a new one: mainstay cluster token {name}")
        return
    if not as_json:
        out(token)
    say(
        "  this is its token; it is not shown again. Put it into a file that only the agent reads, then, beside the cluster:"
    )
    say(f"  mainstay agent --server URL --cluster {name} --token-file FILE --in-cluster")


def _row(found: ClusterView) -> Sequence[str]:
    capacity, used = found.capacity, found.used
    figures = _figures(used, capacity) if capacity and used else ("", "", "")
    reason = "" if found.state == "ready" else found.reason.sentence
    return (found.name, found.kind, found.state, f"{found.nodes_ready} of {found.nodes}", *figures, reason)


def _figures(used: ResourcesView, capacity: ResourcesView) -> tuple[str, str, str]:
    return (
        used_of(used.cpu, capacity.cpu),
        f"{gib(used.memory_bytes)} of {gib(capacity.memory_bytes)}",
        f"{used_of(used.gpus, capacity.gpus)} {capacity.gpu_model}".strip() if capacity.gpus else "none",
    )


def _facts(found: ClusterView) -> Sequence[tuple[str, str]]:
    capacity, used = found.capacity, found.used
    cpu, memory, gpus = _figures(used, capacity) if capacity and used else ("", "", "")
    return (
        ("name", found.name),
        ("kind", found.kind),
        ("agent", "" if found.agent_heard is None else "connected" if found.agent_heard else "not connected"),
        ("state", f"{found.state}: {found.reason.sentence}"),
        ("server", found.server),
        ("context", found.context),
        ("in cluster", "yes" if found.in_cluster else ""),
        ("identity", found.identity),
        ("namespaces", f"{found.namespaces_per_project} per project" if found.kind == "kubernetes" else ""),
        ("topology", ", ".join(f"{level} by {label}" for level, label in found.topology.items())),
        ("image", found.image),
        ("helper", found.helper_image),
        ("nodes", f"{found.nodes_ready} of {found.nodes} ready"),
        ("cpu", cpu),
        ("memory", f"{memory} GiB"),
        ("gpus", gpus),
        ("added", f"{ago(found.added_at)} ago by {found.added_by}" if found.added_at else ""),
    )
