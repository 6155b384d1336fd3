"""Keras 3, any backend: a callback records each `fit`.

KERAS_BACKEND=jax python examples/keras_callback.py [BASE_DIR]
"""

from __future__ import annotations

import sys

import keras
import numpy as np

from provenance.integrations.keras import ProvenanceCallback


def main(base_dir: str = "artifacts") -> None:
    x = np.random.default_rng(0).random((256, 8))
    y = x.sum(1) > 4
    model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    recording = ProvenanceCallback(train=(x, y), base_dir=base_dir)
    model.fit(x, y, epochs=3, validation_split=0.2, verbose=0, callbacks=[recording])


if __name__ == "__main__":
    main(*sys.argv[1:])
