"""What every store promises about secrets, over both databases."""

from __future__ import annotations

import pytest

from mainstay.domain.allocation import Allocation, Seen
from mainstay.domain.errors import NotFound
from mainstay.domain.plan import HandSecrets, RemoveSecret, SetSecret
from mainstay.domain.reason import Code, Reason
from mainstay.domain.secret import SecretUse
from mainstay.domain.workload import Phase
from tests.stores import ALL, TENANT, USER, WHY, Scene, scene, store

__all__ = ["scene", "store"]


def put(name: str, sealed: str = "1.key.sealed", tenant: str = TENANT) -> SetSecret:
    reason = Reason(code=Code.SECRET_SET, object=name, numbers={"by": USER})
    return SetSecret(tenant=tenant, name=name, sealed=sealed, reason=reason)


def drop(name: str, tenant: str = TENANT) -> RemoveSecret:
    reason = Reason(code=Code.SECRET_REMOVED, object=name, numbers={"by": USER})
    return RemoveSecret(tenant=tenant, name=name, reason=reason)


def sealed(scene: Scene, tenant: str = TENANT) -> dict[str, str]:
    names = [row.name for row in scene.store.secrets(tenant=tenant)]
    found = scene.store.sealed_secrets([*names, "not-there"], tenant=tenant)
    assert list(found) == names
    return {name: one.text for name, one in found.items()}


def test_a_secret_is_there_until_it_is_removed_and_its_name_comes_back(scene: Scene) -> None:
    scene.applied(put("b"), put("a", "one"))
    (first, _) = scene.store.secrets(tenant=TENANT)
    assert (first.name, first.set_by, first.set_at) == ("a", USER, scene.now)
    assert sealed(scene) == {"a": "one", "b": "1.key.sealed"}
    scene.applied(put("a", "two"))
    assert sealed(scene) == {"a": "two", "b": "1.key.sealed"}
    scene.applied(drop("a"))
    assert sealed(scene) == {"b": "1.key.sealed"}
    scene.applied(put("a", "three"))
    assert sealed(scene) == {"a": "three", "b": "1.key.sealed"}


def test_one_plan_may_say_several_things_of_one_secret(scene: Scene) -> None:
    scene.applied(put("a", "one"), put("a", "two"), drop("a"), put("a", "three"))
    assert sealed(scene) == {"a": "three"}
    scene.applied(drop("a"), put("a", "four"), drop("a"))
    assert sealed(scene) == {}


def test_tenants_do_not_see_each_others(scene: Scene) -> None:
    scene.applied(put("a", "ours"), put("a", "theirs", "chemistry"))
    assert (sealed(scene), sealed(scene, "chemistry")) == ({"a": "ours"}, {"a": "theirs"})
    scene.applied(drop("a"))
    assert (sealed(scene), sealed(scene, "chemistry")) == ({}, {"a": "theirs"})


def test_what_is_not_there_cannot_be_removed(scene: Scene) -> None:
    (refused,) = scene.commit(drop("a")).refused
    assert refused.reason == Reason(code=Code.NO_SUCH_SECRET, object="a")


def test_secrets_are_paged_by_name(scene: Scene) -> None:
    scene.applied(*(put(name) for name in "dbac"))
    assert [row.name for row in scene.store.secrets(tenant=TENANT, after="a", limit=2)] == ["b", "c"]


def test_events_and_audit_name_it_and_show_no_value(scene: Scene) -> None:
    scene.applied(put("a", "canary"), drop("a"))
    events = scene.store.events(tenant=TENANT, workload="", after=0, limit=ALL)
    assert [(event.kind, event.object, event.reason.code) for event in events[-2:]] == [
        ("secret", "a", Code.SECRET_SET),
        ("secret", "a", Code.SECRET_REMOVED),
    ]
    rows = scene.store.audit(after=0, limit=ALL)
    assert [(row.action, row.object, row.tenant) for row in rows[-2:]] == [
        ("set_secret", "a", TENANT),
        ("remove_secret", "a", TENANT),
    ]
    assert "canary" not in repr(events) + repr(rows) + repr(scene.store.secrets(tenant=TENANT))


def test_a_pod_is_found_by_its_name_until_it_is_closed(scene: Scene) -> None:
    scene.fleet()
    work = scene.submit(secrets=(SecretUse(name="a", env="A"),))
    pod = scene.run(work)
    found = scene.store.pod(pod.pod)
    assert (found.allocation, found.spec.secrets) == (pod, work.spec.secrets)
    for name in ("", "x", pod.workload, f"{pod.workload}-1", f"{pod.pod}-0", f"{pod.workload}-1-x", "a-1-٣", "a-1-0"):
        with pytest.raises(NotFound):
            scene.store.pod(name)


def test_handing_secrets_to_a_pod_is_on_record_while_it_lives_and_refused_afterwards(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    reason = Reason(code=Code.SECRETS_HANDED, object=pod.pod, numbers={"names": "a, b"})
    hand = HandSecrets(allocation_key=pod.key, versions=(), reason=reason)
    scene.applied(hand)
    row = scene.store.audit(after=0, limit=ALL)[-1]
    assert (row.action, row.object, row.detail) == ("hand_secrets", pod.pod, "secrets handed to it: a, b")
    assert scene.pod(pod) == pod
    scene.end(pod)
    assert scene.commit(hand).refused
    assert scene.pod(pod).seen is Seen.ENDED
    assert scene.commit(HandSecrets(allocation_key=999, versions=(), reason=WHY)).refused


def hand(scene: Scene, pod: Allocation, *names: str) -> HandSecrets:
    """Of the values of now."""
    found = scene.store.sealed_secrets(names, tenant=TENANT)
    return HandSecrets(allocation_key=pod.key, versions=tuple(one.place for one in found.values()), reason=WHY)


def handed(scene: Scene, pod: Allocation) -> list[str]:
    return [one.text for one in scene.store.handed_secrets(pod.key)]


def kept(scene: Scene) -> int:
    """How many values are on record, under whichever key: those of now, and earlier ones."""
    return sum(scene.store.sealed_by_key().values())


def over(scene: Scene, pod: Allocation) -> None:
    scene.end(pod, ended_at=pod.started_at)
    work = scene.workload(pod.workload)
    scene.applied(scene.advance(work, Phase.SUCCEEDED))
    scene.applied(scene.close(pod))


def test_what_a_pod_was_handed_stays_on_record_until_the_last_such_pod_is_closed(scene: Scene) -> None:
    scene.fleet(cpus=64)
    first, second, third = (scene.run(scene.submit()) for _ in range(3))
    scene.applied(put("a", "one"), put("b", "bee"))
    scene.applied(hand(scene, first, "a", "b"))
    scene.applied(hand(scene, second, "a"))
    scene.applied(put("a", "two"))
    scene.applied(hand(scene, third, "a"), hand(scene, second, "a"))
    scene.applied(hand(scene, second, "a"))
    scene.applied(put("a", "three"), drop("b"))
    assert handed(scene, first) == ["one", "bee"]
    assert handed(scene, second) == ["one", "two"]
    assert handed(scene, third) == ["two"]
    assert sealed(scene) == {"a": "three"}
    assert kept(scene) == 4
    over(scene, first)
    assert (handed(scene, first), handed(scene, second), kept(scene)) == ([], ["one", "two"], 3)
    over(scene, second)
    assert (handed(scene, third), kept(scene)) == (["two"], 2)
    over(scene, third)
    assert (handed(scene, third), kept(scene)) == ([], 1)


def test_a_value_that_nobody_was_handed_goes_at_once(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    scene.applied(put("a", "one"), put("b", "one"))
    scene.applied(hand(scene, pod, "b"))
    scene.applied(put("a", "two"))
    scene.applied(put("a", "three"), drop("a"))
    assert (handed(scene, pod), kept(scene)) == (["one"], 1)


def test_what_was_changed_since_it_was_read_is_not_handed_out(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    scene.applied(put("a", "one"))
    stale = hand(scene, pod, "a")
    scene.applied(put("a", "two"))
    (refused,) = scene.commit(stale).refused
    assert refused.reason == Reason(code=Code.SECRET_CHANGED, object="a")
    scene.applied(drop("a"))
    (refused,) = scene.commit(stale).refused
    assert refused.reason == Reason(code=Code.NO_SUCH_SECRET, object="a")
    assert (handed(scene, pod), kept(scene)) == ([], 0)


def test_another_tenants_secret_of_that_name_is_another_one(scene: Scene) -> None:
    scene.fleet()
    pod = scene.run(scene.submit())
    scene.applied(put("a", "ours"), put("a", "theirs", "chemistry"))
    scene.applied(hand(scene, pod, "a"))
    scene.applied(put("a", "ours anew"), put("a", "theirs anew", "chemistry"))
    assert (handed(scene, pod), kept(scene)) == (["ours"], 3)
