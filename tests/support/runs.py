"""Makes signed batches of a run for tests, as a shipper would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.capture.keys import RunKeys
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.note import SignerKey
from provenance.formats.producers.batch import sign_batch
from provenance.formats.producers.certificate import run_id
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.record import Kind, record_digest
from provenance.ledger.seal import SealPolicy
from provenance.ports.transport import Delivery

RUN_KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
_times = count(0x0192F0C20000)


def run_of(milliseconds: int, key: Ed25519PrivateKey = RUN_KEY) -> UUID:
    """The id of a run that began then; many runs here share a key."""
    return run_id(key.public_key().public_bytes_raw(), milliseconds)


def some_run() -> UUID:
    """Another run at each call."""
    return run_of(next(_times))


RUN = run_of(0x0192F0C12345)
POLICY = SealPolicy(("local",), SignerKey.from_private_bytes("test/ledger", b"\x05" * 32), 60.0)
START_NS = 1_760_000_000_000_000_000


@dataclass
class Producer:
    """One producer's events, numbered and signed."""

    run: UUID = RUN
    rank: int = 0
    world_size: int = 1
    name: bytes = b"\x01" * 16
    key: Ed25519PrivateKey = field(default_factory=lambda: RUN_KEY)
    identity: bytes | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def add(self, kind: Kind, epoch: int | None = None, /, **fields: Any) -> Event:
        seq = len(self.events)
        event = Event(seq, kind, epoch, self.rank, START_NS + seq * 1000, fields)
        self.events.append(event)
        return event

    def seal(self, phase: str, epoch: int | None = None, anchor: bool = True) -> None:
        self.add(Kind.SEAL, epoch, phase=phase, anchor=anchor, epoch=epoch)

    def begin(self) -> None:
        """Data, model, config and the before mark: seq 0 to 5."""
        self.add(Kind.DATA_TRAIN, root="t")
        self.add(Kind.DATA_TEST, root="u")
        self.add(Kind.ARCHITECTURE, structure="net")
        self.add(Kind.WEIGHTS, root="w")
        self.add(
            Kind.CONFIG,
            public_key=self.public_key.hex(),
            hash_algorithm="blake3",
            world_size=self.world_size,
            training={"epochs": 2},
        )
        self.seal("before")

    def epoch(self, number: int, loss: float = 0.5) -> None:
        self.add(Kind.METRICS, number, metrics={"loss": loss, "accuracy": 0.9})
        self.add(Kind.STATE, number, root=f"s{number}")

    def finish(self, anchor: bool = True) -> None:
        """Results, the after mark and run.end."""
        self.add(Kind.RESULTS, results={"accuracy": 0.9})
        self.seal("after", anchor=anchor)
        self.end()

    def end(self) -> None:
        self.add(Kind.RUN_END, events=len(self.events), reason="finished")

    def records(self, events: Sequence[Event] | None = None) -> list[bytes]:
        header = SegmentHeader(self.run, self.name, self.rank, self.world_size, 0)
        wanted = self.events if events is None else events
        return [record_of(event, header, b"s" * 32).encode() for event in wanted]

    def batch(self, first: int = 0, last: int | None = None) -> bytes:
        """The events ``first`` to ``last`` (excluded) as one signed batch."""
        return self.signed(first, self.records(self.events[first:last]))

    def signed(self, first: int, records: list[bytes]) -> bytes:
        """Any records as one batch, behind the events before ``first``."""
        keys = RunKeys(self.run, self.key.private_bytes_raw())
        certificate, key = keys.producer(self.name, self.rank)
        before = map(record_digest, self.records(self.events[:first]))
        chain = chain_on(chain_start(self.run, self.name), before)
        return sign_batch(certificate, key, first, chain, records, self.identity)

    def deliveries(self, size: int = 2) -> list[Delivery]:
        """All events in batches of ``size``."""
        return [
            Delivery(f"{self.name.hex()[:4]}-{at}", self.batch(at, at + size))
            for at in range(0, len(self.events), size)
        ]


def complete_run(epochs: int = 2, run: UUID = RUN) -> Producer:
    """A whole run of one producer."""
    producer = Producer(run=run)
    producer.begin()
    for number in range(1, epochs + 1):
        producer.epoch(number)
    producer.finish()
    return producer
