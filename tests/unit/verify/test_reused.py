"""Digests that a record took from an earlier one are said, and compared with that one."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest

from provenance.evidence.disclosure import withhold
from provenance.formats import merkle
from provenance.formats.record import Kind
from provenance.verify.report import VerificationReport
from tests.support.verify_world import Fields, World, before, ending, metrics

READ = "read in this epoch"
"""A tensor without a mark."""


def state(epoch: int | None, sources: Mapping[str, Any], **reused: Any) -> Fields:
    """Weights of which each tensor has its name's digest, read in the epoch that is given."""
    digests = {name: sha256(name.encode()) for name in sources}
    tensors = [
        {"name": name, "digest": f"sha256:{digests[name].hexdigest()}"}
        | ({} if source is READ else {"read": source})
        for name, source in sources.items()
    ]
    root = merkle.root([digests[name].digest() for name in sorted(digests)]).hex()
    body = {"algorithm": "sha256", "root": f"mth-sha256:{root}", "tensors": tensors}
    kind = Kind.WEIGHTS if epoch is None else Kind.STATE
    return (kind, epoch, body | ({"reused": reused} if reused else {}))


def verified(*states: Fields, rank_1: tuple[Fields, ...] = ()) -> VerificationReport:
    """What is said of a run with these records."""
    return story(*states, rank_1=rank_1).verify()


def story(*states: Fields, rank_1: tuple[Fields, ...] = ()) -> World:
    """A run with these records, anchored."""
    stage = World(("bitcoin",))
    if rank_1:
        other = [*rank_1, (Kind.RUN_END, None, {"events": len(rank_1), "reason": "finished"})]
        stage.ingest(stage.batch(other, rank=1, producer=b"q" * 16))
    first = before(world_size=2 if rank_1 else 1)
    epochs = dict.fromkeys(epoch for _, epoch, _ in states[1:] if epoch)
    events = [*first[:3], states[0], *first[4:], *map(metrics, epochs), *states[1:]]
    stage.ingest(stage.batch(ending(events)))
    stage.anchor()
    return stage


def notes(*states: Fields, rank_1: tuple[Fields, ...] = ()) -> list[tuple[str, str]]:
    """Path and line of each notice about a run with these records, which hold."""
    report = verified(*states, rank_1=rank_1)
    assert report.outcome == "verified"
    assert {(notice.check, notice.path == notice.subject) for notice in report.notices} <= {
        (10, True)
    }
    return [(notice.subject, notice.problem) for notice in report.notices]


WEIGHTS = state(None, {"a": READ, "b": READ, "c": READ})


def test_a_run_that_reads_all_has_no_note() -> None:
    assert notes(WEIGHTS, state(1, {"a": READ, "b": READ})) == []


def test_the_newest_epoch_is_told_and_the_others_are_counted() -> None:
    one = state(1, {"a": None, "b": READ, "c": READ}, tensors=1)
    two = state(2, {"a": None, "b": 1, "c": READ}, tensors=2)
    assert notes(WEIGHTS, one) == [
        (
            "training/epoch/1/state/0",
            "1 of 3 tensors of epoch 1 were not read again: frozen, their digests are those of "
            "the weights before training",
        )
    ]
    assert notes(WEIGHTS, one, two) == [
        (
            "training/epoch/2/state/0",
            "2 of 3 tensors of epoch 2 were not read again: frozen, their digests are those of "
            "the weights before training to epoch 1; likewise in 1 earlier epochs",
        )
    ]


def test_an_epoch_that_was_tracked_twice_may_reuse_itself() -> None:
    one, again = state(1, {"a": READ}), state(1, {"a": 1}, tensors=1)
    ((_, line),) = notes(WEIGHTS, one, again)
    assert line.endswith("their digests are those of epoch 1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source"),
    [("x", 1), ("b", 1), ("c", "1"), ("c", [1]), ("c", True), ("c", None)],
    ids=["no such tensor", "itself reused", "text", "list", "bool", "before"],
)
def test_a_digest_that_the_named_record_has_not_read_is_a_finding(
    name: str, source: object
) -> None:
    weights = state(None, {"a": READ, "b": READ})
    one = state(1, {"a": READ, "b": None, "c": READ}, tensors=1)
    (finding,) = verified(weights, one, state(2, {"a": 1, name: source}, tensors=2)).findings
    assert (finding.check, finding.path) == (10, "training/epoch/2/state/0")
    assert finding.problem == "1 digests are not what the records that it names for them had read"


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({}, "reused.tensors is 0, 1 tensors have the key read"),
        ({"tensors": 5000, "rechecked": 999}, "reused.tensors is 5000, 1 tensors have the key"),
        ({"tensors": 1, "rechecked": 999}, "reused.rechecked is 999, 2 tensors were read"),
    ],
    ids=["none", "tensors", "rechecked"],
)
def test_other_counts_than_the_tensors_have_are_a_finding(
    counts: dict[str, int], problem: str
) -> None:
    one = state(1, {"a": None, "b": READ, "c": READ}, **counts)
    (finding,) = verified(WEIGHTS, one).findings
    assert (finding.check, finding.path) == (10, "training/epoch/1/state/0")
    assert finding.problem.startswith(problem)


def test_a_digest_of_a_later_record_is_a_finding() -> None:
    one, two = state(1, {"a": 2}, tensors=1), state(2, {"a": READ})
    (finding,) = verified(WEIGHTS, one, two).findings
    assert finding.problem == "1 digests are not what the records that it names for them had read"
    assert finding.path == "training/epoch/1/state/0"


def test_epochs_that_are_tracked_again_reuse_what_was_read_before() -> None:
    """As of a loop over the epochs that is run twice."""
    two = state(2, {"a": READ})
    ((_, line),) = notes(WEIGHTS, state(1, {"a": READ}), two, state(1, {"a": 2}, tensors=1))
    assert line.endswith("their digests are those of epoch 2")


def test_what_a_withheld_record_has_read_is_not_seen() -> None:
    stage = story(WEIGHTS, state(1, {"a": READ}), state(2, {"a": 1}, tensors=1))
    kept = withhold(stage.evidence(), ["model", "training/epoch/2", "config"])
    report = stage.verify(kept)
    assert report.findings == ()
    assert any("1 digests of frozen" in line for line in report.verdict.missing)


def test_a_record_that_is_not_here_leaves_open_what_it_has_read() -> None:
    report = verified(WEIGHTS, state(1, {"a": 7}, tensors=1))
    assert (report.outcome, report.findings) == ("anchored", ())
    why = "1 digests of frozen tensors are of records that are not here"
    assert any(why in line for line in report.verdict.missing)


@pytest.mark.slow
def test_a_rank_is_compared_with_its_own_records() -> None:
    one, two = state(1, {"a": READ}), state(2, {"a": READ})
    reusing = state(2, {"a": 1}, tensors=1)
    ((path, line),) = notes(WEIGHTS, two, rank_1=(one, reusing))
    assert path == "training/epoch/2/state/1"
    report = verified(WEIGHTS, one, two, rank_1=(reusing,))
    assert any("1 digests of frozen" in line for line in report.verdict.missing)
    assert notes(WEIGHTS, one, two, rank_1=(state(1, {"a": None}, tensors=1),))[0][1].endswith(
        "their digests are those of the weights before training"
    )


def test_a_wrong_hint_is_said() -> None:
    one = state(1, {"a": None, "b": READ}, tensors=1)
    two = state(2, {"a": READ, "b": READ}, tensors=0, changed=["a"])
    changed, reused = notes(WEIGHTS, one, two)
    assert changed == (
        "training/epoch/2/state/0",
        "1 tensors hinted frozen had been written past autograd: what earlier epochs reused of "
        "them may be older than those epochs",
    )
    assert reused[0] == "training/epoch/1/state/0"


@pytest.mark.parametrize(
    "body",
    [
        {"reused": 1, "tensors": 1},
        {"reused": {"changed": 1}, "tensors": [1, {}, {"read": {}}]},
        {"reused": [], "tensors": {"read": 1}},
    ],
)
def test_a_body_of_another_form_breaks_nothing(body: dict[str, Any]) -> None:
    report = verified(WEIGHTS, (Kind.STATE, 1, body))
    assert {finding.check for finding in report.findings} == {10}
