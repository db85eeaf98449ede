"""Tiny ONNX models, encoded by hand, so that the tests need no package that writes ONNX.

Field numbers: onnx/onnx.proto. Protocol buffers: a key is (field << 3 | wire type), numbers are varints.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

FLOAT, INT64, STRING = 1, 7, 8  # TensorProto.DataType


def times_two(width: int = 3) -> bytes:
    """y = x + x, x: FP32 [batch, width]."""
    return model(
        nodes=[node("Add", ["x", "x"], ["y"])],
        inputs=[value("x", FLOAT, ["batch", width])],
        outputs=[value("y", FLOAT, ["batch", width])],
    )


def logarithm() -> bytes:
    """y = log x: minus infinity at 0."""
    return model(
        nodes=[node("Log", ["x"], ["y"])],
        inputs=[value("x", FLOAT, ["batch", 1])],
        outputs=[value("y", FLOAT, ["batch", 1])],
    )


def echo_and_sum() -> bytes:
    """Two inputs and two outputs: `text` goes through as `echo`, `total` = a + a of INT64."""
    return model(
        nodes=[node("Identity", ["text"], ["echo"]), node("Add", ["a", "a"], ["total"])],
        inputs=[value("text", STRING, ["batch"]), value("a", INT64, ["batch", 2])],
        outputs=[value("echo", STRING, ["batch"]), value("total", INT64, ["batch", 2])],
    )


def outside_weights() -> bytes:
    """y = x + w, where the weights are to be read from a file outside the model directory."""
    location = text(1, "location") + text(2, "../secret.bin")
    weights = number(1, 3) + number(2, FLOAT) + text(8, "w") + part(13, location) + number(14, 1)
    return model(
        nodes=[node("Add", ["x", "w"], ["y"])],
        inputs=[value("x", FLOAT, ["batch", 3])],
        outputs=[value("y", FLOAT, ["batch", 3])],
        initializers=[weights],
    )


def model(
    *, nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], initializers: Sequence[bytes] = ()
) -> bytes:
    graph = b"".join(part(1, item) for item in nodes) + text(2, "graph")
    graph += b"".join(part(5, item) for item in initializers)
    graph += b"".join(part(11, item) for item in inputs) + b"".join(part(12, item) for item in outputs)
    return number(1, 8) + part(7, graph) + part(8, number(2, 17))  # ir_version 8, operator set 17


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    return b"".join(text(1, name) for name in inputs) + b"".join(text(2, name) for name in outputs) + text(4, kind)


def value(name: str, element: int, shape: Sequence[int | str]) -> bytes:
    sizes = b"".join(part(1, number(1, size) if isinstance(size, int) else text(2, size)) for size in shape)
    return text(1, name) + part(2, part(1, number(1, element) + part(2, sizes)))


def number(field: int, content: int) -> bytes:
    return varint(field << 3) + varint(content)


def text(field: int, content: str) -> bytes:
    return part(field, content.encode())


def part(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(content: int) -> bytes:
    encoded = b""
    while content > 0x7F:
        encoded += struct.pack("B", content & 0x7F | 0x80)
        content >>= 7
    return encoded + struct.pack("B", content)
