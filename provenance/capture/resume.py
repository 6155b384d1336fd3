"""Which run a process goes on with, and from where."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from provenance.capture.keys import KEY_FILE
from provenance.capture.membership import RUN_ID, RUN_KEY_FILE, RUN_SEED
from provenance.capture.ship.cursor import load_cursors
from provenance.capture.ship.reader import Numbers, ProducerReader, first_cursor
from provenance.capture.spool import scan_run
from provenance.errors import ConfigError, FormatError


def told_to_resume(run: str | Path, base_dir: Path) -> tuple[Path, Mapping[str, str]]:
    """The base directory of a run that is gone on with, and the environment that names it.

    Args:
        run: Its id, or the path of its folder, ``<base_dir>/spool/<id>``.

    Raises:
        ConfigError: No id, or nothing here has the run's key.
    """
    folder = Path(run).absolute()
    if folder.is_dir() and (os.sep in str(run) or isinstance(run, Path)):
        base_dir, name = folder.parent.parent, folder.name
    else:
        name = str(run)
    try:
        known = UUID(name)
    except ValueError as error:
        expected = "a run id or the folder of a run"
        raise ConfigError("run", f"found {str(run)[:200]!r}, expected {expected}") from error
    told = {**os.environ, RUN_ID: str(known)}
    path = base_dir / "spool" / str(known) / KEY_FILE
    if path.exists():
        told = {name: value for name, value in told.items() if name not in (RUN_SEED, RUN_KEY_FILE)}
    elif not (told.get(RUN_SEED) or told.get(RUN_KEY_FILE)):
        raise ConfigError(
            "run",
            f"{path} is not there, and neither {RUN_SEED} nor {RUN_KEY_FILE} is set. A run's key "
            f'is deleted once it is finished: a new run continues it with parent="{known}"',
        )
    return base_dir, told


def next_numbers(run_dir: Path, run: UUID, rank: int) -> Numbers:
    """Where a rank's new process counts on: behind those before it, as far as this host knows of
    them, and not those beside it, as the parent of a fork is."""
    groups = scan_run(run_dir, run).producers
    live = {producer for producer, group in groups.items() if group[-1].is_live()}
    found = [Numbers()]
    for producer, group in groups.items():
        if producer not in live and group[0].rank == rank:
            reader = ProducerReader(group, first_cursor(group[0]))
            with suppress(OSError):  # deleted in this moment, so that the cursor tells
                deque(reader, maxlen=0)
            found.append(reader.numbers)
    with suppress(FormatError, OSError):
        for producer, cursor in load_cursors(run_dir).producers.items():
            if producer not in live and cursor.rank == rank:
                found.append(Numbers(cursor.next_step, cursor.next_epoch))
    return Numbers(*map(max, zip(*found, strict=True)))
