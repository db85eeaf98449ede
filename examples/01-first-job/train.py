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


def main():
    begun = time.monotonic()
    print("job started: loading scikit-learn and the digits", flush=True)
    # The job asks for one CPU. More threads than CPUs wait for each other, ten times as long on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Imported here, so that the line above reaches the log before scikit-learn's second of loading.
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mainstay.serving import save_sklearn

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
    save_sklearn(model, output / "model", sample=train_images[:1], metrics=metrics)
    write_json(output / "metrics.json", metrics)
    write_json(output / "held_out.json", request(held_images[:SENT_IMAGES]))
    write_json(output / "held_out_labels.json", held_labels[:SENT_IMAGES].tolist())
    print(f"held-out accuracy: {metrics['accuracy_held_out']:.4f} on {len(held_images)} images", flush=True)
    print(f"saved model, metrics and {SENT_IMAGES} held-out images in {time.monotonic() - begun:.1f} s", flush=True)


def request(images):
    """Ask for the labels of these images: a body for `/v2/models/NAME/infer` of the Open Inference Protocol v2."""
    tensor = {"name": "input", "shape": list(images.shape), "datatype": "FP64", "data": images.ravel().tolist()}
    return {"id": "held-out", "inputs": [tensor], "outputs": [{"name": "label"}]}


def write_json(path, content):
    path.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
