"""Files between folders and an object store, by the process that runs in pods."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

import mainstay.transfer as program
from mainstay.transfer import Refused, Unanswered, _refused, settings_of
from tests.objects import Objects, objects


@pytest.fixture(scope="module")
def bucket() -> Iterator[Objects]:
    with objects() as running:
        yield running


def transfer(direction: str, url: str, folder: Path, access: bytes) -> subprocess.CompletedProcess[str]:
    copies = {"copies": [{"url": url, "path": str(folder), "access": access.decode()}]}
    return subprocess.run(
        [sys.executable, "-m", "mainstay.transfer", direction],
        input=json.dumps(copies) + "\n",
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_under_an_address_comes_in_and_twice_is_once(bucket: Objects, tmp_path: Path):
    large = os.urandom(11 << 20)
    files = {f"part-{number}/f{number}": bytes([number]) * number for number in range(20)} | {"large": large}
    for path, content in files.items():
        bucket.put(f"sets/digits/{path}", content)
    bucket.put("sets/digits-other/x", b"not meant")
    for _ in range(2):
        done = transfer("in", "s3://bucket/sets/digits/", tmp_path, bucket.access())
        assert (done.returncode, done.stderr) == (0, "")
        assert tree(tmp_path) == files
    assert f"21 files, {sum(map(len, files.values()))} bytes" in done.stdout


def test_one_object_comes_in_as_one_file(bucket: Objects, tmp_path: Path):
    bucket.put("models/weights.bin", b"w")
    assert transfer("in", "s3://bucket/models/weights.bin", tmp_path, bucket.access()).returncode == 0
    assert tree(tmp_path) == {"weights.bin": b"w"}


def test_what_a_job_left_goes_out_without_its_links(bucket: Objects, tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "m.bin").write_bytes(b"x" * (6 << 20))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    done = transfer("out", "s3://bucket/results/1", tmp_path, bucket.access())
    assert (done.returncode, done.stderr) == (0, "")
    assert bucket.content("results/1") == {"results/1/a/m.bin": b"x" * (6 << 20), "results/1/empty": b""}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/nothing-here", "s3://bucket/nothing-here"),
        ("s3://no-such-bucket/x", "s3://no-such-bucket/x"),
    ],
)
def test_what_is_not_there_is_told_by_its_address_and_without_a_credential(
    bucket: Objects, tmp_path: Path, url: str, said: str
):
    done = transfer("in", url, tmp_path, bucket.access())
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr


def test_a_key_that_would_leave_the_folder_is_refused(bucket: Objects, tmp_path: Path):
    # The store itself normalises keys of this client, so the rule is asked directly.
    from mainstay.transfer import _inside

    for name in ("../x", "a/../../x", "/x", "a//b", "a\\b", ".", ""):
        with pytest.raises(Refused):
            _inside(name, "s3://bucket")
    assert _inside("a/b c.é", "s3://bucket") == "a/b c.é"


def test_a_full_disk_or_a_folder_that_cannot_be_made_is_told_in_words(bucket: Objects, tmp_path: Path):
    bucket.put("one/x", b"x")
    (tmp_path / "file").touch()
    done = transfer("in", "s3://bucket/one", tmp_path / "file" / "under", bucket.access())
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


@pytest.mark.parametrize(
    ("url", "access", "settings"),
    [
        ("s3://b", "", {"skip_signature": True}),
        (
            "s3://b",
            "# mine\nexport AWS_REGION=eu\n\nAWS_ACCESS_KEY_ID = 'a'",
            {"AWS_REGION": "eu", "AWS_ACCESS_KEY_ID": "a"},
        ),
        ("gs://b", '{"type": "service_account"}', {"service_account_key": '{"type": "service_account"}'}),
        ("az://b", "AZURE_STORAGE_ACCOUNT_KEY=a==", {"AZURE_STORAGE_ACCOUNT_KEY": "a=="}),
    ],
)
def test_a_secret_opens_a_store_as_the_tools_of_its_provider_would(url: str, access: str, settings: dict[str, object]):
    assert settings_of(url, access) == settings


@pytest.mark.parametrize(("url", "access"), [("s3://b", '{"canary": 1}'), ("s3://b", "canary")])
def test_a_secret_that_is_no_such_thing_is_refused_and_not_repeated(url: str, access: str):
    with pytest.raises(Refused) as refused:
        settings_of(url, access)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(("name", "code"), [("bucket", os.EX_TEMPFAIL), ("no-such-bucket", 1)])
def test_a_store_that_does_not_answer_may_be_asked_again_and_one_that_refuses_not(
    bucket: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
):
    monkeypatch.setattr(program, "RETRY_SECONDS", 0)
    (tmp_path / "x").write_bytes(b"x")
    access = bucket.access().decode()
    if code == os.EX_TEMPFAIL:
        access = access.replace(f":{bucket.port}", ":1")  # where nobody listens
    copies = [{"url": f"s3://{name}/x", "path": str(tmp_path), "access": access}]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"copies": copies}) + "\n"))
    assert program.main("out") == code


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("HTTP error: error sending request", Unanswered),
        ("Server returned non-2xx status code: 503 Slow Down", Unanswered),
        ("Server returned non-2xx status code: 429 Too Many Requests", Unanswered),
        ("Server returned non-2xx status code: 404 Not Found", Refused),
        ("HTTP error: builder error", Refused),
    ],
)
def test_what_a_store_says_tells_whether_another_try_may_do_it(said: str, kind: type[Refused]):
    assert type(_refused("s3://b", GenericError(said))) is kind


def test_an_unknown_setting_is_named_and_its_value_is_not(bucket: Objects, tmp_path: Path):
    done = transfer("in", "s3://bucket/x", tmp_path, b"AWS_NONSENSE=canary")
    assert done.returncode == 1
    assert "nonsense" in done.stderr
    assert "canary" not in done.stderr
