"""Hostile archives, and what the control plane never does with bytes of others: unpack, unpickle, evaluate."""

from __future__ import annotations

import ast
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mainstay
from mainstay.clusters.kubernetes import handover
from mainstay.domain.errors import Invalid, MainstayError
from mainstay.ports import Channel
from tests.figures import Figure

PACKAGE = Path(mainstay.__file__).parent
CANARY = b"the canary is at home"
HOSTILE = "hostile archives: 0 escapes"


class Pod:
    """Says an archive, in pieces, as the process that packs the output of a pod does."""

    exit_status = 0
    failure = ""

    def __init__(self, archive: bytes, *, size: int = 1_000) -> None:
        self._rest = [archive[start : start + size] for start in range(0, len(archive), size)]
        self.said = 0

    async def receive(self) -> tuple[Channel, bytes] | None:
        if not self._rest:
            return None
        piece = self._rest.pop(0)
        self.said += len(piece)
        return Channel.STDOUT, piece


async def unpacked(pod: Pod, *, most: int = 10_000_000) -> dict[str, bytes]:
    """What is taken of it; at most so many bytes are looked at."""
    source, found = handover._Incoming(pod), {}
    try:
        async for path, size, _, chunks in handover._files(source):
            content = bytearray()
            async for chunk in chunks:
                content += chunk
                assert len(content) <= most, "it grows and grows"
            assert len(content) == size
            found[path] = bytes(content)
    finally:
        await source.close()
    return found


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **changes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in changes.items():
        setattr(info, field, value)
    return info


def sparse(size: int) -> bytes:
    """An old GNU sparse file of so many bytes that are nowhere: one block."""
    info = member("hole")
    block = bytearray(info.tobuf(format=tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[124:136] = b"%011o\0" % 0
    block[386:410] = b"%011o\0" % size + b"%011o\0" % 0
    block[483:495] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    return bytes(with_checksum(block)) + bytes(1024)


def with_checksum(block: bytearray) -> bytearray:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def sparse_by_pax(size: int) -> bytes:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "hole"}
    info = member("hole", pax_headers={**headers, "GNU.sparse.realsize": str(size)})
    content = b"1\n%d\n0\n" % size
    return archive((info, content.ljust(512, b"\0")), form=tarfile.PAX_FORMAT)


def announced(kind: bytes, size: int, sent: int) -> bytes:
    """A header of headers that is as large as it says, or says that it is."""
    info = member("x", kind)
    info.size = size
    return info.tobuf(format=tarfile.GNU_FORMAT) + b"x" * sent


ESCAPES = (
    "../out",
    "/etc/passwd",
    "a/../../out",
    "./../out",
    "a\\..\\out",
    "a\nb",
    "\x1b[2J",
    "x" * 300,
    "a//b",
    "..",
    "a\u202eb",
)
LINKS: tuple[tuple[bytes, str], ...] = (
    (tarfile.SYMTYPE, "/etc/passwd"),
    (tarfile.SYMTYPE, "../../out"),
    (tarfile.LNKTYPE, "/etc/passwd"),
    (tarfile.LNKTYPE, "plain"),
    (tarfile.CHRTYPE, ""),
    (tarfile.BLKTYPE, ""),
    (tarfile.FIFOTYPE, ""),
    (tarfile.DIRTYPE, ""),
)


@pytest.mark.parametrize("name", ESCAPES, ids=ascii)
async def test_a_file_whose_name_leaves_the_output_is_refused(name: str, figure: Figure):
    with pytest.raises(Invalid, match="cannot be kept"):
        await unpacked(Pod(archive((member(name), b"x"), form=tarfile.PAX_FORMAT)))
    figure(HOSTILE, 1)


@pytest.mark.parametrize(("kind", "link"), LINKS, ids=str)
async def test_what_is_no_regular_file_is_left_out_and_nothing_is_written_through_it(
    kind: bytes, link: str, figure: Figure
):
    twice = archive((member("./link", kind, link), b""), (member("./plain"), CANARY))
    assert await unpacked(Pod(twice)) == {"plain": CANARY}
    figure(HOSTILE, 1)


BROKEN: dict[str, Callable[[], bytes]] = {
    "no archive": lambda: b"x" * 2_000,
    "zip": lambda: b"PK\x03\x04" + bytes(600),
    "cut in a header": lambda: archive((member("a"), b"x" * 5_000))[:300],
    "cut in a file": lambda: archive((member("a"), b"x" * 5_000))[:3_000],
    "huge number": lambda: bytes(
        with_checksum(bytearray(announced(tarfile.REGTYPE, 0, 0)[:124] + b"\x80" + b"\xff" * 11 + bytes(376)))
    ),
    "negative number": lambda: bytes(
        with_checksum(bytearray(announced(tarfile.REGTYPE, 0, 0)[:124] + b"\xff" * 12 + bytes(376)))
    ),
    "pax without end": lambda: announced(tarfile.XHDTYPE, 1 << 20, 1 << 20),
    "pax of no length": lambda: announced(tarfile.XHDTYPE, 10, 0) + b"0 path=x\n".ljust(512, b"\0") + bytes(1024),
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
async def test_a_broken_archive_is_a_refusal(make: Callable[[], bytes], figure: Figure):
    with pytest.raises((MainstayError, tarfile.TarError)):
        await unpacked(Pod(make()))
    figure(HOSTILE, 1)


@pytest.mark.parametrize("make", [sparse, sparse_by_pax], ids=["old", "pax"])
async def test_a_hole_is_not_filled_on_our_disk(make: Callable[[int], bytes], figure: Figure):
    with pytest.raises((MainstayError, tarfile.TarError)):
        await unpacked(Pod(make(1 << 33)), most=1 << 20)
    figure(HOSTILE, 1)


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK], ids=str
)
async def test_a_name_of_gigabytes_is_not_taken_into_memory(kind: bytes, figure: Figure):
    size = 64 << 20
    pod = Pod(announced(kind, size, size), size=1 << 20)
    with pytest.raises((MainstayError, tarfile.TarError)):
        await unpacked(pod)
    assert pod.said <= 4 << 20
    figure(HOSTILE, 1)


FORBIDDEN_MODULES = {
    *("cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "torch"),
    *("brotli", "bz2", "gzip", "lzma", "py7zr", "zipfile", "zipimport", "zstandard"),
}
FORBIDDEN_CALLS = {
    "decompress",
    "decompressobj",
    "eval",
    "exec",
    "extract",
    "extractall",
    "full_load",
    "system",
    "unpack_archive",
    "unsafe_load",
}
"""By the last part of their name, as functions of modules or of themselves."""
OURS = {
    (
        "serving/formats/skops.py",
        "zipfile",
    ): "asks whether a model is a ZIP at all; skops opens it, inside the pod of its user",
}


def doings(source: Path) -> set[str]:
    """What a file imports or calls of that which runs or writes what others have sent."""
    found = set[str]()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & FORBIDDEN_MODULES
        elif isinstance(node, ast.Call):
            found |= called(node)
    return found


def called(node: ast.Call) -> set[str]:
    if any(word.arg == "shell" and getattr(word.value, "value", None) is True for word in node.keywords):
        return {"shell"}
    match node.func:
        case ast.Name(id=name) if name in FORBIDDEN_CALLS:
            return {name}
        case ast.Attribute(value=ast.Name(id="yaml"), attr="load" | "load_all" | "full_load" | "unsafe_load" as name):
            return {f"yaml.{name}"}
        case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="load" | "loadtxt" | "fromfile" as name):
            return {f"numpy.{name}"}  # of a ZIP, or of pickles
        case ast.Attribute(value=ast.Name(id="os" | "tarfile" | "shutil" | "archive" | "builtins"), attr=name) if (
            name in FORBIDDEN_CALLS
        ):
            return {name}
        case ast.Attribute(attr="extractall" | "unpack_archive" | "decompress" | "decompressobj" as name):
            return {name}
    return set()


def test_nothing_of_ours_unpacks_unpickles_or_evaluates_what_others_send(figure: Figure):
    sources = sorted(PACKAGE.rglob("*.py"))
    found = {(str(source.relative_to(PACKAGE)), what) for source in sources for what in doings(source)}
    assert found == set(OURS)
    figure("files of ours: 0 of them unpack, unpickle or evaluate what others send", len(sources))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from torch import load",
        "yaml.load(x)",
        "eval(x)",
        "tarfile.open(x).extractall()",
        "subprocess.run(x, shell=True)",
        "shutil.unpack_archive(x)",
        "import zipfile",
        "from zipfile import ZipFile",
        "import gzip",
        "zlib.decompress(x)",
        "np.load(x)",
    ],
)
def test_that_which_runs_what_others_send_is_found(tmp_path: Path, text: str):
    (tmp_path / "x.py").write_text(text)
    assert doings(tmp_path / "x.py")
