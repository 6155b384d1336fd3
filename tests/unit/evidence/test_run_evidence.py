"""Evidence from the database: what is gathered, under which paths, and which runs are found."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from provenance.errors import FormatError, UnknownRunError
from provenance.evidence.from_database import find_run, from_store
from provenance.evidence.placement import leaf_paths
from provenance.formats.record import Kind, Record, record_digest
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree
from provenance.ports.values import AnchorState
from provenance.stores.sql import SqlTx
from provenance.verify.verifier import verify
from tests.support.ledger_values import run_leaves
from tests.support.verify_world import (
    KEY,
    OTHER,
    RUN,
    SIGNER,
    World,
    before,
    config,
    ending,
    finished,
    metrics,
    seal,
    story,
    training,
)


def test_gathers_every_record_under_its_path_in_the_tree() -> None:
    evidence = finished(checkpoint=2).evidence()
    by_path = {record.path: record for record in evidence.records}
    assert by_path["training/epoch/3/metrics/0"].kind is Kind.METRICS
    assert by_path["training/config"].kind is Kind.CONFIG
    assert by_path["control/70707070-5"].kind is Kind.SEAL
    assert len(by_path) == len(story(checkpoint=2))
    assert all(record_digest(r.data or b"") == r.digest for r in evidence.records)
    assert [entry.phase.value for entry in evidence.entries] == ["before", "checkpoint", "after"]
    assert {receipt.name for receipt in evidence.receipts} == {
        f"{label}-{network}"
        for label in ("before", "checkpoint-2", "after")
        for network in ("ethereum", "bitcoin")
    }
    assert evidence.vkey == SIGNER.verifier.vkey
    assert not evidence.problems


def test_a_record_is_decoded_once_per_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    world = finished(checkpoint=2)
    decoded: list[bytes] = []
    decode = Record.decode

    def counting(data: bytes) -> Record:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(Record, "decode", counting)
    evidence = world.evidence()
    assert verify(evidence, None, now=0.0).outcome != "failed"
    assert sorted(decoded) == sorted(record.data or b"" for record in evidence.records)


def test_other_bytes_are_decoded_anew() -> None:
    record = finished().evidence().records[0]
    assert isinstance(record.decoded, Record)
    assert isinstance(replace(record, data=b"{}").decoded, FormatError)
    assert record.filed("elsewhere", record.ts).decoded is record.decoded


def test_leaf_paths_are_those_of_the_tree() -> None:
    events = ending(
        [*before(), *training(2), metrics(2, loss=1.0), (Kind.RESULTS, None, {"results": {}})]
    )
    events.insert(5, config())
    world = World()
    world.ingest(world.batch(events))
    evidence = world.evidence()
    digested = [record.digested(RUN) for record in evidence.records]
    leaves, _ = run_leaves(digested, evidence.entries[-1].phase)
    tree = MLProvenanceMerkleTree(leaves)
    named = leaf_paths(leaves)
    assert {path for path, _ in named} >= {"training/config/1", "training/results/1"}
    assert all(tree.node(path).value == leaf.digest for path, leaf in named)
    records = [node for node in tree.root_node.walk() if node.kind == "record"]
    assert len(records) == len(named)


def test_records_under_no_root_stand_apart() -> None:
    world = World()
    world.ingest(world.batch([*before(), metrics(1)]))
    paths = {record.path for record in world.evidence().records}
    assert "unsealed/70707070-6" in paths

    late = World()
    late.ingest(late.batch(story(2, checkpoint=1)[:-3]))
    late.ingest(late.batch([metrics(1)], first=len(story(2, checkpoint=1)[:-3])))
    assert any(record.place == "late" for record in late.evidence().records)


def test_producers_that_begin_alike_are_told_apart_by_their_whole_id() -> None:
    world = World()
    world.ingest(world.batch(before()))
    world.ingest(world.batch([metrics(1)], producer=b"p" * 8 + b"q" * 8))
    names = {r.path for r in world.evidence().records if r.place == "unsealed"}
    assert names == {f"unsealed/{(b'p' * 8 + b'q' * 8).hex()}-0"}


def test_without_a_seal_there_are_records_and_nothing_else() -> None:
    world = World()
    world.ingest(world.batch(before()[:-1]))
    evidence = world.evidence()
    assert {record.place for record in evidence.records} == {"unsealed"}
    assert (evidence.entries, evidence.heads, evidence.receipts) == ((), (), ())


@pytest.mark.slow
def test_anchors_without_receipt_tell_their_state() -> None:
    world = World()
    world.ingest(world.batch(before()))
    assert {anchor.state for anchor in world.evidence().anchors} == {AnchorState.DUE}
    world.networks["bitcoin"].hang()
    world.anchor()
    states = {anchor.network: anchor.state for anchor in world.evidence().anchors}
    assert states == {"ethereum": AnchorState.FINAL, "bitcoin": AnchorState.DUE}


def test_equivocations_and_refused_events_are_part_of_it() -> None:
    world = finished()
    world.ingest(world.batch([metrics(1, loss=9.0)], first=6), b"nonsense")
    evidence = world.evidence()
    assert evidence.equivocations or evidence.parked
    open_run = World()
    open_run.ingest(open_run.batch([*before(), metrics(1)]))
    open_run.ingest(open_run.batch([metrics(1, loss=9.0)], first=6))
    assert [e.seq for e in open_run.evidence().equivocations] == [6]


def test_a_missing_head_is_a_problem_and_not_an_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = finished()
    head = SqlTx.head
    monkeypatch.setattr(SqlTx, "head", lambda tx, size: None if size == 2 else head(tx, size))
    evidence = world.evidence()
    assert [problem.file for problem in evidence.problems] == ["heads/2.note"]
    report = world.verify(evidence)
    assert report.outcome == "failed"
    assert report.findings[0].subject == "heads/2.note"


def test_a_ledger_shorter_than_its_head_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    world = finished()
    monkeypatch.setattr(SqlTx, "ledger_size", lambda tx: 1)
    evidence = world.evidence()
    assert [problem.message for problem in evidence.problems] == ["has 1 entries, a head says 2"]
    assert "after" in {finding.subject for finding in world.verify(evidence).findings}


def test_unknown_runs_are_named_with_what_is_known() -> None:
    world = World()
    with pytest.raises(UnknownRunError, match="no runs yet"):
        find_run(world.store, "latest")
    with pytest.raises(UnknownRunError, match=rf"run {OTHER}: not in the database; known: 0 runs"):
        from_store(world.store, OTHER, None)
    world.ingest(world.batch(before()))
    with pytest.raises(UnknownRunError, match=rf"known: 1 run, newest {RUN}"):
        find_run(world.store, str(OTHER))


@pytest.mark.parametrize("text", ["0189", "zzzzzzzzzz", "", "0" * 40, "../etc"])
def test_what_cannot_be_a_run_is_refused(text: str) -> None:
    with pytest.raises(UnknownRunError, match="expected a run id"):
        find_run(World().store, text)


def test_a_whole_id_is_found_without_a_look_at_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.ingest(world.batch(before()))
    monkeypatch.setattr(SqlTx, "runs", lambda _: pytest.fail("all runs were read"))
    assert find_run(world.store, RUN.hex) == find_run(world.store, str(RUN).upper()) == RUN


def test_runs_are_found_by_their_first_or_last_digits_and_age() -> None:
    world = World()
    world.ingest(world.batch(before()))
    world.now += 10
    world.ingest(world.batch(before(), run=OTHER, key=KEY))
    assert find_run(world.store, "latest") == OTHER
    assert find_run(world.store, str(RUN)) == RUN
    assert find_run(world.store, str(RUN).upper()) == RUN
    assert find_run(world.store, "01890a5dac") == RUN
    assert find_run(world.store, RUN.hex[-24:]) == RUN
    assert find_run(world.store, OTHER.hex[-24:]) == OTHER
    with pytest.raises(UnknownRunError, match=f"2 runs begin or end so, .*: {OTHER}, {RUN}$"):
        find_run(world.store, "01890a5d")


def test_a_seal_mark_of_another_run_stays_out() -> None:
    world = World()
    world.ingest(world.batch([*before(), seal("after")], run=UUID(int=7)))
    with pytest.raises(UnknownRunError):
        world.evidence()
