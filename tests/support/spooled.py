"""What a trainer has written: the events of the spool below a base directory, and its log lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from provenance.capture.spool import read_segment, scan
from provenance.formats.event import Event
from provenance.formats.record import Kind


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """Log lines as without a configuration: what other tests configured is not asked for here."""
    kept = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**kept)


def spooled(base: Path) -> list[Event]:
    """Of all runs, each run's in order of writing."""
    return [
        item
        for run in scan(base / "spool")
        for segment in run.segments
        for _, item in read_segment(segment.path)
        if isinstance(item, Event)
    ]


def steps(events: list[Event]) -> list[tuple[int, dict[str, Any]]]:
    """Number and metrics of each step, in order of writing."""
    return [
        (event.fields["step"], dict(event.fields["metrics"]))
        for event in events
        if event.kind is Kind.STEPS
    ]


def kinds(events: list[Event]) -> list[str]:
    return [event.kind.value for event in events]


def bodies(events: list[Event], kind: Kind) -> list[dict[str, Any]]:
    return [dict(event.fields) for event in events if event.kind is kind]
