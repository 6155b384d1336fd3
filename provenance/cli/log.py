"""``provenance log``: the ledger as a transparency log."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from provenance import files
from provenance.app.log import compare as comparing
from provenance.app.log import export as log_export
from provenance.app.log import monitor as watching
from provenance.app.log import proofs as log
from provenance.app.log import sources
from provenance.bootstrap import reading, sending
from provenance.cli.output import err, out, print_json, print_text, settings_of
from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    IntegrityError,
    NetworkError,
    TooLargeError,
    UnavailableError,
    UnknownRunError,
)
from provenance.evidence.from_database import find_run
from provenance.evidence.run_evidence import seal_label
from provenance.formats.checkpoint import Head
from provenance.formats.cosignature import WitnessKey
from provenance.formats.fields import as_json
from provenance.formats.note import MAX_NOTE_BYTES, VerifierKey, encode_base64
from provenance.ports.store import LedgerStore
from provenance.settings import Settings


def export(arguments: argparse.Namespace) -> int:
    """Write the ledger as tlog-tiles; a folder of an earlier export is added to."""
    settings = settings_of(arguments, secrets=False)
    folder = Path(arguments.folder)
    with _store(settings) as store, _progress() as progress:
        done = log_export.export(store, folder, reading.ledger_key(settings), progress)
    if arguments.json:
        print_json(
            {
                "folder": str(folder),
                **_head(done.head),
                "written": done.written,
                "kept": done.kept,
                "checkpoint_written": done.checkpoint_written,
            }
        )
    else:
        out.print(
            f"{folder}: size {done.head.size}, root {encode_base64(done.head.root)}, "
            f"{done.written} tiles written, {done.kept} were there"
        )
    return 0


def prove(arguments: argparse.Namespace) -> int:
    """Print the tlog-proof of a run's newest root."""
    settings = settings_of(arguments, secrets=False)
    with _store(settings) as store:
        run = find_run(store, arguments.run_id)
        proved = log.prove(store, run, reading.ledger_key(settings))
    text = proved.proof.encode()
    if arguments.json:
        print_json(
            {
                "run_id": str(proved.entry.run),
                "seal": seal_label(proved.entry),
                "run_root": proved.entry.root.hex(),
                "index": proved.entry.index,
                **_head(proved.head),
                "proof": text,
            }
        )
    else:
        print_text(text)
    return 0


def consistency(arguments: argparse.Namespace) -> int:
    """Print the proof that one head extends another, as a witness takes it."""
    settings = settings_of(arguments, secrets=False)
    with _store(settings) as store:
        growth = log.consistency(
            store, arguments.old, arguments.new, settings.origin, reading.ledger_key(settings)
        )
    sides = ((growth.old, growth.old_note), (growth.new, growth.new_note))
    if arguments.json:
        old, new = ({**_head(head), "signed": note is not None} for head, note in sides)
        print_json(
            {
                "old": old,
                "new": new,
                "proof": [element.hex() for element in growth.proof],
                "text": growth.text(),
            }
        )
        return 0
    print_text(growth.text())
    for head, note in sides:
        signed = "signed" if note else "there is no signed head at this size"
        root = encode_base64(head.root)
        err.print(f"size {head.size}: root {root}, {signed}")
    return 0


def cosign(arguments: argparse.Namespace) -> int:
    """Take in a head that witnesses cosigned."""
    settings = settings_of(arguments, secrets=False)
    witnesses = [WitnessKey.from_vkey(text) for text in arguments.witness]
    note = _read_note(Path(arguments.note))
    key = reading.ledger_key(settings)
    if key is None:
        raise ConfigError("ledger_key_file", "there is no key yet, so there is no signed head")
    with _store(settings, write=True) as store:
        done = log.cosign(store, note, key, witnesses)
    if arguments.json:
        print_json(
            {
                **_head(done.head),
                "added": [{"witness": c.name, "time": c.time} for c in done.added],
                "known": [{"witness": c.name, "time": c.time} for c in done.known],
                "ignored": list(done.ignored),
                "note": done.note,
            }
        )
        return 0
    for made in done.added:
        out.print(f"head {done.head.size}: cosigned by {made.label} at {made.when}")
    if done.ignored:
        names = ", ".join(ascii(name[:60]) for name in done.ignored[:8])
        err.print(f"left out, by no given witness: {names}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Hold two sources of a ledger against each other."""
    settings = settings_of(arguments)
    a, b = (sources.see(text, settings) for text in (arguments.a, arguments.b))
    given = _given_key(arguments)
    mine = given or reading.ledger_key(settings)
    keys = [given] if given else [a.key, b.key, mine]
    found = comparing.compare(a, b, [key for key in keys if key is not None])
    if arguments.output and found.result == "fork":
        files.replace(Path(arguments.output), comparing.proof_file(found), files.PUBLIC)
    sides = (("a", a.name, found.first), ("b", b.name, found.second))
    if arguments.json:
        print_json(
            {
                "result": found.result,
                "key": found.key.vkey if found.key else None,
                "key_pinned": found.key is not None and found.key == mine,
                **{
                    side: {"source": name, "note": seen.note, **_head(seen.head)}
                    if seen
                    else {"source": name}
                    for side, name, seen in sides
                },
                "lines": list(found.lines),
                "proof": found.proof.encode().decode() if found.proof else None,
                "orphans": [as_json(orphan) for orphan in found.orphans],
            }
        )
        return found.exit_code
    word = "FORK" if found.result == "fork" else found.result
    out.print(f"{word}: {found.lines[0]}", *found.lines[1:], sep="\n")
    notes = [side.note for side in found.proof.sides] if found.proof else []
    for note in notes:
        print_text(f"\n{note}")
    if found.key is not None and found.key != mine:
        err.print(f"the key {found.key.label} is what the sources bring: nobody pinned it")
    if found.result == "fork" and not arguments.output:
        err.print("store the proof with -o FILE")
    return found.exit_code


def monitor(arguments: argparse.Namespace) -> int:
    """Look at a ledger, and say whether it continues the head that was seen last."""
    settings = settings_of(arguments, secrets=False)
    try:
        done = _watched(arguments, settings)
    except (UnavailableError, NetworkError, FormatError, IntegrityError, UnknownRunError) as error:
        done = watching.Watched(3, f"cannot be read: {error}", None, None)
    target = None
    if done.proof is not None:
        target = Path(arguments.output or f"{done.state}.{done.problem}.json")
        files.replace(target, done.proof, files.PUBLIC)
    if arguments.json:
        old, new = (_head(each.head) if each else None for each in (done.old, done.new))
        document = {"line": done.line, "problem": done.problem, "old": old, "new": new}
        proof = str(target) if target else None
        print_json({"source": arguments.source, **document, "proof": proof})
    else:
        stored = f"; the proof is {target}" if target else ""
        out.print(f"{arguments.source}: {done.line}{stored}")
    return done.exit_code


def _watched(arguments: argparse.Namespace, settings: Settings) -> watching.Watched:
    try:
        seen = sources.see(arguments.source, settings)
    except InputError as error:
        raise UnavailableError(str(error)) from error
    own = seen.key if seen.own else reading.ledger_key(settings)
    key = _given_key(arguments) or own
    if key is None:
        raise InputError(f"{arguments.source}: whose ledger it is, say with --ledger-key VKEY")
    state = settings.base_dir / "log-monitor" / f"{key.key_id.hex()}.note"
    return watching.watch(seen, Path(arguments.state or state), key)


def _given_key(arguments: argparse.Namespace) -> VerifierKey | None:
    text = arguments.ledger_key
    return None if text is None else VerifierKey.from_vkey(text)


def _head(head: Head) -> dict[str, object]:
    return {"origin": head.origin, "size": head.size, "root": head.root.hex()}


def _read_note(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_NOTE_BYTES + 1)
    if len(data) > MAX_NOTE_BYTES:
        raise TooLargeError(f"{path}: more than {MAX_NOTE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{path}: is not UTF-8 text") from None


@contextmanager
def _store(settings: Settings, *, write: bool = False) -> Iterator[LedgerStore]:
    store = reading.open_store(settings)
    if store is None:
        path = reading.sqlite_path(settings.database_url)
        raise InputError(f"there is no database yet at {path}")
    if write:
        store.close()
        store = sending.open_store(settings)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _progress() -> Iterator[log_export.Progress]:
    """A bar for each thing that is done, on stderr and for people alone."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done)

        yield show
