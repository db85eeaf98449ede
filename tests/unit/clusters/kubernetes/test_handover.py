"""Files into a pod and out of it: whole or not at all, and nothing that comes out of a pod is believed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import tarfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mainstay.clusters.kubernetes import handover
from mainstay.clusters.kubernetes.errors import Unreachable
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.secret import Handed, SecretUse
from mainstay.ports import Channel
from mainstay.simulation.files import MemoryArtifacts
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.server import Process, Server


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def stored(artifacts: MemoryArtifacts, files: dict[str, bytes], *, executable: str = "") -> str:
    entries = []
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        await artifacts.put(digest, chunks(content))
        entries.append(Entry(path=path, size=len(content), digest=digest, executable=path == executable))
    return await artifacts.put_tree(Tree(entries=tuple(sorted(entries, key=lambda entry: entry.path))))


async def deliver(process: Process, artifacts: MemoryArtifacts, mounts: list[tuple[str, str]]) -> None:
    server = Server(ManualClock(), processes=deque([process]))
    await handover.deliver(server, artifacts, namespace="ns", pod="p", mounts=json.dumps(mounts))  # type: ignore[arg-type]


async def outputs(process: Process) -> dict[str, tuple[bytes, bool]]:
    server = Server(ManualClock(), processes=deque([process]))
    found = {}
    async for path, size, executable, content in handover.outputs(server, namespace="ns", pod="p"):  # type: ignore[arg-type]
        data = b"".join([chunk async for chunk in content])
        assert len(data) == size
        found[path] = data, executable
    return found


def unpacked(content: bytes) -> dict[str, tuple[bytes, int]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: (archive.extractfile(member).read(), member.mode) for member in archive}  # type: ignore[union-attr]


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def file(
    name: str, content: bytes = b"x", *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname = mode, kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def says(content: bytes, *, size: int = 700, code: int = 0, complaint: bytes = b"") -> Process:
    pieces = [(Channel.STDOUT, content[start : start + size]) for start in range(0, len(content), size)]
    return Process([*pieces, (Channel.STDERR, complaint)] if complaint else pieces, code=code)


async def test_files_arrive_as_they_were_stored_each_at_its_place():
    artifacts, process = MemoryArtifacts(), Process()
    code = await stored(
        artifacts, {"train.py": b"print(1)", "lib/a b é.py": b"", "run": b"#!" + b"x" * 2_000}, executable="run"
    )
    model = await stored(artifacts, {"weights": b"w" * 512})
    await deliver(process, artifacts, [(".", code), ("models/m", model)])
    assert unpacked(bytes(process.received)) == {
        "work/train.py": (b"print(1)", 0o644),
        "work/lib/a b é.py": (b"", 0o644),
        "work/run": (b"#!" + b"x" * 2_000, 0o755),
        "work/models/m/weights": (b"w" * 512, 0o644),
        "sign/complete": (b"", 0o644),
    }


async def test_a_long_path_arrives_too():
    artifacts, process = MemoryArtifacts(), Process()
    path = "/".join(["folder"] * 40) + "/file"
    await deliver(process, artifacts, [(".", await stored(artifacts, {path: b"x"}))])
    assert unpacked(bytes(process.received)) == {f"work/{path}": (b"x", 0o644), "sign/complete": (b"", 0o644)}


class Real(Process):
    """The command itself, in a folder of ours. As before Kubernetes 1.30, it is not told that its input has ended."""

    def __init__(self, folder: Path, *, cut_at: int = 1 << 30) -> None:
        super().__init__()
        self.folder, self.cut_at = folder, cut_at
        for name in ("work", "sign", "secrets"):
            (folder / name).mkdir(exist_ok=True)

    async def begin(self, argv: Sequence[str]) -> None:
        script = argv[-1].replace("/mainstay", str(self.folder))
        pipe = asyncio.subprocess.PIPE
        self.run = await asyncio.create_subprocess_exec(*argv[:-1], script, stdin=pipe, stdout=pipe, stderr=pipe)

    async def send(self, data: bytes) -> None:
        assert self.run.stdin is not None
        fits = data[: max(0, self.cut_at - len(self.received))]
        self.received += data
        with contextlib.suppress(ConnectionError):
            self.run.stdin.write(fits)
            await self.run.stdin.drain()
        if len(self.received) >= self.cut_at:
            self.run.stdin.close()

    async def receive(self) -> None:
        assert self.run.stderr is not None
        await self.run.stderr.read()
        self.exit_status = await self.run.wait()


class Pod(Server):
    @asynccontextmanager
    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool = False
    ) -> AsyncIterator[Process]:
        async with super().exec(namespace, pod, container, argv, stdin=stdin) as process:
            assert isinstance(process, Real)
            await process.begin(argv)
            yield process


@pytest.mark.timeout(60)
async def test_code_and_secrets_arrive_where_the_end_of_input_cannot_be_told(tmp_path: Path):
    artifacts = MemoryArtifacts()
    code = json.dumps([(".", await stored(artifacts, {"lib/a.py": b"x" * 700_000, "b": b""}, executable="b"))])
    server = Pod(ManualClock(), processes=deque([Real(tmp_path), Real(tmp_path), Real(tmp_path)]))
    await handover.hand_in(server, HANDED, namespace="ns", pod="p")  # type: ignore[arg-type]
    for _ in range(2):
        await handover.deliver(server, artifacts, namespace="ns", pod="p", mounts=code)  # type: ignore[arg-type]
    assert (tmp_path / "secrets/hf-token").read_bytes() == b"hf"
    assert (tmp_path / "work/lib/a.py").read_bytes() == b"x" * 700_000
    assert os.access(tmp_path / "work/b", os.X_OK)
    assert (tmp_path / "sign/complete").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("cut_at", [512, 1_024, 2_048, 2_049])
async def test_a_delivery_that_is_cut_off_is_never_complete(tmp_path: Path, cut_at: int):
    """Also where one file ends and the next begins: to tar that is the end of an archive."""
    artifacts, process = MemoryArtifacts(), Real(tmp_path, cut_at=cut_at)
    code = json.dumps([(".", await stored(artifacts, {"a": b"x" * 512, "b": b"y" * 512}))])
    with contextlib.suppress(Unavailable):
        await handover.deliver(
            Pod(ManualClock(), processes=deque([process])),  # type: ignore[arg-type]
            artifacts,
            namespace="ns",
            pod="p",
            mounts=code,
        )
    assert not (tmp_path / "sign/complete").exists()


async def test_a_pod_that_did_not_take_its_files_is_asked_again_and_says_why():
    artifacts = MemoryArtifacts()
    tree = await stored(artifacts, {"a": b"x"})
    process = Process([(Channel.STDERR, b"tar: no space left\n")], code=1)
    with pytest.raises(Unavailable, match="no space left"):
        await deliver(process, artifacts, [(".", tree)])


async def test_files_that_are_not_stored_are_never_delivered():
    with pytest.raises(Invalid, match="not stored"):
        await deliver(Process(), MemoryArtifacts(), [(".", "0" * 64)])


async def test_a_damaged_file_stops_the_delivery_before_its_end():
    artifacts, process = MemoryArtifacts(), Process()
    tree = await stored(artifacts, {"a": b"good"})
    artifacts.get = lambda _digest: chunks(b"evil")  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        await deliver(process, artifacts, [(".", tree)])
    assert caught.group_contains(Invalid, match="damaged")
    assert b"sign/complete" not in process.received


async def test_output_comes_as_it_was_left():
    content = packed(
        file("./model.txt", b"weights"),
        file("./deep/a", b"y" * 10_000),
        file("./tool", b"#!", mode=0o755),
        file("./empty", b""),
    )
    for size in (1, 511, 512, 100_000):
        assert await outputs(says(content, size=size)) == {
            "model.txt": (b"weights", False),
            "deep/a": (b"y" * 10_000, False),
            "tool": (b"#!", True),
            "empty": (b"", False),
        }


async def test_only_regular_files_are_kept():
    odd = [
        file("./link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        file("./hard", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
        file("./device", kind=tarfile.CHRTYPE),
        file("./pipe", kind=tarfile.FIFOTYPE),
        file("./folder", kind=tarfile.DIRTYPE),
    ]
    assert await outputs(says(packed(*odd, file("./a", b"x")))) == {"a": (b"x", False)}


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "./../../a", "a/../../b", "a\nb", "a//b", "./", "a\\..\\b\x00", "x" * 5_000]
)
async def test_a_name_that_could_leave_its_place_is_refused(name):
    with pytest.raises((Invalid, Unavailable)):
        await outputs(says(packed(file(name, b"x"))))


async def test_what_broke_off_is_not_taken_for_all():
    content = packed(file("./a", b"y" * 2_000))
    for length in (100, 600, 2_000):
        with pytest.raises(Unavailable):
            await outputs(says(content[:length]))


async def test_garbage_is_not_taken_for_files():
    for garbage in (b"\xff" * 2_000, b"no tar at all\n" * 100):
        with pytest.raises(Unavailable):
            await outputs(says(garbage))


async def test_a_helper_that_fails_says_why():
    with pytest.raises(Unavailable, match="cannot read"):
        await outputs(says(packed(file("./a")), code=1, complaint=b"tar: cannot read ./b\n"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", [0, 100, 512, 5_000])
async def test_a_fetch_that_is_cancelled_ends_wherever_it_is(length: int):
    """In the middle of a header, between header and content, in the content: a thread waits for the pod, which is slow."""

    class Slow(Process):
        async def receive(self) -> tuple[Channel, bytes] | None:
            if self._left:
                return await super().receive()
            waits.set()
            await asyncio.Event().wait()
            raise AssertionError

    waits = asyncio.Event()
    threads = threading.active_count()
    fetch = asyncio.create_task(outputs(Slow(says(packed(file("./a", b"y" * 20_000))[:length]).output)))
    await waits.wait()
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    loop = asyncio.get_running_loop()
    await loop.shutdown_default_executor()  # waits for the thread that read
    assert threading.active_count() <= threads


async def test_a_fetch_that_takes_too_long_ends(monkeypatch):
    monkeypatch.setattr(handover, "SECONDS_MAX", 0.01)

    class Silent(Process):
        async def receive(self) -> tuple[Channel, bytes] | None:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(TimeoutError):
        await outputs(Silent())


async def test_a_connection_that_breaks_off_says_so():
    class Broken(Process):
        async def receive(self) -> tuple[Channel, bytes] | None:
            if self._left:
                return await super().receive()
            msg = "the network is away"
            raise Unreachable(msg)

    with pytest.raises(Unavailable, match="the network is away"):
        await outputs(Broken(says(packed(file("./a", b"y" * 20_000))[:5_000]).output))


async def test_no_output_is_none():
    assert await outputs(says(packed())) == {}


OBJECTS = json.dumps([["/data", "s3://bucket/in", "", "store"], ["/results", "", "s3://bucket/out", ""]])
HANDED = (
    Handed(use=SecretUse(name="store", file=False), value=b"A=canary"),
    Handed(use=SecretUse(name="hf-token"), value=b"hf"),
)


async def transfer(process: Process, direction: str, objects: str = OBJECTS) -> None:
    server = Server(ManualClock(), processes=deque([process]))
    await handover.transfer(server, direction, objects, HANDED, namespace="ns", pod="p")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("direction", "copy"),
    [
        ("in", {"url": "s3://bucket/in", "path": "/data", "access": "A=canary"}),
        ("out", {"url": "s3://bucket/out", "path": "/results", "access": ""}),
    ],
)
async def test_what_is_to_be_copied_goes_in_as_one_line_with_what_opens_it(direction: str, copy: dict[str, str]):
    process = Process()
    await transfer(process, direction)
    assert bytes(process.received).count(b"\n") == 1
    assert json.loads(bytes(process.received)) == {"copies": [copy]}


async def test_what_opens_many_stores_goes_in_by_frames_of_a_size_that_any_proxy_takes():
    class Framed(Process):
        async def send(self, data: bytes) -> None:
            assert len(data) <= handover.CHUNK_BYTES
            await super().send(data)

    process = Framed()
    large = (Handed(use=SecretUse(name="store", file=False), value=b"A" * 65_536),)
    objects = json.dumps([[f"/data{number}", "s3://bucket/in", "", "store"] for number in range(20)])
    server = Server(ManualClock(), processes=deque([process]))
    await handover.transfer(server, "in", objects, large, namespace="ns", pod="p")  # type: ignore[arg-type]
    assert len(json.loads(bytes(process.received))["copies"]) == 20


async def test_where_nothing_is_to_be_copied_nobody_is_asked():
    await handover.transfer(None, "in", "", (), namespace="ns", pod="p")  # type: ignore[arg-type]
    await handover.hand_in(None, HANDED[:1], namespace="ns", pod="p")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("complaint", "hint"), [(b"s3://bucket/in: no such bucket", ""), (b"No module named mainstay", "--image")]
)
async def test_a_copy_that_fails_is_told_in_the_words_of_the_store(complaint: bytes, hint: str):
    with pytest.raises(Invalid) as refused:
        await transfer(says(b"", code=1, complaint=complaint), "in")
    assert complaint.decode() in refused.value.message
    assert hint in refused.value.hint
    assert "canary" not in refused.value.message


async def test_what_is_left_waits_for_a_store_that_does_not_answer_and_a_start_does_not():
    with pytest.raises(Unavailable, match="no answer"):
        await transfer(says(b"", code=os.EX_TEMPFAIL, complaint=b"s3://bucket/out: no answer"), "out")
    with pytest.raises(Invalid, match="no answer"):
        await transfer(says(b"", code=os.EX_TEMPFAIL, complaint=b"s3://bucket/in: no answer"), "in")


async def test_secrets_arrive_as_files_that_only_their_user_reads():
    process = Process()
    server = Server(ManualClock(), processes=deque([process]))
    await handover.hand_in(server, HANDED, namespace="ns", pod="p")  # type: ignore[arg-type]
    assert unpacked(bytes(process.received)) == {"hf-token": (b"hf", 0o400)}
    failing = Server(ManualClock(), processes=deque([says(b"", code=1, complaint=b"no space")]))
    with pytest.raises(Unavailable, match="did not take its secrets: no space"):
        await handover.hand_in(failing, HANDED, namespace="ns", pod="p")  # type: ignore[arg-type]
