"""What persons sign before a final root is anchored.

docs/FORMAT.md, section 10.10: which head of which ledger goes on which chain, and which runs it
makes final there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Final
from uuid import UUID

from provenance.errors import FormatError
from provenance.formats.approval import (
    PREDICATE_TYPE,
    has_expired,
    open_statement,
    term,
    until_of,
)
from provenance.formats.dsse import Statement, Subject, in_one_form
from provenance.formats.fields import Fields
from provenance.formats.note import VerifierKey
from provenance.formats.record import Json
from provenance.ports.values import CHAIN_FIELDS

ANCHORING: Final = "anchoring"
MAX_RUNS: Final = 4000
"""That one head may make final; then its statement still fits into a file of 1 MiB."""


@dataclass(frozen=True, slots=True)
class Anchoring:
    """That a ledger's head is put on a network, to the end of the day ``until`` (UTC); None: for
    ever.

    Attributes:
        ledger: Name and key of the ledger, as ``name+id+base64`` (C2SP signed-note).
        chain: Which chain of the network: those of :data:`CHAIN_FIELDS` that it has.
        size, root: The head.
        since: The ledger's size up to which final roots were approved before, or need not be.
        runs: Whose final root is among the entries from there on, by index; with the root.
    """

    ledger: str
    network: str
    chain: Mapping[str, Json]
    size: int
    root: bytes
    since: int
    runs: tuple[tuple[UUID, bytes], ...]
    until: date | None = None

    def encode(self) -> bytes:
        """The statement's bytes."""
        subjects = [Subject(str(run), {"mth_sha256": root.hex()}) for run, root in self.runs]
        predicate: dict[str, Json] = {
            "for": ANCHORING,
            "ledger": self.ledger,
            "network": self.network,
            "chain": dict(self.chain),
            "head": {"size": self.size, "root": self.root.hex()},
            "since": self.since,
            "until": None if self.until is None else self.until.isoformat(),
        }
        return Statement(subjects, PREDICATE_TYPE, predicate).encode()

    @classmethod
    def decode(cls, data: bytes, file: str) -> Anchoring:
        """Read what `encode` writes, and nothing else; ``FormatError``."""
        keys = ("ledger", "network", "chain", "head", "since")
        statement, fields = open_statement(data, file, ANCHORING, *keys)
        if len(statement.subjects) > MAX_RUNS:
            raise FormatError(f"{file}: found {len(statement.subjects)} runs, at most {MAX_RUNS}")
        head = fields.object("head", "size", "root")
        fields.object("chain", *CHAIN_FIELDS)
        made = cls(
            ledger=VerifierKey.from_vkey(fields.text("ledger")).vkey,
            network=fields.text("network"),
            chain=fields.mapping("chain", _chain_value),
            size=head.integer("size", 1),
            root=head.hex("root", 32),
            since=fields.integer("since"),
            runs=tuple(_run(subject, file) for subject in statement.subjects),
            until=until_of(fields),
        )
        return in_one_form(made, data, file)

    def problem(self, expected: Anchoring, now: float) -> str | None:
        """Why it does not approve what is to be done now, in one line; None where it does."""
        pairs = (
            ("ledger", self.ledger, expected.ledger),
            ("network", self.network, expected.network),
            ("chain", _shown(self.chain), _shown(expected.chain)),
            ("head", self.head, expected.head),
            ("entries since", self.since, expected.since),
        )
        for name, found, wanted in pairs:
            if found != wanted:
                return f"approves {name} {found}; expected {wanted}"
        if replace(self, until=None) != replace(expected, until=None):
            return "approves other runs than those that the head makes final"
        return f"expired after {self.until}" if has_expired(self.until, now) else None

    @property
    def head(self) -> str:
        """In words, with the first 16 digits of the root."""
        return f"of {self.size} entries, root {self.root.hex()[:16]}"

    @property
    def line(self) -> str:
        """What is signed, in words."""
        runs = ", ".join(str(run) for run, _ in self.runs[:3])
        more = f", and {len(self.runs) - 3} more" if len(self.runs) > 3 else ""
        own = f"of {self.size} entries, root {self.root.hex()}"
        head = f"head {own} of {self.ledger} on {self.network} ({_shown(self.chain)})"
        return f"{head}, which makes final {runs}{more}; {term(self.until)}"


APPROVALS: Final = "approvals/"
"""Folder of the envelopes in a bundle."""


def approval_file(network: str, size: int) -> str:
    """Where the envelope of a head's approval lies in a bundle."""
    return f"{APPROVALS}{network}-{size}.json"


def _run(subject: Subject, file: str) -> tuple[UUID, bytes]:
    named = Fields.of({"name": subject.name}, f"{file}: subject")
    return named.uuid("name"), subject.only_digest("mth_sha256", f"{file}: subject")


def _chain_value(chain: Fields, name: str) -> Json:
    return chain.integer(name) if isinstance(chain.raw[name], int) else chain.text(name)


def _shown(chain: Mapping[str, Json]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(chain.items())) or "of one kind"
