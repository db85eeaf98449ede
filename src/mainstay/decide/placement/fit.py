"""Which nodes can take a request: masks and counts over the free columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from mainstay.decide.columns import Headroom, Nodes, Usual
from mainstay.decide.compiled import kernel_for
from mainstay.decide.kernel import APART, BLOCK, CPU, GPUS, HEEDS, MEMORY, NONE, ROOM_MAX, SIGN, UNNAMED
from mainstay.decide.placement.usual import NOBODY, usual_of, wasted
from mainstay.domain.affinity import NodeNeed, NodeTraits, Restriction
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.quantity import Counts, Resources, is_shape
from mainstay.domain.snapshot import PODS, NodeTable, Snapshot
from mainstay.domain.topology import Level, TopologyNeed

ANY_CLUSTER = NONE
LACKING = 1 << 62
"""More of anything than a node has."""
NOTHING: Mapping[str, Ints] = MappingProxyType({})
NO_CLUSTER = -2
"""One that has no node."""
GPU_NODE = 1e3
"""More than anything that is left on a node weighs."""
NO_HEADROOM = Headroom(
    source=np.zeros(0, dtype=np.int64),
    first=np.zeros(2, dtype=np.int64),
    kept=np.zeros((0, 0, 0), dtype=np.int64),
    kind=np.zeros(0, dtype=np.int64),
)
"""Nothing needs to be left for idle GPUs."""
NO_IMAGES = np.zeros((0, 0))
FULLEST = np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]])
"""The fullest node first: as `Nodes.rankings`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one pod asks for, in the numbers of the columns. `gpu_model` 0: any; -1: a model that no node has; UNNAMED: those of
    which nobody says the model.
    """

    cpu_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: int
    others: Counts = ()
    """As `Resources.others`."""
    shape: str = ""
    """Slices of GPUs of this shape are asked for instead of whole ones; then `gpu_model` means nothing."""
    cluster: int = ANY_CLUSTER
    """The number of the only cluster that will do, as in `Free.cluster`."""
    restriction: Restriction = ""
    """Only nodes that admit it will do; of a need that has preferences, those that it prefers go first."""
    flavors: tuple[int, ...] = ()
    """Only nodes of these flavors will do, as numbered in `Free.flavor`, ascending; the first says against which quota it counts.
    Empty: all nodes.
    """
    reach: Bools | None = field(default=None, compare=False)
    """Only these nodes will do; None: all."""
    image: int = 0
    """Index into `Snapshot.images`: of nodes that are about as good those go first that have it; 0: it names none."""
    late: int = 0
    """Bits, by number in `Free.kept`: it would still run when that is needed, so it may use only what is beside it then."""
    leaves_headroom: bool = False
    """It needs no GPUs: of a node it may use only what is beside `Free.headroom`."""
    one_node: bool = False
    """All pods that ask for it must be on one node, since they share a volume that cannot be on two."""
    topology: TopologyNeed | None = None
    """How near to each other all pods of a gang are to lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """What is free on each node. It belongs to one cycle, which lowers it as it places pods."""

    key: Ints
    nodes: Nodes
    """What is left as columns: CPU, memory, GPUs, each of `shapes`, each of `others`; and what is searched by."""
    shapes: Mapping[str, int]
    """Shape of slices of GPUs -> its column; those that no node has are not there."""
    others: Mapping[str, int]
    """Name of another resource -> its column."""
    gpus_installed: Ints
    """Slices of them too."""
    open_: Bools
    """Nodes that may be used for what has no restriction."""
    admits: Mapping[Restriction, Bools]
    """Restriction -> the nodes that may be used for what has it; none for a name that is not there."""
    sound: Bools
    """Nodes that may be used by whoever tolerates their taints."""
    traits: NodeTraits | None
    """As of the nodes: what needs are worked out of that are not in `admits`."""
    levels: Mapping[str, Level]
    """As of the nodes."""
    flavor: Ints | None = None
    """As of the nodes."""
    headroom: Mapping[int, int] = field(default_factory=dict)
    """Column -> the column of what is left of it beside what is kept for idle GPUs (headroom.py)."""
    images: Mapping[int, int] = field(default_factory=dict)
    """Index into `Snapshot.images` -> row of `Nodes.images`, for those that are heeded (images.py)."""
    kept: tuple[Mapping[int, int], ...] = ()
    """For each start that is reserved, column -> the column of what is left of it then. They come behind all others."""
    _allowed: dict[tuple[Restriction, int, int, tuple[int, ...]], Bools] = field(default_factory=dict, repr=False)
    _liked: dict[NodeNeed, Ints] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        nodes: NodeTable,
        *,
        cpu_milli: Ints,
        memory_bytes: Ints,
        gpus: Ints,
        shapes: Mapping[str, Ints],
        open_: Bools,
        others: Mapping[str, Ints] = NOTHING,
        rankings: Floats = FULLEST,
        usual: Usual = NOBODY,
    ) -> Free:
        """So much of these nodes, which the loop finds by these rankings."""
        installed = sum(nodes.shapes.values(), start=nodes.gpus) if nodes.shapes else nodes.gpus
        columns = np.stack((cpu_milli, memory_bytes, gpus, *shapes.values(), *others.values()))
        # A GPU of the largest node weighs four times what a core of the largest does, and other resources nothing.
        devices = 1 + len(shapes)
        most = [int(column.max(initial=1)) for column in (nodes.cpu_milli, nodes.memory_bytes, installed)]
        weight = [1 / most[CPU], 1 / most[MEMORY], *[4 / most[GPUS]] * devices, *[0.0] * len(others)]
        return cls(
            key=nodes.key,
            nodes=_nodes_of(
                columns,
                weight=np.array(weight),
                apart=np.where(installed > 0, GPU_NODE, 0.0),
                gpu_model=nodes.gpu_model.copy(),
                cluster=_cluster_numbers(nodes.clusters),
                rankings=rankings,
                usual=usual,
            ),
            shapes={shape: GPUS + 1 + number for number, shape in enumerate(shapes)},
            others={name: GPUS + 1 + len(shapes) + number for number, name in enumerate(others)},
            gpus_installed=installed,
            open_=open_,
            admits=nodes.admits,
            sound=open_ if nodes.traits is None else open_ | nodes.traits.barred,
            traits=nodes.traits,
            levels=nodes.levels,
            flavor=nodes.flavor,
        )

    @property
    def own(self) -> int:
        """So many columns are of what is left now."""
        return GPUS + 1 + len(self.shapes) + len(self.others)

    @property
    def cpu_milli(self) -> Ints:
        """Of each node."""
        column: Ints = self.nodes.free[CPU]
        return column

    @property
    def memory_bytes(self) -> Ints:
        """Of each node."""
        column: Ints = self.nodes.free[MEMORY]
        return column

    @property
    def gpus(self) -> Ints:
        """Whole ones."""
        column: Ints = self.nodes.free[GPUS]
        return column

    @property
    def gpu_model(self) -> Ints:
        """Of each node."""
        return self.nodes.gpu_model

    @property
    def cluster(self) -> Ints:
        """A number per cluster, in the order of their names."""
        return self.nodes.cluster

    def usable(self, request: Request) -> Bools:
        """Nodes that may be used at all, whether or not there is room."""
        usable = self._admitted(request.restriction) if request.restriction else self.open_
        if request.flavors:
            usable = usable & self._is_of(request.flavors)
        return usable if request.reach is None else usable & request.reach

    def _admitted(self, restriction: Restriction) -> Bools:
        known = self.admits.get(restriction)
        if known is not None:
            return known
        if isinstance(restriction, str) or self.traits is None:
            return np.zeros(self.key.size, dtype=np.bool_)
        return self.sound & self.traits.admitted(restriction)

    def _is_of(self, flavors: tuple[int, ...]) -> Bools:
        if self.flavor is None:
            return np.full(self.key.size, 0 in flavors)
        return np.isin(self.flavor, flavors)

    def liked(self, request: Request) -> Ints | None:
        """[nodes] By how much the request prefers each; None if it prefers none."""
        wanted = request.restriction
        if isinstance(wanted, str) or not wanted.preferences or self.traits is None:
            return None
        if wanted not in self._liked:
            self._liked[wanted] = self.traits.liked(wanted)
        return self._liked[wanted]

    def allowed(self, request: Request) -> Bools:
        """Nodes of the cluster and the GPU model that are asked for which may be used, whether or not there is room."""
        asked = request.restriction, request.cluster, request.gpu_model, request.flavors
        mask = self._allowed.get(asked)
        if mask is None:
            mask = self.usable(replace(request, reach=None))
            if request.cluster != ANY_CLUSTER:
                mask = mask & (self.cluster == request.cluster)
            if request.gpu_model:
                mask = mask & self.is_of_model(request.gpu_model)
            self._allowed[asked] = mask
        return mask if request.reach is None else mask & request.reach

    def is_of_model(self, model: int) -> Bools:
        """[nodes] Whether their GPUs, be there any, are of what `Request.gpu_model` says; not of any model."""
        found: Bools = self.gpu_model == (0 if model == UNNAMED else model)
        return found

    def asked(self, request: Request) -> list[tuple[Ints, int]]:
        """The columns that the request lowers, and by how much. Scarce resources first: they rule out most nodes."""
        amounts = [(self.devices(request), request.gpus)] if request.gpus else []
        amounts += [(self.cpu_milli, request.cpu_milli), (self.memory_bytes, request.memory_bytes)]
        amounts += [(self.nodes.free[column], amount) for column, amount in self.asked_of_others(request)]
        amounts += [(self.nodes.free[column], amount) for column, amount in self._asked_beside_gpus(request)]
        amounts += [(self.nodes.free[later], amount) for _, _, later, amount in self.asked_later(request)]
        return [(column, amount) for column, amount in amounts if amount]

    def amounts(self, request: Request) -> Ints:
        """[resources] What one pod asks for of each column. More than there is, where no node has the slices it asks for."""
        amounts = np.zeros(self.nodes.weight.size, dtype=np.int64)
        amounts[CPU], amounts[MEMORY] = request.cpu_milli, request.memory_bytes
        if request.gpus:
            lacks = request.shape and request.shape not in self.shapes
            amounts[self.shapes.get(request.shape, GPUS)] = LACKING if lacks else request.gpus
        for column, amount in self.asked_of_others(request):
            amounts[column] = amount
        for column, amount in self._asked_beside_gpus(request):
            amounts[column] = amount
        for _, _, later, amount in self.asked_later(request):
            amounts[later] = amount
        return amounts

    def _asked_beside_gpus(self, request: Request) -> list[tuple[int, int]]:
        """(column of `headroom`, amount)."""
        if not (request.leaves_headroom and self.headroom):
            return []
        now = self.amounts(replace(request, late=0, leaves_headroom=False)).tolist()
        return [(beside, now[column]) for column, beside in self.headroom.items() if now[column]]

    def asked_later(self, request: Request) -> list[tuple[int, int, int, int]]:
        """What it would still hold when that is needed for others: (number in `kept`, column, column of what is left of it then,
        amount).
        """
        if not request.late:
            return []
        now = self.amounts(replace(request, late=0, leaves_headroom=False)).tolist()
        kept = ((number, columns) for number, columns in enumerate(self.kept) if request.late >> number & 1)
        return [
            (number, column, later, now[column])
            for number, columns in kept
            for column, later in columns.items()
            if now[column]
        ]

    def asked_of_others(self, request: Request) -> list[tuple[int, int]]:
        """(column, amount) of other resources, the pod itself among them. What no node has makes the first column ask for more
        than there is.
        """
        asked = [
            (self.others.get(name, CPU), amount if name in self.others else LACKING) for name, amount in request.others
        ]
        return [*asked, (self.others[PODS], 1)] if PODS in self.others else asked

    def take(self, rows: Ints, pods: Ints | int, request: Request) -> None:
        """Lower the free columns by so many pods on each of `rows`, none of which occurs twice."""
        amounts, compiled = self.amounts(request), kernel_for(rows.size * BLOCK)
        assert int(amounts.max(initial=0)) < LACKING, "nobody is placed where what it asks for is not"
        for row, count in zip(rows.tolist(), np.broadcast_to(pods, rows.shape).tolist(), strict=True):
            compiled.take(self.nodes, row, count, amounts)

    def give_back(self, row: int, held: Request) -> None:
        """What a pod held on this node is free again. What no node has a column for was not counted, and is not now."""
        self._move(row, held, sign=-1)

    def take_again(self, row: int, held: Request) -> None:
        """The other way round: it holds it after all, whether or not there is so much."""
        self._move(row, held, sign=1)

    def _move(self, row: int, held: Request, *, sign: int) -> None:
        kernel_for(BLOCK).take(self.nodes, row, sign, self.amounts_held(held))

    def amounts_held(self, held: Request) -> Ints:
        """[resources] What a pod that is there holds of each column; of slices that no node has any more, nothing."""
        known = not held.shape or held.shape in self.shapes
        return self.amounts(held if known else replace(held, gpus=0, shape=""))

    def copy(self) -> Free:
        """What is left now, to try something out on."""
        nodes = self.nodes
        return replace(
            self,
            nodes=nodes._replace(
                free=nodes.free.copy(),
                left=nodes.left.copy(),
                wasted=nodes.wasted.copy(),
                peak=nodes.peak.copy(),
                lowest=nodes.lowest.copy(),
                changes=nodes.changes.copy(),
            ),
        )

    def with_columns(self, columns: Ints) -> Free:
        """The same nodes with so much [resources, nodes] left, and nothing kept for anybody."""
        nodes = self.nodes
        fresh = _nodes_of(
            columns,
            nodes.weight[: self.own],
            nodes.apart,
            gpu_model=nodes.gpu_model,
            cluster=nodes.cluster,
            rankings=nodes.rankings,
            usual=nodes.usual,
        )
        return replace(self, nodes=fresh._replace(images=nodes.images), headroom={}, kept=())

    def with_images(self, worth: Mapping[int, Floats]) -> Free:
        """The same, heeding where these images are: index into `Snapshot.images` -> [nodes] `NodeImages.worth`."""
        if not worth:
            return self
        rows = {image: row for row, image in enumerate(worth)}
        return replace(self, nodes=self.nodes._replace(images=np.stack(list(worth.values()))), images=rows)

    def beside_gpus(self, headroom: Headroom) -> Free:
        """The same, with what is left of some columns beside what is kept for idle GPUs."""
        if not headroom.source.size:
            return self
        nodes, first, more = self.nodes, self.nodes.weight.size, beside_gpus(self.nodes.free, headroom)
        begins = np.arange(0, nodes.left.size, BLOCK)
        wider = nodes._replace(
            free=np.concatenate((nodes.free, more)),
            weight=np.append(nodes.weight, np.zeros(len(more))),
            peak=np.concatenate((nodes.peak, np.maximum.reduceat(more, begins, axis=1))),
            headroom=headroom._replace(first=np.array([first, int(headroom.first[1])])),
        )
        columns = {column: first + number for number, column in enumerate(headroom.source.tolist())}
        return replace(self, nodes=wider, headroom=columns)

    def keep(self, beside: Mapping[int, Ints], *, rows: Ints) -> Free:
        """The same, with what is left of each column beside a start that is reserved, which takes something of these nodes."""
        if not beside:  # It asks for nothing.
            return replace(self, kept=(*self.kept, {}))
        nodes, first = self.nodes, self.nodes.weight.size
        begins = np.arange(0, nodes.left.size, BLOCK)
        more = np.stack(list(beside.values()))
        nodes.changes[np.unique(rows // BLOCK)] += 1  # what was found there may be too much now
        wider = nodes._replace(
            free=np.concatenate((nodes.free, more)),
            weight=np.append(nodes.weight, np.zeros(len(beside))),
            peak=np.concatenate((nodes.peak, np.maximum.reduceat(more, begins, axis=1))),
        )
        columns = {column: first + number for number, column in enumerate(beside)}
        return replace(self, nodes=wider, kept=(*self.kept, columns))

    def opened(self, open_: Bools, *, admits: Mapping[Restriction, Bools], sound: Bools | None = None) -> Free:
        """The same, if these were the nodes that may be used for what has no restriction, and for what has one. `sound`: for
        whoever tolerates their taints; None: the same.
        """
        return replace(self, open_=open_, admits=admits, sound=open_ if sound is None else sound, _allowed={})

    def without(self, name: str) -> Free:
        """The same, if every node had as much of this other resource as anybody asks for."""
        return replace(self, others={other: column for other, column in self.others.items() if other != name})

    def devices(self, request: Request) -> Ints:
        """Of the kind that is asked for, how many are free on each node, whatever their model."""
        if not request.shape:
            return self.gpus
        there = request.shape in self.shapes
        return self.nodes.free[self.shapes[request.shape]] if there else np.zeros(self.key.size, dtype=np.int64)


def free_of(snapshot: Snapshot, *, rankings: Floats = FULLEST, heeds: bool = False) -> Free:
    """What is free now, on nodes that are ready or admit what has a restriction; `rankings` as in `Free.of`, `heeds` of any."""
    usual = usual_of(snapshot) if heeds else NOBODY
    return _left(snapshot, open_=snapshot.nodes.ready, rankings=rankings, usual=usual)


def whole_of(snapshot: Snapshot) -> Free:
    """What would be free if every node took work, were sound and empty, of others too: what the fleet could ever take."""
    nodes, nothing = snapshot.nodes, np.zeros_like(snapshot.nodes.gpus)
    shapes = sorted(nodes.shapes.keys() | nodes.whole_shapes.keys())
    return Free.of(
        nodes,
        cpu_milli=np.maximum(nodes.cpu_milli, nodes.whole_cpu_milli),
        memory_bytes=np.maximum(nodes.memory_bytes, nodes.whole_memory_bytes),
        gpus=np.maximum(nodes.gpus, nodes.whole_gpus),
        shapes={
            shape: np.maximum(nodes.shapes.get(shape, nothing), nodes.whole_shapes.get(shape, nothing))
            for shape in shapes
        },
        others=nodes.others,
        open_=nodes.ready,
    ).opened(np.ones(nodes.key.size, dtype=np.bool_), admits={**nodes.admits, **nodes.meets})


def free_in(snapshot: Snapshot, cluster: str) -> Free:
    """What would be free if this cluster took work and no other."""
    nodes = snapshot.nodes
    inside = np.fromiter((name == cluster for name in nodes.clusters), dtype=np.bool_, count=len(nodes.clusters))
    met = {**nodes.admits, **nodes.meets}
    return _left(snapshot, open_=inside).opened(inside, admits={name: mask & inside for name, mask in met.items()})


def _left(snapshot: Snapshot, *, open_: Bools, rankings: Floats = FULLEST, usual: Usual = NOBODY) -> Free:
    nodes = snapshot.nodes
    return Free.of(
        nodes,
        cpu_milli=nodes.cpu_milli - nodes.used_cpu_milli,
        memory_bytes=nodes.memory_bytes - nodes.used_memory_bytes,
        gpus=nodes.gpus - nodes.used_gpus,
        shapes={shape: count - nodes.used_shapes[shape] for shape, count in nodes.shapes.items()},
        others={name: count - nodes.used_others[name] for name, count in nodes.others.items()},
        open_=open_,
        rankings=rankings,
        usual=usual,
    )


def cluster_number(name: str, clusters: Sequence[str]) -> int:
    """The number of a cluster as in `Free.cluster`, of the clusters of all nodes; the empty name is any."""
    if not name:
        return ANY_CLUSTER
    names = sorted(set(clusters))
    return names.index(name) if name in names else NO_CLUSTER


def request_of(
    resources: Resources,
    gpu_models: Sequence[str],
    *,
    cluster: int = ANY_CLUSTER,
    restriction: Restriction = "",
    reach: Bools | None = None,
    one_node: bool = False,
    topology: TopologyNeed | None = None,
    image: int = 0,
) -> Request:
    """The request in the numbers of the columns. Without GPUs a model means nothing."""
    shape = resources.gpu_model if resources.gpus and is_shape(resources.gpu_model) else ""
    return Request(
        cpu_milli=resources.cpu_milli,
        memory_bytes=resources.memory_bytes,
        gpus=resources.gpus,
        gpu_model=model_number(resources.gpu_model, gpu_models) if resources.gpus and not shape else 0,
        others=resources.others,
        shape=shape,
        cluster=cluster,
        restriction=restriction,
        reach=reach,
        one_node=one_node,
        topology=topology,
        image=image,
    )


def model_number(model: str, gpu_models: Sequence[str]) -> int:
    """Index of a GPU model in the vocabulary of the snapshot; 0 for any, -1 for one that no node has."""
    return gpu_models.index(model) if model in gpu_models else -1


def feasible(free: Free, request: Request) -> Bools:
    """Nodes that can take one pod now. A named GPU model or cluster is a hard condition."""
    # A node that shrank under its work takes nothing, whatever is asked of it.
    mask = free.allowed(request) & (free.cpu_milli >= 0) & (free.memory_bytes >= 0)
    for column, amount in free.asked(request):
        mask = mask & (column >= amount)
    return mask


def room_on(free: Free, request: Request, rows: Ints) -> Ints:
    """How many pods each of these feasible nodes can take now, at most ROOM_MAX."""
    fits = np.full(rows.size, ROOM_MAX, dtype=np.int64)
    for column, amount in free.asked(request):
        np.minimum(fits, column[rows] // amount, out=fits)
    return fits


def room(free: Free, request: Request) -> Ints:
    """How many pods each node can take now, at most ROOM_MAX."""
    rows = np.flatnonzero(feasible(free, request))
    count = np.zeros(free.key.size, dtype=np.int64)
    count[rows] = room_on(free, request, rows)
    return count


def beside_gpus(free: Ints, headroom: Headroom) -> Ints:
    """[columns, nodes] What is left beside what is kept for idle GPUs; more than anybody asks for where nothing ever is."""
    devices = free[GPUS : GPUS + int(headroom.first[1])]
    idle = np.minimum(np.maximum(devices, 0).sum(axis=0), headroom.kept.shape[2] - 1)
    return np.where(headroom.kind > 0, free[headroom.source] - headroom.kept[:, headroom.kind, idle], LACKING)


def _cluster_numbers(clusters: tuple[str, ...]) -> Ints:
    number = {name: index for index, name in enumerate(sorted(set(clusters)))}
    return np.fromiter(map(number.__getitem__, clusters), dtype=np.int64, count=len(clusters))


def _nodes_of(
    free: Ints, weight: Floats, apart: Floats, *, gpu_model: Ints, cluster: Ints, rankings: Floats, usual: Usual
) -> Nodes:
    """The nodes with such columns, which are lowered in place from now on. O(resources × nodes)."""
    left = np.zeros(apart.size)
    for column, each in zip(free, weight, strict=True):
        left += column * each
    begins = np.arange(0, apart.size, BLOCK)
    # Of work with GPUs the score depends on what is asked for, if others are heeded: no block is passed over.
    rankings = rankings.copy()
    rankings[:, HEEDS] *= usual.cpus.size > 0
    score = np.outer(rankings[:, SIGN], left) + np.outer(rankings[:, APART], apart)
    score[rankings[:, HEEDS] > 0] = -np.inf
    return Nodes(
        free=free,
        weight=weight,
        left=left,
        apart=apart,
        rankings=rankings,
        gpu_model=gpu_model,
        cluster=cluster,
        peak=np.maximum.reduceat(free, begins, axis=1) if begins.size else free.copy(),
        lowest=np.minimum.reduceat(score, begins, axis=1) if begins.size else score,
        changes=np.zeros(begins.size, dtype=np.int64),
        usual=usual,
        wasted=wasted(usual, gpu_model, np.maximum(0, free[GPUS]), free[CPU])
        if usual.cpus.size
        else np.zeros(apart.size),
        headroom=NO_HEADROOM,
        images=NO_IMAGES,
    )
