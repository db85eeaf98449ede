"""A registered kubeconfig is reduced to addresses and keys, or refused with the field that is wrong (security.md B3)."""

from __future__ import annotations

import builtins
import json
import socket
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.registered import registered
from mainstay.domain.errors import Invalid
from tests.unit.clusters.kubernetes.certificates import ca_pem, client, encoded

SERVER = "https://10.0.0.1:6443"


def kubeconfig(*, cluster: Any = None, user: Any = None, context: Any = None, **top: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [
            {"name": "other", "cluster": {"server": "http://other", "insecure-skip-tls-verify": True}},
            {
                "name": "c",
                "cluster": {"server": SERVER, "certificate-authority-data": encoded(ca_pem())} | (cluster or {}),
            },
        ],
        "users": [
            {"name": "other", "user": {"exec": {"command": "rm"}}},
            {"name": "u", "user": user or {"token": "secret"}},
        ],
        "contexts": [
            {"name": "other", "context": {"cluster": "other", "user": "other"}},
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "a"} | (context or {})},
        ],
        "current-context": "here",
    } | top


def refused(document: Any, **options: Any) -> str:
    with pytest.raises(Invalid) as error:
        registered(document if isinstance(document, str | bytes) else json.dumps(document), **options)
    assert "secret" not in str(error.value) + error.value.hint
    return str(error.value)


@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump])
def test_the_chosen_context_is_all_that_is_kept(write: Any) -> None:
    kept = registered(write(kubeconfig()))
    assert kept == Credentials(server=SERVER, ca=ca_pem(), token="secret")
    assert registered(write(kubeconfig() | {"current-context": "other"}), context="here") == kept


def test_a_client_certificate_is_an_identity_too() -> None:
    certificate, key = client()
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    kept = registered(json.dumps(kubeconfig(user=user, cluster={"tls-server-name": "kubernetes"})))
    assert (kept.certificate, kept.key, kept.tls_server_name, kept.token) == (certificate, key, "kubernetes", "")


@pytest.mark.parametrize(
    ("given_url", "kept"),
    [
        ("https://api.example.org", "https://api.example.org"),
        ("https://API.example.org:443/", "https://api.example.org:443"),
        ("https://rancher.example.org/k8s/clusters/c-m-x", "https://rancher.example.org/k8s/clusters/c-m-x"),
        ("https://[fd00::1]:6443", "https://[fd00::1]:6443"),
        ("https://localhost:6443", "https://localhost:6443"),
    ],
)
def test_addresses_are_kept_in_their_shortest_form(given_url: str, kept: str) -> None:
    assert registered(json.dumps(kubeconfig(cluster={"server": given_url}))).server == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://10.0.0.1",
        "ftp://10.0.0.1",
        "10.0.0.1:6443",
        "https://",
        "https://user:secret@10.0.0.1",
        "https://user@10.0.0.1",
        "https://10.0.0.1?a=b",
        "https://10.0.0.1?",
        "https://10.0.0.1/#a",
        "https://10.0.0.1/../../x",
        "https://10.0.0.1/a//b",
        "https://10.0.0.1/%2e%2e",
        "https://10.0.0.1:0",
        "https://10.0.0.1:65536",
        "https://10.0.0.1:port",
        "https://169.254.169.254/latest",
        "https://[::ffff:169.254.169.254]",
        "https://[fe80::1]",
        "https://168.63.129.16",
        "https://100.100.100.200",
        "https://[fd00:ec2::254]",
        "https://[2002:a9fe:a9fe::]",
        "https://[64:ff9b::a9fe:a9fe]",
        "https://[::]",
        "https://0.0.0.0",
        "https://224.0.0.1",
        "https://2852039166",
        "https://0xa9fea9fe",
        "https://0251.0376.0251.0376",
        "https://127.1",
        "https://10.0.0.1 .example.org",
        "https://exa\tmple.org",
        "https://exam\nple.org\r\nHost: x",
        "https://a..b",
        "https://ex\u0430mple.org",
        "https://example.org\\@evil",
        "file:///etc/passwd",
        "https://" + "a" * 300,
    ],
)
def test_addresses_that_are_none_or_mean_another_are_refused(url: str) -> None:
    assert "cluster.server" in refused(kubeconfig(cluster={"server": url}))


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"user": {"exec": {"command": "sh"}}}, "user.exec"),
        ({"user": {"token": "secret", "exec": {"command": "sh"}}}, "user.exec"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "user.auth-provider"),
        ({"user": {"tokenFile": "/etc/shadow"}}, "user.tokenFile"),
        ({"user": {"client-certificate": "/etc/passwd", "client-key": "k"}}, "user.client-certificate"),
        ({"user": {"token": "secret", "client-key": "/k"}}, "user.client-key"),
        ({"user": {"username": "root", "password": "secret"}}, "user.username"),
        ({"user": {"token": "secret", "as": "system:admin"}}, "user.as"),
        ({"user": {"token": "secret", "as-user-extra": {"a": ["b"]}}}, "user.as-user-extra"),
        ({"user": {"token": "secret", "Exec": {}}}, "user.Exec"),
        ({"user": {"extensions": []}}, "user"),
        ({"user": {"token": "sec ret"}}, "user.token"),
        ({"user": {"token": "secret\r\nX-Remote-User: admin"}}, "user.token"),
        ({"user": {"token": "x" * 20_000}}, "user.token"),
        ({"user": {"token": ["a"]}}, "user.token"),
        ({"user": {"client-certificate-data": encoded(client()[0])}}, "user"),
        (
            {
                "user": {
                    "token": "secret",
                    "client-certificate-data": encoded(client()[0]),
                    "client-key-data": encoded(client()[1]),
                }
            },
            "user",
        ),
        (
            {"user": {"client-certificate-data": encoded(client()[1]), "client-key-data": encoded(client()[0])}},
            "client-certificate-data",
        ),
        ({"user": {"client-certificate-data": "%%%", "client-key-data": "x"}}, "client-certificate-data"),
        ({"cluster": {"certificate-authority": "/etc/passwd"}}, "cluster.certificate-authority"),
        ({"cluster": {"certificate-authority-data": encoded(b"\xff\xfe")}}, "certificate-authority-data"),
        ({"cluster": {"certificate-authority-data": encoded(client()[1])}}, "certificate-authority-data"),
        ({"cluster": {"insecure-skip-tls-verify": True}}, "cluster.insecure-skip-tls-verify"),
        ({"cluster": {"insecure-skip-tls-verify": "yes"}}, "cluster.insecure-skip-tls-verify"),
        ({"cluster": {"proxy-url": "http://10.0.0.9"}}, "cluster.proxy-url"),
        ({"cluster": {"tls-server-name": "a\r\nb"}}, "cluster.tls-server-name"),
        ({"cluster": {"shell": "x"}}, "cluster.shell"),
        ({"context": {"cluster": "missing"}}, "clusters"),
        ({"context": {"user": ""}}, "users"),
        ({"clusters": {}}, "clusters"),
        ({"users": [7]}, "users"),
        ({"contexts": []}, "contexts"),
        ({"current-context": ""}, "current-context"),
        ({"users": [{"name": "u", "user": {"token": "a"}}, {"name": "u", "user": {"token": "b"}}]}, "users"),
    ],
)
def test_what_runs_reads_redirects_or_is_unclear_is_refused(parts: dict[str, Any], field: str) -> None:
    assert f"refused, {field}" in refused(kubeconfig(**parts))


def test_verification_may_be_asked_for() -> None:
    assert registered(json.dumps(kubeconfig(cluster={"insecure-skip-tls-verify": False}))).server == SERVER


def test_a_key_that_belongs_to_another_certificate_is_refused() -> None:
    from tests.unit.clusters.kubernetes.certificates import authority

    other = authority().issue_cert("other@example.org").private_key_pem.bytes()
    user = {"client-certificate-data": encoded(client()[0]), "client-key-data": encoded(other)}
    assert "do not fit together" in refused(kubeconfig(user=user))


def test_an_authority_that_openssl_cannot_read_is_refused() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert "authority" in refused(kubeconfig(cluster={"certificate-authority-data": encoded(broken)}))


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "<<: *x",
        "a: &x b",
        "a: !!python/object/apply:os.system [id]",
        "a: !!binary aGk=",
        "a: 1\na: 2",
        "? [a]\n: b",
        "--- a\n--- b",
        "",
        "# nothing",
        "a: [",
        "\0",
        b"\xff\xfe\x00",
        "[" * 100_000,
        "a" * 300_000,
        "just text",
        "[]",
        "%YAML 9.9\n---\na: b",
    ],
    ids=range(18),
)
def test_more_than_plain_yaml_is_refused_before_it_can_do_harm(text: str | bytes) -> None:
    assert "refused, document" in refused(text)


def test_nothing_is_opened_run_or_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    for place, name in ((builtins, "open"), (subprocess, "Popen"), (socket, "socket"), (socket, "getaddrinfo")):
        monkeypatch.setattr(place, name, never)
    certificate, key = client()
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    assert registered(json.dumps(kubeconfig(user=user))).key == key
    refused(kubeconfig(user={"exec": {"command": "sh"}}))
    refused(kubeconfig(cluster={"certificate-authority": "/etc/passwd"}))


def test_no_secret_is_printed_and_all_is_stored() -> None:
    certificate, key = client()
    for kept in (
        Credentials(server=SERVER, ca=ca_pem(), token="secret", tls_server_name="x"),
        Credentials(server=SERVER, certificate=certificate, key=key),
    ):
        for context in ("", "team/east: 1"):
            assert registered(kept.to_kubeconfig(context=context), context=context) == kept
        for text in (repr(kept), str(kept), f"{kept}"):
            assert "secret" not in text
            assert "BEGIN" not in text


yaml_like = st.recursive(
    st.text(max_size=8) | st.booleans() | st.none() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["clusters", "users", "contexts", "name", "cluster", "user", "context", "server", "token", "exec"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.text() | yaml_like.map(json.dumps) | yaml_like.map(yaml.safe_dump) | st.binary())
def test_whatever_is_sent_is_refused_in_words(text: str | bytes) -> None:
    with pytest.raises(Invalid):
        registered(text)


@given(yaml_like, st.sampled_from(["clusters", "users", "contexts", "current-context"]))
def test_whatever_is_in_a_part_is_refused_in_words(tree: Any, part: str) -> None:
    with pytest.raises(Invalid):
        registered(json.dumps(kubeconfig() | {part: tree}))
