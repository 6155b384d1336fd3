"""MemoryTransport: the event transport inside one process, for a ledger's first run and for tests.

It promises what :class:`provenance.stores.redis_streams.RedisStreams` promises, and can
play a server that is away (``unavailable``) or was emptied (:meth:`lose_everything`).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from provenance.errors import TransportUnavailable
from provenance.ports.transport import CLIPPED_BYTES, HOLD_S, MAX_ENTRY_BYTES, READ_BYTES, Delivery


@dataclass(slots=True)
class _Entry:
    payload: bytes
    consumer: str | None = None
    given_at: float = 0.0
    deliveries: int = 0


class MemoryTransport:
    """Batches through a dict.

    Args:
        clock: Seconds, for :meth:`claim_stale`.
        hold_s: As :data:`HOLD_S`, here for all runs at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, hold_s: float = HOLD_S) -> None:
        self.unavailable = False
        """While True, every call raises TransportUnavailable."""
        self._clock, self._hold_s = clock, hold_s
        self._lock = threading.Lock()
        self.lose_everything()

    def lose_everything(self) -> None:
        """What FLUSHALL does to a server; entries get the same ids again."""
        with self._lock:
            self._number = 0
            self._entries: dict[str, _Entry] = {}
            self._acked: dict[UUID, dict[bytes, bytes]] = {}
            self._generation: str | None = None
            self._heads: dict[str, tuple[int, str]] = {}
            self._beacons: dict[str, bytes] = {}
            self._ledger: str | None = None

    def append(self, payloads: Sequence[bytes]) -> None:
        self.ping()
        with self._lock:
            self._generation = self._generation or secrets.token_hex(16)
            for payload in payloads:
                self._number += 1
                self._entries[str(self._number)] = _Entry(bytes(payload))

    def read(self, consumer: str, count: int) -> list[Delivery]:
        given = [entry for entry in list(self._entries.values()) if entry.consumer is not None]
        held_since = self._clock() - self._hold_s
        if any(entry.consumer != consumer and entry.given_at > held_since for entry in given):
            count = 0
        return self._give(consumer, count, lambda entry: entry.consumer is None)

    def wait(self, seconds: float) -> bool:
        """Whether there is an entry that no consumer was given; looks again each 10 ms."""
        self.ping()
        until = self._clock() + seconds
        while not any(entry.consumer is None for entry in list(self._entries.values())):
            if self._clock() >= until:
                return False
            time.sleep(0.01)
        return True

    def claim_stale(self, consumer: str, min_idle_s: float, count: int) -> list[Delivery]:
        latest = self._clock() - min_idle_s
        return self._give(
            consumer, count, lambda e: e.consumer is not None and e.given_at <= latest
        )

    def _give(self, consumer: str, count: int, wanted: Callable[[_Entry], bool]) -> list[Delivery]:
        self.ping()
        with self._lock:
            given, size = list[Delivery](), 0
            for key, entry in self._entries.items():
                if len(given) == count or size >= READ_BYTES:
                    break
                if not wanted(entry):
                    continue
                entry.consumer, entry.given_at = consumer, self._clock()
                entry.deliveries += 1
                size += len(entry.payload)
                fits = len(entry.payload) <= MAX_ENTRY_BYTES
                payload = entry.payload if fits else entry.payload[:CLIPPED_BYTES]
                given.append(
                    Delivery(key, payload, self._generation, len(entry.payload), entry.deliveries)
                )
            return given

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.ping()
        with self._lock:
            for delivery in deliveries:
                if delivery.generation == self._generation:
                    self._entries.pop(delivery.id, None)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self.ping()
        with self._lock:
            for delivery in deliveries:
                entry = self._entries.get(delivery.id)
                if delivery.generation == self._generation and entry is not None:
                    entry.deliveries -= 1

    def backlog(self, run: UUID | None = None) -> int:
        """Entries, read or not; all runs are in one stream."""
        self.ping()
        return len(self._entries)

    def acknowledged(self, run: UUID) -> Mapping[bytes, bytes]:
        self.ping()
        return dict(self._acked.get(run, {}))

    def publish_acknowledged(
        self, run: UUID, acknowledgements: Mapping[bytes, bytes], generation: str | None
    ) -> None:
        self.ping()
        with self._lock:
            if generation == self._generation:
                self._acked.setdefault(run, {}).update(acknowledgements)

    def generation(self) -> str | None:
        self.ping()
        return self._generation

    def ledger(self, claim: str | None = None) -> str | None:
        self.ping()
        self._ledger = self._ledger or claim
        return self._ledger

    def close(self) -> None:
        """Nothing is open."""

    def beacon(self, network: str) -> bytes | None:
        self.ping()
        return self._beacons.get(network)

    def publish_beacon(self, network: str, beacon: bytes) -> None:
        self.ping()
        self._beacons[network] = beacon

    def newest_head(self, key: str) -> str | None:
        self.ping()
        return self._heads[key][1] if key in self._heads else None

    def remember_head(self, key: str, size: int, note: str) -> None:
        self.ping()
        with self._lock:
            self._heads[key] = max(self._heads.get(key, (0, "")), (size, note))

    def ping(self) -> None:
        if self.unavailable:
            raise TransportUnavailable("memory transport: unavailable")
