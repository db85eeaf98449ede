"""The image of this project: the interpreter of its environment, the packages that it needs, and its own source.

Everything lies where it lies on this machine, so that an interpreter from anywhere works; an environment in front of it
holds the packages.
"""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from testbed import images, layers
from testbed.images import Image
from testbed.layers import Entry

ROOT = Path(__file__).parent.parent
HOME = "opt/mainstay"
FORM = "1"
"""Of the layers: another one makes them again."""
NOT_OF_THE_LIBRARY = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "tkinter", "ensurepip", "lib2to3"}
)
"""Of Python's own library."""
NOT_OF_THE_PACKAGES = frozenset({"tests"})


def mainstay() -> Image:
    """`python`, scikit-learn and the rest of what examples and endpoints run on, and `mainstay` itself."""
    return Image(
        reference=f"localhost/mainstay:{version()}",
        layers=(*large_part().layers, layers.layer(_project())),
        command=("python",),
        environment={
            "PATH": f"/{HOME}/bin:{images.PATH}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/tmp",
        },
    )


def large_part() -> Image:
    """What it stands on: nothing of the project's own source, so it seldom changes."""
    return Image(reference="localhost/mainstay-base:1", layers=(images.small_system(), _interpreter(), _packages()))


def version() -> str:
    """Of this project."""
    found = re.search(r'__version__ = "(.+)"', (ROOT / "src/mainstay/__init__.py").read_text())
    assert found
    return found[1]


def _interpreter() -> layers.Blob:
    return layers.kept("interpreter", [FORM, sys.version, str(_python()), _library()], _interpreter_entries)


def _interpreter_entries() -> Iterator[Entry]:
    yield layers.copied(_python(), str(_python()))
    unwanted = NOT_OF_THE_LIBRARY | {path.name for path in Path(_library()).glob("config-*")}
    yield from layers.tree(Path(_library()), _library(), without=unwanted)
    yield from _shared_libraries([_python(), *Path(_library(), "lib-dynload").glob("*.so")])


def _packages() -> layers.Blob:
    """Of the project with all its extras, without the tools of its developers."""
    wanted = sorted(_closure(_requirements()))
    made_of = [FORM, sys.version, _library(), *(f"{name}=={metadata.version(name)}" for name in wanted)]
    return layers.kept("packages", made_of, lambda: _package_entries(wanted))


def _package_entries(wanted: Iterable[str]) -> Iterator[Entry]:
    site = Path(sysconfig.get_path("purelib"))
    tops = {file.parts[0] for name in wanted for file in metadata.files(name) or () if file.parts[0] != ".."}
    for top in sorted(tops):
        path, target = site / top, f"{_site()}/{top}"
        if path.is_dir():
            yield from layers.tree(path, target, without=NOT_OF_THE_PACKAGES)
        elif path.exists():
            yield layers.copied(path, target)
    yield from _shared_libraries(file for top in tops for file in (site / top).rglob("*.so*"))


def _project() -> Iterator[Entry]:
    """The environment and the source: small, and another one with every change."""
    yield layers.file(
        f"{HOME}/pyvenv.cfg", f"home = {_python().parent}\ninclude-system-site-packages = false\n".encode()
    )
    for name in ("python", "python3"):
        yield layers.link(f"{HOME}/bin/{name}", str(_python()))
    authorities = ssl.get_default_verify_paths().cafile
    if authorities:
        yield layers.copied(Path(authorities).resolve(), "etc/ssl/certs/ca-certificates.crt")
    script = f'#!/bin/sh\nexec /{HOME}/bin/python -m mainstay "$@"\n'
    yield layers.file(f"{HOME}/bin/mainstay", script.encode(), mode=0o755)
    for header, path in layers.tree(ROOT / "src/mainstay", f"{_site()}/mainstay", without=frozenset({"__pycache__"})):
        header.mtime = 0  # the same source is the same image
        yield header, path


def _requirements() -> list[str]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(word for extra in project["optional-dependencies"].values() for word in extra)]


def _closure(words: Iterable[str]) -> set[str]:
    """The names of the packages that are required, directly or not."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(word) for word in words]
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) not in found:
                found.add((requirement.name, extra))
                needs = map(Requirement, metadata.requires(requirement.name) or ())
                waiting += [need for need in needs if _applies(need, extra)]
    return {name for name, _ in found}


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _shared_libraries(binaries: Iterable[Path]) -> Iterator[Entry]:
    """Those of this machine that they are linked to, and the loader."""
    said = subprocess.run(["ldd", *map(str, binaries)], check=False, capture_output=True, text=True).stdout
    for place in sorted(set(re.findall(r"(/\S+) \(0x", said))):
        if not Path(place).is_relative_to(sysconfig.get_path("purelib")):
            yield layers.copied(Path(place), place)


def _python() -> Path:
    """The interpreter that the environment was made from."""
    return Path(sys.executable).resolve()


def _library() -> str:
    return sysconfig.get_path("stdlib")


def _site() -> str:
    return f"{HOME}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
