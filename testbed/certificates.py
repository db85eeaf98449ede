"""The keys of a test cluster: an authority, what it has signed, and the key of the service accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs for one cluster, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._authority = trustme.CA(organization_name="testbed")
        self.certificate = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self.certificate))

    def server(self, name: str, *hosts: str, until: datetime | None = None) -> Pair:
        """For a server that is reached by these names and addresses. `until`: it is good for the day before that."""
        days = (until - timedelta(days=1), until) if until else (None, None)
        made = self._authority.issue_cert(*hosts, common_name=name, not_before=days[0], not_after=days[1])
        return self._written(name, made)

    def client(self, name: str, *, user: str, group: str) -> Pair:
        """For a client that is known as a user of a group."""
        made = self._authority.issue_cert(user.replace(":", "."), common_name=user, organization_name=group)
        return self._written(name, made)

    def service_account_key(self) -> Path:
        """Signs the tokens of service accounts."""
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        path = self._folder / "service-accounts.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    def _written(self, name: str, made: trustme.LeafCert) -> Pair:
        pair = Pair(certificate=self._folder / f"{name}.crt", key=self._folder / f"{name}.key")
        made.private_key_pem.write_to_path(str(pair.key))
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return pair
