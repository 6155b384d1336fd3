"""MLflow: ``with mlflow.start_run(), record_run(train=(x, y), model=model):`` around a training.

The MLflow run and this project's name each other: its id, experiment and parameters are in the
configuration, and its tags say ``provenance.run_id``, ``provenance.status`` and, once the workers
have the run, ``provenance.root``. What is logged to MLflow meanwhile is recorded as it ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mlflow

from provenance.capture.given import shown
from provenance.errors import InputError, IntegrityError, ProvenanceError
from provenance.integrations.recorder import Recorder, tags_of
from provenance.log import get_logger
from provenance.running import Run
from provenance.tracker import ProvenanceTracker

if TYPE_CHECKING:
    from provenance.gate.decision import Decision, Gate, Source

log = get_logger("provenance")
FOLDER: Final = "provenance"
"""Of artifacts."""


@contextmanager
def record_run(
    model: object = None,
    train: object = None,
    test: object = None,
    *,
    tracker: ProvenanceTracker | Run | None = None,
    **options: Any,
) -> Iterator[Recorder]:
    """Record the training inside of it, as part of the active MLflow run.

    The run is named like MLflow's, and its group is the experiment. The parameters that are logged
    already are its configuration; those logged later, and the newest metrics, are results. Each
    metric is recorded by MLflow's steps when the training is over. The recorder's ``epoch`` records
    weights.

    Args:
        model, train, test: As ``track_model`` and ``track_data`` take them.
        tracker, options: As :class:`provenance.integrations.recorder.Recorder` takes them.

    Raises:
        InputError: No MLflow run is active.
    """
    if isinstance(model, ProvenanceTracker | Run):
        raise TypeError(f"model, the first argument: found {shown(model)}, expected tracker=...")
    active = mlflow.active_run()
    if active is None:
        raise InputError("no MLflow run is active: expected within `with mlflow.start_run():`")
    run_id = active.info.run_id
    if tracker is None:
        labels = {"name": active.info.run_name, "group": _experiment(active)}
        options = {**labels, **options}
    recorder = Recorder(tracker, **options)
    with recorder.guarded("MLflow run not read"):
        recorder.begin(model, train, test, config_of(run_id))
        link(recorder.tracker, run_id)
    try:
        yield recorder
    except BaseException as error:
        _record_metrics(recorder, run_id)
        recorder.failed(error)
        _tag(recorder, run_id, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    results = _record_metrics(recorder, run_id)
    recorder.end(results)
    _tag(recorder, run_id, "finished")


def config_of(run_id: str | None = None) -> dict[str, Any]:
    """The parameters of an MLflow run as a training's configuration, and where they are from.

    Args:
        run_id: The active run where None.

    Raises:
        InputError: No run is active, or MLflow has none of this id.
    """
    run = _run(run_id)
    origin = {
        "run_id": run.info.run_id,
        "experiment": _experiment(run),
        "name": run.info.run_name,
    }
    return {**run.data.params, "mlflow": origin}


def link(
    tracker: ProvenanceTracker | None, run_id: str | None = None, status: str | None = None
) -> None:
    """Set tags of an MLflow run: the id, the status and, where it is known, the root.

    Args:
        tracker: Of the run to name; None (what :func:`record_run` could not record): nothing.
        run_id: The active run where None.
        status: ``recording`` or, of a tracker that has ended, ``finished`` where None.

    Raises:
        InputError: No run is active, or MLflow has none of this id.
    """
    if tracker is None:
        return
    found = _run(run_id).info.run_id
    client = mlflow.MlflowClient()
    for name, value in tags_of(tracker, status).items():
        client.set_tag(found, name, value)


def tag_model_version(name: str, version: str | int, tracker: ProvenanceTracker) -> None:
    """Name the run of a registered model's version in its tags.

    Raises:
        mlflow.exceptions.MlflowException: The registry has no such version.
    """
    client = mlflow.MlflowClient()
    for key, value in tags_of(tracker).items():
        client.set_model_version_tag(name, str(version), key, value)


def gate_model_version(
    name: str, version: str | int, gate: Gate, source: Source | None = None, path: str = ""
) -> Decision:
    """Hold a registered model's version against a policy, and say in its tags what came out: they
    are for people, and no later call reads them.

    Args:
        source: As of :meth:`provenance.gate.decision.Gate.decide`.
        path: Where the model lies among the version's files, such as ``data``; what lies beside it
            is not held. All of them where empty.

    Raises:
        mlflow.exceptions.MlflowException: The registry has no such version, or not its files.
    """
    from provenance.gate.outputs import facts  # a trainer verifies nothing

    client = mlflow.MlflowClient()
    uri = client.get_model_version_download_uri(name, str(version))
    with tempfile.TemporaryDirectory() as folder:
        files = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        decision = gate.decide(files / path if path else files, source)
    for key, value in facts(decision).items():
        client.set_model_version_tag(name, str(version), f"provenance.gate.{key}", value)
    return decision


def promote_model_version(
    name: str,
    version: str | int,
    gate: Gate,
    source: Source | None = None,
    *,
    alias: str | None = None,
    stage: str | None = None,
    path: str = "",
) -> Decision:
    """Give a version its alias or stage where it passes the gate, asked anew; else leave both.

    Args:
        source, path: As of :func:`gate_model_version`.

    Raises:
        IntegrityError: The gate refuses it; the message has each refusal.
        InputError: Neither alias nor stage is given.
        mlflow.exceptions.MlflowException: As of :func:`gate_model_version`.
    """
    if alias is None and stage is None:
        raise InputError("found neither alias nor stage, expected one at least")
    decision = gate_model_version(name, version, gate, source, path)
    if not decision.passed:
        lines = "; ".join(item.line for item in decision.refusals)
        raise IntegrityError(f"model {name} version {version}: refused: {lines}")
    client = mlflow.MlflowClient()
    if alias is not None:
        client.set_registered_model_alias(name, alias, str(version))
    if stage is not None:
        client.transition_model_version_stage(name, str(version), stage)
    return decision


def log_evidence(tracker: ProvenanceTracker, run_id: str | None = None) -> bool:
    """Verify the run, and log report and evidence bundle as artifacts below ``provenance``.

    Returns:
        False, with a warning line, where the workers have not brought the run home yet, or this
        process cannot read their database.

    Raises:
        InputError: No MLflow run is active, or none of this id.
    """
    found = _run(run_id).info.run_id
    with tempfile.TemporaryDirectory() as folder:
        try:
            tracker.save_blockchain_report(folder)
        except ProvenanceError as error:
            log.warning("evidence not logged", problem=str(error), run=tracker.run_id)
            return False
        mlflow.MlflowClient().log_artifacts(found, folder, FOLDER)
    link(tracker, found)
    return True


def _run(run_id: str | None) -> Any:
    active = mlflow.active_run() if run_id is None else None
    if run_id is None and active is None:
        raise InputError("no MLflow run is active: expected one, or the id of a run")
    try:
        return mlflow.MlflowClient().get_run(run_id or active.info.run_id)  # type: ignore[union-attr]
    except mlflow.exceptions.MlflowException as error:
        raise InputError(f"MLflow run {run_id}: {str(error).splitlines()[0]}") from error


def _experiment(run: Any) -> str:
    return str(mlflow.MlflowClient().get_experiment(run.info.experiment_id).name)


def _record_metrics(recorder: Recorder, run_id: str) -> dict[str, Any]:
    """Record what was logged by steps; the run's results."""
    results: dict[str, Any] = {}
    with recorder.guarded("metrics of MLflow not recorded"):
        client = mlflow.MlflowClient()
        data = client.get_run(run_id).data
        results = {"metrics": data.metrics, "params": data.params}
        steps: dict[int, dict[str, Any]] = {}
        for name in data.metrics:
            for metric in client.get_metric_history(run_id, name):
                steps.setdefault(metric.step, {})[name] = metric.value
        for step in sorted(steps):
            recorder.step(step, steps[step])
    return results


def _tag(recorder: Recorder, run_id: str, status: str) -> None:
    with recorder.guarded("the MLflow run has no tags of its provenance"):
        link(recorder.tracker, run_id, status)
