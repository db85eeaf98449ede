"""Registries of images: which digest a tag means now.

Source: the OCI distribution specification 1.1 ("Pulling manifests") and the token protocol of distribution
(https://distribution.github.io/distribution/spec/auth/token/). We ask as nobody: an image that needs credentials is named by its
digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.permitted import DIGEST, DOCKER_HUB, Reference, reference

HUB_ADDRESS = "registry-1.docker.io"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MANIFEST_BYTES_MAX = 4 << 20
"""Source: the OCI distribution specification: a registry must take manifests of so much, and need not take larger ones."""
TOKEN_BYTES_MAX = 64 << 10
SECONDS_MAX = 10.0
HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Only a registry on this machine is asked without TLS."""
_TOKEN = re.compile(rb'"(?:access_)?token"\s*:\s*"([A-Za-z0-9._~+/=-]+)"')
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Registries:
    """Implements `ports.Registries`. Only such are asked as an administrator permits; nothing is followed to another address."""

    async def pinned(self, image: str) -> str:
        """The same image with its digest: what was asked for now, whatever becomes of its tag. Raises Invalid, Unavailable."""
        name = reference(image)
        if DIGEST.match(name.digest):
            return image
        host = HUB_ADDRESS if name.registry == DOCKER_HUB else name.registry
        scheme = "http" if _machine(host) in HERE else "https"
        url = f"{scheme}://{host}/v2/{name.path}/manifests/{name.tag or 'latest'}"
        try:
            async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=SECONDS_MAX) as http:
                content = await _manifest(http, url, name, image)
        except httpx2.HTTPError as error:
            msg = f"image: the registry {name.registry} does not answer: {type(error).__name__}"
            raise Unavailable(msg, object_="image", hint="try again, or name the image by its digest") from error
        # What was received is what is named: a digest that the registry only claims could be that of anything.
        return f"{image}@sha256:{hashlib.sha256(content).hexdigest()}"


async def _manifest(http: httpx2.AsyncClient, url: str, name: Reference, image: str) -> bytes:
    headers = {"Accept": ", ".join(MANIFESTS)}
    status, found, content = await _get(http, url, headers, MANIFEST_BYTES_MAX)
    if status == httpx2.codes.UNAUTHORIZED:
        token = await _token(http, found.get("www-authenticate", ""), name)
        status, found, content = await _get(http, url, {**headers, **token}, MANIFEST_BYTES_MAX)
    if status == httpx2.codes.OK and found.get("content-type", "").partition(";")[0].strip() in MANIFESTS:
        return content
    if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        msg = f"image: the registry {name.registry} answers {status}"
        raise Unavailable(msg, object_="image", hint="try again later, or name the image by its digest")
    msg = f"image: {image!r} is not found at {name.registry}, or not for everybody (it answers {status})"
    raise Invalid(msg, object_="image", hint="check the name; an image that needs credentials is named by its digest")


async def _token(http: httpx2.AsyncClient, challenge: str, name: Reference) -> Mapping[str, str]:
    """What lets everybody read a repository; empty where the registry offers nothing of the kind."""
    asked = dict(_CHALLENGE.findall(challenge))
    realm = urlsplit(asked.get("realm", ""))
    if not challenge.lower().startswith("bearer ") or (realm.scheme != "https" and realm.hostname not in HERE):
        return {}
    params = {"scope": f"repository:{name.path}:pull", "service": asked.get("service", "")}
    status, _, content = await _get(http, realm.geturl(), {}, TOKEN_BYTES_MAX, params)
    token = _TOKEN.search(content) if status == httpx2.codes.OK else None
    return {"Authorization": f"Bearer {token[1].decode()}"} if token else {}


async def _get(
    http: httpx2.AsyncClient, url: str, headers: Mapping[str, str], most: int, params: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and content. Raises httpx2.HTTPError, also for what is too large."""
    content = bytearray()
    async with http.stream("GET", url, headers=headers, params=params) as answer:
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > most:
                msg = "too large"
                raise httpx2.DecodingError(msg)
        return answer.status_code, answer.headers, bytes(content)


def _machine(host: str) -> str:
    """Without its port."""
    return host if host.endswith("]") else host.rpartition(":")[0] or host
