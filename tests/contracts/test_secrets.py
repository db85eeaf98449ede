"""What hands secrets to pods promises, over the real one and the drawer of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mainstay.agent.secrets import RemoteSecrets
from mainstay.domain.allocation import Owner
from mainstay.domain.errors import Gone, Invalid, NotFound, Unavailable
from mainstay.domain.plan import Plan
from mainstay.domain.secret import Handed, SecretUse
from mainstay.operations import secrets as operations
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.operations.secrets import Handing
from mainstay.ports import Secrets
from mainstay.store import SqlStore
from tests.agents import world
from tests.clock import ManualClock
from tests.databases import empty_sqlite
from tests.drawer import Drawer
from tests.stores import ALL, TENANT, Scene

ALICE = Principal(name="alice", tenant=TENANT, role="maintainer")
OWNER = Owner(tenant=TENANT, project="default")
USES = (SecretUse(name="hf-token", env="HF_TOKEN"), SecretUse(name="key.pem"))


@dataclass
class Case:
    """One that hands out, and what happens around it."""

    secrets: Secrets
    set: Callable[[str, bytes], object]
    remove: Callable[[str], object]
    pod: Callable[[], str]
    """A pod that asks for `USES`."""
    end: Callable[[str], object]


@pytest.fixture(params=["handing", "drawer", "behind an agent"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    if request.param == "drawer":
        drawer = Drawer()
        yield drawer_case(drawer)
        return
    if request.param == "behind an agent":
        with world(tmp_path) as made:
            await made.agent.greet()
            services, scene = made.plane.services, made.plane.scene
            scene.fleet(cluster="edge", cpus=64)
            yield replace(
                handing_case(scene, services.sealing, services.offload), secrets=RemoteSecrets(made.agent.connection)
            )
            await made.close()
        return
    store, sealing, offload = empty_sqlite(tmp_path / "db"), Sealing(key=b"k" * KEY_BYTES), Offload(threads=1)
    scene = Scene(store)
    scene.fleet(cpus=64)
    yield handing_case(scene, sealing, offload)
    offload.close()
    store.close()


def drawer_case(drawer: Drawer) -> Case:
    def pod() -> str:
        drawer.pods["p-1-0"] = OWNER, USES
        return "p-1-0"

    return Case(
        secrets=drawer,
        set=drawer.values.__setitem__,
        remove=drawer.values.pop,
        pod=pod,
        end=drawer.ended.add,
    )


def handing_case(scene: Scene, sealing: Sealing, offload: Offload) -> Case:
    store = scene.store

    def end(pod: str) -> None:
        scene.end(store.pod(pod).allocation)

    return Case(
        secrets=Handing(store, sealing, ManualClock(), offload),
        set=lambda name, value: operations.put(store, sealing, ALICE, name, value, now=scene.now),
        remove=lambda name: operations.remove(store, ALICE, name, now=scene.now, request=None),
        pod=lambda: scene.place(scene.submit(secrets=USES)).pod,
        end=end,
    )


async def test_a_pod_gets_the_values_of_now_as_it_asked_for_them(case: Case) -> None:
    case.set("hf-token", b"old")
    case.set("key.pem", b"\x00pem")
    pod = case.pod()
    case.set("hf-token", b"new")
    first = await case.secrets.of(pod, owner=OWNER)
    assert first == (Handed(use=USES[0], value=b"new"), Handed(use=USES[1], value=b"\x00pem"))
    assert "new" not in repr(first)
    case.set("hf-token", b"rotated")
    again = await case.secrets.of(pod, owner=OWNER)
    assert again[0].value == b"rotated"


async def test_a_pod_whose_secret_is_gone_is_refused_by_its_name(case: Case) -> None:
    case.set("hf-token", b"v")
    case.set("key.pem", b"v")
    pod = case.pod()
    case.remove("key.pem")
    with pytest.raises(Invalid, match=r"there is no secret key\.pem any more"):
        await case.secrets.of(pod, owner=OWNER)


async def test_a_pod_of_another_owner_or_of_nobody_is_not_found(case: Case) -> None:
    case.set("hf-token", b"v")
    case.set("key.pem", b"v")
    pod = case.pod()
    for other in (Owner(tenant="chemistry", project="default"), Owner(tenant=TENANT, project="other")):
        with pytest.raises(NotFound):
            await case.secrets.of(pod, owner=other)
    with pytest.raises(NotFound):
        await case.secrets.of("nobody-1-0", owner=OWNER)


async def test_a_pod_that_has_ended_gets_nothing(case: Case) -> None:
    case.set("hf-token", b"v")
    case.set("key.pem", b"v")
    pod = case.pod()
    case.end(pod)
    with pytest.raises(Gone):
        await case.secrets.of(pod, owner=OWNER)


async def test_every_handing_is_on_record_before_it_happens(tmp_path: Path) -> None:
    store, sealing, offload = empty_sqlite(tmp_path / "db"), Sealing(key=b"k" * KEY_BYTES), Offload(threads=1)
    scene = Scene(store)
    scene.fleet()
    case = handing_case(scene, sealing, offload)
    case.set("hf-token", b"canary")
    case.set("key.pem", b"canary")
    pod = case.pod()
    for _ in range(2):
        await case.secrets.of(pod, owner=OWNER)
    rows = [row for row in store.audit(after=0, limit=ALL) if row.action == "hand_secrets"]
    assert [(row.actor, row.object, row.tenant) for row in rows] == [("cluster/local", pod, TENANT)] * 2
    assert rows[0].detail == "secrets handed to it: hf-token, key.pem"
    assert "canary" not in repr(rows)
    offload.close()
    store.close()


async def test_a_replica_without_the_key_says_which_one_it_lacks(tmp_path: Path) -> None:
    store, offload = empty_sqlite(tmp_path / "db"), Offload(threads=1)
    scene = Scene(store)
    scene.fleet()
    ours, theirs = Sealing(key=b"k" * KEY_BYTES), Sealing(key=b"o" * KEY_BYTES)
    case = handing_case(scene, ours, offload)
    case.set("hf-token", b"v")
    case.set("key.pem", b"v")
    other = Handing(store, theirs, ManualClock(), offload)
    with pytest.raises(Invalid, match=f"sealed with the key {ours.key_id}, this replica has {theirs.key_id}"):
        await other.of(case.pod(), owner=OWNER)
    assert not [row for row in store.audit(after=0, limit=ALL) if row.action == "hand_secrets"]
    offload.close()
    store.close()


async def test_a_pod_may_print_all_that_it_was_handed_also_what_was_changed_since(case: Case) -> None:
    case.set("hf-token", b"old")
    case.set("key.pem", b"pem")
    pod = case.pod()
    assert await case.secrets.handed(pod, owner=OWNER) == ()
    await case.secrets.of(pod, owner=OWNER)
    case.set("hf-token", b"new")
    assert await case.secrets.handed(pod, owner=OWNER) == (b"old", b"pem")
    await case.secrets.of(pod, owner=OWNER)
    case.remove("hf-token")
    case.end(pod)
    assert sorted(await case.secrets.handed(pod, owner=OWNER)) == [b"new", b"old", b"pem"]
    with pytest.raises(NotFound):
        await case.secrets.handed(pod, owner=Owner(tenant="chemistry", project="default"))
    with pytest.raises(NotFound):
        await case.secrets.handed("nobody-1-0", owner=OWNER)


class Meanwhile:
    """A store in which somebody sets a secret between each read of it and the commit that hands it out."""

    def __init__(self, store: SqlStore, times: int, act: Callable[[], object]) -> None:
        self._store, self._left, self._act = store, times, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, plan: Plan) -> Any:
        if self._left:
            self._left -= 1
            self._act()
        return self._store.commit(plan)


@pytest.mark.parametrize("times", [1, 100])
async def test_a_value_that_is_changed_while_it_is_handed_out_is_read_again(tmp_path: Path, times: int) -> None:
    store, sealing, offload = empty_sqlite(tmp_path / "db"), Sealing(key=b"k" * KEY_BYTES), Offload(threads=1)
    scene = Scene(store)
    scene.fleet(cpus=64)
    case = handing_case(scene, sealing, offload)
    case.set("hf-token", b"old")
    case.set("key.pem", b"pem")
    pod = case.pod()
    between: Any = Meanwhile(store, times, lambda: case.set("hf-token", b"new"))
    handing = Handing(between, sealing, ManualClock(), offload)
    if times == 1:
        assert [one.value for one in await handing.of(pod, owner=OWNER)] == [b"new", b"pem"]
    else:
        with pytest.raises(Unavailable, match="are being changed all the time"):
            await handing.of(pod, owner=OWNER)
    assert await handing.handed(pod, owner=OWNER) == ((b"new", b"pem") if times == 1 else ())
    offload.close()
    store.close()
