"""What of a spool may go, and when: never before the database has it."""

from __future__ import annotations

import os
import time

from provenance.capture.keys import KEY_FILE, delete_run_keys
from provenance.capture.reasons import UNSHIPPED, UNSIGNED
from provenance.capture.ship.cursor import CURSOR_FILE, Cursors
from provenance.capture.ship.host import HOST_FILE
from provenance.capture.ship.keyless import SIGNED_FILE
from provenance.capture.spool import RunSpool, Segment
from provenance.errors import FormatError
from provenance.log import get_logger

_log = get_logger("provenance.shipper")


def delete_committed(spool: RunSpool, cursors: Cursors) -> int:
    """Delete the segments whose whole range is committed and which nobody writes any more; their
    number."""
    deleted = 0
    for producer, group in spool.producers.items():
        cursor = cursors.producers.get(producer)
        if cursor is None:
            continue
        for segment, following in zip(group, (*group[1:], None), strict=True):
            if segment.index > cursor.segment:
                break
            if segment.index < cursor.segment and following is not None:
                upto = _first_seq(following, cursor.next)
            else:
                # The order matters: it cannot grow between the two questions.
                if segment.is_live() or segment.size() > cursor.offset:
                    break
                upto = cursor.next
            if cursor.acked < upto:
                break
            segment.path.unlink(missing_ok=True)
            deleted += 1
    return deleted


def is_done(spool: RunSpool, cursors: Cursors) -> bool:
    """True where all that was written here is committed and its segments are gone."""
    return not cursors.unacknowledged and not any(s.path.exists() for s in spool.segments)


def has_ended(spool: RunSpool, cursors: Cursors, abandoned_s: float) -> bool:
    """True where all is committed and every rank has ended, or nobody has come back for
    ``abandoned_s`` to a run that a dead trainer left without an end."""
    if not is_done(spool, cursors):
        return False
    known = cursors.producers.values()
    world_size = max((cursor.world_size for cursor in known), default=1)
    if len({cursor.rank for cursor in known if cursor.ended}) >= world_size:
        return True
    try:
        return time.time() - spool.path.stat().st_mtime >= abandoned_s
    except FileNotFoundError:
        return False


def clear_run(spool: RunSpool) -> None:
    """Delete a run's key and folder; its segments must be gone.

    The key goes first and the cursors last, since a folder with a key alone is a run that
    begins. A folder with something else in it stays, without its key.
    """
    try:
        delete_run_keys(spool.path)
        for name in os.listdir(spool.path):
            left_over = name.startswith(
                (f".{KEY_FILE}.", f".{CURSOR_FILE}", f".{SIGNED_FILE}", HOST_FILE, f".{HOST_FILE}")
            )
            if left_over or name.endswith(".new") or name in (SIGNED_FILE, UNSIGNED, UNSHIPPED):
                (spool.path / name).unlink(missing_ok=True)
        (spool.path / CURSOR_FILE).unlink(missing_ok=True)
        spool.path.rmdir()
    except OSError as error:
        _log.warning("folder of a finished run stays", run=str(spool.run), reason=error.strerror)


def _first_seq(segment: Segment, otherwise: int) -> int:
    try:
        return segment.header()[0].first_seq
    except (FormatError, FileNotFoundError):
        return otherwise
