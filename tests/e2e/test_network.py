"""Who reaches whom, tried: jobs of two tenants on a network that enforces policies, and what lives around them in a cluster.

The simulator of the unit tests says what our policies mean; here another's implementation of them (kube-router) holds them in the
kernel, and programs inside of the containers try. The last test takes the policies away: then the same jobs reach all that
they were refused, so nobody was refused for want of somebody who listens.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mainstay.clusters.kubernetes import names, surroundings
from testbed import mainstay_image
from testbed.control_plane import API_ADDRESS
from testbed.node import API_PORT
from testbed.node_files import NAME_SERVER
from tests.clusters import RealCluster
from tests.e2e import probe
from tests.e2e.platform import Platform
from tests.e2e.test_kubernetes import PATIENCE_SECONDS, ROOT, add_cluster, finished, submitted, until
from tests.e2e.test_replicas import replica
from tests.integration.kubernetes.installed import kubectl

pytestmark = pytest.mark.xdist_group("kubernetes")

PROBE = Path(probe.__file__).read_text()
METADATA = "169.254.169.254"
PRIVATE = (METADATA, "168.63.129.16", "100.100.100.200", "10.77.0.1", "172.20.0.1", "192.168.7.7", "198.18.0.1")
"""Metadata of clouds (most of them, Azure, Alibaba), and what stands for nodes and for what else there is in a data centre."""
PUBLIC = "203.0.113.7"
"""It stands for the public world and is in nobody's use (RFC 5737): what goes astray goes nowhere."""
LISTENS = "trap 'exit 0' TERM; httpd -p {0} -h /bin; httpd -p {1} -h /bin; echo up; while :; do sleep 0.2; done"
MODEL, OTHER = 8_080, 9_000
PROJECTS = (("acme", "nlp"), ("acme", "vision"), ("beta", "nlp"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A pod of the cluster that is none of a project, in a namespace without any policy. It listens on two ports."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    ports: tuple[int, int]

    def start(self, real: RealCluster) -> None:
        ask = real.control_plane.ask
        with contextlib.suppress(httpx2.HTTPStatusError):  # it is there
            ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": self.namespace}})
        until(lambda: ask(f"/api/v1/namespaces/{self.namespace}/serviceaccounts")["items"])
        main = {
            "name": "main",
            "image": mainstay_image.mainstay().reference,
            "command": ["sh", "-c", LISTENS.format(*self.ports)],
            "securityContext": {"runAsUser": 0},
        }
        spec = {"nodeName": real.node.name, "terminationGracePeriodSeconds": 0, "containers": [main]}
        body = {"metadata": {"name": self.name, "labels": dict(self.labels)}, "spec": spec}
        ask(f"/api/v1/namespaces/{self.namespace}/pods", method="POST", body=body)

    def listens(self, real: RealCluster) -> bool:
        return "up" in kubectl(
            real.control_plane, "logs", self.name, f"--namespace={self.namespace}", "--ignore-errors"
        )

    def reached(self, real: RealCluster, places: list[str]) -> set[str]:
        """From inside of it."""
        words = ("exec", self.name, f"--namespace={self.namespace}", "--", "python", "-c", PROBE, "0", *places)
        return set(json.loads(kubectl(real.control_plane, *words)))

    def leave(self, real: RealCluster) -> None:
        real.control_plane.ask(f"/api/v1/namespaces/{self.namespace}/pods/{self.name}", method="DELETE")


PLATFORM = surroundings.PLATFORM
DNS = {"k8s-app": "kube-dns"}
STRANGERS = (
    Stranger(namespace="kube-system", name="dns", labels=DNS, ports=(53, 80)),
    Stranger(namespace="web", name="poses", labels={**PLATFORM, **DNS}, ports=(53, MODEL)),
    Stranger(namespace=names.CONTROL_NAMESPACE, name="beside", labels={"app": "beside"}, ports=(MODEL, OTHER)),
    Stranger(namespace=names.CONTROL_NAMESPACE, name="platform", labels=PLATFORM, ports=(MODEL, OTHER)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A job that listens on the port of models and on another."""

    namespace: str
    address: str

    @property
    def places(self) -> set[str]:
        return {f"tcp:{self.address}:{port}" for port in (MODEL, OTHER)}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What there is to be reached, in words of the probe."""

    real: RealCluster
    members: Mapping[str, Platform]
    """By tenant: the platform as its administrator asks it."""
    jobs: Mapping[tuple[str, str], Listener]
    """By tenant and project."""
    allowed: frozenset[str]
    """What every job may reach beside its project."""
    denied: frozenset[str]
    """What none may."""

    @property
    def places(self) -> list[str]:
        """All of them, and first what is never reached once policies hold."""
        first = f"tcp:{METADATA}:80"
        return [first, *sorted({*self.listeners, *self.allowed, *self.denied} - {first})]

    @property
    def listeners(self) -> list[str]:
        return [place for job in self.jobs.values() for place in job.places]

    def reached_by_jobs(self, *, seconds: int) -> dict[tuple[str, str], set[str]]:
        """From inside of a job of each project."""
        runs = {}
        for tenant, project in PROJECTS:
            words = ("python", "-c", PROBE, str(seconds), *self.places)
            runs[tenant, project] = submitted(self.members[tenant], "--project", project, "--", *words)
        found = {}
        for (tenant, project), ref in runs.items():
            up = self.members[tenant]
            assert finished(up, ref)["phase"] == "succeeded", up.mainstay("logs", ref).stdout
            found[tenant, project] = set(json.loads(up.mainstay("logs", ref).stdout))
        return found

    @contextlib.contextmanager
    def without_policies(self) -> Iterator[None]:
        """They are of the projects; the platform makes them once."""
        ask = self.real.control_plane.ask
        paths = [f"/apis/networking.k8s.io/v1/namespaces/{job.namespace}/networkpolicies" for job in self.jobs.values()]
        kept = [ask(f"{path}/{surroundings.NAME}") for path in paths]
        for path in paths:
            ask(f"{path}/{surroundings.NAME}", method="DELETE")
        yield
        for path, policy in zip(paths, kept, strict=True):
            policy["metadata"] = {key: policy["metadata"][key] for key in ("name", "labels")}
            ask(path, method="POST", body=policy)


def shown(real: RealCluster, pod: str) -> dict[str, Any]:
    """Once it has its address."""

    def found() -> Any:
        (one,) = real.control_plane.ask(f"/api/v1/pods?fieldSelector=metadata.name={pod}")["items"]
        return one["status"].get("podIP") and one

    return dict(until(found))


def address(real: RealCluster, pod: str) -> str:
    return str(shown(real, pod)["status"]["podIP"])


@pytest.fixture(scope="module")
def world(real_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory, postgres_server: Any) -> Iterator[World]:
    """A platform of two tenants, with jobs of three projects that listen, among strangers that do."""
    folder = tmp_path_factory.mktemp("tenants")
    real_cluster.node.load(mainstay_image.mainstay())
    postgres_server.create_database("network")
    with ExitStack() as parts:
        parts.enter_context(listening_at(real_cluster, *PRIVATE, PUBLIC))
        for stranger in STRANGERS:
            stranger.start(real_cluster)
            parts.callback(stranger.leave, real_cluster)
        up = parts.enter_context(replica(folder / "state", postgres_server.url("network"), folder / "artifacts"))
        add_cluster(up, real_cluster)
        members = {tenant: member(up, tenant) for tenant in dict(PROJECTS)}
        until(lambda: all(stranger.listens(real_cluster) for stranger in STRANGERS))
        yield World(
            real=real_cluster,
            members=members,
            jobs=parts.enter_context(listening_jobs(real_cluster, members)),
            allowed=allowed(real_cluster),
            denied=denied(real_cluster),
        )
        real_cluster.node.firewall.require_alive()


@contextlib.contextmanager
def listening_jobs(real: RealCluster, members: Mapping[str, Platform]) -> Iterator[dict[tuple[str, str], Listener]]:
    """One in each project."""
    refs = {}
    for tenant, project in PROJECTS:
        up = members[tenant]
        assert up.mainstay("project", "create", project).returncode == 0
        refs[tenant, project] = submitted(up, "--project", project, "--", "sh", "-c", LISTENS.format(MODEL, OTHER))
    jobs = {}
    for (tenant, project), ref in refs.items():
        up = members[tenant]
        until(lambda up=up, ref=ref: up.mainstay("logs", ref).stdout == "up\n")
        pod = shown(real, up.json("show", ref)["pods"][0]["pod"])
        jobs[tenant, project] = Listener(namespace=pod["metadata"]["namespace"], address=pod["status"]["podIP"])
    yield jobs
    for (tenant, _), ref in refs.items():
        assert members[tenant].mainstay("stop", ref).returncode == 0
    for (tenant, _), ref in refs.items():
        finished(members[tenant], ref)


def allowed(real: RealCluster) -> frozenset[str]:
    """The name server of the cluster, the cache of names on the node, and the public world."""
    return frozenset({f"tcp:{address(real, 'dns')}:53", f"dns:{NAME_SERVER}:53", f"tcp:{PUBLIC}:80"})


def denied(real: RealCluster) -> frozenset[str]:
    """What is private; the node and its kubelet; the API server, by its address and as a service; and strangers, by all ports."""
    network = real.node.machine.network
    places = [f"{one}:80" for one in (*PRIVATE, NAME_SERVER, network.inner)]
    places += [f"{network.inner}:10250", f"{network.outer}:{API_PORT}", f"{API_ADDRESS}:443"]
    places += [f"{address(real, one.name)}:{port}" for one in STRANGERS for port in one.ports]
    return frozenset(f"tcp:{place}" for place in places) - allowed(real)


def listening_at(real: RealCluster, *addresses: str) -> ExitStack:
    """Somebody on the node answers connections to port 80 of all of its addresses, these among them."""
    machine = real.node.machine
    with ExitStack() as parts:
        for one in addresses:
            machine.do("ip", "address", "add", f"{one}/32", "dev", "lo")
            parts.callback(machine.do, "ip", "address", "del", f"{one}/32", "dev", "lo")
        server = machine.program("listens", lambda: [sys.executable, "-m", "http.server", "--bind", "0.0.0.0", "80"])
        server.start()
        parts.callback(server.kill)
        return parts.pop_all()


def member(up: Platform, tenant: str) -> Platform:
    """The platform as the first administrator of a new tenant asks it."""
    done = up.mainstay("tenant", "create", tenant, "--admin", "ann", "--json")
    assert done.returncode == 0, done.stderr
    token = json.loads(done.stdout)["token"]
    return replace(up, environment={**up.environment, "MAINSTAY_SERVER": up.url, "MAINSTAY_TOKEN": token})


def test_a_job_reaches_its_project_names_and_the_public_world_and_nothing_else(world: World):
    reached = world.reached_by_jobs(seconds=PATIENCE_SECONDS)
    for project in PROJECTS:
        assert reached[project] == world.jobs[project].places | world.allowed, project


def test_models_are_reached_by_the_pods_of_the_platform_and_by_nobody_who_poses_as_one(world: World):
    models = {place for place in world.listeners if place.endswith(f":{MODEL}")}
    *others, platform = STRANGERS
    until(lambda: platform.reached(world.real, world.listeners) == models)  # in time, like all that is allowed
    for other in others:  # which the network has heard of before
        assert other.reached(world.real, world.listeners) == set(), other


def test_the_command_of_the_page_says_that_the_network_keeps_policies(world: World):
    page = (ROOT / "docs/how-to/harden.md").read_text()
    (script,) = re.findall(
        r"<!-- tried: tests/e2e/test_network.py -->\n```sh\n.+? -- python -c '\n(.+?)'\n```", page, re.DOTALL
    )
    other, up = world.jobs["beta", "nlp"].address, world.members["acme"]
    words = ("--project", "nlp", "--", "python", "-c", script.replace("POD OF ANOTHER PROJECT", other))
    ref = submitted(up, *words)
    assert finished(up, ref)["phase"] == "succeeded"
    said = up.mainstay("logs", ref).stdout
    assert [line.split()[0] for line in said.splitlines()] == ["closed"] * 3, said


def test_without_its_policies_the_same_jobs_reach_all_of_it(world: World):
    with world.without_policies():
        reached = world.reached_by_jobs(seconds=0)
    assert all(reached[project] == set(world.places) for project in PROJECTS), reached
