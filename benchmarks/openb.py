"""GPUs allocated on the openb traces by the protocol of FGD (USENIX ATC 2023): published policies, and our default.

Random, BestFit and FGD are run as published, to see that the harness is right: their figures must come out. Then the
default policy, on the published lists and on lists that nobody has published (made here from the others by resampling).
The data is looked for in $MAINSTAY_DATA, ../shared/data if unset.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.report import Figure, figure, progress, report
from mainstay.decide.placement.fragmentation import Fragmentation, NodeCards
from mainstay.decide.placement.gpu_score import GpuScore
from mainstay.decide.placement.mix import GPU_MILLI, CardRequest, Mix, usual
from mainstay.domain.arrays import Ints

DATA = Path(os.environ.get("MAINSTAY_DATA", "../shared/data")) / "traces" / "openb"
LISTS = (
    "cpu050", "cpu100", "cpu200", "default", "gpushare100", "gpushare40", "gpuspec10", "gpuspec20", "multigpu20", "multigpu50"
)  # fmt: skip
MODELS = ("A10", "G2", "G3", "P100", "T4", "V100M16", "V100M32")
SEEDS = range(42, 52)
SUBMITTED = 1.3
"""Of the capacity in GPUs; the published runs submit so much, the figure is read where 100 % have arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What one pod of a list asks for."""

    request: CardRequest
    memory_mib: int

    @property
    def gpu_milli(self) -> int:
        """Over all cards."""
        return self.request.gpus * self.request.gpu_milli


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The nodes, in the order of their names, with what is free on them."""

    cards: NodeCards
    memory_mib: Ints

    @property
    def gpu_milli(self) -> int:
        """Idle on all nodes."""
        return int(self.cards.gpu_milli.sum())

    def feasible(self, pod: Pod) -> Ints:
        """Rows of the nodes that can take the pod."""
        request = pod.request
        fits = (self.cards.cpu_milli >= request.cpu_milli) & (self.memory_mib >= pod.memory_mib)
        if request.models:
            fits &= np.isin(self.cards.model, request.models)
        if request.gpus:
            fits &= (self.cards.gpu_milli >= request.gpu_milli).sum(axis=1) >= request.gpus
        return np.flatnonzero(fits)

    def take(self, pod: Pod, row: int, cards: Ints) -> None:
        """Place the pod on these cards."""
        self.cards.gpu_milli[row, cards] -= pod.request.gpu_milli
        self.cards.cpu_milli[row] -= pod.request.cpu_milli
        self.memory_mib[row] -= pod.memory_mib


class Policy(Protocol):
    """One policy over one fleet."""

    def pick(self, pod: Pod, rows: Ints) -> tuple[int, Ints]:
        """The row, one of the feasible `rows`, and the cards."""
        ...

    def changed(self, row: int) -> None:
        """A pod was placed there."""
        ...


class Random:
    """Any node, any card."""

    def __init__(self, fleet: Fleet, mix: Mix, rng: np.random.Generator) -> None:  # noqa: ARG002
        self.fleet, self.rng = fleet, rng

    def pick(self, pod: Pod, rows: Ints) -> tuple[int, Ints]:
        """See Policy."""
        row = int(self.rng.choice(rows))
        cards = np.flatnonzero(self.fleet.cards.gpu_milli[row] >= pod.request.gpu_milli)
        return row, self.rng.permutation(cards)[: pod.request.gpus]

    def changed(self, row: int) -> None:
        """See Policy."""


class BestFit:
    """The node with the least CPU and GPU left, each by its share of the largest node; integer scores from 0 to 100."""

    def __init__(self, fleet: Fleet, mix: Mix, rng: np.random.Generator) -> None:  # noqa: ARG002
        self.fleet = fleet
        self.cpu_milli_max = fleet.cards.cpu_milli.max()
        self.gpu_milli_max = fleet.cards.gpu_milli.sum(axis=1).max()

    def pick(self, pod: Pod, rows: Ints) -> tuple[int, Ints]:
        """See Policy."""
        cards = self.fleet.cards
        cpu_left = (cards.cpu_milli[rows] - pod.request.cpu_milli) / self.cpu_milli_max
        gpu_left = (cards.gpu_milli[rows].sum(axis=1) - pod.gpu_milli) / self.gpu_milli_max
        score = (100 * (1 - (cpu_left + gpu_left) / 2)).astype(np.int64)
        low, high = score.min(), score.max()
        if high > low:
            score = (score - low) * 100 // (high - low)
        row = int(rows[score.argmax()])
        free = cards.gpu_milli[row]
        ranking = np.argsort(np.where(free >= pod.request.gpu_milli, free, 2 * free.max() + 1), kind="stable")
        return row, ranking[: pod.request.gpus]

    def changed(self, row: int) -> None:
        """See Policy."""


class Published(Fragmentation):
    """F as published."""

    def rest(self, free: Ints, amounts: Ints) -> Ints:
        """Nothing of a card on which one fits."""
        return np.where(free < amounts, free, 0)

    def beyond_cpus(self, idle: Ints, cpu_milli: Ints) -> Ints:  # noqa: ARG002
        """CPUs serve what they are asked for."""
        return np.zeros_like(idle)


class Fgd:
    """The least growth of F, as an integer from 0 to 100; of equal nodes the last by name, of equal cards the first.

    Kept per request, and repaired where a node has changed.
    """

    def __init__(self, fleet: Fleet, mix: Mix, rng: np.random.Generator) -> None:  # noqa: ARG002
        self.fragmentation = Published(fleet.cards, mix)
        self.changes = 0
        self.changed_after = np.zeros(fleet.memory_mib.size, dtype=np.int64)
        self.kept: dict[CardRequest, tuple[Ints, Ints, Ints]] = {}

    def pick(self, pod: Pod, rows: Ints) -> tuple[int, Ints]:
        """See Policy."""
        score, cards = self._scores(pod.request, rows)
        feasible = score[rows]
        row = int(rows[np.flatnonzero(feasible == feasible.max())[-1]])
        return row, cards[row]

    def changed(self, row: int) -> None:
        """See Policy."""
        self.fragmentation.changed(np.array([row]))
        self.changes += 1
        self.changed_after[row] = self.changes

    def _scores(self, request: CardRequest, rows: Ints) -> tuple[Ints, Ints]:
        nodes = self.changed_after.size
        score, cards, found_after = self.kept.setdefault(
            request, (np.zeros(nodes, int), np.zeros((nodes, request.gpus), int), np.full(nodes, -1))
        )
        stale = rows[found_after[rows] < self.changed_after[rows]]
        if stale.size:
            options = self.fragmentation.options(request, stale)
            of_option = np.floor(100 / (1 + np.exp(options.growth)) + 1e-9).astype(np.int64)
            first_card = options.cards[:, 0] if request.gpus else np.zeros_like(options.row)
            ranking = np.lexsort((first_card, -of_option, options.row))
            best = ranking[np.diff(options.row[ranking], prepend=-1) > 0]
            score[options.row[best]], cards[options.row[best]] = of_option[best], options.cards[best]
            found_after[stale] = self.changes
        return score, cards


class Fullest:
    """The fullest node, as best fit does in the cycle: CPUs, memory and four times the GPUs, as parts of the largest node's."""

    def __init__(self, fleet: Fleet, mix: Mix, rng: np.random.Generator) -> None:  # noqa: ARG002
        cards = fleet.cards
        self.fleet = fleet
        self.most = cards.cpu_milli.max(), fleet.memory_mib.max(), cards.gpu_milli.sum(axis=1).max()

    def pick(self, pod: Pod, rows: Ints) -> tuple[int, Ints]:
        """See Policy."""
        cards, (cpu_milli, memory_mib, gpu_milli) = self.fleet.cards, self.most
        left = cards.cpu_milli[rows] / cpu_milli + self.fleet.memory_mib[rows] / memory_mib
        row = int(rows[(left + 4 * cards.gpu_milli[rows].sum(axis=1) / gpu_milli).argmin()])
        return row, np.flatnonzero(cards.gpu_milli[row] >= pod.request.gpu_milli)[: pod.request.gpus]

    def changed(self, row: int) -> None:
        """See Policy."""


class Default:
    """What mainstay does unless told otherwise; of equal nodes the first."""

    def __init__(self, fleet: Fleet, mix: Mix, rng: np.random.Generator) -> None:  # noqa: ARG002
        self.score = GpuScore(fleet.cards, mix)

    def pick(self, pod: Pod, rows: Ints) -> tuple[int, Ints]:
        """See Policy."""
        row = int(rows[self.score.scores(pod.request, rows).argmin()])
        return row, self.score.cards(pod.request, row)

    def changed(self, row: int) -> None:
        """See Policy."""
        self.score.changed(np.array([row]))


def allocated(fleet: Fleet, pods: Sequence[Pod], make: Callable[..., Policy], *, seed: int) -> float:
    """Percent of the fleet's GPUs that are allocated where 100 % of them have been asked for.

    One pass: no departures, no second try. The mean over all arrivals at which the load rounds to 100 %.
    """
    mix = usual(Counter(pod.request for pod in pods))
    policy = make(fleet, mix, np.random.default_rng(1_000 + seed))
    capacity, arrived, used, at_full_load = fleet.gpu_milli, 0, 0, list[float]()
    for pod in stream(pods, seed=seed, gpu_milli=SUBMITTED * capacity):
        arrived += pod.gpu_milli
        rows = fleet.feasible(pod)
        if rows.size:
            row, cards = policy.pick(pod, rows)
            fleet.take(pod, row, cards)
            policy.changed(row)
            used += pod.gpu_milli
        load = round(100 * arrived / capacity)
        if load > 100:
            break
        if load == 100:
            at_full_load.append(100 * used / capacity)
    return statistics.fmean(at_full_load)


def stream(pods: Sequence[Pod], *, seed: int, gpu_milli: float) -> list[Pod]:
    """The list in a random order, then pods drawn from it until so many GPUs are asked for."""
    rng, asked, more = np.random.default_rng(seed), sum(pod.gpu_milli for pod in pods), list[Pod]()
    while asked < gpu_milli:
        more.append(pods[int(rng.integers(len(pods)))])
        asked += more[-1].gpu_milli
    return [*(pods[index] for index in rng.permutation(len(pods))), *more]


def fleet_of(folder: Path = DATA) -> Fleet:
    """The published nodes, empty."""
    with (folder / "openb_node_list_gpu_node.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["sn"])
    gpus = _column(rows, "gpu")
    return Fleet(
        cards=NodeCards(
            gpu_milli=np.where(np.arange(gpus.max()) < gpus[:, None], 1_000, 0),
            cpu_milli=_column(rows, "cpu_milli"),
            model=np.array([MODELS.index(row["model"]) for row in rows]),
        ),
        memory_mib=_column(rows, "memory_mib"),
    )


def _column(rows: Sequence[Mapping[str, str]], name: str) -> Ints:
    return np.array([int(row[name]) for row in rows], dtype=np.int64)


def pods_of(name: str, folder: Path = DATA) -> list[Pod]:
    """A published list, or one that is made here: always the same one."""
    if name not in UNSEEN:
        with gzip.open(folder / "pods" / f"openb_pod_list_{name}.csv.gz", "rt") as file:
            return [_pod(row) for row in csv.DictReader(file)]
    made, rng = UNSEEN[name], np.random.default_rng(UNSEEN_SEED)
    lists = [pods_of(part, folder) for part in made.of]
    drawn = [part[index] for part in lists for index in rng.integers(len(part), size=len(part) // len(lists))]
    return [made.change(pod, rng) for pod in drawn]


def _pod(row: Mapping[str, str]) -> Pod:
    gpus, wanted = int(row["num_gpu"]), row.get("gpu_spec")
    return Pod(
        request=CardRequest(
            cpu_milli=int(row["cpu_milli"]),
            gpus=gpus,
            gpu_milli=int(row["gpu_milli"]) if gpus else 0,
            models=tuple(sorted({MODELS.index(model) for model in wanted.split("|")})) if wanted else (),
        ),
        memory_mib=int(row["memory_mib"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """A list that nobody has published: pods of published ones, drawn with replacement, some changed."""

    of: tuple[str, ...]
    """In equal parts."""
    change: Callable[[Pod, np.random.Generator], Pod] = lambda pod, rng: pod  # noqa: ARG005


def _with(pod: Pod, **changes: int | tuple[int, ...]) -> Pod:
    return replace(pod, request=replace(pod.request, **changes))


def _other_model(pod: Pod, rng: np.random.Generator) -> Pod:  # noqa: ARG001
    names = (MODELS[number] for number in pod.request.models)
    return _with(pod, models=tuple(sorted(MODELS.index(SWAPPED.get(name, name)) for name in names)))


def _more_cpus(pod: Pod, rng: np.random.Generator) -> Pod:  # noqa: ARG001
    return _with(pod, cpu_milli=pod.request.cpu_milli * 3 // 2) if pod.gpu_milli else pod


def _fewer_cpus(pod: Pod, rng: np.random.Generator) -> Pod:  # noqa: ARG001
    return _with(pod, cpu_milli=pod.request.cpu_milli // 2) if pod.gpu_milli else pod


def _eighths(pod: Pod, rng: np.random.Generator) -> Pod:
    if pod.gpu_milli % GPU_MILLI == 0:
        return pod
    return _with(pod, gpu_milli=int(rng.choice((125, 250, 375, 500, 625, 750))))


def _whole(pod: Pod, rng: np.random.Generator) -> Pod:  # noqa: ARG001
    return _with(pod, gpu_milli=GPU_MILLI) if pod.gpu_milli else pod


def _pairs(pod: Pod, rng: np.random.Generator) -> Pod:
    return _with(pod, gpus=2) if pod.gpu_milli == GPU_MILLI and rng.random() < 0.3 else pod


SWAPPED = {"T4": "G2", "G2": "T4", "P100": "V100M16", "V100M16": "V100M32", "V100M32": "P100"}
UNSEEN_SEED = 7
UNSEEN: Mapping[str, Unseen] = {
    "default+multigpu50": Unseen(of=("default", "multigpu50")),
    "cpu200+gpushare100": Unseen(of=("cpu200", "gpushare100")),
    "gpuspec20+gpushare40": Unseen(of=("gpuspec20", "gpushare40")),
    "gpuspec20 swapped": Unseen(of=("gpuspec20",), change=_other_model),
    "default cpu x1.5": Unseen(of=("default",), change=_more_cpus),
    "multigpu20 cpu x0.5": Unseen(of=("multigpu20",), change=_fewer_cpus),
    "gpushare40 eighths": Unseen(of=("gpushare40",), change=_eighths),
    "default pairs": Unseen(of=("default",), change=_pairs),
    **{f"{name} whole": Unseen(of=(name,), change=_whole) for name in ("default", "cpu200", "gpuspec20", "multigpu50")},
}


POLICIES: Mapping[str, Callable[[Fleet, Mix, np.random.Generator], Policy]] = {
    "Random": Random,
    "BestFit": BestFit,
    "FGD": Fgd,
    "fullest": Fullest,
    "default": Default,
}
PUBLISHED_NAMES = {"Random": "01-Random", "BestFit": "05-BestFit", "FGD": "06-FGD"}
TOLERANCES = {"Random": 0.6, "BestFit": 0.3, "FGD": 0.3}
"""Points between our mean and the published one, within which the harness is right."""

Results = dict[tuple[str, str, int], float]
"""(list, policy, seed) -> percent allocated."""


def main() -> int:
    """Exit status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", nargs="+", choices=[*LISTS, *UNSEEN], default=[*LISTS, *UNSEEN], metavar="LIST")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES), metavar="POLICY")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="from 42 on")
    parser.add_argument(
        "--results", type=Path, help="a file of what has been run, which is not run again, and added to"
    )
    options = parser.parse_args()
    if not DATA.is_dir():
        parser.error(f"no traces: {DATA}. hint: set MAINSTAY_DATA to the folder that holds traces/openb")
    results: Results = {}
    seeds = range(SEEDS.start, SEEDS.start + options.seeds)
    for name in options.lists:
        for policy in options.policies:
            _run(results, name, policy, seeds, options.results)
        _print_list(results, name, options.policies, seeds)
    figures = [
        *(row for name in options.lists for row in _list_figures(results, name, options.policies, seeds)),
        *_sum_figures(results, "published lists", [name for name in options.lists if name in LISTS], seeds),
        *_sum_figures(results, "unseen lists", [name for name in options.lists if name in UNSEEN], seeds),
    ]
    report("openb", figures, notes=["GPUs allocated, in percent of all, where 100 % have been asked for"])
    return 1 if any(row.met is False for row in figures) else 0


def _run(results: Results, name: str, policy: str, seeds: Sequence[int], file: Path | None) -> None:
    known = _known(file) if file else {}
    pods = pods_of(name)
    for seed in seeds:
        key = (name, policy, seed)
        if key in known:
            results[key] = known[key]
            continue
        progress(f"{name}, {policy}, seed {seed}")
        results[key] = allocated(fleet_of(), pods, POLICIES[policy], seed=seed)
        if file:
            with file.open("a") as lines:
                lines.write(json.dumps([name, policy, seed, results[key]]) + "\n")


def _known(file: Path) -> Results:
    if not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {(name, policy, seed): value for name, policy, seed, value in rows}


def _values(results: Results, name: str, policy: str, seeds: Sequence[int]) -> list[float]:
    return [results[name, policy, seed] for seed in seeds if (name, policy, seed) in results]


def _gains(results: Results, name: str, seeds: Sequence[int]) -> list[float]:
    """By how many points the default is better than FGD on the same stream, for each seed."""
    ours, theirs = _values(results, name, "default", seeds), _values(results, name, "FGD", seeds)
    return [our - their for our, their in zip(ours, theirs, strict=True)] if ours and theirs else []


def _two_errors(values: Sequence[float]) -> float:
    """Two standard errors of the mean of two or more values."""
    return 2 * statistics.stdev(values) / math.sqrt(len(values))


def published(name: str, folder: Path = DATA) -> dict[str, float]:
    """What the authors got on a list, by our name of the policy; nothing for a list that is not theirs."""
    ours = {theirs: policy for policy, theirs in PUBLISHED_NAMES.items()}
    with (folder / "published_summary.csv").open() as file:
        return {
            ours[row["policy"]]: float(row["mean"])
            for row in csv.DictReader(file)
            if row["workload"] == name
            and row["policy"] in ours
            and (row["metric"], row["arrived_load_pct"]) == ("alloc_pct", "100")
        }


def _print_list(results: Results, name: str, policies: Sequence[str], seeds: Sequence[int]) -> None:
    print(f"\n  {name:<22} {'mean':>7} {'sd':>6} {'published':>10} {'difference':>11} {'over FGD':>9} {'2 errors':>9}")
    theirs = published(name)
    for policy in policies:
        values = _values(results, name, policy, seeds)
        mean, sd = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        line = f"  {'  ' + policy:<22} {mean:>7.2f} {sd:>6.2f}"
        line += f" {theirs[policy]:>10.2f} {mean - theirs[policy]:>+11.2f}" if policy in theirs else " " * 23
        gains = _gains(results, name, seeds)
        if policy == "default" and gains:
            line += f" {statistics.fmean(gains):>+9.3f}" + (f" {_two_errors(gains):>9.3f}" if len(gains) > 1 else "")
        print(line, flush=True)


def _list_figures(results: Results, name: str, policies: Sequence[str], seeds: Sequence[int]) -> list[Figure]:
    rows, theirs = [], published(name)
    for policy in policies:
        values = _values(results, name, policy, seeds)
        rows.append(figure(f"{name}, {policy}", "%", values))
        if policy in theirs:
            off = abs(statistics.fmean(values) - theirs[policy])
            goal = TOLERANCES[policy]
            rows.append(figure(f"{name}, {policy}: off published", "points", [off], goal=goal, higher_is_better=False))
    if gains := _gains(results, name, seeds):
        rows.append(figure(f"{name}: mean gain over FGD", "points", [statistics.fmean(gains)], goal=0.0))
    return rows


def _sum_figures(results: Results, what: str, names: Sequence[str], seeds: Sequence[int]) -> list[Figure]:
    per_list = [gains for name in names if (gains := _gains(results, name, seeds))]
    if not per_list or len(seeds) < 2:
        return []
    totals = [sum(gains) for gains in zip(*per_list, strict=True)]
    mean, errors = statistics.fmean(totals), _two_errors(totals)
    print(f"\n  sum over {what}: {mean:+.3f} ± {errors:.3f} points over FGD")
    return [
        figure(f"{what}: gain over FGD, sum", "points", [mean]),
        figure(f"{what}: the sum less two standard errors", "points", [mean - errors], goal=0.0),
    ]


if __name__ == "__main__":
    sys.exit(main())
