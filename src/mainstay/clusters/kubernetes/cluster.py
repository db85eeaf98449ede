"""The adapter: pods of ours in the namespaces of their projects. It holds nothing that a restart could not read again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import assert_never

import structlog

from mainstay.clusters.kubernetes import handover, names, pods
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.chores import Chores
from mainstay.clusters.kubernetes.errors import AlreadyExists, NotFound
from mainstay.clusters.kubernetes.fence import Fence
from mainstay.clusters.kubernetes.kinds import NAMESPACES, NETWORK_POLICIES, PODS, SERVICES
from mainstay.clusters.kubernetes.logs import Logs
from mainstay.clusters.kubernetes.names import MAIN
from mainstay.clusters.kubernetes.picture import Picture
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.states import View, view
from mainstay.domain.allocation import CreatePod, DeletePod, ForgetPod, Owner, PodAction, PodState, Seen
from mainstay.domain.capacity import ClusterState, LogChunk
from mainstay.domain.errors import Conflict, Gone, Invalid, NoCapacity, NotYet
from mainstay.domain.errors import NotFound as MissingPod
from mainstay.domain.quantity import Resources
from mainstay.ports import Artifacts, Clock, Process, Stream

log = structlog.get_logger()

KNOWN_SECONDS = 30.0
UNSEEN_SECONDS = 10.0
"""A pod that we made and that the watch has not shown yet is not made again for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A pod that the API server has taken and the watch has not shown yet. `at` is monotonic."""

    at: float
    node: str
    holds: Resources
    identity: str


class KubernetesCluster:
    """`ports.Cluster` on a Kubernetes cluster."""

    def __init__(
        self,
        *,
        name: str,
        api: KubeApi,
        artifacts: Artifacts,
        clock: Clock,
        settings: Settings,
        tombstone_seconds: int = 600,
    ) -> None:
        """`tombstone_seconds`: how long a name stays taken once its end is on record; far longer than any request takes."""
        self.name = name
        self._api, self._artifacts, self._clock, self._settings = api, artifacts, clock, settings
        self._fence = Fence(api, clock, system=settings.system)
        tunnel = "" if settings.reached_directly else name
        self._picture = Picture(api, clock, system=settings.system, tunnel=tunnel)
        self._logs = Logs(api, artifacts, clock, cluster=name)
        self._chores = Chores(api, artifacts, clock, self._picture, self._logs, tombstone_seconds=tombstone_seconds)
        self._witnessed = 0
        self._identity, self._known_until = "", float("-inf")
        self._made: dict[str, Made] = {}
        """Pods that we made and have not seen yet."""

    async def observe(self) -> ClusterState:
        """As the informers have it. Whoever looks leads: the chores of the cluster are done on the way."""
        await self._picture.ready()
        await self._know_again()
        # Every look is a new one, also while nothing was heard that would move the moment that it witnesses.
        self._witnessed = max(self._picture.seen_until, self._witnessed + 1)
        self._forget_made()
        self._chores.round()
        made = (PodState(name=name, node=made.node, seen=Seen.NOTHING) for name, made in self._made.items())
        return ClusterState(
            nodes=self._picture.nodes(),
            pods=(*self._picture.pods(), *made),
            at=self._witnessed,
            identity=self._identity,
        )

    async def act(self, action: PodAction, *, epoch: int) -> None:
        """As every cluster: fenced by epoch, idempotent by name."""
        await self._picture.ready()
        await self._fence.admit(epoch)
        match action:
            case CreatePod():
                await self._create(action)
            case DeletePod():
                await self._delete(action)
            case ForgetPod():
                await self._forget(action)
            case _:
                assert_never(action)

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """A piece of its output, also after it was forgotten. Raises NotYet before it has started."""
        await self._picture.ready()
        known = self._picture.ours.get(pod)
        if known is None or known.forgotten_at or known.tombstone:
            return await self._logs.read_kept(pod, offset=offset, limit=limit)
        if not known.logged:
            msg = f"pod {pod} has no log yet"
            raise NotYet(msg, object_=pod)
        ended = known.state is not None and known.state.seen is Seen.ENDED
        return await self._logs.read(pod, known.namespace, offset=offset, limit=limit, ended=ended)

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """What it left in $MAINSTAY_OUTPUT_DIR, kept by its helper. Raises Invalid if that is gone."""
        known = self._picture.ours.get(pod)
        if known is None or known.tombstone:
            return
        if not known.keeps_output:
            if known.serves:
                return
            msg = f"the output of pod {pod} is lost: it was ended before its files were fetched"
            raise Invalid(msg, object_=pod)
        async for file in handover.outputs(self._api, namespace=known.namespace, pod=pod):
            yield file

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Stream]:
        """Through the API server and the kubelet, to the loopback address of the pod."""
        namespace = await self._where_it_runs(pod)
        async with self._api.port_forward(namespace, pod, port) as stream:
            yield stream

    @asynccontextmanager
    async def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AsyncIterator[Process]:
        """In the container of the user: never in our helpers."""
        namespace = await self._where_it_runs(pod)
        async with self._api.exec(namespace, pod, MAIN, argv, stdin=stdin, tty=tty) as process:
            yield process

    async def close(self) -> None:
        """Stop watching. Pods run on."""
        await self._chores.close()
        await self._logs.close()
        await self._picture.close()
        await self._api.close()

    async def _create(self, action: CreatePod) -> None:
        known = self._picture.ours.get(action.name)
        if known is not None:
            _require_same(action, known)
            return
        made = self._made.get(action.name)
        if made is not None and made.identity == pods.identity(action):
            return
        self._require_room(action)
        namespace = pods.namespace_of(action.name, action.spec.owner, self._settings)
        document = pods.pod(action, self._settings)
        try:
            uid = await self._in_namespace(namespace, action.spec.owner, document)
        except AlreadyExists:
            found = await self._api.get(PODS, namespace, action.name)
            _require_same(action, view(found, system=names.short(self._settings.system)))
            return
        self._made[action.name] = Made(
            at=self._clock.monotonic(), node=action.node, holds=action.spec.resources, identity=pods.identity(action)
        )
        if action.spec.size > 1 and action.spec.rank == 0:
            await self._make_service(action, namespace, uid=uid)

    async def _in_namespace(self, namespace: str, owner: Owner, document: pods.Document) -> str:
        """Create a pod; its UID. The namespace is made when it turns out to be missing."""
        try:
            made = await self._api.create(PODS, namespace, document)
        except NotFound:
            await self._make_namespace(namespace, owner)
            made = await self._api.create(PODS, namespace, document)
        return made.metadata.uid

    async def _make_namespace(self, name: str, owner: Owner) -> None:
        for kind, where, document in (
            (NAMESPACES, "", pods.namespace(name, owner, self._settings)),
            (NETWORK_POLICIES, name, pods.default_deny(owner, self._settings)),
        ):
            try:
                await self._api.create(kind, where, document)
            except AlreadyExists:
                continue

    async def _make_service(self, action: CreatePod, namespace: str, *, uid: str) -> None:
        document = pods.gang_service(action, self._settings, rank0_uid=uid)
        try:
            await self._api.create(SERVICES, namespace, document)
        except AlreadyExists:
            return

    def _require_room(self, action: CreatePod) -> None:
        """Raises Invalid, NoCapacity. Its kubelet would refuse it too, but only after the pod was made."""
        if not self._picture.has_node(action.node):
            msg = f"no such node: {action.node}"
            raise Invalid(msg, object_=action.node)
        if why := self._picture.why_not(action.node):
            msg = f"node {action.node} takes nothing: {why}"
            raise NoCapacity(msg, object_=action.node)
        free, wanted = self._picture.free(action.node), action.spec.resources
        unseen = [made.holds for made in self._made.values() if made.node == action.node]
        for what, needed, left in (
            ("thousandths of a core", wanted.cpu_milli, free.cpu_milli - sum(held.cpu_milli for held in unseen)),
            ("bytes of memory", wanted.memory_bytes, free.memory_bytes - sum(held.memory_bytes for held in unseen)),
            ("GPUs", wanted.gpus, free.gpus - sum(held.gpus for held in unseen)),
        ):
            if needed > left:
                msg = f"node {action.node} has no room for {action.name}: needs {needed} {what}, {left} are free"
                raise NoCapacity(msg, object_=action.node, numbers={"wanted": needed, "free": left})

    async def _delete(self, action: DeletePod) -> None:
        known = self._picture.ours.get(action.name)
        if known is None and action.owner is not None:
            known = await self._bury_before_birth(action, action.owner)
        if known is None or known.tombstone or known.forgotten_at:
            return
        # 0 would remove the object at once, without a word of its kubelet: no proof that anything has ended.
        grace = max(1, action.grace_seconds)
        if known.deleting and known.deleting <= grace:
            return
        try:
            await self._api.delete(PODS, known.namespace, action.name, uid=known.uid, grace_seconds=grace)
        except (NotFound, Conflict):
            return  # gone, or another one by now: the next look shows it

    async def _bury_before_birth(self, action: DeletePod, owner: Owner) -> View | None:
        """Take the name of a pod that is not there; the pod, if it is there after all."""
        namespace = pods.namespace_of(action.name, owner, self._settings)
        try:
            await self._in_namespace(
                namespace, owner, pods.tombstone(action, self._settings, image=self._settings.helper_image)
            )
        except AlreadyExists:
            return view(await self._api.get(PODS, namespace, action.name), system=names.short(self._settings.system))
        return None

    async def _forget(self, action: ForgetPod) -> None:
        """Keep the log, mark the object as its own tombstone, and let its helper end."""
        known = self._picture.ours.get(action.name)
        if known is None or known.forgotten_at or known.state is None or known.state.seen is not Seen.ENDED:
            return
        if known.logged and not await self._chores.log_is_kept(action.name, known):
            msg = f"the log of {action.name} is being stored"
            raise NotYet(msg, object_=action.name)
        now = self._api.server_time() // 1_000_000
        change = {"metadata": {"uid": known.uid, "labels": {names.FORGOTTEN: str(now)}}}
        try:
            await self._api.patch(PODS, known.namespace, action.name, change)
            await self._api.delete(PODS, known.namespace, action.name, uid=known.uid, grace_seconds=1)
        except (NotFound, Conflict):
            return

    async def _where_it_runs(self, pod: str) -> str:
        """The namespace of a pod whose main container runs. Raises NotFound, NotYet, Gone."""
        await self._picture.ready()
        known = self._picture.ours.get(pod)
        if known is None or known.state is None or known.tombstone:
            msg = f"no such pod: {pod}"
            raise MissingPod(msg, object_=pod)
        if known.state.seen is Seen.ENDED:
            msg = f"pod {pod} has ended"
            raise Gone(msg, object_=pod)
        if known.state.seen is not Seen.RUNNING:
            msg = f"pod {pod} does not run yet"
            raise NotYet(msg, object_=pod, hint="its state: mainstay show RUN")
        return known.namespace

    async def _know_again(self) -> None:
        """Which cluster it is: one that was built anew at the same address is another."""
        now = self._clock.monotonic()
        if now >= self._known_until:
            self._identity = await self._api.cluster_uid()
            self._known_until = now + KNOWN_SECONDS

    def _forget_made(self) -> None:
        now = self._clock.monotonic()
        seen = [
            name for name, made in self._made.items() if name in self._picture.ours or now - made.at > UNSEEN_SECONDS
        ]
        for name in seen:
            del self._made[name]


def _require_same(action: CreatePod, known: View) -> None:
    """Raises Gone if it has ended, Conflict if it is another one."""
    state = known.state
    if state is None:
        msg = f"a pod that is not ours is called {action.name}"
        raise Conflict(msg, object_=action.name)
    if known.tombstone or known.deleting or state.seen is Seen.ENDED:
        msg = f"pod {action.name} has ended; its name is not used again"
        raise Gone(msg, object_=action.name)
    if known.identity != pods.identity(action):
        msg = f"pod {action.name} exists with another specification"
        raise Conflict(msg, object_=action.name)
