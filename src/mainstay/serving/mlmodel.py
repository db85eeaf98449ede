"""The model directory: MLflow's layout, so that what MLflow logged in a safe format is served as it is.

`MLmodel` (YAML) names one or more flavors and their file. We read `flavors.onnx.data`, `flavors.sklearn.pickled_model`
with `serialization_format: skops`, `signature.inputs` (tensor specs) and `saved_input_example_info.artifact_path`; we
write the same keys, and the training metrics under `metadata.metrics`. Other keys are left alone.
Source: MLflow documentation, "MLflow Models", storage format.
"""

# One error, many sentences: each stands where its reason is found.
# ruff: noqa: EM102, TRY003

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import yaml

from mainstay.serving.predictor import DTYPES, Array, ModelRefused, TensorSpec, datatype_of

FILE_NAME = "MLmodel"
EXAMPLE_FILE_NAME = "input_example.json"
DEFAULT_INPUT = "input"
"""Name of the single input of a model whose signature does not name it (MLflow's scikit-learn flavor does not)."""

Flavor = Literal["onnx", "sklearn"]

_DESCRIPTOR_BYTES_MAX = 1 << 20  # far above any real descriptor; keeps a hostile one out of the YAML reader
_EXAMPLE_BYTES_MAX = 64 << 20  # an example is a few rows; this admits even large images
_SAFE_FORMATS_HINT = (
    "hint: save it with mainstay.serving.save_sklearn (skops) or as ONNX; "
    "pickle and joblib files run arbitrary code when they are opened"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What `MLmodel` says. `file` is resolved, exists and lies inside the model directory."""

    flavor: Flavor
    file: Path
    inputs: tuple[TensorSpec, ...] = ()
    """Empty: the descriptor does not say, ask the model."""
    example: Mapping[str, Array] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def read(directory: Path) -> Descriptor:
    """Raises ModelRefused, naming the file and what is wrong with it."""
    content = _content(directory)
    flavors = _mapping(content, "flavors")
    inputs = _signature(content)
    if "onnx" in flavors:
        flavor: Flavor = "onnx"
        name = _mapping(flavors, "onnx").get("data")
    elif "sklearn" in flavors:
        flavor = "sklearn"
        sklearn = _mapping(flavors, "sklearn")
        name = sklearn.get("pickled_model")  # MLflow's key for the file, whatever its format is
        _require_skops(sklearn, name)
    else:
        raise ModelRefused(f"{FILE_NAME}: no flavor to serve in: {_listed(flavors)}; expected: onnx or sklearn")
    return Descriptor(
        flavor=flavor,
        file=_inside(directory, name),
        inputs=inputs,
        example=_example(directory, content, inputs),
        metrics=_metrics(content),
    )


def write(
    directory: Path,
    *,
    flavor: Flavor,
    settings: Mapping[str, Any],
    example: Mapping[str, Array],
    metrics: Mapping[str, float],
) -> None:
    """Write `MLmodel` and the example beside a model file that is already there. The first dimension becomes -1."""
    content: dict[str, Any] = {"flavors": {flavor: dict(settings)}}
    if example:
        content["signature"] = {
            "inputs": msgspec.json.encode([_tensor_entry(n, a) for n, a in example.items()]).decode()
        }
        content["saved_input_example_info"] = {
            "artifact_path": EXAMPLE_FILE_NAME,
            "type": "ndarray",
            "format": "tf-serving",
        }
        rows = {name: array.tolist() for name, array in example.items()}
        inputs = rows[DEFAULT_INPUT] if list(rows) == [DEFAULT_INPUT] else rows
        (directory / EXAMPLE_FILE_NAME).write_bytes(msgspec.json.encode({"inputs": inputs}))
    content["metadata"] = {"metrics": {name: float(value) for name, value in metrics.items()}}
    (directory / FILE_NAME).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _content(directory: Path) -> Mapping[str, Any]:
    path = directory / FILE_NAME
    try:
        if path.stat().st_size > _DESCRIPTOR_BYTES_MAX:
            raise ModelRefused(f"{FILE_NAME} is larger than {_DESCRIPTOR_BYTES_MAX} bytes: {path.stat().st_size}")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelRefused(f"no {FILE_NAME} file in the model directory: {directory}; {_SAFE_FORMATS_HINT}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ModelRefused(f"{FILE_NAME} cannot be read: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict):
        raise ModelRefused(f"{FILE_NAME}: expected a mapping, got: {type(content).__name__}")
    return content


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict):
        raise ModelRefused(f"{FILE_NAME}: {key}: expected a mapping, got: {type(value).__name__}")
    return value


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(str(name)[:40] for name in names)[:10]) or "(none)"


def _require_skops(settings: Mapping[str, Any], name: object) -> None:
    found = str(settings.get("serialization_format", "pickle"))[:40]
    if found != "skops" or str(name).endswith((".pkl", ".pickle", ".joblib")):
        raise ModelRefused(
            f"only safe formats are served, and this scikit-learn model is: {found}; {_SAFE_FORMATS_HINT}"
        )


def _inside(directory: Path, name: object) -> Path:
    """The named file, which neither `..`, an absolute path nor a symbolic link may lead out of the directory."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise ModelRefused(f"{FILE_NAME}: expected a file name, got: {str(name)[:100]!r}")
    root = directory.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ModelRefused(f"{FILE_NAME}: file lies outside the model directory: {name[:200]!r}")
    if not path.is_file():
        raise ModelRefused(f"{FILE_NAME}: no such file in the model directory: {name[:200]!r}")
    return path


class _TensorType(msgspec.Struct):
    dtype: str
    shape: list[int]


class _SignatureEntry(msgspec.Struct, rename={"tensor_spec": "tensor-spec"}):
    tensor_spec: _TensorType | None = None
    name: str = DEFAULT_INPUT


def _signature(content: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """Tensor inputs; empty for a signature of table columns, which says nothing about tensors."""
    signature = content.get("signature")
    text = signature.get("inputs") if isinstance(signature, dict) else None
    if not isinstance(text, str):
        return ()
    try:
        entries = msgspec.json.decode(text, type=list[_SignatureEntry])
        return tuple(_spec(entry.name, entry.tensor_spec) for entry in entries if entry.tensor_spec)
    except (msgspec.MsgspecError, RecursionError, KeyError, TypeError) as error:
        raise ModelRefused(f"{FILE_NAME}: signature.inputs cannot be read: {error}") from error


def _spec(name: str, tensor: _TensorType) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype_of(np.dtype(tensor.dtype)), shape=tuple(tensor.shape))


def _tensor_entry(name: str, array: Array) -> dict[str, Any]:
    dtype = "str" if array.dtype.kind in "USO" else array.dtype.name
    entry = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *array.shape[1:]]}}
    return entry if name == DEFAULT_INPUT else {"name": name, **entry}


def _example(directory: Path, content: Mapping[str, Any], specs: tuple[TensorSpec, ...]) -> Mapping[str, Array]:
    """Saved input rows by input name; empty if there are none, or none that fits the signature."""
    about = content.get("saved_input_example_info")
    if not specs or not isinstance(about, dict) or about.get("type") != "ndarray":
        return {}
    path = _inside(directory, about.get("artifact_path"))
    if path.stat().st_size > _EXAMPLE_BYTES_MAX:
        raise ModelRefused(f"{path.name} is larger than {_EXAMPLE_BYTES_MAX} bytes: {path.stat().st_size}")
    try:
        inputs = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])["inputs"]
        rows = inputs if isinstance(inputs, dict) else {specs[0].name: inputs}
        return {spec.name: np.asarray(rows[spec.name], DTYPES[spec.datatype]) for spec in specs}
    except (msgspec.MsgspecError, RecursionError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise ModelRefused(f"{path.name} does not hold an example of the model's inputs: {error}") from error


def _metrics(content: Mapping[str, Any]) -> Mapping[str, float]:
    metadata = content.get("metadata")
    metrics = metadata.get("metrics") if isinstance(metadata, dict) else None
    if not isinstance(metrics, dict):
        return {}
    return {str(name): float(value) for name, value in metrics.items() if isinstance(value, int | float)}
