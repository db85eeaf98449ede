"""The description of the API against the API itself: 50,000 requests, well-formed and malformed, alone and in sequences.

Schemathesis makes them of the OpenAPI document: of each operation by itself, and of sequences in which later requests take what
earlier ones have answered (its inferred links). The app is asked in this process, by an administrator, over a real SQLite store
with a run, a model and an endpoint in it. Counted: answers with 5xx, answers that the document does not describe, malformed
requests that were accepted, and writes that changed something without a row in the audit.

    python -m benchmarks.contract --cases 50000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Flaky, Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.report import figure, progress, report
from mainstay.api.app import TOPICS, create_api
from mainstay.api.streams import MEDIA_TYPE
from mainstay.operations.principal import Principal
from mainstay.store import SqlStore
from tests.unit.api.conftest import made_a_model, site_of
from tests.unit.web.site import services_of

TOKEN = "administrator"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
STEPS = 12
"""Requests of one sequence."""
SEQUENCES_SHARE = 0.3
"""Of all requests; they are made more slowly than others."""
JOB = {"name": "train", "run": "true"}
KNOWN_BODIES: dict[str, Any] = {
    "POST /v1/workloads": {"job": JOB},
    "POST /v1/workloads/bulk": {"jobs": [JOB, JOB]},
    "POST /v1/plan": {"job": JOB},
}
"""Jobs have so many rules beyond the types of their fields that hardly any that is drawn can be one."""


@dataclass(slots=True)
class Tally:
    """What has come back so far."""

    store: SqlStore
    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    server_errors: Counter[str] = field(default_factory=Counter)
    breaks: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    """That changed something."""
    repeated: Counter[str] = field(default_factory=Counter)
    """That succeeded and changed nothing on record: it was so already, or a plan, a link to sign in, or content by its digest."""
    unrecorded: Counter[str] = field(default_factory=Counter)
    """Of these, without a row in the audit."""

    def ask(self, case: schemathesis.Case[Any], kind: str) -> Any:
        """Send a request, and check and count its answer."""
        known = KNOWN_BODIES.get(f"{case.method} {case.operation.path}")
        if known and kind != "negative" and self.cases.total() % 2:
            case.body, kind = known, f"{kind}, with a body that is known to do"
        version, rows = self.store.version(), self._rows()
        answer = case.call(headers=HEADERS)
        self._count(case, kind, answer)
        if case.method != "GET" and 200 <= answer.status_code < 300:
            operation = f"{case.method} {case.operation.path}"
            # A reply that is kept under a key is a commit too, whether anything else is in it or not.
            changed = self.store.version() > version and ("Idempotency-Key" not in case.headers or self._rows() > rows)
            self.writes[operation] += changed
            self.repeated[operation] += not changed
            self.unrecorded[operation] += changed and self._rows() == rows
        return answer

    def _count(self, case: schemathesis.Case[Any], kind: str, answer: Any) -> None:
        operation = f"{case.method} {case.operation.path}"
        self.cases[kind] += 1
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500:
            self.server_errors[operation] += 1
        # A parameter of a query that is not known is ignored, and what is larger than a body may be is refused unread.
        refused = case.method != "GET" and answer.status_code != 413 and "known" not in kind
        try:
            case.validate_response(answer, checks=(*CHECKS, negative_data_rejection) if refused else CHECKS)
        except FailureGroup as group:
            self.breaks.update(f"{operation}: {_title(failure)}" for failure in group.exceptions)
        except Failure as failure:
            self.breaks[f"{operation}: {_title(failure)}"] += 1

    def _rows(self) -> int:
        """The number of the newest row."""
        return next((row.seq for row in self.store.last_audit(before=0, limit=1)), 0)


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    began = time.monotonic()
    tally = compared(options.cases, number=options.seed)
    for what in (tally.server_errors, tally.breaks, tally.unrecorded):
        for operation, count in (+what).most_common():
            print(f"  {count} x {operation}", file=sys.stderr)
    zero = {"goal": 0, "higher_is_better": False}
    figures = [
        figure("requests", "", [tally.cases.total()], goal=options.cases),
        *(figure(f"    {kind}", "", [count]) for kind, count in sorted(tally.cases.items())),
        figure("answered with 5xx", "", [tally.server_errors.total()], **zero),
        figure("not as described, or malformed and accepted", "", [tally.breaks.total()], **zero),
        figure("writes that succeeded and changed nothing", "", [tally.repeated.total()]),
        figure("writes that changed something", "", [tally.writes.total()]),
        figure("    of these without a row in the audit", "", [tally.unrecorded.total()], **zero),
        figure("requests a second", "1/s", [tally.cases.total() / (time.monotonic() - began)]),
    ]
    changes = ", ".join(f"{count} {operation}" for operation, count in sorted((+tally.writes).items()))
    statuses = json.dumps(dict(sorted(tally.statuses.items())))
    report("contract", figures, notes=[f"--seed {options.seed}; answers by status: {statuses}", changes])


def compared(cases: int, *, number: int) -> Tally:
    """Ask so many requests at least."""
    with tempfile.TemporaryDirectory() as folder, services_of(Path(folder), url="http://platform.test") as services:
        administrator = Principal(name="root", tenant="physics", role="platform-admin")
        app = create_api(replace(services, authenticate={TOKEN: administrator}.get))
        known = _filled(app)
        assert isinstance(services.store, SqlStore)
        tally = Tally(store=services.store)
        schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
        schema.config.generation.update(with_security_parameters=False)  # we bring a token of our own
        alone = round(cases * (1 - SEQUENCES_SHARE))
        ask_alone(schema, tally, alone, known=known, number=number)
        while tally.cases.total() < cases:
            ask_in_sequences(schema, tally, cases - tally.cases.total(), number=number)
            progress(f"{tally.cases.total()} requests")
        return tally


def ask_alone(schema: Any, tally: Tally, cases: int, *, known: dict[str, str], number: int) -> None:
    """Each operation by itself, well-formed and malformed."""
    operations = [
        (route.method, route.path)
        for topic in TOPICS
        for route in topic.declared
        if route.listed and route.media_type != MEDIA_TYPE  # a stream has no end
    ]
    wanted = [
        (*operation, mode)
        for operation in operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode is GenerationMode.POSITIVE or (operation[1].startswith("/v1/") and operation[1] != "/v1/schema/job")
    ]
    for method, path, mode in wanted:
        _examples(
            schema[path][method].as_strategy(generation_mode=mode),
            _known(tally, known if mode is GenerationMode.POSITIVE else {}, mode.value),
            count=-(-cases // len(wanted)),
            number=number,
        )
        progress(f"{tally.cases.total()} requests, {path}")


def ask_in_sequences(schema: Any, tally: Tally, cases: int, *, number: int) -> None:
    """So many requests at least that take what earlier ones have answered."""

    class Sequence(schema.exclude(path_regex="/stream$").as_state_machine()):  # type: ignore[misc]
        def call(self, case: schemathesis.Case[Any], **_: Any) -> Any:
            return tally.ask(case, "in sequences")

        def validate_response(self, *_: Any, **__: Any) -> None:
            """It has been."""

    random.seed(number)
    until = tally.cases.total() + cases
    while (left := until - tally.cases.total()) > 0:
        # What is there differs from one sequence to the next: Hypothesis notices sooner or later, and begins anew.
        with contextlib.suppress(Flaky):
            Sequence.run(settings=_settings(max(2, left // STEPS), steps=STEPS))


def _known(tally: Tally, known: dict[str, str], kind: str) -> Callable[[schemathesis.Case[Any]], None]:
    def ask(case: schemathesis.Case[Any]) -> None:
        # Half of the requests are about something that is there.
        if known and tally.cases.total() % 2:
            case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
        tally.ask(case, kind)

    return ask


def _examples(cases: Any, ask: Callable[[schemathesis.Case[Any]], None], *, count: int, number: int) -> None:
    def test(case: schemathesis.Case[Any]) -> None:
        ask(case)

    with contextlib.suppress(Unsatisfiable):  # where nothing is sent, nothing can be malformed
        seed(number)(_settings(count)(given(case=cases)(test)))()


def _settings(count: int, *, steps: int = 1) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _filled(app: FastAPI) -> dict[str, str]:
    """Something of each kind; by which names it is found."""
    site = site_of(app.state.services, app)
    work = made_a_model(site)
    site.scene.deploy("digits")
    return {"ref": work.id, "digest": work.output, "name": "digits", "cluster": "-"}


def _title(failure: BaseException) -> str:
    return f"{getattr(failure, 'title', type(failure).__name__)}: {getattr(failure, 'message', '')}".partition("\n")[0]


if __name__ == "__main__":
    main()
