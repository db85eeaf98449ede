"""scikit-learn models in the skops format, which rebuilds known types from data instead of running code."""

# One error, many sentences: each stands where its reason is found.
# ruff: noqa: EM101, EM102, TRY003

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from mainstay.serving.mlmodel import DEFAULT_INPUT, Descriptor
from mainstay.serving.predictor import Array, ModelRefused, TensorSpec, datatype_of, first_line, zeros

HARMLESS_TYPES = frozenset(
    {
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    }
)
"""Held by scikit-learn's own models, not listed by skops: plain state, no code runs when they are rebuilt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SklearnPredictor:
    """A fitted model by its methods. scikit-learn's predictions change no state, so threads may share it."""

    methods: Mapping[str, Callable[[Array], Array]]
    """Output name -> the model's method that makes it."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def platform(self) -> str:
        """Not in the protocol's table; built by its rule."""
        return "sklearn_skops"

    def predict(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> Mapping[str, Array]:
        """Call only the methods behind the wanted outputs."""
        rows = inputs[self.inputs[0].name]
        return {name: np.asarray(self.methods[name](rows)) for name in wanted}


def load(descriptor: Descriptor, *, threads: int, trusted: Collection[str]) -> SklearnPredictor:
    """Raises ModelRefused with the names if the file holds a type that is neither known nor `trusted`."""
    model = _instance(descriptor.file, HARMLESS_TYPES | set(trusted))
    _limit_threads(threads)
    if not hasattr(model, "predict"):
        raise ModelRefused(f"the model has no predict method: {type(model).__name__}")
    spec = _input_spec(descriptor, model)
    rows = descriptor.example.get(spec.name, zeros(spec))
    methods = _methods(model)
    return SklearnPredictor(
        methods=methods,
        inputs=(spec,),
        outputs=tuple(_output_spec(name, method, rows) for name, method in methods.items()),
    )


def save(model: Any, file: Path) -> Mapping[str, Any]:
    """Returns the settings of MLflow's sklearn flavor. Raises ModelRefused if `load` would refuse what was written."""
    import sklearn  # noqa: PLC0415 - heavy, and needed by this format only
    import skops.io  # noqa: PLC0415 - the same

    skops.io.dump(model, file)
    unknown = sorted(set(skops.io.get_untrusted_types(file=file)) - HARMLESS_TYPES)
    if unknown:
        file.unlink()
        raise ModelRefused(_untrusted(unknown))
    return {"pickled_model": file.name, "serialization_format": "skops", "sklearn_version": sklearn.__version__}


def _instance(file: Path, trusted: Collection[str]) -> Any:
    try:
        import skops.io  # noqa: PLC0415 - heavy, and needed by this format only
    except ImportError as error:
        raise ModelRefused("skops is not installed; hint: pip install 'mainstay[serving]'") from error
    if not is_zipfile(file):
        raise ModelRefused(
            f"{file.name} is no skops file (a ZIP archive); pickle and joblib are never opened, whatever their name; "
            "hint: save the model with mainstay.serving.save_sklearn"
        )
    try:
        # Names only: skops imports and builds nothing before the audit of its `load` has passed.
        unknown = sorted(set(skops.io.get_untrusted_types(file=file)) - set(trusted))
        model = None if unknown else skops.io.load(file, trusted=sorted(trusted))
    except Exception as error:  # a damaged archive can fail anywhere in skops, NumPy or scikit-learn
        raise ModelRefused(f"{file.name} cannot be loaded as a skops model: {first_line(error)}") from error
    if unknown:
        raise ModelRefused(_untrusted(unknown))
    return model


def _untrusted(names: list[str]) -> str:
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return (
        f"the model holds types that are not known to be harmless: {shown}; "
        "hint: review them and start the server with --trust TYPE, or export the model to ONNX"
    )


def _limit_threads(threads: int) -> None:
    """Cap BLAS and OpenMP for the whole process; scikit-learn has no setting per model."""
    # Comes with scikit-learn; it publishes no types.
    import threadpoolctl  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 - as above

    threadpoolctl.threadpool_limits(limits=threads)


def _input_spec(descriptor: Descriptor, model: Any) -> TensorSpec:
    """From the signature, else a table of float64 as wide as the data that the model was fitted on."""
    if len(descriptor.inputs) == 1:
        return descriptor.inputs[0]
    if descriptor.inputs:
        raise ModelRefused(f"a scikit-learn model takes one input, the signature names: {len(descriptor.inputs)}")
    columns = getattr(model, "n_features_in_", None)
    if columns is None:
        raise ModelRefused("the model does not say how many features it takes; hint: save it with a sample")
    return TensorSpec(name=DEFAULT_INPUT, datatype="FP64", shape=(-1, int(columns)))


def _methods(model: Any) -> Mapping[str, Callable[[Array], Array]]:
    if not hasattr(model, "classes_"):
        return {"prediction": model.predict}
    methods = {"label": model.predict}
    if hasattr(model, "predict_proba"):
        methods["probabilities"] = model.predict_proba
    return methods


def _output_spec(name: str, method: Callable[[Array], Array], rows: Array) -> TensorSpec:
    """Measured, not declared: scikit-learn does not say what its methods return."""
    try:
        answer = np.asarray(method(rows))
        return TensorSpec(name=name, datatype=datatype_of(answer.dtype), shape=(-1, *answer.shape[1:]))
    except Exception as error:  # the model's own code; whatever it raises, this output cannot be served
        raise ModelRefused(f"output {name!r}: the model did not answer its warm-up: {first_line(error)}") from error
