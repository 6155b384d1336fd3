"""Persons, their keys, and a ledger whose final roots they approve before they are anchored."""

from __future__ import annotations

from dataclasses import replace as with_changes
from datetime import date
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from provenance.approvals.anchoring import AnchoringApprovals, Approval, add, take, waiting
from provenance.approvals.statement import Anchoring
from provenance.formats.approval import sign
from provenance.formats.dsse import Envelope
from provenance.ports.values import AnchorRow
from provenance.settings.approvals import ApprovalSettings
from tests.support.anchor_world import SIGNER, World
from tests.support.nodes.memory_chain import MemoryChain

SEEDS = {
    name: bytes(range(at, at + 32)) for at, name in enumerate(("alice", "bob", "carol", "eve"))
}
KEYS = {name: Ed25519PrivateKey.from_private_bytes(seed) for name, seed in SEEDS.items()}
BY = {name: KEYS[name].public_key().public_bytes_raw().hex() for name in ("alice", "bob", "carol")}
RULE = ApprovalSettings(2, BY, networks=())


def run_id(number: int) -> UUID:
    return UUID(int=0x01890A5DAC967800B000000000000000 + number)


class ApprovalWorld(World):
    """A world where two of alice, bob and carol approve; ``head`` takes ``final``."""

    def __init__(self, chain: MemoryChain | None = None, rule: ApprovalSettings = RULE) -> None:
        super().__init__(chain or MemoryChain())
        self.set_rule(rule)
        self.runs = 0

    def set_rule(self, rule: ApprovalSettings) -> None:
        networks: Any = (self.name,)  # which no configuration names
        rule = replace(rule, networks=networks)
        self.approvals = AnchoringApprovals(rule, SIGNER.verifier.vkey, self.clock)
        self.conditions = (self.approvals,)

    def final(self) -> AnchorRow:
        """A head that makes a run final, and a pass over it."""
        self.runs += 1
        row = self.head(final=run_id(self.runs))
        assert row is not None
        self.publish()
        return row

    def waiting(self) -> AnchorRow:
        with self.store.snapshot() as tx:
            row = waiting(tx, self.name)
        assert row is not None
        return row

    def take(self, until: date | None = None) -> Envelope:
        row = self.waiting()
        with self.store.transaction() as tx:
            known = take(self.approvals, tx, row, until)
        assert known.envelope is not None
        return known.envelope

    def add(self, envelope: Envelope, file: str = "a.json") -> Approval:
        with self.store.transaction() as tx:
            return add(self.approvals, tx, envelope, file)

    def approve(self, *names: str) -> Approval:
        return self.add(signed(self.take(), *names))


def signed(envelope: Envelope, *names: str) -> Envelope:
    for name in names:
        envelope = sign(envelope, KEYS[name])
    return envelope


def flipped(envelope: Envelope, name: str) -> Envelope:
    """With a bit of that person's signature changed."""
    key = BY[name]
    signature = envelope.signatures[key]
    assert isinstance(signature, bytes)
    bad = bytes([signature[0] ^ 1]) + signature[1:]
    return Envelope(envelope.payload, {**envelope.signatures, key: bad})


def altered(envelope: Envelope, **changes: Any) -> Envelope:
    """A statement with other values, signed by nobody."""
    stated = Anchoring.decode(envelope.payload, "x")
    return Envelope(with_changes(stated, **changes).encode(), {})
