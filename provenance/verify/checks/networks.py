"""Checks (7) to (9): receipts, the networks themselves, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from provenance.errors import (
    FormatError,
    InputError,
    IntegrityError,
    LyingNodeError,
    ProofError,
    ProvenanceError,
    UnavailableError,
    WrongNetworkError,
)
from provenance.evidence.run_evidence import AnchorFact, ReceiptFile, RunEvidence, seal_label
from provenance.formats.checkpoint import Head, open_head, parse_note
from provenance.formats.note import VerifierKey
from provenance.formats.receipt import AnchorProof, Receipt
from provenance.formats.record import Json
from provenance.ports.network import Network
from provenance.ports.values import CHAIN_FIELDS, AnchorState, LedgerEntry, Observation, Place
from provenance.proofs.bitcoin import parse_header
from provenance.verify.catalogue import AGREE, NETWORKS, RECEIPTS
from provenance.verify.checks.ethereum_receipt import unproven_time
from provenance.verify.checks.receipts import BITCOIN, check_evidence, hex_field, is_known
from provenance.verify.findings import Notes
from provenance.verify.headers import HeaderSource
from provenance.verify.nodes import Nodes
from provenance.verify.report import NetworkCheck

_BEST = ("verified", "receipt", "pending", "unreachable", "not configured", "failed")


@dataclass(frozen=True, slots=True)
class HeldReceipt:
    """A receipt that holds, and the seal it is for."""

    file: ReceiptFile
    receipt: Receipt
    entry: LedgerEntry

    @property
    def label(self) -> str:
        """The seal's label."""
        return seal_label(self.entry)


# --- (7) ---------------------------------------------------------------------------------


def check_receipts(
    evidence: RunEvidence,
    key: VerifierKey | None,
    heads: Mapping[int, Head],
    notes: Notes,
) -> list[HeldReceipt]:
    """The receipts that hold; a finding for each that does not."""
    entries = {entry.index: entry for entry in evidence.entries}
    held = []
    for file in evidence.receipts:
        try:
            receipt = Receipt.decode(file.data)
            entry = _entry_of(receipt, evidence, entries)
            receipt.verify_inclusion()
            head = open_head(receipt.head, key) if key else parse_note(receipt.head).head
            known = heads.get(head.size)
            if known is not None and known.root != head.root:
                raise ProofError(
                    f"its head has root {head.root.hex()} at size {head.size}, "
                    f"the ledger's has {known.root.hex()}"
                )
            network = receipt.anchor.network
            remark = None
            if is_known(network):
                remark = check_evidence(receipt.anchor, receipt.evidence, key)
            else:
                told = f"this release knows no evidence of network {network[:40]!r}"
                notes.unchecked(RECEIPTS, f"receipt {file.name}: {told}")
        except (FormatError, InputError, IntegrityError) as error:
            notes.fail(RECEIPTS, f"receipt {file.name}", str(error), file.file)
            continue
        if remark is not None:
            notes.notice(RECEIPTS, f"receipt {file.name}", remark)
        held.append(HeldReceipt(file, receipt, entry))
    if not evidence.receipts:
        notes.skip(RECEIPTS, "no receipt")
    notes.count(RECEIPTS, f"{len(held)} receipts")
    return held


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


def decoded_receipts(evidence: RunEvidence) -> list[HeldReceipt]:
    """The receipts of evidence that held before, byte for byte: read, and not checked again."""
    entries = {entry.index: entry for entry in evidence.entries}
    decoded = [(file, Receipt.decode(file.data)) for file in evidence.receipts]
    return [HeldReceipt(file, each, entries[each.ledger.index]) for file, each in decoded]


# --- (8) (9) -----------------------------------------------------------------------------


def check_networks(
    evidence: RunEvidence,
    receipts: Iterable[HeldReceipt],
    nodes: Nodes | None,
    headers: HeaderSource | None,
    notes: Notes,
) -> dict[str, dict[str, NetworkCheck]]:
    """Ask each network for each receipt's transaction; per network and seal what came out.

    Bitcoin's blocks are looked up in ``headers`` as well, where there are some.

    Args:
        nodes: The networks to ask; None asks nobody.
    """
    judge = _Judge(nodes, headers)
    places: dict[str, dict[str, NetworkCheck]] = {}
    for held in receipts:
        found = judge.check(held)  # (8)
        seals = places.setdefault(found.network, {})
        before = seals.get(found.seal)
        if before is None or _BEST.index(found.status) < _BEST.index(before.status):
            seals[found.seal] = found
        if found.status == "failed":
            subject = f"{found.seal} on {found.network}"
            notes.fail(NETWORKS, subject, found.reason or "", held.file.file)
        if found.status not in ("verified", "failed") and found.network == "ethereum":
            remark = unproven_time(held.receipt.anchor, held.receipt.evidence)
            if remark is not None:
                notes.notice(RECEIPTS, f"receipt {held.file.name}", remark)
    for anchor, entry in _without_receipt(evidence, places):
        places.setdefault(anchor.network, {})[seal_label(entry)] = _pending(anchor, entry)
    _check_agreement(judge.roots, notes)  # (9)
    _conclude(places, nodes, notes)
    order = {seal_label(entry): entry.index for entry in evidence.entries}
    return {
        name: dict(sorted(seals.items(), key=lambda item: order.get(item[0], 0)))
        for name, seals in sorted(places.items())
    }


def _conclude(
    places: Mapping[str, Mapping[str, NetworkCheck]],
    nodes: Nodes | None,
    notes: Notes,
) -> None:
    checks = [check for seals in places.values() for check in seals.values()]
    for check in checks:
        if check.status in ("pending", "unreachable", "not configured"):
            why = f": {check.reason}" if check.reason else ""
            notes.unchecked(NETWORKS, f"{check.seal} on {check.network} {check.status}{why}")
    if not checks:
        notes.skip(NETWORKS, "no anchor was asked for")
    elif nodes is None and any(check.status == "receipt" for check in checks):
        notes.skip(NETWORKS, "offline: receipts only, no node was asked")
    seen = sum(check.status == "verified" for check in checks)
    notes.count(NETWORKS, f"{seen} anchors on {len(places)} networks")


class _Judge:
    """What the nodes and headers make of one run's receipts."""

    def __init__(self, nodes: Nodes | None, headers: HeaderSource | None) -> None:
        self.nodes, self.headers = nodes, headers
        self.roots: dict[int, dict[str, bytes]] = {}
        """By head size and network: the root that the network itself carries."""

    def check(self, held: HeldReceipt) -> NetworkCheck:
        """Check one receipt against its network."""
        anchor, ledger = held.receipt.anchor, held.receipt.ledger
        base = NetworkCheck(
            network=anchor.network,
            seal=held.label,
            status="receipt",
            transaction_id=anchor.transaction_id,
            size=ledger.size,
            root=ledger.root,
            block_hash=anchor.block_hash,
            height=anchor.height,
            depth=anchor.depth,
            time=anchor.block_time,
        )
        if self.headers is not None and anchor.network == BITCOIN:
            try:
                depth, height = _found_in(self.headers, anchor, held.receipt.evidence)
            except (ProofError, FormatError) as error:
                return replace(base, status="failed", reason=str(error))
            except UnavailableError as error:
                return replace(base, status="unreachable", reason=str(error))
            base = replace(base, status="verified", depth=depth, height=height)
        if self.nodes is None:
            return base
        network = self.nodes.networks.get(anchor.network)
        if network is None:
            reason = self.nodes.unavailable.get(anchor.network)
            if reason is None and base.status == "verified":
                return base
            return replace(
                base, status="unreachable" if reason else "not configured", reason=reason
            )
        try:
            seen = self.nodes.look(network, anchor.transaction_id)
        except (UnavailableError, WrongNetworkError, LyingNodeError) as error:
            return replace(base, status="unreachable", reason=str(error))
        except ProvenanceError as error:
            return replace(base, status="failed", reason=str(error))
        wrong = _wrong_chain(self.nodes.identities[network.name].fields, held.receipt.evidence)
        if wrong is not None:
            return replace(base, status="failed", reason=wrong)
        return self._judge(base, network, seen, anchor)

    def _judge(
        self, base: NetworkCheck, network: Network, seen: Observation, anchor: AnchorProof
    ) -> NetworkCheck:
        if seen.place is Place.PENDING and anchor.state == "confirmed":
            return replace(base, status="pending", reason="in no block any more", depth=0)
        if seen.place is not Place.MINED:
            told = {
                Place.UNKNOWN: "the node has no such transaction",
                Place.PENDING: "the transaction is in no block",
                Place.FAILED: "the transaction failed in its block",
                Place.CONFLICTED: "another transaction took its place",
            }
            return replace(base, status="failed", reason=told[seen.place], depth=0)
        if base.size is not None and seen.root is not None:
            self.roots.setdefault(base.size, {})[base.network] = seen.root
        if seen.root != base.root:
            carried = seen.root.hex() if seen.root else "no root"
            expected = base.root.hex() if base.root else "none"
            return replace(base, status="failed", reason=f"carries {carried}, expected {expected}")
        found = replace(
            base,
            block_hash=seen.block_hash,
            height=seen.height,
            depth=seen.depth,
            time=seen.block_time if seen.block_time is not None else base.time,
        )
        if seen.final or seen.depth >= network.confirmations:
            return replace(found, status="verified")
        deep = f"{seen.depth} of {network.confirmations} confirmations"
        return replace(found, status="pending", reason=deep)


def _wrong_chain(fields: Mapping[str, Json], evidence: Mapping[str, Json]) -> str | None:
    for name in CHAIN_FIELDS:
        if name in evidence and name in fields and evidence[name] != fields[name]:
            return f"the receipt is of {name} {evidence[name]}, the node serves {fields[name]}"
    return None


def _found_in(
    headers: HeaderSource, anchor: AnchorProof, evidence: Mapping[str, Json]
) -> tuple[int, int | None]:
    """Depth and height of the block that :func:`check_evidence` found the transaction in, as
    far as the source knows them."""
    block, chain = parse_header(hex_field(evidence, "header")).hash, str(evidence.get("chain"))
    depth, height = headers.depth(block, chain), headers.height(block, chain)
    if height is not None and height != anchor.height:
        raise ProofError(f"its block is at height {height}, the receipt says {anchor.height}")
    return depth, height


def _check_agreement(roots: Mapping[int, Mapping[str, bytes]], notes: Notes) -> None:
    compared = 0
    for size, by_network in sorted(roots.items()):
        if len(set(by_network.values())) > 1:
            told = ", ".join(f"{name} {root.hex()}" for name, root in sorted(by_network.items()))
            notes.fail(AGREE, f"head {size}", f"networks carry different roots: {told}")
        compared += len(by_network) > 1
    if not compared:
        notes.skip(AGREE, "fewer than two networks answered for the same head")
    notes.count(AGREE, f"{compared} heads on several networks")


def _without_receipt(
    evidence: RunEvidence, places: Mapping[str, Mapping[str, NetworkCheck]]
) -> Iterable[tuple[AnchorFact, LedgerEntry]]:
    for entry in evidence.entries:
        covering = sorted(
            (anchor for anchor in evidence.anchors if anchor.size > entry.index),
            key=lambda anchor: (anchor.state is AnchorState.FAILED, anchor.size),
        )
        done = {name for name, seals in places.items() if seal_label(entry) in seals}
        for anchor in covering:
            if entry.anchor and anchor.network not in done:
                done.add(anchor.network)
                yield anchor, entry


def _pending(anchor: AnchorFact, entry: LedgerEntry) -> NetworkCheck:
    reason = f"anchor is {anchor.state.value}"
    if anchor.reason:
        reason += f": {anchor.reason}"
    return NetworkCheck(
        network=anchor.network,
        seal=seal_label(entry),
        status="pending",
        transaction_id=anchor.transaction_id,
        size=anchor.size,
        root=anchor.root,
        height=anchor.height,
        depth=anchor.depth,
        time=anchor.block_time,
        reason=reason,
    )
