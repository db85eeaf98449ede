"""A repeated request gets its first reply, also when the world has moved on since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mainstay.domain.errors import KeyReused, NotFound
from mainstay.domain.workload import Phase
from mainstay.operations.deploy import remove
from mainstay.operations.principal import Done, Principal, RequestKey
from mainstay.operations.stop import stop
from tests.databases import empty_sqlite
from tests.stores import TENANT, USER, Scene

ADA = Principal(name=USER, tenant=TENANT, role="maintainer")
KEY = RequestKey(route="DELETE /v1/things", key="k", body_hash="h")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    store = empty_sqlite(tmp_path / "mainstay.db")
    yield Scene(store)
    store.close()


def stopping(scene: Scene, reference: str, request: RequestKey | None = KEY) -> Done:
    word: Callable[..., str] = lambda workload: workload.phase.word  # noqa: E731 - as short as what it stands for
    return stop(scene.store, ADA, reference, now=scene.now, request=request, reply=word)


def removing(scene: Scene, request: RequestKey | None = KEY) -> Done:
    return remove(scene.store, ADA, "digits", now=scene.now, request=request)


def test_a_stop_is_answered_as_the_first_time_also_once_the_job_is_final(scene: Scene) -> None:
    work = scene.submit()
    assert stopping(scene, work.id) == Done(reply="pending", replayed=False)
    scene.applied(scene.advance(work, Phase.STOPPED))
    assert stopping(scene, work.id) == Done(reply="pending", replayed=True)
    assert stopping(scene, work.id, None) == Done(reply="stopped", replayed=False)


def test_a_key_of_another_stop_is_refused_also_once_the_job_is_final(scene: Scene) -> None:
    work = scene.submit()
    stopping(scene, work.id)
    scene.applied(scene.advance(work, Phase.STOPPED))
    with pytest.raises(KeyReused):
        stopping(scene, work.id, RequestKey(route=KEY.route, key=KEY.key, body_hash="other"))


def test_a_stop_of_a_name_is_not_repeated_on_the_next_run_of_that_name(scene: Scene) -> None:
    first = scene.submit()
    stopping(scene, "train")
    second = scene.submit()
    assert stopping(scene, "train").replayed
    assert (scene.workload(first.id).stop_requested, scene.workload(second.id).stop_requested) == (True, False)


def test_a_removal_is_repeated_harmlessly_and_spares_what_took_the_name_since(scene: Scene) -> None:
    scene.deploy()
    assert not removing(scene).replayed
    assert removing(scene).replayed
    with pytest.raises(NotFound):
        removing(scene, None)
    work = scene.deploy(version=2)
    assert removing(scene).replayed
    assert scene.store.endpoint("digits", tenant=TENANT).candidate == work.id
