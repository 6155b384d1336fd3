"""The demo: its weights as a file, and what it cannot write."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenance.demo import training
from provenance.demo.run import DemoOptions, run
from provenance.errors import InputError
from provenance.fingerprint.tensors import state_digest


def test_the_saved_weights_are_the_model(tmp_path: Path) -> None:
    model = training.Training(training.digits(), 1, 7).model
    path = training.save_model(model, tmp_path / "model")
    assert state_digest(path) == state_digest(model)
    from safetensors.numpy import load_file

    assert set(load_file(path)) == {tensor.name for tensor in state_digest(model).tensors}


def test_a_configuration_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run" / "config.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"config\.json: cannot be written: is a folder"):
        run(DemoOptions(tmp_path, networks=("local",)), lambda *_: None)
