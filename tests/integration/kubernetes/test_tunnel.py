"""A model on a real node answers through its cluster, as it does at its own address."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest

from mainstay.api import gateway, tunnels
from mainstay.artifacts.objects import open_artifacts
from mainstay.domain.addresses import Tunnel, tunnel_of
from mainstay.domain.allocation import DeletePod, Seen
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from testbed import mainstay_image
from tests.clusters import OWNER, PATIENCE_SECONDS, Program, RealCluster, Rig, kubernetes_rig, mount

pytestmark = pytest.mark.xdist_group("kubernetes")

TRAIN = Path(__file__).parents[3] / "examples/01-first-job/train.py"
PREDICT = "/v2/models/digits/infer"
QUESTION = {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": [0.5] * 64}]}


@dataclass
class Serving:
    """A pod that serves, and the client of the gateway."""

    rig: Rig
    tunnel: Tunnel
    client: httpx2.AsyncClient

    @property
    def url(self) -> str:
        return f"http://{tunnels.origin(self.tunnel)}"


@pytest.fixture
async def serving(real_cluster: RealCluster, tmp_path: Path) -> AsyncIterator[Serving]:
    image = mainstay_image.mainstay()
    real_cluster.node.load(image)
    rig = await kubernetes_rig(real_cluster, tmp_path)
    try:
        argv = ("python", "-m", "mainstay.serving", "--model", "model", "--name", "digits", "--version", "1")
        action = rig.creation("model-1-0", Program())
        spec = replace(
            action.spec,
            argv=argv,
            image=image.reference,
            mounts=mount(await trained(tmp_path), "model"),
            port=True,
            ready_path="/v2/health/ready",
            resources=Resources(cpu_milli=500, memory_bytes=BYTES_PER_GIB // 2),
        )
        await rig.act(replace(action, spec=spec))
        await rig.seen("model-1-0", Seen.RUNNING)
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            while not (state := await rig.state("model-1-0")) or not state.ready:
                await asyncio.sleep(0.1)
        tunnel = tunnel_of(state.address)
        assert tunnel == Tunnel(cluster="k8s", pod="model-1-0", port=8080)
        async with gateway.new_client({"k8s": rig.cluster}) as client:
            yield Serving(rig=rig, tunnel=tunnel, client=client)
    finally:
        await rig.close()


async def trained(folder: Path) -> str:
    """The tree of a model, made as the first example makes it."""
    output = folder / "output"
    output.mkdir()
    environment = {**os.environ, "MAINSTAY_OUTPUT_DIR": str(output)}
    training = await asyncio.create_subprocess_exec(sys.executable, str(TRAIN), env=environment, stdout=-3)
    assert await training.wait() == 0
    artifacts, entries = open_artifacts(str(folder / "artifacts")).of(OWNER), []
    for path in sorted((output / "model").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            await artifacts.put(digest, once(content))
            entries.append(Entry(path=str(path.relative_to(output / "model")), size=len(content), digest=digest))
    return await artifacts.put_tree(Tree(entries=tuple(entries)))


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_a_model_answers_through_its_cluster_until_it_ends(serving: Serving):
    opened = 0
    connect = serving.rig.cluster.connect

    def counted(pod: str, port: int):
        nonlocal opened
        opened += 1
        return connect(pod, port)

    serving.rig.cluster.connect = counted  # type: ignore[method-assign]
    for _ in range(3):
        answer = await serving.client.post(serving.url + PREDICT, json=QUESTION)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"]
    assert opened == 1  # kept alive, as any connection
    answers = await asyncio.gather(*(serving.client.post(serving.url + PREDICT, json=QUESTION) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    await serving.rig.act(DeletePod(name="model-1-0", grace_seconds=1))
    await serving.rig.seen("model-1-0", Seen.ENDED)
    with pytest.raises(httpx2.TransportError):
        await serving.client.post(serving.url + PREDICT, json=QUESTION)
