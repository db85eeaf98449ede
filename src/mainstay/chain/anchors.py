"""Anchors: the head of the chain of the audit, signed, and kept where whoever owns the database cannot change it.

An anchor is a JSON object: `system`, `seq`, `hash`, `at` (UTC microseconds) and `signatures`, a list of [public key, signature]
in hexadecimal. What is signed (Ed25519) is the JSON of [format, system, seq, hash, at], without spaces. Nothing of ours is
imported here: auditors check anchors away from the platform.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainstay.chain import Head

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = "mainstay audit anchor 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A signed head."""

    system: str
    """Identity of the platform (of its database)."""
    head: Head
    at: int
    signatures: tuple[tuple[str, str], ...]
    """Public key and signature: one for each key that the platform had."""

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(
            {
                "system": self.system,
                "seq": self.head.seq,
                "hash": self.head.hash,
                "at": self.at,
                "signatures": [list(one) for one in self.signatures],
            }
        )

    def signed_by(self, keys: Collection[str]) -> bool:
        """Whether one of these public keys has signed it."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 costs 8 MB
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        said = _signed_text(self.system, self.head, self.at)
        for key, signature in self.signatures:
            if key in keys:
                try:
                    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), said)
                except (InvalidSignature, ValueError):
                    continue
                return True
        return False


def signed(system: str, head: Head, *, at: int, keys: Sequence[Ed25519PrivateKey]) -> Anchor:
    """The anchor of a head."""
    said = _signed_text(system, head, at)
    signatures = tuple((public_key(key), key.sign(said).hex()) for key in keys)
    return Anchor(system=system, head=head, at=at, signatures=signatures)


def public_key(key: Ed25519PrivateKey) -> str:
    """In hexadecimal."""
    return key.public_key().public_bytes_raw().hex()


def read(text: str | bytes) -> Anchor:
    """Raises ValueError, in words, for what is none."""
    try:
        found: Any = json.loads(text)
        return Anchor(
            system=str(found["system"]),
            head=Head(seq=int(found["seq"]), hash=str(found["hash"])),
            at=int(found["at"]),
            signatures=tuple((str(key), str(signature)) for key, signature in found["signatures"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        msg = f"not an anchor of an audit: {error}"
        raise ValueError(msg) from error


def _signed_text(system: str, head: Head, at: int) -> bytes:
    return json.dumps([FORMAT, system, head.seq, head.hash, at], separators=(",", ":")).encode()
