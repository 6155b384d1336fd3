"""Which records are leaves: the five rules, one by one, and that arrival never matters.

Over 400 lines: case by case, one file: `provenance/formats/run_tree/selection.py`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import InputError
from provenance.formats.producers.statement import chain_on, chain_start, statement_digest
from provenance.formats.record import Json, Kind, Phase, Record, record_digest
from provenance.formats.run_tree.selection import (
    DigestedRecord,
    before_mark,
    seal_marks,
    written_marks,
)
from provenance.formats.run_tree.walk import RunWalk
from tests.support.ledger_values import (
    Checkpoint,
    SealedEntry,
    covered,
    producer_digests,
    run_leaves,
    run_tree,
)
from tests.support.runs import RUN

A, B = b"a" * 16, b"b" * 16
BEFORE_KINDS = (
    Kind.DATA_TRAIN, Kind.DATA_TEST, Kind.ARCHITECTURE, Kind.WEIGHTS, Kind.CONFIG,
)  # fmt: skip
EPOCH_KINDS = (Kind.STATE, Kind.METRICS, Kind.PRIVACY)


@dataclass
class Story:
    """Records in the order they were written; time passes with each."""

    records: list[DigestedRecord] = field(default_factory=list)
    seqs: dict[bytes, int] = field(default_factory=dict)

    def add(
        self,
        kind: Kind,
        epoch: int | None = None,
        producer: bytes = A,
        at: int | None = None,
        /,
        **body: Json,
    ) -> DigestedRecord:
        seq = self.seqs.get(producer, 0)
        self.seqs[producer] = seq + 1
        time = len(self.records) if at is None else at
        record = Record(
            RUN, kind, epoch, int(producer == B), producer, seq,
            f"2026-01-01T00:00:00.{time:09}Z", b"s" * 32, dict(body),
        )  # fmt: skip
        item = DigestedRecord(record, record_digest(record.encode()))
        self.records.append(item)
        return item

    def seal(self, phase: str, epoch: int | None = None, producer: bytes = A) -> DigestedRecord:
        return self.add(Kind.SEAL, epoch, producer, phase=phase, epoch=epoch, anchor=True)

    def begin(self) -> list[DigestedRecord]:
        written = [self.add(kind) for kind in BEFORE_KINDS]
        self.seal("before")
        return written

    def walk(self, phase: Phase, checkpoints: Sequence[Checkpoint]) -> RunWalk:
        entries = [
            SealedEntry(at, Phase.CHECKPOINT, each.epoch, tuple(sorted(each.coverage.items())))
            for at, each in enumerate(checkpoints)
        ]
        if phase is not Phase.CHECKPOINT:
            entries.append(SealedEntry(len(entries), phase, None, ()))
        return RunWalk(RUN, self.records, entries)

    def leaves(self, phase: Phase, *checkpoints: Checkpoint) -> set[bytes]:
        leaves = {leaf.digest for leaf in run_leaves(self.records, phase, checkpoints)[0]}
        assert leaves == {leaf.digest for leaf in self.walk(phase, checkpoints).leaves or ()}
        return leaves

    def late(self, phase: Phase, *checkpoints: Checkpoint) -> set[bytes]:
        late = {item.digest for item in run_leaves(self.records, phase, checkpoints)[1]}
        assert late == {item.digest for item in self.walk(phase, checkpoints).late}
        return late

    def sealed(self, epoch: int, *checkpoints: Checkpoint) -> Checkpoint:
        """The checkpoint of an epoch with all that is here, behind ``checkpoints``."""
        return Checkpoint(epoch, coverage_at(self.records, epoch, self.seqs, checkpoints))


def coverage_at(
    records: Collection[DigestedRecord],
    epoch: int,
    arrived: Mapping[bytes, int],
    checkpoints: Sequence[Checkpoint],
) -> dict[bytes, int]:
    """What a checkpoint states that is sealed now.

    Args:
        arrived: Per producer how many of its first events are here without a hole.
        checkpoints: Those sealed before it.
    """
    own = {
        mark.producer: mark.seq
        for mark in seal_marks(item.record for item in records)
        if mark.phase is Phase.CHECKPOINT and mark.epoch == epoch
    }
    upto = {producer: min(count, own.get(producer, count)) for producer, count in arrived.items()}
    return covered(records, [*checkpoints, Checkpoint(epoch, upto)])


def digests(*items: DigestedRecord) -> set[bytes]:
    return {item.digest for item in items}


# --- rule 1: who leads -------------------------------------------------------------------


def test_1_the_first_before_mark_leads() -> None:
    story = Story()
    story.seal("before", producer=B)
    story.seal("before", producer=A)
    mark = before_mark(seal_marks(item.record for item in story.records))
    assert mark is not None
    assert mark.producer == B


def test_1_at_the_same_time_the_smaller_producer_leads() -> None:
    story = Story()
    for producer in (B, A):
        story.add(Kind.SEAL, None, producer, 5, phase="before", epoch=None, anchor=True)
    mark = before_mark(seal_marks(item.record for item in story.records))
    assert mark is not None
    assert mark.producer == A


def test_1_without_a_before_mark_nobody_leads_and_nothing_of_before_counts() -> None:
    story = Story()
    config = story.add(Kind.CONFIG)
    metrics = story.add(Kind.METRICS, 1)
    results = story.add(Kind.RESULTS)
    assert story.leaves(Phase.AFTER) == digests(metrics)
    assert story.late(Phase.AFTER) == digests(config, results)


@pytest.mark.parametrize(
    "body",
    [
        {"phase": "sideways", "epoch": None},
        {"phase": ["before"], "epoch": None},
        {"phase": {"before": 1}, "epoch": None},
        {"phase": None, "epoch": None},
        {"phase": "before", "epoch": "1"},
        {"phase": "before", "epoch": True},
        {"phase": "before", "epoch": 1},
        {"phase": "after", "epoch": 0},
        {"phase": "checkpoint", "epoch": None},
        {"phase": "checkpoint", "epoch": -1},
        {"phase": "checkpoint", "epoch": 1.5},
        {},
    ],
)
def test_a_malformed_mark_is_no_mark_and_no_obstacle(body: dict[str, Json]) -> None:
    story = Story()
    story.add(Kind.SEAL, None, B, 0, **body)
    story.begin()
    marks = seal_marks(item.record for item in story.records)
    assert [mark.producer for mark in marks] == [A]


# --- rule 2: before ----------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.BEFORE, Phase.AFTER])
def test_2_before_kinds_count_below_the_leaders_mark(phase: Phase) -> None:
    story = Story()
    written = story.begin()
    behind = [story.add(kind) for kind in BEFORE_KINDS]
    others = [story.add(kind, None, B) for kind in BEFORE_KINDS]
    assert story.leaves(phase) == digests(*written)
    assert story.late(phase) == digests(*behind, *others)


def test_2_another_producers_early_records_do_not_count() -> None:
    story = Story()
    foreign = story.add(Kind.CONFIG, None, B)
    written = story.begin()
    assert story.leaves(Phase.BEFORE) == digests(*written)
    assert story.late(Phase.BEFORE) == digests(foreign)


# --- rule 3: epochs ----------------------------------------------------------------------


def test_3_epoch_records_count_at_after_from_every_producer() -> None:
    story = Story()
    written = story.begin()
    epochs = [story.add(kind, 1, producer) for kind in EPOCH_KINDS for producer in (A, B)]
    assert story.leaves(Phase.BEFORE) == digests(*written)
    assert story.leaves(Phase.AFTER) == digests(*written, *epochs)


def test_3_a_checkpoint_takes_epochs_up_to_its_own_written_before_the_mark() -> None:
    story = Story()
    written = story.begin()
    one, two = story.add(Kind.METRICS, 1), story.add(Kind.METRICS, 2)
    three = story.add(Kind.METRICS, 3)
    story.seal("checkpoint", 2)
    behind = story.add(Kind.METRICS, 2)
    without_mark = story.add(Kind.METRICS, 1, B)
    own = story.sealed(2)
    assert own.coverage == {A: two.record.seq + 1, B: 1}
    assert story.leaves(Phase.CHECKPOINT, own) == digests(*written, one, two, without_mark)
    assert story.late(Phase.CHECKPOINT, own) == digests(behind)
    assert story.leaves(Phase.AFTER, own) == digests(*written, one, two, three, without_mark)


def test_3_each_producer_has_its_own_mark() -> None:
    story = Story()
    story.begin()
    mine = story.add(Kind.METRICS, 1)
    story.seal("checkpoint", 1)
    theirs = story.add(Kind.METRICS, 1, B)
    story.seal("checkpoint", 1, B)
    too_late = story.add(Kind.METRICS, 1, B)
    counted = story.leaves(Phase.CHECKPOINT, story.sealed(1))
    assert {mine.digest, theirs.digest} <= counted
    assert too_late.digest not in counted


def test_3_of_two_marks_of_one_producer_the_one_with_the_lower_seq_counts() -> None:
    story = Story()
    story.begin()
    early = story.add(Kind.METRICS, 1, B)
    story.add(Kind.SEAL, 1, B, 90, phase="checkpoint", epoch=1, anchor=True)
    between = story.add(Kind.METRICS, 1, B)
    story.add(Kind.SEAL, 1, B, 50, phase="checkpoint", epoch=1, anchor=True)  # a clock went back
    own = story.sealed(1)
    assert own.coverage == {B: 1}
    assert early.digest in story.leaves(Phase.CHECKPOINT, own)
    assert story.late(Phase.AFTER, own) == digests(between)


# --- rule 4: what was sealed stays a prefix ----------------------------------------------


def test_4_what_a_checkpoint_does_not_cover_is_late_for_good() -> None:
    story = Story()
    written = story.begin()
    one = story.add(Kind.METRICS, 1)
    story.seal("checkpoint", 1)
    own = story.sealed(1)
    behind, next_one = story.add(Kind.METRICS, 1), story.add(Kind.METRICS, 2)
    strangers = story.add(Kind.METRICS, 0, B)
    assert story.leaves(Phase.AFTER, own) == digests(*written, one, next_one)
    assert story.late(Phase.AFTER, own) == digests(behind, strangers)
    later = story.sealed(3, own)
    assert later.coverage == {A: next_one.record.seq + 1}
    assert story.leaves(Phase.CHECKPOINT, own, later) == digests(*written, one, next_one)
    assert story.late(Phase.AFTER) == set(), "the checkpoint was never sealed"


def test_4_a_mark_that_comes_after_its_seal_changes_nothing() -> None:
    """A process that was restarted marks the epoch of a checkpoint again."""
    story = Story()
    story.begin()
    story.add(Kind.METRICS, 1)
    story.seal("checkpoint", 1)
    own = story.sealed(1)
    sealed = story.leaves(Phase.CHECKPOINT, own)
    again = story.add(Kind.METRICS, 1, B)
    story.seal("checkpoint", 1, B)
    assert story.leaves(Phase.CHECKPOINT, own) == sealed
    assert story.late(Phase.CHECKPOINT, own) == digests(again)


def test_4_only_what_arrived_without_a_hole_is_covered() -> None:
    story = Story()
    story.begin()
    items = [story.add(Kind.METRICS, 1, B) for _ in range(4)]
    held = [item for item in story.records if item is not items[2]]
    coverage = coverage_at(held, 1, {A: story.seqs[A], B: 2}, [])
    assert coverage == {B: 2}
    assert story.late(Phase.AFTER, Checkpoint(1, coverage)) == digests(*items[2:])


def test_4_the_first_checkpoint_that_reaches_an_epoch_decides() -> None:
    story = Story()
    story.begin()
    one, two = story.add(Kind.METRICS, 1, B), story.add(Kind.METRICS, 2, B)
    three = story.add(Kind.METRICS, 3, B)
    first, second = Checkpoint(2, {B: 1}), Checkpoint(3, {B: 3})
    assert story.late(Phase.AFTER, first, second) == digests(two)
    assert story.leaves(Phase.AFTER, first, second) >= digests(one, three)
    assert story.late(Phase.AFTER, Checkpoint(5, {}), Checkpoint(3, {B: 3})) == digests(
        one, two, three
    ), "one out of order decides nothing any more"


def test_4_what_is_stated_ends_at_a_record_that_counts() -> None:
    story = Story()
    story.begin()
    story.add(Kind.METRICS, 1, B)
    story.add(Kind.GAP, None, B, dropped=1)
    assert story.sealed(1).coverage == {B: 1}
    assert covered(story.records, [Checkpoint(1, {B: 2})]) == {B: 1}
    assert covered(story.records, [Checkpoint(0, {}), Checkpoint(1, {B: 2, A: 9})]) == {B: 1}
    assert covered(story.records, [Checkpoint(1, {B: 1}), Checkpoint(1, {B: 1})]) == {}
    assert covered(story.records, []) == {}


def test_4_the_checkpoint_is_a_prefix_of_after() -> None:
    story = Story()
    story.begin()
    for epoch in (1, 2, 3, 4):
        for producer in (A, B):
            story.add(Kind.METRICS, epoch, producer)
            story.add(Kind.STATE, epoch, producer)
            if epoch == 2:
                story.seal("checkpoint", 2, producer)
                story.add(Kind.METRICS, 1, producer)
    own = story.sealed(2)
    assert story.leaves(Phase.CHECKPOINT, own) <= story.leaves(Phase.AFTER, own)


# --- checkpoints go forward --------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "counting"),
    [([5, 3], [5]), ([3, 5], [3, 5]), ([5, 3, 4, 6], [5, 6]), ([2, 2], [2]), ([0], [0])],
)
def test_a_checkpoint_mark_behind_a_later_one_does_not_count(
    written: list[int], counting: list[int]
) -> None:
    story = Story()
    for epoch in written:
        story.seal("checkpoint", epoch)
    story.seal("checkpoint", 1, B)
    records = [item.record for item in story.records]
    assert [m.epoch for m in seal_marks(records) if m.producer == A] == counting
    assert [m.epoch for m in seal_marks(records) if m.producer == B] == [1]
    assert len(written_marks(records)) == len(written) + 1


# --- rule 5: results ---------------------------------------------------------------------


def test_5_results_count_from_the_leader_and_from_who_ends() -> None:
    story = Story()
    written = story.begin()
    leader = story.add(Kind.RESULTS)
    ender = story.add(Kind.RESULTS, None, B)
    stranger = story.add(Kind.RESULTS, None, b"c" * 16)
    assert story.late(Phase.AFTER) == digests(ender, stranger)
    story.seal("after", producer=B)
    assert story.leaves(Phase.AFTER) == digests(*written, leader, ender)
    assert story.late(Phase.AFTER) == digests(stranger)
    assert not story.leaves(Phase.BEFORE) & digests(leader, ender)
    assert not story.leaves(Phase.CHECKPOINT, story.sealed(9)) & digests(leader, ender)


def test_control_records_are_never_leaves() -> None:
    story = Story()
    story.begin()
    ends = [story.seal("after"), story.add(Kind.RUN_END, events=8)]
    assert not story.leaves(Phase.AFTER) & digests(*ends)
    assert not story.late(Phase.AFTER) & digests(*ends)


# --- arrival -----------------------------------------------------------------------------

producers = st.sampled_from([A, B, b"c" * 16])
epochs = st.integers(0, 4)
facts = st.one_of(
    st.tuples(st.sampled_from([*BEFORE_KINDS, Kind.RESULTS, Kind.RUN_END]), st.none(), producers),
    st.tuples(st.sampled_from(EPOCH_KINDS), epochs, producers),
)
marks = st.tuples(
    st.sampled_from(["before", "checkpoint", "after", "sideways"]),
    st.one_of(st.none(), epochs),
    producers,
)


coverages = st.dictionaries(producers, st.integers(0, 12))


@given(
    steps=st.lists(st.one_of(facts, marks), max_size=25),
    seed=st.integers(0, 2**32),
    phase=st.sampled_from(list(Phase)),
    checkpoints=st.lists(st.builds(Checkpoint, epochs, coverages), max_size=3),
    same_time=st.booleans(),
)
def test_the_order_of_arrival_never_matters(
    steps: list[tuple[Kind | str, int | None, bytes]],
    seed: int,
    phase: Phase,
    checkpoints: list[Checkpoint],
    same_time: bool,
) -> None:
    story = Story()
    for what, number, producer in steps:
        at = 0 if same_time else None
        if isinstance(what, Kind):
            story.add(what, number, producer, at)
        else:
            story.add(Kind.SEAL, number, producer, at, phase=what, epoch=number, anchor=True)
    shuffled = list(story.records)
    random.Random(seed).shuffle(shuffled)
    leaves, late = run_leaves(story.records, phase, checkpoints)
    other_leaves, other_late = run_leaves(shuffled, phase, checkpoints)
    assert {leaf.digest for leaf in leaves} == {leaf.digest for leaf in other_leaves}
    assert {item.digest for item in late} == {item.digest for item in other_late}
    assert not {leaf.digest for leaf in leaves} & {item.digest for item in late}
    root = run_tree(story.records, phase, checkpoints).root
    assert root == run_tree(shuffled, phase, checkpoints).root
    assert covered(story.records, checkpoints) == covered(shuffled, checkpoints)


# --- what stands under a root for each producer --------------------------------------------


def test_a_producer_enters_as_its_statement_over_what_the_seal_covers() -> None:
    story = Story()
    story.begin()
    story.add(Kind.GAP, None, B, dropped=1)
    own = [item.digest for item in story.records if item.record.producer == A]
    (other,) = (item.digest for item in story.records if item.record.producer == B)
    chains = {
        A: chain_on(chain_start(RUN, A), own[:4]),
        B: chain_on(chain_start(RUN, B), [other]),
    }
    found = producer_digests(story.records, {B: 1, A: 4})
    assert found == [statement_digest(RUN, A, 4, chains[A]), statement_digest(RUN, B, 1, chains[B])]
    assert producer_digests(story.records, {}) == []
    root = run_tree(story.records, Phase.AFTER, (), {A: 6, B: 1}).root
    gap = replace(story.records[-1], digest=bytes(32))
    edited = run_tree([*story.records[:-1], gap], Phase.AFTER, (), {A: 6, B: 1}).root
    assert edited != root, "a control record is under the root"


@pytest.mark.parametrize(("producer", "count", "event"), [(A, 7, 6), (B, 1, 0), (A, 0, 0)])
def test_what_is_covered_and_not_here_is_named(producer: bytes, count: int, event: int) -> None:
    story = Story()
    story.begin()
    with pytest.raises(InputError, match=f"{producer.hex()}: event {event} is covered and is not"):
        producer_digests(story.records, {producer: count})
