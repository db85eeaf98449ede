"""Sealing credentials: AES-256-GCM under the platform's own key, bound to the name of their cluster (security.md B3).

A sealed text is `1.KEY.PAYLOAD`: the version, which key it was, and nonce and ciphertext in URL-safe base 64. The key
itself never enters the database: whoever has a copy of that cannot open anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from dataclasses import dataclass, field

from mainstay.domain.errors import Denied
from mainstay.domain.fleet import Credentials

KEY_BYTES = 32
NONCE_BYTES = 12
"""96 random bits: fit for 2³² sealings under one key. Source: NIST SP 800-38D, 8.3."""
VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """Seals and opens under one key."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        assert len(self.key) == KEY_BYTES, "a key has 32 bytes"

    @property
    def key_id(self) -> str:
        """Which key this is, without a hint of what it is."""
        return hashlib.sha256(b"mainstay sealing key\0" + self.key).hexdigest()[:8]

    def sealed(self, cluster: str, credentials: Credentials) -> str:
        """The credentials as a text that may be stored; empty if there are none."""
        if credentials == Credentials():
            return ""
        # Imported when it is used: most platforms seal nothing, and it costs 8 MB.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = json.dumps({"kubeconfig": credentials.kubeconfig}).encode()
        payload = nonce + AESGCM(self.key).encrypt(nonce, plain, cluster.encode())
        return f"{VERSION}.{self.key_id}.{base64.urlsafe_b64encode(payload).decode()}"

    def opened(self, cluster: str, sealed: str) -> Credentials:
        """Raises Denied, in words that say which key is needed, and never what is in it."""
        if not sealed:
            return Credentials()
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        version, _, rest = sealed.partition(".")
        key_id, _, payload = rest.partition(".")
        if version != VERSION:
            msg = f"the credentials of {cluster} were sealed by another version of mainstay"
            raise Denied(msg, object_=cluster, hint="upgrade this replica, or add the cluster again")
        if key_id != self.key_id:
            msg = f"the credentials of {cluster} were sealed with the key {key_id}, this replica has {self.key_id}"
            hint = "start it with --secrets-key and the file `secrets-key` of the replica that added the cluster"
            raise Denied(msg, object_=cluster, hint=hint)
        try:
            raw = base64.b64decode(payload, altchars=b"-_", validate=True)
            plain = AESGCM(self.key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], cluster.encode())
        except (InvalidTag, binascii.Error, ValueError):
            # Without a cause: the error of a decoder shows what it decoded.
            msg = f"the sealed credentials of {cluster} are damaged, or were sealed for another cluster"
            raise Denied(msg, object_=cluster, hint="add the cluster again with its credentials") from None
        return Credentials(kubeconfig=json.loads(plain)["kubeconfig"])
