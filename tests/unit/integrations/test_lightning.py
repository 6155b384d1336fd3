"""Lightning: the real Trainer on a tiny module, and what of its ways the run says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import autologged, framework
from tests.support.spooled import bodies, kinds, spooled, steps

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class World:
    """A module, its data and a trainer for them."""

    def __init__(self, folder: Path) -> None:
        self.lightning = framework("lightning")
        self.torch = torch = framework("torch")
        from torch.utils.data import DataLoader, TensorDataset

        torch.manual_seed(0)
        x = torch.randn(32, 4)
        self.train = TensorDataset(x, (x.sum(1) > 0).long())
        self.test = TensorDataset(x[:8], (x[:8].sum(1) > 0).long())
        self.loaders = DataLoader(self.train, 8), DataLoader(self.test, 8)
        self.folder = folder
        self.base = folder / "artifacts"

    def module(self, fail_at: int | None = None) -> Any:
        torch = self.torch

        class Module(self.lightning.LightningModule):  # type: ignore[name-defined,misc]
            def __init__(self, lr: float = 0.1, sched: object = ("cos", 3)) -> None:
                super().__init__()
                self.save_hyperparameters()
                self.net = torch.nn.Linear(4, 2)

            def training_step(self, batch: Any, index: int) -> Any:
                if self.current_epoch == fail_at:
                    raise FloatingPointError("loss is NaN")
                loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
                self.log("train/loss", loss, on_step=True, on_epoch=True)
                return loss

            def validation_step(self, batch: Any, index: int) -> None:
                right = self.net(batch[0]).argmax(1) == batch[1]
                self.log("val/acc", right.float().mean())

            def predict_step(self, batch: Any, index: int) -> Any:
                return self.net(batch[0])

            def configure_optimizers(self) -> Any:
                return torch.optim.Adam(self.parameters(), self.hparams["lr"])

        return Module()

    def trainer(self, *callbacks: Any, logger: Any = False, **options: Any) -> Any:
        settings = {
            "max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False,
            "enable_model_summary": False, "enable_checkpointing": False, "log_every_n_steps": 1,
            "default_root_dir": self.folder, **options,
        }  # fmt: skip
        return self.lightning.Trainer(callbacks=list(callbacks), logger=logger, **settings)

    def callback(self, **options: Any) -> Any:
        from provenance.integrations.lightning import ProvenanceCallback

        return ProvenanceCallback(base_dir=self.base, **options)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = World(tmp_path)
        threads = made.torch.get_num_threads()
        made.torch.set_num_threads(1)
        yield made
        made.torch.set_num_threads(threads)


def test_a_fit_is_a_finished_run_with_data_weights_and_every_epoch(world: World) -> None:
    module, callback = world.module(), world.callback()
    first = state_digest(module.state_dict()).as_fields()["root"]
    world.trainer(callback).fit(module, *world.loaders)
    events = spooled(world.base)
    train, test = (bodies(events, kind)[0] for kind in (Kind.DATA_TRAIN, Kind.DATA_TEST))
    assert train["root"] == str(dataset_digest(world.train))
    assert test["root"] == str(dataset_digest(world.test))
    assert bodies(events, Kind.WEIGHTS)[0]["root"] == first
    training = bodies(events, Kind.CONFIG)[0]["training"]
    assert training["lr"] == 0.1
    assert training["sched"] == ["cos", 3]
    assert training["trainer"]["max_epochs"] == 2
    assert training["optimizers"][0]["Adam"]["lr"] == 0.1
    assert "not_recorded" not in training
    metrics = [event for event in events if event.kind is Kind.METRICS]
    assert [event.epoch for event in metrics] == [0, 1]
    for event in metrics:
        assert {"train/loss_epoch", "val/acc"} <= event.fields["metrics"].keys()
    states = {event.epoch: event.fields["root"] for event in events if event.kind is Kind.STATE}
    assert states.keys() == {0, 1}
    assert states[1] == state_digest(module.state_dict()).as_fields()["root"]
    assert "val/acc" in bodies(events, Kind.RESULTS)[0]["results"]
    assert bodies(events, Kind.RUN_END)[0]["reason"] == "finished"


def test_the_logger_records_the_same_and_stays_out_of_checkpoint_paths(world: World) -> None:
    from provenance.integrations.lightning import ProvenanceLogger

    logger = ProvenanceLogger(base_dir=world.base)
    trainer = world.trainer(logger=logger, enable_checkpointing=True)
    trainer.fit(world.module(), *world.loaders)
    counted = kinds(spooled(world.base))
    assert counted.count("metrics") == counted.count("state") == 2
    losses = [step for step, values in steps(spooled(world.base)) if "train/loss_step" in values]
    assert losses == [*range(8)]
    assert counted.count("data.train") == counted.count("results") == 1
    assert logger.version == logger.callback.recorder.run_id
    assert list(world.folder.rglob("*.ckpt"))


def test_autolog_records_a_fit_that_records_nothing_itself(world: World) -> None:
    from provenance.integrations.lightning import ProvenanceLogger

    trainer, failing = world.trainer(), world.trainer()
    logged = world.trainer(logger=ProvenanceLogger(base_dir=world.folder / "own"))
    callbacks = list(trainer.callbacks)
    with autologged(world.base):
        trainer.fit(world.module(), *world.loaders)
        world.trainer(world.callback()).fit(world.module(), *world.loaders)
        logged.fit(world.module(), *world.loaders)
        with pytest.raises(FloatingPointError):
            failing.fit(world.module(fail_at=1), *world.loaders)
    trainer.fit(world.module(), *world.loaders)
    events = spooled(world.base)
    assert sorted(body["reason"] for body in bodies(events, Kind.RUN_END)) == [
        "FloatingPointError", "finished", "finished",
    ]  # fmt: skip
    assert kinds(events).count("data.test") == 3
    assert trainer.callbacks == callbacks


def test_a_metric_of_an_earlier_epoch_is_not_stated_again(world: World) -> None:
    trainer = world.trainer(world.callback(), max_epochs=4, check_val_every_n_epoch=2)
    trainer.fit(world.module(), *world.loaders)
    metrics = [e.fields["metrics"] for e in spooled(world.base) if e.kind is Kind.METRICS]
    assert ["val/acc" in values for values in metrics] == [False, True, False, True]


@pytest.mark.parametrize(
    ("fail", "reason"),
    [(None, "finished"), (1, "FloatingPointError")],
)
def test_the_end_says_what_ended_it(world: World, fail: int | None, reason: str) -> None:
    callback = world.callback()
    try:
        world.trainer(callback).fit(world.module(fail), *world.loaders)
    except FloatingPointError:
        assert fail is not None
    events = spooled(world.base)
    assert bodies(events, Kind.RUN_END)[0]["reason"] == reason
    assert ("results" in kinds(events)) is (fail is None)


def test_a_second_fit_is_a_second_run_and_one_from_a_checkpoint_names_its_parent(
    world: World,
) -> None:
    module, callback, saved = world.module(), world.callback(), world.folder / "c.ckpt"
    trainer = world.trainer(callback)
    trainer.fit(module, *world.loaders)
    trainer.save_checkpoint(saved)
    first = callback.recorder.run_id
    resumed = world.callback()
    world.trainer(resumed, max_epochs=3).fit(module, *world.loaders, ckpt_path=saved)
    assert resumed.recorder.run_id != first
    events = spooled(world.base)
    configs = bodies(events, Kind.CONFIG)
    assert [config["parent"] for config in configs] == [None, {"run": first, "epoch": None}]
    assert [e.epoch for e in events if e.kind is Kind.METRICS] == [0, 1, 2]
    world.trainer(resumed, max_epochs=1).fit(module, *world.loaders)
    assert len(bodies(spooled(world.base), Kind.CONFIG)) == 3


def test_the_logger_names_the_parent_too(world: World) -> None:
    from provenance.integrations.lightning import ProvenanceLogger

    loggers = [ProvenanceLogger(base_dir=world.base) for _ in range(2)]
    trainer = world.trainer(logger=loggers[0])
    trainer.fit(world.module(), *world.loaders)
    trainer.save_checkpoint(world.folder / "c.ckpt")
    resumed = world.trainer(logger=loggers[1], max_epochs=3)
    resumed.fit(world.module(), *world.loaders, ckpt_path=world.folder / "c.ckpt")
    parents = [config["parent"] for config in bodies(spooled(world.base), Kind.CONFIG)]
    assert parents == [None, {"run": loggers[0].version, "epoch": None}]


def test_a_logger_that_is_not_shown_its_trainer_says_so_once(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    from provenance.integrations.lightning import ProvenanceLogger

    logger = ProvenanceLogger(base_dir=world.base)
    world.trainer(logger=logger, enable_autolog_hparams=False).fit(world.module(), *world.loaders)
    assert spooled(world.base) == []
    assert capsys.readouterr().err.count("give it a ProvenanceCallback") == 1


def test_a_checkpoint_that_was_only_validated_is_no_parent(world: World) -> None:
    saved = world.folder / "c.ckpt"
    trainer = world.trainer(world.callback())
    trainer.fit(world.module(), *world.loaders)
    trainer.save_checkpoint(saved)
    trainer.validate(world.module(), world.loaders[1], ckpt_path=saved, verbose=False)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(world.module(), *world.loaders)
    parents = [config["parent"] for config in bodies(spooled(world.base), Kind.CONFIG)]
    assert parents == [None, None]


def test_the_last_epochs_weights_where_a_callback_behind_it_stops(world: World) -> None:
    stopping = world.lightning.pytorch.callbacks.EarlyStopping(
        "train/loss", min_delta=9, patience=1
    )
    world.trainer(world.callback(every_n_epochs=50), stopping, max_epochs=9).fit(
        world.module(), *world.loaders
    )
    events = spooled(world.base)
    epochs = [event.epoch for event in events if event.kind is Kind.METRICS]
    assert [event.epoch for event in events if event.kind is Kind.STATE] == epochs[-1:] != [8]


def test_other_stages_and_the_tuner_make_no_run(world: World) -> None:
    from lightning.pytorch.tuner import Tuner

    trainer = world.trainer(world.callback())
    module = world.module()
    trainer.validate(module, world.loaders[1], verbose=False)
    trainer.predict(module, world.loaders[1])
    Tuner(trainer).lr_find(module, *world.loaders, num_training=3, update_attr=False)
    assert spooled(world.base) == []
    trainer.fit(module, *world.loaders)
    assert kinds(spooled(world.base)).count("config") == 1


def test_data_without_a_digest_is_named_and_training_goes_on(world: World) -> None:
    from torch.utils.data import DataLoader, IterableDataset

    class Stream(IterableDataset[Any]):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return (world.train[index] for index in range(8))

    world.trainer(world.callback(weights=None)).fit(world.module(), DataLoader(Stream(), 4))
    events = spooled(world.base)
    lost = bodies(events, Kind.CONFIG)[0]["training"]["not_recorded"]
    assert "data.train" in lost
    assert kinds(events).count("metrics") == 2
    assert kinds(events).count("state") == 0


def test_the_example_records_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    framework("lightning")
    monkeypatch.chdir(tmp_path)  # where its checkpoints go
    run_example("lightning_logger", tmp_path)
    counted = kinds(spooled(tmp_path))
    assert counted.count("metrics") == 3
    assert counted.count("data.train") == counted.count("results") == 1
