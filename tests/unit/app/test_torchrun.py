"""torchrun itself: two ranks that share a run, and are started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from provenance.capture.keys import new_run_keys
from tests.support.frameworks import installed
from tests.support.home import brought_home
from tests.support.paths import ROOT

TORCHRUN = """
import os, sys, time
import numpy as np
from provenance import ProvenanceTracker
rank, restart = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
tracker = ProvenanceTracker(sys.argv[1])
tracker.track_data(np.ones((3, 2)))
tracker.track_model({"w": np.ones(2, np.float32)})
tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
os.write(1, f"{rank} {restart} {tracker.run_id}\\n".encode())  # at once: ranks share the pipe
tracker.track_epoch(1, {"loss": 1.0})
ready = sys.argv[1] + "/rank-0"
if restart == "0":
    if rank == "0":
        open(ready, "w").close()
    while rank == "0" or not os.path.exists(ready):
        time.sleep(0.1)  # rank 0 until torchrun ends it, since the other is dead
    os._exit(1)
other = sys.argv[1] + "/rank-1"
if rank == "1":
    open(other, "w").close()
while not os.path.exists(other):
    time.sleep(0.1)  # rank 0 ends no run before the other is there, as a training's steps see to
tracker.track_epoch(2, {"loss": 0.5})
tracker.store_merkle_on_blockchain_after_training({})
"""


def torchrun(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two ranks of a script, that are started again once."""
    installed("torch")
    (folder / "train.py").write_text(script)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "--max-restarts", "1", str(folder / "train.py"), str(folder / "artifacts"),
        ],
        capture_output=True, text=True, errors="replace", timeout=180, check=False,
        env={
            **os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", **environment,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_torchrun_without_a_process_group_writes_one_run_and_a_restart_names_it_as_parent(
    tmp_path: Path,
) -> None:
    done = torchrun(tmp_path, TORCHRUN)
    lines = [line.split() for line in done.stdout.splitlines() if line.count(" ") == 2]
    runs = {restart: {run for _, own, run in lines if own == restart} for restart in ("0", "1")}
    assert sorted(line[:2] for line in lines) == [
        ["0", "0"], ["0", "1"], ["1", "0"], ["1", "1"],
    ]  # fmt: skip
    (first,), (second,) = runs["0"], runs["1"]
    assert first != second
    reports = brought_home(tmp_path / "artifacts")
    report = reports[UUID(second)]
    assert report.outcome == "verified", report.findings
    (config,) = (r for r in report.evidence.records if r.kind.value == "config")
    assert not isinstance(config.decoded, Exception)
    assert config.decoded.body["parent"] == {"run": first, "epoch": None}
    assert {record.rank for record in report.evidence.records} == {0, 1}
    assert reports[UUID(first)].outcome == "consistent", "it never ended"


ELASTIC = """
import os, sys
import torch
import torch.distributed as dist
from provenance import ProvenanceTracker
dist.init_process_group("gloo")
rank, restart = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
model = {"w": torch.zeros(2)}
tracker = ProvenanceTracker(sys.argv[1])
tracker.track_data(torch.ones(3))
tracker.track_model(model)
tracker.store_merkle_on_blockchain_before_training({"epochs": 4})
for epoch in range(3 if restart else 1, 5):
    dist.barrier()
    tracker.track_epoch(epoch, {"loss": 1 / epoch}, model=model)
    if (rank, restart, epoch) == (1, 0, 2):
        os._exit(1)
tracker.store_merkle_on_blockchain_after_training({})
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_process_group_that_torchrun_starts_again_is_one_run_and_its_story_is_told(
    tmp_path: Path,
) -> None:
    """The ranks have the run's seed, as from ``provenance run -- torchrun ...``."""
    keys = new_run_keys()
    torchrun(
        tmp_path,
        ELASTIC,
        PROVENANCE_RUN_ID=str(keys.run),
        PROVENANCE_RUN_SEED=keys.seed.hex(),
        # torch 2.13 keeps the agent's store, in which gloo finds the addresses of dead ranks.
        TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
    )
    reports = brought_home(tmp_path / "artifacts")
    report = reports[keys.run]
    assert len(reports) == 1
    assert report.outcome == "verified", report.findings
    assert (report.state.state, report.evidence.incomplete) == ("finished", None)
    told = {notice.subject: notice.problem for notice in report.notices}
    for rank in (0, 1):
        assert told[f"rank {rank}, process 2"].startswith("was started again at epoch 3")
    assert {(row.epoch, row.rank) for row in report.metrics} >= {
        (epoch, rank) for epoch in range(1, 5) for rank in (0, 1)
    }
