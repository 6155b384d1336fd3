"""Keras 3 in processes of their own: a backend is chosen once a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from provenance.formats.record import Kind
from tests.support.frameworks import installed
from tests.support.paths import ROOT
from tests.support.spooled import bodies, kinds, spooled

pytestmark = pytest.mark.slow

PROGRAM = """
import provenance, runpy, sys
import keras, numpy as np
from provenance.fingerprint.tensors import state_digest
from provenance.integrations.keras import ProvenanceCallback
if keras.backend.backend() == "torch":
    import torch; torch.set_num_threads(1)
x = np.random.default_rng(0).random((64, 8)).astype("float32")
y = (x.sum(1) > 4).astype(int)
layers = keras.layers
model = keras.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
callback = ProvenanceCallback(base_dir=sys.argv[1], train=(x, y))
class Fails(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise FloatingPointError("NaN")
options = dict(batch_size=16, verbose=0, validation_split=0.25)
model.fit(x, y, epochs=2, callbacks=[callback], **options)
print(str(state_digest(model).as_fields()["root"]))
print(";".join(v.path for v in model.weights))
model.evaluate(x, y, verbose=0, callbacks=[callback])
model.predict(x, verbose=0, callbacks=[callback])
if keras.backend.backend() == "jax":
    runpy.run_path("examples/keras_callback.py")["main"](sys.argv[1] + "/example")
else:
    provenance.autolog(base_dir=sys.argv[1] + "/auto")
    model.fit(x, y, epochs=2, verbose=0, validation_data=(x[:9], y[:9]))
    model.fit((pair for pair in [(x, y)] * 2), steps_per_epoch=2, verbose=0)
    provenance.autolog(disable=True)
class Loss:  # which Keras cannot serialise
    def __call__(self, labels, outputs):
        return loss(labels, outputs)
again = keras.models.clone_model(model)
again.compile("adam", Loss())
other = ProvenanceCallback(base_dir=sys.argv[1] + "/ways", train=x, every_n_epochs=50)
stopping = keras.callbacks.EarlyStopping("loss", min_delta=9, patience=1, restore_best_weights=True)
again.fit(x, y, epochs=9, callbacks=[other, stopping], **options)
backup = keras.callbacks.BackupAndRestore(sys.argv[1] + "/backup", delete_checkpoint=False)
again.fit(x, y, epochs=1, callbacks=[backup], **options)
print(str(state_digest(again).as_fields()["root"]))
again.set_weights([w * 0 for w in again.get_weights()])
again.fit(x, y, epochs=2, callbacks=[other, backup], **options)
again.fit(x, y, epochs=0, callbacks=[other], **options)
model.fit(x, y, epochs=1, callbacks=[callback, Fails()], **options)
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_each_fit_is_a_run_with_one_name_for_a_weight_in_every_backend(
    tmp_path: Path, backend: str
) -> None:
    installed("keras")
    installed(backend, "flax" if backend == "jax" else "torch")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT),
             "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert "FloatingPointError" in done.stderr, done.stderr
    root, names, backed_up = [line for line in done.stdout.splitlines() if "[" not in line]
    assert names.split(";")[:2] == ["sequential/dense/kernel", "sequential/dense/bias"]
    assert names.count(";") == 7
    events = spooled(tmp_path)
    metrics = [event for event in events if event.kind is Kind.METRICS]
    assert [event.epoch for event in metrics] == [0, 1, 0]
    assert {"loss", "accuracy", "val_loss"} <= metrics[0].fields["metrics"].keys()
    weights = [event.fields["root"] for event in events if event.kind is Kind.STATE]
    assert weights[1] == root
    assert len({*weights}) == 3
    config, second = bodies(events, Kind.CONFIG)
    assert config["training"]["backend"] == backend
    assert config["training"]["fit"]["epochs"] == 2
    assert "not_recorded" not in config["training"]
    assert second["training"]["run_before"]
    ends = [event.fields["reason"] for event in events if event.kind is Kind.RUN_END]
    assert ends == ["finished", "FloatingPointError"]
    assert kinds(events).count("results") == 1
    events = spooled(tmp_path / "ways")
    metrics = [event for event in events if event.kind is Kind.METRICS]
    assert [event.epoch for event in metrics] == [0, 1, 1]  # stopped; gone on with
    assert [event.epoch for event in events if event.kind is Kind.STATE] == [1, 1]
    stopped, restored = bodies(events, Kind.CONFIG)
    assert "compile" not in stopped["training"]
    assert restored["training"]["initial_epoch"] == 1
    assert bodies(events, Kind.WEIGHTS)[1]["root"] == backed_up
    if backend == "jax":
        example = kinds(spooled(tmp_path / "example"))
        assert example.count("metrics") == example.count("state") == 3
        assert example.count("data.train") == example.count("results") == 1
    else:
        events = spooled(tmp_path / "auto")
        given, streamed = bodies(events, Kind.CONFIG)
        assert kinds(events).count("data.train") == kinds(events).count("data.test") == 1
        assert "not_recorded" not in given["training"]
        assert "data.train" in streamed["training"]["not_recorded"]
        assert kinds(events).count("state") == 3
