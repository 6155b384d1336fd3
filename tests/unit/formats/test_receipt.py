"""Receipts: exact bytes, strict decoding, and the walk from run root to payload."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import (
    FormatError,
    InputError,
    ProofError,
    TooLargeError,
    UnknownVersionError,
)
from provenance.formats import merkle
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.note import SignerKey
from provenance.formats.receipt import MAX_RECEIPT_BYTES, AnchorProof, LedgerProof, Receipt
from provenance.formats.record import Phase, canonical_json

SIGNER = SignerKey.from_private_bytes("example.org/ledger", bytes(range(32)))
ROOTS = [bytes([i]) * 32 for i in range(5)]
LEDGER_ROOT = merkle.root(ROOTS)
RECEIPT = Receipt(
    run=UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    phase=Phase.CHECKPOINT,
    epoch=4,
    root=ROOTS[2],
    ledger=LedgerProof(2, 5, LEDGER_ROOT, merkle.MerkleTree(ROOTS).inclusion_proof(2)),
    head=sign_head(Head("example.org/ledger", 5, LEDGER_ROOT), SIGNER),
    anchor=AnchorProof(
        network="bitcoin",
        state="final",
        transaction_id="ab" * 32,
        payload=b"MLP1" + LEDGER_ROOT,
        height=101,
        block_hash="cd" * 32,
        depth=6,
        block_time=1_700_000_000.0,
        confirmed_at=1_700_000_600.5,
    ),
    evidence={"header": "00", "proof": ["aa", 1]},
)


def fields() -> dict[str, Any]:
    raw = json.loads(RECEIPT.encode())
    assert isinstance(raw, dict)
    return raw


def test_the_bytes_are_what_the_format_says() -> None:
    proof = ",".join(f'"{p.hex()}"' for p in RECEIPT.ledger.proof)
    note = RECEIPT.head.replace("\n", "\\n")
    expected = (
        '{"anchor":{"block_hash":"' + "cd" * 32 + '","block_time":1700000000,'
        '"confirmed_at":1700000600.5,"depth":6,"height":101,"network":"bitcoin",'
        '"payload":"4d4c5031' + LEDGER_ROOT.hex() + '","state":"final",'
        '"transaction_id":"' + "ab" * 32 + '"},"epoch":4,'
        '"evidence":{"header":"00","proof":["aa",1]},"head":"' + note + '",'
        '"ledger":{"index":2,"proof":[' + proof + '],"root":"' + LEDGER_ROOT.hex() + '","size":5},'
        '"phase":"checkpoint","root":"' + "02" * 32 + '",'
        '"run":"01890a5d-ac96-774b-bcce-b302099a8057","v":1}'
    )
    assert RECEIPT.encode() == expected.encode()


def test_decode_gives_back_what_was_encoded() -> None:
    assert Receipt.decode(RECEIPT.encode()) == RECEIPT
    bare = replace(
        RECEIPT,
        epoch=None,
        phase=Phase.BEFORE,
        evidence={},
        anchor=replace(RECEIPT.anchor, height=None, block_hash=None, block_time=None),
    )
    assert Receipt.decode(bare.encode()) == bare


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("run",), 5, "receipt: run: found 5, expected text"),
        (("run",), "no uuid", "run: found 'no uuid', expected a UUID"),
        (("phase",), "later", "phase: found 'later', expected one of before"),
        (("epoch",), True, "epoch: found true, expected a whole"),
        (("root",), "AB" * 32, "root: found 'AB.*', expected 64 lower-case hex"),
        (("root",), "zz" * 32, "root: found 'zz.*', expected 64"),
        (("head",), None, "head: found null, expected text"),
        (("evidence",), [], "evidence: found a list"),
        (("ledger", "proof"), [7], r"ledger.proof\[0\]: found 7, expected 64"),
        (("ledger", "root"), "00", "ledger.root: found '00', expected 64"),
        (("ledger", "index"), "2", "ledger.index: found '2', expected a whole"),
        (("ledger", "extra"), 1, "ledger.extra: unknown key"),
        (("anchor", "payload"), "00" * 32, "anchor.payload: found .* expected 72"),
        (("anchor", "state"), "sent", "anchor.state: found 'sent', expected one of"),
        (("anchor", "depth"), 1.5, "anchor.depth: found 1.5, expected a whole"),
        (("anchor", "confirmed_at"), None, "anchor.confirmed_at: found null, expected a number"),
        (("more",), 1, "more: unknown key"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[str, ...], value: object, message: str) -> None:
    raw = fields()
    inner = raw
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(FormatError, match=message):
        Receipt.decode(canonical_json(raw))


@pytest.mark.parametrize("path", [("head",), ("ledger", "size"), ("anchor", "network")])
def test_a_missing_field_is_named(path: tuple[str, ...]) -> None:
    raw = fields()
    inner = raw
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    with pytest.raises(FormatError, match=f"{'.'.join(path)}: found nothing"):
        Receipt.decode(canonical_json(raw))


@pytest.mark.parametrize("version", [2, "1", None, True])
def test_another_version_is_named(version: object) -> None:
    with pytest.raises(UnknownVersionError, match="expected 1"):
        Receipt.decode(canonical_json(fields() | {"v": version}))


def test_not_canonical_is_refused() -> None:
    with pytest.raises(FormatError, match="canonical"):
        Receipt.decode(RECEIPT.encode() + b"\n")
    with pytest.raises(FormatError, match="canonical"):
        Receipt.decode(json.dumps(fields()).encode())
    huge = RECEIPT.encode().replace(b'["aa",1]', b'["aa",9007199254740993]')
    with pytest.raises(FormatError, match="receipt is not in canonical form"):
        Receipt.decode(huge)


def test_not_a_receipt_at_all() -> None:
    with pytest.raises(FormatError, match="found a list, expected an object"):
        Receipt.decode(b"[]")
    with pytest.raises(FormatError, match="not JSON"):
        Receipt.decode(b"\xff{")
    with pytest.raises(FormatError, match="not JSON"):
        Receipt.decode(b"[" * 100_000)
    with pytest.raises(TooLargeError):
        Receipt.decode(bytes(MAX_RECEIPT_BYTES + 1))


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(InputError, match="state 'sent'"):
        replace(RECEIPT, anchor=replace(RECEIPT.anchor, state="sent")).encode()
    with pytest.raises(TooLargeError):
        replace(RECEIPT, evidence={"raw": "a" * MAX_RECEIPT_BYTES}).encode()


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_raise_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        Receipt.decode(data)


@given(st.integers(0, 10**6))
def test_no_changed_byte_still_proves_the_same(where: int) -> None:
    good = RECEIPT.encode()
    position = where % len(good)
    bad = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
    try:
        read = Receipt.decode(bad)
        read.verify_inclusion()
    except (FormatError, ProofError):
        return
    proven = (read.root, read.ledger, read.anchor.payload)
    assert proven == (RECEIPT.root, RECEIPT.ledger, RECEIPT.anchor.payload)


def test_inclusion_holds() -> None:
    RECEIPT.verify_inclusion()


def test_each_step_can_fail() -> None:
    ledger = RECEIPT.ledger
    with pytest.raises(ProofError, match="leaf 2 in a tree of 5"):  # (1)
        replace(RECEIPT, root=ROOTS[3]).verify_inclusion()
    with pytest.raises(ProofError, match="leaf 2"):
        replace(RECEIPT, ledger=replace(ledger, proof=ledger.proof[:-1])).verify_inclusion()
    other = sign_head(Head("example.org/ledger", 6, LEDGER_ROOT), SIGNER)
    with pytest.raises(ProofError, match="head states size 6"):  # (2)
        replace(RECEIPT, head=other).verify_inclusion()
    with pytest.raises(FormatError):
        replace(RECEIPT, head="no note").verify_inclusion()
    with pytest.raises(ProofError, match="payload is"):  # (3)
        anchor = replace(RECEIPT.anchor, payload=b"MLP2" + LEDGER_ROOT)
        replace(RECEIPT, anchor=anchor).verify_inclusion()
