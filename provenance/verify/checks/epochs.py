"""Check (4) of the ranks of an epoch: who is missing, and whether shards are whole tensors."""

from __future__ import annotations

from collections.abc import Mapping

from provenance.errors import FormatError
from provenance.evidence.run_evidence import RecordFile, RunEvidence
from provenance.formats.record import Kind, Record
from provenance.formats.run_tree.ranks import (
    NAMED,
    by_name,
    is_sharded,
    named_ranks,
    pieces_of,
    silent_ranks,
    stretches,
    tensor_problem,
)
from provenance.formats.run_tree.selection import absent_ranks
from provenance.verify.catalogue import COMPLETE
from provenance.verify.findings import Findings


def check_epochs(evidence: RunEvidence, ranks: int, findings: Findings) -> None:
    """Of the epochs that a seal covers, report ranks without metrics, and shards that do not
    cover their tensors or that differ; ``ranks`` is how many there are."""
    tree = [item for item in evidence.records if item.place == "tree"]
    metrics = ((item.epoch or 0, item.rank) for item in tree if item.kind is Kind.METRICS)
    for epochs, line in silent_ranks(metrics):
        findings.notice(COMPLETE, epochs, line)
    problems, notices = list[tuple[int, str]](), list[tuple[int, str]]()
    slots: dict[int, dict[int, RecordFile]] = {}  # of one rank's records the last counts
    for item in sorted(tree, key=lambda item: (item.ts, item.producer, item.seq)):
        if item.kind is Kind.STATE:
            slots.setdefault(item.epoch or 0, {})[item.rank] = item
        elif item.kind is Kind.WEIGHTS and is_sharded(_body(item)):
            alone = f"the shards of rank {item.rank} alone: before waits for no other rank"
            findings.notice(COMPLETE, item.path, alone, item.path)
    for epoch, own in sorted(slots.items()):
        if not any(is_sharded(_body(item)) for item in own.values()):
            continue
        if any(item.withheld for item in own.values()):
            why = "withheld weights: whether the shards are whole tensors is not seen"
            findings.unchecked(COMPLETE, f"epoch {epoch}: {why}")
            continue
        shared, single = _problems(own)
        if shared:
            absent = named_ranks(*absent_ranks(ranks, own, NAMED))
            which = f"; no weights from {absent} of {ranks}" if absent else ""
            problems.append((epoch, _first(shared) + which))
        if single:
            notices.append((epoch, f"{_first(single)}: no shard, each rank's own"))
    for epochs, line in stretches(problems):
        findings.fail(COMPLETE, epochs, line)
    for epochs, line in stretches(notices):
        findings.notice(COMPLETE, epochs, line)


def _body(item: RecordFile) -> Mapping[str, object]:
    return item.decoded.body if isinstance(item.decoded, Record) else {}


def _problems(own: Mapping[int, RecordFile]) -> tuple[list[str], list[str]]:
    """About each tensor that ranks share, and each of which every rank has one of its own."""
    shared, single, pieces = list[str](), list[str](), []
    for rank, item in own.items():
        try:
            pieces += pieces_of(rank, _body(item), item.file)
        except FormatError as error:
            shared.append(str(error))
    for name, same in by_name(pieces).items():
        if (problem := tensor_problem(same)) is not None:
            kind = shared if any(piece.sharded for piece in same) else single
            kind.append(f"tensor {name!r}: {problem}")
    return shared, single


def _first(lines: list[str]) -> str:
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")
