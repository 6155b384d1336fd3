"""Two processes of one training, with each integration's own launcher: one run, verified."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from provenance.formats.event import Event
from provenance.formats.record import Kind
from tests.support.frameworks import installed
from tests.support.home import brought_home
from tests.support.paths import ROOT
from tests.support.spooled import bodies, spooled

pytestmark = pytest.mark.slow
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

# Accelerate takes its FSDP plugin on accelerators alone; the rest of its FSDP2 runs on a CPU too.
FSDP2 = """
import accelerate.state
from accelerate.utils import DistributedType
prepared = accelerate.state.AcceleratorState.__init__
def on_cpu(self, *args, fsdp_plugin=None, **options):
    prepared(self, *args, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        accelerate.state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
accelerate.state.AcceleratorState.__init__ = on_cpu
options = {"version": 2, "fsdp_version": 2, "auto_wrap_policy": "NO_WRAP"}
sharding = {"fsdp": "full_shard", "fsdp_config": options}
"""

TRANSFORMERS = """
import sys, torch, transformers
from provenance.integrations.transformers import ProvenanceCallback
torch.set_num_threads(1)
data = [
    {"input_ids": torch.tensor([i % 7, 1, 2]), "labels": torch.tensor(i % 2)} for i in range(16)
]
size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
for report_to in sys.argv[1:]:
    arguments = transformers.TrainingArguments(
        output_dir="out", num_train_epochs=2, per_device_train_batch_size=4, save_strategy="no",
        logging_strategy="epoch", eval_strategy="epoch", report_to=report_to, disable_tqdm=True,
        use_cpu=True, ddp_backend="gloo", **sharding,
    )
    transformers.Trainer(
        transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=8, **size)),
        arguments, train_dataset=data, eval_dataset=data[:4],
        callbacks=[ProvenanceCallback(test=data[:4])] if report_to == "none" else [],
    ).train()
"""

LIGHTNING = """
import sys, lightning, torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset
from provenance.integrations.lightning import ProvenanceLogger
torch.set_num_threads(1)

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 2)
    def configure_model(self):
        if sys.argv[1] == "fsdp2":
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])
    def training_step(self, batch, index):
        loss = self.net(batch[0]).square().mean()
        self.log("loss", loss, sync_dist=True, on_epoch=True)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

if __name__ == "__main__":
    sharding = dict(data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo")
    strategy = ModelParallelStrategy(**sharding) if sys.argv[1] == "fsdp2" else sys.argv[1]
    lightning.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy=strategy, logger=ProvenanceLogger(),
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    ).fit(Module(), DataLoader(TensorDataset(torch.randn(32, 4)), 8))
"""

ACCELERATE = """
import os, torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset
from provenance.integrations.accelerate import AccelerateTracker
torch.set_num_threads(1)
data, model = TensorDataset(torch.randn(32, 4)), torch.nn.Linear(4, 1)
accelerator = Accelerator(log_with=AccelerateTracker(model=model, train=data), cpu=True)
accelerator.init_trackers("project", config={"lr": 0.1})
optimizer = torch.optim.SGD(model.parameters(), 0.1)
model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, 8))
assert accelerator.num_processes == 2
for epoch in range(2):
    for (inputs,) in loader:
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        accelerator.backward(loss)
        optimizer.step()
    accelerator.log({"epoch": epoch, "loss": loss.item()})
accelerator.end_training()
os._exit(0)  # the interpreter's end aborts now and then, by a thread of gloo, on any rank
"""


def trained(folder: Path, source: str, *arguments: str, by: tuple[str, ...] = ()) -> list[Event]:
    """The events of a script in ``folder``, whose runs are verified, each finished and whole."""
    script = folder / "train.py"
    script.write_text(source)
    done = subprocess.run(
        [sys.executable, *by, str(script), *arguments], cwd=folder, capture_output=True, text=True,
        timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[warning" not in done.stderr, done.stderr
    for report in brought_home(folder / "artifacts").values():
        assert report.outcome == "verified", report.findings
    events = spooled(folder / "artifacts")
    ends = [event.fields["reason"] for event in events if event.kind is Kind.RUN_END]
    assert set(ends) == {"finished"}
    return events


def ranks(events: list[Event], kind: Kind) -> list[tuple[int, int | None]]:
    return sorted((event.rank, event.epoch) for event in events if event.kind is kind)


def test_transformers_under_torchrun(tmp_path: Path) -> None:
    installed("transformers")
    script = "sharding = {}" + TRANSFORMERS
    events = trained(tmp_path, script, "none", "provenance", by=TORCHRUN)
    configs = bodies(events, Kind.CONFIG)
    assert [config["world_size"] for config in configs] == [2, 2]
    assert ranks(events, Kind.METRICS) == [(r, e) for r in (0, 1) for e in (1, 1, 2, 2)]
    assert ranks(events, Kind.RUN_END) == [(0, None), (0, None), (1, None), (1, None)]


def test_transformers_with_fsdp2_records_the_shards_of_each_rank(tmp_path: Path) -> None:
    installed("transformers")
    events = trained(tmp_path, FSDP2 + TRANSFORMERS, "none", by=TORCHRUN)
    assert ranks(events, Kind.STATE) == [(r, e) for r in (0, 1) for e in (1, 2)]
    shards = [
        tensor.get("shard") for body in bodies(events, Kind.STATE) for tensor in body["tensors"]
    ]
    assert shards
    assert all(shards)


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "fsdp2"])
def test_lightning_with_its_strategies(tmp_path: Path, strategy: str) -> None:
    installed("lightning")
    events = trained(tmp_path, LIGHTNING, strategy)
    (config,) = bodies(events, Kind.CONFIG)
    assert (config["name"], config["world_size"]) == ("Module", 2)
    assert ranks(events, Kind.METRICS) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert ranks(events, Kind.RUN_END) == [(0, None), (1, None)]
    shards = [
        tensor.get("shard") for body in bodies(events, Kind.STATE) for tensor in body["tensors"]
    ]
    assert all(shards) if strategy == "fsdp2" else not any(shards)


def test_accelerate_under_torchrun_is_a_run_of_the_main_process(tmp_path: Path) -> None:
    installed("accelerate")
    events = trained(tmp_path, ACCELERATE, by=TORCHRUN)
    (config,) = bodies(events, Kind.CONFIG)
    assert (config["world_size"], config["training"]) == (1, {"lr": 0.1})
    assert ranks(events, Kind.METRICS) == [(0, 0), (0, 1)]
    assert ranks(events, Kind.STATE) == [(0, 0), (0, 1)]
