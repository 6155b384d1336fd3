"""Outcomes: what a run came out as when it was verified again, as entries of the ledger.

docs/FORMAT.md, section 10.12. The entry is the SHA-256 of the record. It is no run root: a run root
is the hash of bytes that begin with 01 (section 4), a record begins with ``{``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from provenance.errors import FormatError, ProofError
from provenance.formats.fields import Fields, as_json, names_of
from provenance.formats.json_text import canonical_json

OUTCOME_VERSION: Final = 1
MAX_OUTCOME_BYTES: Final = 4096
WORDS: Final = ("verified", "anchored", "consistent", "failed")
FILE: Final = "ledger/outcomes.json"
MAX_SHOWN: Final = 400
"""Outcomes in one bundle: the newest."""
_MAX_FILE_BYTES: Final = 1024**2
_MAX_TEXT: Final = 200
_PRINTABLE: Final = re.compile(r"[ -~]{1,200}")
_START: Final = b'{"at":'


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verification of a run after its seal.

    Attributes:
        ledger: Verifier key of the ledger.
        root: The run root at its newest seal, 32 bytes.
        number: How many there were of the run with this one, from 1.
        outcome: One of `WORDS`.
        failed: Numbers of the checks that failed, ascending.
        networks: The networks that were looked at, each with the height of the newest block of the
            run's anchors; None where it has none.
        at: Unix time in seconds, by the verifying worker's clock.
        software: Name and version of the program.
    """

    ledger: str
    run: UUID
    root: bytes
    number: int
    outcome: str
    failed: tuple[int, ...]
    networks: Mapping[str, int | None]
    at: int
    software: str

    def digest(self) -> bytes:
        """The entry, 32 bytes."""
        return hashlib.sha256(self.encode()).digest()

    def verify(self, index: int, entry: bytes) -> None:
        """``ProofError`` where this is not of entry ``index``, which is ``entry``."""
        if (digest := self.digest()) != entry:
            found = f"outcome {self.number} of run {self.run} hashes to {digest.hex()}"
            raise ProofError(f"entry {index}: is {entry.hex()}, {found}")

    def encode(self) -> bytes:
        """RFC 8785 JSON."""
        return canonical_json({"v": OUTCOME_VERSION, **as_json(self)})

    @classmethod
    def decode(cls, data: bytes, name: str = "outcome") -> Outcome:
        """Read `encode`, or ``FormatError``; nothing is verified but its form."""
        top = Fields.parse_canonical(data, name, OUTCOME_VERSION, limit=MAX_OUTCOME_BYTES)
        top.only("v", *names_of(cls))
        failed = top.items("failed", lambda items, at: items.integer(at, 1))
        word = top.one_of("outcome", WORDS)
        if list(failed) != sorted(set(failed)):
            top.refuse("failed", "numbers of checks, ascending, each once")
        if bool(failed) != (word == "failed"):
            top.refuse("failed", "checks where the outcome is failed, and no others")
        text = f"1 to {_MAX_TEXT} printable ASCII characters"
        return cls(
            ledger=top.matching("ledger", _PRINTABLE, text),
            run=top.uuid("run"),
            root=top.hex("root", 32),
            number=top.integer("number", 1),
            outcome=word,
            failed=failed,
            networks=top.mapping("networks", lambda of, key: of.maybe(key, of.integer)),
            at=top.integer("at"),
            software=top.matching("software", _PRINTABLE, text),
        )


def is_outcome(data: bytes) -> bool:
    """Whether the bytes are an outcome's rather than an account's: by their first key."""
    return data.startswith(_START)


@dataclass(frozen=True, slots=True)
class ShownOutcome:
    """Entry ``index`` of the ledger, with its inclusion proof under the file's head."""

    index: int
    proof: tuple[bytes, ...]
    record: Outcome


@dataclass(frozen=True, slots=True)
class ShownOutcomes:
    """`FILE` of a bundle: outcomes of its run by index, all under the head of ``size``."""

    size: int
    outcomes: Sequence[ShownOutcome]

    def encode(self) -> bytes:
        """RFC 8785 JSON."""
        items = [
            {
                "index": item.index,
                "proof": [each.hex() for each in item.proof],
                "record": {"v": OUTCOME_VERSION, **as_json(item.record)},
            }
            for item in self.outcomes
        ]
        return canonical_json({"v": OUTCOME_VERSION, "size": self.size, "outcomes": items})

    @classmethod
    def decode(cls, data: bytes, name: str = FILE) -> ShownOutcomes:
        """Read `encode`, or ``FormatError``; nothing is verified but its form."""
        top = Fields.parse_canonical(data, name, OUTCOME_VERSION, limit=_MAX_FILE_BYTES)
        top.only("v", "size", "outcomes")
        items = top.objects("outcomes", "index", "proof", "record")
        if not 1 <= len(items) <= MAX_SHOWN:
            raise FormatError(f"{name}: outcomes: found {len(items)}, expected 1 to {MAX_SHOWN}")
        size = top.integer("size", 1)
        shown = tuple(
            ShownOutcome(
                index=item.integer("index", 0, size - 1),
                proof=item.hashes("proof"),
                record=Outcome.decode(
                    canonical_json(item.object("record").raw), f"{name}: outcomes[{at}].record"
                ),
            )
            for at, item in enumerate(items)
        )
        return cls(size, shown)
