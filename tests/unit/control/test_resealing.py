"""The loop that seals anew under another key, among faults: crashes, keys that are gone, values that are set meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mainstay.control.resealing import PERIOD_SECONDS, ROWS, Resealing
from mainstay.domain.allocation import Allocation
from mainstay.domain.errors import Fenced, Unavailable
from mainstay.domain.fleet import ClusterKind, ClusterSettings, Credentials, NewCluster
from mainstay.domain.plan import AddCluster, HandSecrets, Plan, RemoveSecret, SetSecret
from mainstay.domain.workload import Phase
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.store import SqlStore
from tests.clock import ManualClock
from tests.databases import empty_sqlite
from tests.stores import ALL, TENANT, WHY, Scene

OLD, NEW = Sealing(key=b"o" * KEY_BYTES), Sealing(key=b"n" * KEY_BYTES, older=(b"o" * KEY_BYTES,))
ONLY_NEW = Sealing(key=b"n" * KEY_BYTES)
LOST = Sealing(key=b"l" * KEY_BYTES)
KUBECONFIG = Credentials(kubeconfig="users: []")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield store
    store.close()


def put(store: SqlStore, *names: str, sealing: Sealing = OLD, value: bytes = b"value") -> None:
    for name in names:
        sealed = sealing.sealed_secret(TENANT, name, value)
        action = SetSecret(tenant=TENANT, name=name, sealed=sealed, reason=WHY)
        store.commit(Plan(actor="ada", now=7, actions=(action,)))


def add_cluster(store: SqlStore) -> None:
    new = NewCluster(
        name="east", kind=ClusterKind.SIMULATED, settings=ClusterSettings(), sealed=OLD.sealed("east", KUBECONFIG)
    )
    store.commit(Plan(actor="ada", now=7, actions=(AddCluster(cluster=new, reason=WHY),)))


def loop(store: Any, sealing: Sealing = NEW, *, holder: str = "a", clock: ManualClock | None = None) -> Resealing:
    async def here(function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    services: Any = SimpleNamespace(store=store, clock=clock or ManualClock(), offload=here, sealing=sealing)
    return Resealing(services, holder=holder)


async def to_the_end(resealing: Resealing) -> int:
    turns = 1
    while not (await resealing.turn()).wait:
        turns += 1
    return turns


def value_of(store: SqlStore, name: str, sealing: Sealing = ONLY_NEW) -> bytes:
    return sealing.opened_secret(TENANT, name, store.sealed_secrets([name], tenant=TENANT)[name].text)


async def test_what_an_older_key_has_sealed_is_sealed_anew_in_bounded_steps_and_the_key_may_go(store: SqlStore) -> None:
    names = [f"s-{number:03}" for number in range(2 * ROWS + 5)]
    put(store, *names)
    add_cluster(store)
    assert store.sealed_by_key() == {OLD.key_id: len(names) + 1}
    with capture_logs() as logs:
        assert await to_the_end(loop(store)) == 3
    assert store.sealed_by_key() == {NEW.key_id: len(names) + 1}
    assert {value_of(store, name) for name in names} == {b"value"}
    assert ONLY_NEW.opened("east", store.cluster("east").sealed) == KUBECONFIG
    assert [(entry["event"], entry["key"]) for entry in logs] == [("key_unused", OLD.key_id)]
    secret = store.secrets(tenant=TENANT)[0]
    assert (secret.set_by, secret.set_at) == ("ada", 7)


async def test_each_use_of_a_key_is_in_the_audit(store: SqlStore) -> None:
    put(store, "a")
    await to_the_end(loop(store))
    row = store.audit(after=0, limit=ALL)[-1]
    assert (row.action, row.actor, row.tenant, row.object) == ("reseal", "reseal", TENANT, "a")


async def test_without_an_older_key_nothing_is_done(store: SqlStore) -> None:
    put(store, "a")
    version = store.version()
    await loop(store, OLD).turn()
    await loop(store, ONLY_NEW).turn()
    assert store.version() == version


class Crashing:
    """A store that fails before or after it has committed."""

    def __init__(self, store: SqlStore, *, after: bool) -> None:
        self._store, self._after = store, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, plan: Plan) -> Any:
        if self._after:
            self._store.commit(plan)
        msg = "crashed"
        raise Unavailable(msg)


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_before_or_after_a_commit_loses_nothing(store: SqlStore, *, after: bool) -> None:
    put(store, "a", "b")
    with pytest.raises(Unavailable):
        await loop(Crashing(store, after=after)).turn()
    assert {value_of(store, name, NEW) for name in ("a", "b")} == {b"value"}
    await to_the_end(loop(store))
    assert store.sealed_by_key() == {NEW.key_id: 2}
    assert {value_of(store, name) for name in ("a", "b")} == {b"value"}


class Meanwhile(Crashing):
    """Somebody sets a secret and removes another between the look and the commit."""

    def commit(self, plan: Plan) -> Any:
        put(self._store, "a", value=b"newer")
        self._store.commit(Plan(actor="ada", now=8, actions=(remove("b"),)))
        return self._store.commit(plan)


def remove(name: str) -> RemoveSecret:
    return RemoveSecret(tenant=TENANT, name=name, reason=WHY)


async def test_what_is_set_or_removed_meanwhile_stays_so(store: SqlStore) -> None:
    put(store, "a", "b", "c")
    await loop(Meanwhile(store, after=False)).turn()
    assert value_of(store, "a", OLD) == b"newer"
    assert [secret.name for secret in store.secrets(tenant=TENANT)] == ["a", "c"]
    assert value_of(store, "c") == b"value"
    await to_the_end(loop(store))
    assert value_of(store, "a") == b"newer"


async def test_what_no_key_opens_is_left_and_holds_up_nothing(store: SqlStore) -> None:
    put(store, *(f"lost-{number:03}" for number in range(2 * ROWS)), sealing=LOST)
    put(store, "z")
    with capture_logs() as logs:
        await to_the_end(loop(store))
    assert value_of(store, "z") == b"value"
    assert store.sealed_by_key()[LOST.key_id] == 2 * ROWS
    assert [entry["event"] for entry in logs].count("not_resealed") == 2 * ROWS


def handed_and_changed(store: SqlStore) -> tuple[Scene, Allocation]:
    """A pod was handed what is not the value any more."""
    scene = Scene(store)
    scene.fleet()
    pod = scene.run(scene.submit())
    put(store, "a", value=b"earlier")
    versions = tuple(one.place for one in store.sealed_secrets(["a"], tenant=TENANT).values())
    scene.applied(HandSecrets(allocation_key=pod.key, versions=versions, reason=WHY))
    put(store, "a", value=b"now")
    return scene, pod


class Closing(Crashing):
    """The pod is closed between the look and the commit."""

    def commit(self, plan: Plan) -> Any:
        close(Scene(self._store), self._store.wanted("local")[0].allocation)
        return self._store.commit(plan)


def close(scene: Scene, pod: Allocation) -> None:
    scene.end(pod, ended_at=pod.started_at)
    scene.applied(scene.advance(scene.workload(pod.workload), Phase.SUCCEEDED))
    scene.applied(scene.close(pod))


async def test_a_value_that_only_pods_have_still_is_sealed_anew_too(store: SqlStore) -> None:
    _, pod = handed_and_changed(store)
    with pytest.raises(Unavailable):
        await loop(Crashing(store, after=True)).turn()
    await to_the_end(loop(store))
    assert store.sealed_by_key() == {NEW.key_id: 2}
    assert value_of(store, "a") == b"now"
    (earlier,) = store.handed_secrets(pod.key)
    assert ONLY_NEW.opened_secret(TENANT, "a", earlier.text) == b"earlier"


async def test_one_that_goes_with_its_pod_meanwhile_does_not_come_back(store: SqlStore) -> None:
    _, pod = handed_and_changed(store)
    await loop(Closing(store, after=False)).turn()
    assert store.handed_secrets(pod.key) == ()
    assert store.sealed_by_key() == {NEW.key_id: 1}


async def test_a_leader_that_wakes_up_late_changes_nothing(store: SqlStore) -> None:
    put(store, "a")
    clock = ManualClock()
    late = loop(store, clock=clock)
    late._tenure.epoch()
    assert store.acquire("reseal", holder="b", now=clock.now() + 10**10, seconds=1)
    with pytest.raises(Fenced):
        await late.turn()
    assert store.sealed_by_key() == {OLD.key_id: 1}
    assert (await loop(store, holder="c", clock=clock).turn()).wait == PERIOD_SECONDS


def test_a_ring_opens_with_each_of_its_keys_and_seals_with_the_first() -> None:
    assert NEW.opened_secret(TENANT, "a", OLD.sealed_secret(TENANT, "a", b"x")) == b"x"
    assert ONLY_NEW.opened_secret(TENANT, "a", NEW.sealed_secret(TENANT, "a", b"x")) == b"x"
    assert len(NEW.signing_keys()) == 2
