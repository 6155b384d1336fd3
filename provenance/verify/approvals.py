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
_AHEAD: Final = "with a later head than the anchored one"


@dataclass(frozen=True, slots=True)
class _Approved:
    """A statement that fits the evidence, in its envelope.

    Attributes:
        ahead: Its head is above the one that was anchored: the root had gone out.
    """

    file: str
    envelope: Envelope
    statement: Anchoring
    signed: Count
    ahead: bool


def check_approvals(
    evidence: RunEvidence, key: VerifierKey | None, trust: Trust, findings: Findings
) -> tuple[list[str], dict[str, str]]:
    """Check each approval, and that there are enough where the reader asks for them.

    Args:
        key: The one that the heads were opened with.

    Returns:
        Who approved what, for the verdict's first lines; and by network why the final root's
        anchors there count for nothing to a reader whose deployment this is not: of one's own it
        is a finding.
    """
    final = next((e for e in evidence.entries if e.phase is Phase.AFTER), None)
    held = list[_Approved]()
    for file, data in sorted(evidence.attachments.items()):
        if not file.startswith(APPROVALS):
            continue
        try:
            held.append(_opened(evidence, final, key, file, data, trust))
        except (FormatError, IntegrityError) as error:
            findings.fail(NETWORKS, file, str(error), file)
    late = {each.file: text for each in held if (text := _late(evidence, each.statement))}
    for file, text in late.items():
        findings.notice(NETWORKS, file, text)
    rule, unapproved = trust.approvals, dict[str, str]()
    if rule is None or final is None or final.index < rule.since:
        return [_line(each, trust) for each in held], unapproved
    for network in rule.networks:
        own = [each for each in held if each.statement.network == network]
        early = [each for each in own if not each.ahead]
        counts = [each.signed for each in early if trust.own or each.file not in late]
        names = {name for signed in counts for name in signed.names}
        if len(names) >= rule.at_least or not _receipts(evidence, network):
            continue
        who = ", ".join(sorted(names)) or "nobody"
        why = [text for signed in counts for text in signed.problems]
        if not trust.own:
            why += [late[each.file] for each in own if each.file in late]
            why += [_AHEAD for each in own if each.ahead]
            problem = f"approved by {who}, expected {rule.wanted}"
            unapproved[network] = "; ".join([problem, *why])
            continue
        problem = f"anchored with the approval of {who}, expected {rule.wanted}"
        if len(names.union(*(signed.unchecked for signed in counts))) < rule.at_least:
            findings.fail(NETWORKS, f"after on {network}", problem)
        else:
            findings.unchecked(NETWORKS, "; ".join([problem, *why]))
    lines = [_line(each, trust) for each in held if each.statement.network not in unapproved]
    lines += [f"anchoring on {network}: {text}" for network, text in unapproved.items()]
    return lines, unapproved


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
    for receipt in _receipts(evidence, stated.network):
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
    receipts = _receipts(evidence, stated.network)
    ahead = any(receipt.ledger.size < stated.size for receipt in receipts)
    return _Approved(file, envelope, stated, counted, ahead)


def _receipts(evidence: RunEvidence, network: str) -> Sequence[Receipt]:
    receipts = evidence.receipts_of(network)
    return [receipt for receipt in receipts if receipt.phase is Phase.AFTER]


def _late(evidence: RunEvidence, stated: Anchoring) -> str | None:
    """That the first block with the final root came when the statement held no more."""
    receipts = _receipts(evidence, stated.network)
    first = min((t for r in receipts if (t := r.anchor.block_time) is not None), default=None)
    if first is None or not has_expired(stated.until, first - DAY_S):
        return None
    return f"its block came more than a day after {stated.until}"


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
    ahead = f", but {_AHEAD}" if approved.ahead else ""
    return f"anchoring on {approved.statement.network}: approved by {by}{ahead}{problems}"
