"""Claims of storage that jobs name: found in the namespace of their project, or made there. They outlive every run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mainstay.clusters.kubernetes import pods
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.errors import AlreadyExists, NotFound
from mainstay.clusters.kubernetes.kinds import CLAIMS
from mainstay.clusters.kubernetes.objects import VolumeClaim
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.quantities import whole
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.allocation import CreatePod
from mainstay.domain.errors import Invalid
from mainstay.domain.workload import Volume


async def ensure(
    api: KubeApi,
    pace: Pace,
    action: CreatePod,
    settings: Settings,
    *,
    namespace: str,
    make_namespace: Callable[[], Awaitable[None]],
) -> None:
    """Before its pod is made: every claim that it names is there. Twice is once, and a crash in between leaves a claim that the
    next try finds.

    Raises Invalid if one is not there and not to be made, or is not what was asked for.
    """
    named = [volume for volume in action.spec.volumes if volume.name]
    if named and settings.namespaces_per_project > 1:
        msg = f"a claim lies in one namespace, and a project has {settings.namespaces_per_project} of them in this cluster"
        raise Invalid(msg, object_=action.name, hint="name a cluster with one namespace per project in `infra`")
    for volume in named:
        try:
            found = await api.get(CLAIMS, namespace, volume.name)
        except NotFound:
            if not volume.size_bytes:
                msg = f"there is no claim {volume.name} in namespace {namespace}"
                raise Invalid(
                    msg, object_=action.name, hint="give it a `size` to have it made, or make it there"
                ) from None
            found = await _made(api, pace, action, volume, settings, namespace=namespace, make_namespace=make_namespace)
        _require_fit(found, volume, pod=action.name)


async def _made(
    api: KubeApi,
    pace: Pace,
    action: CreatePod,
    volume: Volume,
    settings: Settings,
    *,
    namespace: str,
    make_namespace: Callable[[], Awaitable[None]],
) -> VolumeClaim:
    document = pods.claim(volume, action.spec.owner, settings)
    try:
        try:
            return await pace.write(lambda: api.create(CLAIMS, namespace, document))
        except NotFound:
            await make_namespace()
            return await pace.write(lambda: api.create(CLAIMS, namespace, document))
    except AlreadyExists:
        return await api.get(CLAIMS, namespace, volume.name)


def _require_fit(found: VolumeClaim, volume: Volume, *, pod: str) -> None:
    """One that is there is used as it is, if it is as large and as open as was asked for."""
    has = whole(found.spec.resources.requests.get("storage"))
    if has < volume.size_bytes:
        msg = f"the claim {volume.name} is there with {has:,} bytes, and {volume.size_bytes:,} are asked for"
        raise Invalid(msg, object_=pod, hint="leave `size` out, or have the claim grown in its cluster")
    if volume.access and volume.access not in found.spec.access_modes:
        modes = ", ".join(found.spec.access_modes) or "no access mode"
        msg = f"the claim {volume.name} is there with {modes}, and {volume.access} is asked for"
        raise Invalid(msg, object_=pod, hint="leave `access` out, or name another claim")
