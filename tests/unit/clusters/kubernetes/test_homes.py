"""The namespace of a project is complete before a pod is in it, and what an older platform left open is closed."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.clusters.kubernetes import names, surroundings
from mainstay.clusters.kubernetes.errors import Forbidden, ServerFailed
from mainstay.clusters.kubernetes.homes import Homes
from mainstay.clusters.kubernetes.kinds import NETWORK_POLICIES
from mainstay.clusters.kubernetes.pace import Pace
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.api_server import Server
from tests.unit.clusters.kubernetes.objects import OWNER, SETTINGS, SYSTEM

HOME = names.namespace(OWNER, system=SYSTEM)
COMPLETE = {"namespaces", "serviceaccounts", "networkpolicies", "resourcequotas"}


@pytest.fixture
def server() -> Server:
    return Server(ManualClock())


def homes(server: Server) -> Homes:
    """Of a process that has just started."""
    return Homes(server, Pace(clock=server.clock), SETTINGS)


def there(server: Server) -> set[str]:
    return {plural for plural, _, _ in server.objects}


def policy(server: Server) -> dict[str, Any]:
    return server.objects["networkpolicies", HOME, surroundings.NAME]["spec"]


async def test_a_namespace_is_made_whole_and_asked_for_no_more(server):
    found = homes(server)
    await found.ensure(HOME, OWNER)
    assert there(server) == COMPLETE
    assert policy(server) == surroundings.default_deny(OWNER, SETTINGS)["spec"]
    asked = len(server.asked)
    await found.ensure(HOME, OWNER)
    assert len(server.asked) == asked


@pytest.mark.parametrize("kind", sorted(COMPLETE))
async def test_what_was_cut_short_is_completed_by_the_next_try(server, kind):
    found = homes(server)
    server.failing["create", kind] = ServerFailed("down")
    with pytest.raises(ServerFailed):
        await found.ensure(HOME, OWNER)
    server.failing.clear()
    await found.ensure(HOME, OWNER)
    assert there(server) == COMPLETE


@pytest.mark.parametrize("kind", sorted(COMPLETE))
async def test_an_answer_that_is_lost_makes_nothing_twice(server, kind):
    server.deaf["create", kind] = 1
    for found in (homes(server), homes(server)):
        try:
            await found.ensure(HOME, OWNER)
        except Exception:  # noqa: BLE001 - whichever it is: the outcome is unknown
            await found.ensure(HOME, OWNER)
    assert there(server) == COMPLETE
    assert len(server.objects) == len(COMPLETE)


async def test_what_an_older_platform_left_open_is_closed_by_the_first_pod_of_a_newer_one(server):
    await homes(server).ensure(HOME, OWNER)
    open_ = {"spec": {"egress": [{}], "ingress": [{}]}}
    await server.patch(NETWORK_POLICIES, HOME, surroundings.NAME, open_)
    assert policy(server)["egress"] == [{}]
    await homes(server).ensure(HOME, OWNER)
    assert policy(server) == surroundings.default_deny(OWNER, SETTINGS)["spec"]


async def test_a_role_that_is_older_than_the_platform_stops_no_pod(server):
    for verb, kind in (("create", "resourcequotas"), ("patch", "networkpolicies"), ("patch", "resourcequotas")):
        server.failing[verb, kind] = Forbidden("not granted")
    for _ in range(2):
        await homes(server).ensure(HOME, OWNER)
    assert there(server) == COMPLETE - {"resourcequotas"}


async def test_without_the_policy_that_keeps_projects_apart_there_is_no_home(server):
    server.failing["create", "networkpolicies"] = Forbidden("not granted")
    found = homes(server)
    for _ in range(2):
        with pytest.raises(Forbidden):
            await found.ensure(HOME, OWNER)
