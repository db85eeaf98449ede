"""What jobs may name that is not the platform's own: images of which repositories, and taints of which nodes.

The API server of a cluster holds the same rules (deploy/kubernetes/components/isolated); here they are said before a job is
accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mainstay.domain.affinity import SPOT_LABELS

DOCKER_HUB, LIBRARY = "docker.io", "library"
"""What the name of an image means that does not say them."""
_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
REPOSITORY = re.compile(rf"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*)(?::[0-9]{{1,5}})?(?:/{_PART})*\Z")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
OF_THE_SYSTEM = re.compile(r"([^/]*\.)?(kubernetes|k8s)\.io/")
"""Taints by which Kubernetes itself, or whoever runs the control plane, keeps pods off a node."""
NEVER_TOLERATED = frozenset({"CriticalAddonsOnly"})
OF_THE_LOADER = frozenset({"LD_PRELOAD", "LD_AUDIT"})
"""Variables by which a program loads what an image names."""
BESIDE_GPUS = frozenset(
    {
        *(
            "NVIDIA_MIG_CONFIG_DEVICES",
            "NVIDIA_MIG_MONITOR_DEVICES",
            "NVIDIA_IMEX_CHANNELS",
            "NVIDIA_GDS",
            "NVIDIA_MOFED",
        ),
        *("NVIDIA_NVSWITCH", "NVIDIA_GDRCOPY"),
    }
)
"""Variables by which a container asks the NVIDIA Container Toolkit for devices of the node beside its GPUs."""
VISIBLE = "NVIDIA_VISIBLE_DEVICES"
NO_CHOICE = frozenset({"", "all", "none", "void"})
"""What base images say of the GPUs that are visible: what a pod is given takes its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The name of an image in its parts: `registry/path:tag@digest`."""

    registry: str
    path: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        """`docker.io/library/python`."""
        return f"{self.registry}/{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """As an administrator says it; whoever says nothing permits all but what is the system's."""

    repositories: tuple[str, ...] = ()
    """Registries, and repositories with all below them, by their full names; empty: any."""
    tolerations: tuple[str, ...] = ()
    """Keys of taints; empty: any that is not the system's."""

    def image(self, text: str) -> bool:
        """Whether a job may run this image."""
        if not self.repositories:
            return True
        name = reference(text).repository
        return any(name == one or name.startswith(f"{one}/") for one in self.repositories)

    def toleration(self, key: str) -> bool:
        """Whether a job may put up with taints of this key."""
        if not key or key in NEVER_TOLERATED or OF_THE_SYSTEM.match(key):
            return False
        return not self.tolerations or key in self.tolerations or key in SPOT_LABELS


ANYTHING = Permitted()


def reference(text: str) -> Reference:
    """Of an image's name that is one. Source of the rule: the reference of distribution (docker.io/go/reference), which container
    runtimes follow: what stands first is a registry only with a dot or a port in it, or as `localhost`.
    """
    name, _, digest = text.partition("@")
    first, slash, rest = name.partition("/")
    if not slash:
        registry, path = DOCKER_HUB, f"{LIBRARY}/{name}"
    elif "." in first or ":" in first or first == "localhost":
        registry, path = first, rest
    else:
        registry, path = DOCKER_HUB, name
    folder, slash, last = path.rpartition("/")
    last, _, tag = last.partition(":")
    return Reference(registry=registry, path=f"{folder}{slash}{last}", tag=tag, digest=digest)


def bad_variables(variables: Iterable[str]) -> list[str]:
    """Of those that an image sets (NAME=VALUE), the names of the ones that reach out of its container (security.md A9).

    What images for GPUs say (`NVIDIA_VISIBLE_DEVICES=all`, `NVIDIA_DRIVER_CAPABILITIES`, `NVIDIA_REQUIRE_...`) is not among them.
    """
    found = set()
    for name, _, value in (one.partition("=") for one in variables):
        if (name in OF_THE_LOADER and value) or name in BESIDE_GPUS or (name == VISIBLE and value not in NO_CHOICE):
            found.add(name)
    return sorted(found)


def bad_repositories(given: Iterable[str]) -> list[str]:
    """Those that name no registry or repository in full, so that no image could be from there."""
    return [one for one in given if not REPOSITORY.match(one) or not _has_registry(one)]


def _has_registry(text: str) -> bool:
    first = text.partition("/")[0]
    return "." in first or ":" in first or first == "localhost"
