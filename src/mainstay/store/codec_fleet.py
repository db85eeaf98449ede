"""Row <-> domain for clusters, their nodes and their volumes, one function per direction and type."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from mainstay.domain.affinity import NO_TRAITS, Taint, Traits
from mainstay.domain.allocation import Owner
from mainstay.domain.capacity import Closure, Keeping, Node
from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import ClusterKind, ClusterRecord, ClusterSettings, Contact, NewCluster, Stay, not_called
from mainstay.domain.image import BYTES_PER_MIB, IMAGES_MAX, digest_of
from mainstay.domain.plan import IdentifyCluster
from mainstay.domain.quantity import Counts, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.volume import VolumeRecord, VolumeState
from mainstay.store import codec
from mainstay.store.rows import ClusterRow, NodeRow, NodeTraitsRow, VolumeRow

DIGITS = 32
"""Of a digest of traits, in hex: 128 bits."""
NO_LIMIT = -1
"""Of `pods_max` of a node, where none is known."""


def node_of(row: NodeRow, traits: Mapping[str, Traits]) -> Node:
    """The node of a row; `traits` by digest."""
    return Node(
        key=row["key"],
        cluster=row["cluster"],
        name=row["name"],
        capacity=codec.resources_of(row),
        used=Resources(
            cpu_milli=row["used_cpu_milli"],
            memory_bytes=row["used_memory_bytes"],
            gpus=row["used_gpus"],
            gpu_model=row["gpu_model"],
        ),
        ready=bool(row["ready"]),
        version=row["version"],
        shapes=codec.counts_of(row["shapes"]),
        used_shapes=codec.counts_of(row["used_shapes"]),
        pods_max=None if row["pods_max"] == NO_LIMIT else row["pods_max"],
        used_pods=row["used_pods"],
        unhealthy=codec.counts_of(row["unhealthy"]),
        problem=row["problem"],
        complaints=tuple(row["complaints"].splitlines()),
        cordoned=bool(row["cordoned"]),
        strangers=tuple(row["strangers"].splitlines()),
        traits=traits[row["traits"]],
        barred=bool(row["barred"]),
        closure=closure_of(row),
    )


def limit(pods_max: int | None) -> int:
    """How many pods a node takes, as its row has it."""
    return NO_LIMIT if pods_max is None else pods_max


def places_text(places: Sequence[tuple[str, str]]) -> str:
    """Where a node is: level and domain, as a row has it. Neither has a space in it."""
    return " ".join(f"{level}={codec.storable(domain)}" for level, domain in places)


def places_of(text: str) -> dict[str, str]:
    """Inverse of `places_text`."""
    return {level: domain for level, _, domain in (word.partition("=") for word in text.split(" ") if word)}


@functools.lru_cache(maxsize=4_096)
def images_text(images: Counts) -> str:
    """Which images a node has, as its row has it, the largest of IMAGES_MAX. By digests: names are long, and rows are read all
    the time.
    """
    largest = sorted(((-size, name) for name, size in images))[:IMAGES_MAX]
    found = sorted((digest_of(name), -negative // BYTES_PER_MIB) for negative, name in largest)
    return " ".join(f"{digest}={mib}" for digest, mib in found)


def images_of(text: str) -> dict[str, int]:
    """Inverse of `images_text`: MiB by digest."""
    return {digest: int(mib) for digest, _, mib in (word.partition("=") for word in text.split(" ") if word)}


def traits_row(traits: Traits) -> NodeTraitsRow:
    """As a row. Neither keys nor values have a space in them."""
    labels = " ".join(f"{key}={codec.storable(value)}" for key, value in traits.labels)
    taints = " ".join(codec.storable(f"{one.key}={one.value}:{one.effect}") for one in traits.taints)
    content = f"{labels}\n{taints}\n{int(traits.spot)}"
    return NodeTraitsRow(
        digest=hashlib.sha256(content.encode()).hexdigest()[:DIGITS] if traits != NO_TRAITS else "",
        labels=labels,
        taints=taints,
        spot=int(traits.spot),
    )


def traits_of(row: NodeTraitsRow) -> Traits:
    """The traits of a row."""
    words = [word.partition("=") for word in row["labels"].split(" ") if word]
    return Traits(
        labels=tuple((key, value) for key, _, value in words),
        taints=tuple(_taint(word) for word in row["taints"].split(" ") if word),
        spot=bool(row["spot"]),
    )


def _taint(word: str) -> Taint:
    rest, _, effect = word.rpartition(":")
    key, _, value = rest.partition("=")
    return Taint(key=key, value=value, effect=effect)


def closure_of(row: NodeRow) -> Closure | None:
    """Why nothing new is placed on the node of a row, if somebody has said so."""
    if not row["closure"]:
        return None
    return Closure(
        keeping=Keeping(row["closure"]),
        reason=codec.reason_of(row["closure_reason"]),
        since=row["closed_at"],
        until=row["closed_until"],
        drains=bool(row["drains"]),
        wait_seconds=row["wait_seconds"],
    )


def new_cluster_row(new: NewCluster, reason: Reason, *, actor: str, now: int, version: int) -> ClusterRow:
    """The row of a cluster that has just been added: its credentials were tried, so it counts as ready.

    One that is reached by an agent is not until that has called.
    """
    seen, seen_reason = Contact.READY, Reason(code=Code.CLUSTER_READY, object=new.name)
    if new.kind is ClusterKind.AGENT:
        seen, seen_reason = Contact.UNREACHABLE, not_called(new.name)
    return ClusterRow(
        name=new.name,
        observed_at=0,
        kind=new.kind.value,
        settings=settings_text(new.settings),
        sealed=new.sealed,
        identity=new.identity,
        wanted=Stay.KEPT.value,
        wanted_reason=codec.reason_text(reason),
        seen=seen.value,
        seen_reason=codec.reason_text(seen_reason),
        added_at=now,
        added_by=actor,
        version=version,
    )


def unregistered(name: str, *, version: int) -> ClusterRow:
    """The row of a cluster that reports without having been added: a machine that a replica brings along."""
    reason = Reason(code=Code.CLUSTER_READY, object=name)
    return new_cluster_row(NewCluster(name=name, kind=ClusterKind.LOCAL), reason, actor="", now=0, version=version)


def identified(row: ClusterRow, found: IdentifyCluster, reason: Reason) -> ClusterRow:
    """The row once its agent has found it."""
    settings = replace(_SETTINGS.decode(row["settings"]), server=codec.storable(found.server), one_user=found.one_user)
    fresh = row.copy()
    fresh["settings"], fresh["identity"] = settings_text(settings), codec.storable(found.identity)
    if not row["identity"]:
        fresh["seen"], fresh["seen_reason"] = Contact.READY.value, codec.reason_text(reason)
    return fresh


def takes_work(row: ClusterRow) -> bool:
    """As `ClusterRecord.takes_work`."""
    return row["wanted"] == Stay.KEPT and row["seen"] == Contact.READY


def runs_as_one_user(row: ClusterRow) -> bool:
    """Whether all of its jobs run as one user: one could read the files of another (security.md E6)."""
    return row["kind"] == ClusterKind.LOCAL or _SETTINGS.decode(row["settings"]).one_user


def settings_text(settings: ClusterSettings) -> str:
    """As JSON. Raises Invalid if it holds text that is not Unicode."""
    try:
        return codec.ENCODER.encode(settings).decode()
    except UnicodeEncodeError as error:
        msg = "the settings hold text that is not Unicode"
        raise Invalid(msg) from error


def cluster_of(row: ClusterRow) -> ClusterRecord:
    """The cluster of a row."""
    return ClusterRecord(
        name=row["name"],
        kind=ClusterKind(row["kind"]),
        settings=_SETTINGS.decode(row["settings"]),
        sealed=row["sealed"],
        identity=row["identity"],
        wanted=Stay(row["wanted"]),
        wanted_reason=codec.reason_of(row["wanted_reason"]),
        seen=Contact(row["seen"]),
        seen_reason=codec.reason_of(row["seen_reason"]),
        observed_at=row["observed_at"],
        added_at=row["added_at"],
        added_by=row["added_by"],
        version=row["version"],
    )


def volume_row(cluster: str, state: VolumeState, *, removed: int = 0) -> VolumeRow:
    """The row of a volume that its cluster reports."""
    return VolumeRow(
        cluster=cluster,
        tenant=codec.storable(state.owner.tenant),
        project=codec.storable(state.owner.project),
        name=codec.storable(state.name),
        size_bytes=state.size_bytes,
        access=codec.storable(" ".join(state.access)),
        storage_class=codec.storable(state.storage_class),
        bound=int(state.bound),
        leaving=int(state.leaving),
        reach=codec.storable(state.reach),
        place=codec.storable(state.place),
        removed=removed,
    )


def volume_of(row: VolumeRow, used_by: tuple[str, ...] = ()) -> VolumeRecord:
    """The volume of a row."""
    state = VolumeState(
        owner=Owner(tenant=row["tenant"], project=row["project"]),
        name=row["name"],
        size_bytes=row["size_bytes"],
        access=tuple(row["access"].split()),
        storage_class=row["storage_class"],
        bound=bool(row["bound"]),
        leaving=bool(row["leaving"]),
        reach=row["reach"],
        place=row["place"],
    )
    return VolumeRecord(cluster=row["cluster"], state=state, removed=bool(row["removed"]), used_by=used_by)


_SETTINGS = msgspec.json.Decoder(ClusterSettings)
