"""Checking a proof file against the evidence of a run that it is about."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from provenance.errors import FormatError, ProofError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, seal_label
from provenance.formats.record import Kind
from provenance.proofs.bulletproofs.commitment import decimal
from provenance.zk.numbers import (
    commitment_of,
    final_epoch,
    number_at,
    records_of,
    shown_units,
)
from provenance.zk.statement import Number, ProvedStatement, Statement


def check_proof(evidence: RunEvidence, data: bytes) -> tuple[str, str]:
    """The path of the record that a proof is about, and what it proves, in a line.

    Raises:
        FormatError: It does not decode.
        ProofError: It does not hold, is of another run, of another seal, of a number that the
            record does not commit to, or contradicts what the record shows.
        UnavailableError: The record is withheld.
    """
    told = ProvedStatement.decode(data)
    statement = _seen_from(told.statement, evidence)
    told.verify()
    record, other = _record(evidence, statement.number), statement.equals
    shown = shown_units(record, statement.number)
    if other is not None and other.run == evidence.run:
        shown |= shown_units(_record(evidence, other), other)
    _check_shown(statement, shown)
    seen = (
        "the record also shows a number, which fits: nothing more ties the two"
        if shown
        else "value not shown"
    )
    notes = "; ".join(["proved", seen, *_others(evidence, record, statement.number)])
    where = f"{record.path}, {_place(evidence, record, statement.number.seal)},"
    line = f"{statement.number.metric} at {where} {statement.words()} ({notes})"
    if other is not None and other.run != evidence.run:
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
    """The record that the number is of, under the root of the seal that it names."""
    seal = next((e for e in evidence.entries if seal_label(e) == number.seal), None)
    if seal is None or seal.root != number.root:
        found = f"is of seal {number.seal} with root {number.root.hex()[:16]}..."
        own = "is not one of the run" if seal is None else f"has root {seal.root.hex()[:16]}..."
        raise ProofError(f"{found}, that seal {own}")
    record = next((r for r in evidence.records if r.path == number.path), None)
    if record is None or record.digest != number.record:
        raise ProofError(f"is of another record than lies at {number.path[:80]}")
    if number_at(evidence, record, number.metric, seal) != number:
        raise ProofError(f"is of another commitment than {number.path[:80]} states")
    return record


def _check_shown(statement: Statement, shown: set[int]) -> None:
    """Refuse numbers, in units, that a record shows and that cannot be the committed one."""
    low, high, number = statement.at_least, statement.at_most, statement.number
    for value in shown:
        if (low is not None and value < low) or (high is not None and value > high):
            told = f"shows {number.metric[:80]} {decimal(value, number.scale)}"
            problem = f"and commits to another number: one that {statement.words()}"
            raise ProofError(f"{number.path} {told} {problem}")
    if statement.equals is not None and len(shown) > 1:
        raise ProofError(f"{number.path} shows another {number.metric[:80]} than the equal number")


def _others(evidence: RunEvidence, record: RecordFile, number: Number) -> list[str]:
    """How many other records of that place have the name too, or are withheld."""
    same, withheld = 0, 0
    for other in records_of(evidence, number.metric, record.epoch):
        if other is not record and other.withheld:
            withheld += 1
        elif other is not record:
            with suppress(FormatError):  # a finding of its own
                same += commitment_of(other, number.metric) is not None
    told = [f"{same} commit to this name"] if same else []
    told += [f"{withheld} are withheld"] if withheld else []
    return [f"of this record alone: of the others there {', '.join(told)}"] if told else []


def _place(evidence: RunEvidence, record: RecordFile, seal: str) -> str:
    place = "the final epoch" if record.epoch == final_epoch(evidence) else f"epoch {record.epoch}"
    if record.epoch is None:
        place = "the results" if record.kind is Kind.RESULTS else "the data"
    rank = f", rank {record.rank}" if record.rank else ""
    return place + rank + ("" if seal == seal_label(evidence.entries[-1]) else f", at seal {seal}")
