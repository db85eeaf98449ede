"""How container images are named."""

from __future__ import annotations

import pytest

from mainstay.wire.images import image

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "text",
    ["python", "python:3.12-slim", "acme/train", "registry.example.com:5000/a/b_c/d-e:1.0", "localhost/busybox:1",
     "Registry.example.com/a:1", "Registry:5000/a", "a:TAG",
     f"a/b@{DIGEST}", f"a:1@{DIGEST}"],
)  # fmt: skip
def test_an_image_is_taken_as_it_is_written(text):
    assert image(text) == text


@pytest.mark.parametrize(
    "text",
    ["a b", "a:", ":1", "https://a/b", "user@host/a", "a//b", "a/../b", "a@sha256:12", "a\n",
     "é", "a" * 600, "-a", "a:b:c"],
)  # fmt: skip
def test_what_is_no_image_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="such as python"):
        image(text)


@pytest.mark.parametrize(
    "text", ["UPPER/x:1", "Python", "acme/Train:1.4", "registry.example.com/Team/x", f"UPPER/x@{DIGEST}"]
)
def test_a_repository_in_upper_case_is_refused_with_the_reason(text):
    with pytest.raises(ValueError, match="its repository has to be in lower case, as"):
        image(text)
