"""A platform does not start with a list of images that says something else than was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.domain.errors import StateUnusable
from mainstay.outbound import Outbound
from mainstay.start.images import check_images, registries
from mainstay.start.settings import Settings
from tests.images import Signer

HERE = ("ghcr.io/acme", "docker.io")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "release.pub"
    path.write_bytes(Signer().public)
    return path


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"allow_image": ("python",)}, "'python' is no registry"),
        ({"allow_image": ("ghcr.io/acme", "ghcr.io/acme:1")}, "'ghcr.io/acme:1' is no registry"),
        ({"pin_images": True}, "--pin-images needs --allow-image"),
        ({"allow_image": HERE, "image_key": ("KEY",)}, "--image-key needs --pin-images"),
        ({"allow_image": HERE, "registry_credentials": Path("x")}, "--registry-credentials needs --pin-images"),
        ({"allow_image": HERE, "pin_images": True, "image_key": ("away.pub",)}, "cannot read away.pub"),
        ({"allow_image": HERE, "pin_images": True, "image_key": (__file__,)}, "no public key"),
        ({"allow_image": HERE, "pin_images": True, "image_key": ("acme=KEY",)}, "'acme' is no registry"),
        ({"allow_image": HERE, "pin_images": True, "image_key": ("=KEY",)}, "'' is no registry"),
        ({"allow_image": HERE, "pin_images": True, "image_key": ("KEY", "ghcr.io/acne=KEY")}, "no image may come from"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(given, words, key):
    settings = {**given, "image_key": tuple(one.replace("KEY", str(key)) for one in given.get("image_key", ()))}
    with pytest.raises(StateUnusable, match=words) as refused:
        check_images(Settings(state=Path(), **settings))
    assert refused.value.hint


@pytest.mark.parametrize("of", ["", "ghcr.io=", "ghcr.io/acme=", "ghcr.io/acme/train=", "docker.io/library/python="])
def test_what_is_right_is_taken(key, of):
    check_images(Settings(state=Path()))
    settings = Settings(state=Path(), allow_image=HERE, pin_images=True, image_key=(f"{of}{key}",))
    check_images(settings)
    assert registries(settings, Outbound())


def test_without_pinning_no_registry_is_asked():
    assert registries(Settings(state=Path(), allow_image=HERE), Outbound()) is None


def test_credentials_that_cannot_be_used_are_told_at_the_start(tmp_path):
    settings = Settings(state=Path(), allow_image=HERE, pin_images=True, registry_credentials=tmp_path / "away")
    with pytest.raises(StateUnusable, match="cannot be read") as refused:
        registries(settings, Outbound())
    assert refused.value.hint
