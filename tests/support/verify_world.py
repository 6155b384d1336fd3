"""A run that was really recorded, sealed and anchored, in memory: what verification is for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.anchor.conditions import Condition
from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.capture.keys import RunKeys
from provenance.capture.ship.loop import Shipper
from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.event import Event, SegmentHeader, record_of
from provenance.formats.note import SignerKey
from provenance.formats.producers.batch import sign_batch
from provenance.formats.producers.statement import chain_on, chain_start
from provenance.formats.record import Kind, record_digest
from provenance.ledger.ingest import ingest
from provenance.ledger.seal import SealPolicy, seal_ready
from provenance.ports.network import Network
from provenance.ports.transport import Delivery
from provenance.settings import RetrySettings
from provenance.stores.memory_transport import MemoryTransport
from provenance.stores.sql import SqlStore
from provenance.tracker import ProvenanceTracker
from provenance.verify.report import VerificationReport
from provenance.verify.trust import PinnedChain, PinnedKey, Trust
from provenance.verify.verifier import verify
from tests.support.ledger_values import empty_store
from tests.support.nodes.memory_chain import MemoryNetwork
from tests.support.nodes.paper_node import paper_node
from tests.support.runs import run_of

ORIGIN = "example.org/ledger"
SIGNER = SignerKey.from_private_bytes(ORIGIN, bytes(range(32)))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
RUN = run_of(0x01890A5DAC96, KEY)
OTHER = run_of(0x01890A5DFFFF, KEY)
NOW = 1_700_000_000.0
OWN = Trust(
    ledger_keys=(PinnedKey(SIGNER.verifier, "the test"),),
    chains=(
        PinnedChain("ethereum", None, "the test"),
        PinnedChain("bitcoin", "regtest", "the test"),
    ),
    own=True,
)
"""As a deployment trusts its own evidence: its key, and the chains of its nodes."""
Fields = tuple[Kind, int | None, dict[str, Any]]


class Acknowledgements:
    """As much of a transport as ingest needs."""

    def ack(self, deliveries: object) -> None: ...

    def give_back(self, deliveries: object) -> None: ...

    def generation(self) -> None: ...

    def publish_acknowledged(self, run: UUID, upto: object, generation: object) -> None: ...


@dataclass
class World:
    """``networks`` by name, each a node of its own chain."""

    names: tuple[str, ...] = ("ethereum", "bitcoin")
    networks: dict[str, MemoryNetwork] = field(default_factory=dict)
    url: str | None = None
    signer: SignerKey = SIGNER
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        self.store = SqlStore.open(self.url) if self.url else empty_store()
        self.policy = SealPolicy(self.names, self.signer, grace_s=60.0)
        self.owners = count()
        self.now = NOW
        self.digests: dict[tuple[UUID, bytes], dict[int, bytes]] = {}
        for at, name in enumerate(self.names):
            self.networks[name] = paper_node(name, at + 1, self.signer)

    def batch(
        self,
        events: Iterable[Fields],
        *,
        run: UUID = RUN,
        producer: bytes = b"p" * 16,
        rank: int = 0,
        first: int = 0,
        key: Ed25519PrivateKey = KEY,
        identity: bytes | None = None,
        at: float = 0.0,
    ) -> bytes:
        """Events of a producer, one a second from ``at`` seconds behind ``NOW``."""
        header = SegmentHeader(run, producer, rank, 1, 0)
        records = [
            record_of(
                Event(seq, kind, epoch, rank, int((NOW + at + seq) * 1e9), fields),
                header,
                b"s" * 32,
            ).encode()
            for seq, (kind, epoch, fields) in enumerate(events, first)
        ]
        certificate, signer = RunKeys(run, key.private_bytes_raw()).producer(producer, rank)
        chain = self._chain(run, producer, first, records)
        return sign_batch(certificate, signer, first, chain, records, identity)

    def _chain(self, run: UUID, producer: bytes, first: int, records: list[bytes]) -> bytes:
        """That of the events before ``first``, as far as they were ever given."""
        known = self.digests.setdefault((run, producer), {})
        for seq, data in enumerate(records, first):
            known.setdefault(seq, record_digest(data))
        before = [known[seq] for seq in range(first) if seq in known]
        return chain_on(chain_start(run, producer), before)

    def ingest(self, *payloads: bytes) -> None:
        deliveries = [Delivery(str(at), payload) for at, payload in enumerate(payloads)]
        ingest(Acknowledgements(), self.store, self.policy, deliveries, lambda: self.now)  # type: ignore[arg-type]  # all of a transport that ingest uses

    def sweep(self, run: UUID = RUN, later: float = 0.0) -> None:
        with self.store.transaction() as tx:
            seal_ready(tx, run, self.policy, self.now + later)

    def anchor(self, blocks: int = 4) -> None:
        """Publish what is due, mine, and confirm until it is final."""
        for network in self.networks.values():
            publish(self._delivery(network))
            for _ in range(blocks if isinstance(network, MemoryNetwork) else 0):
                network.chain.mine(time=self.now)
            for _ in range(3):
                self.now += 1000.0
                confirm(self._delivery(network), poll_s=1.0, fee_bump_after_s=600.0)

    def _delivery(self, network: Network) -> AnchorDelivery:
        how = (f"owner-{next(self.owners)}", 60.0, RetrySettings(), lambda: 0.0, self.conditions)
        return AnchorDelivery(self.store, network, lambda: self.now, *how)

    def evidence(self, run: UUID = RUN) -> RunEvidence:
        return from_store(self.store, run, self.signer.verifier)

    def verify(
        self, evidence: RunEvidence | None = None, *, online: bool = True, **options: Any
    ) -> VerificationReport:
        networks: Mapping[str, Network] | None = self.networks if online else None
        options.setdefault("verifier_key", SIGNER.verifier)
        options.setdefault("trust", OWN)
        return verify(evidence or self.evidence(), networks, now=self.now, **options)

    def sql(self, statement: str, *values: Any) -> None:
        with self.store.exclusive() as connection:
            connection.exec_driver_sql(statement, values)


def config(key: Ed25519PrivateKey = KEY, world_size: object = 1) -> Fields:
    public = key.public_key().public_bytes_raw().hex()
    return (Kind.CONFIG, None, {"public_key": public, "world_size": world_size})


def seal(phase: str, epoch: int | None = None) -> Fields:
    return (Kind.SEAL, epoch, {"phase": phase, "epoch": epoch, "anchor": True})


def metrics(epoch: int, **values: Any) -> Fields:
    values = values or {"loss": 1.0 / epoch, "accuracy": 0.5 + epoch / 100}
    return (Kind.METRICS, epoch, {"metrics": values})


def before(**overrides: Any) -> list[Fields]:
    return [
        (Kind.DATA_TRAIN, None, {"algorithm": "blake3", "root": "mth-sha256:00"}),
        (Kind.DATA_TEST, None, {"algorithm": "blake3", "root": "mth-sha256:01"}),
        (Kind.ARCHITECTURE, None, {"type": "mlp"}),
        (Kind.WEIGHTS, None, {"algorithm": "blake3", "root": "mth-sha256:02"}),
        config(**overrides),
        seal("before"),
    ]


def training(epochs: int = 3, checkpoint: int | None = None) -> list[Fields]:
    events: list[Fields] = []
    for epoch in range(1, epochs + 1):
        events.append(metrics(epoch))
        events.append((Kind.STATE, epoch, {"algorithm": "blake3", "root": f"mth-sha256:{epoch}"}))
        if epoch == checkpoint:
            events.append(seal("checkpoint", epoch))
    return events


def ending(events: Sequence[Fields]) -> list[Fields]:
    """Results, after mark and run.end behind ``events``."""
    done: list[Fields] = [(Kind.RESULTS, None, {"results": {"accuracy": 0.9}}), seal("after")]
    total = len(events) + len(done)
    return [*events, *done, (Kind.RUN_END, None, {"events": total, "reason": "completed"})]


def story(epochs: int = 3, checkpoint: int | None = None) -> list[Fields]:
    """A whole run of one process."""
    return ending([*before(), *training(epochs, checkpoint)])


def finished(epochs: int = 3, checkpoint: int | None = None, **world: Any) -> World:
    """A world with one run, sealed and final on every network."""
    stage = World(**world)
    stage.ingest(stage.batch(story(epochs, checkpoint)))
    stage.anchor()
    return stage


def flip_metric(data: bytes, name: str = "loss", value: float = 0.001) -> bytes:
    """A record with one metric changed, still canonical."""
    document = json.loads(data)
    document["body"]["metrics"][name] = value
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def shipped(tracker: ProvenanceTracker) -> World:
    """A deployment that has taken all that the tracker wrote."""
    world, transport = World(names=()), MemoryTransport()
    with Shipper(tracker.spool_dir, transport) as shipper:
        shipper.run_once()
    world.ingest(*(d.payload for d in transport.read("worker", 1000)))
    return world
