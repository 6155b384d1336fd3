"""The committed numbers of a run: where its evidence has them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from provenance.errors import FormatError, ProofError, UnavailableError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, seal_label
from provenance.formats.event import places_of
from provenance.formats.fields import Fields
from provenance.formats.record import EPOCH_KINDS, Kind, Phase, Record
from provenance.proofs.bulletproofs.commitment import in_units
from provenance.proofs.bulletproofs.curve import POINT_BYTES
from provenance.zk.statement import MAX_SCALE, Number

KINDS: Final = (Kind.METRICS, Kind.PRIVACY, Kind.RESULTS)
"""Kinds of records that commit to numbers."""
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
    if record.kind not in KINDS or "commitments" not in body.raw:
        return None
    stated = body.object("commitments")
    if metric not in stated.raw:
        return None
    own = stated.object(metric, *Commitment._fields)
    point = own.maybe("point", lambda key: own.hex(key, POINT_BYTES))
    return Commitment(point, own.integer("scale", most=MAX_SCALE))


def number_at(evidence: RunEvidence, record: RecordFile, metric: str) -> Number:
    """A committed number under the newest root; errors as :func:`commitment_of`, and
    ``ProofError`` where there is none."""
    if not evidence.entries or record.place != "tree":
        raise ProofError(f"{record.path}: no root has the record")
    stated = commitment_of(record, metric)
    if stated is None or stated.point is None:
        raise ProofError(f"{record.path}: the record has no commitment to {metric[:80]!r}")
    entry = evidence.entries[-1]
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


def final_epoch(evidence: RunEvidence) -> int | None:
    """The last epoch that a root has records of; None where the run may go on."""
    if not any(entry.phase is Phase.AFTER for entry in evidence.entries):
        return None
    tree = (r for r in evidence.records if r.kind in EPOCH_KINDS and r.place == "tree")
    return max((record.epoch for record in tree if record.epoch is not None), default=None)


def records_of(evidence: RunEvidence, epoch: int | None) -> list[RecordFile]:
    """The records under a root that may commit to numbers of an epoch, or of the results."""
    tree = (r for r in evidence.records if r.place == "tree" and r.kind in KINDS)
    return sorted((r for r in tree if r.epoch == epoch), key=lambda r: (r.rank, r.path))


def shown_units(record: RecordFile, number: Number) -> set[int]:
    """What the record shows beside its commitment under this name, in its units.

    Raises:
        ProofError: What it shows is no number, so that there is nothing to commit to.
    """
    assert isinstance(record.decoded, Record)
    found: set[int] = set()
    parts = [record.decoded.body.get(kind.value) for kind in KINDS]
    for owner, key in places_of(parts, number.metric):
        shown = owner[key]
        is_whole = isinstance(shown, str) and _DIGITS.fullmatch(shown)
        units = in_units(int(shown) if is_whole else shown, number.scale)
        if units is None:
            problem = "no number that the commitment could be to"
            raise ProofError(f"{record.path} shows as {number.metric[:80]} {problem}")
        found.add(units)
    return found
