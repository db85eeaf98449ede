"""What a cluster needs besides the effects: code delivered, logs kept, waiting pods explained, hopeless ones given up, old
tombstones removed.

Every look starts what is due, each chore at most once at a time. All of it follows from what the cluster shows, so that
another process goes on where this one was cut off, and doing it twice is doing it once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from mainstay.clusters.kubernetes import handover, names, pods, surroundings
from mainstay.clusters.kubernetes.api import KubeApi, Patch
from mainstay.clusters.kubernetes.errors import AlreadyExists, Conflict, NotFound
from mainstay.clusters.kubernetes.kinds import PODS, RESOURCE_CLAIMS, SERVICES
from mainstay.clusters.kubernetes.logs import Followed, Logs
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.picture import Picture
from mainstay.clusters.kubernetes.pods import REVOKED
from mainstay.clusters.kubernetes.states import state_of
from mainstay.clusters.kubernetes.troubles import DETAIL_CHARACTERS
from mainstay.clusters.kubernetes.views import OwnView
from mainstay.domain.allocation import Seen
from mainstay.domain.errors import Denied, Invalid, MainstayError
from mainstay.ports import ArtifactStore, Clock, Secrets

log = structlog.get_logger()

ROUND_SECONDS = 0.2
ROUND_REST = 10.0
"""Seconds of rest for each second of a round: it is one of many that ask for a core."""
BURIAL_SECONDS = 30.0
GROUPS_SECONDS = 1.0
RENEW_SECONDS = 15
"""A pod that ends itself where it is cut off is renewed so often; the least time after which it does is four of these."""
BURIALS_MAX = 200
"""Tombstones removed in one round."""
PATIENCE_SECONDS = 300.0
"""So long may a pod fail to start (no image, no secret) before it is given up; a registry may be away for a while."""
OVERRUN_SECONDS = 60
"""A run that its kubelet has not ended so long after its deadline, and the grace, is ended by us: somebody answers its probe."""
DELIVERIES_MAX = 32
"""Pods whose code or secrets are on their way through us at the same time; the others wait in the order in which they came."""
TRANSFERS_MAX = 256
"""Pods that copy from object stores at the same time: little of it passes through us, but each holds a connection, for long."""
LOG_PATIENCE_SECONDS = 120.0
"""So long is the end of a pod held up by a log that cannot be read: its node may be gone."""


class Chores:
    """Of one cluster."""

    def __init__(
        self,
        api: KubeApi,
        clock: Clock,
        picture: Picture,
        logs: Logs,
        pace: Pace,
        *,
        artifacts: ArtifactStore,
        secrets: Secrets,
        tombstone_seconds: int,
        patience_seconds: float = PATIENCE_SECONDS,
        look_up_groups: Callable[[], Awaitable[None]],
    ) -> None:
        self._patience_seconds = patience_seconds
        self._api, self._artifacts, self._secrets, self._clock = api, artifacts, secrets, clock
        self._picture, self._logs, self._pace, self._tombstone_seconds = picture, logs, pace, tombstone_seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hopeless_since: dict[str, float] = {}
        self._log_since: dict[str, float] = {}
        self._kept: set[str] = set()
        self._deliveries, self._transfers = asyncio.Semaphore(DELIVERIES_MAX), asyncio.Semaphore(TRANSFERS_MAX)
        self._delivered: set[str] = set()
        """UIDs of pods that have all that they waited for, and may not have noticed yet."""
        self._callable: set[str] = set()
        """First ranks whose gang has its service."""
        self._claimed: set[str] = set()
        """UIDs of pods whose claim is made, and that have no node yet."""
        self._look_up_groups = look_up_groups
        self._next_round = self._next_burial = self._next_groups = 0.0

    def round(self) -> None:
        """Start what is due."""
        now = self._clock.monotonic()
        if now < self._next_round:
            return
        self._next_round = now + ROUND_SECONDS
        silent = {name for name, since in self._picture.silent().items() if not since}
        for pod, known in self._picture.restless.items():
            self._look_after(pod, known, now)
            if known.renewed and known.node not in silent:
                self._renew_in_time(pod, known)
            if known.deadline_at and not known.deleting:
                late = self._api.server_time() - known.deadline_at
                if late >= (OVERRUN_SECONDS + known.grace) * 1_000_000:
                    self._start(f"overrun/{pod}", partial(self._end_overrun, pod, known))
        self._follow_logs()
        self._forget_gone()
        if due := self._picture.waiting.due(self._picture.restless.items()):
            self._start("words", partial(self._picture.waiting.ask, *due))
        if now >= self._next_groups:
            self._next_groups = now + GROUPS_SECONDS
            self._start("groups", self._look_up_groups)
        if now >= self._next_burial:
            self._next_burial = now + BURIAL_SECONDS
            self._start("burial", self._bury)
        ended = self._clock.monotonic()
        self._next_round = max(self._next_round, ended + ROUND_REST * (ended - now))

    async def log_is_kept(self, pod: str, known: OwnView) -> bool:
        """Whether the log of an ended pod is stored, or given up."""
        if pod in self._kept:
            return True
        since = self._log_since.setdefault(pod, self._clock.monotonic())
        kept = await self._logs.keep(pod, known.namespace)
        given_up = self._clock.monotonic() - since > LOG_PATIENCE_SECONDS
        if given_up and not kept:
            log.warning("log_not_kept", pod=pod)
        if kept or given_up:
            self._kept.add(pod)
            del self._log_since[pod]
            self._logs.drop(pod)
        return kept or given_up

    async def close(self) -> None:
        """Stop what is under way; another look starts it again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_after(self, pod: str, known: OwnView, now: float) -> None:
        state = known.state
        if known.forgotten_at or known.tombstone:
            return
        if known.calls and pod not in self._callable and state.seen is not Seen.ENDED:
            self._start(f"service/{pod}", partial(self._make_service, pod, known))
        if known.claim and known.uid not in self._claimed and not known.deleting:
            self._start(f"claim/{pod}", partial(self._make_claim, pod, known))
        if known.waits_for_files and not known.deleting and known.uid not in self._delivered and not known.logged:
            self._start(f"files/{pod}", partial(self._deliver, pod, known))
        if known.hopeless and not known.deleting and state.seen is not Seen.ENDED:
            since = self._hopeless_since.setdefault(pod, now)
            if known.for_good or now - since >= self._patience_seconds:
                self._start(f"verdict/{pod}", partial(self._give_up, pod, known, known.hopeless))
        else:
            self._hopeless_since.pop(pod, None)

    def _follow_logs(self) -> None:
        """Go on with those that are followed, and with others as long as there is room."""
        logged = self._picture.logged
        for pod in self._logs.followed & logged.keys():
            self._follow(pod, logged[pod])
        for pod, known in logged.items():
            if pod not in self._kept and self._follow(pod, known) is None:
                return

    def _follow(self, pod: str, known: OwnView) -> Followed | None:
        return self._logs.follow(pod, known.namespace, ended=known.state.seen is Seen.ENDED)

    def _renew_in_time(self, pod: str, known: OwnView) -> None:
        """A pod that ends itself where it is cut off hears from us several times within that time."""
        runs = known.state.seen in {Seen.PULLING, Seen.STARTING, Seen.RUNNING}
        if not runs or known.deleting or known.renewed == REVOKED:
            return
        last = int(known.renewed) if known.renewed.isdecimal() and len(known.renewed) <= 10 else 0
        if self._api.server_time() // 1_000_000 - last >= RENEW_SECONDS:
            self._start(f"renew/{pod}", partial(self._renew, pod, known))

    async def _renew(self, pod: str, known: OwnView) -> None:
        """Only what is as it was seen: whoever revoked it meanwhile has the last word."""
        path = f"/metadata/annotations/{_pointer(names.RENEWED)}"

        async def patch() -> Pod:
            change = [
                {"op": "test", "path": "/metadata/uid", "value": known.uid},
                {"op": "test", "path": path, "value": known.renewed},
                {"op": "replace", "path": path, "value": str(self._api.server_time() // 1_000_000)},
            ]
            return await self._api.patch(PODS, known.namespace, pod, change, how=Patch.JSON)

        with contextlib.suppress(NotFound, Conflict, Invalid):
            self._picture.learn(await self._pace.write(patch, urgent=True))

    def _forget_gone(self) -> None:
        there, restless = self._picture.ours.keys(), self._picture.restless
        for at_rest in self._hopeless_since.keys() - restless.keys():
            del self._hopeless_since[at_rest]
        for gone in self._log_since.keys() - there:
            del self._log_since[gone]
        for gone in self._logs.known - there:
            self._logs.drop(gone)
        self._kept &= there
        if self._delivered:
            self._delivered &= {known.uid for known in restless.values() if known.waits_for_files}
        self._callable &= there
        if self._claimed:
            self._claimed &= {known.uid for known in restless.values() if known.claim}

    def _start(self, name: str, chore: Callable[[], Awaitable[None]]) -> None:
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._guarded(name, chore))

    async def _guarded(self, name: str, chore: Callable[[], Awaitable[None]]) -> None:
        try:
            await chore()
        except (MainstayError, TimeoutError, ExceptionGroup) as error:
            log.info("chore_failed", chore=name, reason=str(error))
            await self._clock.sleep(1.0)
        finally:
            self._tasks.pop(name, None)

    async def _deliver(self, pod: str, known: OwnView) -> None:
        try:
            delivery = known.delivery
            handed = await self._secrets.of(pod, owner=delivery.owner) if delivery.secrets else ()
            where = {"namespace": known.namespace, "pod": pod}
            async with self._deliveries:
                await handover.hand_in(self._api, handed, **where)
            async with self._transfers:
                await handover.transfer(self._api, "in", delivery.objects, handed, **where)
            async with self._deliveries:
                files = self._artifacts.of(delivery.owner)
                await handover.deliver(self._api, files, **where, mounts=delivery.mounts)
            self._delivered.add(known.uid)
        except* (Invalid, LookupError, ValueError) as group:
            await self._give_up(pod, known, f"its files cannot be delivered: {group.exceptions[0]}")

    async def _make_service(self, pod: str, known: OwnView) -> None:
        """Not when the pod is made: whoever makes one may not live to see the answer."""
        first = await self._api.get(PODS, known.namespace, pod)
        with contextlib.suppress(AlreadyExists):
            service = surroundings.gang_service(first)
            await self._pace.write(lambda: self._api.create(SERVICES, known.namespace, service))
        self._callable.add(pod)

    async def _make_claim(self, pod: str, known: OwnView) -> None:
        """Not before the pod is made: it goes with it."""
        found = await self._api.get(PODS, known.namespace, pod)
        if found.metadata.uid != known.uid:
            return
        try:
            claim = pods.device_claim(found)
            await self._pace.write(lambda: self._api.create(RESOURCE_CLAIMS, known.namespace, claim))
        except AlreadyExists:
            pass
        except (Invalid, Denied, LookupError, TypeError, ValueError) as error:
            await self._give_up(pod, known, f"its devices cannot be claimed: {error}")
        self._claimed.add(known.uid)

    async def _give_up(self, pod: str, known: OwnView, why: str) -> None:
        """A verdict on the object first: whoever sees its end must know that it was ours.

        Raises Conflict if it is not as it is now any more: it may just have started.
        """
        found = await self._api.get(PODS, known.namespace, pod)
        if found.metadata.uid != known.uid or state_of(found).seen >= Seen.RUNNING:
            return
        log.info("pod_given_up", pod=pod, reason=why)
        version = found.metadata.resource_version
        change = {
            "metadata": {
                "uid": known.uid,
                "resourceVersion": version,
                "annotations": {names.VERDICT: why[:DETAIL_CHARACTERS]},
            }
        }
        await self._pace.write(lambda: self._api.patch(PODS, known.namespace, pod, change))
        await self._delete(pod, known, grace_seconds=1)

    async def _end_overrun(self, pod: str, known: OwnView) -> None:
        log.warning("pod_overran", pod=pod)
        with contextlib.suppress(NotFound, Conflict):
            await self._delete(pod, known, grace_seconds=max(1, known.grace))

    async def _bury(self) -> None:
        """Remove tombstones that are old enough: nobody has been on the way with their name for so long."""
        now = self._api.server_time() // 1_000_000
        old = [
            (pod, known)
            for pod, known in self._picture.views()
            if known.forgotten_at and now - known.forgotten_at >= self._tombstone_seconds
        ]
        for pod, known in old[:BURIALS_MAX]:
            try:
                await self._remove(pod, known)
            except (NotFound, Conflict):
                continue

    async def _remove(self, pod: str, known: OwnView) -> None:
        found = await self._api.get(PODS, known.namespace, pod)
        if found.metadata.uid != known.uid:
            return
        if not known.deleting:
            await self._delete(pod, known, grace_seconds=1)
        others = [name for name in found.metadata.finalizers if name != names.RECORDED]
        change = {"metadata": {"uid": known.uid, "finalizers": others}}
        await self._pace.write(lambda: self._api.patch(PODS, known.namespace, pod, change))

    async def _delete(self, pod: str, known: OwnView, *, grace_seconds: int) -> None:
        await self._pace.write(
            lambda: self._api.delete(PODS, known.namespace, pod, uid=known.uid, grace_seconds=grace_seconds)
        )


def _pointer(name: str) -> str:
    """As one step of a path (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
