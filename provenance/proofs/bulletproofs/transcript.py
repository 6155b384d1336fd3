"""The transcript: a hash of all that was said, which takes the verifier's place (Fiat-Shamir).

FROZEN FORMAT, version 1: docs/FORMAT.md, section 13::

    T(0)      = SHA-256("ml-provenance/transcript/v1" 00 || statement)
    append    : T = SHA-256(T || u8 length of label || label || u32be length of data || data)
    challenge : append(label, nothing); SHA-512(T), big-endian, mod N
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from typing import Final

from provenance.errors import ProofError
from provenance.proofs.bulletproofs.curve import N, encoded

_CONTEXT: Final = b"ml-provenance/transcript/v1\0"
_NONCE: Final = b"ml-provenance/nonce/v1\0"


class Transcript:
    """What prover and verifier both have said so far; begins with the statement's bytes."""

    def __init__(self, statement: bytes) -> None:
        self._state = hashlib.sha256(_CONTEXT + statement).digest()

    def append(self, label: str, data: bytes) -> None:
        """Take a message in."""
        name = label.encode()
        head = bytes([len(name)]) + name + len(data).to_bytes(4, "big")
        self._state = hashlib.sha256(self._state + head + data).digest()

    def challenge(self, label: str) -> int:
        """A scalar that nobody chose, from all before it; never zero."""
        self.append(label, b"")
        scalar = int.from_bytes(hashlib.sha512(self._state).digest(), "big") % N
        if not scalar:
            raise ProofError("a challenge is zero")
        return scalar

    def nonces(self, secrets: Iterable[int]) -> Iterator[int]:
        """The prover's random scalars, none zero, derived in the manner of RFC 6979 from what it
        keeps and the transcript: proving twice gives the same bytes, and no generator of random
        numbers can fail."""
        key = hashlib.sha512(_NONCE + encoded(secrets) + self._state).digest()
        counter = 0
        while True:
            block = hmac.new(key, counter.to_bytes(4, "big"), hashlib.sha512).digest()
            yield int.from_bytes(block, "big") % (N - 1) + 1
            counter += 1
