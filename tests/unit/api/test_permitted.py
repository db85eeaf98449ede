"""A job that names an image or a taint that is not permitted is refused with what is; of a tag its digest is kept."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest

from mainstay.api.app import create_api
from mainstay.domain.errors import Unavailable
from mainstay.domain.permitted import Permitted
from tests.unit.api.conftest import PEOPLE, Api
from tests.unit.api.test_routes import is_problem

DIGEST = f"sha256:{'0' * 64}"
THERE = Permitted(repositories=("registry.example.com/ml",), tolerations=("dedicated",))


class Asked:
    """`ports.Registries`: every tag means one digest, while it is up."""

    def __init__(self) -> None:
        self.images: list[str] = []
        self.up = True

    async def pinned(self, image: str) -> str:
        self.images.append(image)
        if not self.up:
            msg = "the registry does not answer"
            raise Unavailable(msg)
        return image if "@" in image else f"{image}@{DIGEST}"


@pytest.fixture
def registries() -> Asked:
    return Asked()


@pytest.fixture
async def strict(api: Api, registries: Asked) -> Api:
    services = replace(api.services, authenticate=PEOPLE.get, permitted=THERE, registries=registries)
    app = create_api(services)
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=services.url)
    return Api(app=app, services=services, http=http)


@pytest.mark.parametrize(
    ("job", "field", "words"),
    [
        ({"image": "evil.example/x"}, "image", "registry.example.com/ml"),
        ({"image": "python:3.12"}, "image", "registry.example.com/ml"),
        ({"tolerations": ["other=x:NoSchedule"]}, "tolerations", "dedicated"),
        ({"tolerations": ["node-role.kubernetes.io/control-plane"]}, "tolerations", "dedicated"),
    ],
)
async def test_what_is_not_permitted_is_refused_with_what_is(strict: Api, registries: Asked, job, field, words):
    for answer in (
        await strict.submit(**job),
        await strict.ask("POST", "/v1/plan", json={"job": {"name": "train", "run": "true", **job}}),
    ):
        problem = is_problem(answer, 422)
        assert (problem["code"], field in problem["detail"]) == ("invalid", True)
        assert words in problem["hint"]
    assert not registries.images, "a registry that is not permitted is never asked"


async def test_without_a_list_the_taints_of_the_system_alone_are_refused(api: Api):
    problem = is_problem(await api.submit(tolerations=["node-role.kubernetes.io/control-plane"]), 422)
    assert "not for jobs" in problem["hint"]
    assert (await api.submit(tolerations=["other"], image="evil.example/x")).status_code == 201


async def test_a_tag_is_kept_as_the_digest_that_it_means_when_the_job_is_submitted(strict: Api, registries: Asked):
    image = "registry.example.com/ml/train:1"
    view = (await strict.submit(image=image, key="k", tolerations=["dedicated"])).json()
    stored = strict.services.store.workload(view["id"], tenant="physics")
    assert stored.spec.image == f"{image}@{DIGEST}"
    registries.up = False
    assert (await strict.submit(image=image, key="k", tolerations=["dedicated"])).json() == view, (
        "it is on record already"
    )
    assert is_problem(await strict.submit(image=image, key="other"), 503)["code"] == "unavailable"


async def test_of_many_jobs_each_image_is_asked_for_once(strict: Api, registries: Asked):
    images = [f"registry.example.com/ml/train:{number % 2}" for number in range(6)]
    jobs = [{"job": {"name": "train", "run": "true", "image": image}} for image in [*images, ""]]
    assert (await strict.ask("POST", "/v1/workloads/bulk", json={"jobs": jobs})).status_code == 201
    assert registries.images == sorted(set(images))


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "NVIDIA_VISIBLE_DEVICES"])
async def test_a_variable_that_hooks_of_the_node_heed_is_set_in_the_command_or_not_at_all(api: Api, name: str):
    job = {"name": "train", "run": "true", "env": {name: "x"}}
    refused = is_problem(await api.ask("POST", "/v1/workloads", json={"job": job}), 422)
    assert f"env {name}=" in refused["hint"]
