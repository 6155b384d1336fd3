"""Steps: one write a call, many in a record, none lost, and the record is under the run root."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import numpy as np
import pytest

import provenance
from provenance.bundle.writer import bundle_files
from provenance.capture.ship.cursor import Cursor
from provenance.capture.ship.reader import ProducerReader
from provenance.capture.spool import Corruption, scan_run
from provenance.capture.spool_writer import STEPS_AT_ONCE, STEPS_NS, SpoolWriter
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.record import Kind
from provenance.fsck.spool import read_run
from tests.support.paths import ROOT
from tests.support.stranger import load
from tests.support.verify_world import shipped

RUN = uuid4()


def writer(folder: Path, **options: Any) -> SpoolWriter:
    return SpoolWriter(folder, RUN, b"p" * 16, 0, 1, **options)


def read(folder: Path, cursor: Cursor | None = None) -> list[Event | Corruption]:
    (group,) = scan_run(folder, RUN).producers.values()
    return [item for _, item in ProducerReader(group, cursor or Cursor(0))]


def rows(event: Any) -> list[tuple[int, dict[str, Any]]]:
    """The steps of an event, by series."""
    found = []
    for series in event.fields["series"]:
        columns = series["metrics"]
        for at, step in enumerate(series["step"]):
            found.append((step, {name: values[at] for name, values in columns.items()}))
    return found


def test_a_thousand_steps_are_one_record_and_all_are_there(tmp_path: Path) -> None:
    spool, count = writer(tmp_path), 2 * STEPS_AT_ONCE + 500
    for step in range(count):
        assert spool.append_step(step, step, {"loss": step / 7, "lr": 0.1})
    spool.finish(count, "finished")
    *steps, end = read(tmp_path)
    assert [event.seq for event in [*steps, end]] == [0, 1, 2, 3]  # type: ignore[union-attr]  # no damage
    assert isinstance(end, Event)
    assert end.fields == {"events": 3, "reason": "finished", "state": "finished"}
    found = [row for event in steps for row in rows(event)]
    assert found == [(step, {"loss": step / 7, "lr": 0.1}) for step in range(count)]
    header = SegmentHeader(RUN, b"p" * 16, 0, 1, 0)
    size = sum(len(record_of(s, header, bytes(32)).encode()) for s in steps if isinstance(s, Event))
    assert size < 40 * count, "a step costs its numbers"


def test_an_open_event_waits_until_it_cannot_grow(tmp_path: Path) -> None:
    spool = writer(tmp_path)
    spool.append(Kind.METRICS, 1, 0, {"metrics": {}})
    for step in range(3):
        spool.append_step(step, step, {"loss": 1.0})
    assert [event.seq for event in read(tmp_path)] == [0]  # type: ignore[union-attr]  # no damage
    spool.append_step(STEPS_NS + 5, 3, {"loss": 1.0})
    first, old = read(tmp_path)
    assert len(rows(old)) == 3
    spool.abandon()  # as kill -9 does: what the kernel has is what there is
    assert read(tmp_path)[:2] == [first, old]
    assert [len(rows(event)) for event in read(tmp_path)[1:]] == [3, 1]


def test_names_make_series_and_any_value_of_metrics_is_kept(tmp_path: Path) -> None:
    spool = writer(tmp_path)
    spool.append_step(0, 0, {"loss": math.nan})
    spool.append_step(1, 0, {"lr": math.inf})
    spool.append_step(2, 1, {"loss": 2})
    spool.finish(3, "x")
    event = read(tmp_path)[0]
    assert isinstance(event, Event)
    body = record_of(event, SegmentHeader(RUN, b"p" * 16, 0, 1, 0), bytes(32)).body
    assert body == {
        "series": [
            {"metrics": {"loss": ["NaN", 2]}, "step": [0, 1]},
            {"metrics": {"lr": ["Infinity"]}, "step": [0]},
        ],
        "steps": 3,
        "until": "1970-01-01T00:00:00.000000Z",
    }


def test_a_lost_frame_is_counted(tmp_path: Path) -> None:
    spool = writer(tmp_path)
    for step in range(5):
        spool.append_step(step, step, {"loss": float(step)})
    (segment,) = scan_run(tmp_path, RUN).segments
    spool.finish(9, "x")
    data = bytearray(segment.path.read_bytes())
    at = data.index(np.float64(2.0).tobytes()[::-1])  # msgpack is big-endian
    data[at + 3] ^= 1
    segment.path.write_bytes(data)
    event, damage, end = read(tmp_path)
    assert [step for step, _ in rows(event)] == [0, 1, 3, 4]
    assert isinstance(event, Event)
    assert event.fields["missing"] == 1
    assert isinstance(damage, Corruption)
    assert isinstance(end, Event)
    assert (event.seq, end.seq) == (0, 1)


def test_an_event_of_steps_lies_in_one_segment(tmp_path: Path) -> None:
    spool = writer(tmp_path, segment_bytes=4096)
    for step in range(300):
        spool.append_step(step, step, {"loss": float(step)})
    spool.finish(1, "x")
    (group,) = scan_run(tmp_path, RUN).producers.values()
    assert len(group) > 3
    events = read(tmp_path)
    assert [event.seq for event in events] == list(range(len(events)))  # type: ignore[union-attr]  # no damage
    found = [step for event in events[:-1] for step, _ in rows(event)]
    assert found == list(range(300))
    for segment in group:
        assert segment.header()[0].first_seq == segment.index


def test_steps_that_waited_for_room_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, write, full = writer(tmp_path, retry_s=0.0), os.write, False

    def no_room(descriptor: int, data: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, "no room")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", no_room)
    for step in range(9):
        full = 3 <= step < 6
        assert spool.append_step(step, step, {"loss": 1.0}) is not full
    full = False
    spool.finish(9, "x")
    *steps, end = read(tmp_path)
    assert [step for event in steps for step, _ in rows(event)] == list(range(9))
    assert [event.seq for event in [*steps, end]] == list(range(len(steps) + 1))  # type: ignore[union-attr]  # no damage


def test_steps_artifacts_and_notes_are_verified_by_both_readers(tmp_path: Path) -> None:
    stranger = load()
    settings = {"blockchain": {"storage_options": {"store_epoch_checkpoints": True,
                                                   "checkpoint_every": 1}}}  # fmt: skip
    with provenance.run(base_dir=tmp_path, settings=settings) as run:
        for step in range(STEPS_AT_ONCE + 10):
            run.log({"loss": 1 / (step + 1)})
        run.artifact(b"abc", "made.bin")
        run.log({"accuracy": 0.5}, epoch=1)
        run.log({"image": [1, 2], "name": "x", "scalar": np.float32(2)}, step=5000)
        run.note("odd")
        run.log({"accuracy": 0.6}, epoch=2)
    world = shipped(run.tracker)
    evidence = world.evidence(run.tracker.run)
    report = world.verify(evidence, online=False)
    assert report.outcome == "consistent", report.findings
    covered = [entry.coverage[0][1] for entry in evidence.entries if entry.epoch is not None]
    before = {item.record.seq for item in evidence.digested if item.record.kind is Kind.NOTE}
    assert covered[0] < max(before) < covered[1], "a checkpoint covers what came before it"
    files = bundle_files(evidence)
    wanted = ["steps", "steps/1", "steps/2", "artifact", "note", "results", "epoch/2/metrics/0"]
    for path in wanted:
        assert f"records/training/{path}.json" in files
    assert stranger.Bundle(files).problems == []
    schema = json.loads((ROOT / "docs/schemas/run.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(json.loads(files["run.json"]))
    spooled = read_run(run.tracker.spool_dir / run.id, run.tracker.run)
    (here,) = {producer for producer, _ in spooled.events}
    by_digest = {item.record.seq: item.record.body for item in evidence.digested}
    for (_, seq), (header, event) in spooled.events.items():
        assert record_of(event, header, bytes(32)).body == by_digest[seq]
    assert len(spooled.events) == len(by_digest)
    assert here == run.tracker._emitter.producer
    bodies: list[Any] = list(by_digest.values())
    series = [each for body in bodies for each in body.get("series", ())]
    mixed = {"image": [[1, 2]], "name": ["x"], "scalar": [2.0]}
    assert {"step": [5000], "metrics": mixed} in series
