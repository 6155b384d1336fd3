"""Shipper: moves a spool into the transport. One per spool, in a process of its own.

Life of a segment: its new events are read, the file is synced, records are made and signed
in batches, the batches are appended to the transport, and only then does the cursor move.
A crash anywhere repeats the whole; repeating changes nothing downstream. When hashing
workers have committed the segment's range and nobody writes it any more, it is deleted.
When all is committed, and every rank has ended here or the ledger says that the run is sealed,
the run's key and folder go too.

A transport that is away means that the cursor stands still. One that has lost its data
(another generation, or all that stood in it left while events are unacknowledged) is given again
what the database does not have.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from provenance import files
from provenance.capture.ship.beacons import ASK_S, keep_beacons
from provenance.capture.ship.reader import written_next
from provenance.capture.ship.shipment import Contact, LedgerKeys, Shipment, Shipped
from provenance.capture.spool import LOCK_FILE, refused, scan
from provenance.errors import (
    ConfigError,
    InputError,
    ProvenanceError,
    SpoolUnavailable,
    TransportUnavailable,
)
from provenance.log import get_logger
from provenance.ports.transport import EventTransport

LOOK_S = 0.1
"""Wait for the spool's lock: a tracker that looks whether somebody has it holds it for a moment."""
REPORT_S = 15.0
Report = Callable[[dict[str, float]], None]
MAX_BACKLOG = 4096
POLL_S = (0.05, 0.5)
"""Pause after a pass that shipped, and at rest."""
BACKOFF_S = (0.2, 10.0)
"""Ceiling of the pause at the first failure of the transport, and at last."""

_log = get_logger("provenance.shipper")


class Shipper:
    """Ships one spool; a context manager that holds its lock.

    Args:
        spool_dir: ``<base_dir>/spool``; created where missing.
        report: Told now and then what is in the spool (:meth:`figures`). It may raise a
            ProvenanceError, which counts for nothing.
        stall_s: After this long without progress what was lost in the transport is shipped
            again (:class:`provenance.capture.ship.cursor.Stall`); doubles up to an hour.
        abandoned_s: A run without an end whose producers are all dead and whose events are
            all committed is cleared away after this long.
        max_backlog: Entries in the transport beyond which no more are added.
        ledger_keys: The public keys whose acknowledgements are believed, asked at each pass: a
            worker may make the ledger's key later. Without one nothing is deleted.

    Raises:
        InputError: Another shipper serves this spool, or it cannot be written.
        SpoolUnavailable: Its disk takes nothing.
    """

    def __init__(
        self,
        spool_dir: Path,
        transport: EventTransport,
        *,
        report: Report | None = None,
        stall_s: float = 60.0,
        abandoned_s: float = 7 * 86400.0,
        max_backlog: int = MAX_BACKLOG,
        ledger_keys: LedgerKeys = tuple,
    ) -> None:
        self.spool_dir = spool_dir
        self._transport, self._report = transport, report
        self._report_at = 0.0
        self._ask_at = 0.0
        self._stall_s, self._abandoned_s, self._max_backlog = stall_s, abandoned_s, max_backlog
        self._ledger_keys = ledger_keys
        self._shipments: dict[UUID, Shipment] = {}
        self._lock = _take_lock(spool_dir)

    def close(self) -> None:
        """Let another shipper have the spool."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Shipper:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run_once(self) -> Shipped:
        """One pass over all runs. Raises TransportUnavailable: the cursors stand where the
        transport last took something; ConfigError: it refuses our credentials."""
        total = Shipped()
        contact = Contact(self._transport, self._max_backlog, self._ledger_keys())
        spools = scan(self.spool_dir)
        for gone in self._shipments.keys() - {spool.run for spool in spools}:
            if self._shipments[gone].is_cleared:  # else its trainer may write it again
                del self._shipments[gone]
        for spool in spools:
            if spool.run not in self._shipments:
                made = Shipment(spool.path, self._stall_s, self._abandoned_s)
                self._shipments[spool.run] = made
            self._shipments[spool.run].serve(spool, contact, total)
        if (now := time.monotonic()) >= self._ask_at:
            self._ask_at = now + ASK_S
            keep_beacons(self.spool_dir, self._transport, contact.ledger_keys)
        return total

    def run(
        self,
        stop: threading.Event,
        *,
        idle_exit_s: float | None = None,
        give_up_s: float | None = None,
    ) -> Shipped:
        """Ship until ``stop`` is set; an outage of the transport is waited out.

        Args:
            idle_exit_s: Return when no trainer is alive and there was nothing to ship for
                this long.
            give_up_s: Return when no trainer is alive and the transport was away or full for
                this long; the spool stays for a later shipper.

        Raises:
            ConfigError: The transport refuses our credentials at the first contact.
        """
        total = Shipped()
        pause, failures, reached = POLL_S[0], 0, False
        quiet_since = time.monotonic()
        blocked_since: float | None = None
        while not stop.is_set():
            now = time.monotonic()
            try:
                shipped = self.run_once()
            except (TransportUnavailable, ConfigError) as error:
                if isinstance(error, ConfigError) and not reached:
                    raise
                if not failures:
                    _log.warning("transport is away; events stay in the spool", reason=str(error))
                failures += 1
                blocked_since = blocked_since or now
                ceiling = min(BACKOFF_S[1], BACKOFF_S[0] * 2 ** min(failures, 16))
                pause = random.uniform(ceiling / 2, ceiling)  # noqa: S311  jitter, no secret
            else:
                if failures:
                    _log.info("transport is back", failures=failures)
                reached, failures = True, 0
                total.add(shipped)
                blocked_since = (blocked_since or now) if shipped.waiting else None
                if shipped.events or shipped.waiting:
                    quiet_since = now
                pause = POLL_S[0] if shipped.events else min(POLL_S[1], pause * 2)
            if blocked_since is not None:
                over = self._may_leave(give_up_s, now - blocked_since)
            else:
                over = self._may_leave(idle_exit_s, now - quiet_since, total)
            if now >= self._report_at or over:
                self._report_at = now + REPORT_S
                self._tell(total, over)
            if over:
                break
            stop.wait(pause)
        return total

    def figures(self, total: Shipped) -> dict[str, float]:
        """Of a report: ``bytes`` and ``runs`` in the spool, ``age_s`` of the oldest event that is
        not shipped (0 without one), and what of ``total`` somebody should look at."""
        spools = scan(self.spool_dir)
        moments = [
            written_next(group, shipment.cursors.producers.get(group[0].producer))
            for spool in spools
            if (shipment := self._shipments.get(spool.run)) is not None
            for group in shipment.new(spool)
        ]
        oldest = min((at for at in moments if at is not None), default=None)
        return {
            "bytes": sum(segment.size() for spool in spools for segment in spool.segments),
            "runs": len(spools),
            "age_s": 0.0 if oldest is None else max(0.0, time.time() - oldest),
            "unusable": total.unusable,
            "corruptions": total.corruptions,
        }

    def _tell(self, total: Shipped, over: bool) -> None:
        """Report; one that leaves an empty spool reports nothing, and so is not missed."""
        if self._report is not None:
            with contextlib.suppress(ProvenanceError, OSError):
                figures = self.figures(total)
                self._report(figures if figures["bytes"] or not over else {})

    def trainers_alive(self) -> bool:
        """True where a process still holds a segment of this spool."""
        spools = scan(self.spool_dir)
        return any(g[-1].is_live() for spool in spools for g in spool.producers.values())

    def _sizes(self) -> dict[Path, int]:
        return {each.path: each.size() for run in scan(self.spool_dir) for each in run.segments}

    def _may_leave(
        self, limit_s: float | None, elapsed_s: float, total: Shipped | None = None
    ) -> bool:
        """Time to go, unless a trainer is there.

        With ``total``, what a trainer wrote in its last moment is shipped first. A trainer
        opens its segment first and starts a shipper then, unless the lock is held: so the lock
        is given back before the last look, and taken again. One that came and ended meanwhile
        has left bytes.
        """
        if limit_s is None or elapsed_s < limit_s:
            return False
        before = self._sizes()
        if self.trainers_alive():
            return False
        if total is not None:
            try:
                last = self.run_once()
            except (TransportUnavailable, ConfigError):
                return False
            total.add(last)
            if last.events or last.waiting:
                return False
        self.close()
        if not self.trainers_alive() and self._sizes().items() <= before.items():
            return True
        self._shipments.clear()
        with contextlib.suppress(InputError, SpoolUnavailable):
            self._lock = _take_lock(self.spool_dir)
        return self._lock < 0


def _take_lock(spool_dir: Path) -> int:
    path = spool_dir / LOCK_FILE
    try:
        spool_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE)
    except OSError as error:
        raise refused(f"{path}: cannot lock the spool", error) from error
    try:
        files.lock(descriptor, wait_s=LOOK_S)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise InputError(
            f"another shipper (process {holder}) already serves {spool_dir}"
        ) from error
    with contextlib.suppress(OSError):  # a full disk: the number is for people only
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
