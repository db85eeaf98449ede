"""Documents of registries, read as those who run the images read them.

Container runtimes and cosign are written in Go, whose JSON takes `Config` for `config`, and of two the last. A document that says
both could mean one thing here and another there, so what is said twice says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from mainstay.domain.errors import Invalid

_TWICE: Final = object()


def document(content: bytes, *, what: str) -> Mapping[str, object]:
    """An object by its names in lower case. Raises Invalid."""
    try:
        found: object = json.loads(content, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        msg = f"image: {what} is not a JSON object"
        raise Invalid(msg, object_="image", hint="build and push the image anew")
    return found


def at(found: object, *names: str) -> object:
    """What stands there, by names in lower case; None where nothing does, or where two things do."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return None if found is _TWICE else found


def said(found: object, *names: str) -> bool:
    """Whether anything stands there, once or twice."""
    *folder, last = names
    inside = at(found, *folder)
    return isinstance(inside, dict) and inside.get(last) is not None


def text(found: object, *names: str) -> str:
    """The text that stands there, or an empty one."""
    value = at(found, *names)
    return value if isinstance(value, str) else ""


def several(found: object, *names: str) -> list[object]:
    """The list that stands there, or an empty one."""
    value = at(found, *names)
    return value if isinstance(value, list) else []


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        # As Go folds them: also the long s and the sign of Kelvin.
        folded = name.casefold()
        found[folded] = _TWICE if folded in found else value
    return found
