"""``provenance archive``: records of runs that are done, out of the database and back."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from typing import Any

from provenance import archiving
from provenance.app.base_directory import known_base
from provenance.bootstrap import reading, sending
from provenance.bundle.archive import Archive
from provenance.cli.output import answer, moment, settings_of
from provenance.errors import FormatError, InputError, IntegrityError, UsageError
from provenance.evidence.from_database import find_run


def archive(arguments: argparse.Namespace) -> int:
    """Move records to the archive, or back; 1 where the evidence of a run does not hold."""
    settings, now = known_base(settings_of(arguments, secrets=False)), time.time()
    place = archiving.section(settings)
    if arguments.restore and not arguments.runs:
        raise UsageError("--restore: found no run, expected RUN")
    with reading.opened_store(settings, "archive") as store, store.snapshot() as tx:
        runs = [find_run(store, text) for text in arguments.runs]
        if arguments.older_than is not None:
            before = moment("--older-than", arguments.older_than, now)
            runs += archiving.sealed_before(tx, before)
        elif place.after_s is not None and not runs:
            runs = archiving.sealed_before(tx, now - place.after_s)
        elif not (runs or arguments.vacuum):
            raise UsageError("archive: found no archive.after, expected RUN or --older-than AGE")
    done: dict[str, Any] = {"archived": {}, "restored": {}, "stay": {}, "freed": None}
    code = 0
    with closing(sending.open_store(settings)) as store:
        for run in runs:
            try:
                if arguments.restore:
                    records = archiving.restore_run(settings, store, run, now)
                    done["restored"][str(run)] = {"records": records}
                    continue
                row = archiving.archive_run(settings, store, run, now)
                file = str(Archive(place.folder).path(row.digest))
                told = {"file": file, "bytes": row.size, "records": row.records}
                done["archived"][str(run)] = told
            except (InputError, FormatError, IntegrityError) as error:
                if arguments.runs:
                    raise
                code |= not isinstance(error, InputError)
                done["stay"][str(run)] = str(error)
        if arguments.vacuum:
            done["freed"] = store.vacuum()
    return answer(arguments, done, *_lines(done)) or code


def _lines(done: dict[str, Any]) -> list[str]:
    lines = list(done["stay"].values())
    for what, runs in ((word, done[word]) for word in ("archived", "restored") if done[word]):
        records = sum(run["records"] for run in runs.values())
        lines.append(f"{what}: runs {len(runs)}, records {records}")
    if done["freed"] is not None:
        lines.append(f"{done['freed']} bytes went back to the file system")
    return lines or ["no run is to be archived"]
