"""Which platform the commands talk to, and the shell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import json_option, out, print_json, say

if TYPE_CHECKING:
    from mainstay.wire.access import SignInCodeView


@click.command()
@click.option("--server", metavar="URL", help="The platform to remember.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input instead of asking for it.")
@click.option("--page", is_flag=True, help="Print a link that signs a browser in, once.")
@json_option
def login(*, server: str | None, token_stdin: bool, page: bool, as_json: bool) -> int:
    """Sign in at a platform and remember it, or sign a browser in.

    With --server: at the identity provider of the platform, by a code that this terminal shows, for twelve hours; where there is
    none, with a token that you are asked for. Without options: say which platform the commands talk to, and as whom.
    """
    from mainstay.sdk.client import Client
    from mainstay.sdk.config import save_login

    if server:
        token = sys.stdin.readline().strip() if token_stdin else _token(server)
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


def _token(server: str) -> str:
    from mainstay.sdk.sign_in import from_terminal, provider_of

    if not provider_of(server):
        typed: str = click.prompt("Token", hide_input=True, err=True)
        return typed

    def show(begun: SignInCodeView) -> None:
        say(f"open {begun.url_complete or begun.url}")
        say(
            f"and check that it shows the code {begun.user_code}"
            if begun.url_complete
            else f"and enter {begun.user_code}"
        )

    return from_terminal(server, show=show)


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
