"""The job file: what a user writes. Every field is optional but what to run; aliases are those of the peers' files.

Source of names, aliases and ranges: interface.md 2.2. A field that is known but not supported yet is refused by its
name, with what to do instead, never silently ignored.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticKnownError, PydanticSerializationError

from mainstay.wire import quantities
from mainstay.wire.job_files import (
    FILE_PATH,
    ONE_NODE,
    PART_OF_ENV,
    SECRET_IN_ENV,
    VARIABLE_RULE,
    SecretUse,
    Volume,
    listed,
    listed_volumes,
    secret_uses,
    secrets_in,
    variables,
    within,
)
from mainstay.wire.job_values import (
    Cpu,
    Duration,
    Gpu,
    Image,
    JobPart,
    Level,
    Memory,
    Name,
    Priority,
    as_arguments,
    as_script,
)
from mainstay.wire.node_labels import Lines, Preferences, Tolerations

TYPES: Mapping[str, str] = MappingProxyType({"task": "job"})
NODES_MAX = 1_000
SETS_MAX = 16
REQUEUE_AFTER_SECONDS_MIN = 60
"""Pods are renewed every 15 s, and a lost word must not end one."""
DEVICES = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9][0-9]{0,2})?$"
"""The name of a ResourceClaimTemplate, or that of a DeviceClass with a number."""
FILES_BYTES_MAX = 256 * 1024
NOT_YET: Mapping[str, str] = MappingProxyType(
    {
        "runtime": "name a container image in `image`, or prepare the environment in `setup`",
        "file_mounts": "put the files into `workdir`, or into `files`; larger ones into `volumes`",
        "repos": "check the code out and name the folder in `workdir`",
        "checkpoint": "write checkpoints to a volume, and say in `checkpoint_every` how often",
        "max_cost": "bound the run with `max_duration`",
        "idle": "bound the run with `max_duration`",
        "pod_spec": "use the fields of the job file; or make pods of your own with `schedulerName: mainstay`",
    }
)
"""Fields of the design that this version knows and does not support, each with what to do instead."""
VALUES_NOT_YET: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("type", "notebook"): "start one as a service: `type: service` with `run: jupyter lab --port $PORT`",
        ("type", "dev-environment"): "start your tool as a service, which listens on $PORT",
        ("type", "sweep"): "submit a job for each point, together: `Client().submit_many(jobs)`",
        ("type", "pipeline"): "submit each step after the one before has succeeded: `Client().submit(job).wait()`",
    }
)
"""Values of fields, likewise."""


def _partition(value: Any) -> Any:
    return {} if value == "wait" else value


class Choice(JobPart):
    """An alternative to the resources beside it; what it leaves out stays as it is there."""

    cpu: Cpu | None = Field(default=None, validation_alias=AliasChoices("cpu", "cpus"), description="cores")
    memory: Memory | None = Field(default=None, description="memory")
    gpu: Gpu | None = Field(
        default=None, validation_alias=AliasChoices("gpu", "gpus", "accelerators"), description="GPUs"
    )


class Resources(JobPart):
    """What one node of the job needs. `4+` and `4..8` are ranges: the low end is reserved, the high end is the limit."""

    cpu: Cpu = Field(
        default="1+", validation_alias=AliasChoices("cpu", "cpus"), description="cores; `4+` reserves 4 without a limit"
    )
    memory: Memory = Field(default="1GB+", description="memory; a number without a unit is in GB")
    gpu: Gpu = Field(
        default="0",
        validation_alias=AliasChoices("gpu", "gpus", "accelerators"),
        description="GPUs: count, model, or model:count; with at least so much memory each, `40GB` or `A100:80GB:8`; a part of "
        "one, `0.5`; slices of them by shape, e.g. `1g.10gb:2`; other devices by resource, e.g. `amd.com/gpu:8`",
    )
    any_of: list[Choice] = Field(
        default_factory=list,
        max_length=20,
        description="as good as what stands beside it: the one is taken that costs least",
    )
    ordered: list[Choice] = Field(
        default_factory=list, max_length=20, description="behind all of these, in order: the first that fits"
    )
    spot: Literal["never", "auto", "only"] = Field(
        default="auto", description="whether nodes that may be taken away will do: no, as well as others, or no others"
    )


class PodSet(JobPart):
    """Some of the ranks of a job whose ranks are not all alike. All sets are placed together, their ranks numbered in turn."""

    name: Name = Field(description="the variable `$MAINSTAY_SET` of its ranks")
    nodes: Annotated[int, Field(ge=1, le=NODES_MAX)] = Field(
        default=1, validation_alias=AliasChoices("nodes", "num_nodes"), description="so many ranks"
    )
    resources: Resources = Field(default=Resources(), description="what each of them needs")
    run: Annotated[str, BeforeValidator(as_script)] = Field(
        default="",
        validation_alias=AliasChoices("run", "commands"),
        description="shell script of these ranks; without it and `command` they run what the job does",
    )
    command: Annotated[list[str], BeforeValidator(as_arguments)] = Field(
        default_factory=list,
        validation_alias=AliasChoices("command", "entrypoint"),
        description="argument vector of these ranks, in place of `run`",
    )

    @field_validator("nodes", mode="before")
    @classmethod
    def _not_elastic(cls, value: Any) -> Any:
        if isinstance(value, dict) or (isinstance(value, str) and ":" in value):
            msg = "a pod set has exactly so many nodes; a job with bounds (MIN:MAX) has no `sets`"
            raise ValueError(msg)
        return value

    @field_validator("resources")
    @classmethod
    def _no_choices(cls, resources: Resources) -> Resources:
        if resources.any_of or resources.ordered:
            msg = "a pod set asks for one amount: `any_of` and `ordered` are for jobs without `sets`"
            raise ValueError(msg)
        if resources.spot != "auto":
            msg = "`spot` is of the whole job: write it into the job's own `resources`"
            raise ValueError(msg)
        return resources

    @model_validator(mode="after")
    def _one_thing_to_run(self) -> Self:
        if self.run.strip() and self.command:
            msg = "give either `run` (a shell script) or `command` (an argument vector)"
            raise ValueError(msg)
        return self

    @property
    def arguments(self) -> tuple[str, ...]:
        """As of a job; empty if it runs what the job does."""
        return _argument_vector(self.run, self.command)


def _argument_vector(run: str, command: list[str]) -> tuple[str, ...]:
    if command:
        return tuple(command)
    return ("/bin/sh", "-c", run) if run.strip() else ()


class Retry(JobPart):
    """How many failures of each class the job survives."""

    infra: Annotated[int, Field(ge=0, le=100)] = Field(default=3, description="failures of the infrastructure")
    user: Annotated[int, Field(ge=0, le=100)] = Field(default=0, description="failures of the job itself")
    backoff: Duration = Field(default="10s", description="wait before the second attempt; doubles with each")


class Partition(JobPart):
    """What is done when a node of the job is not heard of any more; at most one of both. Neither: wait for proof."""

    requeue_after: Duration = Field(
        default="", description="the pods end themselves after so long without word, then the job starts again"
    )
    allow_duplicates: Duration = Field(
        default="", description="the job starts again after so long, also if the last attempt runs on"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.requeue_after and self.allow_duplicates:
            msg = "give `requeue_after` or `allow_duplicates`, not both"
            raise ValueError(msg)
        for field, text, least in (
            ("requeue_after", self.requeue_after, REQUEUE_AFTER_SECONDS_MIN),
            ("allow_duplicates", self.allow_duplicates, 1),
        ):
            if text and quantities.duration(text) < least:
                msg = f"{field}: at least {least}s"
                raise ValueError(msg)
        return self


class Topology(JobPart):
    """How near to each other the nodes of the job are to lie, one of both: in one domain of a level, or in one if possible."""

    required: Level = Field(default="", description="they lie in one, or the job waits")
    preferred: Level = Field(default="", description="they lie in one where there is room, else as near as they can")

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        if self.required and self.preferred:
            msg = "give `required` or `preferred`, not both"
            raise ValueError(msg)
        return self


class Spread(JobPart):
    """How far apart the nodes of the job are to lie: over the domains of a level, as evenly as there is room."""

    level: Level = Field(default="", description="over which: zones, blocks, racks or hosts")
    at_most: Annotated[int, Field(ge=0, le=NODES_MAX)] = Field(
        default=0, description="so many lie in one at most, or the job waits; 0: as many as there is room for"
    )

    @model_validator(mode="after")
    def _of_a_level(self) -> Self:
        if self.at_most and not self.level:
            msg = "`at_most` of what? give a `level`, such as host"
            raise ValueError(msg)
        return self


def _spread(value: Any) -> Any:
    """A level alone: as evenly as there is room."""
    return {"level": value} if isinstance(value, str) else value


_COUNT: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1, le=NODES_MAX)])


class Nodes(JobPart):
    """How many ranks an elastic job may have: a number alone means exactly so many."""

    min: Annotated[int, Field(ge=1, le=NODES_MAX)] = Field(description="without so many it does not start")
    max: Annotated[int, Field(ge=1, le=NODES_MAX)] = Field(description="it never has more")
    desired: Annotated[int, Field(ge=0, le=NODES_MAX)] = Field(
        default=0,
        description="it starts with as many of these as there is room for, and gets more only of what lies idle; 0: `max`",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min <= self.count <= self.max:
            msg = f"`min` {self.min}, `desired` {self.count} and `max` {self.max} are not in this order"
            raise ValueError(msg)
        return self

    @property
    def count(self) -> int:
        """The desired one."""
        return self.desired or self.max

    @property
    def elastic(self) -> bool:
        """Whether it may have more or fewer."""
        return self.min < self.max

    @model_serializer(mode="wrap")
    def _plain(self, whole: SerializerFunctionWrapHandler) -> Any:
        """A number where it is one, as it was written."""
        return whole(self) if self.elastic else self.min


def _nodes(value: Any) -> Any:
    """A number, a map, or MIN:MAX as torchrun takes it."""
    if isinstance(value, str) and ":" in value:
        low, _, high = value.partition(":")
        return {"min": low, "max": high}
    if isinstance(value, dict | Nodes):
        return value
    if isinstance(value, bool):
        msg = "a number of nodes, or MIN:MAX"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports no other
    try:
        count = _COUNT.validate_python(value)
    except ValidationError as error:
        (fault,) = error.errors()
        raise PydanticKnownError(cast("Any", fault["type"]), fault.get("ctx")) from error
    return {"min": count, "max": count}


ONE_RANK = Nodes(min=1, max=1)


class Job(JobPart):
    """A job. The canonical names are shown; the aliases of other platforms' files are accepted too."""

    type: Literal["job", "service"] = Field(default="job", description="what sort of workload")
    name: Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?$")] = Field(
        default="", description="default: the name of the folder of the file, or of the command"
    )
    project: Name = Field(default="default", description="the project it belongs to")
    queue: Name = Field(default="default", description="the queue it waits in")
    setup: Annotated[str, BeforeValidator(as_script)] = Field(
        default="", description="shell script that runs before the job"
    )
    run: Annotated[str, BeforeValidator(as_script)] = Field(
        default="",
        validation_alias=AliasChoices("run", "commands"),
        description="shell script; a list is its lines. One of `run` and `command` is needed",
    )
    command: Annotated[list[str], BeforeValidator(as_arguments)] = Field(
        default_factory=list,
        validation_alias=AliasChoices("command", "entrypoint"),
        description="argument vector, not interpreted by a shell; a string is split as a shell would",
    )
    image: Image = Field(
        default="",
        description="container image, on clusters that run containers; empty: what the cluster runs by default",
    )
    workdir: str = Field(
        default="",
        description="folder whose files are sent and become the working directory; relative to the job file",
    )
    nodes: Annotated[Nodes, BeforeValidator(_nodes, json_schema_input_type=int | str | Nodes)] = Field(
        default=ONE_RANK,
        validation_alias=AliasChoices("nodes", "num_nodes"),
        examples=[4, "2:8"],
        description="ranked processes, placed together: so many (1 if nothing is said), or MIN:MAX of an elastic job",
    )
    sets: Annotated[list[PodSet], Field(max_length=SETS_MAX)] = Field(
        default_factory=list,
        description="pod sets, in place of `nodes` and `resources`: ranks of several shapes, all placed together",
    )
    topology: Topology = Field(
        default=Topology(), description="how near to each other its nodes are to lie: in one zone, block, rack or host"
    )
    spread: Annotated[Spread, BeforeValidator(_spread, json_schema_input_type=Level | Spread)] = Field(
        default=Spread(),
        examples=["zone"],
        description="how far apart its nodes are to lie: over many zones, blocks, racks or hosts",
    )
    resources: Resources = Field(default=Resources(), description="what one node needs")
    node_labels: Lines = Field(
        default_factory=list,
        validation_alias=AliasChoices("node_labels", "node_selector"),
        examples=[{"disk": "ssd"}, ["zone in (a, b)", "!retiring", "cores>16"]],
        description="what the labels of its nodes must be: a map of labels to values, or lines as `kubectl -l` takes them",
    )
    node_preferences: Preferences = Field(
        default_factory=list,
        examples=[[{"labels": {"disk": "nvme"}, "weight": 10}]],
        description="nodes that go before others where there is room on them",
    )
    tolerations: Tolerations = Field(
        default_factory=list,
        examples=[["dedicated=ml:NoSchedule"]],
        description="taints of nodes that it puts up with, as KEY=VALUE:EFFECT; without VALUE or EFFECT: any",
    )
    on_partition: Annotated[Partition, BeforeValidator(_partition)] = Field(
        default=Partition(),
        description="when a node is not heard of any more: `wait`, `{requeue_after: 10m}` or `{allow_duplicates: 10m}`",
    )
    infra: Annotated[str, Field(max_length=40)] = Field(
        default="", description="the cluster where it must run, by name; empty: any"
    )
    env: Annotated[dict[str, str], BeforeValidator(variables)] = Field(
        default_factory=dict, validation_alias=AliasChoices("env", "envs"), description="a map, or a list of NAME=VALUE"
    )
    secrets: Annotated[
        list[SecretUse],
        BeforeValidator(secret_uses, json_schema_input_type=list[str | SecretUse] | dict[str, str]),
        Field(max_length=100),
    ] = Field(
        default_factory=list,
        description="secrets by name: files in `$MAINSTAY_SECRETS_DIR`, and variables where `env` names one",
    )
    files: Annotated[dict[str, str], Field(max_length=200)] = Field(
        default_factory=dict, description="small files beside the code: path to content"
    )
    volumes: Annotated[
        list[Volume], BeforeValidator(listed_volumes, json_schema_input_type=list[str | Volume]), Field(max_length=20)
    ] = Field(default_factory=list, description="places for files: scratch, and claims that outlive the run")
    devices: Annotated[list[Annotated[str, Field(pattern=DEVICES)]], Field(max_length=20)] = Field(
        default_factory=list,
        examples=[["nic.example.com:1", "one-link"]],
        description="on Kubernetes clusters that hand out devices by claims: devices of a DeviceClass as CLASS:COUNT, or "
        "ResourceClaimTemplates of its namespace",
    )
    priority: Priority = Field(
        default=50,
        description="0 to 100, or low, normal, high, urgent, or a class of the platform; higher is more urgent",
    )
    retry: Retry = Field(default=Retry(), description="how many failures it survives")
    max_duration: Duration = Field(default="", description="it is stopped after so long; empty: no limit")
    stop_grace: Duration = Field(default="30s", description="time between the request to stop and the kill")
    checkpoint_every: Duration = Field(
        default="", description="it saves its state so often and goes on from there; if work must yield, it costs less"
    )

    @model_validator(mode="before")
    @classmethod
    def _known_type(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("type") in TYPES:
            return {**document, "type": TYPES[document["type"]]}
        return document

    @model_validator(mode="before")
    @classmethod
    def _peers_words(cls, document: Any) -> Any:
        """A value `${{ secrets.NAME }}` in `env` asks for a secret, and `files: FOLDER` means `workdir`."""
        if not isinstance(document, dict):
            return document
        document = dict(document)
        if isinstance(document.get("files"), str) and "workdir" not in document:
            document["workdir"] = document.pop("files")
        for field in ("env", "envs"):
            if field in document:
                kept, asked = secrets_in(variables(document[field]))
                if asked:
                    document[field] = kept
                    document["secrets"] = [*listed(secret_uses(document.get("secrets"))), *asked]
        return document

    @field_validator("env")
    @classmethod
    def _whole_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if SECRET_IN_ENV.match(value):
                # Those that may be one are in `secrets` by now.
                msg = f"{name!r} cannot be the variable of a secret: {VARIABLE_RULE}"
                raise ValueError(msg)
            if PART_OF_ENV.search(value):
                msg = f"in the variable {name} a secret does not stand alone; put the value together in `setup`"
                raise ValueError(msg)
        return env

    @field_validator("sets")
    @classmethod
    def _several_sets(cls, sets: list[PodSet], info: ValidationInfo) -> list[PodSet]:
        if not sets:
            return sets
        names = [one.name for one in sets]
        if len(sets) == 1:
            msg = "one pod set is a job with `nodes` and `resources`; write these, or another set"
            raise ValueError(msg)
        if twice := next((name for name in names if names.count(name) > 1), ""):
            msg = f"two pod sets are named {twice}; give each a name of its own"
            raise ValueError(msg)
        if info.data.get("type") == "service":
            msg = "a service has no pod sets; start a service for each"
            raise ValueError(msg)
        if info.data.get("nodes", ONE_RANK).elastic:
            msg = "an elastic job has no pod sets: leave out `nodes`, or the sets"
            raise ValueError(msg)
        if info.data.get("nodes", ONE_RANK) != ONE_RANK:
            msg = "each pod set has its own `nodes`; leave out those of the job"
            raise ValueError(msg)
        count = sum(one.nodes for one in sets)
        if count > NODES_MAX:
            msg = f"{count} nodes in all, at most {NODES_MAX}"
            raise ValueError(msg)
        return sets

    @field_validator("resources")
    @classmethod
    def _of_all_alike(cls, resources: Resources, info: ValidationInfo) -> Resources:
        if info.data.get("sets") and resources != Resources(spot=resources.spot):
            msg = "each pod set has its own `resources`; leave out those of the job, but for `spot`"
            raise ValueError(msg)
        return resources

    @field_validator("spread")
    @classmethod
    def _of_one_kind(cls, spread: Spread, info: ValidationInfo) -> Spread:
        if spread.level and info.data.get("sets"):
            msg = "a job with pod sets cannot be spread; leave out `spread`, or start a job of its own for what is to lie apart"
            raise ValueError(msg)
        return spread

    @field_validator("files")
    @classmethod
    def _small_files(cls, files: dict[str, str]) -> dict[str, str]:
        for path in files:
            if not FILE_PATH.match(path) or {"", ".", ".."} & set(path.split("/")):
                msg = f"{path!r} is not a path beside the code, such as conf/train.yaml"
                raise ValueError(msg)
        for one, other in itertools.combinations(sorted(files), 2):
            if within(other, one):
                msg = f"{one} is a file, and {other} needs a folder of that name; rename one of them"
                raise ValueError(msg)
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in files.values())
        if size > FILES_BYTES_MAX:
            msg = f"{size:,} bytes in all, at most {FILES_BYTES_MAX:,}; put larger ones into `workdir`"
            raise ValueError(msg)
        return files

    @field_validator("secrets")
    @classmethod
    def _one_variable_each(cls, secrets: list[SecretUse], info: ValidationInfo) -> list[SecretUse]:
        asked = [use.env for use in secrets if use.env]
        for name in asked:
            if asked.count(name) > 1 or name in info.data.get("env", {}):
                msg = f"the variable {name} is given twice, in `secrets` and `env` or in two secrets; leave one out"
                raise ValueError(msg)
        return secrets

    @field_validator("volumes")
    @classmethod
    def _one_volume_each(cls, volumes: list[Volume], info: ValidationInfo) -> list[Volume]:
        for one, other in itertools.combinations(sorted(volume.path for volume in volumes), 2):
            if within(other, one):
                how = f"two have the path {one}" if one == other else f"two lie in each other: {one} and {other}"
                msg = f"{how}; give each a path of its own"
                raise ValueError(msg)
        for path, volume in itertools.product(info.data.get("files", {}), volumes):
            if within(path, volume.path) or within(volume.path, path):
                msg = f"the volume {volume.path} would hide {path} of `files`; choose another path for one of them"
                raise ValueError(msg)
        return volumes

    @field_validator("volumes")
    @classmethod
    def _fit_their_job(cls, volumes: list[Volume], info: ValidationInfo) -> list[Volume]:
        nodes = sum(one.nodes for one in info.data.get("sets", ())) or info.data.get("nodes", ONE_RANK).max
        for volume in volumes:
            if volume.target and info.data.get("type") == "service":
                msg = f"volume {volume.path}: a service does not end well, so nothing of it is copied to `target`"
                raise ValueError(msg)
            if nodes > 1 and volume.name and volume.size and volume.access in {"", *ONE_NODE}:
                msg = f"volume {volume.name}: {nodes} nodes need `access: ReadWriteMany`"
                raise ValueError(msg)
        return volumes

    @field_validator("max_duration", "checkpoint_every")
    @classmethod
    def _some_time(cls, text: str) -> str:
        if text and not quantities.duration(text):
            msg = "no time at all; leave it out for no limit"
            raise ValueError(msg)
        return text

    @model_validator(mode="after")
    def _one_thing_to_run(self) -> Self:
        alone = bool(self.sets) and all(one.arguments for one in self.sets) and not self.run.strip()
        if bool(self.run.strip()) == bool(self.command) and not (alone and not self.command):
            msg = "give either `run` (a shell script) or `command` (an argument vector)"
            if self.sets:
                msg = f"{msg}, or one of them for each of the `sets`"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _unicode(self) -> Self:
        """JSON can name half a surrogate pair; no file, no database and no answer of ours can hold one."""
        try:
            self.model_dump_json()
        except PydanticSerializationError as error:
            msg = "text that is not Unicode: half of a surrogate pair"
            raise ValueError(msg) from error
        return self

    @property
    def arguments(self) -> tuple[str, ...]:
        """The argument vector, a script as one for /bin/sh. Where each pod set has its own, that of the first."""
        return _argument_vector(self.run, self.command) or self.sets[0].arguments


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the job file, for editors. Aliases are listed beside the canonical names."""
    document = Job.model_json_schema(by_alias=False)
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "mainstay job file"
    return document
