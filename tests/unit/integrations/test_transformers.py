"""Hugging Face: the real Trainer on a tiny model of two layers, without the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import autologged, framework
from tests.support.spooled import bodies, kinds, spooled, steps

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class World:
    """A model, 16 examples and a Trainer for them."""

    def __init__(self, folder: Path) -> None:
        self.transformers = framework("transformers")
        self.torch = torch = framework("torch")
        self.folder, self.base = folder, folder / "artifacts"
        torch.manual_seed(0)
        self.data = [
            {"input_ids": torch.tensor([i % 7, 1, 2]), "labels": torch.tensor(i % 2)}
            for i in range(16)
        ]

    def model(self) -> Any:
        config = self.transformers.BertConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=8, num_labels=2,
        )  # fmt: skip
        return self.transformers.BertForSequenceClassification(config)

    def trainer(self, callback: Any = None, *, model: Any = None, **options: Any) -> Any:
        arguments = self.transformers.TrainingArguments(
            output_dir=str(self.folder / "out"),
            **{
                "num_train_epochs": 2, "per_device_train_batch_size": 8, "save_strategy": "no",
                "logging_strategy": "epoch", "eval_strategy": "epoch", "report_to": "none",
                "disable_tqdm": True, "use_cpu": True, **options,
            },
        )  # fmt: skip
        return self.transformers.Trainer(
            model=model or self.model(), args=arguments, train_dataset=self.data,
            eval_dataset=self.data[:4], callbacks=[callback] if callback else None,
        )  # fmt: skip

    def callback(self, **options: Any) -> Any:
        from provenance.integrations.transformers import ProvenanceCallback

        return ProvenanceCallback(base_dir=self.base, **options)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    threads = made.torch.get_num_threads()
    made.torch.set_num_threads(1)
    yield made
    made.torch.set_num_threads(threads)


def test_a_training_is_a_run_with_the_evaluation_of_each_epoch(world: World) -> None:
    model = world.model()
    first = state_digest(model.state_dict()).as_fields()["root"]
    world.trainer(world.callback(test=world.data[:4]), model=model).train()
    events = spooled(world.base)
    assert bodies(events, Kind.WEIGHTS)[0]["root"] == first
    assert bodies(events, Kind.DATA_TRAIN)[0]["count"] == 16
    assert bodies(events, Kind.DATA_TEST)[0]["count"] == 4
    training = bodies(events, Kind.CONFIG)[0]["training"]
    assert training["num_train_epochs"] == 2
    assert training["model_config"]["hidden_size"] == 8
    assert "not_recorded" not in training
    metrics = [event for event in events if event.kind is Kind.METRICS]
    assert [event.epoch for event in metrics] == [1, 2]
    for event in metrics:
        assert {"loss", "eval_loss", "learning_rate"} <= event.fields["metrics"].keys()
    states = {event.epoch: event.fields["root"] for event in events if event.kind is Kind.STATE}
    assert states[2] == state_digest(model.state_dict()).as_fields()["root"]
    assert "train_runtime" in bodies(events, Kind.RESULTS)[0]["results"]
    assert bodies(events, Kind.RUN_END)[0]["reason"] == "finished"


def test_report_to_finds_it_once_it_is_imported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import provenance.integrations.transformers  # noqa: F401

    monkeypatch.chdir(world.folder)
    trainer = world.trainer(report_to="provenance")
    trainer.train()
    events = spooled(world.base)
    lost = bodies(events, Kind.CONFIG)[0]["training"]["not_recorded"]
    assert lost.keys() == {"data.test"}
    assert "test=" in lost["data.test"]
    assert kinds(events).count("metrics") == 2
    trainer.train()
    trainer.evaluate()
    trainer.predict(world.data[:2])
    assert kinds(spooled(world.base)).count("config") == 2


def test_autolog_records_a_training_with_its_evaluation_data(world: World) -> None:
    trainer = world.trainer()
    callbacks = list(trainer.callback_handler.callbacks)
    with autologged(world.base):
        trainer.train()
        world.trainer(world.callback()).train()
    assert trainer.callback_handler.callbacks == callbacks
    events = spooled(world.base)
    assert kinds(events).count("run.end") == 2
    assert [body["count"] for body in bodies(events, Kind.DATA_TEST)] == [4]
    assert {body["group"] for body in bodies(events, Kind.CONFIG)} == {"auto", None}


def test_part_of_an_epoch_and_metrics_of_steps_end_no_training(world: World) -> None:
    trainer = world.trainer(
        world.callback(), max_steps=1, logging_strategy="steps", logging_steps=1, eval_strategy="no"
    )
    trainer.train()
    logged = [step for step, values in steps(spooled(world.base)) if "loss" in values]
    assert logged == [1]
    metrics = [event for event in spooled(world.base) if event.kind is Kind.METRICS]
    assert [event.epoch for event in metrics] == [1]
    assert "loss" in metrics[0].fields["metrics"]


def test_the_last_epochs_weights_are_not_those_of_the_best_model(world: World) -> None:
    model = world.model()
    trainer = world.trainer(
        world.callback(), model=model, save_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="eval_loss", greater_is_better=True, learning_rate=0.1,
    )  # fmt: skip
    trainer.train()
    events = spooled(world.base)
    roots = {event.epoch: event.fields["root"] for event in events if event.kind is Kind.STATE}
    best = state_digest(model.state_dict()).as_fields()["root"]
    assert roots.keys() == {1, 2}
    assert best == roots[1] != roots[2]
    assert "best_metric" in bodies(events, Kind.RESULTS)[0]["results"]


def test_a_training_from_a_checkpoint_names_its_parent(world: World) -> None:
    callback = world.callback()
    world.trainer(callback, save_strategy="epoch", num_train_epochs=1).train()
    resumed = world.callback()
    world.trainer(resumed).train(resume_from_checkpoint=str(world.folder / "out/checkpoint-2"))
    configs = bodies(spooled(world.base), Kind.CONFIG)
    parent = {"run": callback.recorder.run_id, "epoch": None}
    assert [config["parent"] for config in configs] == [None, parent]
    metrics = [event.epoch for event in spooled(world.base) if event.kind is Kind.METRICS]
    assert metrics == [1, 2]


def test_a_training_that_raised_is_a_failed_run_whoever_catches_it(world: World) -> None:
    callback = world.callback()

    class Stop(world.transformers.TrainerCallback):  # type: ignore[name-defined,misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise FloatingPointError("NaN")

    trainer = world.trainer(callback)
    trainer.add_callback(Stop())
    with pytest.raises(FloatingPointError):
        trainer.train()
    first = callback.recorder.run_id
    (end,) = bodies(spooled(world.base), Kind.RUN_END)
    assert (end["state"], end["reason"]) == ("failed", "FloatingPointError")
    trainer.remove_callback(Stop)
    trainer.train()
    events = spooled(world.base)
    ends = [event.fields["reason"] for event in events if event.kind is Kind.RUN_END]
    assert sorted(ends) == ["FloatingPointError", "finished"]
    assert callback.recorder.run_id != first


def test_a_trial_that_the_search_prunes_is_no_finished_run(world: World) -> None:
    optuna = framework("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    class Second(optuna.pruners.BasePruner):  # type: ignore[name-defined,misc]
        def prune(self, study: Any, trial: Any) -> bool:
            return bool(trial.number == 1)

    trainer = world.trainer(world.callback())
    trainer.model_init = world.model
    trainer.hyperparameter_search(
        lambda trial: {"seed": trial.suggest_int("seed", 1, 9)}, n_trials=2, pruner=Second(),
        direction="minimize", backend="optuna",
    )  # fmt: skip
    ends = [body["state"] for body in bodies(spooled(world.base), Kind.RUN_END)]
    assert ends == ["finished", "pruned"]


def test_the_example_records_a_whole_run(tmp_path: Path) -> None:
    framework("transformers")
    run_example("transformers_trainer", tmp_path)
    counted = kinds(spooled(tmp_path))
    assert counted.count("metrics") == 2
    assert counted.count("data.train") == counted.count("results") == 1
