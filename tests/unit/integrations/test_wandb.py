"""Weights & Biases: real runs, offline, and how each run names the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.errors import InputError
from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.spooled import bodies, kinds, spooled

pytestmark = pytest.mark.slow

X = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    module = framework("wandb")
    yield module
    module.finish()


def test_each_names_the_other_and_what_is_logged_is_recorded(wandb: Any, tmp_path: Path) -> None:
    from provenance.integrations.wandb import record_run

    run = wandb.init(name="first", group="digits", tags=["a"], config={"lr": 0.1})
    with record_run(run, None, X, X[:1], base_dir=tmp_path) as recorder:
        assert run.summary["provenance.status"] == "recording"
        run.log({"loss": 1.0})
        wandb.log({"loss": 0.5, "picture": wandb.Image(X)})
        recorder.epoch(1, {"loss": 0.5}, {"w": X})
    run.log({"later": 1.0})
    events = spooled(tmp_path)
    (config,) = bodies(events, Kind.CONFIG)
    assert (config["name"], config["group"], config["tags"]) == ("first", "digits", ["a"])
    assert config["training"]["lr"] == 0.1
    assert config["training"]["wandb"]["run_id"] == run.id
    assert run.config["provenance.run_id"] == recorder.run_id
    assert run.summary["provenance.run_id"] == recorder.run_id
    assert run.summary["provenance.status"] == "finished"
    assert set(run.tags) == {"a", "provenance"}
    results = bodies(events, Kind.RESULTS)[0]["results"]
    assert results.keys() == {"loss", "picture"}
    assert results["loss"] == 0.5
    assert kinds(events).count("steps") >= 1
    assert kinds(events)[-1] == "run.end"
    assert wandb.log.__self__ is run


def test_an_exception_is_told_to_both(wandb: Any, tmp_path: Path) -> None:
    from provenance.integrations.wandb import record_run

    run = wandb.init()
    with pytest.raises(KeyboardInterrupt), record_run(base_dir=tmp_path):
        raise KeyboardInterrupt
    assert run.summary["provenance.status"] == "interrupted"
    assert "results" not in kinds(spooled(tmp_path))


def test_without_a_run_it_is_told_in_a_line(wandb: Any, tmp_path: Path) -> None:
    from provenance.integrations.wandb import config_of, record_run

    with pytest.raises(InputError, match=r"wandb\.init"), record_run(base_dir=tmp_path):
        pass
    with pytest.raises(InputError, match=r"wandb\.init"):
        config_of()
    with (
        pytest.raises(
            TypeError, match="run, the first argument: found 'folder', expected a run of"
        ),
        record_run("folder", base_dir=tmp_path),
    ):
        pass


def test_the_example_runs(wandb: Any, tmp_path: Path) -> None:
    framework("sklearn", "sklearn")
    run_example("wandb_run", tmp_path)
    assert kinds(spooled(tmp_path))[-1] == "run.end"
