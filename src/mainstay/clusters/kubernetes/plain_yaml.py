"""Of YAML, what JSON has too: text, lists and mappings. For documents that strangers send.

Built from the parser's events, so that an alias is refused before it can be followed (a few lines of aliases can stand for
gigabytes). Every scalar is text: no dates, no octal numbers, no `no`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import yaml

Tree = str | list[Any] | dict[str, Any]  # Any: the same again

DEPTH_MAX = 12


class NotPlainError(ValueError):
    """The text is not YAML, or more than plain YAML."""


def parsed(text: str) -> Tree:
    """The one document of a text; `null` is empty text. Raises NotPlainError."""
    try:
        events = yaml.parse(text, Loader=yaml.CSafeLoader)
        documents = [_tree(event, events, 0) for event in events if not isinstance(event, _FRAME)]
    except yaml.YAMLError as error:
        msg = "it is neither YAML nor JSON"
        raise NotPlainError(msg) from error
    if len(documents) != 1:
        msg = f"it has {len(documents)} documents instead of one"
        raise NotPlainError(msg)
    return documents[0]


_FRAME = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)


def _tree(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Tree:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        msg = "it has a YAML anchor or alias"
        raise NotPlainError(msg)
    if getattr(event, "tag", None):
        msg = "it has a YAML tag"
        raise NotPlainError(msg)
    if depth > DEPTH_MAX:
        msg = f"it is nested deeper than {DEPTH_MAX} levels"
        raise NotPlainError(msg)
    match event:
        case yaml.ScalarEvent():
            is_null = not event.style and event.value.lower() in {"~", "null"}
            return "" if is_null else str(event.value)
        case yaml.SequenceStartEvent():
            items = takewhile(lambda item: not isinstance(item, yaml.SequenceEndEvent), events)
            return [_tree(item, events, depth + 1) for item in items]
    return _mapping(events, depth)


def _mapping(events: Iterator[yaml.Event], depth: int) -> Tree:
    filled: dict[str, Tree] = {}
    for event in takewhile(lambda event: not isinstance(event, yaml.MappingEndEvent), events):
        key = _tree(event, events, depth + 1)
        if not isinstance(key, str) or key in filled:
            msg = f"it has a key twice: {key[:60]}" if isinstance(key, str) else "it has a key that is not text"
            raise NotPlainError(msg)
        filled[key] = _tree(next(events), events, depth + 1)
    return filled
