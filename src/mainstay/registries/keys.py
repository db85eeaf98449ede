"""Public keys of those who sign images, as cosign makes and takes them (`cosign generate-key-pair`, `cosign import-key-pair`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from mainstay.domain.errors import Invalid
from mainstay.domain.permitted import Reference

RSA_BITS_MIN = 2_048
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageKey:
    """A key, and the images that it stands for: those of a repository or registry and all below it; empty: all."""

    key: PublicKey
    repository: str = ""

    def stands_for(self, name: Reference) -> bool:
        """Whether such an image must be signed by this key or another one that stands for it."""
        one = self.repository
        return not one or name.repository == one or name.repository.startswith(f"{one}/")

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        """Source of the schemes: cosign, specs/SIGNATURE_SPEC.md, "Signature Schemes"."""
        try:
            match self.key:
                case ec.EllipticCurvePublicKey():
                    self.key.verify(signature, content, ec.ECDSA(SHA256()))
                case rsa.RSAPublicKey():
                    self.key.verify(signature, content, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


def image_key(pem: bytes, repository: str = "") -> ImageKey:
    """Raises Invalid for what is no such key."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    on_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    of_rsa = isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN
    if not (on_p256 or of_rsa):
        msg = f"no public key in PEM that is ECDSA on P-256, or RSA of {RSA_BITS_MIN} bits or more"
        raise Invalid(msg, hint="take the .pub file that cosign generate-key-pair has made")
    assert isinstance(key, PublicKey)
    return ImageKey(key=key, repository=repository)
