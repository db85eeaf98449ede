"""One repository at its registry, asked over HTTP: manifests by tag or digest, blobs by digest.

Source: the OCI distribution specification 1.1 ("Pull") and the token protocol of distribution
(https://distribution.github.io/distribution/spec/auth/token/).

What is asked for by a digest is what has that digest, or nothing. A registry may send us elsewhere in two cases: for a token,
and for a blob, as most keep them in object stores. Its own address is one that an administrator permits; any other is judged as
those of webhooks are, and gets no header of ours but the credentials that may go there.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

import httpx2

from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.permitted import DIGEST, DOCKER_HUB, Reference
from mainstay.ports import Outbound
from mainstay.registries.credentials import HERE, Credentials, host_of

HUB_ADDRESS = "registry-1.docker.io"
INDICES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
IMAGES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
MANIFESTS = (*INDICES, *IMAGES)
MANIFEST_BYTES_MAX = 4 << 20
"""Source: the OCI distribution specification: a registry must take manifests of so much, and need not take larger ones."""
TOKEN_BYTES_MAX = 64 << 10
SECONDS_MAX = 10.0
"""Of silence."""
_TOKEN = re.compile(rb'"(?:access_)?token"\s*:\s*"([A-Za-z0-9._~+/=-]+)"')
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_AS_IT_IS = {"Accept-Encoding": "identity"}


class Repository:
    """Asks as whom the credentials of its registry name, where the registry wants to know."""

    def __init__(self, name: Reference, http: httpx2.AsyncClient, credentials: Credentials, outbound: Outbound) -> None:
        self.name = name
        self.answered = 0
        """The last status of the registry."""
        self._host = HUB_ADDRESS if name.registry == DOCKER_HUB else name.registry
        self._scheme = "http" if host_of(self._host) in HERE else "https"
        self._http = http
        self._credentials = credentials
        self._outbound = outbound
        self._authorization: Mapping[str, str] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, name: Reference, credentials: Credentials, outbound: Outbound) -> AsyncIterator[Repository]:
        """Closes its connections at the end."""
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=SECONDS_MAX) as http:
            yield cls(name, http, credentials, outbound)

    async def manifest(self, tag_or_digest: str, *, kinds: Sequence[str] = MANIFESTS) -> bytes | None:
        """None: there is none of these kinds, or not for us. Raises Invalid, Unavailable, httpx2.HTTPError."""
        found, content = await self._asked(
            f"manifests/{tag_or_digest}", {"Accept": ", ".join(kinds)}, MANIFEST_BYTES_MAX
        )
        if self.answered != httpx2.codes.OK or found.get("content-type", "").partition(";")[0].strip() not in kinds:
            return None
        _require_digest(content, tag_or_digest)
        return content

    async def blob(self, digest: str, most: int) -> bytes:
        """Of at most so many bytes. Raises Invalid, also where there is none, Unavailable, httpx2.HTTPError."""
        if not DIGEST.match(digest):
            msg = f"image: {digest[:80]!r} is no digest by SHA-256"
            raise Invalid(msg, object_="image", hint="build and push the image anew")
        found, content = await self._asked(f"blobs/{digest}", {}, most)
        if self.answered in {httpx2.codes.FOUND, httpx2.codes.SEE_OTHER, httpx2.codes.TEMPORARY_REDIRECT}:
            self.answered, content = await self._sent_to(self._address(found.get("location", "")), {}, most)
        if self.answered != httpx2.codes.OK:
            msg = f"image: {self.name.registry} does not hand out {digest} (it answers {self.answered})"
            raise Invalid(msg, object_="image", hint="build and push the image anew")
        _require_digest(content, digest)
        return content

    async def _asked(self, path: str, headers: Mapping[str, str], most: int) -> tuple[Mapping[str, str], bytes]:
        """Headers and content, once the registry knows who asks. Raises Unavailable where it has no answer just now."""
        url = f"{self._scheme}://{self._host}/v2/{self.name.path}/{path}"
        self.answered, found, content = await self._get(url, {**headers, **self._authorization}, most)
        if self.answered == httpx2.codes.UNAUTHORIZED and not self._authorization:
            self._authorization = await self._authorized(found.get("www-authenticate", ""))
            if self._authorization:
                self.answered, found, content = await self._get(url, {**headers, **self._authorization}, most)
        if self.answered == httpx2.codes.TOO_MANY_REQUESTS or self.answered >= httpx2.codes.INTERNAL_SERVER_ERROR:
            msg = f"image: the registry {self.name.registry} answers {self.answered}"
            raise Unavailable(msg, object_="image", hint="try again later")
        return found, content

    async def _authorized(self, challenge: str) -> Mapping[str, str]:
        """What lets us read the repository; empty where the registry offers nothing of the kind."""
        scheme = challenge.partition(" ")[0].lower()
        if scheme == "basic":
            return self._credentials.of(self._host)
        asked = dict(_CHALLENGE.findall(challenge))
        if scheme != "bearer" or not asked.get("realm"):
            return {}
        realm = self._address(asked["realm"])
        wanted = urlencode({"scope": f"repository:{self.name.path}:pull", "service": asked.get("service", "")})
        url = realm._replace(query=f"{realm.query}&{wanted}" if realm.query else wanted)
        basic = self._credentials.for_tokens(self._host, realm.netloc)
        status, content = await self._sent_to(url, basic, TOKEN_BYTES_MAX)
        token = _TOKEN.search(content) if status == httpx2.codes.OK else None
        return {"Authorization": f"Bearer {token[1].decode()}"} if token else {}

    def _address(self, location: str) -> SplitResult:
        """Where the registry sends us. Raises Invalid for what is no address."""
        try:
            url = urlsplit(urljoin(f"{self._scheme}://{self._host}", location))
            httpx2.URL(url.geturl())
        except (ValueError, httpx2.InvalidURL) as error:
            msg = f"image: the registry {self.name.registry} sends us to what is no address"
            raise Invalid(msg, object_="image", hint="ask whoever runs the registry") from error
        return url

    async def _sent_to(self, url: SplitResult, headers: Mapping[str, str], most: int) -> tuple[int, bytes]:
        """Status and content. Raises as `_get` does, Invalid too where nothing may be asked, and Unavailable."""
        if (url.scheme, url.netloc) == (self._scheme, self._host):
            status, _, content = await self._get(url.geturl(), headers, most)
            return status, content
        try:
            heard = await self._outbound.get(url.geturl(), headers={**_AS_IT_IS, **headers}, most=most + 1)
        except (Invalid, Unavailable) as error:
            msg = f"image: the registry {self.name.registry} sends us elsewhere: {error.message.removeprefix('url: ')}"
            hint = "ask whoever runs the registry; the operator opens networks inside with --outbound-allow RANGE"
            raise type(error)(msg, object_="image", hint=hint) from error
        if len(heard.content) > most:
            raise self._too_large(most)
        return heard.status, heard.content

    async def _get(self, url: str, headers: Mapping[str, str], most: int) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content. Raises httpx2.HTTPError, and Invalid for what is too large."""
        content = bytearray()
        async with self._http.stream("GET", url, headers={**_AS_IT_IS, **headers}) as answer:
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > most:
                    raise self._too_large(most)
            return answer.status_code, answer.headers, bytes(content)

    def _too_large(self, most: int) -> Invalid:
        msg = f"image: the registry {self.name.registry} answers with more than {most} bytes"
        return Invalid(msg, object_="image", hint="build and push the image anew")


def digest_of(content: bytes) -> str:
    """By which it is named."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def no_image(image: str, registry: str, status: int) -> Invalid:
    """That it is not there."""
    msg = f"image: {image!r} is not found at {registry}, or not for us (it answers {status})"
    hint = "check the name; an administrator lets us in where credentials are needed, with --registry-credentials"
    return Invalid(msg, object_="image", hint=hint)


def _require_digest(content: bytes, tag_or_digest: str) -> None:
    if DIGEST.match(tag_or_digest) and digest_of(content) != tag_or_digest:
        msg = f"image: what the registry hands out as {tag_or_digest} is not that"
        raise Invalid(msg, object_="image", hint="ask whoever runs the registry")
