"""A platform does not start with a list of images that says something else than was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.domain.errors import StateUnusable
from mainstay.start.images import check_images
from mainstay.start.settings import Settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"allow_image": ("python",)}, "'python' is no registry"),
        ({"allow_image": ("ghcr.io/acme", "ghcr.io/acme:1")}, "'ghcr.io/acme:1' is no registry"),
        ({"pin_images": True}, "--pin-images needs --allow-image"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(given, words):
    with pytest.raises(StateUnusable, match=words) as refused:
        check_images(Settings(state=Path(), **given))
    assert refused.value.hint


def test_what_is_right_is_taken():
    check_images(Settings(state=Path()))
    check_images(Settings(state=Path(), allow_image=("ghcr.io/acme", "docker.io"), pin_images=True))
