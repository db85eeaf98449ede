"""Commands about runs that were submitted. A run is named by its id, or by its name, which means its newest run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import (
    ago,
    duration,
    json_option,
    lasted,
    out,
    print_json,
    print_table,
    say,
    table_text,
    wanted,
    why,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.sdk.client import Client, Run
    from mainstay.wire.views import EventView, VolumeView, WorkloadView

EVENT_KINDS = (
    *("workload", "allocation", "node", "cluster", "endpoint", "model", "price", "secret", "volume"),
    *(
        "queue",
        "flavor",
        "priority_class",
        "preemption",
        "tenant",
        "project",
        "role",
        "member",
        "group",
        "token",
        "webhook",
    ),
)
COLUMNS = ("ID", "NAME", "KIND", "STATE", "RESOURCES", "AGE", "RAN", "REASON")


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have finished.")
@click.option("-w", "--watch", is_flag=True, help="Stay, and show every change. Ctrl-C ends it.")
@click.option("--name", default="", help="Only runs of this name.")
@click.option("--project", default="", help="Only runs of this project.")
@click.option("-n", "--most", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@json_option
def ps(*, everything: bool, watch: bool, name: str, project: str, most: int, as_json: bool) -> None:
    """List runs, newest first: those that have not finished, or all.

    -w with --json prints an array per line.
    """
    from mainstay.sdk.client import Client

    with Client() as client:

        def listed() -> list[Run]:
            return client.list(name=name, project=project, all=everything, most=most)

        if watch:
            _watch(client, listed, as_json=as_json)
        elif as_json:
            print_json([run.view for run in listed()])
        else:
            runs = listed()
            print_table(COLUMNS, map(_row, (run.view for run in runs)))
            if not runs:
                say("nothing runs or waits; all runs: mainstay ps -a")
            elif len(runs) == most:
                say(f"the newest {most}; more with -n")


@click.command()
@click.argument("ref", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends. Ctrl-C ends the command, not the run.")
@click.option("--node", type=click.IntRange(0), default=0, show_default=True, help="The rank whose log it is.")
@click.option(
    "--attempt", type=click.IntRange(1), default=None, help="That attempt, counted from 1; by default the newest."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one piece of the log per line.")
def logs(ref: str, *, follow: bool, node: int, attempt: int | None, as_json: bool) -> int:
    """Print the log of a run. Those of earlier attempts are kept: --attempt; -f goes on with the attempts after it."""
    from mainstay.cli.follow import print_log, say_stages
    from mainstay.sdk.client import Client

    with Client() as client:
        try:
            if follow and not as_json and not (run := client.get(ref)).view.started_at:
                say_stages(run)
            if not print_log(client, ref, rank=node, attempt=attempt or 0, follow=follow, as_json=as_json):
                view = client.get(ref).view
                say(_no_log(view, attempt or view.attempt))
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
    return Exit.OK


@click.command()
@click.argument("ref", metavar="RUN")
@click.option("--node", type=click.IntRange(0), default=0, show_default=True, help="The rank whose log it is.")
@click.pass_context
def attach(context: click.Context, ref: str, *, node: int) -> int:
    """Follow the log of a run to its end, as `mainstay logs -f`. Ctrl-C ends the command, not the run."""
    code: int = context.invoke(logs, ref=ref, follow=True, node=node, attempt=None, as_json=False)
    return code


@click.command()
@click.argument("ref", metavar="RUN")
@json_option
def show(ref: str, *, as_json: bool) -> None:
    """Show one run: what was asked for, where it is and why, and its pods."""
    from mainstay.sdk.client import Client

    with Client() as client:
        run = client.get(ref).view
    if as_json:
        print_json(run)
        return
    facts = {
        "id": run.id,
        "name": run.name,
        "project": f"{run.project}, queue {run.queue}, priority {run.priority}" + _standing(run),
        "by": run.submitted_by,
        "state": f"{run.state}: {run.reason.sentence}",
        "stopping": _stopping(run),
        "asked for": wanted(run),
        "has": f"{run.ranks} of {run.nodes_min} to {run.nodes_max} nodes" if run.nodes_max and run.ranks else "",
        "topology": run.topology,
        "spread": run.spread,
        "limit": duration(run.max_duration_seconds) if run.max_duration_seconds else "",
        "nodes with": ", ".join(run.node_labels),
        "prefers": ", ".join(run.node_preferences),
        "tolerates": ", ".join(run.tolerations),
        "spot": run.spot if run.spot != "auto" else "",
        "runs": _command(run.run),
        **{f"  {one.name}": _command(one.run) for one in run.sets},
        "pods": ", ".join(run.guests),
        "submitted": f"{run.submitted_at:%Y-%m-%d %H:%M:%S} UTC, {ago(run.submitted_at)} ago",
        "ran": lasted(run),
        "attempt": str(run.attempt),
        "env": " ".join(f"{name}={value}" for name, value in run.env.items()),
        "secrets": ", ".join(f"{use.name} as {use.env}" if use.env else use.name for use in run.secrets),
        "volumes": ", ".join(map(_volume, run.volumes)),
        "devices": ", ".join(run.devices),
        "output": run.output[:12],
    }
    for name, value in facts.items():
        if value:
            out(f"{name:<11}{value}")
    if run.pods:
        click.echo("")
        columns = ("POD", "ATTEMPT", *(("SET",) if run.sets else ()), "NODE", "STATE", "RAN", "END", "EXIT", "DETAIL")
        print_table(columns, (_pod_row(run, number) for number in range(len(run.pods))))


def _command(arguments: Sequence[str]) -> str:
    return " ".join(arguments).replace("\n", "\\n")


def _no_log(run: WorkloadView, attempt: int) -> str:
    """Why there is none of this attempt."""
    if attempt < run.attempt:
        return f"attempt {attempt} of {run.id} left no log: what ended before it started has none"
    return f"{run.id} has no log yet: it is {run.state}, {run.reason.sentence}"


def _stopping(run: WorkloadView) -> str:
    """Since when its pods are; empty if none is."""
    if run.stopping_since is None:
        return ""
    return f"since {run.stopping_since:%Y-%m-%d %H:%M:%S} UTC, {ago(run.stopping_since)} ago"


def _standing(run: WorkloadView) -> str:
    return ("" if run.preemptible else ", not preemptible") + (", held" if run.held else "")


def _volume(volume: VolumeView) -> str:
    """`ckpt at /ckpt`, `scratch at data from s3://...`."""
    source = f" from {volume.source}" if volume.source else ""
    target = f" to {volume.target}" if volume.target else ""
    return f"{volume.name or 'scratch'} at {volume.path}{source}{target}"


def _found(client: Client, refs: Sequence[str]) -> list[str]:
    """Their ids, if all of them are there: with one that is not, nothing happens to the others."""
    return [client.get(ref).id for ref in refs] if len(refs) > 1 else list(refs)


@click.command()
@click.argument("refs", metavar="RUN...", nargs=-1, required=True)
@json_option
def stop(refs: tuple[str, ...], *, as_json: bool) -> None:
    """Ask runs to end: SIGTERM, and after the run's stop_grace SIGKILL."""
    from mainstay.sdk.client import Client

    with Client() as client:
        stopped = [client.stop(ref).view for ref in _found(client, refs)]
    if as_json:
        print_json(stopped)
        return
    for run in stopped:
        out(f"{run.id} is {run.state}")


@click.command()
@click.argument("refs", metavar="RUN...", nargs=-1, required=True)
@json_option
def hold(refs: tuple[str, ...], *, as_json: bool) -> None:
    """Let runs that wait wait on, whatever is free, until they are released."""
    from mainstay.sdk.client import Client

    with Client() as client:
        held = [client.hold(ref).view for ref in _found(client, refs)]
    if as_json:
        print_json(held)
        return
    for run in held:
        out(f"{run.id} is held")
    say(f"  next: mainstay release {' '.join(refs)}")


@click.command()
@click.argument("refs", metavar="RUN...", nargs=-1, required=True)
@json_option
def release(refs: tuple[str, ...], *, as_json: bool) -> None:
    """Let runs that were held have their turn."""
    from mainstay.sdk.client import Client

    with Client() as client:
        free = [client.release(ref).view for ref in _found(client, refs)]
    if as_json:
        print_json(free)
        return
    for run in free:
        out(f"{run.id} is {run.phase}: {run.reason.sentence}")


@click.command()
@click.argument("ref", metavar="RUN")
@click.argument("priority", metavar="PRIORITY")
@json_option
def reprioritize(ref: str, priority: str, *, as_json: bool) -> None:
    """Give a run another priority: 0 to 100, or a name such as high; a higher number is more urgent. It keeps its age."""
    from mainstay.sdk.client import Client

    with Client() as client:
        run = client.reprioritize(ref, priority).view
    if as_json:
        print_json(run)
        return
    out(f"{run.id} has priority {run.priority}")


@click.command()
@click.argument("ref", metavar="[RUN]", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens next. Ctrl-C ends it.")
@click.option("-n", "--most", type=click.IntRange(1, 1_000), default=100, show_default=True, help="The last so many.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(EVENT_KINDS),
    help="Only of this kind; may be given several times. node, cluster and price are for administrators.",
)
@click.option(
    "--about", default="", metavar="NAME", help="Only of the node, cluster, endpoint, model, secret or volume."
)
@json_option
def events(ref: str, *, follow: bool, most: int, kinds: tuple[str, ...], about: str, as_json: bool) -> int:
    """Print what happened and why, of one run or of everything. Resume numbers are in the first column.

    \b
    mainstay events --kind node --kind cluster -f
    mainstay events --about node-7
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.sdk.client import Client

    with Client() as client:
        workload = client.get(ref).id if ref else ""
        found = client.events(workload=workload, kinds=kinds, about=about, limit=most, newest=True)
        if not follow:
            if as_json:
                print_json(found)
            else:
                print_table(("SEQ", "AT", "BY", "EVENT", "OF", "CHANGE", "WHY"), map(_event_row, found), right=("SEQ",))
            return Exit.OK
        try:
            for event in found:
                _print_event(event, as_json=as_json)
            after = found[-1].seq if found else 0
            for event in client.follow_events(workload=workload, kinds=kinds, about=about, after=after):
                _print_event(event, as_json=as_json)
        except KeyboardInterrupt:
            pass
    return Exit.OK


@click.command()
@click.argument("ref", metavar="RUN")
@json_option
def explain(ref: str, *, as_json: bool) -> None:
    """Say why a run is where it is, and what would let it start."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.explain(ref)
    if as_json:
        print_json(found)
        return
    out(f"{found.id}: {found.sentence}")
    if found.position:
        out(f"  place {found.position} of those that wait")
    if found.turn:
        out(f"  {found.turn}")
    for held in filter(None, (found.holding, *found.more_holdings)):
        for line in filter(None, (held.sentence, held.own_sentence)):
            out(f"  {line}")
    if found.expected and found.position:
        out(f"  {found.expected.sentence}")
    if found.preemption:
        out(f"  {found.preemption}")
    if found.placement:
        out(f"  its nodes are chosen by {found.placement}, as its queue says")


@click.command()
@click.argument("ref", metavar="RUN")
@click.argument("folder", type=click.Path(file_okay=False), required=False)
@json_option
def download(ref: str, folder: str | None, *, as_json: bool) -> None:
    """Fetch the output files of a run into FOLDER, by default one named after the run."""
    from mainstay.sdk.client import Client

    with Client() as client:
        run = client.get(ref)
        paths = run.download(folder or run.id)
    if as_json:
        print_json({"id": run.id, "files": [str(path) for path in paths]})
        return
    for path in paths:
        out(str(path))


def _watch(client: Client, listed: Callable[[], list[Run]], *, as_json: bool) -> None:
    """The list again after every event: drawn over the one before at a terminal, after it anywhere else."""
    from rich.live import Live
    from rich.text import Text

    last = client.events(limit=1, newest=True)

    def table() -> str:
        return table_text(COLUMNS, map(_row, (run.view for run in listed())))

    def array() -> str:
        return f"[{','.join(run.view.model_dump_json() for run in listed())}]"

    try:
        changes = client.follow_events(after=last[-1].seq if last else 0)
        if as_json or not sys.stdout.isatty():
            shown = array if as_json else table
            click.echo(shown())
            for _ in changes:
                click.echo(shown())
            return
        with Live(Text.from_ansi(table()), auto_refresh=False) as live:
            for _ in changes:
                live.update(Text.from_ansi(table()), refresh=True)
    except KeyboardInterrupt:
        return


def _row(run: WorkloadView) -> Sequence[str]:
    return (
        run.id,
        run.name,
        run.kind,
        run.state,
        wanted(run, ranks=run.ranks),
        ago(run.submitted_at),
        lasted(run),
        why(run),
    )


def _pod_row(run: WorkloadView, number: int) -> Sequence[str]:
    pod = run.pods[number]
    ran = duration((pod.ended_at - pod.started_at).total_seconds()) if pod.started_at and pod.ended_at else ""
    code = "" if pod.exit_code is None else str(pod.exit_code)
    of = (_set_of(run, pod.rank),) if run.sets else ()
    return (pod.pod, str(pod.attempt), *of, pod.node, pod.state, ran or ago(pod.started_at), pod.end, code, pod.detail)


def _set_of(run: WorkloadView, rank: int) -> str:
    """The pod set of a rank: those of the first come first."""
    for one in run.sets:
        if rank < one.nodes:
            return one.name
        rank -= one.nodes
    return ""


def _event_row(event: EventView) -> Sequence[str]:
    change = f"{event.phase_before} > {event.phase_after}".strip(" >") if event.phase_after else ""
    at = f"{event.at:%H:%M:%S}.{event.at.microsecond // 1_000:03}"
    return (str(event.seq), at, event.actor, event.kind, event.object, change, event.reason.sentence)


def _print_event(event: EventView, *, as_json: bool) -> None:
    out(event.model_dump_json() if as_json else "  ".join(part for part in _event_row(event) if part))
