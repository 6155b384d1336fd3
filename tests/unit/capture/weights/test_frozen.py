"""Frozen parameters that are not read again: the record is as true as it says, or says why not.

Over 400 lines: case by case, one file: `provenance/capture/weights/frozen.py`.
"""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.capture.spool import read_segment, scan
from provenance.capture.weights import frozen
from provenance.capture.weights.frozen import FrozenDigests
from provenance.capture.weights.live_weights import LiveWeights
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.event import Event
from provenance.formats.record import Kind
from provenance.tracker import ProvenanceTracker
from tests.support.frameworks import framework

torch = framework("torch")
MODES = ("copy", "sync", "stall-free")
WAIT_S = 30.0
pytestmark = pytest.mark.usefixtures("one_thread")


def tracker(base: Path, share: float = 0.05) -> ProvenanceTracker:
    reuse = {"reuse_frozen": True, "recheck_share": share}
    return ProvenanceTracker(base, {"weight_digests": reuse, "hash_algorithm": "sha256"})


def states(base: Path) -> dict[int | None, Any]:
    """The fields of each record of weights, by epoch."""
    (run,) = scan(base / "spool")
    events = [item for segment in run.segments for _, item in read_segment(segment.path)]
    kinds = (Kind.STATE, Kind.WEIGHTS)
    return {e.epoch: e.fields for e in events if isinstance(e, Event) and e.kind in kinds}


def marks(fields: Mapping[str, Any]) -> dict[str, int | None]:
    """The tensors that were not read, with the epoch that their digest is of."""
    return {tensor["name"]: tensor["read"] for tensor in fields["tensors"] if "read" in tensor}


def model_of(frozen_layers: int = 4) -> Any:
    """Frozen layers, a batch norm, and an adapter that is trained."""
    base = torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(frozen_layers)])
    base.requires_grad_(False)
    return torch.nn.Sequential(base, torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))


def train(model: Any, steps: int = 2) -> None:
    """Steps of an optimizer that the model keeps, as ``stall-free`` wants it."""
    if not hasattr(model, "optimizer_of_the_test"):
        trained = [p for p in model.parameters() if p.requires_grad]
        model.optimizer_of_the_test = torch.optim.SGD(trained, lr=0.1)
    for _ in range(steps):
        model.optimizer_of_the_test.zero_grad()
        model(torch.randn(6, 3)).square().sum().backward()
        model.optimizer_of_the_test.step()


class Drawn:
    """Random numbers that draw the named tensors."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def sample(self, population: list[str], k: int) -> list[str]:
        """Those of the names that are there; ``k`` is for real random numbers."""
        return [name for name in self.names if name in population]


# --- what is read ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_frozen_parameters_are_read_once_and_the_digest_is_that_of_all(
    tmp_path: Path, mode: str
) -> None:
    run, model = tracker(tmp_path, share=0.25), model_of()
    run.track_model(model)
    expected: dict[int | None, str] = {None: str(state_digest(model, HashFactory("sha256")))}
    for epoch in range(3):
        train(model)
        expected[epoch] = str(state_digest(model, HashFactory("sha256")))
        run.track_epoch(epoch, {}, model=model, weights=mode)
    run.close()
    found = states(tmp_path)
    assert {epoch: fields["root"] for epoch, fields in found.items()} == expected
    assert "reused" not in found[None]
    for epoch in range(3):
        reused = marks(found[epoch])
        assert found[epoch]["reused"] == {"tensors": 6, "rechecked": 2, "share": 0.25}
        assert len(reused) == 6
        assert all(name.startswith("0.") for name in reused)
    assert set(marks(found[0]).values()) == {None}
    for epoch in range(3):  # a mark names the record that has read it
        for name, source in marks(found[epoch]).items():
            read = {tensor["name"]: tensor for tensor in found[source]["tensors"]}[name]
            assert "read" not in read
            assert {**read, "read": source} in found[epoch]["tensors"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_read_is_neither_copied_nor_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(frozen, "_RANDOM", Drawn("0.3.weight"))
    run, model = tracker(tmp_path), model_of()
    train(model)
    run.track_epoch(0, {}, model=model, weights="sync")
    before = {t["name"]: t["digest"] for t in states(tmp_path)[0]["tensors"]}
    model[0][1].weight.data.zero_()  # unseen: it would show in a digest
    run.track_epoch(1, {}, model=model, weights=mode)
    run._snapshots.drain()
    after = {t["name"]: t["digest"] for t in states(tmp_path)[1]["tensors"]}
    assert after["0.1.weight"] == before["0.1.weight"]
    if mode == "copy":
        assert isinstance(run._snapshots._arena, dict)
        names = set(run._snapshots._arena)
        assert names == {name for name in model.state_dict() if not name.startswith("0.")}
    run.close()


def test_off_by_default_everything_is_read(tmp_path: Path) -> None:
    run, model = ProvenanceTracker(tmp_path), model_of()
    for epoch in range(2):
        run.track_epoch(epoch, {}, model=model)
    run.close()
    for fields in states(tmp_path).values():
        assert "reused" not in fields
        assert not marks(fields)


def test_a_wholly_frozen_model_without_buffers(tmp_path: Path) -> None:
    run, model = tracker(tmp_path), torch.nn.Linear(2, 2).requires_grad_(False)
    for epoch in range(2):
        run.track_epoch(epoch, {}, model=model, weights="copy")
        run._snapshots.drain()
    run.close()
    found = states(tmp_path)
    assert found[0]["root"] == found[1]["root"]
    assert found[1]["reused"] == {"tensors": 1, "rechecked": 1, "share": 0.05}


def test_tied_weights_are_told_as_without_reuse(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).requires_grad_(False)
    model[1].weight = model[0].weight
    run = tracker(tmp_path)
    for epoch in range(2):
        run.track_epoch(epoch, {}, model=model, weights="sync")
    run.close()
    found = states(tmp_path)
    assert found[1]["reused"]["tensors"] == 2
    for fields in found.values():
        tensors = fields["tensors"]
        aliases = {t["name"]: t["aliases"] for t in tensors if "aliases" in t}
        assert aliases == {"0.weight": ["1.weight"]}


class Odd(torch.nn.Parameter):  # type: ignore[misc, name-defined, unused-ignore]  # with torch or not
    """A parameter of a class of its own, such as a quantized one."""


def odd() -> Any:
    model = torch.nn.Linear(2, 2, bias=False)
    model.weight = Odd(torch.ones(2, 2), requires_grad=False)
    return model


def inference() -> Any:
    with torch.inference_mode():
        return torch.nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize(
    "make",
    [
        odd, inference,
        lambda: torch.nn.BatchNorm1d(3, affine=False),
        lambda: torch.nn.Linear(2, 2),
        lambda: torch.nn.Linear(2, 2).requires_grad_(False).state_dict(),
        lambda: {"w": np.ones(3)},
    ],
    ids=["class", "inference", "buffers", "trained", "state dict", "arrays"],
)  # fmt: skip
def test_what_is_always_read(tmp_path: Path, make: Callable[[], Any]) -> None:
    model, run = make(), tracker(tmp_path)
    for epoch in range(2):
        run.track_epoch(epoch, {}, model=model, weights="sync")
    run.close()
    found = states(tmp_path)
    assert "reused" not in found[1]
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_path_is_always_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.ones(3))
    run = tracker(tmp_path)
    for epoch in range(2):
        run.track_epoch(epoch, {}, model=tmp_path / "w.npz")
    run.close()
    assert "reused" not in states(tmp_path)[1]


# --- a change that shows -----------------------------------------------------------------


class Memory(FrozenDigests):
    """What is known of one module; no share is drawn beyond the one tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__(0.0, HashFactory("sha256"))
        self.model = model

    def read(self, epoch: int) -> Any:
        """The fields of the module's state, and of which record they are, for later ones."""
        reading = self.reading(epoch, self.model)
        assert reading is not None
        fields = reading.fields(self.model)
        reading.keep()
        return fields


def same_memory(model: Any, read: Callable[[], Any]) -> None:
    """Other values at the same address, under the same count of writes: a new storage."""
    buffer, count = np.ones((2, 2), np.float32), model.weight._version
    model.weight.data = torch.from_numpy(buffer)
    read()
    buffer[:] = 5
    model.weight.data = torch.from_numpy(buffer)
    assert model.weight._version == count


def same_count(model: Any, read: Callable[[], Any]) -> None:
    """Another parameter of the same storage, written to as often as the first one."""
    with torch.no_grad():
        model.weight.add_(1)
        read()
        count = model.weight._version
        model.weight = torch.nn.Parameter(model.weight.data, requires_grad=False)
        while model.weight._version < count:
            model.weight.add_(1)
    assert model.weight._version == count


def conjugated(model: Any, read: Callable[[], Any]) -> None:
    model.weight.data = torch.full((2, 2), 1j)
    read()
    model.weight.data = model.weight.data.conj()


def transposed(model: Any, read: Callable[[], Any]) -> None:
    read()
    model.weight.data = model.weight.data.T


def trained_meanwhile(model: Any, read: Callable[[], Any]) -> None:
    read()
    model.weight.requires_grad_(True)
    model(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    model.weight.requires_grad_(False)


@pytest.mark.parametrize(
    "change", [same_memory, same_count, conjugated, transposed, trained_meanwhile]
)
def test_a_change_that_shows_has_the_parameter_read(
    change: Callable[[Any, Callable[[], Any]], None],
) -> None:
    model = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    memory = Memory(model)
    assert "reused" not in memory.read(1)
    assert memory.read(2)["reused"]["rechecked"] == 1
    change(model, lambda: memory.read(3))
    fields = memory.read(4)
    assert fields["root"] == str(state_digest(model, HashFactory("sha256")))
    assert "reused" not in fields


def test_no_memory_of_a_replaced_parameter_is_held() -> None:
    model = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    memory = Memory(model)
    memory.read(1)
    memory.read(2)
    parameter = weakref.ref(model.weight)
    storage = weakref.ref(model.weight.untyped_storage())
    model.weight = torch.nn.Parameter(torch.ones(2, 2))
    assert memory.entries
    assert parameter() is None
    assert storage() is None


def freeze(draw: random.Random, model: Any) -> None:
    draw.choice(list(model.parameters())).requires_grad_(draw.random() < 0.3)


def step(draw: random.Random, model: Any) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    if trained:
        model(torch.randn(6, 3, dtype=model[0].weight.dtype)).square().sum().backward()
        draw.choice([torch.optim.SGD, torch.optim.AdamW])(trained, lr=0.1).step()


def forward(draw: random.Random, model: Any) -> None:
    model(torch.randn(6, 3, dtype=model[0].weight.dtype))


def write(draw: random.Random, model: Any) -> None:
    with torch.no_grad():
        draw.choice(list(model.parameters())).add_(1)


def replace(draw: random.Random, model: Any) -> None:
    parameter = draw.choice(list(model.parameters()))
    for _ in range(draw.randrange(1, 3)):  # the second is often where the first one was
        parameter.data = torch.randn_like(parameter)


def equal_copy(draw: random.Random, model: Any) -> None:
    parameter = draw.choice(list(model.parameters()))
    parameter.data = parameter.data.clone()


def new_parameter(draw: random.Random, model: Any) -> None:
    layer = model[draw.choice([0, 2])]
    layer.weight = torch.nn.Parameter(layer.weight.data, requires_grad=draw.random() < 0.3)


def load(draw: random.Random, model: Any) -> None:
    other = {
        name: torch.rand_like(t.double()).to(t.dtype) for name, t in model.state_dict().items()
    }
    model.load_state_dict(other, assign=draw.random() < 0.5)


def convert(draw: random.Random, model: Any) -> None:
    model.to(draw.choice([torch.float32, torch.float64]))


DEEDS = [
    freeze, freeze, step, step, forward, write, replace, equal_copy, new_parameter, load, convert,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_through_any_history_the_digest_is_that_of_a_whole_reading(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3)
    )
    for parameter in model.parameters():
        parameter.requires_grad_(draw.random() < 0.3)
    share = draw.choice([0, 0.3, 1])
    run = tracker(tmp_path, share)
    expected: dict[int | None, str] = {}
    for epoch in range(9):
        for deed in draw.choices(DEEDS, k=draw.randrange(3)) if epoch < 8 else ():
            deed(draw, model)
        expected[epoch] = str(state_digest(model, HashFactory("sha256")))
        run.track_epoch(epoch, {}, model=model, weights=draw.choice(MODES))
        run._snapshots.drain()
    run.close()
    found = states(tmp_path)
    assert {epoch: fields["root"] for epoch, fields in found.items()} == expected
    for fields in found.values():
        assert len(marks(fields)) == fields.get("reused", {}).get("tensors", 0)
        assert "changed" not in fields.get("reused", {})
        for name, source in marks(fields).items():
            assert name not in marks(found[source])
    still = sum(not parameter.requires_grad for parameter in model.parameters())
    assert len(marks(found[8])) == still - min(still, max(1, math.ceil(share * still)))


# --- a change that does not --------------------------------------------------------------


def by_data(parameter: Any) -> None:
    parameter.data.add_(1)


def by_numpy(parameter: Any) -> None:
    parameter.detach().numpy()[:] = 7


@pytest.mark.parametrize("unseen", [by_data, by_numpy])
@pytest.mark.parametrize("mode", MODES)
def test_with_share_1_a_write_past_autograd_is_found_in_its_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, unseen: Callable[[Any], None]
) -> None:
    run, model = tracker(tmp_path, share=1.0), model_of()
    train(model)
    expected: dict[int | None, str] = {}
    for epoch in range(4):
        if epoch == 2:
            unseen(model[0][1].weight)
        expected[epoch] = str(state_digest(model, HashFactory("sha256")))
        run.track_epoch(epoch, {}, model=model, weights=mode)
        run._snapshots.drain()
        train(model, 1)
    run.close()
    found = states(tmp_path)
    assert {epoch: fields["root"] for epoch, fields in found.items()} == expected
    assert found[1]["reused"] == {"tensors": 0, "rechecked": 8, "share": 1.0}
    assert found[2]["reused"] == {
        "tensors": 0, "rechecked": 8, "share": 1.0, "changed": ["0.1.weight"],
    }  # fmt: skip
    assert "reused" not in found[3]
    assert not any(marks(fields) for fields in found.values())
    said = [line for line in capsys.readouterr().err.splitlines() if "past autograd" in line]
    assert len(said) == 1
    assert "epoch=2" in said[0]


@pytest.mark.parametrize("mode", MODES)
def test_one_that_is_found_has_all_others_read_in_the_same_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    run, model = tracker(tmp_path), model_of()
    train(model)
    run.track_epoch(0, {}, model=model, weights="sync")
    monkeypatch.setattr(frozen, "_RANDOM", Drawn("0.0.bias"))
    by_data(model[0][1].weight)
    by_data(model[0][2].weight)
    run.track_epoch(1, {}, model=model, weights=mode)
    run._snapshots.drain()
    monkeypatch.setattr(frozen, "_RANDOM", Drawn("0.1.weight"))
    run.track_epoch(2, {}, model=model, weights=mode)
    run.close()
    found = states(tmp_path)
    whole = str(state_digest(model, HashFactory("sha256")))
    assert found[1]["root"] == found[0]["root"] != whole  # the claim of epoch 1 was untrue
    assert found[2]["root"] == whole
    assert found[2]["reused"]["changed"] == ["0.1.weight", "0.2.weight"]


def test_a_wrong_hint_whose_record_is_lost_is_said_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of()
    entries = Memory(model)
    entries.read(0)
    by_data(model[0][1].weight)
    monkeypatch.setattr(frozen, "_RANDOM", Drawn("0.1.weight"))
    lost = entries.reading(1, model)
    assert lost is not None
    assert not lost.settle()
    monkeypatch.setattr(frozen, "_RANDOM", Drawn("0.2.weight"))
    following = entries.reading(2, model)
    assert following is not None
    fields = following.fields(model)
    assert fields["root"] == str(state_digest(model, HashFactory("sha256")))
    assert fields["reused"]["changed"] == ["0.1.weight"]
    assert following.keep()
    assert entries.reading(3, model) is None


def test_a_state_that_is_not_recorded_is_reused_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = tracker(tmp_path), model_of()
    train(model)
    monkeypatch.setattr(LiveWeights, "look", lambda live: setattr(live, "moved", True))
    run.track_epoch(0, {}, model=model, weights="stall-free")
    run._snapshots.drain()
    run.track_epoch(1, {}, model=model)
    run.close()
    found = states(tmp_path)
    assert 0 not in found
    assert "reused" not in found[1]


def test_a_tensor_that_cannot_be_hashed_again_leaves_a_gap_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, model = tracker(tmp_path), model_of()
    run.track_epoch(0, {}, model=model, weights="sync")

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(frozen, "state_digest", broken)
    for mode in ("copy", "sync"):
        run.track_epoch(1, {}, model=model, weights=mode)
        run._snapshots.drain()
    run.close()
    assert list(states(tmp_path)) == [0]
    assert run._snapshots.errors == 2


# --- how many, and which -----------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_the_share_is_rounded_up_and_drawn_by_the_systems_random_numbers(share: float) -> None:
    assert isinstance(frozen._RANDOM, random.SystemRandom)
    model = torch.nn.Sequential(*[torch.nn.Linear(1, 1) for _ in range(20)]).requires_grad_(False)
    entries = Memory(model)
    entries.share = share
    drawn: set[frozenset[str]] = set()
    for epoch in range(12):
        reading = entries.reading(epoch, model)
        assert reading is not None
        reading.fields(model)
        reading.keep()
        if epoch:
            assert len(reading._drawn) == max(1, math.ceil(share * 40))
            drawn.add(frozenset(reading._drawn))
    assert (len(drawn) == 1) == (share == 1)  # eleven times the same: below 1e-17 else


@pytest.mark.parametrize("rank", [0, 1])
def test_the_weights_before_training_are_reused_by_the_rank_that_records_them(
    tmp_path: Path, rank: int
) -> None:
    model, run = model_of(), tracker(tmp_path)
    run.rank = rank
    run.track_model(model)
    run.track_epoch(1, {}, model=model, weights="sync")
    run.close()
    assert ("reused" in states(tmp_path)[1]) == (rank == 0)
