"""The model server that runs inside a service pod, and the writer that training code calls.

It imports nothing else of mainstay: a pod needs this package, the model's runtime and no more.
"""

from mainstay.serving.models import load, save_onnx, save_sklearn
from mainstay.serving.predictor import ModelRefused, Predictor, TensorSpec

__all__ = ["ModelRefused", "Predictor", "TensorSpec", "load", "save_onnx", "save_sklearn"]
