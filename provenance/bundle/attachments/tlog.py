"""C2SP tlog-proofs of a bundle, and the cosignatures of its heads.

``tlog/<seal>.tlog-proof`` proves one run root: entry of the ledger, path, signed head.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Final

from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    IntegrityError,
    ProofError,
)
from provenance.evidence.run_evidence import Inclusion, RunEvidence, seal_label
from provenance.formats.checkpoint import SignedHead, parse_note
from provenance.formats.cosignature import Cosignature, WitnessKey
from provenance.formats.note import VerifierKey
from provenance.formats.run_tree.proof import RunProof
from provenance.formats.tlog_proof import TlogProof
from provenance.ports.values import LedgerEntry
from provenance.verify.catalogue import HEADS, PORTABLE
from provenance.verify.findings import Notes

_NAME: Final = re.compile(r"tlog/(.+)\.tlog-proof")


def files(evidence: RunEvidence, proofs: Mapping[str, RunProof]) -> dict[str, bytes]:
    """One for each seal, under the newest head that holds; none where none does."""
    key = _key(evidence)
    notes = {head.size: head.note for head in evidence.heads}
    paths: dict[int, list[Inclusion]] = {}
    for item in evidence.inclusions:
        paths.setdefault(item.index, []).append(item)
    made: dict[str, bytes] = {}
    for entry in evidence.entries:
        proof = _newest(entry, paths.get(entry.index, []), notes, key)
        if proof is not None:
            made[f"tlog/{seal_label(entry)}.tlog-proof"] = proof.encode().encode()
    return made


def check(evidence: RunEvidence, notes: Notes) -> None:
    """Each is of its seal's run root, in the ledger that signed the heads."""
    entries = {seal_label(entry): entry for entry in evidence.entries}
    key = _key(evidence)
    known = _heads(evidence)
    for file, data in evidence.attachments.items():
        match = _NAME.fullmatch(file)
        if match is None:
            continue
        try:
            entry = entries.get(match[1])
            if entry is None:
                raise ProofError(f"the run has no seal {match[1]}")
            _check(data, entry, key, known)
        except (FormatError, InputError, IntegrityError) as error:
            notes.fail(PORTABLE, file, str(error), file)


def show_cosignatures(
    evidence: RunEvidence,
    held: Container[int],
    witnesses: Sequence[WitnessKey],
    notes: Notes,
) -> str:
    """Say which witnesses cosigned the heads, and whether that was verified.

    A line that no known witness made fails nothing, whatever it holds.

    Args:
        held: Sizes of the heads that hold.
        witnesses: Known keys; a line in the name of one must be its cosignature.

    Returns:
        The witnesses as a detail for check 5; empty where there are none.
    """
    names: set[str] = set()
    keys = {(key.name, key.key_id): key for key in witnesses}
    for size, signed in _heads(evidence).items():
        for line in signed.signatures if size in held else ():
            key, how = keys.get((line.name, line.key_id)), "not verified: no witness key given"
            if key is not None:
                try:
                    key.cosignatures(signed.text, [line])
                    how = "verified"
                except BadSignatureError as error:
                    notes.fail(HEADS, f"head {size}", str(error), f"heads/{size}.note")
                    continue
            made = Cosignature.of(line)
            if made is not None:
                names.add(made.label)
                told = f"cosigned by {made.label} at {made.when} ({how})"
                notes.notice(HEADS, f"head {size}", told)
    shown = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
    return f", cosigned by {shown}" if names else ""


def _key(evidence: RunEvidence) -> VerifierKey | None:
    """The evidence's own key; one that does not decode is a finding of check 5."""
    if evidence.vkey is None:
        return None
    try:
        return VerifierKey.from_vkey(evidence.vkey)
    except (FormatError, InputError):
        return None


def _heads(evidence: RunEvidence) -> dict[int, SignedHead]:
    heads = {}
    for item in evidence.heads:
        try:
            heads[item.size] = parse_note(item.note)
        except (FormatError, InputError):
            continue
    return heads


def _newest(
    entry: LedgerEntry,
    paths: Sequence[Inclusion],
    notes: Mapping[int, str],
    key: VerifierKey | None,
) -> TlogProof | None:
    for item in sorted(paths, key=lambda item: -item.size):
        if item.size not in notes:
            continue
        try:
            proof = TlogProof(item.index, item.proof, notes[item.size])
            if proof.verify(entry.root, key).size == item.size:
                return proof
        except (FormatError, InputError, IntegrityError):
            continue
    return None


def _check(
    data: bytes, entry: LedgerEntry, key: VerifierKey | None, known: Mapping[int, SignedHead]
) -> None:
    """Raises ProofError, BadSignatureError or FormatError where the file does not hold."""
    proof = TlogProof.decode(data)
    if proof.index != entry.index:
        raise ProofError(
            f"is of ledger entry {proof.index}, {seal_label(entry)} is entry {entry.index}"
        )
    head = proof.verify(entry.root, key)
    same = known.get(head.size)
    if same is not None and (same.head.origin, same.head.root) != (head.origin, head.root):
        raise ProofError(
            f"its head has root {head.root.hex()} at size {head.size}, "
            f"the ledger's has {same.head.root.hex()}"
        )
    if key is None and same is None:
        raise ProofError(f"its head at size {head.size} is not among the heads, and no key is here")
