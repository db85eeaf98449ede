"""From the job file to what is asked for: resources, retries, volumes, files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from mainstay.domain.affinity import NodeNeed, Preference, Requirement, Spot, Toleration, need
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Invalid
from mainstay.domain.quantity import Resources
from mainstay.domain.secret import SecretUse
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.workload import Elastic, Kind, Mount, OnPartition, PodSet, RetryPolicy, Volume, WorkloadSpec
from mainstay.operations.submit import JobRequest
from mainstay.wire import job as wire
from mainstay.wire import job_files, node_labels, quantities

WORKDIR = "."
"""Where the code of a job is put: into the directory that its command starts in."""
Parsed = TypeVar("Parsed")


def job_request(job: wire.Job, *, code: str = "", files: str = "") -> JobRequest:
    """What to submit; `code` and `files` are trees that are stored. Raises Invalid, naming the field, for a quantity that cannot
    be read.
    """
    cpu = parsed("resources.cpu", quantities.cpu, job.resources.cpu)
    memory = parsed("resources.memory", quantities.memory, job.resources.memory)
    policy, after = _on_partition(job.on_partition)
    sets = tuple(_pod_set(one, f"sets.{number}") for number, one in enumerate(job.sets))
    choices, equals = ((sets[0].resources,), 1) if sets else _choices(job.resources)
    spec = WorkloadSpec(
        kind=Kind(job.type),
        name=job.name or job.type,
        run=job.arguments,
        setup=job.setup,
        image=job.image,
        env=tuple(sorted(job.env.items())),
        mounts=tuple(Mount(path=WORKDIR, tree=tree) for tree in (code, files) if tree),
        secrets=tuple(_secrets(job)),
        volumes=tuple(_volume(volume, f"volumes.{number}") for number, volume in enumerate(job.volumes)),
        devices=tuple(job.devices),
        nodes=sum(one.nodes for one in sets) or job.nodes.count,
        elastic=Elastic(nodes_min=job.nodes.min, nodes_max=job.nodes.max) if job.nodes.elastic else None,
        need=_need(job),
        topology=_topology(job.topology, job.spread),
        sets=sets,
        choices=choices,
        equals=equals,
        cpu_limit_milli=cpu.high or 0,
        memory_limit_bytes=memory.high or 0,
        retry=_retry(job),
        max_duration_seconds=parsed("max_duration", quantities.duration, job.max_duration) if job.max_duration else 0,
        stop_grace_seconds=parsed("stop_grace", quantities.duration, job.stop_grace),
        checkpoint_seconds=parsed("checkpoint_every", quantities.duration, job.checkpoint_every)
        if job.checkpoint_every
        else 0,
        port=Kind(job.type) is Kind.SERVICE,
        on_partition=policy,
        partition_seconds=after,
        cluster=job.infra,
    )
    return JobRequest(spec=spec, project=job.project, queue=job.queue, priority=job.priority)


def resources(*, cpu: str, memory: str, gpu: str = "0", where: str = "resources") -> Resources:
    """The low ends: what is reserved. Raises Invalid."""
    gpus = parsed(f"{where}.gpu", quantities.gpu, gpu)
    return Resources(
        cpu_milli=parsed(f"{where}.cpu", quantities.cpu, cpu).low,
        memory_bytes=parsed(f"{where}.memory", quantities.memory, memory).low,
        gpus=gpus.count,
        gpu_model=gpus.model if gpus.count else "",
        gpu_memory_bytes=gpus.memory_bytes if gpus.count else 0,
        gpu_part_permille=gpus.part_permille,
    )


def _pod_set(one: wire.PodSet, where: str) -> PodSet:
    asked, where = one.resources, f"{where}.resources"
    return PodSet(
        name=one.name,
        nodes=one.nodes,
        resources=resources(cpu=asked.cpu, memory=asked.memory, gpu=asked.gpu, where=where),
        cpu_limit_milli=parsed(f"{where}.cpu", quantities.cpu, asked.cpu).high or 0,
        memory_limit_bytes=parsed(f"{where}.memory", quantities.memory, asked.memory).high or 0,
        run=one.arguments,
    )


def _volume(volume: job_files.Volume, where: str) -> Volume:
    return Volume(
        path=volume.path,
        name=volume.name,
        size_bytes=parsed(f"{where}.size", quantities.size, volume.size) if volume.size else 0,
        storage_class=volume.storage_class,
        access=volume.access,
        read_only=volume.read_only,
        source=volume.source,
        target=volume.target,
        secret=volume.secret,
    )


def _need(job: wire.Job) -> NodeNeed | None:
    return need(
        requirements=requirements(job.node_labels),
        preferences=(
            Preference(requirements=tuple(requirements(one.labels)), weight=one.weight) for one in job.node_preferences
        ),
        tolerations=(Toleration(**node_labels.toleration(text)._asdict()) for text in job.tolerations),
        spot=Spot(job.resources.spot),
    )


def requirements(lines: Iterable[str]) -> Iterable[Requirement]:
    """What lines about labels say. Raises ValueError."""
    return (Requirement(**node_labels.label_line(text)._asdict()) for text in lines)


def _topology(near: wire.Topology, apart: wire.Spread) -> TopologyNeed | None:
    level = near.required or near.preferred
    spread = Spread(level=apart.level, at_most=apart.at_most) if apart.level else None
    return TopologyNeed(level=level, required=bool(near.required), spread=spread) if level or spread else None


def _secrets(job: wire.Job) -> Iterable[SecretUse]:
    """Those that the job itself sees, then those that open stores for it."""
    yield from (SecretUse(name=use.name, env=use.env) for use in job.secrets)
    openers = dict.fromkeys(volume.secret for volume in job.volumes if volume.secret)
    yield from (SecretUse(name=name, file=False) for name in openers)


def files_tree(job: wire.Job) -> tuple[Tree, dict[str, bytes]]:
    """The files that stand in the job itself: their tree, and the content of each digest."""
    blobs = {path: text.encode() for path, text in job.files.items()}
    digests = {path: hashlib.sha256(blob).hexdigest() for path, blob in blobs.items()}
    entries = tuple(Entry(path=path, size=len(blobs[path]), digest=digests[path]) for path in sorted(blobs))
    return Tree(entries=entries), {digests[path]: blob for path, blob in blobs.items()}


def _choices(wanted: wire.Resources) -> tuple[tuple[Resources, ...], int]:
    """What it may be, and how many of the first are equals: what stands beside `any_of` is one of them, unless it names no GPU
    and an alternative does; then it only says what they leave out.
    """
    given = resources(cpu=wanted.cpu, memory=wanted.memory, gpu=wanted.gpu)
    any_of, ordered = (
        [
            resources(
                cpu=choice.cpu or wanted.cpu,
                memory=choice.memory or wanted.memory,
                gpu=choice.gpu or wanted.gpu,
                where=f"resources.{field}.{number}",
            )
            for number, choice in enumerate(alternatives)
        ]
        for field, alternatives in (("any_of", wanted.any_of), ("ordered", wanted.ordered))
    )
    equals = any_of if not given.gpus and any(one.gpus for one in (*any_of, *ordered)) else [given, *any_of]
    return (*equals, *ordered), max(1, len(equals))


def _on_partition(given: wire.Partition) -> tuple[OnPartition, int]:
    if given.requeue_after:
        after = parsed("on_partition.requeue_after", quantities.duration, given.requeue_after)
        return OnPartition.REQUEUE_AFTER, after
    if given.allow_duplicates:
        after = parsed("on_partition.allow_duplicates", quantities.duration, given.allow_duplicates)
        return OnPartition.ALLOW_DUPLICATES, after
    return OnPartition.WAIT, 0


def _retry(job: wire.Job) -> RetryPolicy:
    backoff = parsed("retry.backoff", quantities.duration, job.retry.backoff)
    return RetryPolicy(
        infrastructure_max=job.retry.infra,
        user_max=job.retry.user,
        backoff_seconds=backoff,
        backoff_seconds_max=max(backoff, RetryPolicy().backoff_seconds_max),
        always=Kind(job.type) is Kind.SERVICE,
    )


def parsed(field: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    """What a field says in words. Raises Invalid at the field."""
    try:
        return parse(text)
    except ValueError as error:
        msg = f"{field}: {error}"
        raise Invalid(msg, object_=field) from error
