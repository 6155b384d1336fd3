"""Records: one fact about a run as canonical JSON bytes.

docs/FORMAT.md, section 1: RFC 8785 (JSON Canonicalization Scheme) of ::

    {"body": {...}, "epoch": int|null, "kind": str, "producer": 32 hex, "rank": int,
     "run": UUID, "salt": 64 hex, "seq": int, "ts": "YYYY-MM-DDTHH:MM:SS.ffffffZ", "v": 1}

Its digest is the SHA-256 of those bytes. ``salt`` keeps a withheld body from being guessed from
its digest, and is derived, so that shipping twice gives the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from numbers import Real
from uuid import UUID

from provenance.errors import FormatError, InputError, TooLargeError
from provenance.formats.fields import Fields, names_of
from provenance.formats.json_text import MAX_SAFE_INTEGER as MAX_SAFE_INTEGER
from provenance.formats.json_text import canonical_json as canonical_json

RECORD_VERSION = 1
MAX_RECORD_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32
_TIMESTAMP = re.compile(
    "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
)

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class Kind(StrEnum):
    """What a record states. All but the control records are leaves of the run tree."""

    DATA_TRAIN = "data.train"
    DATA_TEST = "data.test"
    ARCHITECTURE = "model.architecture"
    WEIGHTS = "model.weights"
    CONFIG = "config"
    STATE = "state"
    METRICS = "metrics"
    PRIVACY = "privacy"
    RESULTS = "results"
    STEPS = "steps"
    """Metrics of many steps, which belong to no epoch."""
    ARTIFACT = "artifact"
    """A file that the run made or took, by its digest."""
    NOTE = "note"
    """What a person added after the start: a text, tags."""
    SEED = "seed"
    """A seed that the run drew, and the blocks that it was drawn from."""
    HOST = "host"
    """What attests the host of a process, at its start and end."""
    SEAL = "run.seal"
    """Control: compute the run root now; body ``{"phase", "epoch", "anchor"}``."""
    RUN_END = "run.end"
    """Control: this producer is done; body ``{"events", "reason", "state"}``: its events before
    this one, and how its process ended."""
    GAP = "gap"
    """Control: events were dropped; body ``{"dropped", "reason"}``."""

    @property
    def is_leaf(self) -> bool:
        """True where the record is a leaf of the run tree."""
        return self not in CONTROL_KINDS

    @property
    def is_epoch(self) -> bool:
        """True where the record belongs to an epoch."""
        return self in EPOCH_KINDS


CONTROL_KINDS = frozenset({Kind.SEAL, Kind.RUN_END, Kind.GAP})
EPOCH_KINDS = frozenset({Kind.STATE, Kind.METRICS, Kind.PRIVACY})


END_STATES = ("finished", "pruned", "failed", "interrupted", "closed")
"""How a ``run.end`` says that its process ended."""


class Phase(StrEnum):
    """When a run root is taken."""

    BEFORE = "before"
    CHECKPOINT = "checkpoint"
    AFTER = "after"


def normalise(value: object, where: str = "body", depth: int = 0) -> Json:
    """Map Python values to JSON that RFC 8785 can serialise; it has no NaN and no large integers.

    A non-finite number becomes ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, an integer beyond
    2**53 a decimal string, a member of an enum its value, what has a ``tolist()`` or ``item()``
    (arrays and scalars of NumPy, torch and JAX) lists and numbers, another real number the nearest
    float; a masked value is null. Raises InputError: a value without a JSON form, or nesting deeper
    than 32; names its path."""
    if depth > MAX_DEPTH:
        raise InputError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):  # before text and numbers, whose subclass it may be
        return normalise(value.value, where, depth + 1)
    if isinstance(value, str):
        return str.__str__(value).encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int):
        number = int.__int__(value)
        return number if abs(number) <= MAX_SAFE_INTEGER else _digits(number, where)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return float(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        result: dict[str, Json] = {}
        for key, inner in _items(value, where):
            key = key.value if isinstance(key, Enum) else key
            if hasattr(key, "item") and hasattr(key, "dtype"):  # a scalar of NumPy or torch
                key = normalise(key, where)
            if not isinstance(key, str | int | float | bool) and key is not None:
                raise InputError(f"{where}: key of type {type(key).__name__}, expected a string")
            name = normalise(_digits(key, where) if isinstance(key, int) else str(key))
            assert isinstance(name, str)
            if name in result:
                raise InputError(f"{where}: two keys that both read {name!r}")
            result[name] = normalise(inner, f"{where}.{name}", depth + 1)
        return result
    if isinstance(value, list | tuple):
        return [normalise(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((normalise(v, where, depth + 1) for v in value), key=repr)
    for method in ("tolist", "item"):
        convert = getattr(value, method, None)
        if callable(convert):
            plain = value
            with suppress(Exception):  # what a foreign object raises is anything
                plain = convert()
            if type(plain) is not type(value):
                return normalise(plain, where, depth + 1)
    if isinstance(value, Real | Decimal):  # such as a Fraction, or NumPy's longdouble
        with suppress(OverflowError, ValueError):
            return normalise(float(value), where, depth + 1)
    raise InputError(
        f"{where}: found a value of type {type(value).__name__}, "
        "expected numbers, strings, lists or mappings"
    )


def _items(value: Mapping[object, object], where: str) -> list[tuple[object, object]]:
    try:
        return list(value.items())
    # As above: one of OmegaConf raises where a value is missing.
    except Exception as error:
        found = f"a {type(value).__name__} that cannot be read ({type(error).__name__})"
        raise InputError(f"{where}: found {found}") from error


def _digits(value: int, where: str) -> str:
    try:
        return str(value)
    except ValueError:  # sys.get_int_max_str_digits()
        raise InputError(f"{where}: a whole number of too many digits") from None


def timestamp(ns: int) -> str:
    """RFC 3339 UTC text with microseconds of a Unix time in nanoseconds."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def check_timestamp(text: str, what: str) -> None:
    """Refuse what :func:`timestamp` never writes, with ``FormatError``: texts are compared, so
    their width counts."""
    try:
        if not _TIMESTAMP.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError:
        expected = "YYYY-MM-DDTHH:MM:SS.ffffffZ"
        raise FormatError(f"{what}: ts {text[:40]!r}, expected {expected}") from None


def salt_for(salt_key: bytes, producer: bytes, seq: int) -> bytes:
    """``HMAC-SHA256(salt_key, producer || seq)``, 32 bytes; ``seq`` as 8 bytes big-endian."""
    return hmac.new(salt_key, producer + seq.to_bytes(8, "big"), hashlib.sha256).digest()


@dataclass(frozen=True, slots=True)
class Record:
    """One fact about a run: ``producer`` are 16 bytes that name the emitting process, ``seq`` the
    position in its sequence, ``salt`` 32 bytes, ``body`` holds numbers only as RFC 8785 can write
    them."""

    run: UUID
    kind: Kind
    epoch: int | None
    rank: int
    producer: bytes
    seq: int
    ts: str
    salt: bytes
    body: dict[str, Json]

    def encode(self) -> bytes:
        """Canonical bytes; ``TooLargeError`` over 8 MiB, ``InputError`` for a body that has
        none."""
        data = canonical_json(
            {
                "v": RECORD_VERSION,
                "run": str(self.run),
                "kind": self.kind.value,
                "epoch": self.epoch,
                "rank": self.rank,
                "producer": self.producer.hex(),
                "seq": self.seq,
                "ts": self.ts,
                "salt": self.salt.hex(),
                "body": self.body,
            }
        )
        if len(data) > MAX_RECORD_BYTES:
            raise TooLargeError(f"record of {len(data)} bytes, at most {MAX_RECORD_BYTES}")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Read canonical bytes; ``FormatError`` where they are not, or a field is missing, unknown
        or of another type."""
        fields = Fields.parse_canonical(data, "record", RECORD_VERSION, limit=MAX_RECORD_BYTES)
        fields.only(*_KEYS)
        check_timestamp(fields.text("ts"), "record")
        return cls(
            run=fields.uuid("run"),
            kind=fields.enum("kind", Kind),
            epoch=fields.maybe("epoch", fields.integer),
            rank=fields.integer("rank"),
            producer=fields.hex("producer", 16),
            seq=fields.integer("seq"),
            ts=fields.text("ts"),
            salt=fields.hex("salt", 32),
            body=dict(fields.object("body").raw),
        )

    @property
    def order(self) -> tuple[str, str, int]:
        """Tie-break among records of one slot and rank: ``(ts, producer, seq)``."""
        return (self.ts, self.producer.hex(), self.seq)


_KEYS = ("v", *names_of(Record))


def record_digest(data: bytes) -> bytes:
    """SHA-256 of a record's canonical bytes, 32 bytes: what enters the run tree."""
    return hashlib.sha256(data).digest()
