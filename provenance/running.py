"""``provenance.run``: a training in three lines, over :class:`.tracker.ProvenanceTracker`.

Usage::

    with provenance.run("baseline", config=args, tags=["mnist"]) as run:
        run.data(train, test)
        run.model(model)
        for step, batch in enumerate(loader):
            run.log({"loss": loss}, step=step)
        run.log({"accuracy": accuracy}, epoch=1, model=model)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance.capture.given import whole_number
from provenance.tracker import ProvenanceTracker

if TYPE_CHECKING:
    from provenance.tickets import Ticket


def run(
    name: str | None = None,
    *,
    config: object = None,
    tags: Iterable[str] = (),
    group: str | None = None,
    notes: str | None = None,
    parent: object = None,
    base_dir: str | Path = "artifacts",
    settings: object = None,
) -> Run:
    """Begin to record a training.

    Args:
        config: Hyperparameters: a mapping, Namespace, dataclass, pydantic, attrs or OmegaConf
            object with values of any type (:mod:`provenance.settings.hyperparameters`).
        base_dir, name, tags, group, notes, parent: As :class:`ProvenanceTracker` takes them.
        settings: What it takes as ``config``.

    Raises:
        ConfigError, InputError: As :class:`ProvenanceTracker`; ``config`` is no such thing.
    """
    from provenance.settings.hyperparameters import hyperparameters

    config = {} if config is None else config
    hyperparameters(config, "config")  # a mistake is told before anything is written
    labels: dict[str, Any] = {"name": name, "tags": tags, "group": group, "notes": notes}
    return Run(ProvenanceTracker(base_dir, settings, parent=parent, **labels), config, name)


class Run:
    """A run that is recorded; made by :func:`run`.

    As a context manager it ends the run: as finished, or as failed where an exception leaves it,
    which goes on as it came. Outside of a ``with`` block :meth:`finish` ends it.

    Attributes:
        tracker: What records it.
        results: Those that an integration left for :meth:`finish`.
    """

    def __init__(self, tracker: ProvenanceTracker, config: object, name: str | None) -> None:
        from provenance.capture.resume import next_numbers
        from provenance.settings.hyperparameters import hyperparameters

        self.tracker = tracker
        tracker._configured = hyperparameters(config, "config")
        self.results: dict[str, Any] = {}
        self.name = name
        self._config = config
        run_dir = tracker.spool_dir / tracker.run_id
        self._next_step, epoch = next_numbers(run_dir, tracker.run, tracker.rank)
        self._next_epoch = max(epoch, 1)

    @property
    def id(self) -> str:
        """The run's id."""
        return self.tracker.run_id

    def data(self, train: object, test: object = None, *, items: bool = False) -> None:
        """As :meth:`ProvenanceTracker.track_data`."""
        self.tracker.track_data(train, test, items=items)

    def model(self, model: object) -> None:
        """As :meth:`ProvenanceTracker.track_model`."""
        self.tracker.track_model(model)

    def log(
        self,
        metrics: Mapping[str, object],
        *,
        step: int | None = None,
        epoch: int | None = None,
        model: object = None,
        privacy: Any = None,
    ) -> None:
        """Record metrics: of a step where one is given, or nothing else; of an epoch where
        that, a model or a privacy budget is given; of both where both are.

        Args:
            step: Number of the step; the one after the highest so far where nothing is given.
            epoch: Number of the epoch; the one after the highest so far where only a model or
                a privacy budget is given. A run that was started again on the same host goes on
                behind what it had.
            model, privacy: As :meth:`ProvenanceTracker.track_epoch` takes them.

        Raises:
            InputError: As :meth:`ProvenanceTracker.track_epoch` and :meth:`track_step` do.
        """
        self._begin()
        of_epoch = epoch is not None or model is not None or privacy is not None
        if of_epoch:
            number = self._next_epoch if epoch is None else whole_number("epoch", epoch)
            self.tracker.track_epoch(number, metrics, model, privacy)
            self._next_epoch = max(self._next_epoch, number + 1)
        if step is not None or not of_epoch:
            number = self._next_step if step is None else whole_number("step", step)
            self.tracker.track_step(number, metrics)
            self._next_step = max(self._next_step, number + 1)

    def artifact(self, what: str | os.PathLike[str] | bytes, name: str | None = None) -> None:
        """As :meth:`ProvenanceTracker.artifact`."""
        self.tracker.artifact(what, name)

    def note(self, text: str | None = None, *, tags: Iterable[str] = ()) -> None:
        """As :meth:`ProvenanceTracker.note`."""
        self.tracker.note(text, tags=tags)

    def finish(self, results: Mapping[str, object] | None = None) -> dict[str, Ticket]:
        """Record the results and seal the run for good; a ticket for each network.

        Raises:
            InputError: The run has ended already, or ``results`` is no mapping.
        """
        self._begin()
        if isinstance(results, Mapping | None):
            results = {**self.results, **(results or {})}
        return self.tracker.store_merkle_on_blockchain_after_training(results)

    def _begin(self) -> None:
        if not self.tracker.begun:
            self.tracker.store_merkle_on_blockchain_before_training(self._config)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if self.tracker.ended:
            return
        if kind is None:
            self.finish()
            return
        self._begin()  # what was to be tried belongs to the story of a failure
        self.tracker.__exit__(kind, error)

    def __repr__(self) -> str:
        state = "ended" if self.tracker.ended else "open"
        return f"<provenance.run {self.name!r} {self.id} {state}>"
