"""What a job is handed beside its code: variables, secrets and volumes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator

from mainstay.wire import quantities
from mainstay.wire.job_values import JobPart, as_text

SECRET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"  # noqa: S105 no secret
SECRET_OR_NONE = rf"{SECRET_NAME}|^$"
SECRET_VARIABLE = r"^([A-Za-z_][A-Za-z0-9_]{0,254})?$"  # noqa: S105 no secret
VARIABLE_RULE = "letters, digits and underscores, no digit first, and not MAINSTAY_..."
PLATFORM_VARIABLE = "MAINSTAY_"
"""What begins so the platform sets itself. A shell exports the variables of secrets last: they would hide it."""
CLAIM_NAME = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"
"""RFC 1123 subdomain, as Kubernetes names claims and storage classes; empty: none."""
OBJECTS = r"^((s3|gs|az)://[a-z0-9][a-z0-9._-]{1,254}(/[^\\?#\x00-\x20\x7f]{0,800})?)?$"
"""An address in an object store: scheme, bucket or container, prefix."""
FILE_PATH = re.compile(r"[^\x00-\x1f\x7f\\:/][^\x00-\x1f\x7f\\:]{0,499}\Z")
TAKEN_PATHS = frozenset({"mainstay", "proc", "sys", "dev", "tmp", "etc", "bin", "sbin", "lib", "lib64", "usr", "boot"})
"""What is mounted there would hide the system of the image, or what the platform itself puts into a pod."""
ONE_NODE = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})
SECRET_IN_ENV = re.compile(r"\$\{\{\s*secrets\.(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,62})\s*\}\}\Z")
"""As dstack and GitHub write it."""
PART_OF_ENV = re.compile(r"\$\{\{\s*secrets\.")


def variables(value: Any) -> Any:
    """A map, or a list of NAME=VALUE."""
    if isinstance(value, list) and all(isinstance(item, str) and "=" in item for item in value):
        return dict(item.split("=", 1) for item in value)
    if isinstance(value, dict):
        return {name: _env_value(item) for name, item in value.items()}
    return value


def _env_value(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else as_text(value)


def secret_uses(value: Any) -> Any:
    """A list of names, or of names with the variables that they become; a map is VARIABLE: SECRET."""
    if isinstance(value, dict):
        return [{"env": variable, "name": name} for variable, name in value.items()]
    return [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


def _own_variable(name: str) -> str:
    if name.startswith(PLATFORM_VARIABLE):
        msg = f"the variable {name} is the platform's own; choose another name"
        raise ValueError(msg)
    return name


def listed(value: Any) -> list[Any]:
    """What stands alone is a list of one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def secrets_in(env: Any) -> tuple[Any, list[dict[str, str]]]:
    """The variables that are no secrets, and the secrets that the others name."""
    if not isinstance(env, dict):
        return env, []
    variables = {name: str(value) for name, value in env.items() if _may_be_secret(str(name))}
    named = {name: found for name, value in variables.items() if (found := SECRET_IN_ENV.match(value))}
    return (
        {name: value for name, value in env.items() if name not in named},
        [{"name": found["name"], "env": name} for name, found in named.items()],
    )


def _may_be_secret(variable: str) -> bool:
    return bool(variable and re.match(SECRET_VARIABLE, variable)) and not variable.startswith(PLATFORM_VARIABLE)


def listed_volumes(value: Any) -> Any:
    """`NAME:PATH` is a claim that is there, as other platforms write it."""
    return [_volume(item) if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


def _volume(text: str) -> Any:
    name, given, path = text.partition(":")
    return {"name": name, "path": path} if given else {"path": text}


def _volume_path(path: str) -> str:
    parts = path.removeprefix("/").rstrip("/").split("/")
    if not FILE_PATH.match(path.removeprefix("/")) or {"", ".", ".."} & set(parts):
        msg = f"{path!r} is not a path such as /data, or data for one in the working directory"
        raise ValueError(msg)
    if path.startswith("/") and parts[0] in TAKEN_PATHS:
        msg = f"{path!r} belongs to the system; choose another, such as /data"
        raise ValueError(msg)
    return path.rstrip("/")


def within(path: str, folder: str) -> bool:
    """Whether a path is this folder, or lies in it."""
    return path == folder or path.startswith(f"{folder}/")


def _size(text: str) -> str:
    if text:
        quantities.size(text)
    return text


class SecretUse(JobPart):
    """A secret that the job is handed: a file of its name, and a variable if it is given a name as one."""

    name: Annotated[str, Field(pattern=SECRET_NAME)] = Field(description="as `mainstay secret list` shows it")
    env: Annotated[str, Field(pattern=SECRET_VARIABLE), AfterValidator(_own_variable)] = Field(
        default="", description="also as this environment variable"
    )


class Volume(JobPart):
    """A place for files. With a `name` a claim that outlives the run, without one scratch that ends with it."""

    path: Annotated[str, AfterValidator(_volume_path)] = Field(
        description="where: absolute, or relative to the working directory"
    )
    name: Annotated[str, Field(pattern=CLAIM_NAME)] = Field(
        default="",
        validation_alias=AliasChoices("name", "claim", "claim_name"),
        description="of the claim in the project; without a `size` it must be there already",
    )
    size: Annotated[str, BeforeValidator(as_text), AfterValidator(_size)] = Field(
        default="", examples=["50GB", "1Ti"], description="of scratch: its most; of a claim: what it is made with"
    )
    storage_class: Annotated[str, Field(pattern=CLAIM_NAME)] = Field(
        default="", description="of the cluster; empty: its default, and for scratch the disk of the node"
    )
    access: Literal["", "ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"] = Field(
        default="", description="access mode of a claim that is made; empty: ReadWriteOnce"
    )
    read_only: bool = Field(default=False, description="the job may not write to it")
    source: Annotated[str, Field(pattern=OBJECTS)] = Field(
        default="",
        examples=["s3://bucket/sets/digits"],
        description="of scratch: an address in an object store, copied here before the job starts",
    )
    target: Annotated[str, Field(pattern=OBJECTS)] = Field(
        default="", description="of scratch: where what rank 0 left here is copied to once the job has ended well"
    )
    secret: Annotated[str, Field(pattern=SECRET_OR_NONE)] = Field(
        default="", description="the secret that opens `source` and `target`; empty: they are open to anybody"
    )

    @model_validator(mode="after")
    def _objects(self) -> Self:
        if self.name and (self.source or self.target):
            msg = "`source` and `target` are for scratch; leave `name` out"
            raise ValueError(msg)
        if self.secret and not (self.source or self.target):
            msg = "`secret` opens a `source` or `target`; for the job itself ask for it in `secrets`"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.name and self.read_only:
            msg = "`read_only` is for claims; give the `name` of one"
            raise ValueError(msg)
        if not self.name and self.access:
            msg = "`access` is for claims; give the `name` of one"
            raise ValueError(msg)
        if self.storage_class and not self.size:
            msg = "`storage_class` is for what is made; give a `size`"
            raise ValueError(msg)
        return self
