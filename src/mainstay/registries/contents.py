"""What an image brings along: variables by which it would reach out of its container are refused.

Hooks of a container runtime run on the node, as root, with the variables of the container: a library of the image was loaded into
one of them that way (CVE-2025-23266). Pods override what they can of it (`clusters/kubernetes/pods.py`); here such an image is
refused before it is anywhere near a node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias

from mainstay.domain.errors import Invalid
from mainstay.domain.permitted import bad_variables
from mainstay.registries.documents import at, document, said, several, text
from mainstay.registries.repository import IMAGES, Repository

CONFIG_BYTES_MAX = 1 << 20
"""Those of images hold some ten kilobytes: a command, variables, and a line for each step of their making."""
ARCHITECTURES = frozenset({"amd64", "x86_64", "x86-64", "arm64", "aarch64"})
"""Of nodes, by all their names: of an index the images for these are looked at."""
IMAGES_MAX = 8
"""Of one index, for these: variants of an architecture are few."""

_Document: TypeAlias = Mapping[str, object]


async def require_plain(repository: Repository, manifest: bytes) -> None:
    """Raises Invalid for an image that brings such variables, or that could mean one thing here and another on a node."""
    found = document(manifest, what="its manifest")
    if not said(found, "manifests"):
        return await _require_plain(repository, found)
    if said(found, "config") or said(found, "layers"):
        _refuse("it is an index and an image at once")
    chosen = [one for one in several(found, "manifests") if _for_nodes(one)]
    if not 1 <= len(chosen) <= IMAGES_MAX:
        msg = f"image: it has {len(chosen)} images for linux on amd64 and arm64"
        raise Invalid(msg, object_="image", hint=f"push an index that has one at least, and {IMAGES_MAX} at most")
    for one in chosen:
        digest = text(one, "digest")
        content = await repository.manifest(digest, kinds=IMAGES) if digest else None
        if content is None:
            _refuse(f"{digest or 'one of its images'} is not there, or no image")
        await _require_plain(repository, document(content, what=digest))
    return None


def _for_nodes(one: object) -> bool:
    """Whether such a node could choose it. Source: containerd/platforms, which takes what names no platform for any."""
    os, architecture = (text(one, "platform", name).lower() for name in ("os", "architecture"))
    return os in {"", "linux"} and architecture in {"", *ARCHITECTURES}


async def _require_plain(repository: Repository, manifest: _Document) -> None:
    if said(manifest, "manifests"):
        _refuse("it is an index and an image at once")
    content = await repository.blob(text(manifest, "config", "digest"), CONFIG_BYTES_MAX)
    if bad := bad_variables(_variables(document(content, what="its configuration"))):
        msg = f"image: it sets {', '.join(bad)}, which programs on the node would heed, outside of the container"
        hint = "build it without; a job that needs such a variable sets it in its command"
        raise Invalid(msg, object_="image", hint=hint)


def _variables(config: _Document) -> Sequence[str]:
    """As NAME=VALUE."""
    if not said(config, "config", "env"):
        if said(config, "config") and not isinstance(at(config, "config"), dict):
            _refuse("its configuration is none")
        return ()
    found = several(config, "config", "env")
    variables = [one for one in found if isinstance(one, str)]
    if not isinstance(at(config, "config", "env"), list) or len(variables) != len(found):
        _refuse("its variables are no list of texts")
    return variables


def _refuse(why: str) -> NoReturn:
    msg = f"image: {why}"
    raise Invalid(msg, object_="image", hint="build and push the image anew")
