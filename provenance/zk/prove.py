"""Proving a statement about a number of a run, from its evidence and its owner's openings."""

from __future__ import annotations

from pathlib import Path

from provenance.capture.ship.openings import find_opening
from provenance.errors import InputError, IntegrityError
from provenance.evidence.run_evidence import RecordFile, RunEvidence
from provenance.proofs.bulletproofs.commitment import exact_units
from provenance.zk.numbers import KINDS, commitment_of, final_epoch, number_at, records_of
from provenance.zk.statement import Number, ProvedStatement, Statement

FINAL, RESULTS = "final", "results"
_NAMED = 8


def find_number(
    evidence: RunEvidence, metric: str, epoch: str = FINAL, path: str | None = None
) -> Number:
    """The commitment to a number.

    Args:
        epoch: A number, ``final`` for the last epoch of a run that ended, or ``results``.
        path: That of the record; needed where several of the epoch commit to the name.

    Raises:
        InputError: There is no such commitment, or there are several.
        FormatError, UnavailableError: A record that does not decode, or is withheld.
    """
    chosen = _records(evidence, epoch)
    asked = [record for record in chosen if path in (None, record.path)]
    found = [(r, stated) for r in asked if (stated := commitment_of(r, metric)) is not None]
    if len(found) > 1:
        paths = ", ".join(record.path for record, _ in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        problem = f"found {len(found)} records that commit to it, expected --record with one of"
        raise InputError(f"{metric}: {problem} {paths}{more}")
    for record, stated in found:
        if stated.point is None:
            problem = f"{record.path}: the value had no form with {stated.scale} decimals"
            raise InputError(f"{metric}: {problem}, so there is no commitment to it")
        return number_at(evidence, record, metric)
    if path is not None:
        has = ", ".join(r.path for r in chosen if metric in _names(r)) or "none of that epoch"
        raise InputError(f"--record: found {path[:80]!r}, but {metric} is committed to by {has}")
    if not chosen and epoch not in (FINAL, RESULTS):
        raise InputError(_no_such_epoch(evidence, int(epoch)))
    named = sorted({name for record in chosen for name in _names(record)})
    where = {FINAL: "the final epoch", RESULTS: "the results"}.get(epoch, f"epoch {epoch}")
    problem = f"{where} of run {evidence.run} commits to {', '.join(named) or 'nothing'}"
    raise InputError(f"{metric}: {problem}, expected a name of `commitments` in its configuration")


def _records(evidence: RunEvidence, epoch: str) -> list[RecordFile]:
    number = None
    if epoch == FINAL:
        number = final_epoch(evidence)
        if number is None:
            raise InputError(f"--epoch: run {evidence.run} has no final epoch, expected a number")
    elif epoch != RESULTS:
        if not epoch.isdecimal():
            raise InputError(f"--epoch: found {epoch[:40]!r}, expected a number, final or results")
        number = int(epoch)
    return records_of(evidence, number)


def _no_such_epoch(evidence: RunEvidence, epoch: int) -> str:
    """What is the matter where no record under a seal is of an epoch."""
    if final_epoch(evidence) is None:
        return f"run {evidence.run} is still going: epoch {epoch} is under no seal yet"
    tree = (r for r in evidence.records if r.place == "tree" and r.kind in KINDS)
    epochs = sorted({record.epoch for record in tree if record.epoch is not None})
    has = f"has epochs {epochs[0]} to {epochs[-1]}" if epochs else "has metrics of no epoch"
    return f"--epoch: found {epoch}, run {evidence.run} {has}"


def _names(record: RecordFile) -> list[str]:
    if record.withheld:
        return []
    body = getattr(record.decoded, "body", {})
    return [*body.get("commitments", ())]


def prove(
    number: Number,
    base_dir: Path,
    *,
    at_least: str | None = None,
    at_most: str | None = None,
    equals: Number | None = None,
) -> ProvedStatement:
    """Prove that a number is within bounds, or equals another one.

    Args:
        number: As :func:`find_number` gives it.
        base_dir: Where the openings lie.
        at_least, at_most: Decimal texts with no more decimals than the commitment has.
        equals: A number of the same scale whose opening lies there too.

    Raises:
        IntegrityError: The statement is false.
        InputError: It is none about these numbers, a bound does not fit, or an opening is missing.
    """
    low, high = (None if bound is None else _units(number, bound) for bound in (at_least, at_most))
    if low is not None and high is not None and low > high:
        raise InputError(f"--between: found {at_least}, expected no more than {at_most}")
    if equals == number:
        raise InputError(f"--equals-run: found run {number.run} itself, expected another run")
    statement = Statement(number, low, high, equals)
    opening = find_opening(base_dir, number.run, number.point)
    other = None
    if equals is not None:
        other = find_opening(base_dir, equals.run, equals.point)
        if equals.scale != number.scale:
            problem = f"has {equals.scale} decimals, expected {number.scale} as here"
            raise InputError(f"--equals-run: the commitment of run {equals.run} {problem}")
    try:
        return statement.prove(opening, other)
    except InputError as error:
        problem = f"{number.metric} at {number.path}: is not as stated"
        raise IntegrityError(f"{problem}: nothing proves that it {statement.words()}") from error


def _units(number: Number, text: str) -> int:
    value = exact_units(text, number.scale)
    if value is None:
        expected = f"a number with at most {number.scale} decimals, as the commitment has"
        raise InputError(f"{number.metric}: found {text[:40]!r}, expected {expected}")
    return value
