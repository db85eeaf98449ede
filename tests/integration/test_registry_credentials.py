"""What an administrator has for a registry is sent to that registry, and to nobody else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mainstay.domain.errors import Invalid, Unavailable
from mainstay.outbound import Outbound
from mainstay.registries import Credentials, Registries
from mainstay.registries.keys import image_key
from tests.images import ImageRegistry, Signer, image_registry

SECRET = "correct-horse-battery"
ENCODED = base64.b64encode(f"reader:{SECRET}".encode()).decode()
BASIC = f"Basic {ENCODED}"
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
"""Two registries of the tests are two ports of this machine: sent from one to the other, we need to be allowed to."""


@pytest.fixture
def registry() -> Iterator[ImageRegistry]:
    with image_registry() as server:
        server.passwords = {BASIC}
        server.push("ml/train", "1")
        yield server


@pytest.fixture
def elsewhere() -> Iterator[ImageRegistry]:
    with image_registry() as server:
        yield server


def written(folder: Path, *addresses: str, **more: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {address: {"auth": ENCODED} for address in addresses}, **more}))
    path.chmod(0o600)
    return path


async def pinned(registry: ImageRegistry, file: Path | None, outbound: Outbound | None = None) -> str:
    asks = outbound or Outbound(allowed=LOOPBACK)
    return await Registries(outbound=asks, credentials=Credentials(file)).pinned(f"{registry.host}/ml/train:1")


def bearer(realm: str) -> str:
    return f'Bearer realm="{realm}",service="here"'


async def test_a_registry_that_asks_for_a_password_gets_its_own(registry, tmp_path):
    registry.challenge = 'Basic realm="here"'
    assert await pinned(registry, written(tmp_path, registry.host))
    assert {given for _, given in registry.heard} == {"", BASIC}
    with pytest.raises(Invalid, match="not for us") as refused:
        await pinned(registry, None)
    assert "--registry-credentials" in refused.value.hint


async def test_a_registry_gets_it_where_it_hands_out_tokens_and_nothing_but_the_token_elsewhere(registry, tmp_path):
    registry.challenge = bearer(f"http://{registry.host}/token")
    registry.moved = f"http://{registry.host}"
    assert await pinned(registry, written(tmp_path, registry.host))
    by_path = [(path.split("/")[1], given) for path, given in registry.heard]
    assert by_path == [
        ("v2", ""),
        ("token", BASIC),
        ("v2", "Bearer handed-out"),
        ("v2", "Bearer handed-out"),
        ("moved", ""),
    ]


@pytest.mark.parametrize("how", ["bearer", "redirect of a manifest", "redirect of a blob"])
async def test_a_registry_that_sends_us_elsewhere_sends_no_credentials_there(registry, elsewhere, tmp_path, how):
    there = f"http://{elsewhere.host}"
    if how == "bearer":
        registry.challenge = bearer(f"{there}/token")
    elif how == "redirect of a manifest":
        registry.challenge, registry.answers = "", (307, b"", "text/plain", "", f"{there}/v2/ml/train/manifests/1")
    else:
        registry.challenge, registry.moved = 'Basic realm="here"', there
        elsewhere.blobs = registry.blobs
    file = written(tmp_path, registry.host)
    if how == "redirect of a manifest":
        with pytest.raises(Invalid):
            await pinned(registry, file)
    else:
        assert await pinned(registry, file), "as nobody"
    assert {given for _, given in elsewhere.heard} <= {""}


async def test_a_registry_gets_no_token_of_another_whose_credentials_it_does_not_have(registry, elsewhere, tmp_path):
    """It names where the tokens of another are handed out, and whoever submits names the path: the token would go to it."""
    registry.challenge, elsewhere.passwords = bearer(f"http://{elsewhere.host}/token"), {BASIC}
    file = written(tmp_path, elsewhere.host)
    with pytest.raises(Invalid, match="not for us"):
        await pinned(registry, file)
    auths = json.loads(file.read_text())["auths"]
    auths[registry.host] = {"auth": base64.b64encode(b"reader:another").decode()}
    file.write_text(json.dumps({"auths": auths}))
    with pytest.raises(Invalid, match="not for us"):
        await pinned(registry, file)
    assert {given for _, given in elsewhere.heard} == {""}
    assert {given for _, given in registry.heard} == {""}


async def test_where_tokens_are_handed_out_elsewhere_both_addresses_have_the_same_credentials(
    registry, elsewhere, tmp_path
):
    registry.challenge, elsewhere.passwords = bearer(f"http://{elsewhere.host}/token?of=ml"), {BASIC}
    with pytest.raises(Invalid, match="not for us"):
        await pinned(registry, written(tmp_path, registry.host))
    assert await pinned(registry, written(tmp_path, registry.host, elsewhere.host))
    assert [given for _, given in elsewhere.heard] == ["", BASIC]


@pytest.mark.parametrize("how", ["token", "blob"])
@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("https://169.254.169.254", "it is link-local, where clouds keep the secrets"),
        ("https://10.0.0.1", "it is private"),
        ("https://localhost:{port}", "it is this machine"),
        ("https://127.0.0.1:{port}", "it is this machine"),
        ("http://127.0.0.1:{port}", "it must begin with https"),
        ("//127.0.0.1:{port}", "it must begin with https"),
        ("https://2130706433", "neither a name nor an address"),
    ],
    ids=["metadata", "private", "a name", "loopback", "http", "no scheme", "a number"],
)
async def test_where_a_registry_sends_us_is_judged_as_the_address_of_a_webhook(registry, elsewhere, how, where, why):
    there = where.format(port=elsewhere.server_port)
    registry.challenge = bearer(f"{there}/token") if how == "token" else ""
    registry.moved = there
    with pytest.raises(Invalid, match=f"sends us elsewhere: .*{why}") as refused:
        await pinned(registry, None, Outbound())
    assert "--outbound-allow" in refused.value.hint
    assert refused.value.object == "image"
    assert elsewhere.heard == []


async def test_another_port_of_the_registry_is_another_address(registry, elsewhere):
    registry.challenge, registry.moved = "", f"http://{elsewhere.host}"
    elsewhere.blobs = registry.blobs
    with pytest.raises(Invalid, match="sends us elsewhere"):
        await pinned(registry, None, Outbound())
    assert elsewhere.heard == []
    assert await pinned(registry, None, Outbound(allowed=LOOPBACK))


async def test_what_another_address_hands_out_is_bounded_too(registry, elsewhere):
    registry.challenge, registry.moved = "", f"http://{elsewhere.host}"
    elsewhere.blobs = dict.fromkeys(registry.blobs, b" " * (2 << 20))
    with pytest.raises(Invalid, match="more than 1048576 bytes"):
        await pinned(registry, None)


async def test_an_address_with_a_long_signature_is_asked(registry, elsewhere):
    registry.challenge, registry.moved = "", f"http://{elsewhere.host}/moved/{'x' * 4_000}/.."
    elsewhere.blobs = registry.blobs
    assert await pinned(registry, None)


async def test_an_address_that_is_away_is_told(registry):
    registry.challenge, registry.moved = "", "http://127.0.0.1:9"
    with pytest.raises(Unavailable, match=r"sends us elsewhere: 127\.0\.0\.1 cannot be reached"):
        await pinned(registry, None)


NOWHERE = [
    *("http://auth.example/x", "http://{host}@auth.example/x", "ftp://{host}/x", "file:///etc/passwd", "https:///x"),
    *("https://[", "https://[::g]/", "https://a\u0000b/", "https://exa mple/", "https://x:99999999/"),
]


@pytest.mark.parametrize("where", NOWHERE)
async def test_nothing_leads_out_of_tls_or_to_what_is_no_address(registry, tmp_path, where):
    where = where.format(host=registry.host)
    file = written(tmp_path, registry.host)
    registry.challenge = bearer(where)
    with pytest.raises((Invalid, Unavailable), match=r"not for us|sends us|does not answer"):
        await pinned(registry, file, Outbound())
    registry.challenge, registry.moved = "", where
    with pytest.raises((Invalid, Unavailable), match=r"sends us|does not answer"):
        await pinned(registry, file, Outbound())
    assert {given for _, given in registry.heard} == {""}


async def test_a_file_that_is_replaced_counts_from_then_on_and_a_broken_one_is_told_to_whoever_can_mend_it(
    registry, tmp_path
):
    registry.challenge = 'Basic realm="here"'
    file = written(tmp_path)
    registries = Registries(outbound=Outbound(), credentials=Credentials(file))
    image = f"{registry.host}/ml/train:1"
    with pytest.raises(Invalid):
        await registries.pinned(image)
    written(tmp_path, registry.host)
    assert await registries.pinned(image)
    file.write_text(f'{{"auths": {SECRET}')
    with capture_logs() as logs, pytest.raises(Unavailable, match="our credentials") as refused:
        await registries.pinned(image)
    assert [entry["event"] for entry in logs] == ["registry_credentials_unusable"]
    assert str(tmp_path) not in refused.value.message + refused.value.hint
    assert SECRET not in str(logs)


BAD = {
    "no JSON": "{",
    "no object": "[]",
    "no auths": "{}",
    "a store": json.dumps({"auths": {}, "credsStore": "desktop"}),
    "a helper": json.dumps({"auths": {}, "credHelpers": {"registry.example.com": "ecr-login"}}),
    "headers": json.dumps({"auths": {}, "HttpHeaders": {"X": "y"}}),
    "a token": json.dumps({"auths": {"registry.example.com": {"identitytoken": SECRET}}}),
    "no base64": json.dumps({"auths": {"registry.example.com": {"auth": f"*{SECRET}"}}}),
    "no password": json.dumps({"auths": {"registry.example.com": {"auth": base64.b64encode(b"reader").decode()}}}),
    "no TLS": json.dumps({"auths": {"http://registry.example.com": {"auth": ENCODED}}}),
    "a repository": json.dumps({"auths": {"registry.example.com/ml": {"auth": ENCODED}}}),
    "a user": json.dumps({"auths": {"x@registry.example.com": {"auth": ENCODED}}}),
    "huge": '{"auths": {}}' + " " * (1 << 20),
    "deep": '{"auths":' * 100_000,
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_is_refused_with_what_to_do_and_without_what_it_holds(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_text(BAD[name])
    path.chmod(0o600)
    with pytest.raises(Invalid) as refused:
        Credentials(path)
    assert refused.value.hint
    said = refused.value.message + refused.value.hint
    assert str(path) in said
    assert SECRET not in said
    assert ENCODED not in said


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_open_is_refused(tmp_path, mode):
    path = written(tmp_path, "registry.example.com")
    path.chmod(mode)
    with pytest.raises(Invalid, match="open to others") as refused:
        Credentials(path)
    assert "chmod 600" in refused.value.hint


def test_a_file_that_is_away_is_refused(tmp_path):
    with pytest.raises(Invalid, match="cannot be read"):
        Credentials(tmp_path / "away")


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "https://index.docker.io/v1/"])
def test_docker_hub_is_known_by_its_names_and_hands_out_its_tokens_at_one_of_its_own(tmp_path, name):
    credentials = Credentials(written(tmp_path, name))
    for address in ("registry-1.docker.io", "auth.docker.io"):
        assert credentials.of(address) == {"Authorization": BASIC}
    for address in ("docker.io.example", "auth.docker.io:444", "docker.io@example", "DOCKER.IO", ""):
        assert credentials.of(address) == {}
    assert credentials.for_tokens("registry-1.docker.io", "auth.docker.io") == {"Authorization": BASIC}
    assert credentials.for_tokens("registry.partner.example", "auth.docker.io") == {}
    assert credentials.for_tokens("registry-1.docker.io", "auth.partner.example") == {}


async def test_signatures_are_asked_for_with_them_too(registry, tmp_path):
    signer = Signer()
    digest = registry.push("ml/train", "1")
    registry.signed("ml/train", digest, signer)
    registry.challenge = 'Basic realm="here"'
    credentials = Credentials(written(tmp_path, registry.host))
    registries = Registries(outbound=Outbound(), keys=[image_key(signer.public)], credentials=credentials)
    assert (await registries.pinned(f"{registry.host}/ml/train:1")).endswith(digest)


def test_nothing_of_it_shows_in_what_is_printed(tmp_path):
    assert SECRET not in repr(Credentials(written(tmp_path, "docker.io")))
