"""F8 to F11 and F14: what befalls the API server and the way to it, let loose by seed on the whole platform.

Each seed is a storm of one kind of fault while jobs come and the platform crashes now and then; then calm. What the machines have
witnessed must agree with what is on record. A failing seed is printed; keep it in `SEEDS`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.clusters.kubernetes import chores, picture
from testbed.control_plane import ControlPlane
from tests.arena import arena
from tests.misfortunes import STORMS, Storm

pytestmark = pytest.mark.xdist_group("kubernetes")
SEEDS: dict[str, tuple[int, ...]] = {"f8": (1,), "f9": (2,), "f10": (3,), "f11": (4,), "f14": (5,)}


@pytest.mark.parametrize(("storm", "seed"), [(storm, seed) for storm in STORMS for seed in SEEDS[storm.name]], ids=str)
async def test_a_storm_breaks_no_promise(
    storm: Storm, seed: int, breakable_control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Played kubelets end what vanished within a second, and report at once.
    monkeypatch.setattr(picture, "ORPHAN_SECONDS", 4)
    monkeypatch.setattr(picture, "REPORT_SECONDS", 2)
    monkeypatch.setattr(chores, "BURIAL_SECONDS", 1.0)
    async with arena(breakable_control_plane, tmp_path, seed=seed) as world:
        await storm.rage(world, seconds=10.0)
        ended = await world.settle()
        assert await world.violations(settled=ended) == [], f"{storm.name} with seed {seed}"
