"""Fits a line by gradient descent, 200 steps a run: each run goes on where the last one stopped, from a volume that is kept."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path

import numpy as np

CHECKPOINT, SCRATCH = Path("ckpt/model.npz"), Path("scratch/data.npy")
IMAGES = 500


def main() -> None:
    settings = tomllib.loads(Path("conf/train.toml").read_text())
    show_that_the_secret_is_there()
    data = training_data()
    step, weights = resumed()
    for _ in range(settings["steps_per_run"]):
        weights = weights - settings["learning_rate"] * gradient(weights, data)
        step += 1
    keep(step, weights)
    print(f"step {step}: loss {loss(weights, data):.6f}")


def show_that_the_secret_is_there() -> None:
    """A file and a variable hold the same; whoever prints a secret has it in the log for ever."""
    value = (Path(os.environ["MAINSTAY_SECRETS_DIR"]) / "tracking-token").read_text().removesuffix("\n")
    assert value == os.environ["TRACKING_TOKEN"]
    print(f"tracking token: {len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()[:8]}")


def training_data() -> np.ndarray:
    """Unpacked into scratch, as a large data set would be; a new run starts with an empty one."""
    assert not SCRATCH.exists()
    random = np.random.default_rng(seed=1)
    x = random.normal(size=IMAGES)
    np.save(SCRATCH, np.stack([x, 3 * x + 0.5 + random.normal(scale=0.01, size=IMAGES)]))
    return np.load(SCRATCH)


def resumed() -> tuple[int, np.ndarray]:
    """Where the last run stopped."""
    if not CHECKPOINT.exists():
        print("starting anew")
        return 0, np.zeros(2)
    with np.load(CHECKPOINT) as kept:
        print(f"resuming at step {int(kept['step'])}")
        return int(kept["step"]), kept["weights"]


def keep(step: int, weights: np.ndarray) -> None:
    """Whole or not at all: the new file takes the place of the old one in one go."""
    new = CHECKPOINT.with_name("new.npz")
    np.savez(new, step=step, weights=weights)
    new.replace(CHECKPOINT)


def gradient(weights: np.ndarray, data: np.ndarray) -> np.ndarray:
    error = weights[0] * data[0] + weights[1] - data[1]
    return np.array([(error * data[0]).mean(), error.mean()])


def loss(weights: np.ndarray, data: np.ndarray) -> float:
    return float(((weights[0] * data[0] + weights[1] - data[1]) ** 2).mean())


if __name__ == "__main__":
    main()
