"""`run`, `apply` and `plan`: from a command or a file to a run that is followed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import ahead, asked_for, duration, json_option, money, print_json, say, table_text

if TYPE_CHECKING:
    from mainstay.wire.job import Job
    from mainstay.wire.views import PlanView

F = TypeVar("F", bound=Callable[..., Any])


def bound(command: F) -> F:
    """The option of everything that may be bound to a cluster. The job file may say it too."""
    return click.option(
        "--infra", metavar="CLUSTER", help="The cluster where it must run, or that LocalQueues are of. Default: any."
    )(command)


def sized(command: F) -> F:
    """The option of everything that may be of another size. The job file may say it too."""
    text = "Ranked processes, placed together; MIN:MAX of an elastic job, e.g. 2:8."
    return click.option("--nodes", metavar="COUNT", help=text)(command)


def submitting(command: F) -> F:
    """The options of everything that submits."""
    command = json_option(command)
    command = click.option("-d", "--detach", is_flag=True, help="Do not follow the run.")(command)
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


@click.command()
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-n", "--name", help="Default: the name of this folder.")
@click.option("--gpus", metavar="GPUS", help="Count, model, memory, or a part of one: 8, H100:8, 80GB:2, 0.5.")
@click.option("--cpus", metavar="CORES", help="E.g. 4, 500m, or 4+ for at least 4.")
@click.option("--memory", metavar="SIZE", help="E.g. 16GB or 32Gi.")
@sized
@click.option(
    "--topology",
    metavar="HOW=LEVEL",
    help="How near they lie: required=rack, or preferred=block. Levels: zone, block, rack, host.",
)
@click.option(
    "--spread",
    metavar="LEVEL[=COUNT]",
    help="How far apart they lie: host=1, at most one on each; or zone, evenly. The same levels.",
)
@click.option(
    "--node-label",
    multiple=True,
    metavar="LABEL",
    help="Its nodes must have it: disk=ssd, 'zone in (a, b)', '!retiring'.",
)
@click.option("--prefer-label", multiple=True, metavar="LABEL", help="Nodes with it go first; again for more.")
@click.option("--toleration", multiple=True, metavar="TAINT", help="A taint it puts up with: dedicated=ml:NoSchedule.")
@click.option("--spot", metavar="WHETHER", help="Nodes that may be taken away: never, auto (default), or only these.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Again for more; without a value: from here.")
@click.option("--workdir", type=click.Path(exists=True, file_okay=False), help="Send this folder and run in it.")
@click.option("--project")
@click.option("--queue")
@bound
@click.option("--priority", metavar="0-100", help="Or low, normal, high, urgent; higher is more urgent.")
@click.option("--max-duration", metavar="TIME", help="Stop it after so long, e.g. 90s, 30m, 12h.")
@submitting
def run(
    command: tuple[str, ...],
    gpus: str | None,
    cpus: str | None,
    memory: str | None,
    env: tuple[str, ...],
    *,
    topology: str | None,
    spread: str | None,
    node_label: tuple[str, ...],
    prefer_label: tuple[str, ...],
    toleration: tuple[str, ...],
    spot: str | None,
    yes: bool,
    detach: bool,
    as_json: bool,
    **fields: Any,
) -> int:
    """Run a command as a job, and follow it.

    \b
    mainstay run -- python -c 'print(6 * 7)'
    mainstay run --gpus H100:8 --workdir . -- torchrun train.py
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.wire.jobfile import name_of

    if len(command) == 1 and command[0].endswith((".yaml", ".yml")):
        msg = f"{command[0]} is a job file: mainstay apply -f {command[0]}"
        raise click.UsageError(msg)
    amounts = (("gpu", gpus), ("cpu", cpus), ("memory", memory), ("spot", spot))
    asked = {name: value for name, value in amounts if value is not None}
    document = {name: value for name, value in fields.items() if value is not None}
    document.setdefault("name", name_of(Path.cwd()))
    document |= {"command": list(command), "resources": asked, "env": dict(map(_variable, env))}
    document |= {"node_labels": list(node_label), "node_preferences": list(prefer_label)}
    document["tolerations"] = list(toleration)
    if topology is not None:
        document["topology"] = dict([_topology(topology)])
    if spread is not None:
        level, given, at_most = spread.partition("=")
        document["spread"] = {"level": level, "at_most": at_most} if given else level
    return _submit(_job(document), Path.cwd(), yes=yes, detach=detach, as_json=as_json)


@click.command()
@click.option("-f", "--file", required=True, metavar="FILE", help="The job file; - for standard input.")
@click.option("-n", "--name", help="Instead of the name in the file.")
@sized
@bound
@submitting
def apply(file: str, *, yes: bool, detach: bool, as_json: bool, **instead: str | None) -> int:
    """Submit a job file, and follow the run. A file of Kueue's queues is shown with what it changes, and set.

    The smallest job file is one line: `run: python train.py`. Every field: docs/reference/job-file.md.
    """
    from mainstay.wire.kueue import is_kueue

    content = _content(file)
    if is_kueue(content):
        from mainstay.cli.imports import set_all

        cluster = instead.pop("infra") or ""
        _no_job(*instead.values(), "-d" if detach else None)
        return set_all(content, source=_source(file), cluster=cluster, yes=yes, as_json=as_json)
    job, base = _read(file, content, **instead)
    with _at_its_line(file, but=instead):
        return _submit(job, base, yes=yes, detach=detach, as_json=as_json)


@click.command()
@click.option("-f", "--file", required=True, metavar="FILE", help="The job file; - for standard input.")
@sized
@bound
@json_option
def plan(file: str, *, as_json: bool, **instead: str | None) -> None:
    """Show where a job would run, when, and at what price, or what a file of Kueue's queues would change. Nothing is done."""
    from mainstay.sdk.client import Client
    from mainstay.wire.kueue import is_kueue

    content = _content(file)
    if is_kueue(content):
        from mainstay.cli.imports import preview

        cluster = instead.pop("infra") or ""
        _no_job(*instead.values())
        preview(content, source=_source(file), cluster=cluster, as_json=as_json)
        return
    job, _ = _read(file, content, **instead)
    with _at_its_line(file, but=instead), Client() as client:
        found = client.plan(job)
    if as_json:
        print_json(found)
    else:
        click.echo(plan_text(found), nl=False)


def _submit(job: Job, base: Path, *, yes: bool, detach: bool, as_json: bool) -> int:
    """Plan, ask, submit, follow."""
    from mainstay.cli.follow import follow
    from mainstay.sdk.client import Client

    with Client() as client:
        if not as_json:
            say(plan_text(client.plan(job)), end=False)
            if not yes and not confirmed("Submit?", instead="add -y to submit without asking"):
                say("nothing was submitted")
                return Exit.INTERRUPTED
        made = client.submit(job, base=base)
        if as_json:
            print_json(made.view)
            return Exit.OK
        say(f"  {made.name} is {made.id}; Ctrl-C detaches, the run goes on")
        if made.view.max_duration_seconds and not job.max_duration:
            say(
                f"  queue {made.view.queue} ends it after {duration(made.view.max_duration_seconds)}: it has no max_duration"
            )
        if detach:
            say(f"  next: mainstay logs -f {made.id} | mainstay show {made.id}")
            return Exit.OK
        return follow(client, made)


def confirmed(question: str, *, instead: str) -> bool:
    """What somebody at a terminal answers. Raises UsageError where nobody is."""
    if not sys.stdin.isatty():
        msg = f"nobody is there to be asked; {instead}"
        raise click.UsageError(msg)
    return click.confirm(question, default=True, err=True)


def plan_text(plan: PlanView) -> str:
    """The table of a plan, and below it what its starts wait for."""
    rows = [
        (
            str(number),
            option.where,
            asked_for(option, ranks=option.nodes if option.starts == "now" else 0),
            f"{money(option.price_per_hour)}/h" + (f", at most {money(option.cost_max)}" if option.cost_max else ""),
            _start(plan, option.starts),
            option.reason.sentence,
        )
        for number, option in enumerate(plan.options, 1)
    ]
    text = table_text(("#", "WHERE", "RESOURCES", "PRICE", "START p50/p90", "WHY"), rows)
    for option in plan.options:
        if option.limited_by_queue:
            limit = duration(option.max_duration_seconds)
            text += f"  its queue ends it after {limit}, since it has no max_duration of its own\n"
    if plan.position:
        text += f"  place {plan.position} of those that wait\n"
    if plan.turn:
        text += f"  {plan.turn}\n"
    for held in filter(None, (plan.holding, *plan.more_holdings)):
        for line in filter(None, (held.sentence, held.own_sentence)):
            text += f"  {line}\n"
    if plan.expected and plan.position:
        text += f"  {plan.expected.sentence}\n"
    if plan.preemption:
        text += f"  {plan.preemption}\n"
    for other in plan.would_start_if:
        text += f"  would start now with {other.change} {other.after} instead of {other.before}\n"
    return text


def _start(plan: PlanView, starts: str) -> str:
    """`now`, `never`, or in how long, half of the time and nine times of ten: `in 5m 0s / 40m 0s`; `?` is not known."""
    found = plan.expected
    if starts != "later" or found is None:
        return starts
    if found.not_before:
        return f"not before {ahead(found.not_before)}"
    if not found.p50:
        return starts
    return f"in {ahead(found.p50)} / {ahead(found.p90) if found.p90 else '?'}"


def _no_job(*options: str | None) -> None:
    if any(options):
        msg = "the file holds queues: what is said of a job means nothing for them"
        raise click.UsageError(msg)


def _read(file: str, content: bytes, **instead: str | None) -> tuple[Job, Path]:
    """The job, with what options say `instead` of the file, and the folder that its paths are relative to."""
    from mainstay.wire.jobfile import JobFileError, name_of, parse

    base = Path.cwd() if file == "-" else Path(file).resolve().parent
    try:
        job = parse(content, source=_source(file), name=name_of(base))
    except JobFileError as error:
        for fault in error.faults:
            say(fault.sentence(error.source))
        raise click.exceptions.Exit(Exit.USAGE) from None
    said = {name: value for name, value in instead.items() if value is not None}
    return (_job({**job.model_dump(), **said}) if said else job), base


@contextmanager
def _at_its_line(file: str, *, but: Mapping[str, str | None]) -> Iterator[None]:
    """What the platform refuses is told at the line of its field, as what is found here; `but` what options said instead."""
    from mainstay.sdk.errors import ApiError
    from mainstay.wire.jobfile import place_of

    try:
        yield
    except ApiError as error:
        field = error.problem.object
        written = error.status == HTTPStatus.UNPROCESSABLE_ENTITY and file != "-" and but.get(field) is None
        place = place_of(Path(file), field) if written else None
        if place is None:
            raise
        detail = f"{file}:{place[0]}:{place[1]}: {error.message}"
        raise ApiError(error.problem.model_copy(update={"detail": detail})) from error


def _content(file: str) -> bytes:
    """No more than a file may have, and a little: what has no end would fill the memory."""
    from mainstay.wire.jobfile import SIZE_MAX

    if file == "-":
        return sys.stdin.buffer.read(4 * SIZE_MAX + 1)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(4 * SIZE_MAX + 1)
    except OSError as error:
        msg = f"cannot read {file}: {error.strerror}"
        raise click.UsageError(msg) from error


def _source(file: str) -> str:
    return "stdin" if file == "-" else file


def _job(document: dict[str, Any]) -> Job:
    from pydantic import ValidationError

    from mainstay.wire.faults import field_problem, in_words
    from mainstay.wire.job import Job

    try:
        return Job.model_validate(document)
    except ValidationError as error:
        places = [[str(part) for part in fault["loc"]] for fault in error.errors()]
        found = [field_problem(fault, at, job=at) for fault, at in zip(error.errors(), places, strict=True)]
        msg = "\n".join(
            in_words(
                fault.field.removeprefix("resources."), fault.message, allowed=fault.allowed, nearest=fault.nearest
            )
            for fault in found
        )
        raise click.UsageError(msg) from None


def _topology(text: str) -> tuple[str, str]:
    how, _, level = text.partition("=")
    if how not in {"required", "preferred"} or not level:
        msg = f"--topology {text}: say required=LEVEL or preferred=LEVEL; levels are zone, block, rack and host"
        raise click.UsageError(msg)
    return how, level


def _variable(text: str) -> tuple[str, str]:
    name, given, value = text.partition("=")
    if not given and name not in os.environ:
        msg = f"--env {name}: there is no such variable here; give --env {name}=VALUE"
        raise click.UsageError(msg)
    return name, value if given else os.environ[name]
