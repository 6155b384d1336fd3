"""Two processes of torch.distributed (gloo) that train one model and track it, each for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from provenance import cli
from provenance.bundle.writer import write_bundle
from provenance.capture.ship.loop import Shipper
from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.record import Kind
from provenance.ledger.ingest import drain
from provenance.ledger.seal import SealPolicy, seal_ready
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.support.paths import ROOT
from tests.support.verify_world import SIGNER

pytestmark = pytest.mark.timeout(300)
RANK = """
import os, sys
import torch, torch.distributed as dist
from provenance import ProvenanceTracker
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

rank, how, ranks = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", store=dist.FileStore("store", 2), rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
if how == "ddp":
    model = torch.nn.parallel.DistributedDataParallel(model)
else:
    model = fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
tracker = ProvenanceTracker("artifacts", {"weight_digests": {"ranks": ranks}})
tracker.track_model(model)
tracker.store_merkle_on_blockchain_before_training({})
torch.manual_seed(rank)
for epoch in (1, 2, 3):
    loss = model(torch.randn(8, 5)).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if rank == 1:
        dist.barrier()  # rank 0 comes here after its call alone: nothing in it may wait for rank 1
    tracker.track_epoch(epoch, {"loss": loss.item()}, model=model)
    if rank == 0:
        dist.barrier()
    if how == "killed" and epoch == 2:
        tracker._snapshots.drain()
        dist.barrier()
        os.kill(os.getpid(), 9) if rank == 1 else None
        break
if how == "killed":
    tracker.track_epoch(3, {"loss": 1.0}, model=model)
else:
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    full = get_model_state_dict(model, options=options)
    if rank == 0:
        save_file({name: tensor.contiguous() for name, tensor in full.items()}, "full.safetensors")
tracker.store_merkle_on_blockchain_after_training({})
os._exit(0)  # where rank 1 is dead, the group's own end would wait for it
"""


class Trained(NamedTuple):
    """What the run left, sealed after its grace."""

    evidence: RunEvidence
    report: VerificationReport
    incomplete: str | None

    def weights(self) -> list[tuple[int | None, int, Kind]]:
        """Epoch, rank and kind of the records of weights in the tree."""
        records = [item for item in self.evidence.records if item.place == "tree"]
        kinds = (Kind.STATE, Kind.WEIGHTS)
        return [(item.epoch, item.rank, item.kind) for item in records if item.kind in kinds]


def train(how: str, ranks: str = "auto") -> Trained:
    """Both ranks to their end, then spool, shipper, ingest and seal in this process."""
    others = ("PROVENANCE_", "RANK", "WORLD")
    own = {name: v for name, v in os.environ.items() if not name.startswith(others)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), how, ranks],
            env={**own, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    ended = [process.returncode for process in processes]
    assert ended == [0, -9 if how == "killed" else 0], said
    store, transport = SqlStore.open("sqlite:///ledger.db"), MemoryTransport()
    policy, now = SealPolicy((), SIGNER, 60.0), time.time()
    with Shipper(Path("artifacts/spool"), transport) as shipper:
        while shipper.run_once().events:
            drain(transport, store, policy, "one", lambda: now)
    with store.transaction() as tx:
        (run,) = [row.run for row in tx.runs()]
        seal_ready(tx, run, policy, now + 3600)
        row = tx.run(run)
        assert row is not None
    evidence = from_store(store, run, SIGNER.verifier)
    store.close()
    return Trained(evidence, verify(evidence, None, now=now), row.incomplete)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_fsdp2_shards_are_recorded_by_each_rank_and_are_the_full_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train("fsdp")
    assert run.report.findings == ()
    assert run.incomplete is None
    each = [(epoch, rank, Kind.STATE) for epoch in (1, 2, 3) for rank in (0, 1)]
    assert run.weights() == [(None, 0, Kind.WEIGHTS), *each]
    assert [notice.subject for notice in run.report.notices] == ["model/weights/0"]
    write_bundle(run.evidence, Path("bundle"))
    assert cli.main(["verify-model", "full.safetensors", "--bundle", "bundle"]) == 0
    assert "these are exactly the weights of epoch 3" in capsys.readouterr().out
    flip_last_byte(Path("full.safetensors"))
    assert cli.main(["verify-model", "full.safetensors", "--bundle", "bundle"]) == 1
    assert "nearest    epoch 3" in capsys.readouterr().out


def test_ddp_ranks_take_turns(capsys: pytest.CaptureFixture[str]) -> None:
    run = train("ddp", "rotating")
    assert (run.report.findings, run.report.notices) == ((), ())
    assert run.weights() == [
        (None, 0, Kind.WEIGHTS), (1, 1, Kind.STATE), (2, 0, Kind.STATE), (3, 1, Kind.STATE),
    ]  # fmt: skip
    metrics = {(i.epoch, i.rank) for i in run.evidence.records if i.kind is Kind.METRICS}
    assert metrics == {(epoch, rank) for epoch in (1, 2, 3) for rank in (0, 1)}


def test_a_killed_rank_is_named_with_the_epoch_that_it_left_in_part() -> None:
    run = train("killed")
    assert run.incomplete == "rank 1: no run.end"
    lines = [(finding.subject, finding.problem) for finding in run.report.findings]
    assert lines == [
        (
            "epoch 3",
            "tensor '0.bias': no rank has [2:3] (and 1 more); no weights from rank 1 of 2",
        ),
        ("run", "rank 1: ended unannounced (no signed run.end)"),
    ]
    assert [(n.subject, n.problem) for n in run.report.notices if n.path is None] == [
        ("epoch 3", "no metrics from rank 1")
    ]
