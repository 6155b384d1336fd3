"""``provenance log``: the ledger as a transparency log."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

from provenance import files
from provenance.app.log import compare as comparing
from provenance.app.log import export as log_export
from provenance.app.log import monitor as watching
from provenance.app.log import proofs as log
from provenance.app.log import sources
from provenance.bootstrap import reading, sending
from provenance.cli.output import answer, err, out, print_json, print_text, progress, settings_of
from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    IntegrityError,
    NetworkError,
    UnavailableError,
    UnknownRunError,
)
from provenance.evidence.from_database import find_run
from provenance.evidence.run_evidence import seal_label
from provenance.formats.checkpoint import Head
from provenance.formats.fields import as_json
from provenance.formats.note import MAX_NOTE_BYTES, VerifierKey, encode_base64
from provenance.settings import Settings
from provenance.verify.trust import witness_keys


def export(arguments: argparse.Namespace) -> int:
    """Write the ledger as tlog-tiles; a folder of an earlier export is added to."""
    settings = settings_of(arguments, secrets=False)
    folder = Path(arguments.folder)
    with reading.opened_store(settings, "log export") as store, progress() as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done)

        done = log_export.export(store, folder, reading.ledger_key(settings), show)
    counts = {name: value for name, value in as_json(done).items() if name != "head"}
    line = f"{folder}: size {done.head.size}, root {encode_base64(done.head.root)}, "
    line += f"{done.written} tiles written, {done.kept} were there"
    if done.unaccounted:
        line += f", no account of {done.unaccounted} entries"
    return answer(arguments, {"folder": str(folder), **_head(done.head), **counts}, line)


def prove(arguments: argparse.Namespace) -> int:
    """Print the tlog-proof of a run's newest root."""
    settings = settings_of(arguments, secrets=False)
    with reading.opened_store(settings, "log prove") as store:
        run = find_run(store, arguments.run_id)
        entry, head, proof = log.prove(store, run, reading.ledger_key(settings))
    if not arguments.json:
        print_text(proof.encode())
        return 0
    document = {"run_id": str(run), "seal": seal_label(entry), "run_root": entry.root.hex()}
    print_json(document | {"index": entry.index, **_head(head), "proof": proof.encode()})
    return 0


def consistency(arguments: argparse.Namespace) -> int:
    """Print the proof that one head extends another, as a witness takes it."""
    settings = settings_of(arguments, secrets=False)
    key = reading.ledger_key(settings)
    with reading.opened_store(settings, "log consistency") as store:
        growth = log.consistency(store, arguments.old, arguments.new, settings.origin, key)
    sides = ((growth.old, growth.old_note), (growth.new, growth.new_note))
    if arguments.json:
        old, new = ({**_head(head), "signed": note is not None} for head, note in sides)
        proof = as_json(growth.proof)
        print_json({"old": old, "new": new, "proof": proof, "text": growth.text()})
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
    witnesses = witness_keys(arguments.witness)
    with open(arguments.note, "rb") as file:
        note = sources.note_text(arguments.note, file.read(MAX_NOTE_BYTES + 1))
    key = reading.ledger_key(settings)
    if key is None:
        raise ConfigError("ledger_key_file", "there is no key yet, so there is no signed head")
    with reading.opened_store(settings, "log cosign"):
        store = sending.open_store(settings)
    with closing(store):
        done = log.cosign(store, note, key, witnesses)
    if done.ignored and not arguments.json:
        names = ", ".join(ascii(name[:60]) for name in done.ignored[:8])
        err.print(f"left out, by no given witness: {names}")
    document = {
        **_head(done.head),
        "added": [{"witness": c.name, "time": c.time} for c in done.added],
        "known": [{"witness": c.name, "time": c.time} for c in done.known],
        "ignored": list(done.ignored),
        "note": done.note,
    }
    size = done.head.size
    lines = (f"head {size}: cosigned by {made.label} at {made.when}" for made in done.added)
    return answer(arguments, document, *lines)


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
    if arguments.json:
        document: dict[str, Any] = {
            "result": found.result,
            "key": found.key.vkey if found.key else None,
            "key_pinned": found.key is not None and found.key == mine,
        }
        for side, name, seen in (("a", a.name, found.first), ("b", b.name, found.second)):
            head = {"note": seen.note, **_head(seen.head)} if seen else {}
            document[side] = {"source": name, **head}
        document |= {
            "lines": list(found.lines),
            "proof": found.proof.encode().decode() if found.proof else None,
            "orphans": as_json(found.orphans),
        }
        print_json(document)
        return found.exit_code
    word = "FORK" if found.result == "fork" else found.result
    out.print(f"{word}: {found.lines[0]}", *found.lines[1:], sep="\n")
    for signed in found.proof.sides if found.proof else ():
        print_text(f"\n{signed.note}")
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
    old, new = (_head(each.head) if each else None for each in (done.old, done.new))
    document = {"source": arguments.source, "line": done.line, "problem": done.problem}
    document |= {"old": old, "new": new, "proof": str(target) if target else None}
    stored = f"; the proof is {target}" if target else ""
    answer(arguments, document, f"{arguments.source}: {done.line}{stored}")
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
    try:
        return None if text is None else VerifierKey.from_vkey(text)
    except FormatError as error:
        raise InputError(f"--ledger-key: {error}") from error


def _head(head: Head) -> dict[str, object]:
    return {"origin": head.origin, "size": head.size, "root": head.root.hex()}
