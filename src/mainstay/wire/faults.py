"""What is wrong with a field, in words: the same for a request body and for a line of a job file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import AliasChoices, BaseModel

from mainstay.wire.job import DEVICES, NODES_MAX, NOT_YET, VALUES_NOT_YET, Choice, Job, Nodes, PodSet, Resources, Retry
from mainstay.wire.job_files import (
    CLAIM_NAME,
    OBJECTS,
    SECRET_NAME,
    SECRET_OR_NONE,
    SECRET_VARIABLE,
    VARIABLE_RULE,
    SecretUse,
    Volume,
)
from mainstay.wire.job_values import NAME, PRIORITIES, PRIORITY_MAX
from mainstay.wire.node_labels import PreferredNodes
from mainstay.wire.views import FieldProblem

PARTS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "resources": Resources,
        "retry": Retry,
        "nodes": Nodes,
        "num_nodes": Nodes,
        "any_of": Choice,
        "ordered": Choice,
        "secrets": SecretUse,
        "volumes": Volume,
        "sets": PodSet,
        "node_preferences": PreferredNodes,
    }
)

NAME_IN_WORDS = "a name has at most 40 lower-case letters, digits and dashes, and no dash at its ends"

_SECRETS = "the name of a secret has letters, digits, `_`, `-` and `.`, at most 63, and a letter or digit first"
PATTERNS_IN_WORDS: Mapping[str, str] = MappingProxyType(
    {
        SECRET_NAME: _SECRETS,
        SECRET_OR_NONE: _SECRETS,
        SECRET_VARIABLE: f"not a variable: {VARIABLE_RULE}",
        DEVICES: "a ResourceClaimTemplate by its name, or devices of a DeviceClass as CLASS:COUNT",
        CLAIM_NAME: "a name has at most 253 lower-case letters, digits, `-` and `.`, and a letter or digit at its ends",
        OBJECTS: "not an address such as s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
    }
)


def field_problem(fault: Mapping[str, Any], place: Sequence[str], *, job: Sequence[str] | None) -> FieldProblem:
    """A fault that pydantic found at `place`; `job` is the part of the place inside of a job, None if it is not in one."""
    allowed, nearest = _allowed(fault, job)
    return FieldProblem(field=".".join(place) or "body", message=_message(fault, job), allowed=allowed, nearest=nearest)


def in_words(field: str, message: str, *, allowed: Sequence[str], nearest: str) -> str:
    """The fault in one line, with the nearest spelling or else what may stand there."""
    more = f"; did you mean `{nearest}`?" if nearest else ""
    if allowed and not nearest:
        more = f"; allowed: {', '.join(allowed)}"
    return f"{field}: {message}{more}" if field else f"{message}{more}"


def field_names(place: Sequence[str]) -> list[str]:
    """The canonical names of the fields at a place of a job."""
    return sorted(_model(place).model_fields)


def canonical(place: Sequence[str], name: str) -> str:
    """The canonical name of a field that may be written under an alias; the name itself if there is no such field."""
    for field, info in _model(place).model_fields.items():
        alias = info.validation_alias
        if isinstance(alias, AliasChoices) and name in alias.choices:
            return field
    return name


def nearest_of(given: str, names: Iterable[str]) -> str:
    """The nearest spelling, or nothing."""
    found = difflib.get_close_matches(given, list(names), n=1)
    return found[0] if found else ""


def _model(place: Sequence[str]) -> type[BaseModel]:
    inner = [PARTS[part] for part in place if part in PARTS]
    return inner[-1] if inner else Job


def _message(fault: Mapping[str, Any], job: Sequence[str] | None) -> str:
    if fault["type"] == "extra_forbidden":
        if job is not None and len(job) == 1 and job[0] in NOT_YET:
            return f"not supported yet: {NOT_YET[job[0]]}"
        if job and (field := canonical(job[:-1], job[-1])) in _model(job[:-1]).model_fields:
            return f"given twice: `{job[-1]}` is another name of `{field}`"
        return "there is no such field"
    if instead := _value_not_yet(fault, job):
        return f"not supported yet: {instead}"
    if fault["type"] == "json_invalid":
        return f"not valid JSON: {fault.get('ctx', {}).get('error', '')}"
    if fault["type"] == "string_pattern_mismatch" and NAME.strip("^$") in fault["ctx"]["pattern"]:
        return NAME_IN_WORDS
    if fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] in PATTERNS_IN_WORDS:
        return PATTERNS_IN_WORDS[fault["ctx"]["pattern"]]
    if fault["type"] == "list_type" and job:
        return f"should be a list: `{job[-1]}: [...]`"
    message: str = fault["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _value_not_yet(fault: Mapping[str, Any], job: Sequence[str] | None) -> str:
    """What to do instead of a known value that is not supported; empty for any other fault."""
    if fault["type"] != "literal_error" or not job:
        return ""
    return VALUES_NOT_YET.get((job[-1], str(fault["input"])), "")


def _allowed(fault: Mapping[str, Any], job: Sequence[str] | None) -> tuple[list[str], str]:
    """The names or values that may stand there, and the nearest to what was given."""
    if fault["type"] == "extra_forbidden" and job:
        known = len(job) == 1 and job[0] in NOT_YET
        if known or canonical(job[:-1], job[-1]) in _model(job[:-1]).model_fields:
            return [], ""
        names = field_names(job[:-1])
        if len(job) == 1 and (inner := canonical(["resources"], job[0])) in Resources.model_fields:
            return names, f"resources.{inner}"
        spellings = [
            choice
            for info in _model(job[:-1]).model_fields.values()
            if isinstance(info.validation_alias, AliasChoices)
            for choice in info.validation_alias.choices
            if isinstance(choice, str)
        ]
        return names, nearest_of(job[-1], {*names, *spellings} - {job[-1]})
    if fault["type"] in {"literal_error", "enum"} and not _value_not_yet(fault, job):
        expected = str(fault.get("ctx", {}).get("expected", ""))
        # The empty one is what a field has that is left out: nothing to write down.
        values = [name for part in expected.replace(" or ", ",").split(",") if (name := part.strip("' "))]
        return values, nearest_of(str(fault.get("input", "")), values)
    if job and job[-1] == "priority":
        return [f"0 to {PRIORITY_MAX}", *PRIORITIES], nearest_of(str(fault.get("input", "")), PRIORITIES)
    if job and _model(job[:-1]) is Job and canonical(job[:-1], job[-1]) == "nodes":
        return [f"1 to {NODES_MAX}", "MIN:MAX"], ""
    if job and (limits := _range(job)):
        return [limits], ""
    return [], ""


def _range(job: Sequence[str]) -> str:
    """The least and the most of a number in words; empty for what is no number."""
    info = _model(job[:-1]).model_fields.get(canonical(job[:-1], job[-1]))
    limits = info.metadata if info else []
    least = [limit.ge for limit in limits if hasattr(limit, "ge")]
    most = [limit.le for limit in limits if hasattr(limit, "le")]
    return f"{least[0]} to {most[0]}" if least and most else ""
