"""The outbox as the database tells it: anchors, signed versions, nonces, leases, receipts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from provenance.errors import FormatError
from provenance.formats.dsse import Envelope, Statement, Subject
from provenance.formats.record import Phase
from provenance.fsck.findings import Finding, FindingKind, holes
from provenance.fsck.rows import (
    Anchor,
    ApprovalRow,
    Entry,
    HeadRow,
    NetworkRow,
    NonceRow,
    ReceiptRow,
    Version,
)
from provenance.proofs.bitcoin import display, parse_transaction
from provenance.proofs.ipfs.cid import decode_cid, raw_cid
from provenance.proofs.local_file import local_transaction_id
from provenance.settings.approval_files import count
from provenance.settings.approvals import ApprovalSettings

PAYLOAD_TAG: Final = b"MLP1"
ON_CHAIN: Final = ("confirmed", "final")
WITH_BYTES: Final = ("signed", "sent", "reorged", *ON_CHAIN)
UNSIGNED: Final = ("due", "held")
ACTIVE: Final = (*UNSIGNED, *WITH_BYTES[:-1])
STATES: Final = (*UNSIGNED, *WITH_BYTES, "replaced", "failed")
AHEAD_S: Final = 3600.0
"""No lease and no next attempt is ever set further ahead than this."""
MOST_NONCES: Final = 1000


@dataclass(frozen=True, slots=True)
class OutboxFacts:
    """The rows around anchoring.

    Attributes:
        wanted: Networks that heads are to be anchored on.
        patience_s: How long a dead worker's row may lie before the next one takes it.
        rule: Who approves final roots; None where nobody has to.
    """

    entries: Sequence[Entry]
    heads: Mapping[int, HeadRow]
    anchors: Sequence[Anchor]
    versions: Sequence[Version]
    nonces: Sequence[NonceRow]
    receipts: Sequence[ReceiptRow]
    networks: Sequence[NetworkRow]
    wanted: Sequence[str]
    now: float
    patience_s: float
    approvals: Sequence[ApprovalRow] = ()
    rule: ApprovalSettings | None = None


def check_outbox(facts: OutboxFacts) -> Iterator[Finding]:
    """Everything about anchoring that needs no node."""
    versions: dict[int, list[Version]] = {}
    for version in facts.versions:
        versions.setdefault(version.anchor_id, []).append(version)
    for anchor in facts.anchors:
        yield from _anchor(anchor, facts, versions.get(anchor.id, []))
    for network in facts.wanted:  # a later head covers an earlier one
        rows = [anchor for anchor in facts.anchors if anchor.network == network]
        upto = max((a.size for a in rows if a.state not in ("failed", "replaced")), default=0)
        failed = {a.size: a.reason for a in rows if a.state == "failed"}
        for entry in facts.entries:
            if entry.anchor and entry.index >= upto:
                why = failed.get(entry.index + 1)
                problem = "no anchor row covers it" + (f"; its own failed: {why}" if why else "")
                yield FindingKind.ANCHOR_MISSING(f"{network} entry {entry.index}", problem)
    if facts.rule is not None:
        yield from _unapproved(facts, facts.rule)
    for row in facts.networks:
        if row.paused is not None:
            yield FindingKind.NETWORK_PAUSED(row.network, row.paused)


def unused_nonces(nonces: Sequence[NonceRow]) -> Iterator[tuple[str, str, int]]:
    """``(network, key, nonce)`` between the lowest and the highest stored that no row holds.

    Of a longer row of them the first :data:`MOST_NONCES`: nobody signs so many for nothing.
    """
    held: dict[tuple[str, str], set[int]] = {}
    for row in nonces:
        held.setdefault((row.network, row.key), set()).add(row.nonce)
    for (network, key), known in sorted(held.items()):
        for first, last in holes(known, min(known), max(known)):
            for nonce in range(first, min(last + 1, first + MOST_NONCES)):
                yield network, key, nonce


def _anchor(anchor: Anchor, facts: OutboxFacts, versions: Sequence[Version]) -> Iterator[Finding]:
    head = facts.heads.get(anchor.size)
    if head is None or head.root != anchor.root:
        has = "no head" if head is None else f"root {head.root.hex()}"
        problem = f"the anchor has root {anchor.root.hex()}, the ledger {has} at that size"
        yield FindingKind.ANCHOR_ROOT(anchor.name, problem)
    if anchor.state not in STATES:
        yield FindingKind.ANCHOR_STATE(anchor.name, f"unknown state {anchor.state!r}")
    elif anchor.state in WITH_BYTES and anchor.version_id not in {v.id for v in versions}:
        problem = f"is {anchor.state}, and no signed bytes of it are stored"
        yield FindingKind.ANCHOR_STATE(anchor.name, problem)
    for version in versions:
        differs = _version_problem(anchor, version)
        if differs is not None:
            yield FindingKind.VERSION_DIFFERS(f"{anchor.network} {version.transaction_id}", differs)
    yield from _waiting(anchor, facts)


def _unapproved(facts: OutboxFacts, rule: ApprovalSettings) -> Iterator[Finding]:
    """Final roots that were signed for a network that so many persons must approve them for."""
    envelopes = {row.anchor_id: row.envelope for row in facts.approvals}
    for network in rule.networks:
        anchors = [anchor for anchor in facts.anchors if anchor.network == network]
        sent = sorted(a.size for a in anchors if a.state in WITH_BYTES)
        approved: dict[tuple[str, str | None], int] = {}  # from which size on
        problems: list[str] = []  # of signatures, such as a package that is missing here
        for anchor in sorted(anchors, key=lambda each: each.size):
            data = envelopes.get(anchor.id)
            for subject in () if data is None else _approved(anchor, data, rule, problems):
                approved.setdefault((subject.name, subject.digest.get("mth_sha256")), anchor.size)
        for entry in facts.entries:
            first = next((size for size in sent if size > entry.index), None)
            if first is None or entry.index < rule.since or entry.phase is not Phase.AFTER:
                continue
            size = approved.get((str(entry.run), entry.root.hex()))
            if size is None or size > first:  # what was approved later had gone out
                problem = f"the final root of run {entry.run} was signed without the approval of "
                problem = "; ".join([problem + rule.wanted, *problems[:1]])
                yield FindingKind.ANCHOR_UNAPPROVED(f"{network} entry {entry.index}", problem)


def _approved(
    anchor: Anchor, data: bytes, rule: ApprovalSettings, problems: list[str]
) -> Sequence[Subject]:
    """The runs that enough persons approved with an anchor; none where its statement is of another
    head, or too few signed; ``problems`` gets what is the matter with signatures."""
    try:
        envelope = Envelope.decode(data, anchor.name)
        statement = Statement.decode(envelope.payload)
    except FormatError:
        return ()
    told = statement.predicate
    stated = (told.get("for"), told.get("network"), told.get("head"))
    own = ("anchoring", anchor.network, {"size": anchor.size, "root": anchor.root.hex()})
    signed = count(rule, envelope, anchor.name)
    problems += signed.problems
    return statement.subjects if stated == own and len(signed.names) >= rule.at_least else ()


def _version_problem(anchor: Anchor, version: Version) -> str | None:
    """What the stored bytes say of themselves, where that can be read without a library."""
    payload, txid = version.payload, version.transaction_id
    if payload != PAYLOAD_TAG + anchor.root:
        return f"its payload is {payload.hex()}, expected {(PAYLOAD_TAG + anchor.root).hex()}"
    try:
        if version.network == "bitcoin":
            transaction = parse_transaction(version.raw)
            if display(transaction.txid) != txid:
                return f"the stored bytes are transaction {display(transaction.txid)}"
            return None if payload in transaction.data else "the stored bytes lack the payload"
        if version.network == "ipfs" and decode_cid(txid) != raw_cid(payload):
            return f"the payload's CID is {raw_cid(payload)}"
    except FormatError as error:
        return str(error)
    if version.network == "local" and txid != local_transaction_id(payload):
        return f"the payload's id is {local_transaction_id(payload)}"
    return None


def _waiting(anchor: Anchor, facts: OutboxFacts) -> Iterator[Finding]:
    """Leases that nobody will end, and rows that nobody takes up."""
    now, late, far = facts.now, facts.now - facts.patience_s, facts.now + AHEAD_S
    until, due, problem = anchor.lease_until, anchor.next_attempt_at, None
    if anchor.lease_owner is not None or until is not None:
        if anchor.state not in ACTIVE:
            problem = f"a lease on a row that is {anchor.state}"
        elif until is None or anchor.lease_owner is None:
            problem = "a lease without an owner or without an end"
        elif until < late:
            problem = f"the lease ran out {now - until:.0f} s ago and nobody took the row"
        elif until > far:
            problem = f"the lease ends in {until - now:.0f} s"
        if problem is not None:
            yield FindingKind.LEASE_STUCK(anchor.name, problem)
    elif anchor.state in ACTIVE and not late <= due <= far:
        problem = (
            f"due since {now - due:.0f} s" if due < late else f"next attempt in {due - now:.0f} s"
        )
        yield FindingKind.ANCHOR_STALLED(anchor.name, f"{anchor.state}, {problem}")
