"""containerd in a machine: it has its images from this machine, and the large ones from an earlier start.

What is large is imported and unpacked once, by a containerd that does nothing else; its folder is kept in the cache,
and every later one starts over links to it. Files of images are never written to: containers write to a layer above.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from testbed import folders, layers, programs
from testbed.images import PAUSE, Image
from testbed.machine import Machine

SOCKET = "/run/containerd/containerd.sock"
NETWORK_FILES = "/run/cni"
NETWORK_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
START_SECONDS_MAX = 30.0
_CAP_SYS_RESOURCE = 24
_CRI = 'plugins."io.containerd.grpc.v1.cri"'
_CTR = ("ctr", f"--address={SOCKET}", "--namespace=k8s.io")
_BLOBS = "io.containerd.content.v1.content/blobs"


class Runtime:
    """The container runtime of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.containerd = machine.program("containerd", lambda: ["containerd", "--config=/run/containerd.toml"])

    def start(self, *, seed: Path | None = None) -> None:
        """Until it answers. The seed is what it has from the beginning, if it has nothing yet."""
        folder = self._machine.folder / "lib/containerd"
        if seed is not None and not folder.exists():
            _link(seed, folder)
        (self._machine.folder / "run/containerd.toml").write_text("\n".join(_configuration()) + "\n")
        self.containerd.start()
        self.containerd.wait_until(self._answers, seconds=START_SECONDS_MAX)

    def load(self, image: Image) -> None:
        """Containers may use the image from now on. Only what is not there yet is sent."""
        if image.digest in self._machine.do(*_CTR, "images", "list"):
            return
        there = frozenset(self._machine.do(*_CTR, "content", "list", "--quiet").split())
        command = [*self._machine.entering(), *_CTR, "images", "import", "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as importing:
            assert importing.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it says why
                image.write(importing.stdin, without=there)
            _, said = importing.communicate()
        if importing.returncode:
            msg = f"{image.reference} cannot be loaded: {said.decode().strip()}"
            raise RuntimeError(msg)

    def _answers(self) -> bool:
        try:
            self._machine.do(*_CTR, "version")
        except subprocess.CalledProcessError:
            return False
        return True


def network_plugins() -> Path | None:
    """Where they are, if they are there."""
    return next((folder for folder in NETWORK_PLUGINS if (folder / "ptp").exists()), None)


def seed(image: Image) -> Path:
    """The folder of a containerd that has this image. It is made if it is not kept, which takes a while."""
    key = hashlib.sha256(f"{_version()}{image.digest}".encode()).hexdigest()[:16]
    kept = programs.folder().parent / "seeds" / key
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the second one waits, and finds it
        if not kept.exists():
            _forget_unused(kept.parent)
            _make_seed(image, kept)
    os.utime(kept)
    return kept


def _make_seed(image: Image, kept: Path) -> None:
    with folders.temporary() as folder:
        machine = Machine(folder / "seed")
        runtime = Runtime(machine)
        machine.switch_on()
        try:
            runtime.start()
            runtime.load(image)
            runtime.containerd.stop()
        finally:
            machine.switch_off()
            runtime.containerd.kill()
        made = machine.folder / "lib/containerd"
        for layer in image.layers:
            if layer.path is not None:
                _share(layer.path, made / _BLOBS / layer.digest.replace(":", "/"))
        new = kept.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.move(made, new)
        new.rename(kept)


def _share(path: Path, blob: Path) -> None:
    """Keep a layer once: it is in the cache already."""
    with contextlib.suppress(OSError):  # on another file system: twice, then
        linked = blob.with_suffix(".linked")
        os.link(path, linked)
        linked.rename(blob)


def _link(source: Path, target: Path) -> None:
    """The same files again, but for databases: those are copied, since they are written to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["cp", "-al", str(source), str(target)], check=False, capture_output=True).returncode:
        shutil.rmtree(target, ignore_errors=True)  # on another file system
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)
        return
    for database in target.glob("io.containerd.*/*.db"):
        content = database.read_bytes()
        database.unlink()
        database.write_bytes(content)


def _forget_unused(folder: Path) -> None:
    oldest = time.time() - layers.UNUSED_DAYS_MAX * 86_400
    for kept in folder.iterdir():
        if kept.is_dir() and kept.stat().st_mtime < oldest:
            shutil.rmtree(kept)


def _version() -> str:
    return subprocess.run(["containerd", "--version"], check=True, capture_output=True, text=True).stdout


def _configuration() -> Iterator[str]:
    """TOML."""
    yield "version = 2"
    yield 'root = "/var/lib/containerd"\nstate = "/run/containerd"'
    others = [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
    yield f"disabled_plugins = {json.dumps(others)}"
    yield f'[grpc]\naddress = "{SOCKET}"'
    yield f'[{_CRI}]\nsandbox_image = "{PAUSE}"'
    if not _may_raise_priority():
        yield "restrict_oom_score_adj = true"
    yield f'[{_CRI}.containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"'
    yield f'[{_CRI}.cni]\nbin_dir = "{network_plugins()}"\nconf_dir = "{NETWORK_FILES}"'


def _may_raise_priority() -> bool:
    """Whether this process may make others less likely to be ended when memory is short."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> _CAP_SYS_RESOURCE & 1)
