"""What may befall pods of ours in a cluster, played on a server in memory: none runs twice, none is lost, and no look lies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes import names, picture, surroundings
from mainstay.clusters.kubernetes.claims import ensure
from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.errors import Forbidden, Rejected, Unreachable
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.trust import REFUSALS_MAX, REFUSED_SECONDS, SAID_SECONDS
from mainstay.domain.allocation import BindPod, CreatePod, DeletePod, End, PodState, Seen
from mainstay.domain.errors import Denied, Fenced, Gone, Invalid, MainstayError, NoCapacity, NotYet, Unavailable
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import PodRef, Volume
from tests.clock import ManualClock
from tests.clusters import OWNER, create
from tests.drawer import Drawer
from tests.unit.clusters.kubernetes.api_server import Server

SYSTEM = "platform"
SETTINGS = Settings(system=SYSTEM)
HOME = names.namespace(OWNER, system=SYSTEM)
POD = "w-1-0"


class Watched(Server):
    """Takes note of writes that did not pass the gate."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.clusters: list[KubernetesCluster] = []
        self.unpaced: list[tuple[str, str]] = []

    def _answer(self, verb: str, kind: Any) -> None:
        paced = any(cluster._pace._in_flight for cluster in self.clusters)
        if verb in {"create", "patch", "delete"} and not paced:
            self.unpaced.append((verb, kind.plural))
        super()._answer(verb, kind)


class Bed:
    """One cluster with one node, and an adapter to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.server = Watched(self.clock)
        self.clusters = self.server.clusters
        self.artifacts, self.drawer = open_artifacts(str(folder)), Drawer()
        self.server.node("n1")
        self.cluster = self.fresh()

    def fresh(self, **options: Any) -> KubernetesCluster:
        """Another handle, as after a restart or in another replica."""
        made = KubernetesCluster(
            name="k8s",
            api=self.server,  # type: ignore[arg-type]  # as much of it as the adapter uses
            artifacts=self.artifacts,
            secrets=self.drawer,
            clock=self.clock,
            settings=SETTINGS,
            **options,
        )
        self.clusters.append(made)
        return made

    async def act(self, action: Any, *, epoch: int = 1) -> None:
        """Once all that has happened was heard of."""
        await self.settle()
        await self.cluster.act(action, epoch=epoch)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def later(self, seconds: float) -> None:
        """Time passes, and the server is heard meanwhile."""
        while seconds > 0:
            self.clock.advance(min(seconds, 60))
            seconds -= 60
            self.server.bookmark()
            await self.settle()

    async def state(self, name: str = POD) -> PodState | None:
        await self.settle()
        return {pod.name: pod for pod in (await self.cluster.observe()).pods}.get(name)

    async def until(self, true: Callable[[], Any]) -> None:
        for _ in range(200):
            if true():
                return
            await asyncio.sleep(0.005)
        pytest.fail("it does not become true")

    def pods(self, verb: str) -> list[str]:
        return [name for what, plural, name in self.server.asked if (what, plural) == (verb, "pods")]


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    made = Bed(tmp_path)
    yield made
    for cluster in made.clusters:
        await cluster.close()
    assert made.server.unpaced == []


def creation(name: str = POD, **changes: Any) -> CreatePod:
    return create(name, "n1", script="true", **{"gang": name.rpartition("-")[0], **changes})


def deletion(name: str = POD, *, node: str = "n1", grace: int = 5) -> DeletePod:
    return DeletePod(name=name, grace_seconds=grace, owner=OWNER, node=node)


async def test_a_create_whose_answer_is_lost_makes_one_pod(bed):
    bed.server.deaf["create", "pods"] = 1
    with pytest.raises(Unavailable):
        await bed.act(creation())
    await bed.act(creation())
    assert len([key for key in bed.server.objects if key[0] == "pods"]) == 1
    assert (await bed.state()).seen is Seen.STARTING


async def test_a_pod_is_given_users_of_its_own_on_a_node_that_says_that_it_can(bed):
    await bed.act(creation("plain-1-0"))
    handlers = [{"name": "", "features": {"userNamespaces": True}}]
    bed.server.node("n1", handlers=handlers)
    await bed.act(creation("mapped-1-0"))
    said = {name: bed.server.pod(name)["spec"].get("hostUsers") for name in ("plain-1-0", "mapped-1-0")}
    assert said == {"plain-1-0": None, "mapped-1-0": False}


async def test_a_namespace_is_complete_before_its_first_pod_and_furnished_again_by_another_process(bed):
    await bed.act(creation())
    kinds = [kind for verb, kind, _ in bed.server.asked if verb == "create" and kind != "leases"]
    assert kinds[-1] == "pods"
    assert {"namespaces", "serviceaccounts", "networkpolicies", "resourcequotas"} <= set(kinds[:-1])
    asked = len(bed.server.asked)
    await bed.act(creation("next-1-0"))
    assert [kind for _, kind, _ in bed.server.asked[asked:]] == ["pods"]
    await bed.fresh().act(creation("other-1-0"), epoch=1)
    assert ("patch", "networkpolicies", surroundings.NAME) in bed.server.asked


async def test_what_has_been_made_is_on_record_before_anybody_tells_of_it(bed):
    await bed.cluster.observe()
    bed.server.unseen.add(POD)
    await bed.act(creation())
    assert (await bed.state()).seen is Seen.STARTING
    await bed.later(300)
    assert (await bed.state()).seen is Seen.STARTING


async def test_what_was_only_missed_is_found_again_and_not_ended(bed):
    await bed.cluster.observe()
    bed.server.unseen.add(POD)
    other = bed.fresh()
    await other.act(creation(), epoch=1)
    bed.server.run(POD)
    assert await bed.state() is None
    with pytest.raises(NotYet):
        await bed.act(deletion())
    assert (await bed.state()).seen is Seen.RUNNING
    assert bed.pods("delete") == []
    await bed.act(deletion())
    assert bed.pods("delete") == [POD]


async def test_a_pod_that_went_before_the_answer_to_its_creation_came_is_not_seen_again(bed):
    await bed.cluster.observe()
    bed.server.put("namespaces", "", {"metadata": {"name": HOME}})
    asked = bed.server.create

    async def slow(kind: Any, *arguments: Any, **options: Any) -> Any:
        made = await asked(kind, *arguments, **options)
        if kind.plural == "pods":
            await bed.settle()
            bed.server.vanish("pods", POD)
            await bed.settle()
        return made

    bed.server.create = slow
    await bed.act(creation())
    assert await bed.state() is None
    bed.server.create = asked
    await bed.act(deletion())
    with pytest.raises(Gone):
        await bed.act(creation())


async def test_an_empty_list_kills_nobody(bed):
    for number in range(20):
        await bed.act(creation(f"w{number}-1-0"))
        bed.server.run(f"w{number}-1-0")
    await bed.settle()
    there, version = bed.server.saved()
    bed.server.restore({key: one for key, one in there.items() if key[0] != "pods"}, version - 1)
    await bed.until(lambda: not bed.cluster._picture.ours)
    bed.server.objects = there
    for number in range(20):
        with pytest.raises(NotYet):
            await bed.act(deletion(f"w{number}-1-0"))
    assert bed.pods("delete") == []
    assert (await bed.state("w7-1-0")).seen is Seen.RUNNING


async def test_a_late_create_finds_the_tombstone_whoever_comes_first(bed):
    await bed.act(deletion(node=""))
    with pytest.raises(Gone):
        await bed.act(creation())
    with pytest.raises(Gone):
        await bed.fresh().act(creation(), epoch=1)
    assert (await bed.state()).end is End.NEVER_STARTED


async def test_a_strangers_pod_with_our_labels_is_not_ours(bed):
    await bed.act(creation())
    bed.server.run(POD)
    bed.server.put("namespaces", "", {"metadata": {"name": "evil"}})
    copy = bed.server.pod(POD)
    for name in (POD, "w-2-0"):
        meta = {"name": name, "labels": copy["metadata"]["labels"], "annotations": copy["metadata"]["annotations"]}
        bed.server.put("pods", "evil", {"metadata": meta, "spec": copy["spec"], "status": {"phase": "Succeeded"}})
    assert (await bed.state()).seen is Seen.RUNNING
    assert await bed.state("w-2-0") is None
    await bed.act(deletion())
    assert "deletionTimestamp" not in bed.server.objects["pods", "evil", POD]["metadata"]


async def test_a_stranger_who_has_the_name_is_left_alone_and_named(bed):
    bed.server.put("namespaces", "", {"metadata": {"name": HOME}})
    bed.server.put("pods", HOME, {"metadata": {"name": POD}, "spec": {"nodeName": "n1"}})
    for action in (creation(), deletion()):
        with pytest.raises(Invalid, match="not ours"):
            await bed.act(action)
    assert bed.pods("delete") == []


@pytest.mark.parametrize("how", ["Unknown", "False"])
async def test_a_pod_that_vanished_is_unknown_until_its_node_is_well_and_had_time_for_its_grace(bed, how):
    await bed.act(creation(stop_grace_seconds=600))
    bed.server.run(POD)
    bed.server.vanish("pods", POD)
    assert await bed.state() is None
    await bed.act(deletion(grace=600))
    bed.server.node("n1", ready=how)
    await bed.later(1_000)
    assert (await bed.state()).seen is Seen.UNKNOWN
    bed.server.vanish("pods", POD)
    bed.server.node("n1")
    await bed.act(deletion(grace=600))
    for seconds, seen in ((300, Seen.UNKNOWN), (500, Seen.ENDED)):
        await bed.later(seconds)
        assert (await bed.state()).seen is seen


async def test_a_node_that_is_gone_proves_the_death_of_what_vanished(bed):
    await bed.act(creation())
    bed.server.run(POD)
    bed.server.vanish("pods", POD)
    bed.server.vanish("nodes", "n1")
    await bed.settle()
    await bed.act(deletion())
    assert (await bed.state()).end is End.NEVER_STARTED


async def test_a_pod_that_went_with_its_node_is_charged_for_no_more_than_is_on_record(bed):
    bed.server.ahead_us = -3_600_000_000
    await bed.act(creation())
    bed.server.run(POD)
    await bed.later(7_200)
    bed.server.status(POD, phase="Failed", reason="NodeLost")
    state = await bed.state()
    assert (state.end, state.ended_at) == (End.LOST, state.started_at)


async def test_a_force_deleted_pod_stays_until_its_kubelet_says_that_it_has_ended(bed):
    await bed.act(creation())
    bed.server.run(POD)
    bed.server.end_object("pods", HOME, POD, grace_seconds=0)
    assert (await bed.state()).seen is Seen.RUNNING
    bed.server.node("n1", ready="Unknown")
    assert (await bed.state()).seen is Seen.UNKNOWN
    bed.server.node("n1")
    bed.server.finish(POD, 143)
    assert (await bed.state()).end is End.STOPPED


async def test_another_cluster_at_the_same_address_is_not_looked_at(bed):
    await bed.act(creation())
    bed.server.run(POD)
    await bed.state()
    bed.server.identity = "cluster-2"
    bed.server.restore({key: one for key, one in bed.server.objects.items() if key[0] == "nodes"}, 50)

    async def looks() -> None:
        for _ in range(50):
            assert (await bed.state()).seen is Seen.RUNNING
            bed.clock.advance(1)

    with pytest.raises(MainstayError, match="another cluster"):
        await looks()


async def test_after_an_outage_nothing_counts_as_witnessed_before_kubelets_could_report(bed):
    await bed.act(creation())
    bed.server.run(POD)
    await bed.later(600)
    before = (await bed.cluster.observe()).at
    for verb in ("list", "watch"):
        bed.server.failing |= {(verb, plural): Unreachable("down") for plural in ("pods", "nodes", "namespaces")}
    bed.server.cut()
    bed.clock.advance(100)
    await bed.settle()
    bed.server.failing.clear()
    await bed.until(lambda: bed.cluster._picture._nodes.last_error is None)
    await bed.until(lambda: bed.cluster._picture._pods.last_error is None)
    await bed.until(lambda: bed.cluster._picture._namespaces.last_error is None)
    assert (await bed.cluster.observe()).at - before < 1_000
    await bed.later(70)
    assert (await bed.cluster.observe()).at > before + 60_000_000


async def test_a_clock_that_is_days_off_is_refused_in_words_and_one_an_hour_off_is_followed(bed):
    bed.server.ahead_us = 3_600_000_000
    await bed.act(creation())
    bed.server.run(POD)
    assert (await bed.state()).started_at > bed.clock.now() + 3_500_000_000
    bed.server.ahead_us = 49 * 3_600_000_000
    bed.clock.advance(31)
    with pytest.raises(Denied, match="49 hours apart"):
        await bed.cluster.observe()


async def test_who_may_not_list_is_told_what_to_grant(bed, monkeypatch):
    bed.server.failing["list", "nodes"] = Forbidden("nodes is forbidden", hint="grant it")
    monkeypatch.setattr(picture, "SYNC_SECONDS_MAX", 0.05)
    with pytest.raises(Denied, match="nodes is forbidden"):
        await bed.cluster.observe()


async def test_a_node_that_refuses_ten_pods_is_left_alone_for_a_while(bed):
    made, refused = [], 0
    for number in range(40):
        name = f"w{number}-1-0"
        with contextlib.suppress(NoCapacity):
            await bed.act(creation(name))
            made.append(name)
        if number % 3 == 2:
            for waiting in made[refused:]:
                bed.server.refuse(waiting)
            refused = len(made)
            await bed.settle()
    assert len(made) == REFUSALS_MAX
    assert [node.ready for node in (await bed.cluster.observe()).nodes] == [False]
    with pytest.raises(NoCapacity, match="refused 10 pods within 300 s, at last with: OutOfcpu"):
        await bed.act(creation("other-1-0"))
    again = bed.fresh()
    assert [node.ready for node in (await again.observe()).nodes] == [False]
    await bed.later(REFUSED_SECONDS + 1)
    assert [node.ready for node in (await bed.cluster.observe()).nodes] == [True]
    await bed.act(creation("other-1-0"))


async def test_a_node_that_has_refused_one_gets_few_more_at_once(bed):
    for number in range(REFUSALS_MAX):
        await bed.act(creation(f"w{number}-1-0"))
    bed.server.refuse("w0-1-0")
    await bed.settle()
    with pytest.raises(NoCapacity, match="not taken the last 9 yet: OutOfcpu"):
        await bed.act(creation("next-1-0"))
    bed.server.run("w1-1-0")
    await bed.settle()
    await bed.act(creation("next-1-0"))


async def test_a_node_gets_ten_at_once_and_more_as_its_kubelet_takes_them(bed):
    made = [f"w{number}-1-0" for number in range(REFUSALS_MAX)]
    await asyncio.gather(*[bed.act(creation(name)) for name in made])
    with pytest.raises(NoCapacity, match="not taken the last 10 pods yet"):
        await bed.act(creation("next-1-0"))
    bed.server.run(made[0])
    await bed.settle()
    await bed.act(creation("next-1-0"))
    with pytest.raises(NoCapacity, match="not taken the last 10 pods yet"):
        await bed.act(creation("another-1-0"))
    assert [node.ready for node in (await bed.cluster.observe()).nodes] == [True]


async def test_pods_that_are_being_made_count_as_well(bed):
    answers = await asyncio.gather(
        *[bed.act(creation(f"w{number}-1-0")) for number in range(3 * REFUSALS_MAX)], return_exceptions=True
    )
    assert answers.count(None) == REFUSALS_MAX
    assert len(set(bed.pods("create"))) == REFUSALS_MAX


async def test_a_kubelet_that_says_nothing_gets_ten_more_every_few_seconds(bed):
    for first in range(0, 3 * REFUSALS_MAX, REFUSALS_MAX):
        for number in range(first, first + REFUSALS_MAX):
            await bed.act(creation(f"w{number}-1-0"))
        with pytest.raises(NoCapacity):
            await bed.act(creation("next-1-0"))
        bed.clock.advance(SAID_SECONDS + 1)


async def test_a_hollow_node_that_nobody_plays_gets_what_fits(bed):
    bed.server.node("n1", kubelet="")
    await asyncio.gather(*[bed.act(creation(f"w{number}-1-0")) for number in range(3 * REFUSALS_MAX)])
    assert len(set(bed.pods("create"))) == 3 * REFUSALS_MAX


async def test_ranks_find_each_other_also_if_nobody_heard_that_the_first_was_made(bed):
    bed.server.deaf["create", "pods"] = 1
    with pytest.raises(Unavailable):
        await bed.act(creation(size=2))
    await bed.state()
    await bed.until(lambda: [key for key in bed.server.objects if key[0] == "services"])
    ((_, namespace, name),) = [key for key in bed.server.objects if key[0] == "services"]
    assert (namespace, name) == (HOME, bed.server.pod(POD)["spec"]["subdomain"])


async def test_what_was_admitted_long_ago_is_not_made_any_more(bed):
    """A leader is stopped between its look at the fence and its write, until the tombstone is gone."""
    asked = bed.server.create

    async def stopped(kind: Any, *arguments: Any, **options: Any) -> Any:
        if kind.plural == "pods":
            bed.clock.advance(700)
        return await asked(kind, *arguments, **options)

    await bed.cluster.observe()
    bed.server.put("namespaces", "", {"metadata": {"name": HOME}})
    bed.server.create = stopped
    with pytest.raises(Unavailable):
        await bed.act(creation())
    assert [key for key in bed.server.objects if key[0] == "pods"] == []


async def test_a_leader_that_the_api_server_knows_to_be_of_the_past_is_fenced(bed):
    await bed.act(creation("first-1-0"))
    words = (
        "ValidatingAdmissionPolicy 'mainstay-fenced' with binding 'mainstay-fenced' denied request: epoch 1 has passed"
    )
    bed.server.failing["create", "pods"] = Rejected(words)
    with pytest.raises(Fenced, match="epoch 1 has passed"):
        await bed.act(creation())
    bed.server.failing["create", "pods"] = Rejected("denied by another policy")
    with pytest.raises(Invalid, match="another policy"):
        await bed.act(creation())
    assert bed.server.made_by["first-1-0"] == names.leader(SYSTEM, 1)


async def test_whoever_waits_for_a_turn_is_admitted_when_it_comes(bed):
    await bed.act(deletion("before-1-0", node=""))
    bed.cluster._pace._not_before = bed.clock.monotonic() + 30
    later = bed.fresh()
    await later.act(deletion("after-1-0", node=""), epoch=2)
    with pytest.raises(Fenced):
        await bed.act(creation(), epoch=1)
    assert POD not in bed.pods("create")


async def test_a_fence_that_was_set_back_while_a_creation_waited_is_raised_by_the_next(bed):
    await bed.act(creation("before-1-0"))
    bed.cluster._pace._not_before = bed.clock.monotonic() + 30
    asked = bed.server.get

    async def set_back(kind: Any, *arguments: Any) -> Any:
        if kind.plural == "leases" and bed.cluster._pace._in_flight:
            for key in [key for key in bed.server.objects if key[0] == "leases"]:
                del bed.server.objects[key]
        return await asked(kind, *arguments)

    bed.server.get = set_back
    with pytest.raises(NotYet, match="set back"):
        await bed.act(creation())
    bed.server.get = asked
    await bed.act(creation())
    assert bed.pods("create").count(POD) == 1


async def test_a_hopeless_pod_that_has_just_started_is_not_given_up(bed):
    await bed.act(creation())
    waiting = [{"name": names.MAIN, "state": {"waiting": {"reason": "InvalidImageName", "message": "no such"}}}]
    bed.server.status(POD, phase="Pending", startTime=bed.server.stamp(), containerStatuses=waiting)
    await bed.settle()
    bed.server.unseen.add(POD)
    bed.server.run(POD)
    for _ in range(5):
        await bed.cluster.observe()
        await bed.later(1)
    assert (bed.pods("patch"), bed.pods("delete")) == ([], [])


CKPT = Volume(path="/ckpt", name="ckpt", size_bytes=1_000)


def claims(bed: Bed) -> list[str]:
    return [key[2] for key in bed.server.objects if key[0] == "persistentvolumeclaims"]


async def test_a_crash_between_a_claim_and_its_pod_leaves_a_claim_that_the_next_try_takes(bed):
    bed.server.failing["create", "pods"] = Unreachable("away")
    with pytest.raises(Unavailable):
        await bed.act(creation(volumes=(CKPT,)))
    assert claims(bed) == ["ckpt"]
    del bed.server.failing["create", "pods"]
    await bed.fresh().act(creation(volumes=(CKPT,)), epoch=1)
    assert claims(bed) == ["ckpt"]
    assert bed.server.pod(POD)["spec"]["volumes"][-2]["persistentVolumeClaim"]["claimName"] == "ckpt"


async def test_a_claim_whose_making_is_not_answered_is_made_once(bed):
    bed.server.deaf["create", "persistentvolumeclaims"] = 1
    with pytest.raises(Unavailable):
        await bed.act(creation(volumes=(CKPT,)))
    await bed.act(creation(volumes=(CKPT,)))
    assert claims(bed) == ["ckpt"]


async def test_a_claim_that_is_there_is_used_as_it_is_if_it_is_enough(bed):
    small = dataclasses.replace(CKPT, size_bytes=10)
    await bed.act(creation(volumes=(CKPT,)))
    await bed.act(creation("v-1-0", volumes=(small,)))
    await bed.act(creation("u-1-0", volumes=(dataclasses.replace(CKPT, size_bytes=0),)))
    large = dataclasses.replace(CKPT, size_bytes=1_000_000)
    with pytest.raises(Invalid, match="is there with 1,000 bytes, and 1,000,000 are asked for"):
        await bed.act(creation("w2-1-0", volumes=(large,)))
    shared = dataclasses.replace(CKPT, access="ReadWriteMany")
    with pytest.raises(Invalid, match="is there with ReadWriteOnce, and ReadWriteMany is asked for"):
        await bed.act(creation("w3-1-0", volumes=(shared,)))
    assert claims(bed) == ["ckpt"]


async def test_a_claim_that_is_not_there_and_has_no_size_is_refused_in_words_and_no_pod_is_made(bed):
    with pytest.raises(Invalid, match=f"there is no claim ckpt in namespace {HOME}") as refused:
        await bed.act(creation(volumes=(dataclasses.replace(CKPT, size_bytes=0),)))
    assert "`size`" in refused.value.hint
    assert bed.pods("create") == []


async def test_a_pod_that_waits_for_its_claim_holds_its_node_and_says_why(bed):
    volumes = (CKPT,)
    whole = Resources(cpu_milli=64_000, memory_bytes=1)
    await bed.act(creation(volumes=volumes, resources=whole))
    said = "0/1 nodes are available: 1 node(s) had volume node affinity conflict."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    bed.server.status(POD, conditions=[condition])
    state = await bed.state()
    assert (state.node, state.seen) == ("n1", Seen.STARTING)
    assert "another zone or machine" in state.detail
    with pytest.raises(NoCapacity):
        await bed.act(creation("v-1-0"))


async def test_a_pod_that_is_stopped_while_it_waits_for_its_claim_never_started(bed):
    await bed.act(creation(volumes=(CKPT,)))
    await bed.state()
    await bed.act(deletion())
    state = await bed.state()
    assert (state.seen, state.end, state.started_at) == (Seen.ENDED, End.NEVER_STARTED, 0)
    assert claims(bed) == ["ckpt"]


async def test_a_claim_in_a_project_of_several_namespaces_is_refused_in_words(bed):
    async def make_namespace() -> None:
        raise AssertionError

    pace, spread = Pace(clock=bed.clock), Settings(system=SYSTEM, namespaces_per_project=4)
    with pytest.raises(Invalid, match="a project has 4 of them in this cluster"):
        await ensure(bed.server, pace, creation(volumes=(CKPT,)), spread, namespace=HOME, make_namespace=make_namespace)
    scratch = (Volume(path="/tmp2", size_bytes=1),)
    await ensure(bed.server, pace, creation(volumes=scratch), spread, namespace=HOME, make_namespace=make_namespace)
    assert claims(bed) == []


async def test_a_node_gets_no_more_pods_than_it_takes_also_at_once(bed):
    bed.server.node("n1", pods="2")
    await bed.settle()
    found = await asyncio.gather(*[bed.act(creation(f"w{number}-1-0")) for number in range(3)], return_exceptions=True)
    (refused,) = [one for one in found if one is not None]
    assert isinstance(refused, NoCapacity)
    assert "needs 1 place among its pods, 0 are free" in str(refused)


HALF = Resources(cpu_milli=40_000, memory_bytes=1)
"""More than half of a node: there is room for one."""


def binding(bed: Bed, name: str) -> BindPod:
    """Of a pod of others that is there."""
    bed.server.put("pods", "ns", {"metadata": {"name": name}, "spec": {"schedulerName": "mainstay", "containers": []}})
    pod = PodRef(namespace="ns", name=name, uid=bed.server.pod(name)["metadata"]["uid"])
    return BindPod(name=f"{name}-1-0", node="n1", pod=pod, attempt=1, holds=HALF, restriction="")


@pytest.mark.parametrize("outcome", [None, Unreachable("cut"), Rejected("no"), asyncio.CancelledError()])
async def test_a_guest_that_is_being_placed_holds_its_room_until_that_fails(bed, outcome):
    answered, asked = asyncio.Event(), []

    async def bind(_namespace: str, pod: str, **_: Any) -> None:
        asked.append(pod)
        if pod == "first":
            await answered.wait()
            if outcome is not None:
                raise outcome

    bed.server.bind = bind
    await bed.cluster.observe()
    first, second = binding(bed, "first"), binding(bed, "second")
    placing = asyncio.create_task(bed.act(first))
    await bed.until(lambda: asked)
    for other in (second, creation(resources=HALF)):
        with pytest.raises(NoCapacity):
            await bed.act(other)
    with pytest.raises(NotYet):
        await bed.act(first)
    answered.set()
    await asyncio.gather(placing, return_exceptions=True)
    if outcome is None:
        with pytest.raises(NoCapacity):
            await bed.act(second)
        assert asked == ["first"]
    else:
        await bed.act(second)
        assert asked == ["first", "second"]


async def test_output_is_waited_for_until_its_helper_could_be_started(bed: Bed) -> None:
    """Its image is not there yet: what the job wrote lies in the pod, and is no more lost than the helper is there."""
    await bed.act(creation())
    ended = {"exitCode": 0, "startedAt": bed.server.stamp(), "finishedAt": bed.server.stamp()}
    main = {"name": names.MAIN, "state": {"terminated": ended}}
    waits = {"reason": "ImagePullBackOff", "message": "back-off pulling image busybox:1.36"}
    bed.server.status(
        POD,
        phase="Running",
        startTime=bed.server.stamp(),
        containerStatuses=[main, {"name": names.OUTPUTS, "state": {"waiting": waits}}],
    )
    await bed.settle()
    with pytest.raises(Unavailable, match="has not started: the helper image cannot be pulled: back-off pulling"):
        [file async for file in bed.cluster.outputs(POD)]
    gone = {"name": names.OUTPUTS, "state": {"terminated": ended}}
    bed.server.status(POD, phase="Succeeded", startTime=bed.server.stamp(), containerStatuses=[main, gone])
    await bed.settle()
    with pytest.raises(Invalid, match="is lost"):
        [file async for file in bed.cluster.outputs(POD)]
