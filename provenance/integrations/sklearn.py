"""scikit-learn: ``model = record_fit(SVC(), x, y, test=(x_test, y_test))``.

One run of a fit: its data, the estimator with its hyperparameters, what the fit says of its
iterations (``loss_curve_``, the evaluation of a booster), the fitted estimator and its score. A
pipeline or a search is one run; of a search the candidates and their scores are among the results.
Estimators of XGBoost, LightGBM and CatBoost are recorded alike. ``provenance.autolog()`` records
each ``fit``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from provenance.capture.given import shown
from provenance.integrations.recorder import Recorder, outermost, same_random_numbers
from provenance.running import Run
from provenance.tracker import ProvenanceTracker

T = TypeVar("T")
MAX_CANDIDATES: Final = 1000
_CURVES: Final = ("loss_curve_", "validation_scores_", "train_score_", "validation_score_")
_RESULTS: Final = (
    "best_score_", "best_params_", "best_iteration_", "n_iter_", "oob_score_", "inertia_",
    "lower_bound_",
)  # fmt: skip
_OF_FOLDS: Final = ("estimator", "indices")
"""What ``cross_validate`` returns and is no number of a fold."""
_PAIRS: Final = (("X_val", "y_val"), ("eval_X", "eval_y"))
_FIRST: Final = ("X", "y")


def record_fit(
    estimator: T,
    X: object,
    y: object = None,
    *,
    test: object = None,
    tracker: ProvenanceTracker | Run | None = None,
    fit: Mapping[str, object] | None = None,
    score: bool = True,
    **options: Any,
) -> T:
    """Fit an estimator and record it; ``provenance.autolog()`` records nothing of its own here.

    Args:
        estimator: What has ``fit`` and ``get_params``; it is fitted in place.
        test: What to score it on and to record as test data, such as ``(x, y)``.
        fit: Further arguments of ``fit``, such as ``{"sample_weight": w}``; those as long as X are
            recorded as data.
        score: Whether to call ``score``, on ``test`` or else on X and y.
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them.

    Returns:
        The estimator.

    Raises:
        Whatever ``fit`` raises; ConfigError, InputError, TypeError of the options.
    """
    if not hasattr(estimator, "fit"):
        raise TypeError(
            f"estimator, the first argument: found {shown(estimator)}, expected an estimator"
        )
    recorder = Recorder(tracker, **options)
    arguments = {"X": X, "y": y, **(fit or {})}
    target: Any = estimator
    with outermost():
        recorded_fit(
            recorder, lambda: target.fit(X, y, **(fit or {})), target, arguments, test, score
        )
    return estimator


def recorded_fit(
    recorder: Recorder,
    fit: Callable[[], T],
    estimator: Any,
    arguments: Mapping[str, object],
    test: object = None,
    score: bool = True,
) -> T:
    """What ``fit()`` returns, with a run around it; ``arguments`` are those of ``fit`` by name."""
    train, test = _begin(recorder, estimator, arguments, test)
    result = recorder.around(fit)
    results: dict[str, Any] = {}
    with recorder.guarded("results not recorded"):
        results = _results(estimator)
    if score and callable(getattr(estimator, "score", None)):
        for name, data in (("test_score", test), ("training_score", train)):
            if isinstance(data, tuple) and len(data) == 2:
                with recorder.guarded(f"{name} not recorded"), same_random_numbers():
                    results[name] = float(estimator.score(*data))
                break
    epochs: list[dict[str, Any]] = [{}]
    with recorder.guarded("iterations not recorded"):
        epochs = _epochs(estimator) or epochs
    for name, value in results.items():
        if name.endswith("score") and not isinstance(value, Mapping):
            epochs[-1][name] = value
    for number, metrics in enumerate(epochs, 1):
        recorder.epoch(number, metrics)
    recorder.weights(len(epochs), estimator)
    recorder.end(results)
    return result


def recorded_validation(
    recorder: Recorder,
    validate: Callable[[], T],
    function: str,
    estimator: Any,
    arguments: Mapping[str, object],
) -> T:
    """What a function like ``cross_validate`` returns, with a run around it. The estimators that
    it fits are gone: there are no weights, and what ``cross_validate`` says of a fold is an
    epoch, numbered from 1."""
    _begin(recorder, estimator, arguments, None, function + "({})")
    result = recorder.around(validate)
    with recorder.guarded("scores not recorded"):
        scores: Any = result if isinstance(result, dict) else {}
        scores = {name: values for name, values in scores.items() if name not in _OF_FOLDS}
        for number, fold in enumerate(zip(*scores.values(), strict=True), 1):
            recorder.epoch(number, dict(zip(scores, map(float, fold), strict=True)))
        recorder.end({name: float(values.mean()) for name, values in scores.items()})
    recorder.end()
    return result


def name_of(estimator: Any) -> str:
    """What people call it: ``GridSearchCV(Pipeline(StandardScaler, SVC))``."""
    made_of = estimator.get_params(deep=False)
    inner = [step for _, step in made_of.get("steps", ())] or [made_of.get("estimator")]
    names = [name_of(each) for each in inner if hasattr(each, "fit")]
    kind = type(estimator).__name__
    return f"{kind}({', '.join(names)})" if names else kind


def _begin(
    recorder: Recorder,
    estimator: Any,
    arguments: Mapping[str, object],
    test: object,
    name: str = "{}",
) -> tuple[object, object]:
    """Begin a run, in whose ``name`` that of the estimator stands; its training data and its test
    data."""
    train: object = None
    with recorder.guarded("run not recorded"):
        train, shown, settings = _data(arguments)
        test = shown if test is None else test
        kind = type(estimator)
        config: dict[str, Any] = {"estimator": f"{kind.__module__}.{kind.__qualname__}"}
        if settings:
            config["fit"] = settings
        trained = kind.__name__
        with recorder.guarded("hyperparameters not recorded"):
            config["parameters"] = estimator.get_params()
            trained = name_of(estimator)
        recorder.begin(None, train, test, config, structure=estimator, name=name.format(trained))
    return train, test


def _data(arguments: Mapping[str, Any]) -> tuple[object, object, dict[str, Any]]:
    """Training data, validation data and the rest of the arguments of ``fit``."""
    given = {name: value for name, value in arguments.items() if value is not None}
    validation: dict[str, Any] = {}
    for pair in _PAIRS:
        if all(name in given for name in pair):
            validation |= {name: given.pop(name) for name in pair}
    sets = given.pop("eval_set", None)
    if sets is not None:
        named = enumerate([sets] if isinstance(sets, tuple) else sets)
        for index, pair in named:
            parts = (
                zip(_FIRST, pair, strict=False) if isinstance(pair, tuple | list) else [("", pair)]
            )
            validation |= {f"{index}.{name}": part for name, part in parts}
    rows = _rows(given.get("X"))
    data = {
        name: value
        for name, value in given.items()
        if name in _FIRST or (rows is not None and _rows(value) == rows)
    }
    rest = {name: value for name, value in given.items() if name not in data}
    return _tupled(data), _tupled(validation), rest


def _tupled(data: dict[str, Any]) -> object:
    """``(x, y)`` or ``x``, as one tracks it by hand; more by name."""
    if len(data) == 2 and all(name.endswith(end) for name, end in zip(data, _FIRST, strict=True)):
        return tuple(data.values())
    if list(data) == ["X"]:
        return data["X"]
    return data or None


def _rows(value: Any) -> int | None:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return int(shape[0])
    return len(value) if isinstance(value, list) else None


def _epochs(estimator: Any) -> list[dict[str, Any]]:
    """What a fit says of its iterations: metrics by name, of each."""
    fitted = vars(estimator)
    curves: dict[str, Any] = {
        name.removesuffix("_").removesuffix("_curve"): fitted.get(name) for name in _CURVES
    }
    scores = fitted.get("evals_result_") or fitted.get("_evals_result")
    if hasattr(estimator, "get_evals_result"):
        scores = estimator.get_evals_result()
    for data, metrics in (scores or {}).items():
        curves |= {f"{data}-{name}": values for name, values in metrics.items()}
    epochs: list[dict[str, Any]] = []
    for name, values in curves.items():
        for number, value in enumerate(values if _rows(values) else ()):
            if number == len(epochs):
                epochs.append({})
            epochs[number][name] = value
    return epochs


def _results(estimator: Any) -> dict[str, Any]:
    results = {
        name.rstrip("_"): value
        for name in _RESULTS
        if (value := getattr(estimator, name, None)) is not None
    }
    tried = vars(estimator).get("cv_results_")
    if isinstance(tried, Mapping) and "params" in tried:
        scores = [name for name in tried if name.startswith("mean_test_")]
        results["candidates"] = [
            {"params": params, **{name: tried[name][index] for name in scores}}
            for index, params in enumerate(tried["params"][:MAX_CANDIDATES])
        ]
        results["candidates_total"] = len(tried["params"])
    return results
