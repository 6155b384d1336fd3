"""Accelerate: ``Accelerator(log_with=AccelerateTracker(train=dataset))``, then ``init_trackers``.

What ``accelerator.log`` is given with ``epoch`` is an epoch's, with the weights of the model that
was shown last; the rest is a step's.
"""

from __future__ import annotations

from typing import Any

from accelerate.tracking import GeneralTracker

from provenance.integrations.recorder import Recorder
from provenance.tracker import ProvenanceTracker


class AccelerateTracker(GeneralTracker):
    """Records from ``init_trackers`` to ``end_training``; every process makes one.

    Args:
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them.
        model: Whose weights are recorded; :meth:`watch` names it later.
    """

    name = "provenance"
    requires_logging_directory = False
    main_process_only = False

    def __init__(
        self, tracker: ProvenanceTracker | None = None, *, model: Any = None, **options: Any
    ) -> None:
        super().__init__()
        self.recorder = Recorder(tracker, **options)
        self._model = model
        self._config: dict[str, Any] = {}
        self._logged: dict[str, Any] = {}

    @property
    def tracker(self) -> Recorder:
        """What ``accelerator.get_tracker("provenance", unwrap=True)`` gives."""
        return self.recorder

    def watch(self, model: Any) -> None:
        """Name the model whose weights are recorded, and begin: its weights now are those before
        training."""
        self._model = model
        self._begin()

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Keep the hyperparameters of ``init_trackers`` for the run's beginning."""
        self._config |= values

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record an epoch (``epoch`` in ``values``) or a step.

        Args:
            step: Of the optimizer; none where it is an epoch's.
            kwargs: ``model``, from ``log_kwargs={"provenance": {"model": model}}``.
        """
        self._model = model = kwargs.get("model", self._model)
        self._begin()
        rest = {name: value for name, value in values.items() if name != "epoch"}
        self._logged |= rest
        if "epoch" in values:
            self.recorder.epoch(values["epoch"], rest, model)
        elif step is not None:
            self.recorder.step(step, rest)

    def finish(self) -> None:
        """End the run with the newest value of each metric."""
        self._begin()
        self.recorder.end(self._logged)

    def _begin(self) -> None:
        if self.recorder.run_id is None:
            self.recorder.begin(self._model, config=self._config)
