"""The adapter: one node, a directory per run, a shim per process. It holds nothing that a restart could not read again."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, assert_never

import structlog

from mainstay.clusters.local import gpus, inside, logs, machine, processes, trees, volumes
from mainstay.clusters.local.addresses import free_port, gang_port
from mainstay.clusters.local.files import read_json, storage_errors, write_json
from mainstay.clusters.local.locks import Fence
from mainstay.clusters.local.readiness import PATH, Probe, Readiness
from mainstay.clusters.local.runs import POD_NAME, Directories, Run, cookie, end_record
from mainstay.clusters.local.spec import Place, identity, shim_spec
from mainstay.domain.affinity import traits
from mainstay.domain.allocation import (
    BindPod,
    ClusterAction,
    CreatePod,
    DeletePod,
    DropVolume,
    End,
    EvictPod,
    ForgetPod,
    MarkNode,
    Owner,
    PodSpec,
    ReleasePod,
    RevokePod,
    SeekPod,
    TellPod,
)
from mainstay.domain.capacity import ClusterState, LogChunk, NodeState
from mainstay.domain.errors import Conflict, Gone, Invalid, MainstayError, NoCapacity, NotFound, NotYet, Unavailable
from mainstay.domain.masking import masked_words
from mainstay.domain.quantity import MEMORY_LABEL, Resources
from mainstay.domain.workload import Volume
from mainstay.ports import ArtifactStore, Process, Secrets, Stream

log = structlog.get_logger()

SYSTEM_SHARE = 16
"""One part in so many of the memory is kept for the platform and the system."""
PREPARED_AT_ONCE = 4


class LocalCluster:
    """`ports.Cluster` on this machine."""

    def __init__(
        self,
        directory: Path,
        *,
        artifacts: ArtifactStore,
        secrets: Secrets,
        name: str = "local",
        find_gpus: Callable[[], gpus.Gpus] = gpus.find_gpus,
        tunnelled: bool = False,
    ) -> None:
        """`tunnelled`: the platform is elsewhere, and reaches ports of runs through us alone."""
        self.name = name
        self.acts_at_once = 1
        self._tunnel = name if tunnelled else ""
        self._directories = Directories(root=directory.resolve())
        with storage_errors():
            self._directories.prepare()
        self._artifacts, self._secrets = artifacts, secrets
        self._fence = Fence(self._directories.root)
        self._readiness = Readiness()
        self._runs: dict[str, Run] = {}
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(PREPARED_AT_ONCE)
        self._hierarchies = machine.find_hierarchies()
        self._gpus = find_gpus()
        self._node = node_of_this_machine(self._gpus)

    async def observe(self) -> ClusterState:
        """One node and every run that is not forgotten. What is still being prepared has not been seen yet."""
        # Before the look: what ends during it may be missed by it, and then has ended after this moment.
        now, clock = time.time_ns() // 1_000, time.clock_gettime(time.CLOCK_BOOTTIME)
        runs, claims = await asyncio.to_thread(lambda: (self._look(), volumes.found(self._directories.volumes)))
        ready = self._readiness.ready(
            Probe(pod=run.pod, port=int(run.spec["port"]), path=str(run.spec["ready_path"]))
            for run in runs
            if run.spec and run.started and not run.ended and run.spec["port"] and run.spec["ready_path"]
        )
        own_times = [moment for run in runs if not run.ended and (moment := run.own_time(clock)) is not None]
        return ClusterState(
            nodes=(self._node,),
            pods=tuple(run.state(ready=run.pod in ready, tunnel=self._tunnel) for run in runs),
            at=min([now, *own_times]),
            volumes=claims,
        )

    async def act(self, action: ClusterAction, *, epoch: int) -> None:
        """As every cluster: fenced by epoch, idempotent by name."""
        if not isinstance(action, MarkNode | DropVolume) and not POD_NAME.match(action.name):
            msg = f"not a pod name: {action.name!r}"
            raise Invalid(msg, object_=action.name)
        match action:
            case CreatePod():
                await self._create(action, epoch)
            case DeletePod():
                await self._drop_preparation(action.name)
                await asyncio.to_thread(self._delete, action, epoch)
            case ForgetPod():
                await asyncio.to_thread(self._forget, action, epoch)
            case RevokePod():
                return  # nothing here is ever cut off from us
            case DropVolume():
                await asyncio.to_thread(self._drop_volume, action, epoch)
            case BindPod() | ReleasePod() | EvictPod() | SeekPod() | TellPod() | MarkNode():
                msg = f"nobody else makes pods on this machine: {action.name}"
                raise Invalid(msg, object_=action.name)
            case _:
                assert_never(action)

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """A piece of its output, also after it was forgotten."""
        return await asyncio.to_thread(self._read_log, pod, offset, limit)

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """What it left in $MAINSTAY_OUTPUT_DIR. Links are not followed."""
        if not POD_NAME.match(pod):
            return
        directory = self._directories.files / pod / "output"
        if not directory.is_dir():
            return
        async with self._without_secrets(pod):
            async for file in trees.files_beneath(directory):
                yield file

    async def copy_out(self, pod: str) -> None:
        """What it left for object stores."""
        if not POD_NAME.match(pod):
            return
        spec = await asyncio.to_thread(read_json, self._directories.runs / pod / "spec.json") or {}
        targets = [Volume(**volume) for volume in spec.get("targets", ())]
        if targets:
            owner = Owner(tenant=str(spec["tenant"]), project=str(spec["project"]))
            handed = await self._secrets.of(pod, owner=owner) if any(one.secret for one in targets) else ()
            async with self._without_secrets(pod):
                await volumes.transfer("out", targets, handed, work=self._directories.files / pod / "work")

    async def _handed(self, pod: str) -> tuple[bytes, ...]:
        """What it may say that nobody is to read. Raises NotFound for a pod that is not on record."""
        spec = await asyncio.to_thread(read_json, self._directories.runs / pod / "spec.json") or {}
        if not spec.get("secrets"):
            return ()
        return await self._secrets.handed(pod, owner=Owner(tenant=str(spec["tenant"]), project=str(spec["project"])))

    @asynccontextmanager
    async def _without_secrets(self, pod: str) -> AsyncIterator[None]:
        """A refusal within the block may quote what the pod has written or named: without what it was handed."""
        try:
            yield
        except (Invalid, Unavailable) as error:
            words = masked_words(error.message, await self._handed(pod))
            raise type(error)(words, object_=error.object, hint=error.hint) from None

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Stream]:
        """Over the loopback address that all runs share: only to a port on which this one listens."""
        run = await asyncio.to_thread(self._running, pod)
        async with inside.connected(run, port) as connection:
            yield connection

    @asynccontextmanager
    async def exec(
        self,
        pod: str,
        argv: Sequence[str],
        *,
        stdin: bool = False,
        tty: bool = False,
    ) -> AsyncIterator[Process]:
        """A process with a keeper of its own, which ends with the run and with us."""
        run = await asyncio.to_thread(self._running, pod)
        async with inside.started(run, argv, tty=tty) as command:
            if not (stdin or tty):
                await command.end_input()
            yield command

    async def close(self) -> None:
        """Stop preparing and probing. Runs go on."""
        for pod in tuple(self._preparing):
            await self._drop_preparation(pod)
        await self._readiness.close()

    def _look(self) -> list[Run]:
        for pod in self._directories.missing():
            self._record_loss(pod)
        names = sorted(self._directories.names())
        present = set(names)
        self._runs = {name: run for name, run in self._runs.items() if name in present}
        runs = [self._run(name) for name in names]
        for run in runs:
            if not run.ended:
                self._look_at(run)
        return runs

    def _look_at(self, run: Run) -> None:
        """One run that cannot be looked at blinds nobody to the others: it stays as it was seen last."""
        try:
            if not (self._directories.named / run.pod).exists():
                self._directories.name(run.pod)  # a crash came between its records and its name
            run.look()
        except OSError as error:
            log.warning("run_not_seen", pod=run.pod, error=str(error))

    def _record_loss(self, pod: str) -> None:
        """Somebody has removed the records of a run, most likely the run itself: end what is left of it, then say so."""
        log.warning("run_records_removed", pod=pod)
        processes.kill_carriers(cookie(self._directories.files / pod))
        self._runs.pop(pod, None)
        self._leave_tombstone(pod, End.LOST, "its records were removed while it ran")

    def _run(self, pod: str) -> Run:
        return self._runs.setdefault(pod, Run(directory=self._directories.runs / pod))

    async def _create(self, action: CreatePod, epoch: int) -> None:
        """Raises NotYet while its files are fetched in the background: the next look asks again and learns how it went."""
        task = self._preparing.get(action.name)
        if task is None:
            await asyncio.to_thread(self._check, action, epoch)
            if (self._directories.runs / action.name).exists():
                return
            if not _takes_time(action.spec):
                await self._prepare(action, epoch)
                return
            task = self._preparing[action.name] = asyncio.create_task(self._prepare(action, epoch))
        if not task.done():
            msg = f"the files of pod {action.name} are being fetched"
            raise NotYet(msg, object_=action.name)
        del self._preparing[action.name]
        task.result()

    async def _drop_preparation(self, pod: str) -> None:
        task = self._preparing.pop(pod, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _check(self, action: CreatePod, epoch: int) -> None:
        """Raises Fenced, NoCapacity, Invalid, Gone, Conflict."""
        with self._fence.admit(epoch):
            self._check_name(action)
        spec = action.spec
        if action.node != self._node.name:
            msg = f"no such node: {action.node}"
            raise NoCapacity(msg, object_=action.node)
        if spec.image:
            msg = f"this machine runs processes, not container images: {spec.image}"
            raise Invalid(msg, object_=action.name, hint="leave `image` out, or add a Kubernetes cluster")
        if spec.ready_path and not PATH.match(spec.ready_path):
            msg = f"not a path of a readiness check: {spec.ready_path!r}"
            raise Invalid(msg, object_=action.name)
        volumes.require_possible(action.name, spec.volumes)
        if spec.devices:
            msg = f"this machine hands out no devices by claims: {', '.join(spec.devices)}"
            raise Invalid(
                msg, object_=action.name, hint="ask for GPUs in `resources`, or name a Kubernetes cluster in `infra`"
            )
        words = [*spec.argv, *(part for pair in spec.env for part in pair)]
        if not spec.argv or any("\x00" in word for word in words) or any("=" in name for name, _ in spec.env):
            msg = "a command and its environment must not be empty or contain NUL, nor a name `=`"
            raise Invalid(msg, object_=action.name)

    def _check_name(self, action: CreatePod) -> None:
        if (self._directories.ended / action.name).exists():
            raise _gone(action.name)
        directory = self._directories.runs / action.name
        if not directory.exists():
            if (self._directories.named / action.name).exists():
                raise _gone(action.name)  # it was here and has removed its own records: the next look ends it
            return
        if (directory / "exit.json").exists():
            raise _gone(action.name)
        known = read_json(directory / "spec.json") or {}
        if known.get("identity") != identity(action):
            msg = f"pod {action.name} exists with another specification"
            raise Conflict(msg, object_=action.name)

    async def _prepare(self, action: CreatePod, epoch: int) -> None:
        async with self._slots:
            made = self._directories.making / f"{action.name}.{secrets.token_hex(4)}"
            try:
                with storage_errors():
                    await asyncio.to_thread(_make_parts, made)
                    for mount in action.spec.mounts:
                        files = self._artifacts.of(action.spec.owner)
                        tree = await files.tree(mount.tree)
                        await trees.materialise(files, tree, made / "files" / "work" / mount.path)
                    await asyncio.to_thread(self._lay_out, action, made)
                    await self._hand_in(action, made)
                    await asyncio.to_thread(self._publish, action, made, epoch)
            except NotFound as error:
                msg = f"the files of the pod are not stored: {error.message}"
                raise Invalid(msg, object_=action.name, hint="submit it again") from error
            finally:
                await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)

    async def _hand_in(self, action: CreatePod, made: Path) -> None:
        """Secrets, and what object stores have for it."""
        spec = action.spec
        handed = await self._secrets.of(action.name, owner=spec.owner) if spec.secrets else ()
        await asyncio.to_thread(volumes.hand_in, handed, made / "files" / "secrets")
        await asyncio.to_thread(volumes.hand_masks, handed, made)
        await volumes.transfer("in", spec.volumes, handed, work=made / "files" / "work")

    def _lay_out(self, action: CreatePod, made: Path) -> None:
        spec = action.spec
        work, claims = made / "files" / "work", self._directories.volumes
        volumes.lay_out(spec.volumes, work=work, claims=claims, owner=spec.owner)

    def _publish(self, action: CreatePod, made: Path, epoch: int) -> None:
        """Hand out what is scarce, put the run on record and start its shim: as one holder at a time."""
        with self._fence.admit(epoch):
            self._check_name(action)
            if (self._directories.runs / action.name).exists():
                return
            write_json(made / "spec.json", shim_spec(action, self._place(action)))
            self._directories.publish(made, action.name)
        self._run(action.name).launch()

    def _place(self, action: CreatePod) -> Place:
        """Raises NoCapacity."""
        spec, live = action.spec, self._live_specs()
        self._require_room(action, live)
        taken_gpus = {index for other in live for index in other["gpus"]}
        free_gpus = [index for index in self._gpus.indices if index not in taken_gpus]
        if spec.resources.gpus > len(free_gpus):
            raise _no_room(action, "GPUs", wanted=spec.resources.gpus, free=len(free_gpus))
        taken = {int(other[kind]) for other in live for kind in ("port", "gang_port")}
        meeting = gang_port(self._directories.gangs, spec.gang, taken)
        return Place(
            files=self._directories.files / action.name,
            port=free_port(taken | {meeting}) if spec.port else 0,
            gang_port=meeting,
            gpus=free_gpus[: spec.resources.gpus],
            groups=machine.groups_for(
                self._hierarchies,
                name=machine.group_name(self._directories.root, action.name),
                memory_limit_bytes=spec.memory_limit_bytes,
                cpu_limit_milli=spec.cpu_limit_milli,
            ),
        )

    def _require_room(self, action: CreatePod, live: list[Any]) -> None:
        wanted, capacity = action.spec.resources, self._node.capacity
        free_cpu = capacity.cpu_milli - sum(int(other["cpu_milli"]) for other in live)
        free_memory = capacity.memory_bytes - sum(int(other["memory_bytes"]) for other in live)
        if wanted.cpu_milli > free_cpu:
            raise _no_room(action, "thousandths of a core", wanted=wanted.cpu_milli, free=free_cpu)
        if wanted.memory_bytes > free_memory:
            raise _no_room(action, "bytes of memory", wanted=wanted.memory_bytes, free=free_memory)

    def _live_specs(self) -> list[Any]:
        runs = [self._run(name) for name in self._directories.names()]
        for run in runs:
            if not run.ended:
                run.read()
        return [run.spec for run in runs if run.spec and not run.ended]

    def _delete(self, action: DeletePod, epoch: int) -> None:
        with storage_errors(), self._fence.admit(epoch):
            if (self._directories.ended / action.name).exists():
                return
            directory = self._directories.runs / action.name
            if not directory.exists():
                if not (self._directories.named / action.name).exists():
                    words = "its run directory vanished" if action.node else "deleted before it was created"
                    self._leave_tombstone(action.name, End.NEVER_STARTED, words)
            elif not (directory / "exit.json").exists():
                self._run(action.name).stop(action.grace_seconds)

    def _drop_volume(self, action: DropVolume, epoch: int) -> None:
        with storage_errors(), self._fence.admit(epoch):
            volumes.drop(self._directories.volumes, action.owner, action.name)

    def _leave_tombstone(self, pod: str, reason: End, message: str) -> None:
        made = self._directories.making / f"{pod}.{secrets.token_hex(4)}"
        _make_parts(made)
        write_json(made / "exit.json", end_record(reason, message))
        self._directories.publish(made, pod)

    def _forget(self, action: ForgetPod, epoch: int) -> None:
        with storage_errors(), self._fence.admit(epoch):
            run = self._run(action.name)
            if not run.directory.exists() or not run.read():
                return
            self._directories.bury(run)
            del self._runs[action.name]
            gang = (run.spec or {}).get("gang", "")
            if gang and not any(other["gang"] == gang for other in self._live_specs()):
                (self._directories.gangs / f"{gang}.json").unlink(missing_ok=True)

    def _running(self, pod: str) -> Run:
        """As it is on disk now. Raises NotFound, NotYet, Gone."""
        directory = self._directories.of(pod)
        if directory is None:
            msg = f"no such pod: {pod}"
            raise NotFound(msg, object_=pod)
        run = Run(directory=directory)
        if run.read():
            msg = f"pod {pod} has ended"
            raise Gone(msg, object_=pod)
        if run.spec is None or run.started is None:
            msg = f"pod {pod} does not run yet"
            raise NotYet(msg, object_=pod, hint="its state: mainstay show RUN")
        return run

    def _read_log(self, pod: str, offset: int, limit: int) -> LogChunk:
        # Forgetting moves the directory: whoever reads meanwhile finds it at its new place the second time.
        for _ in range(2):
            directory = self._directories.of(pod)
            if directory is None:
                continue
            end = read_json(directory / "exit.json")
            total = None if end is None else int(end.get("log_bytes", logs.log_bytes(directory / "logs")))
            chunk = logs.read_log(directory / "logs", offset=offset, limit=limit, total=total)
            if directory.exists():
                return chunk
        msg = f"no such pod: {pod}"
        raise NotFound(msg, object_=pod)


def node_of_this_machine(found: gpus.Gpus) -> NodeState:
    """The node that this machine is. A part of the memory stays with the platform."""
    memory = machine.memory_bytes()
    return NodeState(
        name=socket.gethostname(),
        capacity=Resources(
            cpu_milli=machine.cpu_milli(),
            memory_bytes=memory - memory // SYSTEM_SHARE,
            gpus=len(found.indices),
            gpu_model=found.model,
        ),
        ready=True,
        traits=traits({MEMORY_LABEL: str(found.memory_bytes >> 20)} if found.memory_bytes else {}, ()),
    )


def _make_parts(directory: Path) -> None:
    for part in ("", "logs", "files", "files/work", "files/output"):
        (directory / part).mkdir(mode=0o700)
    os.mkfifo(directory / "wake", 0o600)
    (directory / "lock").touch(0o600)


def _takes_time(spec: PodSpec) -> bool:
    return bool(spec.mounts or spec.secrets or any(volume.source for volume in spec.volumes))


def _gone(pod: str) -> Gone:
    msg = f"pod {pod} has ended; its name is not used again"
    return Gone(msg, object_=pod)


def _no_room(action: CreatePod, what: str, *, wanted: int, free: int) -> MainstayError:
    msg = f"node {action.node} has no room for {action.name}: needs {wanted} {what}, {free} are free"
    return NoCapacity(msg, object_=action.node, numbers={"wanted": wanted, "free": free})
