"""The programs of a Kubernetes, built from their published Go modules: go.sum pins every byte of them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent / "go"
KUBERNETES = "v1.34.4"
OTHERS = {"oldest": "v1.29.15", "newest": "v1.37.2"}
"""API servers that are tried beside it: `make test-others`."""

GO = "1.26.8"
GO_ZIP_SHA256 = {
    "amd64": "30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7",
    "arm64": "02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99",
}
GO_PROXY = "https://proxy.golang.org"
GO_OLDEST = (1, 24)
PROGRESS_SECONDS = 15.0
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program: the folder of its wrapper module, its package, and what the linker is told."""

    name: str
    module: str
    package: str
    linked: str = ""


def _says(version: str) -> str:
    """For the linker: without it the server calls itself v0.0.0-master, and clients misbehave."""
    place, minor = "k8s.io/component-base/version", version.split(".")[1]
    return f"-X {place}.gitVersion={version} -X {place}.gitMajor=1 -X {place}.gitMinor={minor}"


PROGRAMS = (
    Program(name="etcd", module="etcd", package="go.etcd.io/etcd/server/v3"),
    *(
        Program(name=name, module="kubernetes", package=f"k8s.io/kubernetes/cmd/{name}", linked=_says(KUBERNETES))
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
    ),
    Program(
        name="kube-router", module="kubernetes", package="github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
    ),
    Program(name="kwok", module="kwok", package="sigs.k8s.io/kwok/cmd/kwok"),
)
RAY = Program(name="ray-operator", module="operators/ray", package="github.com/ray-project/kuberay/ray-operator")
"""An operator of others, whose pods are placed by us: `make test-others`."""
STAGES = ("stage/node/fast", "stage/node/heartbeat-with-lease", "stage/pod/fast")
"""What the hollow nodes do, out of the module of KWOK."""


def api_server(which: str) -> Program:
    """One of `OTHERS`."""
    version = OTHERS[which]
    return Program(
        name=f"kube-apiserver-{version}",
        module=f"versions/{which}",
        package="k8s.io/kubernetes/cmd/kube-apiserver",
        linked=_says(version),
    )


def others() -> tuple[Program, ...]:
    """What only `make test-others` needs."""
    return (*map(api_server, OTHERS), RAY)


def folder() -> Path:
    """Where the programs of these versions are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pinned = hashlib.sha256(GO.encode())
    for path in sorted(MODULES.glob("*/go.sum")):
        pinned.update(path.read_bytes())
    return cache / "mainstay" / "testbed" / pinned.hexdigest()[:12]


def missing() -> list[str]:
    """Programs that have not been built."""
    return [program.name for program in PROGRAMS if not (folder() / program.name).exists()]


def path(name: str) -> Path:
    """A program. Raises FileNotFoundError with what to do."""
    found = folder() / name
    if not found.exists():
        msg = f"the test bed has no {name}; hint: make testbed-programs (once, about ten minutes)"
        raise FileNotFoundError(msg)
    return found


def definitions() -> list[Path]:
    """The files of the kinds of objects that the operator of Ray knows."""
    return sorted((folder() / "definitions" / RAY.name).glob("*.yaml"))


def stages() -> list[Path]:
    """The stage files of the hollow nodes."""
    return sorted((folder() / "stages").glob("*.yaml"))


def build(*more: Program) -> Iterator[str]:
    """Build what is missing, and `more`, one at a time for the memory; says what it does."""
    wanted = [program for program in (*PROGRAMS, *more) if not (folder() / program.name).exists()]
    if not wanted and stages():
        return
    folder().mkdir(parents=True, exist_ok=True)
    go = yield from _go()
    for program in wanted:
        if program == RAY:
            _copy_definitions(go)
        yield from _built(go, program)
    if not stages():
        yield from _stages(go)


def _built(go: str, program: Program) -> Iterator[str]:
    """Build one. Raises RuntimeError with what Go says."""
    yield f"building {program.name}"
    began = said = time.monotonic()
    made = folder() / f"{program.name}.new"
    options = ["-v", "-trimpath", "-mod=readonly", "-ldflags", f"-s -w {program.linked}".strip(), "-o", str(made)]
    lines: list[str] = []
    with _go_process(go, program, "build", *options, program.package) as building:
        assert building.stderr is not None
        for line in building.stderr:  # a package each, as it is compiled
            lines.append(line)
            if time.monotonic() - said >= PROGRESS_SECONDS:
                said = time.monotonic()
                yield f"building {program.name}: {len(lines)} packages in {said - began:.0f} s"
    if building.returncode:
        msg = f"cannot build {program.name}: {''.join(lines)[-2_000:].strip()}"
        raise RuntimeError(msg)
    made.rename(folder() / program.name)
    yield f"built {program.name} in {time.monotonic() - began:.0f} s"


def _go_process(go: str, program: Program, *words: str) -> subprocess.Popen[str]:
    """In the folder of the program's module."""
    return subprocess.Popen(
        [go, *words],
        cwd=MODULES / program.module,
        env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _source(go: str, program: Program, module: str) -> Path:
    """Where the files of a module are, of which a program is built."""
    with _go_process(go, program, "list", "-m", "-json", module) as listing:
        return Path(json.loads(listing.communicate()[0])["Dir"])


def _emptied(target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return target


def _copy_definitions(go: str) -> None:
    """Out of the module of the operator."""
    target = _emptied(folder() / "definitions" / RAY.name)
    for source in (_source(go, RAY, RAY.package) / "config" / "crd" / "bases").glob("*.yaml"):
        shutil.copyfile(source, target / source.name)


def _stages(go: str) -> Iterator[str]:
    """Copy the stage files out of the module of KWOK, one file per stage."""
    place, target = _source(go, PROGRAMS[-1], "sigs.k8s.io/kwok"), _emptied(folder() / "stages")
    for stage in STAGES:
        for source in sorted((place / "kustomize" / stage).glob("*.yaml")):
            if source.name != "kustomization.yaml":
                shutil.copyfile(source, target / f"{stage.replace('/', '-')}-{source.name}")
    yield f"{len(stages())} stages of hollow nodes"


def _go() -> Generator[str, None, str]:
    """A Go that is new enough: the machine's, or the published toolchain, checked."""
    found = shutil.which("go")
    if found and _version(found) >= GO_OLDEST:
        return found
    kept = folder() / "go" / "bin" / "go"
    if not kept.exists():
        yield f"fetching Go {GO}"
        _fetch_go(kept.parent.parent)
    return str(kept)


def _version(go: str) -> tuple[int, ...]:
    words = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    parts = words.strip().removeprefix("go").split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _fetch_go(target: Path) -> None:
    """Raises RuntimeError for another content than the published one."""
    machine = MACHINES[platform.machine()]
    version = f"v0.0.1-go{GO}.linux-{machine}"
    first = os.environ.get("GOPROXY", GO_PROXY).replace("|", ",").split(",")[0]
    proxy = first if first.startswith("http") else GO_PROXY
    with urllib.request.urlopen(f"{proxy}/golang.org/toolchain/@v/{version}.zip") as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != GO_ZIP_SHA256[machine]:
        msg = f"the toolchain of Go {GO} is not the published one"
        raise RuntimeError(msg)
    archive = target.with_suffix(".zip")
    archive.write_bytes(content)
    made = target.with_name("go.new")
    shutil.rmtree(made, ignore_errors=True)
    with zipfile.ZipFile(archive) as files:
        files.extractall(made)
    archive.unlink()
    root = made / f"golang.org/toolchain@{version}"
    for program in (*root.glob("bin/*"), *root.glob("pkg/tool/*/*")):
        program.chmod(0o755)
    root.rename(target)
    shutil.rmtree(made)
