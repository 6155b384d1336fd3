"""Check (11): OpenTimestamps proofs of records and heads against the receipts of Bitcoin."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from provenance.bundle.attachments.opentimestamps import BITCOIN, calendar_uri, head_roots
from provenance.errors import FormatError, InputError, ProofError
from provenance.evidence.run_evidence import RunEvidence, evidence_bytes
from provenance.formats.fields import Fields
from provenance.formats.opentimestamps.file import (
    SHA256,
    Bitcoin,
    Pending,
    Timestamp,
    TimestampFile,
)
from provenance.proofs.bitcoin import display, parse_header
from provenance.verify.catalogue import PORTABLE
from provenance.verify.findings import Findings

_HEAD: Final = re.compile(r"heads/(0|[1-9][0-9]{0,18})\.root(\.ots)?")


def check(evidence: RunEvidence, findings: Findings) -> None:
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
            findings.fail(PORTABLE, path or name, str(error), name, path)
    for problem, (name, *others) in proofs.blocks_missing.items():
        more = f", and so say {len(others)} other files" if others else ""
        record = proofs.records.get(name)
        path = None if record is None else record.path
        findings.fail(PORTABLE, path or name, problem + more, name, path)
    if proofs.complete or proofs.pending:
        findings.count(
            PORTABLE,
            f"{len(evidence.attachments)} files; OpenTimestamps proofs: "
            f"{proofs.complete} complete, {proofs.pending} pending",
        )
    if proofs.foreign:
        findings.unchecked(
            PORTABLE, f"{proofs.foreign} attestations of kinds that this release does not know"
        )


class _Checker:
    def __init__(self, evidence: RunEvidence) -> None:
        self.attachments = evidence.attachments
        self.records = {f"{record.file}.ots": record for record in evidence.records}
        self.heads = head_roots(evidence)
        self.blocks = _blocks(evidence)
        self.roots = {entry.root for entry in evidence.entries} | set(self.heads.values())
        origin = evidence.head_origin()
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


def _blocks(evidence: RunEvidence) -> set[tuple[int, bytes]]:
    """Height and Merkle root of each block that a Bitcoin receipt leads to; check (7) is of
    the receipts."""
    blocks = set()
    for receipt in evidence.receipts_of(BITCOIN):
        try:
            header = parse_header(evidence_bytes(Fields(receipt.evidence, "evidence"), "header"))
        except FormatError:
            continue
        if receipt.anchor.height is not None:
            blocks.add((receipt.anchor.height, header.merkle_root))
    return blocks
