"""Facts about model, code and machine that go into records."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDClassifier

from provenance.capture import environment
from provenance.formats.record import normalise


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_environment_names_what_shapes_results() -> None:
    found = environment.environment()
    assert found["python"] == platform.python_version()
    assert found["machine"] == platform.machine()
    assert found["packages"]["numpy"] == metadata.version("numpy")  # type: ignore[index, call-overload]  # JSON, or known to be there
    assert "definitely-absent" not in found["packages"]  # type: ignore[operator]  # JSON, or known to be there
    assert normalise(found) == found


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "torch":
            raise metadata.PackageNotFoundError(name)
        return "9.9"

    monkeypatch.setattr(metadata, "version", version)
    assert environment.environment()["packages"] == {"torch": "9.9"}


def test_commit_and_whether_tracked_files_differ(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert environment.code_commit(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "untracked").write_text("x")
    assert environment.code_commit(tmp_path)["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert environment.code_commit(tmp_path) == {"commit": head, "dirty": True}


def test_a_changed_file_whose_name_is_not_utf_8_is_a_change(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "core.quotepath", "false")
    path = os.path.join(os.fsencode(tmp_path), b"d\xe4ten.txt")
    for text in ("1", "2"):
        with open(path, "w") as file:
            file.write(text)
        if text == "1":
            git(tmp_path, "add", "-A")
            git(tmp_path, "commit", "-q", "-m", "one")
    assert environment.code_commit(tmp_path)["dirty"] is True


def test_outside_a_checkout_and_without_git_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    nothing = {"commit": None, "dirty": None}
    assert environment.code_commit(tmp_path) == nothing
    monkeypatch.setenv("PATH", "")
    assert environment.code_commit(tmp_path) == nothing
    assert environment.code_commit(tmp_path / "gone") == nothing


def test_a_git_that_stops_halfway_leaves_the_question_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"rev-parse": "ab" * 20, "status": None}
    monkeypatch.setattr(environment, "_git", lambda arguments, _: answers[arguments[0]])
    assert environment.code_commit(tmp_path) == {"commit": "ab" * 20, "dirty": None}


def test_a_torch_module_is_its_structure_without_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    found = environment.architecture(model)
    assert found["framework"] == "torch"
    assert found["class"] == "torch.nn.modules.container.Sequential"
    assert "Linear(in_features=3, out_features=2, bias=True)" in str(found["structure"])
    assert "parameters" not in found
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert environment.architecture(model) == found


def test_an_estimator_brings_its_hyperparameters() -> None:
    found = environment.architecture(SGDClassifier(alpha=0.5, random_state=3))
    assert found["framework"] == "sklearn"
    parameters = found["parameters"]
    assert isinstance(parameters, dict)
    assert (parameters["alpha"], parameters["random_state"]) == (0.5, 3)
    assert json.loads(json.dumps(parameters)) == parameters


def test_a_hyperparameter_without_a_json_form_is_its_type() -> None:
    class Estimator:
        def get_params(self, deep: bool = True) -> dict[str, object]:
            return {"kernel": object(), "nan": float("nan"), "base": SGDClassifier}

    parameters = environment.architecture(Estimator())["parameters"]
    assert parameters == {"base": "ABCMeta", "kernel": "object", "nan": "NaN"}


def test_get_params_that_takes_no_argument_is_left_alone() -> None:
    class Odd:
        def get_params(self) -> dict[str, object]:
            return {}

    assert "parameters" not in environment.architecture(Odd())


def test_a_mapping_of_arrays_is_its_names() -> None:
    found = environment.architecture({"b": np.zeros(2), "a": np.ones(2)})
    assert found["structure"] == "a, b"
    assert found["framework"] == "builtins"


def test_an_object_without_a_repr_of_its_own_shows_no_address() -> None:
    class Plain:
        pass

    found = environment.architecture(Plain())
    assert str(found["structure"]).endswith("Plain")
    assert "0x" not in str(found["structure"])


def test_long_structures_are_cut() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 100_000

    assert len(str(environment.architecture(Long())["structure"])) == 16_384
    names = {f"layer{at:05}": 0 for at in range(5000)}
    assert len(str(environment.architecture(names)["structure"])) == 16_384
