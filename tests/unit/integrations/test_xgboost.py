"""XGBoost: the real library, and what a run says of its trainings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.spooled import bodies, kinds, spooled

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
PARAMETERS = {"objective": "binary:logistic", "max_depth": 2, "eta": 0.25, "nthread": 1}


class World:
    def __init__(self, folder: Path) -> None:
        self.base = folder
        self.xgboost = framework("xgboost")
        self.train = self.xgboost.DMatrix(X, label=Y, feature_names=list("abc"))

    def callback(self, **options: Any) -> Any:
        from provenance.integrations.xgboost import ProvenanceCallback

        return ProvenanceCallback(**{"train": self.train, "base_dir": self.base, **options})

    def fit(self, callback: Any, rounds: int = 3, **options: Any) -> Any:
        options = {"evals": [(self.train, "train")], **options}
        return self.xgboost.train(
            PARAMETERS, self.train, rounds, callbacks=[callback], verbose_eval=False, **options
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_training_is_recorded_by_iterations(world: World) -> None:
    log: dict[str, Any] = {}
    world.fit(world.callback(test=(X, Y), name="booster"), evals_result=log)
    events = spooled(world.base)
    found = kinds(events)
    assert found[0:2] == ["data.train", "data.test"]
    assert found.count("metrics") == 3
    assert found[-3:] == ["results", "run.seal", "run.end"]
    assert [event.epoch for event in events if event.kind is Kind.METRICS] == [0, 1, 2]
    losses = [body["metrics"]["train-logloss"] for body in bodies(events, Kind.METRICS)]
    assert losses == log["train"]["logloss"]
    (config,) = bodies(events, Kind.CONFIG)
    trees = config["training"]["xgboost"]["learner"]["gradient_booster"]["tree_train_param"]
    assert (trees["max_depth"], trees["eta"]) == ("2", "0.25")
    (results,) = bodies(events, Kind.RESULTS)
    assert results["results"] == {"train-logloss": losses[-1], "iterations": 3}


def test_the_booster_is_recorded_as_it_is_returned(world: World) -> None:
    booster = world.fit(world.callback(), early_stopping_rounds=1)
    events = spooled(world.base)
    expected = state_digest(booster, HashFactory("blake3")).as_fields()["root"]
    assert [body["root"] for body in bodies(events, Kind.STATE)] == [expected]
    assert "not_recorded" not in bodies(events, Kind.CONFIG)[0]["training"]


def test_every_nth_iterations_booster_where_it_is_asked_for(world: World) -> None:
    for rounds, expected in ((5, [1, 3, 4]), (4, [1, 3])):
        base = world.base / str(rounds)
        world.fit(world.callback(every_n_epochs=2, base_dir=base), rounds)
        states = [event.epoch for event in spooled(base) if event.kind is Kind.STATE]
        assert sorted(epoch or 0 for epoch in states) == expected


def test_a_training_that_goes_on_begins_with_its_boosters_weights(world: World) -> None:
    callback = world.callback()
    booster = world.fit(callback)
    world.fit(world.callback(parent=callback.recorder.run_id), 2, xgb_model=booster)
    events = spooled(world.base)
    assert [event.epoch for event in events if event.kind is Kind.METRICS] == [0, 1, 2, 0, 1]
    first, second = bodies(events, Kind.CONFIG)
    assert second["parent"]["run"] == callback.recorder.run_id
    assert first["name"] == "xgboost binary:logistic"
    assert bodies(events, Kind.WEIGHTS)[1]["root"] == bodies(events, Kind.STATE)[0]["root"]


def test_what_a_matrix_holds_counts_and_its_rows_are_told(world: World) -> None:
    from provenance.fingerprint.datasets import dataset_digest
    from provenance.integrations.xgboost import as_data

    def fields(x: Any, **options: Any) -> dict[str, Any]:
        matrix = world.xgboost.DMatrix(x, **options)
        return dataset_digest(as_data(matrix), HashFactory("blake3")).as_fields()

    zero, missing = X.copy(), X.copy()
    zero[0, 0], missing[0, 0] = 0.0, np.nan
    several = [
        fields(X), fields(zero), fields(missing), fields(X, label=Y), fields(X, weight=Y + 1.0),
        fields(X, feature_names=list("abc")), fields(X, label=Y, group=[20, 40]),
        fields(X, label=Y, group=[30, 30]),
    ]  # fmt: skip
    assert len({each["root"] for each in several}) == len(several)
    assert {each["count"] for each in several} == {60}


def test_a_second_training_of_a_callback_and_its_copy_are_runs_of_their_own(world: World) -> None:
    callback = world.callback()
    world.fit(callback)
    first = callback.recorder.run_id
    world.fit(callback)
    other = copy.deepcopy(callback)
    world.fit(other)
    assert len({first, callback.recorder.run_id, other.recorder.run_id}) == 3
    assert kinds(spooled(world.base)).count("run.end") == 3


def test_estimators_and_cross_validation_take_the_callback(world: World) -> None:
    callback = world.callback()
    world.xgboost.XGBClassifier(n_estimators=2, n_jobs=1, callbacks=[callback]).fit(X, Y)
    world.xgboost.cv(PARAMETERS, world.train, 2, nfold=2, callbacks=[callback])
    events = spooled(world.base)
    assert kinds(events).count("run.end") == 2
    (scores,) = (body["metrics"] for body in bodies(events, Kind.METRICS)[3:] if body["metrics"])
    assert scores.keys() == {
        "train-logloss", "train-logloss-std", "test-logloss", "test-logloss-std",
    }  # fmt: skip


def test_data_that_was_not_shown_is_named(world: World) -> None:
    world.fit(world.callback(train=None))
    (config,) = bodies(spooled(world.base), Kind.CONFIG)
    assert "data.train" in config["training"]["not_recorded"]


def test_the_example_runs(world: World) -> None:
    run_example("xgboost_callback", world.base)
    assert kinds(spooled(world.base)).count("metrics") == 10
