"""Weights that are hashed where they lie: the digest of one state, or none."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from provenance.capture.weights.live_weights import LiveWeights, live_weights, watch
from provenance.capture.weights.snapshot import Snapshotter
from provenance.errors import ProvenanceError
from provenance.fingerprint.tensors import StateDigest, state_digest
from tests.support.frameworks import framework

torch = framework("torch")
WAIT_S = 30.0
pytestmark = pytest.mark.usefixtures("one_thread")


class Net(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]  # with torch or not
    """Parameters, and buffers that a forward pass moves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2)
        )

    def forward(self, x: Any) -> Any:
        """Two outputs for each row."""
        return self.layers(x)


def loss(model: Any) -> Any:
    return model(torch.randn(6, 4)).square().sum()


OPTIMIZERS: list[Callable[[Any], Any]] = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    lambda p: torch.optim.Adagrad(p, lr=0.1, foreach=False),
]


class Interleaved:
    """A hash function that stops before its n-th tensor until the training is let go.

    Where the training's next deed waits for the hash, which it says by :attr:`waits`, both go
    on; else the deed is done in the middle of the hash.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, state: Any) -> StateDigest:
        done: dict[str, Any] = {}
        tensors = state if isinstance(state, dict) else state.state_dict()
        for index, (name, tensor) in enumerate(tensors.items()):
            if index == self.at:
                self.reached.set()
                assert self.go_on.wait(WAIT_S)
            done[name] = tensor.clone()
        self.reached.set()
        return state_digest(done)


def step(_: Any, optimizer: Any) -> None:
    optimizer.step()


def forward(model: Any, _: Any) -> None:
    loss(model)


def load(model: Any, _: Any) -> None:
    model.load_state_dict(Net().state_dict())


def assign(model: Any, _: Any) -> None:
    model.load_state_dict(Net().state_dict(), assign=True)


def edit(model: Any, _: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)


def edit_last(model: Any, _: Any) -> None:
    with torch.no_grad():
        model.layers[2].bias.mul_(3)


def to_double(model: Any, _: Any) -> None:
    model.double()


WAIT_FOR_IT = {step}
MAY_BE_REFUSED = {load, edit, edit_last}
DEEDS = [step, step, step, forward, load, assign, edit, edit_last, to_double]


@pytest.mark.parametrize(
    "seed",
    [*range(100), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 1_000))],
)
def test_the_digest_is_that_of_the_call_whenever_the_weights_change(seed: int) -> None:
    draw = random.Random(seed)
    model = Net()
    optimizer = draw.choice(OPTIMIZERS)(model.parameters())
    told: list[ProvenanceError] = []
    digests: list[StateDigest] = []
    hasher = Interleaved(draw.randrange(len(model.state_dict()) + 1))
    snapshots = Snapshotter(hasher, told.append)
    hasher.go_on.set()
    watch(snapshots)
    snapshots.submit(model, digests.append, "sync")
    loss(model).backward()
    optimizer.step()
    hasher.go_on.clear()
    hasher.reached.clear()
    expected = state_digest(model)

    snapshots.submit(model, digests.append, "stall-free")
    assert snapshots.inline == 1
    assert hasher.reached.wait(WAIT_S)
    deed = draw.choice(DEEDS)
    training = threading.Thread(target=deed, args=(model, optimizer))
    training.start()
    if deed in WAIT_FOR_IT and hasher.at < len(model.state_dict()):
        time.sleep(0.0005)
        assert training.is_alive()
        assert state_digest(model) == expected
    else:
        training.join(WAIT_S)
    hasher.go_on.set()
    training.join(WAIT_S)
    assert not training.is_alive()
    assert snapshots.drain(WAIT_S)
    if told:
        assert deed in MAY_BE_REFUSED
        assert "outside an optimizer's step" in str(told[0])
        assert digests[1:] == []
    else:
        assert digests[1:] == [expected]
    snapshots.close()


@pytest.mark.slow
def test_a_training_in_full_swing_gives_the_digest_of_each_epoch() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *[torch.nn.Linear(300, 300) for _ in range(12)], torch.nn.BatchNorm1d(300)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    digests: list[StateDigest] = []
    errors: list[ProvenanceError] = []
    snapshots = Snapshotter(state_digest, errors.append)
    expected: list[StateDigest] = []
    for _ in range(40):
        optimizer.zero_grad()
        model(torch.randn(2, 300)).sum().backward()
        optimizer.step()
        expected.append(state_digest(model))
        snapshots.submit(model, digests.append, "stall-free")
        model(torch.randn(2, 300))  # moves the statistics of the batch norm
        optimizer.step()
    assert snapshots.close(WAIT_S)
    assert digests == expected
    assert not errors


def test_after_a_change_past_the_optimizer_weights_are_copied() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told: list[ProvenanceError] = []
    digests: list[StateDigest] = []
    hasher = Interleaved(1)
    snapshots = Snapshotter(hasher, told.append)
    hasher.go_on.set()
    watch(snapshots)
    snapshots.submit(model, digests.append, "sync")
    loss(model).backward()
    optimizer.step()
    for _ in range(2):
        hasher.go_on.clear()
        hasher.reached.clear()
        expected = state_digest(model)
        snapshots.submit(model, digests.append, "stall-free")
        assert hasher.reached.wait(WAIT_S)
        edit(model, optimizer)
        hasher.go_on.set()
        assert snapshots.drain(WAIT_S)
    assert len(told) == 1
    assert digests[1:] == [expected]


def watched(hasher: Any, told: list[ProvenanceError]) -> tuple[Any, Any, Snapshotter[Any]]:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snapshots = Snapshotter(hasher, told.append)
    watch(snapshots)
    snapshots.submit({"x": torch.ones(1)}, lambda _: None, "sync")
    loss(model).backward()
    optimizer.step()
    return model, optimizer, snapshots


def test_an_edit_under_way_when_the_hash_ends_is_waited_for() -> None:
    hashed = threading.Event()

    def hasher(state: Any) -> StateDigest:
        digest = state_digest(state)
        hashed.set()
        return digest

    told: list[ProvenanceError] = []
    digests: list[StateDigest] = []
    model, _, snapshots = watched(hasher, told)
    hashed.clear()
    snapshots.submit(model, digests.append, "stall-free")
    assert hashed.wait(WAIT_S)
    edit(model, None)  # its counter moves at its end
    assert snapshots.drain(WAIT_S)
    assert (digests, len(told)) == ([], 1)


def test_a_step_and_a_drain_wait_for_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveWeights, "grace_s", lambda _: 10 * WAIT_S)
    digests: list[StateDigest] = []
    model, optimizer, snapshots = watched(state_digest, [])
    for end in (optimizer.step, snapshots.drain, snapshots.settle):
        snapshots.submit(model, digests.append, "stall-free")
        thread = threading.Thread(target=end)
        thread.start()
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert snapshots.drain(WAIT_S)
    assert len(digests) == 3


def known(model: Any) -> Any:
    """The model, after a step of its optimizer that somebody watched."""
    watch(Snapshotter(state_digest))
    model.optimizer_of_the_test = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1
    )
    model.optimizer_of_the_test.step()
    return model


def test_what_is_read_where_it_lies() -> None:
    model = known(Net())
    live = live_weights(model)
    assert live is not None
    assert state_digest(live.state) == state_digest(model)
    assert live.state["layers.0.weight"].data_ptr() == model.layers[0].weight.data_ptr()
    statistics = model.layers[1].running_mean
    assert live.state["layers.1.running_mean"].data_ptr() != statistics.data_ptr()


def frozen() -> Any:
    model = Net()
    model.layers[0].requires_grad_(False)
    return known(model)


def test_frozen_parameters_need_no_optimizer() -> None:
    live = live_weights(frozen())
    assert live is not None
    live.look()
    assert live.moved is False


def untrained() -> Any:
    return Net().requires_grad_(False)


def half_known() -> Any:
    model = frozen()
    model.layers[0].requires_grad_(True)
    return model


def shared() -> Any:
    return known(Net()).share_memory()


def forgotten() -> Any:
    model = known(Net())
    del model.optimizer_of_the_test
    return model


@pytest.mark.parametrize(
    "make",
    [Net, untrained, half_known, shared, forgotten, lambda: known(Net()).state_dict(), dict],
)
def test_what_is_copied_instead(make: Callable[[], Any]) -> None:
    assert live_weights(make()) is None
