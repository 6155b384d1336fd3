"""``provenance.autolog()``: each training of the common frameworks is recorded.

A framework's own function (docs/integrations/autolog.md has which) is replaced by one that records
around it, and calls it with the arguments it was given.

A training inside of another (a candidate of a search, a step of a pipeline) is part of it. One that
records itself, with a ``ProvenanceCallback`` or ``record_fit``, is left alone. What goes wrong with
recording is a warning line; what the framework raises is raised.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any, Final

from provenance.capture.given import anchored, shown
from provenance.integrations.recorder import Recorder, outermost

Training = Callable[[], Any]
"""Calls the framework; that which a preparation returns records it too."""
Prepare = Callable[[Training, inspect.BoundArguments], Training | None]
"""From the call and its arguments, which may be changed; None: nothing to record."""

_MISSING: Final = object()
_FITS: Final = ("fit", "fit_predict", "fit_transform")
_VALIDATIONS: Final = (
    "cross_validate", "cross_val_predict", "learning_curve", "validation_curve",
    "permutation_test_score",
)  # fmt: skip
_PREDICTS: Final = ("predict", "fit_predict", "score_samples")


def autolog(disable: bool = False, *, score: bool = True, **options: Any) -> None:
    """Record every training of scikit-learn, XGBoost, LightGBM, CatBoost, Lightning, Transformers
    and Keras from now on, one run each.

    What is imported later is recorded too; a function that was imported by its name before
    (``from xgboost import train``) is not. Called again, it goes on with the new options.

    Args:
        disable: Record no more, and put the frameworks' functions back.
        score: Call ``score`` of a scikit-learn estimator on its training data.
        options: As :class:`provenance.integrations.recorder.Recorder` takes them: ``base_dir``,
            ``config``, ``tags``, ``group``, ``weights``, ``every_n_epochs``, ...

    Raises:
        ConfigError, InputError, TypeError: Of the options.
    """
    global _active
    if _active is not None:
        _active.remove()
        _active = None
    if not isinstance(disable, bool):
        raise TypeError(f"disable: found {shown(disable)}, expected True or False")
    if not disable:
        _active = _Autolog(score, options)
        _active.install()


class _Autolog:
    """The functions that are replaced, and what they were."""

    def __init__(self, score: bool, options: dict[str, Any]) -> None:
        self.guard = Recorder(**options)  # a mistake is told here
        self.score, self.options = score, anchored(options)
        self._replaced: list[tuple[Any, str, Any]] = []
        self._frameworks: dict[str, Callable[[ModuleType], None]] = {
            "sklearn.base": self._sklearn,
            "sklearn.model_selection": self._model_selection,
            "catboost": self._catboost,
            "xgboost": lambda module: self._record(module, "train", self._train_xgboost),
            "lightgbm": lambda module: self._record(module, "train", self._train_lightgbm),
            "lightning.pytorch": lambda module: self._record(
                module.Trainer, "fit", self._fit_lightning
            ),
            "transformers.trainer": lambda module: self._record(
                module.Trainer, "train", self._train_transformers
            ),
            "keras": lambda module: self._record(module.Model, "fit", self._fit_keras),
        }
        self._finder = _Finder(self._frameworks, self._imported)

    def install(self) -> None:
        sys.meta_path.insert(0, self._finder)
        for name in self._frameworks:
            module = sys.modules.get(name)
            if module is not None:
                self._imported(module, name)

    def remove(self) -> None:
        sys.meta_path.remove(self._finder)
        for owner, name, original in reversed(self._replaced):
            if original is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
        self._replaced.clear()

    def __reduce__(self) -> tuple[Callable[[], _Autolog], tuple[()]]:
        """With a user's class that is pickled by value, for a worker of joblib or Ray: what it
        fits there is part of the training here."""
        return _unpickled, ()

    def is_active(self) -> bool:
        """Asked in this module: a function that is pickled by value has globals of its own."""
        return self is _active

    def _imported(self, module: ModuleType, name: str) -> None:
        if self.is_active():
            with self.guard.guarded(f"autolog: {name} is not recorded"):
                self._frameworks[name](module)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._replaced.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def _record(self, owner: Any, name: str, prepare: Prepare) -> None:
        """Record what ``owner`` has under ``name``: a function, or one of scikit-learn's that not
        every estimator has."""
        found = vars(owner).get(name, _MISSING)
        if isinstance(getattr(found, "fn", None), FunctionType):
            conditional: Any = copy.copy(found)
            conditional.fn = self._recording(conditional.fn, prepare)
            self._set(owner, name, conditional)
        elif found is _MISSING or isinstance(found, FunctionType):
            self._set(owner, name, self._recording(getattr(owner, name), prepare))

    def _recording(self, original: Any, prepare: Prepare) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with outermost() as first:
                training = None
                if first and self.is_active():
                    with self.guard.guarded("training not recorded"):
                        bound = signature.bind(*args, **kwargs)
                        training = prepare(lambda: original(*bound.args, **bound.kwargs), bound)
                return original(*args, **kwargs) if training is None else training()

        return recorded

    def _sklearn(self, module: ModuleType) -> None:
        base: Any = module.BaseEstimator
        known = [base]
        for estimator in known:
            known += [each for each in type.__subclasses__(estimator) if each not in known]
            self._estimator(estimator)

        def made(cls: Any, /, **arguments: Any) -> None:
            super(base, cls).__init_subclass__(**arguments)
            self._estimator(cls)

        self._set(base, "__init_subclass__", classmethod(made))

    def _estimator(self, kind: Any) -> None:
        for name in _FITS:
            if name in vars(kind):
                self._record(kind, name, self._fit)

    def _model_selection(self, module: ModuleType) -> None:
        own: Any = module
        for owner in (own, own._validation):  # whose cross_val_score calls it
            for name in _VALIDATIONS:
                self._record(owner, name, functools.partial(self._validation, name))

    def _validation(self, name: str, call: Training, bound: inspect.BoundArguments) -> Training:
        from provenance.integrations.sklearn import recorded_validation

        arguments = dict(bound.arguments)
        estimator = arguments.pop("estimator")
        recorder = Recorder(**self.options)
        return lambda: recorded_validation(recorder, call, name, estimator, arguments)

    def _catboost(self, module: ModuleType) -> None:
        for kind in ("CatBoost", "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"):
            self._estimator(getattr(module, kind))

    def _fit(self, call: Training, bound: inspect.BoundArguments) -> Training | None:
        from provenance.integrations.sklearn import recorded_fit

        estimator, *_ = bound.args
        callbacks = [*_listed(getattr(estimator, "callbacks", None))]
        callbacks += _listed(bound.arguments.get("callbacks"))
        if not _predicts(estimator) or _records_itself(callbacks):
            return None
        arguments = dict(list(bound.arguments.items())[1:])
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name, {})
        recorder = Recorder(**self.options)
        return lambda: recorded_fit(recorder, call, estimator, arguments, score=self.score)

    def _train_xgboost(self, call: Training, bound: inspect.BoundArguments) -> Training | None:
        from provenance.integrations.xgboost import ProvenanceCallback

        given = bound.arguments
        shown = [pair for pair in given.get("evals") or () if pair[0] is not given["dtrain"]]
        test = shown[0][0] if shown else None
        return self._with_callback(
            call,
            bound,
            lambda: ProvenanceCallback(train=given["dtrain"], test=test, **self.options),
        )

    def _train_lightgbm(self, call: Training, bound: inspect.BoundArguments) -> Training | None:
        from provenance.integrations.lightgbm import ProvenanceCallback

        given = bound.arguments
        train = given["train_set"]
        shown = [each for each in _listed(given.get("valid_sets")) if each is not train]

        def callback() -> Any:
            test = shown[0] if shown else None
            made = ProvenanceCallback(train=train, test=test, **self.options)
            made.begin(
                given["params"], given.get("num_boost_round", 100), model=given.get("init_model")
            )
            return made

        return self._with_callback(call, bound, callback, lambda made, model: made.end(model))

    def _fit_lightning(self, call: Training, bound: inspect.BoundArguments) -> Training | None:
        from provenance.integrations.lightning import ProvenanceCallback, ProvenanceLogger

        trainer = bound.args[0]
        if any(isinstance(each, ProvenanceLogger) for each in trainer.loggers):
            return None
        return self._with_added(
            call,
            trainer.callbacks,
            lambda: ProvenanceCallback(**self.options),
            trainer.callbacks.append,
            trainer.callbacks.remove,
        )

    def _train_transformers(self, call: Training, bound: inspect.BoundArguments) -> Training | None:
        from provenance.integrations.transformers import ProvenanceCallback

        trainer = bound.args[0]
        options = {"test": trainer.eval_dataset, **self.options}
        return self._with_added(
            call,
            trainer.callback_handler.callbacks,
            lambda: ProvenanceCallback(**options),
            trainer.add_callback,
            trainer.remove_callback,
        )

    def _fit_keras(self, call: Training, bound: inspect.BoundArguments) -> Training | None:
        from provenance.integrations.keras import ProvenanceCallback

        given = bound.arguments
        parts = (given.get(name) for name in ("x", "y", "sample_weight"))
        train = tuple(part for part in parts if part is not None)
        options = {
            "train": _read_twice(train[0] if len(train) == 1 else train or None),
            "test": _read_twice(given.get("validation_data")),
            **self.options,
        }
        return self._with_callback(call, bound, lambda: ProvenanceCallback(**options))

    def _with_callback(
        self,
        call: Training,
        bound: inspect.BoundArguments,
        make: Callable[[], Any],
        end: Callable[[Any, Any], None] = lambda _callback, _result: None,
    ) -> Training | None:
        """The training with one more callback among its arguments."""
        callbacks = bound.arguments.get("callbacks")
        listed = _listed(getattr(callbacks, "callbacks", callbacks))
        if _records_itself(listed):
            return None
        callback = make()
        if callbacks is not None and not isinstance(callbacks, list | tuple | set):
            callbacks.append(callback)
        else:
            bound.arguments["callbacks"] = [*listed, callback]

        def training() -> Any:
            result = callback.recorder.around(call)
            end(callback, result)
            return result

        return training

    def _with_added(
        self,
        call: Training,
        callbacks: Sequence[object],
        make: Callable[[], Any],
        add: Callable[[Any], object],
        remove: Callable[[Any], object],
    ) -> Training | None:
        """The training with one more callback in its trainer, while it runs."""
        if _records_itself(callbacks):
            return None
        callback = make()
        add(callback)

        def training() -> Any:
            try:
                return callback.recorder.around(call)
            finally:
                remove(callback)

        return training


_active: _Autolog | None = None


def _unpickled() -> _Autolog:
    return _active or _Autolog(True, {})


class _Finder(MetaPathFinder):
    """Tells of modules once they are imported."""

    def __init__(self, names: dict[str, Any], imported: Callable[[ModuleType, str], None]) -> None:
        self._names, self._imported = names, imported

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find, of the modules that are waited for."""
        if name not in self._names:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                self._follow(spec, name)
                return spec  # type: ignore[no-any-return]  # of a finder without types
        return None

    def _follow(self, spec: Any, name: str) -> None:
        loader = spec.loader
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            del loader.exec_module  # the class's own again
            execute(module)
            self._imported(module, name)

        loader.exec_module = executed


def _predicts(estimator: Any) -> bool:
    """Whether it is more than what prepares data; a search and a stack have no ``predict`` before
    they are fitted, but their class has."""
    steps = getattr(estimator, "steps", None)
    kind = type(steps[-1][1] if steps else estimator)
    return any(hasattr(kind, name) for name in _PREDICTS)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set) else [value]


def _records_itself(callbacks: Sequence[object]) -> bool:
    return any(isinstance(getattr(each, "recorder", None), Recorder) for each in callbacks)


def _read_twice(data: Any) -> Any:
    """Data, unless reading it would take it from the training."""
    parts = data if isinstance(data, tuple) else (data,)
    return False if any(hasattr(part, "__next__") for part in parts) else data
