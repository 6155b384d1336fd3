"""Checking a proof file against the evidence of a run that it is about."""

from __future__ import annotations

from dataclasses import replace

from provenance.errors import ProofError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, seal_label
from provenance.zk.numbers import final_epoch, is_shown, number_at
from provenance.zk.statement import Number, ProvedStatement, Statement


def check_proof(evidence: RunEvidence, data: bytes) -> tuple[str, str]:
    """The path of the record that a proof is about, and what it proves, in a line.

    Raises:
        FormatError: It does not decode.
        ProofError: It does not hold, is of another run, of another seal, or of a number that the
            record does not commit to.
        UnavailableError: The record is withheld.
    """
    told = ProvedStatement.decode(data)
    statement = _seen_from(told.statement, evidence)
    told.verify()
    record, other = _record(evidence, statement.number), statement.equals
    where = _place(evidence, record)
    is_seen = is_shown(record, statement.number.metric)
    shown = "the record shows the value" if is_seen else "value not shown"
    line = f"{statement.number.metric} of {where} {statement.words()} (proved; {shown})"
    if other is not None and other.run == evidence.run:
        _record(evidence, other)
    elif other is not None:
        line += "; whether that is its number, verifying that run with this proof tells"
    return record.path, line


def _seen_from(statement: Statement, evidence: RunEvidence) -> Statement:
    """The statement as one about this run: equality has two sides."""
    number, other = statement.number, statement.equals
    if number.run == evidence.run:
        return statement
    if other is not None and other.run == evidence.run:
        return replace(statement, number=other, equals=number)
    raise ProofError(f"is of run {number.run}, this is run {evidence.run}")


def _record(evidence: RunEvidence, number: Number) -> RecordFile:
    """The record that the number is of, under the newest root."""
    newest = evidence.entries[-1] if evidence.entries else None
    if newest is None or (seal_label(newest), newest.root) != (number.seal, number.root):
        found = f"is of seal {number.seal[:40]} with root {number.root.hex()[:16]}..."
        label = "none" if newest is None else f"{seal_label(newest)}, {newest.root.hex()[:16]}..."
        raise ProofError(f"{found}, the run's newest is {label}")
    record = next((r for r in evidence.records if r.path == number.path), None)
    if record is None or record.digest != number.record:
        raise ProofError(f"is of another record than lies at {number.path[:80]}")
    if number_at(evidence, record, number.metric) != number:
        raise ProofError(f"is of another commitment than {number.path[:80]} states")
    return record


def _place(evidence: RunEvidence, record: RecordFile) -> str:
    rank = f", rank {record.rank}" if record.rank else ""
    if record.epoch is None:
        return f"the results{rank}"
    final = record.epoch == final_epoch(evidence)
    return ("the final epoch" if final else f"epoch {record.epoch}") + rank
