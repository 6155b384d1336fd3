"""Optuna: ``study.optimize(record_trials(objective), n_trials=20)``, a run for each trial.

The study's name is the runs' group, and a trial's run is called ``study/number``. What the trial
reports is an epoch under the step's number. A trial that is pruned ends as ``pruned``, one that
fails as ``failed``. The trial carries its run's id as the user attribute ``provenance.run_id``.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from provenance.capture.given import shown
from provenance.integrations.recorder import Recorder, of_each_trial

RUN_ID: Final = "provenance.run_id"
"""A user attribute, of a trial; of a study with a dot and the trial's number behind it."""

_RECORDERS: weakref.WeakKeyDictionary[Any, TrialRecorder] = weakref.WeakKeyDictionary()


class TrialRecorder(Recorder):
    """A recorder whose run begins with the parameters that a trial has by then."""

    def __init__(self, study: optuna.Study, trial: Any, options: Mapping[str, Any]) -> None:
        super().__init__(
            **{"name": f"{study.study_name}/{trial.number}", "group": study.study_name, **options}
        )
        self._study, self._trial = study, trial
        self.recorded = set[int]()
        """Epochs of this trial that the objective, or a report, recorded."""

    def epoch(self, n: int, *arguments: Any, **options: Any) -> None:
        """Record an epoch; a report of the same number is then no second one."""
        self.recorded.add(n)
        super().epoch(n, *arguments, **options)

    def begin(
        self,
        model: object = None,
        train: object = None,
        test: object = None,
        config: Mapping[str, object] | None = None,
        structure: object = None,
        name: str | None = None,
    ) -> None:
        """Record what is known before the training, once."""
        trial, settings = self._trial, dict[str, Any]()
        if self.is_open:
            return
        with self.guarded("parameters not recorded"):
            settings = {
                **trial.params,
                "optuna": {
                    "study": self._study.study_name,
                    "trial": trial.number,
                    "directions": [each.name for each in self._study.directions],
                    "sampler": type(self._study.sampler).__name__,
                    "distributions": {k: str(v) for k, v in trial.distributions.items()},
                },
            }
        super().begin(model, train, test, {**settings, **(config or {})}, structure, name)
        if self.run_id is not None and not isinstance(trial, FrozenTrial):
            with self.guarded("the trial does not name its run"):
                trial.set_user_attr(RUN_ID, self.run_id)


def record_trials(
    objective: Callable[[optuna.Trial], Any], *arguments: Any, **options: Any
) -> Callable[[optuna.Trial], Any]:
    """An objective whose trials are recorded, also those of several threads or processes.

    A run begins with the first report, or where the objective asks for it, with the parameters
    that are suggested by then; the results have all of them.

    Args:
        objective: It may call ``recorder_of(trial)`` to record data, a model and its weights.
        options: As :class:`provenance.integrations.recorder.Recorder` takes them.

    Raises:
        ConfigError, InputError, TypeError: Of the options.
    """
    if not callable(objective):
        raise TypeError(
            f"objective, the first argument: found {shown(objective)}, expected a function"
        )
    return _Recorded(objective, of_each_trial(arguments, options))


@dataclass(frozen=True)
class _Recorded:
    """An objective that can be pickled where the user's can."""

    objective: Callable[[optuna.Trial], Any]
    options: Mapping[str, Any]

    def __call__(self, trial: optuna.Trial) -> Any:
        recorder = _RECORDERS[trial] = TrialRecorder(trial.study, trial, self.options)
        report = trial.report

        def reported(value: float, step: int) -> None:
            report(value, step)
            if step not in recorder.recorded:
                recorder.epoch(step, {"value": value})

        trial.report = reported  # type: ignore[method-assign]  # of this trial alone
        try:
            value = self.objective(trial)
        except optuna.TrialPruned:
            recorder.begin()
            recorder.end(None, "pruned", "pruned")
            raise
        except BaseException as error:
            recorder.begin()
            recorder.failed(error)
            raise
        recorder.begin()
        if problem := _no_value(value):
            recorder.end(None, "failed", problem)
        else:
            recorder.end(_results(value, trial))
        return value


def recorder_of(trial: optuna.Trial) -> TrialRecorder:
    """What records a trial of :func:`record_trials`: ``recorder_of(trial).begin(model, train)``
    before training, ``.epoch(n, metrics, model)`` in it.

    Raises:
        KeyError: The objective is not one of ``record_trials``.
    """
    return _RECORDERS[trial]


class ProvenanceCallback:
    """``study.optimize(objective, callbacks=[ProvenanceCallback()])``: a run for each trial once
    it is over, with its parameters, reports and value.

    The study carries their ids (``provenance.run_id.<number>``). Optuna shows a callback no trial
    whose exception ends the study, and nobody the model: :func:`record_trials` does.

    Args:
        options: As :class:`provenance.integrations.recorder.Recorder` takes them.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._options = of_each_trial(arguments, options)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Record a trial, unless its objective did."""
        if RUN_ID in trial.user_attrs:
            return
        recorder = TrialRecorder(study, trial, self._options)
        recorder.begin()
        for step, value in sorted(trial.intermediate_values.items()):
            recorder.epoch(step, {"value": value})
        with recorder.guarded("end not recorded"):
            if trial.state is TrialState.PRUNED:
                recorder.end(None, "pruned", "pruned")
            elif trial.state is TrialState.FAIL:
                recorder.end(None, "failed", "the trial failed")
            else:
                recorder.end(_results(trial.values, trial))
            study.set_user_attr(f"{RUN_ID}.{trial.number}", recorder.run_id)


def _no_value(values: Any) -> str | None:
    """Why Optuna takes no value from an objective, and the trial for failed; None where it does."""
    for value in values if isinstance(values, list | tuple) else [values]:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return f"the value is a {type(value).__name__}"
        if math.isnan(number):
            return "the value is NaN"
    return None


def _results(values: Any, trial: Any) -> dict[str, Any]:
    value = values[0] if isinstance(values, list | tuple) and len(values) == 1 else values
    noted = {name: attribute for name, attribute in trial.user_attrs.items() if name != RUN_ID}
    beside = {"params": trial.params, "user_attrs": noted}
    return {"value": value, **{name: known for name, known in beside.items() if known}}
