"""What is served, and above all what is refused."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import FunctionTransformer

from mainstay.serving import ModelRefused, TensorSpec, load, mlmodel, save_onnx, save_sklearn

from . import onnx_bytes


class Trap:
    """Opened as a pickle, it leaves a file behind."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def directory_with(directory: Path, descriptor: str, **files: bytes) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "MLmodel").write_text(descriptor)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_bytes(content)
    return directory


SKOPS = "flavors: {sklearn: {pickled_model: model.skops, serialization_format: skops}}"


def test_a_classifier_answers_with_labels_and_probabilities(classifier_directory: Path) -> None:
    predictor = load(classifier_directory)
    assert predictor.platform == "sklearn_skops"
    assert predictor.inputs == (TensorSpec(name="input", datatype="FP64", shape=(-1, 2)),)
    assert [(spec.name, spec.datatype, spec.shape) for spec in predictor.outputs] == [
        ("label", "INT64", (-1,)),
        ("probabilities", "FP64", (-1, 2)),
    ]
    answer = predictor.predict({"input": np.array([[-5.0, 0.0], [5.0, 0.0]])}, ["label"])
    assert {name: array.tolist() for name, array in answer.items()} == {"label": [3, 8]}


def test_a_regressor_answers_with_a_prediction(tmp_path: Path) -> None:
    rows = np.array([[1.0], [2.0]])
    predictor = load(save_sklearn(LinearRegression().fit(rows, [2.0, 4.0]), tmp_path, sample=rows))
    assert predictor.outputs == (TensorSpec(name="prediction", datatype="FP64", shape=(-1,)),)


def test_text_labels_are_bytes(tmp_path: Path) -> None:
    rows = np.array([[-1.0], [1.0]])
    model = MLPClassifier(hidden_layer_sizes=(2,), random_state=0)
    for _ in range(3):
        model.partial_fit(rows, ["no", "yes"], classes=["no", "yes"])
    predictor = load(save_sklearn(model, tmp_path, sample=rows))
    assert predictor.outputs[0].datatype == "BYTES"


def test_an_onnx_model_names_its_own_tensors(onnx_directory: Path) -> None:
    predictor = load(onnx_directory)
    assert predictor.platform == "onnx_onnxv1"
    assert predictor.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),)
    answer = predictor.predict({"x": np.ones((1, 3), np.float32)}, ["y"])
    assert answer["y"].tolist() == [[2.0, 2.0, 2.0]]


def test_the_descriptor_comes_back_as_it_was_written(classifier_directory: Path) -> None:
    descriptor = mlmodel.read(classifier_directory)
    assert (descriptor.flavor, descriptor.file.name) == ("sklearn", "model.skops")
    assert descriptor.metrics == {"accuracy": 1.0}
    assert descriptor.example["input"].tolist() == [[-1.0, 0.0]]


def test_named_samples_come_back_by_name(tmp_path: Path) -> None:
    sample = {"text": np.array(["a", "b"]), "a": np.array([[1, 2], [3, 4]])}
    descriptor = mlmodel.read(save_onnx(onnx_bytes.echo_and_sum(), tmp_path, sample=sample))
    assert {name: array.tolist() for name, array in descriptor.example.items()} == {
        "text": ["a", "b"],
        "a": [[1, 2], [3, 4]],
    }


def test_a_model_without_a_signature_is_asked_for_its_width(classifier_directory: Path, tmp_path: Path) -> None:
    content = (classifier_directory / "model.skops").read_bytes()
    predictor = load(directory_with(tmp_path / "m", SKOPS, model__skops=content))
    assert predictor.inputs[0].shape == (-1, 2)


def test_a_pickle_that_is_called_skops_is_not_opened(tmp_path: Path) -> None:
    witness = tmp_path / "opened"
    directory = directory_with(tmp_path / "m", SKOPS, model__skops=pickle.dumps(Trap(witness)))
    with pytest.raises(ModelRefused, match=r"model\.skops is no skops file .* pickle and joblib are never opened"):
        load(directory)
    assert not witness.exists()


def test_a_pickle_inside_a_zip_is_not_opened(tmp_path: Path) -> None:
    witness = tmp_path / "opened"
    directory = directory_with(tmp_path / "m", SKOPS)
    with zipfile.ZipFile(directory / "model.skops", "w") as archive:
        archive.writestr("schema.json", pickle.dumps(Trap(witness)))
    with pytest.raises(ModelRefused, match="cannot be loaded as a skops model"):
        load(directory)
    assert not witness.exists()


@pytest.mark.parametrize("kind", ["pickle", "cloudpickle"])
def test_mlflow_pickles_are_refused_with_the_way_out(tmp_path: Path, kind: str) -> None:
    descriptor = f"flavors: {{sklearn: {{pickled_model: model.pkl, serialization_format: {kind}}}}}"
    directory = directory_with(tmp_path / "m", descriptor, model__pkl=pickle.dumps(1))
    with pytest.raises(ModelRefused, match=f"only safe formats are served, .*: {kind}; hint: save it with"):
        load(directory)


def test_unknown_types_are_refused_by_name_on_saving_and_on_loading(tmp_path: Path) -> None:
    rows = np.ones((2, 1))
    model = LinearRegression().fit(rows, [1.0, 1.0])
    model.extra_ = FunctionTransformer(func=json.dumps)
    with pytest.raises(ModelRefused, match=r"not known to be harmless: json\.dumps"):
        save_sklearn(model, tmp_path, sample=rows)
    assert not (tmp_path / "model.skops").exists()

    import skops.io

    directory = directory_with(tmp_path / "m", SKOPS)
    skops.io.dump(model, directory / "model.skops")
    with pytest.raises(ModelRefused, match=r"json\.dumps; hint: review them and start the server with --trust"):
        load(directory)
    assert load(directory, trusted=["json.dumps"]).outputs[0].name == "prediction"


def test_types_that_the_model_file_itself_trusts_stay_unknown(tmp_path: Path) -> None:
    import skops.io

    descriptor = SKOPS.replace("skops}", "skops, skops_trusted_types: [json.dumps]}")
    directory = directory_with(tmp_path / "m", descriptor)
    skops.io.dump(FunctionTransformer(func=json.dumps), directory / "model.skops")
    with pytest.raises(ModelRefused, match=r"json\.dumps"):
        load(directory)


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/hostname", "sub/../../secret.onnx", "link.onnx"])
def test_no_file_name_leads_out_of_the_model_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.onnx").write_bytes(onnx_bytes.times_two())
    directory = directory_with(tmp_path / "m", f"flavors: {{onnx: {{data: {name}}}}}")
    (directory / "link.onnx").symlink_to(tmp_path / "secret.onnx")
    with pytest.raises(ModelRefused, match="file lies outside the model directory"):
        load(directory)


def test_onnx_weights_outside_the_model_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.ones(3, np.float32).tobytes())
    with pytest.raises(ModelRefused, match=r"model\.onnx is no ONNX model that can be run"):
        load(save_onnx(onnx_bytes.outside_weights(), tmp_path / "m"))


@pytest.mark.parametrize(
    ("descriptor", "sentence"),
    [
        ("[]", "expected a mapping, got: list"),
        ("a: [", "MLmodel cannot be read"),
        ("{}", "flavors: expected a mapping, got: NoneType"),
        ("flavors: {python_function: {}}", "no flavor to serve in: python_function; expected: onnx or sklearn"),
        ("flavors: {onnx: {data: 7}}", "expected a file name, got: '7'"),
        ("flavors: {onnx: {data: gone.onnx}}", "no such file in the model directory: 'gone.onnx'"),
        ("flavors: {onnx: {data: '.'}}", "no such file in the model directory"),
        ("flavors: {onnx: {}}\nsignature: {inputs: '[{'}", "signature.inputs cannot be read"),
        ("!!python/object/apply:os.getcwd []", "MLmodel cannot be read"),
        ("[" * 5000, "MLmodel cannot be read"),
        ("x" * (1 << 20) + "y", "MLmodel is larger than 1048576 bytes"),
    ],
)
def test_a_bad_descriptor_gets_a_sentence(tmp_path: Path, descriptor: str, sentence: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        load(directory_with(tmp_path / "m", descriptor))
    assert sentence in str(refused.value)


def test_a_directory_without_a_descriptor_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"no MLmodel file in the model directory: .*hint: "):
        load(tmp_path / "nothing")


def test_an_example_that_does_not_fit_is_refused(classifier_directory: Path, tmp_path: Path) -> None:
    directory = directory_with(
        tmp_path / "m",
        (classifier_directory / "MLmodel").read_text(),
        model__skops=(classifier_directory / "model.skops").read_bytes(),
        input_example__json=b'{"inputs": [[1, 2, 3]]}',
    )
    with pytest.raises(ModelRefused, match="did not answer its warm-up: ValueError"):
        load(directory)


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x80\x04pickle"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelRefused, match="is no ONNX model that can be run"):
        load(save_onnx(content, tmp_path))
