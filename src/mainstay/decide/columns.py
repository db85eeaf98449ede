"""What the loop of a cycle (kernel.py) reads and writes: whose turn it is, what is left, and what is asked for, as columns.

`queue`, `shape`, `request` and `node` are numbers of rows of these tuples; `at` is a position among those who wait. All arrays
are contiguous and may be written: those of a snapshot are copied, or another kernel is compiled for them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mainstay.domain.arrays import Bools, Floats, Ints


class Ledger(NamedTuple):
    """What counts towards the share of each queue and cohort, and of each line below a queue (submitters.py), which are numbered
    behind all queues. Arrays are [queues, resources] unless said otherwise.

    All of it in whole numbers: sums do not depend on their order, so equal shares are equal.
    """

    parent: Ints
    """[queues] NONE for a root. Parents come before their children."""
    weight: Floats
    """[queues]"""
    own: Ints
    """What it has as its own: no share is counted below that."""
    lendable: Ints
    """What it could have at most; all shares are parts of it."""
    kept: Ints
    """The part of its own that it keeps to itself: what is used of that counts in nothing above it (`quota.local`)."""
    held: Ints
    """What its workloads hold now; of a cohort, what is held below it beyond what is kept there."""
    past: Floats
    """What it has borrowed lately, times what that weighs: it counts beside what it borrows, as long as it borrows anything."""

    def shares(self, queue: Ints, held: Ints) -> Floats:
        """As `share`, of many: [n] for queues [n] that would hold so much [n, resources]."""
        borrowed = np.maximum(0, held - self.own[queue])
        ratios = (borrowed + self.past[queue]) / self.lendable[queue]
        ratio = np.where(borrowed.any(axis=1), ratios.max(axis=1), 0.0)
        weight = self.weight[queue]
        found: Floats = np.divide(ratio, weight, out=np.where(ratio > 0, np.inf, 0.0), where=weight > 0)
        return found


class Waiting(NamedTuple):
    """Those who wait, by queue or line and in the order of each. `queues` counts the lines too."""

    row: Ints
    """[waiting] Of the workload table."""
    rank: Ints
    """[waiting] Place in the order of all; decides between equal shares, the lower first."""
    asked: Ints
    """[waiting, resources] As `Ledger`."""
    queue: Ints
    """[waiting]"""
    line: Ints
    """[waiting] Row of the ledger in which it stands: its queue, or a line below it."""
    priority: Ints
    """[waiting] Between lines of one queue what is more urgent goes first, whatever their shares."""
    shape: Ints
    """[waiting] Number of its shape."""
    kind: Ints
    """[waiting] Number of its queue and shape together."""
    long: Bools
    """[waiting] It has waited so long that the caller is asked if it finds no place."""
    begin: Ints
    """[queues] Position of the next of each queue; its end if there is none."""
    end: Ints
    """[queues]"""
    strict: Bools
    """[queues] Where the next one finds no place, none behind it is tried."""
    shape_failed: Bools
    """[shapes] One found no place, so none is tried again."""
    kind_failed: Bools
    """[kinds] One is over the quota of its queue; those of other queues are still tried."""
    children: Ints
    """[queues] By parent, roots last."""
    first_child: Ints
    """[queues + 2] Index into `children` of the first child; those of number `queues` are the roots."""
    head: Ints
    """[queues + 1] Position of who is next of each queue or cohort, and of all."""
    share: Floats
    """[queues] What it would be with its head; of a line, what it is."""
    winner: Ints
    """[2 * lines] Of the lines of each queue a tournament. From twice the number of its first line on: at 1 the line that is
    next, at n that of 2n and 2n + 1 which goes first; the last half are its lines.
    """


class Quota(NamedTuple):
    """Quotas and what is used of them. Arrays are [queues, cells] unless said otherwise."""

    used: Ints
    subtree: Ints
    local: Ints
    borrowing: Ints
    parent: Ints
    """[queues]"""
    cell: Ints
    """[resources, queues, flavors of nodes x models] Column of the cell that such pods count against; NONE."""
    limited: Bools
    """[resources, queues] Whether the queue has any quota of it."""
    models: Ints
    """[queues, flavors of nodes, models] In which order models are tried where any will do, if quotas tell them apart, last those
    that are UNNAMED; else 0 comes first.
    """
    tries: Bools
    """[queues, groups] Which groups of nodes are tried, in their order; group 0 is all nodes."""


class Usual(NamedTuple):
    """The usual requests for whole GPUs, as a table (placement/usual.py). Empty if nobody is to be heeded."""

    cpus: Ints
    """[amounts] Thousandths of a core that one or another of them needs, ascending."""
    fitting: Floats
    """[models, idle GPUs, amounts there are CPUs for] How many of them a node of such a state could take one of."""
    pods: Floats
    """[1] All of them."""
    rate: Ints
    """[2] Thousandths of a core to thousandths of a GPU, as they ask for them together; 0 CPUs: any will do."""
    scarcity: Floats
    """[models] How much a model is needed by those for whom few will do."""


class Headroom(NamedTuple):
    """What work without GPUs leaves on a node for the GPUs that are idle there (placement/headroom.py). Columns of `Nodes.free`
    have what is left of others beside that; whoever needs no GPUs asks for both. Empty if nothing needs to be left.
    """

    source: Ints
    """[columns] Of which column of `Nodes.free` each is."""
    first: Ints
    """[2] The first of these columns, and how many columns of `Nodes.free`, from GPUS on, are of GPUs and of slices of them."""
    kept: Ints
    """[columns, kinds, idle GPUs] How much is left for so many."""
    kind: Ints
    """[nodes] 0: nothing is ever kept there, and there is more than anybody asks for in these columns."""


class Nodes(NamedTuple):
    """What is left on each node, and what blocks of nodes have in common. `take` alone writes it."""

    free: Ints
    """[resources, nodes]"""
    weight: Floats
    """[resources] What a unit of it weighs in `left`."""
    left: Floats
    """[nodes] All that is left, weighed and summed: the less, the fuller the node."""
    apart: Floats
    """[nodes] What is added to the score of a node for work without GPUs."""
    rankings: Floats
    """[rankings, (SIGN, APART, HEEDS, STACKS)] How nodes are chosen, by each policy that is in use: two rankings for each, one
    for work with GPUs and behind it one for work without.
    """
    gpu_model: Ints
    cluster: Ints
    peak: Ints
    """[resources, blocks] The most that a node of the block has free."""
    lowest: Floats
    """[rankings, blocks] No node of the block has a lower score."""
    changes: Ints
    """[blocks] How often something was taken in the block."""
    usual: Usual
    wasted: Floats
    """[nodes] Thousandths of idle GPUs that those who usually ask could not use, summed over them; 0 if nobody is heeded."""
    headroom: Headroom
    images: Floats
    """[images, nodes] What it is worth that a node has the image, from 0 to 1."""


class Requests(NamedTuple):
    """What shapes ask for. A request is one choice of a shape, for one pod, on one group of nodes (flavors.py): of each choice
    there is one for every group, in their order.
    """

    begin: Ints
    """[shapes] First request of the shape; NONE: not known."""
    end: Ints
    """[shapes]"""
    ranks: Ints
    """[shapes] Pods of one workload; of an elastic one so many at most."""
    least: Ints
    """[shapes] Without so many of them it does not start; the same unless it is elastic."""
    asks: Bools
    """[shapes] Such workloads are placed by the caller."""
    amounts: Ints
    """[requests, resources] As `Nodes.free`."""
    ranking: Ints
    """[requests] By which nodes are chosen."""
    model: Ints
    """[requests] The only model of GPUs that will do; 0: any."""
    any_model: Bools
    """[requests] It asks for whole GPUs of any model."""
    quota: Ints
    """[requests, resources] As `Quota.cell`."""
    flavor: Ints
    """[requests] Flavor of nodes x models + the number of a model, or of a slice; 0: of none in particular."""
    mask: Ints
    """[requests] Row of `masks`."""
    masks: Bools
    """[masks, nodes] Nodes that may be used."""
    image: Ints
    """[requests] Row of `Nodes.images`; NONE."""
    slot: Ints
    """[requests] Row of what follows, for those that are asked again and again; NONE. The last is of the gang at hand."""
    node: Ints
    """[slots, blocks] The best of the block with room."""
    score: Floats
    """[slots, blocks] Its score; infinite if there is none any more."""
    after: Ints
    """[slots, blocks] After how many changes of the block it was so; NONE: it was not looked at."""


class Found(NamedTuple):
    """Places that have been found, in the order of turns."""

    at: Ints
    """[workloads]"""
    request: Ints
    """[workloads]"""
    model: Ints
    """[workloads] Of GPUs, also where any would have done and quotas tell models apart; UNNAMED: of none."""
    end: Ints
    """[workloads] Of its ranks in `node`; they begin where those of the one before end."""
    node: Ints
    """[ranks of all]"""
    size: Ints
    """[2] Of workloads and of ranks."""
    room_of: Ints
    """[clusters] To work with."""
