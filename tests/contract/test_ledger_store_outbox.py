"""LedgerStore: anchors, versions, networks, and what the database itself refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import insert

from provenance.errors import (
    EquivocationError,
    IntegrityError,
)
from provenance.formats.record import Phase
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import AnchorState, NetworkRow, SignedVersion
from provenance.stores.sql import SqlStore, schema
from tests.support.ledger_values import (
    DUE,
    KEY,
    OTHER,
    RUN,
    A,
    digest,
    record,
    signed,
    with_anchor,
    with_heads,
)

# --- outbox ------------------------------------------------------------------------------


def test_an_anchor_starts_due_with_the_heads_root(tx: LedgerTx) -> None:
    with_heads(tx, 2)
    row = tx.add_anchor("ethereum", 2, 3.0)
    assert (row.state, row.root, row.size) == (AnchorState.DUE, digest("root 2"), 2)
    assert (row.attempts, row.next_attempt_at, row.depth, row.version_id) == (0, 3.0, 0, None)
    assert tx.add_anchor("ethereum", 2, 9.0) == row == tx.anchor(row.id)
    assert tx.anchor(row.id + 1) is None


def test_an_anchor_needs_a_head(tx: LedgerTx) -> None:
    with pytest.raises(IntegrityError, match="no head at size 2"):
        tx.add_anchor("ethereum", 2, 1.0)


def test_anchors_are_listed_by_network_and_size(tx: LedgerTx) -> None:
    with_heads(tx, 3)
    for network, size in (("local", 1), ("ethereum", 3), ("ethereum", 1)):
        tx.add_anchor(network, size, 1.0)
    last = tx.anchors()[-1]
    tx.save_anchor(replace(last, state=AnchorState.FINAL))
    assert [(row.network, row.size) for row in tx.anchors()] == [
        ("ethereum", 1),
        ("ethereum", 3),
        ("local", 1),
    ]
    assert [row.size for row in tx.anchors("ethereum")] == [1, 3]
    assert [row.network for row in tx.anchors(states=iter([AnchorState.FINAL]))] == ["local"]
    assert list(tx.anchors("ethereum", [AnchorState.FINAL])) == []


def test_what_is_asked_of_a_networks_anchors_without_reading_all(run_tx: LedgerTx) -> None:
    tx = run_tx
    assert (tx.anchored_networks(), tx.anchor_counts("ethereum")) == ([], {})
    with_heads(tx, 6)
    tx.add_anchor("local", 1, 1.0)
    rows = [tx.add_anchor("ethereum", size, 1.0) for size in (1, 2, 3, 5, 6)]
    states = [AnchorState[name] for name in ("REPLACED", "FAILED", "FINAL", "CONFIRMED", "FAILED")]
    changed = [replace(row, state=state) for row, state in zip(rows, states, strict=True)]
    tx.save_anchor(*changed)
    tx.save_anchor()
    _, failed, final, confirmed, last = changed
    assert [tx.anchor(row.id) for row in rows] == changed
    assert tx.anchored_networks() == ["ethereum", "local"]
    counts = {AnchorState.REPLACED: 1, AnchorState.FAILED: 2}
    assert tx.anchor_counts("ethereum") == counts | {final.state: 1, confirmed.state: 1}
    assert tx.covering("ethereum", 0) == tx.covering("ethereum", 2) == final
    assert tx.covering("ethereum", 3) == tx.covering("ethereum", 4) == confirmed
    assert tx.covering("ethereum", 5) == last
    assert tx.covering("ethereum", 6) is None
    for epoch in range(7):
        tx.append_entry(RUN, Phase.CHECKPOINT, epoch, digest(f"{epoch}"), True, 1.0)
    each = {index: tx.covering("ethereum", index) for index in range(6)}
    assert tx.coverings("ethereum", range(9)) == {i: (row, None) for i, row in each.items()}
    assert tx.coverings("ipfs", range(9)) == tx.coverings("ethereum", ()) == {}
    both = {AnchorState.FINAL, AnchorState.CONFIRMED}
    assert [
        tx.reach("ethereum", some) for some in (both, {final.state}, {AnchorState.DUE}, ())
    ] == [5, 3, 0, 0]
    assert tx.reach("ethereum", both, below=5) == 3


def test_a_saved_anchor_reads_back(tx: LedgerTx) -> None:
    row = replace(
        with_anchor(tx),
        state=AnchorState.CONFIRMED,
        attempts=3,
        next_attempt_at=1700000000.123456,
        lease_owner="worker",
        lease_until=1700000060.5,
        reason="depth 2 of 12",
        version_id=4,
        height=2**40,
        depth=2,
        block_time=1699999999.0,
        updated_at=5.0,
    )
    tx.save_anchor(row)
    assert tx.anchor(row.id) == row
    with pytest.raises(IntegrityError, match="no anchor"):
        tx.save_anchor(row, replace(row, id=row.id + 1))


def test_claim_leases_what_is_due_oldest_first(tx: LedgerTx) -> None:
    with_heads(tx, 4)
    rows = [tx.add_anchor("ethereum", size, 10.0 - size) for size in (1, 2, 3)]
    late = tx.add_anchor("ethereum", 4, 11.0)
    tx.add_anchor("local", 1, 1.0)
    tx.save_anchor(replace(rows[0], state=AnchorState.FINAL))
    claimed = tx.claim("ethereum", DUE, "me", 10.0, 60.0, 10)
    assert [row.size for row in claimed] == [3, 2]
    assert all((row.lease_owner, row.lease_until) == ("me", 70.0) for row in claimed)
    assert [tx.anchor(row.id) for row in claimed] == list(claimed)
    unclaimed = tx.anchor(late.id)
    assert unclaimed is not None
    assert unclaimed.lease_owner is None


def test_a_lease_keeps_others_out_until_it_ends(tx: LedgerTx) -> None:
    with_anchor(tx)
    assert tx.claim("ethereum", iter(DUE), "me", 1.0, 60.0, 5)
    assert not tx.claim("ethereum", DUE, "you", 60.9, 60.0, 5)
    renewed = tx.claim("ethereum", DUE, "me", 2.0, 60.0, 5)
    assert [row.lease_until for row in renewed] == [62.0]
    taken = tx.claim("ethereum", DUE, "you", 62.0, 60.0, 5)
    assert [(row.lease_owner, row.lease_until) for row in taken] == [("you", 122.0)]


def test_claim_takes_no_more_than_asked(tx: LedgerTx) -> None:
    with_heads(tx, 3)
    for size in (1, 2, 3):
        tx.add_anchor("ethereum", size, 1.0)
    assert len(tx.claim("ethereum", DUE, "me", 1.0, 60.0, 2)) == 2
    assert len(tx.claim("ethereum", DUE, "you", 1.0, 60.0, 2)) == 1


def test_due_networks_are_those_that_claim_would_serve(tx: LedgerTx) -> None:
    with_heads(tx, 1)
    for network, due in (("ethereum", 1.0), ("bitcoin", 1.0), ("ipfs", 9.0)):
        tx.add_anchor(network, 1, due)
    assert tx.due_networks(iter(DUE), 1.0) == {"ethereum", "bitcoin"}
    tx.claim("bitcoin", DUE, "me", 1.0, 3.0, 1)
    assert tx.due_networks(DUE, 1.0) == {"ethereum"}
    assert tx.due_networks(DUE, 9.0) == {"ethereum", "bitcoin", "ipfs"}
    assert tx.due_networks([AnchorState.SIGNED], 9.0) == frozenset()


def test_a_seal_is_announced_once(run_tx: LedgerTx) -> None:
    assert run_tx.unannounced(9) == []
    for run in (RUN, OTHER, RUN):
        run_tx.seal_run(run, 3.0, None)
    assert set(run_tx.unannounced(9)) == {RUN, OTHER}
    assert len(run_tx.unannounced(1)) == 1
    run_tx.announced([RUN])
    run_tx.seal_run(RUN, 4.0, None)
    assert run_tx.unannounced(9) == [OTHER]


def test_a_version_reads_back_as_it_was_signed(tx: LedgerTx) -> None:
    anchor = with_anchor(tx)
    first = tx.add_version(anchor.id, signed("one"), 1.0)
    bumped = tx.add_version(anchor.id, signed("two", fee=3_000_000_000), 2.0)
    assert (first.anchor_id, first.version, first.sent_at) == (anchor.id, signed("one"), None)
    assert tx.versions(anchor.id) == [first, bumped]
    assert tx.versions(anchor.id + 1) == []


def test_storing_the_same_version_again_is_no_change(tx: LedgerTx) -> None:
    anchor = with_anchor(tx)
    first = tx.add_version(anchor.id, signed(), 1.0)
    assert tx.add_version(anchor.id, signed(), 2.0) == first
    assert len(tx.versions(anchor.id)) == 1


def test_a_transaction_id_belongs_to_one_version(tx: LedgerTx) -> None:
    anchor = with_anchor(tx)
    another = with_anchor(tx, 2)
    first = tx.add_version(anchor.id, signed(), 1.0)
    with pytest.raises(EquivocationError, match="0xtx"):
        tx.add_version(anchor.id, signed(raw=b"other bytes"), 1.0)
    with pytest.raises(EquivocationError, match=f"anchor {anchor.id}"):
        tx.add_version(another.id, signed(), 1.0)
    local = tx.add_anchor("local", 1, 1.0)
    assert tx.add_version(local.id, signed(network="local", nonce=None), 1.0).id != first.id


def test_a_nonce_belongs_to_one_anchor(tx: LedgerTx) -> None:
    anchor = with_anchor(tx)
    another = with_anchor(tx, 2)
    assert tx.highest_nonce("ethereum", "0xkey") is None
    tx.add_version(anchor.id, signed("one", nonce=0), 1.0)
    with pytest.raises(EquivocationError, match="nonce 0 of 0xkey"):
        tx.add_version(another.id, signed("two", nonce=0), 1.0)
    tx.add_version(another.id, signed("three", nonce=9), 1.0)
    tx.add_version(another.id, signed("four", nonce=0, key="0xother"), 1.0)
    tx.add_version(anchor.id, signed("five", nonce=None), 1.0)
    assert tx.highest_nonce("ethereum", "0xkey") == 9
    assert tx.highest_nonce("ethereum", "0xother") == 0
    assert tx.highest_nonce("local", "0xkey") is None


@pytest.mark.parametrize("version", [signed(network="bitcoin"), signed(network="x", nonce=None)])
def test_a_version_is_of_its_anchors_network(store: LedgerStore, version: SignedVersion) -> None:
    with pytest.raises(IntegrityError), store.transaction() as tx:
        tx.add_version(with_anchor(tx).id, version, 1.0)


def test_the_first_broadcast_time_stands(tx: LedgerTx) -> None:
    anchor = with_anchor(tx)
    version = tx.add_version(anchor.id, signed(), 1.0)
    tx.mark_sent(version.id, 2.0)
    tx.mark_sent(version.id, 3.0)
    assert tx.versions(anchor.id) == [replace(version, sent_at=2.0)]
    with pytest.raises(IntegrityError, match="no version"):
        tx.mark_sent(version.id + 1, 1.0)


def test_a_network_is_remembered(tx: LedgerTx) -> None:
    assert tx.network("ethereum") is None
    row = NetworkRow("ethereum", {"chain_id": 1, "genesis": "0xd4"}, None, 1.0)
    tx.save_network(row)
    assert tx.network("ethereum") == row
    paused = replace(row, paused="balance too low", checked_at=2.0)
    tx.save_network(paused)
    assert tx.network("ethereum") == paused


# --- the database itself -----------------------------------------------------------------


def _values(store: SqlStore) -> dict[str, dict[str, object]]:
    with store.transaction() as tx:
        tx.add_run(RUN, KEY, 1.0)
        tx.insert_records([record(0)], 1.0)
        tx.append_entry(RUN, Phase.BEFORE, None, digest("x"), True, 1.0)
        anchor = with_anchor(tx)
        another = with_anchor(tx, 2)
        tx.add_version(anchor.id, signed(), 1.0)
    entry = {
        "run": RUN,
        "phase": "after",
        "epoch": -1,
        "root": KEY,
        "anchor": True,
        "created_at": 1.0,
    }
    version = {
        "anchor_id": another.id, "network": "ethereum", "payload": b"", "transaction_id": "0xnew",
        "raw": b"", "key": "0xkey", "nonce": None, "fee": 0, "detail": {}, "created_at": 1.0,
    }  # fmt: skip
    row = {
        "network": "ipfs", "size": 1, "root": digest("root 1"), "state": "due", "attempts": 0,
        "next_attempt_at": 1.0, "depth": 0, "created_at": 1.0, "updated_at": 1.0,
    }  # fmt: skip
    return {
        "second value for a record": {
            "table": schema.records, "run": RUN, "producer": A, "seq": 0, "kind": "metrics",
            "epoch": 1, "rank": 0, "digest": KEY, "data": b"", "stored_at": 1.0,
        },
        "second entry at an index": {"table": schema.ledger_entries, "index": 0, **entry},
        "second entry without an epoch": {
            "table": schema.ledger_entries, "index": 1, **entry, "phase": "before",
        },
        "second anchor of a head": {"table": schema.anchors, **row, "network": "ethereum"},
        "anchor with another root": {"table": schema.anchors, **row, "root": KEY},
        "second row for a nonce": {
            "table": schema.nonces, "network": "ethereum", "key": "0xkey", "nonce": 7,
            "anchor_id": another.id,
        },
        "version with another's nonce": {"table": schema.anchor_versions, **version, "nonce": 7},
        "second version of a transaction": {
            "table": schema.anchor_versions, **version, "transaction_id": "0xtx",
        },
        "state of a run": {
            "table": schema.runs, "run": OTHER, "public_key": KEY, "state": "x", "created_at": 1.0,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        "second value for a record",
        "second entry at an index",
        "second entry without an epoch",
        "second anchor of a head",
        "anchor with another root",
        "second row for a nonce",
        "version with another's nonce",
        "second version of a transaction",
        "state of a run",
    ],
)
def test_the_database_itself_keeps_the_promise(store_url: str, case: str) -> None:
    store = SqlStore.open(store_url)
    values = _values(store)[case]
    table = values.pop("table")
    with pytest.raises(IntegrityError), store.exclusive() as connection:
        connection.execute(insert(table), values)  # type: ignore[arg-type]  # wrong or wider on purpose
    store.close()


# --- approvals ----------------------------------------------------------------------------


def test_an_approval_is_kept_and_replaced_per_anchor(tx: LedgerTx) -> None:
    row = with_anchor(tx)
    assert tx.approval(row.id) is None
    tx.save_approval(row.id, b"statement")
    tx.save_approval(row.id, b"statement, signed")
    assert tx.approval(row.id) == b"statement, signed"
    assert tx.approval(row.id + 1) is None


def test_the_approval_below_a_size_is_the_largest_of_its_network(tx: LedgerTx) -> None:
    with_heads(tx, 4)
    rows = {size: tx.add_anchor("ethereum", size, 1.0) for size in (1, 2, 3, 4)}
    other = tx.add_anchor("local", 2, 1.0)
    for row in (rows[1], rows[3], other):
        tx.save_approval(row.id, f"of {row.network} {row.size}".encode())
    assert tx.approval_below("ethereum", 4) == (rows[3], b"of ethereum 3")
    assert tx.approval_below("ethereum", 3) == (rows[1], b"of ethereum 1")
    assert tx.approval_below("ethereum", 1) is None
    assert tx.approval_below("ipfs", 4) is None


def test_final_roots_are_found_in_a_range_of_entries(run_tx: LedgerTx) -> None:
    for epoch in range(3):
        run_tx.append_entry(RUN, Phase.CHECKPOINT, epoch, digest(f"{epoch}"), True, 1.0)
    run_tx.append_entry(RUN, Phase.AFTER, None, digest("after"), True, 1.0)
    ranges = [(0, 3), (0, 4), (3, 4), (4, 9), (3, 3)]
    found = [run_tx.has_final(first, end) for first, end in ranges]
    assert found == [False, True, True, False, False]


def test_an_approval_needs_an_anchor(store: LedgerStore) -> None:
    with pytest.raises(IntegrityError), store.transaction() as tx:
        tx.save_approval(99, b"of nothing")


# --- signing requests ---------------------------------------------------------------------


def test_a_signing_request_is_of_one_network_and_root(store: LedgerStore) -> None:
    root, other = digest("root"), digest("other")
    with store.transaction() as tx:
        assert tx.signing_request("ethereum", root) is None
        tx.save_signing_request("ethereum", root, b"one")
        tx.save_signing_request("bitcoin", root, b"two")
        tx.save_signing_request("ethereum", other, b"three")
        tx.save_signing_request("ethereum", root, b"four")
    with store.snapshot() as tx:
        assert tx.signing_request("ethereum", root) == b"four"
        assert tx.signing_request("bitcoin", root) == b"two"
        assert tx.signing_request("ethereum", other) == b"three"
        assert tx.signing_request("bitcoin", other) is None
