"""Writes docs/reference, and the roles that we ship, from the code, so that they never say what the code does not do.

`--check`: name what is stale.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
from pydantic import AliasChoices, BaseModel
from pydantic_core import PydanticUndefined

from mainstay import __main__ as program
from mainstay.api.app import TOPICS, create_api, openapi
from mainstay.cli.exits import Exit
from mainstay.cli.main import ALIASES, COMMANDS, main
from mainstay.clusters.kubernetes.names import CONTROL_NAMESPACE
from mainstay.clusters.kubernetes.permissions import PERMISSIONS, Permission
from mainstay.domain import access
from mainstay.sdk.aio import AsyncClient, AsyncRun
from mainstay.sdk.client import Client, Run
from mainstay.wire.job import (
    NOT_YET,
    VALUES_NOT_YET,
    Choice,
    Job,
    Nodes,
    PodSet,
    Resources,
    Retry,
    Spread,
    Topology,
    schema,
)
from mainstay.wire.job_values import GpuParts

ROOT = Path(__file__).resolve().parent.parent
MADE = "<!-- Made by `make reference` from the code. -->\n\n"


def documents() -> dict[str, str]:
    """Path -> content."""
    description = openapi(create_api(cast("Any", None)))
    reference = {
        "job-file.md": job_file(),
        "job.schema.json": json.dumps(schema(), indent=2) + "\n",
        "command-line.md": command_line(),
        "openapi.json": json.dumps(description, indent=1, sort_keys=True) + "\n",
        "api.md": api(),
        "python.md": python(),
        "roles.md": roles_of_members(),
    }
    return {
        **{f"docs/reference/{name}": text for name, text in reference.items()},
        "deploy/kubernetes/access/roles.yaml": roles(),
    }


def roles() -> str:
    """What our account may do in a cluster: with the reason of each rule, and nothing else."""
    everywhere = _role("ClusterRole", "", (one for one in PERMISSIONS if not one.namespace))
    here = _role("Role", CONTROL_NAMESPACE, (one for one in PERMISSIONS if one.namespace))
    return f"# Made by `make reference` from src/mainstay/clusters/kubernetes/permissions.py.\n{everywhere}---\n{here}"


def _role(kind: str, namespace: str, permissions: Iterator[Permission]) -> str:
    lines = ["apiVersion: rbac.authorization.k8s.io/v1", f"kind: {kind}", "metadata:", "  name: mainstay"]
    lines += [f"  namespace: {namespace}"] if namespace else []
    lines.append("rules:")
    for permission in permissions:
        lines.append(f"  # to {permission.why}")
        lines += [f'  - apiGroups: ["{permission.kind.group}"]', f'    resources: ["{permission.resource}"]']
        lines.append(f"    verbs: [{', '.join(permission.verbs)}]")
    return "\n".join(lines) + "\n"


def roles_of_members() -> str:
    """Each permission with what it allows, and the roles that have it."""
    source = inspect.getsource(access.Permission)
    rows = []
    for permission in access.Permission:
        if permission in access.AGENT_PERMISSIONS:
            continue
        found = re.search(rf'{permission.name} = "{permission.value}"\n\s+"""(.+?)"""', source, re.DOTALL)
        assert found, f"{permission.name} has no docstring"
        words = " ".join(found.group(1).split())
        rows.append((f"`{permission}`", words, *("yes" if permission in may else "" for may in access.ROLES.values())))
    parts = [
        MADE + "# Roles",
        (
            "What each role may, in the whole tenant or in one project. Each may all that the one before it may. "
            "[How to let people in](../how-to/let-people-in.md)."
        ),
        table(("May", "What that is", *(f"`{role}`" for role in access.ROLES)), rows),
        (
            "A role that a tenant makes for itself (`mainstay role create`) has any of these up to those of a maintainer. "
            "What each route needs: [the API](api.md)."
        ),
    ]
    return "\n\n".join(parts) + "\n"


def job_file() -> str:
    parts = [
        MADE + "# The job file",
        (
            "A job file is YAML. Every field is optional but what to run; the smallest is `run: python train.py`. Editors "
            "complete and check it with [job.schema.json](job.schema.json). Plain words keep the text they were written "
            "with: `NO` is not false, `1.10` keeps its zero."
        ),
        fields(Job),
        "## resources\n\nWhat one node needs. `4+` reserves 4 without a limit; `4..8` reserves 4 and limits at 8.",
        fields(Resources),
        "## resources.gpu\n\nA map in place of `MODEL:MEMORY:COUNT`.",
        fields(GpuParts),
        (
            "## resources.any_of, resources.ordered\n\nAlternatives; what one leaves out stays as it is beside it. What "
            "stands beside them is one of them itself, unless it names no GPU and one of them does."
        ),
        fields(Choice),
        "## nodes\n\nOf an elastic job, in place of a number. `2:8` is the same as `{min: 2, max: 8}`.",
        fields(Nodes),
        "## sets\n\nOf a job whose ranks are not all alike: each set in place of `nodes` and `resources`. There are 2 to 16.",
        fields(PodSet),
        "## topology\n\nOne of both. A host is one node; which racks, blocks and zones there are, the nodes of a cluster say.",
        fields(Topology),
        "## spread\n\nA level alone is the same as `{level: LEVEL}`. It is narrower than that of `topology`, if that is given.",
        fields(Spread),
        "## retry",
        fields(Retry),
        "## Not supported yet\n\nThese fields are known and refused, never silently ignored.",
        table(("Field", "What to do instead"), sorted(_not_yet())),
    ]
    return "\n\n".join(parts) + "\n"


def _not_yet() -> Iterator[tuple[str, str]]:
    yield from ((f"`{name}`", hint) for name, hint in NOT_YET.items())
    yield from ((f"`{name}: {value}`", hint) for (name, value), hint in VALUES_NOT_YET.items())


def fields(model: type[BaseModel]) -> str:
    return table(("Field", "Also", "Type", "Default", "Meaning"), _field_rows(model))


def _field_rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    described = model.model_json_schema(by_alias=False)["properties"]
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        others = [str(other) for other in alias.choices if other != name] if isinstance(alias, AliasChoices) else []
        default = "" if info.default is PydanticUndefined or isinstance(info.default, BaseModel) else info.default
        shown = f"`{json.dumps(default)}`" if default not in ("", None) else ""
        examples = [f"`{example}`" for example in described[name].get("examples", [])]
        for option in described[name].get("anyOf", []):
            examples += [f"`{example}`" for example in option.get("examples", [])]
        meaning = (info.description or "") + (f"; e.g. {', '.join(examples)}" if examples else "")
        yield f"`{name}`", ", ".join(f"`{other}`" for other in others), _type(described[name]), shown, meaning


def _type(described: dict[str, Any]) -> str:
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"] if value != "")
    if "anyOf" in described:
        return " or ".join(_type(option) for option in described["anyOf"] if option.get("type") != "null")
    if "$ref" in described or "allOf" in described:
        return "a map, below"
    words = {"string": "text", "integer": "whole number", "object": "map", "array": "list"}
    word = words.get(described.get("type", ""), str(described.get("type", "")))
    low, high = described.get("minimum"), described.get("maximum")
    return f"{word}, {low} to {high}" if high is not None else word


def command_line() -> str:
    parts = [MADE + "# The command line", "Run `mainstay COMMAND --help` for the same on a terminal."]
    parts.append(table(("Exit code", "Meaning"), _exit_rows()))
    parts.append("These words of other platforms mean the same as ours.")
    parts.append(table(("Other name", "Command"), ((f"`{name}`", f"`{ours}`") for name, ours in ALIASES.items())))
    context = click.Context(program.group, info_name="mainstay")
    for name in [*main.commands, *COMMANDS]:
        command = program.group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=f"mainstay {name}", max_content_width=100, terminal_width=100)
        parts.append(f"## mainstay {name}\n\n```text\n{command.get_help(inner)}\n```")
        for sub, help_ in _subcommands(command, inner, name):
            parts.append(f"### mainstay {name} {sub}\n\n```text\n{help_}\n```")
    return "\n\n".join(parts) + "\n"


def _subcommands(command: click.Command, context: click.Context, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            assert found is not None
            inner = click.Context(found, info_name=f"mainstay {name} {sub}", max_content_width=100, terminal_width=100)
            yield sub, found.get_help(inner)


def _exit_rows() -> Iterator[tuple[str, str]]:
    source = inspect.getsource(Exit)
    for code in Exit:
        found = re.search(rf'{code.name} = {code.value}\n\s+"""(.+?)"""', source, re.DOTALL)
        assert found, f"{code.name} has no docstring"
        yield str(code.value), " ".join(found.group(1).split())


def api() -> str:
    parts = [
        MADE + "# The API",
        (
            "Every request carries `Authorization: Bearer TOKEN`. What is made or ended takes an `Idempotency-Key`: the "
            "same key with the same body gets the first answer again. Every refusal is a problem (RFC 9457) with a "
            "stable `code`. Lists are pages: ask again with `cursor` set to `next`. Streams are server-sent events and "
            "resume with `Last-Event-ID`. The whole description: [openapi.json](openapi.json), "
            "also at `/v1/openapi.json`. Routes marked WEBSOCKET are not in it: they speak the subprotocol that is named."
        ),
    ]
    for topic in TOPICS:
        rows = [
            (f"`{one.method} {one.path}`", str(one.permission or "public"), _first_line(one.endpoint))
            for one in topic.declared
            if one.listed
        ]
        rows += [
            (f"`WEBSOCKET {one.path}`", str(one.permission), f"{_first_line(one.endpoint)} Speaks `{one.protocol}`.")
            for one in topic.sockets
        ]
        if rows:
            parts += [f"## {topic.topic}", table(("Route", "Needs", "What it does"), rows)]
    return "\n\n".join(parts) + "\n"


def python() -> str:
    parts = [
        MADE + "# The Python SDK",
        "`Client` for ordinary code, `AsyncClient` for `async` code; the same calls over the same requests.",
        (
            "```python\nfrom mainstay.sdk import Client, Job\n\nwith Client() as client:\n"
            '    run = client.submit(Job(run="python train.py"))\n    for piece in run.logs(follow=True):\n'
            '        print(piece.text, end="")\n    run.wait()\n```'
        ),
    ]
    for kind in (Client, Run, AsyncClient, AsyncRun):
        parts.append(f"## {kind.__name__}\n\n{inspect.cleandoc(kind.__doc__ or '')}")
        rows = [
            (f"`{name}{_signature(member)}`", _first_line(member))
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        ]
        parts.append(table(("Method", "What it does"), rows))
    return "\n\n".join(parts) + "\n"


def _signature(function: Any) -> str:
    text = str(inspect.signature(function)).replace("'", "").replace("builtins.", "").replace("self, ", "")
    return text.replace("(self)", "()").replace("*, )", ")")


def _first_line(function: Any) -> str:
    text = inspect.getdoc(function)
    assert text, f"{function.__qualname__} has no docstring"
    return " ".join(text.split("\n\n")[0].split())


def table(columns: tuple[str, ...], rows: Any) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def run(*, check: bool) -> int:
    found = documents()
    stale = [name for name, text in found.items() if not _is_there(name, text)]
    if check:
        for name in stale:
            print(f"{name} is stale: run `make reference`", file=sys.stderr)
        return 1 if stale else 0
    for name, text in found.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text)
    print(f"reference: {len(found)} files, {len(stale)} changed")
    return 0


def _is_there(name: str, text: str) -> bool:
    return (ROOT / name).is_file() and (ROOT / name).read_text() == text


if __name__ == "__main__":
    sys.exit(run(check="--check" in sys.argv[1:]))
