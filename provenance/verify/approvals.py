"""Check (8), whether persons approved it: the statements that anchors waited for, by their
signatures (docs/FORMAT.md, 10.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from provenance.approvals.statement import APPROVALS, Anchoring, approval_file
from provenance.errors import (
    FormatError,
    IntegrityError,
    ProofError,
    UnavailableError,
    UsageError,
)
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.approval import has_expired
from provenance.formats.dsse import Envelope
from provenance.formats.note import VerifierKey
from provenance.formats.receipt import Receipt
from provenance.formats.record import Phase
from provenance.ports.values import CHAIN_FIELDS, LedgerEntry
from provenance.settings.approval_files import Count, check_signer, count
from provenance.verify.catalogue import NETWORKS
from provenance.verify.findings import Findings, counted
from provenance.verify.trust import Trust

DAY_S: Final = 86400


@dataclass(frozen=True, slots=True)
class _Approved:
    """A statement that fits the evidence, in its envelope.

    Attributes:
        late: Its head is above the one that was anchored, which had gone out.
    """

    file: str
    envelope: Envelope
    statement: Anchoring
    signed: Count
    late: bool


def check_approvals(
    evidence: RunEvidence, key: VerifierKey | None, trust: Trust, findings: Findings
) -> tuple[str, ...]:
    """Check each approval, and that where this deployment asks for them there are enough.

    Args:
        key: The one that the heads were opened with.

    Returns:
        Who approved what, for the verdict's first lines.
    """
    final = next((e for e in evidence.entries if e.phase is Phase.AFTER), None)
    held = list[_Approved]()
    for file, data in sorted(evidence.attachments.items()):
        if not file.startswith(APPROVALS):
            continue
        try:
            held.append(_opened(evidence, final, key, file, data, trust))
        except (FormatError, IntegrityError) as error:
            findings.fail(NETWORKS, file, str(error).removeprefix(f"{file}: "), file)
    rule = trust.approvals
    if trust.own and rule is not None and final is not None:
        for network in rule.networks:
            own = (a for a in held if a.statement.network == network and not a.late)
            counts = [approved.signed for approved in own]
            names = {name for signed in counts for name in signed.names}
            claimed = names.union(*(signed.unchecked for signed in counts))
            anchored = any(r.phase is Phase.AFTER for r in evidence.receipts_of(network))
            if anchored and final.index >= rule.since and len(names) < rule.at_least:
                who = ", ".join(sorted(names)) or "nobody"
                problem = f"anchored with the approval of {who}, expected {rule.wanted}"
                if len(claimed) < rule.at_least:
                    findings.fail(NETWORKS, f"after on {network}", problem)
                else:
                    why = [text for signed in counts for text in signed.problems]
                    findings.unchecked(NETWORKS, "; ".join([problem, *why]))
    for approved in held:
        for receipt in _receipts(evidence, approved.statement):
            moment = receipt.anchor.block_time
            if moment is not None and has_expired(approved.statement.until, moment - DAY_S):
                late = f"its block came more than a day after {approved.statement.until}"
                findings.notice(NETWORKS, approved.file, late)
    return tuple(_line(approved, trust) for approved in held)


def _opened(
    evidence: RunEvidence,
    final: LedgerEntry | None,
    key: VerifierKey | None,
    file: str,
    data: bytes,
    trust: Trust,
) -> _Approved:
    """Raises FormatError or IntegrityError: it is not of this run's final root, of
    another head, chain or ledger, or a signature of it does not verify."""
    envelope = Envelope.decode(data, file)
    stated = Anchoring.decode(envelope.payload, file)
    if file != approval_file(stated.network, stated.size):
        raise ProofError(f"is of a head {stated.head} on {stated.network}")
    if key is not None and stated.ledger != key.vkey:
        raise ProofError(f"is of ledger {stated.ledger}, expected {key.vkey}")
    own = None if final is None else (evidence.run, final.root)
    if own not in stated.runs or final is None:
        raise ProofError("does not name this run's final root")
    if not stated.since <= final.index < stated.size:
        found = f"makes final what is among entries {stated.since} to {stated.size - 1}"
        raise ProofError(f"{found}, and this run's is {final.index}")
    head = evidence.signed_heads().get(stated.size)
    if head is not None and head.head.root != stated.root:
        raise ProofError(
            f"is of a head {stated.head}, the ledger's has {head.head.root.hex()[:16]}"
        )
    for receipt in _receipts(evidence, stated):
        differs = _other_chain(stated.chain, receipt)
        if differs is not None:
            raise ProofError(f"is of {differs}")
    if not envelope.signatures:
        raise ProofError("nobody signed it")
    rule = trust.approvals
    for signer in envelope.signatures:
        if rule is None or signer not in rule.signers:
            envelope.check(signer, file)
            continue
        with suppress(UsageError, UnavailableError):  # it is not counted, and the line says so
            check_signer(rule, envelope, signer, file)
    counted = Count() if rule is None else count(rule, envelope, file)
    late = any(receipt.ledger.size < stated.size for receipt in _receipts(evidence, stated))
    return _Approved(file, envelope, stated, counted, late)


def _receipts(evidence: RunEvidence, stated: Anchoring) -> Sequence[Receipt]:
    receipts = evidence.receipts_of(stated.network)
    return [receipt for receipt in receipts if receipt.phase is Phase.AFTER]


def _other_chain(chain: Mapping[str, object], receipt: Receipt) -> str | None:
    for name in CHAIN_FIELDS:
        there = receipt.evidence.get(name)
        if there is not None and name in chain and chain[name] != there:
            return f"{name} {chain[name]}, the receipt is of {there}"
    return None


def _line(approved: _Approved, trust: Trust) -> str:
    """``anchoring on ethereum: approved by alice, bob (2 of 2)``."""
    rule, signed, signatures = trust.approvals, approved.signed, approved.envelope.signatures
    known = {} if rule is None else rule.signers
    strangers = [isinstance(made, bytes) for each, made in signatures.items() if each not in known]
    kinds = (strangers.count(True), "key"), (strangers.count(False), "account")
    others = " and ".join(counted(number, noun) for number, noun in kinds if number)
    who = []
    if rule is not None and signed.names:
        who.append(f"{', '.join(signed.names)} ({len(signed.names)} of {rule.at_least})")
    if others:
        who.append(f"{'by ' if who else ''}{others} that nobody pinned")
    problems = "".join(f"; {text}" for text in signed.problems)
    by = ", and ".join(who) or "nobody"
    late = ", but with a later head than the anchored one" if approved.late else ""
    return f"anchoring on {approved.statement.network}: approved by {by}{late}{problems}"
