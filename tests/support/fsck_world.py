"""A small deployment on disk that is really recorded, sealed and anchored, for the checker."""

from __future__ import annotations

import copy
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.chains.local import LocalNetwork
from provenance.formats.event import Event, SegmentHeader, frame
from provenance.formats.note import SignerKey
from provenance.formats.record import Kind, Record, record_digest
from provenance.fsck.checker import Deployment, Options, fsck
from provenance.fsck.findings import FsckReport
from provenance.fsck.local_file import LocalReader
from provenance.fsck.onchain import ChainReader, ChainTransaction, ChainView, Question
from provenance.fsck.stream import StreamView
from provenance.ledger.batch_writer import BatchWriter, IngestResult
from provenance.ledger.ingest import ingest
from provenance.ledger.seal import SealPolicy, note_due
from provenance.ports.transport import Delivery
from provenance.settings import ApprovalSettings, LocalSettings, RetrySettings, redis_address
from provenance.stores.sql import SqlStore
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork, MemoryTransaction
from tests.support.runs import Producer, run_of
from tests.support.verify_world import Acknowledgements

FIRST = run_of(0x0192F0C12345)
SECOND = run_of(0x0192F0C19999)
SEED = b"\x05" * 32
SIGNER = SignerKey.from_private_bytes("test/ledger", SEED)
FIRST_PRODUCER, SECOND_PRODUCER = b"\x01" * 16, b"\x02" * 16
START = 1_760_000_100.0
NETWORKS = ("memory", "local")


@dataclass
class MemoryReader:
    """A chain in memory as the checker reads it."""

    chain: MemoryChain
    key: str = "memory-key"
    confirmations: int = 3
    name: str = "memory"

    def read(self, question: Question) -> ChainView:
        mined = [
            ChainTransaction(
                transaction.id,
                "failed" if transaction.reverts else "mined",
                transaction.payload,
                height,
                self.chain.height - height + 1,
                self.chain.height - height + 1 >= self.confirmations,
                ours=transaction.key == self.key,
                key=transaction.key,
                nonce=int(transaction.spends),
            )
            for height, transaction in self.chain.mined()
        ]
        waiting = [ChainTransaction(id, "pending", None) for id in self.chain.mempool]
        return ChainView(
            {"chain_id": self.chain.chain_id, "genesis": self.chain.genesis},
            [*mined, *waiting],
            next_nonce={self.key: self.chain.next_nonce(self.key, pending=False)},
        )


@dataclass
class World:
    """Two runs, five ledger entries, five heads; every head final on two networks.

    The first run has entries 0 and 1, the second 2 to 4 (before, checkpoint 1, after).
    """

    base: Path
    chain: MemoryChain = field(default_factory=MemoryChain)
    now: float = START
    database_url: str | None = None
    redis_url: str | None = None
    readers: dict[str, ChainReader] | None = None
    networks: tuple[str, ...] = NETWORKS
    key: bool = True
    options: Options = field(default_factory=Options)
    rule: ApprovalSettings | None = None

    @property
    def database(self) -> Path:
        return self.base / "ledger.db"

    @property
    def url(self) -> str:
        return self.database_url or f"sqlite:///{self.database}"

    @property
    def anchors(self) -> Path:
        return self.base / "anchors.jsonl"

    def copied(self, base: Path) -> World:
        shutil.copytree(self.base, base)
        return World(base, copy.deepcopy(self.chain), self.now)

    # --- building -------------------------------------------------------------------------

    def build(self) -> None:
        first = Producer(run=FIRST, name=FIRST_PRODUCER)
        first.begin()
        self.take(first, 0)
        first.epoch(1)
        first.epoch(2)
        first.finish()
        self.take(first, 6)
        second = Producer(run=SECOND, name=SECOND_PRODUCER)
        second.begin()
        self.take(second, 0)
        second.epoch(1)
        second.seal("checkpoint", 1)
        self.take(second, 6)
        second.epoch(2)
        second.finish()
        self.take(second, 9)
        self.spool(second)

    def take(self, producer: Producer, start: int) -> None:
        """Ingest from ``start`` on, and anchor what was sealed by it."""
        self.ingest(producer.batch(start))
        self.anchor()

    def ingest(self, *payloads: bytes, policy: SealPolicy | None = None) -> None:
        store = SqlStore.open(self.url)
        deliveries = [Delivery(str(at), payload) for at, payload in enumerate(payloads)]
        chosen = policy or SealPolicy(NETWORKS, SIGNER, 60.0)
        ingest(Acknowledgements(), store, chosen, deliveries, lambda: self.now)  # type: ignore[arg-type]  # all of a transport that ingest uses
        store.close()

    def anchor(self) -> None:
        store = SqlStore.open(self.url)
        local = LocalNetwork(LocalSettings(self.anchors), SEED, lambda: self.now)
        for network in (MemoryNetwork(self.chain), local):
            for step in range(3):
                self.now += 1000.0
                rest: tuple[Any, ...] = (
                    lambda: self.now, f"owner-{self.now}-{step}", 60.0, RetrySettings(),
                    lambda: 0.0,
                )  # fmt: skip
                publish(AnchorDelivery(store, network, *rest))
                self.chain.mine(4, time=self.now)
                confirm(AnchorDelivery(store, network, *rest), poll_s=1.0)
        store.close()

    def spool(self, producer: Producer, events: Sequence[Event] | None = None) -> Path:
        """A segment with the producer's events, as a dead trainer leaves one."""
        wanted = producer.events if events is None else events
        folder = self.base / "spool" / str(producer.run)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"r0-{producer.name.hex()}-{len(list(folder.iterdir())):08d}.seg"
        header = SegmentHeader(producer.run, producer.name, 0, 1, wanted[0].seq)
        path.write_bytes(header.encode() + b"".join(frame(event.encode()) for event in wanted))
        return path

    # --- looking and breaking ---------------------------------------------------------------

    def fsck(self, *, offline: bool = False) -> FsckReport:
        asked = self.readers
        if asked is None:
            key = SIGNER.verifier.public_bytes if self.key else None
            asked = {"memory": MemoryReader(self.chain), "local": LocalReader(self.anchors, key)}
        bare = patch("provenance.fsck.checker.read_streams", lambda *_: StreamView())
        with bare if self.redis_url is None else nullcontext():
            return self._fsck(None if offline else asked)

    def _fsck(self, asked: Mapping[str, ChainReader] | None) -> FsckReport:
        return fsck(
            Deployment(
                self.base / "spool",
                self.url,
                redis_address(self.redis_url or "redis://nobody-asked/0"),
                self.networks,
                SIGNER.verifier if self.key else None,
                60.0,
                self.base / "blockchain_manager.jsonl",
                approvals=self.rule,
            ),
            asked,
            self.now,
            self.options,
        )

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Past every constraint, as somebody with the file in hand does it."""
        with sqlite3.connect(self.database) as connection:
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute("PRAGMA ignore_check_constraints=ON")
            rows = connection.execute(statement, values).fetchall()
        connection.close()
        return rows

    def record(self, run: UUID, seq: int) -> bytes:
        found = self.sql("SELECT data FROM records WHERE run=? AND seq=?", run.hex, seq)
        return bytes(found[0][0])

    def write_record(self, run: UUID, seq: int, data: bytes, *, digest: bool) -> None:
        self.sql("UPDATE records SET data=? WHERE run=? AND seq=?", data, run.hex, seq)
        if digest:
            value = record_digest(data)
            self.sql("UPDATE records SET digest=? WHERE run=? AND seq=?", value, run.hex, seq)

    def anchor_id(self, network: str, size: int) -> int:
        rows = self.sql("SELECT id FROM anchors WHERE network=? AND size=?", network, size)
        return int(rows[0][0])

    def forget_anchor(self, network: str, size: int) -> str:
        """Delete an anchor row with all that refers to it; its transaction."""
        id = self.anchor_id(network, size)
        txid = self.sql("SELECT transaction_id FROM anchor_versions WHERE anchor_id=?", id)[0][0]
        for table in ("receipts", "anchor_versions", "nonces"):
            self.sql(f"DELETE FROM {table} WHERE anchor_id=?", id)
        self.sql("DELETE FROM anchors WHERE id=?", id)
        return str(txid)

    def transaction(self, size: int) -> tuple[int, MemoryTransaction]:
        """Height and transaction of the memory chain's anchor of a head."""
        root = bytes(self.sql("SELECT root FROM heads WHERE size=?", size)[0][0])
        return next((h, t) for h, t in self.chain.mined() if t.payload[4:] == root)

    def insert(self, producer: Producer, first: int = 0) -> None:
        """Records from ``first`` on without a seal, as a worker leaves them that does not seal."""
        store = SqlStore.open(self.url)
        with store.transaction() as tx:
            writer = BatchWriter(tx, self.now, IngestResult(), None)
            writer.take(Delivery("0", producer.batch(first)))
            writer.save()
            for run, epochs in writer.touched.items():
                note_due(tx, run, epochs)
        store.close()


def changed(data: bytes, **fields: Any) -> bytes:
    """A record with other fields or another body, canonical again."""
    record = Record.decode(data)
    names = ("run", "kind", "epoch", "rank", "producer", "seq", "ts", "salt", "body")
    values = {name: getattr(record, name) for name in names} | fields
    return Record(**values).encode()


def other_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32)


def event(producer: bytes, seq: int, loss: float = 0.1) -> Event:
    """A metrics event of either run's producer."""
    return Event(seq, Kind.METRICS, 9, 0, int(START * 1e9), {"metrics": {"loss": loss}})
