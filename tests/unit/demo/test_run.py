"""The demo's weights as a file: read by the safetensors library, and the same state."""

from __future__ import annotations

from pathlib import Path

from provenance.demo import training
from provenance.fingerprint.tensors import state_digest


def test_the_saved_weights_are_the_model(tmp_path: Path) -> None:
    model = training.Training(training.digits(), 1, 7).model
    path = training.save_model(model, tmp_path / "model")
    assert state_digest(path) == state_digest(model)
    from safetensors.numpy import load_file

    assert set(load_file(path)) == {tensor.name for tensor in state_digest(model).tensors}
