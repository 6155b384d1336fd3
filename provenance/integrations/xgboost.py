"""XGBoost: ``xgboost.train(..., callbacks=[ProvenanceCallback(train=dtrain, test=dtest)])``.

Of each training a run: XGBoost's whole configuration, each iteration's evaluation as an epoch
under XGBoost's number (from 0), the booster at the end. The callback goes behind
``EarlyStopping(save_best=True)``, which cuts the booster. Of ``xgboost.cv`` means and deviations
are recorded, and no booster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xgboost

from provenance.integrations.recorder import BoosterCallback


class ProvenanceCallback(BoosterCallback, xgboost.callback.TrainingCallback):
    """Records each training.

    Args:
        tracker, options: As :class:`provenance.integrations.recorder.BoosterCallback` takes them.
        train, test: A ``DMatrix``, or what ``track_data`` takes.
    """

    _newest: tuple[int, dict[str, Any]] | None = None
    _rounds: int | None = None
    """Of the booster by then."""

    def before_training(self, model: Any) -> Any:
        """Begin the run."""
        self.recorder.abandoned()
        self._newest = self._rounds = None
        booster = _booster(model)
        config: dict[str, Any] = {}
        name = "xgboost"
        with self.recorder.guarded("configuration not recorded"):
            config = {"xgboost": json.loads((booster or model.cvfolds[0].bst).save_config())}
            name = f"xgboost {config['xgboost']['learner']['objective']['name']}"
        train: object = None
        test: object = None
        with self.recorder.guarded("data not recorded"):
            train, test = (as_data(part) for part in self._data)
        self.recorder.begin(booster, train, test, config, name=name)
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        """Record the iteration."""
        with self.recorder.guarded("iteration not recorded"):
            metrics: dict[str, Any] = {}
            for data, scores in evals_log.items():
                for metric, values in scores.items():
                    metrics[f"{data}-{metric}"] = values[-1]
                    if isinstance(values[-1], tuple):
                        metrics[f"{data}-{metric}"], metrics[f"{data}-{metric}-std"] = values[-1]
            self._newest = epoch, metrics
            booster = _booster(model)
            self._rounds = None if booster is None else booster.num_boosted_rounds()
            self.recorder.epoch(epoch, metrics, booster)
        return False

    def after_training(self, model: Any) -> Any:
        """Record the booster and finish the run with the newest evaluation."""
        epoch, results = self._newest or (0, {})
        booster = _booster(model)
        if booster is not None:
            rounds = booster.num_boosted_rounds()
            if rounds == self._rounds:
                self.recorder.last_weights(booster)
            else:  # EarlyStopping cut it, or nothing was trained
                self.recorder.weights(epoch, booster)
            results = {**results, "iterations": rounds, **booster.attributes()}
        self.recorder.end(results)
        return model

    def __getstate__(self) -> dict[str, Any]:
        """A ``DMatrix`` cannot be copied or pickled, as estimators and searches do: what it holds
        can."""
        return {**self.__dict__, "_data": tuple(as_data(part) for part in self._data)}


def _booster(model: Any) -> Any:
    return model if isinstance(model, xgboost.Booster) else None


def as_data(data: object) -> object:
    """What a ``DMatrix`` holds, as arrays by name: its sparse rows (how many entries each has, and
    their columns and values, quantised where it is), labels, weights, margins and groups; what is
    missing has no entry. Anything else as it is."""
    if not isinstance(data, xgboost.DMatrix):
        return data
    rows = data.get_data()
    parts = {
        "entries": rows.indptr[1:] - rows.indptr[:-1],
        "indices": rows.indices,
        "values": rows.data,
        "label": data.get_label(),
        "weight": data.get_weight(),
        "base_margin": data.get_base_margin(),
        "group_ptr": data.get_uint_info("group_ptr"),
        "label_lower_bound": data.get_float_info("label_lower_bound"),
        "label_upper_bound": data.get_float_info("label_upper_bound"),
        "feature_weights": data.get_float_info("feature_weights"),
        "feature_names": data.feature_names or [],
        "feature_types": data.feature_types or [],
    }
    return {name: part for name, part in parts.items() if len(part)}
