"""Proved statements: what a proof file says, and the bytes that its proof is bound to.

FROZEN FORMAT, version 1: docs/FORMAT.md, section 13. Canonical JSON::

    {"proof": hex, "statement": {"at_least": units or null, "at_most": units or null,
     "equals": number or null, "number": number}, "v": 1}
    number = {"metric", "path", "point", "record", "root", "run", "scale", "seal"}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from provenance.errors import FormatError
from provenance.formats.fields import Fields, as_json, names_of
from provenance.formats.record import canonical_json
from provenance.proofs.bulletproofs import equality, range_proof
from provenance.proofs.bulletproofs.commitment import LEAST, MOST, Opening, decimal
from provenance.proofs.bulletproofs.curve import BASE, POINT_BYTES, Point, negated, point, total
from provenance.proofs.bulletproofs.transcript import Transcript

VERSION: Final = 1
MAX_BYTES: Final = 64 * 1024
MAX_SCALE: Final = 12
MAX_NAME: Final = 200
"""Characters of a number's name."""
_SEAL: Final = re.compile(r"before|after|checkpoint-(?:0|[1-9][0-9]{0,15})")
_PATH: Final = re.compile(
    r"training/(?:epoch/[0-9]{1,16}/)?[a-z]+(?:/[0-9]{1,9})?|data/(?:train|test)/[0-9]{1,9}"
)
_UNITS: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_PROOF: Final = re.compile(r"(?:[0-9a-f]{2}){65,754}")


@dataclass(frozen=True, slots=True)
class Number:
    """A committed number of a run.

    Attributes:
        seal, root: The seal (``after``, ``checkpoint-10``) and the run root, 32 bytes, that the
            record is under.
        path, record: The record's place in the run tree, and its digest.
        metric: The number's name in the record.
        scale: Decimals that its unit stands for.
        point: The commitment, 33 bytes.
    """

    run: UUID
    seal: str
    root: bytes
    path: str
    record: bytes
    metric: str
    scale: int
    point: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """What is proved of a number: bounds, in units, or that it equals another one."""

    number: Number
    at_least: int | None = None
    at_most: int | None = None
    equals: Number | None = None

    def encode(self) -> bytes:
        """The bytes that the proof's transcript begins with."""
        return canonical_json(self.as_json())

    def as_json(self) -> dict[str, object]:
        """As it stands in a file; a unit may be beyond 2^53, so it is a text."""
        return {
            "at_least": None if self.at_least is None else str(self.at_least),
            "at_most": None if self.at_most is None else str(self.at_most),
            "equals": as_json(self.equals),
            "number": as_json(self.number),
        }

    def words(self) -> str:
        """What it says of the number, such as ``is at least 0.9``."""
        if self.equals is not None:
            other = self.equals
            where = "" if other.run == self.number.run else f" of run {other.run}"
            return f"equals {other.metric} at {other.path}{where}"
        low, high = (
            None if bound is None else decimal(bound, self.number.scale)
            for bound in (self.at_least, self.at_most)
        )
        if low is None or high is None:
            return f"is at most {high}" if low is None else f"is at least {low}"
        return f"is between {low} and {high}"

    def prove(self, opening: Opening, other: Opening | None = None) -> ProvedStatement:
        """Prove it; ``InputError`` where it is false.

        Args:
            opening: The number's.
            other: That of the number that it equals.
        """
        transcript = Transcript(self.encode())
        if other is not None:
            return ProvedStatement(self, equality.prove(opening, other, transcript))
        shifted = []
        if self.at_least is not None:
            shifted.append(Opening(opening.value - self.at_least, opening.blinding))
        if self.at_most is not None:
            shifted.append(Opening(self.at_most - opening.value, -opening.blinding))
        return ProvedStatement(self, range_proof.prove(shifted, transcript))

    def shifted(self) -> Sequence[Point]:
        """Commitments to how far the number is from each bound, which are in the range."""
        own, points = point(self.number.point), []
        if self.at_least is not None:
            points.append(total([(1, own), (-self.at_least, BASE)]))
        if self.at_most is not None:
            points.append(total([(1, negated(own)), (self.at_most, BASE)]))
        return points


@dataclass(frozen=True, slots=True)
class ProvedStatement:
    """A statement and its proof."""

    statement: Statement
    proof: bytes

    def encode(self) -> bytes:
        """The file's bytes."""
        statement = self.statement.as_json()
        return canonical_json({"v": VERSION, "statement": statement, "proof": self.proof.hex()})

    @classmethod
    def decode(cls, data: bytes) -> ProvedStatement:
        """Read a file; ``FormatError`` where it is none. Nothing is checked yet."""
        fields = Fields.parse_canonical(data, "proof", VERSION, limit=MAX_BYTES)
        fields.only("v", "statement", "proof")
        proof = bytes.fromhex(fields.matching("proof", _PROOF, "65 to 754 bytes in hex"))
        told = fields.object("statement", *names_of(Statement))
        statement = Statement(
            _number(told, "number"),
            told.maybe("at_least", lambda key: _units(told, key)),
            told.maybe("at_most", lambda key: _units(told, key)),
            told.maybe("equals", lambda key: _number(told, key)),
        )
        _check(statement)
        return cls(statement, proof)

    def verify(self) -> None:
        """Check the proof against its own statement; ``FormatError``, ``ProofError``."""
        statement, transcript = self.statement, Transcript(self.statement.encode())
        if statement.equals is not None:
            points = point(statement.number.point), point(statement.equals.point)
            equality.verify(*points, self.proof, transcript)
        else:
            range_proof.verify(statement.shifted(), self.proof, transcript)


def _check(statement: Statement) -> None:
    low, high, other = statement.at_least, statement.at_most, statement.equals
    if (other is None) == (low is None and high is None):
        raise FormatError("proof: statement: expected bounds, or a number that it equals")
    if low is not None and high is not None and low > high:
        raise FormatError("proof: statement.at_least: found more than at_most")
    if other is not None and other.scale != statement.number.scale:
        problem = f"found {other.scale}, expected {statement.number.scale}"
        raise FormatError(f"proof: statement.equals.scale: {problem}")


def _number(fields: Fields, key: str | int) -> Number:
    told = fields.object(key, *names_of(Number))
    return Number(
        run=told.uuid("run"),
        seal=told.matching("seal", _SEAL, "a seal"),
        root=told.hex("root", 32),
        path=told.matching("path", _PATH, "a path of the run tree"),
        record=told.hex("record", 32),
        metric=_metric(told, "metric"),
        scale=told.integer("scale", most=MAX_SCALE),
        point=told.hex("point", POINT_BYTES),
    )


def _metric(fields: Fields, key: str) -> str:
    name = fields.text(key)
    fits = 1 <= len(name) <= MAX_NAME and name.isprintable()
    return name if fits else fields.refuse(key, f"a printable name of up to {MAX_NAME} characters")


def _units(fields: Fields, key: str | int) -> int:
    value = int(fields.matching(key, _UNITS, "a whole number as text"))
    return value if LEAST <= value <= MOST else fields.refuse(key, "64 bits")
