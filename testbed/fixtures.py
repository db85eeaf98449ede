"""Fixtures of pytest: one cluster for each test process, and what tests put into it. A `conftest.py` imports them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from testbed import hollow, node, programs
from testbed.control_plane import ControlPlane, running
from testbed.hollow import HollowNode
from testbed.node import Node
from testbed.proxy import Proxy, proxied

WAIT_SECONDS_MAX = 60.0
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A cluster that all tests of this process share; each takes a `namespace` of its own. Its nodes are hollow."""
    yield from _started()


@pytest.fixture(scope="session")
def real_control_plane() -> Iterator[ControlPlane]:
    """Another one, for the real node: pods of a test must not land on nodes of another kind than it means.

    A module whose tests want a `namespace` beside the real node gives this as its `control_plane`.
    """
    yield from _started()


@pytest.fixture(scope="module")
def breakable_control_plane() -> Iterator[ControlPlane]:
    """A cluster for tests that kill it or set it back."""
    yield from _started()


@pytest.fixture(scope="module")
def plane(breakable_control_plane: ControlPlane) -> ControlPlane:
    """The same, for tests that need no other nodes but their own: whoever leads a cluster uses all that are there."""
    return breakable_control_plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a fresh one in which pods can be made. The cluster removes it afterwards, and nobody waits."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": name}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    until(lambda: control_plane.ask(accounts)["items"])
    yield name
    control_plane.ask(f"/api/v1/namespaces/{name}", method="DELETE")


@pytest.fixture(scope="session")
def hollow_nodes(control_plane: ControlPlane) -> Iterator[tuple[str, ...]]:
    """The names of three nodes with processors only and one with eight GPUs, the last; pods seem to run there."""
    wanted = [*(HollowNode(name=f"hollow-{number}") for number in range(3)), HollowNode(name="hollow-gpu", gpus=8)]
    with hollow.simulated(control_plane) as simulator:
        names = tuple(hollow.add(control_plane, wanted))
        simulator.wait_until(lambda: hollow.are_ready(control_plane, names), seconds=hollow.START_SECONDS_MAX)
        yield names


@pytest.fixture(scope="session")
def real_node(real_control_plane: ControlPlane) -> Iterator[Node]:
    """A node whose pods are containers. Tests of it carry `pytest.mark.xdist_group("kubernetes")`: one is enough."""
    if reason := node.why_not():
        unavailable(reason)
    with node.running(real_control_plane) as started:
        yield started


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    """In front of the shared cluster. Faults hit only those who use its `url` or its `kubeconfig`."""
    with proxied(control_plane) as started:
        yield started


def unavailable(reason: str) -> NoReturn:
    """Skip the test, with the reason; in CI it fails, since there it has to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI this test has to run, but {reason}")
    pytest.skip(reason)


def until(true: Callable[[], Any], *, seconds: float = WAIT_SECONDS_MAX) -> Any:
    """What it answers once that is true. Fails after this time."""
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        if time.monotonic() >= deadline:
            pytest.fail(f"not true within {seconds:.0f} s")
        time.sleep(0.05)
    return answer


def _started() -> Iterator[ControlPlane]:
    if programs.missing():
        unavailable("the programs of the test bed are not built; hint: make testbed-programs")
    with running() as started:
        yield started
