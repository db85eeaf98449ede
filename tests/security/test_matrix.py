"""Every operation by everybody who could ask: each is refused exactly as its declared permission says (security.md D1, D3).

Nothing here repeats a rule of the code: who may what is worked out from the permission that a route declares, the role that a
caller has on record, and where the object lies that the example of the route names.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from mainstay.api.app import TOPICS
from mainstay.api.routes import PUBLIC, Declared, DeclaredSocket
from mainstay.domain.access import ROLES, Permission
from mainstay.wire import agent as wire
from tests.asked import asked
from tests.figures import Figure
from tests.security.examples import EXAMPLES, Example, Lies
from tests.security.people import CALLERS, Caller, World, furnished

Route = Declared | DeclaredSocket
ROUTES: Mapping[str, Route] = {
    **{f"{one.method} {one.path}": one for topic in TOPICS for one in topic.declared},
    **{f"SOCKET {one.path}": one for topic in TOPICS for one in topic.sockets},
}
GUARDED = {name: route for name, route in ROUTES.items() if route.permission is not PUBLIC}
UNKNOWN, FORBIDDEN, HIDDEN = 401, 403, 404


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with furnished(tmp_path_factory.mktemp("matrix")) as made:
        yield made


def refusal(route: Route, example: Example, caller: Caller) -> int:
    """The status with which the caller must be refused; 0 for one who may."""
    assert route.permission is not PUBLIC
    if not caller.known:
        return UNKNOWN
    if caller.agent or route.permission is Permission.CARRY:
        return 0 if caller.agent and route.permission is Permission.CARRY else FORBIDDEN
    place = example.project if route.of_projects else ""
    if not caller.may_somewhere(route.permission, of_projects=route.of_projects):
        return FORBIDDEN
    if caller.name in example.refused:
        return FORBIDDEN
    if example.lies is Lies.IN_PROJECT and not (caller.ours and caller.may(Permission.READ, place)):
        return HIDDEN
    if example.lies is Lies.IN_TENANT and not caller.ours:
        return HIDDEN
    if example.lies is not Lies.ANYWHERE and not caller.may(route.permission, place):
        return FORBIDDEN
    return 0


def test_each_route_has_an_example() -> None:
    """A new one is added to `examples.py`, with the object of the builder that it touches."""
    assert sorted(GUARDED.keys() - EXAMPLES.keys()) == []
    assert sorted(EXAMPLES.keys() - GUARDED.keys()) == []


def test_each_caller_is_refused_what_the_declared_permission_does_not_give_and_nothing_else(
    world: World, figure: Figure
) -> None:
    counts: Counter[str] = Counter()
    wrong = asyncio.run(_all(world, counts))
    assert not wrong, "\n".join(wrong)
    figure("operations of the API: 0 of them not tried", len(GUARDED))
    figure("callers who tried each of them", len(CALLERS))
    for answer, count in sorted(counts.items()):
        figure(f"of these tries: {answer}", count)


async def _all(world: World, counts: Counter[str]) -> list[str]:
    """Those who are refused first, then those who may: what the first do must not change anything."""
    wrong: list[str] = []
    asked_for: set[str] = set()
    before = world.version()
    for denied in (True, False):
        for name, route in GUARDED.items():
            for caller in CALLERS:
                expected = refusal(route, EXAMPLES[name], caller)
                if bool(expected) is denied:
                    told, status = await _one(world, name, caller, expected, counts)
                    wrong += told
                    if not expected and name not in asked_for:
                        asked_for.add(name)
                        if EXAMPLES[name].has_object and status == HIDDEN:
                            wrong.append(f"{name}: the example names nothing that is there")
        if denied and world.version() != before:
            wrong.append("something that was refused has changed the world")
    return wrong


async def _one(world: World, name: str, caller: Caller, expected: int, counts: Counter[str]) -> tuple[list[str], int]:
    """What is wrong, and the status."""
    example = EXAMPLES[name]
    answer = await asked(
        world.app,
        name.partition(" ")[0],
        example.at(world),
        token=world.tokens.get(caller.name, caller.token),
        body=example.content(world),
        protocol=ROUTES[name].protocol if isinstance(ROUTES[name], DeclaredSocket) else "",
        headers={wire.PROTOCOL_HEADER: str(wire.PROTOCOL)},
    )
    counts[str(expected or "allowed")] += 1
    wrong = []
    if answer.status != expected if expected else answer.status in {UNKNOWN, FORBIDDEN}:
        wrong.append(f"{name} by {caller.name}: {answer.status}, not {expected or 'allowed'}: {answer.body[:200]!r}")
    if answer.status < 300:
        wrong += [f"{name} shows {word!r} to {caller.name}" for word in caller.hidden if word in answer.body]
    return wrong, answer.status


@pytest.mark.parametrize("role", ROLES)
def test_the_callers_include_each_role(role: str) -> None:
    assert any(caller.role == role and caller.ours for caller in CALLERS)


def test_the_matrix_notices_a_route_that_lets_in_too_many(world: World) -> None:
    """One that lets viewers in, were it declared for administrators, is told of."""
    route = GUARDED["GET /v1/workloads/{ref}"]
    assert isinstance(route, Declared)
    stricter = replace(route, permission=Permission.MANAGE)
    viewer = next(caller for caller in CALLERS if caller.name == "viewer")
    expected = refusal(stricter, EXAMPLES["GET /v1/workloads/{ref}"], viewer)
    told, _ = asyncio.run(_one(world, "GET /v1/workloads/{ref}", viewer, expected, Counter()))
    assert told
