"""Replicas on PostgreSQL and an agent under load, paused, killed and cut off at random; and what came of it.

The API servers and the database are real. The nodes are played (testbed/puppets.py): they write down what truly ran where, which
no database of ours can change. The replicas lead one cluster, the agent leads another. Every process has its own way to its
cluster, every replica one to the database, and the agent one to the control plane: to whichever replica takes a connection, as
behind a load balancer. Each way may refuse or fall silent. Jobs for either cluster are submitted over the API of whichever
replica answers, each batch under its key until it is acknowledged.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
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
from testbed.control_plane import ControlPlane, free_ports
from testbed.gate import Gate, How
from testbed.proxy import Proxy, proxied
from testbed.puppets import Life, Machine, Puppets
from tests import postgres
from tests.promises import Evidence, Promise, Violation, orphans, violations, workload_of

DIRECT, CARRIED = "direct", "carried"
"""The cluster that the replicas lead, and that of the agent."""
CLUSTERS = (DIRECT, CARRIED)
TENANT = "default"
REPLICAS = 2
MACHINES = 8
"""Of each cluster. Both name them alike."""
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
    """One process of the campaign: how it is started, what it needs, and what can be done to it."""

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
            self.done[f"{member.name}: {what}"] += 1
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
            jobs = [_job(rng.choice(CLUSTERS)) for _ in range(rng.randint(1, BATCH_MAX))]
            await self._submit(rng, jobs, key=f"campaign-{self.seed}-{name}-{number}")
            await asyncio.sleep(rng.uniform(*JOBS_EVERY_SECONDS))

    async def _submit(self, rng: random.Random, jobs: Sequence[Job], *, key: str) -> None:
        """Until it is acknowledged; then once more: the same key has the same answer."""
        self.asked += len(jobs)
        answers: list[list[str]] = []
        while len(answers) < 2:
            member = rng.choice([one for one in self.members if one.state])
            try:
                answers.append(await asyncio.to_thread(_submitted, member, jobs, key))
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


def _join(member: Member) -> str:
    """Both clusters become part of the fleet: the token of the agent.

    Each replica finds its own way to the one that it reaches in the kubeconfig of its machine.
    """
    with member.client() as client:
        client.add_cluster(ClusterRequest(name=DIRECT, context="testbed"))
        return client.add_cluster(ClusterRequest(name=CARRIED, agent=True)).token


def _job(cluster: str) -> Job:
    return Job.model_validate(
        {
            "name": "campaign",
            "run": "played",
            "infra": cluster,
            "resources": Resources(cpu="1", memory="512MB"),
            "retry": {"infra": 100, "backoff": "1s"},
            "stop_grace": "1s",
        }
    )


def _submitted(member: Member, jobs: Sequence[Job], key: str) -> list[str]:
    with member.client() as client:
        return [run.id for run in client.submit_many(jobs, key=key)]


def life_of(pod: str, *, seed: int) -> Life:
    """Short and long ones, most of which end well: by name, for a pod may run before its submitter has heard of it."""
    rng = random.Random(f"{seed}/{pod}")
    return Life(
        seconds=rng.choice((0.2, 1.0, 3.0, 8.0, 20.0)),
        exit_code=rng.choice((0, 0, 0, 0, 0, 1)),
        starts_after=rng.choice((0.0, 0.05, 0.5)),
    )


@contextlib.asynccontextmanager
async def members(
    planes: Mapping[str, ControlPlane], database: postgres.Server, folder: Path
) -> AsyncIterator[list[Member]]:
    """Started one after the other: the first replica makes the database, the token and the key, and is told of the clusters."""
    made: list[Member] = []
    ports = free_ports(REPLICAS)
    async with contextlib.AsyncExitStack() as parts:

        async def gate(*targets: str) -> Gate:
            opened = Gate(*targets)
            await opened.open()
            parts.push_async_callback(opened.close)
            return opened

        try:
            for number, port in enumerate(ports):
                proxy = parts.enter_context(proxied(planes[DIRECT]))
                way = await gate(str(database.socket / ".s.PGSQL.5432"))
                made.append(replica(number, port, proxy, way, folder))
                if number:
                    share(made[0], made[number])
                made[-1].start()
                await made[-1].until_it_answers()
            token = await asyncio.to_thread(_join, made[0])
            way = await gate(*(f"127.0.0.1:{port}" for port in ports))
            made.append(agent(token, parts.enter_context(proxied(planes[CARRIED])), way, folder))
            made[-1].start()
            yield made
        finally:
            for member in made:
                if member.process is not None:
                    member.process.kill()
                    member.process.wait()


def replica(number: int, port: int, proxy: Proxy, gate: Gate, folder: Path) -> Member:
    """A whole platform process on the shared database, always at the same port."""
    state = folder / f"replica-{number}"
    address = f"postgresql://postgres@127.0.0.1:{gate.port}/mainstay?sslmode=disable"
    options = {"state": state, "port": port, "artifacts": folder / "artifacts"}
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


def agent(token: str, proxy: Proxy, gate: Gate, folder: Path) -> Member:
    """What leads a cluster from beside it."""
    name = "agent"
    file = folder / "agent-token"
    file.touch(0o600)
    file.write_text(token)
    options = {
        "server": f"http://127.0.0.1:{gate.port}",
        "cluster": CARRIED,
        "token-file": file,
        "kubeconfig": proxy.kubeconfig,
    }
    return Member(
        name=name,
        command=("-m", "benchmarks.kubernetes_replica", name, *(f"--{key}={value}" for key, value in options.items())),
        environment={},
        log=folder / f"{name}.log",
        cut={"cluster": lambda how: asyncio.to_thread(proxy.partition, how), "control plane": gate.shut},
        mend={"cluster": lambda: asyncio.to_thread(proxy.heal), "control plane": gate.open},
    )


def share(first: Member, other: Member) -> None:
    """The files that all replicas need."""
    assert first.state is not None
    assert other.state is not None
    other.state.mkdir(mode=0o700)
    for name in ("token", "secrets-key"):
        shutil.copy(first.state / name, other.state / name)


async def measure(
    planes: Mapping[str, ControlPlane], database: postgres.Server, folder: Path, options: argparse.Namespace
) -> int:
    """The campaign and its report; the exit status."""
    database.create_database("mainstay")
    submitted: list[str] = []
    async with contextlib.AsyncExitStack() as parts:
        puppets = {name: await played(plane, seed=options.seed, parts=parts) for name, plane in planes.items()}
        made = await parts.enter_async_context(members(planes, database, folder))
        store = await asyncio.to_thread(open_postgresql, database.url("mainstay"))
        parts.callback(store.close)
        evidence = Evidence(store=store, tenant=TENANT, puppets=puppets, submitted=submitted)
        campaign = Campaign(options.seed, made, evidence, submitted)
        began = time.monotonic()
        await campaign.rage(minutes=options.minutes)
        seconds = time.monotonic() - began
        settled, settling = await campaign.settle()
        broken = [*violations(evidence, settled=settled), *_of_keys(campaign)]
        for plane in planes.values():
            broken += await orphans(lambda plane=plane: _ours(plane, system=store.system()))  # type: ignore[misc]
        tell(campaign, broken, seconds=seconds, settling=settling)
    return 1 if broken else 0


async def played(plane: ControlPlane, *, seed: int, parts: contextlib.AsyncExitStack) -> Puppets:
    """The machines of one cluster, until the end of the block."""
    machines = [Machine(name=f"played-{number}") for number in range(MACHINES)]
    puppets = Puppets(plane, machines, life=lambda pod: life_of(workload_of(pod), seed=seed))
    await puppets.start()
    parts.push_async_callback(puppets.close)
    return puppets


async def _ours(plane: ControlPlane, *, system: str) -> list[dict[str, Any]]:
    path = f"/api/v1/pods?labelSelector={names.SYSTEM}%3D{names.short(system)}"
    found = await asyncio.to_thread(plane.ask, path)
    return list(found["items"])


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
    puppets = campaign.evidence.puppets
    waits = [(one.started_at - one.submitted_at) / 1e6 for one in workloads if one.started_at]
    count = Counter(one.promise for one in broken)
    report(
        "kubernetes_replicas",
        [
            figure("load and faults", "minutes", [seconds / 60]),
            figure("jobs acknowledged", "jobs", [len(campaign.submitted)]),
            figure("requests repeated under their key", "requests", [campaign.repeated]),
            figure("jobs that succeeded", "jobs", [sum(one.phase is Phase.SUCCEEDED for one in workloads)]),
            *(figure(f"{cluster}: pods run", "pods", [len(one.history)]) for cluster, one in puppets.items()),
            *(figure(what, "times", [times]) for what, times in sorted(campaign.done.items())),
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
            with contextlib.ExitStack() as parts:
                planes = {name: parts.enter_context(control_plane.running()) for name in CLUSTERS}
                database = parts.enter_context(postgres.running(postgres.FAST))
                return asyncio.run(measure(planes, database, Path(folder), options))
        finally:
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*.log"):
                    shutil.copy(log, options.keep)


if __name__ == "__main__":
    sys.exit(main())
