"""A job: pods that run to their end."""

from __future__ import annotations

from mainstay.decide.kinds.environment import dead_man_seconds, environment
from mainstay.domain.allocation import Allocation, Owner, PodSpec
from mainstay.domain.workload import WorkloadSpec


def pod_spec(allocation: Allocation, spec: WorkloadSpec) -> PodSpec:
    """The pod of one rank of a job."""
    return PodSpec(
        owner=Owner(tenant=allocation.tenant, project=allocation.project),
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
        size=spec.nodes,
        port=spec.port,
        ready_path=spec.ready_path,
        dead_man_seconds=dead_man_seconds(spec),
    )


def command(spec: WorkloadSpec) -> tuple[str, ...]:
    """The argument vector. With a setup: one shell runs it, ends at its first failure, and becomes the command.

    The command travels as arguments of the shell, never inside its text: nothing needs quoting, and the process that
    gets the signals is the command itself. What the setup exports or where it changes to is kept.
    """
    if not spec.setup:
        return spec.run
    script = f'set -e\n{spec.setup}\nexec "$@"'
    return ("/bin/sh", "-c", script, "setup", *spec.run)
