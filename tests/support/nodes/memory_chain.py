"""A chain in memory: the fake of :class:`provenance.ports.network.Network`, faults on order.

:class:`MemoryChain` is the world: blocks, a mempool, nonces or coins, a fee level. Any
number of :class:`MemoryNetwork` nodes look at it; each has its own faults. It keeps the
rules that matter for anchoring: one transaction per nonce or coin is ever mined, nonces are
mined without a gap, a replacement must pay a tenth more, what pays less than the fee level
waits, blocks can be replaced and mempools forgotten.

For tests and for trying the pipeline without a node; it proves nothing to anybody.

Over 400 lines: one world, whose rules refer to each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from provenance.errors import (
    FeeTooLowError,
    InsufficientFundsError,
    LyingNodeError,
    NetworkUnavailable,
    NonceUsedError,
    ProvenanceError,
    RejectedError,
    WrongNetworkError,
)
from provenance.formats.record import Json, canonical_json
from provenance.ports.values import (
    PAYLOAD_BYTES,
    PAYLOAD_TAG,
    Draft,
    Identity,
    Observation,
    Place,
    SignedVersion,
    payload_root,
)
from provenance.proofs.beacon import Beacon

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MemoryTransaction:
    """What a chain keeps. ``spends`` is the nonce as text, or a coin."""

    id: str
    key: str
    spends: str
    fee: int
    payload: bytes
    reverts: bool = False


@dataclass(slots=True)
class MemoryBlock:
    """One block; ``hash`` covers its parent, so that a replaced block has another."""

    hash: str
    time: float
    transactions: tuple[MemoryTransaction, ...]


@dataclass(slots=True)
class MemoryChain:
    """The world that nodes look at.

    Args:
        nonces: True for accounts with nonces (Ethereum), False for coins (Bitcoin).
        fee: What a transaction must pay per unit to get into a block.
    """

    nonces: bool = True
    chain_id: int = 1337
    fee: int = 10
    balance: int = 10**9
    blocks: list[MemoryBlock] = field(default_factory=list)
    mempool: dict[str, MemoryTransaction] = field(default_factory=dict)
    seen: dict[str, MemoryTransaction] = field(default_factory=dict)
    coins: int = 0
    forks: int = 0

    @property
    def height(self) -> int:
        """Height of the newest block; -1 before the first."""
        return len(self.blocks) - 1

    @property
    def genesis(self) -> str:
        """A hash that depends on the chain id alone."""
        return hashlib.sha256(f"genesis {self.chain_id}".encode()).hexdigest()

    def mined(self) -> Iterable[tuple[int, MemoryTransaction]]:
        """``(height, transaction)`` in order."""
        for height, block in enumerate(self.blocks):
            for transaction in block.transactions:
                yield height, transaction

    def find(self, txid: str) -> tuple[int, MemoryTransaction] | None:
        """Where a transaction is mined."""
        return next(((h, t) for h, t in self.mined() if t.id == txid), None)

    def spender(self, key: str, spends: str) -> tuple[int, MemoryTransaction] | None:
        """The mined transaction that spent a nonce or coin of a key."""
        wanted = (key, spends)
        return next(((h, t) for h, t in self.mined() if (t.key, t.spends) == wanted), None)

    def next_nonce(self, key: str, pending: bool = True) -> int:
        """Nonces of a key that are mined, or waiting behind those without a gap."""
        used = {t.spends for _, t in self.mined() if t.key == key}
        if pending:
            used |= {t.spends for t in self.mempool.values() if t.key == key}
        nonce = 0
        while str(nonce) in used:
            nonce += 1
        return nonce

    def accept(self, transaction: MemoryTransaction) -> None:
        """Take a transaction into the mempool.

        Raises:
            NonceUsedError: Its nonce or coin is spent in a block by another.
            FeeTooLowError: It does not pay a tenth more than the one it would replace.
        """
        self.seen[transaction.id] = transaction
        spender = self.spender(transaction.key, transaction.spends)
        if spender is not None and spender[1].id != transaction.id:
            raise NonceUsedError(f"{transaction.spends} is spent by {spender[1].id}")
        if spender is not None or transaction.id in self.mempool:
            return
        rival = self.rival(transaction)
        if rival is not None and transaction.fee * 10 < rival.fee * 11:
            raise FeeTooLowError(f"fee {transaction.fee} to replace one of {rival.fee}")
        self._drop_rival(transaction)
        self.mempool[transaction.id] = transaction

    def rival(self, transaction: MemoryTransaction) -> MemoryTransaction | None:
        """The waiting transaction that spends the same nonce or coin."""
        wanted = (transaction.key, transaction.spends)
        return next((t for t in self.mempool.values() if (t.key, t.spends) == wanted), None)

    def _drop_rival(self, transaction: MemoryTransaction) -> None:
        rival = self.rival(transaction)
        if rival is not None:
            del self.mempool[rival.id]

    def mine(self, count: int = 1, time: float = 0.0) -> None:
        """Add blocks; the first takes all that pays the fee and whose turn it is."""
        for _ in range(count):
            self._add_block(self._ready(), time)

    def _ready(self) -> list[MemoryTransaction]:
        ready: list[MemoryTransaction] = []
        waiting = sorted(
            (t for t in self.mempool.values() if t.fee >= self.fee),
            key=lambda t: (t.key, int(t.spends) if self.nonces else 0, t.id),
        )
        turn = {t.key: self.next_nonce(t.key, pending=False) for t in waiting}
        for transaction in waiting:
            if self.nonces and int(transaction.spends) != turn[transaction.key]:
                continue
            turn[transaction.key] += 1
            ready.append(transaction)
        return ready

    def _add_block(self, transactions: Iterable[MemoryTransaction], time: float) -> None:
        taken = tuple(transactions)
        for transaction in taken:
            self.mempool.pop(transaction.id, None)
            self._drop_rival(transaction)
            self.balance -= transaction.fee
        parent = self.blocks[-1].hash if self.blocks else self.genesis
        body = "".join([parent, str(self.forks), *(t.id for t in taken)])
        self.blocks.append(MemoryBlock(hashlib.sha256(body.encode()).hexdigest(), time, taken))

    def reorg(
        self, depth: int, *, keep: bool = True, instead: Iterable[str] = (), time: float = 0.0
    ) -> None:
        """Replace the newest ``depth`` blocks by as many and one more.

        Args:
            keep: Transactions of the replaced blocks wait again; else they are forgotten.
            instead: Ids ever seen that the first new block takes, replaced versions included.
        """
        depth = min(depth, len(self.blocks))
        kept = len(self.blocks) - depth
        orphans = [t for block in self.blocks[kept:] for t in block.transactions]
        del self.blocks[kept:]
        self.forks += 1
        self.balance += sum(t.fee for t in orphans)
        if keep:
            for transaction in orphans:
                self._drop_rival(transaction)
                self.mempool[transaction.id] = transaction
        self._add_block([self.seen[txid] for txid in instead], time)
        for _ in range(depth):
            self._add_block((), time)

    def forget_mempool(self) -> None:
        """Drop all that waits, as a restarted node without a saved mempool does."""
        self.mempool.clear()


def _may_fail(method: Callable[Concatenate[MemoryNetwork, P], T]) -> Callable[..., T]:
    """A call to the node, with the faults that were ordered for it."""
    name = method.__name__

    @wraps(method)
    def call(self: MemoryNetwork, *args: P.args, **options: P.kwargs) -> T:
        self.calls.append(name)
        if self.on_call is not None:
            self.on_call(name, "before")
        if self._hung:
            raise self._no_answer(name)
        failure = next((f for f in self._failures if f[0] == name), None)
        if failure is not None:
            self._failures.remove(failure)
            if not failure[2]:
                raise failure[1]
        answer = method(self, *args, **options)
        if self.on_call is not None:
            self.on_call(name, "after")
        if failure is not None:
            raise failure[1]
        return answer

    return call


@dataclass(slots=True)
class MemoryNetwork:
    """One node of a :class:`MemoryChain`, and the key that signs.

    Args:
        max_fee: Cap of the fee, as in the settings of a real network.
        on_call: Called as ``(method, "before" | "after")`` around each call: a test raises
            here to die at that point, or lets somebody else run.
    """

    chain: MemoryChain = field(default_factory=MemoryChain)
    name: str = "memory"
    confirmations: int = 3
    key: str = "memory-key"
    max_fee: int = 100
    on_call: Callable[[str, str], None] | None = None
    calls: list[str] = field(default_factory=list)
    beacons: list[Beacon] = field(default_factory=list)
    """Blocks with a real header, oldest first, for :meth:`newest_block` and :meth:`depth_of`."""
    _failures: list[tuple[str, ProvenanceError, bool]] = field(default_factory=list)
    _lies: dict[str, object] = field(default_factory=dict)
    _hung: bool = False

    @property
    def uses_nonce(self) -> bool:
        """As the chain."""
        return self.chain.nonces

    # --- faults ---------------------------------------------------------------------------

    def fail_next(self, method: str, error: ProvenanceError, times: int = 1) -> None:
        """The next calls of ``method`` raise ``error`` and do nothing."""
        self._failures += [(method, error, False)] * times

    def lose_answer_next(self, method: str = "broadcast") -> None:
        """The next call of ``method`` does its work, and its answer is lost."""
        self._failures.append((method, self._no_answer(method), True))

    def hang(self, hung: bool = True) -> None:
        """Every call runs into its deadline, until ``hang(False)``."""
        self._hung = hung

    def lie(self, **answers: object) -> None:
        """Give these answers instead of the truth: ``chain_id``, ``root`` (what mined
        transactions carry), ``place``. No argument: the truth again."""
        self._lies = dict(answers)

    def _no_answer(self, method: str) -> NetworkUnavailable:
        return NetworkUnavailable(f"{self.name}: no answer to {method} within the deadline")

    # --- the port -------------------------------------------------------------------------

    @_may_fail
    def newest_block(self) -> Beacon | None:
        """The last of ``beacons``."""
        return self.beacons[-1] if self.beacons else None

    @_may_fail
    def depth_of(self, block: Beacon) -> int:
        """By its place among ``beacons``, each as deep as an anchor has to be."""
        known = self.beacons[::-1]
        return known.index(block) + self.confirmations if block in known else 0

    @_may_fail
    def identity(self) -> Identity:
        """Chain id and genesis; a lie changes the chain id."""
        lie = self._lies.get("chain_id")
        fields: dict[str, Json] = {
            "chain_id": self.chain.chain_id if lie is None else str(lie),
            "genesis": self.chain.genesis,
            "version": "memory/1",
        }
        return Identity(self.name, fields, self.chain.height, self.key, self.chain.balance)

    @_may_fail
    def next_nonce(self) -> int:
        """Mined and waiting without a gap; 0 without nonces."""
        return self.chain.next_nonce(self.key) if self.uses_nonce else 0

    @_may_fail
    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Fee level, or 15 % above the version it replaces; a fresh coin without nonces."""
        if payload_root(payload) is None:
            raise RejectedError(f"{self.name}: payload is not {PAYLOAD_BYTES} bytes of MLP1")
        fee = self.chain.fee
        if replaces is not None:
            fee = max(fee, -(-replaces.fee * 115 // 100))
        if fee > self.max_fee:
            raise FeeTooLowError(f"{self.name}: needs a fee of {fee}, the cap is {self.max_fee}")
        if self.chain.balance < fee:
            raise InsufficientFundsError(f"{self.name}: balance {self.chain.balance} of {fee}")
        fields: dict[str, Json] = {"fee": fee, "chain_id": self.chain.chain_id}
        if not self.uses_nonce and replaces is not None:
            fields["coin"] = replaces.detail["coin"]
        elif not self.uses_nonce:
            self.chain.coins += 1
            fields["coin"] = f"coin-{self.chain.coins}"
        return Draft(self.name, payload, fields)

    @_may_fail
    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """Deterministic; the id is the SHA-256 of the bytes."""
        fee = draft.fields["fee"]
        assert isinstance(fee, int)
        if self.uses_nonce and nonce is None:
            raise RejectedError(f"{self.name}: no nonce to sign with")
        detail = dict(draft.fields)
        raw = canonical_json(
            detail | {"key": self.key, "nonce": nonce, "payload": draft.payload.hex()}
        )
        txid = hashlib.sha256(raw).hexdigest()
        return SignedVersion(self.name, draft.payload, txid, raw, self.key, nonce, fee, detail)

    @_may_fail
    def broadcast(self, version: SignedVersion) -> None:
        """Into the mempool; known or mined already is success."""
        self.chain.accept(self._parse(version.raw))

    @_may_fail
    def observe(self, version: SignedVersion) -> Observation:
        """Where the version is, with the root that the chain itself carries."""
        transaction = self._parse(version.raw)
        if transaction.id != version.transaction_id:
            raise LyingNodeError(f"{self.name}: bytes of {transaction.id}, not of the version")
        seen = self._where(transaction.id)
        if seen.place in (Place.UNKNOWN, Place.PENDING):
            spender = self.chain.spender(transaction.key, transaction.spends)
            if spender is not None:
                seen = self._at(Place.CONFLICTED, spender[0])
        return seen

    @_may_fail
    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """The bytes and the block they are in."""
        return {"raw": version.raw.hex(), "block": seen.block_hash}

    @_may_fail
    def lookup(self, transaction_id: str) -> Observation:
        """By id alone."""
        return self._where(transaction_id)

    def close(self) -> None:
        """Nothing is open."""

    def _where(self, txid: str) -> Observation:
        if "place" in self._lies:
            return Observation(Place(str(self._lies["place"])))
        found = self.chain.find(txid)
        if found is None:
            return Observation(Place.PENDING if txid in self.chain.mempool else Place.UNKNOWN)
        height, transaction = found
        block, lie = self.chain.blocks[height], self._lies.get("root")
        return replace(
            self._at(Place.FAILED if transaction.reverts else Place.MINED, height),
            root=lie if isinstance(lie, bytes) else transaction.payload[len(PAYLOAD_TAG) :],
            block_hash=block.hash,
            height=height,
            block_time=block.time,
        )

    def _at(self, place: Place, height: int) -> Observation:
        depth = self.chain.height - height + 1
        return Observation(place, depth=depth, final=depth >= self.confirmations)

    def _parse(self, raw: bytes) -> MemoryTransaction:
        try:
            fields = json.loads(raw)
            nonce, coin = fields["nonce"], fields.get("coin")
            payload = bytes.fromhex(fields["payload"])
            chain_id, fee, key = fields["chain_id"], int(fields["fee"]), str(fields["key"])
        except (ValueError, KeyError, TypeError) as error:
            raise RejectedError(f"{self.name}: not a transaction: {error}") from error
        if chain_id != self.chain.chain_id:
            raise WrongNetworkError(f"{self.name}: signed for chain {chain_id}")
        spends = str(nonce) if self.uses_nonce else str(coin)
        return MemoryTransaction(hashlib.sha256(raw).hexdigest(), key, spends, fee, payload)
