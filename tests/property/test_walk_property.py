"""One walk over a run's seals against each seal's tree, built anew from all records."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import InputError
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.record import Kind, Phase, Record
from provenance.formats.run_tree.selection import DigestedRecord, before_mark, seal_marks
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree
from provenance.formats.run_tree.walk import RunWalk
from tests.support.ledger_values import SealedEntry, checkpoints_upto, covered, run_leaves, run_tree
from tests.support.runs import RUN

PRODUCERS = (b"\x01" * 16, b"\x02" * 16, b"\x03" * 16)
KINDS = (
    *(Kind.METRICS, Kind.STATE, Kind.PRIVACY, Kind.SEAL) * 4,
    *(Kind.STEPS, Kind.ARTIFACT, Kind.NOTE),
    *(Kind.RESULTS, Kind.CONFIG, Kind.DATA_TRAIN, Kind.WEIGHTS, Kind.GAP),
)
WHOLE = 25
"""Histories of a hundred that a ledger would have made: forward, with what seals have to state."""


def record(rng: random.Random, producer: bytes, seq: int, epochs: int) -> DigestedRecord:
    kind = rng.choice(KINDS)
    body: dict[str, Any] = {}
    epoch = rng.randrange(epochs) if kind.is_epoch else None
    if kind is Kind.SEAL:
        phase = rng.choice(("before", "checkpoint", "checkpoint", "after"))
        epoch = rng.randrange(epochs) if phase == "checkpoint" else None
        body = {"phase": phase, "epoch": epoch, "anchor": True}
    time = f"2026-01-01T00:00:00.{rng.randrange(40):06}Z"
    made = Record(RUN, kind, epoch, rng.randrange(3), producer, seq, time, b"s" * 32, body)
    return DigestedRecord(made, hashlib.sha256(repr(made).encode()).digest())


def history(rng: random.Random) -> tuple[list[DigestedRecord], list[SealedEntry]]:
    """Records with holes, in any order; seals of any order and coverage, and sometimes right."""
    epochs = rng.randint(1, 9)
    records = [
        record(rng, producer, seq, epochs)
        for producer in PRODUCERS[: rng.randint(1, 3)]
        for seq in range(rng.randint(0, 14))
        if rng.random() > 0.02
    ]
    rng.shuffle(records)
    upto = without_hole(records)
    asked: list[tuple[Phase, int | None]] = [
        (Phase.CHECKPOINT, epoch) for epoch in rng.sample(range(epochs), rng.randint(0, epochs))
    ]
    if right := rng.randrange(100) < WHOLE:
        asked.sort(key=lambda seal: seal[1] or 0)
    asked.insert(0 if right else rng.randint(0, len(asked)), (Phase.BEFORE, None))
    asked += [(Phase.AFTER, None)] * rng.randint(0, 1)
    entries: list[SealedEntry] = []
    for at, (phase, epoch) in enumerate(asked):
        stated = {p: rng.randint(1, n) for p, n in upto.items() if rng.random() < 0.8}
        if rng.random() < 0.03 and not right:
            stated[rng.choice(PRODUCERS)] = rng.randint(1, 20)  # more than are here, perhaps
        entry = SealedEntry(3 * at, phase, epoch, tuple(sorted(stated.items())))
        if right:
            stated = dict(wanted(records, [*entries, entry], entry))
            entry = SealedEntry(3 * at, phase, epoch, tuple(sorted(stated.items())))
        entries.append(entry)
    return records, entries


# --- the naive way -----------------------------------------------------------------------


def without_hole(records: Sequence[DigestedRecord]) -> dict[bytes, int]:
    here = {(item.record.producer, item.record.seq) for item in records}
    found = {p: next(n for n in range(99) if (p, n) not in here) for p in PRODUCERS}
    return {producer: count for producer, count in found.items() if count}


def upto_mark(records: Sequence[DigestedRecord]) -> dict[bytes, int]:
    leader = before_mark(seal_marks(item.record for item in records))
    return {} if leader is None else {leader.producer: leader.seq + 1}


def wanted(
    records: Sequence[DigestedRecord], entries: Sequence[SealedEntry], entry: SealedEntry
) -> dict[bytes, int]:
    """What a seal has to state, being what it states or less."""
    if entry.phase is Phase.AFTER:
        return without_hole(records)
    if entry.phase is Phase.CHECKPOINT:
        return covered(records, checkpoints_upto(entries, entry.index))
    stated = dict(entry.coverage)
    return {p: min(n, stated[p]) for p, n in upto_mark(records).items() if p in stated}


def tree(
    records: Sequence[DigestedRecord], entries: Sequence[SealedEntry], entry: SealedEntry
) -> MLProvenanceMerkleTree:
    checkpoints = checkpoints_upto(entries, entry.index)
    return run_tree(records, entry.phase, checkpoints, dict(entry.coverage))


def lost(old: MLProvenanceMerkleTree, new: MLProvenanceMerkleTree) -> str | None:
    """The first node of a tree that is not in a later one, which only adds to ``training``."""
    pairs = [(old.node(path), new.node(path)) for path in ("data", "model")]
    children = (each.node("training").children for each in (old, new))
    pairs += [(mine, theirs) for mine, theirs in zip_longest(*children) if mine is not None]
    return next((mine.path for mine, theirs in pairs if mine != theirs), None)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_every_seal_is_that_of_the_tree_built_anew(seed: int) -> None:
    rng = random.Random(seed)
    records, entries = history(rng)
    walk = RunWalk(RUN, records, entries)
    trees: list[MLProvenanceMerkleTree] = []
    for seal, entry in zip(walk.seals, entries, strict=True):
        assert seal.coverage == wanted(records, entries, entry)
        try:
            trees.append(tree(records, entries, entry))
        except InputError as error:
            assert (seal.root, seal.problem) == (None, str(error))
            return
        assert (seal.root, seal.problem) == (trees[-1].root, None)
        stated = dict(entry.coverage)
        missed = sum(n - stated.get(p, 0) for p, n in upto_mark(records).items())
        assert seal.uncovered == (missed if entry.phase is Phase.BEFORE else 0)
    assert walk.seals[0].lost is None
    for seal, (old, new) in zip(walk.seals[1:], pairwise(trees), strict=True):
        assert seal.lost == lost(old, new)
    leaves, late = run_leaves(records, entries[-1].phase, checkpoints_upto(entries))
    assert walk.leaves is not None
    assert {leaf.digest for leaf in walk.leaves} == {leaf.digest for leaf in leaves}
    assert {item.digest for item in walk.late} == {item.digest for item in late}


@given(st.integers(0, 2**32))
def test_the_chains_that_are_asked_for_are_those_of_the_records(seed: int) -> None:
    rng = random.Random(seed)
    records, entries = history(rng)
    counts = {producer: [rng.randint(1, 16) for _ in range(3)] for producer in PRODUCERS}
    walk = RunWalk(RUN, records, entries, counts)
    assert walk.without_hole == without_hole(records)
    digests = {(item.record.producer, item.record.seq): item.digest for item in records}
    for producer, asked in counts.items():
        for count in asked:
            upto = [digests.get((producer, seq)) for seq in range(count)]
            chain = walk.chains.get(producer, {}).get(count)
            whole = [digest for digest in upto if digest is not None]
            known = chain_on(chain_start(RUN, producer), whole) if None not in upto else None
            assert chain == known


@pytest.mark.parametrize(("kind", "epoch"), [(Kind.METRICS, None), (Kind.STATE, -1)])
def test_a_record_without_a_place_leaves_no_root(kind: Kind, epoch: int | None) -> None:
    """A damaged row of a database."""
    time = "2026-01-01T00:00:00.000000Z"
    made = Record(RUN, kind, epoch, 0, PRODUCERS[0], 0, time, b"s" * 32, {})
    records = [DigestedRecord(made, bytes(32))]
    entries = [
        SealedEntry(0, Phase.BEFORE, None, ()),
        SealedEntry(1, Phase.AFTER, None, ((PRODUCERS[0], 1),)),
    ]
    walk = RunWalk(RUN, records, entries)
    assert walk.leaves is None
    for seal, entry in zip(walk.seals, entries, strict=True):
        try:
            assert (seal.root, seal.problem) == (tree(records, entries, entry).root, None)
        except InputError as error:
            assert (seal.root, seal.problem) == (None, str(error))


def test_nothing_is_decided_behind_an_after_seal() -> None:
    rng = random.Random(1)
    records = [
        item for seq in range(9) if (item := record(rng, PRODUCERS[0], seq, 3)).record.kind.is_epoch
    ]
    own = ((PRODUCERS[0], 1),) if records[0].record.seq == 0 else ()
    entries = [SealedEntry(0, Phase.AFTER, None, own), SealedEntry(1, Phase.CHECKPOINT, 3, own)]
    last = RunWalk(RUN, records, entries).seals[-1]
    assert last.root is None
    assert last.problem is not None
    assert "behind the after seal" in last.problem
