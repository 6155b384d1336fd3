"""Check (8), of seeds that were drawn from blocks: they are these blocks', on the networks too.

A block that a seed was drawn from was not known before its time, and neither was the seed, nor
anything that is chained behind its record: so training that used it happened after that, and before
the block that an anchor of the run lies in. Both times are widened by what their chains let a
block's time be off (:mod:`provenance.verify.cross`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from provenance.errors import (
    FormatError,
    LyingNodeError,
    ProofError,
    ProvenanceError,
    UnavailableError,
    WrongNetworkError,
)
from provenance.evidence.run_evidence import RunEvidence, seal_label
from provenance.formats.fields import Fields
from provenance.formats.record import Kind, Record
from provenance.proofs.beacon import MAX_SEED, Beacon, draw_seed, read_beacons
from provenance.proofs.bitcoin import parse_header, target_of
from provenance.verify.catalogue import NETWORKS
from provenance.verify.cross import SLACK_S, moment
from provenance.verify.findings import Findings, counted
from provenance.verify.headers import HeaderSource
from provenance.verify.nodes import Nodes
from provenance.verify.report import NetworkCheck
from provenance.verify.trust import Chain, Trust

SEEDS: Final = (
    "That a seed was used, or that the training drew no other: a trainer can work one out from any "
    "block without recording it. Only what was recorded is counted."
)
SKEW_S: Final = 7200.0
"""So far ahead of the nodes' clocks a block of Bitcoin may be (MAX_FUTURE_BLOCK_TIME)."""
_Checks = Mapping[str, Mapping[str, NetworkCheck]]


def check_seeds(
    evidence: RunEvidence,
    records: Mapping[str, Record],
    anchors: _Checks,
    nodes: Nodes | None,
    headers: HeaderSource | None,
    trust: Trust,
    findings: Findings,
) -> list[str]:
    """Check each seed, and note the window that the first one and the anchors prove; what is not
    checked about them."""
    drawn = {path: record for path, record in records.items() if record.kind is Kind.SEED}
    if any(item.withheld and item.kind is Kind.SEED for item in evidence.records):
        findings.unchecked(NETWORKS, "a seed's record is withheld")
    asked = _Blocks(nodes, headers, trust)
    times: dict[str, tuple[float, str] | None] = {}
    draws: dict[bytes, int] = {}
    in_order = sorted(drawn.items(), key=lambda item: (item[1].producer, item[1].seq))
    for path, record in in_order:
        try:
            draw, blocks = _read(record)
            if draw <= (before := draws.get(record.producer, -1)):
                raise ProofError(f"draw {draw} stands behind draw {before}")
            draws[record.producer] = draw
            times[path] = asked.newest(blocks) if blocks else None
        except (FormatError, ProofError) as error:
            findings.fail(NETWORKS, path, str(error), f"records/{path}.json", path)
            continue
        if not blocks:
            findings.unchecked(NETWORKS, f"{path}: a random seed: no recent block was known")
    for line in asked.open:
        findings.unchecked(NETWORKS, line)
    for hash in sorted(trust.block_hashes - asked.hashes - _hashes(anchors)):
        findings.notice(NETWORKS, "--block-hash", f"{hash} is the block of no anchor or seed here")
    if not drawn:
        return []
    for entry in evidence.entries:
        covered = dict(entry.coverage)
        behind = (times.get(p) for p, r in drawn.items() if r.seq < covered.get(r.producer, 0))
        if bounds := [bound for bound in behind if bound is not None]:
            findings.not_before[seal_label(entry)] = max(bounds)
    _note_window(evidence, drawn, times, anchors, findings)
    return [SEEDS]


def _hashes(anchors: _Checks) -> set[str]:
    """Of the blocks that anchors lie in."""
    checks = (check for seals in anchors.values() for check in seals.values())
    return {(check.block_hash or "").lower() for check in checks}


def _read(record: Record) -> tuple[int, tuple[Beacon, ...]]:
    """Which draw it is, and of which blocks; the seed is recomputed from them."""
    body = Fields(record.body, "body").only("seed", "draw", "blocks", "problem")
    seed, draw = body.integer("seed", 0, MAX_SEED), body.integer("draw", 0, MAX_SEED)
    blocks = read_beacons(body, "blocks")
    for block in blocks:
        block.check()
    if blocks and (found := draw_seed(record.run, draw, blocks)) != seed:
        raise ProofError(f"seed is {seed}, its blocks give {found} at draw {draw}")
    return draw, blocks


class _Blocks:
    """What headers, nodes and pins say of blocks; ``open`` is what nobody could say."""

    def __init__(self, nodes: Nodes | None, headers: HeaderSource | None, trust: Trust) -> None:
        self.nodes, self.headers, self.trust = nodes, headers, trust
        self.open: dict[str, None] = {}
        self._known: dict[Beacon, bool] = {}

    @property
    def hashes(self) -> set[str]:
        """Of the blocks that were asked for, as people write them."""
        return {block.shown for block in self._known}

    def newest(self, blocks: tuple[Beacon, ...]) -> tuple[float, str] | None:
        """Least time and name of the newest block that is shown on a pinned chain; None without
        one.
        ``ProofError`` where one is not of its chain."""
        shown = []
        for block in blocks:
            if block not in self._known:
                self._known[block] = self._is_shown(block)
            if self._known[block]:
                shown.append((block.time - SLACK_S[block.network], block.label))
        return max(shown, default=None)

    def _is_shown(self, block: Beacon) -> bool:
        chain = _chain(block)
        shown, by_node = False, False
        problem = "no node and no header source was asked for it"
        if self.headers is not None and block.network == "bitcoin":
            try:
                self.headers.depth(block.hash, block.chain, block.height)
                height = self.headers.height(block.hash, block.chain)
            except UnavailableError as error:
                problem = str(error)
            else:
                if height is not None and height != block.height:
                    raise ProofError(f"{block.label}: {block.shown} is at height {height}")
                shown = True
        if block.network == "ethereum" and block.shown in self.trust.block_hashes:
            shown = True
        network = None if self.nodes is None else self.nodes.networks.get(block.network)
        if network is not None and self.nodes is not None:
            try:
                depth = self.nodes.depth_of(network, block)
            except (UnavailableError, WrongNetworkError, LyingNodeError) as error:
                problem = str(error)
            except ProvenanceError as error:
                raise ProofError(f"{block.label}: {error}") from error
            else:
                if depth < 1:
                    raise ProofError(f"{block.label}: the node has no such block {block.shown}")
                shown = by_node = depth >= network.confirmations
                problem = f"{depth} of {network.confirmations} confirmations"
        if not shown:
            self.open[f"{block.label} of a seed: {problem}"] = None
        elif self.trust.chain_pinned_by(chain, own_node=by_node) is None:
            self.open[f"{block.label} of a seed: nobody pinned {chain.label}"] = None
            return False
        return shown


def _chain(block: Beacon) -> Chain:
    if block.network == "bitcoin":
        target = target_of(parse_header(block.header).bits)
        return Chain.of("bitcoin", {"chain": block.chain}, target)
    return Chain("ethereum", int(block.chain) if block.chain.isdecimal() else None)


def _note_window(
    evidence: RunEvidence,
    drawn: Mapping[str, Record],
    times: Mapping[str, tuple[float, str] | None],
    anchors: _Checks,
    findings: Findings,
) -> None:
    first = next(iter(sorted(drawn, key=lambda path: drawn[path].order)))
    number = counted(len(drawn), "seed")
    begun = times.get(first)
    if begun is None:
        findings.notice(NETWORKS, "seeds", f"{number}: nothing shows when the first was drawn")
        return
    label = seal_label(evidence.entries[-1]) if evidence.entries else ""
    ends = [
        (check.time + SLACK_S[name], f"{label} on {name}")
        for name, seals in anchors.items()
        if (check := seals.get(label)) and check.status == "verified" and check.time is not None
        if name in SLACK_S
    ]
    end = min(ends, default=None)
    after = f"{moment(begun[0])} ({begun[1]})"
    if end is None:
        problem = f"training with its first seed happened after {after}; no anchor says before when"
    elif end[0] < begun[0] - SKEW_S:
        problem = f"its anchor of {moment(end[0])} ({end[1]}) is older than its seed of {after}"
        findings.fail(NETWORKS, "seeds", problem)
        return
    else:
        before = f"{moment(end[0])} ({end[1]})"
        problem = f"training with its first seed happened between {after} and {before}"
        if end[0] < begun[0]:
            problem += ", whose clocks differ"
    findings.notice(NETWORKS, "seeds", f"{problem}; {number} drawn")
