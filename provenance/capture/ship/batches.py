"""BatchMaker: events of one producer become signed batches.

A batch holds consecutive events, at most 500 records or 1 MiB of them (a larger record
travels alone). The same events give the same records and the same chain, however often they are
shipped; only where one batch ends and the next begins may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.errors import FormatError, ProvenanceError
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.producers.batch import sign_batch
from provenance.formats.producers.certificate import Certificate
from provenance.formats.producers.statement import chain_on
from provenance.formats.record import MAX_SAFE_INTEGER, Kind, record_digest

if TYPE_CHECKING:
    from provenance.capture.ship.commitments import Committer
    from provenance.capture.ship.host import HostCollector

BATCH_RECORDS = 500
BATCH_BYTES = 1024 * 1024


class BatchMaker:
    """Collects one producer's events in order of ``seq``.

    Args:
        certificate, key: The producer's, as :meth:`RunKeys.producer` gives them.
        salt: Key of the records' salts, 32 bytes.
        identity: What an identity signed for the run; None if nobody did, or the ledger knows.
        first: ``seq`` of the first event to come.
        chain: The chain before it, 32 bytes.
    """

    def __init__(
        self,
        certificate: Certificate,
        key: Ed25519PrivateKey,
        salt: bytes,
        identity: bytes | None,
        first: int,
        chain: bytes,
    ) -> None:
        self._certificate, self._key, self._identity = certificate, key, identity
        self._salt, self._first = salt, first
        self.committer: Committer | None = None
        """Puts commitments in the place of numbers, where the run has some."""
        self.host: HostCollector | None = None
        """Puts evidence of this host into the events that ask for it."""
        self.producer = certificate.producer
        self._header = SegmentHeader(certificate.run, self.producer, certificate.rank, 1, first)
        self._records: list[bytes] = []
        self._size = 0
        self._done: list[bytes] = []
        self.chain = chain
        """After all finished batches."""
        self.pending_bytes = 0
        """Record bytes added since the last :meth:`take`."""
        self.pending = 0
        """Records added since then."""
        self.replaced = 0
        """Events that had no form as a record, so that a gap record went in their place."""

    def add(self, event: Event) -> None:
        """One more event. Raises FormatError: not the next one; nothing is signed over a hole."""
        expected = self._first + len(self._records)
        if event.seq != expected:
            raise FormatError(f"event {event.seq} follows, expected event {expected}")
        if event.kind is Kind.HOST:
            self._finish()  # so that the chain is that of all before it
        data = self._record(event)
        too_large = self._size + len(data) > BATCH_BYTES
        if self._records and (too_large or len(self._records) >= BATCH_RECORDS):
            self._finish()
        self._records.append(data)
        self._size += len(data)
        self.pending_bytes += len(data)
        self.pending += 1

    def take(self) -> list[bytes]:
        """All batches of what was added since the last call. Raises OSError: the openings of their
        commitments cannot be kept."""
        self._finish()
        if self.committer is not None:
            self.committer.keep()
        done, self._done = self._done, []
        self.pending = self.pending_bytes = 0
        return done

    def _finish(self) -> None:
        if self._records:
            signer, records = (self._certificate, self._key), self._records
            self._done.append(sign_batch(*signer, self._first, self.chain, records, self._identity))
            self.chain = chain_on(self.chain, map(record_digest, self._records))
            self._first += len(self._records)
        self._records, self._size = [], 0

    def _record(self, event: Event) -> bytes:
        try:
            if self.committer is not None:
                event = self.committer.committed(event)
            if self.host is not None and event.kind is Kind.HOST:
                event = self.host.collected(event, self.chain)
            return record_of(event, self._header, self._salt).encode()
        except (ProvenanceError, ValueError, OverflowError) as error:
            self.replaced += 1
            reason = f"{event.kind} not recorded: {error}"[:500]
            fields = {"dropped": 1, "reason": reason}
            when = event.ts_ns if 0 <= event.ts_ns <= MAX_SAFE_INTEGER * 1000 else 0
            gap = Event(event.seq, Kind.GAP, None, event.rank, when, fields)
            return record_of(gap, self._header, self._salt).encode()
