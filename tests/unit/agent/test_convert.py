"""What control plane and agent say to each other loses nothing on the way, and what is not said right is refused."""

from __future__ import annotations

import dataclasses
import json
import typing
from operator import attrgetter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.agent import convert, convert_plan, convert_wanted
from mainstay.decide.guests import new_workload, workload_id
from mainstay.domain import affinity, errors
from mainstay.domain.affinity import Requirement, Spot, Taint, Toleration, traits
from mainstay.domain.allocation import Allocation, Owner, PodState, Seen, Wanted
from mainstay.domain.capacity import Closure, NodeState
from mainstay.domain.errors import Invalid, MainstayError, Unavailable
from mainstay.domain.fleet import Contact
from mainstay.domain.guest import Guest
from mainstay.domain.plan import (
    Advance,
    ClosePod,
    CommitResult,
    ObserveCluster,
    ObserveNodes,
    ObservePod,
    ObserveVolumes,
    QuarantineNode,
    Refused,
    RowVersion,
    StopPod,
    Submit,
)
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.secret import SecretUse
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.volume import VolumeRef, VolumeState
from mainstay.domain.workload import (
    SETS_MAX,
    Elastic,
    Mount,
    Phase,
    PodRef,
    PodSet,
    RetryPolicy,
    Volume,
    Workload,
    WorkloadSpec,
)
from mainstay.ports import WantedChanges
from mainstay.wire import agent as wire
from mainstay.wire import agent_line

WHOLE = st.integers(0, (1 << 62) - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNTS = st.integers(0, wire.COUNT_MAX)
AMOUNTS = st.builds(Resources, cpu_milli=COUNTS, memory_bytes=COUNTS, gpus=COUNTS, gpu_model=TEXT)
REASONS = st.builds(
    Reason, code=st.sampled_from(Code), object=TEXT, numbers=st.dictionaries(TEXT, WHOLE | TEXT, max_size=3)
)


def fields(kind: type, /, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Every field is given, also those that are added later: one that is lost on the way is found."""
    plain = {"int": WHOLE, "str": TEXT, "bool": st.booleans(), "int | None": st.none() | WHOLE}
    given_: dict[str, st.SearchStrategy[Any]] = {}
    for field in dataclasses.fields(kind):
        assert field.name in known or str(field.type) in plain, f"say how {kind.__name__}.{field.name} is made"
        given_[field.name] = known[field.name] if field.name in known else plain[str(field.type)]
    return st.builds(kind, **given_)


def enum(kind: type, field: str) -> st.SearchStrategy[Any]:
    """The values of an enumeration that a field of a class has."""
    return st.from_type(typing.get_type_hints(kind)[field])


WORD = st.text("abcXYZ019", min_size=1, max_size=5)
REQUIREMENTS = fields(
    Requirement, key=WORD, operator=st.sampled_from(("In", "Exists")), values=st.lists(WORD, max_size=2).map(tuple)
)
NEEDS = st.builds(
    affinity.need,
    requirements=st.lists(REQUIREMENTS, max_size=2),
    tolerations=st.lists(fields(Toleration), max_size=2),
    spot=st.sampled_from(Spot),
)
"""What it only prefers is not told an agent: the place is found by then."""
TAINTS = fields(Taint, key=WORD, value=WORD, effect=st.sampled_from(("NoSchedule", "NoExecute")))
TRAITS = st.builds(traits, st.dictionaries(WORD, WORD, max_size=3), st.lists(TAINTS, max_size=2)) | st.builds(
    traits, st.just({"karpenter.sh/capacity-type": "spot"}), st.just([])
)
SPECS = fields(
    WorkloadSpec,
    need=NEEDS,
    kind=enum(WorkloadSpec, "kind"),
    on_partition=enum(WorkloadSpec, "on_partition"),
    run=st.lists(TEXT, max_size=3).map(tuple),
    env=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    mounts=st.lists(fields(Mount), max_size=2).map(tuple),
    choices=st.lists(AMOUNTS, max_size=2).map(tuple),
    retry=fields(RetryPolicy),
    guests=st.lists(fields(PodRef), max_size=2).map(tuple),
    secrets=st.lists(fields(SecretUse), max_size=2).map(tuple),
    volumes=st.lists(fields(Volume), max_size=2).map(tuple),
    devices=st.lists(TEXT, max_size=2).map(tuple),
    topology=st.none() | fields(TopologyNeed, spread=st.none() | fields(Spread)),
    elastic=st.none() | fields(Elastic),
    sets=st.lists(fields(PodSet, resources=AMOUNTS, run=st.lists(TEXT, max_size=2).map(tuple)), max_size=2).map(tuple),
)
PODS = fields(PodState, seen=enum(PodState, "seen"), end=enum(PodState, "end"), revoked=st.just(False))
"""Whether a pod has been revoked concerns the loop beside its cluster alone."""
TEXTS = st.lists(TEXT, max_size=2).map(tuple)
DEVICES = st.lists(st.tuples(TEXT, WHOLE), max_size=2).map(tuple)
NODES = fields(
    NodeState,
    capacity=AMOUNTS,
    admits=TEXTS,
    traits=TRAITS,
    topology=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
    images=DEVICES,
    shapes=DEVICES,
    whole=st.none() | AMOUNTS,
    whole_shapes=DEVICES,
    unhealthy=DEVICES,
    complaints=TEXTS,
    strangers=TEXTS,
    marked=st.none() | st.booleans(),
    pods_max=st.none() | WHOLE,
)
CLOSURES = fields(Closure, keeping=enum(Closure, "keeping"), reason=REASONS)
ALLOCATIONS = fields(
    Allocation,
    ranks=st.integers(1, 1_000),
    resources=AMOUNTS,
    seen=enum(Allocation, "seen"),
    end=enum(Allocation, "end"),
    cluster=st.just("edge"),
    closed=st.just(False),
)


WORKLOADS = fields(Workload, spec=SPECS, phase=enum(Workload, "phase"), reason=REASONS, token=st.just(""))
"""Of guests, which their cluster submits, without a token."""


@st.composite
def changes(draw: st.DrawFn) -> WantedChanges:
    specs = draw(st.dictionaries(WHOLE, SPECS, max_size=2))
    rows = ()
    if specs:
        keys = st.sampled_from(sorted(specs))
        pairs = draw(st.lists(st.tuples(ALLOCATIONS, keys, st.booleans()), max_size=3))
        rows = tuple(
            Wanted(allocation=dataclasses.replace(row, workload_key=key), spec=specs[key], settled=settled)
            for row, key, settled in pairs
        )
    keys = st.lists(WHOLE, max_size=3).map(tuple)
    return WantedChanges(
        version=draw(WHOLE),
        whole=draw(st.booleans()),
        rows=rows,
        closed=draw(keys),
        guests=tuple(draw(st.lists(WORKLOADS.filter(lambda work: work.key not in specs), max_size=2, unique_by=KEY))),
        finished=draw(keys),
        closed_nodes=draw(st.none() | st.dictionaries(TEXT, CLOSURES, max_size=2)),
        removals=draw(st.none() | st.lists(fields(VolumeRef, owner=fields(Owner)), max_size=2).map(tuple)),
    )


KEY = attrgetter("key")
SECONDS = st.integers(0, wire.SECONDS_MAX)
SIZES = st.integers(0, wire.COUNT_MAX)
GUESTS = fields(
    Guest,
    pod=fields(PodRef),
    resources=AMOUNTS,
    group=st.none(),
    state=st.none(),
    problem=st.just(""),
    grace_seconds=SECONDS,
    max_duration_seconds=SECONDS,
    topology=st.none()
    | st.sampled_from(
        [
            TopologyNeed(level="rack", required=True),
            TopologyNeed(level="zone"),
            TopologyNeed(spread=Spread(level="host")),
            TopologyNeed(level="rack", required=True, spread=Spread(level="host")),
        ]
    ),
)


@st.composite
def submissions(draw: st.DrawFn) -> Submit:
    """As a loop makes them: but for the amounts, what they ask for is the same for all."""
    first, *others = draw(st.lists(GUESTS, min_size=1, max_size=3))
    unit = (first, *(dataclasses.replace(first, pod=guest.pod, resources=guest.resources) for guest in others))
    name = workload_id("w", (guest.pod.uid for guest in unit))
    return Submit(reason=Reason(code=Code.SUBMITTED), workload=new_workload("edge", name, unit))


KINDS = (ObservePod, ClosePod, ObserveNodes, ObserveCluster, Submit, Advance, QuarantineNode, ObserveVolumes)


@st.composite
def observations(draw: st.DrawFn) -> Any:
    key, version = draw(WHOLE), draw(WHOLE)
    guards = (RowVersion(kind="allocation", key=key, version=version),) if version else ()
    kind = draw(
        st.sampled_from(
            [ObservePod, ClosePod, ObserveNodes, ObserveCluster, Submit, Advance, QuarantineNode, ObserveVolumes]
        )
    )
    if kind is Submit:
        return draw(submissions())
    if kind is Advance:
        return Advance(
            guards=(RowVersion(kind="workload", key=key, version=version),) if version else (),
            reason=Reason(code=Code.WITHDRAWN, object=draw(TEXT)),
            workload_key=key,
            phase=Phase.STOPPED,
            attempt=draw(WHOLE),
            infrastructure_failures=draw(WHOLE),
            user_failures=draw(WHOLE),
        )
    reason = draw(REASONS)
    if kind is ObservePod:
        return ObservePod(guards=guards, reason=reason, allocation_key=key, state=draw(PODS), output=draw(TEXT))
    if kind is ObserveVolumes:
        one = fields(VolumeState, owner=fields(Owner), size_bytes=SIZES, access=st.lists(TEXT, max_size=2).map(tuple))
        volumes = draw(st.lists(one, max_size=3))
        return ObserveVolumes(reason=reason, cluster="edge", volumes=tuple(volumes))
    if kind is ClosePod:
        return ClosePod(guards=guards, reason=reason, allocation_key=key)
    if kind is ObserveNodes:
        nodes = tuple(draw(st.lists(NODES, max_size=3)))
        return ObserveNodes(reason=reason, cluster="edge", nodes=nodes, at=draw(WHOLE))
    if kind is QuarantineNode:
        return QuarantineNode(
            reason=reason, cluster="edge", node=draw(TEXT), until=draw(WHOLE), refused_at=draw(st.integers(1, 1 << 60))
        )
    return ObserveCluster(reason=reason, cluster="edge", seen=draw(st.sampled_from(Contact)))


def travelled(message: wire.Message) -> Any:
    return convert.decoded(convert.encoded(message), type(message))


@given(changes())
def test_what_is_wanted_arrives_as_it_was(before: WantedChanges):
    assert convert_wanted.wanted_changes(travelled(convert_wanted.wanted_said(before)), cluster="edge") == before


@given(st.lists(observations(), max_size=3).map(tuple))
def test_what_an_effect_loop_commits_arrives_as_it_was(before: tuple[Any, ...]):
    said = travelled(convert_plan.plan_said(7, before))
    assert said.epoch == 7
    assert convert_plan.actions(said, cluster="edge") == before


@given(st.lists(REASONS, max_size=3))
def test_what_became_of_a_plan_arrives_as_it_was(reasons: list[Reason]):
    refused = tuple(Refused(index=index, reason=reason) for index, reason in enumerate(reasons))
    before = CommitResult(version=9, applied=2, refused=refused)
    assert convert_plan.commit_result(travelled(convert_plan.commit_said(before))) == before


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_frame_of_the_line_comes_apart_as_it_was_put_together(header: bytes, data: bytes):
    assert agent_line.parts(agent_line.frame(header, data)) == (header, data)


@given(st.binary(max_size=50))
def test_what_is_no_frame_is_refused_and_nothing_else_happens(message: bytes):
    header, _ = agent_line.parts(message)
    try:
        convert.decoded(header, agent_line.Answered)
    except Invalid:
        return
    raise AssertionError


def test_every_error_that_a_port_may_raise_arrives_under_its_own_name():
    for kind in vars(errors).values():
        if kind is errors.Ended:  # said of a credential that is shown to us: it crosses no port
            continue
        if isinstance(kind, type) and issubclass(kind, MainstayError) and kind.code in convert.ERRORS:
            error = kind("it failed", object_="pod", hint="mend it", numbers={"free": 1})
            said = travelled(convert.failed(error))
            found = convert.raised(said.code, said.message, object_=said.object, hint=said.hint, numbers=said.numbers)
            assert type(found) is kind
            assert vars(found) == vars(error)
    assert isinstance(convert.raised("unheard_of", "x", object_="", hint="", numbers={}), Unavailable)


def test_a_newer_neighbour_may_say_more_than_we_know():
    said = msgspec.to_builtins(convert_plan.plan_said(1, ()))
    assert convert.decoded(msgspec.json.encode({**said, "new": 1}), wire.PlanSaid) == wire.PlanSaid(epoch=1, actions=())


@pytest.mark.parametrize(
    "changed", [{"seen": 99}, {"end": "vanished"}, {"resources": {"cpu_milli": -1}}, {"workload_key": 5}]
)
def test_what_this_version_does_not_know_is_refused_in_words(changed: dict[str, Any]):
    row = {
        "key": 1,
        "workload_key": 2,
        "workload": "w",
        "tenant": "t",
        "project": "p",
        "attempt": 1,
        "rank": 0,
        "node": "n",
        "resources": {},
        "version": 3,
        "created_at": 4,
        **changed,
    }
    spec = {"kind": "job", "name": "w", "run": ["true"]}
    content = msgspec.json.encode({"version": 3, "rows": [row], "specifications": {"2": spec}})
    with pytest.raises(Invalid):
        convert_wanted.wanted_changes(convert.decoded(content, wire.WantedSaid), cluster="edge")


def test_a_text_of_any_length_and_kind_can_be_reported():
    state = PodState(name="p", node="n", seen=Seen.ENDED, detail="x" * 100_000 + "\ud800")
    reason = Reason(code=Code.POD_ENDED, object="o" * 9_000, numbers={"detail": "\ud800" * 9_000})
    said = travelled(convert_plan.plan_said(1, (ObservePod(allocation_key=1, state=state, reason=reason),)))
    (found,) = convert_plan.actions(said, cluster="edge")
    assert isinstance(found, ObservePod)
    assert len(found.state.detail) == len(found.reason.object) == wire.TEXT_MAX


def test_a_pod_that_asks_for_anything_at_all_refuses_no_plan():
    """Anybody may make one: what it asks for beyond all measure is cut, and the loop of its cluster goes on."""
    all_there_is = (1 << 63) - 1
    guest = Guest(
        pod=PodRef(namespace="team", name="web", uid="u"),
        tenant="acme",
        project="team",
        queue="default",
        priority=50,
        resources=Resources(cpu_milli=all_there_is, memory_bytes=all_there_is, gpus=all_there_is),
        restriction="anywhere",
        grace_seconds=all_there_is,
        max_duration_seconds=all_there_is,
    )
    new = new_workload("edge", workload_id("web", ["u"]), (guest,))
    node = NodeState(name="n", capacity=guest.resources, ready=True)
    why = Reason(code=Code.NODE_CHANGED)
    plan = (Submit(workload=new, reason=why), ObserveNodes(cluster="edge", nodes=(node,), at=1, reason=why))
    submitted, observed = convert_plan.actions(travelled(convert_plan.plan_said(1, plan)), cluster="edge")
    assert isinstance(submitted, Submit)
    assert isinstance(observed, ObserveNodes)
    spec = submitted.workload.spec
    assert spec.max_duration_seconds == spec.stop_grace_seconds == wire.SECONDS_MAX
    assert spec.choices[0] == observed.nodes[0].capacity
    assert spec.choices[0].memory_bytes == wire.COUNT_MAX


def test_nothing_can_be_said_but_what_an_effect_loop_commits():
    with pytest.raises(TypeError):
        convert_plan.plan_said(1, (StopPod(allocation_key=1, reason=Reason(code=Code.STOPPED)),))


def test_of_an_agent_that_does_not_tell_how_many_pods_a_node_takes_no_limit_is_known():
    said = wire.NodeSaid(name="n", capacity=convert.amount(Resources()), pods_max=7)
    older = {name: value for name, value in json.loads(convert.encoded(said)).items() if name != "pods_max"}
    known, unknown = (
        convert.decoded(json.dumps(one).encode(), wire.NodeSaid) for one in ({**older, "pods_max": -1}, older)
    )
    assert [convert_plan._node_state(one, {}).pods_max for one in (known, unknown)] == [0, None]


def test_a_level_that_an_agent_made_up_spreads_nothing():
    pod, amount = ("ns", "w", "u"), convert.amount(Resources())
    said = wire.GuestsSubmitted(name="w", pods=(pod,), tenant="t", project="p", queue="q", priority=1, resources=amount)
    for spread, need in (("host", TopologyNeed(spread=Spread(level="host"))), ("row", None), ("", None)):
        found = convert_plan._submission(msgspec.structs.replace(said, spread=spread), "edge")
        assert found.workload.spec.topology == need
    for near, need in ((("rack", True), TopologyNeed(level="rack", required=True)), (("row", True), None)):
        found = convert_plan._submission(msgspec.structs.replace(said, topology=near), "edge")
        assert found.workload.spec.topology == need


@pytest.mark.parametrize("counts", [(), (1,), (3,), (0, 2), (-1, 3), (1,) * (SETS_MAX + 1)])
def test_a_submission_whose_sets_are_of_other_pods_than_it_names_is_refused(counts):
    pods = tuple(("ns", f"w{number}", f"u{number}") for number in range(2 if len(counts) <= SETS_MAX else len(counts)))
    amount = convert.amount(Resources())
    said = wire.GuestsSubmitted(name="w", pods=pods, tenant="t", project="p", queue="q", priority=1, resources=amount)
    said = msgspec.structs.replace(said, sets=tuple((count, amount) for count in counts))
    if not counts:
        assert convert_plan._submission(said, "edge").workload.spec.nodes == 2
        return
    with pytest.raises(Invalid):
        convert_plan._submission(said, "edge")


def test_of_an_agent_that_does_not_tell_where_its_nodes_are_nothing_is_known():
    said = wire.NodeSaid(name="n", capacity=convert.amount(Resources()), topology=(("rack", "r1"),))
    older = {name: value for name, value in json.loads(convert.encoded(said)).items() if name != "topology"}
    assert convert_plan._node_state(said, {}).topology == (("rack", "r1"),)
    assert convert_plan._node_state(convert.decoded(json.dumps(older).encode(), wire.NodeSaid), {}).topology == ()
