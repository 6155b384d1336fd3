"""Lightning: ``Trainer(logger=ProvenanceLogger())``, or ``callbacks=[ProvenanceCallback()]``.

Of each ``fit`` a run: the datasets of its dataloaders (validation as test data), the module's
weights and hyperparameters, each epoch's ``callback_metrics`` under Lightning's number (from 0).
What a tuner, ``validate``, ``test`` and ``predict`` do is recorded by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from provenance.integrations.recorder import Recorder, harmless
from provenance.running import Run
from provenance.tracker import ProvenanceTracker


class ProvenanceCallback(Callback):
    """Records each ``fit``.

    A checkpoint carries the run's id; a ``fit`` from it names that run as ``parent_model``.

    Args:
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them.
    """

    def __init__(self, tracker: ProvenanceTracker | Run | None = None, **options: Any) -> None:
        self.recorder = Recorder(tracker, **options)
        self._parent: str | None = None
        self._newest: dict[str, Any] = {}

    @harmless
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what a validation loaded; the checkpoint of this stage comes behind."""
        self._parent = None

    @harmless
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the run: data loaders and restored weights are there now."""
        recorder = self.recorder
        recorder.abandoned()
        config: dict[str, Any] = {}
        with recorder.guarded("hyperparameters not recorded"):
            config = _hyperparameters(trainer, pl_module)
        if self._parent is not None:
            config["parent_model"] = self._parent
        recorder.begin(
            pl_module,
            _datasets(trainer.train_dataloader),
            _datasets(trainer.val_dataloaders),
            config,
            name=type(pl_module).__name__,
        )
        self._newest = {}

    @harmless
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch; validation, where it was its turn, has run."""
        metrics = dict(trainer.callback_metrics)
        # What was logged in an earlier epoch stays among them.
        fresh = {k: v for k, v in metrics.items() if v is not self._newest.get(k)}
        self._newest = metrics
        self.recorder.epoch(trainer.current_epoch, fresh, pl_module)

    @harmless
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the last epoch's weights, whatever ended the training."""
        self.recorder.last_weights(pl_module)

    @harmless
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the run with the newest metrics."""
        self.recorder.end(dict(trainer.callback_metrics))

    @harmless
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the run as failed, or as interrupted by Ctrl-C or SIGTERM."""
        self.recorder.failed(exception)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint carries."""
        return {"run_id": self.recorder.run_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of the checkpoint that a ``fit`` goes on from."""
        self._parent = state_dict.get("run_id")


class ProvenanceLogger(Logger):
    """The same as a logger, with the metrics of steps too.

    It adds a :class:`ProvenanceCallback` to the trainer that logs to it.
    """

    def __init__(self, tracker: ProvenanceTracker | Run | None = None, **options: Any) -> None:
        super().__init__()
        self.callback = ProvenanceCallback(tracker, **options)
        self.recorder = self.callback.recorder
        self._was_shown = False

    @property
    def name(self) -> str:
        """``provenance``."""
        return "provenance"

    @property
    def version(self) -> str:
        """The run's id; empty before its first."""
        return self.recorder.run_id or ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing here: the callback reads the module's."""

    @harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record a step's metrics."""
        if not self._was_shown and not self.recorder.problems:
            hidden = "Trainer(enable_autolog_hparams=False) shows no logger its trainer"
            self.recorder.note(f"nothing is recorded: {hidden}; give it a ProvenanceCallback")
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        self.recorder.step(step or 0, values)

    @harmless
    def log_graph(self, model: LightningModule, input_array: Any = None) -> None:
        """Called before each stage: from now on the trainer tells the callback. A checkpoint's
        states were told to callbacks before."""
        trainer, self._was_shown = model.trainer, True
        if not any(isinstance(callback, ProvenanceCallback) for callback in trainer.callbacks):
            trainer.callbacks.insert(0, self.callback)
            loaded = trainer._checkpoint_connector._loaded_checkpoint
            self.callback.load_state_dict(
                loaded.get("callbacks", {}).get(self.callback.state_key, {})
            )


def _datasets(loaders: Any) -> object:
    """The dataset of a loader; of several, each by its name or number."""
    if isinstance(loaders, Mapping):
        return {name: _datasets(loader) for name, loader in loaders.items()}
    if isinstance(loaders, list | tuple):
        if len(loaders) == 1:
            return _datasets(loaders[0])
        return {str(index): _datasets(loader) for index, loader in enumerate(loaders)} or None
    return getattr(loaders, "dataset", loaders)


def _hyperparameters(trainer: Trainer, module: LightningModule) -> dict[str, object]:
    data = getattr(trainer, "datamodule", None)
    settings = {
        name: getattr(trainer, name, None)
        for name in ("max_epochs", "max_steps", "precision", "accumulate_grad_batches",
                     "gradient_clip_val", "num_devices", "num_nodes", "fast_dev_run")
    }  # fmt: skip
    settings["strategy"] = type(trainer.strategy).__name__
    optimizers = [{type(each).__name__: each.defaults} for each in trainer.optimizers]
    return {
        **(dict(data.hparams) if data is not None else {}),
        **dict(module.hparams),
        "optimizers": optimizers,
        "trainer": settings,
    }
