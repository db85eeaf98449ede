"""`webhook add|list|remove|test|rotate|enable|deliveries`: telling an address outside what happens."""

from __future__ import annotations

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import ago, ahead, json_option, print_json, print_table, say


@click.group()
def webhook() -> None:
    """Tell an address outside what happens: signed messages over https (Standard Webhooks)."""


@webhook.command()
@click.argument("url")
@click.option(
    "--events",
    default="",
    metavar="TYPE,...",
    help="E.g. run.finished,run.started; `run.finished` is every end of a run. Default: all.",
)
@click.option("--name", default="", help="Default: after the host.")
@click.option("--project", default="", help="Only runs of this project.")
@json_option
def add(url: str, *, events: str, name: str, project: str, as_json: bool) -> None:
    """Tell URL what happens from now on. Its secret is shown once.

    \b
    mainstay webhook add https://hooks.example.com/mainstay --events run.finished
    """  # noqa: D301 click keeps the lines after a backspace as they are
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.add_webhook(url, events=_words(events), name=name, project=project)
    if as_json:
        print_json(made)
    say(f"✓ webhook {made.name} is told: {', '.join(made.events)}", colour="green")
    _say_secret(made.secret, made.name, shown=as_json)
    say(f"  next: mainstay webhook test {made.name}")


@webhook.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List webhooks, and how they do."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.webhooks()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one.name,
            one.url,
            one.project or "all",
            f"disabled: {one.disabled}" if one.disabled else _health(one.failures, ago(one.failing_since)),
            ",".join(one.events),
        )
        for one in found
    )
    print_table(("WEBHOOK", "URL", "PROJECT", "STATE", "EVENTS"), rows)
    if not found:
        say("no webhook yet: mainstay webhook add URL")
    for one in found:
        if one.disabled:
            say(f"hint: when its receiver is mended: mainstay webhook enable {one.name}")


@webhook.command()
@click.argument("name")
@json_option
def remove(name: str, *, as_json: bool) -> None:
    """Forget a webhook, and what is on its way to it."""
    from mainstay.sdk.client import Client

    with Client() as client:
        client.remove_webhook(name)
    if as_json:
        print_json({"removed": name})
    say(f"webhook {name} is removed")


@webhook.command()
@click.argument("name")
@json_option
def test(name: str, *, as_json: bool) -> int:
    """Send one message now, and show the answer. Exit code 1 if it did not arrive."""
    from mainstay.sdk.client import Client

    with Client() as client:
        heard = client.test_webhook(name)
    if as_json:
        print_json(heard)
    if heard.delivered:
        say(f"✓ it arrived: {heard.status}", colour="green")
    else:
        say(f"it did not arrive: {heard.detail}", colour="red")
    if heard.answer and not as_json:
        say(heard.answer)
    return Exit.OK if heard.delivered else Exit.FAILED


@webhook.command()
@click.argument("name")
@json_option
def rotate(name: str, *, as_json: bool) -> None:
    """Make a new secret. For a day messages are signed with the old one, too: change your receiver meanwhile."""
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.rotate_webhook(name)
    if as_json:
        print_json(made)
    say(f"✓ webhook {name} has a new secret; the old one counts for another day", colour="green")
    _say_secret(made.secret, name, shown=as_json)


@webhook.command()
@click.argument("name")
@json_option
def enable(name: str, *, as_json: bool) -> None:
    """Send again after a webhook was disabled. What has happened meanwhile is told late."""
    from mainstay.sdk.client import Client

    with Client() as client:
        made = client.enable_webhook(name)
    if as_json:
        print_json(made)
    say(f"webhook {name} is enabled")


@webhook.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest.")
@json_option
def deliveries(name: str, *, limit: int, as_json: bool) -> None:
    """List what was told, newest first, and what became of it."""
    from mainstay.sdk.client import Client

    with Client() as client:
        found = client.deliveries(name, most=limit)
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one.id,
            one.type,
            f"{ago(one.at)} ago",
            one.outcome,
            str(one.attempts),
            f"in {ahead(one.next_at)}" if one.next_at else "",
            one.detail,
        )
        for one in found
    )
    print_table(("ID", "EVENT", "HAPPENED", "OUTCOME", "ATTEMPTS", "NEXT", "WHY"), rows, right=("ATTEMPTS",))
    if not found:
        say("nothing was told yet")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _health(failures: int, since: str) -> str:
    return f"failing for {since}" if failures else "ok"


def _say_secret(secret: str, name: str, *, shown: bool) -> None:
    if not secret:
        say(f"  its secret was shown before; for a new one: mainstay webhook rotate {name}")
    elif not shown:
        click.echo(secret)
        say("  this is its secret, shown only now: your receiver checks the signatures with it")
