"""Accelerate: a loop over a prepared model that logs through ``log_with``."""

from __future__ import annotations

import os
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
    states = [event.fields["root"] for event in events if event.kind is Kind.STATE]
    assert len({first, *states}) == 3
    assert [(step, *values) for step, values in steps(events)] == [
        (0, "loss"), (1, "loss"), (0, "loss"), (1, "loss"),
    ]  # fmt: skip
    assert bodies(events, Kind.RESULTS)[0]["results"]["epoch_loss"] > 0


def test_a_model_that_is_shown_late_is_not_stated_as_that_before_training(tmp_path: Path) -> None:
    accelerate, torch = framework("accelerate"), framework("torch")
    from provenance.integrations.accelerate import AccelerateTracker

    early, late = (AccelerateTracker(base_dir=tmp_path / name) for name in ("early", "late"))
    accelerator = accelerate.Accelerator(log_with=[early, late], cpu=True)
    accelerator.init_trackers("project")
    model = torch.nn.Linear(2, 1)
    early.watch(model)
    shown = {"provenance": {"model": model}}
    accelerator.log({"epoch": 0, "loss": 1.0}, log_kwargs=shown)
    accelerator.end_training()
    events = spooled(tmp_path / "late")
    assert "before training" in bodies(events, Kind.CONFIG)[0]["training"]["not_recorded"]["model"]
    assert "model.weights" not in kinds(events)
    assert kinds(events).count("state") == 1
    assert "model.weights" in kinds(spooled(tmp_path / "early"))


def test_a_training_that_goes_on_begins_with_the_state_that_was_loaded(tmp_path: Path) -> None:
    accelerate, torch = framework("accelerate"), framework("torch")
    from provenance.integrations.accelerate import AccelerateTracker

    runs: list[str | None] = [None]
    for goes_on in (False, True):
        model = torch.nn.Linear(2, 1)
        tracker = AccelerateTracker(base_dir=tmp_path, model=model, parent=runs[-1])
        accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
        model = accelerator.prepare(model)
        if goes_on:
            accelerator.load_state(str(tmp_path / "state"))
        accelerator.init_trackers("project", config={})
        with torch.no_grad():
            model.weight += 1
        accelerator.log({"epoch": int(goes_on), "loss": 1.0})
        accelerator.save_state(str(tmp_path / "state"))
        accelerator.end_training()
        runs.append(tracker.recorder.run_id)
    events = spooled(tmp_path)
    initial, saved = (bodies(events, kind) for kind in (Kind.WEIGHTS, Kind.STATE))
    assert initial[1]["root"] == saved[0]["root"] != initial[0]["root"]
    parents = [config["parent"] for config in bodies(events, Kind.CONFIG)]
    assert parents == [None, {"run": runs[1], "epoch": None}]


def test_a_tracker_records_each_training_and_part_of_an_epoch_as_a_step(tmp_path: Path) -> None:
    accelerate, torch = framework("accelerate"), framework("torch")
    from provenance.integrations.accelerate import AccelerateTracker

    tracker = AccelerateTracker(base_dir=tmp_path, model=torch.nn.Linear(2, 1))
    for rate in (0.1, 0.2):
        accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
        accelerator.init_trackers("project", config={"lr": rate})
        accelerator.log({"epoch": 0.5, "loss": 1.0}, step=3)
        accelerator.log({"epoch": 1.0, "loss": 0.5}, step=6)
        accelerator.end_training()
    events = spooled(tmp_path)
    rates = [config["training"]["lr"] for config in bodies(events, Kind.CONFIG)]
    assert rates == [0.1, 0.2]
    assert [event.epoch for event in events if event.kind is Kind.METRICS] == [1, 1]
    assert steps(events) == [(3, {"epoch": 0.5, "loss": 1.0})] * 2
    assert kinds(events).count("run.end") == 2


def test_the_main_process_waits_for_no_other_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework("accelerate")
    from provenance.integrations.accelerate import AccelerateTracker

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    tracker = AccelerateTracker(base_dir=tmp_path)
    tracker.watch(framework("torch").nn.Linear(2, 1))
    assert bodies(spooled(tmp_path), Kind.CONFIG)[0]["world_size"] == 1
    assert "PROVENANCE_WORLD_SIZE" not in os.environ


def test_weights_that_ranks_share_are_a_gap_of_the_process_that_logs(tmp_path: Path) -> None:
    torch, dist = framework("torch"), framework("torch.distributed", "torch")
    framework("accelerate")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from provenance.integrations.accelerate import AccelerateTracker

    tracker = AccelerateTracker(base_dir=tmp_path)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(torch.nn.Linear(2, 1), mesh=init_device_mesh("cpu", (1,)))
        tracker.log({"epoch": 0, "loss": 1.0}, model=model)
    finally:
        dist.destroy_process_group()
    assert "state" not in kinds(spooled(tmp_path))
    (gap,) = bodies(spooled(tmp_path), Kind.GAP)
    assert (gap["what"], gap["dropped"]) == ("weights", 1)
    assert "ranks share the model, and one process logs" in gap["reason"]


def test_the_example_records_a_whole_run(tmp_path: Path) -> None:
    framework("accelerate")
    run_example("accelerate_loop", tmp_path)
    counted = kinds(spooled(tmp_path))
    assert counted.count("metrics") == 3
    assert counted.count("data.train") == counted.count("results") == 1
