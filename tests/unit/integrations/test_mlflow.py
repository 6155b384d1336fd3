"""MLflow: real runs in a folder, and how each run names the other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.app.verify import verify_path
from provenance.errors import InputError, IntegrityError
from provenance.formats.record import Kind
from provenance.gate.decision import Gate
from provenance.gate.policy import load_policy
from provenance.settings import load
from provenance.tracker import ProvenanceTracker
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.home import brought_home
from tests.support.model_world import deployment, model_folder
from tests.support.spooled import bodies, kinds, spooled
from tests.support.verify_world import RUN
from tests.unit.gate.conftest import write_policy

X = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = framework("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes ten seconds to make
    module.set_tracking_uri((tmp_path / "mlruns").as_uri())
    module.set_registry_uri((tmp_path / "mlruns").as_uri())
    module.set_experiment("digits")
    return module


def tags(mlflow: Any, run_id: str) -> dict[str, str]:
    found: dict[str, str] = mlflow.MlflowClient().get_run(run_id).data.tags
    return {name: value for name, value in found.items() if name.startswith("provenance.")}


@pytest.mark.slow
def test_each_names_the_other_and_what_is_logged_is_recorded(mlflow: Any, tmp_path: Path) -> None:
    from provenance.integrations.mlflow import record_run

    with mlflow.start_run(run_name="first") as run:
        mlflow.log_param("lr", 0.1)
        with record_run(None, X, X[:1], base_dir=tmp_path) as recorder:
            assert tags(mlflow, run.info.run_id)["provenance.status"] == "recording"
            for step in range(3):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            mlflow.log_param("epochs", 3)
            recorder.epoch(2, {"loss": 1 / 3}, {"w": X})
    events = spooled(tmp_path)
    (config,) = bodies(events, Kind.CONFIG)
    assert (config["name"], config["group"]) == ("first", "digits")
    assert config["training"]["lr"] == "0.1"
    assert config["training"]["mlflow"]["run_id"] == run.info.run_id
    assert tags(mlflow, run.info.run_id) == {
        "provenance.run_id": recorder.run_id, "provenance.status": "finished",
    }  # fmt: skip
    steps = [event for event in events if event.kind is Kind.STEPS]
    assert steps
    (results,) = bodies(events, Kind.RESULTS)
    assert results["results"]["params"] == {"lr": "0.1", "epochs": "3"}
    assert results["results"]["metrics"] == {"loss": 1 / 3}
    assert kinds(events).count("state") == 1


@pytest.mark.slow
def test_an_exception_is_told_to_both(mlflow: Any, tmp_path: Path) -> None:
    from provenance.integrations.mlflow import record_run

    with (
        pytest.raises(FloatingPointError),
        mlflow.start_run() as run,
        record_run(base_dir=tmp_path),
    ):
        raise FloatingPointError
    assert tags(mlflow, run.info.run_id)["provenance.status"] == "failed"
    assert bodies(spooled(tmp_path), Kind.RUN_END)[0]["reason"] == "FloatingPointError"


@pytest.mark.slow
def test_mlflow_that_fails_ends_no_training(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from provenance.integrations.mlflow import record_run

    def down(*_: object, **__: object) -> Any:
        raise ConnectionError("down")

    with mlflow.start_run():
        with monkeypatch.context() as patch, record_run(train=X, base_dir=tmp_path) as recorder:
            for name in ("get_run", "set_tag", "get_metric_history"):
                patch.setattr(mlflow.MlflowClient, name, down)
    assert kinds(spooled(tmp_path))[-1] == "run.end"
    assert any("down" in problem for problem in recorder.problems)


@pytest.mark.slow
def test_evidence_is_an_artifact_that_verifies_and_each_is_linked_by_hand(
    mlflow: Any, tmp_path: Path
) -> None:
    from provenance.integrations.mlflow import config_of, link, log_evidence, tag_model_version

    tracker, client = ProvenanceTracker(tmp_path / "artifacts"), mlflow.MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_param("depth", 3)
        tracker.store_merkle_on_blockchain_before_training(config_of())
        link(tracker)
    assert log_evidence(tracker, run.info.run_id) is False  # no worker has seen the run
    assert client.list_artifacts(run.info.run_id) == []
    tracker.track_epoch(1, {"loss": 0.5}, {"w": X})
    tracker.store_merkle_on_blockchain_after_training({})
    (report,) = brought_home(tmp_path / "artifacts").values()
    assert log_evidence(tracker, run.info.run_id)
    root = report.roots["after"]
    named = {
        "provenance.run_id": tracker.run_id, "provenance.status": "finished",
        "provenance.root": root,
    }  # fmt: skip
    assert tags(mlflow, run.info.run_id) == named
    copy = Path(client.download_artifacts(run.info.run_id, "provenance", str(tmp_path)))
    assert {path.name for path in copy.iterdir()} == {"report.html", "report.json", "evidence"}
    assert tracker.run_id in (copy / "report.html").read_text()
    assert json.loads((copy / "report.json").read_text())["outcome"] == "verified"
    again = verify_path(load(None, tmp_path / "artifacts"), copy, offline=False)
    assert (again.outcome, again.roots["after"]) == ("verified", root)
    records: Any = {record.kind: record.decoded for record in again.evidence.records}
    training = records[Kind.CONFIG].body["training"]
    assert (training["depth"], training["mlflow"]["run_id"]) == ("3", run.info.run_id)
    client.create_registered_model("digits")
    version = client.create_model_version("digits", run.info.artifact_uri).version
    tag_model_version("digits", version, tracker)
    assert client.get_model_version("digits", version).tags == named


@pytest.mark.slow
def test_a_version_that_the_gate_refuses_is_not_promoted(mlflow: Any, tmp_path: Path) -> None:
    from provenance.integrations.mlflow import gate_model_version, promote_model_version

    home = deployment(tmp_path / "home")
    gate = Gate(home, load_policy(write_policy(tmp_path / "policy.yaml", home)))
    client = mlflow.MlflowClient()
    client.create_registered_model("net")
    model = model_folder(tmp_path / "model")
    shutil.rmtree(model / ".git")
    first = client.create_model_version("net", model.as_uri()).version
    assert promote_model_version("net", first, gate, alias="champion", stage="Production").passed
    assert client.get_model_version_by_alias("net", "champion").version == first
    assert client.get_model_version("net", first).current_stage == "Production"
    tags = client.get_model_version("net", first).tags
    assert tags["provenance.gate.verdict"] == "passed"
    assert tags["provenance.gate.run"] == str(RUN)
    assert tags["provenance.gate.policy"] == gate.policy.digest
    assert "provenance.gate.head" in tags
    # The files behind a version that passed once are others now: its tags are not believed.
    (model / "payload.py").write_text("")
    with pytest.raises(
        IntegrityError, match=r"^model net version 1: refused: files: found payload.py"
    ):
        promote_model_version("net", first, gate, alias="next")
    assert "next" not in client.get_registered_model("net").aliases
    assert client.get_model_version("net", first).tags["provenance.gate.verdict"] == "refused"
    other = model_folder(tmp_path / "other" / "data", 2)
    second = client.create_model_version("net", other.parent.as_uri()).version
    assert gate_model_version("net", second, gate, "latest", path="data").passed
    with pytest.raises(InputError, match="found neither alias nor stage"):
        promote_model_version("net", second, gate)


def test_a_missing_run_is_told_in_a_line(mlflow: Any, tmp_path: Path) -> None:
    from provenance.integrations.mlflow import config_of, link, record_run

    with pytest.raises(InputError, match="no MLflow run is active"), record_run(base_dir=tmp_path):
        pass
    with pytest.raises(InputError, match="no MLflow run is active"):
        link(ProvenanceTracker(tmp_path))
    with (
        pytest.raises(TypeError, match="model, the first argument: found a ProvenanceTracker"),
        record_run(ProvenanceTracker(tmp_path)),
    ):
        pass
    with pytest.raises(InputError, match="MLflow run nothing"):
        config_of("nothing")


@pytest.mark.slow
def test_the_example_runs(mlflow: Any, tmp_path: Path) -> None:
    framework("sklearn", "sklearn")
    run_example("mlflow_run", tmp_path)
    assert kinds(spooled(tmp_path))[-1] == "run.end"
