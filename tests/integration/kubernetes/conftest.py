"""A real API server for the tests, where the programs of the test bed have been built."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed import programs
from testbed.control_plane import ControlPlane, running


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    if programs.missing():
        pytest.skip("the programs of the test bed are not built; make testbed-programs builds them")
    with running() as started:
        yield started
