"""Ray Tune: its own trials and callback list; what is slow has a cluster, which takes ten seconds
to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.home import brought_home
from tests.support.spooled import bodies, kinds, spooled


class World:
    """Trials of an experiment ``exp``, and the callbacks that Tune's controller would call."""

    def __init__(self, folder: Path) -> None:
        framework("ray")
        framework("ray.tune", "ray")
        from ray.train._internal.storage import StorageContext
        from ray.tune.callback import CallbackList
        from ray.tune.experiment import Trial

        from provenance.integrations.ray import ProvenanceCallback

        self.folder = folder
        self.callback = ProvenanceCallback(base_dir=folder / "artifacts", train=np.ones(3))
        self.calls: Any = CallbackList([self.callback])
        storage = StorageContext(str(folder / "ray"), experiment_dir_name="exp")
        self.trials = [
            Trial("train", config={"lr": rate}, trial_id=name, storage=storage, stub=True)
            for name, rate in (("a", 0.1), ("b", 0.2), ("c", 0.3))
        ]

    def call(self, hook: str, trial: Any, **more: Any) -> None:
        getattr(self.calls, hook)(iteration=1, trials=self.trials, trial=trial, **more)

    def result(self, trial: Any, iteration: int, loss: float) -> None:
        trial.run_metadata.last_result = {
            "training_iteration": iteration, "loss": loss, "time_total_s": 1.0,
            "trial_id": trial.trial_id, "config": trial.config, "done": False,
        }  # fmt: skip
        self.call("on_trial_result", trial, result=trial.last_result)

    def events(self) -> Any:
        return spooled(self.folder / "artifacts")


@pytest.mark.slow
def test_a_folder_as_its_first_argument_is_one_line() -> None:
    framework("ray.tune", "ray")
    from provenance.integrations.ray import ProvenanceCallback

    with pytest.raises(TypeError, match="found 'folder': each trial has a tracker of its own"):
        ProvenanceCallback("folder")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.slow
def test_each_trial_is_a_run_that_ends_as_the_trial_does(world: World) -> None:
    from ray.tune import Checkpoint

    done, failed, open_ = world.trials
    for trial in world.trials:
        world.call("on_trial_start", trial)
        world.result(trial, 1, 0.5)
    (world.folder / "checkpoint_0").mkdir()
    (world.folder / "checkpoint_0" / "w").write_bytes(b"w")
    checkpoint = Checkpoint.from_directory(str(world.folder / "checkpoint_0"))
    world.call("on_checkpoint", done, checkpoint=checkpoint)
    world.call("on_trial_start", done)  # paused, and goes on
    world.result(done, 2, 0.25)
    world.call("on_trial_complete", done)
    world.call("on_trial_error", failed)
    world.calls.on_experiment_end(trials=world.trials)
    events = world.events()
    configs = {config["name"]: config for config in bodies(events, Kind.CONFIG)}
    assert configs.keys() == {"exp/a", "exp/b", "exp/c"}
    assert configs["exp/a"]["group"] == "exp"
    assert configs["exp/b"]["training"]["lr"] == 0.2
    ends = sorted(body["reason"] for body in bodies(events, Kind.RUN_END))
    assert ends == ["finished", "the experiment ended", "the trial failed"]
    assert bodies(events, Kind.RESULTS)[0]["results"] == {"training_iteration": 2, "loss": 0.25}
    metrics = [body["metrics"] for body in bodies(events, Kind.METRICS)]
    assert sorted(values["loss"] for values in metrics) == [0.25, 0.5, 0.5, 0.5]
    assert {tuple(values) for values in metrics} == {("loss",)}
    assert [body["name"] for body in bodies(events, Kind.ARTIFACT)] == ["checkpoint_0"]
    assert kinds(events).count("data.train") == 3
    assert len(set(world.callback.run_ids.values())) == 3


@pytest.mark.slow
def test_no_fault_of_a_result_ends_the_experiment(world: World) -> None:
    trial = world.trials[0]
    world.call("on_trial_result", trial, result={})
    world.call("on_trial_start", trial)
    world.call("on_trial_result", trial, result={"loss": 1.0})
    world.call("on_checkpoint", trial, checkpoint=None)
    world.call("on_trial_complete", trial)
    world.call("on_trial_complete", trial)
    assert kinds(world.events()).count("run.end") == 1


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Of two CPUs, whose results lie in ``tmp_path``."""
    framework("ray.tune", "ray")
    ray = framework("ray")
    monkeypatch.setattr("ray.train.constants.DEFAULT_STORAGE_PATH", str(tmp_path / "results"))
    memory = 100 * 2**20
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=memory)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_tuner_records_its_trials_and_those_that_it_goes_on_with(
    cluster: Any, tmp_path: Path
) -> None:
    from ray import tune

    from provenance.integrations.ray import ProvenanceCallback

    flag = tmp_path / "failed"

    def train(config: dict[str, int]) -> None:
        for step in range(3):
            if config["a"] == 2 and step == 1 and not flag.exists():
                flag.touch()
                raise FloatingPointError
            tune.report({"score": step})

    recording = ProvenanceCallback(base_dir=tmp_path, train=np.ones(3))
    running = tune.RunConfig(name="exp", callbacks=[recording], verbose=0)
    space = {"a": tune.grid_search([1, 2])}
    tune.Tuner(train, param_space=space, run_config=running).fit()
    tune.Tuner.restore(str(tmp_path / "results/exp"), train, resume_errored=True).fit()
    events = spooled(tmp_path)
    ends = sorted(body["reason"] for body in bodies(events, Kind.RUN_END))
    assert ends == ["finished", "finished", "the trial failed"]
    (going_on,) = [config for config in bodies(events, Kind.CONFIG) if config["parent"]]
    assert going_on["training"]["a"] == 2
    trial = going_on["training"]["ray"]["trial"]
    assert going_on["name"] == f"exp/{trial}"
    assert going_on["parent"]["run"] == recording.run_ids[trial]

    run_example("ray_tune", tmp_path / "example")
    assert kinds(spooled(tmp_path / "example")).count("metrics") == 6
    for base in (tmp_path, tmp_path / "example"):
        for report in brought_home(base).values():
            assert report.outcome == "verified", report.findings
