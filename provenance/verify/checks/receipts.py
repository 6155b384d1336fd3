"""Check (7): receipts, and what their evidence proves without a node.

Which rules hold is decided by the receipt's network, never by what the evidence calls itself.
All that receipt and evidence state of one thing must agree with each other and with what is
proven:

``bitcoin``   the transaction hashes to its id and carries the payload, the block's header has
              its proof of work and leads to the transaction; hash and time are the header's
``ethereum``  :mod:`.ethereum_receipt`
``ipfs``      the id is the CID of the payload as a raw block; there is no block and no time
``local``     the ledger's key signed a line of the payload; number, digest and time are its own

A lone header tells neither its height nor its depth: those of Bitcoin, and any depth, are what
a node said (:data:`provenance.verify.catalogue.HEADER_SOURCE`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from provenance.errors import FormatError, InputError, IntegrityError, ProofError
from provenance.evidence.run_evidence import (
    ReceiptFile,
    RunEvidence,
    evidence_bytes,
    receipt_name,
    seal_label,
)
from provenance.formats.checkpoint import Head, open_head, parse_note
from provenance.formats.fields import Fields
from provenance.formats.note import VerifierKey
from provenance.formats.receipt import AnchorProof, Receipt
from provenance.formats.record import Json
from provenance.ports.values import LedgerEntry
from provenance.proofs.bitcoin import (
    CHAINS,
    check_work,
    display,
    parse_header,
    parse_transaction,
    target_of,
    verify_anchor,
)
from provenance.proofs.ethereum import sender_of
from provenance.proofs.ipfs.cid import decode_cid, raw_cid
from provenance.proofs.local_file import local_transaction_id, read_line
from provenance.verify.catalogue import RECEIPTS
from provenance.verify.checks.ethereum_receipt import check_block, check_ethereum
from provenance.verify.cosigners import Cosigners, cosigners_of
from provenance.verify.findings import Findings, counted
from provenance.verify.trust import Chain

BITCOIN: Final = "bitcoin"
CLOCK_SLACK_S: Final = 3 * 3600.0
"""Bitcoin's consensus lets a block's time be two hours off; a deployment's clock may be, too."""


@dataclass(frozen=True, slots=True)
class CheckedReceipt:
    """A receipt that holds, and the seal it is for."""

    file: ReceiptFile
    receipt: Receipt
    entry: LedgerEntry

    @property
    def label(self) -> str:
        """The seal's label."""
        return seal_label(self.entry)

    @property
    def chain(self) -> Chain:
        """Where the anchor lies."""
        evidence, target = self.receipt.evidence, None
        if self.receipt.anchor.network == BITCOIN:
            header = parse_header(evidence_bytes(Fields(evidence, "evidence"), "header"))
            target = target_of(header.bits)
        return Chain.of(self.receipt.anchor.network, evidence, target)

    @property
    def block_time(self) -> float | None:
        """Of its block; None where the network's blocks have no time that nobody sets alone."""
        anchor = self.receipt.anchor
        return anchor.block_time if anchor.network in (BITCOIN, "ethereum") else None

    @property
    def cosigners(self) -> Cosigners | None:
        """The owners that signed, where there are several."""
        return cosigners_of(self.receipt.anchor.network, self.receipt.evidence)

    @property
    def submitter(self) -> str | None:
        """The address that signed an Ethereum transaction; None where there is none."""
        if self.receipt.anchor.network != "ethereum":
            return None
        transaction = Fields(self.receipt.evidence, "evidence").object("transaction")
        try:
            return _sender_of(transaction.text("raw"))
        except (FormatError, ValueError):
            return None


@lru_cache(maxsize=1024)
def _sender_of(raw: str) -> str:
    """One transaction anchors many seals."""
    return sender_of(bytes.fromhex(raw.removeprefix("0x")))


def check_receipts(
    evidence: RunEvidence, key: VerifierKey | None, heads: Mapping[int, Head], findings: Findings
) -> list[CheckedReceipt]:
    """The receipts that hold; a finding for each that does not."""
    entries = {entry.index: entry for entry in evidence.entries}
    checked = []
    opened: dict[str, Head] = {}
    proven: dict[tuple[AnchorProof, str], str | None] = {}  # one anchor is of many seals
    for file in evidence.receipts:
        try:
            receipt = file.decoded
            if isinstance(receipt, FormatError):
                raise receipt
            entry = _entry_of(receipt, evidence, entries)
            receipt.verify_inclusion()
            note = receipt.head
            if note not in opened:
                opened[note] = open_head(note, key) if key else parse_note(note).head
            _check_head(opened[note], heads)
            _check_sealed(receipt, entry)
            network, remark = receipt.anchor.network, None
            if network in _RULES:
                _check_name(file.name, receipt, entry)
                same = receipt.anchor, json.dumps(receipt.evidence, sort_keys=True)
                if same not in proven:
                    proven[same] = check_evidence(receipt.anchor, receipt.evidence, key)
                remark = proven[same]
            else:
                problem = f"this release knows no evidence of network {network[:40]!r}"
                findings.unchecked(RECEIPTS, f"receipt {file.name}: {problem}")
        except (FormatError, InputError, IntegrityError) as error:
            findings.fail(RECEIPTS, f"receipt {file.name}", str(error), file.file)
            continue
        if remark is not None:
            findings.notice(RECEIPTS, f"receipt {file.name}", remark)
        checked.append(CheckedReceipt(file, receipt, entry))
    if not evidence.receipts:
        findings.skip(RECEIPTS, "no receipt")
    findings.count(RECEIPTS, counted(len(checked), "receipt"))
    return checked


def _check_head(head: Head, heads: Mapping[int, Head]) -> None:
    """The head must be one that check (6) ties to all others."""
    known = heads.get(head.size)
    if known is None:
        raise ProofError(
            f"its head of size {head.size} is none of the ledger's heads here, so nothing ties it "
            "to them: a fork of the ledger, or evidence that is not whole"
        )
    if known.root != head.root:
        raise ProofError(
            f"the ledger forked: its head has root {head.root.hex()} at size {head.size}, "
            f"the ledger's has {known.root.hex()}"
        )


def _check_sealed(receipt: Receipt, entry: LedgerEntry) -> None:
    """What is in a block was sealed before it, up to the clocks."""
    anchor = receipt.anchor
    chained = anchor.network in (BITCOIN, "ethereum") and anchor.block_time is not None
    late = entry.created_at - (anchor.block_time or 0.0)
    if chained and late > CLOCK_SLACK_S:
        problem = f"is said to be sealed {late / 3600:.1f} hours after the block that holds it"
        raise ProofError(f"{seal_label(entry)} {problem}")


def _check_name(name: str, receipt: Receipt, entry: LedgerEntry) -> None:
    label, network = seal_label(entry), receipt.anchor.network
    own = receipt_name(label, network)
    if name not in (own, receipt_name(label, network, receipt.ledger.size)):
        raise ProofError(f"is the one of {own}, under another name")


def _entry_of(
    receipt: Receipt, evidence: RunEvidence, entries: Mapping[int, LedgerEntry]
) -> LedgerEntry:
    if receipt.run != evidence.run:
        raise ProofError(f"is of run {receipt.run}")
    entry = entries.get(receipt.ledger.index)
    if entry is None:
        raise ProofError(f"is for ledger entry {receipt.ledger.index}, which is not this run's")
    stated = (receipt.phase, receipt.epoch, receipt.root)
    if stated != (entry.phase, entry.epoch, entry.root):
        raise ProofError(
            f"states {receipt.phase.value} root {receipt.root.hex()}, "
            f"ledger entry {entry.index} is {seal_label(entry)} {entry.root.hex()}"
        )
    return entry


def check_evidence(
    anchor: AnchorProof, evidence: Mapping[str, Json], key: VerifierKey | None = None
) -> str | None:
    """Check the evidence of a receipt of a network that this release has rules for.

    Args:
        key: The ledger's, which signs local lines; None takes the evidence's own.

    Returns:
        What the network's evidence usually proves and this one does not, as a sentence.

    Raises:
        ProofError, FormatError, BadSignatureError: It does not hold, or there is none.
    """
    kind = evidence.get("type", anchor.network)  # Ethereum's had none once.
    if kind != anchor.network:
        raise ProofError(f"is of network {anchor.network}, its evidence of {str(kind)[:40]}")
    if anchor.depth < 1:
        raise ProofError(f"states depth {anchor.depth}, expected 1 or more")
    remark = _RULES[anchor.network](anchor, evidence, key)
    cosigners_of(anchor.network, evidence)
    return remark


def _check_bitcoin(
    anchor: AnchorProof, evidence: Mapping[str, Json], _: VerifierKey | None
) -> None:
    """A block that holds the transaction, and headers on top of it."""
    fields = Fields(evidence, "evidence")
    transaction, raw = evidence_bytes(fields, "transaction"), evidence_bytes(fields, "header")
    txid = display(parse_transaction(transaction).txid)
    if txid != anchor.transaction_id:
        raise ProofError(f"the transaction in it is {txid}, not {anchor.transaction_id}")
    chain = str(evidence.get("chain"))
    proof = evidence_bytes(fields, "merkle_block")
    header = verify_anchor(transaction, proof, raw, anchor.payload, chain)
    name = display(header.hash)
    if anchor.height is None or anchor.height < 0:
        raise ProofError(f"states height {anchor.height}, expected 0 or more")
    check_block(anchor, name, header.time, anchor.height)
    _agree(evidence, transaction_id=txid, block_hash=name, height=anchor.height)
    above = Fields({"headers": [], **evidence}, "evidence").items("headers", evidence_bytes)
    for at, raw in enumerate(above):
        upper = parse_header(raw)
        if upper.previous != header.hash:
            raise ProofError(f"evidence.headers[{at}] does not build on the header before")
        check_work(upper, CHAINS[chain].limit)
        header = upper


def _check_ipfs(anchor: AnchorProof, evidence: Mapping[str, Json], _: VerifierKey | None) -> None:
    if decode_cid(anchor.transaction_id) != raw_cid(anchor.payload):
        raise ProofError(f"{anchor.transaction_id} is not the CID of the payload")
    if (anchor.height, anchor.block_hash, anchor.block_time) != (None, None, None):
        raise ProofError("states a block or its time, and IPFS has none")
    _agree(evidence, transaction_id=anchor.transaction_id, block=anchor.payload.hex())


def _check_local(
    anchor: AnchorProof, evidence: Mapping[str, Json], key: VerifierKey | None
) -> None:
    fields = Fields(evidence, "evidence")
    text, public = fields.text("line"), evidence_bytes(fields, "public_key")
    if key is not None and public != key.public_bytes:
        raise ProofError(f"its line is signed by {public.hex()}, which is not the ledger's key")
    line = read_line(text.encode("utf-8", "replace"), public)
    if line.payload != anchor.payload:
        raise ProofError(f"the line in it carries {line.payload.hex()}")
    txid = local_transaction_id(line.payload)
    if txid != anchor.transaction_id:
        raise ProofError(f"the line in it is {txid}, not {anchor.transaction_id}")
    stated = (anchor.height, anchor.block_hash, anchor.block_time)
    if stated != (line.seq, line.digest.hex(), line.ts):
        raise ProofError(
            f"the line in it has number {line.seq}, digest {line.digest.hex()} and time "
            f"{line.ts}, the receipt says {anchor.height}, {anchor.block_hash} and "
            f"{anchor.block_time}"
        )
    _agree(evidence, transaction_id=txid)


_Rule = Callable[[AnchorProof, Mapping[str, Json], VerifierKey | None], str | None]
_RULES: Final[Mapping[str, _Rule]] = {
    BITCOIN: _check_bitcoin,
    "ethereum": lambda anchor, evidence, _: check_ethereum(anchor, evidence),
    "ipfs": _check_ipfs,
    "local": _check_local,
}


def _agree(evidence: Mapping[str, Json], **proven: str | int) -> None:
    """What the evidence repeats of the receipt, as far as it does."""
    for name, value in proven.items():
        stated = evidence.get(name, value)
        if stated != value or isinstance(stated, bool):
            raise ProofError(f"evidence.{name} is {str(stated)[:80]}, the receipt has {value}")
