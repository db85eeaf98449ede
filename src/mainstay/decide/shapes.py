"""Shapes: workloads that ask for exactly the same, so that one answer serves them all."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice, product

import numpy as np

from mainstay.decide.devices import Unit, units_of
from mainstay.decide.offers import NOBODY_KNOWS, Offer, chosen_words, in_order, offers_of, timed
from mainstay.decide.placement.fit import Request, cluster_number, request_of
from mainstay.decide.placement.reach import Reach, Users, reach_of
from mainstay.decide.placement.sets import Part, Parts
from mainstay.domain.affinity import Restriction
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources, cores_words, memory_words
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.topology import TopologyNeed
from mainstay.domain.volume import Sharing, VolumeNeed
from mainstay.domain.workload import PodSet

WAYS_MAX = 64
"""So many ways to choose parts of GPUs for each of several pod sets are tried at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """So many pods of one of these choices: of the first of its offers of which at least `least` fit, as many as do."""

    nodes: int
    least: int
    choices: tuple[Resources, ...]
    requests: tuple[Request, ...]
    """The choices in the numbers of the columns, in the order in which they are tried."""
    offers: tuple[Offer, ...] = ()
    """What each of these requests is and costs, if there is more to the choices than one plain request."""
    cluster: str = ""
    """The only cluster that will do; empty: any."""
    restriction: Restriction = ""
    """Which nodes will do, and which are preferred."""
    seconds: int = 0
    """So long each may take, its last words included; 0: nobody knows."""
    volumes: VolumeNeed | None = None
    reach: Reach | None = None
    """Where its volumes let it run."""
    topology: TopologyNeed | None = None
    name: str = ""
    """Of a pod set."""
    sets: tuple[Shape, ...] = ()
    """Each pod set as if it were alone, where there are several; then `choices` and `requests` are those of the first."""

    @property
    def ways(self) -> tuple[Parts, ...]:
        """In which of several ways it may be placed, in order, with as many ranks as it needs to start."""
        if self.sets:
            each = ([Part(ranks=one.nodes, request=request) for request in one.requests] for one in self.sets)
            return tuple(islice(product(*each), WAYS_MAX))
        return tuple((Part(ranks=self.least, request=request),) for request in self.requests)

    @property
    def tiers(self) -> tuple[int, ...]:
        """Of each of its ways; those of one tier are equals."""
        if not self.offers:
            return tuple(range(len(self.ways)))
        return tuple(one.tier for one in self.offers)

    def chosen_words(self, parts: Parts) -> str:
        """Which of several offers a placed one has, and why; empty where there is only one."""
        at = self._offer_of(parts)
        return "" if at is None else chosen_words(self.offers, at)

    def placed_words(self, parts: Parts) -> str:
        """Which of several offers it has, without saying why."""
        at = self._offer_of(parts)
        return "" if at is None else self.offers[at].words

    def _offer_of(self, parts: Parts) -> int | None:
        """The number of the offer by which all its pods were placed; None if there are not several."""
        if self.sets or (len(self.offers) < 2 and not any(one.gpu_part_permille for one in self.choices)):
            return None
        has = parts[0].request
        alike = [at for at, request in enumerate(self.requests) if _is_of(request, has)]
        # Of those that differ by their nodes alone, the first that it was placed by: a volume may bind it to fewer since.
        return next((at for at in alike if _is_within(has.reach, self.requests[at].reach)), min(alike, default=None))

    @property
    def apart(self) -> tuple[Shape, ...]:
        """Of several choices each as if it were the only one, in order."""
        of = [[at for at, offer in enumerate(self.offers) if offer.asked == one] for one in dict.fromkeys(self.choices)]
        return tuple(
            replace(
                self,
                choices=(self.offers[here[0]].asked,),
                offers=tuple(self.offers[at] for at in here),
                requests=tuple(self.requests[at] for at in here),
            )
            for here in of
        )

    def timed(self, seconds_on: Mapping[str, int]) -> Shape:
        """The same for one of which such runs take so long, where its offers are tried in the same order."""
        return replace(self, offers=timed(self.offers, seconds_on)) if self.offers else self

    @property
    def amounts(self) -> tuple[int, int, int]:
        """CPU, memory and GPUs of all its pods together, of the first choice: as they count at its turn."""
        asked = [(one.nodes, one.choices[0]) for one in self.sets or (self,)]
        return (
            sum(count * each.cpu_milli for count, each in asked),
            sum(count * each.memory_bytes for count, each in asked),
            sum(count * each.gpus for count, each in asked),
        )

    @property
    def one_node(self) -> bool:
        """Whether all pods with these volumes must be on one node."""
        return self.requests[0].one_node

    @property
    def words(self) -> str:
        """The shape as a reason says it."""
        words = " and ".join(one.words_in_set for one in self.sets) if self.sets else self._one_kind
        return f"{words}{self.where_words}"

    @property
    def where_words(self) -> str:
        """As what is asked for goes on: ` in one rack on nodes with disk=ssd in cluster a`."""
        need = "" if isinstance(self.restriction, str) else self.restriction.words
        near = self.topology.words if self.topology else ""
        return f"{near}{need}{f' in cluster {self.cluster}' if self.cluster else ''}"

    @property
    def words_in_set(self) -> str:
        """`8 x worker (4 CPUs, 16 GiB)`."""
        return f"{self.nodes} x {self.name} ({words_of(self.choices[0])})"

    @property
    def _one_kind(self) -> str:
        either = " or ".join(words_of(resources) for resources in self.choices)
        count = str(self.nodes) if self.least == self.nodes else f"{self.least} to {self.nodes}"
        return either if self.nodes == 1 else f"{count} x ({either})"


def _is_of(request: Request, has: Request) -> bool:
    """Whether it was placed by this request, or one for other nodes; the model may have been left open."""
    model = has.gpu_model if request.gpu_model else 0
    return _unbound(replace(has, gpu_model=model)) == _unbound(request)


def _is_within(one: Bools | None, other: Bools | None) -> bool:
    """Whether all nodes of the one reach are of the other."""
    return other is None or one is other or (one is not None and not bool((one & ~other).any()))


def _unbound(request: Request) -> Request:
    """Without what binds it at its turn."""
    return replace(request, late=0, flavors=(), leaves_headroom=False)


def shape_of(snapshot: Snapshot, row: int, *, users: Users | None = None) -> Shape:
    """The shape of the workload in this row. `users` of volumes as in `make_shape`."""
    table = snapshot.workloads
    key = int(table.key[row])
    choices = table.choices.get(key, ())
    return make_shape(
        snapshot,
        nodes=int(table.nodes[row]),
        least=int(table.nodes_min[row]),
        choices=choices or (_first_choice(snapshot, row),),
        equals=table.equals.get(key, 1),
        seconds_on=dict(table.typical_on.get(key, ())),
        sets=table.sets.get(key, ()),
        cluster=snapshot.cluster_names[int(table.cluster[row])],
        restriction=snapshot.restrictions[int(table.restriction[row])],
        seconds=longest(int(table.max_duration_seconds[row]), int(table.stop_grace_seconds[row])),
        volumes=snapshot.volume_needs[int(table.volumes[row])],
        topology=snapshot.topologies[int(table.topology[row])],
        image=0 if table.image is None else int(table.image[row]),
        users=users,
    )


def make_shape(
    snapshot: Snapshot,
    *,
    nodes: int,
    least: int = 0,
    choices: tuple[Resources, ...],
    equals: int = 1,
    seconds_on: Mapping[str, int] = NOBODY_KNOWS,
    sets: tuple[PodSet, ...] = (),
    cluster: str = "",
    restriction: Restriction = "",
    seconds: int = 0,
    volumes: VolumeNeed | None = None,
    topology: TopologyNeed | None = None,
    image: int = 0,
    users: Users | None = None,
) -> Shape:
    """A shape in the numbers of this snapshot. `least` 0: all `nodes`. `users` of volumes: None for those that the snapshot
    knows. With several `sets`, `nodes` is how many ranks all have, and `choices` what the first asks for. `equals` and
    `seconds_on` as of `offers_of`.
    """
    topology = topology if nodes > 1 else None
    number = cluster_number(cluster, snapshot.nodes.clusters)
    reach = reach_of(snapshot, volumes, cluster=cluster, pods=nodes, users=users) if volumes else None

    def requests_for(units: Iterable[Unit | Offer]) -> tuple[Request, ...]:
        return tuple(
            request_of(
                unit.resources,
                snapshot.gpu_models,
                cluster=number,
                restriction=restriction,
                reach=_both(reach.mask if reach else None, unit.nodes),
                one_node=reach is not None and reach.sharing is not Sharing.ANY,
                topology=topology,
                image=image,
            )
            for unit in units
        )

    offers = () if sets else _offers(snapshot, choices, equals=equals, seconds_on=seconds_on)
    whole = Shape(
        nodes=nodes,
        least=least or nodes,
        choices=choices,
        requests=requests_for(offers or units_of(snapshot, choices[0])),
        offers=offers,
        cluster=cluster,
        restriction=restriction,
        seconds=seconds,
        volumes=volumes,
        reach=reach,
        topology=topology,
    )
    alone = (
        replace(
            whole,
            name=one.name,
            nodes=one.nodes,
            least=one.nodes,
            choices=(one.resources,),
            requests=requests_for(units_of(snapshot, one.resources)),
        )
        for one in sets
    )
    return replace(whole, sets=tuple(alone)) if sets else whole


def _offers(
    snapshot: Snapshot, choices: tuple[Resources, ...], *, equals: int, seconds_on: Mapping[str, int]
) -> tuple[Offer, ...]:
    """None where there is only one way to have it."""
    if len(choices) == 1 and choices[0].is_plain:
        return ()
    return offers_of(snapshot, choices, equals=equals, seconds_on=seconds_on)


def _both(one: Bools | None, other: Bools | None) -> Bools | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def longest(max_duration_seconds: int, stop_grace_seconds: int) -> int:
    """As `Shape.seconds`."""
    return max_duration_seconds + stop_grace_seconds if max_duration_seconds else 0


def shape_numbers(snapshot: Snapshot, rows: Ints, *, timed: bool = False, beside: Sequence[Ints] = ()) -> Ints:
    """A number per row, the same for rows of the same shape and different for others. O(n log n).

    `timed`: how long they may take is part of the shape. `beside`: so are these columns [rows].
    """
    table = snapshot.workloads
    columns = [
        column[rows]
        for column in (
            *(table.nodes, table.cpu_milli, table.memory_bytes, table.gpus, table.gpu_model),
            *(table.cluster, table.restriction, table.volumes, table.topology),
        )
    ]
    least = table.nodes_min[rows]
    if not np.array_equal(least, columns[0]):
        columns.append(least)
    columns += [column[rows] for column in table.others.values()]
    if timed:
        limit = table.max_duration_seconds[rows]
        columns.append(np.where(limit > 0, limit + table.stop_grace_seconds[rows], 0))
    columns += beside
    if table.choices or table.sets:
        columns.append(_numbers_of_choices(snapshot, rows))
    return _numbers(columns)


def words_of(resources: Resources, *, like: int = 0) -> str:
    """An amount in words: `4 CPUs, 16 GiB, 8 x H100`. `like` as of `memory_words`."""
    parts = [cores_words(resources.cpu_milli), memory_words(resources.memory_bytes, like=like)]
    if resources.gpus:
        parts.append(resources.gpu_words)
    parts += [f"{amount} {name}" for name, amount in resources.others]
    return ", ".join(parts)


def instant_words(instant: int) -> str:
    """An instant in UTC microseconds as people read it, never before it: `2026-11-27 14:10:05 UTC`."""
    whole = -(-instant // MICROSECONDS_PER_SECOND)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _first_choice(snapshot: Snapshot, row: int) -> Resources:
    table = snapshot.workloads
    return Resources(
        cpu_milli=int(table.cpu_milli[row]),
        memory_bytes=int(table.memory_bytes[row]),
        gpus=int(table.gpus[row]),
        gpu_model=snapshot.gpu_models[int(table.gpu_model[row])],
        others=tuple((name, int(table.others[name][row])) for name in sorted(table.others) if table.others[name][row]),
    )


def _numbers_of_choices(snapshot: Snapshot, rows: Ints) -> Ints:
    """The same number where the choices, the order in which they are tried, and the pod sets are the same; 0 where there are
    none.

    What is known of run times matters only by that order: else every name of a run would be a shape of its own.
    """
    table = snapshot.workloads
    named = np.fromiter({*table.choices, *table.sets}, dtype=np.int64)
    found = np.zeros(rows.size, dtype=np.int64)
    at = np.flatnonzero(np.isin(table.key[rows], named))
    asks: dict[Hashable, int] = {}
    offers: list[tuple[Offer, ...]] = []
    """By number of what is asked for."""
    orders: dict[Hashable, tuple[int, ...]] = {}
    numbers: dict[Hashable, int] = {}
    for where, key in zip(at.tolist(), table.key[rows[at]].tolist(), strict=True):
        choices, sets, equals = table.choices.get(key, ()), table.sets.get(key, ()), table.equals.get(key, 1)
        ask = asks.setdefault((choices, sets, equals), len(asks))
        if ask == len(offers):
            several = choices and not sets and table.typical_on
            offers.append(_offers(snapshot, choices, equals=equals, seconds_on=NOBODY_KNOWS) if several else ())
        known = ask, table.typical_on.get(key, ())
        if known not in orders:
            orders[known] = in_order(offers[ask], dict(known[1]))
        found[where] = numbers.setdefault((ask, orders[known]), len(numbers) + 1)
    return found


_MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd constant (2⁶⁴ divided by the golden ratio) spreads sums over all bits: Knuth, TAOCP 6.4."""


def _numbers(columns: list[Ints]) -> Ints:
    """Group equal rows. First by a 64-bit mix, which one sort can group; then checked, so that it is exact."""
    mixed = np.zeros(columns[0].size, dtype=np.uint64)
    for column in columns:
        mixed = (mixed ^ column.astype(np.uint64)) * _MIX
        mixed ^= mixed >> np.uint64(29)
    _, first, number = np.unique(mixed, return_index=True, return_inverse=True)
    if all(np.array_equal(column[first][number], column) for column in columns):
        return number.astype(np.int64)
    # Two different shapes share a mix: vanishingly rare, so its price (a sort of whole rows) does not matter.
    _, number = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return number.reshape(-1).astype(np.int64)
