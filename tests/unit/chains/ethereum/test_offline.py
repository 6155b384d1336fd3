"""Check (7) of an Ethereum receipt: what holds, and each field that says something else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from provenance.errors import FormatError, IntegrityError, ProofError
from provenance.proofs.ethereum import MAX_HEADER_BYTES, MAX_NODES
from provenance.verify.checks.ethereum_receipt import check_ethereum
from provenance.verify.checks.receipts import check_evidence
from tests.support.nodes.ethereum_block import (
    CONTRACT,
    NUMBER,
    ROOT,
    TIME,
    Block,
    calldata_block,
    repeated_block,
    transaction,
)

BLOCKS = {"contract": Block(), "calldata": calldata_block(), "repeated": repeated_block()}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=list(BLOCKS))
def test_a_receipt_with_both_proofs_holds(block: Block) -> None:
    check_evidence(block.anchor(), json.loads(json.dumps(block.evidence())))


def test_one_proof_is_enough_where_it_carries_the_root() -> None:
    check_ethereum(Block().anchor(), Block().evidence(sent=False))
    check_ethereum(calldata_block().anchor(), calldata_block().evidence(bill=False))
    with pytest.raises(ProofError, match="holds no HashStored"):
        check_ethereum(repeated_block().anchor(), repeated_block().evidence(sent=False))


def test_receipts_without_proofs_hold_as_far_as_they_go() -> None:
    """Those of earlier releases: the transaction carries the root, its block is only stated."""
    block = Block()
    evidence = block.evidence(bill=False, sent=False)
    assert "no trie proof" in (check_evidence(block.anchor(), evidence) or "")
    del evidence["type"]
    check_evidence(block.anchor(), evidence)
    evidence["block"]["header_rlp"] = None
    check_evidence(block.anchor(), evidence)
    for path, value, says in (
        (("transaction", "raw"), "0x" + transaction(b"").hex(), "the transaction in it is 0x"),
        (("contract",), None, "does not carry the root"),
        (("chain_id",), 5, r"evidence\.chain_id is 5"),
        (("block", "hash"), "0x00", "the block in it is 0x00"),
        (("block", "number"), NUMBER + 1, f"is number {NUMBER + 1}, not {NUMBER}"),
        (("block", "timestamp"), TIME - 1, "the receipt says"),
        (("block", "timestamp"), None, r"block\.timestamp: found null, expected a whole number"),
        (("block", "header_rlp"), "0x" + Block(count=4).header.hex(), r"evidence\.block\.hash"),
        (("receipt", "status"), 0, r"evidence\.receipt\.status is 0"),
    ):
        forged = copy.deepcopy(evidence)
        put(*path)(forged, value)
        with pytest.raises((FormatError, ProofError), match=says):
            check_evidence(block.anchor(), forged)
    with pytest.raises(ProofError, match="the block in it is"):
        check_evidence(block.anchor(block_hash="0x00"), evidence)


def test_without_evidence_there_is_no_receipt() -> None:
    for evidence in ({}, {"type": "ethereum"}, {"type": "ipfs"}, {"type": None}):
        with pytest.raises((FormatError, ProofError)):
            check_evidence(Block().anchor(transaction_id="0x00"), evidence)


def test_a_contract_in_mixed_case_is_the_same() -> None:
    block = Block(contract=CONTRACT)
    evidence = block.evidence()
    evidence["contract"] = "0x" + CONTRACT.hex().upper()
    check_ethereum(block.anchor(), evidence)


def put(*path: str | int) -> Callable[[Any, Any], None]:
    def into(evidence: Any, value: Any) -> None:
        for step in path[:-1]:
            evidence = evidence[step]
        evidence[path[-1]] = value

    return into


CHANGES: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("chain_id",), 5, r"evidence\.chain_id is 5, the proof leads to 1"),
    (("chain_id",), True, r"evidence\.chain_id"),
    (("chain_id",), None, r"evidence\.chain_id is None"),
    (("contract",), None, "does not carry the root"),
    (("contract",), "0x" + "11" * 20, "does not carry the root"),
    (("contract",), "0x" + "11" * 21, r"evidence\.contract: more than 20 bytes"),
    (("contract",), "ab", r"evidence: contract: found .*, expected 0x"),
    (("transaction",), [], r"evidence: transaction: found .*, expected an object"),
    (("transaction", "id"), "0x" + "11" * 32, r"evidence\.transaction\.id"),
    (("transaction", "index"), 1, r"evidence\.transaction\.index is 1, the proof leads to 2"),
    (("transaction", "raw"), "0x" + transaction(b"").hex(), "lies another transaction"),
    (("transaction", "raw"), "0x0 ", r"evidence: transaction\.raw: found .*, expected 0x"),
    (("transaction", "raw"), None, r"evidence: transaction\.raw: found .*, expected 0x"),
    (("receipt",), None, r"evidence: receipt: found .*, expected an object"),
    (("receipt", "status"), 0, r"evidence\.receipt\.status is 0, the proof leads to 1"),
    (("receipt", "status"), True, r"evidence\.receipt\.status"),
    (("receipt", "logs"), [], r"evidence\.receipt\.logs are not those"),
    (("receipt", "logs", 0, "data"), "0x", r"evidence\.receipt\.logs are not those"),
    (("block",), "0x", r"evidence: block: found .*, expected an object"),
    (("block", "hash"), "0x" + "11" * 32, r"evidence\.block\.hash"),
    (("block", "number"), NUMBER + 1, r"evidence\.block\.number"),
    (("block", "timestamp"), TIME - 1, r"evidence\.block\.timestamp"),
    (("block", "header_rlp"), None, r"evidence: block\.header_rlp: found .*, expected 0x"),
    (("block", "header_rlp"), "0xf8 00", r"evidence: block\.header_rlp: found .*, expected 0x"),
    (("block", "header_rlp"), "0x" + "00" * (MAX_HEADER_BYTES + 1), "more than 16384 bytes"),
    (("block", "header_rlp"), "0x" + Block(count=4).header.hex(), "does not hash to"),
    (("receipt_proof",), None, r"evidence: receipt_proof: found .*, expected an object"),
    (("receipt_proof", "index"), 3, "receipt 3 and transaction 2 are not of one index"),
    (
        ("receipt_proof", "index"),
        -1,
        r"evidence: receipt_proof\.index: found .*, expected a whole number",
    ),
    (
        ("receipt_proof", "index"),
        2.0,
        r"evidence: receipt_proof\.index: found .*, expected a whole number",
    ),
    (
        ("receipt_proof", "index"),
        True,
        r"evidence: receipt_proof\.index: found .*, expected a whole number",
    ),
    (("receipt_proof", "receipt_rlp"), "0x02", "lies another receipt"),
    (
        ("receipt_proof", "receipt_rlp"),
        2,
        r"evidence: receipt_proof\.receipt_rlp: found .*, expected 0x",
    ),
    (
        ("receipt_proof", "nodes"),
        "0x",
        r"evidence: receipt_proof\.nodes: found .*, expected a list",
    ),
    (("receipt_proof", "nodes"), ["0x"] * (MAX_NODES + 1), "17, at most 16"),
    (("receipt_proof", "nodes"), [], "ends above the value"),
    (
        ("receipt_proof", "nodes", 0),
        "0xzz",
        r"evidence: receipt_proof\.nodes\[0\]: found .*, expected 0x",
    ),
    (("receipt_proof", "nodes", 0), "0x" + "00" * 20_000, "more than 17408 bytes"),
    (("transaction_proof", "nodes"), [], "transaction proof: it ends above the value"),
    (("transaction_proof",), 5, r"evidence: transaction_proof: found .*, expected an object"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "says"), CHANGES, ids=[f"{c[0]}-{str(c[1])[:20]}" for c in CHANGES]
)
def test_a_field_that_says_something_else(
    path: tuple[str | int, ...], value: Any, says: str
) -> None:
    block = Block()
    evidence = copy.deepcopy(block.evidence())
    put(*path)(evidence, value)
    with pytest.raises((FormatError, ProofError), match=says):
        check_evidence(block.anchor(), evidence)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transaction_id": "0x" + "11" * 32}, "the transaction in it is 0x"),
        ({"payload": b"MLP1" + bytes(32)}, "does not carry the root"),
        ({"height": NUMBER + 1}, f"is number {NUMBER}, not {NUMBER + 1}"),
        ({"height": None}, "not None"),
        ({"block_hash": "0x" + "11" * 32}, "the block in it is 0x"),
        ({"block_hash": None}, "not None"),
        ({"block_time": TIME + 1.0}, f"is of time {TIME}, the receipt says {TIME + 1}"),
        ({"block_time": TIME - 1.0}, f"is of time {TIME}"),
        ({"block_time": None}, "says None"),
    ],
)
@pytest.mark.parametrize("block", [Block(), calldata_block()], ids=["contract", "calldata"])
def test_an_anchor_that_says_something_else(
    block: Block, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProofError, match=says):
        check_evidence(block.anchor(**changes), block.evidence())


def test_the_time_is_that_of_the_block_whoever_stored_the_root_before() -> None:
    block = repeated_block()
    for time in (TIME - 3600.0, TIME + 1.0):
        with pytest.raises(ProofError, match=f"of time {TIME}, the receipt says"):
            check_evidence(block.anchor(block_time=time), block.evidence())


@pytest.mark.parametrize("block", BLOCKS.values(), ids=list(BLOCKS))
@pytest.mark.slow
def test_no_changed_character_of_a_proof_holds(block: Block) -> None:
    """Every hex digit of the header, the receipt, the transaction and the nodes counts."""
    whole = block.evidence()
    places: list[tuple[str | int, ...]] = [
        ("block", "header_rlp"),
        ("transaction", "raw"),
        ("receipt_proof", "receipt_rlp"),
        *(("receipt_proof", "nodes", at) for at in range(len(block.receipt.nodes))),
        *(("transaction_proof", "nodes", at) for at in range(len(block.transaction.nodes))),
    ]
    for path in places:
        text: Any = whole
        for step in path:
            text = text[step]
        for at in range(2, len(text), 29):
            digit = format(int(text[at], 16) ^ 1, "x")
            evidence = copy.deepcopy(whole)
            put(*path)(evidence, text[:at] + digit + text[at + 1 :])
            with pytest.raises((FormatError, IntegrityError)):
                check_evidence(block.anchor(), evidence)


def test_the_root_is_that_of_the_payload() -> None:
    assert Block().anchor().payload[4:] == ROOT
