"""How one cluster is reached and who we are there: the canonical minimum, and the check of what strangers register.

A kubeconfig is a programming language: it can name programs to run (`exec`), files to read and proxies to pass. The one that
is registered through the API is therefore reduced to addresses and keys, or refused with the field that is wrong (security.md
B3). What is kept is this reduction; it is encrypted elsewhere before it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mainstay.clusters.kubernetes.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One API server and one identity: a token, or a client certificate with its key. PEM where it is not a URL or a token."""

    server: str
    ca: str = ""
    """Empty: the authorities that this machine trusts."""
    token: str = ""
    certificate: str = ""
    key: str = ""
    tls_server_name: str = ""
    """The name to expect in the server's certificate; empty: the host of `server`."""
    proxy: str = ""
    """Only of a local configuration."""

    def __repr__(self) -> str:
        identity = "token" if self.token else "certificate" if self.certificate else "nobody"
        return f"Credentials({self.server} as {identity})"

    def to_json(self) -> bytes:
        """Everything, secrets included: for encrypted storage only."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, content: bytes) -> Credentials:
        """What `to_json` wrote. Raises Invalid."""
        try:
            return msgspec.json.decode(content, type=cls)
        except msgspec.DecodeError as error:
            msg = "stored credentials cannot be read"
            raise Invalid(msg, hint="register the cluster again") from error
