"""The administrator's own kubeconfig and service account: files and plug-ins are trusted, and read anew."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from mainstay.clusters.kubernetes import local
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.errors import ApiError, Invalid, Unauthenticated
from mainstay.clusters.kubernetes.sources import Reread
from tests.clock import START_US, ManualClock
from tests.unit.clusters.kubernetes.certificates import ca_pem, client, encoded

SERVER = "https://10.0.0.1:6443"


def written(folder: Path, *, user: Any, cluster: Any = None) -> Path:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": SERVER + "/"} | (cluster or {})}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "here",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


def plugin(folder: Path, *lines: str) -> dict[str, Any]:
    path = folder / "login"
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "args": ["now"]}}


def answers(**status: str) -> str:
    return f"echo '{json.dumps({'kind': 'ExecCredential', 'status': status})}'"


async def read(path: Path, *, clock: ManualClock | None = None, **options: str) -> Credentials:
    return await local.kubeconfig(path, clock=clock or ManualClock(), **options).current()


async def failed(path: Path) -> ApiError:
    with pytest.raises(ApiError) as error:
        await read(path)
    assert "secret" not in f"{error.value} {error.value.hint}"
    return error.value


async def test_embedded_values_and_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    certificate, key = client()
    (tmp_path / "key.pem").write_text(key)
    (tmp_path / "ca.pem").write_text(ca_pem())
    user = {"client-certificate-data": encoded(certificate), "client-key": "key.pem"}
    cluster = {"certificate-authority": "ca.pem", "tls-server-name": "kubernetes", "proxy-url": "http://proxy:3128"}
    assert await read(written(tmp_path, user=user, cluster=cluster)) == Credentials(
        server=SERVER,
        ca=ca_pem(),
        certificate=certificate,
        key=key,
        tls_server_name="kubernetes",
        proxy="http://proxy:3128",
    )


async def test_a_token_file_is_read_again_after_a_minute_and_when_it_is_refused(tmp_path: Path) -> None:
    clock, token = ManualClock(), tmp_path / "token"
    token.write_text("one\n")
    source = local.kubeconfig(written(tmp_path, user={"tokenFile": str(token)}), clock=clock)
    first = await source.current()
    token.write_text("two\n")
    assert await source.current() is first
    clock.advance(61.0)
    second = await source.current()
    assert (first.token, second.token) == ("one", "two")
    assert await source.renewed(second) is second
    token.write_text("three\n")
    assert await source.renewed(first) is second  # somebody has read it since
    assert (await source.renewed(second)).token == "three"


async def test_what_has_not_changed_stays_the_same_object(tmp_path: Path) -> None:
    clock = ManualClock()
    source = local.kubeconfig(written(tmp_path, user={"token": "t"}), clock=clock)
    first = await source.current()
    clock.advance(100.0)
    assert await source.current() is first


async def test_a_plug_in_logs_in_until_shortly_before_its_login_expires(tmp_path: Path) -> None:
    clock = ManualClock()
    log = tmp_path / "log"
    user = plugin(
        tmp_path,
        f'echo "$1 $KUBERNETES_EXEC_INFO" >> {log}',
        answers(token="fresh", expirationTimestamp="2023-11-14T22:23:20Z"),  # ten minutes after the start
    )
    assert START_US == 1_700_000_000_000_000
    source = local.kubeconfig(written(tmp_path, user=user), clock=clock)
    assert (await source.current()).token == "fresh"
    clock.advance(9 * 60)
    await source.current()
    assert len(log.read_text().splitlines()) == 1
    clock.advance(31)
    await source.current()
    asked = log.read_text().splitlines()
    assert len(asked) == 2
    told = json.loads(asked[0].removeprefix("now "))
    assert told["apiVersion"] == "client.authentication.k8s.io/v1"
    assert told["spec"] == {"interactive": False, "cluster": {"server": SERVER + "/"}}


async def test_a_plug_in_is_not_run_for_every_request_by_a_clock_that_is_ahead_or_a_server_that_refuses(
    tmp_path: Path,
) -> None:
    clock, log = ManualClock(), tmp_path / "log"
    clock.jump(3600.0)
    fresh = f"""echo '{{"status": {{"token": "'$(wc -l < {log})'", "expirationTimestamp": "2023-11-14T22:28:20Z"}}}}'"""
    user = plugin(tmp_path, f"echo >> {log}", fresh)  # good for a quarter of an hour, by the right clock
    source = local.kubeconfig(written(tmp_path, user=user), clock=clock)
    first = await source.current()
    for _ in range(3):
        assert await source.current() is first
        assert await source.renewed(first) is first
    clock.advance(local.LOGIN_AGAIN_SECONDS)
    second = await source.renewed(first)
    assert (first.token, second.token, await source.current()) == ("1", "2", second)
    clock.advance(local.LOGIN_AGAIN_SECONDS)
    assert (await source.current()).token == "3"
    changed = {"exec": {**user["exec"], "args": ["otherwise"]}}
    written(tmp_path, user=changed)
    assert (await source.renewed(await source.current())).token == "4"


async def test_a_plug_in_may_answer_with_a_certificate(tmp_path: Path) -> None:
    user = plugin(tmp_path, answers(clientCertificateData="CERTIFICATE", clientKeyData="KEY"))
    kept = await read(written(tmp_path, user=user))
    assert (kept.certificate, kept.key, kept.token) == ("CERTIFICATE", "KEY", "")


@pytest.mark.parametrize("script", ["echo no; exit 1", "echo 'you are logged out' >&2; exit 7", "echo '{'", "exit 0"])
async def test_a_plug_in_that_fails_is_told_in_its_own_words(tmp_path: Path, script: str) -> None:
    error = await failed(written(tmp_path, user=plugin(tmp_path, script)))
    assert isinstance(error, Unauthenticated)
    assert "you are logged out" in error.message or "you are" not in script


async def test_a_plug_in_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOGIN_SECONDS_MAX", 0.2)
    async with asyncio.timeout(10.0):
        assert isinstance(await failed(written(tmp_path, user=plugin(tmp_path, "exec sleep 60"))), Unauthenticated)


async def test_a_plug_in_that_is_missing_or_too_old_is_told(tmp_path: Path) -> None:
    user = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-program", "installHint": "get it"}
    }
    assert (await failed(written(tmp_path, user=user))).hint == "get it"
    user["exec"]["apiVersion"] = "client.authentication.k8s.io/v1alpha1"
    assert isinstance(await failed(written(tmp_path, user=user)), Invalid)


@pytest.mark.parametrize(
    "change",
    [
        {"user": {"auth-provider": {"name": "gcp"}}},
        {"user": {"username": "root", "password": "secret"}},
        {"user": {"client-certificate-data": "%%", "client-key-data": "x"}},
        {"user": {"tokenFile": "/no/such/file"}},
        {"user": {"token": 7}},
        {"user": "root"},
        {"user": {"token": "secret"}, "cluster": {"insecure-skip-tls-verify": True}},
    ],
)
async def test_what_cannot_be_used_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    assert isinstance(await failed(written(tmp_path, **change)), Invalid)


@pytest.mark.parametrize(
    "text", ["token: secret: [", "[]", "a", "{}", '{"clusters": 1}', '{"clusters": [1]}', "current-context: x"]
)
async def test_what_is_no_kubeconfig_is_told_in_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    error = await failed(path)
    assert isinstance(error, Invalid)
    assert not {"object", "attribute", "NoneType", "subscriptable", "indices"} & set(error.message.split()), error


async def test_a_missing_file_and_a_missing_context_are_told(tmp_path: Path) -> None:
    assert isinstance(await failed(tmp_path / "none"), Invalid)
    with pytest.raises(Invalid, match="elsewhere"):
        await read(written(tmp_path, user={"token": "t"}), context="elsewhere")


async def test_the_service_account_of_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"token": "t1", "ca.crt": ca_pem(), "namespace": "mainstay"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    clock = ManualClock()
    source = local.in_cluster(clock=clock, account=str(tmp_path))
    assert await source.current() == Credentials(server="https://10.96.0.1:443", ca=ca_pem(), token="t1")
    (tmp_path / "token").write_text("t2")
    clock.advance(61.0)
    assert (await source.current()).token == "t2"


async def test_outside_of_a_pod_there_is_no_service_account(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no service account"):
        await local.in_cluster(clock=ManualClock(), account=str(tmp_path)).current()


async def test_many_that_ask_at_once_read_once() -> None:
    reads = []

    async def slow() -> tuple[Credentials, float]:
        reads.append(1)
        await asyncio.sleep(0.01)
        return Credentials(server=SERVER, token=str(len(reads))), 60.0

    source = Reread(slow, clock=ManualClock())
    held = await asyncio.gather(*(source.current() for _ in range(20)))
    assert len(reads) == 1
    await asyncio.gather(*(source.renewed(held[0]) for _ in range(20)))
    assert len(reads) == 2
