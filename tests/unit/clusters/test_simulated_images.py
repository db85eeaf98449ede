"""Nodes of a simulated cluster have the images of what has run there."""

from __future__ import annotations

from mainstay.clusters.simulated.machines import IMAGE_BYTES, Behaviour, Machines
from mainstay.domain.capacity import NodeState
from mainstay.domain.image import IMAGES_MAX
from mainstay.domain.quantity import Resources
from tests.clock import ManualClock
from tests.clusters import create


def test_a_node_has_the_image_of_a_pod_once_it_runs_and_keeps_it():
    clock = ManualClock()
    room = Resources(cpu_milli=64_000, memory_bytes=1 << 40)
    machines = Machines(
        clock,
        (NodeState(name="sim-1", capacity=room, ready=True), NodeState(name="sim-2", capacity=room, ready=True)),
        behaviour=lambda _: Behaviour(starts_after=1.0, runs_for=1.0),
    )
    for name, image in (("a", "torch"), ("b", "torch"), ("c", "")):
        machines.create(create(name, "sim-1", script="", image=image))
    machines.settle()
    assert machines.nodes["sim-1"].images == ()
    clock.advance(10)
    machines.settle()
    assert [machines.nodes[name].images for name in ("sim-1", "sim-2")] == [(("torch", IMAGE_BYTES),), ()]
    for number in range(IMAGES_MAX):
        machines.create(
            create(
                f"d{number}",
                "sim-1",
                script="",
                image=f"image-{number}",
                resources=Resources(cpu_milli=1, memory_bytes=1),
            )
        )
    clock.advance(10)
    machines.settle()
    assert len(machines.nodes["sim-1"].images) == IMAGES_MAX
