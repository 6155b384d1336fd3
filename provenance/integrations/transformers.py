"""Hugging Face: ``TrainingArguments(report_to="provenance")`` once this module is imported.

transformers 5 has no entry points for integrations: importing this adds ``provenance`` to the
names that ``report_to`` knows. ``Trainer(callbacks=[ProvenanceCallback()])`` does the same, and
takes options.

Of each ``train`` a run: the training dataset as the Trainer feeds it, the model, the
TrainingArguments, each epoch's metrics (numbered from 1) with those of the evaluation after it,
and the metrics of steps as they are logged.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from transformers import Trainer
from transformers.integrations import integration_utils
from transformers.trainer_callback import ExportableState, TrainerCallback

from provenance.integrations.recorder import NOT_RECORDED, Recorder, harmless
from provenance.running import Run
from provenance.tracker import ProvenanceTracker

_NO_TEST = "a callback is not shown evaluation data before training: ProvenanceCallback(test=...)"


class ProvenanceCallback(TrainerCallback, ExportableState):
    """Records each ``train``.

    A checkpoint carries the run's id; ``train(resume_from_checkpoint=...)`` names that run as
    ``parent_model``.

    The hooks get TrainingArguments, TrainerState and TrainerControl, and by name what is shown.

    Args:
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them.
    """

    def __init__(self, tracker: ProvenanceTracker | Run | None = None, **options: Any) -> None:
        self.recorder = Recorder(tracker, **options)
        self._logs: dict[str, Any] = {}
        self._epoch: tuple[int, str, bool] | None = None
        """The epoch that waits for its metrics, what brings them, and whether it is the last."""

    @harmless
    def on_train_begin(self, args: Any, state: Any, control: Any, **shown: Any) -> None:
        """Begin the run: a checkpoint, where there is one, is loaded."""
        recorder = self.recorder
        recorder.abandoned()
        model = shown.get("model")
        config: dict[str, Any] = {
            **args.to_dict(),  # tokens are hidden in it
            "model_config": getattr(getattr(model, "config", None), "to_dict", dict)(),
            "trial": state.trial_params,
        }
        stored: Any = (state.stateful_callbacks or {}).get(type(self).__name__)
        if state.global_step and isinstance(stored, dict):
            config["parent_model"] = stored.get("attributes", {}).get("run_id")
        if str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no":
            config[NOT_RECORDED] = {"data.test": _NO_TEST}
        data = getattr(shown.get("train_dataloader"), "dataset", None)
        self._logs, self._epoch = {}, None
        given = {name: value for name, value in config.items() if value is not None}
        recorder.begin(model, data, None, given, name=args.run_name or type(model).__name__)

    @harmless
    def on_epoch_end(self, args: Any, state: Any, control: Any, **shown: Any) -> None:
        """Record the epoch, or wait for what the Trainer logs or evaluates at its end."""
        number = math.ceil(round(state.epoch or 0.0, 6))
        last = state.global_step >= state.max_steps or control.should_training_stop
        event = "evaluate" if control.should_evaluate else "log" if control.should_log else ""
        self._epoch = (number, event, last)
        self._record(shown.get("model"), "")

    @harmless
    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **shown: Any
    ) -> None:
        """Record a step's metrics, and keep them for its epoch."""
        values = {name: value for name, value in (logs or {}).items() if name != "epoch"}
        self._logs |= values
        self.recorder.step(state.global_step, values)
        self._record(shown.get("model"), "log")

    @harmless
    def on_evaluate(self, *_: Any, **shown: Any) -> None:
        """Record the epoch that waits for it."""
        self._record(shown.get("model"), "evaluate")

    @harmless
    def on_epoch_begin(self, *_: Any, **shown: Any) -> None:
        """Record an epoch whose metrics never came."""
        self._record(shown.get("model"), None)

    @harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **shown: Any) -> None:
        """Finish the run with the metrics of the whole training, or as a trial that the search
        pruned: the Trainer calls this, then raises."""
        self._record(None, None)
        if not args.load_best_model_at_end:
            self.recorder.last_weights(shown.get("model"))
        results = dict(state.log_history[-1]) if state.log_history else {}
        if state.best_metric is not None:
            results |= {"best_metric": state.best_metric, "best_step": state.best_global_step}
        stopped = state.global_step < state.max_steps and not control.should_training_stop
        if stopped and state.is_hyper_param_search:
            self.recorder.end(None, "pruned", "pruned")
        self.recorder.end(results)

    def _record(self, model: Any, event: str | None) -> None:
        if self._epoch is None or event not in (None, self._epoch[1]):
            return
        number, _, last = self._epoch
        self._epoch = None
        self.recorder.epoch(number, self._logs, model, last=last)
        self._logs = {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint carries."""
        return {"args": {}, "attributes": {"run_id": self.recorder.run_id}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ProvenanceCallback:
        """As the Trainer restores it where callbacks are restored from the checkpoint."""
        return cls()


integration_utils.INTEGRATION_TO_CALLBACK["provenance"] = ProvenanceCallback
_train = Trainer._inner_training_loop


@functools.wraps(_train)
def _told(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
    """The Trainer's loop, which tells no callback of the exception that ends it."""
    try:
        return _train(trainer, *args, **kwargs)
    except BaseException as error:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ProvenanceCallback):
                callback.recorder.failed(error)
        raise


Trainer._inner_training_loop = _told
