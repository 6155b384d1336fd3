"""The event transport: signed batches on their way from shippers to hashing workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Delivery:
    """One stream entry: its id for :meth:`EventTransport.ack` and the batch bytes."""

    id: str
    payload: bytes


class EventTransport(Protocol):
    """Carries batches. At least once: an entry not acknowledged is delivered again.

    Every method raises TransportUnavailable where Redis refuses, times out or is full.
    """

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add entries in order. MUST NOT retry by itself; all or an exception."""

    def read(self, consumer: str, count: int) -> list[Delivery]:
        """Up to ``count`` entries not yet given to any consumer; does not block."""

    def claim_stale(self, consumer: str, min_idle_s: float, count: int) -> list[Delivery]:
        """Take over entries another consumer was given ``min_idle_s`` ago and never acked."""

    def ack(self, ids: Sequence[str]) -> None:
        """Entries are committed to the database: acknowledge and delete them."""

    def backlog(self) -> int:
        """Entries in the stream, read or not."""

    def acknowledged(self, run: UUID) -> Mapping[bytes, int]:
        """Per producer, how many events from 0 without a hole the database has committed."""

    def publish_acknowledged(self, run: UUID, upto: Mapping[bytes, int]) -> None:
        """Tell the shippers what :meth:`acknowledged` should say. Never lowers a number."""

    def generation(self) -> str | None:
        """A random id written with the first append; another one, or None, means that
        the server lost its data and everything not acknowledged must be sent again."""

    def close(self) -> None:
        """Let go of connections."""

    def ping(self) -> None:
        """Raise where the server does not answer."""
