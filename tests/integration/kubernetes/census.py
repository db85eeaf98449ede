"""Every object of a cluster, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from testbed.control_plane import ControlPlane

Counted = tuple[str, str, str]
"""(resource, namespace, name)"""


def census(plane: ControlPlane) -> set[Counted]:
    """All objects of all kinds that can be listed."""
    return {
        (resource, item["metadata"].get("namespace", ""), item["metadata"]["name"])
        for path, resource in _collections(plane)
        for item in plane.ask(path)["items"]
    }


def _collections(plane: ControlPlane) -> Iterator[tuple[str, str]]:
    groups: list[dict[str, Any]] = plane.ask("/apis")["groups"]
    for prefix in ("/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)):
        for kind in plane.ask(prefix)["resources"]:
            if "list" in kind["verbs"] and "/" not in kind["name"]:
                yield f"{prefix}/{kind['name']}", kind["name"]
