"""What tenants reach from their pods, over all pairs of them: their own project, names, and the public world."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes import names, pods, surroundings
from mainstay.clusters.kubernetes.names import CONTROL_NAMESPACE
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.allocation import DeletePod, Owner
from tests.clusters import create
from tests.unit.clusters.kubernetes.hostile import FORBIDDEN, HARMLESS, changed
from tests.unit.clusters.kubernetes.objects import OWNER, SETTINGS, SYSTEM, creations, owners
from tests.unit.clusters.kubernetes.policies import Network, Pod
from tests.unit.clusters.kubernetes.safe import dangers

PLATFORM = Pod(namespace=CONTROL_NAMESPACE, labels=surroundings.PLATFORM)
BESIDE = Pod(namespace=CONTROL_NAMESPACE, labels={"app": "something else"})
DNS = Pod(namespace="kube-system", labels={"k8s-app": "kube-dns"})
OTHERS = Pod(namespace="web", labels={"k8s-app": "kube-dns", **surroundings.PLATFORM})
"""A stranger's pod that says it is the name server, and the platform."""
OF_THE_CLUSTER = {CONTROL_NAMESPACE: {}, "kube-system": {}, "web": {}}
PORTS = (1, 22, 53, 80, 443, 5_353, 6_443, pods.PORT, 10_250, pods.GANG_PORT, 65_535)

projects = st.tuples(owners, st.sampled_from([SYSTEM, "beside it"]), st.integers(0, 2))


def home(project: tuple[Owner, str, int]) -> str:
    owner, system, shard = project
    return names.namespace(owner, system=system, shard=shard)


def network(*projects: tuple[Owner, str, int]) -> Network:
    labels, policies = dict(OF_THE_CLUSTER), {}
    for project in projects:
        owner, settings = project[0], Settings(system=project[1])
        labels[home(project)] = surroundings.namespace(home(project), owner, settings)["metadata"]["labels"]
        policies[home(project)] = (surroundings.default_deny(owner, settings),)
    return Network(namespaces=labels, policies=policies)


@given(some=st.lists(projects, min_size=2, max_size=4, unique=True))
def test_pods_reach_those_of_their_own_project_in_all_its_shards_and_of_no_other(some):
    found = network(*some)
    for one, other in itertools.permutations(some, 2):
        reached = {port for port in PORTS if found.allows(Pod(namespace=home(one)), Pod(namespace=home(other)), port)}
        assert reached == (set(PORTS) if one[:2] == other[:2] else set())
    for one in some:
        assert all(found.allows(Pod(namespace=home(one)), Pod(namespace=home(one)), port) for port in PORTS)


@given(
    some=st.lists(projects, min_size=2, max_size=2, unique=True), labels=st.sampled_from([DNS.labels, PLATFORM.labels])
)
def test_no_label_that_a_pod_may_have_opens_another_project_to_it(some, labels):
    one, other = (Pod(namespace=home(project)) for project in some)
    if some[0][:2] != some[1][:2]:
        assert not any(network(*some).allows(replace(one, labels=labels), other, port) for port in PORTS)


@given(project=projects, protocol=st.sampled_from(["UDP", "TCP"]))
def test_of_the_clusters_own_pods_only_the_name_server_is_reached_and_only_for_names(project, protocol):
    found, mine = network(project), Pod(namespace=home(project))
    assert {port for port in PORTS if found.allows(mine, DNS, port, protocol)} == {53}
    for other in (PLATFORM, BESIDE, OTHERS, replace(DNS, labels={})):
        assert not any(found.allows(mine, other, port, protocol) for port in PORTS)


def test_the_name_server_of_openshift_is_reached_where_it_listens():
    namespace, labels, port = surroundings.NAME_SERVERS[1]
    found = network((OWNER, SYSTEM, 0))
    found = replace(found, namespaces={**found.namespaces, namespace: {}})
    there = Pod(namespace=namespace, labels=labels)
    mine = Pod(namespace=home((OWNER, SYSTEM, 0)))
    assert {number for number in PORTS if found.allows(mine, there, number, "UDP")} == {port}


@given(project=projects)
def test_models_are_reached_by_the_platform_and_nobody_else_of_the_cluster(project):
    found, mine = network(project), Pod(namespace=home(project))
    assert {port for port in PORTS if found.allows(PLATFORM, mine, port)} == {pods.PORT}
    for other in (BESIDE, OTHERS, DNS):
        assert not any(found.allows(other, mine, port) for port in PORTS)


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
        *("10.96.0.1", "172.20.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "0.0.0.0", "198.18.0.1"),
        *("fd00:ec2::254", "fe80::1", "2001:db8::1", "::ffff:169.254.169.254"),
    ],
)
def test_metadata_services_api_servers_and_nodes_are_out_of_reach(address):
    """AWS, GCP, Azure and others; ECS; WireServer of Azure; Alibaba; Oracle; the first service of clusters; by IPv6 likewise."""
    found, mine = network((OWNER, SYSTEM, 0)), Pod(namespace=home((OWNER, SYSTEM, 0)))
    assert not any(found.allows(mine, address, port, way) for port in PORTS for way in ("TCP", "UDP"))


def test_the_public_world_is_within_reach_and_the_cache_of_names_for_names():
    found, mine = network((OWNER, SYSTEM, 0)), Pod(namespace=home((OWNER, SYSTEM, 0)))
    assert found.allows(mine, "8.8.8.8", 443)
    cache = surroundings.NAME_CACHE.partition("/")[0]
    assert {port for port in PORTS if found.allows(mine, cache, port, "UDP")} == {53}


def test_a_project_has_no_way_in_from_outside_and_nothing_that_makes_pods():
    hard = surroundings.quota(OWNER, SETTINGS)["spec"]["hard"]
    assert {name for name, most in hard.items() if most == "0"} >= {"services.loadbalancers", "services.nodeports"}
    assert "count/daemonsets.apps" in hard


@given(action=creations())
def test_every_pod_that_we_render_is_in_the_safe_set(action):
    assert dangers(pods.pod(action, SETTINGS)) == []


@given(owner=owners)
def test_so_is_every_tombstone(owner):
    tombstone = DeletePod(name="run-1-0", grace_seconds=1, owner=owner, node="n1")
    assert dangers(pods.tombstone(tombstone, SETTINGS, image="busybox")) == []


PLAIN = pods.pod(create("run-1-0", "n1", script="true"), SETTINGS)


@pytest.mark.parametrize("change", FORBIDDEN, ids=map(str, FORBIDDEN))
def test_the_checker_finds_each_way_out_of_it(change):
    assert dangers(changed(PLAIN, change))


@given(some=st.lists(st.sampled_from(HARMLESS), max_size=5))
def test_the_checker_lets_pass_what_is_harmless(some):
    assert dangers(changed(PLAIN, *some)) == []
