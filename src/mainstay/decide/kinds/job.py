"""A job: pods that run to their end."""

from __future__ import annotations

from dataclasses import replace

from mainstay.decide.kinds.environment import dead_man_seconds, environment
from mainstay.domain.allocation import Allocation, PodSpec
from mainstay.domain.secret import ENVIRONMENT_FILE
from mainstay.domain.workload import WorkloadSpec

READ_SECRETS = f'. "$MAINSTAY_SECRETS_DIR/{ENVIRONMENT_FILE}"'


def pod_spec(allocation: Allocation, spec: WorkloadSpec) -> PodSpec:
    """The pod of one rank of a job."""
    spec = of_rank(spec, allocation.rank)
    return PodSpec(
        owner=allocation.owner,
        image=spec.image,
        argv=command(spec),
        env=environment(allocation, spec),
        mounts=spec.mounts,
        resources=allocation.resources,
        cpu_limit_milli=spec.cpu_limit_milli,
        memory_limit_bytes=spec.memory_limit_bytes,
        stop_grace_seconds=spec.stop_grace_seconds,
        deadline_seconds=spec.max_duration_seconds,
        gang=f"{allocation.workload}-{allocation.attempt}",
        rank=allocation.rank,
        size=allocation.ranks,
        port=spec.port,
        ready_path=spec.ready_path,
        dead_man_seconds=dead_man_seconds(spec),
        secrets=spec.secrets,
        volumes=spec.volumes,
        devices=spec.devices,
        elastic=spec.elastic is not None,
        need=spec.need.required if spec.need else None,
    )


def of_rank(spec: WorkloadSpec, rank: int) -> WorkloadSpec:
    """As it is for one rank: what its pod set says of itself goes before what is said of all."""
    found = spec.place_in_set(rank)
    if found is None:
        return spec
    one, _ = found
    return replace(
        spec,
        run=one.run or spec.run,
        cpu_limit_milli=one.cpu_limit_milli,
        memory_limit_bytes=one.memory_limit_bytes,
    )


def command(spec: WorkloadSpec) -> tuple[str, ...]:
    """The argument vector. With a setup: one shell runs it, ends at its first failure, and becomes the command. The same shell
    reads what secrets are to be variables: their values stand in no specification of a pod.

    The command travels as arguments of the shell, never inside its text: nothing needs quoting, and the process that
    gets the signals is the command itself. What the setup exports or where it changes to is kept.
    """
    before = [READ_SECRETS] if any(use.env for use in spec.secrets) else []
    before += [spec.setup] if spec.setup else []
    if not before:
        return spec.run
    script = "\n".join(["set -e", *before, 'exec "$@"'])
    return ("/bin/sh", "-c", script, "setup", *spec.run)
