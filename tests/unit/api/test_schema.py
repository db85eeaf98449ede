"""The OpenAPI document is true: whatever it allows is answered as it says, and nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mainstay.api.app import TOPICS, create_api
from mainstay.api.streams import MEDIA_TYPE
from tests.unit.api.conftest import PEOPLE, made_a_model, site_of
from tests.unit.web.site import services_of

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
EXAMPLES = 12
OPERATIONS = [
    (route.method, route.path)
    for topic in TOPICS
    for route in topic.declared
    if route.listed and route.media_type != MEDIA_TYPE  # a stream has no end
]

TAKES_NOTHING = {"/v1/schema/job", "/v1/sign-in/ways", "/v1/sign-in/device"}
"""Where nothing is sent, nothing can be wrong."""
CASES = [
    (*operation, mode)
    for operation in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or (operation[1].startswith("/v1/") and operation[1] not in TAKES_NOTHING)
]
REAL: dict[str, str] = {}
"""What reading finds, so that there is something to compare with the description."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("described")
    with services_of(folder, url="http://platform.test") as services:
        app = create_api(replace(services, authenticate=PEOPLE.get))
        work = made_a_model(site_of(services, app))
        REAL.update(ref=work.id, digest=work.output, name="digits", cluster="-")
        scene = site_of(services, app).scene
        scene.deploy("digits")
        REAL["id"] = scene.capped(member=PEOPLE["user-token"].name, gpus=2, spend_micros=500_000)
        yield schemathesis.openapi.from_asgi("/v1/openapi.json", app)


@pytest.mark.parametrize(("method", "path", "mode"), CASES, ids=str)
def test_what_is_sent_is_answered_as_the_description_says(described: Any, method: str, path: str, mode: GenerationMode):
    operation = described[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and method == "GET":
            case.path_parameters.update({name: REAL[name] for name in case.path_parameters})
        # A parameter of a query that is not known is ignored; a field of a body that is not known is refused.
        checks = CHECKS if method == "GET" else (*CHECKS, negative_data_rejection)
        answer = case.call(headers={"Authorization": "Bearer user-token"})
        # What is larger than a body may be is refused unread: whether it is wrong besides, nobody knows.
        case.validate_response(answer, checks=CHECKS if answer.status_code == 413 else checks)

    ask()
