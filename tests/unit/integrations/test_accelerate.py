"""Accelerate: a loop over a prepared model that logs through ``log_with``."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.spooled import bodies, kinds, spooled, steps

pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_is_logged_with_an_epoch_is_an_epoch(tmp_path: Path) -> None:
    accelerate, torch = framework("accelerate"), framework("torch")
    from torch.utils.data import DataLoader, TensorDataset

    from provenance.integrations.accelerate import AccelerateTracker

    torch.set_num_threads(1)
    x = torch.randn(16, 4)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = torch.nn.Linear(4, 1)
    first = state_digest(model.state_dict()).as_fields()["root"]
    tracker = AccelerateTracker(base_dir=tmp_path, model=model, train=data)
    accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("project", config={"lr": 0.1})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, 8))
    accelerator.get_tracker("provenance").watch(model)
    for epoch in range(2):
        for step, (inputs, targets) in enumerate(loader):
            optimizer.zero_grad()
            loss = (model(inputs) - targets).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            accelerator.log({"loss": loss}, step=step)
        accelerator.log({"epoch": epoch, "epoch_loss": loss.item()})
    accelerator.end_training()
    events = spooled(tmp_path)
    assert bodies(events, Kind.CONFIG)[0]["training"] == {"lr": 0.1}
    assert bodies(events, Kind.DATA_TRAIN)[0]["count"] == 16
    assert bodies(events, Kind.WEIGHTS)[0]["root"] == first
    metrics = [event for event in events if event.kind is Kind.METRICS]
    assert [(event.epoch, *event.fields["metrics"]) for event in metrics] == [
        (0, "epoch_loss"),
        (1, "epoch_loss"),
    ]
    assert kinds(events).count("state") == 2
    assert [(step, *values) for step, values in steps(events)] == [
        (0, "loss"), (1, "loss"), (0, "loss"), (1, "loss"),
    ]  # fmt: skip
    assert bodies(events, Kind.RESULTS)[0]["results"]["epoch_loss"] > 0


def test_the_example_records_a_whole_run(tmp_path: Path) -> None:
    framework("accelerate")
    run_example("accelerate_loop", tmp_path)
    counted = kinds(spooled(tmp_path))
    assert counted.count("metrics") == 3
    assert counted.count("data.train") == counted.count("results") == 1
