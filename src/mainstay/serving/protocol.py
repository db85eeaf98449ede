"""Open Inference Protocol v2 in JSON: request bytes to tensors, tensors to response bytes.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md and open_inference_rest.yaml.
Tensor data may be flat or nested, row-major. No extension is offered; binary tensor data is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
import numpy as np

from mainstay.serving.predictor import DTYPES, Array, TensorSpec, datatype_of

DIMENSIONS_MAX = 16
"""More than any real model; bounds the depth of nested data."""

_BINARY_PARAMETERS = ("binary_data_size", "binary_data", "binary_data_output")

Parameters = dict[str, Any]  # Any: "key/value pairs", whose meaning belongs to extensions


class Refusal(Exception):
    """An answer other than 200: the HTTP status and the sentence of the protocol's error object."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RequestInput(msgspec.Struct):
    """$request_input. `data` stays raw until the datatype says how to read it."""

    name: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw = msgspec.Raw(b"")


class RequestOutput(msgspec.Struct):
    """$request_output."""

    name: str
    parameters: Parameters = {}


class InferenceRequest(msgspec.Struct):
    """$inference_request. Fields that we do not know belong to extensions and are passed over."""

    inputs: list[RequestInput]
    id: str | None = None
    parameters: Parameters = {}
    outputs: list[RequestOutput] = []


class ResponseOutput(msgspec.Struct):
    """$response_output; `data` is flat, row-major."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any]  # Any: bool, int, float or str, by datatype


class InferenceResponse(msgspec.Struct, omit_defaults=True):
    """$inference_response; `id` only if the request had one."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None


_request_decoder = msgspec.json.Decoder(InferenceRequest)


def decode(body: bytes) -> InferenceRequest:
    """Raises Refusal 400 for anything that is not an inference request in plain JSON."""
    try:
        request = _request_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"not an inference request: {error}") from error
    parameters = [request.parameters]
    parameters += [entry.parameters for entry in request.inputs]
    parameters += [entry.parameters for entry in request.outputs]
    if any(given.get(name) for given in parameters for name in _BINARY_PARAMETERS):
        raise Refusal(400, binary_refused())
    return request


def binary_refused() -> str:
    """Sentence for every way in which a client may ask for the extension."""
    return "the binary tensor data extension is not offered: send and ask for JSON data"


def tensors(request: InferenceRequest, specs: Iterable[TensorSpec]) -> dict[str, Array]:
    """Every input of the model, exactly once. Raises Refusal 400 with what was expected and what came."""
    wanted = {spec.name: spec for spec in specs}
    given: dict[str, Array] = {}
    for entry in request.inputs:
        if entry.name not in wanted:
            raise Refusal(400, f"unknown input: {entry.name[:100]!r}; expected: {', '.join(wanted)}")
        if entry.name in given:
            raise Refusal(400, f"input given twice: {entry.name!r}")
        given[entry.name] = _tensor(entry, wanted[entry.name])
    missing = [name for name in wanted if name not in given]
    if missing:
        raise Refusal(400, f"missing inputs: {', '.join(missing)}")
    return given


def wanted_outputs(request: InferenceRequest, specs: Iterable[TensorSpec]) -> list[str]:
    """Names in the order asked for; all of them if none is asked for."""
    known = [spec.name for spec in specs]
    asked = [output.name for output in request.outputs]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise Refusal(400, f"unknown output: {unknown[0][:100]!r}; the model has: {', '.join(known)}")
    return list(dict.fromkeys(asked)) or known


def encode(name: str, version: str, request_id: str | None, outputs: Mapping[str, Array]) -> bytes:
    """Response body. Raises Refusal 500 if an output holds NaN or infinity, which JSON cannot carry."""
    response = InferenceResponse(
        model_name=name,
        model_version=version,
        outputs=[_response_output(output, array) for output, array in outputs.items()],
        id=request_id,
    )
    return msgspec.json.encode(response)


def _tensor(entry: RequestInput, spec: TensorSpec) -> Array:
    where = f"input {entry.name!r}"
    if entry.datatype != spec.datatype:
        raise Refusal(400, f"{where}: datatype: expected {spec.datatype}, got {entry.datatype[:20]!r}")
    if len(entry.shape) > DIMENSIONS_MAX or not spec.admits(entry.shape):
        shown = entry.shape[:DIMENSIONS_MAX]
        raise Refusal(400, f"{where}: shape: expected {list(spec.shape)} (-1: any size from 1 on), got {shown}")
    if not entry.data:
        raise Refusal(400, f"{where}: data is missing")
    values = _values(entry, where)
    array = _array(values, spec.datatype, where)
    count = math.prod(entry.shape)
    if array.size != count:
        raise Refusal(400, f"{where}: data: shape {entry.shape} holds {count} values, got {array.size}")
    if array.ndim > 1 and list(array.shape) != entry.shape:
        raise Refusal(400, f"{where}: data: expected nesting of shape {entry.shape}, got {list(array.shape)}")
    return array.reshape(entry.shape)


def _values(entry: RequestInput, where: str) -> list[Any]:
    """Decoded by the element type, so that text or `true` never turns into a number."""
    text = bytes(entry.data)
    depth = len(entry.shape) if text[1:].lstrip(b" \t\r\n").startswith(b"[") else 1
    try:
        values: list[Any] = _data_decoder(DTYPES[entry.datatype].kind, depth).decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"{where}: data: {error}") from error
    return values


@cache
def _data_decoder(kind: str, depth: int) -> msgspec.json.Decoder[Any]:
    """`kind`: NumPy's letter for the element type. At most six kinds times DIMENSIONS_MAX depths exist."""
    element: Any = {"f": float, "i": int, "u": int, "b": bool, "O": str}[kind]
    for _ in range(depth):
        element = list[element]
    return msgspec.json.Decoder(element)


def _array(values: list[Any], datatype: str, where: str) -> Array:
    try:
        with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused below
            array = np.array(values, dtype=DTYPES[datatype])
    except OverflowError as error:
        raise Refusal(400, f"{where}: data: a number does not fit {datatype}: {error}") from error
    except ValueError as error:
        raise Refusal(400, f"{where}: data: the nested lists are ragged") from error
    if array.dtype.kind == "O" and not all(isinstance(value, str) for value in array.flat):
        raise Refusal(400, f"{where}: data: the nested lists are ragged")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refusal(
            400, f"{where}: data: a number does not fit {datatype}, whose largest is {np.finfo(array.dtype).max}"
        )
    return array


def _response_output(name: str, array: Array) -> ResponseOutput:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int(np.count_nonzero(~np.isfinite(array)))
        raise Refusal(
            500, f"output {name!r}: {count} of {array.size} values are NaN or infinite, which JSON cannot carry"
        )
    return ResponseOutput(name=name, shape=array.shape, datatype=datatype_of(array.dtype), data=array.ravel().tolist())
