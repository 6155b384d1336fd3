"""Loops of plain PyTorch; with Opacus the real engine's budget in the records, and recomputed from
them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provenance.errors import InputError
from provenance.formats.record import Kind
from provenance.proofs.renyi import RenyiAccountant
from provenance.tracker import ProvenanceTracker
from tests.support.examples import run_example
from tests.support.frameworks import framework
from tests.support.spooled import bodies, kinds, spooled

pytestmark = pytest.mark.filterwarnings("ignore")


def private(accountant: str) -> tuple[Any, ...]:
    opacus, torch = framework("opacus"), framework("torch")
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 16)
    engine, module = opacus.PrivacyEngine(accountant=accountant), torch.nn.Linear(4, 1)
    made = engine.make_private(
        module=module, optimizer=torch.optim.SGD(module.parameters(), 0.1), data_loader=loader,
        noise_multiplier=1.1, max_grad_norm=1.0,
    )  # fmt: skip
    return engine, *made


def trained(model: Any, optimizer: Any, loader: Any) -> float:
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rdp", "prv"])
def test_an_engines_budget_is_stated_each_epoch_with_its_steps(tmp_path: Path, name: str) -> None:
    engine, *training = private(name)
    tracker = ProvenanceTracker(tmp_path)
    for epoch in (1, 2):
        tracker.track_epoch(epoch, {"loss": trained(*training)}, privacy=(engine, 1e-5))
    tracker.close()
    first, second = (body["privacy"] for body in bodies(spooled(tmp_path), Kind.PRIVACY))
    assert first["accountant"] == name
    assert first["epsilon"] < second["epsilon"] == engine.get_epsilon(1e-5)
    (step,) = second["history"]
    assert step == {"noise_multiplier": 1.1, "sample_rate": 0.25, "steps": 8}
    epsilon = RenyiAccountant().epsilon([tuple(step.values())], 1e-5)
    if name == "rdp":
        assert epsilon == pytest.approx(second["epsilon"], rel=1e-9)
    else:
        assert epsilon > second["epsilon"]


@pytest.mark.slow
def test_an_engine_without_its_delta_is_refused_before_anything_is_recorded(
    tmp_path: Path,
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    with pytest.raises(InputError, match="privacy: found PrivacyEngine"):
        tracker.track_epoch(1, {"loss": 1}, privacy=private("rdp")[0])
    assert spooled(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(("example", "metrics"), [("pytorch_loop", 3), ("opacus_privacy", 2)])
def test_the_examples_record_a_whole_run(tmp_path: Path, example: str, metrics: int) -> None:
    framework("opacus")
    run_example(example, tmp_path)
    counted = kinds(spooled(tmp_path))
    assert counted.count("metrics") == metrics
    assert counted.count("data.train") == counted.count("results") == 1
