"""`queue list|show|set|remove|history`: how a fleet is shared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from mainstay.cli.groups import Group
from mainstay.cli.local_queues import local
from mainstay.cli.show import (
    MEMORY_UNITS,
    ago,
    duration,
    figure,
    json_option,
    out,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from mainstay.wire.requests import PreemptionRequest, QuotaRequest
    from mainstay.wire.views import PreemptionView, QueueView, QuotaView

NONE = "none"
"""Instead of a parent or of quotas: it is to have none."""
Cell = tuple[str, str]


@click.group(cls=Group)
def queue() -> None:
    """Share a fleet: list queues, show how they stand, set and remove them."""


queue.add_command(local)


@queue.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List queues and cohorts as a tree, with what they use of what they have.

    An administrator sees what everybody uses, others what their own tenant does. FAIR is the part of the fleet that is its own or
    is due to it by weight, CAPPED the same where nobody has more than they ask for, HOLDS what it has now, LATELY what it has
    used lately.
    """
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.queues()
    if as_json:
        print_json(found)
        return
    columns = ("QUEUE", "WEIGHT", "SHARE", "FAIR", "CAPPED", "HOLDS", "LATELY", "WAITING", "RUNNING", "USED")
    print_table(columns, _tree_rows(found), right=columns[1:-1])


@queue.command()
@click.argument("name", metavar="QUEUE")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show a queue: its quotas, what is used, borrowed and lent of them, its share, and how many wait and run."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.queue(name)
    if as_json:
        print_json(found)
        return
    facts = {
        "name": found.name + (" (cohort)" if found.cohort else ""),
        "parent": found.parent,
        "weight": figure(found.weight),
        "share": "" if found.share is None else figure(found.share),
        "fleet": _fleet_words(found),
        "waiting": str(found.waiting),
        "running": str(found.running),
        "set": f"{ago(found.set_at)} ago by {found.set_by}" if found.set_at else "",
        "preempts": preemption_words(found.preemption),
        "reserves": "" if found.cohort else f"a start for what has waited {duration(found.reserved_after_seconds)}",
        "places": "" if found.cohort else f"by {found.placement}",
        "order": "" if found.cohort else found.order,
        "users": ", ".join(found.users),
        "limits": f"what says no max_duration to {duration(limit)}"
        if (limit := found.default_max_duration_seconds)
        else "",
        "warning": "; ".join(found.warnings),
    }
    for word, value in facts.items():
        if value:
            out(f"{word:<9}{value}")
    out("")
    if not found.quotas:
        say("it has no quota: what it may use is not limited, and nothing of it is lent")
        return
    columns = ("QUOTA", "OWN", "USED", "MAY USE", "BORROWED", "LENT", "BORROWS AT MOST", "LENDS AT MOST")
    print_table(columns, map(_quota_row, found.quotas), right=columns[1:])


@queue.command(name="set")
@click.argument("name", metavar="QUEUE")
@click.option("--parent", metavar="COHORT", help="The cohort it belongs to, made if it is not there; `none`: none.")
@click.option("--cohort/--no-cohort", default=None, help="An inner node: takes no runs, shares what those below leave.")
@click.option(
    "--weight", type=click.FloatRange(0), metavar="NUMBER", help="Of its share among its siblings. At first 1."
)
@click.option(
    "--quota",
    multiple=True,
    metavar="WHAT=AMOUNT,...",
    help="What is its own, e.g. gpu=H100:8,cpu=64,cpu=spot:32,memory=1TB. All quotas are said together; `none`: none.",
)
@click.option(
    "--borrow", multiple=True, metavar="WHAT=AMOUNT,...", help="How much above it at most. Default: all left."
)
@click.option("--lend", multiple=True, metavar="WHAT=AMOUNT,...", help="How much of it others may use. Default: all.")
@click.option(
    "--preempt",
    multiple=True,
    metavar="RULE=WHOM,...",
    help="Whose place its work may take, e.g. within-queue=lower-priority,reclaim=any,fair-share=final-share,"
    "min-runtime=10m. All rules are said together; `none`: nobody's, as at first.",
)
@click.option(
    "--reserved-after",
    metavar="TIME",
    help="So long its work waits, finding no room, before a start is reserved for it. At first 10m.",
)
@click.option(
    "--placement",
    metavar="POLICY",
    help="How nodes are chosen for its work: least-waste, best-fit or spread; `none`: as for everybody, as at first.",
)
@click.option(
    "--order",
    metavar="NAME",
    help="Which of its work goes first of what is as urgent: `fair` (turns between those who submit, as at first), `fifo`,"
    " `strict` (and nothing passes what does not fit), `srtf`, `srsf`.",
)
@click.option(
    "--default-max-duration",
    metavar="TIME",
    help="The max_duration of jobs that say none, from now on, e.g. 8h; `none`: none, as at first.",
)
@click.option(
    "--users",
    metavar="WHO",
    help="Whose jobs it takes, e.g. acme,beta/vision: tenants, and projects of tenants; `none`: everybody's, as at first.",
)
@json_option
def set_(
    name: str,
    *,
    parent: str | None,
    cohort: bool | None,
    weight: float | None,
    quota: tuple[str, ...],
    borrow: tuple[str, ...],
    lend: tuple[str, ...],
    preempt: tuple[str, ...],
    reserved_after: str | None,
    placement: str | None,
    order: str | None,
    default_max_duration: str | None,
    users: str | None,
    as_json: bool,
) -> None:
    """Set a queue or cohort, or change one that is there: what is not given stays as it is. For administrators.

    \b
    mainstay queue set ml --cohort
    mainstay queue set research --parent ml --weight 2 --quota gpu=H100:8,cpu=64,memory=1TB --borrow gpu=H100:4
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.sdk.client import Client
    from mainstay.wire.requests import QueueRequest

    request = QueueRequest(
        parent="" if parent == NONE else parent,
        cohort=cohort,
        weight=weight,
        quotas=_quotas(quota, borrow, lend),
        preemption=_preemption(preempt),
        reserved_after=reserved_after or "",
        placement="" if placement == NONE else placement,
        order=order or "",
        default_max_duration="0" if default_max_duration == NONE else default_max_duration or "",
        users=None if users is None else [] if users == NONE else [user.strip() for user in users.split(",")],
    )
    with Client() as client:
        found = client.set_queue(name, request)
    if as_json:
        print_json(found)
    what = "cohort" if found.cohort else "queue"
    say(f"✓ {what} {found.name} is set" + (f", below {found.parent}" if found.parent else ""), colour="green")
    for warning in found.warnings:
        say(f"  warning: {warning}")
    following = f"mainstay run --queue {found.name} -- COMMAND" if not found.cohort else "mainstay queue list"
    say(f"  next: mainstay queue show {found.name} | {following}")


@queue.command()
@click.argument("name", metavar="QUEUE")
@json_option
def remove(name: str, *, as_json: bool) -> None:
    """Forget a queue or cohort. Refused while runs wait or run in it, or others are below it. For administrators."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_queue(name)
    if as_json:
        print_json({"removed": name})
    say(f"queue {name} is removed")


@queue.command()
@click.option("--half-life", metavar="TIME", help="What was used so long ago counts half, e.g. 7d.")
@click.option(
    "--weight", type=click.FloatRange(0, 1_000), metavar="NUMBER", help="Of it, beside what is held. At first 1."
)
@click.option("--entry", metavar="TIME", help="Every pod counts as if it had run for so long at least, e.g. 5m.")
@click.option("--off", is_flag=True, help="Nothing that was used before counts, and it is forgotten.")
@json_option
def history(*, half_life: str | None, weight: float | None, entry: str | None, off: bool, as_json: bool) -> None:
    """Say whether what queues have used lately counts towards their turns, or show it. Setting is for administrators.

    It is one setting for all queues, and all of it is said together.

    \b
    mainstay queue history --half-life 7d --entry 5m
    mainstay queue history --off
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.sdk.client import Client

    said = weight is not None or entry is not None
    if off and (half_life is not None or said):
        msg = "--off goes alone"
        raise click.UsageError(msg)
    if said and half_life is None:
        msg = "say the half-life too, e.g. --half-life 7d: all of it is said together"
        raise click.UsageError(msg)
    with Client() as client:
        if half_life is None and not off:
            found = client.queue_history()
        else:
            given = "0" if half_life is None else half_life
            found = client.set_queue_history(given, weight=1 if weight is None else weight, entry=entry or "")
            say("✓ usage history of queues is set", colour="green")
    if as_json:
        print_json(found)
        return
    if not found.half_life_seconds:
        out("off: only what queues hold now counts; turn it on with: mainstay queue history --half-life 7d")
        return
    facts = {
        "half-life": duration(found.half_life_seconds),
        "weight": figure(found.weight),
        "entry": duration(found.entry_seconds) if found.entry_seconds else "",
        "set": f"{ago(found.set_at)} ago by {found.set_by}" if found.set_at else "",
    }
    for word, value in facts.items():
        if value:
            out(f"{word:<11}{value}")


def _quotas(quota: Sequence[str], borrow: Sequence[str], lend: Sequence[str]) -> list[QuotaRequest] | None:
    """All quotas, or None where none of the options was given. Raises UsageError for what cannot be read."""
    from pydantic import ValidationError

    from mainstay.wire.requests import QuotaRequest

    if not quota and not borrow and not lend:
        return None
    own = {} if quota == (NONE,) else _amounts("--quota", quota)
    above, out_of_it = _amounts("--borrow", borrow), _amounts("--lend", lend)
    for option, limits in (("--borrow", above), ("--lend", out_of_it)):
        for resource, flavor in limits.keys() - own.keys():
            word = resource if flavor == "default" else f"{resource}={flavor}:..."
            msg = f"{option} says {word}, of which no --quota is given; quotas are said together with their limits"
            raise click.UsageError(msg)
    try:
        return [
            QuotaRequest.model_validate(
                {
                    "resource": cell[0],
                    "flavor": flavor,
                    "nominal": amount,
                    "borrowing_limit": above[cell][1] if cell in above else None,
                    "lending_limit": out_of_it[cell][1] if cell in out_of_it else None,
                }
            )
            for cell, (flavor, amount) in own.items()
        ]
    except ValidationError as error:
        fault = error.errors()[0]
        msg = f"--quota {fault['input']}: {fault['msg']}"
        raise click.UsageError(msg) from error


RULES: Mapping[str, str] = MappingProxyType(
    {
        "within-queue": "never, lower-priority or lower-or-newer-equal-priority",
        "reclaim": "never, lower-priority or any",
        "borrow": "never or lower-priority",
        "borrow-priority-max": "0 to 100",
        "fair-share": "never, final-share or initial-share",
        "min-runtime": "a time such as 10m",
    }
)
"""Of `--preempt`, each with what it may be."""


def _preemption(texts: Sequence[str]) -> PreemptionRequest | None:
    """All rules, or None where the option was not given. Raises UsageError for what cannot be read."""
    from pydantic import ValidationError

    from mainstay.wire.requests import PreemptionRequest

    if not texts:
        return None
    said: dict[str, str] = {}
    for part in (part.strip() for text in texts for part in text.split(",") if part.strip() not in {"", NONE}):
        rule, _, whom = (word.strip() for word in part.partition("="))
        if rule not in RULES or not whom:
            msg = f"--preempt {part}: there are {', '.join(RULES)}; e.g. within-queue=lower-priority"
            raise click.UsageError(msg)
        if rule in said:
            msg = f"--preempt {part}: {rule} is there twice"
            raise click.UsageError(msg)
        said[rule] = whom
    try:
        return PreemptionRequest.model_validate_strings({rule.replace("-", "_"): whom for rule, whom in said.items()})
    except ValidationError as error:
        rule = str(error.errors()[0]["loc"][0]).replace("_", "-")
        msg = f"--preempt {rule}={said[rule]}: it is {RULES[rule]}"
        raise click.UsageError(msg) from error


def preemption_words(policy: PreemptionView | PreemptionRequest) -> str:
    """As `--preempt` takes it; empty where nothing is displaced and nothing protected."""
    said = policy.model_dump()
    if seconds := said.pop("min_runtime_seconds", 0):
        said["min_runtime"] = f"{seconds}s"
    names = (rule.replace("-", "_") for rule in RULES)
    return ",".join(
        f"{name.replace('_', '-')}={said[name]}" for name in names if said.get(name) not in {None, "", "never"}
    )


def _amounts(option: str, texts: Iterable[str]) -> dict[Cell, tuple[str, str]]:
    """`gpu=h100:8,cpu=64` as (resource, flavor) -> the flavor as it was written, and the amount."""
    from mainstay.wire import quantities

    found: dict[Cell, tuple[str, str]] = {}
    for part in (part.strip() for text in texts for part in text.split(",") if part.strip()):
        resource, given, amount = (word.strip() for word in part.partition("="))
        flavor, _, amount = amount.rpartition(":")
        example = "e.g. gpu=H100:8, cpu=64 or memory=1TB"
        if not given or not amount:
            msg = f"{option} {part}: say what, and how much of it; {example}"
            raise click.UsageError(msg)
        try:
            quantities.amount(resource, amount)
            cell = (resource, _known_as(flavor or "default"))
        except KeyError:
            msg = f"{option} {part}: there is no resource {resource!r}; there are cpu, memory, gpu and pods"
            raise click.UsageError(msg) from None
        except ValueError as error:
            msg = f"{option} {part}: {error}; {example}"
            raise click.UsageError(msg) from error
        if cell in found:
            msg = f"{option} {part}: {resource} is there twice"
            raise click.UsageError(msg)
        found[cell] = flavor or "default", amount
    return found


def _known_as(flavor: str) -> str:
    """As models of GPUs are called. Of flavors of nodes the platform alone knows the names. Raises ValueError."""
    from mainstay.wire import quantities

    if re.fullmatch(r"\d[a-z0-9-]*", flavor):
        return flavor
    return quantities.flavor(flavor)


def _tree_rows(found: Sequence[QueueView]) -> Iterable[Sequence[str]]:
    """Each below its parent, indented."""
    children: dict[str, list[QueueView]] = {}
    names = {one.name for one in found}
    for one in found:
        children.setdefault(one.parent if one.parent in names else "", []).append(one)

    def rows(parent: str, depth: int) -> Iterable[Sequence[str]]:
        for one in children.get(parent, ()):
            yield (
                "  " * depth + one.name + ("/" if one.cohort else ""),
                figure(one.weight),
                "" if one.share is None else figure(one.share),
                _percent(one.fair_share),
                _percent(one.demand_capped_share),
                _percent(one.held_share),
                _percent(one.lately),
                str(one.waiting),
                str(one.running),
                ", ".join(
                    f"{_name(quota)} {_of(quota, quota.used)} of {_of(quota, quota.nominal)}" for quota in one.quotas
                ),
            )
            yield from rows(one.name, depth + 1)

    return rows("", 0)


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f}".removesuffix(".0") + " %"


def _fleet_words(found: QueueView) -> str:
    """Its parts of the fleet; empty for whoever may not see them."""
    if found.fair_share is None:
        return ""
    return (
        f"holds {_percent(found.held_share)}, has used {_percent(found.lately)} lately; fair is"
        f" {_percent(found.fair_share)}, or {_percent(found.demand_capped_share)} by what everybody asks for"
    )


def _quota_row(quota: QuotaView) -> Sequence[str]:
    def limit(amount: float | None) -> str:
        return "all" if amount is None else _of(quota, amount)

    def told(amount: float | None) -> str:
        return "" if amount is None else _of(quota, amount)

    return (
        _name(quota),
        _of(quota, quota.nominal),
        _of(quota, quota.used),
        _of(quota, quota.available),
        told(quota.borrowed),
        told(quota.lent),
        limit(quota.borrowing_limit),
        limit(quota.lending_limit),
    )


def _name(quota: QuotaView) -> str:
    return quota.resource if quota.flavor == "default" else f"{quota.resource} {quota.flavor}"


def _of(quota: QuotaView, amount: float) -> str:
    """In the largest unit that says it exactly, else in GB."""
    if quota.unit != "bytes":
        return figure(amount)
    whole = int(amount)
    unit, size = next(((unit, size) for unit, size in MEMORY_UNITS if whole and whole % size == 0), ("GB", 10**9))
    return f"{figure(whole / size)} {unit}"
