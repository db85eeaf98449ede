"""How one cluster is reached and who we are there: the canonical minimum, and the check of what strangers register.

A kubeconfig is a programming language: it can name programs to run (`exec`), files to read and proxies to pass. The one that
is registered through the API is therefore reduced to addresses and keys, or refused with the field that is wrong (security.md
B3). What is kept is this reduction; it is encrypted elsewhere before it is stored.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass


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

    def to_kubeconfig(self, *, context: str = "") -> str:
        """The one that says this and no more, secrets included: for encrypted storage only. `registered` reads it back."""
        name = context or "mainstay"
        cluster = {
            "server": self.server,
            "certificate-authority-data": _encoded(self.ca),
            "tls-server-name": self.tls_server_name,
        }
        user = {
            "token": self.token,
            "client-certificate-data": _encoded(self.certificate),
            "client-key-data": _encoded(self.key),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": {field: value for field, value in cluster.items() if value}}],
            "users": [{"name": name, "user": {field: value for field, value in user.items() if value}}],
        }
        return json.dumps(document)


def _encoded(pem: str) -> str:
    return base64.b64encode(pem.encode()).decode()
