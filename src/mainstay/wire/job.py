"""The job file: what a user writes. Every field is optional but `run`; names and aliases as in the peers' files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class Resources(BaseModel):
    """What one node of the job needs. `4+` and `4..8` give a range: the low end is reserved, the high end is the limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    cpu: str = Field("1+", validation_alias=AliasChoices("cpu", "cpus"))
    memory: str = Field("1GB+")
    gpu: str = Field("0", validation_alias=AliasChoices("gpu", "gpus", "accelerators"))
    any_of: list[Choice] = Field(default_factory=list)
    ordered: list[Choice] = Field(default_factory=list)
    spot: Literal["never", "auto", "only"] = "auto"


class Choice(BaseModel):
    """An alternative to the `resources` above it; what it leaves out stays as it is there."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    cpu: str | None = Field(None, validation_alias=AliasChoices("cpu", "cpus"))
    memory: str | None = None
    gpu: str | None = Field(None, validation_alias=AliasChoices("gpu", "gpus", "accelerators"))


class Retry(BaseModel):
    """How many failures of each class the job survives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    infra: Annotated[int, Field(ge=0, le=100)] = 3
    user: Annotated[int, Field(ge=0, le=100)] = 0
    backoff: str = "10s"


class Job(BaseModel):
    """A job. Canonical names; the aliases are accepted too."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    type: Literal["job", "service"] = "job"
    name: str = ""
    project: str = "default"
    queue: str = "default"
    setup: str = ""
    run: str | list[str] = Field(..., validation_alias=AliasChoices("run", "commands", "entrypoint", "command"))
    """A string is a shell script; a list of strings from the command line is an argument vector."""
    workdir: str = Field("", validation_alias=AliasChoices("workdir", "files"))
    nodes: Annotated[int, Field(ge=1, le=1_000)] = Field(1, validation_alias=AliasChoices("nodes", "num_nodes"))
    resources: Resources = Resources()
    env: dict[str, str] = Field(default_factory=dict, validation_alias=AliasChoices("env", "envs"))
    priority: int | Literal["low", "normal", "high", "urgent"] = "normal"
    retry: Retry = Retry()
    max_duration: str = ""
    stop_grace: str = "30s"
