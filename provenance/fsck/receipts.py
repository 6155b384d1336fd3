"""Receipts in the database: each holds, and each entry under a final anchor has one.

The evidence is checked here with :mod:`provenance.proofs` alone; the verifier has its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from provenance.errors import BadSignatureError, FormatError, ProofError
from provenance.formats.fields import Fields
from provenance.formats.note import VerifierKey
from provenance.formats.receipt import AnchorProof, Receipt
from provenance.formats.record import Json
from provenance.fsck.findings import Finding, FindingKind
from provenance.fsck.ledger import same_head
from provenance.fsck.local_file import read_line
from provenance.fsck.outbox import PAYLOAD_TAG, OutboxFacts
from provenance.fsck.rows import Anchor, Entry, ReceiptRow, Version
from provenance.proofs import bitcoin, ethereum
from provenance.proofs.ipfs.cid import decode_cid, raw_cid
from provenance.proofs.local_file import local_transaction_id


def check_receipts(facts: OutboxFacts, key: VerifierKey | None) -> Iterator[Finding]:
    """Receipts that do not hold, and entries under a final anchor that have none.

    Args:
        key: The ledger's; None leaves signatures unverified.
    """
    versions = {version.id: version for version in facts.versions}
    entries = {entry.index: entry for entry in facts.entries}
    anchors = {anchor.id: anchor for anchor in facts.anchors}
    final: set[tuple[str, int]] = set()
    for row in facts.receipts:
        entry, anchor = entries.get(row.entry), anchors.get(row.anchor_id)
        problem: str | None
        if entry is None or anchor is None:
            problem = "its ledger entry or its anchor is gone"
        else:
            try:
                version = versions.get(anchor.version_id or 0)
                problem = _receipt_problem(row, entry, anchor, version, facts, key)
            except (FormatError, ProofError, BadSignatureError, ValueError) as error:
                problem = str(error)
            if anchor.state == "final":
                final.add((anchor.network, row.entry))
        if problem is not None:
            subject = f"{row.network} entry {row.entry}"
            yield FindingKind.RECEIPT_INVALID(subject, problem)
    sizes = sorted((a.size, a.network) for a in facts.anchors if a.state == "final")
    for network, size in {network: size for size, network in sizes}.items():  # the largest of each
        for index in sorted(entries):
            if index < size and (network, index) not in final:
                problem = "a final anchor covers it, and no receipt says so"
                yield FindingKind.RECEIPT_MISSING(f"{network} entry {index}", problem)


def _receipt_problem(
    row: ReceiptRow,
    entry: Entry,
    anchor: Anchor,
    version: Version | None,
    facts: OutboxFacts,
    key: VerifierKey | None,
) -> str | None:
    receipt = Receipt.decode(row.document.encode())
    receipt.verify_inclusion()
    different = same_head(receipt.head, facts.heads, key)
    if different is not None:
        return different
    stated = receipt.anchor
    check_evidence(stated, receipt.evidence, key)
    for name, found, expected in (
        ("run", receipt.run, entry.run),
        ("phase", receipt.phase, entry.phase),
        ("epoch", receipt.epoch, entry.epoch),
        ("root", receipt.root.hex(), entry.root.hex()),
        ("ledger.index", receipt.ledger.index, entry.index),
        ("ledger.size", receipt.ledger.size, anchor.size),
        ("ledger.root", receipt.ledger.root.hex(), anchor.root.hex()),
        ("network", stated.network, anchor.network),
        ("network", row.network, anchor.network),
        ("state", stated.state, anchor.state),
    ):
        if found != expected:
            return f"states {name} {found}, expected {expected}"
    if version is not None and stated.transaction_id != version.transaction_id:
        return f"states transaction {stated.transaction_id}, the anchor {version.transaction_id}"
    return None


def check_evidence(
    stated: AnchorProof, evidence: Mapping[str, Json], key: VerifierKey | None
) -> None:
    """Check what the evidence of a network proves from its bytes; unknown networks pass.

    Args:
        stated: What the receipt says of the anchor.
        key: The ledger's, which signs local lines; None takes the evidence's own.

    Raises:
        ProofError, FormatError, BadSignatureError, ValueError: It does not hold, or it proves
            something else than the receipt states.
    """
    check = _EVIDENCE.get(stated.network)
    if check is None:
        return
    kind = evidence.get("type", stated.network)
    if kind != stated.network or stated.depth < 1:
        raise ProofError(f"is of {stated.network} at depth {stated.depth}, its evidence of {kind}")
    check(stated, Fields.of(evidence, "evidence"), key)


def _bitcoin(stated: AnchorProof, evidence: Fields, _: VerifierKey | None) -> None:
    """Transaction, Merkle proof and header (BIP 37), and the headers on top of it."""
    raw = _hex(evidence, "transaction")
    chain = evidence.text("chain")
    header = bitcoin.verify_anchor(
        raw, _hex(evidence, "merkle_block"), _hex(evidence, "header"), stated.payload, chain
    )
    _expect(
        stated,
        transaction_id=bitcoin.display(bitcoin.parse_transaction(raw).txid),
        block_hash=bitcoin.display(header.hash),
        block_time=header.time,
    )
    for above in evidence.items("headers", _hex) if "headers" in evidence.raw else ():
        upper = bitcoin.parse_header(above)
        if upper.previous != header.hash:
            raise ProofError("a header of the evidence does not build on the one before")
        bitcoin.check_work(upper, bitcoin.CHAINS[chain].limit)
        header = upper


def _ethereum(stated: AnchorProof, evidence: Fields, _: VerifierKey | None) -> None:
    """The transaction; with a trie proof (Merkle-Patricia) its block and time as well."""
    raw = _hex(evidence.object("transaction"), "raw")
    root = stated.payload[len(PAYLOAD_TAG) :]
    contract = None if evidence.raw.get("contract") is None else _hex(evidence, "contract")
    transaction = ethereum.parse_transaction(raw)
    if not ethereum.commits_to(transaction, contract, root):
        raise ProofError("the transaction's calldata does not carry the root")
    _expect(stated, transaction_id=f"0x{transaction.hash.hex()}")
    receipt = sent = None
    if "receipt_proof" in evidence.raw:
        proof = evidence.object("receipt_proof")
        receipt = _trie_proof(proof, _hex(proof, "receipt_rlp"))
    if "transaction_proof" in evidence.raw:
        sent = _trie_proof(evidence.object("transaction_proof"), raw)
    if receipt is None and sent is None:
        return
    header = _hex(evidence.object("block"), "header_rlp")
    proven = ethereum.verify_anchor(header, root, contract, receipt, sent)
    block = proven.header
    _expect(
        stated, block_hash=f"0x{block.hash.hex()}", height=block.number, block_time=block.timestamp
    )


def _ipfs(stated: AnchorProof, _: Fields, __: VerifierKey | None) -> None:
    """The CID of the payload as a raw block; no block of a chain and no time."""
    if decode_cid(stated.transaction_id) != raw_cid(stated.payload):
        raise ProofError(f"{stated.transaction_id} is not the CID of the payload")
    _expect(stated, height=None, block_hash=None, block_time=None)


def _local(stated: AnchorProof, evidence: Fields, key: VerifierKey | None) -> None:
    """A line of the anchor file that the ledger's key signed."""
    public = evidence.hex("public_key", 32)
    if key is not None and public != key.public_bytes:
        raise ProofError(f"its line is signed by {public.hex()}, which is not the ledger's key")
    text = evidence.text("line").encode()
    payload, problem = read_line(text, public)
    if problem is not None or payload != stated.payload:
        raise ProofError(f"its line {problem or 'carries another payload'}")
    line = Fields.parse(text, "line")
    _expect(
        stated,
        transaction_id=local_transaction_id(payload),
        height=line.integer("seq"),
        block_hash=hashlib.sha256(text).hexdigest(),
        block_time=datetime.fromisoformat(line.text("ts")).timestamp(),
    )


_EVIDENCE: Final[Mapping[str, Callable[[AnchorProof, Fields, VerifierKey | None], None]]] = {
    "bitcoin": _bitcoin,
    "ethereum": _ethereum,
    "ipfs": _ipfs,
    "local": _local,
}


def _expect(stated: AnchorProof, **proven: object) -> None:
    for name, value in proven.items():
        if getattr(stated, name) != value:
            raise ProofError(f"states {name} {getattr(stated, name)}, its evidence gives {value}")


def _trie_proof(proof: Fields, value: bytes) -> ethereum.TrieProof:
    index = proof.integer("index", most=ethereum.MAX_INDEX)
    return ethereum.TrieProof(index, value, proof.items("nodes", _hex))


def _hex(fields: Fields, key: str | int) -> bytes:
    """Bytes of any number, from hex with or without ``0x``."""
    try:
        return bytes.fromhex(fields.text(key).removeprefix("0x"))
    except ValueError:
        return fields.refuse(key, "hex")
