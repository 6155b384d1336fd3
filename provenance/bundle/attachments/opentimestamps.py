"""OpenTimestamps proofs of a bundle: each record and each head, by itself, up to a block.

::

    records/<path>.json   SHA-256 -> run tree -> ledger -> transaction -> Merkle root of a block
    heads/<size>.root     SHA-256, which is the ledger root -> transaction -> Merkle root

The transaction carries ``MLP1 || ledger root`` in an OP_RETURN output, so its bytes without
witness are a prefix, the root and a suffix; double SHA-256 makes the transaction id, and
BIP 37's partial tree leads on to the block. All records take the way of the newest seal;
theirs are written where asked for (``provenance bundle --ots``, ``provenance path --ots``).

Complete proofs come from receipts that are final. Where a Bitcoin anchor is still on its way
the proof ends in a pending attestation: of the run root for a record, of the ledger root for
a head. Its URI names the ledger, ``https://<origin>`` with ``-`` for what the format does not
take in a URI; ``provenance upgrade`` completes it. A run that is anchored elsewhere alone
gets no proofs: nobody would ever complete them.
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
from provenance.formats.opentimestamps.file import (
    SHA256,
    Bitcoin,
    Operation,
    Pending,
    Timestamp,
    TimestampFile,
    append,
    operations,
    prepend,
)
from provenance.formats.opentimestamps.operations import MAX_MESSAGE_BYTES
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
"""The network's name."""
_ON_ITS_WAY: Final = (
    AnchorState.DUE,
    AnchorState.SIGNED,
    AnchorState.SENT,
    AnchorState.CONFIRMED,
    AnchorState.REORGED,
)
_NO_URI: Final = re.compile(r"[^A-Za-z0-9._/:-]")
_MAX_ORIGIN: Final = 900


# --- walks -------------------------------------------------------------------------------


def calendar_uri(origin: str) -> str:
    """The URI of pending attestations of a ledger."""
    return "https://" + _NO_URI.sub("-", origin)[:_MAX_ORIGIN]


def from_ledger_root(receipt: Receipt) -> Timestamp:
    """What a Bitcoin receipt knows of its ledger root: the way to the block, and its height.

    Raises:
        ProofError, FormatError: The receipt's evidence does not hold together.
        TooLargeError: A transaction of more than 4,096 bytes, which the format does not take.
    """
    fields = Fields(receipt.evidence, "evidence")
    transaction = parse_transaction(evidence_bytes(fields, "transaction"))
    size = len(transaction.stripped)
    if size > MAX_MESSAGE_BYTES:
        raise TooLargeError(
            f"the anchor's transaction has {size} bytes without witness, an OpenTimestamps "
            f"proof takes {MAX_MESSAGE_BYTES}"
        )
    block = parse_merkle_block(evidence_bytes(fields, "merkle_block"))
    leaf = prove_inclusion(transaction, block)
    root = receipt.ledger.root
    at = transaction.stripped.find(PAYLOAD_TAG + root)
    if at < 0 or receipt.anchor.height is None:
        raise ProofError(f"transaction {display(transaction.txid)} does not carry the root")
    at += len(PAYLOAD_TAG)
    walk = [
        prepend(transaction.stripped[:at]),
        append(transaction.stripped[at + len(root) :]),
        SHA256,
        SHA256,
    ]
    for left, sibling in leaf.path:
        walk += [prepend(sibling) if left else append(sibling), SHA256, SHA256]
    return Timestamp.of_walk(root, walk, Bitcoin(receipt.anchor.height))


def from_run_root(receipt: Receipt) -> Timestamp:
    """What a Bitcoin receipt knows of its run root; raises as `from_ledger_root`."""
    ledger = receipt.ledger
    walk = operations(merkle.path_steps(ledger.index, ledger.size, ledger.proof))
    return Timestamp.of_walk(receipt.root, walk, from_ledger_root(receipt))


# --- writing -----------------------------------------------------------------------------


def files(evidence: RunEvidence, ots: bool = False) -> dict[str, bytes]:
    """``.root`` and ``.root.ots`` of heads, and where asked for ``.ots`` of each record.

    What cannot be said in the format, or does not hold, gets no file: the checks of the
    evidence itself say what is wrong with it.
    """
    made: dict[str, bytes] = {}
    receipts, pending = _ends(evidence)
    if ots and (tree := newest_tree(evidence)) is not None:
        made |= record_proofs(evidence, tree, evidence.records)
    for size, preimage in _tops(evidence).items():
        root = hashlib.sha256(preimage).digest()
        head_end = _end_of_head(evidence, receipts, pending, size, root)
        if head_end is not None:
            made[f"heads/{size}.root"] = preimage
            made[f"heads/{size}.root.ots"] = _encoded(root, [], head_end)
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
                made[f"{record.file}.ots"] = _encoded(record.digest, walk, end)
        except (FormatError, InputError, IntegrityError):
            continue
    return made


def _ends(evidence: RunEvidence) -> tuple[list[Receipt], Pending | None]:
    """Final receipts of Bitcoin, and what stands where one is still to come."""
    receipts = [r for r in evidence.receipts_of(BITCOIN) if r.anchor.state == "final"]
    origin = evidence.head_origin()
    return receipts, Pending(calendar_uri(origin)) if origin is not None else None


def _encoded(digest: bytes, walk: list[Operation], end: Timestamp) -> bytes:
    return TimestampFile(Timestamp.of_walk(digest, walk, end)).encode()


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
    end = _first(chosen, from_run_root)
    if end is None and pending is not None and _awaited(evidence):
        return Timestamp(newest.root, (pending,))
    return end


def _end_of_head(
    evidence: RunEvidence,
    receipts: list[Receipt],
    pending: Pending | None,
    size: int,
    root: bytes,
) -> Timestamp | None:
    chosen = (r for r in receipts if (r.ledger.size, r.ledger.root) == (size, root))
    end = _first(chosen, from_ledger_root)
    if end is None and pending is not None:
        anchors = (a for a in evidence.anchors if (a.network, a.size) == (BITCOIN, size))
        if any(anchor.state in _ON_ITS_WAY for anchor in anchors):
            return Timestamp(root, (pending,))
    return end


def _first(
    receipts: Iterable[Receipt], timestamp_of: Callable[[Receipt], Timestamp]
) -> Timestamp | None:
    """The timestamp of the first receipt whose evidence holds together."""
    for receipt in receipts:
        try:
            return timestamp_of(receipt)
        except (FormatError, InputError, IntegrityError):
            continue
    return None


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
