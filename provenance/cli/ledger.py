"""``provenance ledger``: what keeps the ledger one history, and how to go on where it refuses."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import closing, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import provenance
from provenance import files
from provenance.app.base_directory import known_base
from provenance.app.log import recover as recovering
from provenance.bootstrap import guarding, reading, sending
from provenance.capture.ship.loop import Shipper
from provenance.capture.ship.process import REDIS_URL_ENV
from provenance.cli.output import answer, settings_of
from provenance.errors import (
    BadSignatureError,
    ConfigError,
    FormatError,
    InputError,
    IntegrityError,
    LedgerForkError,
)
from provenance.formats.checkpoint import Head, open_head
from provenance.formats.note import VerifierKey
from provenance.ledger.ingest import drain
from provenance.ledger.seal import SealPolicy
from provenance.ports.store import LedgerStore
from provenance.settings import Settings
from provenance.stores.memory_transport import MemoryTransport


def head(arguments: argparse.Namespace) -> int:
    """Compare the database with every head that is remembered; 1 where workers refuse to sign."""
    settings = known_base(settings_of(arguments, secrets=False))
    guard = guarding.known_guard(settings)
    known = {where: each.size for where, each in guard.remembered().items()}
    with reading.opened_store(settings, "ledger head") as store:
        try:
            last, problem = guard.compare(store), None
        except LedgerForkError as error:
            problem = str(error)
            with store.snapshot() as tx:
                last = tx.head()
    size = 0 if last is None else last.size
    lines = [f"database: {size} entries"]
    lines += [f"{where}: signed at {size} entries" for where, size in known.items()]
    document = {"size": size, "signed": known, "refused": problem}
    answer(arguments, document, *lines, *([problem] if problem else ["one history"]))
    return 1 if problem else 0


def recover(arguments: argparse.Namespace) -> int:
    """Bring back what the database lacks, up to the head that its key signed last."""
    settings = known_base(settings_of(arguments, secrets=False))
    known = guarding.known_guard(settings).remembered().values()
    if not known:
        raise InputError(
            "ledger recover: no head that this key signed is remembered here or in Redis: put "
            f"ledger.key.head, or a bundle's newest heads/*.note, at {settings.key_file}.head"
        )
    newest = max(known, key=lambda each: each.size)
    bundles = [Path(path) for path in arguments.bundles]
    with closing(sending.open_store(settings)) as store:
        done = recovering.recover(
            store, sending.seal_policy(settings), newest, bundles, time.time()
        )
        problem = None
        if "local" in settings.blockchain.networks:
            problem = guarding.find_strangers(settings, "local", store, time.time())
    (settings.base_dir / guarding.RESTORED).unlink(missing_ok=True)
    lines = f"{done.entries} entries of {done.runs} runs, {done.records} records and "
    lines += f"{done.anchors} anchors are back; the ledger has {done.size} entries, as was signed"
    document = asdict(done) | {"problem": problem}
    answer(arguments, document, lines, *([problem] if problem else []))
    return 1 if problem else 0


def confirm(arguments: argparse.Namespace) -> int:
    """A person's word that nothing is missing in a restored copy; of no weight where it is known
    what is."""
    settings = known_base(settings_of(arguments, secrets=False))
    guard = replace(guarding.known_guard(settings), hold=None)
    with reading.opened_store(settings, "ledger confirm") as store:
        guard.compare(store)
    hold = settings.base_dir / guarding.RESTORED
    was = hold.exists()
    hold.unlink(missing_ok=True)
    line = "workers sign here from now on" if was else "is no restored copy; nothing to confirm"
    return answer(arguments, {"confirmed": was}, f"{settings.base_dir}: {line}")


def succeed(arguments: argparse.Namespace) -> int:
    """Begin a ledger with a run that commits to the last head of another, before any other run:
    its configuration states that head, and the signed note is its artifact."""
    settings = settings_of(arguments, secrets=False)
    path = Path(arguments.note)
    with files.errors_of(path, "read"):
        note = path.read_bytes()
    try:
        old = open_head(note.decode("utf-8"), VerifierKey.from_vkey(arguments.ledger_key))
    except (ValueError, FormatError, BadSignatureError) as error:
        raise InputError(f"{path}: no head of {arguments.ledger_key}: {error}") from error
    if old.origin == settings.origin:
        problem = f"found {old.origin!r}, the name of the ledger that ended; expected a new one"
        raise ConfigError("origin", problem, settings.source)
    policy = sending.seal_policy(settings)
    with closing(sending.open_store(settings)) as store:
        with store.snapshot() as tx:
            if size := tx.ledger_size():
                raise InputError(f"ledger succeed: this ledger has {size} entries, expected none")
        run = _first_run(settings, store, policy, old, arguments.ledger_key, note)
    line = f"run {run}, the first of {policy.signer.name}, commits to {old.origin} at {old.size}"
    document = {"run": run, "origin": policy.signer.name, "succeeds": old.origin, "size": old.size}
    return answer(arguments, document, line)


def _first_run(
    settings: Settings, store: LedgerStore, policy: SealPolicy, old: Head, vkey: str, note: bytes
) -> str:
    """Recorded, shipped and sealed in this process: workers might take another run first."""
    stated = {"origin": old.origin, "size": old.size, "root": old.root.hex(), "ledger_key": vkey}
    os.environ.pop(REDIS_URL_ENV, None)  # so that no shipper is started for it
    with TemporaryDirectory(dir=settings.base_dir) as folder:
        quiet = {"announce_run": False, "blockchain": {"networks": list(policy.networks)}}
        with provenance.run(
            "ledger succession", config={"succeeds": stated}, base_dir=folder, settings=quiet
        ) as run:
            run.artifact(note, "predecessor.note")
        keys, transport = [policy.signer.verifier.public_bytes], MemoryTransport()
        spool, logged = Path(folder) / "spool", redirect_stdout(sys.stderr)
        with logged, Shipper(spool, transport, ledger_keys=lambda: keys) as shipper:
            shipper.run_once()
            drain(transport, store, policy, "succession", time.time)
    with store.snapshot() as tx:
        row = tx.run(run.tracker.run)
    if row is None or row.state != "sealed":
        raise IntegrityError(f"ledger succeed: run {run.id} was recorded and is not sealed")
    return run.id
