"""The committed numbers of a run: where its evidence has them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from provenance.errors import FormatError, ProofError, UnavailableError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, seal_label
from provenance.formats.event import COUNTS, numbers_of, places_of
from provenance.formats.fields import Fields
from provenance.formats.record import EPOCH_KINDS, Kind, Phase, Record
from provenance.ports.values import LedgerEntry
from provenance.proofs.bulletproofs.commitment import in_units
from provenance.proofs.bulletproofs.curve import POINT_BYTES
from provenance.zk.statement import MAX_SCALE, Number

KINDS: Final = (Kind.METRICS, Kind.PRIVACY, Kind.RESULTS)
"""Kinds of records that commit to numbers, beside those of data."""
_DIGITS: Final = re.compile("-?[1-9][0-9]{15,30}")
"""How a record has a whole number beyond 2^53."""


class Commitment(NamedTuple):
    """What a record states of a number; no point where it had no fixed-point form."""

    point: bytes | None
    scale: int


def commitment_of(record: RecordFile, metric: str) -> Commitment | None:
    """The commitment to a number of this name; None where the record has none.

    Raises:
        FormatError: The record, or what it says of its commitments, does not decode.
        UnavailableError: The record is withheld.
    """
    if record.withheld:
        raise UnavailableError(f"{record.path}: the record is withheld, and so is its commitment")
    if isinstance(record.decoded, FormatError):
        raise record.decoded
    body = Fields(record.decoded.body, record.path)
    if record.kind not in (*KINDS, *COUNTS.values()) or "commitments" not in body.raw:
        return None
    stated = body.object("commitments")
    if metric not in stated.raw:
        return None
    own = stated.object(metric, *Commitment._fields)
    point = own.maybe("point", lambda key: own.hex(key, POINT_BYTES))
    return Commitment(point, own.integer("scale", most=MAX_SCALE))


def number_at(evidence: RunEvidence, record: RecordFile, metric: str, entry: LedgerEntry) -> Number:
    """A committed number under the root of a seal; errors as :func:`commitment_of`, and
    ``ProofError`` where there is none."""
    if not is_under(entry, record):
        raise ProofError(f"{record.path}: the root of seal {seal_label(entry)} has no such record")
    stated = commitment_of(record, metric)
    if stated is None or stated.point is None:
        raise ProofError(f"{record.path}: the record has no commitment to {metric[:80]!r}")
    return Number(
        evidence.run,
        seal_label(entry),
        entry.root,
        record.path,
        record.digest,
        metric,
        stated.scale,
        stated.point,
    )


def is_under(entry: LedgerEntry, record: RecordFile) -> bool:
    """Whether the root of a seal has a record that may commit to numbers (docs/FORMAT.md, 5.1);
    from where the record lies at the newest one."""
    if record.place != "tree" or entry.phase is Phase.AFTER or record.kind in COUNTS.values():
        return record.place == "tree"
    return record.epoch is not None and entry.epoch is not None and record.epoch <= entry.epoch


def final_epoch(evidence: RunEvidence) -> int | None:
    """The last epoch that a root has records of; None where the run may go on."""
    if not any(entry.phase is Phase.AFTER for entry in evidence.entries):
        return None
    tree = (r for r in evidence.records if r.kind in EPOCH_KINDS and r.place == "tree")
    return max((record.epoch for record in tree if record.epoch is not None), default=None)


def records_of(evidence: RunEvidence, metric: str, epoch: int | None = None) -> list[RecordFile]:
    """The records under a root that may commit to a number: those of an epoch, or else of the
    results, or of the data whose count it is."""
    kinds = (COUNTS[metric],) if metric in COUNTS else KINDS
    tree = (r for r in evidence.records if r.place == "tree" and r.kind in kinds)
    return sorted((r for r in tree if r.epoch == epoch), key=lambda r: (r.rank, r.path))


def shown_units(record: RecordFile, number: Number) -> set[int]:
    """What the record shows beside its commitment under this name, in its units.

    Raises:
        ProofError: What it shows is no number, so that there is nothing to commit to.
    """
    assert isinstance(record.decoded, Record)
    found: set[int] = set()
    for owner, key in places_of(numbers_of(record.kind, record.decoded.body), number.metric):
        shown = owner[key]
        is_whole = isinstance(shown, str) and _DIGITS.fullmatch(shown)
        units = in_units(int(shown) if is_whole else shown, number.scale)
        if units is None:
            problem = "no number that the commitment could be to"
            raise ProofError(f"{record.path} shows as {number.metric[:80]} {problem}")
        found.add(units)
    return found
