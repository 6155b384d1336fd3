"""Ranks of one training: one run where they can share it, linked runs where they cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from provenance.capture import membership
from provenance.capture.keys import new_run_keys
from provenance.errors import ConfigError
from provenance.tracker import ProvenanceTracker
from provenance.verify.report import VerificationReport
from tests.support.home import brought_home

WEIGHTS = {"w": np.ones(2, np.float32)}
PREFIXES = ("SLURM_", "OMPI_", "PMI", "TORCHELASTIC_", "PROVENANCE_R", "PROVENANCE_W", "MASTER_")
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "JOB_COMPLETION_INDEX", "ENVIRONMENT")


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(PREFIXES) or name in NAMES:
            monkeypatch.delenv(name)
    monkeypatch.setattr(membership, "_warned", False)
    with pytest.MonkeyPatch.context() as own:
        own.setattr(membership, "_trackers", 0)
        yield


def train(base: Path, epochs: int = 2) -> ProvenanceTracker:
    tracker = ProvenanceTracker(base)
    tracker.track_data(np.ones((3, 2)))
    tracker.track_model(WEIGHTS)
    tracker.store_merkle_on_blockchain_before_training({"epochs": epochs})
    for epoch in range(1, epochs + 1):
        tracker.track_epoch(epoch, {"loss": epoch}, model=WEIGHTS)
    tracker.store_merkle_on_blockchain_after_training({"loss": 2})
    return tracker


def as_rank(monkeypatch: pytest.MonkeyPatch, **env: str) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def body(report: VerificationReport, kind: str) -> dict[str, object]:
    (found,) = (r for r in report.evidence.records if r.kind.value == kind and r.place == "tree")
    assert not isinstance(found.decoded, Exception)
    return dict(found.decoded.body)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (
            [{"SLURM_JOB_ID": "7", "SLURM_PROCID": str(n), "SLURM_NTASKS": "2"} for n in (0, 1)],
            "rank {} of 2",
        ),
        (
            [{"OMPI_COMM_WORLD_RANK": str(n), "OMPI_COMM_WORLD_SIZE": "2"} for n in (0, 1)],
            "rank {} of 2",
        ),
        ([{"JOB_COMPLETION_INDEX": str(n)} for n in (0, 1)], "rank {} of an unknown number"),
    ],
)
def test_ranks_that_share_nothing_write_linked_runs_that_no_verdict_takes_for_the_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ranks: list[dict[str, str]],
    expected: str,
) -> None:
    runs = []
    for env in ranks:
        as_rank(monkeypatch, **env)
        monkeypatch.setattr(membership, "_warned", False)
        runs.append(train(tmp_path).run)
    said = "".join(capsys.readouterr())
    assert said.count("writes a run of its own") == 2
    assert "provenance run -- COMMAND" in said
    reports = brought_home(tmp_path)
    launches = []
    for rank, run in enumerate(runs):
        report = reports[run]
        assert report.outcome == "consistent", report.findings
        (line,) = (line for line in report.verdict.missing if line.startswith("(4)"))
        assert f"it is the run of {expected.format(rank)}" in line
        assert "have runs of their own" in line
        launches.append(body(report, "config")["launch"])
        states = [r for r in report.evidence.records if r.kind.value == "state"]
        assert len(states) == 2, "each of them records its weights"
    first, second = launches
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["rank"], second["rank"]) == (0, 1)
    assert first["id"] == second["id"]
    assert (first["id"] is not None) == ("SLURM_JOB_ID" in ranks[0])


@pytest.mark.slow
def test_one_process_under_a_launcher_is_the_whole_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_rank(monkeypatch, RANK="0", WORLD_SIZE="1", SLURM_PROCID="0", SLURM_NTASKS="1")
    run = train(tmp_path).run
    report = brought_home(tmp_path)[run]
    assert report.outcome == "verified", report.findings
    assert "launch" not in body(report, "config")


@pytest.mark.slow
def test_a_group_that_comes_up_behind_the_tracker_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning's first process, where the tracker is made before ``fit`` starts the others."""
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {"loss": 1})
    in_group(monkeypatch, Store(), 0, 2)
    tracker.store_merkle_on_blockchain_after_training({})
    assert "made before the process group" in "".join(capsys.readouterr())
    monkeypatch.delitem(sys.modules, "torch.distributed")
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "consistent"
    assert "it is the run of rank 0 of 2" in " ".join(report.verdict.missing)


@pytest.mark.slow
def test_a_rank_with_nothing_to_say_raises_at_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = new_run_keys()
    as_rank(
        monkeypatch,
        PROVENANCE_RUN_ID=str(keys.run), PROVENANCE_RUN_SEED=keys.seed.hex(),
        RANK="1", WORLD_SIZE="2",
    )  # fmt: skip
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {"loss": 1})
    tracker.track_data([])
    tracker.track_model(object())
    tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
    tracker.track_epoch(2, {"loss": 1})
    for _ in range(2):
        tracker.store_merkle_on_blockchain_after_training({"object": object()})
        tracker.track_data([])
        tracker.store_merkle_on_blockchain_before_training({})
    tracker.track_epoch(3, {"loss": 1})
    tracker.close()
    as_rank(monkeypatch, RANK="0")
    assert train(tmp_path).run == tracker.run
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "verified", report.findings


@pytest.mark.slow
def test_two_hosts_write_one_run_in_either_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for order in ((0, 1), (1, 0)):
        keys = new_run_keys()
        told = {"PROVENANCE_RUN_ID": str(keys.run), "PROVENANCE_RUN_SEED": keys.seed.hex()}
        hosts = [tmp_path / f"{order}" / f"host-{rank}" for rank in order]
        for rank, base in zip(order, hosts, strict=True):
            as_rank(monkeypatch, **told, RANK=str(rank), WORLD_SIZE="2")
            train(base)
        report = brought_home(*hosts)[keys.run]
        assert report.outcome == "verified", report.findings
        assert {record.rank for record in report.evidence.records} == {0, 1}
    monkeypatch.delenv("PROVENANCE_RUN_SEED")
    with pytest.raises(ConfigError, match="this host has no key of run .* PROVENANCE_RUN_KEY_FILE"):
        ProvenanceTracker(tmp_path / "third host")


class Store:
    """As c10d's, for the ranks of one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def compare_set(self, name: str, expected: str, desired: str) -> bytes:
        assert expected == ""
        return self.values.setdefault(name, desired.encode())

    def get(self, name: str) -> bytes:
        return self.values[name]

    def wait(self, names: list[str], timeout: object) -> None:
        if names[0] not in self.values:
            raise RuntimeError("wait timeout")


def in_group(monkeypatch: pytest.MonkeyPatch, store: Store, rank: int, size: int) -> None:
    """This process is a rank of a process group from now on."""
    group = ModuleType("torch.distributed")
    values: dict[str, object] = {
        "is_available": True, "is_initialized": True, "get_rank": rank, "get_world_size": size,
    }  # fmt: skip
    for name, value in values.items():
        setattr(group, name, lambda value=value: value)
    c10d = SimpleNamespace(_get_default_store=lambda: store)
    group.distributed_c10d = c10d  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.distributed", group)
    monkeypatch.setattr(membership, "_trackers", 0)


@pytest.mark.slow
def test_rank_0_alone_with_a_tracker_is_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``if rank == 0:`` around the tracker, as many trainings have it."""
    store = Store()
    in_group(monkeypatch, store, 0, 3)
    tracker = ProvenanceTracker(tmp_path)
    in_group(monkeypatch, store, 2, 3)
    third = ProvenanceTracker(tmp_path)
    assert third.run == tracker.run
    for epoch in (1, 2):
        for each in (tracker, third):
            each.track_epoch(epoch, {"loss": epoch})
    third.store_merkle_on_blockchain_after_training({})
    tracker.store_merkle_on_blockchain_after_training({})
    in_group(monkeypatch, store, 1, 3)
    late = ProvenanceTracker(tmp_path / "late")  # too late for the run
    assert late.run != tracker.run
    late.close()
    monkeypatch.delitem(sys.modules, "torch.distributed")
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "verified", report.findings
    assert report.evidence.incomplete is None
    (notice,) = (n for n in report.notices if n.subject == "rank 1")
    assert notice.problem == "stated an end and nothing else"
    ends = {
        record.rank: record.decoded.body["reason"]  # type: ignore[union-attr]
        for record in report.evidence.records
        if record.kind.value == "run.end"
    }
    assert ends == {0: "finished", 1: "this rank made no tracker", 2: "finished"}


@pytest.mark.slow
def test_jax_processes_share_a_run_through_their_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        """As jaxlib's: a value is set once, and waiting for none ends in a RuntimeError."""

        def __init__(self) -> None:
            self.values: dict[str, str] = {}

        def key_value_set(self, name: str, value: str) -> None:
            if name in self.values:
                raise RuntimeError("ALREADY_EXISTS")
            self.values[name] = value

        def blocking_key_value_get(self, name: str, timeout_ms: int) -> str:
            if name not in self.values:
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self.values[name]

    state = SimpleNamespace(client=Client(), num_processes=2, coordinator_address="host:1")
    distributed = ModuleType("jax._src.distributed")
    distributed.global_state = state  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax._src.distributed", distributed)
    trackers = []
    for state.process_id in (0, 1):
        monkeypatch.setattr(membership, "_trackers", 0)
        trackers.append(ProvenanceTracker(tmp_path))
    assert [(t.rank, t.world_size) for t in trackers] == [(0, 2), (1, 2)]
    assert trackers[0].run == trackers[1].run
    for tracker in reversed(trackers):
        tracker.store_merkle_on_blockchain_after_training({})
    report = brought_home(tmp_path)[trackers[0].run]
    assert report.outcome == "verified", report.findings


@pytest.mark.slow
def test_a_store_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Store):
        def compare_set(self, name: str, expected: str, desired: str) -> bytes:
            raise RuntimeError("Connection reset by peer\nC++ CapturedTraceback")

    in_group(monkeypatch, Gone(), 0, 2)
    tracker = train(tmp_path)
    monkeypatch.delitem(sys.modules, "torch.distributed")
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "consistent", report.findings
    assert "it is the run of rank 0 of 2" in " ".join(report.verdict.missing)
