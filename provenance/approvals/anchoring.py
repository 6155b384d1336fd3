"""Approvals of anchors: a head that makes a run final waits until persons have signed.

Life of an approval: the anchoring worker finds that a DUE head has a final root (phase *after*)
behind the last approved head of its network, and holds it back. Somebody takes its statement
(:func:`take`), from when on no later head takes its place; persons sign it, on their own machines;
their signatures come in (:func:`add`), and with the last that is needed the head is due. The worker
works the statement out anew and verifies each signature before it signs the transaction: of the
database it believes the ledger alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from provenance import files
from provenance.approvals.statement import MAX_RUNS, Anchoring
from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    ProvenanceError,
    UnavailableError,
    UsageError,
)
from provenance.formats.approval import has_expired, term
from provenance.formats.dsse import AccountSignature, Envelope
from provenance.formats.record import Json, Phase
from provenance.ports.store import LedgerTx
from provenance.ports.values import CHAIN_FIELDS, AnchorRow, AnchorState
from provenance.settings.approval_files import Count, check_signer, count
from provenance.settings.approvals import ApprovalSettings

_NOT_SENT: Final = (
    AnchorState.DUE,
    AnchorState.HELD,
    AnchorState.REPLACED,
    AnchorState.FAILED,
)
NOBODY: Final = Count()


@dataclass(frozen=True, slots=True)
class Approval:
    """What is known of the approval of one anchor.

    Attributes:
        wanted: What must be signed; its ``until`` is that of ``envelope``.
        envelope: The statement that was taken to be signed, with the signatures it has; None where
            there is none that approves this, today.
        signed: Who of the persons did.
        problem: Why what the database has does not count; None where it does, or has none.
    """

    wanted: Anchoring
    envelope: Envelope | None = None
    signed: Count = NOBODY
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class AnchoringApprovals:
    """The condition (:class:`provenance.anchor.conditions.Condition`), and what commands ask.

    Args:
        ledger: The ledger's key, as ``name+id+base64``.
        clock: Unix time in seconds.
    """

    rule: ApprovalSettings
    ledger: str
    clock: Callable[[], float]

    def waits_for(self, tx: LedgerTx, row: AnchorRow) -> str | None:
        """``waits for approval: 1 of 2 (alice)``; None where nothing is missing."""
        try:
            if self._since(tx, row) is None:
                return None
            if tx.approval(row.id) is None:  # of many heads that wait, nearly all
                return f"waits for approval: 0 of {self.rule.at_least}"
            known = self.known(tx, row)
        except InputError as error:
            return f"waits for approval: {error}"
        if known is None or len(known.signed.names) >= self.rule.at_least:
            return None
        return f"waits for approval: {self.standing(known)}"

    def is_begun(self, tx: LedgerTx, row: AnchorRow) -> bool:
        """Whether somebody took the statement, and it approves this head today."""
        if tx.approval(row.id) is None:
            return False
        try:
            known = self.known(tx, row)
        except InputError:
            return False
        return known is not None and known.envelope is not None

    def standing(self, known: Approval) -> str:
        """``1 of 2 (alice)``, and what does not count."""
        names = known.signed.names
        who = f" ({', '.join(names)})" if names else ""
        signed = f"{len(names)} of {self.rule.at_least}"
        if len(names) > self.rule.at_least:
            signed = f"{len(names)} signed, {self.rule.at_least} needed"
        problems = "".join(f"; {text}" for text in (known.problem, *known.signed.problems) if text)
        return f"{signed}{who}{problems}"

    def known(self, tx: LedgerTx, row: AnchorRow) -> Approval | None:
        """How the approval of an anchor stands; None where it needs none. Raises InputError: it
        cannot be said what must be signed."""
        wanted = self._wanted(tx, row)
        if wanted is None:
            return None
        data = tx.approval(row.id)
        if data is None:
            return Approval(wanted)
        what = f"approval of anchor {row.id}"
        try:
            envelope = Envelope.decode(data, what)
            found = Anchoring.decode(envelope.payload, what)
        except FormatError as error:
            return Approval(wanted, problem=str(error))
        if problem := found.problem(wanted, self.clock()):
            return Approval(wanted, problem=problem)
        return Approval(found, envelope, count(self.rule, envelope, what))

    def _wanted(self, tx: LedgerTx, row: AnchorRow) -> Anchoring | None:
        """The statement for a head, for ever; None where it needs no approval."""
        since = self._since(tx, row)
        if since is None:
            return None
        entries = tx.entries(first=since, end=row.size)
        runs = tuple((e.run, e.root) for e in entries if e.phase is Phase.AFTER)
        if len(runs) > MAX_RUNS:
            raise InputError(f"head {row.size} makes {len(runs)} runs final, at most {MAX_RUNS}")
        chain = _chain(tx, row.network)
        return Anchoring(self.ledger, row.network, chain, row.size, row.root, since, runs)

    def _since(self, tx: LedgerTx, row: AnchorRow) -> int | None:
        """Up to which size the final roots below a head are approved; None where all are."""
        if row.network not in self.rule.networks:
            return None
        since = self._approved_size(tx, row, _chain(tx, row.network))
        return since if tx.has_final(since, row.size) else None

    def _approved_size(self, tx: LedgerTx, row: AnchorRow, chain: Mapping[str, Json]) -> int:
        """Up to which size of the ledger all final roots are approved on this chain, or need not
        be: that of the largest head below with enough signatures, verified anew."""
        size = row.size
        while size > self.rule.since and (found := tx.approval_below(row.network, size)):
            anchor, data = found
            size = anchor.size
            try:
                envelope = Envelope.decode(data, "approval")
                stated = Anchoring.decode(envelope.payload, "approval")
            except FormatError:
                continue
            own = (self.ledger, row.network, chain, anchor.size, anchor.root)
            head = (stated.ledger, stated.network, stated.chain, stated.size, stated.root)
            lapsed = anchor.state in _NOT_SENT and has_expired(stated.until, self.clock())
            names = count(self.rule, envelope, "approval").names
            if head == own and not lapsed and len(names) >= self.rule.at_least:
                return max(size, self.rule.since)
        return self.rule.since


def _chain(tx: LedgerTx, network: str) -> dict[str, Json]:
    """Which chain a network said that it is; ``InputError`` where it did not yet."""
    remembered = tx.network(network)
    if remembered is None or not remembered.identity:
        raise InputError(f"{network} has not said yet which chain it is")
    told = remembered.identity
    return {name: told[name] for name in CHAIN_FIELDS if told.get(name) is not None}


def waiting(tx: LedgerTx, network: str) -> AnchorRow | None:
    """The head that collects signatures on a network."""
    return next(iter(tx.anchors(network, (AnchorState.HELD,))), None)


def take(
    approvals: AnchoringApprovals, tx: LedgerTx, row: AnchorRow, until: date | None
) -> Approval:
    """The statement of an anchor that waits, to be signed; from now on it keeps its place.

    Args:
        until: The last day that it holds for; None: that of who took it before, or for ever.

    Raises:
        InputError: It does not wait for approval, or has a signature for another day.
    """
    known = approvals.known(tx, row) if row.state is AnchorState.HELD else None
    if known is None:
        now = waiting(tx, row.network)
        which = "none does" if now is None else f"anchor {now.id} does"
        problem = f"is {row.state.value}, expected one that waits: on {row.network} {which}"
        raise InputError(f"anchor {row.id} {problem}")
    if known.envelope is not None:
        if until in (None, known.wanted.until):
            return known
        if known.signed.names:
            found = f"the statement of anchor {row.id} holds {term(known.wanted.until)}"
            raise InputError(f"--until: {found}, expected that day or no --until")
    wanted = replace(known.wanted, until=until)
    envelope = Envelope(wanted.encode(), {})
    tx.save_approval(row.id, envelope.encode())
    return Approval(wanted, envelope)


def add(approvals: AnchoringApprovals, tx: LedgerTx, brought: Envelope, file: str) -> Approval:
    """Take signatures into the deployment; the worker looks at the head at once.

    Returns:
        How it stands; ``signed.problems`` are of the signatures that were left out.

    Raises:
        InputError: Nothing waits for this, no signature is one of the persons' and new, or the file
            is no approval.
        BadSignatureError, MissingExtraError, UnavailableError, ConfigError: The first that could
            count does not verify, or cannot be checked here, and none does.
    """
    with files.read_as(file, "an approval of 'provenance approvals show'"):
        stated = Anchoring.decode(brought.payload, file)
    row = waiting(tx, stated.network)
    known = None if row is None else approvals.known(tx, row)
    if row is None or known is None:
        raise InputError(f"{file}: nothing waits for approval on {stated.network}")
    if problem := stated.problem(known.wanted, approvals.clock()):
        raise InputError(f"{file}: {problem}")
    if known.envelope is not None and stated.until != known.wanted.until:
        found, wanted = term(stated.until), term(known.wanted.until)
        raise InputError(f"{file}: approves {found}; expected {wanted}, as others sign")
    rule = approvals.rule
    names = rule.signers
    valid, left_out = dict[str, bytes | AccountSignature](), list[ProvenanceError]()
    for signer, signature in brought.signatures.items():
        try:
            if signer not in names:
                shown = signer[:16] if isinstance(signature, bytes) else signer
                problem = rule.other_issuer(signer) or f"signed by {shown}, expected {rule.wanted}"
                raise InputError(f"{file}: {problem}")
            check_signer(rule, brought, signer, file)
            valid[signer] = signature
        except (UsageError, BadSignatureError, UnavailableError) as error:
            left_out.append(error)
    if not any(names[signer] not in known.signed.names for signer in valid):
        if left_out:
            raise left_out[0]
        who = ", ".join(sorted(names[signer] for signer in valid)) or "nobody"
        raise InputError(f"{file}: signed by {who}; expected a new signature, {rule.wanted}")
    there = {} if known.envelope is None else known.envelope.signatures
    envelope = Envelope(brought.payload, {**there, **valid})
    tx.save_approval(row.id, envelope.encode())
    tx.save_anchor(replace(row, next_attempt_at=approvals.clock()))
    counted = count(rule, envelope, file)
    problems = tuple(f"left out: {str(error).removeprefix(f'{file}: ')}" for error in left_out)
    return Approval(stated, envelope, Count(counted.names, (*counted.problems, *problems)))
