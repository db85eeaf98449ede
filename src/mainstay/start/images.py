"""Where images of jobs come from: what an administrator says is checked before anything runs."""

from __future__ import annotations

from mainstay.domain.errors import StateUnusable
from mainstay.domain.permitted import bad_repositories
from mainstay.start.settings import Settings


def check_images(settings: Settings) -> None:
    """Raises StateUnusable for a repository from which no image could be, and for registries that anybody could have us ask."""
    if bad := bad_repositories(settings.allow_image):
        msg = f"--allow-image: {bad[0]!r} is no registry or repository"
        raise StateUnusable(
            msg, hint="write its full name in lower case, as docker.io/library/python or registry.example.com/ml"
        )
    if settings.pin_images and not settings.allow_image:
        msg = "--pin-images needs --allow-image"
        raise StateUnusable(msg, hint="say which registries may be asked; else a job could name any address as one")
