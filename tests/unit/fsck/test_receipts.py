"""The checker's own rules of evidence: true receipts hold, and each statement is held to it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from provenance.errors import FormatError, IntegrityError
from provenance.formats.note import SignerKey
from provenance.formats.receipt import Receipt
from provenance.fsck.receipts import check_evidence
from tests.support.verify_world import ORIGIN, SIGNER, World, finished

NETWORKS = ("bitcoin", "ethereum", "ipfs", "local")
OTHER = SignerKey.from_private_bytes(ORIGIN, b"\x09" * 32)
ABSENT = object()


@cache
def world() -> World:
    return finished(1, names=NETWORKS)


def receipt(network: str) -> Receipt:
    files = world().evidence().receipts
    return Receipt.decode(next(f.data for f in files if f.name == f"after-{network}"))


def check(network: str, anchor: dict[str, Any], evidence: dict[str, Any]) -> None:
    true = receipt(network)
    fields: dict[str, Any] = {**true.evidence, **evidence}
    fields = {name: value for name, value in fields.items() if value is not ABSENT}
    check_evidence(replace(true.anchor, **anchor), fields, SIGNER.verifier)


@pytest.mark.parametrize("network", NETWORKS)
def test_true_evidence_holds(network: str) -> None:
    check(network, {}, {})


def test_an_unknown_network_is_left_to_the_reader_of_the_chain() -> None:
    check_evidence(replace(receipt("ipfs").anchor, network="memory"), {}, None)


@pytest.mark.parametrize(
    ("network", "anchor", "evidence"),
    [
        ("bitcoin", {"transaction_id": "ff" * 32}, {}),
        ("bitcoin", {"block_hash": "ff" * 32}, {}),
        ("bitcoin", {"block_time": 5.0}, {}),
        ("bitcoin", {"depth": 0}, {}),
        ("bitcoin", {"payload": b"MLP1" + bytes(32)}, {}),
        ("bitcoin", {}, {"type": "ipfs"}),
        ("bitcoin", {}, {"chain": "main"}),
        ("bitcoin", {}, {"header": ABSENT}),
        ("bitcoin", {}, {"merkle_block": "00"}),
        ("bitcoin", {}, {"transaction": 5}),
        ("bitcoin", {}, {"headers": ["00" * 80]}),
        ("bitcoin", {}, {"headers": ["x"]}),
        ("bitcoin", {}, {"headers": 5}),
        ("ethereum", {"transaction_id": "0x" + "ff" * 32}, {}),
        ("ethereum", {"payload": b"MLP1" + bytes(32)}, {}),
        ("ethereum", {}, {"transaction": ABSENT}),
        ("ethereum", {}, {"transaction": {"raw": "0x00"}}),
        ("ethereum", {}, {"contract": "0x" + "ff" * 20}),
        ("ipfs", {"height": 1}, {}),
        ("ipfs", {"block_time": 1.0}, {}),
        ("ipfs", {"transaction_id": "no cid"}, {}),
        ("local", {"transaction_id": "local:" + "0" * 32}, {}),
        ("local", {"height": 77}, {}),
        ("local", {"block_hash": "ff" * 32}, {}),
        ("local", {"block_time": 1.0}, {}),
        ("local", {}, {"line": ABSENT}),
        ("local", {}, {"line": "{}"}),
        ("local", {}, {"public_key": OTHER.verifier.public_bytes.hex()}),
    ],
)
def test_what_does_not_agree_is_refused(
    network: str, anchor: dict[str, Any], evidence: dict[str, Any]
) -> None:
    with pytest.raises((FormatError, IntegrityError)):
        check(network, anchor, evidence)


@pytest.mark.parametrize(
    "anchor",
    [{"block_hash": "0x" + "ff" * 32}, {"height": 1}, {"block_time": 5e9}],
    ids=["hash", "height", "time"],
)
def test_a_proven_ethereum_block_is_the_one_that_is_stated(anchor: dict[str, Any]) -> None:
    evidence = receipt("ethereum").evidence
    assert "receipt_proof" in evidence or "transaction_proof" in evidence
    with pytest.raises(IntegrityError, match="its evidence gives"):
        check("ethereum", anchor, {})
