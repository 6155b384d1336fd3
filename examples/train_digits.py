"""The smallest real use: train on handwritten digits and keep its provenance.

    python examples/train_digits.py [BASE_DIR] [CONFIG]

It needs no Redis, no node and no worker to run: events wait in BASE_DIR/spool until
`provenance up` brings them home.
"""

from __future__ import annotations

import sys

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

from provenance import ProvenanceTracker

EPOCHS = 3


def main(base_dir: str = "artifacts", config: str | None = None) -> None:
    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images / 16.0, labels, test_size=0.2, random_state=0)
    model = SGDClassifier(random_state=0)
    model.partial_fit(x[:64], y[:64], classes=list(range(10)))

    tracker = ProvenanceTracker(base_dir, config)
    tracker.track_data((x, y), (x_test, y_test))
    tracker.track_model(model)
    tracker.store_merkle_on_blockchain_before_training({"epochs": EPOCHS, "model": "SGD"})
    for epoch in range(1, EPOCHS + 1):
        model.partial_fit(x, y)
        metrics = {
            "train_accuracy": model.score(x, y),
            "test_accuracy": model.score(x_test, y_test),
        }
        tracker.track_epoch(epoch, metrics, model=model)
    tracker.store_merkle_on_blockchain_after_training({"test_accuracy": metrics["test_accuracy"]})
    print(tracker.run_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
