"""Checks (8) and (9): the networks themselves, and whether they agree."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from provenance.errors import (
    FormatError,
    LyingNodeError,
    ProofError,
    ProvenanceError,
    UnavailableError,
    WrongNetworkError,
)
from provenance.evidence.run_evidence import AnchorFact, RunEvidence, evidence_bytes, seal_label
from provenance.formats.fields import Fields
from provenance.formats.receipt import AnchorProof
from provenance.formats.record import Json, Phase, Record
from provenance.formats.run_tree.selection import named_networks, written_marks
from provenance.ports.network import Network
from provenance.ports.values import CHAIN_FIELDS, AnchorState, LedgerEntry, Observation, Place
from provenance.proofs.bitcoin import parse_header
from provenance.settings import NETWORKS as NAMES
from provenance.verify.catalogue import AGREE, LEDGER, NETWORKS
from provenance.verify.checks.ethereum_receipt import has_proof
from provenance.verify.checks.receipts import BITCOIN, CheckedReceipt
from provenance.verify.cosigners import pinned
from provenance.verify.cross import (
    SLACK_S,
    Bounds,
    CrossAnchor,
    CrossSeal,
    Heads,
    clock_of,
    contradiction,
)
from provenance.verify.findings import Findings, counted
from provenance.verify.headers import HeaderSource
from provenance.verify.nodes import Nodes
from provenance.verify.report import NetworkCheck
from provenance.verify.trust import Chain, Trust

CHAINED: Final = ("ethereum", "bitcoin")
"""Networks of which there are many chains, so that one must be pinned."""
UNSHOWN: Final = "that its block is one of the chain, only a node or --block-hash can show"
Roots = Mapping[int, Mapping[str, bytes]]
"""By head size and network: the root that the network itself carries."""
_BEST: Final = (
    *("verified", "receipt", "stated", "pending", "unreachable", "not configured", "failed"),
)


def check_networks(
    evidence: RunEvidence,
    receipts: Iterable[CheckedReceipt],
    nodes: Nodes | None,
    headers: HeaderSource | None,
    trust: Trust,
    unapproved: Mapping[str, str],
    findings: Findings,
) -> tuple[dict[str, dict[str, NetworkCheck]], Roots]:
    """Ask each network for each receipt's transaction; per network and seal what came out, and
    the roots that the networks themselves carry.

    Bitcoin's blocks are looked up in ``headers`` as well, where there are some. Only what
    is on a pinned chain is verified.

    Args:
        nodes: The networks to ask; None asks nobody.
        unapproved: By network why anchors of the final root there count for nothing.
    """
    asked = _Networks(nodes, headers, trust)
    answers: dict[str, dict[str, NetworkCheck]] = {}
    held = set()
    for checked in receipts:
        held.add(checked.label)
        answer = asked.owned(asked.check(checked))  # (8)
        if checked.entry.phase is Phase.AFTER and answer.network in unapproved:
            answer = _only_stated(answer, unapproved[answer.network])
        name, file = answer.network, checked.file
        best = answers.setdefault(name, {}).setdefault(answer.seal, answer)
        if _BEST.index(answer.status) < _BEST.index(best.status):
            answers[name][answer.seal] = answer
        if answer.status == "failed":
            findings.fail(NETWORKS, f"{answer.seal} on {name}", answer.reason or "", file.file)
    for anchor, entry in _without_receipt(evidence, answers):
        answers.setdefault(anchor.network, {})[seal_label(entry)] = _pending(anchor, entry)
    decoded = [r for item in evidence.records if isinstance(r := item.decoded, Record)]
    marked = {(mark.phase, mark.epoch) for mark in written_marks(decoded) if mark.anchor}
    for entry in evidence.entries:
        if entry.anchor or (entry.phase, entry.epoch) in marked:
            findings.asked.append(seal_label(entry))
    findings.without_receipt = [label for label in findings.asked if label not in held]
    for name in sorted(named_networks(decoded).intersection(NAMES)):
        bare = [label for label in findings.asked if label not in answers.get(name, {})]
        if bare:
            problem = "the run names it, and its deployment has no such network"
            findings.notice(NETWORKS, name, f"{problem}: no anchor of {', '.join(bare)}")
    _summarise(answers, nodes, findings)
    order = {seal_label(entry): entry.index for entry in evidence.entries}
    ordered = {
        name: dict(sorted(seals.items(), key=lambda item: order.get(item[0], 0)))
        for name, seals in sorted(answers.items())
    }
    return ordered, asked.roots


def _summarise(
    answers: Mapping[str, Mapping[str, NetworkCheck]], nodes: Nodes | None, findings: Findings
) -> None:
    checks = [check for seals in answers.values() for check in seals.values()]
    for check in checks:
        open_ = check.status in ("pending", "unreachable", "not configured")
        if open_ or (check.status == "stated" and nodes is not None):
            why = f": {check.reason}" if check.reason else ""
            findings.unchecked(NETWORKS, f"{check.seal} on {check.network} {check.status}{why}")
    shown = {check.seal for check in checks}
    for label in findings.without_receipt:
        if label not in shown:
            findings.unchecked(NETWORKS, f"no receipt of {label}")
    if not checks:
        findings.skip(NETWORKS, "no anchor was asked for")
    elif nodes is None and any(check.status in ("receipt", "stated") for check in checks):
        findings.skip(NETWORKS, "offline: receipts only, no node was asked")
    verified = sum(check.status == "verified" for check in checks)
    anchors = counted(verified, "anchor")
    findings.count(NETWORKS, f"{anchors} on {counted(len(answers), 'network')}")


def _only_stated(check: NetworkCheck, reason: str) -> NetworkCheck:
    """Of an anchor whose signers or approvers are not the reader's."""
    shown = check.status in ("verified", "receipt", "stated")
    return replace(check, status="stated", reason=reason) if shown else check


class _Networks:
    """What the nodes and headers say of one run's receipts."""

    def __init__(self, nodes: Nodes | None, headers: HeaderSource | None, trust: Trust) -> None:
        self.nodes, self.headers, self.trust = nodes, headers, trust
        self.roots: dict[int, dict[str, bytes]] = {}

    def owned(self, check: NetworkCheck) -> NetworkCheck:
        """With the owners that the reader pinned; only stated where too few of them signed."""
        pin = self.trust.owners.get(check.network)
        found, lacking = pinned(check.cosigners, pin)
        if pin is None or lacking is None:
            return replace(check, cosigners=found)
        return _only_stated(replace(check, cosigners=found), lacking) if pin.required else check

    def check(self, checked: CheckedReceipt) -> NetworkCheck:
        """Check one receipt against its network."""
        anchor, ledger = checked.receipt.anchor, checked.receipt.ledger
        chain = checked.chain
        base = NetworkCheck(
            network=anchor.network,
            seal=checked.label,
            status="receipt",
            chain=chain,
            pinned_by=self.trust.chain_pinned_by(chain),
            submitter=checked.submitter,
            cosigners=checked.cosigners,
            transaction_id=anchor.transaction_id,
            size=ledger.size,
            root=ledger.root,
            block_hash=anchor.block_hash,
            height=anchor.height,
            time=anchor.block_time,
        )
        if self.headers is not None and anchor.network == BITCOIN:
            try:
                depth, height = _in_headers(self.headers, anchor, checked.receipt.evidence)
            except (ProofError, FormatError) as error:
                return replace(base, status="failed", reason=str(error))
            except UnavailableError as error:
                return replace(base, status="unreachable", reason=str(error))
            base = _pinned(base, "by headers", depth=depth, height=height)
        if anchor.network == "ethereum":
            known = (anchor.block_hash or "").lower() in self.trust.block_hashes
            if known and has_proof(checked.receipt.evidence):
                base = _pinned(base, "by a block hash")
            else:
                base = replace(base, status="stated", reason=UNSHOWN)
        if self.nodes is None:
            return base
        network = self.nodes.networks.get(anchor.network)
        if network is None:
            reason = self.nodes.unavailable.get(anchor.network)
            if reason is None and base.shown_by is not None:
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
        wrong = _wrong_chain(self.nodes.identities[network.name].fields, checked.receipt.evidence)
        if wrong is not None:
            return replace(base, status="failed", reason=wrong)
        return self._compare(base, network, seen, anchor)

    def _compare(
        self, base: NetworkCheck, network: Network, seen: Observation, anchor: AnchorProof
    ) -> NetworkCheck:
        if seen.place is Place.PENDING and anchor.state == "confirmed":
            return replace(base, status="pending", reason="in no block any more")
        if seen.place is not Place.MINED:
            reasons = {
                Place.UNKNOWN: "the node has no such transaction",
                Place.PENDING: "the transaction is in no block",
                Place.FAILED: "the transaction failed in its block",
                Place.CONFLICTED: "another transaction took its place",
            }
            return replace(base, status="failed", reason=reasons[seen.place])
        if base.size is not None and seen.root is not None:
            self.roots.setdefault(base.size, {})[base.network] = seen.root
        if seen.root != base.root:
            carried = seen.root.hex() if seen.root else "no root"
            expected = base.root.hex() if base.root else "none"
            return replace(base, status="failed", reason=f"carries {carried}, expected {expected}")
        by = self.trust.chain_pinned_by(base.chain, own_node=True, our_code=seen.our_code)
        if by is None and seen.our_code is False:
            reason = f"the code of contract {base.chain.contract} is not this project's"
            return replace(base, status="failed", reason=reason)
        cosigners = base.cosigners
        if cosigners is not None and seen.quorum is not None:
            cosigners = replace(cosigners, quorum=seen.quorum, shown_by="by the contract's storage")
        mined = replace(
            base,
            pinned_by=by,
            cosigners=cosigners,
            block_hash=seen.block_hash,
            height=seen.height,
            depth=seen.depth,
            time=seen.block_time if seen.block_time is not None else base.time,
        )
        if seen.final or seen.depth >= network.confirmations:
            return _pinned(mined, "by a node")
        deep = f"{seen.depth} of {network.confirmations} confirmations"
        return replace(mined, status="pending", reason=deep)


def _pinned(check: NetworkCheck, by: str, **found: Any) -> NetworkCheck:
    """Verified where somebody pinned the chain that was seen to have the anchor."""
    check = replace(check, shown_by=by, **found)
    if check.pinned_by is not None or check.network not in CHAINED:
        return replace(check, status="verified", reason=None)
    why = f": {check.chain.remark}" if check.chain.remark else ""
    return replace(check, status="stated", reason=f"nobody pinned {check.chain.label}{why}")


def _wrong_chain(fields: Mapping[str, Json], evidence: Mapping[str, Json]) -> str | None:
    for name in CHAIN_FIELDS:
        if name in evidence and name in fields and evidence[name] != fields[name]:
            return f"the receipt is of {name} {evidence[name]}, the node serves {fields[name]}"
    return None


def _in_headers(
    headers: HeaderSource, anchor: AnchorProof, evidence: Mapping[str, Json]
) -> tuple[int, int | None]:
    """Depth and height of the block that :func:`check_evidence` found the transaction in, as
    far as the source knows them."""
    raw = evidence_bytes(Fields(evidence, "evidence"), "header")
    block, chain = parse_header(raw).hash, str(evidence.get("chain"))
    depth, height = headers.depth(block, chain), headers.height(block, chain)
    if height is not None and height != anchor.height:
        raise ProofError(f"its block is at height {height}, the receipt says {anchor.height}")
    return depth, height


def check_agreement(
    evidence: RunEvidence,
    receipts: Sequence[CheckedReceipt],
    networks: Mapping[str, Mapping[str, NetworkCheck]],
    roots: Roots,
    findings: Findings,
) -> tuple[CrossSeal, ...]:
    """The seals that several networks have, as :mod:`provenance.verify.cross` tells."""
    for size, by_network in sorted(roots.items()):
        if len(set(by_network.values())) > 1:
            roots_of = ", ".join(f"{n} {root.hex()}" for n, root in sorted(by_network.items()))
            findings.fail(AGREE, f"head {size}", f"networks carry different roots: {roots_of}")
    confirmed = {
        (r.receipt.anchor.network, r.label, r.receipt.ledger.size): r.receipt.anchor.confirmed_at
        for r in receipts
    }
    shown = [
        {label: check for label, check in seals.items() if _is_mined(check)}
        for seals in with_receipts(networks).values()
    ]
    bounds = Bounds(_cross(check) for seals in shown for check in seals.values())
    untied = [item.size for item in evidence.heads if findings.failed(LEDGER, f"head {item.size}")]
    agreements = []
    for entry in evidence.entries:
        label = seal_label(entry)
        checks = [seals[label] for seals in shown if label in seals]
        if len(checks) < 2:
            continue
        anchors = tuple(map(_cross, checks))
        sizes = [anchor.size for anchor in anchors]
        heads: Heads = "same" if min(sizes) == max(sizes) else "tied"
        if any(min(sizes) <= size < max(sizes) for size in untied):
            heads = "untied"
        clocks = [
            clock_of(anchor, entry.created_at, confirmed[check.network, label, anchor.size])
            for anchor, check in zip(anchors, checks, strict=True)
        ]
        problem = contradiction([clock for clock in clocks if clock is not None])
        if problem is not None:
            findings.fail(AGREE, label, problem)
        bound = bounds.of(entry.index)
        told = (bound.not_after, bound.chain, bound.shown) if bound else (None, None, False)
        agreements.append(CrossSeal(label, heads, anchors, *told))
    if agreements:
        seals = counted(len(agreements), "seal")
        findings.count(AGREE, f"{seals} on several networks; {agreements[-1].line}")
    else:
        findings.skip(AGREE, "no seal has receipts of two networks")
    return tuple(agreements)


def _is_mined(check: NetworkCheck) -> bool:
    """Whether no node says that the block of the receipt does not have it."""
    return check.status != "failed" and (check.status != "pending" or check.depth > 0)


def _cross(check: NetworkCheck) -> CrossAnchor:
    assert check.size is not None
    assert check.root is not None
    slack = None if check.time is None else SLACK_S.get(check.network)
    time = check.time if slack is not None else None
    where = (check.network, check.chain.label, check.size, check.root)
    return CrossAnchor(*where, check.status, time, slack)


def _without_receipt(
    evidence: RunEvidence, answers: Mapping[str, Mapping[str, NetworkCheck]]
) -> Iterable[tuple[AnchorFact, LedgerEntry]]:
    """For each seal and network the first anchor that covers it; a failed one last."""
    by_network: dict[str, tuple[list[AnchorFact], list[AnchorFact]]] = {}
    for anchor in sorted(evidence.anchors, key=lambda anchor: anchor.size):
        rows = by_network.setdefault(anchor.network, ([], []))
        rows[anchor.state is AnchorState.FAILED].append(anchor)
    for network, rows in by_network.items():
        done = set(answers.get(network, ()))
        for entry in evidence.entries:
            if not entry.anchor or seal_label(entry) in done:
                continue
            starts = ((row, bisect_right(row, entry.index, key=lambda a: a.size)) for row in rows)
            found = next((row[at] for row, at in starts if at < len(row)), None)
            if found is not None:
                yield found, entry


def with_receipts(
    networks: Mapping[str, Mapping[str, NetworkCheck]],
) -> dict[str, dict[str, NetworkCheck]]:
    """Without the anchors that have no receipt here: of these the deployment alone says which seals
    they have."""
    shown = {
        name: {label: check for label, check in seals.items() if not check.claimed}
        for name, seals in networks.items()
    }
    return {name: seals for name, seals in shown.items() if seals}


def _pending(anchor: AnchorFact, entry: LedgerEntry) -> NetworkCheck:
    made = anchor.state in (AnchorState.CONFIRMED, AnchorState.FINAL)
    reason = f"anchor is {'said to be ' if made else ''}{anchor.state.value}"
    if anchor.reason:
        reason += f": {anchor.reason!r}"
    return NetworkCheck(
        network=anchor.network,
        seal=seal_label(entry),
        status="pending",
        chain=Chain(anchor.network),
        transaction_id=anchor.transaction_id,
        size=anchor.size,
        root=anchor.root,
        height=anchor.height,
        time=anchor.block_time,
        reason=reason,
        claimed=True,
    )
