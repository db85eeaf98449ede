"""What every store promises about tenants, members and tokens, over both databases."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from mainstay.domain.access import (
    MAINTAINER,
    PLATFORM_ADMIN,
    ROLES,
    TENANT_ADMIN,
    USER,
    VIEWER,
    Caps,
    GroupRole,
    MemberKind,
    NewToken,
    Permission,
    Standing,
    TokenKind,
)
from mainstay.domain.errors import KeyReused
from mainstay.domain.fleet import ClusterKind, ClusterSettings, NewCluster
from mainstay.domain.identity import Identity
from mainstay.domain.plan import (
    Action,
    AddCluster,
    AddProject,
    AddTenant,
    AddToken,
    AdmitMember,
    Idempotency,
    IdentifyCluster,
    RemoveCluster,
    RemoveGroupRole,
    RemoveMember,
    RemoveOwnRole,
    RevokeToken,
    SetGroupRole,
    SetMember,
    SetOwnRole,
    SpendToken,
    UseToken,
)
from mainstay.domain.reason import Code, Reason
from tests.stores import ALL, NOON, SECOND, TENANT, WHY, Scene, idempotency, scene, store

__all__ = ["scene", "store"]
EVERYTHING = ROLES[PLATFORM_ADMIN]


def member(
    name: str, role: str, *, tenant: str = TENANT, within: frozenset[Permission] = EVERYTHING, **changes: str
) -> SetMember:
    reason = Reason(code=Code.MEMBER_SET, object=name, numbers={"by": "ada", "role": role, "where": "in the tenant"})
    return SetMember(tenant=tenant, name=name, role=role, within=within, reason=reason, **changes)


def leave(
    name: str, *, tenant: str = TENANT, within: frozenset[Permission] = EVERYTHING, project: str = ""
) -> RemoveMember:
    return RemoveMember(tenant=tenant, name=name, project=project, within=within, reason=WHY)


def token(
    id_: str, of: str = "carol", *, within: frozenset[Permission] = EVERYTHING, caps: Caps | None = None
) -> AddToken:
    new = NewToken(id=id_, tenant=TENANT, member=of, name="ci", digest=f"digest-{id_}", expires_at=NOON + 90 * SECOND)
    return AddToken(token=replace(new, caps=caps) if caps else new, within=within, reason=WHY)


def tenant(name: str) -> AddTenant:
    return AddTenant(tenant=name, reason=Reason(code=Code.TENANT_ADDED, object=name, numbers={"by": "ada"}))


def refusal(scene: Scene, action: Action) -> Code:
    (refused,) = scene.commit(action).refused
    return refused.reason.code


def names(scene: Scene, tenant: str = TENANT) -> dict[str, str]:
    return {record.member.name: record.member.role for record in scene.store.members(tenant=tenant)}


def test_a_member_has_one_role_in_the_tenant_and_one_in_each_project(scene: Scene) -> None:
    scene.applied(AddProject(tenant=TENANT, project="vision", reason=WHY))
    scene.applied(
        member("carol", USER, project="vision"), member("carol", VIEWER), member("carol", MAINTAINER, project="vision")
    )
    (record,) = scene.store.members(tenant=TENANT)
    assert (record.member.role, dict(record.member.grants)) == (VIEWER, {"vision": MAINTAINER})
    scene.applied(leave("carol", project="vision"))
    (record,) = scene.store.members(tenant=TENANT)
    assert (record.member.role, dict(record.member.grants)) == (VIEWER, {})
    assert refusal(scene, leave("carol", project="vision")) is Code.NO_SUCH_MEMBER
    scene.applied(leave("carol"))
    assert names(scene) == {}


def test_a_program_stays_one_when_its_role_changes(scene: Scene) -> None:
    scene.applied(replace(member("ci", USER), kind=MemberKind.SERVICE), member("ci", VIEWER))
    (record,) = scene.store.members(tenant=TENANT)
    assert record.member.kind is MemberKind.SERVICE


def test_a_role_or_project_that_is_not_there_cannot_be_given(scene: Scene) -> None:
    assert refusal(scene, member("carol", "boss")) is Code.NO_SUCH_ROLE
    assert refusal(scene, member("carol", USER, project="nope")) is Code.NO_SUCH_PROJECT
    scene.applied(member("carol", USER, project="default"))


def test_nobody_gives_or_takes_more_than_they_have(scene: Scene) -> None:
    scene.applied(member("root", PLATFORM_ADMIN), member("other", PLATFORM_ADMIN), member("carol", USER))
    admin = ROLES[TENANT_ADMIN]
    for action in (
        member("carol", PLATFORM_ADMIN, within=admin),
        member("root", VIEWER, within=admin),
        leave("root", within=admin),
        token("t1", "root", within=admin),
    ):
        assert refusal(scene, action) is Code.MORE_THAN_ONESELF
    assert names(scene) == {"root": PLATFORM_ADMIN, "other": PLATFORM_ADMIN, "carol": USER}
    scene.applied(member("carol", TENANT_ADMIN, within=admin))


def test_somebody_is_left_to_administer_the_platform_of_whatever_tenant(scene: Scene) -> None:
    scene.applied(member("root", PLATFORM_ADMIN))
    for action in (member("root", VIEWER), leave("root")):
        assert refusal(scene, action) is Code.LAST_ADMINISTRATOR
    scene.applied(member("boss", PLATFORM_ADMIN, tenant="chemistry"), leave("root"))
    assert refusal(scene, leave("boss", tenant="chemistry")) is Code.LAST_ADMINISTRATOR


def test_two_who_remove_each_other_in_one_plan_leave_one(scene: Scene) -> None:
    scene.applied(member("root", PLATFORM_ADMIN), member("boss", PLATFORM_ADMIN))
    (refused,) = scene.commit(leave("root"), leave("boss")).refused
    assert refused.reason.code is Code.LAST_ADMINISTRATOR
    assert names(scene) == {"boss": PLATFORM_ADMIN}


def test_a_role_of_a_tenant_is_its_own_and_stays_while_somebody_has_it(scene: Scene) -> None:
    may = frozenset({Permission.READ, Permission.STOP})
    scene.applied(SetOwnRole(tenant=TENANT, name="night", permissions=may, reason=WHY), member("carol", "night"))
    assert scene.store.own_roles(tenant="chemistry") == ()
    assert refusal(scene, member("eve", "night", tenant="chemistry")) is Code.NO_SUCH_ROLE
    assert refusal(scene, RemoveOwnRole(tenant=TENANT, name="night", reason=WHY)) is Code.ROLE_IN_USE
    scene.applied(member("carol", VIEWER), member("carol", "night", project="default"))
    assert refusal(scene, RemoveOwnRole(tenant=TENANT, name="night", reason=WHY)) is Code.ROLE_IN_USE
    scene.applied(leave("carol", project="default"), RemoveOwnRole(tenant=TENANT, name="night", reason=WHY))
    assert scene.store.own_roles(tenant=TENANT) == ()


def test_what_a_token_may_is_read_with_its_member_and_roles(scene: Scene) -> None:
    caps = Caps(permissions=frozenset({Permission.READ}), projects=frozenset({"vision"}), gpus=2)
    night = frozenset({Permission.READ, Permission.STOP})
    scene.applied(SetOwnRole(tenant=TENANT, name="night", permissions=night, reason=WHY))
    scene.applied(member("carol", "night"), token("t1", caps=caps))
    found = scene.store.authority("t1")
    assert found is not None
    assert (found.digest, found.token.caps, found.token.expires_at) == ("digest-t1", caps, NOON + 90 * SECOND)
    assert found.standing is not None
    assert (found.standing.member.role, dict(found.standing.own_roles)) == ("night", {"night": night})
    assert scene.store.authority("t2") is None


def test_a_member_who_is_removed_takes_all_tokens_along_and_comes_back_without_any(scene: Scene) -> None:
    scene.applied(member("carol", USER), member("bob", USER), token("t1"), token("t2"), token("t3", "bob"))
    scene.applied(leave("carol"))
    assert [scene.store.authority(id_) is None for id_ in ("t1", "t2", "t3")] == [True, True, False]
    scene.applied(member("carol", USER))
    assert scene.store.tokens(tenant=TENANT, member="carol") == ()


def test_a_token_cannot_be_made_for_who_is_not_there(scene: Scene) -> None:
    assert refusal(scene, token("t1", "nobody")) is Code.NO_SUCH_MEMBER


def test_a_token_is_revoked_once_and_by_its_own_tenant(scene: Scene) -> None:
    scene.applied(member("carol", USER), token("t1"))
    assert refusal(scene, RevokeToken(tenant="chemistry", id="t1", reason=WHY)) is Code.NO_SUCH_TOKEN
    scene.applied(RevokeToken(tenant=TENANT, id="t1", reason=WHY))
    revoked = scene.now
    scene.applied(RevokeToken(tenant=TENANT, id="t1", reason=WHY))
    (record,) = scene.store.tokens(tenant=TENANT)
    assert record.revoked_at == revoked


def test_the_use_of_a_token_never_goes_back_and_revives_none(scene: Scene) -> None:
    scene.applied(member("carol", USER), token("t1"), UseToken(id="t1", reason=WHY))
    used = scene.now
    scene.now = NOON - 10 * SECOND
    scene.applied(UseToken(id="t1", reason=WHY))
    (record,) = scene.store.tokens(tenant=TENANT)
    assert record.used_at == used
    scene.applied(leave("carol"), UseToken(id="t1", reason=WHY))
    assert scene.store.authority("t1") is None


def test_events_and_audit_name_a_token_and_never_show_its_digest(scene: Scene) -> None:
    scene.applied(
        member("carol", USER),
        token("t1"),
        UseToken(id="t1", reason=WHY),
        RevokeToken(tenant=TENANT, id="t1", reason=WHY),
    )
    rows = scene.store.audit(after=0, limit=ALL)
    assert [(row.action, row.object, row.tenant) for row in rows] == [
        ("set_member", "carol", TENANT),
        ("add_token", "t1", TENANT),
        ("revoke_token", "t1", TENANT),
    ]
    events = scene.store.events(tenant=TENANT, workload="", after=0, limit=ALL)
    assert "digest-t1" not in repr(rows) + repr(events) + repr(scene.store.tokens(tenant=TENANT))


def test_tenants_and_projects_are_put_on_record_once(scene: Scene) -> None:
    scene.applied(tenant("a"), tenant("b"), AddProject(tenant="a", project="vision", reason=WHY))
    assert refusal(scene, tenant("a")) is Code.TENANT_THERE
    for project in ("vision", "default"):
        assert refusal(scene, AddProject(tenant="a", project=project, reason=WHY)) is Code.PROJECT_THERE
    assert [row.name for row in scene.store.tenants()] == ["a", "b"]
    assert [row.name for row in scene.store.projects(tenant="a")] == ["vision"]
    assert scene.store.projects(tenant="b") == ()


def local(name: str = "local") -> AddCluster:
    return AddCluster(cluster=NewCluster(name=name, kind=ClusterKind.LOCAL), reason=WHY)


def test_where_all_jobs_run_as_one_user_there_is_one_tenant(scene: Scene) -> None:
    scene.applied(tenant("a"), local())
    assert refusal(scene, tenant("b")) is Code.ONE_USER
    scene.applied(RemoveCluster(cluster="local", reason=WHY), tenant("b"))
    assert refusal(scene, local()) is Code.ONE_USER
    assert [row.name for row in scene.store.tenants()] == ["a", "b"]


def test_an_agent_says_that_all_jobs_run_as_one_user(scene: Scene) -> None:
    agent = NewCluster(name="edge", kind=ClusterKind.AGENT, settings=ClusterSettings(agent_token="x"))
    scene.applied(tenant("a"), AddCluster(cluster=agent, reason=WHY))
    found = IdentifyCluster(cluster="edge", identity="1", one_user=True, reason=Reason(code=Code.CLUSTER_FOUND))
    scene.applied(found)
    assert refusal(scene, tenant("b")) is Code.ONE_USER
    scene.applied(replace(found, one_user=False), tenant("b"))
    assert refusal(scene, found) is Code.ONE_USER


def test_a_key_of_one_member_is_not_that_of_another(scene: Scene) -> None:
    ours = idempotency("k", reply="ours")
    scene.commit(tenant("a"), idempotency=ours)
    theirs: Idempotency = replace(ours, member="bob", body_hash="other")
    assert scene.store.replied(theirs) is None
    assert scene.store.replied(ours) == "ours"
    with pytest.raises(KeyReused):
        scene.store.replied(replace(ours, body_hash="other"))


def someone(subject: str = "u-1", *groups: str) -> Identity:
    return Identity(issuer="https://idp.example.com", subject=subject, name=subject, groups=groups)


def admitted(name: str, identity: Identity, *, tenant: str = TENANT) -> AdmitMember:
    reason = Reason(code=Code.MEMBER_SIGNED_IN, object=name, numbers={"issuer": identity.issuer})
    return AdmitMember(tenant=tenant, name=name, identity=identity, reason=reason)


def group_role(group: str, role: str, *, project: str = "", within: frozenset[Permission] = EVERYTHING) -> SetGroupRole:
    return SetGroupRole(tenant=TENANT, group=group, role=role, project=project, within=within, reason=WHY)


def standing(scene: Scene, subject: str = "u-1") -> Standing | None:
    return scene.store.standing(issuer="https://idp.example.com", subject=subject)


def test_who_signs_in_is_one_member_whatever_they_are_called_and_in_which_groups(scene: Scene) -> None:
    scene.applied(admitted("carol", someone("u-1", "ml")), admitted("renamed", someone("u-1", "ops")))
    (record,) = scene.store.members(tenant=TENANT)
    assert (record.member.name, record.member.subject, record.member.groups) == ("carol", "u-1", ("ops",))
    assert standing(scene, "u-2") is None
    assert scene.store.standing(issuer="https://other.example.com", subject="u-1") is None


def test_nobody_takes_the_name_of_a_member_by_signing_in(scene: Scene) -> None:
    scene.applied(member("carol", USER))
    assert refusal(scene, admitted("carol", someone())) is Code.MEMBER_THERE
    assert standing(scene) is None


def test_one_identity_is_one_member_of_one_tenant(scene: Scene) -> None:
    scene.applied(replace(member("carol", USER), identity=someone()))
    for action in (
        replace(member("bob", USER), identity=someone()),
        replace(member("eve", USER, tenant="chemistry"), identity=someone()),
    ):
        assert refusal(scene, action) is Code.IDENTITY_TAKEN
    scene.applied(replace(member("carol", VIEWER), identity=someone()))
    scene.applied(admitted("other", someone("u-1", "ml"), tenant="chemistry"))
    assert scene.store.members(tenant="chemistry") == ()


def test_what_a_group_may_holds_for_its_members_and_for_nobody_else(scene: Scene) -> None:
    scene.applied(AddProject(tenant=TENANT, project="vision", reason=WHY))
    scene.applied(group_role("ml", USER, project="vision"), group_role("ops", VIEWER), group_role("ml", VIEWER))
    scene.applied(group_role("ml", MAINTAINER, project="vision"), admitted("carol", someone("u-1", "ml")))
    found = standing(scene)
    assert found is not None
    assert [(role.project, role.role) for role in found.group_roles] == [("", VIEWER), ("vision", MAINTAINER)]
    scene.applied(RemoveGroupRole(tenant=TENANT, group="ml", project="vision", within=EVERYTHING, reason=WHY))
    assert [role.role for role in (standing(scene) or found).group_roles] == [VIEWER]
    assert scene.store.roles_of_groups(["ops"]) == (GroupRole(tenant=TENANT, group="ops", role=VIEWER),)


def test_nobody_gives_a_group_more_than_they_have_or_takes_more_from_it(scene: Scene) -> None:
    admin = ROLES[TENANT_ADMIN]
    assert refusal(scene, group_role("root", PLATFORM_ADMIN, within=admin)) is Code.MORE_THAN_ONESELF
    scene.applied(group_role("root", PLATFORM_ADMIN), admitted("carol", someone("u-1", "root")))
    for action in (
        group_role("root", VIEWER, within=admin),
        RemoveGroupRole(tenant=TENANT, group="root", within=admin, reason=WHY),
        token("t1", within=admin),
        leave("carol", within=admin),
    ):
        assert refusal(scene, action) is Code.MORE_THAN_ONESELF
    assert refusal(scene, group_role("ml", "boss")) is Code.NO_SUCH_ROLE
    missing = RemoveGroupRole(tenant=TENANT, group="ml", within=admin, reason=WHY)
    assert refusal(scene, missing) is Code.NO_SUCH_GROUP_ROLE


def test_a_link_is_spent_once_and_what_a_token_began_ends_with_it(scene: Scene) -> None:
    link = token("l1")
    link = replace(link, token=replace(link.token, kind=TokenKind.LINK, parent="t1"))
    session = replace(link, token=replace(link.token, id="s1", kind=TokenKind.SESSION))
    scene.applied(member("carol", USER), token("t1"), link)
    spend = SpendToken(tenant=TENANT, id="l1", reason=WHY)
    assert refusal(scene, SpendToken(tenant="chemistry", id="l1", reason=WHY)) is Code.TOKEN_SPENT
    scene.applied(spend, session)
    assert refusal(scene, spend) is Code.TOKEN_SPENT
    scene.applied(RevokeToken(tenant=TENANT, id="t1", reason=WHY))
    found = scene.store.authority("s1")
    assert found is not None
    assert found.token.revoked_at
    scene.now += 2 * 86_400 * SECOND
    scene.applied(token("t2"))
    assert [one.id for one in scene.store.tokens(tenant=TENANT)] == ["t1", "t2"]


def made_with(parent: str, id_: str, *, kind: TokenKind = TokenKind.SESSION, of: str = "carol") -> AddToken:
    made = token(id_, of)
    return replace(made, token=replace(made.token, kind=kind, parent=parent))


def revoke(id_: str) -> RevokeToken:
    return RevokeToken(tenant=TENANT, id=id_, reason=WHY)


def good(scene: Scene) -> list[str]:
    """The tokens that open something yet."""
    return [one.id for one in scene.store.tokens(tenant=TENANT) if not one.revoked_at and one.expires_at > scene.now]


def test_what_was_made_with_a_token_ends_with_it_however_many_lie_between(scene: Scene) -> None:
    scene.applied(member("carol", USER), token("t1"), token("t2"))
    scene.applied(made_with("t1", "a"), made_with("t2", "other"))
    scene.applied(made_with("a", "b"))
    scene.applied(made_with("b", "c"), made_with("b", "l", kind=TokenKind.LINK))
    scene.applied(revoke("b"))
    assert good(scene) == ["t1", "t2", "a", "other"]
    scene.applied(made_with("a", "d"))
    scene.applied(made_with("d", "e"))
    scene.applied(revoke("t1"))
    assert good(scene) == ["t2", "other"]


def test_nobody_makes_so_many_sessions_one_with_another_that_the_first_cannot_be_revoked(scene: Scene) -> None:
    many = sys.getrecursionlimit() + 100
    scene.applied(member("carol", USER), token("s0"))
    scene.applied(*(made_with(f"s{number}", f"s{number + 1}") for number in range(many)))
    assert len(good(scene)) == many + 1
    scene.applied(revoke("s0"))
    assert good(scene) == []


@pytest.mark.parametrize("ended", ["revoked", "expired", "gone", "of another member"])
def test_nothing_is_made_with_a_token_that_has_ended_meanwhile(scene: Scene, ended: str) -> None:
    scene.applied(member("carol", USER), member("bob", USER), token("t1"))
    meanwhile = {"revoked": (revoke("t1"),), "gone": (leave("carol"), member("carol", USER))}
    scene.applied(*meanwhile.get(ended, ()))
    if ended == "expired":
        scene.now = NOON + 90 * SECOND
    late = made_with("t1", "l1", kind=TokenKind.LINK, of="bob" if ended == "of another member" else "carol")
    assert refusal(scene, late) is Code.TOKEN_SPENT
    assert scene.store.authority("l1") is None


def test_tokens_of_a_session_at_a_provider_are_those_of_that_provider_and_session_whoever_has_them(
    scene: Scene,
) -> None:
    scene.applied(member("ada", PLATFORM_ADMIN), member("vera", USER))
    for id_, name, issuer, session in (
        ("a1", "ada", "https://idp", "s-1"),
        ("v1", "vera", "https://idp", "s-1"),
        ("a2", "ada", "https://idp", "s-2"),
        ("a3", "ada", "https://other", "s-1"),
        ("a4", "ada", "https://idp", ""),
    ):
        made = token(id_, name)
        scene.applied(replace(made, token=replace(made.token, issuer=issuer, provider_session=session)))
    found = scene.store.tokens_of_session(issuer="https://idp", session="s-1")
    assert [(one.id, one.issuer, one.provider_session) for one in found] == [
        ("a1", "https://idp", "s-1"),
        ("v1", "https://idp", "s-1"),
    ]
    assert scene.store.tokens_of_session(issuer="https://idp", session="s") == ()
