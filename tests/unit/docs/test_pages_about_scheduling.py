"""What the pages about scheduling show runs, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from mainstay.decide import placement, schedule
from tests.worlds import node, workload, world

DOCS = Path(__file__).resolve().parents[3] / "docs"
POLICY, CYCLE = DOCS / "how-to" / "write-a-policy.md", DOCS / "explanation" / "scheduling-cycle.md"


@pytest.fixture
def page() -> dict[str, Any]:
    """All that the blocks of the page about policies define, run in their order."""
    there = ("Mapping", "MappingProxyType", "Policy", "best_fit", "spread")
    names = {name: getattr(placement, name) for name in there} | {
        "least_waste": placement.POLICIES["least-waste"].scores
    }
    for block in re.findall(r"^```python\n(.*?)^```", POLICY.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(POLICY), "exec"), names)
    return names


def test_the_list_on_the_page_is_the_one_that_there_is_and_one_more(page):
    assert {**placement.POLICIES, "tight": placement.Policy(page["tight"])} == page["POLICIES"]


def test_the_policy_on_the_page_does_what_its_test_says(page, monkeypatch):
    (test,) = (one for name, one in page.items() if name.startswith("test_"))
    with pytest.raises(KeyError):
        test()
    monkeypatch.setattr(schedule, "POLICIES", page["POLICIES"])
    test()


def test_the_policy_on_the_page_differs_from_the_default_where_it_says(page, monkeypatch):
    monkeypatch.setattr(schedule, "POLICIES", MappingProxyType(page["POLICIES"]))
    nodes = [node(cpus=4, gpus=8, gpu_model="H100"), node(cpus=64, gpus=2, gpu_model="H100")]
    nodes += [node(cpus=8, gpus=2, gpu_model="H100")]
    (placed,) = schedule.schedule(world(nodes=nodes, workloads=[workload(1, gpus=1)]), policy="tight")
    assert [slot.node_key for slot in placed.slots] == [3]  # Of the fewest idle GPUs, the fewest cores.


def test_a_policy_is_ten_lines():
    block = re.search(r"^```python\n(.*?)^```", POLICY.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    assert len(block[1].splitlines()) <= 10


def test_what_the_story_of_a_cycle_names_is_in_the_file_that_it_links_to():
    named = re.findall(r"\[`(\w+)`\]\(([^)]+\.py)\)", CYCLE.read_text())
    assert len(named) > 15
    for name, target in named:
        text = (CYCLE.parent / target).resolve().read_text()
        assert re.search(rf"^\s*(def|class) {name}\b|^{name}\b.* = |^from .* import {name}\b", text, re.MULTILINE), name


def test_the_steps_of_the_story_are_those_of_the_picture():
    steps = re.findall(r"^\*\*(\d+)\. ", CYCLE.read_text(), re.MULTILINE)
    assert steps == re.findall(r'class="number">(\d+)<', CYCLE.with_suffix(".svg").read_text())
    assert steps == [str(number) for number in range(1, len(steps) + 1)]
