"""A roll: all runs of a ledger up to a head, each with its entries; as a file of a bundle too.

FORMAT, version 1: docs/FORMAT.md, section 10.8. The file has every entry of the ledger, so that the
head's root follows from it: no run that has an entry can be left out. What it says of a run beside
its entries is the database's word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from provenance.errors import FormatError, ProofError
from provenance.formats import merkle
from provenance.formats.fields import Fields, as_json, names_of
from provenance.formats.json_text import canonical_json
from provenance.formats.record import END_STATES, Json, Kind, Record

VERSION: Final = 1
FILE: Final = "ledger/runs.json"
MAX_BYTES: Final = 1024**2
SILENT: Final = "silent"
"""Of a run without an end in the ledger, for whoever knows the ledger alone."""
STATES: Final = (*END_STATES, "unknown", "running", "lost", SILENT)
_SEED: Final = re.compile("(?:.*[_.-])?seeds?", re.IGNORECASE)
_MAX_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class RolledRun:
    """A run in a roll.

    Attributes:
        entries: Its indexes in the ledger, ascending; none where it was never sealed.
        state: One of `STATES`.
        data: SHA-256 of the roots of its training data, 32 bytes; None where it recorded none.
        config: SHA-256 of its training configuration without seeds (`config_digest`).
        seeds: What its configuration states as seeds, by path.
        results: A few numbers of its results, or of its newest metrics.
        outcomes: Indexes of the entries that say how it came out when it was verified again,
            ascending.
    """

    run: UUID
    entries: tuple[int, ...]
    state: str
    name: str | None = None
    data: bytes | None = None
    config: bytes | None = None
    seeds: Mapping[str, Json] = field(default_factory=dict)
    results: Mapping[str, Json] = field(default_factory=dict)
    outcomes: tuple[int, ...] = ()

    @property
    def order(self) -> tuple[float, int]:
        """Sorts runs as they began: by their first entry; those without one come last."""
        return (self.entries[0] if self.entries else float("inf"), self.run.int)


@dataclass(frozen=True, slots=True)
class Roll:
    """All runs of a ledger.

    Attributes:
        size: Of the ledger, in entries.
        roots: The entries, 32 bytes each; none where only the database's word is asked for.
        runs: As they began.
        unaccounted: Entries that nothing says the run of.
    """

    size: int
    roots: tuple[bytes, ...]
    runs: tuple[RolledRun, ...]
    unaccounted: tuple[int, ...] = ()

    def check(self, root: bytes) -> None:
        """``ProofError`` where these are not the entries of the ledger with that root, or one is of
        no run, or of two."""
        if merkle.root(self.roots) != root:
            found = merkle.root(self.roots).hex()
            raise ProofError(
                f"its {self.size} entries give root {found}, the head's is {root.hex()}"
            )
        owner: dict[int, UUID] = {}
        for item in self.runs:
            for index in (*item.entries, *item.outcomes):
                if (other := owner.setdefault(index, item.run)) != item.run:
                    raise ProofError(f"entry {index} is of run {other} and of run {item.run}")
        for index in range(self.size):
            if index not in owner:
                raise ProofError(f"entry {index} is of no run")

    def encode(self) -> bytes:
        """RFC 8785 JSON."""
        runs = [as_json(item) for item in self.runs]
        entries = [root.hex() for root in self.roots]
        return canonical_json({"v": VERSION, "size": self.size, "entries": entries, "runs": runs})

    @classmethod
    def decode(cls, data: bytes, name: str = FILE) -> Roll:
        """Read `encode`, or ``FormatError``; nothing is verified but its form."""
        top = Fields.parse_canonical(data, name, VERSION, limit=MAX_BYTES)
        top.only("v", "size", "entries", "runs")
        size, roots = top.integer("size"), top.hashes("entries")
        if len(roots) != size:
            raise FormatError(f"{name}: entries: found {len(roots)}, expected {size}, its size")
        runs = tuple(_read(item, size) for item in top.objects("runs", *names_of(RolledRun)))
        if len({item.run for item in runs}) != len(runs):
            raise FormatError(f"{name}: runs: found a run twice, expected each once")
        return cls(size, roots, runs)


def _read(item: Fields, size: int) -> RolledRun:
    return RolledRun(
        run=item.uuid("run"),
        entries=_indexes(item, "entries", size),
        state=item.one_of("state", STATES),
        name=item.maybe("name", item.text),
        data=item.maybe("data", lambda key: item.hex(key, 32)),
        config=item.maybe("config", lambda key: item.hex(key, 32)),
        seeds=item.mapping("seeds", _scalar),
        results=item.mapping("results", _scalar),
        outcomes=_indexes(item, "outcomes", size),
    )


def _indexes(item: Fields, key: str, size: int) -> tuple[int, ...]:
    found = item.items(key, lambda items, at: items.integer(at, 0, size - 1))
    if list(found) != sorted(set(found)):
        item.refuse(key, "indexes in ascending order, each once")
    return found


def _scalar(fields: Fields, key: str) -> Json:
    value: Any = fields.raw[key]
    if isinstance(value, dict | list) or (isinstance(value, str) and len(value) > _MAX_TEXT):
        fields.refuse(key, f"a number, a text of at most {_MAX_TEXT} characters, or null")
    return value  # type: ignore[no-any-return]


def config_digest(training: Json) -> bytes:
    """SHA-256 of the RFC 8785 form of a training configuration without its seeds, so that runs that
    differ in seeds alone have one."""
    return hashlib.sha256(canonical_json(_without_seeds(training))).digest()


def data_digest(records: Iterable[Record]) -> bytes | None:
    """SHA-256 of the RFC 8785 form of the roots that ``data.train`` records state, sorted; None
    where there is none."""
    roots = sorted(str(r.body.get("root")) for r in records if r.kind is Kind.DATA_TRAIN)
    return hashlib.sha256(canonical_json(roots)).digest() if roots else None


def with_records(item: RolledRun, records: Sequence[Record]) -> RolledRun:
    """A run with what its ``config`` and ``data.train`` records say: data, configuration, seeds."""
    training = next((r.body.get("training") for r in records if r.kind is Kind.CONFIG), None)
    if training is not None:
        item = replace(item, config=config_digest(training), seeds=seeds_of(training))
    return replace(item, data=data_digest(records))


def seeds_of(training: Json, path: str = "") -> dict[str, Json]:
    """The values of a configuration whose key is ``seed`` or ``seeds``, or ends so behind ``_``,
    ``-`` or ``.``; by path."""
    found: dict[str, Json] = {}
    for key, value in training.items() if isinstance(training, dict) else ():
        where = f"{path}.{key}" if path else key
        if _SEED.fullmatch(key):
            scalar = value if not isinstance(value, dict | list) else canonical_json(value).decode()
            found[where] = scalar[:_MAX_TEXT] if isinstance(scalar, str) else scalar
        else:
            found |= seeds_of(value, where)
    return found


def _without_seeds(value: Json) -> Json:
    if not isinstance(value, dict):
        return value
    return {k: _without_seeds(v) for k, v in value.items() if not _SEED.fullmatch(k)}
