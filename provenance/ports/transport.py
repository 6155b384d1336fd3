"""The event transport: signed batches on their way from shippers to hashing workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from provenance.formats.producers.batch import MAX_BATCH_BYTES

MAX_ENTRY_BYTES = MAX_BATCH_BYTES + 8
"""What a batch can have; a larger entry is not read into memory."""
CLIPPED_BYTES = 1024
"""What is read of such an entry."""
READ_BYTES = 2 * 1024 * 1024
"""A read ends with the entry that reaches it."""
HOLD_S = 5.0
"""For so long a consumer that was given entries of a run has the rest of them to itself: two at one
run would wait for each other, and take its events out of order. It is no promise."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One stream entry.

    Attributes:
        id: Names the entry within its generation; an emptied server hands out ids again.
        payload: The batch; of an entry over :data:`MAX_ENTRY_BYTES` its first bytes alone,
            of one that a stranger made without a batch nothing.
        generation: :meth:`EventTransport.generation` of the moment it was read.
        size: Bytes of the entry.
        deliveries: How often it was given out, this time too, but for what was given back.
    """

    id: str
    payload: bytes
    generation: str | None = None
    size: int = field(default=0, compare=False)
    deliveries: int = field(default=1, compare=False)


class EventTransport(Protocol):
    """Carries batches. At least once: an entry not acknowledged is delivered again.

    Every method raises TransportUnavailable where Redis refuses, times out or is full.
    """

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add entries in order. MUST NOT retry by itself; all or an exception."""

    def read(self, consumer: str, count: int) -> list[Delivery]:
        """Up to ``count`` entries not yet given to any consumer, :data:`READ_BYTES` and one
        entry of them at most, of runs that no other consumer is at (:data:`HOLD_S`); does not
        block."""

    def wait(self, seconds: float) -> bool:
        """Wait for entries that no consumer was given: False where there are none in that time."""

    def claim_stale(self, consumer: str, min_idle_s: float, count: int) -> list[Delivery]:
        """Take over entries another consumer was given ``min_idle_s`` ago and never acked;
        bounded as :meth:`read`."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Entries are committed to the database: acknowledge and delete them.

        A delivery of a former generation MUST NOT touch an entry of the present one."""

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """No fault of these entries kept them from the database: this delivery does not count.

        They are delivered again as they would be, by :meth:`claim_stale`; what was acknowledged
        or is of a former generation is passed over."""

    def backlog(self, run: UUID | None = None) -> int:
        """Entries, read or not: all, or those in the stream that carries a run, others' too."""

    def acknowledged(self, run: UUID) -> Mapping[bytes, bytes]:
        """Per producer the last acknowledgement, not verified: anybody may have put it there
        (:mod:`provenance.formats.producers.acknowledgement`)."""

    def publish_acknowledged(
        self, run: UUID, acknowledgements: Mapping[bytes, bytes], generation: str | None
    ) -> None:
        """Tell the shippers how much of each producer is committed, under the ledger's
        signature; replaces what was there.

        Nothing is said where ``generation``, in which the committed batches were delivered, is
        not the present one: shippers delete what is acknowledged, and who empties a server
        may have replaced the database with it."""

    def generation(self) -> str | None:
        """A random id written with the first append; another one, or None, means that
        the server lost its data and everything not acknowledged must be sent again."""

    def beacon(self, network: str) -> bytes | None:
        """The newest block of a network that a worker published, not verified
        (:mod:`provenance.proofs.beacon`)."""

    def publish_beacon(self, network: str, beacon: bytes) -> None:
        """Replace what :meth:`beacon` answers."""

    def newest_head(self, key: str) -> str | None:
        """The note of the largest head kept under a ledger's key (its public half as hex), not
        verified: anybody may have put it there."""

    def remember_head(self, key: str, size: int, note: str) -> None:
        """Keep the note of a signed head, of those under this key the largest alone."""

    def ledger(self, claim: str | None = None) -> str | None:
        """The verifier key (vkey) of the ledger whose workers read here: ``claim``, where there is
        none yet. A server that lost its data has forgotten it."""

    def close(self) -> None:
        """Let go of connections."""

    def ping(self) -> None:
        """Raise where the server does not answer."""
