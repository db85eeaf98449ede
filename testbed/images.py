"""Images for a real node, made from what this machine has: no registry is needed."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from testbed import layers
from testbed.layers import Blob, Entry
from testbed.programs import MACHINES

PAUSE = "localhost/pause:1"
BUSYBOX = "localhost/busybox:1"
USER = 65_532
"""Of every image: pods under the restricted profile may not be root."""
PATH = "/usr/local/bin:/usr/bin:/bin"
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Layers, each a tar archive over the ones before, and how a container of it starts."""

    reference: str
    layers: tuple[Blob, ...]
    command: tuple[str, ...] = ("sh",)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of its manifest: another content has another."""
        return self._manifest().digest

    def write(self, stream: IO[bytes], *, without: frozenset[str] = frozenset()) -> None:
        """As a tar archive in the OCI image layout, which every container runtime imports.

        `without`: the digests of what the runtime has.
        """
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            _add(archive, "oci-layout", Blob.of(b'{"imageLayoutVersion": "1.0.0"}'))
            _add(archive, "index.json", _document(self._index()))
            for blob in (self._manifest(), self._configuration(), *self.layers):
                if blob.digest not in without:
                    _add(archive, f"blobs/{blob.digest.replace(':', '/')}", blob)

    def _index(self) -> dict[str, Any]:
        named = {"annotations": {"io.containerd.image.name": self.reference}}
        return {"schemaVersion": 2, "manifests": [_described(self._manifest(), "manifest.v1+json") | named]}

    def _manifest(self) -> Blob:
        return _document(
            {
                "schemaVersion": 2,
                "mediaType": f"{_OCI}.manifest.v1+json",
                "config": _described(self._configuration(), "config.v1+json"),
                "layers": [_described(layer, "layer.v1.tar") for layer in self.layers],
            }
        )

    def _configuration(self) -> Blob:
        environment = {"PATH": PATH, **self.environment}
        return _document(
            {
                "architecture": MACHINES[platform.machine()],
                "os": "linux",
                "config": {
                    "User": f"{USER}:{USER}",
                    "Env": [f"{name}={value}" for name, value in environment.items()],
                    "Cmd": self.command,
                    "WorkingDir": "/",
                },
                "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in self.layers]},
            }
        )


def pause() -> Image:
    """What holds a pod together: a process that does nothing."""
    return Image(reference=PAUSE, layers=(small_system(),), command=("sleep", "infinity"))


def busybox() -> Image:
    """A shell and the usual small programs."""
    return Image(reference=BUSYBOX, layers=(small_system(),))


def small_system() -> Blob:
    """The layer below all others. Raises FileNotFoundError with what to do."""
    program = shutil.which("busybox")
    if program is None:
        msg = "busybox is missing; hint: scripts/ensure-containerd"
        raise FileNotFoundError(msg)
    names = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    return layers.layer([*_system(), *_programs(Path(program), sorted(set(names) - {"busybox"}))])


def _system() -> Iterator[Entry]:
    """What every program expects of a root."""
    yield layers.directory("tmp", mode=0o1777)
    yield layers.file("etc/passwd", f"root:x:0:0::/root:/bin/sh\nuser:x:{USER}:{USER}::/tmp:/bin/sh\n".encode())
    yield layers.file("etc/group", f"root:x:0:\nuser:x:{USER}:\n".encode())
    yield layers.file("etc/nsswitch.conf", b"hosts: files dns\n")


def _programs(busybox: Path, names: list[str]) -> Iterator[Entry]:
    yield layers.copied(busybox, "bin/busybox")
    yield from (layers.link(f"bin/{name}", "busybox") for name in names)


def _document(content: Any) -> Blob:
    return Blob.of(json.dumps(content, sort_keys=True).encode())


def _described(blob: Blob, kind: str) -> dict[str, Any]:
    """As another part of the image refers to it."""
    return {"mediaType": f"{_OCI}.{kind}", "digest": blob.digest, "size": blob.size_bytes}


def _add(archive: tarfile.TarFile, name: str, blob: Blob) -> None:
    header = tarfile.TarInfo(name)
    header.size = blob.size_bytes
    with blob.opened() as content:
        archive.addfile(header, content)
