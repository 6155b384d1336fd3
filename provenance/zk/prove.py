"""Proving a statement about a number of a run, from its evidence and its owner's openings."""

from __future__ import annotations

from pathlib import Path

from provenance.capture.ship.openings import find_opening
from provenance.errors import InputError, IntegrityError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, seal_label
from provenance.formats.event import COUNTS
from provenance.ports.values import LedgerEntry
from provenance.proofs.bulletproofs.commitment import exact_units
from provenance.zk.numbers import (
    KINDS,
    commitment_of,
    final_epoch,
    is_under,
    number_at,
    records_of,
)
from provenance.zk.statement import Number, ProvedStatement, Statement

FINAL, RESULTS, DATA = "final", "results", "data"
_PLACES = {FINAL: "the final epoch", RESULTS: "the results", DATA: "the data"}
_NAMED = 8


def find_number(
    evidence: RunEvidence,
    metric: str,
    epoch: str = FINAL,
    path: str | None = None,
    seal: str | None = None,
) -> Number:
    """The commitment to a number.

    Args:
        epoch: A number, ``final`` for the last epoch of a run that ended, or ``results``; nothing
            of a dataset's count.
        path: That of the record; needed where several of the epoch commit to the name.
        seal: Under whose root, such as ``checkpoint-10``; the newest one's when left out.

    Raises:
        InputError: There is no such commitment, or there are several; no such seal, or not of it.
        FormatError, UnavailableError: A record that does not decode, or is withheld.
    """
    if metric in COUNTS:
        if epoch not in (FINAL, DATA):
            raise InputError(f"--epoch: found {epoch[:40]!r}, but {metric} is of no epoch")
        epoch = DATA
    chosen = _records(evidence, metric, epoch)
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
        return number_at(evidence, record, metric, _seal(evidence, record, seal))
    if path is not None:
        has = ", ".join(r.path for r in chosen if metric in _names(r)) or "none of that epoch"
        raise InputError(f"--record: found {path[:80]!r}, but {metric} is committed to by {has}")
    if not chosen and epoch not in _PLACES:
        raise InputError(_no_such_epoch(evidence, int(epoch)))
    named = sorted({name for record in chosen for name in _names(record)})
    where = _PLACES.get(epoch, f"epoch {epoch}")
    problem = f"{where} of run {evidence.run} commits to {', '.join(named) or 'nothing'}"
    raise InputError(f"{metric}: {problem}, expected a name of `commitments` in its configuration")


def _seal(evidence: RunEvidence, record: RecordFile, label: str | None) -> LedgerEntry:
    """The seal of a label, or the newest, which has the record."""
    own = {seal_label(entry): entry for entry in evidence.entries if is_under(entry, record)}
    if label is None:
        return [*own.values()][-1]
    if label not in own:
        expected = f"expected one that has {record.path}, from {next(iter(own))} on"
        raise InputError(f"--seal: found {label[:40]!r}, {expected}")
    return own[label]


def _records(evidence: RunEvidence, metric: str, epoch: str) -> list[RecordFile]:
    number = None
    if epoch == FINAL:
        number = final_epoch(evidence)
        if number is None:
            raise InputError(f"--epoch: run {evidence.run} has no final epoch, expected a number")
    elif epoch != RESULTS and metric not in COUNTS:
        if not epoch.isdecimal():
            raise InputError(f"--epoch: found {epoch[:40]!r}, expected a number, final or results")
        number = int(epoch)
    return records_of(evidence, metric, number)


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
    if equals is not None and equals.point == number.point:
        raise InputError(f"--equals-run: found run {number.run} itself, expected another run")
    if equals is not None and equals.scale != number.scale:
        problem = f"has {equals.scale} decimals, expected {number.scale} as here"
        raise InputError(f"--equals-run: the commitment of run {equals.run} {problem}")
    statement = Statement(number, low, high, equals)
    opening = find_opening(base_dir, number.run, number.point)
    other = None if equals is None else find_opening(base_dir, equals.run, equals.point)
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
