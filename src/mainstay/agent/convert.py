"""Between what agent and control plane say and the domain. One place for both ends; tested by round trip.

Whoever reads raises Invalid for what is none: the other end may be of another version, or an impostor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec

from mainstay.domain.allocation import End, Seen
from mainstay.domain.errors import (
    Conflict,
    Denied,
    Fenced,
    Forbidden,
    Gone,
    Invalid,
    MainstayError,
    NoCapacity,
    NotFound,
    NotYet,
    StorageFull,
    Unauthenticated,
    Unavailable,
)
from mainstay.domain.fleet import ClusterKind, ClusterRecord, ClusterSettings, Contact, Stay
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.secret import Handed
from mainstay.wire import agent as wire
from mainstay.wire import agent_line

ERRORS: Mapping[str, type[MainstayError]] = MappingProxyType(
    {
        error.code: error
        for error in (
            *(Invalid, NotFound, Conflict, NoCapacity, NotYet, Gone, Fenced),
            *(Unauthenticated, Forbidden, Denied, Unavailable, StorageFull),
        )
    }
)
"""What the other end may raise, by its stable code."""
M = TypeVar("M")
A = TypeVar("A")
B = TypeVar("B")


def encoded(message: wire.Message) -> bytes:
    """As it travels. Text that is not Unicode is made harmless."""
    try:
        return _ENCODER.encode(message)
    except UnicodeEncodeError:
        return _ENCODER.encode(_harmless(msgspec.to_builtins(message)))


def decoded(content: bytes, kind: type[M]) -> M:
    """Raises Invalid if it is no such message."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a message that this version knows: {error}"
        raise Invalid(msg, hint="are control plane and agent of neighbouring versions?") from error


def cluster_said(record: ClusterRecord, *, system: str, now: int) -> wire.ClusterSaid:
    """How an agent is to use its cluster."""
    settings = record.settings
    return wire.ClusterSaid(
        name=record.name,
        system=system,
        identity=record.identity,
        namespaces_per_project=settings.namespaces_per_project,
        helper_image=settings.helper_image,
        image=settings.image,
        scheduler_name=settings.scheduler_name,
        topology=settings.topology,
        now=now,
    )


def cluster_record(said: wire.ClusterSaid, *, settings: ClusterSettings) -> ClusterRecord:
    """The cluster as its connector opens it. What was seen and wanted of it is the control plane's business."""
    reason = Reason(code=Code.CLUSTER_READY, object=said.name)
    return ClusterRecord(
        name=said.name,
        kind=ClusterKind.AGENT,
        settings=settings,
        sealed="",
        identity=said.identity,
        wanted=Stay.KEPT,
        wanted_reason=reason,
        seen=Contact.READY,
        seen_reason=reason,
        observed_at=0,
        added_at=0,
        added_by="",
        version=0,
    )


def amount(held: Resources) -> wire.Amount:
    """The same figures, cut where one is absurd: a single pod that asks for it would else refuse the whole plan."""
    return wire.Amount(
        cpu_milli=min(held.cpu_milli, wire.COUNT_MAX),
        memory_bytes=min(held.memory_bytes, wire.COUNT_MAX),
        gpus=min(held.gpus, wire.COUNT_MAX),
        gpu_model=cut(held.gpu_model),
    )


def resources(said: wire.Amount) -> Resources:
    """Raises Invalid for a negative one."""
    return made_by(
        lambda: Resources(
            cpu_milli=said.cpu_milli, memory_bytes=said.memory_bytes, gpus=said.gpus, gpu_model=said.gpu_model
        )
    )


def raised(
    code: str, message: str, *, object_: str, hint: str, numbers: Mapping[str, int | float | str]
) -> MainstayError:
    """The error that was raised at the other end; one that this version does not know counts as Unavailable."""
    return ERRORS.get(code, Unavailable)(message, object_=object_, hint=hint, numbers=numbers)


def raised_by_cluster(said: agent_line.Failed) -> MainstayError:
    """What an agent was refused by its cluster. Nothing that it says tells anybody who he is or what he may do."""
    error = raised(said.code, said.message, object_=said.object, hint=said.hint, numbers=said.numbers)
    if isinstance(error, Unauthenticated | Forbidden):
        return Unavailable(said.message, object_=said.object)
    return error


def failed(error: MainstayError) -> agent_line.Failed:
    """An error, to be raised at the other end."""
    return agent_line.Failed(
        code=error.code, message=error.message, object=error.object, hint=error.hint, numbers=error.numbers
    )


def secrets_said(handed: tuple[Handed, ...]) -> wire.SecretsSaid:
    """In the clear: for the agent that starts the pod, and for nobody else."""
    return wire.SecretsSaid(
        secrets=tuple(
            wire.SecretSaid(name=one.use.name, env=one.use.env, file=one.use.file, value=one.value) for one in handed
        )
    )


def why_said(reason: Reason) -> wire.Why:
    """A reason as it travels."""
    numbers = {name: cut(value) if isinstance(value, str) else value for name, value in reason.numbers.items()}
    return wire.Why(code=reason.code.value, object=cut(reason.object), numbers=numbers)


def reason_of(said: wire.Why) -> Reason:
    """Raises Invalid for a code that is none."""
    return Reason(code=known_word(Code, said.code), object=said.object, numbers=said.numbers)


def cut(text: str) -> str:
    """As much of a text as a message may carry."""
    return text if len(text) <= wire.TEXT_MAX else text[: wire.TEXT_MAX - 1] + "…"


def whole_seconds(number: int) -> int:
    """Within what a message may carry."""
    return min(max(number, 0), wire.SECONDS_MAX)


def seen_of(number: int) -> Seen:
    """Raises Invalid for a number that is none."""
    return made_by(lambda: Seen(number))


def end_of(word: str) -> End | None:
    """None for an empty word. Raises Invalid for one that is none."""
    return known_word(End, word) if word else None


def known_word(kind: Callable[[str], A], word: str) -> A:
    """A member of an enumeration. Raises Invalid for a word that is none."""
    return made_by(lambda: kind(word))


def made_by(make: Callable[[], B]) -> B:
    """What it makes. Raises Invalid where the domain refuses the value."""
    try:
        return make()
    except ValueError as error:
        msg = f"not known to this version: {error}"
        raise Invalid(msg, hint="are control plane and agent of neighbouring versions?") from error


def _harmless(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_harmless(name): _harmless(part) for name, part in value.items()}
        case list() | tuple():
            return [_harmless(part) for part in value]
    return value


def _plain(value: object) -> object:
    """A NumPy number in a figure of a reason."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    msg = f"not sendable: {type(value).__name__}"
    raise TypeError(msg)


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
