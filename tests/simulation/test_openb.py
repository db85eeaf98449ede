"""The default score on a published trace, in its short form: one list, one seed (`make bench-openb` has them all)."""

from __future__ import annotations

import pytest

from benchmarks import openb

LIST, SEED = "cpu200", 42
SD_OF_ONE_SEED = 0.35
"""Points, twice what was measured: one seed is that far from the mean of ten that was published."""


@pytest.mark.timeout(300)
def test_the_default_allocates_more_than_the_policy_that_it_builds_on():
    if not openb.DATA.is_dir():
        pytest.skip(f"no traces: {openb.DATA}; set MAINSTAY_DATA to the folder that holds traces/openb")
    pods = openb.pods_of(LIST)
    fgd = openb.allocated(openb.fleet_of(), pods, openb.Fgd, seed=SEED)
    ours = openb.allocated(openb.fleet_of(), pods, openb.Default, seed=SEED)
    tolerance = openb.TOLERANCES["FGD"] + SD_OF_ONE_SEED
    assert fgd == pytest.approx(openb.published(LIST)["FGD"], abs=tolerance)
    assert ours > fgd
