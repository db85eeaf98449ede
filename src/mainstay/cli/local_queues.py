"""`queue local list|set|remove`: the names that namespaces of clusters have for queues."""

from __future__ import annotations

import click

from mainstay.cli.groups import Group
from mainstay.cli.show import ago, json_option, print_json, print_table, say


@click.group(cls=Group)
def local() -> None:
    """Say which queue a name of a namespace stands for, so that pods that others make there wait in it.

    Such pods say the name as Kueue has it, in the label kueue.x-k8s.io/queue-name; the label mainstay.dev/queue goes before it.
    """


@local.command(name="list")
@json_option
def list_local(*, as_json: bool) -> None:
    """List the names that namespaces have for queues."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.local_queues()
    if as_json:
        print_json(found)
        return
    if not found:
        say(
            "there are none: set them from Kueue's LocalQueues with mainstay apply -f FILE, or: mainstay queue local set"
        )
        return
    rows = ((one.namespace, one.name, one.cluster or "any", one.queue, f"{ago(one.set_at)} ago") for one in found)
    print_table(("NAMESPACE", "NAME", "CLUSTER", "QUEUE", "SET"), rows)


@local.command(name="set")
@click.argument("name", metavar="NAMESPACE/NAME")
@click.argument("queue_", metavar="QUEUE")
@click.option("--cluster", default="", metavar="CLUSTER", help="Only there; this goes before what is said of any.")
@json_option
def set_local(name: str, queue_: str, *, cluster: str, as_json: bool) -> None:
    """Say which queue a name of a namespace stands for. Pods that wait already keep theirs. For administrators."""
    from mainstay.sdk.client import Client
    from mainstay.wire.requests import LocalQueueRequest

    namespace, plain = _local(name)
    request = LocalQueueRequest(cluster=cluster, namespace=namespace, name=plain, queue=queue_)
    with Client() as client:
        made = client.set_local_queues([request])
    if as_json:
        print_json([one for one in made if (one.namespace, one.name, one.cluster) == (namespace, plain, cluster)])
    say(f"✓ {name} stands for queue {queue_}", colour="green")
    say("  next: mainstay queue local list")


@local.command(name="remove")
@click.argument("name", metavar="NAMESPACE/NAME")
@click.option("--cluster", default="", metavar="CLUSTER", help="What was said of this cluster.")
@json_option
def remove_local(name: str, *, cluster: str, as_json: bool) -> None:
    """Forget it: pods that say it from now on wait in the default queue. For administrators."""
    from mainstay.sdk.client import Client

    namespace, plain = _local(name)
    with Client() as client:
        client.remove_local_queue(namespace, plain, cluster=cluster)
    if as_json:
        print_json({"removed": name})
    say(f"local queue {name} is removed")


def _local(name: str) -> tuple[str, str]:
    namespace, slash, plain = name.partition("/")
    if not (namespace and slash and plain) or "/" in plain:
        msg = f"{name} is not NAMESPACE/NAME"
        raise click.UsageError(msg)
    return namespace, plain
