"""The list of commands. A command's module is loaded when it runs, so that `--help` and completion are instant."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import click

from mainstay import __version__
from mainstay.cli.exits import Exit, of_failure, of_refusal

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "run": ("submit", "Run a command as a job, and follow it."),
        "apply": ("submit", "Submit a job file, and follow the run."),
        "plan": ("submit", "Show what submitting a job file would do."),
        "ps": ("runs", "List runs."),
        "logs": ("runs", "Print the log of a run."),
        "show": ("runs", "Show one run with its pods and reasons."),
        "stop": ("runs", "Ask runs to end."),
        "hold": ("runs", "Let runs that wait wait on, whatever is free."),
        "release": ("runs", "Let runs that were held have their turn."),
        "reprioritize": ("runs", "Give a run another priority."),
        "exec": ("inside", "Run a command in a pod of a run."),
        "shell": ("inside", "Open a shell in a pod of a run."),
        "port-forward": ("inside", "Reach ports of a run from this machine."),
        "attach": ("runs", "Follow the log of a run."),
        "events": ("runs", "Print what happened, and why."),
        "explain": ("runs", "Say why a run is where it is."),
        "download": ("runs", "Fetch the output files of a run."),
        "deploy": ("models", "Serve the model that a run made."),
        "endpoints": ("models", "List what is served."),
        "models": ("models", "List registered versions of models."),
        "nodes": ("nodes", "List nodes: the same as `node list`."),
        "node": ("nodes", "List, cordon, drain and quarantine nodes."),
        "cluster": ("clusters", "Add, list, drain and remove clusters."),
        "queue": ("queues", "List, show, set and remove queues."),
        "flavor": ("flavors", "Name nodes by labels, for quotas of queues."),
        "priority": ("priorities", "List, set and remove names for priorities."),
        "secret": ("secrets", "Set, list and remove secrets."),
        "webhook": ("webhooks", "Tell addresses outside what happens."),
        "volume": ("volumes", "List and remove volumes that outlive runs."),
        "tenant": ("access", "List, make and remove tenants."),
        "project": ("access", "List, make and remove projects."),
        "member": ("access", "List, add and remove members, with their roles."),
        "group": ("access", "Roles of groups of the identity provider."),
        "token": ("access", "List, make and revoke tokens."),
        "role": ("access", "List roles, and make some of your own."),
        "gpus": ("fleet", "List GPUs by model, with prices."),
        "cost": ("fleet", "Print the bill."),
        "audit": ("audit", "Print who changed what."),
        "login": ("account", "Remember a platform, or sign a browser in."),
        "logout": ("account", "Forget the platform."),
        "completion": ("account", "Print the shell's completion script."),
    }
)
"""Name -> module of `mainstay.cli`, and its line in the list; in the order of a user's way."""
SERVERS: Mapping[str, str] = MappingProxyType(
    {
        "up": "Start a platform on this machine.",
        "server": "Start a platform on PostgreSQL, of one or several replicas.",
        "agent": "Carry a cluster that the control plane cannot reach.",
    }
)
"""Commands that start a platform, or a part of one. `__main__` brings them: the command line itself knows nothing of one."""


ALIASES: Mapping[str, str] = MappingProxyType(
    {"status": "ps", "cancel": "stop", "down": "stop", "launch": "run", "ssh": "shell"}
)
"""The words of other platforms' command lines."""


ATTRIBUTES: Mapping[str, str] = MappingProxyType({"exec": "exec_", "port-forward": "port_forward"})
"""Commands whose name is none in Python, or another thing there."""


class Commands(click.Group):
    """Commands by name, loaded when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in the order of the help."""
        return [*self.commands, *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name or alias, or None."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return super().get_command(ctx, name)
        module = importlib.import_module(f"mainstay.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, ATTRIBUTES.get(name, name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest spelling of an unknown command."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], [*self.list_commands(ctx), *ALIASES], n=1)
            msg = f"no such command: {args[0]}." + (f" Did you mean {near[0]}?" if near else "")
            raise click.UsageError(msg, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of `--help`, without loading a command."""
        with formatter.section("Commands"):
            formatter.write_dl([*SERVERS.items(), *((name, line) for name, (_, line) in COMMANDS.items())])
        with formatter.section("Other names"):
            formatter.write_dl(list(ALIASES.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="mainstay %(version)s")
def main() -> None:
    """Run notebooks, training and model endpoints on a fleet of clusters.

    Exit codes: 0 done, 1 the run did not succeed, 2 the command or job file is wrong, 3 refused, 4 not found,
    5 not allowed, 6 no platform answers, 130 interrupted.
    """


def entry(group: click.Group = main) -> NoReturn:
    """Run a command line to its exit code; every error is a sentence and a hint."""
    try:
        result = group.main(prog_name="mainstay", standalone_mode=False)
    except click.exceptions.Abort:
        code = _say("interrupted", "", Exit.INTERRUPTED)
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.ClickException as error:
        code = _misuse(error)
    except BrokenPipeError:
        # `| head` has read enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK
    except KeyboardInterrupt:
        code = _say("interrupted", "", Exit.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 what is no error of the SDK is raised again
        code = _refusal(error)
    else:
        code = result if isinstance(result, int) else Exit.OK
    sys.exit(code)


def _misuse(error: click.ClickException) -> int:
    from mainstay.cli.show import say

    text = io.StringIO()
    error.show(text)
    say(text.getvalue(), end=False)
    return error.exit_code


def _refusal(error: Exception) -> int:
    """Errors of the SDK are imported only now: who has none does not pay for them."""
    from mainstay.cli.show import say
    from mainstay.sdk.errors import ApiError, SdkError
    from mainstay.wire.faults import in_words

    if isinstance(error, ApiError):
        faults = error.problem.errors
        for fault in faults if len(faults) > 1 else ():  # a single one is what the message and the hint say
            say(f"  {in_words(fault.field, fault.message, allowed=fault.allowed, nearest=fault.nearest)}")
        return _say(error.message, error.hint, of_refusal(error))
    if isinstance(error, SdkError):
        return _say(error.message, error.hint, of_failure(error))
    if type(error).__module__.startswith("pydantic"):
        return _misread(error)
    if isinstance(error, OSError):
        return _say(f"{error.filename or 'error'}: {error.strerror or error}", "", Exit.REFUSED)
    raise error


def _misread(error: Any) -> int:
    """A value of an option that is no such value, as the rules of the public JSON have it: nothing was sent."""
    from mainstay.cli.show import say

    for fault in error.errors():
        option = str(fault["loc"][-1] if fault["loc"] else "").replace("_", "-")
        said = str(fault["msg"]).removeprefix("Value error, ")
        say(f"Error: {option}: {said[:1].lower()}{said[1:]}")
    return Exit.USAGE


def _say(message: str, hint: str, code: Exit) -> int:
    from mainstay.cli.show import say

    say(f"mainstay: {message}")
    if hint:
        say(f"hint: {hint}")
    return code
