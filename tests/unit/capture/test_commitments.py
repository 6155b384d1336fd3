"""What leaves the trainer's host of a run that hides numbers: commitments, and never a number."""

from __future__ import annotations

import json
import stat
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance import ProvenanceTracker
from provenance.capture.keys import RunKeys, keep_run_keys, load_run_keys, new_run_keys
from provenance.capture.reasons import UNSHIPPED, noted
from provenance.capture.ship import openings
from provenance.capture.ship.commitments import Committer
from provenance.capture.ship.loop import Shipper
from provenance.capture.ship.openings import find_opening, keep_openings, openings_path
from provenance.errors import ConfigError, InputError, MissingExtraError
from provenance.fingerprint.datasets import dataset_digest
from provenance.formats.event import Event
from provenance.formats.producers.batch import open_batch
from provenance.formats.record import Kind, Record, canonical_json
from provenance.proofs.bulletproofs.commitment import Opening
from provenance.settings import CommitmentSettings, load
from provenance.stores.memory_transport import MemoryTransport
from tests.support.spooled import default_log as default_log
from tests.unit.zk.conftest import ACCURACY, HIDDEN, forms, recorded

NAMES = ("accuracy", "eval.f1", "epsilon")
PRODUCER = b"p" * 16


def keys_of(**options: Any) -> RunKeys:
    return replace(new_run_keys(), commitments=CommitmentSettings(NAMES, **options))


def committed(kind: Kind, fields: dict[str, Any], base: Path, **options: Any) -> dict[str, Any]:
    committer = Committer(keys_of(**options), PRODUCER, base / "spool" / "run")
    return committer.committed(Event(3, kind, 1, 0, 0, fields)).fields


@pytest.mark.parametrize("part", ["metrics", "results", "privacy"])
def test_a_named_number_becomes_a_commitment(part: str, tmp_path: Path) -> None:
    values = {"accuracy": 0.5, "loss": 1.0, "eval": {"f1": 0.25, "n": 3}}
    found = committed(Kind(part), {part: values, "epochs": 2}, tmp_path)
    assert (found[part], found["epochs"]) == ({"loss": 1.0, "eval": {"n": 3}}, 2)
    assert found["commitments"].keys() == {"accuracy", "eval.f1"}
    assert all(len(told["point"]) == 66 for told in found["commitments"].values())
    assert values == {"accuracy": 0.5, "loss": 1.0, "eval": {"f1": 0.25, "n": 3}}


def test_beside_the_number_where_it_is_not_hidden(tmp_path: Path) -> None:
    found = committed(Kind.METRICS, {"metrics": {"accuracy": 0.5}}, tmp_path, hide=False, scale=2)
    assert found["metrics"] == {"accuracy": 0.5}
    assert found["commitments"]["accuracy"]["scale"] == 2


@pytest.mark.parametrize(
    "metrics",
    [
        {"accuracy": float("nan")},
        {"accuracy": "0.5"},
        {"accuracy": None},
        {"accuracy": [0.5]},
        {"accuracy": 1e30},
        {"eval": [{"f1": 0.5}, {"f1": 0.6}]},
        {"eval.f1": 0.5, "eval": {"f1": 0.6}},
    ],
    ids=str,
)
def test_what_is_no_number_is_hidden_all_the_same(metrics: dict[str, Any], tmp_path: Path) -> None:
    found = committed(Kind.METRICS, {"metrics": metrics}, tmp_path)
    (told,) = found["commitments"].values()
    assert told == {"point": None, "scale": 6}
    assert not any(word in json.dumps(found["metrics"]) for word in ("accuracy", "0.5", "f1"))


def test_the_shippers_log_says_once_of_each_name_that_it_is_no_number(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    committer = Committer(keys_of(), PRODUCER, tmp_path / "spool" / "run")
    for value in ([0.777], [0.5], "0.9", 0.25):
        event = Event(3, Kind.METRICS, 1, 0, 0, {"metrics": {"accuracy": value, "epsilon": 0.5}})
        committer.committed(event)
    (line,) = "".join(capfd.readouterr()).splitlines()
    assert "nothing can be proved of it: no single number, or one out of range" in line
    assert "accuracy" in line
    assert "777" not in line


@pytest.mark.parametrize(
    "given",
    [
        {"history": [{"steps": 3}]},
        {"steps": 300, "noise_multiplier": 1.1, "sample_rate": 0.01},
        {"details": {"sigma": 1.1, "epochs": 3}, "epsilon_spent": 1.5},
    ],
    ids=str,
)
def test_with_epsilon_goes_what_gives_it_away(given: dict[str, Any], tmp_path: Path) -> None:
    budget = {"epsilon": 1.5, "delta": 1e-5, "accountant": "rdp", **given}
    found = committed(Kind.PRIVACY, {"privacy": budget}, tmp_path)
    assert found["privacy"] == {"delta": 1e-5, "accountant": "rdp"}
    shown = committed(Kind.PRIVACY, {"privacy": budget}, tmp_path, hide=False)
    assert shown["privacy"] == budget


def test_what_hides_no_epsilon_keeps_its_budget(tmp_path: Path) -> None:
    other = {"privacy": {"delta": 1e-5, "history": [{"steps": 3}]}}
    assert committed(Kind.PRIVACY, other, tmp_path) == other


def test_steps_are_hidden_and_say_so(tmp_path: Path) -> None:
    steps = {"accuracy": [0.1, 0.2], "loss": [1.0, 2.0], "eval": [{"f1": 1}, {"f1": 2}]}
    fields = {"series": [{"metrics": steps, "step": [1, 2]}], "steps": 2}
    found = committed(Kind.STEPS, fields, tmp_path)
    assert found["series"][0]["metrics"] == {"loss": [1.0, 2.0], "eval": [{}, {}]}
    assert found["hidden"] == ["accuracy", "eval.f1"]
    assert committed(Kind.STEPS, fields, tmp_path, hide=False) == fields


COUNTED = {"metrics": ["data.train.count"]}
DATASET = dataset_digest({"x": np.zeros((7, 3), np.uint8)}).as_fields()


def of_data(fields: dict[str, Any], hide: bool = True, kind: Kind = Kind.DATA_TRAIN) -> Any:
    settings = CommitmentSettings(("data.train.count",), hide=hide)
    keys = replace(new_run_keys(), commitments=settings)
    event = Event(0, kind, None, 0, 0, fields)
    return Committer(keys, PRODUCER, Path("spool/run")).committed(event).fields


def test_with_a_sample_count_goes_what_gives_it_away() -> None:
    given = {**DATASET, "items": {"count": 7, "size": 7}, "left_out": ["DESCR"], "varies": True}
    found = of_data(given)
    (told,) = found.pop("commitments").values()
    assert len(told["point"]) == 66
    stays = ("kind", "algorithm", "root", "left_out", "varies")
    assert found == {key: given[key] for key in stays}
    shown = of_data(given, hide=False)
    assert (shown.pop("commitments").keys(), shown) == ({"data.train.count"}, given)
    assert of_data(given, kind=Kind.DATA_TEST) == given


def test_records_of_hidden_counts_are_of_one_length() -> None:
    """However much data there is."""
    sizes = {
        len(canonical_json(of_data(dataset_digest([np.zeros((rows, 2))] * parts).as_fields())))
        for rows, parts in ((1, 1), (9, 3), (100_000, 1))
    }
    assert len(sizes) == 1


def test_a_hidden_count_has_no_item_set(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path, {"commitments": COUNTED, "announce_run": False})
    problem = "items: found True, and data.train.count hidden by 'commitments', expected False: a"
    with pytest.raises(InputError, match=problem):
        tracker.track_data([1, 2, 3], items=True)
    with pytest.raises(InputError, match=problem):
        tracker.data_stream(items=True)
    assert not (tmp_path / "items").exists()
    tracker.close()
    shown = {"commitments": {**COUNTED, "hide": False}, "announce_run": False}
    tracker = ProvenanceTracker(tmp_path, shown)
    tracker.track_data([1, 2, 3], items=True)
    tracker.close()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (COUNTED, True),
        ({**COUNTED, "hide": False}, False),
        ({"metrics": ["accuracy"]}, False),
    ],
    ids=str,
)
def test_who_hides_a_count_is_told_what_that_is_worth(
    section: dict[str, Any], said: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ProvenanceTracker(tmp_path, {"commitments": section, "announce_run": False}).close()
    told = "".join(capfd.readouterr())
    assert ("a sample count is hidden in the record of the data alone" in told) is said
    assert ("hidden=data.train.count" in told) is said


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.METRICS, {"metrics": {"loss": 1.0}}),
        (Kind.METRICS, {"metrics": 3}),
        (Kind.NOTE, {"text": "accuracy", "tags": []}),
        (Kind.CONFIG, {"metrics": {"accuracy": 3}}),
    ],
)
def test_all_else_leaves_as_it_is(kind: Kind, fields: dict[str, Any], tmp_path: Path) -> None:
    assert committed(kind, fields, tmp_path) == fields


# --- the whole way -----------------------------------------------------------------------


class Stream(MemoryTransport):
    """One that remembers every byte it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.payloads: list[bytes] = []

    def append(self, payloads: Sequence[bytes]) -> None:
        super().append(payloads)
        self.payloads += payloads

    def records(self) -> list[bytes]:
        return [record for each in self.payloads for record in open_batch(each).records]


def shipped(base: Path) -> Stream:
    stream = Stream()
    with Shipper(base / "spool", stream) as shipper:
        shipper.run_once()
    return stream


def test_no_number_leaves_the_host(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "base"
    run = recorded(base)
    stream = shipped(base)
    told = b"".join(stream.payloads) + "".join(capfd.readouterr()).encode()
    hidden = (ACCURACY, ACCURACY - 0.1, 1.512345, 0.771234, 60_123.0)
    for secret in [form for value in hidden for form in forms(value)] + [b"60123"]:
        assert secret not in told
    spool = b"".join(path.read_bytes() for path in (base / "spool").rglob("*.seg"))
    assert struct.pack(">d", ACCURACY) in spool  # until it is deleted, as any segment
    path = openings_path(base, load_run_keys(base / "spool" / run).run)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    kinds = [Record.decode(data).kind for data in stream.records() if b'"point"' in data]
    assert sorted(kinds) == ["data.train", "metrics", "metrics", "privacy", "privacy", "results"]


def test_shipping_twice_gives_the_same_records(tmp_path: Path) -> None:
    recorded(tmp_path)
    first = shipped(tmp_path).records()
    for path in (tmp_path / "spool").rglob("cursors.json"):
        path.unlink()
    assert shipped(tmp_path).records() == first


def test_nothing_is_shipped_whose_opening_is_not_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path)

    def full(path: Path, found: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("provenance.capture.ship.commitments.keep_openings", full)
    assert shipped(tmp_path).records() == []
    monkeypatch.undo()
    assert len(shipped(tmp_path).records()) == 13


def test_without_the_package_nothing_is_shipped_and_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path)
    monkeypatch.setitem(sys.modules, "coincurve", None)
    for name in ("proofs.bulletproofs.curve", "proofs.bulletproofs.commitment"):
        monkeypatch.delitem(sys.modules, f"provenance.{name}")
    for name in ("commitments", "openings"):
        monkeypatch.delitem(sys.modules, f"provenance.capture.ship.{name}")
    assert shipped(tmp_path).payloads == []
    assert "pip install 'ml-provenance[zk]'" in "".join(capfd.readouterr())
    (reason,) = noted(tmp_path / "spool", UNSHIPPED).values()
    assert reason == "coincurve is not installed; get it with: pip install 'ml-provenance[zk]'"
    with pytest.raises(MissingExtraError, match="coincurve is not installed"):
        ProvenanceTracker(tmp_path / "new", {"commitments": HIDDEN})


# --- the key file and the configuration --------------------------------------------------


def test_the_key_file_says_what_is_hidden(tmp_path: Path) -> None:
    keys = keep_run_keys(tmp_path / "run", keys_of(scale=3, hide=False))
    assert load_run_keys(tmp_path / "run") == keys
    plain = replace(keys, commitments=None)
    assert keep_run_keys(tmp_path / "run", plain).commitments == keys.commitments
    for other in (CommitmentSettings(("loss",)), CommitmentSettings(NAMES, 3)):
        with pytest.raises(InputError, match=r"run\.key: found CommitmentSettings.*expected"):
            keep_run_keys(tmp_path / "run", replace(keys, commitments=other))
    keep_run_keys(tmp_path / "plain", replace(keys, commitments=None))
    with pytest.raises(InputError, match=r"run\.key: found no commitments, expected"):
        keep_run_keys(tmp_path / "plain", keys)


def test_a_key_file_of_before_has_no_commitments(tmp_path: Path) -> None:
    keys = keep_run_keys(tmp_path, new_run_keys())
    path = tmp_path / "run.key"
    told = json.loads(path.read_text())
    del told["commitments"]
    path.write_text(json.dumps(told))
    assert load_run_keys(tmp_path) == keys


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({}, "commitments.metrics"),
        ({"metrics": []}, "commitments.metrics"),
        ({"metrics": ["a"], "scale": 13}, "commitments.scale"),
        ({"metrics": ["a"], "scale": -1}, "commitments.scale"),
        ({"metrics": ["a"], "hide": 1}, "commitments.hide"),
        ({"metrics": ["a"], "hidden": True}, "commitments.hidden"),
        ({"metrics": "a"}, "commitments.metrics"),
        ({"metrics": ["loss", "top\u00a01"]}, "commitments.metrics"),
        ({"metrics": ("a\u202eb",)}, "commitments.metrics"),
    ],
    ids=str,
)
def test_a_section_that_does_not_fit_is_refused(section: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({"commitments": section}, "artifacts")
    assert refused.value.key == key


# --- openings ----------------------------------------------------------------------------


def test_an_opening_is_found_behind_a_line_that_was_cut_off(tmp_path: Path) -> None:
    run, kept = new_run_keys().run, [Opening(1, 2), Opening(-3, 4)]
    path = openings_path(tmp_path, run)
    keep_openings(path, kept[:1])
    with path.open("ab") as file:
        file.write(b'\n{"blinding": "00')
    keep_openings(path, kept[1:])
    for opening in kept:
        assert find_opening(tmp_path, run, opening.commitment.format()) == opening


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.chmod(0o644), "it has mode 0644, expected 0600"),
        (lambda path: path.write_text(""), "has no opening of"),
        (lambda path: path.write_text(path.read_text().replace(": 7", ": 8")), "has no opening of"),
    ],
    ids=["lost", "open to others", "emptied", "changed"],
)
def test_a_lost_opening_is_one_line(spoil: Any, problem: str, tmp_path: Path) -> None:
    run, opening = new_run_keys().run, Opening(7, 2)
    path = openings.openings_path(tmp_path, run)
    keep_openings(path, [opening])
    spoil(path)
    with pytest.raises(InputError) as refused:
        find_opening(tmp_path, run, opening.commitment.format())
    assert problem in str(refused.value)
    assert "without it nothing can be proved" in str(refused.value)
    assert "\n" not in str(refused.value)
