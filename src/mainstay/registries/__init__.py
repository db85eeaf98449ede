"""Registries of images: which digest a tag means now, who signed what it names, and what that brings along (security.md A9).

All of it is asked once, when a job is submitted. From then on the job names the digest that was looked at, and nodes run what has
that digest: nothing is looked up again that could have become something else meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2

from mainstay.domain.errors import Unavailable
from mainstay.domain.permitted import reference
from mainstay.ports import Outbound
from mainstay.registries.contents import require_plain
from mainstay.registries.credentials import NOBODY, Credentials
from mainstay.registries.keys import ImageKey
from mainstay.registries.repository import Repository, digest_of, no_image
from mainstay.registries.signatures import require_signed

SECONDS_MAX = 30.0
"""For all that is asked about one image."""

__all__ = ["Credentials", "ImageKey", "Registries"]


class Registries:
    """Implements `ports.Registries`. Only such are asked as an administrator permits."""

    def __init__(self, *, outbound: Outbound, keys: Sequence[ImageKey] = (), credentials: Credentials = NOBODY) -> None:
        """`outbound`: asks where registries send us. `keys`: an image for which one stands must be signed by such a one."""
        self._keys = tuple(keys)
        self._credentials = credentials
        self._outbound = outbound

    async def pinned(self, image: str) -> str:
        """The same image with its digest: what was asked for now, whatever becomes of its tag. Raises Invalid, Unavailable."""
        name = reference(image)
        try:
            opened = Repository.opened(name, self._credentials, self._outbound)
            async with asyncio.timeout(SECONDS_MAX), opened as repository:
                manifest = await repository.manifest(name.digest or name.tag or "latest")
                if manifest is None:
                    raise no_image(image, name.registry, repository.answered)
                # What was received is what is named: a digest that the registry only claims could be that of anything.
                digest = digest_of(manifest)
                keys = [key for key in self._keys if key.stands_for(name)]
                if keys:
                    await require_signed(repository, digest, keys)
                await require_plain(repository, manifest)
        except (httpx2.HTTPError, TimeoutError) as error:
            msg = f"image: the registry {name.registry} does not answer: {type(error).__name__}"
            raise Unavailable(msg, object_="image", hint="try again") from error
        return image if name.digest else f"{image}@{digest}"
