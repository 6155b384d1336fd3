"""``provenance log monitor``: the last head that was seen, against the newest.

The state is that head as a signed note, as any tool for C2SP notes reads it. It is replaced
whole, and only by a head that is proven to continue it: after a fork it stays, so that every
later run says so again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from provenance import files
from provenance.app.log.compare import compare, continues, of_key
from provenance.app.log.sources import Seen, SeenHead, note_text, see_note
from provenance.errors import FormatError, InputError
from provenance.formats.json_text import canonical_json
from provenance.formats.note import MAX_NOTE_BYTES, VerifierKey


@dataclass(frozen=True, slots=True)
class Watched:
    """What a look at a ledger found.

    Attributes:
        old, new: The head that was kept, None at the first look; and the source's newest.
        problem: A fork, or a ledger that shrank; None where there is none.
        proof: What shows it, as a file.
        state: Where the kept head lies.
    """

    exit_code: int
    line: str
    old: SeenHead | None
    new: SeenHead | None
    problem: str | None = None
    proof: bytes | None = None
    state: Path | None = None


def watch(seen: Seen, state: Path, key: VerifierKey) -> Watched:
    """Look at a ledger once, and keep its head in ``state`` where it continues the kept one.

    Raises:
        InputError: The state is none, or cannot be written.
        IntegrityError: The source does not hold in itself.
    """
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(state.parent):
            done = _look(seen, _kept(state), key)
            if done.exit_code == 0 and done.new is not None:
                files.replace(state, done.new.note.encode(), files.PUBLIC)
    except OSError as error:
        where = error.filename or state
        raise InputError(f"{where}: cannot be used: {error.strerror}") from error
    return replace(done, state=state)


def _kept(state: Path) -> Seen | None:
    try:
        with state.open("rb") as file:
            return see_note(str(state), note_text(str(state), file.read(MAX_NOTE_BYTES + 1)))
    except FileNotFoundError:
        return None
    except FormatError as error:
        raise InputError(f"{state}: is no signed head: {error}") from error


def _look(seen: Seen, kept: Seen | None, key: VerifierKey) -> Watched:
    found = compare(kept or seen, seen, [key])
    old = kept.heads[0] if kept is not None else None
    new = max(of_key(seen, key).heads, key=lambda item: item.head.size, default=None)
    if found.result == "fork":
        proof = found.proof.encode() if found.proof is not None else None
        return Watched(1, f"FORK: {found.lines[0]}", old, new, "fork", proof)
    if new is None or found.result == "different":
        return Watched(3, "; ".join(found.lines), old, new)
    if old is not None and new.head.size < old.head.size:
        line = f"SHRUNK: size {old.head.size} was seen, the source has {new.head.size}"
        proof = canonical_json({"v": 1, "shrunk": [old.note, new.note]})
        return Watched(1, line, old, new, "shrunk", proof)
    if found.result == "unknown" or (old is not None and not continues(new, old)):
        return Watched(3, "; ".join(found.lines), old, new)
    line = f"size {new.head.size}, root {new.head.root.hex()}"
    grown = f"size {old.head.size} -> {line}" if old else f"{line}: the first that is kept"
    return Watched(0, grown, old, new)
