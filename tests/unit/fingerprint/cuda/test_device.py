"""Weights on a device have the digests that they have in host memory, whatever fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from structlog.testing import capture_logs

from provenance.capture.spool import read_segment, scan
from provenance.fingerprint.cuda import device
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import hashed_on_device, state_digest
from provenance.formats.event import Event
from provenance.tracker import ProvenanceTracker

if TYPE_CHECKING:
    from provenance.fingerprint.cuda.blake3_kernel import Message

EVENT = "weights on a CUDA device are hashed by the host"
BLAKE3 = HashFactory()
needs_a_device = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: torch sees none"
)


def state() -> dict[str, Any]:
    bits = torch.arange(3000, dtype=torch.int16)
    whole = torch.arange(1200.0).reshape(30, 40)
    return {
        "a.f32": whole,
        "b.transposed": whole.T,
        "c.bf16": bits.view(torch.bfloat16),
        "d.f8": bits.view(torch.uint8).view(torch.float8_e4m3fn)[:5001],
        "e.i8, odd address": bits.view(torch.int8)[1:1030],
        "f.bool": bits % 3 == 0,
        "g.f64": torch.tensor(1.5, dtype=torch.float64),
        "h.conjugated": torch.complex(whole[0], whole[1]).conj(),
        "i.empty": torch.empty(0, 7),
        "j.every third": bits[::3],
        "k.tied": whole,
        "l.parameter": torch.nn.Parameter(whole[:5]),
    }


def recorded(base: Path) -> list[str]:
    """The roots of the epochs' weights, in order."""
    return [
        item.fields["root"]
        for run in scan(base / "spool")
        for segment in run.segments
        for _, item in read_segment(segment.path)
        if isinstance(item, Event) and "root" in item.fields
    ]


def digests_asked(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each call of the kernel had."""
    counts: list[int] = []
    digests = kernel.digests

    def counted(messages: list[Message], where: Any) -> list[bytes]:
        counts.append(len(messages))
        return digests(messages, where)  # type: ignore[no-any-return]

    monkeypatch.setattr(kernel, "digests", counted)
    return counts


@pytest.mark.slow
def test_a_state_on_a_device_has_the_digest_of_host_memory(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    expected = state_digest(state())
    request.getfixturevalue("resident")
    counts = digests_asked(request.getfixturevalue("kernel"), monkeypatch)
    with capture_logs() as lines:
        found = state_digest(state())
    assert (found, found.aliases) == (expected, expected.aliases)
    assert (lines, counts) == ([], [4, len(expected.tensors)]), "a trial, then all in one launch"


@pytest.mark.slow
def test_groups_bound_the_memory_and_large_copies_are_the_hosts(
    kernel: ModuleType, resident: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.arange(300.0)  # 1,200 bytes
    several = {f"w{at}": whole for at in range(5)} | {"t": whole.reshape(3, 100).T}
    expected = {f"w{at}" for at in range(5)}
    monkeypatch.setattr(device, "_devices", {whole.device: True})
    monkeypatch.setattr(device, "GROUP_BYTES", 2400)
    monkeypatch.setattr(device, "COPY_BYTES", 1000)
    counts = digests_asked(kernel, monkeypatch)
    found = device.resident_digests(several.items(), BLAKE3)
    assert (set(found), counts) == (expected, [2, 2, 1])
    monkeypatch.setattr(device, "COPY_BYTES", 1200)
    assert set(device.resident_digests([("t", several["t"])], BLAKE3)) == {"t"}


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise error

    return call


def wrong(messages: list[Message], _device: Any) -> list[bytes]:
    return [bytes(32) for _ in messages]


FAULTS: dict[str, tuple[str, Any, str]] = {
    "no triton": (
        "_hashed", raising(ModuleNotFoundError("x", name="triton")),
        "triton is missing: pip install 'ml-provenance[gpu]'",
    ),
    "a compiler": (
        "_hashed", raising(RuntimeError("PTXAS error\nlong")), "RuntimeError: PTXAS error",
    ),
    "a driver": ("_hashed", raising(OSError("libcuda.so")), "OSError: libcuda.so"),
    "another digest": (
        "digests", wrong, "the kernel's digest of a known message is not the CPU's",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_leaves_it_to_the_host_with_one_line(
    fault: str, kernel: ModuleType, resident: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, stand_in, reason = FAULTS[fault]
    monkeypatch.setattr(kernel if name == "digests" else device, name, stand_in)
    with monkeypatch.context() as without:
        without.setattr(device, "in_use", lambda: False)
        expected = state_digest(state())
    with capture_logs() as lines:
        assert state_digest(state()) == expected
        assert not hashed_on_device(state(), BLAKE3)
        assert state_digest(state()) == expected
    assert [(line["event"], line["reason"]) for line in lines] == [(EVENT, reason)]


def test_a_device_that_fails_after_its_trial_is_not_tried_again(
    resident: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def failing(messages: list[Any]) -> list[bytes]:
        calls.append(len(messages))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device, "_devices", {torch.device("cpu"): True})
    monkeypatch.setattr(device, "_hashed", failing)
    weights = {"w": torch.ones(9)}
    assert hashed_on_device(weights, BLAKE3)
    with capture_logs() as lines:
        assert [device.resident_digests(weights.items(), BLAKE3) for _ in "ab"] == [{}, {}]
    assert (calls, not hashed_on_device(weights, BLAKE3)) == ([1], True)
    assert [line["reason"] for line in lines] == ["OutOfMemoryError: CUDA out of memory"]


def test_another_content_hash_is_the_hosts(resident: None) -> None:
    sha256 = HashFactory("sha256")
    with capture_logs() as lines:
        assert device.resident_digests(state().items(), sha256) == {}
        assert not hashed_on_device(state(), sha256)
    assert [line["reason"] for line in lines] == ["the content hash is sha256, expected blake3"]


def test_an_old_device_is_not_used(resident: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with capture_logs() as lines:
        assert not device.usable(torch.device("cuda", 0), BLAKE3)
    assert [line["reason"] for line in lines] == ["compute capability 7.5, expected 8.0"]


def test_without_a_device_nothing_is_looked_at() -> None:
    if not torch.cuda.is_initialized():
        assert device.resident_digests([("w", object())], BLAKE3) == {}
        assert not hashed_on_device(object(), BLAKE3)


def test_a_state_that_lies_on_the_host_in_part_is_copied(
    resident: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_devices", {torch.device("cpu"): True})
    on_device = torch.ones(3)
    assert hashed_on_device({"w": on_device, "deep": [on_device]}, BLAKE3)
    assert not hashed_on_device({"w": on_device, "b": on_device.numpy()}, BLAKE3)


@pytest.mark.slow
def test_an_epochs_weights_are_hashed_on_their_device_at_the_call(
    resident: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_devices", {torch.device("cpu"): True})
    model = torch.nn.Linear(3, 2)
    with monkeypatch.context() as without:
        without.setattr(device, "in_use", lambda: False)
        expected = str(state_digest(model))
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {}, model=model)
    assert tracker._snapshots.inline == 1
    tracker.close()
    assert recorded(tmp_path) == [expected]


@needs_a_device
@pytest.mark.parametrize("mode", ["copy", "sync", "stall-free"])
def test_each_epochs_weights_on_a_device_are_those_of_its_call(tmp_path: Path, mode: str) -> None:
    model = torch.nn.Linear(500, 500).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker, expected = ProvenanceTracker(tmp_path), []
    for epoch in range(5):
        model(torch.randn(8, 500, device="cuda")).square().sum().backward()
        optimizer.step()
        expected.append(str(state_digest({k: v.cpu() for k, v in model.state_dict().items()})))
        tracker.track_epoch(epoch, {}, model=model, weights=mode)
    tracker.close()
    assert recorded(tmp_path) == expected


@needs_a_device
def test_a_device_has_the_digest_of_host_memory() -> None:
    resident = {name: value.detach().cuda() for name, value in state().items()}
    resident["z"] = torch.arange(50_000_000, device="cuda", dtype=torch.int32)
    host = {name: value.cpu() for name, value in resident.items()}
    with capture_logs() as lines:
        assert state_digest(resident) == state_digest(host)
    assert (lines, hashed_on_device(resident, BLAKE3)) == ([], True)


@needs_a_device
@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_work_that_is_queued_before_counts_and_later_work_does_not(algorithm: str) -> None:
    weights = torch.zeros(1 << 26, device="cuda")
    factory = HashFactory(algorithm)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        weights += 1
        found = state_digest({"w": weights}, factory)
        weights += 1
    stream.synchronize()
    assert found == state_digest({"w": torch.ones(1 << 26)}, factory)
