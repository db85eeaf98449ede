"""What every store promises about how many open workloads a tenant may have, over both databases."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from mainstay.domain.errors import TooMany
from mainstay.domain.plan import Plan, Submit
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase
from mainstay.store import tables
from tests.stores import USER, WHY, Scene, scene, store

__all__ = ["scene", "store"]


def submit(scene: Scene, count: int = 1, *, most: int, tenant: str = "physics") -> None:
    actions = tuple(Submit(workload=scene.new(tenant=tenant), reason=WHY, open_max=most) for _ in range(count))
    scene.applied(*actions, atomic=True)


def counted(scene: Scene, tenant: str = "physics") -> tuple[int, int]:
    """How many are open, as it is kept and as they are."""
    work = tables.workloads
    open_ = sa.select(sa.func.count()).where(work.c.tenant == tenant, work.c.phase < int(Phase.SUCCEEDED))
    found = scene.store._database.read(lambda connection: connection.scalar(open_))
    return scene.store.open_workloads(tenant), found or 0


def test_one_more_than_there_may_be_is_refused_with_the_figures_and_nothing_of_its_plan_is_kept(scene: Scene) -> None:
    submit(scene, 2, most=4)
    with pytest.raises(TooMany) as refused:
        submit(scene, 3, most=4)
    assert refused.value.message == (
        "tenant physics has 4 workloads that are not over, and there may be 4: no more are taken"
    )
    assert refused.value.numbers == {"open": 4, "most": 4}
    assert "mainstay stop" in refused.value.hint
    assert counted(scene) == (2, 2)


def test_each_tenant_has_its_own_and_without_a_limit_there_is_none(scene: Scene) -> None:
    submit(scene, 2, most=2)
    submit(scene, 2, most=2, tenant="chemistry")
    submit(scene, 1, most=0)
    assert (counted(scene), counted(scene, "chemistry")) == ((3, 3), (2, 2))


def test_whatever_ends_makes_room(scene: Scene) -> None:
    scene.fleet()
    one, other = scene.submit(), scene.submit()
    scene.end(scene.run(one))
    scene.applied(scene.advance(scene.workload(one.id), Phase.SUCCEEDED))
    assert counted(scene) == (1, 1)
    scene.applied(scene.advance(other, Phase.STOPPED))
    assert counted(scene) == (0, 0)
    submit(scene, 1, most=1)
    assert counted(scene) == (1, 1)


def test_of_those_who_submit_at_once_no_more_get_in_than_there_is_room_for(scene: Scene) -> None:
    plans = [
        Plan(
            actor=USER,
            now=scene.now,
            actions=(Submit(workload=scene.new(), reason=Reason(code=Code.SUBMITTED), open_max=5),),
            atomic=True,
        )
        for _ in range(12)
    ]
    refused: list[TooMany] = []

    def commit(plan: Plan) -> None:
        try:
            scene.store.commit(plan)
        except TooMany as error:
            refused.append(error)

    threads = [threading.Thread(target=commit, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counted(scene), len(refused)) == ((5, 5), 7)
