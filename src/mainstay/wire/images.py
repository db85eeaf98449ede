"""How a container image is named. Text in, ValueError says what is allowed.

Source: the grammar of a reference in the OCI distribution specification and in `distribution/reference`.
"""

from __future__ import annotations

import re

LENGTH_MAX = 512

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
# What stands first is a registry only with a dot or a port, or as `localhost`; anything else belongs to the repository.
_DOMAIN = rf"(?:(?:{_LABEL}(?:\.{_LABEL})+(?::\d{{1,5}})?|{_LABEL}:\d{{1,5}}|localhost)/)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(rf"{_DOMAIN}{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?\Z", re.ASCII)


def image(text: str) -> str:
    """The same text, if it names an image: `python:3.12`, `registry.example.com:5000/team/train@sha256:...`."""
    if len(text) <= LENGTH_MAX and not _REFERENCE.match(text) and _REFERENCE.match(_lowered(text)):
        msg = f"{text[:80]!r} is not an image: its repository has to be in lower case, as {_lowered(text)[:80]!r}"
        raise ValueError(msg)
    if len(text) > LENGTH_MAX or not _REFERENCE.match(text):
        msg = f"{text[:80]!r} is not an image such as python:3.12-slim or registry.example.com/team/train:1.4"
        raise ValueError(msg)
    return text


def _lowered(text: str) -> str:
    """With its repository in lower case; its tag and digest as they are."""
    name, mark, rest = text.partition("@")
    path, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{path}{slash}{last}".lower() + colon + tag + mark + rest
