"""Reading a job file: YAML whose every fault is found at once and named by file, line, column and field.

Plain scalars keep the text they were written with, so that nothing of YAML 1.1's guesses is left: `NO` is not false,
`1.10` keeps its zero and `12:30` is not a number of minutes. What a field needs is then converted by the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mainstay.wire.faults import canonical, field_problem, in_words
from mainstay.wire.job import Job

SIZE_MAX = 1_000_000
"""Characters. A job file is written by hand; a megabyte is a mistake."""
NODES_MAX = 20_000
"""Values after aliases are followed: a few lines of aliases of aliases would otherwise fill the memory."""
DEPTH_MAX = 20
YAML_TAG = "tag:yaml.org,2002:"
TAGS_READ = frozenset({"str", "map", "seq", "null", "bool", "int", "float", "timestamp", "merge", "value"})
"""What YAML 1.1 gives to values by itself. Any other tag was written down and asks for something else."""
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
NAME_MAX = 40

Place: TypeAlias = tuple[str | int, ...]
Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. Line and column count from 1; `field` is empty where the file as a whole is meant."""

    line: int
    column: int
    field: str
    message: str
    allowed: tuple[str, ...] = ()
    nearest: str = ""

    def sentence(self, source: str) -> str:
        """As compilers say it, so that editors and terminals jump to the place."""
        words = in_words(self.field, self.message, allowed=self.allowed, nearest=self.nearest)
        return f"{source}:{self.line}:{self.column}: {words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file, and where each of its values stands."""

    value: Value
    faults: tuple[Fault, ...]
    places: Mapping[Place, tuple[int, int]]

    def at(self, place: Place) -> tuple[int, int]:
        """Line and column of a value, or of what is around it."""
        while place and place not in self.places:
            place = place[:-1]
        return self.places.get(place, (1, 1))


class JobFileError(Exception):
    """A file that is no job. All faults are there, in the order of the lines."""

    def __init__(self, source: str, faults: list[Fault]) -> None:
        self.source = source
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line, fault.column)))
        super().__init__("\n".join(fault.sentence(source) for fault in self.faults))


def read(path: Path) -> Job:
    """The job of a file; without a name of its own it is named after the folder. Raises JobFileError, OSError."""
    with path.open("rb") as file:
        content = file.read(4 * SIZE_MAX + 1)
    return parse(content, source=str(path), name=name_of(path.resolve().parent))


def place_of(path: Path, field: str) -> tuple[int, int] | None:
    """Line and column of a field, by its dotted name, in a file that was read before; None if it is not written there."""
    reading = _Reading()
    try:
        nodes = _compose(path.read_text("utf-8-sig"), str(path))
        reading.document(nodes[0] if nodes else None)
    except (JobFileError, OSError, UnicodeDecodeError):
        return None
    written = _written(tuple(int(part) if part.isdecimal() else part for part in field.split(".")), reading.places)
    return reading.places[written] if written else None


def name_of(folder: Path) -> str:
    """A valid name that is as near to the folder's as it can be."""
    plain = re.sub(r"[^a-z0-9]+", "-", folder.name.lower())[:NAME_MAX].strip("-")
    return plain or "job"


def parse(content: bytes, *, source: str, name: str = "") -> Job:
    """The job that the text describes; `name` if it has none. Raises JobFileError."""
    nodes = _compose(_text(content, source), source)
    if len(nodes) > 1:
        line = nodes[1].start_mark.line + 1
        raise JobFileError(source, [_fault(line, 1, "a second document; a file holds one job")])
    reading = _Reading()
    document = reading.document(nodes[0] if nodes else None)
    if not reading.faults and not isinstance(document, dict):
        reading.faults.append(
            _fault(1, 1, "no job: write `run: ...`, or the fields that `mainstay apply --help` names")
        )
    if reading.faults or not isinstance(document, dict):
        raise JobFileError(source, reading.faults)
    if name and not document.get("name"):
        document["name"] = name
    try:
        return Job.model_validate(document)
    except ValidationError as error:
        raise JobFileError(source, list(_located(error, reading.places))) from None


def documents(content: bytes, *, source: str) -> list[Document]:
    """Every document of a file. Raises JobFileError for what is no YAML at all."""
    found = []
    for node in _compose(_text(content, source), source):
        reading = _Reading()
        value = reading.document(node)
        found.append(Document(value=value, faults=tuple(reading.faults), places=reading.places))
    return found


def _text(content: bytes, source: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        raise JobFileError(source, [_fault(line, 1, "not UTF-8 text; save the file as UTF-8")]) from None
    if len(text) > SIZE_MAX:
        raise JobFileError(source, [_fault(1, 1, f"too large: a job file has at most {SIZE_MAX:,} characters")])
    return text


def _compose(text: str, source: str) -> list[Node]:
    try:
        return list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise JobFileError(source, [_fault(line, column, f"not valid YAML: {words}")]) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        raise JobFileError(source, [_fault(line, 1, f"not valid YAML: {getattr(error, 'reason', error)}")]) from None
    except RecursionError:
        raise JobFileError(source, [_fault(1, 1, f"nested deeper than {DEPTH_MAX} levels")]) from None


def _fault(line: int, column: int, message: str, field: str = "") -> Fault:
    return Fault(line=line, column=column, field=field, message=message)


class _Reading:
    """Turns nodes into values and remembers where each stood."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.places: dict[Place, tuple[int, int]] = {}
        self._nodes = 0

    def document(self, node: Node | None) -> Value:
        """The value of the whole file."""
        return None if node is None else self._value(node, ())

    def _value(self, node: Node, place: Place) -> Value:
        self._nodes += 1
        self.places.setdefault(place, _position(node))
        if len(place) > DEPTH_MAX or self._nodes > NODES_MAX:
            if not any(fault.field == "" for fault in self.faults):
                what = f"nested deeper than {DEPTH_MAX} levels" if self._nodes <= NODES_MAX else "too many values"
                self.faults.append(_fault(*_position(node), what))
            return None
        if node.tag.removeprefix(YAML_TAG) not in TAGS_READ:
            self.faults.append(_fault(*_position(node), "tags are not read; write the plain value", _dotted(place)))
            return None
        if isinstance(node, ScalarNode):
            if "\0" in node.value:
                self.faults.append(_fault(*_position(node), "a NUL character", _dotted(place)))
            return None if node.style is None and node.value in NULLS else str(node.value)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)
        return dict(self._fields(node, place))

    def _fields(self, node: MappingNode, place: Place) -> Iterator[tuple[str, Value]]:
        """A field without a value (all its lines commented out) is as if it were not there."""
        seen: dict[str, int] = {}
        for key, child in node.value:
            line, column = _position(key)
            if not isinstance(key, ScalarNode):
                self.faults.append(_fault(line, column, "a field's name must be plain text", _dotted(place)))
                continue
            name = str(key.value)
            inner = (*place, name)
            if key.style is None and name == "<<":
                self.faults.append(
                    _fault(line, column, "merge keys are not read; write the fields out", _dotted(inner))
                )
            elif name in seen:
                message = f"given twice, first in line {seen[name]}"
                self.faults.append(_fault(line, column, message, _dotted(inner)))
            else:
                seen[name] = line
                self.places[inner] = (line, column)
                value = self._value(child, inner)
                if value is not None or "env" in place or "envs" in place:
                    yield name, value


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)


def _located(error: ValidationError, places: dict[Place, tuple[int, int]]) -> Iterator[Fault]:
    for fault in error.errors(include_url=False):
        place: Place = tuple(fault["loc"])
        names = [str(part) for part in place]
        found = field_problem(fault, names, job=names)
        line, column = _where(place, places)
        yield Fault(
            line=line,
            column=column,
            field="" if found.field == "body" else found.field,
            message=found.message,
            allowed=tuple(found.allowed),
            nearest=found.nearest,
        )


def _where(place: Place, places: dict[Place, tuple[int, int]]) -> tuple[int, int]:
    return places.get(_written(place, places), (1, 1))


def _written(place: Place, places: dict[Place, tuple[int, int]]) -> Place:
    """The place itself, that of the alias under which it was written, or what is around it; the file as a whole is ()."""
    while place and place not in places:
        around, last = place[:-1], str(place[-1])
        names = [str(part) for part in around]
        same = (known for known in places if known[:-1] == around and known)
        alias = next((known for known in same if canonical(names, str(known[-1])) == canonical(names, last)), None)
        place = alias if alias is not None else around
    return place
