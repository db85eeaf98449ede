"""Nodes whose kubelets are played: they do to pods what a real kubelet does, as fast or as badly as a test wants it.

A played node can be cut off, lose power, come back, and refuse what it is given. What its processes did is written down by the
machines themselves, which no database and no API server can change: whoever claims that nothing ran twice is held against that.
What a kubelet does was looked up in its source and tried on the real node (test_conformance.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from yarl import URL

from testbed.control_plane import ControlPlane

Document = dict[str, Any]
HEARTBEAT_SECONDS = 4.0
AGAIN_SECONDS = 0.3
END_SECONDS = 0.1
"""Between the request to end and the end of a process that heeds it."""
TELL_SECONDS = 0.5
"""Between the first word of a node that is back and that of its pods."""
GOODBYE_SECONDS = 0.1
"""A connection that is let go of needs a moment of the loop to be gone."""
MERGE = "application/merge-patch+json"
FAILURES = (aiohttp.ClientError, TimeoutError)
OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What the main process of a pod does."""

    seconds: float = 1.0
    exit_code: int = 0
    starts_after: float = 0.05
    reason: str = ""
    """Of its end, as the runtime says it; by default as its exit code has it. `OOMKilled`: it asked for too much memory."""
    alone_seconds: float = 0.0
    """Its probe ends it once its pod was not renewed for so long, or never is again (`revoked`); 0: it has none."""
    alone_words: str = ""
    """What it leaves as its message then."""


@dataclass(slots=True, kw_only=True)
class Process:
    """One run on one machine. Times are monotonic; `ended` 0 while it runs."""

    node: str
    pod: str
    uid: str
    started: float = 0.0
    ended: float = 0.0
    exit_code: int = 0
    started_at: str = ""
    ended_at: str = ""
    told: str = ""
    """Why it ended, as its runtime says it."""
    reason: str = ""
    """Why its kubelet ended it, if that was for its pod to know."""
    message: str = ""
    renewed: tuple[str, float] = ("", 0.0)
    """What its node has heard last of its renewal, and when that was new."""

    @property
    def runs(self) -> bool:
        """Whether it runs now."""
        return self.started > 0 and self.ended == 0


@dataclass(slots=True)
class Machine:
    """One node: what runs on it, and how it is."""

    name: str
    cpu: int = 8
    memory_gib: int = 32
    gpus: int = 0
    boot: str = field(default_factory=lambda: secrets.token_hex(8))
    on: bool = True
    reachable: bool = True
    cleans_up_seconds: float = 0.0
    """Between its word of the end of a deleted pod and its last one: a kubelet takes down volumes and network before it."""
    refuses: str = ""
    """The reason for which its kubelet takes no pod; empty if it does."""
    processes: dict[str, Process] = field(default_factory=dict)
    """By UID: what this boot knows of."""
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    shown: tuple[str, str] = ("", "")
    """Whether it is Ready, and since when."""
    news: set[str] = field(default_factory=set)
    """UIDs of pods that have changed since their worker looked."""

    @property
    def works(self) -> bool:
        """Its kubelet runs and reaches the API server."""
        return self.on and self.reachable


class Puppets:
    """All played nodes of a cluster. Everything happens in the event loop of the test."""

    def __init__(
        self, control_plane: ControlPlane, machines: Sequence[Machine], *, life: Callable[[str], Life]
    ) -> None:
        """`life` is asked again and again, by the name of a pod: what is due for its process is decided by the last answer."""
        self._control_plane = control_plane
        self._http: aiohttp.ClientSession
        self.machines = {machine.name: machine for machine in machines}
        self.history: list[Process] = []
        """Every process that ever ran, in the order of their starts."""
        self.refused: list[str] = []
        """Names of the pods that no kubelet took."""
        self._life = life
        self._pods: dict[str, Document] = {}
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        """Until all nodes are Ready."""
        keys = self._control_plane.keys
        # Not httpx2: what is cancelled while it connects leaves the socket to the garbage collector there.
        self._http = aiohttp.ClientSession(
            self._control_plane.url,
            connector=aiohttp.TCPConnector(
                limit=0, ssl=ssl.create_default_context(cafile=str(keys.authority.certificate))
            ),
            headers={"Authorization": f"Bearer {keys.token}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=75.0),
        )
        for machine in self.machines.values():
            await self._register(machine)
        self._tasks = [asyncio.create_task(self._heartbeats()), asyncio.create_task(self._follow())]

    async def close(self) -> None:
        """The machines go out."""
        for machine in self.machines.values():
            self._tasks += machine.tasks.values()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()
        await asyncio.sleep(GOODBYE_SECONDS)

    def pod(self, uid: str) -> Document:
        """The object of a pod, as its kubelet knows it."""
        return self._pods[uid]

    def pods(self) -> list[Document]:
        """The objects of all pods, as the kubelets know them."""
        return list(self._pods.values())

    def running(self) -> list[Process]:
        """All that runs now."""
        return [process for process in self.history if process.runs]

    async def cut_off(self, name: str) -> None:
        """Its network is gone; what runs there runs on. The control plane calls it silent, sooner than it would by itself."""
        self.machines[name].reachable = False
        await self.call_silent(name)

    async def call_silent(self, name: str) -> None:
        """What the control plane says of a node that does not report, without the wait."""
        with contextlib.suppress(*FAILURES):
            await self._set_ready(name, "Unknown", "Kubelet stopped posting node status.")

    async def power_off(self, name: str) -> None:
        """All that runs there is gone at once."""
        machine = self.machines[name]
        machine.on = False
        for task in machine.tasks.values():
            task.cancel()
        machine.tasks.clear()
        for process in machine.processes.values():
            if process.runs:
                _end(process, 255)
        machine.processes.clear()
        await self.call_silent(name)

    async def come_back(self, name: str) -> None:
        """With power and network. After a power loss it is another boot, which knows the containers of the last one as gone."""
        machine = self.machines[name]
        if not machine.on:
            machine.boot = secrets.token_hex(8)
        machine.on = machine.reachable = True
        with contextlib.suppress(*FAILURES):
            await self._register(machine)
        await asyncio.sleep(TELL_SECONDS)
        self._resync(machine)

    async def evict(self, uid: str) -> None:
        """The kubelet of a pod ends it: its node is short of something (as eviction_manager.go does it)."""
        pod = self._pods[uid]
        process = self.machines[pod["spec"]["nodeName"]].processes[uid]
        process.reason = "Evicted"
        _end(process, 137)
        await self._report(pod, _terminated(pod, process, lingers=False))

    async def _register(self, machine: Machine) -> None:
        amount: Document = {"cpu": str(machine.cpu), "memory": f"{machine.memory_gib}Gi", "pods": "110"}
        if machine.gpus:
            amount["nvidia.com/gpu"] = str(machine.gpus)
        document = {
            "metadata": {"name": machine.name, "labels": {"kubernetes.io/hostname": machine.name}},
            "status": {"capacity": amount, "allocatable": amount, "nodeInfo": {"kubeletVersion": "played"}},
        }
        await self._ask("POST", "/api/v1/nodes", document, content_with={409})
        await self._set_ready(machine.name, "True", "kubelet is posting ready status")
        await self._renew(machine.name)

    async def _set_ready(self, name: str, status: str, message: str) -> None:
        now, machine = _stamp(), self.machines[name]
        if machine.shown[0] != status:
            machine.shown = status, now
        condition = {
            "type": "Ready",
            "status": status,
            "reason": "KubeletReady" if status == "True" else "NodeStatusUnknown",
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": machine.shown[1],
        }
        await self._ask("PATCH", f"/api/v1/nodes/{name}/status", {"status": {"conditions": [condition]}})

    async def _renew(self, name: str) -> None:
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        renewed = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _stamp(micros=True)}
        status, _ = await self._ask("PATCH", f"{leases}/{name}", {"spec": renewed}, content_with={404})
        if status == 404:
            await self._ask("POST", leases, {"metadata": {"name": name}, "spec": renewed}, content_with={409})

    async def _heartbeats(self) -> None:
        while True:
            for machine in list(self.machines.values()):
                if machine.works:
                    with contextlib.suppress(*FAILURES):
                        status, _ = await self._ask("GET", f"/api/v1/nodes/{machine.name}", content_with={404})
                        if status == 404:
                            await self._register(machine)
                        await self._renew(machine.name)
                        await self._set_ready(machine.name, "True", "kubelet is posting ready status")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _follow(self) -> None:
        """The pods of all nodes: listed, watched, and listed again after whatever goes wrong."""
        while True:
            with contextlib.suppress(*FAILURES, ValueError, KeyError):
                version = await self._list()
                async for event in self._events(version):
                    if event["type"] == "ERROR":
                        break
                    self._take(event["type"], event["object"])
            await asyncio.sleep(AGAIN_SECONDS)

    async def _list(self) -> str:
        _, found = await self._ask("GET", "/api/v1/pods?fieldSelector=spec.nodeName!%3D")
        self._pods = {pod["metadata"]["uid"]: pod for pod in found["items"]}
        for machine in self.machines.values():
            self._resync(machine)
        return str(found["metadata"]["resourceVersion"])

    async def _events(self, version: str) -> AsyncIterator[Document]:
        query = {"fieldSelector": "spec.nodeName!=", "watch": "true", "resourceVersion": version}
        query |= {"allowWatchBookmarks": "true", "timeoutSeconds": "60"}
        async with self._http.get("/api/v1/pods", params=query, raise_for_status=True) as answer:
            part = b""
            async for data in answer.content.iter_any():
                *lines, part = (part + data).split(b"\n")
                for line in lines:
                    yield json.loads(line)

    def _take(self, kind: str, pod: Document) -> None:
        if kind == "BOOKMARK":
            return
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod
        machine = self.machines.get(pod["spec"].get("nodeName", ""))
        if machine is not None and machine.works:
            self._sync(machine, uid)

    def _resync(self, machine: Machine) -> None:
        """As a kubelet does when it has listed: what it does not know it starts, what nobody knows any more it ends."""
        if not machine.works:
            return
        mine = {uid for uid, pod in self._pods.items() if pod["spec"].get("nodeName") == machine.name}
        for uid in mine | set(machine.processes):
            self._sync(machine, uid)

    def _sync(self, machine: Machine, uid: str) -> None:
        """One worker for each pod, until it has nothing more to do."""
        machine.news.add(uid)
        if uid not in machine.tasks:
            machine.tasks[uid] = asyncio.create_task(self._work(machine, uid))

    async def _work(self, machine: Machine, uid: str) -> None:
        """The worker of one pod: compares what is there with what is wanted, and does the next step."""
        while machine.on:
            machine.news.discard(uid)
            pod, process = self._pods.get(uid), machine.processes.get(uid)
            name = process.pod if process else pod["metadata"]["name"] if pod else ""
            life = self._life(name) if name else Life()
            if process is not None and process.runs and time.monotonic() - process.started >= life.seconds:
                process.told = life.reason
                _end(process, life.exit_code)
            if process is not None and process.runs and life.alone_seconds:
                _look_whether_alone(machine, pod, process, life)
            try:
                if machine.works:
                    more = await self._step(machine, uid, pod, process, life)
                else:
                    more = process is not None and process.runs
                    await asyncio.sleep(0.05)
            except (*FAILURES, ValueError):
                more = True
                await asyncio.sleep(AGAIN_SECONDS)
            if not more and uid not in machine.news:
                machine.tasks.pop(uid, None)  # in the same breath: whatever comes next starts another worker
                return

    async def _step(
        self, machine: Machine, uid: str, pod: Document | None, process: Process | None, life: Life
    ) -> bool:
        """Whether there is more to do."""
        if pod is None:
            if process is not None and process.runs:
                await asyncio.sleep(END_SECONDS)
                _end(process, 137)
            machine.processes.pop(uid, None)
            return False
        deleting = "deletionTimestamp" in pod["metadata"]
        over = pod["status"].get("phase") in OVER
        if process is None:
            return await self._without_process(machine, uid, pod, deleting=deleting, over=over)
        if process.runs:
            probe = pod["spec"]["containers"][0].get("livenessProbe", {})
            deadline = probe.get("initialDelaySeconds", 0)
            if deleting or over or (deadline and time.monotonic() - process.started >= deadline):
                await asyncio.sleep(END_SECONDS)
                _end(process, 143)
            else:
                await self._report(pod, _running(pod, process))
                await asyncio.sleep(max(0.02, min(0.1, process.started + life.seconds - time.monotonic())))
            return True
        keeps = any(container["name"] == "outputs" for container in pod["spec"]["containers"])
        lingers = keeps and process.exit_code == 0 and not deleting and not over
        await self._report(pod, _terminated(pod, process, lingers=lingers))
        if lingers:
            return False  # until it is deleted
        if deleting:
            await asyncio.sleep(machine.cleans_up_seconds)
            await self._remove(pod)
        return False

    async def _without_process(self, machine: Machine, uid: str, pod: Document, *, deleting: bool, over: bool) -> bool:
        status = pod["status"]
        if over or deleting:
            if not over:
                await self._report(pod, {"phase": "Failed", "containerStatuses": []})
            if deleting:
                await self._remove(pod)
            return False
        ran = [one for one in status.get("containerStatuses", ()) if "running" in one.get("state", {})]
        if ran and any(old.uid == uid and old.node == machine.name for old in self.history):
            # Its containers went with the power: as a real node says it.
            gone = {"exitCode": 255, "reason": "Unknown", "finishedAt": _stamp()}
            statuses = [_container(one["name"], {"terminated": gone | one["state"]["running"]}) for one in ran]
            await self._report(pod, {"phase": "Failed", "containerStatuses": statuses})
            return False
        if machine.refuses:
            self.refused.append(pod["metadata"]["name"])
            words = f"Pod was rejected: {machine.refuses}"
            await self._report(
                pod, {"phase": "Failed", "reason": machine.refuses, "message": words, "startTime": _stamp()}
            )
            return False
        await self._report(pod, {"phase": "Pending", "startTime": _stamp()})
        name, began = pod["metadata"]["name"], time.monotonic()
        while time.monotonic() - began < (wait := self._life(name).starts_after) and self._is_wanted(uid):
            await asyncio.sleep(min(0.05, wait))
        if not self._is_wanted(uid):
            return True
        process = Process(node=machine.name, pod=name, uid=uid)
        process.started, process.started_at = time.monotonic(), _stamp()
        machine.processes[uid] = process
        self.history.append(process)
        return True

    def _is_wanted(self, uid: str) -> bool:
        pod = self._pods.get(uid)
        return pod is not None and "deletionTimestamp" not in pod["metadata"]

    async def _report(self, pod: Document, status: Document) -> None:
        """Its status, if that is news."""
        if _gist(pod["status"]) == _gist(pod["status"] | status):
            return
        meta = pod["metadata"]
        code, said = await self._ask(
            "PATCH",
            f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status",
            {"metadata": {"uid": meta["uid"]}, "status": status},
            content_with={404, 409},
        )
        if code in {404, 409}:
            self._pods.pop(meta["uid"], None)
            return
        known = self._pods.get(meta["uid"])
        if known is not None and _version(said) > _version(known):  # the watch may have told of what came after it
            self._pods[meta["uid"]] = said

    async def _remove(self, pod: Document) -> None:
        """The last word of a kubelet: nothing of it is left."""
        meta = pod["metadata"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        await self._ask("DELETE", path, options, content_with={404, 409})

    async def _ask(
        self, method: str, path: str, body: Document | None = None, *, content_with: AbstractSet[int] = frozenset()
    ) -> tuple[int, Document]:
        """Status and answer. Raises one of FAILURES, also for a refusal that the caller is not content with."""
        kind = MERGE if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind} if data else {}
        where = URL(path, encoded=True)
        async with self._http.request(method, where, data=data, headers=headers) as answer:
            if answer.status not in content_with:
                answer.raise_for_status()
            content = await answer.read()
            return answer.status, json.loads(content) if content else {}


def _version(pod: Document) -> int:
    """Versions are opaque; those of the test bed are numbers."""
    return int(pod["metadata"]["resourceVersion"])


def _end(process: Process, code: int) -> None:
    process.ended, process.ended_at, process.exit_code = time.monotonic(), _stamp(), code


def _look_whether_alone(machine: Machine, pod: Document | None, process: Process, life: Life) -> None:
    """As a probe that reads what the kubelet has written of the pod's own annotations; cut off it reads what it did before."""
    now, heard = time.monotonic(), process.renewed[0]
    if machine.works and pod is not None:
        heard = next((said for name, said in pod["metadata"]["annotations"].items() if name.endswith("/renewed")), "")
    if heard != process.renewed[0]:
        process.renewed = heard, now
    if heard == "revoked" or now - (process.renewed[1] or process.started) >= life.alone_seconds:
        process.message = life.alone_words
        _end(process, 137)


def _running(pod: Document, process: Process) -> Document:
    state = {"running": {"startedAt": process.started_at}}
    statuses = [_container(one["name"], state) for one in pod["spec"]["containers"]]
    return {"phase": "Running", "podIP": "192.0.2.1", "containerStatuses": statuses}


def _terminated(pod: Document, process: Process, *, lingers: bool) -> Document:
    times = {"startedAt": process.started_at, "finishedAt": process.ended_at}
    word = "Error" if process.exit_code else "Completed"
    ended = {
        "terminated": {
            "exitCode": process.exit_code,
            "reason": process.told or word,
            "message": process.message,
            **times,
        }
    }
    other = {"running": {"startedAt": process.started_at}} if lingers else {"terminated": {"exitCode": 0, **times}}
    statuses = [_container(one["name"], ended if one["name"] == "main" else other) for one in pod["spec"]["containers"]]
    phase = "Running" if lingers else ("Failed" if process.exit_code else "Succeeded")
    why = {"reason": process.reason, "message": "in words"} if process.reason else {}
    return {"phase": phase, "containerStatuses": statuses, **why}


def _gist(status: Document) -> tuple[object, ...]:
    """What counts of a status."""
    states = [(one["name"], sorted(one["state"])) for one in status.get("containerStatuses", ())]
    return status.get("phase"), status.get("reason"), bool(status.get("startTime")), states


def _container(name: str, state: Document) -> Document:
    known = {"waiting": None, "running": None, "terminated": None}
    shown = {key: value for key, value in (known | state).items() if value is not None}
    runs = "running" in shown
    return {"name": name, "state": shown, "ready": runs, "started": runs, "restartCount": 0, "image": "", "imageID": ""}


def _stamp(*, micros: bool = False) -> str:
    now = datetime.now(UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micros else "%Y-%m-%dT%H:%M:%SZ")
