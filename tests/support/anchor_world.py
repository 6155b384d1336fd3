"""A ledger, a chain in memory and a clock in hand: the stage of the anchoring tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

from provenance.anchor.conditions import Condition
from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery, Pass
from provenance.anchor.publish import publish
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.merkle import Frontier
from provenance.formats.note import SignerKey
from provenance.formats.receipt import Receipt
from provenance.formats.record import Phase
from provenance.ports.values import (
    AnchorRow,
    AnchorState,
    Draft,
    HeadRow,
    NetworkRow,
    SignedVersion,
    VersionRow,
)
from provenance.settings import RetrySettings
from tests.support.ledger_values import empty_store
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork

RUN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ORIGIN = "example.org/ledger"
SIGNER = SignerKey.from_private_bytes(ORIGIN, bytes(range(32)))
RETRY = RetrySettings(base_s=2.0, cap_s=60.0)
LEASE_S = 30.0
POLL_S = 5.0
BUMP_S = 600.0


@dataclass
class World:
    """``node`` is the default view of ``chain``; time stands still until ``now`` is set."""

    chain: MemoryChain = field(default_factory=MemoryChain)
    name: str = "memory"
    now: float = 1_000_000.0
    rng: Callable[[], float] = lambda: 0.5
    retry: RetrySettings = RETRY
    max_in_flight: int | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        self.store = empty_store()
        self.node = MemoryNetwork(self.chain, name=self.name)
        self.owners = count()
        self.size = 0
        self.frontier = Frontier.empty()
        with self.store.transaction() as tx:
            tx.add_run(RUN, SIGNER.verifier.public_bytes, self.now)

    def clock(self) -> float:
        return self.now

    def head(
        self, entries: int = 1, due: bool = True, final: UUID | None = None
    ) -> AnchorRow | None:
        """Append entries, add the head over them and, where ``due``, its outbox row; the last is
        the final root of the run ``final``, where one is given."""
        with self.store.transaction() as tx:
            for at in range(entries):
                root = hashlib.sha256(f"root {self.size}".encode()).digest()
                if final is not None and at == entries - 1:
                    tx.add_run(final, SIGNER.verifier.public_bytes, self.now)
                    tx.append_entry(final, Phase.AFTER, None, root, True, self.now)
                else:
                    tx.append_entry(RUN, Phase.CHECKPOINT, self.size, root, True, self.now)
                self.frontier = self.frontier.append(root)
                self.size += 1
            root = self.frontier.root()
            note = sign_head(Head(ORIGIN, self.size, root), SIGNER)
            row = HeadRow(self.size, root, note, self.frontier.to_bytes(), self.now)
            tx.add_head(row)
            return tx.add_anchor(self.name, self.size, self.now) if due else None

    def publish(self, node: MemoryNetwork | None = None) -> Pass:
        return publish(self.delivery(node), max_in_flight=self.max_in_flight)

    def confirm(self, node: MemoryNetwork | None = None) -> Pass:
        return confirm(self.delivery(node), poll_s=POLL_S, fee_bump_after_s=BUMP_S)

    def delivery(self, node: MemoryNetwork | None = None) -> AnchorDelivery:
        owner = f"owner-{next(self.owners)}"
        node = node or self.node
        common = (owner, LEASE_S, self.retry, self.rng, self.conditions)
        return AnchorDelivery(self.store, node, self.clock, *common)

    def sent(self) -> AnchorRow:
        """A head that the network has accepted."""
        self.head()
        self.publish()
        row = self.row()
        assert row.state is AnchorState.SENT
        return row

    def confirmed(self) -> AnchorRow:
        """A head one block deep."""
        self.sent()
        self.chain.mine(time=self.now)
        self.confirm()
        row = self.row()
        assert row.state is AnchorState.CONFIRMED
        return row

    def rows(self) -> list[AnchorRow]:
        with self.store.snapshot() as tx:
            return list(tx.anchors(self.name))

    def row(self) -> AnchorRow:
        """The row of the largest head."""
        return self.rows()[-1]

    def save(self, row: AnchorRow) -> None:
        with self.store.transaction() as tx:
            tx.save_anchor(row)

    def versions(self, anchor_id: int | None = None) -> list[VersionRow]:
        wanted = anchor_id or self.row().id
        with self.store.snapshot() as tx:
            return list(tx.versions(wanted))

    def receipts(self) -> dict[tuple[int, int], Receipt]:
        """By entry index and anchor id."""
        with self.store.snapshot() as tx:
            rows = tx.receipts(RUN)
        return {(r.index, r.anchor_id): Receipt.decode(r.document.encode()) for r in rows}

    def network(self) -> NetworkRow | None:
        with self.store.snapshot() as tx:
            return tx.network(self.name)

    @property
    def paused(self) -> str | None:
        known = self.network()
        return known.paused if known else None

    def mined_roots(self) -> list[bytes]:
        return [transaction.payload[4:] for _, transaction in self.chain.mined()]


def foreign(version: SignedVersion, fee: int = 50) -> SignedVersion:
    """What somebody else with the same key signs for the same nonce or coin."""
    payload = b"MLP1" + bytes(32)
    signer = MemoryNetwork(MemoryChain(nonces=version.nonce is not None), name=version.network)
    draft = Draft(version.network, payload, dict(version.detail) | {"fee": fee})
    return signer.sign(draft, version.nonce)
