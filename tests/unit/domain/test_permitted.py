"""Images come from where an administrator says, however their names are written; taints of the system are tolerated by nobody."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mainstay.domain.affinity import SPOT_LABELS
from mainstay.domain.permitted import ANYTHING, Permitted, bad_repositories, reference
from mainstay.wire.images import image as is_image
from tests.unit.clusters.kubernetes.hostile import ALLOWED, FROM_ELSEWHERE, FROM_THERE

THERE = Permitted(repositories=tuple(ALLOWED.split()))


def valid(text: str) -> bool:
    try:
        is_image(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("image", FROM_THERE)
def test_what_the_api_server_takes_is_permitted(image: str) -> None:
    assert valid(image)
    assert THERE.image(image)
    assert THERE.image(image.partition("@")[0])


@pytest.mark.parametrize("image", FROM_ELSEWHERE)
def test_what_it_refuses_is_no_image_or_not_permitted(image: str) -> None:
    assert not valid(image) or not THERE.image(image)


part = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,3})?", fullmatch=True)
registry = st.sampled_from(
    [
        "",
        "registry.example.com/",
        "registry.example.com:443/",
        "localhost/",
        "localhost:5000/",
        "docker.io/",
        "a.b/",
        "ml/",
    ]
)
tails = st.sampled_from(["", ":1", ":5000", f"@sha256:{'0' * 64}", f":1@sha256:{'a' * 64}"])
marks = st.sampled_from(
    ["", "@", "user@", "user:secret@", ":", "//", "/../", "%2f", "\\", "\t", "\u0430", "K", "\u212a", "\uff0f", "\0"]
)


@given(first=registry, parts=st.lists(part, min_size=1, max_size=3), tail=tails, mark=marks, at=st.integers(0, 40))
def test_a_permitted_image_is_pulled_from_the_registry_and_folder_that_is_permitted(first, parts, tail, mark, at):
    name = first + "/".join(parts) + tail
    text = name[:at] + mark + name[at:]
    assume(valid(text))
    if THERE.image(text):
        full = text if _says_registry(text) else f"docker.io/{text}" if "/" in text else f"docker.io/library/{text}"
        assert any(full.startswith(one) and full[len(one) :][:1] in {"", "/", ":", "@"} for one in THERE.repositories)
        assert full.isascii()
        assert "@" not in full.partition("@sha256:")[0]


def _says_registry(text: str) -> bool:
    first, slash, _ = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


@given(first=registry, parts=st.lists(part, min_size=1, max_size=3), tail=tails)
def test_the_parts_of_a_name_make_the_name_again(first, parts, tail):
    text = first + "/".join(parts) + tail
    assume(valid(text))
    found = reference(text)
    again = found.repository + (f":{found.tag}" if found.tag else "") + (f"@{found.digest}" if found.digest else "")
    assert again.endswith(text)
    assert reference(again) == found


@pytest.mark.parametrize(
    "text",
    ["", "python", "library/python", "Registry.example.com/ml", "https://registry.example.com", "registry.example.com/ml/",
     "registry.example.com/ml:1", "registry.example.com/ml@sha256:0", "user@registry.example.com/ml", "registry.example.com/*"],
)  # fmt: skip
def test_a_repository_from_which_no_image_could_be_is_refused(text: str) -> None:
    assert bad_repositories(["registry.example.com/ml", text]) == [text]


def test_repositories_that_are_some_are_taken() -> None:
    assert not bad_repositories(
        ["docker.io", "docker.io/library/python", "localhost:5000", "ghcr.io/acme", "10.0.0.1:5000/x"]
    )


def test_no_job_tolerates_what_keeps_it_off_the_machines_of_the_system() -> None:
    listed = Permitted(tolerations=("dedicated", "node-role.kubernetes.io/control-plane"))
    for key in (
        *("", "CriticalAddonsOnly", "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"),
        *("node.kubernetes.io/unreachable", "node.cloudprovider.kubernetes.io/uninitialized", "x.k8s.io/y"),
    ):
        assert not ANYTHING.toleration(key), key
        assert not listed.toleration(key), key


def test_without_a_list_every_other_taint_is_tolerated_and_with_one_those_on_it_and_spot() -> None:
    listed = Permitted(tolerations=("dedicated",))
    assert all(ANYTHING.toleration(key) and listed.toleration(key) for key in ("dedicated", *SPOT_LABELS))
    assert ANYTHING.toleration("example.com/pool")
    assert not listed.toleration("example.com/pool")
    assert not listed.toleration("dedicated2")
