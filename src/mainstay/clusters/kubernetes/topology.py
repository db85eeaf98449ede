"""Which level of the topology pods of others mean by a label."""

from __future__ import annotations

from mainstay.domain.topology import HOST, LEVEL_LABELS

HOST_LABEL = "kubernetes.io/hostname"


def level_of(label: str) -> str:
    """The level that pods mean by a label of nodes; empty if it is none that is known."""
    if label == HOST_LABEL:
        return HOST
    return next((level for level, names in LEVEL_LABELS.items() if label in names), "")
