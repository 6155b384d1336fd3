"""LightGBM: ``lightgbm.train(..., callbacks=[ProvenanceCallback(train=(x, y), test=...)])``.

Of each training a run: its parameters, each iteration's evaluation as an epoch under LightGBM's
number (from 0), the booster at the end. LightGBM tells no callback when a training is over: it ends
as LightGBM frees the training data, and with ``keep_training_booster=True`` by
:meth:`ProvenanceCallback.end`. A callback is first called when the first tree is grown:
``provenance.autolog()`` begins before it, shows the data too, and needs no callback.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import lightgbm

from provenance.integrations.recorder import BoosterCallback, harmless


class ProvenanceCallback(BoosterCallback):
    """Records each training, of ``lightgbm.train`` and of the estimators. Of ``lightgbm.cv`` it
    records means and deviations, and no booster.

    Args:
        tracker, options: As :class:`provenance.integrations.recorder.BoosterCallback` takes them.
        train, test: What the ``Dataset`` was made of, as ``track_data`` takes it, or a ``Dataset``
            that has not been trained with.
    """

    order = 20  # before LightGBM's own early stopping (30), which raises to end the loop
    before_iteration = False
    _model: object = None
    _newest: tuple[int, dict[str, Any]] = 0, {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        train, test = self._data
        self._data = as_data(train), as_data(test)  # LightGBM frees what a Dataset holds

    def begin(
        self,
        params: Mapping[str, Any],
        iterations: int,
        lost: str = "no tree is grown yet",
        model: object = None,
    ) -> None:
        """Begin the run; ``model`` is what LightGBM goes on from, and where there is none,
        ``lost`` says why."""
        objective = params.get("objective")
        name = f"lightgbm {getattr(objective, '__name__', objective or 'regression')}"
        missing = {"model": lost}
        config = {"params": params, "iterations": iterations, "not_recorded": missing}
        self.recorder.begin(model, *self._data, config, name=name)

    @harmless
    def __call__(self, env: Any) -> None:
        """Record the iteration that is over."""
        recorder = self.recorder
        booster = env.model if isinstance(env.model, lightgbm.Booster) else None
        if env.model is not self._model:
            if self._model is not None:
                recorder.abandoned()
            self._model = env.model
            lost = "LightGBM calls back once the first tree is grown"
            self.begin(env.params, env.end_iteration - env.begin_iteration, lost)
            if booster is not None:
                _TRAINED[booster] = self
        metrics: dict[str, Any] = {}
        for result in env.evaluation_result_list or ():
            data, metric, value, _, *deviation = result
            metrics[f"{data}-{metric}"] = value
            if any(deviation):
                metrics[f"{data}-{metric}-std"] = deviation[0]
        self._newest = env.iteration, metrics
        recorder.epoch(env.iteration, metrics, booster)
        if booster is None and env.iteration + 1 == env.end_iteration:
            self.end()

    def end(self, booster: Any = None) -> None:
        """Record the booster and finish the run with the newest evaluation, once."""
        number, results = self._newest
        if booster is not None:
            self.recorder.last_weights(booster)
            results = {**results, "best_iteration": booster.best_iteration}
        self.recorder.end({**results, "iterations": number + 1})
        self._model = None


def as_data(data: object) -> object:
    """What a ``Dataset`` was made of: ``(x, y)``, or by name with its weights, groups and initial
    scores. Of one that has freed it, and of all else, the object itself."""
    if not isinstance(data, lightgbm.Dataset) or data.data is None:
        return data
    parts = {
        "data": data.data,
        "label": data.label,
        "weight": data.weight,
        "group": data.group,
        "init_score": data.init_score,
    }
    given = {name: part for name, part in parts.items() if part is not None}
    if given.keys() == {"data", "label"}:
        return data.data, data.label
    return data.data if len(given) == 1 else given


_TRAINED: weakref.WeakKeyDictionary[Any, ProvenanceCallback] = weakref.WeakKeyDictionary()
_free_dataset = lightgbm.Booster.free_dataset


def _freed(booster: Any) -> Any:
    """``Booster.free_dataset``, which is the first that LightGBM calls behind its loop."""
    callback = _TRAINED.pop(booster, None)
    if callback is not None:
        callback.end(booster)
    return _free_dataset(booster)


lightgbm.Booster.free_dataset = _freed  # type: ignore[method-assign,assignment]  # on purpose
