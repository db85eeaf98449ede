"""Files that stand in the job itself: kept by content, beside the code and never over it."""

from __future__ import annotations

import hashlib

from mainstay.domain.allocation import Owner
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem

YAML = "lr: 0.1\n"


async def code(api: Api, path: str) -> str:
    digest = hashlib.sha256(b"x").hexdigest()
    await api.ask("PUT", f"/v1/blobs/{digest}", content=b"x", headers={"Content-Type": "application/octet-stream"})
    entries = [{"path": path, "size": 1, "digest": digest}]
    tree: str = (await api.ask("POST", "/v1/trees", json={"entries": entries})).json()["tree"]
    return tree


async def test_they_become_a_mount_beside_the_code(api: Api):
    tree = await code(api, "train.py")
    job = {"name": "a", "run": "true", "files": {"conf/train.yaml": YAML}}
    answer = await api.ask("POST", "/v1/workloads", json={"job": job, "code": tree})
    assert answer.status_code == 201, answer.text
    work = api.services.store.workload("a", tenant="physics")
    first, second = work.spec.mounts
    assert first.tree == tree
    files = api.services.artifacts.of(Owner(tenant="physics", project="default"))
    (entry,) = (await files.tree(second.tree)).entries
    assert entry.path == "conf/train.yaml"
    assert b"".join([chunk async for chunk in files.get(entry.digest)]) == YAML.encode()


async def test_one_that_is_in_the_code_too_is_refused(api: Api):
    for path in ("conf/train.yaml", "conf", "conf/train.yaml/x"):
        job = {"name": "a", "run": "true", "files": {"conf/train.yaml": YAML}}
        answer = await api.ask("POST", "/v1/workloads", json={"job": job, "code": await code(api, path)})
        problem = is_problem(answer, 422)
        assert problem["detail"] == "files: conf/train.yaml is in `workdir` too"
    assert (await api.ask("GET", "/v1/workloads")).json()["items"] == []


async def test_a_volume_over_a_file_of_the_code_is_refused(api: Api):
    for path in ("data/train.csv", "data"):
        job = {"name": "a", "run": "true", "volumes": [{"path": "data"}]}
        answer = await api.ask("POST", "/v1/workloads", json={"job": job, "code": await code(api, path)})
        assert is_problem(answer, 422)["detail"] == f"volumes: data would hide {path} of `workdir`"
    for volume in ("/data", "data/train"):
        job = {"name": "b", "run": "true", "volumes": [{"path": volume}]}
        answer = await api.ask("POST", "/v1/workloads", json={"job": job, "code": await code(api, "data/train.csv")})
        assert answer.status_code == 201, answer.text
