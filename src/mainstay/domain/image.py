"""Container images that nodes have already: a pod starts sooner where its image need not be pulled.

Only those are of interest that work of ours asks for, and of these the ones that most of it does.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mainstay.domain.arrays import Floats, Ints

IMAGES_MAX = 64
"""So many are kept track of in a cluster, and heeded in a decision: those that were asked for last, or most."""
BYTES_PER_MIB = 1 << 20
SMALL_MIB, LARGE_MIB = 23, 1_000
"""Below the first it does not matter where an image is; above the second, all count alike. The bounds of kube-scheduler for one
container (pkg/scheduler/framework/plugins/imagelocality/image_locality.go), which are those of nine of ten images of Docker Hub.
"""
DIGITS = 12
"""Of a digest, in hex. Two images that share one would share a score, no more."""


@functools.lru_cache(maxsize=4_096)
def digest_of(image: str) -> str:
    """What stands for the name of an image on record."""
    return hashlib.sha256(image.encode(errors="replace")).hexdigest()[:DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeImages:
    """Which images nodes have. Nodes that have the same share a number."""

    number: Ints
    """[nodes] Index into `each`."""
    each: tuple[Mapping[str, int], ...]
    """Digest of an image -> MiB that it takes there."""

    def worth(self, image: str) -> Floats | None:
        """[nodes] What it is worth that a node has it: 0 where it has not, 1 if it is large. None if no node has it."""
        digest = digest_of(image)
        of_each = np.array([worth_of_size(one.get(digest, 0)) for one in self.each], dtype=np.float64)
        if not of_each.any():
            return None
        found: Floats = of_each[self.number]
        return found if found.any() else None


def worth_of_size(mib: int) -> float:
    """Of an image of this size that need not be pulled, from 0 to 1."""
    return (min(max(mib, SMALL_MIB), LARGE_MIB) - SMALL_MIB) / (LARGE_MIB - SMALL_MIB)
