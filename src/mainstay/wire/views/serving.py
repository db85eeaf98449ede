"""Models, and the endpoints that serve them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from mainstay.wire.views.base import View


class ModelVersionView(View):
    """A registered version of a model."""

    model: str
    version: int
    project: str
    tree: str
    workload: str
    registered_at: datetime


class EndpointView(View):
    """A stable address for a model: predictions at `url` + /v2/models/NAME/infer (Open Inference Protocol v2)."""

    name: str
    project: str
    model: str
    state: Literal["starting", "ready", "switching", "unavailable"]
    serving_version: int
    serving: str = ""
    candidate_version: int = 0
    candidate: str = ""
    url: str
    updated_at: datetime
