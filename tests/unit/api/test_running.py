"""``provenance.run``: what its calls record, and how a run ends."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import provenance
from provenance.bundle.writer import bundle_files
from provenance.capture.ship.loop import Shipper
from provenance.capture.spool import read_segment, scan
from provenance.errors import InputError
from provenance.formats.event import Event
from provenance.formats.record import Kind
from provenance.settings import load
from provenance.stores.memory_transport import MemoryTransport
from provenance.verify.catalogue import Status
from tests.support import stranger
from tests.support.paths import ROOT
from tests.support.readme import blocks
from tests.support.verify_world import shipped

MODEL = {"w": np.ones((3, 2), np.float32)}


def events(base: Path) -> list[Event]:
    found: list[Event] = []
    for run in scan(base / "spool"):
        for segment in run.segments:
            found += [item for _, item in read_segment(segment.path) if isinstance(item, Event)]
    return found


def bodies(base: Path, kind: Kind) -> list[dict[str, Any]]:
    return [event.fields for event in events(base) if event.kind is kind]


def test_a_run_is_named_and_its_config_is_recorded_before_the_first_metrics(tmp_path: Path) -> None:
    with provenance.run(
        "baseline", config=argparse.Namespace(lr=0.1), tags=["a", "b"], group="sweep",
        notes="first try", base_dir=tmp_path, settings={"team": "vision"},
    ) as run:  # fmt: skip
        run.data(np.ones((4, 2)))
        run.model(MODEL)
        run.log({"loss": 1.0}, epoch=1, model=MODEL, privacy={"epsilon": 1.0, "delta": 1e-5})
    (config,) = bodies(tmp_path, Kind.CONFIG)
    assert config["training"] == {"lr": 0.1}
    assert (config["name"], config["group"], config["notes"]) == (
        "baseline", "sweep", "first try",
    )  # fmt: skip
    assert (config["team"], config["tags"]) == ("vision", ["a", "b"])
    assert config["config_notes"] == {}
    kinds = [event.kind.value for event in events(tmp_path)]
    assert kinds[:5] == [
        "data.train", "model.architecture", "model.weights", "config", "run.seal",
    ]  # fmt: skip
    assert sorted(kinds[5:8]) == ["metrics", "privacy", "state"]
    assert kinds[8:] == ["results", "run.seal", "run.end"]
    assert repr(run) == f"<provenance.run 'baseline' {run.id} ended>"


def test_an_exception_goes_on_and_ends_the_run_with_its_name(tmp_path: Path) -> None:
    error = RuntimeError("mine")
    with pytest.raises(RuntimeError) as raised, provenance.run(base_dir=tmp_path, config={"lr": 1}):
        raise error
    assert raised.value is error
    assert bodies(tmp_path, Kind.CONFIG)[0]["training"] == {"lr": 1}
    assert bodies(tmp_path, Kind.RESULTS) == []
    (end,) = bodies(tmp_path, Kind.RUN_END)
    assert (end["state"], end["reason"]) == ("failed", "RuntimeError")


def test_finish_records_results_and_leaving_the_block_then_does_nothing(tmp_path: Path) -> None:
    with provenance.run(base_dir=tmp_path) as run:
        run.finish({"accuracy": 0.9})
    assert bodies(tmp_path, Kind.RESULTS) == [{"results": {"accuracy": 0.9}, "epochs": 0}]
    assert len(bodies(tmp_path, Kind.RUN_END)) == 1


def test_results_of_any_kind_are_recorded(tmp_path: Path) -> None:
    run = provenance.run(base_dir=tmp_path)
    run.finish({"best": tmp_path / "best.pt", "accuracy": np.float32(0.5), "model": object()})
    (body,) = bodies(tmp_path, Kind.RESULTS)
    assert body["results"] == {
        "best": str(tmp_path / "best.pt"), "accuracy": 0.5, "model": "builtins.object",
    }  # fmt: skip
    assert body["notes"] == {"model": "recorded by its type alone"}


def test_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plot.png").write_bytes(b"png")
    page = (ROOT / "docs/recording.md").read_text("utf-8")
    given: dict[str, Any] = {"args": argparse.Namespace(lr=1), "model": MODEL, "batches": [1, 2]}
    given |= {"train": np.ones((2, 2)), "test": np.ones((1, 2))}
    pages = [block.text for block in blocks(page) if block.language == "python"]
    assert len(pages) == 2
    for text in pages:
        exec(text, given)
    ends = [end["reason"] for end in bodies(tmp_path / "artifacts", Kind.RUN_END)]
    assert ends == ["finished", "finished"]
    (settings,) = [block.text for block in blocks(page) if block.language == "yaml"]
    (tmp_path / "c.yaml").write_text(settings)
    assert load(tmp_path / "c.yaml").training == {"origin": [0, 0], "lease": "12 months"}


def test_a_child_names_its_parent(tmp_path: Path) -> None:
    parent = provenance.run(base_dir=tmp_path / "a")
    provenance.run(base_dir=tmp_path / "b", parent=parent).finish()
    provenance.run(base_dir=tmp_path / "c", parent=parent.tracker).finish()
    provenance.run(base_dir=tmp_path / "d", parent=parent.id).finish()
    for name in "bcd":
        assert bodies(tmp_path / name, Kind.CONFIG)[0]["parent"]["run"] == parent.id, (
            "the id, whatever named it"
        )


def test_artifacts_and_notes_are_recorded_after_the_start(tmp_path: Path) -> None:
    file, folder = tmp_path / "plot.png", tmp_path / "folder"
    file.write_bytes(b"png")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    odd.write_bytes(b"not UTF-8")
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"12345")
    settings = {"hash_algorithm": "sha256"}
    with provenance.run(base_dir=tmp_path, settings=settings) as run:
        run.log({"loss": 1}, epoch=0)
        run.artifact(file)
        run.artifact(folder, "checkpoint")
        run.artifact(b"abc", "bytes.bin")
        run.artifact(f"file://{file}")
        run.artifact(f"file://{folder}", "checkpoint")
        run.artifact(odd, "odd")
        run.artifact(odd)
        run.artifact(tmp_path / "absent")
        run.artifact("null\0byte")
        run.artifact("file:///absent/x")
        run.note("x" * 9_000_000)
        run.note("looks odd", tags=["odd"])
    png, checkpoint, held, *at_urls, odd_name = bodies(tmp_path, Kind.ARTIFACT)
    assert at_urls == [png, checkpoint]
    digest = f"sha256:{hashlib.sha256(b'png').hexdigest()}"
    assert png == {"name": "plot.png", "digest": digest, "bytes": 3, "media": "image/png"}
    assert (checkpoint["name"], checkpoint["bytes"], checkpoint["files"]) == ("checkpoint", 5, 1)
    assert held["digest"] == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
    assert (odd_name["name"], odd_name["bytes"]) == ("odd", 9)
    assert bodies(tmp_path, Kind.NOTE) == [{"text": "looks odd", "tags": ["odd"]}]
    gaps = bodies(tmp_path, Kind.GAP)
    assert [gap["what"] for gap in gaps] == ["artifact", "artifact", "artifact", "artifact", "note"]
    reasons = (
        "its name is not UTF-8", "cannot read", "null byte",
        "cannot read 'file:///absent/x' through fsspec: FileNotF", "expected at most 1,000,000",
    )  # fmt: skip
    for gap, reason in zip(gaps, reasons, strict=True):
        assert reason in gap["reason"]
    world = shipped(run.tracker)
    evidence = world.evidence(run.tracker.run)
    report = world.verify(evidence, online=False)
    (complete,) = [result for result in report.checks if result.check.number == 4]
    assert complete.status is Status.UNCHECKED, "an honest run is not a failed one"
    assert "artifact not recorded" in complete.detail
    bundle = stranger.load().Bundle(bundle_files(evidence))
    lost = {"run.json: artifact was not recorded", "run.json: note was not recorded"}
    assert (bundle.problems, lost - {*bundle.unproven}) == ([], set())


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    run = provenance.run(base_dir=tmp_path)
    with pytest.raises(InputError, match="artifact: found bytes without a name"):
        run.artifact(b"x")
    with pytest.raises(InputError, match=r"'s3://b/m\.npz': found a URL, expected a file of this"):
        run.model("s3://user:secret@b/m.npz?versionId=1")
    with pytest.raises(InputError, match="note: found neither a text nor a tag"):
        run.note()
    with pytest.raises(InputError, match="config: found a int, expected a mapping"):
        provenance.run(base_dir=tmp_path / "refused", config=3)
    assert not (tmp_path / "refused").exists()
    for tags in ("ab", ["a", 1], 5):
        with pytest.raises(InputError, match=r"tags: found .*, expected a list of texts"):
            provenance.run(base_dir=tmp_path, tags=tags)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(InputError, match="epoch: found 0.5, .* between two epochs, record a step"):
        run.log({"loss": 1}, epoch=0.5)  # type: ignore[arg-type]  # Transformers' own
    for step in (-1, 2**60):
        with pytest.raises(InputError, match=f"found {step}, .* from 0 to {2**53 - 1}$"):
            run.log({"loss": 1}, step=step)
    with pytest.raises(InputError, match="notes: found 9,000,000 characters, expected at most"):
        provenance.run(base_dir=tmp_path, notes="x" * 9_000_000)


def test_what_comes_after_the_end_is_said_in_one_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = provenance.run(base_dir=tmp_path)
    run.log({"loss": 1})
    with pytest.raises(InputError, match="sealed already, .*; expected it before the first met"):
        run.data(np.ones(2))
    run.tracker.close("ValueError", "failed")
    over = f"run {run.id} is failed already and takes no more, expected a new run"
    for call in (run.finish, lambda: run.data(np.ones(2)), lambda: run.model(MODEL)):
        with pytest.raises(InputError, match=f": {over}$"):
            call()
    run.log({"loss": 1})
    run.log({"loss": 1}, epoch=1)
    run.note("x")
    assert capsys.readouterr().err.count(f"{over}: not recorded") == 3


def test_epochs_are_whole_numbers_of_any_kind(tmp_path: Path) -> None:
    run = provenance.run(base_dir=tmp_path)
    for epoch in (1.0, np.int64(2), np.float32(3), np.array(4)):
        run.log({"loss": 1}, epoch=epoch)  # type: ignore[arg-type]  # wider on purpose
    run.log({"loss": 1}, model=MODEL)
    run.finish()
    epochs = [event.epoch for event in events(tmp_path) if event.kind is Kind.METRICS]
    assert epochs == [1, 2, 3, 4, 5]
    assert json.dumps(epochs) == "[1, 2, 3, 4, 5]"


@pytest.mark.slow
def test_what_is_too_large_for_a_record_ends_no_training_and_the_run_verifies(
    tmp_path: Path,
) -> None:
    large = "x" * 9_000_000
    config = {str(n): "\x01" * 16_000 for n in range(100)}  # of six bytes each in JSON
    with provenance.run(base_dir=tmp_path, config=config) as run:
        run.log({"loss": 1.0}, epoch=1, model=MODEL)
        for numbers, call in (
            ({"epoch": 2}, "metrics.map"), ({"step": 3}, "metrics.map"),
            ({"epoch": 2, "privacy": {"epsilon": 1, "delta": 0, "of": large}}, "privacy.of"),
        ):  # fmt: skip
            run.log({} if "privacy" in numbers else {"map": large}, **numbers)
            reason = bodies(tmp_path, Kind.GAP)[-1]["reason"]
            assert f"{call}: found 9,000,005 bytes, expected a record" in reason
        deep: dict[str, Any] = {}
        for _ in range(30):
            deep = {"a": deep}
        run.log(deep)
        assert "nested deeper than 32 levels" in bodies(tmp_path, Kind.GAP)[-1]["reason"]
        run.log(deep["a"]["a"]["a"])
        run.finish({"accuracy": 0.5, "map": large})
    world = shipped(run.tracker)
    report = world.verify(world.evidence(run.tracker.run), online=False)
    assert report.outcome == "consistent", report.findings
    (results,) = bodies(tmp_path, Kind.RESULTS)
    assert results["results"]["accuracy"] == 0.5
    assert results["notes"] == {"map": "a text of 9000000 characters: its start and its SHA-256"}
    (stated,) = bodies(tmp_path, Kind.CONFIG)
    assert stated["training"] == {}
    found = "hyperparameters not recorded: training: found 9,600,"
    assert stated["config_notes"]["."].startswith(found)
    assert len(bodies(tmp_path, Kind.GAP)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("committed", [False, True])
def test_a_run_that_is_started_again_counts_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """By the spool, and by the shipper's cursors where the spool is gone."""
    first = provenance.run(base_dir=tmp_path)
    for _ in range(3):
        first.log({"loss": 1})
    first.log({"loss": 1}, step=9)
    first.log({"loss": 1}, epoch=4)
    first.tracker.close("died", "failed")
    if committed:
        with Shipper(tmp_path / "spool", MemoryTransport()) as shipper:
            shipper.run_once()
        for segment in scan(tmp_path / "spool")[0].segments:
            segment.path.unlink()
    monkeypatch.setenv("PROVENANCE_RUN_ID", first.id)
    again = provenance.run(base_dir=tmp_path)
    again.log({"loss": 2})
    again.log({"loss": 2}, model=MODEL)
    beside = provenance.run(base_dir=tmp_path)
    beside.log({"loss": 3})
    steps = [body["step"] for body in bodies(tmp_path, Kind.STEPS) if body["metrics"]["loss"] > 1]
    assert sorted(steps) == [10, 10], "one that runs beside another does not count for it"
    assert {e.epoch for e in events(tmp_path) if e.kind is Kind.METRICS} - {4} == {5}
