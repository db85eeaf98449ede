"""The program: the command line, and the two commands that start a platform."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mainstay.cli.main import entry
from mainstay.cli.main import main as group

if TYPE_CHECKING:
    from mainstay.app import App

F = TypeVar("F", bound=Callable[..., Any])
PORT = 8650


def state_directory() -> Path:
    """The default of `--state`."""
    return Path(os.environ.get("MAINSTAY_STATE") or Path.home() / ".mainstay")


def _ranges(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[Any, ...]:
    """As addresses. Any: what they are is loaded only here."""
    from ipaddress import ip_network

    try:
        return tuple(ip_network(text) for text in given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def listening(command: F) -> F:
    """Options of both platforms: the fields of `start.settings.Settings`."""
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for option in (
        click.option(
            "--public-url", default="", metavar="URL", help="Where users reach it, behind a proxy that speaks TLS."
        ),
        click.option(
            "--open-max",
            type=click.IntRange(0),
            default=100_000,
            show_default=True,
            metavar="NUMBER",
            help="So many runs of a tenant may be open, waiting or running; 0: no limit. Replicas are given the same.",
        ),
        click.option(
            "--outbound-allow",
            multiple=True,
            callback=_ranges,
            metavar="RANGE",
            help="Webhooks may be sent, and registries may send us, there too, e.g. 10.1.0.0/16; with 127.0.0.0/8 by plain http."
            " May be repeated.",
        ),
        click.option(
            "--audit-anchor",
            default="",
            metavar="URL",
            help="Where the signed head of the audit is kept: a directory or a bucket that whoever runs the database cannot"
            " change. Default: with the files.",
        ),
        click.option(
            "--allow-toleration",
            multiple=True,
            metavar="KEY",
            help="Taints that jobs may tolerate, may be repeated; none: any that is not the system's.",
        ),
        click.option(
            "--registry-credentials",
            type=file,
            help="Who we are at registries with --pin-images: `auths` as in Docker's config.json, readable for its owner alone.",
        ),
        click.option(
            "--image-key",
            multiple=True,
            metavar="[REPOSITORY=]FILE",
            help="A public key of cosign: images, or those of REPOSITORY and all below it, must be signed by one that is given"
            " for them. May be repeated; needs --pin-images.",
        ),
        click.option(
            "--pin-images",
            is_flag=True,
            help="Keep which digest a tag means when a job is submitted, and refuse images with variables that reach out of"
            " their container; needs --allow-image.",
        ),
        click.option(
            "--allow-image",
            multiple=True,
            metavar="REPOSITORY",
            help="Where images of jobs come from, and all below it, as registry.example.com/ml; may be repeated; none: anywhere.",
        ),
        click.option("--oidc-issuer", default="", metavar="URL", help="The identity provider at which people sign in."),
        click.option("--oidc-client", default="", metavar="ID", help="How it knows us; tokens must be made for it."),
        click.option("--oidc-secret", type=file, help="Holds the secret of that client. Default: a public client."),
        click.option("--oidc-groups-claim", default="groups", show_default=True, help="Where it says who is in which."),
        click.option(
            "--oidc-machines",
            multiple=True,
            metavar="URL",
            help="One more issuer, of tokens that machines bring, e.g. of a CI service; may be given several times.",
        ),
        click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"),
        click.option("--tls-key", type=file),
        click.option("--tls-cert", "tls_certificate", type=file),
        click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="0: a free one."),
        click.option("--host", default="127.0.0.1", show_default=True, help="Others than this machine need TLS."),
        click.option(
            "--state",
            type=click.Path(path_type=Path, resolve_path=True),
            default=state_directory,
            help="Default: $MAINSTAY_STATE or ~/.mainstay.",
        ),
    ):
        command = option(command)
    return command


def with_oidc(settings: dict[str, Any]) -> dict[str, Any]:
    """The options about the identity provider as one. Raises UsageError for half of them."""
    from mainstay.start.settings import Oidc

    found = {name: settings.pop(f"oidc_{name}") for name in ("issuer", "client", "secret", "groups_claim", "machines")}
    if bool(found["issuer"]) != bool(found["client"]):
        msg = "--oidc-issuer and --oidc-client belong together"
        raise click.UsageError(msg)
    return {**settings, "oidc": Oidc(**found) if found["issuer"] else None}


@group.command()
@listening
def up(**settings: Any) -> int:
    """Start a platform on this machine: API, pages, all control loops, and the machine itself as a cluster.

    Everything is kept in the state directory. One platform per directory.
    """
    from mainstay.app import run
    from mainstay.start.settings import Settings

    return run(Settings(**with_oidc(settings)), ready=partial(_say_where, settings["state"]))


@group.command()
@listening
@click.option(
    "--database",
    envvar="MAINSTAY_DATABASE",
    required=True,
    metavar="URL",
    help="E.g. postgresql://user:password@host/mainstay; better in $MAINSTAY_DATABASE.",
)
@click.option("--artifacts", default="", metavar="URL", help="Where files are kept, e.g. s3://bucket/prefix.")
@click.option(
    "--secrets-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The key that seals credentials of clusters, the same for all replicas. Default: one in the state directory.",
)
@click.option(
    "--replica-address",
    default="",
    metavar="HOST:PORT",
    help="Where the other replicas reach this one. Default: a free port of --host.",
)
@click.option(
    "--rate-max",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    metavar="NUMBER",
    help="Reads a second of a tenant that this replica answers, half as many of one member; a write is eight reads; 0: no limit.",
)
@click.option("--local-cluster", is_flag=True, help="This machine runs pods, as a cluster of its own.")
def server(**settings: Any) -> int:
    """Start a platform on PostgreSQL. Replicas share the database and the artifacts; any of them may lead.

    All replicas need the same token and key: copy the files `token` and `secrets-key` of the first one's state directory
    to the others.
    """
    from mainstay.app import run
    from mainstay.start.settings import Settings

    return run(Settings(**with_oidc(settings)), ready=partial(_say_where, settings["state"]))


@group.command()
@click.option("--server", required=True, metavar="URL", help="The control plane: https, or http on this machine.")
@click.option("--cluster", required=True, metavar="NAME", help="As `mainstay cluster add NAME --agent` named it.")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Holds the agent's token; read again with every request, so it may be replaced.",
)
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The way into the cluster."
)
@click.option("--context", default="", help="Of that file, or of the usual one.")
@click.option("--in-cluster", is_flag=True, help="The agent runs in that very cluster, as a pod of it.")
@click.option("--local", is_flag=True, help="This machine is the cluster: for trying out.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, resolve_path=True),
    default=None,
    help="Of the runs on this machine, with --local. Default: ~/.mainstay-agent-NAME.",
)
@click.option(
    "--ca-file",
    "ca",
    envvar="MAINSTAY_CA_FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Who has signed the control plane's certificate, if the system does not trust it; or $MAINSTAY_CA_FILE.",
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Answers /healthz and /readyz, on every address of this machine. Default: none.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def agent(**settings: Any) -> int:
    """Carry a cluster that the control plane cannot reach: runs beside it, and only dials out."""
    from mainstay.app_agent import AgentSettings, run_agent

    return run_agent(AgentSettings(**settings), ready=_say_carried)


def _say_carried(cluster: str) -> None:
    click.echo(f"mainstay agent: carries cluster {cluster} (Ctrl-C ends it; its pods run on)")


def _say_where(state: Path, app: App) -> None:
    click.echo(f"mainstay is up: {app.services.url}   (API: {app.services.url}/v1; Ctrl-C ends it)")
    if state != state_directory().resolve():
        click.echo(f"first: export MAINSTAY_STATE={shlex.quote(str(state))}")
    click.echo("next: mainstay login --page | mainstay run -- python -c 'print(6 * 7)'")


def main() -> None:
    """What the installed command runs."""
    entry(group)


if __name__ == "__main__":
    main()
