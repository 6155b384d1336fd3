"""LightGBM: the real library, and what a run says of its trainings."""

from __future__ import annotations

import pickle
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

X = np.random.default_rng(0).normal(size=(80, 3))
Y = (X[:, 0] > 0).astype(int)
NOISE = np.random.default_rng(1).normal(size=(80, 3))
PARAMETERS = {"objective": "binary", "verbosity": -1, "num_threads": 1, "learning_rate": 0.25}


class World:
    def __init__(self, folder: Path) -> None:
        self.base = folder
        self.lightgbm = framework("lightgbm")

    def callback(self, **options: Any) -> Any:
        from provenance.integrations.lightgbm import ProvenanceCallback

        return ProvenanceCallback(**{"train": (X, Y), "base_dir": self.base, **options})

    def fit(self, callback: Any, rounds: int = 3, *more: Any, **options: Any) -> Any:
        data = self.lightgbm.Dataset(X, Y), self.lightgbm.Dataset(NOISE, Y)
        callbacks = [callback, *more]
        return self.lightgbm.train(
            PARAMETERS, data[0], rounds, valid_sets=[data[1]], callbacks=callbacks, **options
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_training_is_recorded_by_iterations(world: World) -> None:
    log: dict[str, Any] = {}
    world.fit(world.callback(test=(NOISE, Y)), 3, world.lightgbm.record_evaluation(log))
    events = spooled(world.base)
    found = kinds(events)
    assert found[0:2] == ["data.train", "data.test"]
    assert found[-3:] == ["results", "run.seal", "run.end"]
    assert [event.epoch for event in events if event.kind is Kind.METRICS] == [0, 1, 2]
    losses = [body["metrics"]["valid_0-binary_logloss"] for body in bodies(events, Kind.METRICS)]
    assert losses == log["valid_0"]["binary_logloss"]
    training = bodies(events, Kind.CONFIG)[0]["training"]
    assert training["params"]["learning_rate"] == 0.25
    assert "first tree" in training["not_recorded"]["model"]


def test_early_stopping_ends_the_run(world: World) -> None:
    stopping = world.lightgbm.early_stopping(2, verbose=False)
    booster = world.fit(world.callback(), 40, stopping)
    events = spooled(world.base)
    (results,) = bodies(events, Kind.RESULTS)
    assert results["results"]["best_iteration"] == booster.best_iteration < 38
    assert results["results"]["iterations"] == kinds(events).count("metrics")
    assert bodies(events, Kind.RUN_END)[0]["reason"] == "finished"


def test_the_booster_is_recorded_as_it_is_returned(world: World) -> None:
    booster = world.fit(world.callback(), 20, world.lightgbm.early_stopping(2, verbose=False))
    states = bodies(spooled(world.base), Kind.STATE)
    expected = state_digest(booster, HashFactory("blake3")).as_fields()["root"]
    assert [body["root"] for body in states] == [expected]


def test_a_booster_that_keeps_its_data_is_ended_by_hand(world: World) -> None:
    callback = world.callback()
    booster = world.fit(callback, keep_training_booster=True)
    assert callback.recorder.is_open
    callback.end(booster)
    assert kinds(spooled(world.base))[-1] == "run.end"
    booster.free_dataset()
    assert kinds(spooled(world.base)).count("run.end") == 1


def test_a_booster_can_be_pickled_while_it_is_recorded(world: World) -> None:
    def keep(env: Any) -> None:
        pickle.loads(pickle.dumps(env.model)).free_dataset()

    world.fit(world.callback(), 2, keep)
    assert kinds(spooled(world.base)).count("run.end") == 1


def test_a_training_that_raised_is_interrupted_by_the_next(world: World) -> None:
    def fail(env: Any) -> None:
        raise FloatingPointError

    callback = world.callback()
    with pytest.raises(FloatingPointError):
        world.fit(callback, 2, fail)
    world.fit(callback)
    ends = [body["reason"] for body in bodies(spooled(world.base), Kind.RUN_END)]
    assert sorted(ends) == ["another training began", "finished"]


def test_estimators_and_cross_validation_take_the_callback(world: World) -> None:
    callback = world.callback()
    model = world.lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1, n_jobs=1)
    model.fit(X, Y, callbacks=[callback])
    world.lightgbm.cv(PARAMETERS, world.lightgbm.Dataset(X, Y), 2, callbacks=[callback])
    events = spooled(world.base)
    assert kinds(events).count("run.end") == 2
    scores = bodies(events, Kind.METRICS)[-1]["metrics"]
    assert scores.keys() == {"valid-binary_logloss", "valid-binary_logloss-std"}


def test_the_example_runs(world: World) -> None:
    run_example("lightgbm_callback", world.base)
    assert kinds(spooled(world.base))[-1] == "run.end"
