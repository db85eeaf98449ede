"""What a loaded model is to the server: named tensors in, named tensors out."""

# One error, many sentences: each stands where its reason is found.
# ruff: noqa: EM102, TRY003

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Any: the element type is known only when the model's file has been read.
Array = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""Datatype of the Open Inference Protocol v2 ("Tensor Data Types") -> NumPy. BYTES holds text, as Python strings."""

_DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


class ModelRefused(Exception):
    """This model cannot be served as it is. The message names what was found and what to do; retrying does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output. A dimension of -1 varies from request to request; the others are fixed."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def admits(self, shape: Collection[int]) -> bool:
        """True if a tensor of this shape may be given; a varying dimension takes any size from 1 on."""
        return len(shape) == len(self.shape) and all(
            got >= 1 and want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )


class Predictor(Protocol):
    """A model in memory. `predict` may be called from several threads at once."""

    @property
    def platform(self) -> str:
        """`<project>_<format>`, as in "Platforms" of the protocol."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All of them are required."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the order in which they are answered if a request names none."""

    def predict(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> Mapping[str, Array]:
        """The `wanted` outputs. Inputs are complete and agree with `inputs`; raises whatever the runtime raises."""


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Protocol name of a NumPy type; every kind of text is BYTES. KeyError if the protocol has no name for it."""
    return "BYTES" if dtype.kind in "US" else _DATATYPES[dtype.newbyteorder("=")]


def warm_up(predictor: Predictor, example: Mapping[str, Array]) -> None:
    """Ask once, with the saved example or else with zeros. Raises ModelRefused if no complete answer comes."""
    asked = {spec.name: example.get(spec.name, zeros(spec)) for spec in predictor.inputs}
    names = [spec.name for spec in predictor.outputs]
    try:
        answer = predictor.predict(asked, names)
    except Exception as error:  # a runtime may raise anything here, and all of it means the same: do not serve
        hint = "" if example else "; hint: save an input example with the model"
        raise ModelRefused(f"the model did not answer its warm-up: {first_line(error)}{hint}") from error
    missing = [name for name in names if name not in answer]
    if missing:
        raise ModelRefused(f"the model's warm-up answer lacks outputs: {', '.join(missing)}")


def zeros(spec: TensorSpec) -> Array:
    """A valid tensor of zeros (or empty strings); varying dimensions are 1."""
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    return np.full(shape, "", dtype=object) if spec.datatype == "BYTES" else np.zeros(shape, DTYPES[spec.datatype])


def first_line(error: Exception) -> str:
    """Type and first line of an error: enough for a user, and no stack of ours."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else 'no message'}"
