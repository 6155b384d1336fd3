"""The recorder: what an integration records, and that no training ends because of it."""

from __future__ import annotations

import copy
import importlib
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import provenance
from provenance.capture.given import plain
from provenance.errors import ConfigError, InputError
from provenance.formats.event import Event
from provenance.formats.record import Kind
from provenance.integrations.recorder import Recorder
from provenance.integrations.sklearn import record_fit
from provenance.tracker import ProvenanceTracker
from tests.support.frameworks import framework
from tests.support.spooled import bodies, kinds, spooled

X = np.arange(12.0).reshape(4, 3)
MODEL = {"w": np.ones((3, 2), np.float32)}


def states(events: list[Event]) -> list[int]:
    """Hashed in the background, so in any order."""
    return sorted(event.epoch or 0 for event in events if event.kind is Kind.STATE)


def test_a_training_is_recorded_from_its_data_to_its_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(base_dir=tmp_path)
    recorder.begin(MODEL, X, X[:1], {"lr": 0.1})
    recorder.begin(MODEL, X, X[:1], {"lr": 0.2})
    recorder.epoch(0, {"loss": 1.0}, MODEL)
    recorder.end({"loss": 1.0})
    recorder.end({}, "failed")
    recorder.epoch(1, {"loss": 2.0}, MODEL)
    events = spooled(tmp_path)
    assert sorted(kinds(events)[:4]) == [
        "data.test", "data.train", "model.architecture", "model.weights",
    ]  # fmt: skip
    assert sorted(kinds(events)[4:]) == [
        "config", "metrics", "results", "run.end", "run.seal", "run.seal", "state",
    ]  # fmt: skip
    assert bodies(events, Kind.CONFIG)[0]["training"] == {"lr": 0.1}
    assert bodies(events, Kind.RUN_END)[0]["reason"] == "finished"
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count(recorder.run_id or "none") == 1


def test_weights_of_every_nth_epoch_and_of_the_last(tmp_path: Path) -> None:
    recorder = Recorder(base_dir=tmp_path, every_n_epochs=2)
    for epoch in range(5):
        recorder.epoch(epoch, {"loss": 1}, MODEL, last=epoch == 4)
    recorder.end()
    events = spooled(tmp_path)
    assert states(events) == [1, 3, 4]
    assert kinds(events).count("metrics") == 5


def test_the_last_weights_where_no_epoch_knew_that_it_was_the_last(tmp_path: Path) -> None:
    recorder = Recorder(base_dir=tmp_path, every_n_epochs=2)
    for epoch in range(3):
        recorder.epoch(epoch, {"loss": 1}, MODEL)
        if epoch > 0:
            recorder.last_weights(MODEL)
    recorder.last_weights(MODEL)
    recorder.end()
    assert states(spooled(tmp_path)) == [1, 2]


def test_no_weights_where_none_are_asked_for(tmp_path: Path) -> None:
    recorder = Recorder(base_dir=tmp_path, weights=None)
    recorder.epoch(0, {"loss": 1}, MODEL, last=True)
    recorder.end()
    assert states(spooled(tmp_path)) == []


def test_what_has_no_digest_is_named_in_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(base_dir=tmp_path)
    recorder.begin(object(), iter([1]), X, {"lr": 0.1})
    recorder.epoch(0, {"loss": 1})
    recorder.end()
    events = spooled(tmp_path)
    lost = bodies(events, Kind.CONFIG)[0]["training"]["not_recorded"]
    assert lost.keys() == {"data.train", "model"}
    assert "list_iterator" in lost["data.train"]
    assert kinds(events)[:2] == ["data.test", "config"]
    assert "run.end" in kinds(events)
    assert "data.train not recorded" in capsys.readouterr().err


class Broken:
    def __getattr__(self, name: str) -> Any:  # as what W&B's summary holds of an image
        raise KeyError(name)

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def state_dict(self) -> dict[str, Any]:
        raise RuntimeError("boom")

    def __len__(self) -> int:
        raise ZeroDivisionError

    def __getitem__(self, index: int) -> int:
        raise ZeroDivisionError


def test_no_fault_of_a_model_a_dataset_or_a_value_reaches_the_training(tmp_path: Path) -> None:
    recorder = Recorder(base_dir=tmp_path)
    recorder.begin(Broken(), Broken(), None, {"x": Broken()})
    recorder.epoch(0, {"loss": object()}, Broken())
    recorder.epoch(-1, {"loss": 1})
    recorder.epoch(1, {"loss": 1}, privacy=object())
    recorder.end({"x": Broken()})
    events = spooled(tmp_path)
    assert bodies(events, Kind.RESULTS)[0]["results"] == {"x": f"{__name__}.Broken"}
    assert kinds(events)[-1] == "run.end"
    assert any("-1" in problem for problem in recorder.problems)


def test_a_tracker_that_cannot_be_made_switches_recording_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROVENANCE_RUN_ID", "no id")
    recorder = Recorder(base_dir=tmp_path)
    recorder.begin(MODEL)
    recorder.epoch(0, {"loss": 1}, MODEL)
    recorder.end()
    assert capsys.readouterr().err.count("run not recorded") == 1
    assert spooled(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"config": "no-such-file.json"}, ConfigError, "no-such-file"),
        ({"weights": "fast"}, InputError, "fast"),
        ({"every_n_epochs": 0}, InputError, "every_n_epochs"),
        ({"folder": "x"}, TypeError, "folder"),
        (
            {"tracker": "artifacts", "name": "x"},
            TypeError,
            "^tracker, the first argument: found 'artifacts', expected a ProvenanceTracker",
        ),
    ],
)
def test_a_mistake_is_raised_where_it_is_made(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        Recorder(**arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optuna().ProvenanceCallback("artifacts"),
        lambda: optuna().record_trials(bool, "artifacts"),
        lambda: optuna().record_trials("artifacts"),
        lambda: optuna().record_trials(bool, tracker=X),
        lambda: provenance.autolog("artifacts"),  # type: ignore[arg-type]  # wrong on purpose
        lambda: record_fit("artifacts", X),
    ],
)
def test_a_wrong_first_argument_is_named_in_one_line(make: Any) -> None:
    with pytest.raises(TypeError, match="found ('artifacts'|a ndarray).* expected") as refused:
        make()
    assert "\n" not in str(refused.value)


def optuna() -> Any:
    framework("optuna")
    return importlib.import_module("provenance.integrations.optuna")


def test_a_run_keeps_its_configuration_beside_an_integrations_and_its_block_ends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"lr": 0.1, "seed": 7, "loss": lambda: 0}
    with provenance.run("mine", config=given, base_dir=tmp_path) as run:
        recorder = Recorder(run)
        recorder.begin(MODEL, X, None, {"lr": 0.2, "depth": 3})
        recorder.epoch(1, {"loss": 1.0}, MODEL)
        recorder.end({"best": 0.5, "accuracy": 0})
        recorder.begin(MODEL, X)
        recorder.epoch(3, {"loss": 0.9})
        recorder.end()
        run.log({"test": 0.7}, epoch=2)
        run.finish({"accuracy": 0.9})
    (config,) = bodies(spooled(tmp_path), Kind.CONFIG)
    assert config["name"] == "mine"
    training = config["training"]
    assert (training["lr"], training["seed"], training["depth"]) == (0.1, 7, 3)
    assert config["config_notes"] == {"loss": "a lambda: its name alone"}
    assert capsys.readouterr().err.count("found other values of lr; those of run() stand") == 1
    (results,) = bodies(spooled(tmp_path), Kind.RESULTS)
    assert results["results"] == {"best": 0.5, "accuracy": 0.9}
    assert kinds(spooled(tmp_path)).count("metrics") == 3


def test_a_relative_base_dir_is_that_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "moved").mkdir()
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(base_dir="here")
    monkeypatch.chdir("moved")
    recorder.begin(MODEL, X)
    recorder.end()
    assert "run.end" in kinds(spooled(tmp_path / "here"))
    assert not [*(tmp_path / "moved").iterdir()]
    assert "[warning" not in capsys.readouterr().err
    for _ in range(2):
        ProvenanceTracker("here").close()
    lines = [line for line in capsys.readouterr().err.splitlines() if "[warning" in line]
    assert len(lines) == 1
    assert f"here was {tmp_path / 'here'} before" in lines[0]


def test_a_second_training_is_a_second_run_that_names_the_first(tmp_path: Path) -> None:
    recorder, runs = Recorder(base_dir=tmp_path), []
    for _ in range(2):
        recorder.begin(MODEL, X)
        runs.append(recorder.run_id)
        recorder.end()
    assert len(set(runs)) == 2
    configs = bodies(spooled(tmp_path), Kind.CONFIG)
    assert runs[0] in [config["training"].get("run_before") for config in configs]


def test_a_tracker_of_the_callers_is_used_from_where_it_stands(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_data(X)
    tracker.store_merkle_on_blockchain_before_training({"mine": 1})
    recorder = Recorder(tracker)
    recorder.begin(MODEL, X, None, {"lr": 1})
    recorder.epoch(0, {"loss": 1})
    recorder.end()
    recorder.begin(MODEL)
    events = spooled(tmp_path)
    assert recorder.problems == []
    assert bodies(events, Kind.CONFIG)[0]["training"] == {"mine": 1}
    assert kinds(events).count("data.train") == 1
    with pytest.raises(TypeError, match="base_dir"):
        Recorder(tracker, base_dir=tmp_path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("x"), "ValueError"), (KeyboardInterrupt(), "SIGINT")],
)
def test_an_exception_of_the_training_is_the_runs_end(
    tmp_path: Path, error: BaseException, reason: str
) -> None:
    recorder = Recorder(base_dir=tmp_path)
    recorder.begin(MODEL)
    recorder.failed(error)
    events = spooled(tmp_path)
    assert bodies(events, Kind.RUN_END)[0]["reason"].startswith(reason)
    assert "results" not in kinds(events)


class Augmented(list[float]):
    def __getitem__(self, index: Any) -> Any:
        return float(np.random.rand()) + random.random()


def test_reading_the_data_changes_no_random_number_of_the_training(tmp_path: Path) -> None:
    def drawn() -> tuple[float, float]:
        return float(np.random.rand()), random.random()

    for seed in (np.random.seed, random.seed):
        seed(3)
    expected = drawn()
    for seed in (np.random.seed, random.seed):
        seed(3)
    Recorder(base_dir=tmp_path).begin(None, Augmented([0.0] * 3))
    assert drawn() == expected


def test_a_copy_records_a_run_of_its_own(tmp_path: Path) -> None:
    recorder = Recorder(base_dir=tmp_path)
    recorder.begin(MODEL)
    for other in (copy.deepcopy(recorder), pickle.loads(pickle.dumps(recorder))):
        assert other.run_id is None
        other.begin(MODEL)
        assert other.run_id not in (None, recorder.run_id)


def test_values_without_a_json_form_are_as_in_a_configuration() -> None:
    estimator = framework("xgboost").XGBClassifier()  # prints itself in many lines
    assert plain(
        {"1": Path("a"), "t": (float, b"x"), "o": estimator, "n": {"k": np.float32(1.5)}}
    ) == {
        "1": "a",
        "t": ["builtins.float", "78"],
        "o": "xgboost.sklearn.XGBClassifier",
        "n": {"k": 1.5},
    }
