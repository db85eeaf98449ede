"""Signatures of cosign: who has signed an image by its digest, and as an image of which repository.

Source: cosign, specs/SIGNATURE_SPEC.md. They lie in the repository of the image under the tag `sha256-HEX.sig`: a manifest whose
layers are what was signed, each with its signature beside it. Of several one is enough, whatever the others are.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from mainstay.domain.errors import Invalid
from mainstay.domain.permitted import DOCKER_HUB, Reference, reference
from mainstay.registries.documents import document, several, text
from mainstay.registries.keys import ImageKey
from mainstay.registries.repository import IMAGES, Repository

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
TYPE = "cosign container image signature"
PAYLOAD_BYTES_MAX = 64 << 10
"""Some 250 bytes, and what its signer adds."""
SIGNATURES_MAX = 32
"""Of one image are looked at: each is a request."""


async def require_signed(repository: Repository, digest: str, keys: Sequence[ImageKey]) -> None:
    """Raises Invalid, with what is wrong with each, unless one of these keys has signed that digest as of this repository."""
    wrong: list[str] = []
    for layer in await _layers(repository, digest):
        try:
            why = await _refusal(repository, digest, layer, keys)
        except Invalid as error:
            why = error.message.removeprefix("image: ")
        if not why:
            return
        if why not in wrong:
            wrong.append(why)
    name = f"{repository.name.repository}@{digest}"
    why = "; ".join(wrong[:3]) or "there is none"
    msg = f"image: it has no signature that counts here: {why}"
    hint = f"whoever holds the key signs it, with cosign 2 or as docs/how-to/harden.md says: cosign sign --key cosign.key {name}"
    raise Invalid(msg, object_="image", hint=hint)


async def _layers(repository: Repository, digest: str) -> list[object]:
    manifest = await repository.manifest(f"{digest.replace(':', '-')}.sig", kinds=IMAGES)
    if manifest is None:
        return []
    found = several(document(manifest, what="the manifest of its signatures"), "layers")
    layers = [layer for layer in found if text(layer, "mediatype") == PAYLOAD]
    if len(layers) > SIGNATURES_MAX:
        msg = f"image: it has {len(layers)} signatures, and at most {SIGNATURES_MAX} are looked at"
        raise Invalid(msg, object_="image", hint="take the old ones away: cosign clean")
    return layers


async def _refusal(repository: Repository, digest: str, layer: object, keys: Sequence[ImageKey]) -> str:
    """What is wrong with one signature; nothing if it is good."""
    try:
        signature = base64.b64decode(text(layer, "annotations", SIGNATURE), validate=True)
    except ValueError:
        return "a signature is not in base64"
    payload = await repository.blob(text(layer, "digest"), PAYLOAD_BYTES_MAX)
    if not any(key.has_signed(payload, signature) for key in keys):
        return "a signature is by no key that stands for this image"
    # From here on it is the holder of the key who speaks: what was signed says of what.
    signed = document(payload, what="what was signed")
    if text(signed, "critical", "type") != TYPE:
        return "what was signed is no image"
    if text(signed, "critical", "image", "docker-manifest-digest") != digest:
        return "a signature is of another digest"
    of = text(signed, "critical", "identity", "docker-reference")
    if _repository(of) != _full(repository.name):
        return f"a signature is of an image of {of[:200]!r}, another repository"
    return ""


def _repository(text: str) -> str:
    return _full(reference(text))


def _full(name: Reference) -> str:
    """With the registry of Docker Hub by the name that jobs use: cosign writes its address."""
    registry = DOCKER_HUB if name.registry == f"index.{DOCKER_HUB}" else name.registry
    return f"{registry}/{name.path}"
