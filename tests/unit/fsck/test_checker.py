"""The checker finds nothing in a sound deployment, and each planted fault where it is.

Over 400 lines: one table of planted faults, a row for each kind of finding.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.merkle import Frontier
from provenance.formats.note import SignerKey
from provenance.formats.producers.certificate import identity_statement, sign_identity
from provenance.formats.receipt import Receipt
from provenance.formats.record import Kind
from provenance.fsck.checker import Options
from provenance.fsck.findings import FindingKind as F
from provenance.fsck.local_file import LocalReader
from provenance.fsck.onchain import ChainView, Question, check_nonces
from provenance.fsck.rows import NonceRow
from provenance.ports.values import anchor_payload
from provenance.settings import ApprovalSettings
from tests.support.fsck_world import (
    FIRST,
    FIRST_PRODUCER,
    SECOND,
    SECOND_PRODUCER,
    SEED,
    SIGNER,
    MemoryReader,
    World,
    changed,
    event,
    other_key,
)
from tests.support.nodes.memory_chain import MemoryTransaction
from tests.support.runs import Producer, run_of
from tests.support.sigstore_world import Sigstore
from tests.unit.approvals.world import BY

THIRD = run_of(0x0192F0C1AAAA)
Planted = tuple[F, str]
FAULTS: dict[str, Callable[[World], Planted]] = {}


def fault(plant: Callable[[World], Planted]) -> Callable[[World], Planted]:
    FAULTS[plant.__name__] = plant
    return plant


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("sound") / "base")
    world.build()
    return world


@pytest.fixture
def world(sound: World, tmp_path: Path) -> World:
    return sound.copied(tmp_path / "base")


def name(run: UUID, producer: bytes, seq: int | str) -> str:
    return f"{run}/{producer.hex()}/{seq}"


def segment(world: World) -> Path:
    return next((world.base / "spool" / str(SECOND)).glob("*.seg"))


def segment_name(world: World) -> str:
    return f"{SECOND}/{segment(world).name}"


@pytest.mark.slow
def test_a_sound_deployment_is_clean(world: World) -> None:
    report = world.fsck()
    assert report.findings == ()
    assert report.unchecked == ()
    assert report.exit_code == 0
    assert report.checked == {
        "spool_segments": 1,
        "spool_events": 14,
        "stream_batches": 0,
        "runs": 2,
        "records": 27,
        "entries": 5,
        "heads": 5,
        "anchors": 10,
        "receipts": 10,
        "networks": 2,
        "transactions": 10,
    }
    assert set(report.as_dict()) == {"checked", "findings", "unchecked"}


@pytest.mark.slow
def test_nothing_is_changed_by_looking(world: World) -> None:
    before = {p: p.read_bytes() for p in world.base.rglob("*") if p.is_file()}
    world.fsck()
    after = {p: p.read_bytes() for p in world.base.rglob("*") if p.is_file()}
    assert {p: d for p, d in after.items() if not p.name.endswith(("-shm", "-wal"))} == {
        p: d for p, d in before.items() if not p.name.endswith(("-shm", "-wal"))
    }


# --- planted faults: records ---------------------------------------------------------------


@fault
def deleted_record(world: World) -> Planted:
    world.sql("DELETE FROM records WHERE run=? AND seq=8", FIRST.hex)
    return F.SEQ_HOLE, name(FIRST, FIRST_PRODUCER, 8)


@fault
def deleted_last_record(world: World) -> Planted:
    world.sql("DELETE FROM records WHERE run=? AND seq=13", SECOND.hex)
    return F.EVENT_MISSING, name(SECOND, SECOND_PRODUCER, 13)


@fault
def deleted_records_that_a_cursor_knows(world: World) -> Planted:
    world.sql("DELETE FROM records WHERE run=? AND seq>=11", FIRST.hex)
    folder = world.base / "spool" / str(FIRST)
    folder.mkdir()
    cursor = {"v": 1, "producers": {FIRST_PRODUCER.hex(): {"acked": 13}}}
    (folder / "cursors.json").write_text(json.dumps(cursor))
    return F.SEQ_HOLE, name(FIRST, FIRST_PRODUCER, "11-12")


@fault
def changed_record_body(world: World) -> Planted:
    data = changed(world.record(FIRST, 6), body={"metrics": {"loss": 0.001}})
    world.write_record(FIRST, 6, data, digest=False)
    return F.RECORD_DIGEST, name(FIRST, FIRST_PRODUCER, 6)


@fault
def changed_record_body_and_digest(world: World) -> Planted:
    data = changed(world.record(FIRST, 6), body={"metrics": {"loss": 0.001}})
    world.write_record(FIRST, 6, data, digest=True)
    return F.ENTRY_ROOT, "entry 1"


@fault
def changed_record_that_is_in_the_spool(world: World) -> Planted:
    data = changed(world.record(SECOND, 6), body={"metrics": {"loss": 0.001}})
    world.write_record(SECOND, 6, data, digest=True)
    return F.EVENT_DIFFERS, name(SECOND, SECOND_PRODUCER, 6)


@fault
def changed_digest_column(world: World) -> Planted:
    world.sql("UPDATE records SET digest=? WHERE run=? AND seq=7", b"\1" * 32, FIRST.hex)
    return F.RECORD_DIGEST, name(FIRST, FIRST_PRODUCER, 7)


@fault
def record_that_is_no_record(world: World) -> Planted:
    world.write_record(FIRST, 7, b'{"v": 1}', digest=True)
    return F.RECORD_UNREADABLE, name(FIRST, FIRST_PRODUCER, 7)


@fault
def swapped_siblings(world: World) -> Planted:
    six, eight = world.record(FIRST, 6), world.record(FIRST, 8)
    world.write_record(FIRST, 6, eight, digest=True)
    world.write_record(FIRST, 8, six, digest=True)
    return F.RECORD_PLACE, name(FIRST, FIRST_PRODUCER, 6)


@fault
def changed_kind_column(world: World) -> Planted:
    world.sql("UPDATE records SET kind='gap' WHERE run=? AND seq=6", FIRST.hex)
    return F.RECORD_PLACE, name(FIRST, FIRST_PRODUCER, 6)


@fault
def text_where_bytes_belong(world: World) -> Planted:
    world.sql("UPDATE records SET digest='x' WHERE run=? AND seq=7", FIRST.hex)
    return F.ROW_UNREADABLE, f"records row 8 of {FIRST}"


@fault
def gap_of_a_trainer(world: World) -> Planted:
    producer = Producer(run=THIRD)
    producer.add(Kind.GAP, dropped=3, reason="No space left on device")
    world.insert(producer)
    return F.GAP, name(THIRD, producer.name, 0)


@fault
def equivocation(world: World) -> Planted:
    producer = Producer(run=SECOND, name=SECOND_PRODUCER)
    producer.begin()
    producer.epoch(1, loss=0.25)
    world.ingest(producer.batch(6, 7))
    return F.EQUIVOCATION, name(SECOND, SECOND_PRODUCER, 6)


@fault
def parked_batch(world: World) -> Planted:
    stranger = Producer(run=FIRST, name=b"\x03" * 16, key=other_key())
    stranger.add(Kind.METRICS, 1, metrics={"loss": 0.5})
    world.ingest(stranger.batch())
    (id,) = world.sql("SELECT id FROM parked")[0]
    return F.PARKED, str(id)[:16]


@fault
def changed_public_key(world: World) -> Planted:
    public = other_key().public_key().public_bytes_raw()
    world.sql("UPDATE runs SET public_key=? WHERE run=?", public, FIRST.hex)
    return F.RUN_KEY, str(FIRST)


@fault
def reopened_run(world: World) -> Planted:
    world.sql("UPDATE runs SET state='open', sealed_at=NULL WHERE run=?", FIRST.hex)
    return F.RUN_STATE, str(FIRST)


@fault
def run_sealed_with_holes(world: World) -> Planted:
    world.sql("UPDATE runs SET incomplete='rank 1: no run.end' WHERE run=?", FIRST.hex)
    return F.RUN_INCOMPLETE, str(FIRST)


@fault
def unsealed_run_with_all_present(world: World) -> Planted:
    producer = Producer(run=THIRD)
    producer.begin()
    producer.epoch(1)
    producer.seal("checkpoint", 1)
    producer.finish()
    world.insert(producer)
    return F.RUN_NOT_SEALED, str(THIRD)


# --- planted faults: signatures --------------------------------------------------------------


@fault
def crashed_made_finished(world: World) -> Planted:
    data = changed(world.record(FIRST, 12), body={"events": 12, "reason": "all is well"})
    world.write_record(FIRST, 12, data, digest=True)
    return F.STATEMENT, f"{FIRST}/{FIRST_PRODUCER.hex()}"


@fault
def statement_of_other_records(world: World) -> Planted:
    world.sql("UPDATE statements SET signature=? WHERE run=?", bytes(64), FIRST.hex)
    return F.STATEMENT, f"{FIRST}/{FIRST_PRODUCER.hex()}"


@fault
def record_that_nobody_signed(world: World) -> Planted:
    world.sql("DELETE FROM statements WHERE run=? AND count=13", FIRST.hex)
    return F.STATEMENT, name(FIRST, FIRST_PRODUCER, "6-12")


@fault
def tail_cut_off_that_was_signed(world: World) -> Planted:
    world.sql("DELETE FROM records WHERE run=? AND seq>=11", FIRST.hex)
    return F.SEQ_HOLE, name(FIRST, FIRST_PRODUCER, "11-12")


@fault
def producer_without_a_certificate(world: World) -> Planted:
    world.sql("DELETE FROM producers WHERE run=?", FIRST.hex)
    return F.CERTIFICATE, f"{FIRST}/{FIRST_PRODUCER.hex()}"


@fault
def producer_of_another_rank(world: World) -> Planted:
    world.sql("UPDATE producers SET rank=1 WHERE run=?", FIRST.hex)
    return F.CERTIFICATE, f"{FIRST}/{FIRST_PRODUCER.hex()}"


@fault
def certificate_of_another_run(world: World) -> Planted:
    (other,) = world.sql("SELECT certificate FROM producers WHERE run=?", SECOND.hex)[0]
    world.sql("UPDATE producers SET certificate=? WHERE run=?", other, FIRST.hex)
    return F.CERTIFICATE, f"{FIRST}/{FIRST_PRODUCER.hex()}"


@fault
def counters_that_are_behind(world: World) -> Planted:
    world.sql("UPDATE producers SET contiguous=contiguous-1 WHERE run=?", FIRST.hex)
    return F.PRODUCER_COUNTERS, f"{FIRST}/{FIRST_PRODUCER.hex()}"


@fault
def chain_of_other_records(world: World) -> Planted:
    world.sql("UPDATE producers SET chain=? WHERE run=?", bytes(32), FIRST.hex)
    return F.PRODUCER_COUNTERS, f"{FIRST}/{FIRST_PRODUCER.hex()}"


@fault
def identity_that_signed_another_run(world: World) -> Planted:
    public = Producer().public_key
    identity = sign_identity(SECOND, public, other_key())
    world.sql("UPDATE runs SET identity=? WHERE run=?", identity, FIRST.hex)
    return F.RUN_IDENTITY, str(FIRST)


@fault
def sigstore_identity_of_another_run(world: World) -> Planted:
    bundle = Sigstore().sign(identity_statement(SECOND, Producer().public_key))
    world.sql("UPDATE runs SET identity=? WHERE run=?", b"\x02" + bundle, FIRST.hex)
    return F.RUN_IDENTITY, str(FIRST)


@fault
def second_value_that_nobody_signed(world: World) -> Planted:
    equivocation(world)
    world.sql("UPDATE equivocations SET digest=?", bytes(32))
    return F.EQUIVOCATION_UNSIGNED, name(SECOND, SECOND_PRODUCER, 6)


# --- planted faults: spool -----------------------------------------------------------------


@fault
def event_never_ingested(world: World) -> Planted:
    producer = Producer(run=THIRD)
    producer.begin()
    world.spool(producer)
    return F.EVENT_MISSING, name(THIRD, producer.name, 3)


@fault
def truncated_segment(world: World) -> Planted:
    path = segment(world)
    path.write_bytes(path.read_bytes()[:-7])
    return F.SPOOL_TRUNCATED, segment_name(world)


@fault
def truncated_header(world: World) -> Planted:
    path = segment(world)
    path.write_bytes(path.read_bytes()[:9])
    return F.SPOOL_TRUNCATED, segment_name(world)


@fault
def flipped_bit_in_the_spool(world: World) -> Planted:
    path = segment(world)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    return F.SPOOL_DAMAGED, segment_name(world)


@fault
def segment_of_a_later_release(world: World) -> Planted:
    path = segment(world)
    data = bytearray(path.read_bytes())
    data[4] += 1
    path.write_bytes(data)
    return F.SPOOL_DAMAGED, segment_name(world)


@fault
def segment_of_another_producer(world: World) -> Planted:
    path = segment(world)
    renamed = path.with_name(path.name.replace("02" * 16, "03" * 16))
    path.rename(renamed)
    return F.SPOOL_DAMAGED, f"{SECOND}/{renamed.name}"


# --- planted faults: ledger ----------------------------------------------------------------


@fault
def changed_run_root(world: World) -> Planted:
    world.sql("UPDATE ledger_entries SET root=? WHERE entry=1", b"\2" * 32)
    return F.ENTRY_ROOT, "entry 1"


@fault
def changed_run_root_and_heads_above(world: World) -> Planted:
    """Consistent from there on, so that only the growth tells where it was done."""
    world.sql("UPDATE ledger_entries SET root=? WHERE entry=1", b"\2" * 32)
    return F.HEAD_INCONSISTENT, "head 2"


@fault
def deleted_entry(world: World) -> Planted:
    world.sql("DELETE FROM ledger_entries WHERE entry=3")
    return F.ENTRY_MISSING, "entry 3"


@fault
def deleted_last_entry(world: World) -> Planted:
    world.sql("DELETE FROM ledger_entries WHERE entry=4")
    return F.ENTRY_MISSING, "entry 4"


@fault
def entry_nobody_asked_for(world: World) -> Planted:
    world.sql("UPDATE ledger_entries SET phase='checkpoint', epoch=7 WHERE entry=3")
    return F.ENTRY_SEAL, "entry 3"


def cover(world: World, entry: int, **stated: int) -> None:
    text = json.dumps({SECOND_PRODUCER.hex(): stated["events"]}) if stated else "{}"
    world.sql("UPDATE ledger_entries SET coverage=? WHERE entry=?", text, entry)


@fault
def checkpoint_that_covers_less(world: World) -> Planted:
    cover(world, 3, events=7)
    return F.ENTRY_ROOT, "entry 3"


@fault
def checkpoint_that_covers_nothing(world: World) -> Planted:
    cover(world, 3)
    return F.ENTRY_ROOT, "entry 3"


@fault
def checkpoint_that_says_otherwise_what_it_covers(world: World) -> Planted:
    cover(world, 3, events=9)
    return F.ENTRY_ROOT, "entry 3"


@fault
def after_entry_that_covers_less(world: World) -> Planted:
    cover(world, 4, events=8)
    return F.ENTRY_ROOT, "entry 4"


@fault
def record_of_a_run_that_is_not_there(world: World) -> Planted:
    world.sql("DELETE FROM runs WHERE run=?", SECOND.hex)
    first = world.sql("SELECT rowid FROM records WHERE run=?", SECOND.hex)[0][0]
    return F.ROW_ORPHAN, f"records rowid {first}"


@fault
def coverage_that_is_no_object(world: World) -> Planted:
    world.sql("UPDATE ledger_entries SET coverage='[1]' WHERE entry=3")
    return F.ROW_UNREADABLE, "ledger_entries row 4"


@fault
def coverage_with_a_negative_number(world: World) -> Planted:
    cover(world, 3, events=-1)
    return F.ROW_UNREADABLE, "ledger_entries row 4"


@fault
def entry_made_not_to_be_anchored(world: World) -> Planted:
    world.sql("UPDATE ledger_entries SET anchor=0 WHERE entry=4")
    return F.ENTRY_SEAL, "entry 4"


@fault
def changed_level(world: World) -> Planted:
    world.sql("UPDATE subtrees SET hash=? WHERE node=3", b"\3" * 32)
    return F.LEDGER_LEVEL, "subtree 2/0"


@fault
def lost_level(world: World) -> Planted:
    world.sql("DELETE FROM subtrees WHERE node=5")
    return F.LEDGER_LEVEL, "subtree 1/1"


@fault
def level_of_no_entries(world: World) -> Planted:
    world.sql("INSERT INTO subtrees (node, hash) VALUES (7, ?)", bytes(32))
    return F.LEDGER_LEVEL, "node 7"


@fault
def changed_head_root(world: World) -> Planted:
    world.sql("UPDATE heads SET root=? WHERE size=2", b"\3" * 32)
    return F.HEAD_ROOT, "head 2"


@fault
def head_and_note_of_another_story(world: World) -> Planted:
    root = b"\3" * 32
    note = sign_head(Head(SIGNER.name, 2, root), SIGNER)
    world.sql("UPDATE heads SET root=?, note=? WHERE size=2", root, note)
    return F.RECEIPT_INVALID, "memory entry 1"


@fault
def note_of_another_head(world: World) -> Planted:
    note = sign_head(Head(SIGNER.name, 2, b"\4" * 32), SIGNER)
    world.sql("UPDATE heads SET note=? WHERE size=2", note)
    return F.HEAD_NOTE, "head 2"


@fault
def note_that_is_none(world: World) -> Planted:
    world.sql("UPDATE heads SET note='no note' WHERE size=2")
    return F.HEAD_NOTE, "head 2"


@fault
def note_of_another_ledger(world: World) -> Planted:
    root = bytes(world.sql("SELECT root FROM heads WHERE size=2")[0][0])
    world.sql(
        "UPDATE heads SET note=? WHERE size=2", sign_head(Head("other/ledger", 2, root), SIGNER)
    )
    return F.HEAD_NOTE, "head 2"


@fault
def head_signed_by_another_key(world: World) -> Planted:
    root = bytes(world.sql("SELECT root FROM heads WHERE size=2")[0][0])
    stranger = SignerKey.from_private_bytes(SIGNER.name, b"\x09" * 32)
    note = sign_head(Head(SIGNER.name, 2, root), stranger)
    world.sql("UPDATE heads SET note=? WHERE size=2", note)
    return F.HEAD_SIGNATURE, "head 2"


@fault
def deleted_head(world: World) -> Planted:
    world.sql("DELETE FROM heads WHERE size=3")
    return F.HEAD_MISSING, "head 3"


@fault
def changed_frontier(world: World) -> Planted:
    frontier = Frontier.empty().extend([b"\1" * 32] * 3).to_bytes()
    world.sql("UPDATE heads SET frontier=? WHERE size=3", frontier)
    return F.HEAD_FRONTIER, "head 3"


@fault
def frontier_that_is_none(world: World) -> Planted:
    world.sql("UPDATE heads SET frontier=? WHERE size=3", b"MLPF\x01")
    return F.HEAD_FRONTIER, "head 3"


# --- planted faults: outbox ----------------------------------------------------------------


@fault
def changed_receipt(world: World) -> Planted:
    (text,) = world.sql("SELECT document FROM receipts WHERE entry=1 AND network='memory'")[0]
    document = json.loads(text)
    document["anchor"]["transaction_id"] = "ab" * 32
    again = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    Receipt.decode(again.encode())
    world.sql("UPDATE receipts SET document=? WHERE entry=1 AND network='memory'", again)
    return F.RECEIPT_INVALID, "memory entry 1"


@fault
def receipt_of_another_root(world: World) -> Planted:
    (text,) = world.sql("SELECT document FROM receipts WHERE entry=2 AND network='memory'")[0]
    world.sql("UPDATE receipts SET document=? WHERE entry=1 AND network='memory'", text)
    return F.RECEIPT_INVALID, "memory entry 1"


@fault
def receipt_with_a_wrong_proof(world: World) -> Planted:
    (text,) = world.sql("SELECT document FROM receipts WHERE entry=3 AND network='local'")[0]
    document = json.loads(text)
    document["ledger"]["proof"][0] = "00" * 32
    again = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    world.sql("UPDATE receipts SET document=? WHERE entry=3 AND network='local'", again)
    return F.RECEIPT_INVALID, "local entry 3"


@fault
def deleted_receipt(world: World) -> Planted:
    world.sql("DELETE FROM receipts WHERE entry=2 AND network='local'")
    return F.RECEIPT_MISSING, "local entry 2"


@fault
def receipt_of_an_anchor_that_is_gone(world: World) -> Planted:
    world.sql("DELETE FROM anchors WHERE network='local' AND size=1")
    return F.RECEIPT_INVALID, "local entry 0"


@fault
def last_anchor_row_deleted(world: World) -> Planted:
    world.forget_anchor("memory", 5)
    return F.ANCHOR_MISSING, "memory entry 4"


@fault
def final_root_that_nobody_approved(world: World) -> Planted:
    networks: Any = ("memory",)
    world.rule = ApprovalSettings(2, BY, networks=networks, since=2)
    return F.ANCHOR_UNAPPROVED, "memory entry 4"


@fault
def failed_anchor_that_nothing_covers(world: World) -> Planted:
    id = world.anchor_id("memory", 5)
    world.sql("UPDATE anchors SET state='failed', reason='too dear' WHERE id=?", id)
    return F.ANCHOR_MISSING, "memory entry 4"


@fault
def failed_anchor_that_is_on_the_chain(world: World) -> Planted:
    id = world.anchor_id("memory", 2)
    world.sql("UPDATE anchors SET state='failed' WHERE id=?", id)
    return F.ANCHOR_STATE, "memory head 2"


@fault
def anchor_of_another_root(world: World) -> Planted:
    id = world.anchor_id("memory", 2)
    world.sql("UPDATE anchors SET root=? WHERE id=?", b"\6" * 32, id)
    return F.ANCHOR_ROOT, "memory head 2"


@fault
def anchor_in_no_known_state(world: World) -> Planted:
    world.sql("UPDATE anchors SET state='done' WHERE id=?", world.anchor_id("memory", 2))
    return F.ANCHOR_STATE, "memory head 2"


@fault
def anchor_without_signed_bytes(world: World) -> Planted:
    world.sql("UPDATE anchors SET version_id=99 WHERE id=?", world.anchor_id("memory", 2))
    return F.ANCHOR_STATE, "memory head 2"


@fault
def version_of_another_payload(world: World) -> Planted:
    id = world.anchor_id("memory", 2)
    payload = anchor_payload(b"\7" * 32)
    world.sql("UPDATE anchor_versions SET payload=? WHERE anchor_id=?", payload, id)
    _, transaction = world.transaction(2)
    return F.VERSION_DIFFERS, f"memory {transaction.id}"


@fault
def version_with_another_id(world: World) -> Planted:
    id = world.anchor_id("local", 2)
    world.sql("UPDATE anchor_versions SET transaction_id='local:00' WHERE anchor_id=?", id)
    return F.VERSION_DIFFERS, "local local:00"


@fault
def nonce_gap(world: World) -> Planted:
    world.sql("UPDATE nonces SET nonce=nonce+1 WHERE nonce=4")
    world.sql("UPDATE anchor_versions SET nonce=nonce+1 WHERE nonce=4")
    return F.NONCE_GAP, "memory memory-key nonce 4"


@fault
def nonce_that_nothing_spent(world: World) -> Planted:
    world.sql("UPDATE nonces SET nonce=9 WHERE nonce=4")
    return F.NONCE_GAP, "memory memory-key nonce 7"


@fault
def lease_that_ran_out(world: World) -> Planted:
    world.sql(
        "UPDATE anchors SET state='sent', lease_owner='dead', lease_until=? WHERE id=?",
        world.now - 500,
        world.anchor_id("memory", 5),
    )
    return F.LEASE_STUCK, "memory head 5"


@fault
def lease_far_ahead(world: World) -> Planted:
    world.sql(
        "UPDATE anchors SET state='sent', lease_owner='jumped', lease_until=? WHERE id=?",
        world.now + 7200,
        world.anchor_id("memory", 5),
    )
    return F.LEASE_STUCK, "memory head 5"


@fault
def lease_without_an_end(world: World) -> Planted:
    world.sql(
        "UPDATE anchors SET state='sent', lease_owner='x' WHERE id=?",
        world.anchor_id("memory", 5),
    )
    return F.LEASE_STUCK, "memory head 5"


@fault
def lease_on_a_final_row(world: World) -> Planted:
    world.sql(
        "UPDATE anchors SET lease_owner='x', lease_until=? WHERE id=?",
        world.now + 10,
        world.anchor_id("memory", 5),
    )
    return F.LEASE_STUCK, "memory head 5"


@fault
def row_nobody_takes_up(world: World) -> Planted:
    world.sql(
        "UPDATE anchors SET state='sent', next_attempt_at=? WHERE id=?",
        world.now - 500,
        world.anchor_id("memory", 5),
    )
    return F.ANCHOR_STALLED, "memory head 5"


@fault
def row_scheduled_far_ahead(world: World) -> Planted:
    world.sql(
        "UPDATE anchors SET state='confirmed', next_attempt_at=? WHERE id=?",
        world.now + 86400,
        world.anchor_id("memory", 5),
    )
    return F.ANCHOR_STALLED, "memory head 5"


@fault
def paused_network(world: World) -> Planted:
    world.sql("UPDATE networks SET paused='balance: 0' WHERE network='memory'")
    return F.NETWORK_PAUSED, "memory"


# --- planted faults: networks --------------------------------------------------------------


@fault
def anchor_row_deleted_while_on_the_chain(world: World) -> Planted:
    return F.CHAIN_ORPHAN, f"memory {world.forget_anchor('memory', 3)}"


@fault
def anchor_of_no_head_under_our_key(world: World) -> Planted:
    mine(world, "cd" * 32, anchor_payload(b"\x08" * 32))
    return F.CHAIN_ORPHAN, f"memory {'cd' * 32}"


@fault
def line_of_no_head_in_the_local_file(world: World) -> Planted:
    world.sql("DELETE FROM heads WHERE size=5")
    world.sql("DELETE FROM ledger_entries WHERE entry=4")
    txid = world.forget_anchor("local", 5)
    return F.CHAIN_ORPHAN, f"local {txid}"


@fault
def doubled_transaction(world: World) -> Planted:
    _, first = world.transaction(3)
    mine(world, "ef" * 32, first.payload)
    return F.CHAIN_DOUBLED, "memory head 3"


@fault
def doubled_line_in_the_local_file(world: World) -> Planted:
    lines = world.anchors.read_bytes().splitlines(keepends=True)
    world.anchors.write_bytes(b"".join([*lines, lines[2]]))
    return F.CHAIN_DOUBLED, "local head 3"


@fault
def final_without_a_transaction(world: World) -> Planted:
    height, _ = world.transaction(3)
    world.chain.blocks[height] = replace(world.chain.blocks[height], transactions=())
    return F.CHAIN_MISSING, "memory head 3"


@fault
def final_and_only_in_the_mempool(world: World) -> Planted:
    height, transaction = world.transaction(3)
    world.chain.blocks[height] = replace(world.chain.blocks[height], transactions=())
    world.chain.mempool[transaction.id] = transaction
    return F.CHAIN_MISSING, "memory head 3"


@fault
def final_and_failed_in_its_block(world: World) -> Planted:
    swap(world, 3, reverts=True)
    return F.CHAIN_MISSING, "memory head 3"


@fault
def final_and_not_deep(world: World) -> Planted:
    height, _ = world.transaction(5)
    del world.chain.blocks[height + 2 :]
    return F.CHAIN_SHALLOW, "memory head 5"


@fault
def wrong_root_on_the_chain(world: World) -> Planted:
    swap(world, 3, payload=anchor_payload(b"\x08" * 32))
    return F.CHAIN_ROOT, "memory head 3"


@fault
def another_chain(world: World) -> Planted:
    world.chain.chain_id = 1
    return F.CHAIN_IDENTITY, "memory"


@fault
def changed_line_of_the_local_file(world: World) -> Planted:
    lines = world.anchors.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"seq":1', b'"seq":9')
    world.anchors.write_bytes(b"".join(lines))
    return F.CHAIN_DAMAGED, "local line 2"


@fault
def deleted_line_of_the_local_file(world: World) -> Planted:
    lines = world.anchors.read_bytes().splitlines(keepends=True)
    world.anchors.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    return F.CHAIN_MISSING, "local head 2"


@fault
def cut_line_of_the_local_file(world: World) -> Planted:
    world.anchors.write_bytes(world.anchors.read_bytes()[:-3])
    return F.CHAIN_DAMAGED, "local line 5"


@fault
def garbage_in_the_local_file(world: World) -> Planted:
    world.anchors.write_bytes(world.anchors.read_bytes() + b"{}\n")
    return F.CHAIN_DAMAGED, "local line 6"


@fault
def local_line_not_canonical(world: World) -> Planted:
    lines = world.anchors.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"v":1', b'"v": 1')
    world.anchors.write_bytes(b"".join(lines))
    return F.CHAIN_DAMAGED, "local line 5"


def mine(world: World, txid: str, payload: bytes) -> None:
    nonce = str(world.chain.next_nonce("memory-key"))
    world.chain.accept(MemoryTransaction(txid, "memory-key", nonce, 10, payload))
    world.chain.mine(4)


def swap(world: World, size: int, **fields: object) -> None:
    height, transaction = world.transaction(size)
    block = world.chain.blocks[height]
    other = replace(transaction, **fields)  # type: ignore[arg-type]  # keyword arguments of several types
    world.chain.blocks[height] = replace(block, transactions=(other,))


@pytest.mark.slow
@pytest.mark.parametrize("plant", FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found_where_it_is(
    world: World, plant: Callable[[World], Planted]
) -> None:
    expected = plant(world)
    report = world.fsck()
    found = [(finding.kind, finding.subject) for finding in report.findings]
    assert expected in found, report.findings
    assert report.exit_code == 1


def test_every_kind_is_planted_or_tested_below() -> None:
    names = ("test_stream.py", "test_kept.py")
    tests = [Path(__file__), *map(Path(__file__).with_name, names)]
    others = ("ledger/test_guard.py", "test_archiving.py", "watch/test_outcomes.py")
    tests += [Path(__file__).parents[1] / name for name in others]
    source = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [kind.name for kind in F if f"F.{kind.name}" not in source] == []


def test_every_kind_says_beside_its_name_what_it_means() -> None:
    lines = inspect.getsource(F).splitlines()
    kinds = [at for at, line in enumerate(lines) if "= auto()" in line]
    assert len(kinds) == len(F)
    bare = [lines[at] for at in kinds if "#" not in lines[at] + lines[at - 1].strip()[:1]]
    assert bare == []


# --- one fault, few findings ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (deleted_receipt, {F.RECEIPT_MISSING}),
        (changed_digest_column, {F.RECORD_DIGEST}),
        (swapped_siblings, {F.RECORD_PLACE, F.STATEMENT}),
        (crashed_made_finished, {F.STATEMENT, F.ENTRY_ROOT}),
        (
            tail_cut_off_that_was_signed,
            {F.SEQ_HOLE, F.ENTRY_ROOT, F.ENTRY_SEAL, F.PRODUCER_COUNTERS, F.KEPT_STATE},
        ),
        (doubled_transaction, {F.CHAIN_DOUBLED}),
        (wrong_root_on_the_chain, {F.CHAIN_ROOT}),
        (anchor_of_no_head_under_our_key, {F.CHAIN_ORPHAN}),
        (another_chain, {F.CHAIN_IDENTITY}),
        (unsealed_run_with_all_present, {F.RUN_NOT_SEALED}),
        (flipped_bit_in_the_spool, {F.SPOOL_DAMAGED}),
        (segment_of_a_later_release, {F.SPOOL_DAMAGED}),
        (head_signed_by_another_key, {F.HEAD_SIGNATURE}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_fault_is_not_reported_as_others(
    world: World, plant: Callable[[World], Planted], kinds: set[F]
) -> None:
    plant(world)
    assert {finding.kind for finding in world.fsck().findings} == kinds


@pytest.mark.slow
def test_a_tree_that_cannot_be_built_is_a_wrong_root(world: World) -> None:
    world.write_record(FIRST, 6, changed(world.record(FIRST, 6), epoch=-1), digest=True)
    kinds = {finding.kind for finding in world.fsck().findings}
    assert kinds == {F.ENTRY_ROOT, F.RECORD_UNREADABLE, F.STATEMENT}


def test_an_unreadable_record_is_not_also_another_value(world: World) -> None:
    world.write_record(SECOND, 6, b'{"v": 1}', digest=True)
    kinds = {finding.kind for finding in world.fsck().findings}
    assert F.EVENT_DIFFERS not in kinds
    assert F.RECORD_UNREADABLE in kinds


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("ledger_entries", "phase", "later"),
        ("anchor_versions", "detail", "[]"),
        ("anchor_versions", "detail", "{"),
        ("runs", "run", "no id"),
        ("heads", "note", b"bytes"),
    ],
)
def test_a_row_of_the_wrong_type_does_not_end_the_check(
    world: World, table: str, column: str, value: object
) -> None:
    world.sql(f"UPDATE {table} SET {column}=? WHERE rowid=1", value)
    report = world.fsck()
    found = [finding for finding in report.findings if finding.kind is F.ROW_UNREADABLE]
    assert [finding.subject.partition(" ")[0] for finding in found] == [table]


def test_a_reader_whose_answer_has_another_form_leaves_the_network_open(world: World) -> None:
    class Odd:
        name = "memory"

        def read(self, question: Question) -> ChainView:
            raise KeyError("from")

    world.readers = {"memory": Odd(), "local": LocalReader(world.anchors, None)}
    report = world.fsck()
    assert report.findings == ()
    assert report.unchecked[1:] == ("memory: an answer is not of its form (KeyError: 'from')",)


def test_what_a_worker_stored_meanwhile_is_no_orphan(world: World) -> None:
    """A transaction that the database learnt of after its snapshot was taken."""
    sound = World(world.base, world.chain, world.now)
    kept = world.database.read_bytes()

    class Late(MemoryReader):
        def read(self, question: Question) -> ChainView:
            view = super().read(question)
            sound.database.write_bytes(kept)
            return view

    world.forget_anchor("memory", 3)
    world.readers = {"memory": Late(world.chain), "local": LocalReader(world.anchors, None)}
    assert F.CHAIN_ORPHAN not in {finding.kind for finding in world.fsck().findings}


# --- what is no fault ----------------------------------------------------------------------


def test_an_open_run_is_no_fault(world: World) -> None:
    producer = Producer(run=THIRD)
    producer.begin()
    producer.epoch(1)
    world.ingest(producer.batch())
    world.anchor()
    assert world.fsck().findings == ()


@pytest.mark.slow
def test_a_run_of_two_ranks_is_ready_only_when_both_ended(world: World) -> None:
    leader = Producer(run=THIRD, world_size=2)
    leader.begin()
    leader.epoch(1)
    leader.seal("checkpoint", 1)
    leader.finish()
    world.ingest(leader.batch())
    world.anchor()
    assert world.fsck().findings == ()
    other = Producer(run=THIRD, rank=1, name=b"\x04" * 16, world_size=2)
    other.epoch(1)
    other.seal("checkpoint", 1)
    other.end()
    world.insert(other)
    details = {finding.detail.partition(":")[0] for finding in world.fsck().findings}
    assert details == {"checkpoint 1", "after"}


@pytest.mark.slow
def test_the_leader_s_configuration_says_how_many_ranks_there_are(world: World) -> None:
    """Of a leader and its restart with another world size, whose records are read later."""
    leader = Producer(run=THIRD, world_size=1)
    leader.begin()
    leader.epoch(1)
    again = Producer(run=THIRD, world_size=2, name=b"\x09" * 16)
    again.begin()
    again.end()
    again.events = [replace(event, ts_ns=event.ts_ns + 10**9) for event in again.events]
    world.ingest(leader.batch(), again.batch())
    first = len(leader.events)
    leader.finish()
    world.ingest(leader.batch(first))
    world.anchor()
    assert world.sql("SELECT state, incomplete FROM runs WHERE run=?", THIRD.hex) == [
        ("sealed", None)
    ]
    assert world.fsck().findings == ()


@pytest.mark.slow
def test_a_checkpoint_behind_a_sealed_one_is_not_waited_for(world: World) -> None:
    producer = Producer(run=THIRD)
    producer.begin()
    for number in (5, 3, 6):
        producer.epoch(number)
        producer.seal("checkpoint", number)
    child = Producer(run=THIRD, name=b"\x04" * 16)
    child.seal("checkpoint", 4)
    producer.finish()
    child.end()
    world.ingest(producer.batch(0, 12), child.batch(), producer.batch(12))
    world.anchor()
    assert world.fsck().findings == ()


def test_records_without_a_before_mark_ask_for_nothing(world: World) -> None:
    producer = Producer(run=THIRD)
    producer.seal("after")
    producer.end()
    world.insert(producer)
    assert world.fsck().findings == ()


def test_pending_anchors_are_no_fault(world: World) -> None:
    world.ingest(complete(THIRD).batch())
    assert world.fsck().findings == ()


def test_an_event_of_a_live_segment_may_be_half_written(world: World) -> None:
    path = segment(world)
    path.write_bytes(path.read_bytes() + b"\x40\0\0\0\0\0")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert world.fsck().findings == ()
    assert [f.kind for f in world.fsck().findings] == [F.SPOOL_TRUNCATED]


def of_a_sealed_run(world: World) -> Producer:
    """Each record is parked by itself."""
    late = Producer(run=SECOND, name=b"\x07" * 16)
    late.epoch(3)
    world.ingest(late.batch())
    return late


def of_another_history(world: World) -> Producer:
    """The batch is parked as a whole."""
    told, other = (Producer(run=THIRD, name=b"\x07" * 16) for _ in range(2))
    told.epoch(1)
    world.ingest(told.batch())
    other.epoch(1, loss=0.25)
    other.epoch(2)
    world.ingest(other.batch(first=2))
    other.events[:2] = told.events
    return other


@pytest.mark.parametrize("parked", [of_a_sealed_run, of_another_history])
def test_an_event_that_ingest_refused_is_parked_and_not_missing(
    world: World, parked: Callable[[World], Producer]
) -> None:
    late = parked(world)
    path = world.spool(late)
    ((rows,),) = world.sql("SELECT count(*) FROM parked")
    assert [f.kind for f in world.fsck().findings] == [F.PARKED] * rows
    # What is parked is another value of the last event: that one is missing.
    path.unlink()
    last = late.events[-1]
    world.spool(late, [*late.events[:-1], replace(last, fields={"root": "another"})])
    missing = [f.subject for f in world.fsck().findings if f.kind is F.EVENT_MISSING]
    assert missing == [name(late.run, late.name, last.seq)]


def test_events_on_their_way_can_be_given_time(world: World) -> None:
    producer = Producer(run=THIRD)
    world.spool(producer, [replace(event(producer.name, 0), ts_ns=int((world.now - 5) * 1e9))])
    assert [f.kind for f in world.fsck().findings] == [F.EVENT_MISSING]
    world.options = Options(settle_s=10.0)
    assert world.fsck().findings == ()
    world.options = Options(settle_s=1.0)
    assert [f.kind for f in world.fsck().findings] == [F.EVENT_MISSING]


def test_what_an_unread_redis_may_hold_is_not_missing(world: World) -> None:
    producer = Producer(run=THIRD)
    world.spool(producer, [event(producer.name, 0)])
    world.redis_url = "redis://127.0.0.1:1"
    report = world.fsck()
    assert (report.findings, report.exit_code) == ((), 3)
    assert any(line.startswith("1 events of the spool wait") for line in report.unchecked)


def test_an_event_without_a_form_is_recorded_as_a_gap(world: World) -> None:
    producer = Producer(run=THIRD)
    producer.add(Kind.GAP, dropped=1, reason="metrics not recorded")
    world.insert(producer)
    odd = replace(event(producer.name, 0), fields={"metrics": {"at": -(2**70)}}, ts_ns=2**62)
    world.spool(producer, [replace(odd, fields={"bytes": b"no JSON"})])
    assert [f.kind for f in world.fsck().findings] == [F.GAP]


def test_an_older_ledger_of_the_sender_is_a_fault_unless_searched_from_later(world: World) -> None:
    payload = anchor_payload(b"\x08" * 32)
    theirs = MemoryTransaction("aa" * 32, "their-key", "0", 10, payload)
    older = MemoryTransaction("bb" * 32, "memory-key", "77", 10, payload)
    blocks = world.chain.blocks
    blocks.append(replace(blocks[-1], transactions=(theirs,)))
    blocks.insert(0, replace(blocks[-1], transactions=(older,)))
    (finding,) = world.fsck().findings
    assert (finding.kind, finding.subject) == (F.CHAIN_ORPHAN, f"memory {older.id}")
    more = [
        replace(older, id=letter * 64, payload=anchor_payload(letter.encode() * 32))
        for letter in "cd"
    ]
    blocks[0] = replace(blocks[0], transactions=(older, *more))
    (finding,) = world.fsck().findings
    assert (finding.kind, finding.subject) == (F.CHAIN_ORPHAN, f"memory {older.id} and 2 more")
    (remedy,) = re.findall(r"--since-block memory=(\d+)$", finding.detail)
    world.options = Options(since={"memory": int(remedy)})
    assert world.fsck().findings == ()
    # Beside them, each that came later is a finding of its own.
    world.options = Options()
    mine(world, "cd" * 32, anchor_payload(b"\x07" * 32))
    mine(world, "ce" * 32, anchor_payload(b"\x09" * 32))
    subjects = {f.subject for f in world.fsck().findings if f.kind is F.CHAIN_ORPHAN}
    assert subjects == {finding.subject, f"memory {'cd' * 32}", f"memory {'ce' * 32}"}


def test_what_scripts_anchored_on_purpose_is_no_orphan(world: World) -> None:
    mine(world, "cd" * 32, anchor_payload(b"\x08" * 32))
    journal = world.base / "blockchain_manager.jsonl"
    journal.write_text('\n{"torn\n' + json.dumps({"transaction_id": "cd" * 32}) + "\n")
    assert world.fsck().findings == ()


def test_a_nonce_spent_past_the_outbox_is_named(world: World) -> None:
    nonce_gap(world)
    (finding,) = [f for f in world.fsck().findings if f.kind is F.NONCE_GAP]
    _, transaction = world.transaction(5)
    assert transaction.id in finding.detail
    assert "used elsewhere, or was by this deployment before a restore" in finding.detail
    (offline,) = world.fsck(offline=True).findings
    assert offline.kind is F.NONCE_GAP


def test_a_nonce_spent_before_the_block_that_is_named_is_not_ours_to_explain() -> None:
    """As is left behind by a restore, where a head was sent again."""
    nonces = [NonceRow("ethereum", "0xkey", nonce, nonce) for nonce in (0, 2)]
    view = ChainView({}, [], next_nonce={"0xkey": 3})
    (finding,) = check_nonces(nonces, view)
    assert finding.detail.endswith("or was by this deployment before a restore")
    assert not list(check_nonces(nonces, view, since=9))
    spent = ChainView({}, [], next_nonce={"0xkey": 1})
    (finding,) = check_nonces(nonces, spent, since=9)
    assert finding.detail.startswith("nothing has spent it")


# --- what cannot be looked at --------------------------------------------------------------


def complete(run: UUID) -> Producer:
    producer = Producer(run=run)
    producer.begin()
    producer.finish()
    return producer


@pytest.mark.slow
def test_without_the_ledgers_key_signatures_stay_open(world: World) -> None:
    world.key = False
    report = world.fsck()
    assert report.findings == ()
    assert report.exit_code == 3
    assert any("ledger's key" in line for line in report.unchecked)


def test_a_network_that_is_not_configured_stays_open(world: World) -> None:
    world.readers = {}
    report = world.fsck()
    assert report.findings == ()
    assert report.exit_code == 3
    assert report.unchecked == (
        "local: it is not configured here",
        "memory: it is not configured here",
    )


def test_offline_asks_nobody_and_is_clean(world: World) -> None:
    report = world.fsck(offline=True)
    assert (report.findings, report.unchecked, report.exit_code) == ((), (), 0)
    assert report.checked["networks"] == 0


def test_without_a_database_nothing_is_said_to_be_clean(tmp_path: Path) -> None:
    report = World(tmp_path).fsck()
    assert report.exit_code == 3
    assert "there is no database" in report.unchecked[0]
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_said(world: World) -> None:
    world.database.write_bytes(b"no database at all, no database at all, no database")
    for side in ("-wal", "-shm"):
        world.database.with_name(world.database.name + side).unlink(missing_ok=True)
    report = world.fsck()
    assert report.exit_code == 3
    assert "not a database" in report.unchecked[0]


def test_a_spool_that_cannot_be_read_is_said(world: World) -> None:
    (world.base / "spool" / str(THIRD)).mkdir()
    folder = world.base / "spool" / str(THIRD) / f"r0-{'05' * 16}-00000000.seg"
    folder.mkdir()
    report = world.fsck()
    assert report.exit_code == 3
    assert report.unchecked[0].startswith("spool: ")
    assert SEED.hex() not in str(report)


@pytest.mark.parametrize("size", [2**62, -(2**62)])
def test_a_row_that_states_any_number_costs_no_more_than_another(world: World, size: int) -> None:
    """One head moved far ahead: the hole before it is one finding, not 2^62."""
    world.sql("UPDATE heads SET size=? WHERE size=5", size)
    world.sql("UPDATE ledger_entries SET entry=? WHERE entry=4", size)
    world.sql("UPDATE nonces SET nonce=? WHERE nonce=(SELECT max(nonce) FROM nonces)", abs(size))
    found = world.fsck().findings
    assert any(item.kind in (F.ENTRY_MISSING, F.HEAD_ROOT, F.HEAD_NOTE) for item in found)
    assert len(found) < 2000
