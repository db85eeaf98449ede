"""What one create costs the client, and how near one client comes to what the API server takes: on a real API server.

Raw is the bare HTTP client with the document ready, and answers thrown away; ours is `Connection.create` behind a `Pace`: it
also reads the answer. Then a list of 50,000 pods, with the memory that a view of them keeps. Client and server share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import aiohttp
import httpx2
import msgspec

from benchmarks.report import figure, percentile, progress, report
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.informer import Informer
from mainstay.clusters.kubernetes.kinds import NAMESPACES, PODS, Kind
from mainstay.clusters.kubernetes.objects import Object, Pod
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.sources import Fixed
from testbed.control_plane import ControlPlane, running

IN_FLIGHT = 32
FAST = 1e9
ACCOUNTS = Kind(name="ServiceAccount", plural="serviceaccounts", type=Object)
Create = Callable[[str, bytes], Awaitable[None]]


class SystemClock:
    """`ports.Clock` of this machine."""

    @staticmethod
    def now() -> int:
        """UTC microseconds."""
        return time.time_ns() // 1_000

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)


def document(name: str) -> bytes:
    """A pod as the platform creates it: placed already, restricted, with requests and an owner's labels."""
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"mainstay.dev/workload": name, "mainstay.dev/epoch": "7"}},
            "spec": {
                "nodeName": f"hollow-{hash(name) % 5_000}",
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1_000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {
                        "name": "main",
                        "image": "registry.example/train@sha256:" + 64 * "0",
                        "command": ["python", "train.py"],
                        "env": [{"name": f"MAINSTAY_{number}", "value": name} for number in range(8)],
                        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
    )


def path_of(namespace: str) -> str:
    """Where pods are created, asked as we ask."""
    return f"/api/v1/namespaces/{namespace}/pods?fieldValidation=Ignore"


async def make_namespace(api: Connection, name: str) -> None:
    """One in which pods can be created, though no controller is there to make its account."""
    await api.create(NAMESPACES, "", {"metadata": {"name": name}})
    await api.create(ACCOUNTS, name, {"metadata": {"name": "default"}})


async def rate(create: Create, *, namespace: str, pods: int) -> tuple[float, float]:
    """(creates a second, microseconds of client CPU for each) with IN_FLIGHT at once."""
    bodies = iter([document(f"p{number}") for number in range(pods)])

    async def work() -> None:
        for body in bodies:
            await create(namespace, body)

    cpu, wall = time.process_time(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    return pods / wall, cpu / pods * 1e6


async def by_aiohttp(
    control_plane: ControlPlane, measure: Callable[[Create], Awaitable[tuple[float, float]]]
) -> tuple[float, float]:
    """The bare client."""
    context = ssl.create_default_context(cafile=str(control_plane.keys.authority.certificate))
    headers = {"Authorization": f"Bearer {control_plane.keys.token}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        control_plane.url, headers=headers, connector=aiohttp.TCPConnector(ssl=context, limit=0)
    ) as session:

        async def create(namespace: str, body: bytes) -> None:
            async with session.post(path_of(namespace), data=body) as answer:
                await answer.read()
                assert answer.status == 201, answer.status

        return await measure(create)


async def by_httpx2(
    control_plane: ControlPlane, measure: Callable[[Create], Awaitable[tuple[float, float]]]
) -> tuple[float, float]:
    """The runner-up."""
    context = ssl.create_default_context(cafile=str(control_plane.keys.authority.certificate))
    headers = {"Authorization": f"Bearer {control_plane.keys.token}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(
        base_url=control_plane.url, headers=headers, verify=context, trust_env=False, timeout=60.0
    ) as client:

        async def create(namespace: str, body: bytes) -> None:
            answer = await client.post(path_of(namespace), content=body)
            assert answer.status_code == 201, answer.status_code

        return await measure(create)


async def by_ours(api: Connection, measure: Callable[[Create], Awaitable[tuple[float, float]]]) -> tuple[float, float]:
    """With errors, pace and a decoded answer."""
    pace = Pace(clock=SystemClock(), in_flight_max=IN_FLIGHT, writes_per_second_max=FAST)

    async def create(namespace: str, body: bytes) -> None:
        await pace.write(partial(api.create, PODS, namespace, body))

    return await measure(create)


def kept(pod: Pod) -> tuple[str, str, str, str]:
    """About what a cluster keeps of a pod."""
    return pod.metadata.uid, pod.spec.node_name, pod.status.phase, pod.metadata.labels.get("mainstay.dev/workload", "")


async def listed(api: Connection, project: Callable[[Pod], object]) -> tuple[float, float, float, int]:
    """(seconds of wall, of CPU, MiB more, pods) until a view of all pods is there."""
    gc.collect()
    before, cpu, wall = resident_mib(), time.process_time(), time.monotonic()
    view: Informer[Pod, object] = Informer(api, PODS, clock=SystemClock(), project=project)
    task = asyncio.create_task(view.run())
    await view.synced.wait()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    grown, count = resident_mib() - before, len(view.objects)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return wall, cpu, grown, count


def resident_mib() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


async def measure(control_plane: ControlPlane, *, pods: int, rounds: int, listed_pods: int) -> None:
    """All of it, and the report."""
    credentials = Credentials(
        server=control_plane.url,
        ca=control_plane.keys.authority.certificate.read_text(),
        token=control_plane.keys.token,
    )
    api = Connection(Fixed(credentials), clock=SystemClock())
    ways = {
        "aiohttp, bare": partial(by_aiohttp, control_plane),
        "httpx2, bare": partial(by_httpx2, control_plane),
        "ours": partial(by_ours, api),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    created = 0
    for turn in range(-1, rounds):  # the first warms the server up
        for name, way in ways.items():
            progress(f"{name}, round {turn + 1} of {rounds}")
            namespace = f"bench-{turn + 1}-{name.split(',')[0]}"
            await make_namespace(api, namespace)
            outcome = await way(partial(rate, namespace=namespace, pods=pods))
            created += pods
            if turn >= 0:
                rates[name].append(outcome)
    while created < listed_pods:
        progress(f"{created} of {listed_pods} pods")
        namespace = f"more-{created}"
        await make_namespace(api, namespace)
        await by_ours(api, partial(rate, namespace=namespace, pods=min(3_000, listed_pods - created)))
        created += min(3_000, listed_pods - created)
    small = await listed(api, kept)
    whole = [await listed(api, lambda pod: pod) for _ in range(3)]
    latencies = []
    for _ in range(200):
        began = time.monotonic()
        await api.version()
        latencies.append(time.monotonic() - began)
    await api.close()
    raw = percentile([made for made, _ in rates["aiohttp, bare"]], 0.5)
    report(
        "kubeapi",
        [
            *(figure(f"creates, {name}", "pods/s", [made for made, _ in found]) for name, found in rates.items()),
            figure("ours of raw", "share", [made / raw for made, _ in rates["ours"]], goal=0.9),
            *(
                figure(f"client CPU of a create, {name}", "µs", [cpu for _, cpu in found], higher_is_better=False)
                for name, found in rates.items()
            ),
            figure(f"view of {small[3]} pods, four fields kept", "s", [small[0]], higher_is_better=False),
            figure("... client CPU", "s", [small[1]], higher_is_better=False),
            figure("... memory", "MiB", [small[2]], higher_is_better=False),
            figure("view of the same, kept whole", "s", [wall for wall, *_ in whole], higher_is_better=False),
            figure("... client CPU", "s", [cpu for _, cpu, *_ in whole], higher_is_better=False),
            figure("... memory", "MiB", [whole[0][2]], higher_is_better=False),
            figure("a question, p50", "ms", [percentile(latencies, 0.5) * 1e3], higher_is_better=False),
        ],
        notes=[
            f"{IN_FLIGHT} in flight, {pods} pods a round; etcd without fsync; client, server and etcd on the same cores"
        ],
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--listed", type=int, default=50_000)
    options = parser.parse_args()
    with running() as control_plane:
        control_plane.controllers.stop()  # it would delete pods of nodes that are not there
        asyncio.run(measure(control_plane, pods=options.pods, rounds=options.rounds, listed_pods=options.listed))


if __name__ == "__main__":
    main()
