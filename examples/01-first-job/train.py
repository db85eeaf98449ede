"""Train a small neural network on handwritten digits; leave a model, its metrics and images that it has never seen.

The data are the 1,797 images of 8 x 8 pixels that ship inside scikit-learn. One quarter is held out before anything is
fitted, scaling included, so the accuracy printed at the end is about images that played no part in training.
"""

import json
import os
import time
from pathlib import Path

SEED = 7
EPOCHS = 80
BATCH_ROWS = 128
SENT_IMAGES = 8  # held-out images saved as a request for the endpoint


def main() -> None:
    begun = time.monotonic()
    print("job started: loading scikit-learn and the digits", flush=True)
    # Imported here, so that the line above reaches the log before scikit-learn's second of loading.
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels = load_digits(return_X_y=True)
    train_images, held_images, train_labels, held_labels = train_test_split(
        images, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    print(f"data: {len(train_images)} images to train on, {len(held_images)} held out", flush=True)

    scaler = StandardScaler().fit(train_images)
    scaled = scaler.transform(train_images)
    network = MLPClassifier(hidden_layer_sizes=(128, 64), batch_size=BATCH_ROWS, random_state=SEED)
    for epoch in range(1, EPOCHS + 1):
        network.partial_fit(scaled, train_labels, classes=np.arange(10))
        if epoch == 1 or epoch % 5 == 0:
            print(f"epoch {epoch:3d}/{EPOCHS}  loss {network.loss_:.4f}", flush=True)

    model = make_pipeline(scaler, network)
    metrics = {
        "accuracy_train": float(model.score(train_images, train_labels)),
        "accuracy_held_out": float(model.score(held_images, held_labels)),
        "loss_train": float(network.loss_),
        "images_held_out": len(held_images),
    }
    output = Path(os.environ["MAINSTAY_OUTPUT_DIR"])
    save(output, model, metrics, held_images[:SENT_IMAGES], held_labels[:SENT_IMAGES], sample=train_images[:1])
    print(f"held-out accuracy: {metrics['accuracy_held_out']:.4f} on {len(held_images)} images", flush=True)
    print(f"saved model, metrics and {SENT_IMAGES} held-out images in {time.monotonic() - begun:.1f} s", flush=True)


def save(output, model, metrics, images, labels, *, sample) -> None:
    """Write the model, its metrics, the held-out images as a request for the endpoint, and their true labels."""
    from mainstay.serving import save_sklearn

    output.mkdir(parents=True, exist_ok=True)
    save_sklearn(model, output / "model", sample=sample, metrics=metrics)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    request = {
        "id": "held-out",
        "inputs": [{"name": "input", "shape": list(images.shape), "datatype": "FP64", "data": images.ravel().tolist()}],
        "outputs": [{"name": "label"}],
    }
    (output / "held_out.json").write_text(json.dumps(request) + "\n")
    (output / "held_out_labels.json").write_text(json.dumps(labels.tolist()) + "\n")


if __name__ == "__main__":
    main()
