"""BatchMaker: events of one producer become signed batches.

A batch holds consecutive events, at most 500 records or 1 MiB of them (a larger record
travels alone). The same events give the same bytes, however often they are shipped; only
where one batch ends and the next begins may differ.
"""

from __future__ import annotations

from uuid import UUID

from provenance.capture.keys import RunKeys
from provenance.errors import ProvenanceError
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.producers.batch import sign_batch
from provenance.formats.record import MAX_SAFE_INTEGER, Kind

BATCH_RECORDS = 500
BATCH_BYTES = 1024 * 1024


class BatchMaker:
    """Collects one producer's events in order of ``seq``.

    Args:
        rank: The producer's rank, which every record of a batch shares.
    """

    def __init__(self, run: UUID, producer: bytes, rank: int, keys: RunKeys) -> None:
        self._header = SegmentHeader(run, producer, rank, 1, 0)
        self._keys = keys
        self._first = 0
        self._records: list[bytes] = []
        self._size = 0
        self._done: list[bytes] = []
        self.pending_bytes = 0
        """Record bytes added since the last :meth:`take`."""
        self.pending = 0
        """Records added since then."""
        self.replaced = 0
        """Events that had no form as a record, so that a gap record went in their place."""

    def add(self, event: Event) -> None:
        """One more event; a hole before it ends the batch."""
        data = self._record(event)
        hole = event.seq != self._first + len(self._records)
        too_large = self._size + len(data) > BATCH_BYTES
        if self._records and (hole or too_large or len(self._records) >= BATCH_RECORDS):
            self._finish()
        if not self._records:
            self._first = event.seq
        self._records.append(data)
        self._size += len(data)
        self.pending_bytes += len(data)
        self.pending += 1

    def take(self) -> list[bytes]:
        """All batches of what was added since the last call."""
        self._finish()
        done, self._done = self._done, []
        self.pending = self.pending_bytes = 0
        return done

    def _finish(self) -> None:
        if self._records:
            h = self._header
            self._done.append(
                sign_batch(
                    h.run, h.producer, h.rank, self._first, self._records, self._keys.private_key
                )
            )
        self._records, self._size = [], 0

    def _record(self, event: Event) -> bytes:
        try:
            return record_of(event, self._header, self._keys.salt).encode()
        except (ProvenanceError, ValueError, OverflowError) as error:
            self.replaced += 1
            reason = f"{event.kind} not recorded: {error}"[:500]
            fields = {"dropped": 1, "reason": reason}
            when = event.ts_ns if 0 <= event.ts_ns <= MAX_SAFE_INTEGER * 1000 else 0
            gap = Event(event.seq, Kind.GAP, None, event.rank, when, fields)
            return record_of(gap, self._header, self._keys.salt).encode()
