"""A tag is asked for at a registry over HTTP, and becomes the digest of what the registry hands out."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from mainstay.domain.errors import Invalid, Unavailable
from mainstay.outbound import Outbound
from mainstay.registries import Registries
from mainstay.registries.repository import MANIFEST_BYTES_MAX
from tests.images import INDEX, MANIFEST, ImageRegistry, image_registry


@pytest.fixture
def registry() -> Iterator[ImageRegistry]:
    with image_registry() as server:
        yield server


@pytest.fixture
def digest(registry: ImageRegistry) -> str:
    return registry.push("train", "1")


async def pinned(registry: ImageRegistry, name: str = "train:1") -> str:
    return await Registries(outbound=Outbound()).pinned(f"{registry.host}/{name}")


@pytest.mark.parametrize("guarded", [False, True])
async def test_a_tag_becomes_the_digest_of_what_is_handed_out(registry, digest, guarded):
    registry.challenge = (
        f'Bearer realm="http://{registry.host}/token",service="here",scope="ignored"' if guarded else ""
    )
    assert await pinned(registry) == f"{registry.host}/train:1@{digest}"
    assert registry.scopes == (["repository:train:pull"] if guarded else [])


async def test_an_image_without_a_tag_is_the_latest(registry):
    digest = registry.push("train", "latest")
    assert (await pinned(registry, "train")).endswith(f"/train@{digest}")


async def test_an_image_with_a_digest_is_that_or_nothing(registry, digest):
    assert (await pinned(registry, f"train:2@{digest}")).endswith(f"/train:2@{digest}")
    registry.tags[f"train@{digest}"] = (MANIFEST, b"{}")
    with pytest.raises(Invalid, match="is not that"):
        await pinned(registry, f"train:2@{digest}")
    with pytest.raises(Invalid, match="is not found at localhost"):
        await pinned(registry, f"train:1@sha256:{'0' * 64}")


async def test_an_image_that_is_not_there_is_told(registry, digest):
    with pytest.raises(Invalid, match="other:1' is not found at localhost"):
        await pinned(registry, "other:1")


HUGE = b" " * (MANIFEST_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, b"<html>sign in</html>", "text/html"), Invalid),
        ((302, b"", "text/plain", "", "http://127.0.0.1:9/elsewhere"), Invalid),
        ((401, b"", "text/plain", 'Bearer realm="http://metadata.example/token"'), Invalid),
        ((401, b"", "text/plain", "Basic"), Invalid),
        ((403, b"", "text/plain"), Invalid),
        ((429, b"", "text/plain"), Unavailable),
        ((500, b"", "text/plain"), Unavailable),
        ((200, HUGE, MANIFEST), Invalid),
    ],
)
async def test_no_other_answer_becomes_a_digest_and_none_leads_elsewhere(registry, answer, error):
    registry.answers = answer
    with pytest.raises(error) as refused:
        await pinned(registry)
    assert refused.value.hint
    assert set(registry.paths) == {"/v2/train/manifests/1"}


async def test_a_registry_that_is_away_is_told(registry):
    with pytest.raises(Unavailable, match="does not answer"):
        await Registries(outbound=Outbound()).pinned("localhost:9/train:1")


async def test_blobs_may_lie_elsewhere_and_are_what_their_digest_says_wherever(registry, digest):
    registry.moved = f"http://localhost:{registry.server_port}"
    assert (await pinned(registry)).endswith(digest)
    registry.blobs = dict.fromkeys(registry.blobs, b'{"config": {}}')
    with pytest.raises(Invalid, match="is not that"):
        await pinned(registry)
    registry.moved = "http://metadata.example"
    with pytest.raises(Invalid, match=r"sends us elsewhere: .* must begin with https"):
        await pinned(registry)


# What an image brings along.


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("LD_PRELOAD=/lib/evil.so", "LD_PRELOAD"),
        ("LD_AUDIT=/lib/evil.so", "LD_AUDIT"),
        ("NVIDIA_VISIBLE_DEVICES=GPU-8ab3", "NVIDIA_VISIBLE_DEVICES"),
        ("NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES"),
        ("NVIDIA_MIG_CONFIG_DEVICES=all", "NVIDIA_MIG_CONFIG_DEVICES"),
        ("NVIDIA_IMEX_CHANNELS=0", "NVIDIA_IMEX_CHANNELS"),
    ],
)
async def test_an_image_that_reaches_out_of_its_container_is_refused_also_by_its_digest(registry, variable, named):
    digest = registry.push("train", "1", ["PATH=/bin", variable])
    for name in ("train:1", f"train@{digest}"):
        with pytest.raises(Invalid, match=f"it sets {named}") as refused:
            await pinned(registry, name)
        assert "in its command" in refused.value.hint


async def test_what_images_for_gpus_say_of_themselves_is_taken(registry):
    said = [
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "NVIDIA_REQUIRE_CUDA=cuda>=12.4",
    ]
    registry.push("train", "1", [*said, "LD_LIBRARY_PATH=/usr/local/nvidia/lib64", "LD_PRELOAD="])
    assert await pinned(registry)


EVIL = ("LD_PRELOAD=/lib/evil.so",)


def entry(digest: str, os: str = "linux", architecture: str = "amd64") -> dict[str, object]:
    return {"mediaType": MANIFEST, "digest": digest, "platform": {"os": os, "architecture": architecture}}


@pytest.mark.parametrize(
    "platform",
    [
        '{"os": "linux", "architecture": "amd64"}',
        '{"os": "linux", "architecture": "arm64", "variant": "v8"}',
        '{"os": "Linux", "architecture": "X86_64"}',
        '{"architecture": "aarch64"}',
        "{}",
        "null",
        '{"os": "windows", "OS": "linux", "architecture": "amd64"}',
        '{"os": "windows", "architecture": "amd64"}, "Platform": {"os": "linux", "architecture": "amd64"}',
    ],
)
async def test_of_an_index_all_images_that_a_node_could_run_are_looked_at(registry, platform):
    good, evil = registry.push("train", "good"), registry.push("train", "evil", EVIL)
    other = f'{{"digest": "{evil}", "platform": {platform}}}'
    registry.put("train", "1", f'{{"manifests": [{json.dumps(entry(good))}, {other}]}}'.encode(), INDEX)
    with pytest.raises(Invalid, match="it sets LD_PRELOAD"):
        await pinned(registry)


async def test_of_an_index_what_no_node_runs_is_left_alone(registry):
    good, evil = registry.push("train", "good"), registry.push("train", "evil", EVIL)
    whole = registry.push_index(
        "train",
        "1",
        [entry(good), entry(evil, os="windows"), entry(f"sha256:{'0' * 64}", os="unknown", architecture="unknown")],
    )
    assert (await pinned(registry)).endswith(f"train:1@{whole}")


async def test_an_image_that_could_be_read_in_two_ways_is_refused(registry):
    good, evil = registry.push("train", "good"), registry.push("train", "evil", EVIL)
    configs = [registry.tags[f"train@{one}"][1] for one in (good, evil)]
    good_config, evil_config = [content.split(b'"config": ')[1].split(b"}")[0] + b"}" for content in configs]
    both = registry.put("train", "both", b'{"manifests": [], "config": ' + good_config + b"}")
    cases = {
        "index and image": (b'{"manifests": [{"digest": "' + good.encode() + b'"}], "config": ' + evil_config + b"}", INDEX),
        "index with layers": (b'{"manifests": [{"digest": "' + good.encode() + b'"}], "layers": []}', INDEX),
        "image and index": (b'{"manifests": [], "layers": [], "config": ' + good_config + b"}", MANIFEST),
        "two configurations": (b'{"config": ' + good_config + b', "config": ' + evil_config + b"}", MANIFEST),
        "two as Go reads": (b'{"config": ' + good_config + b', "Config": ' + evil_config + b"}", MANIFEST),
        "an index in an index": (
            b'{"manifests": [{"digest": "' + registry.push_index("train", "in", [entry(evil)]).encode() + b'"}]}', INDEX
        ),
        "nothing for a node": (b'{"manifests": []}', INDEX),
        "hundreds": (b'{"manifests": [' + b",".join([b'{"digest": "x"}'] * 300) + b"]}", INDEX),
        "an image in it that is an index too": (b'{"manifests": [{"digest": "' + both.encode() + b'"}]}', INDEX),
        "no object": (b"[]", MANIFEST),
        "deep": (b'{"a":' * 100_000, MANIFEST),
        "a configuration that is away": (b'{"config": {"digest": "sha256:' + b"0" * 64 + b'"}}', MANIFEST),
        "a configuration by a path": (b'{"config": {"digest": "../../x"}}', MANIFEST),
    }  # fmt: skip
    for name, (content, kind) in cases.items():
        registry.put("train", "1", content, kind)
        with pytest.raises(Invalid) as refused:
            await pinned(registry)
        assert refused.value.hint, name
    variables = {
        "twice": b'{"config": {"Env": ["A=1"], "ENV": ["LD_PRELOAD=x"]}}',
        "in letters that fold": '{"config": {"Env": []}, "con\ufb01g": {"Env": ["LD_PRELOAD=x"]}}'.encode(),
        "no list": b'{"config": {"Env": "LD_PRELOAD=x"}}',
        "no texts": b'{"config": {"Env": [["LD_PRELOAD=x"]]}}',
        "no object": b'{"config": []}',
        "huge": b" " * (1 << 20) + b"{}",
    }
    for name, config in variables.items():
        registry.push("train", "1", config=config)
        with pytest.raises(Invalid) as refused:
            await pinned(registry)
        assert refused.value.hint, name
    print(f"\n{len(cases) + len(variables)} images that mean two things or nothing, all refused")
