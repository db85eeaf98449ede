"""ONNX models, run by onnxruntime on the CPU."""

# One error, many sentences: each stands where its reason is found.
# ruff: noqa: EM101, EM102, TRY003

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mainstay.serving.mlmodel import Descriptor
from mainstay.serving.predictor import Array, ModelRefused, TensorSpec, first_line

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""onnxruntime's type names -> datatypes of the protocol."""

_SILENT = 4  # onnxruntime's severity "fatal": its messages come back as exceptions, which we report once


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxPredictor:
    """A session and what it says about its tensors. onnxruntime sessions may be run from several threads."""

    session: Any  # onnxruntime publishes no types
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def platform(self) -> str:
        """Name from the protocol's table."""
        return "onnx_onnxv1"

    def predict(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> Mapping[str, Array]:
        """Run the parts of the graph that the wanted outputs need."""
        names = list(wanted)
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))


def load(descriptor: Descriptor, *, threads: int) -> OnnxPredictor:
    """Read from memory on purpose: a model that points at files beside or outside itself cannot reach them."""
    try:
        import onnxruntime  # noqa: PLC0415 - heavy, and needed by this format only
    except ImportError as error:
        raise ModelRefused("onnxruntime is not installed; hint: pip install 'mainstay[serving]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    try:
        content = descriptor.file.read_bytes()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family without a common base; all mean: not a usable model
        raise ModelRefused(f"{descriptor.file.name} is no ONNX model that can be run: {first_line(error)}") from error
    return OnnxPredictor(
        session=session,
        inputs=tuple(_spec("input", node) for node in session.get_inputs()),
        outputs=tuple(_spec("output", node) for node in session.get_outputs()),
    )


def _spec(role: str, node: Any) -> TensorSpec:
    """A dimension that the model leaves open or names (`batch`) is -1."""
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise ModelRefused(
            f"{role} {node.name!r} is not a tensor of the protocol's types: {node.type}; "
            "hint: export classifiers with zipmap off"
        )
    return TensorSpec(
        name=node.name,
        datatype=datatype,
        shape=tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape),
    )
