"""What ``track_data(items=True)`` keeps, and when it leaves what is kept alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import provenance
from provenance.errors import InputError
from provenance.formats.record import Kind
from provenance.items import sorted_file
from provenance.items.folder import ItemFolder
from provenance.tracker import ProvenanceTracker

ROWS = np.arange(40, dtype="u1").reshape(20, 2)


def kept(tracker: ProvenanceTracker) -> dict[str, bytes]:
    folder = tracker.settings.base_dir / "items" / tracker.run_id
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Bodies of the records of data."""
    found: list[dict[str, Any]] = []
    emit = provenance.capture.emitter.Emitter.emit

    def noted(self: Any, kind: Kind, epoch: int | None, fields: Any, **more: Any) -> Any:
        if kind in (Kind.DATA_TRAIN, Kind.DATA_TEST):
            found.append(json.loads(json.dumps(fields)))
        return emit(self, kind, epoch, fields, **more)

    monkeypatch.setattr("provenance.capture.emitter.Emitter.emit", noted)
    return found


def test_the_same_data_again_is_recorded_once_under_the_same_key(
    tmp_path: Path, emitted: list[dict[str, Any]]
) -> None:
    with ProvenanceTracker(tmp_path) as tracker:
        tracker.track_data(ROWS, ROWS[:5], items=True)
        before = kept(tracker)
        assert sorted(before) == ["test.digests", "test.key", "train.digests", "train.key"]
        assert [len(before[name]) for name in sorted(before)] == [5 * 32, 65, 20 * 32, 65]
        tracker.track_data(ROWS, ROWS[:5], items=True)
        tracker.store_merkle_on_blockchain_before_training({})
        tracker.track_data(ROWS, ROWS[:5], items=True)
        assert kept(tracker) == before
        with pytest.raises(InputError, match="track_data: what comes before training is sealed"):
            tracker.track_data(ROWS[::2], items=True)
        assert kept(tracker) == before
    assert kept(tracker) == before
    assert [(body["items"]["count"], body["items"]["size"]) for body in emitted] == [
        (20, 20),
        (5, 5),
    ]
    text = json.dumps(emitted)
    assert before["train.key"].decode().strip() not in text


def test_other_data_before_training_takes_the_place_of_the_first(
    tmp_path: Path, emitted: list[dict[str, Any]]
) -> None:
    with ProvenanceTracker(tmp_path) as tracker:
        tracker.track_data(ROWS, items=True)
        key = kept(tracker)["train.key"]
        tracker.track_data(np.concatenate([ROWS, ROWS]), items=True)
        assert kept(tracker)["train.key"] == key
    counts = [(body["items"]["count"], body["items"]["size"]) for body in emitted]
    assert counts == [(20, 20), (40, 20)]
    assert emitted[0]["items"]["root"] == emitted[1]["items"]["root"]


def test_a_stream_has_the_set_of_the_list_of_its_items(
    tmp_path: Path, emitted: list[dict[str, Any]]
) -> None:
    with ProvenanceTracker(tmp_path) as tracker:
        tracker.track_data(list(ROWS), items=True)
        with tracker.data_stream("train", items=True) as add:
            for item in ROWS:
                add(item)
        assert list(tracker.data_stream("train", items=True).watch(list(ROWS)))
        tracker.store_merkle_on_blockchain_before_training({})
    assert [body["items"] for body in emitted] == [emitted[0]["items"]] * 3
    assert emitted[1]["kind"] == "stream"


def test_a_stream_that_ends_early_leaves_what_was_kept(
    tmp_path: Path, emitted: list[dict[str, Any]]
) -> None:
    with ProvenanceTracker(tmp_path) as tracker:
        tracker.track_data(ROWS, items=True)
        before = kept(tracker)
        for _ in tracker.data_stream("train", items=True).watch(list(ROWS)):
            break
        with pytest.raises(FileNotFoundError), tracker.data_stream("train", items=True) as add:
            add(ROWS[0])
            raise FileNotFoundError  # of the source, not of the set
        with pytest.raises(InputError, match="data item 0"):
            with tracker.data_stream("train", items=True) as add:
                add(object())
        assert kept(tracker) == before
    assert len(emitted) == 1


def test_without_items_nothing_is_kept(tmp_path: Path, emitted: list[dict[str, Any]]) -> None:
    with ProvenanceTracker(tmp_path) as tracker:
        tracker.track_data(ROWS)
    assert not (tmp_path / "items").exists()
    assert "items" not in emitted[0]


def test_a_run_of_the_short_api_keeps_them_too(tmp_path: Path) -> None:
    with provenance.run("short", base_dir=tmp_path) as run:
        run.data(ROWS, items=True)
    assert (tmp_path / "items" / run.id / "train.digests").stat().st_mode & 0o777 == 0o600


def test_two_runs_over_the_same_data_cannot_be_compared(tmp_path: Path) -> None:
    sets = []
    for _ in range(2):
        with ProvenanceTracker(tmp_path) as tracker:
            sets.append(ItemFolder(tmp_path, tracker.run).record("train", ROWS))
    assert sets[0].root != sets[1].root
    assert sets[0].key != sets[1].key


def test_what_fails_while_it_is_read_leaves_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProvenanceTracker(tmp_path) as tracker:
        folder = ItemFolder(tmp_path, tracker.run)
        folder.record("train", ROWS)
        before = kept(tracker)
        monkeypatch.setattr(sorted_file, "RUN_DIGESTS", 4)
        with pytest.raises(InputError, match="data item 1: at"):
            folder.record("train", [b"one", object()])
        assert kept(tracker) == before


def test_a_folder_that_takes_nothing_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("a file")
    with ProvenanceTracker(tmp_path) as tracker:
        with pytest.raises(InputError, match="items/.*: cannot be written: Not a directory"):
            tracker.track_data(ROWS, items=True)
