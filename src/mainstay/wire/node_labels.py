"""What a job may say of its nodes: what their labels must be, which it prefers, and which taints it puts up with.

A line about labels is written as `kubectl -l` takes it, with `>` and `<` beside: `disk=ssd`, `zone in (a, b)`, `!retiring`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from mainstay.wire.job_values import JobPart, as_text

EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule")
LINES_MAX, PREFERENCES_MAX, TOLERATIONS_MAX, VALUES_MAX, WEIGHT_MAX = 50, 20, 50, 100, 100
NAME = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?\Z")
_LINE = re.compile(
    r"(?P<key>[^\s=!<>(),]+)\s*(?P<operator>==|=|!=|>|<|(?<=\s)(?:not)?in\b)\s*(?P<rest>.*)\Z", re.DOTALL
)
_WRITTEN = "write disk=ssd, disk!=hdd, zone in (a, b), zone notin (a, b), disk, !disk, cores>16 or cores<16"
_OPERATORS = {"=": "In", "==": "In", "!=": "NotIn", "in": "In", "notin": "NotIn", ">": "Gt", "<": "Lt"}


class Line(NamedTuple):
    """What one label must be: In, NotIn, Exists, DoesNotExist, Gt or Lt, as Kubernetes calls it."""

    key: str
    operator: str
    values: tuple[str, ...]


class Tolerated(NamedTuple):
    """Taints that are put up with. `operator` is Equal, or Exists for any value; an empty `effect` is any."""

    key: str
    operator: str
    value: str
    effect: str


def label_line(text: str) -> Line:
    """What a line about labels says. Raises ValueError, which says what may be written."""
    text = text.strip()
    if found := _LINE.match(text):
        operator, rest = found["operator"], found["rest"].strip()
        values: tuple[str, ...] = (rest,)
        if operator in {"in", "notin"}:
            if not (rest.startswith("(") and rest.endswith(")")):
                msg = f"{text!r}: the values of `{operator}` stand in brackets: {_WRITTEN}"
                raise ValueError(msg)
            values = tuple(sorted({one.strip() for one in rest[1:-1].split(",")}))
        line = Line(found["key"], _OPERATORS[operator], values)
    else:
        line = Line(text.removeprefix("!").strip(), "DoesNotExist" if text.startswith("!") else "Exists", ())
    _check(text, line)
    return line


def toleration(text: str) -> Tolerated:
    """What a toleration says: KEY[=VALUE][:EFFECT]. Raises ValueError."""
    rest, colon, effect = text.strip().partition(":")
    key, equals, value = rest.partition("=")
    if not NAME.match(key) or not VALUE.match(value) or (colon and effect not in EFFECTS):
        msg = f"{text!r} is no taint: write KEY=VALUE:EFFECT, as dedicated=ml:NoSchedule; VALUE and EFFECT may be left out"
        raise ValueError(msg)
    return Tolerated(key, "Equal" if equals else "Exists", value, effect)


def _check(text: str, line: Line) -> None:
    if not NAME.match(line.key):
        msg = f"{text!r}: {line.key!r} is no name of a label; {_WRITTEN}"
        raise ValueError(msg)
    if len(line.values) > VALUES_MAX:
        msg = f"{text!r}: {len(line.values)} values, at most {VALUES_MAX}"
        raise ValueError(msg)
    for value in line.values:
        if line.operator in {"Gt", "Lt"} and not re.fullmatch(r"-?[0-9]{1,18}", value):
            msg = f"{text!r}: {value!r} is no whole number"
            raise ValueError(msg)
        if line.operator in {"In", "NotIn"} and not VALUE.match(value):
            msg = f"{text!r}: {value!r} is no value of a label: letters, digits, `-`, `_` and `.`, at most 63"
            raise ValueError(msg)


def _lines(value: Any) -> Any:
    """A map of labels to values, or to lists of them, as lines."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, dict):
        return value
    return list(_of_map(value))


def _of_map(labels: dict[Any, Any]) -> Iterator[str]:
    for key, value in labels.items():
        if isinstance(value, list):
            yield f"{key} in ({', '.join(_plain(one) for one in value)})"
        else:
            yield f"{key}={_plain(value)}"


def _plain(value: Any) -> str:
    """As it would stand in a label: YAML and JSON read `true` and `16` as something else."""
    if not isinstance(value, str | int | float):
        msg = f"{value!r} is no value of a label; {_WRITTEN}"
        raise ValueError(msg)  # noqa: TRY004 what is said of fields is a ValueError
    return str(value).lower() if isinstance(value, bool) else str(as_text(value))


def _read(text: str) -> str:
    label_line(text)
    return text


def _tolerated(text: str) -> str:
    toleration(text)
    return text


LabelMap: TypeAlias = dict[str, str | float | bool | list[str | float | bool]]
Lines = Annotated[
    list[Annotated[str, Field(max_length=8_000), AfterValidator(_read)]],
    BeforeValidator(_lines, json_schema_input_type=str | list[str] | LabelMap),
    Field(max_length=LINES_MAX),
]
"""All of them must hold."""
Tolerations = Annotated[
    list[Annotated[str, Field(max_length=600), AfterValidator(_tolerated)]], Field(max_length=TOLERATIONS_MAX)
]


class PreferredNodes(JobPart):
    """Nodes that go before others where there is room on them."""

    labels: Lines = Field(
        min_length=1, examples=[{"disk": "nvme"}], description="what their labels are, as of `node_labels`"
    )
    weight: Annotated[int, Field(ge=1, le=WEIGHT_MAX)] = Field(
        default=1, description="of several preferences the weights of those that hold are added up"
    )


def _preferences(value: Any) -> Any:
    """A map, or one line, is one of them."""
    if isinstance(value, dict) and "labels" not in value:
        value = [value]
    if isinstance(value, str | dict):
        value = [value]
    if not isinstance(value, list):
        return value
    return [one if isinstance(one, dict) and "labels" in one else {"labels": one} for one in value]


Preferences = Annotated[
    list[PreferredNodes],
    BeforeValidator(_preferences, json_schema_input_type=str | list[PreferredNodes | str | LabelMap] | LabelMap),
    Field(max_length=PREFERENCES_MAX),
]
