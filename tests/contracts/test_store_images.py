"""What every store promises about images: which nodes have which, and which one a workload asks for, over both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mainstay.domain.plan import ObserveNodes
from mainstay.domain.snapshot import Snapshot
from mainstay.ports import EventFilter
from mainstay.store import needs
from tests.contracts.test_store_nodes import report, seen
from tests.stores import TENANT, WHY, Scene, scene, store

__all__ = ["scene", "store"]
TORCH, MIB = "registry.example/torch:2.8", 1 << 20


def shown(scene: Scene) -> Snapshot:
    return scene.store.snapshot(now=scene.now, seed=0)


def told(scene: Scene) -> int:
    return len(scene.store.events(tenant=TENANT, workload="", after=0, limit=1_000, which=EventFilter(platform=True)))


def worth(snapshot: Snapshot, image: str) -> list[float] | None:
    assert snapshot.nodes.images is not None
    found = snapshot.nodes.images.worth(image)
    return None if found is None else found.tolist()


def test_decisions_see_which_nodes_have_the_image_that_a_workload_asks_for(scene: Scene) -> None:
    report(scene, seen("a"), seen("b", images=((TORCH, 2_000 * MIB), ("small", 5 * MIB))))
    scene.submit(image=TORCH)
    scene.submit()
    found = shown(scene)
    assert found.workloads.image is not None
    assert [found.images[number] for number in found.workloads.image.tolist()] == [TORCH, ""]
    assert worth(found, TORCH) == [0.0, 1.0]
    assert worth(found, "small") is None
    report(scene, seen("a", images=((TORCH, 2_000 * MIB),)), seen("b"))
    assert worth(shown(scene), TORCH) == [1.0, 0.0]


def test_an_image_that_comes_or_goes_is_written_but_is_no_event(scene: Scene) -> None:
    report(scene, seen("a"))
    events, version = told(scene), scene.store.version()
    images = ((TORCH, 2_000 * MIB),)
    scene.applied(ObserveNodes(cluster="local", nodes=(seen("a", images=images),), reason=WHY))
    assert scene.store.version() > version
    assert told(scene) == events
    version = scene.store.version()
    scene.applied(ObserveNodes(cluster="local", nodes=(seen("a", images=images),), reason=WHY))
    assert scene.store.version() == version


def test_of_many_images_the_largest_are_kept(scene: Scene) -> None:
    report(scene, seen("a", images=tuple((f"image-{size:03}", size * MIB) for size in range(100, 300))))
    found = shown(scene)
    assert worth(found, "image-299") is not None
    assert worth(found, "image-236") is not None
    assert worth(found, "image-235") is None


def test_sets_of_images_that_no_node_has_any_more_are_let_go_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "TRAITS_SPARE", 3)
    other = seen("b", images=(("steady", 500 * MIB),))
    for beat in range(20):
        report(scene, seen("a", images=((f"image-{beat}", 500 * MIB),)), replace(other))
        found = shown(scene)
        assert found.nodes.images is not None
        assert len(found.nodes.images.each) <= 3 + 2 * 2
        assert (worth(found, f"image-{beat}") or [])[1:] == [0.0]
        assert (worth(found, "steady") or [])[:1] == [0.0]
