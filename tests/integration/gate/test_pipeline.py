"""Pipelines as processes: the example, the GitHub action's step and the GitLab job's script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from provenance.app.processes import redis_server
from provenance.settings import Settings
from tests.conftest import missing
from tests.support.model_world import deployment, model_folder
from tests.support.paths import ROOT
from tests.unit.gate.conftest import write_policy

ACTION = ROOT / "deploy" / "ci" / "github" / "action.yml"
JOB = ROOT / "deploy" / "ci" / "gitlab" / "gate.yml"


def environment(**own: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PROVENANCE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, **own}


def bash(script: str, folder: Path, **own: str) -> subprocess.CompletedProcess[str]:
    """As GitHub and GitLab run a step."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder, env=environment(**own), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return deployment(tmp_path_factory.mktemp("home") / "artifacts")


@pytest.fixture
def work(home: Settings, tmp_path: Path) -> Path:
    """A checkout with a model and a policy; the deployment is reached as in the documentation."""
    model_folder(tmp_path / "model's $(touch injected)")
    write_policy(tmp_path / "policy.yaml", home)
    return tmp_path


def model_of(work: Path) -> str:
    return next(path.name for path in work.iterdir() if path.is_dir())


def flip(work: Path) -> None:
    file = work / model_of(work) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def action_step(inputs: dict[str, str], work: Path, **own: str) -> Any:
    """The step that holds the gate, with the action's inputs in place of its expressions."""
    document = yaml.safe_load(ACTION.read_text())
    given = {name: str(each.get("default", "")) for name, each in document["inputs"].items()}
    (step,) = (each for each in document["runs"]["steps"] if each.get("id") == "gate")
    values = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: (given | inputs)[m[1]], text)
        for name, text in step["env"].items()
    }
    assert "${{" not in step["run"]
    files = {"GITHUB_OUTPUT": str(work / "output"), "GITHUB_STEP_SUMMARY": str(work / "summary")}
    return bash(step["run"], work, **values, **files, **own)


@pytest.mark.parametrize("schema", ["vendor.github-actions", "vendor.gitlab-ci"])
def test_both_files_fit_their_schemas(schema: str) -> None:
    path = ACTION if "github" in schema else JOB
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_action_passes_and_refuses(work: Path, home: Settings) -> None:
    inputs = {"model": model_of(work), "policy": "policy.yaml", "run": "latest"}
    base = {"PROVENANCE_BASE_DIR": str(home.base_dir)}
    done = action_step(inputs, work, **base)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "output").read_text() == "verdict=passed\n"
    flip(work)
    done = action_step(inputs, work, **base)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("REFUSED"))
    assert line.startswith("REFUSED model: found weights of no epoch; nearest is epoch 3")
    assert (work / "output").read_text().endswith("verdict=refused\n")
    assert line in (work / "summary").read_text()
    (run,) = json.loads((work / "provenance-gate.sarif").read_text())["runs"]
    assert [item["ruleId"] for item in run["results"]] == ["model"]
    # A policy that cannot be read leaves no earlier report to be uploaded, and passes nothing.
    (work / "policy.yaml").write_text("ledger_key: x\n")
    done = action_step(inputs, work, **base)
    assert done.returncode == 2
    assert "policy.yaml" in done.stdout
    assert not (work / "provenance-gate.sarif").exists()
    assert not (work / "injected").exists()
    # GitHub does not see to it that a required input is given.
    done = action_step({**inputs, "model": ""}, work, **base)
    assert (done.returncode != 0, "the input model is empty" in done.stderr) == (True, True)


def test_the_job_passes_and_refuses(work: Path, home: Settings) -> None:
    (job,) = yaml.safe_load(JOB.read_text()).values()
    own = {name: str(value) for name, value in job["variables"].items()}
    own |= {"GATE_INSTALL": "", "GATE_MODEL": model_of(work), "GATE_RUN": "latest"}
    script = "\n".join(job["script"])
    base = {"PROVENANCE_BASE_DIR": str(home.base_dir)}
    done = bash(script, work, **own, **base)
    assert done.returncode == 0, done.stdout + done.stderr
    flip(work)
    done = bash(script, work, **own, **base)
    assert done.returncode == 1
    assert "REFUSED model: " in done.stdout
    assert 'failures="1"' in (work / job["artifacts"]["reports"]["junit"]).read_text()
    assert (work / job["artifacts"]["paths"][0]).exists()


def test_the_example_takes_one_model_of_four(tmp_path: Path) -> None:
    if redis_server(ROOT) is None:
        missing("no Redis server")
    script = str(ROOT / "examples" / "gate" / "pipeline.sh")
    done = subprocess.run(
        ["bash", script, str(tmp_path)], env=environment(), capture_output=True, text=True,
        timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    heads = [line.split(",")[0] for line in lines if ", run " in line]
    assert heads == ["true", "flipped", "unanchored", "unknown"]
    refusals = [line for line in lines if line.startswith("REFUSED")]
    assert [line.split(":")[0] for line in refusals] == [
        "REFUSED model", "REFUSED networks.local", "REFUSED signers",
    ]  # fmt: skip
    assert lines[-1] == "to deploy: true"
