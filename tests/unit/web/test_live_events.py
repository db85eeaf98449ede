"""What keeps a page current: the stream of events, at the moment in which a look and a commit meet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from mainstay.api.events import _frames
from mainstay.api.routes import Call
from mainstay.operations.principal import Principal
from mainstay.ports import ALL_EVENTS
from tests.stores import TENANT, USER, Scene
from tests.unit.web.site import services_of


class CommitsAfterTheFirstLook:
    """Another replica commits right after we have asked for events, and no pulse tells us."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._looked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scene.store, name)

    def events(self, **which: Any) -> Any:
        found = self._scene.store.events(**which)
        if not self._looked:
            self._looked = True
            self._scene.submit()
        return found


async def test_an_event_that_is_committed_during_a_look_is_not_slept_through(tmp_path: Path):
    with services_of(tmp_path, url="http://platform.test") as services:
        racing = replace(services, store=CommitsAfterTheFirstLook(Scene(services.store)))
        call = Call(services=racing, principal=Principal(name=USER, tenant=TENANT, role="maintainer"), key=None)
        frames = _frames(call, "", 0, ALL_EVENTS)
        async with asyncio.timeout(5):
            assert b"Submitted" in await anext(frames)
        await frames.aclose()
