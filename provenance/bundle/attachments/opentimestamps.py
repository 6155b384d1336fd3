"""OpenTimestamps proofs of a bundle: each record and each head, by itself, up to a block.

docs/FORMAT.md, section 10.1. All records take the way of the newest seal; theirs are written where
asked for (``provenance bundle --ots``, ``provenance path --ots``).

Complete proofs come from receipts that are final. Where a Bitcoin anchor is still on its way the
proof ends in a pending attestation, which ``provenance upgrade`` completes. A run that is anchored
elsewhere alone gets no proofs: nobody would ever complete them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Final

from provenance.errors import FormatError, InputError, IntegrityError, ProofError, TooLargeError
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RecordFile, RunEvidence, evidence_bytes
from provenance.formats import merkle
from provenance.formats.fields import Fields
from provenance.formats.opentimestamps.file import TimestampFile
from provenance.formats.opentimestamps.tree import (
    MAX_MESSAGE_BYTES,
    SHA256,
    Bitcoin,
    Pending,
    Timestamp,
    append,
    operations,
    prepend,
)
from provenance.formats.receipt import Receipt
from provenance.formats.run_tree.tree import MLProvenanceMerkleTree
from provenance.ports.values import PAYLOAD_TAG, AnchorState
from provenance.proofs.bitcoin import (
    display,
    parse_merkle_block,
    parse_transaction,
    prove_inclusion,
)

BITCOIN: Final = "bitcoin"
_ON_ITS_WAY: Final = (
    AnchorState.DUE,
    AnchorState.HELD,
    AnchorState.SIGNED,
    AnchorState.SENT,
    AnchorState.CONFIRMED,
    AnchorState.REORGED,
)
_NO_URI: Final = re.compile(r"[^A-Za-z0-9._/:-]")
_MAX_ORIGIN: Final = 900


def calendar_uri(origin: str) -> str:
    """The URI of pending attestations of a ledger."""
    return "https://" + _NO_URI.sub("-", origin)[:_MAX_ORIGIN]


def from_ledger_root(receipt: Receipt) -> Timestamp:
    """What a Bitcoin receipt knows of its ledger root: the way to the block, and its height.
    ``ProofError`` or ``FormatError`` where its evidence does not hold together, or the transaction
    has more than 4,096 bytes, which the format does not take."""
    fields = Fields(receipt.evidence, "evidence")
    transaction = parse_transaction(evidence_bytes(fields, "transaction"))
    size = len(transaction.stripped)
    if size > MAX_MESSAGE_BYTES:
        most = f"an OpenTimestamps proof takes {MAX_MESSAGE_BYTES}"
        raise TooLargeError(f"the anchor's transaction has {size} bytes without witness, {most}")
    block = parse_merkle_block(evidence_bytes(fields, "merkle_block"))
    leaf = prove_inclusion(transaction, block)
    root = receipt.ledger.root
    at = transaction.stripped.find(PAYLOAD_TAG + root)
    if at < 0 or receipt.anchor.height is None:
        raise ProofError(f"transaction {display(transaction.txid)} does not carry the root")
    at += len(PAYLOAD_TAG)
    before, behind = transaction.stripped[:at], transaction.stripped[at + len(root) :]
    walk = [prepend(before), append(behind), SHA256, SHA256]
    for left, sibling in leaf.path:
        walk += [prepend(sibling) if left else append(sibling), SHA256, SHA256]
    return Timestamp.of_walk(root, walk, Bitcoin(receipt.anchor.height))


def from_run_root(receipt: Receipt) -> Timestamp:
    """What a Bitcoin receipt knows of its run root; raises as `from_ledger_root`."""
    ledger = receipt.ledger
    walk = operations(merkle.path_steps(ledger.index, ledger.size, ledger.proof))
    return Timestamp.of_walk(receipt.root, walk, from_ledger_root(receipt))


def files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """``.root`` and ``.root.ots`` of heads, and where asked for ``.ots`` of each record. What does
    not hold gets no file: the checks of the evidence itself say what is wrong with it."""
    made: dict[str, bytes] = {}
    receipts, pending = _ends(evidence)
    if ots and (tree := newest_tree(evidence)) is not None:
        made |= record_proofs(evidence, tree, evidence.records)
    for size, preimage in _tops(evidence).items():
        root = hashlib.sha256(preimage).digest()
        chosen = (r for r in receipts if (r.ledger.size, r.ledger.root) == (size, root))
        anchors = (a for a in evidence.anchors if (a.network, a.size) == (BITCOIN, size))
        awaited = any(anchor.state in _ON_ITS_WAY for anchor in anchors)
        head_end = _end(chosen, from_ledger_root, root, pending if awaited else None)
        if head_end is not None:
            made[f"heads/{size}.root"] = preimage
            made[f"heads/{size}.root.ots"] = TimestampFile(head_end).encode()
    return made


def record_proofs(
    evidence: RunEvidence, tree: MLProvenanceMerkleTree, records: Iterable[RecordFile]
) -> dict[str, bytes]:
    """The ``.ots`` of records in the tree at the newest seal, by file; none where no Bitcoin
    anchor is there or to come."""
    end = _end_of_records(evidence, *_ends(evidence))
    made: dict[str, bytes] = {}
    for record in records if end is not None else ():
        if record.place != "tree" or end is None:
            continue
        try:
            proof = tree.proof(record.path)
            if proof.leaf_digest == record.digest:
                walk = operations(proof.steps())
                timestamp = Timestamp.of_walk(record.digest, walk, end)
                made[f"{record.file}.ots"] = TimestampFile(timestamp).encode()
        except (FormatError, InputError, IntegrityError):
            continue
    return made


def _ends(evidence: RunEvidence) -> tuple[list[Receipt], Pending | None]:
    """Final receipts of Bitcoin, and what stands where one is still to come."""
    receipts = [r for r in evidence.receipts_of(BITCOIN) if r.anchor.state == "final"]
    origin = evidence.head_origin()
    return receipts, Pending(calendar_uri(origin)) if origin is not None else None


def _awaited(evidence: RunEvidence) -> bool:
    """Whether a Bitcoin anchor over the newest run root is on its way, or will come."""
    anchors = [anchor for anchor in evidence.anchors if anchor.network == BITCOIN]
    newest = [anchor for anchor in anchors if anchor.size > evidence.entries[-1].index]
    # A seal that was not to be anchored by itself: the next head on this network covers it.
    return any(anchor.state in _ON_ITS_WAY for anchor in newest) or bool(anchors and not newest)


def _end_of_records(
    evidence: RunEvidence, receipts: list[Receipt], pending: Pending | None
) -> Timestamp | None:
    """What is known of the newest run root; None where nothing is to come."""
    if not evidence.entries:
        return None
    newest = evidence.entries[-1]
    chosen = (r for r in receipts if (r.ledger.index, r.root) == (newest.index, newest.root))
    return _end(chosen, from_run_root, newest.root, pending if _awaited(evidence) else None)


def _end(
    receipts: Iterable[Receipt],
    timestamp_of: Callable[[Receipt], Timestamp],
    root: bytes,
    pending: Pending | None,
) -> Timestamp | None:
    """What the first receipt whose evidence holds together knows of a root, or what is pending."""
    for receipt in receipts:
        try:
            return timestamp_of(receipt)
        except (FormatError, InputError, IntegrityError):
            continue
    return Timestamp(root, (pending,)) if pending else None


def _tops(evidence: RunEvidence) -> dict[int, bytes]:
    """By size of a head what its root is the SHA-256 of, where an inclusion proof tells."""
    roots = head_roots(evidence)
    entries = {entry.index: entry.root for entry in evidence.entries}
    tops: dict[int, bytes] = {}
    for item in evidence.inclusions:
        entry = entries.get(item.index)
        if entry is None or item.size in tops or item.size not in roots:
            continue
        try:
            *below, last = merkle.path_steps(item.index, item.size, item.proof)
        except ProofError:
            continue
        preimage = last.prefix + merkle.apply_steps(entry, below) + last.suffix
        if hashlib.sha256(preimage).digest() == roots[item.size]:
            tops[item.size] = preimage
    return tops


def head_roots(evidence: RunEvidence) -> dict[int, bytes]:
    """Ledger root by size of each head whose note states the size it is filed under."""
    return {
        size: signed.head.root
        for size, signed in evidence.signed_heads().items()
        if signed.head.size == size
    }
