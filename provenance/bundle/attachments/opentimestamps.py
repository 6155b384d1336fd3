"""OpenTimestamps proofs of a bundle: each record and each head, by itself, up to a block.

::

    records/<path>.json   SHA-256 -> run tree -> ledger -> transaction -> Merkle root of a block
    heads/<size>.root     SHA-256, which is the ledger root -> transaction -> Merkle root

The transaction carries ``MLP1 || ledger root`` in an OP_RETURN output, so its bytes without
witness are a prefix, the root and a suffix; double SHA-256 makes the transaction id, and
BIP 37's partial tree leads on to the block. All records take the way of the newest seal.

Complete proofs come from receipts that are final. Where a Bitcoin anchor is still on its way
the proof ends in a pending attestation: of the run root for a record, of the ledger root for
a head. Its URI names the ledger, ``https://<origin>`` with ``-`` for what the format does not
take in a URI; ``provenance upgrade`` completes it. A run that is anchored elsewhere alone
gets no proofs: nobody would ever complete them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from provenance.errors import FormatError, InputError, IntegrityError, ProofError, TooLargeError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats import merkle
from provenance.formats.checkpoint import parse_note
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
from provenance.formats.record import Json
from provenance.formats.run_tree.proof import RunProof
from provenance.ports.values import PAYLOAD_TAG, AnchorState
from provenance.proofs.bitcoin import (
    BlockHeader,
    display,
    parse_header,
    parse_merkle_block,
    parse_transaction,
    prove_inclusion,
)
from provenance.verify.catalogue import PORTABLE
from provenance.verify.findings import Notes

BITCOIN: Final = "bitcoin"
"""The network's name."""
_ON_ITS_WAY: Final = (
    AnchorState.DUE,
    AnchorState.SIGNED,
    AnchorState.SENT,
    AnchorState.CONFIRMED,
    AnchorState.REORGED,
)
_HEAD: Final = re.compile(r"heads/(0|[1-9][0-9]{0,18})\.root(\.ots)?")
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
    transaction = parse_transaction(_bytes(receipt.evidence, "transaction"))
    size = len(transaction.stripped)
    if size > MAX_MESSAGE_BYTES:
        raise TooLargeError(
            f"the anchor's transaction has {size} bytes without witness, an OpenTimestamps "
            f"proof takes {MAX_MESSAGE_BYTES}"
        )
    block = parse_merkle_block(_bytes(receipt.evidence, "merkle_block"))
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


def _bytes(evidence: Mapping[str, Json], name: str) -> bytes:
    try:
        return bytes.fromhex(str(evidence.get(name)))
    except ValueError:
        raise FormatError(f"evidence.{name} is not hex") from None


# --- writing -----------------------------------------------------------------------------


def files(evidence: RunEvidence, proofs: Mapping[str, RunProof]) -> dict[str, bytes]:
    """``.ots`` of each record that has a proof, ``.root`` and ``.root.ots`` of heads.

    What cannot be said in the format, or does not hold, gets no file: the checks of the
    evidence itself say what is wrong with it.
    """
    receipts = [each for each in _receipts(evidence) if each.anchor.state == "final"]
    origin = _origin(evidence)
    pending = Pending(calendar_uri(origin)) if origin is not None else None
    made: dict[str, bytes] = {}
    end = _end_of_records(evidence, receipts, pending)
    for record in evidence.records if end is not None else ():
        proof = proofs.get(record.path)
        if proof is None or end is None:
            continue
        try:
            walk = operations(proof.steps())
            made[f"{record.file}.ots"] = _encoded(record.digest, walk, end)
        except (FormatError, InputError, IntegrityError):
            continue
    for size, preimage in _tops(evidence).items():
        root = hashlib.sha256(preimage).digest()
        head_end = _end_of_head(evidence, receipts, pending, size, root)
        if head_end is not None:
            made[f"heads/{size}.root"] = preimage
            made[f"heads/{size}.root.ots"] = _encoded(root, [], head_end)
    return made


def _encoded(digest: bytes, walk: list[Operation], end: Timestamp) -> bytes:
    return TimestampFile(Timestamp.of_walk(digest, walk, end)).encode()


def _receipts(evidence: RunEvidence) -> list[Receipt]:
    """Bitcoin's receipts that decode, smallest head first."""
    found = []
    for file in evidence.receipts:
        try:
            receipt = Receipt.decode(file.data)
        except FormatError:
            continue
        if receipt.anchor.network == BITCOIN:
            found.append(receipt)
    return sorted(found, key=lambda receipt: receipt.ledger.size)


def _origin(evidence: RunEvidence) -> str | None:
    for head in reversed(evidence.heads):
        try:
            return parse_note(head.note).head.origin
        except (FormatError, InputError):
            continue
    return None


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
    for receipt in receipts:
        if (receipt.ledger.index, receipt.root) == (newest.index, newest.root):
            try:
                return from_run_root(receipt)
            except (FormatError, InputError, IntegrityError):
                continue
    if pending is not None and _awaited(evidence):
        return Timestamp(newest.root, (pending,))
    return None


def _end_of_head(
    evidence: RunEvidence,
    receipts: list[Receipt],
    pending: Pending | None,
    size: int,
    root: bytes,
) -> Timestamp | None:
    for receipt in receipts:
        if (receipt.ledger.size, receipt.ledger.root) == (size, root):
            try:
                return from_ledger_root(receipt)
            except (FormatError, InputError, IntegrityError):
                continue
    for anchor in evidence.anchors:
        mine = (anchor.network, anchor.size) == (BITCOIN, size)
        if mine and pending is not None and anchor.state in _ON_ITS_WAY:
            return Timestamp(root, (pending,))
    return None


def _tops(evidence: RunEvidence) -> dict[int, bytes]:
    """By size of a head what its root is the SHA-256 of, where an inclusion proof tells."""
    roots = dict(_roots(evidence))
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


def _roots(evidence: RunEvidence) -> Iterator[tuple[int, bytes]]:
    """Size and root of each head, as its note states them."""
    for item in evidence.heads:
        try:
            head = parse_note(item.note).head
        except (FormatError, InputError):
            continue
        if head.size == item.size:
            yield item.size, head.root


# --- checking ----------------------------------------------------------------------------


def check(evidence: RunEvidence, notes: Notes) -> None:
    """Each proof begins at its file's digest and ends in a block that a receipt proves.

    A pending one ends at a run root or ledger root of this evidence, and names this ledger.
    """
    proofs = _Checker(evidence)
    for name, data in sorted(evidence.attachments.items()):
        if not name.endswith((".root", ".ots")):
            continue
        record = proofs.records.get(name)
        try:
            proofs.check(name, data)
        except (FormatError, InputError, ProofError) as error:
            path = None if record is None else record.path
            notes.fail(PORTABLE, path or name, str(error), name, path)
    for problem, (name, *others) in proofs.blocks_missing.items():
        more = f", and so say {len(others)} other files" if others else ""
        record = proofs.records.get(name)
        path = None if record is None else record.path
        notes.fail(PORTABLE, path or name, problem + more, name, path)
    if proofs.complete or proofs.pending:
        notes.count(
            PORTABLE,
            f"{len(evidence.attachments)} files; OpenTimestamps proofs: "
            f"{proofs.complete} complete, {proofs.pending} pending",
        )
    if proofs.foreign:
        notes.unchecked(
            PORTABLE, f"{proofs.foreign} attestations of kinds that this release does not know"
        )


class _Checker:
    def __init__(self, evidence: RunEvidence) -> None:
        self.attachments = evidence.attachments
        self.records = {f"{record.file}.ots": record for record in evidence.records}
        self.heads = dict(_roots(evidence))
        self.blocks = {(height, block.merkle_root) for height, block in _blocks(evidence)}
        self.roots = {entry.root for entry in evidence.entries} | set(self.heads.values())
        origin = _origin(evidence)
        self.uri = None if origin is None else calendar_uri(origin)
        self.complete = self.pending = self.foreign = 0
        self.blocks_missing: dict[str, list[str]] = {}
        """By problem the files that have it: one damaged receipt is one finding."""

    def check(self, name: str, data: bytes) -> None:
        """Raises FormatError, InputError or ProofError where the file does not hold."""
        head = _HEAD.fullmatch(name)
        if head is not None and head[2] is None:
            self._check_root(int(head[1]), data)
            return
        if head is not None:
            root = self.attachments.get(name.removesuffix(".ots"))
            if root is None:
                raise ProofError("the file that it is of is missing")
            digest = hashlib.sha256(root).digest()
        elif name in self.records:
            digest = self.records[name].digest
        else:
            raise ProofError("there is no record that it is of")
        proof = TimestampFile.decode(data, canonical=True)
        if proof.hashed_with != SHA256 or proof.timestamp.message != digest:
            raise ProofError(
                f"begins at {proof.hashed_with.name} {proof.timestamp.message.hex()}, "
                f"the file has sha256 {digest.hex()}"
            )
        self._check_ends(name, proof.timestamp)

    def _check_root(self, size: int, data: bytes) -> None:
        root = self.heads.get(size)
        if root is None:
            raise ProofError(f"there is no head of size {size}")
        if hashlib.sha256(data).digest() != root:
            raise ProofError(f"its SHA-256 is not the ledger root {root.hex()}")

    def _check_ends(self, name: str, timestamp: Timestamp) -> None:
        complete = pending = False
        for message, attestation in timestamp.walk():
            if isinstance(attestation, Bitcoin):
                complete = True
                if (attestation.height, message) not in self.blocks:
                    self.blocks_missing.setdefault(
                        f"says that block {attestation.height} has Merkle root "
                        f"{display(message)}, which no Bitcoin receipt proves",
                        [],
                    ).append(name)
            elif isinstance(attestation, Pending):
                pending = True
                self._check_pending(message, attestation)
            else:
                self.foreign += 1
        if not complete and not pending:
            raise ProofError("has no attestation that this release knows")
        self.complete += complete
        self.pending += not complete

    def _check_pending(self, message: bytes, pending: Pending) -> None:
        if message not in self.roots:
            raise ProofError(f"is pending at {message.hex()}, which is no root of this evidence")
        if self.uri is not None and pending.uri != self.uri:
            raise ProofError(f"is pending at {pending.uri}, the ledger is {self.uri}")


def _blocks(evidence: RunEvidence) -> Iterator[tuple[int, BlockHeader]]:
    """Height and header of each block that a Bitcoin receipt leads to; check 7 is of those."""
    for receipt in _receipts(evidence):
        try:
            header = parse_header(_bytes(receipt.evidence, "header"))
        except FormatError:
            continue
        if receipt.anchor.height is not None:
            yield receipt.anchor.height, header
