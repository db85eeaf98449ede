"""A certificate authority, a certificate and its key, as PEM."""

from __future__ import annotations

import base64
import functools

import trustme


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def ca_pem() -> str:
    return authority().cert_pem.bytes().decode()


@functools.cache
def client() -> tuple[str, str]:
    """(certificate, key)"""
    made = authority().issue_cert("client@example.org")
    return made.cert_chain_pems[0].bytes().decode(), made.private_key_pem.bytes().decode()


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
