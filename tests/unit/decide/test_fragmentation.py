"""Fragmentation and the score on it, against slow oracles that are written from the definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.placement import gpu_score
from mainstay.decide.placement.fragmentation import Fragmentation, NodeCards
from mainstay.decide.placement.gpu_score import GpuScore
from mainstay.decide.placement.mix import CardRequest, Mix, mix_of, usual
from mainstay.domain.workload import Phase
from tests import worlds

CARDS = 3
MILLI = st.sampled_from([0, 100, 250, 300, 500, 750, 1_000])
ASKED = st.sampled_from([100, 250, 300, 500, 750, 1_000])


@dataclass(frozen=True)
class Node:
    cards: tuple[int, ...]
    cpu_milli: int
    model: int


NODES = st.lists(
    st.builds(Node, st.tuples(*[MILLI] * CARDS), st.sampled_from([0, 1_000, 4_000, 16_000]), st.integers(0, 2)),
    min_size=1,
    max_size=6,
)
WITHOUT = st.builds(CardRequest, cpu_milli=st.sampled_from([0, 1_000, 4_000]))
WITH = st.builds(
    CardRequest,
    cpu_milli=st.sampled_from([0, 1_000, 4_000]),
    gpus=st.integers(1, CARDS),
    gpu_milli=ASKED,
    models=st.sampled_from([(), (0,), (1, 2), (7,)]),
)
REQUEST = WITHOUT | WITH
MIX = st.dictionaries(REQUEST, st.integers(1, 9), max_size=5).map(lambda counts: Mix(counts=counts))


def columns(nodes):
    return NodeCards(
        gpu_milli=np.array([node.cards for node in nodes], dtype=np.int64).reshape(len(nodes), -1),
        cpu_milli=np.array([node.cpu_milli for node in nodes], dtype=np.int64),
        model=np.array([node.model for node in nodes], dtype=np.int64),
    )


def rows_of(nodes):
    return np.arange(len(nodes))


def fits(node, request):
    enough = sum(free >= request.gpu_milli for free in node.cards) >= request.gpus
    will_do = not request.gpus or not request.models or node.model in request.models
    return node.cpu_milli >= request.cpu_milli and enough and will_do


def fragmentation_of(node, mix):
    """In GPUs, from the definition."""
    lost = 0
    for request, count in mix.counts.items():
        usable = request.gpus and fits(node, request)
        rest = sum(free % request.gpu_milli if usable else free for free in node.cards)
        lost += count * (max(rest, beyond_cpus(node, mix)) if usable else rest)
    return Fraction(lost, 1_000 * max(1, mix.total))


def beyond_cpus(node, mix):
    """Milli-GPUs that the CPUs of the node could not serve at the rate of the mix, in whole ones of what they could."""
    cpu = sum(count * request.cpu_milli for request, count in mix.counts.items() if request.gpus)
    gpu = sum(count * request.gpus * request.gpu_milli for request, count in mix.counts.items())
    return sum(node.cards) - math.floor(Fraction(node.cpu_milli * gpu, cpu)) if cpu else 0


def placed(node, request, cards):
    left = tuple(free - request.gpu_milli * (card in cards) for card, free in enumerate(node.cards))
    return replace(node, cards=left, cpu_milli=node.cpu_milli - request.cpu_milli)


def ways(node, request):
    """The cards of each way to place the request: each card, or the tightest ones together."""
    with_room = [card for card, free in enumerate(node.cards) if free >= request.gpu_milli]
    if request.gpus == 1:
        return [(card,) for card in with_room]
    tightest = sorted(with_room, key=lambda card: (node.cards[card], card))[: request.gpus]
    return [tuple(tightest)] if len(tightest) == request.gpus else []


@given(NODES, MIX)
def test_fragmentation_is_what_the_usual_requests_cannot_use(nodes, mix):
    values = Fragmentation(columns(nodes), mix).values(rows_of(nodes))
    assert values.tolist() == [float(fragmentation_of(node, mix)) for node in nodes]


@given(NODES, MIX, REQUEST)
def test_growth_is_the_difference_that_a_placement_makes(nodes, mix, request):
    options = Fragmentation(columns(nodes), mix).options(request, rows_of(nodes))
    for row, cards, growth in zip(options.row.tolist(), options.cards.tolist(), options.growth.tolist(), strict=True):
        after = placed(nodes[row], request, cards)
        assert growth == float(fragmentation_of(after, mix) - fragmentation_of(nodes[row], mix))


@given(NODES, MIX, REQUEST)
def test_there_is_an_option_for_every_way_that_is_different(nodes, mix, request):
    options = Fragmentation(columns(nodes), mix).options(request, rows_of(nodes))
    given_ = [
        (row, tuple(sorted(nodes[row].cards[card] for card in cards)))
        for row, cards in zip(options.row.tolist(), options.cards.tolist(), strict=True)
    ]
    wanted = {
        (row, tuple(sorted(node.cards[card] for card in cards)))
        for row, node in enumerate(nodes)
        for cards in ways(node, request)
    }
    assert sorted(given_) == sorted(wanted)
    assert options.row.tolist() == sorted(options.row.tolist())


@given(
    counts=st.dictionaries(REQUEST, st.integers(1, 9), max_size=6),
    covered=st.floats(0, 1),
    seed=st.randoms(use_true_random=False),
)
def test_the_mix_is_the_fewest_that_cover_it_whatever_order_they_come_in(counts, covered, seed):
    mix = usual(counts, covered=covered)
    total = sum(counts.values())
    assert mix.total >= covered * total
    assert all(mix.total - count < covered * total for count in mix.counts.values())
    assert (
        min(mix.counts.values(), default=0)
        >= max((count for request, count in counts.items() if request not in mix.counts), default=0)
        or not mix.counts
    )
    shuffled = list(counts.items())
    seed.shuffle(shuffled)
    assert list(usual(dict(shuffled), covered=covered).counts.items()) == list(mix.counts.items())


def test_the_mix_is_of_all_pods_with_whole_gpus_that_wait_or_run():
    asked = [
        worlds.workload(1, nodes=3, cpus=2, gpus=1),
        worlds.workload(2, phase=Phase.RUNNING, cpus=2, gpus=1),
        worlds.workload(3, cpus=2, gpus=4, gpu_model="L4"),
        worlds.workload(4, cpus=2, gpus=1, gpu_model="1g.10gb"),
        worlds.workload(5, cpus=2),
    ]
    snapshot = worlds.world(nodes=[worlds.node(gpus=8, gpu_model="L4")], workloads=asked)
    model = snapshot.gpu_models.index("L4")
    assert mix_of(snapshot).counts == {
        CardRequest(cpu_milli=2_000, gpus=1, gpu_milli=1_000): 4,
        CardRequest(cpu_milli=2_000, gpus=4, gpu_milli=1_000, models=(model,)): 1,
    }


def test_without_work_there_is_no_mix():
    assert mix_of(worlds.world()).counts == {}


def scarcity_of(nodes, mix, model):
    """Of the requests that only some models will do for: their share of the demand over that of the idle GPUs."""
    models = range(max(node.model for node in nodes) + 1)
    demand = {
        request: count * request.gpus * request.gpu_milli for request, count in mix.counts.items() if request.gpus
    }
    idle = sum(sum(node.cards) for node in nodes)
    scarcity = 0.0
    for request, asked in demand.items():
        if request.models and model in request.models and any(other not in request.models for other in models):
            useful = sum(sum(node.cards) for node in nodes if node.model in request.models)
            scarcity += asked / sum(demand.values()) * idle / max(1, useful)
    return min(scarcity, gpu_score.SCARCITY_MAX)


def score_of(nodes, mix, request, row):
    node = nodes[row]
    growth = min(fragmentation_of(placed(node, request, cards), mix) for cards in ways(node, request))
    idle_gpus = sum(node.cards) / 1_000
    score = float(growth - fragmentation_of(node, mix))
    if not request.gpus:
        idle_cpus = node.cpu_milli / 1_000
        return score + gpu_score.IDLE_GPU_FOR_CPU_WORK * idle_gpus + gpu_score.IDLE_CPU_FOR_CPU_WORK * idle_cpus
    gpus = request.gpus * request.gpu_milli / 1_000
    return score + gpu_score.IDLE_GPU * idle_gpus + gpu_score.SCARCITY * gpus * scarcity_of(nodes, mix, node.model)


@given(NODES, MIX, REQUEST)
def test_the_score_is_the_sum_of_its_terms(nodes, mix, request):
    rows = [row for row, node in enumerate(nodes) if fits(node, request)]
    scores = GpuScore(columns(nodes), mix).scores(request, np.array(rows, dtype=np.int64))
    assert scores.tolist() == pytest.approx([score_of(nodes, mix, request, row) for row in rows], abs=1e-12)


@given(NODES, MIX, REQUEST)
def test_the_cards_to_take_have_room_and_the_growth_that_was_scored(nodes, mix, request):
    score = GpuScore(columns(nodes), mix)
    for row, node in enumerate(nodes):
        if fits(node, request):
            cards = score.cards(request, row).tolist()
            least = min(fragmentation_of(placed(node, request, way), mix) for way in ways(node, request))
            assert len(set(cards)) == request.gpus
            assert all(node.cards[card] >= request.gpu_milli for card in cards)
            assert fragmentation_of(placed(node, request, cards), mix) == least


@given(nodes=NODES, mix=MIX, data=st.data(), kept=st.integers(1, 3))
def test_what_is_kept_is_what_would_be_computed_anew(nodes, mix, data, kept):
    cards = columns(nodes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_score, "REQUESTS_KEPT", kept)
        score = GpuScore(cards, mix)
        for request in data.draw(st.lists(REQUEST, max_size=8)):
            row = data.draw(st.integers(0, len(nodes) - 1))
            if data.draw(st.booleans()):  # somebody else takes from this node, or gives back
                cards.gpu_milli[row] = data.draw(st.tuples(*[MILLI] * CARDS))
                cards.cpu_milli[row] = data.draw(st.sampled_from([0, 1_000, 16_000]))
                score.changed(np.array([row, row]))
            anew = GpuScore(cards, mix)
            rows = rows_of(nodes)
            assert score.scores(request, rows).tolist() == anew.scores(request, rows).tolist()
            for node in rows.tolist():
                if np.isfinite(anew.scores(request, np.array([node]))[0]):
                    assert score.cards(request, node).tolist() == anew.cards(request, node).tolist()


@given(nodes=NODES, mix=MIX, request=REQUEST, seed=st.randoms(use_true_random=False))
def test_a_node_has_its_score_wherever_it_stands(nodes, mix, request, seed):
    order = list(range(len(nodes)))
    seed.shuffle(order)
    scores = GpuScore(columns(nodes), mix).scores(request, rows_of(nodes))
    shuffled = GpuScore(columns([nodes[row] for row in order]), mix).scores(request, rows_of(nodes))
    assert shuffled.tolist() == scores[order].tolist()


def best(nodes, mix, request):
    return int(GpuScore(columns(nodes), mix).scores(request, rows_of(nodes)).argmin())


HALF = CardRequest(cpu_milli=1_000, gpus=1, gpu_milli=500)
WHOLE = CardRequest(cpu_milli=1_000, gpus=1, gpu_milli=1_000)
WIDE = CardRequest(cpu_milli=1_000, gpus=3, gpu_milli=1_000)


def test_half_a_card_goes_to_a_half_and_leaves_the_whole_ones_to_who_needs_them():
    nodes = [Node((1_000, 1_000, 1_000), 8_000, 0), Node((500, 1_000, 1_000), 8_000, 0)]
    assert best(nodes, Mix(counts={HALF: 1, WHOLE: 1}), HALF) == 1


def test_a_single_card_does_not_break_a_node_that_wide_requests_need():
    nodes = [Node((1_000, 1_000, 1_000), 8_000, 0), Node((0, 1_000, 1_000), 64_000, 0)]
    assert best(nodes, Mix(counts={WHOLE: 1, WIDE: 1}), WHOLE) == 1


def test_a_pod_that_may_run_anywhere_leaves_the_scarce_model_alone():
    choosy = replace(WHOLE, models=(0,))
    nodes = [Node((1_000, 0, 0), 1_000, 0), Node((1_000, 1_000, 1_000), 8_000, 1)]
    assert best(nodes, Mix(counts={choosy: 2, WHOLE: 1}), WHOLE) == 1
    assert best(nodes, Mix(counts={WHOLE: 3}), WHOLE) == 0


def test_work_without_gpus_goes_where_hardly_a_gpu_needs_its_cpus():
    nodes = [Node((1_000, 1_000, 0), 4_000, 0), Node((100, 0, 0), 16_000, 0)]
    assert best(nodes, Mix(counts={WHOLE: 1}), CardRequest(cpu_milli=4_000)) == 1


def test_without_usual_requests_the_fullest_node_is_best():
    nodes = [Node((1_000, 1_000, 0), 4_000, 0), Node((1_000, 0, 0), 4_000, 0)]
    assert best(nodes, Mix(counts={}), HALF) == 1


def test_a_fleet_without_cards_takes_work_without_gpus():
    nodes = NodeCards(
        gpu_milli=np.zeros((2, 0), dtype=np.int64),
        cpu_milli=np.array([8_000, 4_000]),
        model=np.zeros(2, dtype=np.int64),
    )
    score = GpuScore(nodes, Mix(counts={CardRequest(cpu_milli=1_000): 1}))
    assert score.scores(CardRequest(cpu_milli=1_000), np.arange(2)).argmin() == 1
    assert score.cards(CardRequest(cpu_milli=1_000), 1).tolist() == []
