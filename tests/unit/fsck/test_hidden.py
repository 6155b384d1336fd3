"""The checker holds the spool against records that hide numbers: all but the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provenance.capture.keys import new_run_keys
from provenance.capture.ship.commitments import Committer
from provenance.fingerprint.datasets import dataset_digest
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.record import Kind
from provenance.fsck.runs.run import _same
from provenance.settings import CommitmentSettings

NAMES = ("accuracy", "data.train.count")
KEYS = replace(new_run_keys(), commitments=CommitmentSettings(NAMES))
HEADER = SegmentHeader(KEYS.run, b"p" * 16, 0, 1, 0)
EVENTS = [
    Event(3, Kind.METRICS, 1, 0, 10**18, {"metrics": {"accuracy": 0.5, "loss": 1.0}}),
    Event(
        4,
        Kind.STEPS,
        None,
        0,
        10**18,
        {"series": [{"metrics": {"accuracy": [0.5], "loss": [1.0]}, "step": [1]}], "steps": 1},
    ),
    Event(5, Kind.DATA_TRAIN, None, 0, 10**18, dataset_digest([1, 2, 3]).as_fields()),
]
Change = Callable[[dict[str, Any]], object]


def same(event: Event, change: Change = lambda body: None) -> bool:
    committed = Committer(KEYS, HEADER.producer, Path("spool/run")).committed(event)
    record = record_of(committed, HEADER, b"s" * 32)
    change(record.body)
    return _same(event, HEADER, record.encode())


@pytest.mark.parametrize("event", EVENTS, ids=["metrics", "steps", "data"])
def test_a_hidden_number_is_no_difference(event: Event) -> None:
    assert same(event)
    assert not same(event, lambda body: body.update(more=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["metrics"].update(loss=2.0),
        lambda body: body["metrics"].pop("loss"),
        lambda body: body["metrics"].update(other=2.0),
        lambda body: body.pop("commitments"),
        lambda body: body.update(commitments=3),
        lambda body: body.update(commitments={"loss": 1}),
        lambda body: body.update(metrics=[]),
    ],
)
def test_all_else_is(change: Change) -> None:
    assert not same(EVENTS[0], change)
    assert not same(EVENTS[2], lambda body: body.update(root="mth-sha256:" + 64 * "0"))
    assert not same(EVENTS[2], lambda body: body.pop("commitments"))
