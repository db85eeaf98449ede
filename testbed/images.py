"""Images for a real node, made from what this machine has: no registry is needed."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from testbed.node_files import PAUSE
from testbed.programs import MACHINES

BUSYBOX = "localhost/busybox:1"
USER = 65_532
"""Of every image: pods under the restricted profile may not be root."""
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A part of an image, named by its content: in memory, or in a file."""

    digest: str
    size_bytes: int
    path: Path | None = None
    content: bytes = b""

    @classmethod
    def of(cls, content: bytes) -> Blob:
        """A small one."""
        return cls(digest=f"sha256:{hashlib.sha256(content).hexdigest()}", size_bytes=len(content), content=content)

    @classmethod
    def document(cls, content: Any) -> Blob:
        """JSON."""
        return cls.of(json.dumps(content, sort_keys=True).encode())

    def described(self, kind: str) -> dict[str, Any]:
        """As another part of the image refers to it."""
        return {"mediaType": f"{_OCI}.{kind}", "digest": self.digest, "size": self.size_bytes}

    def opened(self) -> IO[bytes]:
        """To be read once."""
        return self.path.open("rb") if self.path else io.BytesIO(self.content)


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

    def write(self, stream: IO[bytes]) -> None:
        """As a tar archive in the OCI image layout, which every container runtime imports."""
        index = Blob.document(self._index())
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            _add(archive, "oci-layout", Blob.of(b'{"imageLayoutVersion": "1.0.0"}'))
            _add(archive, "index.json", index)
            for blob in (self._manifest(), self._configuration(), *self.layers):
                _add(archive, f"blobs/{blob.digest.replace(':', '/')}", blob)

    def _index(self) -> dict[str, Any]:
        named = {"annotations": {"io.containerd.image.name": self.reference}}
        return {"schemaVersion": 2, "manifests": [self._manifest().described("manifest.v1+json") | named]}

    def _manifest(self) -> Blob:
        return Blob.document(
            {
                "schemaVersion": 2,
                "mediaType": f"{_OCI}.manifest.v1+json",
                "config": self._configuration().described("config.v1+json"),
                "layers": [layer.described("layer.v1.tar") for layer in self.layers],
            }
        )

    def _configuration(self) -> Blob:
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **self.environment}
        return Blob.document(
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
    return Image(reference=PAUSE, layers=(_busybox_layer(),), command=("sleep", "infinity"))


def busybox() -> Image:
    """A shell and the usual small programs."""
    return Image(reference=BUSYBOX, layers=(_busybox_layer(),))


def _busybox_layer() -> Blob:
    """Raises FileNotFoundError with what to do."""
    program = shutil.which("busybox")
    if program is None:
        msg = "busybox is missing; hint: scripts/ensure-containerd"
        raise FileNotFoundError(msg)
    names = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for entry in _system():
            archive.addfile(*entry)
        archive.addfile(*_file("bin/busybox", Path(program).read_bytes(), mode=0o755))
        for name in sorted(set(names) - {"busybox"}):
            archive.addfile(_link(f"bin/{name}", "busybox"))
    return Blob.of(content.getvalue())


def _system() -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """What every program expects of a root."""
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
        yield _folder(name, mode=mode), None
    yield _file("etc/passwd", f"root:x:0:0::/root:/bin/sh\nuser:x:{USER}:{USER}::/tmp:/bin/sh\n".encode())
    yield _file("etc/group", f"root:x:0:\nuser:x:{USER}:\n".encode())
    yield _file("etc/nsswitch.conf", b"hosts: files dns\n")


def _folder(name: str, *, mode: int = 0o755) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    return entry


def _file(name: str, content: bytes, *, mode: int = 0o644) -> tuple[tarfile.TarInfo, IO[bytes]]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    return entry, io.BytesIO(content)


def _link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    return entry


def _add(archive: tarfile.TarFile, name: str, blob: Blob) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = blob.size_bytes
    with blob.opened() as content:
        archive.addfile(entry, content)
