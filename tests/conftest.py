"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator

import pytest
from _pytest.nodeid import NodeId
from hypothesis import HealthCheck, settings

from mainstay.store import open_postgresql
from testbed import images
from testbed.control_plane import ControlPlane
from testbed.fixtures import (
    breakable_control_plane,
    control_plane,
    hollow_nodes,
    namespace,
    plane,
    proxy,
    real_control_plane,
    real_node,
)
from testbed.node import Node
from tests import postgres
from tests.clusters import RealCluster
from tests.figures import figure, pytest_terminal_summary

# In CI the same examples are tried each time; a failing one is printed with the line that replays it.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

__all__ = [
    "breakable_control_plane",
    "control_plane",
    "figure",
    "hollow_nodes",
    "namespace",
    "plane",
    "proxy",
    "pytest_terminal_summary",
    "real_control_plane",
    "real_node",
]

os.environ.setdefault(
    "GOGC", "400"
)  # an API server lives for minutes here: it may have memory, and save the work of freeing it

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """One server per test process, started when the first test needs it."""
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def real_cluster(real_control_plane: ControlPlane, real_node: Node) -> RealCluster:
    """A real Kubernetes with a real node."""
    real_node.load(images.busybox())
    return RealCluster(control_plane=real_control_plane, node=real_node)


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    """A fresh, empty database as an SQLAlchemy URL."""
    name = f"test_{next(_numbers)}"
    postgres_server.create_database(name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def postgres_with_schema(postgres_server: postgres.Server) -> str:
    """The name of a database that has our schema and nothing else, to be copied: making it takes ten times as long."""
    postgres_server.create_database("with_schema")
    open_postgresql(postgres_server.url("with_schema")).close()
    return "with_schema"


@pytest.fixture
def postgres_schema_url(postgres_server: postgres.Server, postgres_with_schema: str) -> Iterator[str]:
    """A fresh database with our schema."""
    name = f"test_{next(_numbers)}"
    postgres_server.create_database(name, like=postgres_with_schema)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a group in one process: pytest-xdist 3.8 says so to pytest before 9.2 only (its issue 1386)."""
    if getattr(config.option, "loadgroup", False):
        for item in items:
            group = item.get_closest_marker("xdist_group")
            if group and "@" not in item.nodeid:
                item._id = NodeId.parse(f"{item.nodeid}@{group.args[0]}")


def pytest_collection_finish() -> None:
    """What is imported and collected stays: the collector of garbage need not walk half a million objects again and again."""
    gc.collect()
    gc.freeze()
