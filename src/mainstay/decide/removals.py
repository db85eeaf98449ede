"""Volumes as their cluster sees them, against the word of who wants them gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mainstay.domain.allocation import DropVolume
from mainstay.domain.capacity import ClusterState
from mainstay.domain.volume import VolumeRef


def drops(seen: ClusterState, removals: Collection[VolumeRef]) -> Iterator[DropVolume]:
    """What is to be deleted: it is there, and nobody has begun to."""
    for state in seen.volumes or ():
        if not state.leaving and VolumeRef(owner=state.owner, name=state.name) in removals:
            yield DropVolume(name=state.name, owner=state.owner)
