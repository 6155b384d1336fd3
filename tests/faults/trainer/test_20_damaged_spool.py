"""Scenario 20: truncated and bit-flipped spool files: reported, and the rest shipped.

Damage of every shape, seeded: bits flipped anywhere behind the header, stretches overwritten
or zeroed, files cut off, headers destroyed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from structlog.testing import capture_logs

from provenance.capture.emitter import Emitter
from provenance.capture.keys import keep_run_keys, new_run_keys
from provenance.capture.spool import read_segment, scan_run
from provenance.formats.event import Event, SegmentHeader
from provenance.formats.record import Kind
from tests.faults.support import by_hand
from tests.faults.support.harness import World, rounds, scenario, seeded

EVENTS = 120


def whole_run(spool: Path) -> UUID:
    """A finished run in segments of some thirty events."""
    keys = new_run_keys()
    run = keys.run
    keep_run_keys(spool / str(run), keys)
    emitter = Emitter(spool, run, segment_bytes=3000)
    emitter.emit(Kind.DATA_TRAIN, None, {"root": "t"})
    emitter.emit(
        Kind.CONFIG,
        None,
        {"public_key": keys.public_key.hex(), "hash_algorithm": "blake3", "world_size": 1},
    )
    emitter.emit(Kind.SEAL, None, {"phase": "before", "epoch": None, "anchor": True})
    for number in range(EVENTS):
        assert emitter.emit(Kind.METRICS, number, {"metrics": {"loss": 1 / (number + 1)}})
    emitter.emit(Kind.SEAL, None, {"phase": "after", "epoch": None, "anchor": True})
    assert emitter.close()
    return run


def flip(data: bytearray, start: int, rng: random.Random) -> tuple[int, int]:
    at = rng.randrange(start, len(data))
    data[at] ^= 1 << rng.randrange(8)
    return at, at + 1


def overwrite(data: bytearray, start: int, rng: random.Random) -> tuple[int, int]:
    at = rng.randrange(start, len(data))
    end = min(len(data), at + rng.randrange(1, 400))
    data[at:end] = rng.randbytes(end - at) if rng.random() < 0.5 else bytes(end - at)
    return at, end


def truncate(data: bytearray, start: int, rng: random.Random) -> tuple[int, int]:
    at, size = rng.randrange(start, len(data)), len(data)
    del data[at:]
    return at, size


def behead(data: bytearray, start: int, rng: random.Random) -> tuple[int, int]:
    data[: start - 1] = rng.randbytes(start - 1)
    return 0, start - 1


Shape = Callable[[bytearray, int, random.Random], tuple[int, int]]
SHAPES: list[Shape] = [
    flip, flip, overwrite, truncate, behead,
]  # fmt: skip


def spoil(path: Path, shape: Shape, start: int, rng: random.Random) -> set[int]:
    """The places whose bytes are others now: zeros may be written over zeros."""
    before = path.read_bytes()
    changed: set[int] = set()
    while not changed:
        data = bytearray(before)
        a, b = shape(data, start, rng)
        changed = {at for at in range(a, b) if at >= len(data) or data[at] != before[at]}
    path.write_bytes(data)
    return changed


def damage(spool: Path, run: UUID, rng: random.Random) -> tuple[int, set[int], set[int]]:
    """Spoil some segments; how many show it (one that is cut off behind an event has all that a
    shorter one would have), and the numbers of the events untouched and touched."""
    safe: set[int] = set()
    spoiled: set[int] = set()
    segments = scan_run(spool / str(run), run).segments
    shown = 0
    chosen = set(rng.sample(range(len(segments)), rng.randint(1, len(segments) // 2)))
    for index, segment in enumerate(segments):
        first = segment.header()[1]
        places, begin = [], first
        for end, item in read_segment(segment.path, final=True):
            assert isinstance(item, Event)
            places.append((begin, end, item.seq))
            begin = end
        changed: set[int] = set()
        if index in chosen:
            changed = spoil(segment.path, rng.choice(SHAPES), first, rng)
            size, whole = segment.size(), places[-1][1]
            shown += size == whole or size not in {begin for begin, _, _ in places}
        for begin, end, seq in places:
            (safe if changed.isdisjoint(range(begin, end)) else spoiled).add(seq)
    return shown, safe, spoiled


def test_damage_is_reported_and_the_rest_is_shipped(world: World) -> None:
    with scenario(20, "truncated and bit-flipped spool records") as tally:
        rng = seeded()
        spool = world.base / "spool"
        for _ in range(rounds(10, 60)):
            run = whole_run(spool)
            files, safe, spoiled = damage(spool, run, rng)
            with capture_logs() as logs:
                passes = by_hand.bring_home(world.settings)
            assert sum(p.corruptions for p in passes) >= files
            tally.kills += files
            assert sum("is damaged" in line["event"] for line in logs) >= files
            with world.store().snapshot() as tx:
                rows, row = tx.records(run), tx.run(run)
            gaps = {r.seq for r in rows if r.kind is Kind.GAP}
            there = {r.seq for r in rows} - gaps
            tally.events += len(safe)
            tally.lost += len(safe - there)
            assert not there & spoiled, "an event that was damaged came through"
            assert gaps <= spoiled
            # Only behind a tail that is gone does nobody know what is missing.
            assert gaps | there == set(range(len(rows)))
            marks = {2, EVENTS + 3, EVENTS + 4}
            assert row is not None
            assert (row.state == "sealed") == (marks <= there)
        left = {path.suffix for path in spool.glob("*/*")}
        assert left <= {".damaged", ".key", ".json"}, "all segments were shipped and let go"
        # Nobody sends what is lost, and the checker says so.
        findings = world.fsck()["findings"]
        assert all("gap" in f["kind"] or "missing" in f["kind"] for f in findings), findings


def test_a_header_of_another_run_or_rank_ships_nothing_under_a_wrong_name(world: World) -> None:
    """The name of the file decides, a header that lies changes nothing."""
    with scenario(20, "a segment header that lies") as tally:
        spool = world.base / "spool"
        run = whole_run(spool)
        segment = scan_run(spool / str(run), run).segments[1]
        data = segment.path.read_bytes()
        header, start = SegmentHeader.decode(data)
        lie = SegmentHeader(new_run_keys().run, bytes(16), 5, 9, header.first_seq).encode()
        segment.path.write_bytes(lie + data[start:])
        by_hand.bring_home(world.settings)
        with world.store().snapshot() as tx:
            assert [row.run for row in tx.runs()] == [run]
            assert {row.rank for row in tx.records(run)} == {0}
            tally.events = len(tx.records(run))
        world.wait_sealed(run, 1)
        world.judge(tally)
