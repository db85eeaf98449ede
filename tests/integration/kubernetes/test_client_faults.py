"""A real API server that is killed, paused, compacted and set back under a view: the view ends as the truth (F8, F10)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mainstay.clusters.kubernetes import errors
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.informer import Informer
from mainstay.clusters.kubernetes.kinds import CONFIG_MAPS, NAMESPACES
from mainstay.clusters.kubernetes.sources import Fixed
from testbed.control_plane import ControlPlane
from testbed.etcd import Etcd
from testbed.faults import Answer, Drop, Duplicate, Expire, Fault, Reorder, Rule, Stall
from testbed.proxy import proxied
from tests.integration.kubernetes.client import SystemClock, connection, credentials

pytestmark = pytest.mark.xdist_group("api-server")

View = Informer[Any, dict[str, str]]
_numbers = itertools.count(1)


@asynccontextmanager
async def viewed(api: Connection, namespace: str, **options: Any) -> AsyncIterator[View]:
    view: View = Informer(
        api, CONFIG_MAPS, clock=SystemClock(), namespace=namespace, project=lambda item: item.data, **options
    )
    task = asyncio.create_task(view.run())
    try:
        async with asyncio.timeout(60):
            await view.synced.wait()
        yield view
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool], *, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def values(view: View) -> dict[str, str]:
    return {name: data.get("v", "") for (_, name), data in view.objects.items() if name != "kube-root-ca.crt"}


async def set_value(api: Connection, namespace: str, name: str, value: str) -> str:
    """The version of the change."""
    try:
        made = await api.create(CONFIG_MAPS, namespace, {"metadata": {"name": name}, "data": {"v": value}})
    except errors.AlreadyExists:
        made = await api.patch(CONFIG_MAPS, namespace, name, {"data": {"v": value}})
    return made.metadata.resource_version


@pytest.fixture
async def api(breakable_control_plane: ControlPlane) -> AsyncIterator[Connection]:
    opened = connection(breakable_control_plane)
    yield opened
    await opened.close()


@pytest.fixture
async def namespace(api: Connection) -> str:
    name = f"faults-{next(_numbers)}"
    await api.create(NAMESPACES, "", {"metadata": {"name": name}})
    return name


async def test_a_view_survives_a_killed_api_server(
    breakable_control_plane: ControlPlane, api: Connection, namespace: str
):
    await set_value(api, namespace, "a", "1")
    async with viewed(api, namespace) as view:
        breakable_control_plane.api_server.kill()
        with pytest.raises(errors.Unreachable, match="refused"):
            await api.create(CONFIG_MAPS, namespace, {"metadata": {"name": "never"}})
        await until(lambda: view.last_error is not None)
        assert values(view) == {"a": "1"}
        await asyncio.to_thread(breakable_control_plane.start_api_server)
        await set_value(api, namespace, "b", "2")
        await until(lambda: values(view) == {"a": "1", "b": "2"})
        assert view.last_error is None


async def test_a_version_from_before_a_restart_has_expired(
    breakable_control_plane: ControlPlane, api: Connection, namespace: str
):
    old = await set_value(api, namespace, "a", "1")
    for value in range(5):
        await set_value(api, namespace, "a", str(value))
    await asyncio.to_thread(breakable_control_plane.api_server.kill)
    await asyncio.to_thread(breakable_control_plane.start_api_server)
    with pytest.raises(errors.Expired):
        await anext(api.watch(CONFIG_MAPS, old, namespace=namespace))


async def test_a_page_from_before_a_compaction_has_expired(
    breakable_control_plane: ControlPlane, api: Connection, namespace: str
):
    for number in range(4):
        await set_value(api, namespace, f"c{number}", "1")
    pages = api.list_pages(CONFIG_MAPS, namespace=namespace, limit=2)
    first = await anext(pages)
    await set_value(api, namespace, "c0", "2")
    await asyncio.to_thread(breakable_control_plane.api_server.kill)
    with Etcd(breakable_control_plane.etcd_url) as etcd:
        etcd.compact()
    await asyncio.to_thread(breakable_control_plane.start_api_server)
    with pytest.raises(errors.Expired):
        await anext(pages)
    assert len(first.items) == 2


async def test_a_cluster_that_is_set_back_is_seen_as_it_is(
    breakable_control_plane: ControlPlane, api: Connection, namespace: str
):
    await set_value(api, namespace, "kept", "old")
    saved = await asyncio.to_thread(breakable_control_plane.saved)
    async with viewed(api, namespace) as view:
        await set_value(api, namespace, "kept", "new")
        await set_value(api, namespace, "lost", "1")
        await until(lambda: values(view) == {"kept": "new", "lost": "1"})
        await asyncio.to_thread(breakable_control_plane.restore, saved)
        await until(lambda: values(view) == {"kept": "old"})
        await set_value(api, namespace, "kept", "newer")
        await until(lambda: values(view) == {"kept": "newer"})
        assert view.counters.lists >= 2


async def test_a_paused_api_server_is_noticed(breakable_control_plane: ControlPlane, api: Connection, namespace: str):
    made = await set_value(api, namespace, "a", "1")
    os.kill(breakable_control_plane.api_server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(errors.Silent):
            await anext(api.watch(CONFIG_MAPS, made, namespace=namespace, stall_seconds=0.5))
    finally:
        os.kill(breakable_control_plane.api_server.pid, signal.SIGCONT)


ANY_WATCH = (
    Drop(kinds=frozenset({"DELETED"})),
    Drop(kinds=frozenset({"BOOKMARK"})),
    Stall(),
    Expire(),
    Reorder(),
    Duplicate(),
)


@pytest.mark.parametrize("fault", ANY_WATCH, ids=repr)
async def test_whatever_a_watch_does_a_view_is_true_after_one_period_of_lists(
    breakable_control_plane: ControlPlane, api: Connection, namespace: str, fault: Fault
):
    """F10."""
    period = 1.5
    with proxied(breakable_control_plane) as proxy:
        through = Connection(Fixed(credentials(breakable_control_plane, server=proxy.url)), clock=SystemClock())
        for name in ("kept", "gone"):
            await set_value(api, namespace, name, "1")
        proxy.fail(Rule(fault=fault))
        async with viewed(through, namespace, relist_seconds=period) as view:
            await set_value(api, namespace, "kept", "2")
            await set_value(api, namespace, "new", "1")
            await api.delete(CONFIG_MAPS, namespace, "gone")
            await until(lambda: values(view) == {"kept": "2", "new": "1"}, seconds=1.1 * period + 1.0)
        await through.close()


async def test_a_list_that_expires_between_two_pages_is_begun_anew_and_nothing_of_the_half_is_believed(
    breakable_control_plane: ControlPlane, api: Connection, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    """F10: 410 on continue."""
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        await set_value(api, namespace, name, "1")
    with proxied(breakable_control_plane) as proxy:
        through = Connection(Fixed(credentials(breakable_control_plane, server=proxy.url)), clock=SystemClock())
        monkeypatch.setattr(through, "list_pages", functools.partial(through.list_pages, limit=2))
        expired = proxy.fail(Rule(fault=Answer(status=410), path=r"[?&]continue=", times=2))
        async with viewed(through, namespace) as view:
            assert values(view) == dict.fromkeys(names, "1")
            assert (view.counters.lists, view.counters.failures, expired.happened) == (1, 2, 2)
        await through.close()
