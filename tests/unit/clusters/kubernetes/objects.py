"""Objects as a cluster shows them, from the JSON that it sends, and what asks for pods."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.objects import Node, Pod
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.views import OwnView, view
from mainstay.domain.allocation import CreatePod, Owner, PodSpec
from mainstay.domain.quantity import Resources
from mainstay.domain.secret import SecretUse
from mainstay.domain.workload import Mount, Volume

SYSTEM = "platform"
SETTINGS = Settings(system=SYSTEM)
STARTED, ENDED, LATER = "2026-01-01T10:00:00Z", "2026-01-01T10:01:00Z", "2026-01-01T10:05:00Z"
OWNER = Owner(tenant="acme", project="nlp")
T0 = 1_767_261_600_000_000
"""`STARTED` in UTC microseconds."""

slugs = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
"""Names of tenants and projects, as the operations let them through."""
owners = st.builds(Owner, tenant=slugs, project=slugs)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30) | st.sampled_from(
    ["$(HOME)", "$$(HOME)", "$$$(HOME)", "$", "$$", "a$(", "${HOME}", "$(A)$(B)"]
)


volumes = st.builds(
    Volume,
    path=st.sampled_from(["/data", "/ckpt", "data", "a/b c"]),
    name=st.sampled_from(["", "ckpt", "shared-datasets"]),
    size_bytes=st.sampled_from([0, 10**9]),
    storage_class=st.sampled_from(["", "fast"]),
    access=st.sampled_from(["", "ReadWriteMany"]),
    read_only=st.booleans(),
).filter(lambda volume: volume.size_bytes > 0 or not volume.storage_class)
"""As the job file lets them through."""


def pod(
    name: str = "run-1-0",
    *,
    node: str = "n1",
    main: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    **meta: Any,
) -> Pod:
    """A pod of ours; `main` is the state of its main container."""
    statuses = [] if main is None else [{"name": names.MAIN, "state": main}]
    document = {
        "metadata": {
            "name": name,
            "namespace": names.namespace(OWNER, system=SYSTEM),
            "uid": f"uid-{name}",
            "labels": {
                names.SYSTEM: names.short(SYSTEM),
                names.TENANT: OWNER.tenant,
                names.PROJECT: OWNER.project,
                **(labels or {}),
            },
            **meta,
        },
        "spec": {"nodeName": node, "containers": [{"name": names.MAIN}], **(spec or {})},
        "status": {"phase": "Running", "startTime": STARTED, "containerStatuses": statuses, **(status or {})},
    }
    return msgspec.convert(document, Pod)


def own_view(shown: Pod) -> OwnView:
    """What is kept of a pod of ours."""
    found = view(shown, system=names.short(SYSTEM))
    assert isinstance(found, OwnView)
    return found


def node(
    name: str = "n1",
    *,
    ready: str = "True",
    allocatable: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    since: str = "2026-01-01T09:00:00Z",
    **spec: Any,
) -> Node:
    """A node with 4 cores and 8 GiB, unless said otherwise; an empty `ready` leaves the condition out."""
    conditions = (
        [{"type": "Ready", "status": ready, "reason": "Why", "message": "in words", "lastTransitionTime": since}]
        if ready
        else []
    )
    document = {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels or {}},
        "spec": {"taints": taints or [], **spec},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", **(allocatable or {})}, "conditions": conditions},
    }
    return msgspec.convert(document, Node)


@st.composite
def creations(draw: st.DrawFn) -> CreatePod:
    """Any pod that the platform may ask for, with any text where users may write some."""
    size = draw(st.integers(1, 4))
    rank = draw(st.integers(0, size - 1))
    workload = draw(st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True))
    port = draw(st.booleans())
    spec = PodSpec(
        owner=draw(owners),
        image=draw(st.sampled_from(["", "busybox:1.36", "ghcr.io/acme/train:1.4"])),
        argv=tuple(draw(st.lists(texts, min_size=1, max_size=4))),
        env=tuple(draw(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), texts)).items()),
        mounts=draw(st.sampled_from([(), (Mount(path=".", tree="0" * 64),)])),
        resources=Resources(
            cpu_milli=draw(st.integers(1, 64_000)),
            memory_bytes=draw(st.integers(1, 1 << 40)),
            gpus=draw(st.sampled_from([0, 0, 1, 8])),
        ),
        cpu_limit_milli=draw(st.sampled_from([0, 64_000])),
        memory_limit_bytes=draw(st.sampled_from([0, 1 << 40])),
        stop_grace_seconds=draw(st.integers(0, 3_600)),
        deadline_seconds=draw(st.sampled_from([0, 60])),
        gang=f"{workload}-1",
        rank=rank,
        size=size,
        port=port,
        secrets=draw(st.sampled_from([(), (SecretUse(name="hf-token", env="HF_TOKEN"), SecretUse(name="key.pem"))])),
        volumes=tuple(draw(st.lists(volumes, max_size=3, unique_by=lambda volume: volume.path))),
        devices=draw(st.sampled_from([(), (), ("mig-1g", "nic")])),
        ready_path=draw(st.sampled_from(["", "/v2/health/ready"])) if port else "",
    )
    return CreatePod(name=f"{workload}-1-{rank}", node="n1", spec=spec)
