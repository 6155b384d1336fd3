"""Data that comes item by item has the digest of the list of its items."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from provenance.capture.data_stream import DataStream
from provenance.errors import InputError
from provenance.fingerprint.datasets import DatasetDigest, dataset_digest
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.record import Kind
from provenance.tracker import ProvenanceTracker
from tests.support.spooled import bodies, kinds, spooled

ITEMS = [({"x": np.full(3, at), "text": str(at)}, at) for at in range(2500)]


def test_a_stream_is_recorded_as_the_list_of_its_items(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    buffer = np.zeros(3)
    with tracker.data_stream("train") as add:
        for at in range(2500):
            buffer[:] = at  # what is added may change afterwards
            add(({"x": buffer, "text": str(at)}, at))
    with tracker.data_stream("test") as add:
        add("only")
    tracker.close()
    events = spooled(tmp_path)
    assert kinds(events)[:2] == ["data.train", "data.test"]
    listed = [({"x": np.full(3, float(at)), "text": str(at)}, at) for at in range(2500)]
    (body,) = bodies(events, Kind.DATA_TRAIN)
    assert body == dataset_digest(listed).as_fields() | {"kind": "stream"}


def test_watching_a_loop_adds_what_it_yields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded: list[DatasetDigest] = []
    stream = DataStream(recorded.append, HashFactory())
    assert list(stream.watch(iter(ITEMS))) == ITEMS
    assert [digest.root for digest in recorded] == [dataset_digest(ITEMS).root]
    for _ in DataStream(recorded.append, HashFactory()).watch(ITEMS):
        break
    assert "its loop ended before its items, not recorded" in capsys.readouterr().err
    with DataStream(recorded.append, HashFactory()) as add:
        for item, _ in zip(add.watch(ITEMS), range(2), strict=False):
            assert item[1] < 2
    assert recorded[1].root == dataset_digest(ITEMS[:3]).root  # zip asks for one more
    assert len(recorded) == 2


def test_mistakes_of_a_stream_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = ProvenanceTracker(tmp_path)
    with pytest.raises(InputError, match="found 'valid', expected 'train' or 'test'"):
        tracker.data_stream("valid")
    with pytest.raises(InputError, match="data item 1: at .*found object"):
        with tracker.data_stream("train") as add:
            add(1)
            add(object())
    with pytest.raises(InputError, match="empty"), tracker.data_stream("train"):
        pass
    with tracker.data_stream("train") as add:
        add(1)
        tracker.track_epoch(1, {"loss": 1})
    assert "ended after training began, recorded late" in capsys.readouterr().err
    with pytest.raises(InputError, match="an item after its end"):
        add(2)
    with pytest.raises(
        InputError, match="data_stream: what comes before training is sealed already"
    ):
        tracker.data_stream("train")
    tracker.close()
    assert kinds(spooled(tmp_path)).count("data.train") == 1


@pytest.mark.parametrize(("items", "problem"), [([1, object()], "found object"), ([], "empty")])
def test_a_watched_loop_is_not_ended_by_its_items(
    tmp_path: Path, items: list[object], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    assert list(tracker.data_stream("train").watch(items * 2)) == items * 2
    assert capsys.readouterr().err.count("data.train not recorded") == 1
    (gap,) = bodies(spooled(tmp_path), Kind.GAP)
    assert (gap["what"], problem in gap["reason"]) == ("data.train", True)
    assert kinds(spooled(tmp_path)) == ["gap"]


def test_other_ranks_hash_nothing() -> None:
    stream = DataStream(None, HashFactory())
    assert list(stream.watch([object])) == [object]


@pytest.mark.slow
def test_a_long_stream_takes_no_memory_of_its_length() -> None:
    stream = DataStream(lambda digest: None, HashFactory())
    for at in range(3000):
        stream(at)
    tracemalloc.start()
    for at in range(20000):
        stream(at)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1 << 18  # 20,000 digests take 1.3 MB
