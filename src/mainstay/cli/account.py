"""Which platform the commands talk to, and the shell."""

from __future__ import annotations

import sys

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import json_option, out, print_json, say


@click.command()
@click.option("--server", metavar="URL", help="The platform to remember.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input instead of asking for it.")
@click.option("--page", is_flag=True, help="Print a link that signs a browser in, once.")
@json_option
def login(*, server: str | None, token_stdin: bool, page: bool, as_json: bool) -> int:
    """Remember a platform and a token for it, or sign a browser in.

    Without either option: say which platform the commands talk to, and as whom.
    """
    from mainstay.sdk.client import Client
    from mainstay.sdk.config import save_login

    if server:
        token = sys.stdin.readline().strip() if token_stdin else click.prompt("Token", hide_input=True, err=True)
        with Client(server=server, token=token) as client:
            client.server()
            say(f"remembered in {save_login(client.url, token)}")
    with Client() as client:
        if page:
            link = client.sign_in()
            print_json(link) if as_json else out(link.url)
            return Exit.OK
        here = client.server()
    if as_json:
        print_json({"url": client.url, **here.model_dump(mode="json")})
    else:
        out(f"{client.url}: {here.principal} of {here.tenant}, {here.role}; mainstay {here.version}")
    return Exit.OK


@click.command()
@json_option
def logout(*, as_json: bool) -> None:
    """Forget the platform and its token."""
    from mainstay.sdk.config import forget_login

    forgotten = forget_login()
    if as_json:
        print_json({"forgotten": forgotten})
    say("forgotten" if forgotten else "nobody was logged in")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell; e.g. in ~/.bashrc: eval "$(mainstay completion bash)"."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "mainstay", "_MAINSTAY_COMPLETE").source())
