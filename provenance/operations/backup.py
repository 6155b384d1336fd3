"""A copy of what a deployment cannot do without, while it works.

The database comes first, as one transaction sees it, then the anchors of ``local``: so the copy of
that file has every anchor that the copy of the database names.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from provenance import files
from provenance.bootstrap.guarding import RESTORED
from provenance.errors import InputError, StoreUnavailable, UnknownRunError
from provenance.settings import Settings
from provenance.settings.urls import sqlite_path

_SECRETS: Final = ("openings/", "items/")
"""What proofs about hidden numbers and about items are made of."""


def backup(settings: Settings, folder: Path) -> list[str]:
    """Copy database (where it is an SQLite file), ledger key, anchors file, journal,
    configuration, openings and item sets into a new folder of mode 0700, and a file that keeps
    workers from signing on the copy (:mod:`provenance.ledger.guard`).

    Returns:
        The names of the files and folders there, in order.

    Raises:
        InputError: The folder has something in it.
        UnknownRunError: There is no database yet.
        StoreUnavailable: The database cannot be read, or the copy not be written.
    """
    database, local = sqlite_path(settings.database_url), settings.blockchain.local
    if database is not None and not database.exists():
        raise UnknownRunError(f"backup: there is no database yet at {database}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: something is there, expected a new or an empty folder")
    files.make_folders(folder, files.PRIVATE)
    made = []
    if database is not None:
        _copy_database(database, folder / "ledger.db")
        made.append("ledger.db")
    copies = {
        "ledger.key": settings.key_file,
        "anchors.jsonl": local.path if local is not None else None,
        "blockchain_manager.jsonl": settings.base_dir / "blockchain_manager.jsonl",
        "config.json": Path(settings.source) if settings.source else None,
    }
    for name, source in copies.items():
        if source is not None and source.exists():
            files.replace(folder / name, source.read_bytes())
            made.append(name)
    made += [name for name in _SECRETS if _copy_folder(settings.base_dir / name, folder / name)]
    note = "A copy: workers sign here once somebody says that nothing is missing in it.\n"
    files.replace(folder / RESTORED, note.encode())
    return [*made, RESTORED]


def _copy_folder(source: Path, target: Path) -> bool:
    """Copy the files of a folder, each of mode 0600; whether there are any."""
    there = sorted(path for path in source.rglob("*") if path.is_file())
    found = [path for path in there if not path.name.startswith(".")]  # not whole yet
    for path in found:
        copy = target / path.relative_to(source)
        files.make_folders(copy.parent, files.PRIVATE)
        with path.open("rb") as read, files.replacing(copy) as written:
            shutil.copyfileobj(read, written)
    return bool(found)


def _copy_database(source: Path, target: Path) -> None:
    """By ``VACUUM INTO`` (https://sqlite.org/lang_vacuum.html): of one moment, and without the
    writers waiting."""
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as store:
            store.execute("VACUUM INTO ?", (str(target),))
        target.chmod(files.PRIVATE)
        with files.opened(target, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise StoreUnavailable(f"database {source}: no copy of it: {error}") from error
