"""Where images of jobs come from: what an administrator says is checked before anything runs."""

from __future__ import annotations

from pathlib import Path

from mainstay.domain.errors import Invalid, StateUnusable
from mainstay.domain.permitted import bad_repositories
from mainstay.ports import Outbound
from mainstay.registries import Credentials, ImageKey, Registries
from mainstay.registries.keys import image_key
from mainstay.start.settings import Settings

KEY_BYTES_MAX = 64 << 10


def check_images(settings: Settings) -> None:
    """Raises StateUnusable for a repository from which no image could be, for registries that anybody could have us ask, and for
    keys and credentials that would count for nothing.
    """
    if bad := bad_repositories(settings.allow_image):
        raise _no_repository(bad[0], option="--allow-image")
    if settings.pin_images and not settings.allow_image:
        msg = "--pin-images needs --allow-image"
        raise StateUnusable(msg, hint="say which registries may be asked; else a job could name any address as one")
    for given, option in (
        (settings.image_key, "--image-key"),
        (settings.registry_credentials, "--registry-credentials"),
    ):
        if given and not settings.pin_images:
            msg = f"{option} needs --pin-images"
            raise StateUnusable(
                msg, hint="without it no registry is asked, and a tag could mean another image a moment later"
            )
    for one in settings.image_key:
        _key(one, settings.allow_image)


def registries(settings: Settings, outbound: Outbound) -> Registries | None:
    """What asks registries, if they are asked at all. Raises StateUnusable for files that are not what they should be."""
    if not settings.pin_images:
        return None
    try:
        credentials = Credentials(settings.registry_credentials)
    except Invalid as error:
        raise StateUnusable(error.message, hint=error.hint) from error
    keys = [_key(one, settings.allow_image) for one in settings.image_key]
    return Registries(outbound=outbound, keys=keys, credentials=credentials)


def _key(given: str, allowed: tuple[str, ...]) -> ImageKey:
    repository, mark, file = given.rpartition("=")
    if mark and bad_repositories([repository]):
        raise _no_repository(repository, option="--image-key")
    if repository and not any(_meet(repository, one) for one in allowed):
        # A name that is spelt wrongly would leave the images of the right one unsigned, and nobody would know.
        msg = f"--image-key: no image may come from {repository!r}"
        raise StateUnusable(msg, hint=f"--allow-image permits {', '.join(allowed)}")
    try:
        with Path(file).open("rb") as opened:
            return image_key(opened.read(KEY_BYTES_MAX), repository)
    except OSError as error:
        msg = f"--image-key: cannot read {file}: {error.strerror}"
        raise StateUnusable(msg, hint="give a file, or REPOSITORY=FILE") from error
    except Invalid as error:
        msg = f"--image-key: {file}: {error.message}"
        raise StateUnusable(msg, hint=error.hint) from error


def _meet(one: str, other: str) -> bool:
    """Whether one of them lies within the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _no_repository(text: str, *, option: str) -> StateUnusable:
    hint = "write its full name in lower case, as docker.io/library/python or registry.example.com/ml"
    return StateUnusable(f"{option}: {text!r} is no registry or repository", hint=hint)
