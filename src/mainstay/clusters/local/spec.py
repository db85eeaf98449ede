"""From the pod that is wanted to the file that its shim reads: environment, limits, port, GPUs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainstay.clusters.local.addresses import HOST
from mainstay.clusters.local.processes import boot_id
from mainstay.clusters.local.runs import cookie
from mainstay.domain.allocation import CreatePod

LOG_FILE_BYTES = 16 << 20
LOG_FILES_MAX = 8
"""The newest 112 to 128 MiB of a run's output are kept."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What this cluster adds to a pod: where it runs and what it was handed out."""

    files: Path
    """Where what the run sees will be once it is published."""
    port: int
    gang_port: int
    gpus: Sequence[int]
    groups: Sequence[Mapping[str, Any]]


def identity(action: CreatePod) -> str:
    """The same for the same request: tells a repetition from another pod under one name."""
    spec = dataclasses.asdict(action.spec)
    del spec["dead_man_seconds"]  # nothing here is ever cut off from us
    document = [action.node, spec]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def shim_spec(action: CreatePod, place: Place) -> Mapping[str, Any]:
    """The content of spec.json: what the shim needs, and what the cluster must know of the run later."""
    spec = action.spec
    return {
        "identity": identity(action),
        "node": action.node,
        "tenant": spec.owner.tenant,
        "project": spec.owner.project,
        "gang": spec.gang,
        "secrets": bool(spec.secrets),
        "targets": [dataclasses.asdict(volume) for volume in spec.volumes if volume.target],
        "cpu_milli": spec.resources.cpu_milli,
        "memory_bytes": spec.resources.memory_bytes,
        "gpus": list(place.gpus),
        "port": place.port,
        "gang_port": place.gang_port,
        "ready_path": spec.ready_path,
        "argv": list(spec.argv),
        "directory": str(place.files / "work"),
        "boot_id": boot_id(),
        "environment": environment(action, place),
        "groups": list(place.groups),
        "memory_limit_bytes": spec.memory_limit_bytes,
        "deadline_seconds": spec.deadline_seconds,
        "grace_seconds": spec.stop_grace_seconds,
        "log_file_bytes": LOG_FILE_BYTES,
        "log_files_max": LOG_FILES_MAX,
    }


def environment(action: CreatePod, place: Place) -> dict[str, str]:
    """All that a run sees: nothing of the control plane's own environment, the user's variables, then ours."""
    spec = action.spec
    gpus = ",".join(map(str, place.gpus))
    name, _, value = cookie(place.files).partition("=")
    base = {
        # The interpreter that runs the platform comes first: `python` in a job is the one with its packages.
        "PATH": f"{os.path.dirname(sys.executable)}:{PATH}",  # noqa: PTH120 not resolved: a virtual environment is a link
        "HOME": os.path.expanduser("~"),  # noqa: PTH111
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    ours = {
        "MAINSTAY_OUTPUT_DIR": str(place.files / "output"),
        "MAINSTAY_MASTER_ADDR": HOST,
        "MAINSTAY_NODE_IPS": ",".join([HOST] * max(spec.size, spec.rank + 1)),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(place.gang_port),
        "CUDA_VISIBLE_DEVICES": gpus,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        name: value,
    }
    if any(use.file for use in spec.secrets):
        ours["MAINSTAY_SECRETS_DIR"] = str(place.files / "secrets")
    if spec.port:
        ours["PORT"] = str(place.port)
    return {**base, **dict(spec.env), **ours}
