"""What all answers are made of: reasons, problems, amounts, pages."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


Number = int | float | str


class View(BaseModel):
    """Base of all answers: unknown fields are tolerated on reading, so that an older client reads a newer server."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ReasonView(View):
    """Why: a stable code, what it is about, the figures, and the same in words."""

    code: str
    object: str = ""
    numbers: dict[str, Number] = Field(default_factory=dict)
    sentence: str
    brief: str = ""
    """The sentence as a list shows it: without what it repeats in full, 200 characters at most."""


class Problem(View):
    """An RFC 9457 problem. `code` is stable, `errors` locates the faults of a request body."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    object: str = ""
    numbers: dict[str, Number] = Field(default_factory=dict)
    hint: str = ""
    errors: list[FieldProblem] = Field(default_factory=list)


class FieldProblem(View):
    """One fault at one field, e.g. `resources.gpu`."""

    field: str
    message: str
    allowed: list[str] = Field(default_factory=list)
    nearest: str = ""


class ResourcesView(View):
    """The request of one pod, or the size of a node."""

    cpu: float
    memory_bytes: int
    gpus: int = 0
    gpu_model: str = ""
    gpu_memory_bytes: int = 0
    """Only of what is asked for: at least so much of each GPU."""
    gpu_part: float = 0
    """Only of what is asked for: at least such a part of a GPU, in place of a whole one."""


class Page(View, Generic[Item]):
    """A page of a list. Ask again with `cursor=next` for the rest; `next` is empty on the last page."""

    items: list[Item]
    next: str = ""
