"""Checks (5) and (6): signed heads of the ledger, and the run's roots under them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from provenance.errors import BadSignatureError, FormatError, InputError, IntegrityError, ProofError
from provenance.evidence.run_evidence import RunEvidence, seal_label
from provenance.formats.checkpoint import Head, open_head, parse_note
from provenance.formats.cosignature import Cosignature, WitnessKey
from provenance.formats.merkle import verify_consistency, verify_inclusion
from provenance.formats.note import VerifierKey
from provenance.verify.catalogue import HEADS, LEDGER
from provenance.verify.findings import Findings, counted
from provenance.verify.trust import Trust


def ledger_key(
    evidence: RunEvidence, given: VerifierKey | None, trust: Trust, findings: Findings
) -> VerifierKey | None:
    """The key to open heads with: the given one, which the evidence's own must be; the
    evidence's own; a pinned one that signed a head, where the evidence names none."""
    own: VerifierKey | None = None
    if evidence.vkey is not None:
        try:
            own = VerifierKey.from_vkey(evidence.vkey)
        except (FormatError, InputError) as error:
            findings.fail(HEADS, "ledger.vkey", str(error), "ledger.vkey")
    if given is not None and own is not None and given != own:
        problem = f"the evidence comes with key {own.label}, expected {given.label}"
        findings.fail(HEADS, "ledger.vkey", problem, "ledger.vkey")
    if given is None and own is None:
        signed = evidence.signed_heads().values()
        makers = {(line.name, line.key_id) for head in signed for line in head.signatures}
        pins = (pin.key for pin in trust.ledger_keys)
        own = next((key for key in pins if (key.name, key.key_id) in makers), None)
    return given or own


def check_heads(
    evidence: RunEvidence,
    key: VerifierKey | None,
    witnesses: Sequence[WitnessKey],
    findings: Findings,
) -> dict[int, Head]:
    """The heads that hold, by size."""
    heads: dict[int, Head] = {}
    for item in evidence.heads:
        file = f"heads/{item.size}.note"
        try:
            head = open_head(item.note, key) if key else parse_note(item.note).head
            if head.size != item.size:
                raise ProofError(f"states size {head.size}")
            if key is not None and head.origin != key.name:
                raise ProofError(f"is of ledger {head.origin!r}, not {key.name!r}")
            heads[item.size] = head
        except (FormatError, InputError, IntegrityError) as error:
            findings.fail(HEADS, f"head {item.size}", str(error), file)
    if not evidence.heads:
        findings.skip(HEADS, "no head")
    elif key is None:
        findings.unchecked(HEADS, "the ledger's key is not known here")
    cosigners = _cosigners(evidence, heads, witnesses, findings)
    findings.count(HEADS, counted(len(heads), "head") + cosigners)
    return heads


def _cosigners(
    evidence: RunEvidence,
    valid: Container[int],
    witnesses: Sequence[WitnessKey],
    findings: Findings,
) -> str:
    """Who cosigned the heads of the ``valid`` sizes, as a detail for check 5, and whether that was
    verified: a line in the name of a known witness must be its cosignature.

    A line that no known witness made fails nothing, whatever it holds.
    """
    names: set[str] = set()
    keys = {(key.name, key.key_id): key for key in witnesses}
    newest = max((entry.index for entry in evidence.entries), default=0)
    for size, signed in evidence.signed_heads().items():
        for line in signed.signatures if size in valid else ():
            key, how = keys.get((line.name, line.key_id)), "not verified: no witness key given"
            if key is not None:
                try:
                    key.cosignatures(signed.text, [line])
                    how = "verified"
                    if size > newest:
                        findings.cosigned.setdefault(size, set()).add(key.label)
                except BadSignatureError as error:
                    findings.fail(HEADS, f"head {size}", str(error), f"heads/{size}.note")
                    continue
            made = Cosignature.of(line)
            if made is not None:
                names.add(made.label)
                line_shown = f"cosigned by {made.label} at {made.when} ({how})"
                findings.notice(HEADS, f"head {size}", line_shown)
    shown = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
    return f", cosigned by {shown}" if names else ""


def check_ledger(evidence: RunEvidence, heads: Mapping[int, Head], findings: Findings) -> None:
    """Each run root is in the ledger under the heads, and each head extends the one before."""
    entries = {entry.index: entry for entry in evidence.entries}
    proven: set[int] = set()
    for item in evidence.inclusions:
        entry, head = entries.get(item.index), heads.get(item.size)
        if entry is None or head is None:
            continue
        try:
            verify_inclusion(entry.root, item.index, item.size, item.proof, head.root)
            proven.add(item.index)
        except IntegrityError as error:
            findings.fail(LEDGER, seal_label(entry), str(error))
    for index, entry in entries.items():
        if index not in proven and not findings.failed(LEDGER, seal_label(entry)):
            findings.fail(LEDGER, seal_label(entry), "no head and proof that the ledger has it")
    extended: set[int] = set()
    for step in evidence.consistencies:
        old, new = heads.get(step.old_size), heads.get(step.new_size)
        if old is None or new is None or old.size >= new.size:
            continue  # what leads to no larger head ties nothing
        try:
            verify_consistency(old.size, old.root, new.size, new.root, step.proof)
            extended.add(step.old_size)
        except IntegrityError as error:
            findings.fail(LEDGER, f"head {step.old_size}", str(error))
    for size in sorted(heads)[:-1]:
        if size not in extended and not findings.failed(LEDGER, f"head {size}"):
            findings.fail(LEDGER, f"head {size}", "no proof that the next head extends it")
    if not entries:
        findings.skip(LEDGER, "the run has no seal yet")
    grown = f", {counted(len(extended), 'head')} extended by a later one" if extended else ""
    findings.count(LEDGER, f"{counted(len(proven), 'entry', 'entries')} in it{grown}")
