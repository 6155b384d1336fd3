"""What was verified once and cannot change: kept by content, so that it is not made again.

Kept is the outcome of the pure checks of one run, (1) to (7), (10) and (11), and only where
all of them held. What a network answers is never kept, and a failure neither. The file's name
is SHA-256 over everything those checks read: every row of the run, the ledger's root at every
size that a proof is made for, the ledger's key, and this program (the bytes of its own code,
and the versions of what it stands on). So a changed byte, wherever it is, is another name and
is checked anew, and so is everything after an upgrade.

One small file per run below the cache's folder, mode 0600::

    <2 digits>/<62 digits>.json   {"checks": [[number, status, detail]],
                                   "notices": [[check, subject, problem, path]]}
                                  behind a line with its HMAC-SHA256 as hex

The folder lies beside the database, which is what is being verified: whoever can change
the one can change the other, and a copy of a deployment brings its cache along. A file is
therefore believed only with the right HMAC over name and content, under a key of this user
on this machine that lies elsewhere (:func:`key_file`), and that is trusted as this program
is. A file that is damaged, foreign or too large is ignored and written anew.

Bounded: past :data:`MAX_FILES` the files that were not used for longest are deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import platform
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Final
from uuid import UUID

import msgpack

from provenance.evidence.rows import RunRows
from provenance.formats import json_text
from provenance.formats.ledger_tree import LedgerTree
from provenance.formats.note import VerifierKey
from provenance.verify.catalogue import (
    COMPLETE,
    CONTENT,
    HEADS,
    LEDGER,
    PORTABLE,
    PREFIX,
    RECEIPTS,
    RECORDS,
    TREES,
    Status,
)
from provenance.verify.findings import Notes
from provenance.verify.report import VerificationReport

VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 64 * 1024
MAX_FILES: Final = 50_000
"""About 200 MiB on a disk with blocks of 4 KiB."""
_KEEP: Final = 0.9
"""Share of MAX_FILES that is left when some are deleted."""
_TOUCH_S: Final = 86_400.0
"""A file that is read is marked as used at most once in this time."""
PURE: Final = frozenset(
    {RECORDS, TREES, PREFIX, COMPLETE, HEADS, LEDGER, RECEIPTS, CONTENT, PORTABLE}
)
"""Checks that read nothing but the evidence."""
_HELD: Final = frozenset({Status.PASSED.value, Status.SKIPPED.value})
_PACKAGES: Final = ("blake3", "cryptography", "msgpack", "rfc8785")


@dataclass(frozen=True, slots=True)
class Held:
    """What the pure checks of a run came to, all of them having held.

    Attributes:
        checks: Number, ``passed`` or ``skipped``, and the detail.
        notices: Check, subject, problem and path of each.
    """

    checks: tuple[tuple[int, str, str], ...]
    notices: tuple[tuple[int, str, str, str | None], ...]

    @classmethod
    def of(cls, report: VerificationReport) -> Held | None:
        """None where something did not hold, or could not be checked."""
        pure = [each for each in report.checks if each.check.number in PURE]
        if any(each.status.value not in _HELD for each in pure):
            return None
        return cls(
            tuple((each.check.number, each.status.value, each.detail) for each in pure),
            tuple((n.check, n.subject, n.problem, n.path) for n in report.notices),
        )

    def restore(self, notes: Notes) -> None:
        """Write down what the checks wrote down."""
        for number, status, detail in self.checks:
            (notes.skip if status == Status.SKIPPED.value else notes.count)(number, detail)
        for check, subject, problem, path in self.notices:
            notes.notice(check, subject, problem, path)

    def encode(self) -> bytes:
        """The JSON of a cache file."""
        return json.dumps({"checks": self.checks, "notices": self.notices}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Held:
        """Read :meth:`encode`.

        Raises:
            ValueError: Not what it wrote.
        """
        raw = json_text.loads(data)
        if not isinstance(raw, dict) or raw.keys() != {"checks", "notices"}:
            raise ValueError("not an entry")
        held = cls(tuple(map(tuple, raw["checks"])), tuple(map(tuple, raw["notices"])))
        if {number for number, _, _ in held.checks} != PURE:
            raise ValueError("not the checks of this release")
        return held


def content_key(rows: RunRows, tree: LedgerTree, key: VerifierKey | None, program: bytes) -> bytes:
    """SHA-256 over all that the pure checks of a run read, and the program that reads it.

    Every field of every row goes in, whatever fields a release gives them.

    Args:
        program: As :func:`program_digest`.
    """
    digest = hashlib.sha256(b"ml-provenance/verified/v1\0" + program)
    roots = [(size, tree.root(size)) for size in rows.sizes]
    parts = [key.vkey if key else None, roots]
    for part in (*parts, *(getattr(rows, field.name) for field in fields(rows))):
        packed: bytes = msgpack.packb(part, default=_packable)
        digest.update(len(packed).to_bytes(8, "big") + packed)
    return digest.digest()


def _packable(value: object) -> object:
    """A row as a list of its fields, for msgpack."""
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, frozenset):
        return sorted(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _values(type(value))(value)
    raise TypeError(f"{type(value).__name__} has no form")


@cache
def _values(kind: type) -> Callable[[object], object]:
    return attrgetter(*(field.name for field in fields(kind)))


def program_digest() -> bytes | None:
    """SHA-256 over this program: its code, its Python and the packages its checks stand on.

    None where the code does not lie in files: nothing is cached then.
    """
    from importlib import metadata

    home = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(f"{VERSION} {platform.python_version()}".encode())
    try:
        for package in _PACKAGES:
            digest.update(f"\0{package} {metadata.version(package)}".encode())
        for path in sorted(_sources(home)):
            data = path.read_bytes()
            digest.update(f"\0{path.relative_to(home)} {len(data)}\0".encode() + data)
    except (OSError, metadata.PackageNotFoundError):
        return None
    return digest.digest()


def _sources(home: Path) -> Iterator[Path]:
    yield home / "errors.py"
    yield home / "ports.py"
    for folder in ("core", "verify"):
        found = list((home / folder).glob("*.py"))
        if not found:
            raise FileNotFoundError(folder)
        yield from found


def key_file(environment: Mapping[str, str]) -> Path | None:
    """Where this user's cache key lies: below ``XDG_STATE_HOME``, else ``~/.local/state``."""
    state = environment.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state) / "ml-provenance" / "verify-cache.key"
    home = environment.get("HOME", "")
    if os.path.isabs(home):
        return Path(home) / ".local" / "state" / "ml-provenance" / "verify-cache.key"
    return None


class VerifiedCache:
    """The files of one cache. Nothing about them raises: at worst nothing is found or kept.

    Args:
        folder: Made (mode 0700) when something is kept.
        secret: The key of the HMACs, 32 bytes.
        program: As :func:`program_digest`.
    """

    def __init__(
        self, folder: Path, secret: bytes, program: bytes, *, max_files: int = MAX_FILES
    ) -> None:
        self.folder = folder
        self.program = program
        self.hits = 0
        self.misses = 0
        self._secret = secret
        self._max_files = max_files
        self._written = False

    def key(
        self, rows: RunRows, tree: LedgerTree, verifier_key: VerifierKey | None
    ) -> bytes | None:
        """As :func:`content_key`, for this program; None for rows that have no such form."""
        try:
            return content_key(rows, tree, verifier_key, self.program)
        except (TypeError, ValueError, OverflowError):
            return None

    def get(self, key: bytes | None) -> Held | None:
        """What was kept under the key; None where there is nothing to believe."""
        held = None if key is None else self._read(key)
        if held is None:
            self.misses += 1
        else:
            self.hits += 1
        return held

    def put(self, key: bytes, held: Held) -> None:
        """Keep, whole or not at all; under a temporary name until it is whole."""
        data = held.encode()
        data = self._mac(key, data) + b"\n" + data
        if len(data) > MAX_ENTRY_BYTES:
            return
        place = self._place(key)
        temporary = place.with_name(f".{secrets.token_hex(8)}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            place.parent.mkdir(exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
            temporary.replace(place)
            self._written = True
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def counts(self) -> dict[str, int]:
        """For JSON."""
        return {"hits": self.hits, "misses": self.misses}

    def close(self) -> None:
        """Delete what is too much."""
        if self._written:
            self._written = False
            with contextlib.suppress(OSError):
                self._evict()

    def _read(self, key: bytes) -> Held | None:
        place = self._place(key)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(place, flags), "rb") as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_ENTRY_BYTES:
                    return None
                mac, _, data = file.read(MAX_ENTRY_BYTES + 1).partition(b"\n")
            if not hmac.compare_digest(mac, self._mac(key, data)):
                return None
            held = Held.decode(data)
            if time.time() - about.st_mtime > _TOUCH_S:
                os.utime(place)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return held

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.new(self._secret, key + data, hashlib.sha256).hexdigest().encode()

    def _place(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / f"{name[2:]}.json"

    def _evict(self) -> None:
        found: list[tuple[float, str]] = []
        for shelf in os.scandir(self.folder):
            if shelf.is_dir(follow_symlinks=False):
                for file in os.scandir(shelf.path):
                    found.append((file.stat(follow_symlinks=False).st_mtime, file.path))
        if len(found) <= self._max_files:
            return
        found.sort()
        for _, path in found[: len(found) - int(self._max_files * _KEEP)]:
            with contextlib.suppress(OSError):
                os.unlink(path)
