"""The adapter: pods of ours in the namespaces of their projects. It holds nothing that a restart could not read again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypeVar, assert_never

import structlog

from mainstay.clusters.kubernetes import claims, handover, kubelet_words, names, pods
from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.chores import PATIENCE_SECONDS, Chores
from mainstay.clusters.kubernetes.errors import AlreadyExists, ApiError, NotFound, Rejected, Unreachable
from mainstay.clusters.kubernetes.fence import Fence
from mainstay.clusters.kubernetes.homes import Homes
from mainstay.clusters.kubernetes.hosting import Hosting
from mainstay.clusters.kubernetes.kinds import CLAIMS, NODES, PODS
from mainstay.clusters.kubernetes.logs import Logs
from mainstay.clusters.kubernetes.names import MAIN
from mainstay.clusters.kubernetes.nodes import cordon_of, maps_users
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.pace import IN_FLIGHT_MAX, Pace
from mainstay.clusters.kubernetes.picture import Picture
from mainstay.clusters.kubernetes.pods import REVOKED
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.spoken import Spoken
from mainstay.clusters.kubernetes.views import OwnView
from mainstay.domain.allocation import (
    BindPod,
    ClusterAction,
    CreatePod,
    DeletePod,
    DropVolume,
    EvictPod,
    ForgetPod,
    MarkNode,
    Owner,
    ReleasePod,
    RevokePod,
    SeekPod,
    Seen,
    TellPod,
)
from mainstay.domain.capacity import ClusterState, LogChunk
from mainstay.domain.errors import Conflict, Denied, Fenced, Gone, Invalid, NoCapacity, NotYet, Unavailable
from mainstay.domain.errors import NotFound as MissingPod
from mainstay.domain.masking import masked_words
from mainstay.domain.quantity import Resources, is_shape
from mainstay.ports import ArtifactStore, Clock, Process, Secrets, Stream

log = structlog.get_logger()
T = TypeVar("T")

KNOWN_SECONDS = 30.0
REASON_CHARACTERS = 500
MARK_AGAIN_SECONDS = 5.0
"""A mark that the watch does not show is set again after so long."""
NO_ACCOUNT = "error looking up service account"
"""What the API server says of a pod in a namespace of which the making was cut short."""
SKEW_SECONDS_MAX = 86_400
"""A clock that is an hour off is followed; what is charged by one that is a day off would be nonsense."""


class KubernetesCluster:
    """`ports.Cluster` on a Kubernetes cluster."""

    def __init__(
        self,
        *,
        name: str,
        api: KubeApi,
        artifacts: ArtifactStore,
        secrets: Secrets,
        clock: Clock,
        settings: Settings,
        tombstone_seconds: int = 600,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`tombstone_seconds`: how long a name stays taken once its end is on record; far longer than any request takes.
        `patience_seconds`: how long a pod may fail to start before it is given up.
        """
        self.name = name
        self.acts_at_once = IN_FLIGHT_MAX
        self._api, self._artifacts, self._clock, self._settings = api, artifacts, clock, settings
        self._secrets = secrets
        self._pace = Pace(clock=clock)
        self._homes = Homes(api, self._pace, settings)
        self._fence = Fence(api, clock, self._pace, system=settings.system)
        tunnel = "" if settings.reached_directly else name
        self._picture = Picture(
            api,
            clock,
            system=settings.system,
            scheduler_name=settings.scheduler_name,
            tunnel=tunnel,
            topology=settings.topology,
        )
        self._hosting = Hosting(
            api, clock, self._picture, self._pace, system=settings.system, require_room=self._require_free
        )
        self._spoken = Spoken(self._handed)
        self._logs = Logs(api, artifacts.logs, clock, cluster=name, handed=self._handed)
        self._chores = Chores(
            api,
            clock,
            self._picture,
            self._logs,
            self._pace,
            artifacts=artifacts,
            secrets=secrets,
            tombstone_seconds=tombstone_seconds,
            patience_seconds=patience_seconds,
            look_up_groups=self._hosting.look_up_groups,
        )
        self._witnessed = 0
        self._known_until = float("-inf")
        self._marked: dict[str, tuple[bool, float]] = {}
        """What nodes were marked as last, and when (monotonic seconds)."""
        self._under_way: dict[str, dict[str, Resources]] = {}
        """Pods that the API server is just asked to make: by node and name, what they hold there."""

    async def observe(self) -> ClusterState:
        """As the informers have it. Whoever looks leads: the chores of the cluster are done on the way."""
        await self._know_again()
        await self._picture.ready()
        self._picture.require_sane()
        # Every look is a new one, also while nothing was heard that would move the moment that it witnesses.
        self._witnessed = max(self._picture.seen_until, self._witnessed + 1)
        self._picture.judge()
        self._hosting.forget_seen()
        self._chores.round()
        return ClusterState(
            nodes=self._picture.nodes(),
            pods=await self._spoken.masked(self._picture.pods()),
            at=self._witnessed,
            identity=self._picture.identity,
            guests=self._picture.guests(),
            volumes=self._picture.volumes(),
        )

    async def act(self, action: ClusterAction, *, epoch: int) -> None:
        """As every cluster: fenced by epoch, idempotent by name. Raises Fenced also where the API server knows better than we."""
        await self._picture.ready()
        await self._fence.admit(epoch)
        try:
            await self._act(action, epoch)
        except Rejected as error:
            if names.FENCE_POLICY in error.message:
                raise Fenced(error.message, object_=action.name) from None
            raise

    async def _act(self, action: ClusterAction, epoch: int) -> None:  # noqa: C901 - one line per action
        by = names.leader(self._settings.system, epoch)
        match action:
            case CreatePod():
                await self._create(action, epoch)
            case DeletePod():
                await self._delete(action, epoch)
            case ForgetPod():
                await self._forget(action, by=by)
            case RevokePod():
                await self._revoke(action, by=by)
            case BindPod():
                await self._hosting.bind(action, by=by)
            case ReleasePod():
                await self._hosting.release(action, by=by)
            case EvictPod():
                await self._hosting.evict(action, by=by)
            case SeekPod():
                await self._hosting.seek(action)
            case TellPod():
                await self._hosting.tell(action)
            case MarkNode():
                await self._mark_node(action, by=by)
            case DropVolume():
                await self._drop_volume(action)
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
        ended = known.state.seen is Seen.ENDED
        return await self._logs.read(pod, known.namespace, offset=offset, limit=limit, ended=ended)

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """What it left in $MAINSTAY_OUTPUT_DIR, kept by its helper. Raises Invalid if it is gone, Unavailable before it is."""
        known = self._picture.ours.get(pod)
        if known is None or known.tombstone:
            return
        if not known.keeps_output:
            if known.serves:
                return
            if known.helper_waits:
                msg = f"the helper of pod {pod}, which keeps its output, has not started: {known.helper_waits}"
                raise Unavailable(msg, object_=pod, hint=f"let its node pull {self._settings.helper_image}")
            msg = f"the output of pod {pod} is lost: it was ended before its files were fetched"
            raise Invalid(msg, object_=pod)
        async with self._without_secrets(pod):
            async for file in handover.outputs(self._api, namespace=known.namespace, pod=pod):
                yield file

    async def copy_out(self, pod: str) -> None:
        """By its helper, as long as that is there: if it is gone, `outputs` says so."""
        known = self._picture.ours.get(pod)
        if known is not None and known.delivery.objects and known.keeps_output and not known.tombstone:
            delivery = known.delivery
            handed = await self._secrets.of(pod, owner=delivery.owner) if delivery.secrets else ()
            await handover.transfer(self._api, "out", delivery.objects, handed, namespace=known.namespace, pod=pod)

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Stream]:
        """Through the API server and the kubelet, to the loopback address of the pod."""
        namespace = await self._where_it_runs(pod)
        async with _opened(pod, self._api.port_forward(namespace, pod, port)) as stream:
            yield stream

    @asynccontextmanager
    async def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AsyncIterator[Process]:
        """In the container of the user: never in our helpers."""
        namespace = await self._where_it_runs(pod)
        async with _opened(pod, self._api.exec(namespace, pod, MAIN, argv, stdin=stdin, tty=tty)) as process:
            yield process

    async def close(self) -> None:
        """Stop watching. Pods run on."""
        await self._chores.close()
        await self._logs.close()
        await self._picture.close()
        await self._api.close()

    async def _handed(self, pod: str) -> tuple[bytes, ...]:
        """What it may say that nobody is to read. Raises NotFound for a pod that is not on record, or not any more."""
        known = self._picture.ours.get(pod)
        if known is None or not known.delivery.secrets:
            return ()
        return await self._secrets.handed(pod, owner=known.delivery.owner)

    @asynccontextmanager
    async def _without_secrets(self, pod: str) -> AsyncIterator[None]:
        """A refusal within the block may quote what the pod has written or named: without what it was handed."""
        try:
            yield
        except (Invalid, Unavailable) as error:
            words = masked_words(error.message, await self._handed(pod))
            raise type(error)(words, object_=error.object, hint=error.hint) from None

    async def _create(self, action: CreatePod, epoch: int) -> None:
        known, identity = self._picture.ours.get(action.name), ""
        if known is None:
            self._require_room(action)
            namespace = pods.namespace_of(action.name, action.spec.owner, self._settings)
            # Counted before it is asked for: others are created beside it, and must not be given its room.
            under_way = self._under_way.setdefault(action.node, {})
            under_way[action.name] = action.spec.resources
            try:
                await self._homes.ensure(namespace, action.spec.owner)
                device = self._picture.device(action.node, action.spec.resources.gpu_model)
                await claims.ensure(
                    self._api,
                    self._pace,
                    action,
                    self._settings,
                    namespace=namespace,
                    make_namespace=partial(self._homes.make, namespace, action.spec.owner),
                )
                document = pods.pod(
                    action,
                    self._settings,
                    device=device or pods.PLUGIN,
                    maps_users=maps_users(self._picture.node(action.node)),
                )
                known = await self._in_namespace(namespace, action.spec.owner, document, epoch)
                identity = document["metadata"]["annotations"][names.IDENTITY]
            finally:
                del under_way[action.name]
                if not under_way:
                    self._under_way.pop(action.node, None)
        _require_same(action, known, identity or pods.identity(action))

    async def _in_namespace(self, namespace: str, owner: Owner, document: pods.Document, epoch: int) -> OwnView:
        """The pod of this name: the one that was asked for, or the one that has the name already.

        The namespace is made when it turns out to be missing. Raises Invalid if a stranger has the name.
        """
        try:
            try:
                made = await self._write(namespace, document, epoch)
            except (NotFound, Rejected) as error:
                if isinstance(error, Rejected) and NO_ACCOUNT not in error.message:
                    raise
                await self._homes.make(namespace, owner)
                made = await self._write(namespace, document, epoch)
        except AlreadyExists:
            made = await self._api.get(PODS, namespace, document["metadata"]["name"])
        known = self._picture.learn(made)
        if not isinstance(known, OwnView):
            msg = f"a pod that is not ours is called {made.metadata.name} in namespace {namespace}"
            raise Invalid(msg, object_=made.metadata.name, hint="nobody else should create pods there")
        return known

    async def _write(self, namespace: str, document: pods.Document, epoch: int) -> Pod:
        """Create a pod while we still may: we have waited for our turn, perhaps for long, and may be stopped at any moment.

        Raises Fenced, NotYet.
        """
        by = names.leader(self._settings.system, epoch)

        async def create() -> Pod:
            not_after = await self._fence.still_admits(epoch)
            return await self._api.create(PODS, namespace, document, not_after=not_after, by=by)

        return await self._pace.write(create)

    async def _drop_volume(self, action: DropVolume) -> None:
        """The cluster keeps it until the last pod that uses it has ended. By its UID: another one may have its name by then."""
        namespace = names.namespace(action.owner, system=self._settings.system)
        if uid := self._picture.storage.uid(namespace, action.name):
            with contextlib.suppress(NotFound, Conflict):
                await self._pace.write(lambda: self._api.delete(CLAIMS, namespace, action.name, uid=uid))

    def _require_room(self, action: CreatePod) -> None:
        """Raises NoCapacity. Its kubelet would refuse it too, but only after the pod was made."""
        coming = self._under_way.get(action.node, ())
        if why := self._picture.why_not(action.node, coming=len(coming), wanted=action.spec.need):
            msg = f"node {action.node} takes nothing: {why}"
            raise NoCapacity(msg, object_=action.node)
        self._require_free(action.name, action.node, action.spec.resources)

    def _require_free(self, pod: str, node: str, wanted: Resources) -> None:
        """Raises NoCapacity."""
        free, pods_free = self._picture.free(node), self._picture.pods_free(node)
        coming = [*self._under_way.get(node, {}).values(), *self._hosting.coming(node)]
        shape = wanted.gpu_model if is_shape(wanted.gpu_model) else ""
        devices = self._picture.slices_free(node, shape) if shape else free.gpus
        alike = sum(held.gpus for held in coming if shape == (held.gpu_model if is_shape(held.gpu_model) else ""))
        for what, needed, left in (
            ("thousandths of a core", wanted.cpu_milli, free.cpu_milli - sum(held.cpu_milli for held in coming)),
            ("bytes of memory", wanted.memory_bytes, free.memory_bytes - sum(held.memory_bytes for held in coming)),
            (shape or "GPUs", wanted.gpus, devices - alike),
            *([] if pods_free is None else [("place among its pods", 1, pods_free - len(coming))]),
        ):
            if needed > left:
                msg = f"node {node} has no room for {pod}: needs {needed} {what}, {left} are free"
                raise NoCapacity(msg, object_=node, numbers={"wanted": needed, "free": left})

    async def _delete(self, action: DeletePod, epoch: int) -> None:
        known = self._picture.ours.get(action.name)
        if known is None and action.owner is not None:
            await self._bury_before_birth(action, action.owner, epoch)
        if known is None or known.tombstone or known.forgotten_at:
            return
        # 0 would remove the object at once, without a word of its kubelet: no proof that anything has ended.
        grace = max(1, action.grace_seconds)
        if known.deleting and known.deleting <= grace:
            return
        try:
            await self._pace.write(
                lambda: self._api.delete(PODS, known.namespace, action.name, uid=known.uid, grace_seconds=grace)
            )
        except (NotFound, Conflict):
            return  # gone, or another one by now: the next look shows it

    async def _bury_before_birth(self, action: DeletePod, owner: Owner, epoch: int) -> None:
        """Take the name of a pod that is not there.

        Raises NotYet if it is there after all. What was only missed must not be ended for that: a watch may lose events, and
        an empty list may be a lie. Whoever wants it ended for another reason asks again.
        """
        namespace = pods.namespace_of(action.name, owner, self._settings)
        document = pods.tombstone(action, self._settings, image=self._settings.helper_image)
        known = await self._in_namespace(namespace, owner, document, epoch)
        if not known.tombstone:
            msg = f"pod {action.name} is there after all"
            raise NotYet(msg, object_=action.name)

    async def _forget(self, action: ForgetPod, *, by: str) -> None:
        """Keep the log, mark the object as its own tombstone, and let its helper end."""
        known = self._picture.ours.get(action.name)
        if known is None or known.forgotten_at or known.state.seen is not Seen.ENDED:
            return
        if known.logged and not await self._chores.log_is_kept(action.name, known):
            msg = f"the log of {action.name} is being stored"
            raise NotYet(msg, object_=action.name)
        now = self._api.server_time() // 1_000_000
        change = {"metadata": {"uid": known.uid, "labels": {names.FORGOTTEN: str(now)}}}
        try:
            await self._pace.write(lambda: self._api.patch(PODS, known.namespace, action.name, change, by=by))
            await self._pace.write(
                lambda: self._api.delete(PODS, known.namespace, action.name, uid=known.uid, grace_seconds=1)
            )
        except (NotFound, Conflict):
            return

    async def _revoke(self, action: RevokePod, *, by: str) -> None:
        """From now on nothing that its node is told, however late, makes it go on."""
        known = self._picture.ours.get(action.name)
        if known is None or known.tombstone or known.forgotten_at or not known.renewed or known.renewed == REVOKED:
            return
        change = {"metadata": {"uid": known.uid, "annotations": {names.RENEWED: REVOKED}}}
        try:
            found = await self._pace.write(lambda: self._api.patch(PODS, known.namespace, action.name, change, by=by))
        except (NotFound, Conflict):
            return  # gone, or another one by now: the next look shows it
        self._picture.learn(found)

    async def _mark_node(self, action: MarkNode, *, by: str) -> None:
        """Cordon or uncordon it for the other schedulers of the cluster. Whoever changes it meanwhile is heard first."""
        found = self._picture.node(action.name)
        if found is None:
            return
        system = names.short(self._settings.system)
        cordon = cordon_of(found, system)
        done = cordon.ours and not cordon.undone if action.closed else not cordon.ours
        if done or cordon.others:
            return  # it is somebody else's cordon, and stays so
        mark = system if action.closed else None
        annotations = {names.CORDONED: mark, names.CORDON_REASON: action.words[:REASON_CHARACTERS] or None}
        if not action.closed:
            annotations[names.LET_IN] = str(self._api.server_time() // 1_000_000)
        meta = {"resourceVersion": found.metadata.resource_version, "annotations": annotations}
        change = {"metadata": meta, "spec": {"unschedulable": True if action.closed else None}}
        asked = self._marked.get(action.name)
        if asked is not None and asked[0] is action.closed and self._clock.monotonic() - asked[1] < MARK_AGAIN_SECONDS:
            return  # it was done a moment ago, and the watch has not told of it yet
        try:
            await self._pace.write(lambda: self._api.patch(NODES, "", action.name, change, by=by))
        except (NotFound, Conflict):
            return  # gone, or changed meanwhile: the next look shows it
        self._marked[action.name] = action.closed, self._clock.monotonic()

    async def _where_it_runs(self, pod: str) -> str:
        """The namespace of a pod whose main container runs. Raises NotFound, NotYet, Gone."""
        await self._picture.ready()
        known = self._picture.ours.get(pod)
        if known is None or known.tombstone:
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
        """Raises Denied if it is not the cluster that it was: one that was built anew at the same address is another.

        The same for a clock by which nothing can be charged.
        """
        now = self._clock.monotonic()
        if now < self._known_until:
            return
        identity = await self._api.cluster_uid()
        if self._picture.identity not in {"", identity}:
            msg = "another cluster answers at its address: it was built anew, or the address was given away"
            hint = f"drain {self.name}, remove it as lost and add it again; or mend its address"
            raise Denied(msg, object_=self.name, hint=hint)
        skew = abs(self._api.server_time() - self._clock.now()) // 1_000_000
        if skew > SKEW_SECONDS_MAX:
            msg = f"its clock and ours are {skew // 3_600} hours apart"
            raise Denied(msg, object_=self.name, hint="set both by NTP")
        self._known_until = now + KNOWN_SECONDS


@asynccontextmanager
async def _opened(pod: str, opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """What is opened into a pod. Raises Unreachable, in our words, where its kubelet says that its container does not run."""
    async with AsyncExitStack() as stack:
        try:
            found = await stack.enter_async_context(opening)
        except ApiError as error:
            if words := kubelet_words.of_pod(pod, error.message):
                raise Unreachable(words, object_=pod, hint="its state: mainstay show RUN") from error
            raise
        yield found


def _require_same(action: CreatePod, known: OwnView, identity: str) -> None:
    """Raises Gone if it has ended, Conflict if it is another one."""
    if known.tombstone or known.deleting or known.state.seen is Seen.ENDED:
        msg = f"pod {action.name} has ended; its name is not used again"
        raise Gone(msg, object_=action.name)
    if known.identity != identity:
        msg = f"pod {action.name} exists with another specification"
        raise Conflict(msg, object_=action.name)
