"""Equality: two commitments are of one value, by a Schnorr proof of their difference's opening.

FROZEN FORMAT, version 1: docs/FORMAT.md, section 13. The difference of two commitments to one
value is a multiple of the generator ``blinding``; the proof is that of knowing the factor (Schnorr,
CRYPTO '89), made non-interactive::

    proof = R || s        s * generator("blinding") = R + c * (first - second)
"""

from __future__ import annotations

from provenance.errors import InputError, ProofError, TrailingBytesError
from provenance.proofs.bulletproofs.commitment import Opening
from provenance.proofs.bulletproofs.curve import (
    POINT_BYTES,
    SCALAR_BYTES,
    Point,
    Reader,
    are_equal,
    encoded,
    generator,
    total,
)
from provenance.proofs.bulletproofs.transcript import Transcript

PROOF_BYTES = POINT_BYTES + SCALAR_BYTES


def prove(first: Opening, second: Opening, transcript: Transcript) -> bytes:
    """Prove that two commitments are of one value; ``InputError`` where they are not."""
    if first.value != second.value:
        raise InputError("the values differ, so there is no proof")
    secrets = [first.value, first.blinding, second.value, second.blinding]
    nonce = next(transcript.nonces(secrets))
    commitment = total([(nonce, generator("blinding"))])
    c = _challenge(transcript, first.commitment, second.commitment, commitment)
    return commitment.format() + encoded([nonce + c * (first.blinding - second.blinding)])


def verify(first: Point, second: Point, proof: bytes, transcript: Transcript) -> None:
    """Check a proof; ``FormatError`` where it is none, ``ProofError`` where it does not hold."""
    if len(proof) > PROOF_BYTES:
        raise TrailingBytesError("proof: bytes after its last field")
    read = Reader(proof)
    (commitment,), (s,) = read.points(1), read.scalars(1)
    c = _challenge(transcript, first, second, commitment)
    terms = [(s, generator("blinding")), (-c, first), (c, second)]
    if not are_equal(terms, commitment):
        raise ProofError("equality proof: the difference does not open to zero")


def _challenge(transcript: Transcript, first: Point, second: Point, commitment: Point) -> int:
    if first.format() == second.format():
        raise ProofError("equality proof: both commitments are the same one")
    transcript.append("V", first.format())
    transcript.append("V", second.format())
    transcript.append("R", commitment.format())
    return transcript.challenge("c")
