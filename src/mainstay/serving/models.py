"""Model directories: `load` one to serve it, `save_sklearn` or `save_onnx` to write one from training code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mainstay.serving import mlmodel
from mainstay.serving.formats import onnx, skops
from mainstay.serving.predictor import Array, Predictor, warm_up


def load(directory: Path | str, *, threads: int = 1, trusted: Collection[str] = ()) -> Predictor:
    """A model that has answered once. Raises ModelRefused for everything that cannot or must not be served.

    `threads`: CPU threads that one prediction may use. `trusted`: full type names that a skops file may hold beyond
    those known to be harmless; they are the operator's word, never the model file's.
    """
    directory = Path(directory)
    descriptor = mlmodel.read(directory)
    match descriptor.flavor:
        case "onnx":
            predictor: Predictor = onnx.load(descriptor, threads=threads)
        case "sklearn":
            predictor = skops.load(descriptor, threads=threads, trusted=trusted)
    warm_up(predictor, descriptor.example)
    return predictor


def save_sklearn(
    model: Any,  # scikit-learn publishes no types
    directory: Path | str,
    *,
    sample: Array,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Write a fitted scikit-learn model as skops. Returns the directory, which is made if needed.

    `sample`: a few input rows, first dimension the batch; its type and shape become the model's signature and its
    first row is kept to warm the server up. Leave personal data out of it.
    """
    directory = _made(directory)
    file = directory / "model.skops"
    settings = skops.save(model, file)
    example = {mlmodel.DEFAULT_INPUT: np.asarray(sample)[:1]}
    mlmodel.write(directory, flavor="sklearn", settings=settings, example=example, metrics=metrics or {})
    return directory


def save_onnx(
    model: bytes | Path | str,
    directory: Path | str,
    *,
    sample: Mapping[str, Array] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Write an ONNX model, given as bytes or as a path. `sample`: rows by input name, kept whole, to warm up with."""
    directory = _made(directory)
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    (directory / "model.onnx").write_bytes(content)
    mlmodel.write(
        directory, flavor="onnx", settings={"data": "model.onnx"}, example=sample or {}, metrics=metrics or {}
    )
    return directory


def _made(directory: Path | str) -> Path:
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    return path
