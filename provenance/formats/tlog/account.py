"""Accounts: which run, and which of its seals, an entry of the ledger is of.

docs/FORMAT.md, section 10.7. An entry is 32 bytes, a run root (section 5). An account opens it: the
statement of one producer, which names the run, is under ``producers``, and that is the last of the
four entries of the root. Where the last record that the statement covers is the run's ``run.seal``
or ``run.end``, the account brings it too, so that how the run ended needs nobody's word. No record
that a bundle may withhold is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from provenance.errors import ProofError, TrailingBytesError, TruncatedError
from provenance.formats.fields import Fields, as_json
from provenance.formats.json_text import canonical_json
from provenance.formats.merkle import apply_steps, path_steps
from provenance.formats.producers.statement import chain_on, statement_digest
from provenance.formats.record import RECORD_VERSION, Kind, Phase, Record, record_digest
from provenance.formats.run_tree.selection import end_state
from provenance.formats.run_tree.tree import ROOT_CHILDREN
from provenance.formats.tlog.outcome import Outcome, is_outcome

ACCOUNT_VERSION: Final = 1
MAX_ACCOUNT_BYTES: Final = 65_535
_KEYS: Final = ("v", "run", "phase", "epoch", "producer", "count", "chain", "place", "tops", "last")
_LENGTH_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Account:
    """What one entry of the ledger is of.

    Attributes:
        producer: 16 bytes; its statement covers its first ``count`` records.
        chain: Of these records, 32 bytes; where ``last`` is here, of those before it.
        index, size, path: Where the statement stands among those under ``producers``, with its
            inclusion proof.
        tops: The inclusion proof of ``producers`` under the run root, 2 hashes.
        last: The last record that is covered, where it is the mark of this seal or a ``run.end``.
    """

    run: UUID
    phase: Phase
    epoch: int | None
    producer: bytes
    count: int
    chain: bytes
    index: int
    size: int
    path: tuple[bytes, ...]
    tops: tuple[bytes, ...]
    last: Record | None = None

    @property
    def end(self) -> str | None:
        """How the producer's process ended, as its ``run.end`` says; None without one."""
        return end_state(self.last) if self.last and self.last.kind is Kind.RUN_END else None

    def root(self) -> bytes:
        """The entry that this is the account of, 32 bytes; ``ProofError`` where it leads to none,
        or its last record is of another run, place or seal."""
        chain = self.chain
        if self.last is not None:
            self._check_last(self.last)
            chain = chain_on(chain, [record_digest(self.last.encode())])
        statement = statement_digest(self.run, self.producer, self.count, chain)
        producers = apply_steps(statement, path_steps(self.index, self.size, self.path))
        at = ROOT_CHILDREN.index("producers")
        return apply_steps(producers, path_steps(at, len(ROOT_CHILDREN), self.tops))

    def verify(self, index: int, entry: bytes) -> None:
        """``ProofError`` where this is not of entry ``index``, which is ``entry``."""
        root = self.root()
        if root != entry:
            found = f"leads to {root.hex()}, as a seal of run {self.run}"
            raise ProofError(f"entry {index}: is {entry.hex()}, its account {found}")

    def _check_last(self, last: Record) -> None:
        told = (last.run, last.producer, last.seq)
        if told != (self.run, self.producer, self.count - 1):
            raise ProofError(f"account of run {self.run}: its last record is of another place")
        sealed = (last.body.get("phase"), last.body.get("epoch"))
        ended = last.kind is Kind.RUN_END and self.phase is Phase.AFTER
        if not ended and (last.kind is not Kind.SEAL or sealed != (self.phase.value, self.epoch)):
            raise ProofError(f"account of run {self.run}: its last record is not of its seal")

    def encode(self) -> bytes:
        """RFC 8785 JSON."""
        own = as_json(self)
        place = {"index": own.pop("index"), "size": own.pop("size"), "proof": own.pop("path")}
        if self.last is not None:
            own["last"]["v"] = RECORD_VERSION
        return canonical_json({"v": ACCOUNT_VERSION, **own, "place": place})

    @classmethod
    def decode(cls, data: bytes, name: str = "account") -> Account:
        """Read `encode`, or ``FormatError``; nothing is verified but its form."""
        top = Fields.parse_canonical(data, name, ACCOUNT_VERSION, limit=MAX_ACCOUNT_BYTES)
        top.only(*_KEYS)
        place = top.object("place", "index", "size", "proof")
        last = top.maybe("last", lambda key: top.object(key).raw)
        phase = top.enum("phase", Phase)
        epoch = top.maybe("epoch", top.integer)
        if (phase is Phase.CHECKPOINT) != (epoch is not None):
            top.refuse("epoch", "a whole number at a checkpoint, else null")
        return cls(
            run=top.uuid("run"),
            phase=phase,
            epoch=epoch,
            producer=top.hex("producer", 16),
            count=top.integer("count", 1),
            chain=top.hex("chain", 32),
            index=place.integer("index"),
            size=place.integer("size", 1),
            path=place.hashes("proof"),
            tops=top.hashes("tops"),
            last=None if last is None else Record.decode(canonical_json(last)),
        )


def pack(accounts: Sequence[Account | Outcome | None]) -> bytes:
    """The file of a tile's accounts, ``u16be length || account`` each, for an outcome its record;
    length 0 where an entry has none."""
    parts = [b"" if account is None else account.encode() for account in accounts]
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)


def unpack(data: bytes, width: int, name: str) -> list[Account | Outcome | None]:
    """Read `pack` of so many entries, or ``FormatError`` naming the file."""
    accounts: list[Account | Outcome | None] = []
    at = 0
    for number in range(width):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "big")
        if len(data) < max(start, end):
            raise TruncatedError(f"{name}: ends in account {number} of {width}")
        part = data[start:end]
        kind = Outcome if is_outcome(part) else Account
        accounts.append(kind.decode(part, f"{name}: account {number}") if part else None)
        at = end
    if at != len(data):
        raise TrailingBytesError(f"{name}: {len(data) - at} bytes follow its {width} accounts")
    return accounts
