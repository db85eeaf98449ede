"""GPUs of this machine are handed out by index, each to one pod at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.local import LocalCluster
from mainstay.clusters.local.gpus import Gpus
from mainstay.domain.allocation import DeletePod, Seen
from mainstay.domain.errors import NoCapacity
from tests.clusters import SMALL, Program, Rig, local_rig
from tests.drawer import Drawer

pytestmark = pytest.mark.xdist_group("local-cluster")
ONE_GPU = replace(SMALL, gpus=1, gpu_model="L4")
SAYS_WHICH = Program(lines=("'$CUDA_VISIBLE_DEVICES'",), runs_for=30)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    artifacts = open_artifacts(str(tmp_path / "artifacts"))
    found = Gpus(model="L4", indices=(1, 3))
    cluster = LocalCluster(tmp_path / "cluster", artifacts=artifacts, secrets=Drawer(), find_gpus=lambda: found)
    return replace(local_rig(tmp_path), cluster=cluster)


async def test_each_pod_sees_a_gpu_of_its_own_and_one_that_is_free_again_goes_to_the_next(rig: Rig):
    (node,) = (await rig.cluster.observe()).nodes
    assert (node.capacity.gpus, node.capacity.gpu_model) == (2, "L4")
    for name in ("a-1-0", "b-1-0"):
        await rig.create(name, SAYS_WHICH, resources=ONE_GPU)
        await rig.seen(name, Seen.RUNNING)
    with pytest.raises(NoCapacity):
        await rig.create("c-1-0", SAYS_WHICH, resources=ONE_GPU)
    await rig.create("none-1-0", Program(lines=("gpus:'$CUDA_VISIBLE_DEVICES'",)))
    await rig.seen("none-1-0", Seen.ENDED)
    await rig.act(DeletePod(name="a-1-0", grace_seconds=0))
    await rig.seen("a-1-0", Seen.ENDED)
    await rig.create("d-1-0", SAYS_WHICH, resources=ONE_GPU)
    await rig.seen("d-1-0", Seen.RUNNING)
    logs = {name: (await rig.log(name)).strip() for name in ("a-1-0", "b-1-0", "none-1-0")}
    assert logs == {"a-1-0": "1", "b-1-0": "3", "none-1-0": "gpus:"}
    for name in ("b-1-0", "d-1-0"):
        await rig.act(DeletePod(name=name, grace_seconds=0))
        await rig.seen(name, Seen.ENDED)
    assert (await rig.log("d-1-0")).strip() == "1"
    await rig.cluster.close()
