"""What every artifact store promises, over a directory, S3 (a local server that speaks its protocol) and memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from mainstay.artifacts.objects import ObjectArtifacts, ObjectArtifactStore, open_artifacts
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Fenced, Invalid, NotFound, NotYet, StateUnusable
from mainstay.ports import Artifacts, ArtifactStore
from mainstay.simulation.files import MemoryArtifactStore

LARGE = 12 << 20
DEFAULT, OURS = Owner(tenant="default", project="default"), Owner(tenant="acme", project="vision")
OTHERS = (
    DEFAULT,
    Owner(tenant="default", project="vision"),
    Owner(tenant="acme", project="default"),
    Owner(tenant="vision", project="acme"),
)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server_module = pytest.importorskip("moto.server", reason="the S3 server for tests is not installed: make setup")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "memory":
        return MemoryArtifactStore()
    if request.param == "directory":
        return open_artifacts(str(tmp_path / "artifacts"))
    bucket = f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}"
    url = request.getfixturevalue("s3_url")
    import httpx2

    httpx2.put(f"{url}/{bucket}").raise_for_status()
    store = S3Store(
        bucket,
        endpoint=url,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    return ObjectArtifactStore(store)


@pytest.fixture(params=[DEFAULT, OURS, None], ids=["default", "ours", "logs"])
def artifacts(request: pytest.FixtureRequest, store: ArtifactStore) -> Artifacts:
    return store.of(request.param) if request.param else store.logs


async def chunks(content: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def read(artifacts: Artifacts, name: str) -> bytes:
    return b"".join([chunk async for chunk in artifacts.get(name)])


async def stored_tree(artifacts: Artifacts, files: dict[str, bytes]) -> str:
    for content in files.values():
        await artifacts.put(digest(content), chunks(content))
    entries = (Entry(path=path, size=len(files[path]), digest=digest(files[path])) for path in sorted(files))
    return await artifacts.put_tree(Tree(entries=tuple(entries)))


@pytest.mark.parametrize("content", [b"", b"hello", os.urandom(LARGE)], ids=["empty", "small", "several parts"])
async def test_a_blob_comes_back_as_it_went(artifacts: Artifacts, content: bytes) -> None:
    name = digest(content)
    assert await artifacts.missing([name]) == (name,)
    assert await artifacts.put(name, chunks(content)) == len(content)
    assert await artifacts.missing([name, name]) == ()
    assert await read(artifacts, name) == content


@pytest.mark.parametrize("size", [1, LARGE])
async def test_content_with_another_digest_is_refused_and_leaves_nothing(artifacts: Artifacts, size: int) -> None:
    name = digest(b"something else")
    with pytest.raises(Invalid, match="another digest"):
        await artifacts.put(name, chunks(os.urandom(size)))
    assert await artifacts.missing([name]) == (name,)


async def test_an_upload_that_breaks_off_leaves_nothing(artifacts: Artifacts) -> None:
    content = os.urandom(LARGE)

    async def breaking() -> AsyncIterator[bytes]:
        yield content[: LARGE // 2]
        msg = "the client went away"
        raise ConnectionError(msg)

    with pytest.raises(Exception, match="went away"):
        await artifacts.put(digest(content), breaking())
    assert await artifacts.missing([digest(content)]) == (digest(content),)


async def test_putting_the_same_blob_again_changes_nothing(artifacts: Artifacts) -> None:
    for _ in range(2):
        await artifacts.put(digest(b"twice"), chunks(b"twice"))
    assert await read(artifacts, digest(b"twice")) == b"twice"


async def test_a_tree_needs_its_blobs(artifacts: Artifacts) -> None:
    tree = Tree(entries=(Entry(path="a", size=1, digest=digest(b"a")),))
    with pytest.raises(NotYet) as refusal:
        await artifacts.put_tree(tree)
    assert refusal.value.numbers["missing"] == digest(b"a")
    name = await stored_tree(artifacts, {"a": b"a"})
    assert name == tree.digest
    assert await artifacts.tree(name) == tree


async def test_a_tree_whose_sizes_are_wrong_is_refused(artifacts: Artifacts) -> None:
    await artifacts.put(digest(b"abc"), chunks(b"abc"))
    tree = Tree(entries=(Entry(path="a", size=999, digest=digest(b"abc")),))
    with pytest.raises(Invalid, match="a has 3 bytes, not 999"):
        await artifacts.put_tree(tree)
    with pytest.raises(NotFound):
        await artifacts.tree(tree.digest)


async def test_an_older_attempt_never_overwrites_a_newer_one(artifacts: Artifacts) -> None:
    old, new = await stored_tree(artifacts, {"f": b"old"}), await stored_tree(artifacts, {"f": b"new"})
    await artifacts.commit("digits-1/output", attempt=2, tree=new)
    with pytest.raises(Fenced, match="attempt 2"):
        await artifacts.commit("digits-1/output", attempt=1, tree=old)
    assert await artifacts.head("digits-1/output") == (2, new)


@pytest.mark.parametrize("store", ["directory", "s3"], indirect=True)
async def test_an_older_attempt_that_slips_past_the_check_still_does_not_win(artifacts: ObjectArtifacts) -> None:
    """The race that the check alone would lose: attempt 1 looked before attempt 2 committed, and writes after it."""
    old, new = await stored_tree(artifacts, {"f": b"old"}), await stored_tree(artifacts, {"f": b"new"})
    await artifacts.commit("digits-1/output", attempt=2, tree=new)
    await obstore.put_async(artifacts._store, f"{artifacts._prefix}slots/digits-1/output/00000001", old.encode())
    assert await artifacts.head("digits-1/output") == (2, new)


async def test_the_same_attempt_may_commit_a_later_checkpoint(artifacts: Artifacts) -> None:
    first, second = await stored_tree(artifacts, {"f": b"1"}), await stored_tree(artifacts, {"f": b"2"})
    await artifacts.commit("digits-1/checkpoint", attempt=1, tree=first)
    await artifacts.commit("digits-1/checkpoint", attempt=1, tree=second)
    assert await artifacts.head("digits-1/checkpoint") == (1, second)


async def test_what_is_not_there_is_not_found(artifacts: Artifacts) -> None:
    with pytest.raises(NotFound):
        await read(artifacts, digest(b"nothing"))
    with pytest.raises(NotFound):
        await artifacts.tree(digest(b"nothing"))
    with pytest.raises(NotFound):
        await artifacts.head("nobody/output")


@pytest.mark.parametrize("name", ["", "abc", "../" * 20 + "etc/passwd", "A" * 64, "0" * 63 + "/", "0" * 64 + "\n"])
async def test_only_a_digest_names_a_blob(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(Invalid):
        await artifacts.missing([name])
    with pytest.raises(Invalid):
        await artifacts.put(name, chunks(b"x"))


@pytest.mark.parametrize("slot", ["", "/", "..", "../x", "a/../b", "a//b", "a/b/c", "A/b", "a/.hidden", "a\0b"])
async def test_only_a_plain_name_is_a_slot(artifacts: Artifacts, slot: str) -> None:
    with pytest.raises(Invalid):
        await artifacts.commit(slot, attempt=1, tree="0" * 64)


@pytest.mark.parametrize("url", ["ftp://host/path", "s3://", "nonsense://x"])
def test_an_address_that_is_none_is_refused_in_a_sentence(url):
    with pytest.raises(StateUnusable, match=f"cannot keep files in {url}") as refused:
        open_artifacts(url)
    assert "\n" not in refused.value.message


def test_a_place_without_trusted_authorities_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    with pytest.raises(StateUnusable, match="cannot keep files in s3://bucket"):
        open_artifacts("s3://bucket")


@pytest.mark.parametrize(
    "where", [*OTHERS, None], ids=lambda where: f"{where.tenant}-{where.project}" if where else "logs"
)
async def test_what_one_owner_has_is_not_there_for_another(store: ArtifactStore, where: Owner | None) -> None:
    """Neither its content nor that somebody has it: it is asked for, and answered, as what nobody ever stored."""
    theirs = store.of(where) if where else store.logs
    tree = await stored_tree(store.of(OURS), {"f": b"secret"})
    await store.of(OURS).commit("digits-1/output", attempt=1, tree=tree)
    assert await theirs.missing([digest(b"secret")]) == (digest(b"secret"),)
    with pytest.raises(NotFound):
        await read(theirs, digest(b"secret"))
    with pytest.raises(NotFound):
        await theirs.tree(tree)
    with pytest.raises(NotFound):
        await theirs.head("digits-1/output")
    with pytest.raises(NotYet) as refusal:
        await theirs.put_tree(await store.of(OURS).tree(tree))
    assert refusal.value.numbers["missing"] == digest(b"secret")
    await theirs.commit("digits-1/output", attempt=9, tree="0" * 64)
    assert await store.of(OURS).head("digits-1/output") == (1, tree)


async def test_the_same_file_of_two_owners_is_stored_for_each(store: ArtifactStore) -> None:
    for owner in (OURS, DEFAULT):
        await stored_tree(store.of(owner), {"f": b"the same"})
    for owner in (OURS, DEFAULT):
        assert await read(store.of(owner), digest(b"the same")) == b"the same"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "A", "a\0", "a\n", "x" * 41])
async def test_only_a_name_names_an_owner(store: ArtifactStore, name: str) -> None:
    for owner in (Owner(tenant=name, project="default"), Owner(tenant="acme", project=name)):
        with pytest.raises(Invalid, match="not a project of a tenant"):
            store.of(owner)


async def test_the_default_project_has_its_files_where_all_files_were(tmp_path: Path) -> None:
    name = digest(b"old")
    old = tmp_path / "blobs" / name[:2] / name
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    store = open_artifacts(str(tmp_path))
    assert await read(store.of(DEFAULT), name) == b"old"
    assert await store.of(OURS).missing([name]) == (name,)
