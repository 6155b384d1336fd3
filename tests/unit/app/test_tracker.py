"""The trainer's API: what it writes, what it refuses, and that it waits for nothing.

Over 400 lines: case by case, one class.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save_file

from provenance.capture.keys import load_run_keys, new_run_keys
from provenance.capture.spool import read_segment, scan
from provenance.errors import ConfigError, InputError
from provenance.fingerprint.tensors import state_digest
from provenance.formats.event import Event, record_of
from provenance.formats.producers.certificate import open_identity
from provenance.formats.record import Kind
from provenance.settings.key_files import IDENTITY, read_or_create_seed
from provenance.tracker import ProvenanceTracker
from tests.support.frameworks import framework

TRAIN = (np.arange(12.0).reshape(4, 3), np.array([0, 1, 0, 1]))
TEST = (np.ones((2, 3)), np.array([1, 1]))
MODEL = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}


def events(base: Path) -> list[Event]:
    found: list[Event] = []
    for run in scan(base / "spool"):
        for segment in run.segments:
            found += [item for _, item in read_segment(segment.path) if isinstance(item, Event)]
    return found


def kinds(base: Path) -> list[str]:
    return [event.kind.value for event in events(base)]


@pytest.mark.slow
def test_a_path_is_read_before_the_next_checkpoint_takes_its_place(tmp_path: Path) -> None:
    last = tmp_path / "last.safetensors"
    tracker = ProvenanceTracker(tmp_path / "artifacts")
    for epoch, size in ((1, 300_000), (2, 300_000), (3, 10)):
        save_file({"w": np.full(size, epoch, np.float32)}, last)
        tracker.track_epoch(epoch, {}, model=last)
        save_file({"w": np.zeros(5, np.float32)}, last)
    tracker.close()
    found = [e.fields["root"] for e in events(tmp_path / "artifacts") if e.kind is Kind.STATE]
    saved = ((1, 300_000), (2, 300_000), (3, 10))
    assert found == [str(state_digest({"w": np.full(n, e, np.float32)})) for e, n in saved]


def test_a_parent_model_that_is_a_run_is_the_parent(tmp_path: Path) -> None:
    parent = "01A2292D-B044-8D61-A6C7-0F1D4D521EC1"
    tracker = ProvenanceTracker(tmp_path)
    tracker.store_merkle_on_blockchain_before_training({"parent_model": parent})
    (config,) = [event.fields for event in events(tmp_path) if event.kind is Kind.CONFIG]
    assert config["parent"] == {"run": parent.lower(), "epoch": None}


def test_a_whole_run_is_written_in_order(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_data(TRAIN, TEST)
    tracker.track_model(MODEL)
    before = tracker.store_merkle_on_blockchain_before_training({"epochs": 1, "parent_model": "p"})
    tracker.track_epoch(
        1, {"loss": np.float32(0.5)}, model=MODEL, privacy={"epsilon": 1.5, "delta": 0}
    )
    after = tracker.store_merkle_on_blockchain_after_training({"accuracy": 0.9})
    written = kinds(tmp_path)
    assert written[:6] == [
        "data.train", "data.test", "model.architecture", "model.weights", "config", "run.seal",
    ]  # fmt: skip
    assert sorted(written[6:9]) == ["metrics", "privacy", "state"]
    assert written[9:] == ["results", "run.seal", "run.end"]
    by_kind = {event.kind: event.fields for event in events(tmp_path)}
    assert by_kind[Kind.METRICS] == {"metrics": {"loss": 0.5}}
    assert by_kind[Kind.PRIVACY] == {"privacy": {"epsilon": 1.5, "delta": 0}}
    assert by_kind[Kind.STATE]["root"] == by_kind[Kind.WEIGHTS]["root"]
    config = by_kind[Kind.CONFIG]
    assert config["parent"] == "p"
    assert config["hash_algorithm"] == "blake3"
    assert len(config["public_key"]) == 64
    assert by_kind[Kind.RUN_END]["events"] == len(written) - 1
    assert {name: ticket.status for name, ticket in before.items()} == {"local": "pending"}
    marks = [event.fields for event in events(tmp_path) if event.kind is Kind.SEAL]
    assert [(mark["phase"], mark["networks"]) for mark in marks] == [
        ("before", []),
        ("after", []),
    ]
    assert after["local"].wait(timeout=0) == "pending"
    assert after["local"].transaction_id is None
    assert UUID(tracker.run_id).version == 8


def test_a_configuration_of_any_hyperparameters_is_recorded(tmp_path: Path) -> None:
    mine = {"warmup_steps": 500, "betas": (0.9, 0.999), "lr_scheduler": {"name": "cosine"}}
    tracker = ProvenanceTracker(tmp_path, {**mine, "blockchain": {"networks": ["local"]}})
    tracker.store_merkle_on_blockchain_before_training({"warmup_steps": 600})
    config = next(event for event in events(tmp_path) if event.kind is Kind.CONFIG)
    assert config.fields["training"] == {
        "warmup_steps": 600,
        "betas": [0.9, 0.999],
        "lr_scheduler": {"name": "cosine"},
    }


def test_without_the_before_call_the_first_epoch_begins_the_run(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(0, {"loss": 1})
    tracker.store_merkle_on_blockchain_after_training()
    assert kinds(tmp_path) == ["config", "run.seal", "metrics", "results", "run.seal", "run.end"]
    assert events(tmp_path)[1].fields == {"phase": "before", "epoch": None, "anchor": False}


def test_nan_and_infinity_are_recorded_faithfully(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    for epoch in (1, 2):  # the first one begins the run, too
        tracker.track_epoch(epoch, {"a": math.nan, "b": math.inf, "c": -math.inf})
        tracker.track_epoch(epoch + 2, {"a": math.nan, "d": 2**70})
    (segment,) = scan(tmp_path / "spool")[0].segments
    header, _ = segment.header()
    metrics = [e for e in events(tmp_path) if e.kind is Kind.METRICS]
    first, second = {"a": "NaN", "b": "Infinity", "c": "-Infinity"}, {"a": "NaN", "d": str(2**70)}
    bodies = [record_of(event, header, bytes(32)).body["metrics"] for event in metrics]
    assert bodies == [first, second, first, second]


def test_epoch_twice_and_out_of_order_are_recorded_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    for epoch in (1, 3, 3, 2):
        tracker.track_epoch(epoch, {"loss": epoch})
    assert [e.epoch for e in events(tmp_path) if e.kind is Kind.METRICS] == [1, 3, 3, 2]
    said = capsys.readouterr().err
    assert "epoch tracked twice; both are recorded" in said
    assert "epoch out of order" in said
    assert said.count("[warning") == 2


@pytest.mark.parametrize(
    "epoch", [-1, 1.5, "1", True, None, 2**53, pytest.param(10**5000, id="huge")]
)
def test_epoch_must_be_a_whole_number(tmp_path: Path, epoch: Any) -> None:
    tracker = ProvenanceTracker(tmp_path)
    with pytest.raises(InputError, match="epoch: found"):
        tracker.track_epoch(epoch, {})


def test_bad_input_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    with pytest.raises(InputError, match="metrics: found a list"):
        tracker.track_epoch(1, [1, 2])  # type: ignore[arg-type]  # wrong or wider on purpose
    with pytest.raises(InputError, match="training_config: found a list, expected a mapping"):
        tracker.store_merkle_on_blockchain_before_training([1, 2])
    with pytest.raises(InputError, match="empty"):
        tracker.track_data(np.zeros((0, 3)), None)
    with pytest.raises(InputError, match=r"^test data part '0': empty, .*; without any, give None"):
        tracker.track_data(np.zeros((1, 3)), np.zeros((0, 3)))
    with pytest.raises(InputError, match="tensor"):
        tracker.track_model({})
    with pytest.raises(InputError):
        tracker.track_data(tmp_path / "absent", None)
    assert kinds(tmp_path) == ["data.train"]


class Unreadable:
    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def test_metrics_of_any_type_end_no_training_and_a_gap_names_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    unreadable = [object(), b"bytes", 1j, lambda: 0, {object()}, {(1, 2): 3}, Unreadable()]
    for epoch, value in enumerate(unreadable):
        tracker.track_epoch(epoch, {"loss": 0.5, "x": value})
    tracker.track_epoch(7, {"x": object(), "y": object()}, privacy={"epsilon": 1, "of": object()})
    tracker.track_epoch(8, {"x": np.float64(0.5), "y": "text", "z": np.ones(2), "s": {1}})
    tracker.track_epoch(9, {"tokens": 2**60, "api_key": "hunter2", "url": "http://u:hunter2@h/"})
    metrics = [e.fields["metrics"] for e in events(tmp_path) if e.kind is Kind.METRICS]
    assert metrics[:7] == [{"loss": 0.5}] * 7
    assert metrics[7:9] == [{}, {"x": 0.5, "y": "text", "z": [1.0, 1.0], "s": [1]}]
    assert metrics[9]["tokens"] == str(2**60)
    assert "hunter2" not in str(metrics[9])
    gaps = [e for e in events(tmp_path) if e.kind is Kind.GAP]
    assert [gap.epoch for gap in gaps] == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    found = "metrics.x: found a value of type object, expected numbers, strings, lists or mappings"
    assert gaps[0].fields == {
        "dropped": 1, "reason": f"metrics recorded in part: {found}", "what": "metrics",
    }  # fmt: skip
    assert gaps[6].fields["reason"].endswith("x: found a Unreadable that cannot be read (KeyError)")
    assert gaps[7].fields["reason"] == f"metrics not recorded: {found}; 1 more"
    assert "privacy.of: found a value of type object" in gaps[8].fields["reason"]
    assert tracker.get_blockchain_status()["events"]["errors"] == 9
    assert capsys.readouterr().err.count("type function") == 1


def test_a_value_that_has_no_form_step_after_step_leaves_one_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    for step in range(5):
        tracker.track_step(step, {"loss": 0.5, "x": object()})
    tracker.close()
    (gap,) = [e for e in events(tmp_path) if e.kind is Kind.GAP]
    assert gap.fields["what"] == "steps"
    assert capsys.readouterr().err.count("metrics.x: found a value of type object") == 1


def test_metrics_are_those_of_the_call_whatever_becomes_of_the_dict(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    metrics = {"loss": 0.0}
    for epoch in range(3):
        metrics["loss"] = float(epoch)
        tracker.track_epoch(epoch, metrics)
    found = [e.fields["metrics"] for e in events(tmp_path) if e.kind is Kind.METRICS]
    assert found == [{"loss": 0.0}, {"loss": 1.0}, {"loss": 2.0}]


def test_calls_out_of_order(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {})
    for call in (
        lambda: tracker.track_data(TRAIN, TEST),
        lambda: tracker.track_model(MODEL),
        lambda: tracker.store_merkle_on_blockchain_before_training({}),
    ):
        with pytest.raises(InputError, match="sealed already, with"):
            call()
    tracker.store_merkle_on_blockchain_after_training({})
    with pytest.raises(InputError, match="is finished already and takes no more"):
        tracker.store_merkle_on_blockchain_after_training({})
    tracker.track_epoch(2, {})
    assert 2 not in [event.epoch for event in events(tmp_path)]


def test_checkpoints_are_asked_for_every_nth_epoch(tmp_path: Path) -> None:
    options = {"store_epoch_checkpoints": True, "checkpoint_every": 2}
    tracker = ProvenanceTracker(tmp_path, {"blockchain": {"storage_options": options}})
    for epoch in range(1, 6):
        tracker.track_epoch(epoch, {}, model=MODEL)
    seals = [e for e in events(tmp_path) if e.fields.get("phase") == "checkpoint"]
    assert [seal.epoch for seal in seals] == [2, 4]
    states = [e.seq for e in events(tmp_path) if e.kind is Kind.STATE and (e.epoch or 0) <= 2]
    assert max(states) < seals[0].seq


@pytest.mark.slow
def test_a_path_is_read_as_it_is_at_the_call(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, w=MODEL["w"], b=MODEL["b"])
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_model(str(path))
    tracker.track_epoch(1, {}, model=path)
    tracker.track_epoch(2, {}, model=path, weights="sync")
    tracker.close()
    path.write_bytes(b"")
    roots = [e.fields["root"] for e in events(tmp_path) if "root" in e.fields]
    assert roots == [str(state_digest(MODEL))] * 3


def test_weights_that_cannot_be_recorded_leave_a_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {}, model=tmp_path / "absent.npz")
    tracker.track_epoch(2, {}, model={"w": "no tensor"})
    tracker.close()
    gaps = [e for e in events(tmp_path) if e.kind is Kind.GAP]
    assert [gap.epoch for gap in gaps] == [1, 2]
    assert all(gap.fields["dropped"] == 1 for gap in gaps)
    assert "No such file" in gaps[0].fields["reason"]
    assert capsys.readouterr().err.count("weights not recorded") == 2


@pytest.mark.parametrize(
    ("mode", "model"),
    [("slow", MODEL), ("file", MODEL), ("copy", "w.npz"), ("stall-free", Path("w.npz"))],
)
def test_a_mode_that_does_not_fit_the_model_is_refused(
    tmp_path: Path, mode: str, model: Any
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    with pytest.raises(InputError, match=f"weights: found '{mode}', expected"):
        tracker.track_epoch(1, {}, model=model, weights=mode)
    assert kinds(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", [None, "stall-free", "copy", "sync"])
def test_each_epochs_weights_are_those_of_its_call(tmp_path: Path, mode: str | None) -> None:
    torch = framework("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_model(model)
    expected: dict[int | None, str] = {None: str(state_digest(model))}
    for epoch in range(5):
        for _ in range(2):
            model(torch.randn(8, 4)).square().sum().backward()
            optimizer.step()
        expected[epoch] = str(state_digest(model))
        tracker.track_epoch(epoch, {}, model=model, weights=mode)
    tracker.close()
    found = {e.epoch: e.fields["root"] for e in events(tmp_path) if "root" in e.fields}
    assert found == expected


def test_a_model_whose_state_raises_leaves_a_gap_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(dict[str, Any]):
        def state_dict(self) -> None:
            raise RuntimeError("no state now")

    group = SimpleNamespace(is_initialized=lambda: True, is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch.distributed", group)
    monkeypatch.setitem(sys.modules, "torch.distributed.tensor", SimpleNamespace(DTensor=Broken))
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {"loss": 1}, model=Broken())
    tracker.track_epoch(2, {"loss": 1}, model=MODEL)
    tracker.close()
    (gap,) = [event for event in events(tmp_path) if event.kind is Kind.GAP]
    assert (gap.epoch, gap.fields["reason"]) == (
        1, "weights not recorded: RuntimeError: no state now",
    )  # fmt: skip
    assert [event.epoch for event in events(tmp_path) if event.kind is Kind.STATE] == [2]


def test_ranks_take_turns_with_a_state_that_all_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVENANCE_RANK", "0")
    monkeypatch.setenv("PROVENANCE_WORLD_SIZE", "1")
    with pytest.raises(
        ConfigError, match=r"weight_digests\.ranks: found \"some\", expected one of auto"
    ):
        ProvenanceTracker(tmp_path, {"weight_digests": {"ranks": "some"}})
    tracker = ProvenanceTracker(tmp_path, {"weight_digests": {"ranks": "rotating"}})
    tracker._emitter.world_size = 2
    for epoch in range(4):
        tracker.track_epoch(epoch, {"loss": 1}, model=MODEL)
    tracker.close()
    assert {event.epoch for event in events(tmp_path) if event.kind is Kind.STATE} == {0, 2}
    assert len([event for event in events(tmp_path) if event.kind is Kind.METRICS]) == 4


def test_ranks_share_a_run_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = new_run_keys()
    monkeypatch.setenv("PROVENANCE_RUN_ID", str(keys.run))
    monkeypatch.setenv("PROVENANCE_RUN_SEED", keys.seed.hex())
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        tracker = ProvenanceTracker(tmp_path)
        tracker.track_data(TRAIN, TEST)
        tracker.track_epoch(1, {"loss": 1})
        tracker.store_merkle_on_blockchain_after_training({})
    assert len(scan(tmp_path / "spool")) == 1
    second = [event.kind.value for event in events(tmp_path) if event.rank == 1]
    assert second == ["metrics", "run.end"]
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        ProvenanceTracker(tmp_path)
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(ConfigError, match="RANK: found 'x'"):
        ProvenanceTracker(tmp_path)
    for climbing in ("run one", "../../evil", f"{keys.run}/../..", "/etc"):
        monkeypatch.setenv("PROVENANCE_RUN_ID", climbing)
        with pytest.raises(ConfigError, match="expected a UUID"):
            ProvenanceTracker(tmp_path)


def test_the_shipper_is_told_to_sign_by_sigstore(tmp_path: Path) -> None:
    config = {"identity": {"sigstore": True, "token_file": "/run/token"}}
    tracker = ProvenanceTracker(tmp_path, config)
    keys = load_run_keys(tracker.spool_dir / tracker.run_id)
    assert (keys.identity, keys.sigstore) == (None, "/run/token")


def test_an_identity_signs_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "team.key"
    public = Ed25519PrivateKey.from_private_bytes(read_or_create_seed(path, IDENTITY)).public_key()
    monkeypatch.setenv("PROVENANCE_IDENTITY_KEY_FILE", str(path))
    tracker = ProvenanceTracker(tmp_path)
    keys = load_run_keys(tracker.spool_dir / tracker.run_id)
    assert keys.identity is not None
    signed = open_identity(keys.identity, keys.run, keys.public_key)
    assert signed.key == public.public_bytes_raw()
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="identity_key_file"):
        ProvenanceTracker(tmp_path)


def test_disabled_blockchain_gives_no_tickets(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path, {"blockchain": {"enabled": False}})
    assert tracker.store_merkle_on_blockchain_before_training({}) == {}
    assert tracker.get_blockchain_status()["networks"] == {}
    assert events(tmp_path)[-1].fields["anchor"] is False


@pytest.mark.slow
def test_status_never_raises_for_an_outage(tmp_path: Path) -> None:
    config = {"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/none"}
    tracker = ProvenanceTracker(tmp_path, config)
    tickets = tracker.store_merkle_on_blockchain_before_training({})
    assert tickets["local"].status == "unknown"
    status = tracker.get_blockchain_status()
    assert status["networks"]["local"]["before"]["status"] == "unknown"
    assert status["events"]["written"] == 2


def test_an_exception_in_training_is_the_runs_end(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ProvenanceTracker(tmp_path) as tracker:
        tracker.track_epoch(1, {})
        raise ZeroDivisionError
    assert events(tmp_path)[-1].fields == {
        "events": 4,
        "reason": "ZeroDivisionError",
        "state": "failed",
    }


SCRIPT = """
import sys, time
import numpy as np
from provenance import ProvenanceTracker
tracker = ProvenanceTracker(sys.argv[1])
tracker.track_data(np.ones((4, 2)), np.ones((2, 2)))
tracker.track_model({"w": np.ones(3)})
tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
for epoch in (1, 2):
    tracker.track_epoch(epoch, {"loss": 1 / epoch}, model={"w": np.ones(3) * epoch})
"""


@pytest.mark.slow
def test_weights_still_being_hashed_at_exit_come_home(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert kinds(tmp_path).count("state") == 2
    assert events(tmp_path)[-1].fields["reason"] == "exit"


def test_import_is_light() -> None:
    code = (
        "import sys, provenance, provenance.tracker;"
        "heavy = {'celery', 'web3', 'sqlalchemy', 'torch', 'alembic', 'psycopg', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve() -> None:
    import provenance

    for name in provenance.__all__:
        assert getattr(provenance, name) is not None
    assert set(provenance.__all__) <= set(dir(provenance))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = provenance.Nothing
