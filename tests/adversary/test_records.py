"""Records that somebody changed who has not the run's key: by kind, in a bundle and in the
database, with the ledger's key and without. Each is a finding; nothing reads "verified".

The forger works with this program: what a bundle derives from its records (paths, proofs, files
for other tools, the manifest) is derived anew, so that nothing but the evidence is in the way.

Over 400 lines: one table of what a forger does, with the hands that do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files, write_files
from provenance.capture.keys import RunKeys
from provenance.cli import main
from provenance.evidence.placement import newest_leaves, place_records
from provenance.evidence.run_evidence import RecordFile, RunEvidence, SignedProducer
from provenance.formats.producers.batch import SignedRange
from provenance.formats.producers.certificate import identity_statement, sign_identity
from provenance.formats.producers.statement import chain_on, chain_start, sign_statement
from provenance.formats.record import Kind, Phase, Record, record_digest
from provenance.formats.run_tree.walk import RunWalk
from provenance.ports.values import Equivocation
from provenance.verify.report import VerificationReport
from tests.support.sigstore_world import ISSUER, WHO, Sigstore
from tests.support.stranger import load
from tests.support.verify_world import (
    KEY,
    RUN,
    Fields,
    World,
    before,
    metrics,
    seal,
)

P, Q, CHILD = b"p" * 16, b"q" * 16, b"r" * 16
FOREIGN = Ed25519PrivateKey.from_private_bytes(b"\x0d" * 32)
Forge = Callable[[RunEvidence], RunEvidence]

STORY: list[Fields] = [
    *before(world_size=2),
    metrics(1),
    (Kind.STATE, 1, {"algorithm": "blake3", "root": "mth-sha256:1"}),
    (Kind.PRIVACY, 1, {"privacy": {"epsilon": 1.0, "delta": 1e-5}}),
    seal("checkpoint", 1),
    (Kind.STATE, 1, {"algorithm": "blake3", "root": "mth-sha256:too late"}),
    metrics(2),
    (Kind.RESULTS, None, {"results": {"accuracy": 0.9}}),
    (Kind.STEPS, None, {"series": [{"step": [0, 1], "metrics": {"loss": [1.0, 0.5]}}], "steps": 2}),
    (Kind.ARTIFACT, None, {"name": "plot.png", "digest": "blake3:00", "bytes": 9}),
    (Kind.NOTE, None, {"text": "a note", "tags": []}),
    seal("after"),
    (Kind.RUN_END, None, {"events": 17, "reason": "crashed"}),
]
OTHER_RANK: list[Fields] = [
    metrics(1, loss=2.0),
    seal("checkpoint", 1),
    metrics(2, loss=1.0),
    (Kind.RUN_END, None, {"events": 3, "reason": "finished"}),
]
GAP: Fields = (Kind.GAP, None, {"dropped": 500, "reason": "disk full"})
END: Fields = (Kind.RUN_END, None, {"events": 1, "reason": "finished"})


def recorded(*child: Fields) -> World:
    """A run of two ranks; ``child`` is what a forked process of rank 0 wrote."""
    world = World(names=("local",))
    world.ingest(world.batch(STORY[:10]))
    world.ingest(world.batch(OTHER_RANK[:2], producer=Q, rank=1))
    if child:
        world.ingest(world.batch(child, producer=CHILD))
    world.ingest(world.batch(STORY[10:], first=10))
    world.ingest(world.batch(OTHER_RANK[2:], producer=Q, rank=1, first=2))
    world.anchor()
    return world


@pytest.fixture(scope="module")
def honest() -> RunEvidence:
    return recorded().evidence()


@pytest.fixture(scope="module")
def stranger() -> ModuleType:
    return load()


def carried(evidence: RunEvidence) -> tuple[dict[str, bytes], VerificationReport]:
    """The evidence as a bundle, and what verifying it offline says."""
    files = bundle_files(evidence)
    read = read_bundle(MemorySource(files, "forged"))
    return files, World(names=()).verify(read, online=False)


# --- the forger's hands --------------------------------------------------------------------


def with_records(evidence: RunEvidence, records: Sequence[RecordFile]) -> RunEvidence:
    """Other records, each filed where it belongs."""
    digested = [item.digested(evidence.run) for item in records]
    paths = place_records(digested, *newest_leaves(digested, evidence.entries))
    placed = [item.filed(path, item.ts) for item, path in zip(records, paths, strict=True)]
    return replace(evidence, records=tuple(placed))


def edited(item: RecordFile, **fields: Any) -> RecordFile:
    """A record with other fields, canonical, and its digest to fit."""
    record = Record.decode(item.data or b"")
    data = replace(record, **fields).encode()
    index = {name: value for name, value in fields.items() if name != "body"}
    return replace(item, data=data, digest=record_digest(data), **index)


def at(evidence: RunEvidence, producer: bytes, seq: int) -> RecordFile:
    return next(r for r in evidence.records if (r.producer, r.seq) == (producer, seq))


def change(evidence: RunEvidence, producer: bytes, seq: int, **fields: Any) -> RunEvidence:
    own = at(evidence, producer, seq)
    others = [item for item in evidence.records if item is not own]
    return with_records(evidence, [*others, edited(own, **fields)])


def drop(evidence: RunEvidence, *places: tuple[bytes, int]) -> RunEvidence:
    kept = [item for item in evidence.records if (item.producer, item.seq) not in places]
    return with_records(evidence, kept)


def signed_only(evidence: RunEvidence, producer: bytes, keep: int) -> RunEvidence:
    """The producer's oldest statements alone."""
    return replace(
        evidence,
        producers=tuple(
            replace(item, statements=item.statements[:keep]) if item.producer == producer else item
            for item in evidence.producers
        ),
    )


def covering(evidence: RunEvidence, phase: Phase, coverage: dict[bytes, int]) -> RunEvidence:
    entries = tuple(
        replace(entry, coverage=tuple(sorted(coverage.items()))) if entry.phase is phase else entry
        for entry in evidence.entries
    )
    return replace(evidence, entries=entries)


# --- in a bundle, without any key ------------------------------------------------------------


def test_the_honest_run_is_verified(honest: RunEvidence, stranger: ModuleType) -> None:
    files, report = carried(honest)
    assert (report.outcome, report.findings) == ("consistent", ())  # nothing is anchored here
    assert stranger.Bundle(files).problems == []
    kinds = {item.kind for item in honest.records}
    others = {Kind.HOST, Kind.SEED}  # tests/unit/verify/test_host.py, test_seeds.py
    assert kinds == set(Kind) - {Kind.GAP} - others


def refused(evidence: RunEvidence, stranger: ModuleType) -> set[int]:
    """Both verifiers refuse it; the numbers of the checks that found something."""
    files, report = carried(evidence)
    assert report.outcome == "failed"
    assert stranger.Bundle(files).problems
    return {finding.check for finding in report.findings}


PLACES = [(P, seq) for seq in range(len(STORY))] + [(Q, seq) for seq in range(len(OTHER_RANK))]


@pytest.mark.parametrize(("producer", "seq"), PLACES)
def test_no_record_of_any_kind_can_be_changed(
    honest: RunEvidence, stranger: ModuleType, producer: bytes, seq: int
) -> None:
    """Edited, dropped, doubled, moved, replaced by another kind: whatever its kind is."""
    own = at(honest, producer, seq)
    body = {**Record.decode(own.data or b"").body, "edited": True}
    assert 1 in refused(change(honest, producer, seq, body=body), stranger)
    assert 1 in refused(change(honest, producer, seq, ts="2001-01-01T00:00:00.000000Z"), stranger)
    assert refused(drop(honest, (producer, seq)), stranger)
    upto = STORY if producer == P else OTHER_RANK
    again = edited(own, seq=len(upto))
    assert 1 in refused(with_records(honest, [*honest.records, again]), stranger)
    other = (seq + 1) % len(upto)
    swapped = [edited(own, seq=other), edited(at(honest, producer, other), seq=seq)]
    rest = drop(honest, (producer, seq), (producer, other)).records
    assert 1 in refused(with_records(honest, [*rest, *swapped]), stranger)
    kind = Kind.RUN_END if own.kind is not Kind.RUN_END else Kind.SEAL
    assert 1 in refused(change(honest, producer, seq, kind=kind, epoch=None), stranger)
    assert 1 in refused(change(honest, producer, seq, rank=own.rank + 1), stranger)


def test_crashed_does_not_become_finished(honest: RunEvidence, stranger: ModuleType) -> None:
    forged = change(honest, P, 17, body={"events": 17, "reason": "finished"})
    assert refused(forged, stranger) == {1, 2}


def test_a_gap_does_not_become_another_record(stranger: ModuleType) -> None:
    """Not a second mark, not nothing, and not something withheld."""
    lost = recorded(GAP, END).evidence()
    assert refused(lost, stranger) == {4}
    mark = {"phase": "before", "epoch": None, "anchor": True}
    assert 1 in refused(change(lost, CHILD, 0, kind=Kind.SEAL, body=mark), stranger)
    end = edited(at(lost, CHILD, 1), seq=0, body={"events": 0, "reason": ""})
    rest = drop(lost, (CHILD, 0), (CHILD, 1)).records
    renumbered = with_records(lost, [*rest, end])
    assert {1, 2} <= refused(signed_only(renumbered, CHILD, 0), stranger)


def test_a_withheld_record_under_no_root_leaves_open_what_it_is() -> None:
    """A gap that is called a late record, and withheld: its digest alone is signed."""
    lost = recorded(GAP, END).evidence()
    hidden = replace(at(lost, CHILD, 0), kind=Kind.CONFIG, data=None, withheld=True)
    others = [item for item in lost.records if (item.producer, item.seq) != (CHILD, 0)]
    _, report = carried(with_records(lost, [*others, hidden]))
    assert (report.outcome, report.exit_code) == ("consistent", 3)
    assert any("under no root" in line for line in report.not_checked)


def test_a_producer_of_control_records_alone_is_missed(stranger: ModuleType) -> None:
    lost = recorded(GAP, END).evidence()
    places = ((CHILD, 0), (CHILD, 1))
    assert 1 in refused(drop(lost, *places), stranger)
    gone = replace(
        drop(lost, *places), producers=tuple(p for p in lost.producers if p.producer != CHILD)
    )
    assert refused(gone, stranger) == {2}
    assert 2 in refused(covering(gone, Phase.AFTER, {P: 18, Q: 4}), stranger)


def test_a_tail_cut_off_with_an_older_statement_is_missed(
    honest: RunEvidence, stranger: ModuleType
) -> None:
    cut = drop(honest, *((P, seq) for seq in range(10, 18)))
    assert 1 in refused(cut, stranger)
    older = signed_only(cut, P, -1)
    assert 1 not in refused(older, stranger), "as a producer that was killed leaves it"
    assert 2 in refused(covering(older, Phase.AFTER, {P: 10, Q: 4}), stranger)
    open_run = replace(older, entries=older.entries[:2], incomplete=None, state="open")
    _, report = carried(replace(open_run, receipts=(), anchors=()))
    assert any("(4)" in line for line in report.verdict.missing)


def test_statements_and_certificates_are_nobody_elses(
    honest: RunEvidence, stranger: ModuleType
) -> None:
    p, q = honest.producers
    forged = {
        "none": (),
        "one": (p,),
        "exchanged": (replace(p, producer=Q), replace(q, producer=P)),
        "certificates": (replace(p, certificate=q.certificate), q),
        "statements": (replace(p, statements=q.statements), q),
        "unsigned": (replace(p, statements=()), q),
        "old": (replace(p, statements=p.statements[:-1]), q),
        "foreign": (signed_anew(honest, P, FOREIGN), q),
    }
    for name, producers in forged.items():
        assert 1 in refused(replace(honest, producers=producers), stranger), name


def signed_anew(evidence: RunEvidence, producer: bytes, key: Ed25519PrivateKey) -> SignedProducer:
    """A certificate and statement by another run key."""
    keys = RunKeys(evidence.run, key.private_bytes_raw())
    certificate, own = keys.producer(producer, 0)
    records = sorted(
        (r for r in evidence.records if r.producer == producer), key=lambda item: item.seq
    )
    chain = chain_on(chain_start(evidence.run, producer), (item.digest for item in records))
    statement = sign_statement(evidence.run, producer, len(records), chain, own)
    return SignedProducer(producer, certificate.encode(), (statement,))


def test_a_run_signed_anew_is_of_another_id(honest: RunEvidence, stranger: ModuleType) -> None:
    """Whoever takes the run id has no key that it commits to."""
    producers = tuple(signed_anew(honest, each, FOREIGN) for each in (P, Q))
    public = FOREIGN.public_key().public_bytes_raw()
    forged = replace(honest, producers=producers, public_key=public)
    assert 1 in refused(forged, stranger)
    config = at(forged, P, 4)
    body = {**Record.decode(config.data or b"").body, "public_key": public.hex()}
    assert {1, 2} <= refused(change(forged, P, 4, body=body), stranger)


def test_a_second_value_is_one_that_somebody_signed(
    honest: RunEvidence, stranger: ModuleType
) -> None:
    item = at(honest, P, 6)
    data = edited(item, body={"metrics": {"loss": 9.0}}).data or b""
    digest, (p, _) = record_digest(data), honest.producers
    chain = chain_start(RUN, P)
    proof = SignedRange(6, chain, (digest,), p.statements[-1].signature).encode()
    other = Equivocation(RUN, P, 6, digest, data, 0.0, proof)
    own = chain_on(chain, (at(honest, P, seq).digest for seq in range(6)))
    _, key = RunKeys(RUN, KEY.private_bytes_raw()).producer(P, 0)
    statement = sign_statement(RUN, P, 7, chain_on(own, [digest]), key)
    signed = replace(other, proof=SignedRange(6, own, (digest,), statement.signature).encode())
    assert carried(replace(honest, equivocations=(signed,)))[1].outcome == "consistent"
    for forged in (other, replace(signed, seq=7), replace(signed, producer=Q)):
        assert 1 in refused(replace(honest, equivocations=(forged,)), stranger)


def test_roots_made_to_fit_do_not_make_a_signature(
    honest: RunEvidence, stranger: ModuleType
) -> None:
    """An insider who seals the changed records anew, as the ledger's key lets it."""
    forged = change(honest, P, 17, body={"events": 17, "reason": "finished"})
    digested = [item.digested(RUN) for item in forged.records]
    seals = RunWalk(RUN, digested, forged.entries).seals
    entries = tuple(
        replace(entry, root=seal.root or b"")
        for entry, seal in zip(forged.entries, seals, strict=True)
    )
    found = refused(replace(forged, entries=entries), stranger)
    assert (1 in found, 2 in found) == (True, False)


def test_who_stands_behind_a_run_is_told(honest: RunEvidence, stranger: ModuleType) -> None:
    """A run of anybody's verifies, and says so: nobody known signed it."""
    _, report = carried(honest)
    assert report.standing is None
    assert any("no identity stands behind it" in line for line in report.not_checked)
    assert report.as_dict()["identity"] is None
    for forged in (b"\x01" + bytes(96), b"\x02" * 97, sign_identity(RUN, bytes(32), FOREIGN)):
        evidence = replace(honest, identity=forged)
        assert 1 in refused(evidence, stranger)
        assert carried(evidence)[1].standing is None
    bundle = Sigstore().sign(identity_statement(RUN, honest.public_key))
    evidence = replace(honest, identity=b"\x02" + bundle)
    assert 1 in {finding.check for finding in carried(evidence)[1].findings}, "of no known root"
    read = stranger.Bundle(carried(evidence)[0])
    assert read.problems == []
    told = f"run.json: identity {WHO}, by {ISSUER}: the root of its Sigstore certificate"
    assert told in read.unproven
    for forged in (
        Sigstore().sign(identity_statement(RUN, bytes(32))),
        bundle.replace(b'"treeSize":"11"', b'"treeSize":"10"'),
        bundle + b" ",
    ):
        assert 1 in refused(replace(honest, identity=b"\x02" + forged), stranger)
    own = sign_identity(RUN, honest.public_key, FOREIGN)
    files, report = carried(replace(honest, identity=own))
    assert (report.outcome, stranger.Bundle(files).problems) == ("consistent", [])
    assert report.standing is not None
    assert report.standing.identity.key == FOREIGN.public_key().public_bytes_raw()


def test_the_command_refuses_it(honest: RunEvidence, tmp_path: Path, capsys: Any) -> None:
    forged = change(honest, P, 17, body={"events": 17, "reason": "finished"})
    place = write_files(bundle_files(forged), tmp_path / "forged")
    assert main(["verify", str(place), "--offline", "--base-dir", str(tmp_path / "own")]) == 1
    assert "not what the producer signed" in capsys.readouterr().out


# --- in the database, before the seal: with the ledger's key, without the run's --------------


def half_way() -> World:
    """All is in the database but the end."""
    world = World(names=("local",))
    world.ingest(world.batch(STORY[:16]))
    world.ingest(world.batch(OTHER_RANK, producer=Q, rank=1))
    return world


def finish(world: World, first: int = 16) -> VerificationReport:
    """The honest trainer ends; the honest worker seals what is in the database."""
    world.ingest(world.batch(STORY[first:], first=first))
    world.sweep(later=1000.0)
    world.anchor()
    return world.verify()


def write(world: World, producer: bytes, seq: int, **fields: Any) -> None:
    """Data, digest and columns of a row, as an insider writes them."""
    item = edited(at(world.evidence(), producer, seq), **fields)
    world.sql(
        "UPDATE records SET data=?, digest=?, kind=?, rank=?, epoch=? WHERE producer=? AND seq=?",
        item.data, item.digest, item.kind.value, item.rank, item.epoch, producer, seq,
    )  # fmt: skip


def test_without_a_hand_in_it_the_run_is_verified() -> None:
    assert finish(half_way()).outcome == "verified"


@pytest.mark.parametrize("seq", range(16))
def test_an_edit_between_ingest_and_seal_is_found(seq: int) -> None:
    world = half_way()
    before_it = Record.decode(at(world.evidence(), P, seq).data or b"").body
    write(world, P, seq, body={**before_it, "edited": True})
    report = finish(world)
    assert report.outcome == "failed"
    assert any("not what the producer signed" in f.problem for f in report.findings)


def test_an_end_that_was_never_written_is_unannounced() -> None:
    """Records of the tail deleted, counters, chain and statements made to fit."""
    world = half_way()
    kept = {item.seq: item.digest for item in world.evidence().records if item.producer == Q}
    chain = chain_on(chain_start(RUN, Q), [kept[0], kept[1]])
    world.sql("DELETE FROM records WHERE producer=? AND seq>=2", Q)
    world.sql("UPDATE producers SET contiguous=2, highest=2, chain=? WHERE producer=?", chain, Q)
    world.sql("DELETE FROM statements WHERE producer=?", Q)
    _, key = RunKeys(RUN, KEY.private_bytes_raw()).producer(Q, 1)
    older = sign_statement(RUN, Q, 2, chain, key)  # as it was when two events had come
    world.sql(
        "INSERT INTO statements (run, producer, count, signature, kept) VALUES (?, ?, 2, ?, 0)",
        RUN.hex, Q, older.signature,
    )  # fmt: skip
    problems = {finding.problem for finding in finish(world).findings}
    assert "rank 1: ended unannounced (no signed run.end)" in problems


def test_a_gap_is_not_taken_out_of_the_database() -> None:
    world = half_way()
    world.ingest(world.batch([GAP, END], producer=CHILD))
    write(world, CHILD, 0, kind=Kind.SEAL, body={"phase": "after", "epoch": None, "anchor": True})
    assert finish(world).outcome == "failed"


def test_a_chain_made_to_fit_refuses_what_the_trainer_signs_next() -> None:
    world = half_way()
    write(world, P, 6, body={"metrics": {"loss": 0.0}})
    records = sorted((r for r in world.evidence().records if r.producer == P), key=lambda r: r.seq)
    chain = chain_on(chain_start(RUN, P), (item.digest for item in records))
    world.sql("UPDATE producers SET chain=? WHERE producer=?", chain, P)
    report = finish(world)
    assert report.outcome == "failed"
    with world.store.snapshot() as tx:
        assert tx.parked(RUN), "what goes on from another history is kept apart"
