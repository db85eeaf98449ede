"""The TLS side of credentials: an SSL context from PEM in memory; a private key never touches a disk."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.errors import Invalid


def context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.2 or newer, the server always verified. Raises Invalid if a certificate or a key cannot be used."""
    try:
        made = ssl.create_default_context(cadata=credentials.ca or None)
    except (ssl.SSLError, ValueError) as error:
        msg = "the certificate authority of the cluster is not a PEM certificate"
        raise Invalid(msg, hint="certificate-authority-data is base64 of a PEM file") from error
    if credentials.certificate:
        with _in_memory(f"{credentials.certificate}\n{credentials.key}\n") as path:
            try:
                made.load_cert_chain(path, password=_no_password)
            except (ssl.SSLError, ValueError) as error:
                msg = "the client certificate and its key do not fit together, or are not PEM"
                raise Invalid(msg, hint="client-certificate-data and client-key-data are a pair") from error
    return made


def _no_password() -> str:
    """An encrypted key would otherwise be asked for on the terminal."""
    msg = "the client key is encrypted"
    raise ValueError(msg)


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A path to the text: OpenSSL reads certificate chains from files only."""
    with os.fdopen(os.memfd_create("client-certificate"), "wb") as file:
        file.write(text.encode())
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
