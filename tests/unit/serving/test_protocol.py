"""The Open Inference Protocol v2 as clients see it, and what hostile clients get."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mainstay.serving import TensorSpec, save_onnx
from mainstay.serving.predictor import Array
from mainstay.serving.server import Service

from . import onnx_bytes
from .conftest import LIMITS, Caller

X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


def tensor(**changes: object) -> dict[str, object]:
    return {**X, **changes}


def test_an_answer_has_all_fields_of_the_specification(doubling: Caller) -> None:
    answer = doubling.post("/v2/models/m/versions/3/infer", {"id": "42", "inputs": [X], "outputs": [{"name": "y"}]})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "m",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "y", "shape": [1, 3], "datatype": "FP32", "data": [2.0, 4.0, 6.0]}],
    }


def test_an_id_is_returned_only_if_one_was_given(doubling: Caller) -> None:
    assert "id" not in doubling.infer(**X).json


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]], [1.5, 2, 3, 4, 5, 6]])
def test_data_may_be_flat_or_nested(doubling: Caller, data: object) -> None:
    answer = doubling.infer(**tensor(shape=[2, 3], data=data))
    assert answer.json["outputs"][0]["shape"] == [2, 3]
    assert answer.json["outputs"][0]["data"][-1] == 12.0


def test_metadata_describe_server_and_model(doubling: Caller) -> None:
    assert doubling.get("/v2").json.keys() == {"name", "version", "extensions"}
    assert doubling.get("/v2/").status == 200
    for path in ("/v2/models/m", "/v2/models/m/versions/3"):
        assert doubling.get(path).json == {
            "name": "m",
            "versions": ["3"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
        }


def test_before_the_model_is_there_the_server_is_alive_and_not_ready(workers: ThreadPoolExecutor) -> None:
    caller = Caller(Service(name="m", version="3", workers=workers, limits=LIMITS))
    assert caller.get("/v2/health/live").status == 200
    assert caller.get("/v2/health/ready").json == {"live": True, "ready": False}
    assert caller.get("/v2/health/ready").status == 503
    assert caller.get("/v2/models/m/ready").json == {"name": "m", "ready": False}
    assert caller.infer(**X).error == "model is not ready: m"


def test_a_ready_server_says_so(doubling: Caller) -> None:
    assert doubling.get("/v2/health/ready").status == 200
    assert doubling.get("/v2/models/m/versions/3/ready").json == {"name": "m", "ready": True}


def test_only_the_outputs_asked_for_are_computed_and_returned(serving: Any, tmp_path: Path) -> None:
    caller = serving(save_onnx(onnx_bytes.echo_and_sum(), tmp_path))
    inputs = [
        {"name": "a", "shape": [1, 2], "datatype": "INT64", "data": [1, -2]},
        {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["grüß"]},
    ]
    both = caller.post("/v2/models/m/infer", {"inputs": inputs})
    assert [(output["name"], output["data"]) for output in both.json["outputs"]] == [
        ("echo", ["grüß"]),
        ("total", [2, -4]),
    ]
    one = caller.post("/v2/models/m/infer", {"inputs": inputs, "outputs": [{"name": "total"}]})
    assert [output["name"] for output in one.json["outputs"]] == ["total"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/v2/models/other/infer", "unknown model: 'other'; this server has: m"),
        ("/v2/models/m/versions/9/infer", "unknown version of m: '9'; this server has: 3"),
        ("/v2/models/m/explain", "not found: POST /v2/models/m/explain"),
    ],
)
def test_what_is_not_there_is_404(doubling: Caller, path: str, sentence: str) -> None:
    answer = doubling.post(path, {"inputs": [X]})
    assert (answer.status, answer.error) == (404, sentence)


def test_a_wrong_method_is_405_and_says_which_is_allowed(doubling: Caller) -> None:
    answer = doubling.get("/v2/models/m/infer")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shape": [1, 4]}, "shape: expected [-1, 3] (-1: any size from 1 on), got [1, 4]"),
        ({"shape": [3]}, "shape: expected [-1, 3] (-1: any size from 1 on), got [3]"),
        ({"shape": [0, 3], "data": []}, "got [0, 3]"),
        ({"shape": [1] * 100_000}, "got [1, 1, 1"),
        ({"shape": [10**12, 3]}, "shape [1000000000000, 3] holds 3000000000000 values, got 3"),
        ({"shape": [10**30, 3]}, "values, got 3"),
        ({"shape": [-1, 3]}, "not an inference request"),
        ({"shape": [1.5, 3]}, "not an inference request"),
        ({"datatype": "FP64"}, "datatype: expected FP32, got 'FP64'"),
        ({"datatype": "float32"}, "datatype: expected FP32, got 'float32'"),
        ({"data": [1, 2]}, "shape [1, 3] holds 3 values, got 2"),
        ({"data": [1, 2, "3"]}, "Expected `float`, got `str`"),
        ({"data": [1, 2, True]}, "Expected `float`, got `bool`"),
        ({"data": [1, 2, None]}, "Expected `float`, got `null`"),
        ({"data": {"a": 1}}, "Expected `array`, got `object`"),
        ({"data": "AAAA"}, "Expected `array`, got `str`"),
        ({"data": [1, 2, 1e39]}, "does not fit FP32"),
        ({"data": [[1, 2], [3]]}, "the nested lists are ragged"),
        ({"data": [[1, 2, 3], 4]}, "Expected `array`, got `int`"),
        ({"data": [[[1, 2, 3]]]}, "Expected `float`, got `array`"),
        ({"data": [[1], [2], [3]]}, "expected nesting of shape [1, 3], got [3, 1]"),
        ({"name": "z"}, "unknown input: 'z'; expected: x"),
    ],
)
def test_a_wrong_tensor_is_400_with_expected_and_got(
    doubling: Caller, changes: dict[str, object], sentence: str
) -> None:
    answer = doubling.infer(**tensor(**changes))
    assert answer.status == 400
    assert sentence in answer.error
    assert len(answer.error) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"inputs": 1}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [NaN, 1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1e999, 1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": '
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}]}",
        b"[" * 200_000,
        json.dumps({"inputs": [X], "id": 7}).encode(),
        json.dumps({"inputs": []}).encode(),
        json.dumps({"inputs": [X, X]}).encode(),
        json.dumps({"inputs": [X], "outputs": [{"name": "nope"}]}).encode(),
        json.dumps({"inputs": [{**X, "data": None}]}).encode(),
        json.dumps({"inputs": [{k: v for k, v in X.items() if k != "data"}]}).encode(),
    ],
)
def test_what_is_no_request_is_400_with_a_sentence(doubling: Caller, body: bytes) -> None:
    answer = doubling.post("/v2/models/m/infer", body)
    assert answer.status == 400
    assert answer.error


def test_an_integer_out_of_range_is_400(serving: Any, tmp_path: Path) -> None:
    caller = serving(save_onnx(onnx_bytes.echo_and_sum(), tmp_path))
    for data in ([2**63, 0], [1.5, 0]):
        entry = {"name": "a", "shape": [1, 2], "datatype": "INT64", "data": data}
        assert caller.post("/v2/models/m/infer", {"inputs": [entry]}).status == 400


@pytest.mark.parametrize(
    "request_parts",
    [
        {"inputs": [{**X, "data": [], "parameters": {"binary_data_size": 12}}]},
        {"inputs": [{k: v for k, v in X.items() if k != "data"} | {"parameters": {"binary_data_size": 12}}]},
        {"inputs": [X], "parameters": {"binary_data_output": True}},
        {"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
    ],
)
def test_the_binary_extension_is_refused_by_name(doubling: Caller, request_parts: object) -> None:
    answer = doubling.post("/v2/models/m/infer", request_parts)
    assert answer.status == 400
    assert answer.error == "the binary tensor data extension is not offered: send and ask for JSON data"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"inference-header-content-length": "10"}, 400),
        ({"content-type": "application/octet-stream"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_only_plain_json_is_taken(doubling: Caller, headers: dict[str, str], status: int) -> None:
    assert doubling.post("/v2/models/m/infer", {"inputs": [X]}, headers).status == status


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}])
def test_a_body_of_ten_megabytes_is_413_whatever_length_it_claims(doubling: Caller, headers: dict[str, str]) -> None:
    answer = doubling.post("/v2/models/m/infer", b" " * 10_000_000, headers)
    assert answer.status == 413
    assert answer.error.startswith("request body too large: limit 1048576 bytes, got ")


def test_an_infinite_output_is_an_error_and_never_a_null(serving: Any, tmp_path: Path) -> None:
    sample = {"x": np.ones((1, 1), np.float32)}
    caller = serving(save_onnx(onnx_bytes.logarithm(), tmp_path, sample=sample))
    answer = caller.infer(name="x", shape=[2, 1], datatype="FP32", data=[0, 1])
    assert answer.status == 500
    assert answer.error == "output 'y': 1 of 2 values are NaN or infinite, which JSON cannot carry"


class Gate:
    """A predictor that waits until it is let go, and fails if told to."""

    platform = "test_gate"
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),)
    outputs = (TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),)

    def __init__(self, failure: Exception | None = None) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.failure = failure

    def predict(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> Mapping[str, Array]:
        self.entered.set()
        assert self.open.wait(10)
        if self.failure:
            raise self.failure
        return {"y": inputs["x"]}


def test_while_a_prediction_runs_the_server_is_alive_and_holds_only_so_many(workers: ThreadPoolExecutor) -> None:
    gate = Gate()
    service = Service(name="m", version="3", workers=workers, limits=LIMITS)
    service.serve(gate)
    caller = Caller(service)
    body = json.dumps({"inputs": [X]}).encode()

    async def crowd() -> list[int]:
        def ask() -> asyncio.Task[Any]:
            return asyncio.ensure_future(caller.request("POST", "/v2/models/m/infer", body, {}))

        held = [ask() for _ in range(LIMITS.pending_max)]
        await asyncio.to_thread(gate.entered.wait, 10)
        live = await caller.request("GET", "/v2/health/live", b"", {})
        refused = await ask()
        service.retire()
        gate.open.set()
        answers = await asyncio.gather(*held)
        late = await ask()
        return [live.status, refused.status, *(answer.status for answer in answers), late.status]

    assert asyncio.run(crowd()) == [200, 503, 200, 200, 503]


def test_a_model_that_fails_gives_one_line_and_no_stack(workers: ThreadPoolExecutor) -> None:
    gate = Gate(RuntimeError("no such axis\nat line 7 of kernel.cc"))
    gate.open.set()
    service = Service(name="m", version="3", workers=workers, limits=LIMITS)
    service.serve(gate)
    answer = Caller(service).infer(**X)
    assert (answer.status, answer.error) == (500, "the model failed: RuntimeError: no such axis")
