"""What the log says, held against itself, the rows and the answers that users got: I2, I6, I8, I12 and I13.

I12: nobody changes what is of another tenant. I13: an endpoint serves only what has been ready, and what it lets go of
is stopped. The others: reliability.md 3.3.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mainstay.decide.delivery import FAILURES_MAX
from mainstay.domain.plan import AuditRow, Event
from mainstay.domain.reason import Code
from mainstay.domain.workload import LEGAL_TRANSITIONS, Phase, Workload
from mainstay.ports import Store
from mainstay.simulation.users import TENANTS, USERS, Answers

PAGE = 1_000
TENANT_OF = {user.name: user.tenant for user in USERS}


def all_events(store: Store) -> list[Event]:
    """The whole log, of every tenant."""
    found: list[Event] = []
    while page := store.events(tenant="", workload="", after=found[-1].seq if found else 0, limit=PAGE):
        found.extend(page)
    return found


class History:
    """Folds the log once; `violations` are what it contradicts."""

    def __init__(self, store: Store) -> None:
        self.violations: list[str] = []
        self.phases: dict[str, Phase] = {}
        self.endpoints: dict[tuple[str, str], _Endpoint] = {}
        """By tenant and name."""
        self.unwanted: set[str] = set()
        """Workloads whose stop was asked for."""
        self._ran: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._newest_service = ""
        for expected, event in enumerate(all_events(store), start=1):
            if event.seq != expected:
                self._wrong(f"I6: event {event.seq} where {expected} was expected")
                break
            self._fold(event)

    def against_rows(self, store: Store, workloads: Mapping[str, Workload]) -> None:
        """The state of everything is the fold of its events."""
        for name, workload in workloads.items():
            if self.phases.get(name) is not workload.phase:
                self._wrong(f"I6: {name} is {workload.phase.word}, its log says {self.phases.get(name)}")
            if workload.stop_requested != (name in self.unwanted):
                self._wrong(f"I6: the stop of {name} is {workload.stop_requested} and its log says otherwise")
        for tenant in TENANTS:
            rows = {row.name: (row.candidate, row.serving) for row in store.endpoints(tenant=tenant)}
            logged = {
                name: (endpoint.candidate, endpoint.serving)
                for (owner, name), endpoint in self.endpoints.items()
                if owner == tenant
            }
            if rows != logged:
                self._wrong(f"I6: the endpoints of {tenant} are {rows}, their log says {logged}")
            for model in sorted({row.model for row in store.model_versions(tenant=tenant, model="")}):
                numbers = [row.version for row in store.model_versions(tenant=tenant, model=model)]
                if numbers != list(range(len(numbers), 0, -1)):
                    self._wrong(f"I6: model {model} of {tenant} has the versions {numbers}")

    def against_answers(self, store: Store, answers: Answers) -> None:
        """One effect per key that was answered, none without a key; each in the audit, which has no gap."""
        audit = _whole_audit(store)
        if [row.seq for row in audit] != list(range(1, len(audit) + 1)):
            self._wrong("I8: the audit has a gap")
        done = Counter((row.actor, row.action) for row in audit)
        for user in USERS:
            for action in ("submit", "request_stop", "deploy", "remove_endpoint"):
                least, most = _effects(answers, user.name, action)
                if not least <= done[user.name, action] <= most:
                    self._wrong(f"I2: {done[user.name, action]} times {action} by {user.name}, not {least} to {most}")

    def _fold(self, event: Event) -> None:
        tenant = TENANT_OF.get(event.actor, event.tenant)
        if event.tenant != tenant:
            self._wrong(f"I12: {event.actor} of {tenant} changed {event.object} of {event.tenant}")
        if event.kind == "workload":
            self._fold_workload(event)
        elif event.kind == "allocation" and event.reason.code is Code.POD_RUNNING:
            self._ran.add(event.workload)
        elif event.kind == "endpoint":
            self._fold_endpoint(event)

    def _fold_workload(self, event: Event) -> None:
        before, after = self.phases.get(event.workload), event.phase_after
        if after is None:
            # What leaves a workload in its phase: other ranks of its attempt, or that its stop was asked for.
            if event.reason.code not in {Code.SHRUNK, Code.GROWN}:
                self.unwanted.add(event.workload)
            return
        legal = after is Phase.PENDING if before is None else before is after or (before, after) in LEGAL_TRANSITIONS
        if not legal or (before is not None and before.final):
            self._wrong(f"I6: {event.workload} went from {before} to {after}")
        if event.phase_before is not before:
            self._wrong(f"I6: {event.workload} was {before} by its log, and went on from {event.phase_before}")
        self._attempts[event.workload] += after is Phase.PENDING
        if event.reason.code in {Code.DEPLOY_REQUESTED, Code.ENDPOINT_MOVES}:
            self._newest_service = event.workload
        self.phases[event.workload] = after

    def _fold_endpoint(self, event: Event) -> None:
        """Each step concerns the candidate that there was, and whoever is not needed any more is stopped with it."""
        known = self.endpoints.get((event.tenant, event.object))
        version = event.reason.numbers.get("version")
        match event.reason.code:
            case Code.DEPLOY_REQUESTED:
                endpoint = known or _Endpoint(tenant=event.tenant)
                self._let_go(endpoint.candidate, event)
                endpoint.candidate, endpoint.version = self._newest_service, version
                self.endpoints[event.tenant, event.object] = endpoint
                if endpoint.tenant != event.tenant:
                    self._wrong(f"I12: {event.object} of {endpoint.tenant} was deployed to by {event.tenant}")
            case Code.ENDPOINT_MOVES if known and known.serving and not known.candidate:
                known.candidate, known.version = self._newest_service, version
            case Code.ENDPOINT_SWITCHED if known and known.candidate and known.version == version:
                if known.candidate not in self._ran or known.candidate in self.unwanted:
                    self._wrong(f"I13: {event.object} was switched to {known.candidate}, which was never ready")
                self._let_go(known.serving, event)
                known.serving, known.candidate = known.candidate, ""
            case Code.DEPLOY_FAILED if known and known.candidate and known.version == version:
                over = known.candidate in self.unwanted or self.phases[known.candidate].final
                if not over and self._attempts[known.candidate] <= FAILURES_MAX:
                    self._wrong(f"I13: {known.candidate} of {event.object} was dropped without having failed")
                self._let_go(known.candidate, event)
                known.candidate = ""
            case Code.ENDPOINT_REMOVED if known:
                self._let_go(known.candidate, event)
                self._let_go(known.serving, event)
                del self.endpoints[event.tenant, event.object]
            case Code.POD_RUNNING | Code.POD_STARTING if known:
                pass
            case _:
                self._wrong(f"I6: {event.object}, {known}, was told {event.reason.code} of version {version}")

    def _let_go(self, workload: str, event: Event) -> None:
        if workload and workload not in self.unwanted and not self.phases[workload].final:
            self._wrong(f"I13: {workload} was not stopped by {event.reason.code} of {event.object}")

    def _wrong(self, sentence: str) -> None:
        self.violations.append(sentence)


@dataclass(slots=True)
class _Endpoint:
    tenant: str
    serving: str = ""
    candidate: str = ""
    version: object = 0
    """Of the candidate."""


def _effects(answers: Answers, user: str, action: str) -> tuple[int, int]:
    """How many audit rows of this action there must be, at least and at most."""
    answered = [
        (request, reply)
        for request, reply in answers.replies.values()
        if request.by.name == user and request.action == action
    ]
    unknown = sum(request.by.name == user and request.action == action for request in answers.unknown.values())
    if action == "submit":
        jobs = sum(len(json.loads(reply)) for _, reply in answered)
        return jobs, jobs
    # A stop of what is stopped already has no effect.
    return 0 if action == "request_stop" else len(answered), len(answered) + unknown


def _whole_audit(store: Store) -> list[AuditRow]:
    found: list[AuditRow] = []
    while page := store.audit(after=found[-1].seq if found else 0, limit=PAGE):
        found.extend(page)
    return found
