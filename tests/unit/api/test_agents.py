"""What the token of an agent opens: its own cluster, and nothing else; every other try leaves a trace."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from mainstay.api.app import TOPICS
from mainstay.decide.guests import workload_id
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation, Owner, Seen
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.plan import AddTenant, IdentifyCluster
from mainstay.domain.reason import Code
from mainstay.domain.secret import SecretUse
from mainstay.domain.workload import Kind, Mount, Phase, PodRef, Workload
from mainstay.operations import agents, secrets
from mainstay.operations.principal import Principal
from mainstay.wire import agent as wire
from mainstay.wire import agent_line
from tests.agents import URL, ControlPlane, control_plane
from tests.stores import TENANT, WHY
from tests.unit.api.conftest import PEOPLE
from tests.unit.api.test_routes import GUARDED, is_problem, named, path_of

WHOSE = Owner(tenant=TENANT, project="default")
OF, LOGS = f"owner={TENANT}/default", f"owner={wire.LOGS}"
OURS, THEIRS = b"our weights", b"their weights"
CARRY = [route for topic in TOPICS if topic.topic == "agents" for route in topic.declared]


@dataclass
class Two:
    """A control plane with two clusters behind agents, one pod on each; we hold the token of `edge`."""

    plane: ControlPlane
    http: httpx2.AsyncClient
    token: str
    other_token: str
    ours: Allocation
    theirs: Allocation
    trees: dict[bytes, str]
    epoch: int = 0

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = "",
        protocol: str = str(wire.PROTOCOL),
        **rest: Any,
    ) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token or self.token}", wire.PROTOCOL_HEADER: protocol}
        content = rest.pop("content", None) or (None if body is None else msgspec.json.encode(body))
        return await self.http.request(method, f"/v1/agent/{path}", headers=headers, content=content, **rest)

    async def commit(self, *acts: dict[str, Any], epoch: int | None = None, **options: Any) -> httpx2.Response:
        body = {"epoch": self.epoch if epoch is None else epoch, "actions": acts}
        return await self.ask("POST", "plans", body, **options)

    async def store_tree(self, content: bytes, *, of: str = OF, **options: Any) -> dict[str, str]:
        """As an agent does: the file, then the tree. What is said of it when it fills a slot."""
        digest, tree = hashlib.sha256(content).hexdigest(), tree_of(content)
        receipt = (await self.ask("PUT", f"blobs/{digest}?{of}", content=content, **options)).json()["receipt"]
        body = {"manifest": tree.manifest.decode(), "receipts": {digest: receipt}}
        stored = (await self.ask("POST", f"trees?{of}", body, **options)).json()
        return {"tree": stored["digest"], "receipt": stored["receipt"]}

    def denials(self) -> list[str]:
        rows = self.plane.store.audit(after=0, limit=1_000)
        return [f"{row.actor} {row.object}" for row in rows if row.action == "deny"]

    def rows(self) -> tuple[Allocation, ...]:
        """Of the other cluster."""
        return tuple(row.allocation for row in self.plane.store.wanted("west"))


def tree_of(content: bytes) -> Tree:
    digest = hashlib.sha256(content).hexdigest()
    return Tree(entries=(Entry(path="model.txt", size=len(content), digest=digest),))


async def stored(plane: ControlPlane, content: bytes) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        yield content

    files = plane.services.artifacts.of(WHOSE)
    await files.put(hashlib.sha256(content).hexdigest(), chunks())
    return await files.put_tree(tree_of(content))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    with control_plane(tmp_path, people=PEOPLE) as plane:
        token, other = plane.add("edge"), plane.add("west")
        scene = plane.scene
        trees = {content: await stored(plane, content) for content in (OURS, THEIRS)}
        pods = []
        for name, content in (("edge", OURS), ("west", THEIRS)):
            scene.applied(IdentifyCluster(cluster=name, identity=f"uid-of-{name}", reason=WHY))
            (node,) = scene.fleet(cluster=name)
            mounts = (Mount(path=".", tree=trees[content]),)
            work = scene.submit(cluster=name, mounts=mounts, env=(("SECRET", name),))
            scene.applied(scene.allocate(work, node=node))
            pods.append(plane.store.allocations(work.key)[0])
        transport = httpx2.ASGITransport(plane.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
            two = Two(plane, http, token, other, *pods, trees)
            lease = await two.ask("POST", "lease", {"holder": "us", "seconds": 6.0})
            two.epoch = lease.json()["epoch"]
            yield two


def observed(pod: Allocation, seen: Seen = Seen.STARTING, **changes: Any) -> dict[str, Any]:
    return {
        "type": "observe_pod",
        "allocation_key": pod.key,
        "state": {"name": pod.pod, "node": pod.node, "seen": int(seen), **changes.pop("state", {})},
        "reason": {"code": "PodStarting", "object": pod.pod},
        **changes,
    }


def ended(pod: Allocation, **changes: Any) -> dict[str, Any]:
    return observed(pod, Seen.ENDED, state={"end": "exited", "exit_code": 0}, **changes)


NODES = {"type": "observe_nodes", "nodes": [], "reason": {"code": "NodeChanged"}}
STRANGE = (
    "submit",
    "allocate",
    "request_stop",
    "stop_pod",
    "record_usage",
    "set_price",
    "add_cluster",
    "remove_cluster",
)


@pytest.mark.parametrize("route", [route for route in GUARDED if route not in CARRY], ids=named)
async def test_the_token_of_an_agent_opens_nothing_of_the_public_api(two: Two, route: Any) -> None:
    answer = await two.http.request(route.method, path_of(route), headers={"Authorization": f"Bearer {two.token}"})
    is_problem(answer, 403)
    assert two.denials() == [f"agent/edge {path_of(route)}"]


@pytest.mark.parametrize("route", CARRY, ids=named)
async def test_no_person_and_no_stranger_opens_what_belongs_to_agents(two: Two, route: Any) -> None:
    for token in PEOPLE:
        is_problem(
            await two.http.request(route.method, path_of(route), headers={"Authorization": f"Bearer {token}"}), 403
        )
    for token in ("", "msa_", f"msa_{'x' * 43}", two.token[:-1], two.token + "x"):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        is_problem(await two.http.request(route.method, path_of(route), headers=headers), 401)


@pytest.mark.parametrize("kind", STRANGE)
async def test_an_agent_commits_nothing_but_what_an_effect_loop_does(two: Two, kind: str) -> None:
    version = two.plane.store.version()
    is_problem(await two.commit({"type": kind, "allocation_key": two.ours.key, "workload_key": 1}), 403)
    assert two.denials() == ["agent/edge plans"]
    assert two.plane.store.version() == version + 1


@pytest.mark.parametrize(
    "act",
    [observed, ended, lambda pod: {"type": "close_pod", "allocation_key": pod.key, "reason": {"code": "PodEnded"}}],
)
async def test_an_agent_says_nothing_of_the_pods_of_another_cluster(
    two: Two, act: Callable[[Allocation], dict[str, Any]]
) -> None:
    before = two.rows()
    is_problem(await two.commit(act(two.theirs)), 403)
    is_problem(await two.commit(act(replace(two.theirs, key=999_999))), 403)
    assert two.rows() == before
    assert two.denials()


async def test_administrators_see_whether_the_agent_of_a_cluster_is_connected(two: Two) -> None:
    async def shown() -> dict[str, bool | None]:
        found = await two.http.get("/v1/clusters", headers={"Authorization": "Bearer admin-token"})
        return {row["name"]: row["agent_heard"] for row in found.json()["items"]}

    assert await shown() == {"edge": True, "west": False}
    two.plane.clock.advance(agents.LEASE_SECONDS_MAX + 1)
    assert await shown() == {"edge": False, "west": False}
    two.plane.store.acquire("cluster/west", holder="a-replica", now=two.plane.clock.now(), seconds=60)
    assert await shown() == {"edge": False, "west": False}


async def test_an_agent_leads_its_own_cluster_only(two: Two) -> None:
    """Which one stands in no message: it comes from the token."""
    held = two.plane.store.held("cluster/west")
    await two.ask("POST", "lease", {"holder": "us", "seconds": 6.0, "lease": "cluster/west", "cluster": "west"})
    assert two.plane.store.held("cluster/west") == held
    assert two.plane.store.held("schedule") is None
    is_problem(await two.commit(NODES, epoch=two.epoch + 1), 409)
    is_problem(await two.commit(NODES, epoch=0), 409)


async def test_an_agent_holds_its_lease_for_seconds_only_and_by_our_clock(two: Two) -> None:
    await two.ask("POST", "lease", {"holder": "us", "seconds": 1e9})
    held = two.plane.store.held("cluster/edge")
    assert held is not None
    assert held.until - two.plane.clock.now() <= agents.LEASE_SECONDS_MAX * 1_000_000


async def test_an_agent_reads_what_is_wanted_of_its_own_cluster_only(two: Two) -> None:
    text = (await two.ask("GET", "wanted")).text
    assert two.ours.pod.removesuffix("-1-0") in text
    assert "west" not in text
    assert two.theirs.workload not in text
    assert (await two.ask("GET", "wanted?cluster=west")).text == text


async def test_an_agent_reads_the_files_that_its_own_pods_mount_and_no_others(two: Two) -> None:
    ours, theirs = two.trees[OURS], two.trees[THEIRS]
    manifest = (await two.ask("GET", f"trees/{ours}?{OF}")).json()["manifest"]
    digest = Tree.of_manifest(manifest.encode()).entries[0].digest
    assert (await two.ask("GET", f"blobs/{digest}?tree={ours}&{OF}")).content == OURS
    strange = hashlib.sha256(THEIRS).hexdigest()
    slot = f"log-west/{two.theirs.pod}"
    await two.plane.services.artifacts.logs.commit(slot, attempt=1, tree=theirs)
    for path in (
        f"trees/{theirs}?{OF}",
        f"trees/{theirs}?{LOGS}&slot={slot}",
        f"trees/{theirs}?{LOGS}&slot=log-edge/nothing-1-0",
        f"trees/{ours}?owner=else/default",
        f"blobs/{strange}?{OF}",
        f"blobs/{strange}?tree={theirs}&{OF}",
        f"blobs/{strange}?tree={ours}&{OF}",
        f"blobs/{strange}?tree={theirs}&slot={slot}&{LOGS}",
        f"slots?slot={slot}",
        f"slots?slot={two.theirs.workload}/output",
        "slots?slot=../../etc",
    ):
        two.plane.clock.advance(2)
        is_problem(await two.ask("GET", path), 403)
    assert len(two.denials()) == 11


async def test_the_log_of_its_own_pod_is_kept_and_read_again(two: Two) -> None:
    sent, slot = await two.store_tree(b"a line\n", of=LOGS), f"log-edge/{two.ours.pod}"
    assert (await two.ask("POST", "slots", {"slot": slot, "attempt": 1, **sent})).status_code == 200
    tree = sent["tree"]
    assert (await two.ask("GET", f"slots?slot={slot}")).json() == {"attempt": 1, "tree": tree}
    digest = hashlib.sha256(b"a line\n").hexdigest()
    assert (await two.ask("GET", f"trees/{tree}?{LOGS}&slot={slot}")).status_code == 200
    assert (await two.ask("GET", f"blobs/{digest}?tree={tree}&slot={slot}&{LOGS}")).content == b"a line\n"


async def test_an_agent_fills_the_slots_of_its_own_pods_only(two: Two) -> None:
    tree = await two.store_tree(b"made here")
    ours, theirs = two.ours.workload, two.theirs.workload
    for slot, attempt in (
        (f"{theirs}/output", 1),
        (f"{ours}/output", 2),
        (f"{ours}/other", 1),
        (f"log-west/{two.theirs.pod}", 1),
        (f"log-edge-{ours}/output", 1),
        ("log-edge/output", 1),
        ("", 1),
    ):
        two.plane.clock.advance(2)
        is_problem(await two.ask("POST", "slots", {"slot": slot, "attempt": attempt, **tree}), 403)
    assert len(two.denials()) == 7
    assert (await two.ask("POST", "slots", {"slot": f"{ours}/output", "attempt": 1, **tree})).status_code == 200


async def test_an_agent_cannot_pass_off_files_of_others_as_the_output_of_its_pod(two: Two) -> None:
    """Neither by naming their tree, nor by a tree of their files, nor by asking whether they are there."""
    theirs = two.trees[THEIRS]
    is_problem(await two.commit(ended(two.ours, output=theirs)), 403)
    filled = {"slot": f"{two.ours.workload}/output", "attempt": 1, "tree": theirs}
    is_problem(await two.ask("POST", "slots", filled), 409)
    manifest, digest = tree_of(THEIRS).manifest.decode(), hashlib.sha256(THEIRS).hexdigest()
    receipt = (await two.ask("PUT", f"blobs/{digest}?{OF}", content=THEIRS, token=two.other_token)).json()["receipt"]
    for shown in ({}, {digest: ""}, {digest: "0" * 64}, {digest: "ä"}, {digest: receipt}):
        stored = (await two.ask("POST", f"trees?{OF}", {"manifest": manifest, "receipts": shown})).json()
        assert (stored["missing"], stored.get("receipt", "")) == ([digest], "")
    tree = await two.store_tree(b"made here")
    await two.ask("POST", "slots", {"slot": f"{two.ours.workload}/output", "attempt": 1, **tree})
    assert (await two.commit(ended(two.ours, output=tree["tree"]))).json()["applied"] == 1
    assert two.plane.scene.workload(two.ours.workload).output == tree["tree"]


async def test_an_agent_is_handed_the_secrets_of_its_own_pods_only_and_each_time_is_on_record(two: Two) -> None:
    scene, services = two.plane.scene, two.plane.services
    alice = Principal(name="alice", tenant=two.ours.tenant, role="maintainer")
    secrets.put(two.plane.store, services.sealing, alice, "hf-token", b"canary", now=scene.now)
    nodes = {node.cluster: node for node in two.plane.store.nodes()}
    pods = []
    for name in ("edge", "west"):
        work = scene.submit(cluster=name, secrets=(SecretUse(name="hf-token", env="HF_TOKEN"),))
        scene.applied(scene.allocate(work, node=nodes[name]))
        pods.append(two.plane.store.allocations(work.key)[0])
    ours, theirs = pods
    asked = {"pod": ours.pod, "tenant": ours.tenant, "project": ours.project}
    said = (await two.ask("POST", "secrets", asked)).json()
    assert said == {"secrets": [{"name": "hf-token", "env": "HF_TOKEN", "value": "Y2FuYXJ5"}]}
    events = two.plane.store.events(tenant=ours.tenant, workload=ours.workload, after=0, limit=100)
    told = [(row.actor, row.object) for row in events if row.reason.code is Code.SECRETS_HANDED]
    assert told == [("cluster/edge", ours.pod)]
    is_problem(await two.ask("POST", "secrets", {**asked, "pod": theirs.pod}), 403)
    assert two.denials()
    is_problem(await two.ask("POST", "secrets", {**asked, "pod": "nobody-1-0"}), 404)
    is_problem(await two.ask("POST", "secrets", {**asked, "project": "other"}), 404)


def test_no_secret_is_shown_by_the_message_that_carries_it() -> None:
    message = wire.SecretsSaid(secrets=(wire.SecretSaid(name="hf-token", value=b"canary"),))
    assert "canary" not in repr(message)


@pytest.mark.parametrize("code", ["Completed", "UserFailure", "ClusterRemoved", "Nonsense"])
async def test_an_agent_puts_no_words_into_the_mouths_of_others(two: Two, code: str) -> None:
    is_problem(await two.commit(observed(two.ours, reason={"code": code})), 422)


async def test_an_agent_cannot_witness_the_future(two: Two) -> None:
    await two.commit({**NODES, "at": 1 << 60})
    assert two.plane.store.cluster("edge").observed_at <= two.plane.clock.now()


@pytest.mark.parametrize("started", [0, -(1 << 62), 1, 1 << 62])
@pytest.mark.parametrize("ended_at", [0, -(1 << 62), 1, 1 << 62])
async def test_no_pod_ran_before_it_had_its_place_nor_in_the_future(two: Two, started: int, ended_at: int) -> None:
    """What is said beyond that would be charged, and no date shows it: nobody could look at the workload any more."""
    times = {"started_at": started, "ended_at": ended_at}
    act = observed(two.ours, Seen.ENDED, state={"end": "exited", "exit_code": 0, **times})
    assert (await two.commit(act)).json()["applied"] == 1
    (row,) = two.plane.store.allocations(two.ours.workload_key)
    now = two.plane.clock.now()
    first = two.ours.created_at
    for time in (row.started_at, row.ended_at):
        assert time == 0 or min(first, now) <= time <= max(first, now)
    shown = await two.http.get(f"/v1/workloads/{two.ours.workload}", headers={"Authorization": "Bearer admin-token"})
    assert shown.status_code == 200


async def test_a_repeated_commit_does_nothing_more(two: Two) -> None:
    act = observed(two.ours, version=two.ours.version)
    first, again = await two.commit(act), await two.commit(act)
    assert first.json()["applied"] == 1
    assert again.json()["applied"] == 0
    assert again.json()["refused"][0]["reason"]["code"] == "GuardFailed"
    assert not two.denials()


async def test_a_new_token_ends_the_one_before_it_at_once_and_a_removed_cluster_ends_its_token(two: Two) -> None:
    admin = {"Authorization": "Bearer admin-token"}
    answer = await two.http.post("/v1/clusters/edge/token", headers=admin)
    new = answer.json()["token"]
    assert (answer.status_code, answer.json()["cluster"]) == (201, "edge")
    is_problem(await two.ask("GET", "wanted"), 401)
    assert (await two.ask("GET", "wanted", token=new)).status_code == 200
    two.plane.add("north")
    third = (await two.http.post("/v1/clusters/north/token", headers=admin)).json()["token"]
    assert (await two.ask("GET", "wanted", token=third)).status_code == 200
    assert (await two.http.delete("/v1/clusters/north", headers=admin)).status_code == 204
    is_problem(await two.ask("GET", "wanted", token=third), 401)


async def test_a_repeated_request_for_a_token_makes_no_other_and_shows_none(two: Two) -> None:
    headers = {"Authorization": "Bearer admin-token", "Idempotency-Key": "k"}
    first = (await two.http.post("/v1/clusters/edge/token", headers=headers)).json()["token"]
    again = await two.http.post("/v1/clusters/edge/token", headers=headers)
    assert (again.status_code, again.json()["token"]) == (201, "")
    assert (await two.ask("GET", "wanted", token=first)).status_code == 200


async def test_only_a_cluster_with_an_agent_has_a_token(two: Two) -> None:
    headers = {"Authorization": "Bearer admin-token"}
    west = {"name": "sim", "simulated": [{"count": 1, "cpu": "4", "memory": "4GB"}]}
    assert (await two.http.post("/v1/clusters", headers=headers, json=west)).status_code == 201
    is_problem(await two.http.post("/v1/clusters/sim/token", headers=headers), 409)
    is_problem(await two.http.post("/v1/clusters/none/token", headers=headers), 404)
    is_problem(await two.http.post("/v1/clusters", headers=headers, json={"name": "sim", "agent": True}), 409)


@pytest.mark.parametrize("token", ["user-token", "viewer-token"])
async def test_tokens_are_made_by_administrators_only(two: Two, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    is_problem(await two.http.post("/v1/clusters/edge/token", headers=headers), 403)
    is_problem(await two.http.post("/v1/clusters", headers=headers, json={"name": "x", "agent": True}), 403)


async def test_a_token_is_shown_once_and_only_its_hash_is_kept(two: Two, tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer admin-token", "Idempotency-Key": "k"}
    first = await two.http.post("/v1/clusters", headers=headers, json={"name": "south", "agent": True})
    token = first.json()["token"]
    assert (first.status_code, first.json()["state"]) == (201, "connecting")
    assert len(token) >= 43 + len("msa_")
    again = await two.http.post("/v1/clusters", headers=headers, json={"name": "south", "agent": True})
    assert (again.status_code, again.json()["token"]) == (201, "")
    assert (await two.ask("GET", "wanted", token=token)).status_code == 200
    changed = await two.http.post(
        "/v1/clusters",
        headers={**headers, "Idempotency-Key": "k2"},
        json={"name": "south", "agent": True, "image": "x"},
    )
    assert (changed.json()["token"], changed.json()["image"]) == ("", "x")
    assert (await two.ask("GET", "wanted", token=token)).status_code == 200
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
    shown = await two.http.get("/v1/clusters/south", headers={"Authorization": "Bearer admin-token"})
    assert shown.json()["token"] == ""
    assert agents.digest_of(token) not in shown.text


@pytest.mark.parametrize(
    "extra", [{"kubeconfig": "x"}, {"context": "x"}, {"in_cluster": True}], ids=lambda extra: next(iter(extra))
)
async def test_an_agent_is_given_its_way_where_it_runs_and_not_here(two: Two, extra: dict[str, Any]) -> None:
    headers = {"Authorization": "Bearer admin-token"}
    answer = await two.http.post("/v1/clusters", headers=headers, json={"name": "south", "agent": True, **extra})
    is_problem(answer, 422)


@pytest.mark.parametrize("protocol", ["", "0", str(wire.PROTOCOL + 1), "x", "99999999999"])
async def test_an_agent_of_a_version_that_is_no_neighbour_is_told_what_to_upgrade(two: Two, protocol: str) -> None:
    for method, path in (
        ("GET", "cluster"),
        ("GET", "wanted"),
        ("POST", "lease"),
        ("POST", "plans"),
        ("POST", "hello"),
    ):
        problem = is_problem(await two.ask(method, path, {}, protocol=protocol), 422)
        assert "upgrade the" in problem["hint"]


async def test_what_is_no_message_is_a_problem_and_never_an_error_of_ours(two: Two) -> None:
    for path in ("hello", "lease", "plans", "trees", "slots", "secrets", "closed"):
        for content in (
            b" ",
            b"{",
            b"[]",
            b"null",
            b"\xff",
            b'{"epoch":1}',
            b'{"epoch":"x","actions":[]}',
            b"[" * 9_000,
        ):
            is_problem(await two.ask("POST", path, content=content), 422)


async def test_names_and_numbers_of_any_size_are_refused(two: Two) -> None:
    tree = await two.store_tree(b"made here")
    slot = {"slot": f"log-edge/{two.ours.pod}", "attempt": 1, **tree}
    for path, body in (
        ("lease", {"holder": "x" * (wire.TEXT_MAX + 1), "seconds": 6.0}),
        ("slots", {**slot, "attempt": 10**300}),
        ("slots", {**slot, "slot": "x" * (wire.TEXT_MAX + 1)}),
    ):
        is_problem(await two.ask("POST", path, body), 422)


@pytest.mark.parametrize("name", ["a\0b", "\0", "a\nb", "a\n"])
async def test_a_name_that_no_database_can_hold_is_refused(two: Two, name: str) -> None:
    is_problem(await two.ask("POST", "lease", {"holder": name, "seconds": 6.0}), 422)
    is_problem(await two.ask("POST", "closed", {"pods": [name]}), 422)
    is_problem(await two.ask("POST", "secrets", {"pod": name, "tenant": "t", "project": "p"}), 422)
    is_problem(await two.ask("POST", "hello", {"identity": name}), 422)


async def test_one_token_waits_for_changes_a_few_times_at_once_and_not_more(two: Two) -> None:
    async with asyncio.TaskGroup() as group:
        version = (await two.ask("GET", "wanted")).json()["version"]
        path = f"wanted?since={version}&wait=30"
        waiting = [group.create_task(two.ask("GET", path)) for _ in range(agents.POLLS_MAX)]
        counted = two.plane.services.agents._polls
        async with asyncio.timeout(5):
            while counted["edge"] < agents.POLLS_MAX:
                await asyncio.sleep(0.01)
        problem = is_problem(await two.ask("GET", path), 503)
        assert problem["hint"] == (
            "one agent asks once at a time: does another program use its token? mainstay cluster token edge"
        )
        assert (await two.ask("GET", "wanted")).status_code == 200, "what does not wait is answered"
        assert (await two.ask("GET", "wanted?wait=0.01", token=two.other_token)).status_code == 200
        for task in waiting:
            task.cancel()
    assert counted["edge"] == 0


async def test_denials_of_a_thief_do_not_fill_the_disk(two: Two) -> None:
    for _ in range(20):
        await two.ask("GET", f"trees/{'0' * 64}?{OF}")
    assert len(two.denials()) == 1


def test_what_agents_ask_needs_the_right_that_they_alone_have() -> None:
    needed = {
        route.path: route.permission
        for topic in TOPICS
        for route in (*topic.declared, *topic.sockets)
        if route.path.startswith(wire.PATHS) or route.permission is Permission.CARRY
    }
    assert agent_line.LINE_PATH in needed
    assert set(needed.values()) == {Permission.CARRY}
    assert all(path.startswith(wire.PATHS) for path in needed)


def guests(**changes: Any) -> dict[str, Any]:
    return {
        "type": "submit_guests",
        "name": "web",
        "pods": [["team", "web", "uid-1"]],
        "tenant": "acme",
        "project": "team",
        "queue": "default",
        "priority": 50,
        "resources": {"cpu_milli": 1_000},
        "restriction": "anywhere",
        **changes,
    }


async def test_an_agent_submits_pods_of_others_as_they_are_and_nothing_else(two: Two) -> None:
    """Whatever else is said, it becomes a workload of guests, bound to the very cluster, under the id of its pods."""
    more = {"kind": "job", "run": ["/bin/sh"], "cluster": "west", "id": "ours", "image": "x", "env": [["A", "B"]]}
    assert (await two.commit(guests(**more))).json()["applied"] == 1
    (found,) = two.plane.store.guests("edge")
    spec = found.spec
    assert (spec.kind, spec.cluster, spec.run, spec.image, spec.env) == (Kind.POD, "edge", (), "", ())
    assert found.id == workload_id("web", ["uid-1"])
    assert found.submitted_by == "cluster/edge"
    again = (await two.commit(guests())).json()
    assert (again["applied"], again["refused"][0]["reason"]["code"]) == (0, "Duplicate")
    assert [row["id"] for row in (await two.ask("GET", "wanted")).json()["guests"]] == [found.id]
    assert "guests" not in (await two.ask("GET", "wanted", token=two.other_token)).json()


@pytest.mark.parametrize(
    "changes",
    [
        {"pods": []},
        {"name": "../x"},
        {"name": "x" * 100},
        {"tenant": ""},
        {"project": "a/b"},
        {"queue": "Q"},
        {"priority": 101},
        {"priority": -1},
        {"resources": {"cpu_milli": -1}},
        {"resources": {"cpu_milli": 1 << 60}},
        {"grace_seconds": 1 << 63},
    ],
    ids=str,
)
async def test_guests_that_nobody_could_submit_are_refused(two: Two, changes: dict[str, Any]) -> None:
    is_problem(await two.commit(guests(**changes)), 422)
    assert not two.plane.store.guests("edge")


async def test_an_agent_withdraws_guests_of_its_own_cluster_only(two: Two) -> None:
    scene = two.plane.scene
    pod = PodRef(namespace="team", name="web", uid="uid-2")
    foreign = scene.submit(kind=Kind.POD, run=(), guests=(pod,), cluster="west")
    job = scene.submit(cluster="edge")
    await two.commit(guests())
    (ours,) = two.plane.store.guests("edge")

    def withdrawn(work: Workload) -> dict[str, Any]:
        return {"type": "withdraw_guests", "workload_key": work.key, "attempt": 1, "version": work.version}

    for work in (foreign, job):
        is_problem(await two.commit(withdrawn(work)), 403)
        assert scene.workload(work.id).phase is Phase.PENDING
    assert two.denials()
    assert (await two.commit(withdrawn(ours))).json()["applied"] == 1
    assert not two.plane.store.guests("edge")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8650", "169.254.169.254:80", "west/x-1-0:8650", "[::1]:22", "edge/../x:1", "a@b:1"]
)
async def test_an_address_that_an_agent_reports_becomes_a_tunnel_to_that_very_pod(two: Two, address: str) -> None:
    port = address.rpartition(":")[2]
    answer = await two.commit(observed(two.ours, Seen.RUNNING, state={"address": address, "ready": True}))
    assert answer.json()["applied"] == 1
    (pod,) = two.plane.store.wanted("edge")
    assert pod.allocation.address == f"edge/{two.ours.pod}:{port}"


@pytest.mark.parametrize("address", ["host", "host:", "host:0", "host:65536", "host:-1", "host:²", "x:" + "9" * 5_000])
async def test_what_is_no_address_of_a_pod_is_refused(two: Two, address: str) -> None:
    answer = await two.commit(observed(two.ours, Seen.RUNNING, state={"address": address}))
    assert is_problem(answer, 422)
    (pod,) = two.plane.store.wanted("edge")
    assert not pod.allocation.address


async def test_an_agent_that_runs_all_jobs_as_one_user_is_let_in_for_one_tenant_only(two: Two) -> None:
    """Source: security.md E6. Whoever let it in nevertheless would let jobs of one tenant read the files of another's."""
    hello = {"identity": "uid-of-edge", "one_user": True}
    two.plane.scene.applied(AddTenant(tenant="a", reason=WHY))
    assert (await two.ask("POST", "hello", hello)).status_code == 200
    assert two.plane.store.cluster("edge").settings.one_user
    (refused,) = two.plane.scene.commit(AddTenant(tenant="b", reason=WHY)).refused
    assert refused.reason.code is Code.ONE_USER
    assert (await two.ask("POST", "hello", {**hello, "one_user": False})).status_code == 200
    two.plane.scene.applied(AddTenant(tenant="b", reason=WHY))
    problem = is_problem(await two.ask("POST", "hello", hello), 422)
    assert "runs all jobs as one user" in problem["detail"]
    assert problem["hint"] == "start the agent beside a Kubernetes cluster, without --local"
