"""Replicas on PostgreSQL that lead a Kubernetes cluster under load, paused, killed and cut off at random; and what came of it.

The API server and the database are real. The nodes are played (testbed/puppets.py): they write down what truly ran where, which
no database of ours can change. Every process has its own way to the cluster and its own way to the database; either may refuse
or fall silent. Jobs are submitted over the API of whichever process answers, each batch under its key until it is acknowledged.

    python -m benchmarks.kubernetes_replicas --minutes 30
    python -m benchmarks.kubernetes_replicas --minutes 2 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import figure, percentile, progress, report
from mainstay.clusters.kubernetes import names
from mainstay.domain.workload import Phase
from mainstay.sdk import Client, Job, Resources
from mainstay.store import open_postgresql
from mainstay.wire.requests import ClusterRequest
from testbed import control_plane
from testbed.control_plane import ControlPlane
from testbed.gate import Gate, How
from testbed.proxy import Proxy, proxied
from testbed.puppets import Life, Machine, Puppets
from tests import postgres
from tests.promises import Evidence, Promise, Violation, orphans, violations, workload_of

CLUSTER, TENANT = "played", "default"
REPLICAS = 2
MACHINES = 8
USERS = 3
BATCH_MAX = 6
JOBS_EVERY_SECONDS = (0.5, 3.0)
ANSWER_SECONDS = 8.0
"""Of one request: a paused process does not answer."""
START_SECONDS_MAX = 60.0
SETTLE_SECONDS_MAX = 300.0
CALM_SECONDS = (0.5, 6.0)
PAUSE_SECONDS = (1.0, 30.0)
"""A lease lasts 6 s: short ones are slept through, long ones cost the lead."""
CUT_SECONDS = (1.0, 20.0)
DOWN_SECONDS = (0.0, 5.0)
HOWS: tuple[How, ...] = ("refuse", "hang")


@dataclass(slots=True, kw_only=True)
class Member:
    """One process of the campaign: how it is started, what it needs, and what has been done to it.

    Another kind of process (one that leads the cluster from beside it, say) is another Member: a command, an environment, and
    its ways.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    cut: dict[str, Callable[[How], Awaitable[None]]]
    """What it can be cut off from, and how: `refuse` or `hang`."""
    mend: dict[str, Callable[[], Awaitable[None]]]
    state: Path | None = None
    """Where it says how its API is reached; None if it has none."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it without waiting."""
        if self.state:
            (self.state / "server.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """A signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    async def until_it_answers(self) -> None:
        """Raises RuntimeError with the end of its log."""
        assert self.state is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while not (self.state / "server.json").exists():
            self.require_alive()
            if time.monotonic() > deadline:
                msg = f"{self.name} does not start; its log ends:\n{self.log.read_text()[-2_000:]}"
                raise RuntimeError(msg)
            await asyncio.sleep(0.05)

    def require_alive(self) -> None:
        """Raises RuntimeError if it has ended by itself."""
        assert self.process is not None
        if self.process.poll() is not None:
            msg = f"{self.name} has ended by itself; its log ends:\n{self.log.read_text()[-2_000:]}"
            raise RuntimeError(msg)

    def client(self) -> Client:
        """Of its API. Raises FileNotFoundError while there is none."""
        assert self.state is not None
        where = json.loads((self.state / "server.json").read_text())
        return Client(server=where["url"], token=where["token"], retries=0, timeout=ANSWER_SECONDS)


@dataclass(slots=True)
class Campaign:
    """All that goes on."""

    seed: int
    members: Sequence[Member]
    evidence: Evidence
    submitted: list[str]
    asked: int = 0
    """Jobs that were asked for, whether acknowledged or not."""
    repeated: int = 0
    differing: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    async def rage(self, *, minutes: float) -> None:
        """Load and faults, side by side, for so long. Then everything works again."""
        deadline = time.monotonic() + minutes * 60
        troubles = [
            asyncio.create_task(self._trouble(member, random.Random(f"{self.seed}/{member.name}"), deadline))
            for member in self.members
        ]
        users = [asyncio.create_task(self._user(number, deadline)) for number in range(USERS)]
        while not all(task.done() for task in troubles):
            await asyncio.sleep(1.0)
            left = max(0.0, deadline - time.monotonic())
            progress(f"{left:5.0f} s left: {len(self.submitted)} jobs, {sum(self.done.values())} faults")
        await asyncio.gather(*troubles)
        await asyncio.gather(*users)

    async def _trouble(self, member: Member, rng: random.Random, deadline: float) -> None:
        while time.monotonic() < deadline:
            await asyncio.sleep(rng.uniform(*CALM_SECONDS))
            member.require_alive()
            what = rng.choice(("pause", "kill", *(f"cut from the {way}" for way in sorted(member.cut))))
            self.done[what] += 1
            match what:
                case "pause":
                    member.send(signal.SIGSTOP)
                    await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
                    member.send(signal.SIGCONT)
                case "kill":
                    assert member.process is not None
                    member.process.kill()
                    await asyncio.to_thread(member.process.wait)
                    await asyncio.sleep(rng.uniform(*DOWN_SECONDS))
                    member.start()
                    if member.state:
                        await member.until_it_answers()
                case _:
                    way = what.removeprefix("cut from the ")
                    await member.cut[way](rng.choice(HOWS))
                    await asyncio.sleep(rng.uniform(*CUT_SECONDS))
                    await member.mend[way]()

    async def _user(self, name: int, deadline: float) -> None:
        rng, number = random.Random(f"{self.seed}/user/{name}"), 0
        while time.monotonic() < deadline:
            number += 1
            await self._submit(rng, key=f"campaign-{self.seed}-{name}-{number}", count=rng.randint(1, BATCH_MAX))
            await asyncio.sleep(rng.uniform(*JOBS_EVERY_SECONDS))

    async def _submit(self, rng: random.Random, *, key: str, count: int) -> None:
        """Until it is acknowledged; then once more: the same key has the same answer."""
        self.asked += count
        answers: list[list[str]] = []
        while len(answers) < 2:
            member = rng.choice([one for one in self.members if one.state])
            try:
                answers.append(await asyncio.to_thread(_submitted, member, key, count))
            except Exception:  # whatever broke, the request is repeated under its key
                self.repeated += 1
                await asyncio.sleep(0.2)
        if answers[0] != answers[1]:
            self.differing.append(key)
        self.submitted += answers[0]

    async def settle(self) -> tuple[bool, float]:
        """Whether everything came to its end, and after how many seconds."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < SETTLE_SECONDS_MAX:
            if await asyncio.to_thread(self.evidence.settled):
                return True, waited
            progress(f"settling for {waited:.0f} s")
            await asyncio.sleep(0.5)
        return False, waited


def _join(member: Member) -> None:
    """The cluster becomes one of the fleet: each process finds its own way in the kubeconfig of its machine."""
    with member.client() as client:
        client.add_cluster(ClusterRequest(name=CLUSTER, context="testbed"))


def _submitted(member: Member, key: str, count: int) -> list[str]:
    job = Job.model_validate(
        {
            "name": "campaign",
            "run": "played",
            "infra": CLUSTER,
            "resources": Resources(cpu="1", memory="512MB"),
            "retry": {"infra": 100, "backoff": "1s"},
            "stop_grace": "1s",
        }
    )
    with member.client() as client:
        return [run.id for run in client.submit_many([job] * count, key=key)]


def life_of(pod: str, *, seed: int) -> Life:
    """Short and long ones, most of which end well: by name, for a pod may run before its submitter has heard of it."""
    rng = random.Random(f"{seed}/{pod}")
    return Life(
        seconds=rng.choice((0.2, 1.0, 3.0, 8.0, 20.0)),
        exit_code=rng.choice((0, 0, 0, 0, 0, 1)),
        starts_after=rng.choice((0.0, 0.05, 0.5)),
    )


@contextlib.asynccontextmanager
async def replicas(plane: ControlPlane, database: postgres.Server, folder: Path) -> AsyncIterator[list[Member]]:
    """Started one after the other: the first makes the database, the token and the key."""
    made: list[Member] = []
    async with contextlib.AsyncExitStack() as parts:
        for number in range(REPLICAS):
            proxy = parts.enter_context(proxied(plane))
            gate = Gate(str(database.socket / ".s.PGSQL.5432"))
            await gate.open()
            parts.push_async_callback(gate.close)
            made.append(replica(number, proxy, gate, folder))
            if number:
                share(made[0], made[number])
            made[-1].start()
            await made[-1].until_it_answers()
        try:
            yield made
        finally:
            for member in made:
                assert member.process is not None
                member.process.kill()
                member.process.wait()


def replica(number: int, proxy: Proxy, gate: Gate, folder: Path) -> Member:
    """A whole platform process on the shared database."""
    state = folder / f"replica-{number}"
    address = f"postgresql://postgres@127.0.0.1:{gate.port}/mainstay?sslmode=disable"
    options = {"state": state, "port": 0, "artifacts": folder / "artifacts"}
    return Member(
        name=state.name,
        command=(
            "-m",
            "benchmarks.kubernetes_replica",
            "server",
            *(f"--{name}={value}" for name, value in options.items()),
        ),
        environment={"KUBECONFIG": str(proxy.kubeconfig), "MAINSTAY_DATABASE": address},
        log=folder / f"{state.name}.log",
        cut={"cluster": lambda how: asyncio.to_thread(proxy.partition, how), "database": gate.shut},
        mend={"cluster": lambda: asyncio.to_thread(proxy.heal), "database": gate.open},
        state=state,
    )


def share(first: Member, other: Member) -> None:
    """The files that all replicas need."""
    assert first.state is not None
    assert other.state is not None
    other.state.mkdir(mode=0o700)
    for name in ("token", "secrets-key"):
        shutil.copy(first.state / name, other.state / name)


async def measure(plane: ControlPlane, database: postgres.Server, folder: Path, options: argparse.Namespace) -> int:
    """The campaign and its report; the exit status."""
    database.create_database("mainstay")
    submitted: list[str] = []
    machines = [Machine(name=f"played-{number}") for number in range(MACHINES)]
    puppets = Puppets(plane, machines, life=lambda pod: life_of(workload_of(pod), seed=options.seed))
    await puppets.start()
    async with replicas(plane, database, folder) as members:
        await asyncio.to_thread(_join, members[0])
        store = await asyncio.to_thread(open_postgresql, database.url("mainstay"))
        evidence = Evidence(store=store, tenant=TENANT, puppets=puppets, submitted=submitted)
        campaign = Campaign(options.seed, members, evidence, submitted)
        began = time.monotonic()
        await campaign.rage(minutes=options.minutes)
        seconds = time.monotonic() - began
        settled, settling = await campaign.settle()
        mark = names.short(store.system())

        async def ours() -> list[dict[str, Any]]:
            path = f"/api/v1/pods?labelSelector={names.SYSTEM}%3D{mark}"
            found = await asyncio.to_thread(plane.ask, path)
            return list(found["items"])

        broken = [*violations(evidence, settled=settled), *await orphans(ours), *_of_keys(campaign)]
        tell(campaign, broken, seconds=seconds, settling=settling)
        store.close()
    await puppets.close()
    return 1 if broken else 0


def _of_keys(campaign: Campaign) -> Iterator[Violation]:
    """One key, one batch, one answer."""
    for key in campaign.differing:
        yield Violation(promise=Promise.KEPT, how=f"another answer under the key {key}")
    there = len(campaign.evidence.workloads())
    if there != campaign.asked:
        yield Violation(promise=Promise.KEPT, how=f"{there} workloads exist, {campaign.asked} were asked for")


def tell(campaign: Campaign, broken: Sequence[Violation], *, seconds: float, settling: float) -> None:
    """A table, and a line of JSON."""
    workloads = campaign.evidence.workloads().values()
    history = campaign.evidence.puppets.history
    waits = [(one.started_at - one.submitted_at) / 1e6 for one in workloads if one.started_at]
    count = Counter(one.promise for one in broken)
    report(
        "kubernetes_replicas",
        [
            figure("load and faults", "minutes", [seconds / 60]),
            figure("jobs acknowledged", "jobs", [len(campaign.submitted)]),
            figure("requests repeated under their key", "requests", [campaign.repeated]),
            figure("jobs that succeeded", "jobs", [sum(one.phase is Phase.SUCCEEDED for one in workloads)]),
            figure("pods run", "pods", [len(history)]),
            *(figure(f"{what}", "times", [times]) for what, times in sorted(campaign.done.items())),
            figure("submitted to running, p50", "s", [percentile(waits, 0.5)], higher_is_better=False),
            figure("submitted to running, p99", "s", [percentile(waits, 0.99)], higher_is_better=False),
            figure("settled after the last fault", "s", [settling], higher_is_better=False),
            *(figure(f"broken: {one.value}", "", [count[one]], goal=0, higher_is_better=False) for one in Promise),
        ],
        notes=[f"seed {campaign.seed}", *map(repr, broken[:20])],
    )


def main() -> int:
    """Run the campaign; the exit status is 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the logs of all processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mainstay-campaign-") as folder:
        try:
            with control_plane.running() as plane, postgres.running(postgres.FAST) as database:
                return asyncio.run(measure(plane, database, Path(folder), options))
        finally:
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*.log"):
                    shutil.copy(log, options.keep)


if __name__ == "__main__":
    sys.exit(main())
