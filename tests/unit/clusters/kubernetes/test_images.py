"""Which images of nodes are reported: those that pods of ours run, by the names that these say."""

from __future__ import annotations

import msgspec
import pytest

from mainstay.clusters.kubernetes import images as module
from mainstay.clusters.kubernetes.images import IDLE_SECONDS, SHARED_MAX, Images, full_name
from mainstay.clusters.kubernetes.objects import Node
from mainstay.domain.image import IMAGES_MAX
from tests.unit.clusters.kubernetes.objects import node


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def with_images(**sizes: int) -> Node:
    return having([{"names": [name.replace("_", "/")], "sizeBytes": size} for name, size in sizes.items()])


def having(images: list[dict[str, object]]) -> Node:
    status = msgspec.json.decode(msgspec.json.encode({"images": images}), type=type(node().status))
    return msgspec.structs.replace(node(), status=status)


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11", "docker.io/library/python:3.11"),
        ("acme/train", "docker.io/acme/train:latest"),
        ("ghcr.io/acme/train:v1", "ghcr.io/acme/train:v1"),
        ("localhost/train", "localhost/train:latest"),
        ("registry:5000/train", "registry:5000/train:latest"),
        ("ghcr.io/acme/train@sha256:abc", "ghcr.io/acme/train@sha256:abc"),
    ],
)
def test_a_name_means_what_a_container_runtime_takes_it_for(said, full):
    assert full_name(said) == full


def test_only_what_pods_of_ours_run_is_told_and_by_their_names():
    images, shown = (
        Images(Hands()),
        having(
            [
                {"names": ["docker.io/library/python@sha256:abc", "docker.io/library/python:3.11"], "sizeBytes": 400},
                {"names": ["ghcr.io/other:v1"], "sizeBytes": 900},
                {"names": None, "sizeBytes": 7},
                {},
            ]
        ),
    )
    assert images.on(shown) == ()
    assert images.ask("python:3.11")
    assert not images.ask("python:3.11")
    assert images.ask("jax")
    assert images.on(shown) == (("python:3.11", 400),)


def test_names_are_read_once_for_as_long_as_a_node_has_the_same_images_and_nothing_new_is_asked_for(monkeypatch):
    read = []
    monkeypatch.setattr(module, "full_name", lambda name: read.append(name) or name)
    images = Images(Hands())
    images.ask("a")
    assert images.on(images.slim(with_images(a=1, b=2))) == (("a", 1),)
    read.clear()
    reported_again = images.slim(with_images(a=1, b=2))
    assert images.on(reported_again) == (("a", 1),)
    assert read == []

    assert images.on(images.slim(with_images(a=3, b=2))) == (("a", 3),)
    assert images.on(msgspec.structs.replace(reported_again, metadata=node(name="other").metadata)) == (("a", 1),)
    images.ask("b")
    assert images.on(reported_again) == (("a", 1), ("b", 2))


def test_what_was_told_of_a_node_that_is_gone_is_forgotten():
    images, shown = Images(Hands()), with_images(a=1)
    images.on(shown)
    images.forget(shown.metadata.name)
    assert not images._told


def test_many_images_take_the_place_of_others_only_where_nobody_asks_for_those_any_more():
    clock = Hands()
    images = Images(clock)
    assert all(images.ask(f"i{at}") for at in range(IMAGES_MAX))
    assert not images.ask("one more")
    clock.seconds = IDLE_SECONDS
    assert not images.ask("i0")
    assert images.ask("one more")
    shown = with_images(**{f"docker.io_library_i{at}:latest": 100 for at in range(3)})
    assert images.on(shown) == (("i0", 100), ("i2", 100))


def test_nodes_share_what_they_have_alike_and_what_is_remembered_for_that_is_bounded():
    images = Images(Hands())
    one, other = (images.slim(with_images(a=1, b=2)) for _ in range(2))
    assert one.status.images[0] is other.status.images[0]
    for at in range(SHARED_MAX + 10):
        images.slim(with_images(**{f"i{at}": 1}))
    assert len(images._shared) <= SHARED_MAX + 1
