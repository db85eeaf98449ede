"""Nodes that have the image of a pod already go before nodes that are about as good: the pod starts sooner there.

It takes a little off the score of a policy (kernel.IMAGE), in proportion to the size of the image as kube-scheduler counts it
(`NodeImages.worth`). There, an image counts by the part of all nodes that have it, lest everybody crowds on a few; here the score
stays that of the policy, which fills nodes or spreads over them as it should, and an image is worth most where few have it.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.kernel import IMAGE, IMAGE_OF_GPUS
from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.image import IMAGES_MAX
from mainstay.domain.snapshot import Snapshot

TRIED_MAX = 4 * IMAGES_MAX
"""So many are looked for on the nodes."""


def worth_of_images(snapshot: Snapshot, rows: Ints) -> dict[int, Floats]:
    """Index into `Snapshot.images` -> [nodes] what it is worth that a node has it: of those that most of these workloads ask for
    and some node has, IMAGES_MAX.
    """
    asked, there = snapshot.workloads.image, snapshot.nodes.images
    if asked is None or there is None or not any(there.each):
        return {}
    count = np.bincount(asked[rows], minlength=1)
    count[0] = 0
    found: dict[int, Floats] = {}
    for image in np.argsort(-count, kind="stable")[: min(np.count_nonzero(count), TRIED_MAX)].tolist():
        worth = there.worth(snapshot.images[image])
        if worth is not None:
            found[image] = worth
        if len(found) == IMAGES_MAX:
            break
    return found


def heeded(snapshot: Snapshot, free: Free, rows: Ints) -> Ints:
    """[rows] Which of the images that are heeded these workloads ask for; 0: none of them."""
    asked = snapshot.workloads.image
    if asked is None or not free.images:
        return np.zeros_like(rows)
    return np.where(np.isin(asked[rows], list(free.images)), asked[rows], 0)


def nearer(free: Free, request: Request, rows: Ints, scores: Floats, *, heeds: bool) -> Floats:
    """Scores of these rows, lower where they have the image. As `kernel._score`; `heeds` as of the policy."""
    row = free.images.get(request.image)
    if row is None:
        return scores
    counts_gpus = heeds and request.gpus > 0 and not request.shape and free.nodes.usual.cpus.size > 0
    lower: Floats = scores - (IMAGE_OF_GPUS if counts_gpus else IMAGE) * free.nodes.images[row, rows]
    return lower
