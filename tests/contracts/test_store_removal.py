"""What every store promises about the end of projects and tenants, over both databases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mainstay.domain.access import MAINTAINER, PLATFORM_ADMIN, ROLES, TENANT_ADMIN, USER, Caps, Permission
from mainstay.domain.allocation import Owner
from mainstay.domain.billing import GroupBy
from mainstay.domain.errors import Gone
from mainstay.domain.fleet import ClusterKind, NewCluster
from mainstay.domain.plan import (
    Action,
    AddCluster,
    AddProject,
    AddWebhook,
    Deploy,
    ObserveVolumes,
    Plan,
    RemoveEndpoint,
    RemoveProject,
    RemoveTenant,
    SetGroupRole,
    SetMember,
    SetOwnRole,
    SetSecret,
    Submit,
)
from mainstay.domain.reason import Code, Reason
from mainstay.domain.volume import VolumeState
from mainstay.domain.webhook import NewWebhook
from mainstay.domain.workload import Kind, Phase
from tests.contracts.test_store_access import admitted, member, refusal, someone, standing, tenant, token
from tests.contracts.test_store_secrets import hand, handed, kept
from tests.contracts.test_store_webhooks import queue
from tests.stores import ALL, TENANT, WHY, Scene, idempotency, scene, store

__all__ = ["scene", "store"]
EVERYTHING = ROLES[PLATFORM_ADMIN]
VISION = Owner(tenant=TENANT, project="vision")
DAY = "2023-11-14"
"""That of NOON."""


def add(project: str = "vision") -> AddProject:
    return AddProject(tenant=TENANT, project=project, reason=WHY)


def end(project: str = "vision", *, of: str = TENANT) -> RemoveProject:
    return RemoveProject(tenant=of, project=project, reason=Reason(code=Code.PROJECT_REMOVED, object=project))


def end_tenant(name: str = TENANT) -> RemoveTenant:
    return RemoveTenant(tenant=name, reason=Reason(code=Code.TENANT_REMOVED, object=name))


def group_role(project: str = "") -> SetGroupRole:
    return SetGroupRole(tenant=TENANT, group="ml", role=USER, project=project, within=EVERYTHING, reason=WHY)


def hook(name: str, project: str = "") -> AddWebhook:
    new = NewWebhook(tenant=TENANT, name=name, project=project, url="https://8.8.8.8/", types=(), sealed="sealed")
    return AddWebhook(webhook=new, reason=WHY)


def secret(name: str = "key") -> SetSecret:
    return SetSecret(tenant=TENANT, name=name, sealed="sealed", reason=WHY)


def volumes(*names: str) -> ObserveVolumes:
    seen = tuple(VolumeState(owner=VISION, name=name) for name in names)
    return ObserveVolumes(cluster="local", volumes=seen, reason=WHY)


def deploy(scene: Scene) -> Deploy:
    service = scene.new(name="digits", kind=Kind.SERVICE, project="vision")
    return Deploy(
        endpoint="digits", tenant=TENANT, project="vision", model="digits", version=1, workload=service, reason=WHY
    )


def submission(scene: Scene, project: str = "vision") -> Submit:
    return Submit(workload=scene.new(project=project), reason=Reason(code=Code.SUBMITTED))


def sentence(scene: Scene, action: Action) -> str:
    (refused,) = scene.commit(action).refused
    return refused.reason.sentence


@pytest.fixture
def here(scene: Scene) -> Scene:
    """Two tenants on record, each with somebody; and a project."""
    scene.applied(tenant("default"), tenant(TENANT), member("root", PLATFORM_ADMIN, tenant="default"), add())
    return scene


def test_a_project_with_something_alive_in_it_stays_and_the_refusal_names_it(here: Scene) -> None:
    works = [here.submit(project="vision", name=f"run-{number}") for number in range(5)]
    here.submit()
    here.applied(deploy(here), volumes("data"))
    (refused,) = here.commit(end()).refused
    shown = ", ".join(
        sorted([*(work.id for work in works), *(w.id for w in here.all() if w.spec.name == "digits")])[:3]
    )
    assert refused.reason.sentence == (
        f"project vision is in use: 6 open runs ({shown} and 3 more), 1 endpoint (digits), 1 volume (data)"
    )
    assert {kind: refused.reason.numbers[kind] for kind in ("open run", "endpoint", "volume")} == {
        "open run": 6,
        "endpoint": 1,
        "volume": 1,
    }
    here.applied(RemoveEndpoint(tenant=TENANT, endpoint="digits", reason=WHY), volumes())
    for work in here.all():
        here.applied(here.advance(work, Phase.STOPPED))
    here.applied(end())
    assert [row.removed_at for row in here.store.projects(tenant=TENANT)] == [here.now]


@pytest.mark.parametrize(
    "come",
    [
        submission,
        deploy,
        lambda _: member("carol", USER, project="vision"),
        lambda _: group_role("vision"),
        lambda _: hook("late", "vision"),
    ],
    ids=["run", "endpoint", "member", "group", "webhook"],
)
def test_what_was_on_its_way_when_its_project_ended_is_refused(here: Scene, come: Callable[[Scene], Action]) -> None:
    action = come(here)
    here.applied(end())
    assert sentence(here, action) == f"project vision was removed on {DAY}, and its name stays taken"
    with pytest.raises(Gone, match="was removed") as error:
        here.commit(action, atomic=True)
    assert "another name" in error.value.hint
    assert here.all() == ()


def test_whoever_commits_first_has_the_project_and_the_other_is_refused(here: Scene) -> None:
    work = submission(here)
    here.applied(work)
    assert refusal(here, end()) is Code.PROJECT_IN_USE
    result = here.commit(end("vision"), submission(here, "default"), submission(here, "nope"))
    assert [one.index for one in result.refused] == [0]


def test_of_a_removal_and_a_submission_at_the_same_moment_one_is_refused(here: Scene) -> None:
    for number in range(8):
        project = f"p{number}"
        here.applied(add(project))
        plans = [
            Plan(actor="ada", now=here.now, actions=(action,)) for action in (end(project), submission(here, project))
        ]
        with ThreadPoolExecutor(2) as pool:
            ending, coming = pool.map(here.store.commit, plans)
        assert (ending.applied, coming.applied) in {(1, 0), (0, 1)}
        runs = [work for work in here.all() if work.project == project]
        assert (len(runs), coming.applied) in {(0, 0), (1, 1)}


def test_one_plan_that_ends_a_project_puts_nothing_into_it_afterwards(here: Scene) -> None:
    result = here.commit(end(), submission(here), submission(here, "default"))
    assert [(one.index, one.reason.code) for one in result.refused] == [(1, Code.PROJECT_GONE)]
    here.applied(here.advance(here.all()[0], Phase.STOPPED))
    result = here.commit(end_tenant(), submission(here, "default"))
    assert [(one.index, one.reason.code) for one in result.refused] == [(1, Code.TENANT_GONE)]


def test_a_removed_name_is_not_given_again(here: Scene) -> None:
    here.applied(end())
    assert refusal(here, add()) is Code.PROJECT_GONE
    assert refusal(here, end()) is Code.PROJECT_GONE
    here.applied(end_tenant())
    assert sentence(here, tenant(TENANT)) == f"tenant {TENANT} was removed on {DAY}, and its name stays taken"
    assert refusal(here, end_tenant()) is Code.TENANT_GONE


def test_what_is_built_in_or_was_never_there_is_not_removed(here: Scene) -> None:
    assert refusal(here, end("default")) is Code.BUILT_IN
    assert refusal(here, end_tenant("default")) is Code.BUILT_IN
    assert refusal(here, end("nope")) is Code.NO_SUCH_PROJECT
    assert refusal(here, end("vision", of="default")) is Code.NO_SUCH_PROJECT
    assert refusal(here, end_tenant("nope")) is Code.NO_SUCH_TENANT


def test_roles_tokens_and_webhooks_of_a_project_end_with_it_and_no_others(here: Scene) -> None:
    def capped(id_: str, *projects: str) -> Action:
        return token(id_, caps=Caps(projects=frozenset(projects)))

    here.applied(
        *(add("speech"), member("carol", MAINTAINER, project="vision"), member("carol", USER, project="speech")),
        *(group_role("vision"), group_role("speech"), hook("all"), hook("eyes", "vision")),
        *(capped("t1", "vision"), capped("t2", "vision", "speech"), token("t3"), secret()),
    )
    here.applied(end())
    (record,) = here.store.members(tenant=TENANT)
    assert dict(record.member.grants) == {"speech": USER}
    assert [role.project for role in here.store.group_roles(tenant=TENANT)] == ["speech"]
    assert [one.name for one in here.store.webhooks(tenant=TENANT, after="", limit=9)] == ["all"]
    assert {one.id: bool(one.revoked_at) for one in here.store.tokens(tenant=TENANT)} == {
        "t1": True,
        "t2": False,
        "t3": False,
    }
    here.applied(end("speech"))
    assert [one.id for one in here.store.tokens(tenant=TENANT) if one.revoked_at] == ["t1", "t2"]
    assert here.store.secrets(tenant=TENANT) != ()


def test_a_tenant_ends_once_nothing_lives_there_and_its_projects_have_ended(here: Scene) -> None:
    work = here.submit(project="vision")
    assert sentence(here, end_tenant()) == (f"tenant {TENANT} is in use: 1 open run ({work.id}), 1 project (vision)")
    here.applied(here.advance(work, Phase.STOPPED))
    here.applied(end(), end_tenant())
    assert [one.name for one in here.store.tenants() if one.removed_at] == [TENANT]


def test_whoever_had_access_to_a_tenant_has_none_in_the_same_transaction(here: Scene) -> None:
    may = frozenset({Permission.READ})
    here.applied(
        replace(member("carol", TENANT_ADMIN), identity=someone()),
        *(token("t1"), group_role(), hook("all"), secret(), end()),
        SetOwnRole(tenant=TENANT, name="night", permissions=may, reason=WHY),
        idempotency=idempotency("k"),
    )
    here.applied(queue(here, 1, name="all"))
    here.applied(end_tenant())
    store = here.store
    assert (store.authority("t1"), standing(here), store.roles_of_groups(["ml"])) == (None, None, ())
    assert (store.members(tenant=TENANT), store.tokens(tenant=TENANT), store.own_roles(tenant=TENANT)) == ((), (), ())
    assert (store.secrets(tenant=TENANT), store.webhooks(tenant=TENANT, after="", limit=9)) == ((), ())
    assert store.replied(idempotency("k")) is None
    assert store.deliveries("all", tenant=TENANT, before=0, limit=9) == ()
    assert [record.member.name for record in store.members(tenant="default")] == ["root"]


@pytest.mark.parametrize(
    "come",
    [
        lambda scene: submission(scene, "default"),
        lambda _: member("carol", TENANT_ADMIN),
        lambda _: admitted("carol", someone()),
        lambda _: group_role(),
        lambda _: add("late"),
        lambda _: secret(),
        lambda _: hook("late"),
        lambda _: SetOwnRole(tenant=TENANT, name="night", permissions=frozenset({Permission.READ}), reason=WHY),
    ],
    ids=["run", "member", "sign-in", "group", "project", "secret", "webhook", "role"],
)
def test_what_was_on_its_way_when_its_tenant_ended_is_refused(here: Scene, come: Callable[[Scene], Action]) -> None:
    action = come(here)
    here.applied(end(), end_tenant())
    assert refusal(here, action) is Code.TENANT_GONE
    assert (here.all(), here.store.members(tenant=TENANT)) == ((), ())


def test_what_one_plan_still_gave_the_tenant_that_it_ends_goes_too(here: Scene) -> None:
    here.applied(end())
    result = here.commit(member("carol", USER), token("t1"), secret(), hook("all"), end_tenant(), token("t2"))
    assert [(one.index, one.reason.code) for one in result.refused] == [(5, Code.NO_SUCH_MEMBER)]
    store = here.store
    assert (store.members(tenant=TENANT), store.tokens(tenant=TENANT), store.secrets(tenant=TENANT)) == ((), (), ())
    assert store.webhooks(tenant=TENANT) == ()


def test_a_token_for_a_member_who_left_with_the_tenant_is_refused(here: Scene) -> None:
    here.applied(member("carol", USER), end(), end_tenant())
    assert refusal(here, token("late")) is Code.NO_SUCH_MEMBER


def test_the_last_who_administers_the_platform_keeps_their_tenant(here: Scene) -> None:
    here.applied(member("boss", PLATFORM_ADMIN), end())
    here.applied(
        SetMember(tenant="default", name="root", role=USER, within=EVERYTHING, reason=WHY),
    )
    assert refusal(here, end_tenant()) is Code.LAST_ADMINISTRATOR


def test_what_was_charged_and_done_stays_on_record(here: Scene) -> None:
    here.fleet()
    work = here.submit()
    pod = here.end(here.run(work))
    here.applied(
        here.usage(pod, start=pod.started_at, end=pod.ended_at - 1, cost=7), here.advance(work, Phase.SUCCEEDED)
    )

    def bill(group_by: GroupBy) -> list[tuple[str, int]]:
        found = here.store.ledger(tenant=TENANT, group_by=group_by, since=0, until=here.now)
        return [(one.group, one.cost.micros) for one in found.costs]

    before = bill("project"), bill("workload")
    assert before[0] == [("default", 7)]
    here.applied(end(), end_tenant())
    assert (bill("project"), bill("workload")) == before
    assert here.workload(work.id).phase is Phase.SUCCEEDED
    here.applied(here.usage(pod, start=pod.ended_at - 1, end=pod.ended_at, cost=5))
    assert bill("project") == [("default", 12)]
    rows = here.store.audit(after=0, limit=ALL)
    assert [(row.action, row.object, row.tenant) for row in rows if row.action.startswith("remove_")] == [
        ("remove_project", "vision", TENANT),
        ("remove_tenant", TENANT, TENANT),
    ]


def test_what_pods_were_handed_stays_on_record_until_they_are_closed_though_their_tenant_is_gone(here: Scene) -> None:
    here.fleet()
    pod = here.run(here.submit())
    here.applied(secret("key"), secret("other"), end())
    here.applied(hand(here, pod, "key"))
    here.end(pod, ended_at=pod.started_at)
    here.applied(here.advance(here.workload(pod.workload), Phase.SUCCEEDED))
    here.applied(end_tenant())
    assert (handed(here, pod), kept(here), here.store.secrets(tenant=TENANT)) == (["sealed"], 1, ())
    here.applied(here.close(pod))
    assert (handed(here, pod), kept(here)) == ([], 0)


def test_a_tenant_that_is_gone_counts_where_all_jobs_run_as_one_user(here: Scene) -> None:
    """Its files are still there."""
    here.applied(end(), end_tenant())
    local = AddCluster(cluster=NewCluster(name="local", kind=ClusterKind.LOCAL), reason=WHY)
    assert refusal(here, local) is Code.ONE_USER


@pytest.mark.parametrize("last", ["_write_whole", "_write_head"])
def test_a_crash_before_the_commit_leaves_all_and_after_it_nothing_to_do(here: Scene, last: str, monkeypatch) -> None:
    class Crash(Exception):
        pass

    def crash(*_: object) -> None:
        raise Crash

    here.applied(member("carol", MAINTAINER), token("t1"), end())
    key = replace(idempotency("k"), tenant="default", member="root")
    with monkeypatch.context() as patch:
        patch.setattr(f"mainstay.store.write.{last}", crash)
        with pytest.raises(Crash):
            here.commit(end_tenant(), idempotency=key)
    assert here.store.authority("t1") is not None
    assert [one.name for one in here.store.tenants() if one.removed_at] == []
    here.applied(end_tenant(), idempotency=key)
    version = here.store.version()
    again = here.commit(end_tenant(), idempotency=key)
    assert (again.reply, again.refused, here.store.version()) == ("reply", (), version)
