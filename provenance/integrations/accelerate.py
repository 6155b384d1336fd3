"""Accelerate: ``Accelerator(log_with=AccelerateTracker(train=dataset))``, then ``init_trackers``.

Accelerate calls trackers on the main process alone, so the run is that of one process. What
``accelerator.log`` is given with ``epoch`` is an epoch's, with the weights of the model that
was shown last; the rest is a step's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.tracking import GeneralTracker

from provenance.errors import InputError
from provenance.integrations.recorder import NOT_RECORDED, Recorder, harmless
from provenance.running import Run
from provenance.tracker import ProvenanceTracker

_SHARED = "ranks share the model, and one process logs; expected a tracker in each process"
_NO_MODEL = (
    "not shown before training: AccelerateTracker(model=...) with init_trackers(config=...), or "
    "watch(model)"
)


class AccelerateTracker(GeneralTracker):
    """Records from ``init_trackers`` to ``end_training``, on the main process.

    Args:
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them.
        model: Whose weights are recorded; :meth:`watch` names it later.
    """

    name = "provenance"
    requires_logging_directory = False
    main_process_only = True

    def __init__(
        self, tracker: ProvenanceTracker | Run | None = None, *, model: Any = None, **options: Any
    ) -> None:
        super().__init__()
        self.recorder = Recorder(tracker, **options)
        self._model = model
        self.start()

    def start(self) -> None:
        """Called by ``init_trackers``: the next training begins."""
        self._config: dict[str, Any] = {}
        self._logged: dict[str, Any] = {}
        self._waits = True
        """For its run to begin."""

    @property
    def tracker(self) -> Recorder:
        """What ``accelerator.get_tracker("provenance", unwrap=True)`` gives."""
        return self.recorder

    @harmless
    def watch(self, model: Any) -> None:
        """Name the model whose weights are recorded; where the run has not begun, it does: the
        weights now are those before training."""
        self._model = model
        self._begin(model)

    @harmless
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Take the hyperparameters of ``init_trackers``, and begin where the model is known."""
        self._config |= values
        if self._model is not None:
            self._begin(self._model)

    @harmless
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record an epoch (a whole ``epoch`` in ``values``) or a step.

        Args:
            step: Of the optimizer; none where it is an epoch's.
            kwargs: ``model``, from ``log_kwargs={"provenance": {"model": model}}``.
        """
        self._model = model = kwargs.get("model", self._model)
        self._begin()
        number = values.get("epoch")
        rest = {name: value for name, value in values.items() if name != "epoch"}
        self._logged |= rest
        if number is not None and (step is None or float(number).is_integer()):
            shared = _is_sharded(model)
            self.recorder.epoch(number, rest, None if shared else model)
            if shared and (run := self.recorder.tracker) is not None and not run.ended:
                run._weights.lost(int(number), InputError(_SHARED))
        elif step is not None:
            self.recorder.step(step, values)

    @harmless
    def finish(self) -> None:
        """End the run with the newest value of each metric."""
        self._begin()
        with _one_process():
            self.recorder.end(self._logged)

    def _begin(self, model: Any = None) -> None:
        """Without ``model`` training is under way: no weights are those before it."""
        if self._waits:
            self._waits = False
            self.recorder.abandoned()
            lost = {} if model is not None else {NOT_RECORDED: {"model": _NO_MODEL}}
            with _one_process():
                known = getattr(self._model, "module", self._model)  # of DDP
                name = None if known is None else type(known).__name__
                self.recorder.begin(model, config={**self._config, **lost}, name=name)


@contextmanager
def _one_process() -> Iterator[None]:
    """A run that begins or ends here waits for no other rank, unless the environment says so."""
    alone = {"PROVENANCE_RANK": "0", "PROVENANCE_WORLD_SIZE": "1"}
    if alone.keys() & os.environ.keys():
        yield
        return
    os.environ.update(alone)
    try:
        yield
    finally:
        for name in alone:
            del os.environ[name]


def _is_sharded(model: Any) -> bool:
    parameters: Any = getattr(model, "parameters", list)()
    return any(type(parameter).__name__ == "DTensor" for parameter in parameters)
