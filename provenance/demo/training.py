"""The demo's training: handwritten digits, a small network, several epochs.

The dataset is scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits"
test set: 1797 images of 8 x 8 pixels, and it needs no download. The network is scikit-learn's
MLPClassifier, so that the demo runs where its data does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provenance.errors import MissingExtraError
from provenance.fingerprint.tensors import state_tensors

HIDDEN = 32


def digits() -> tuple[Any, Any, Any, Any]:
    """Train and test images (float32, 0 to 1) and labels (int64)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("sklearn", "demo") from error
    import numpy as np

    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16.0).astype(np.float32), labels.astype(np.int64)
    order = np.random.default_rng(7).permutation(len(images))
    cut = 1400
    train, test = order[:cut], order[cut:]
    return images[train], labels[train], images[test], labels[test]


def save_model(model: Any, folder: Path) -> Path:
    """Write the weights as ``model.safetensors``, whatever framework they are of.

    Source: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {}
    data = bytearray()
    for tensor in state_tensors(model):
        start = len(data)
        for chunk in tensor.chunks():
            data += chunk
        header[tensor.name] = {
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, len(data)]
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


class Training:
    """64-32-10 network that trains epoch by epoch, with Adam."""

    def __init__(self, data: tuple[Any, Any, Any, Any], epochs: int, seed: int = 7) -> None:
        from sklearn.neural_network import MLPClassifier

        self.data = data
        self.config: dict[str, Any] = {
            "epochs": epochs, "batch_size": 64, "learning_rate": 0.01, "seed": seed,
            "framework": "scikit-learn", "dataset": "sklearn digits",
        }  # fmt: skip
        self.model: Any = MLPClassifier(
            hidden_layer_sizes=(HIDDEN,),
            batch_size=self.config["batch_size"],
            learning_rate_init=self.config["learning_rate"],
            random_state=seed,
        )
        # One batch fits the shapes; these are the initial weights that get recorded.
        self.model.partial_fit(data[0][:64], data[1][:64], classes=list(range(10)))

    def epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train; the number of each epoch from 1 and its metrics."""
        x, y, x_test, y_test = self.data
        for epoch in range(1, self.config["epochs"] + 1):
            self.model.partial_fit(x, y)
            accuracy = float(self.model.score(x_test, y_test))
            yield epoch, {"loss": float(self.model.loss_), "test_accuracy": accuracy}
