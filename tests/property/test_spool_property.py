"""Random damage to a segment: every intact frame is found, none is invented."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.spool import Corruption, read_segment
from provenance.formats.event import Event, SegmentHeader, frame
from provenance.formats.record import Kind

HEADER = SegmentHeader(UUID(int=7), bytes(16), 0, 1, 0).encode()

fields = st.dictionaries(
    st.text(max_size=8),
    st.one_of(st.floats(), st.integers(-9, 9), st.text(max_size=20)),
    max_size=5,
)
contents = st.lists(st.tuples(st.sampled_from(Kind), fields), min_size=1, max_size=25)
damages = st.lists(
    st.tuples(
        st.sampled_from(["flip", "zero", "cut", "insert", "remove"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.binary(min_size=1, max_size=40),
    ),
    max_size=4,
)


def apply(
    data: bytes, spans: list[tuple[int, int]], damage: tuple[str, float, int, bytes]
) -> tuple[bytes, list[tuple[int, int] | None]]:
    """Damage ``data``; the places of the frames behind it, None for those that were hit."""
    what, where, length, noise = damage
    at = int(where * len(data))
    if what == "cut":
        return data[:at], [(a, b) if b <= at else None for a, b in spans]
    if what == "insert":
        moved = [
            (a, b) if b <= at else (a + len(noise), b + len(noise)) if a >= at else None
            for a, b in spans
        ]
        return data[:at] + noise + data[at:], moved
    end = min(len(data), at + length)
    if what == "remove":
        moved = [
            (a, b) if b <= at else (a - (end - at), b - (end - at)) if a >= end else None
            for a, b in spans
        ]
        return data[:at] + data[end:], moved
    part = bytes(end - at) if what == "zero" else bytes(x ^ 0x55 for x in data[at:end])
    kept = [(a, b) if b <= at or a >= end or data[at:end] == part else None for a, b in spans]
    return data[:at] + part + data[end:], kept


def read(data: bytes, *, final: bool) -> list[tuple[int, Event | Corruption]]:
    handle, name = tempfile.mkstemp()
    try:
        with open(handle, "wb") as file:
            file.write(data)
        return list(read_segment(Path(name), final=final))
    finally:
        os.unlink(name)


@given(contents, damages, st.booleans())
def test_every_intact_frame_is_found_and_none_invented(
    content: list[tuple[Kind, dict[str, object]]],
    damage: list[tuple[str, float, int, bytes]],
    final: bool,
) -> None:
    events = [Event(n, kind, n, 0, n, body) for n, (kind, body) in enumerate(content)]
    data, spans = HEADER, []
    for event in events:
        begin = len(data)
        data += frame(event.encode())
        spans.append((begin, len(data)))
    alive = list(range(len(events)))
    for each in damage:
        if not data:
            break
        data, places = apply(data, spans, each)
        alive = [n for n, place in zip(alive, places, strict=True) if place is not None]
        spans = [place for place in places if place is not None]
    found = [item.encode() for _, item in read(data, final=final) if isinstance(item, Event)]
    originals = [event.encode() for event in events]
    intact = [originals[n] for n in alive]
    assert [f for f in found if f not in originals] == []
    remaining = iter(found)
    assert all(any(f == wanted for f in remaining) for wanted in intact), "an intact frame is lost"


@given(contents, st.floats(0, 1))
def test_reading_on_from_any_yielded_offset_gives_the_rest(
    content: list[tuple[Kind, dict[str, object]]], cut: float
) -> None:
    frames = [frame(Event(n, k, n, 0, n, b).encode()) for n, (k, b) in enumerate(content)]
    data = HEADER + b"".join(frames)
    handle, name = tempfile.mkstemp()
    path = Path(name)
    try:
        with open(handle, "wb") as file:
            file.write(data[: int(cut * len(data))])
        first = list(read_segment(path))
        path.write_bytes(data)
        offset = first[-1][0] if first else 0
        rest = list(read_segment(path, offset))
        seqs = [item.seq for _, item in first + rest if isinstance(item, Event)]
        assert seqs == list(range(len(frames)))
    finally:
        path.unlink()


@given(contents, st.integers(0, 400))
def test_a_final_segment_is_accounted_for_to_its_last_byte(
    content: list[tuple[Kind, dict[str, object]]], cut: int
) -> None:
    frames = [frame(Event(n, k, n, 0, n, b).encode()) for n, (k, b) in enumerate(content)]
    data = (HEADER + b"".join(frames))[: max(1, len(HEADER) + cut)]
    items = read(data, final=True)
    if len(data) > len(HEADER):
        assert items[-1][0] == len(data)
