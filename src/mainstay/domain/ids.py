"""Ids of workloads: a name, and letters that nobody confuses."""

from __future__ import annotations

import hashlib

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that is easily taken for a digit."""


def derived(name: str, *parts: str, letters: int) -> str:
    """`NAME-xxxxxxxx`, a function of the parts: whoever derives it again derives the same. 64 bits: at most twelve letters."""
    number = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")
    return f"{name}-{''.join(ALPHABET[(number >> 5 * place) & 31] for place in range(letters))}"
