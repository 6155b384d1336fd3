"""Weights & Biases: ``with record_run(wandb.init(...), train=(x, y), model=model):``.

The W&B run and this project's name each other: its id, name and project are in the configuration;
the W&B run gets ``provenance.run_id`` among its configuration, id, status and, once it is known,
root in its summary, and the tag ``provenance``. What is logged to it meanwhile is recorded. It
works offline (``WANDB_MODE=offline``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import wandb

from provenance.capture.given import shown
from provenance.errors import InputError
from provenance.integrations.recorder import Recorder, tags_of
from provenance.running import Run
from provenance.tracker import ProvenanceTracker

RUN_ID: Final = "provenance.run_id"


@contextmanager
def record_run(
    run: Any = None,
    model: object = None,
    train: object = None,
    test: object = None,
    *,
    tracker: ProvenanceTracker | Run | None = None,
    **options: Any,
) -> Iterator[Recorder]:
    """Record the training inside of it, as part of a W&B run.

    Its name, group, tags and notes are the run's too. Its ``config`` is the configuration, and what
    ``run.log`` and ``wandb.log`` are given is recorded by W&B's steps. The recorder's ``epoch``
    records weights.

    Args:
        run: The active run where None.
        model, train, test: As ``track_model`` and ``track_data`` take them.
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them.

    Raises:
        InputError: No W&B run is active.
    """
    run = _active(run)
    if tracker is None:
        labels = {
            "name": run.name or run.id,
            "group": run.group,
            "tags": run.tags,
            "notes": run.notes,
        }
        options = {**{name: value for name, value in labels.items() if value}, **options}
    recorder = Recorder(tracker, **options)
    with recorder.guarded("W&B run not read"):
        recorder.begin(model, train, test, config_of(run))
        link(recorder.tracker, run)
    with _recorded_log(run, recorder):
        try:
            yield recorder
        except BaseException as error:
            recorder.failed(error)
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            _link(recorder, run, status)
            raise
    summary: dict[str, Any] = {}
    with recorder.guarded("summary of W&B not recorded"):
        summary = dict(run.summary)
    recorder.end({k: v for k, v in summary.items() if not k.startswith(("_", "provenance."))})
    _link(recorder, run, "finished")


def config_of(run: Any = None) -> dict[str, Any]:
    """The configuration of a W&B run, and where it is from.

    Raises:
        InputError: No W&B run is active.
    """
    run = _active(run)
    origin = {"run_id": run.id, "name": run.name, "project": run.project, "entity": run.entity}
    config = {name: value for name, value in dict(run.config).items() if name != RUN_ID}
    return {**config, "wandb": origin}


def link(tracker: ProvenanceTracker | None, run: Any = None, status: str | None = None) -> None:
    """Name a run in the configuration, the summary and the tags of a W&B run.

    Args:
        tracker: Of the run to name; None (what :func:`record_run` could not record): nothing.
        run: The active run where None.
        status: ``recording`` or, of a tracker that has ended, ``finished`` where None.

    Raises:
        InputError: No W&B run is active.
    """
    if tracker is None:
        return
    run = _active(run)
    run.config.update({RUN_ID: tracker.run_id}, allow_val_change=True)
    run.summary.update(tags_of(tracker, status))
    if "provenance" not in (run.tags or ()):
        run.tags = (*(run.tags or ()), "provenance")


def _link(recorder: Recorder, run: Any, status: str) -> None:
    with recorder.guarded("the W&B run does not name its provenance"):
        link(recorder.tracker, run, status)


def _active(run: Any) -> Any:
    found = wandb.run if run is None else run
    if found is None:
        raise InputError("no W&B run is active: expected one of wandb.init()")
    if not all(hasattr(found, name) for name in ("id", "config", "summary")):
        expected = "expected a run of wandb.init(); a tracker is tracker="
        raise TypeError(f"run, the first argument: found {shown(found)}, {expected}")
    return found


@contextmanager
def _recorded_log(run: Any, recorder: Recorder) -> Iterator[None]:
    """Record what the run's ``log`` is given, under its own step."""
    log: Callable[..., Any] = run.log
    of_module = wandb.log

    def logged(
        data: Mapping[str, Any], step: int | None = None, *more: Any, **options: Any
    ) -> None:
        number = run.step if step is None else step
        log(data, step, *more, **options)
        recorder.step(number, data)

    run.log = logged
    if getattr(of_module, "__self__", None) is run:
        wandb.log = logged
    try:
        yield
    finally:
        del run.log
        wandb.log = of_module
