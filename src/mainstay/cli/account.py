"""Which platform the commands talk to, and the shell."""

from __future__ import annotations

import sys

import click

from mainstay.cli.exits import Exit


@click.command()
@click.option("--server", metavar="URL", help="The platform to remember.")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input instead of asking for it.")
@click.option("--page", is_flag=True, help="Print a link that signs a browser in, once.")
def login(*, server: str | None, token_stdin: bool, page: bool) -> int:
    """Remember a platform and a token for it, or sign a browser in.

    Without either option: say which platform the commands talk to, and as whom.
    """
    from mainstay.sdk.client import Client
    from mainstay.sdk.config import save_login

    if server:
        token = sys.stdin.readline().strip() if token_stdin else click.prompt("Token", hide_input=True, err=True)
        with Client(server=server, token=token) as client:
            client.server()
            click.echo(f"remembered in {save_login(client.url, token)}", err=True)
    with Client() as client:
        if page:
            click.echo(client.sign_in().url)
            return Exit.OK
        here = client.server()
        click.echo(f"{client.url}: {here.principal} of {here.tenant}, {here.role}; mainstay {here.version}")
    return Exit.OK


@click.command()
def logout() -> None:
    """Forget the platform and its token."""
    from mainstay.sdk.config import forget_login

    click.echo("forgotten" if forget_login() else "nobody was logged in", err=True)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell; e.g. in ~/.bashrc: eval "$(mainstay completion bash)"."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "mainstay", "_MAINSTAY_COMPLETE").source())
