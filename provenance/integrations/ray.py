"""Ray Tune: ``RunConfig(callbacks=[ProvenanceCallback()])``, a run for each trial.

The experiment's name is the runs' group, and a trial's run is called ``experiment/trial``. Each
result is an epoch under Tune's ``training_iteration``; a checkpoint is an artifact. The callback
runs in the process that calls ``Tuner.fit``, which sees no model: within the trainable,
``record_fit`` or ``provenance.run(group=...)`` record weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ray import tune
from ray.tune.result import AUTO_RESULT_KEYS

from provenance.integrations.recorder import Recorder, of_each_trial

_NOT_METRICS: Final = {
    *AUTO_RESULT_KEYS, "checkpoint_dir_name", "config", "done", "experiment_tag",
    "should_checkpoint", "trial_id",
}  # fmt: skip


class ProvenanceCallback(tune.Callback):
    """Records each trial. One that goes on after ``Tuner.restore`` is a new run, whose parent is
    the one before.

    Args:
        options: As :class:`provenance.integrations.recorder.Recorder` takes them; ``train`` and
            ``test`` are the data of all trials.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._options = of_each_trial(arguments, options)
        self._shared = Recorder(**self._options)
        self._open: dict[str, Recorder] = {}
        self.run_ids: dict[str, str] = {}
        """By the trial's id."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin the trial's run, once: a trial that was paused or failed goes on with its own."""
        if trial.trial_id in self._open:
            return
        with self._shared.guarded("trial not recorded"):
            group = trial.experiment_dir_name or "tune"
            earlier = self.run_ids.get(trial.trial_id)
            labels = {"name": f"{group}/{trial.trial_id}", "group": group, "parent": earlier}
            recorder = Recorder(**{**labels, **self._options})
            self._open[trial.trial_id] = recorder
            settings = {"trial": trial.trial_id, "trainable": str(trial.trainable_name)}
            recorder.begin(config={**(trial.config or {}), "ray": settings})
            self.run_ids[trial.trial_id] = recorder.run_id or ""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record a result."""
        recorder = self._open.get(trial.trial_id)
        if recorder is not None:
            with recorder.guarded("result not recorded"):
                recorder.epoch(int(result["training_iteration"]), _metrics(result))

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """Record the digest of a checkpoint that lies on this host."""
        recorder = self._open.get(trial.trial_id)
        if recorder is not None and recorder.tracker is not None:
            with recorder.guarded("checkpoint not recorded"):
                recorder.tracker.artifact(checkpoint.path, Path(checkpoint.path).name)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Finish the trial's run. Tune does not tell whether a scheduler stopped it: the number of
        its results does."""
        recorder = self._open.pop(trial.trial_id, None)
        if recorder is not None:
            result = trial.last_result or {}
            results = {"training_iteration": result.get("training_iteration"), **_metrics(result)}
            recorder.end(results)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the trial's run as failed."""
        recorder = self._open.pop(trial.trial_id, None)
        if recorder is not None:
            recorder.end(None, "failed", "the trial failed")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """End what neither completed nor failed."""
        for recorder in self._open.values():
            recorder.end(None, "interrupted", "the experiment ended")
        self._open.clear()

    def get_state(self) -> dict[str, Any]:
        """For ``Tuner.restore``: the runs that its trials go on from."""
        return {"run_ids": self.run_ids}

    def set_state(self, state: dict[str, Any]) -> None:
        """Of the experiment that is restored."""
        self.run_ids = dict(state["run_ids"])

    def __getstate__(self) -> dict[str, Any]:
        """Pickled with the experiment: the runs that are open are this process's."""
        return {**self.__dict__, "_open": {}}


def _metrics(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in _NOT_METRICS}
