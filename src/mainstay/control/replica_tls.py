"""How replicas know each other: by a certificate that is made of the key which they share, and of nothing else.

All have the same one, and let in nobody without it. An Ed25519 signature holds no chance (RFC 8032), so that each makes it by
itself, byte for byte. Nothing has to be issued, handed out or renewed.
"""

from __future__ import annotations

import hmac
import ssl
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from mainstay.operations.sealing import Sealing

NAME = "mainstay replica"
SINCE, UNTIL = datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""It ends with the key. No clock of a replica matters. The second is that of RFC 5280, 4.1.2.5: no end is set."""


def contexts(sealing: Sealing, *, system: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For whoever is asked and for whoever asks, both of one platform. `folder`: where only we may read."""
    key = _key(sealing, system)
    certificate = _certificate(key)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    asked, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Names of machines prove nothing here, and the key all.
    asking.check_hostname = False
    # `ssl` takes a private key from a file only. It is closed to others, and gone at once.
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".pem") as file:
        file.write(private + certificate)
        file.flush()
        for context in (asked, asking):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(file.name)
            context.load_verify_locations(cadata=certificate.decode())
    return asked, asking


def _key(sealing: Sealing, system: str) -> Ed25519PrivateKey:
    seed = hmac.digest(sealing.key, b"mainstay replicas\0" + system.encode(), "sha256")
    return Ed25519PrivateKey.from_private_bytes(seed)


def _certificate(key: Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=SINCE,
        not_valid_after=UNTIL,
    )
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)
