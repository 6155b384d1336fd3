"""Random changes of JSON values, of database rows and of stream entries, each with a name."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgpack

from provenance.bundle.index import dump
from provenance.errors import ProvenanceError
from provenance.formats.json_text import canonical_json

FLAGS = ("anchor", "kept")
Place = tuple[Any, ...]
LISTS = ("manifest.json", "SHA256SUMS")
INDEXES = ("manifest.json", "run.json")
_RAW = re.compile(r'"@raw:([^"]*)"')
_TWICE = re.compile(r'"@twice:')


@dataclass(frozen=True)
class Mutation:
    """What was done to which field; ``place`` has numbers as ``*``."""

    how: str
    place: str

    def __str__(self) -> str:
        return f"{self.how} {self.place}"


# --- JSON -----------------------------------------------------------------------------------


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every field and every item."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


def inner_of(document: Any, place: Place) -> Any:
    for part in place:
        document = document[part]
    return document


def name_of(place: Place) -> str:
    """Numbers, and the hex of a producer, stand for any."""
    return ".".join(
        "*" if isinstance(part, int) or re.fullmatch("[0-9a-f]{32}", part) else part
        for part in place
    )


def other(value: Any, chance: Random) -> Any:
    """A value of the same type; of a list or an object, without one item."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + chance.choice((1, -1, 1000))
    if isinstance(value, str) and value:
        at = chance.randrange(len(value))
        digit = chance.choice([c for c in "0123456789abcdef" if c != value[at]])
        return value[:at] + digit + value[at + 1 :]
    if isinstance(value, list) and value:
        gone = chance.randrange(len(value))
        return [item for at, item in enumerate(value) if at != gone]
    if isinstance(value, dict) and value:
        gone = chance.choice(sorted(value))
        return {key: item for key, item in value.items() if key != gone}
    return 1 if value is None else None


def confused(value: Any, chance: Random) -> Any:
    """What a loose reader takes for the same, or what it stumbles over."""
    odd: list[Any] = [None, [], {}, "", -1, 2**63, 2**70, "@raw:1e400", "@raw:-0", "@raw:NaN", 0]
    if isinstance(value, bool):
        odd += [int(value), str(value).lower()]
    elif isinstance(value, int):
        odd += [float(value), f"@raw:{value}e0", str(value), f"@raw:{value}.0", bool(value)]
    elif isinstance(value, str):
        odd += [value.upper(), value + " ", value + "\n", value + "\0", value[:-1], [value]]
        odd += [value.replace("a", "\N{CYRILLIC SMALL LETTER A}"), value.replace("-", "")]
    elif isinstance(value, list):
        odd += [value[::-1], value + value[-1:], {str(at): each for at, each in enumerate(value)}]
    elif isinstance(value, dict):
        odd += [list(value.values()), {**value, "more": 1}]
    return chance.choice(odd)


def written(name: str, document: Any) -> bytes:
    """As the program writes the file, as far as it can."""
    if name in INDEXES:
        text = dump(document).decode()
    else:
        try:
            text = canonical_json(document).decode()
        except (ProvenanceError, ValueError):
            text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    text = _RAW.sub(lambda found: found[1], text)
    return _TWICE.sub('"', text).encode("utf-8", "replace")


# --- database rows --------------------------------------------------------------------------


def changed_rows(database: Path, donor: Path, chance: Random) -> Mutation | None:
    """One change of one row, past every constraint; None where it came to nothing."""
    connection = sqlite3.connect(database)
    try:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        made = _change_row(connection, donor, chance)
        connection.commit()
    except sqlite3.IntegrityError:  # a primary key, or NOT NULL
        return None
    finally:
        connection.close()
    return made


def _change_row(connection: sqlite3.Connection, donor: Path, chance: Random) -> Mutation | None:
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        if name not in ("alembic_version", "sqlite_sequence")
        and connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
    ]
    table = chance.choice(tables)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    rows = [row[0] for row in connection.execute(f"SELECT rowid FROM {table}")]
    row, column, second = chance.choice(rows), chance.choice(columns), chance.choice(rows)
    place = f"{table}.{column}"

    def read(at: int, key: str = column) -> Any:
        found = connection.execute(f"SELECT {key} FROM {table} WHERE rowid=?", (at,))
        return found.fetchone()[0]

    def write(at: int, value: Any) -> bool:
        if value == (old := read(at)) and type(value) is type(old):
            return False
        connection.execute(f"UPDATE {table} SET {column}=? WHERE rowid=?", (value, at))
        return True

    how = chance.choices(
        ("edit", "delete row", "swap", "copy", "double row", "null", "splice", "confuse"),
        (30, 10, 15, 15, 5, 5, 15, 5),
    )[0]
    if how == "delete row":
        connection.execute(f"DELETE FROM {table} WHERE rowid=?", (row,))
        return Mutation(how, table)
    if how == "double row":
        key = chance.choice(columns)
        names = ", ".join(columns)
        given = ", ".join("?" if name == key else name for name in columns)
        value = other_cell(read(row, key), chance)
        connection.execute(
            f"INSERT INTO {table} ({names}) SELECT {given} FROM {table} WHERE rowid=?", (value, row)
        )
        return Mutation(how, f"{table}.{key}")
    if how == "splice":
        with sqlite3.connect(donor) as foreign:
            wanted = f"SELECT {column} FROM {table} WHERE rowid=?"
            found = foreign.execute(wanted, (row,)).fetchone()
        foreign.close()
        return Mutation(how, place) if found and write(row, found[0]) else None
    if how == "swap":
        mine, others = read(row), read(second)
        return Mutation(how, place) if write(row, others) and write(second, mine) else None
    made: dict[str, Callable[[], Any]] = {
        "edit": lambda: 1 - read(row) if column in FLAGS else other_cell(read(row), chance),
        "copy": lambda: read(second),
        "null": lambda: None,
        "confuse": lambda: chance.choice((b"\0", "x", -1, 1.5, 2**62, "", "{}", "[]")),
    }
    before = read(row)
    if not write(row, made[how]()):
        return None
    if column == "document":
        place = _changed_field(before, read(row)) or place
    return Mutation(how, place)


def _changed_field(before: Any, after: Any) -> str | None:
    """The name of the first field of a receipt that is not what it was."""
    try:
        old, new = json.loads(before), json.loads(after)
        fields = sorted(places(old), key=len, reverse=True)
        return next(f"receipts/*.json: {name_of(at)}" for at in fields if not _has(new, at, old))
    except (ValueError, TypeError, StopIteration):
        return None


def _has(document: Any, place: Place, wanted: Any) -> bool:
    try:
        return bool(inner_of(document, place) == inner_of(wanted, place))
    except (KeyError, IndexError, TypeError):
        return False


def other_cell(value: Any, chance: Random) -> Any:
    if isinstance(value, bytes) and value:
        at = chance.randrange(len(value))
        return value[:at] + bytes([value[at] ^ 1 << chance.randrange(8)]) + value[at + 1 :]
    return other(value, chance)


# --- stream entries -------------------------------------------------------------------------


def changed_entry(
    batches: list[bytes], donor: list[bytes], chance: Random
) -> tuple[Mutation, bytes]:
    """One batch as somebody changes it who can write to Redis."""
    at = chance.randrange(len(batches))
    payload, fields = batches[at], _opened(batches[at])
    names = ("certificate", "identity", "first", "chain", "records", "signature")
    which = chance.randrange(len(names))
    how = chance.choice(("edit", "from a neighbour", "from elsewhere", "flip", "cut", "records"))
    if how == "flip":
        changed = bytearray(payload)
        bit = chance.randrange(8 * len(changed))
        changed[bit // 8] ^= 1 << bit % 8
        return Mutation(how, "batch"), bytes(changed)
    if how == "cut":
        return Mutation(how, "batch"), payload[: chance.randrange(len(payload))]
    if how == "records":
        records = list(fields[4])
        way = chance.choice(("swap", "double", "delete", "edit"))
        one, two = chance.randrange(len(records)), chance.randrange(len(records))
        if way == "swap":
            records[one], records[two] = records[two], records[one]
        elif way == "double":
            records.insert(two, records[one])
        elif way == "delete":
            del records[one]
        else:
            records[one] = other_cell(records[one], chance)
        fields[4] = records
        return Mutation(way, "batch.records"), _packed(fields)
    if how == "edit":
        old = fields[which]
        fields[which] = other_cell(old, chance) if chance.random() < 0.7 else confused(None, chance)
    else:
        source = donor[at] if how == "from elsewhere" else chance.choice(batches)
        fields[which] = _opened(source)[which]
    return Mutation(how, f"batch.{names[which]}"), _packed(fields)


def _opened(payload: bytes) -> list[Any]:
    found: list[Any] = msgpack.unpackb(payload[5:])
    return found


def _packed(fields: list[Any]) -> bytes:
    fields = [None if isinstance(f, int) and f >= 2**64 else f for f in fields]
    packed: bytes = msgpack.packb(fields)
    return b"MLPB\x01" + packed
