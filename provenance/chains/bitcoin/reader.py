"""Reading Bitcoin back: where a transaction is, and the proof that it is there.

Whatever counts is recomputed from raw bytes: ids are hashed, payloads parsed, headers
hashed and their work checked, and a Merkle proof ties the transaction to the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from provenance.chains.ahead import Call, slices
from provenance.chains.bitcoin.rpc import (
    BitcoinRpc,
    Code,
    RpcError,
    Value,
    as_bytes,
    as_integer,
    as_list,
    as_object,
    as_text,
)
from provenance.chains.bitcoin.wallet import Funding
from provenance.errors import (
    FormatError,
    LyingNodeError,
    NetworkError,
    NetworkUnavailable,
    ProofError,
)
from provenance.ports.values import PAYLOAD_BYTES, PAYLOAD_TAG, Observation, Place, SignedVersion
from provenance.proofs.bitcoin import (
    CHAINS,
    BlockHeader,
    Transaction,
    check_work,
    display,
    parse_header,
    parse_merkle_block,
    parse_transaction,
    prove_inclusion,
)
from provenance.settings import BitcoinSettings


@dataclass(frozen=True, slots=True)
class Found:
    """Where a node keeps a transaction.

    Attributes:
        block_hash: None outside a block.
        forgotten: Only the wallet remembers it; the mempool has dropped it.
        conflict: Depth of the mined transaction that spent an input of this one, or 0.
    """

    transaction: Transaction
    raw: bytes
    block_hash: str | None = None
    forgotten: bool = False
    conflict: int = 0


class ChainView:
    """What one node tells about transactions and blocks, checked."""

    def __init__(self, rpc: BitcoinRpc, funding: Funding, settings: BitcoinSettings) -> None:
        self._rpc = rpc
        self._funding = funding
        self._settings = settings
        self._confirmations = settings.confirmations
        self._rules = CHAINS[settings.network]

    def indexed(self) -> bool:
        """Whether the node knows every transaction by id."""
        indexes = as_object(self._rpc.ask("getindexinfo", "txindex"), "getindexinfo")
        index = indexes.get("txindex")
        return isinstance(index, dict) and index.get("synced") is True

    def find(self, txid: str) -> Found | None:
        """From the mempool or the index; else from the wallet."""
        try:
            answer = as_object(self._rpc.call("getrawtransaction", txid, 1), "getrawtransaction")
        except RpcError as error:
            if error.code != Code.NOT_FOUND:
                raise error.translated() from error
        else:
            return self._read(txid, answer)
        try:
            answer = as_object(
                self._funding.call("gettransaction", txid, None, False), "gettransaction"
            )
        except RpcError as error:
            if error.code in (Code.NOT_FOUND, Code.WALLET_NOT_FOUND):
                return None
            raise error.translated() from error
        except NetworkUnavailable:
            if self._settings.wallet is None:  # a verifier's node needs no wallet
                return None
            raise
        depth = as_integer(answer.get("confirmations"), "gettransaction.confirmations")
        return self._read(txid, answer, forgotten=depth == 0, conflict=max(0, -depth))

    def _read(
        self,
        txid: str,
        answer: dict[str, Value],
        *,
        forgotten: bool = False,
        conflict: int = 0,
    ) -> Found:
        raw = as_bytes(answer.get("hex"), "hex")
        try:
            transaction = parse_transaction(raw)
        except FormatError as error:
            raise LyingNodeError(f"bitcoin: {txid} does not parse: {error}") from error
        if display(transaction.txid) != txid:
            raise LyingNodeError(f"bitcoin: asked for {txid}, got another transaction")
        block = answer.get("blockhash")
        return Found(
            transaction,
            raw,
            None if block is None else as_text(block, "blockhash"),
            forgotten,
            conflict,
        )

    def place(self, found: Found | None) -> Observation:
        """Mempool, block (proven), or neither."""
        if found is None:
            return Observation(Place.UNKNOWN)
        if found.conflict:
            return self.conflicted(found.conflict)
        root = _root(found.transaction)
        if found.block_hash is None:
            return Observation(Place.UNKNOWN if found.forgotten else Place.PENDING, root)
        raw_header, height, depth = self.header(found.block_hash)
        if depth < 1:  # the block left the best chain, and the mempool did not take it back
            return Observation(Place.UNKNOWN, root)
        header = parse_header(raw_header)
        proof = self.proof(display(found.transaction.txid), found.block_hash)
        try:
            block = parse_merkle_block(proof)
            prove_inclusion(found.transaction, block)
        except (ProofError, FormatError) as error:
            raise LyingNodeError(f"bitcoin: {error}") from error
        if block.header.hash != header.hash:
            raise LyingNodeError("bitcoin: the Merkle proof is for another block")
        final = depth >= self._confirmations
        if final:
            self.headers_above(raw_header, height, self._confirmations - 1)
        return Observation(
            Place.MINED, root, found.block_hash, height, depth, final, float(header.time)
        )

    def place_many(self, txids: Sequence[str]) -> dict[str, Observation]:
        """:meth:`find` and :meth:`place` with the calls of many in few requests; without
        those that failed, or that are not mined: they are worth a question of their own."""
        placed: dict[str, Observation] = {}
        for some in slices(txids):
            with self._rpc.ahead.lasting():
                try:
                    self._ask_ahead(some)
                    for txid in some:
                        with suppress(NetworkError):
                            seen = self.place(self.find(txid))
                            if seen.place is Place.MINED:
                                placed[txid] = seen
                except NetworkUnavailable:
                    break
        return placed

    def _ask_ahead(self, txids: Sequence[str]) -> None:
        """All that :meth:`find` and :meth:`place` are going to ask for."""
        ask, find = self._rpc.ask_ahead, self._rpc.ahead.find
        ask(("getrawtransaction", (txid, 1)) for txid in txids)
        blocks: dict[str, list[str]] = {}
        for txid in txids:
            for told in find(("getrawtransaction", (txid, 1))):
                block = told.get("blockhash") if isinstance(told, dict) else None
                if isinstance(block, str):
                    blocks.setdefault(block, []).append(txid)
        ask(
            call
            for block, inside in blocks.items()
            for call in (
                ("getblockheader", (block, True)),
                ("getblockheader", (block, False)),
                *(("gettxoutproof", ([txid], block)) for txid in inside),
            )
        )
        heights: list[Call] = []
        for block in blocks:
            for told in find(("getblockheader", (block, True))):
                if not isinstance(told, dict):
                    continue
                height, depth = told.get("height"), told.get("confirmations")
                if not isinstance(height, int) or not isinstance(depth, int):
                    continue
                steps = self._confirmations if depth >= self._confirmations else 0
                heights += [("getblockhash", (height + step,)) for step in range(1, steps)]
        ask(heights)
        ask(
            ("getblockheader", (name, False))
            for call in heights
            for name in find(call)
            if isinstance(name, str)
        )

    def conflicted(self, depth: int) -> Observation:
        """Another transaction spent an input, ``depth`` deep."""
        return Observation(Place.CONFLICTED, depth=depth, final=depth >= self._confirmations)

    def proof(self, txid: str, block_hash: str) -> bytes:
        """The ``merkleblock`` message of one transaction, not checked."""
        return as_bytes(self._rpc.ask("gettxoutproof", [txid], block_hash), "gettxoutproof")

    def header(self, block_hash: str) -> tuple[bytes, int, int]:
        """The 80 bytes, checked, with height and depth (-1 outside the best chain)."""
        told = as_object(self._rpc.ask("getblockheader", block_hash, True), "getblockheader")
        raw = as_bytes(self._rpc.ask("getblockheader", block_hash, False), "getblockheader")
        self._checked_header(raw, block_hash)
        return (
            raw,
            as_integer(told.get("height"), "getblockheader.height"),
            as_integer(told.get("confirmations"), "getblockheader.confirmations"),
        )

    def _checked_header(self, raw: bytes, block_hash: str) -> BlockHeader:
        try:
            header = parse_header(raw)
            check_work(header, self._rules.limit)
        except (ProofError, FormatError) as error:
            raise LyingNodeError(f"bitcoin: {error}") from error
        if display(header.hash) != block_hash:
            raise LyingNodeError(f"bitcoin: asked for block {block_hash}, got another header")
        return header

    def headers_above(self, raw: bytes, height: int, count: int) -> list[bytes]:
        """The next ``count`` headers, each on top of the one before."""
        above: list[bytes] = []
        below = parse_header(raw)
        for step in range(1, count + 1):
            block_hash = as_text(self._rpc.ask("getblockhash", height + step), "getblockhash")
            data = as_bytes(self._rpc.ask("getblockheader", block_hash, False), "getblockheader")
            header = self._checked_header(data, block_hash)
            if header.previous != below.hash:
                raise NetworkUnavailable("bitcoin: the chain changed while it was read")
            above.append(data)
            below = header
        return above

    def spender_depth(self, version: SignedVersion) -> int:
        """Depth of a mined wallet transaction that spent one of the version's inputs, or 0."""
        tip = version.detail.get("tip")
        told = version.detail.get("inputs")
        if not isinstance(tip, str) or not isinstance(told, list):
            return 0
        listed = as_object(self._funding.ask("listsinceblock", tip), "listsinceblock")
        for each in as_list(listed.get("transactions"), "listsinceblock.transactions"):
            entry = as_object(each, "listsinceblock.transactions")
            depth = as_integer(entry.get("confirmations"), "listsinceblock.confirmations")
            if entry.get("category") != "send" or depth < 1:
                continue
            found = self.find(as_text(entry.get("txid"), "listsinceblock.txid"))
            spent = found.transaction.inputs if found else ()
            if any(f"{display(point.txid)}:{point.vout}" in told for point in spent):
                return depth
        return 0


def _root(transaction: Transaction) -> bytes | None:
    for data in transaction.data:
        if len(data) == PAYLOAD_BYTES and data.startswith(PAYLOAD_TAG):
            return data[len(PAYLOAD_TAG) :]
    return None
