"""An image must be signed by a key that stands for it: by its digest, and as an image of its repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA384

from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.permitted import reference
from mainstay.outbound import Outbound
from mainstay.registries import Registries
from mainstay.registries.credentials import NOBODY
from mainstay.registries.keys import image_key
from mainstay.registries.repository import Repository
from mainstay.registries.signatures import PAYLOAD_BYTES_MAX, SIGNATURES_MAX, require_signed
from tests.images import (
    INDEX,
    MANIFEST,
    ImageRegistry,
    Signer,
    digest_of,
    image_registry,
    payload,
    pem_of,
    tag_of_signatures,
)

COSIGN = Path(__file__).parent / "cosign"
REPOSITORY = "ml/train"


@pytest.fixture
def registry() -> Iterator[ImageRegistry]:
    with image_registry() as server:
        yield server


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


async def pinned(registry: ImageRegistry, *signers: Signer, of: str = "", name: str = "ml/train:1") -> str:
    keys = [image_key(one.public, of and f"{registry.host}/{of}") for one in signers]
    return await Registries(outbound=Outbound(), keys=keys).pinned(f"{registry.host}/{name}")


async def test_an_image_that_is_signed_is_taken_as_the_digest_that_was_signed(registry, signer):
    digest = registry.push(REPOSITORY, "1")
    registry.signed(REPOSITORY, digest, signer)
    assert await pinned(registry, Signer(), signer) == f"{registry.host}/ml/train:1@{digest}"
    assert await pinned(registry, signer, name=f"ml/train:1@{digest}") == f"{registry.host}/ml/train:1@{digest}"
    newer = registry.push(REPOSITORY, "1", ["NEWER=1"])
    for name in ("ml/train:1", f"ml/train@{newer}"):
        with pytest.raises(Invalid, match="no signature that counts here: there is none") as refused:
            await pinned(registry, signer, name=name)
        assert "cosign sign --key" in refused.value.hint


async def test_of_an_index_the_index_is_signed(registry, signer):
    one = registry.push(REPOSITORY, "amd64")
    whole = registry.push_index(
        REPOSITORY, "1", [{"digest": one, "platform": {"os": "linux", "architecture": "amd64"}}]
    )
    registry.signed(REPOSITORY, one, signer)
    with pytest.raises(Invalid, match="there is none"):
        await pinned(registry, signer)
    registry.signed(REPOSITORY, whole, signer)
    assert (await pinned(registry, signer)).endswith(whole)


async def test_a_key_stands_for_its_repository_and_what_lies_below_and_for_no_other(registry, signer):
    registry.push("other", "1")
    registry.push("ml2", "1")
    digest = registry.push(REPOSITORY, "1")
    for name in ("other:1", "ml2:1"):
        assert await pinned(registry, signer, of="ml", name=name)
    for of in ("ml", "ml/train"):
        with pytest.raises(Invalid, match="there is none"):
            await pinned(registry, signer, of=of)
    registry.signed(REPOSITORY, digest, signer)
    assert await pinned(registry, signer, of="ml")


Forged = dict[str, tuple[list[Any], str]]


def forged(registry: ImageRegistry, signer: Signer, digest: str) -> Forged:
    """Layers of manifests of signatures that prove nothing, with the words that say so."""
    here, other = f"{registry.host}/{REPOSITORY}", Signer()
    good = payload(digest, here)
    layer, annotation = registry.layer, "dev.cosignproject.cosign/signature"
    by_another_hash = signer.private.sign(good, ec.ECDSA(SHA384()))
    twice = good.replace(b'"image": {', b'"Image": {"docker-manifest-digest": "sha256:1"}, "image": {')
    signatures: Forged = {
        "another key": ([layer(other, good)], "by no key"),
        "another digest": ([layer(signer, payload(f"sha256:{'0' * 64}", here))], "of another digest"),
        "no digest": ([layer(signer, payload("", here))], "of another digest"),
        "half a digest": ([layer(signer, payload(digest[:40], here))], "of another digest"),
        "another repository": ([layer(signer, payload(digest, f"{registry.host}/ml/other"))], "another repository"),
        "a repository below": ([layer(signer, payload(digest, f"{here}/x"))], "another repository"),
        "another registry": ([layer(signer, payload(digest, "docker.io/ml/train"))], "another repository"),
        "no repository": ([layer(signer, payload(digest, ""))], "another repository"),
        "an attestation": ([layer(signer, payload(digest, here, type="attestation"))], "no image"),
        "no statement": ([layer(signer, b"{}")], "no image"),
        "no object": ([layer(signer, f'"{digest}"'.encode())], "not a JSON object"),
        "a digest said twice": ([layer(signer, twice)], "of another digest"),
        "deep": ([layer(signer, b"[" * 60_000)], "not a JSON object"),
        "no signature": ([layer(signer, good, signature=b"")], "by no key"),
        "not base64": ([layer(signer, good, signature="***")], "not in base64"),
        "no text": ([{**layer(signer, good), "annotations": {annotation: 7}}], "by no key"),
        "no annotations": ([{**layer(signer, good), "annotations": None}], "by no key"),
        "of other words": ([layer(signer, good, signature=signer.sign(good + b" "))], "by no key"),
        "by another hash": ([layer(signer, good, signature=by_another_hash)], "by no key"),
        "no curve": ([layer(signer, good, signature=bytes(64))], "by no key"),
        "a certificate of itself": ([{**layer(other, good), "annotations": {
            **layer(other, good)["annotations"], "dev.sigstore.cosign/certificate": other.public.decode()}}], "by no key"),
        "another type of layer": ([{**layer(signer, good), "mediaType": "application/json"}], "there is none"),
        "a digest by a path": ([{**layer(signer, good), "digest": "../manifests/1"}], "no digest"),
        "a digest by MD5": ([{**layer(signer, good), "digest": f"md5:{'0' * 32}"}], "no digest"),
        "no digest of a payload": ([{**layer(signer, good), "digest": None}], "no digest"),
        "a payload that is away": ([{**layer(signer, good), "digest": f"sha256:{'1' * 64}"}], "does not hand out"),
        "no object for a layer": (["x", None, 7], "there is none"),
    }  # fmt: skip
    return signatures


async def refused(registry: ImageRegistry, signer: Signer) -> str:
    with pytest.raises(Invalid) as error:
        await pinned(registry, signer)
    assert error.value.hint
    return error.value.message


async def test_no_forged_signature_counts_and_a_good_one_beside_it_does(registry, signer):
    digest = registry.push(REPOSITORY, "1")
    cases = forged(registry, signer, digest)
    good = registry.layer(signer, payload(digest, f"{registry.host}/{REPOSITORY}"))
    for name, (layers, words) in cases.items():
        registry.attach(REPOSITORY, digest, *layers)
        assert words in await refused(registry, signer), name
        registry.attach(REPOSITORY, digest, *layers, good)
        assert (await pinned(registry, signer)).endswith(digest), name
    print(f"\n{len(cases)} forged signatures, {len(cases)} refused; each beside a good one: {len(cases)} taken")


async def test_no_other_bytes_stand_for_what_was_signed(registry, signer):
    digest = registry.push(REPOSITORY, "1")
    good = payload(digest, f"{registry.host}/{REPOSITORY}")
    handed_out = {
        "cut": good[:-20],
        "changed": good.replace(b"ml/train", b"ml/other"),
        "empty": b"",
        "huge": good + b" " * PAYLOAD_BYTES_MAX,
    }
    for name, blob in handed_out.items():
        registry.attach(REPOSITORY, digest, registry.layer(signer, good, blob=blob))
        assert "is not that" in (said := await refused(registry, signer)) or "more than 65536 bytes" in said, name
    print(f"\n{len(handed_out)} payloads that are not what their digest says, all refused")


async def test_manifests_of_signatures_that_are_none_are_refused(registry, signer):
    digest = registry.push(REPOSITORY, "1")
    good = registry.layer(signer, payload(digest, f"{registry.host}/{REPOSITORY}"))
    manifests = {
        "too many": ({"layers": [good] * (SIGNATURES_MAX + 1)}, MANIFEST),
        "an index": ({"manifests": [good], "layers": [good]}, INDEX),
        "a page": (b"<html>", "text/html"),
        "no object": (b"[]", MANIFEST),
        "no layers": ({"layers": good}, MANIFEST),
        "layers twice": (f'{{"layers": [{json.dumps(good)}], "Layers": [{json.dumps(good)}]}}'.encode(), MANIFEST),
        "huge": (b" " * (4 << 20) + b"{}", MANIFEST),
    }
    for name, (said, kind) in manifests.items():
        registry.put(REPOSITORY, tag_of_signatures(digest), said, kind)
        assert await refused(registry, signer), name
    registry.signed("ml/other", digest, signer)
    registry.tags.pop(f"{REPOSITORY}:{tag_of_signatures(digest)}")
    assert "there is none" in await refused(registry, signer), "a signature in another repository counts there"
    print(f"\n{len(manifests) + 1} manifests of signatures that are none, all refused")


async def test_a_registry_that_fails_in_between_proves_nothing_and_denies_nothing(registry, signer):
    digest = registry.push(REPOSITORY, "1")
    good = payload(digest, f"{registry.host}/{REPOSITORY}")
    registry.attach(REPOSITORY, digest, registry.layer(Signer(), b"other"), registry.layer(signer, good))
    assert await pinned(registry, signer)
    asked = list(dict.fromkeys(path.rpartition("/")[2] for path in registry.paths))
    assert len(asked) == 5, "manifest, signatures, two payloads, configuration"
    for one in asked:
        registry.fails = one
        with pytest.raises(Unavailable, match="answers 503"):
            await pinned(registry, signer)


# What cosign itself has made: tests/integration/cosign/README.md says how.

MADE = json.loads((COSIGN / "signatures.json").read_text())


async def signed_by_cosign(
    key: str, *, name: str = MADE["image"], digest: str = MADE["digest"], blobs: bool = True
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        last = request.url.path.rpartition("/")[2]
        known = {digest_of(text.encode()): text.encode() for text in MADE["payloads"]} if blobs else {}
        known[tag_of_signatures(MADE["digest"])] = json.dumps(MADE["manifest"]).encode()
        stream = httpx2.ByteStream(known.get(last, b""))
        return httpx2.Response(200 if last in known else 404, stream=stream, headers={"Content-Type": MANIFEST})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        await require_signed(
            Repository(reference(name), http, NOBODY, Outbound()), digest, [image_key((COSIGN / key).read_bytes())]
        )


@pytest.mark.parametrize("key", ["ecdsa.pub", "rsa.pub"])
async def test_what_cosign_has_signed_is_signed(key):
    assert len(MADE["manifest"]["layers"]) == 2
    await signed_by_cosign(key)


async def test_what_cosign_has_signed_is_signed_by_its_key_of_its_digest_and_repository_alone(tmp_path):
    (tmp_path / "other.pub").write_bytes(Signer().public)
    for forged in (
        {"key": str(tmp_path / "other.pub")},
        {"key": "rsa.pub", "name": "registry.example.com/ml/other:1"},
        {"key": "rsa.pub", "name": "ml/train:1"},
        {"key": "ecdsa.pub", "blobs": False},
        {"key": "ecdsa.pub", "digest": f"sha256:{'0' * 64}"},
    ):
        with pytest.raises(Invalid):
            await signed_by_cosign(**forged)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(rsa.generate_private_key(65_537, 1_024)),
        pem_of(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=["nothing", "no key", "P-384", "a short one of RSA", "Ed25519"],
)
def test_what_is_no_key_of_cosign_is_refused(pem):
    with pytest.raises(Invalid, match="no public key") as refused:
        image_key(pem)
    assert "cosign generate-key-pair" in refused.value.hint
