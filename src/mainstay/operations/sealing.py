"""Sealing what must not be read: AES-256-GCM under the platform's own key, bound to what it belongs to (security.md B3, B4).

A sealed text is `1.KEY.PAYLOAD`: the version, which key it was, and nonce and ciphertext in URL-safe base 64. The key
itself never enters the database: whoever has a copy of that cannot open anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mainstay.domain.errors import Denied
from mainstay.domain.fleet import Credentials
from mainstay.domain.secret import Sealed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
NONCE_BYTES = 12
"""96 random bits: fit for 2³² sealings under one key. Source: NIST SP 800-38D, 8.3."""
VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """Seals under one key, and opens under that and under older ones."""

    key: bytes = field(repr=False)
    older: tuple[bytes, ...] = field(default=(), repr=False)
    """They only open."""

    def __post_init__(self) -> None:
        assert all(len(key) == KEY_BYTES for key in (self.key, *self.older)), "a key has 32 bytes"

    @property
    def key_id(self) -> str:
        """Which key seals, without a hint of what it is."""
        return _id_of(self.key)

    @property
    def older_ids(self) -> tuple[str, ...]:
        """Which keys open besides."""
        return tuple(map(_id_of, self.older))

    def has_key_of(self, sealed: str) -> bool:
        """Whether a key that is here has sealed it, as it says itself. If not, nothing is opened."""
        return any(sealed.startswith(f"{VERSION}.{id_}.") for id_ in (self.key_id, *self.older_ids))

    def signing_keys(self) -> tuple[Ed25519PrivateKey, ...]:
        """What signs the head of the audit. They follow from the keys, so that all replicas have them; the older ones sign too,
        so that whoever knows only those can still check what is signed today.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        seeds = (hmac.digest(key, b"mainstay audit", "sha256") for key in (self.key, *self.older))
        return tuple(map(Ed25519PrivateKey.from_private_bytes, seeds))

    def resealed(self, sealed: Sealed) -> str:
        """The same under our key. Raises Denied."""
        if sealed.tenant:
            return self.sealed_secret(
                sealed.tenant, sealed.name, self.opened_secret(sealed.tenant, sealed.name, sealed.text)
            )
        return self.sealed(sealed.name, self.opened(sealed.name, sealed.text))

    def sealed(self, cluster: str, credentials: Credentials) -> str:
        """The credentials as a text that may be stored; empty if there are none."""
        if credentials == Credentials():
            return ""
        return self._seal(json.dumps({"kubeconfig": credentials.kubeconfig}).encode(), bound_to=cluster)

    def opened(self, cluster: str, sealed: str) -> Credentials:
        """Raises Denied, in words that say which key is needed, and never what is in it."""
        if not sealed:
            return Credentials()
        what = _What(
            words=f"the credentials of {cluster} were",
            other="sealed for another cluster",
            who="the replica that added the cluster",
            again="add the cluster again with its credentials",
            object=cluster,
        )
        return Credentials(kubeconfig=json.loads(self._open(sealed, bound_to=cluster, what=what))["kubeconfig"])

    def sealed_secret(self, tenant: str, name: str, value: bytes) -> str:
        """A secret of a tenant as a text that may be stored."""
        return self._seal(value, bound_to=_place(tenant, name))

    def opened_secret(self, tenant: str, name: str, sealed: str) -> bytes:
        """Raises Denied, likewise."""
        what = _What(
            words=f"the secret {name} was",
            other="sealed for another place",
            who="the replica that sealed it",
            again="set it again",
            object=name,
        )
        return self._open(sealed, bound_to=_place(tenant, name), what=what)

    def sealed_sign_in(self, value: bytes) -> str:
        """What somebody carries while they sign in elsewhere, as a text that only we can read."""
        return self._seal(value, bound_to=_SIGN_IN)

    def opened_sign_in(self, sealed: str) -> bytes:
        """Raises Denied."""
        what = _What(words="this was", other="made by somebody else", who="the others", again="begin again", object="")
        return self._open(sealed, bound_to=_SIGN_IN, what=what)

    def _seal(self, plain: bytes, *, bound_to: str) -> str:
        # Imported when it is used: most platforms seal nothing, and it costs 8 MB.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce = secrets.token_bytes(NONCE_BYTES)
        payload = nonce + AESGCM(self.key).encrypt(nonce, plain, bound_to.encode())
        return f"{VERSION}.{self.key_id}.{base64.urlsafe_b64encode(payload).decode()}"

    def _open(self, sealed: str, *, bound_to: str, what: _What) -> bytes:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        version, _, rest = sealed.partition(".")
        key_id, _, payload = rest.partition(".")
        if version != VERSION:
            msg = f"{what.words} sealed by another version of mainstay"
            raise Denied(msg, object_=what.object, hint=f"upgrade this replica, or {what.again}")
        key = next((key for key in (self.key, *self.older) if _id_of(key) == key_id), None)
        if key is None:
            ours = ", ".join((self.key_id, *self.older_ids))
            msg = f"{what.words} sealed with the key {key_id}, this replica has {ours}"
            hint = f"start it with --secrets-key and the file `secrets-key` of {what.who}"
            raise Denied(msg, object_=what.object, hint=hint)
        try:
            raw = base64.b64decode(payload, altchars=b"-_", validate=True)
            return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound_to.encode())
        except (InvalidTag, binascii.Error, ValueError):
            # Without a cause: the error of a decoder shows what it decoded.
            msg = f"{what.words} damaged, or {what.other}"
            raise Denied(msg, object_=what.object, hint=what.again) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _What:
    """What is opened, in the words of a refusal."""

    words: str
    other: str
    who: str
    again: str
    object: str


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"mainstay sealing key\0" + key).hexdigest()[:8]


_SIGN_IN = "sign-in\0"
"""Neither the name of a cluster nor the place of a secret."""


def _place(tenant: str, name: str) -> str:
    """What a secret is bound to. No name of a cluster holds a NUL, so neither can be taken for the other."""
    return f"secret\0{tenant}\0{name}"
