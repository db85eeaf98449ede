"""Names derive from our ids: one place for each project, and the same for whoever asks."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes import names
from mainstay.domain.allocation import Owner
from tests.unit.clusters.kubernetes.objects import owners

DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
systems = st.text(max_size=40)
anyone = owners | st.builds(Owner, tenant=st.text(max_size=50), project=st.text(max_size=50))


@given(owner=anyone, system=systems, shard=st.integers(0, 999))
def test_a_namespace_is_a_dns_label_whoever_owns_it(owner, system, shard):
    assert DNS_LABEL.match(names.namespace(owner, system=system, shard=shard))


@given(
    one=st.tuples(anyone, systems, st.integers(0, 99)),
    other=st.tuples(anyone, systems, st.integers(0, 99)),
)
def test_two_projects_platforms_or_shards_never_share_a_namespace(one, other):
    same = [names.namespace(owner, system=system, shard=shard) for owner, system, shard in (one, other)]
    assert (same[0] == same[1]) == (one == other)


def test_parts_do_not_flow_into_each_other():
    pairs = [("a-b", "c"), ("a", "b-c"), ("a\0b", "c"), ("a", "b\0c"), ("a-b-c", ""), ("", "a-b-c")]
    found = {names.namespace(Owner(tenant=tenant, project=project), system="s") for tenant, project in pairs}
    found |= {names.namespace(Owner(tenant="c", project="x"), system=system) for system in ("a\0b", "a")}
    found |= {names.namespace(Owner(tenant="b\0c", project="x"), system="a")}
    assert len(found) == len(pairs) + 3


def test_long_names_that_begin_alike_are_told_apart():
    long = [Owner(tenant="t" * 40, project="p" * 39 + end) for end in "ab"]
    assert len({names.namespace(owner, system="s") for owner in long}) == 2


def test_a_namespace_is_never_one_of_the_clusters_own():
    for word in ("default", "kube-system", "kube-public", "kube-node-lease", "mainstay"):
        assert names.namespace(Owner(tenant=word, project=word), system="").startswith("ms-")


@given(gang=st.text(), shards=st.integers(1, 100))
def test_all_ranks_of_a_gang_meet_in_one_shard(gang, shards):
    assert 0 <= names.shard_of(gang, shards) < shards
    assert {names.shard_of(names.gang_of(f"{gang}-{rank}"), shards) for rank in range(5)} == {
        names.shard_of(gang, shards)
    }


@given(system=systems)
def test_the_mark_of_a_platform_is_the_value_of_a_label(system):
    assert LABEL_VALUE.match(names.short(system))


@given(workload=st.from_regex(r"[a-z0-9]{8,12}", fullmatch=True), attempt=st.integers(1, 999))
def test_the_service_of_a_gang_is_a_dns_label(workload, attempt):
    assert DNS_LABEL.match(names.gang_service(f"{workload}-{attempt}"))
