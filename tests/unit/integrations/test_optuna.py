"""Optuna: the real studies, a run for each trial."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.spooled import bodies, kinds, spooled

X = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def study() -> Any:
    optuna = framework("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(study_name="lr", sampler=sampler)


def objective(trial: Any) -> float:
    """Of four trials one is pruned and one fails."""
    import optuna

    rate = trial.suggest_float("rate", 0, 1)
    trial.report(rate, 0)
    trial.report(rate / 2, 1)
    if trial.number == 1:
        raise optuna.TrialPruned
    if trial.number == 2:
        raise FloatingPointError("NaN")
    return float(rate)


def reasons(base: Path) -> list[str]:
    return [body["reason"] for body in bodies(spooled(base), Kind.RUN_END)]


def test_each_trial_is_a_run_that_ends_as_the_trial_does(study: Any, tmp_path: Path) -> None:
    from provenance.integrations.optuna import RUN_ID, record_trials

    recorded = pickle.loads(pickle.dumps(record_trials(objective, base_dir=tmp_path, tags=["hpo"])))
    study.optimize(recorded, n_trials=4, catch=FloatingPointError)
    events = spooled(tmp_path)
    assert sorted(reasons(tmp_path)) == [
        "FloatingPointError", "finished", "finished", "pruned",
    ]  # fmt: skip
    configs = {config["name"]: config for config in bodies(events, Kind.CONFIG)}
    assert configs.keys() == {"lr/0", "lr/1", "lr/2", "lr/3"}
    assert {config["group"] for config in configs.values()} == {"lr"}
    for trial in study.trials:
        training = configs[f"lr/{trial.number}"]["training"]
        assert training["rate"] == trial.params["rate"]
        assert training["optuna"]["trial"] == trial.number
    assert len({trial.user_attrs[RUN_ID] for trial in study.trials}) == 4
    metrics = [event.epoch for event in events if event.kind is Kind.METRICS]
    assert metrics == [0, 1] * 4
    results = [body["results"] for body in bodies(events, Kind.RESULTS)]
    assert {frozenset(body) for body in results} == {frozenset({"value", "params"})}
    values = [body["value"] for body in results]
    assert sorted(values) == sorted([study.trials[0].value, study.trials[3].value])


@pytest.mark.slow
def test_a_trial_whose_value_optuna_refuses_failed(study: Any, tmp_path: Path) -> None:
    from provenance.integrations.optuna import record_trials

    values: list[Any] = [float("nan"), None, 0.5]
    study.optimize(record_trials(lambda _: values.pop(), base_dir=tmp_path), n_trials=3)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "FAIL"]
    assert reasons(tmp_path) == ["finished", "the value is a NoneType", "the value is NaN"]


def test_an_epoch_that_is_reported_too_is_one(study: Any, tmp_path: Path) -> None:
    from provenance.integrations.optuna import record_trials, recorder_of

    def training(trial: Any) -> float:
        for epoch in range(2):
            recorder_of(trial).epoch(epoch, {"loss": 0.5}, {"w": X})
            trial.report(0.5, epoch)
        return 0.5

    study.optimize(record_trials(training, base_dir=tmp_path), n_trials=1)
    metrics = [body["metrics"] for body in bodies(spooled(tmp_path), Kind.METRICS)]
    assert metrics == [{"loss": 0.5}, {"loss": 0.5}]


def test_an_exception_that_ends_the_study_ends_its_run(study: Any, tmp_path: Path) -> None:
    from provenance.integrations.optuna import record_trials

    with pytest.raises(FloatingPointError):
        study.optimize(record_trials(objective, base_dir=tmp_path), n_trials=4)
    assert sorted(reasons(tmp_path)) == ["FloatingPointError", "finished", "pruned"]


def test_an_objective_records_its_data_and_weights_in_threads(study: Any, tmp_path: Path) -> None:
    from provenance.integrations.optuna import record_trials, recorder_of

    def training(trial: Any) -> float:
        weights = {"w": X * trial.suggest_int("scale", 1, 9)}
        recorder = recorder_of(trial)
        recorder.begin(weights, X, X[:1], {"optimizer": "none"})
        recorder.epoch(1, {"loss": 1.0}, weights)
        return 1.0

    study.optimize(record_trials(training, base_dir=tmp_path), n_trials=4, n_jobs=2)
    found = kinds(spooled(tmp_path))
    assert [found.count(kind) for kind in ("data.train", "data.test", "state", "results")] == [
        4
    ] * 4
    for config in bodies(spooled(tmp_path), Kind.CONFIG):
        assert {"scale", "optimizer", "optuna"} <= config["training"].keys()
        assert "not_recorded" not in config["training"]


@pytest.mark.slow
def test_a_callback_records_trials_once_they_are_over(study: Any, tmp_path: Path) -> None:
    from provenance.integrations.optuna import RUN_ID, ProvenanceCallback, record_trials

    callback = ProvenanceCallback(base_dir=tmp_path)
    study.optimize(objective, n_trials=4, callbacks=[callback], catch=FloatingPointError)
    assert reasons(tmp_path) == ["finished", "pruned", "the trial failed", "finished"]
    assert len({study.user_attrs[f"{RUN_ID}.{number}"] for number in range(4)}) == 4
    recorded = record_trials(lambda _: 1.0, base_dir=tmp_path / "own")
    study.optimize(recorded, n_trials=1, callbacks=[callback])
    assert len(reasons(tmp_path)) == 4


def test_several_objectives_have_several_values(tmp_path: Path) -> None:
    optuna = framework("optuna")
    from provenance.integrations.optuna import record_trials

    study = optuna.create_study(directions=["minimize", "maximize"])
    study.optimize(record_trials(lambda _: (1.0, 2.0), base_dir=tmp_path), n_trials=1)
    assert bodies(spooled(tmp_path), Kind.RESULTS)[0]["results"]["value"] == [1.0, 2.0]


def test_a_mistake_is_told_before_the_study(tmp_path: Path) -> None:
    framework("optuna")
    from provenance.integrations.optuna import ProvenanceCallback, record_trials

    with pytest.raises(TypeError, match="folder"):
        record_trials(objective, folder=tmp_path)
    with pytest.raises(TypeError, match="folder"):
        ProvenanceCallback(folder=tmp_path)


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    framework("optuna")
    framework("sklearn", "sklearn")
    run_example("optuna_trials", tmp_path)
    assert len(reasons(tmp_path)) == 5
