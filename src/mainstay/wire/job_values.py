"""Values of single fields of a job file: which may be written, and in which words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from mainstay.wire import images, quantities

PRIORITY_MAX = 100
PRIORITIES: Mapping[str, int] = MappingProxyType({"low": 25, "normal": 50, "high": 75, "urgent": 100})
NAME = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"


def as_text(value: Any) -> Any:
    """A number as it is written."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _cpu(text: str) -> str:
    quantities.cpu(text)
    return text


def _memory(text: str) -> str:
    quantities.memory(text)
    return text


class JobPart(BaseModel):
    """Base of the job file's parts: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class GpuParts(JobPart):
    """The same as MODEL:MEMORY:COUNT."""

    model: str = Field(default="", description="of one model alone")
    memory: str | int | float = Field(
        default="", description="each has at least so much; a number without a unit is in GB"
    )
    count: str | int | float = Field(default=1, description="so many; below 1: a part of one")


def _as_gpu(value: Any) -> Any:
    """A map in one line."""
    if not isinstance(value, dict):
        return as_text(value)
    if unknown := sorted(map(str, set(value) - set(GpuParts.model_fields))):
        msg = f"{', '.join(unknown)}: a GPU has `model`, `memory` and `count`"
        raise ValueError(msg)
    memory = str(value.get("memory", ""))
    memory = f"{memory}GB" if re.fullmatch(r"[\d.]+", memory) else memory
    if memory:
        quantities.size(memory)
    return ":".join(filter(None, (str(value.get("model", "")), memory, str(value.get("count", 1)))))


def _gpu(text: str) -> str:
    quantities.gpu(text)
    return text


def _duration(text: str) -> str:
    if text:
        quantities.duration(text)
    return text


def _image(text: str) -> str:
    if text:
        images.image(text)
    return text


def _priority(value: Any) -> Any:
    """A number, or a name: one of those that are always there, or of a class that the platform may have."""
    if isinstance(value, str):
        value = value.strip()
        value = PRIORITIES.get(value, int(value) if value.isascii() and value.isdecimal() and len(value) < 9 else value)
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= PRIORITY_MAX
    if not number and not (isinstance(value, str) and re.match(NAME, value)):
        msg = f"{value!r} is no priority"
        raise ValueError(msg)
    return value


def as_script(value: Any) -> Any:
    """A list is its lines."""
    return "\n".join(value) if isinstance(value, list) and all(isinstance(line, str) for line in value) else value


def as_arguments(value: Any) -> Any:
    """A string is split as a shell would."""
    return shlex.split(value) if isinstance(value, str) else value


_AsText = BeforeValidator(as_text, json_schema_input_type=str | float)
Cpu = Annotated[str, _AsText, AfterValidator(_cpu), Field(examples=["4", "500m", "4+", "4..8"])]
Memory = Annotated[str, _AsText, AfterValidator(_memory), Field(examples=["16GB", "32Gi", "4GB+"])]
Gpu = Annotated[
    str,
    BeforeValidator(_as_gpu, json_schema_input_type=str | int | float | GpuParts),
    AfterValidator(_gpu),
    Field(examples=["8", "H100:8", "H100:80GB:8", "40GB", "0.5", "1g.10gb:2"]),
]
Duration = Annotated[str, _AsText, AfterValidator(_duration), Field(examples=["90s", "30m", "12h", "1h30m"])]
Name = Annotated[str, Field(pattern=NAME)]
Priority = Annotated[
    int | str,
    BeforeValidator(_priority),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 100}, {"type": "string", "pattern": NAME}]}),
]
Image = Annotated[
    str, AfterValidator(_image), Field(examples=["python:3.12-slim", "ghcr.io/acme/train:1.4", "acme/train@sha256:..."])
]


Level = Literal["", "zone", "block", "rack", "host"]
"""From the widest to the narrowest; empty: it is not asked for."""
