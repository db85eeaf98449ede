"""Which images nodes have, of those that pods of ours run: nobody asks for the others, and they are most of many a node."""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec

from mainstay.clusters.kubernetes.objects import Image, Node
from mainstay.domain.image import IMAGES_MAX
from mainstay.domain.permitted import reference
from mainstay.domain.quantity import Counts
from mainstay.ports import Clock

TAG = "latest"
"""What the name of an image means that does not say one."""
IDLE_SECONDS = 600
SHARED_MAX = 10_000
"""So many are remembered so that nodes share them; then all are forgotten."""


@functools.lru_cache(maxsize=2 * SHARED_MAX)  # Nodes report the same names over and over: most by digest and by tag.
def full_name(image: str) -> str:
    """As nodes report it, with its registry, and its digest or else its tag: `python` is `docker.io/library/python:latest`."""
    name = reference(image)
    return f"{name.repository}@{name.digest}" if name.digest else f"{name.repository}:{name.tag or TAG}"


class _Told(NamedTuple):
    """What was told of a node, and from what."""

    images: tuple[Image, ...]
    news: int
    """As of `Images` at that time."""
    sizes: Counts


class Images:
    """Those that pods of ours were seen to run, the last ones."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[str, str] = {}
        """As pods say it -> its full name."""
        self._last: dict[str, float] = {}
        """When each was asked for last (monotonic seconds)."""
        self._news = 0
        """How often something was asked for that was not before."""
        self._shared: dict[Image, Image] = {}
        self._told: dict[str, _Told] = {}
        """By the name of the node. It is right for as long as the node reports the same images and there is no news."""

    def ask(self, image: str) -> bool:
        """A pod runs this one. Whether that is news: then what was told of nodes is too little.

        Once there are many, one takes the place of another only where nobody has asked for that for a while.
        """
        now = self._clock.monotonic()
        if image not in self._asked:
            if len(self._asked) >= IMAGES_MAX:
                oldest = min(self._last, key=self._last.__getitem__)
                if now - self._last[oldest] < IDLE_SECONDS:
                    return False
                del self._asked[oldest], self._last[oldest]
            self._asked[image], self._last[image] = full_name(image), now
            self._news += 1
            return True
        self._last[image] = now
        return False

    def on(self, node: Node) -> Counts:
        """(name, bytes), by the names that pods say."""
        name, images = node.metadata.name, node.status.images
        told = self._told.get(name)
        # Most reports of a node change other things of it; and its images are shared, so that equal ones are the same objects.
        if told is None or told.news != self._news or told.images != images:
            told = self._told[name] = _Told(images, self._news, self._sizes(images))
        return told.sizes

    def forget(self, node: str) -> None:
        """It is not there any more."""
        self._told.pop(node, None)

    def _sizes(self, images: tuple[Image, ...]) -> Counts:
        size = {full_name(name): one.size_bytes for one in images for name in one.names or ()}
        return tuple(sorted((asked, size[full]) for asked, full in self._asked.items() if size.get(full, 0) > 0))

    def slim(self, node: Node) -> Node:
        """The same node; what other nodes have as well it shares with them."""
        if not node.status.images:
            return node
        if len(self._shared) > SHARED_MAX:
            self._shared.clear()
        images = tuple(self._shared.setdefault(one, one) for one in node.status.images)
        return msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, images=images))
