"""Reading Bitcoin back: where a transaction is, and the proof that it is there.

Whatever counts is recomputed from raw bytes: ids are hashed, payloads parsed, headers
hashed and their work checked, and a Merkle proof ties the transaction to the header.
"""

from __future__ import annotations

from dataclasses import dataclass

from provenance.chains.bitcoin.rpc import (
    BitcoinRpc,
    Code,
    RpcError,
    answered,
    depth,
    octets,
)
from provenance.errors import FormatError, LyingNodeError, NetworkUnavailable, ProofError
from provenance.formats.fields import Fields
from provenance.ports.values import Observation, Place, SignedVersion, payload_root
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
class NodeTransaction:
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


class ChainReader:
    """What one node tells about transactions and blocks, checked.

    Every method raises NetworkUnavailable where the node does not answer, LyingNodeError where
    what it answers does not hold.
    """

    def __init__(self, rpc: BitcoinRpc, settings: BitcoinSettings) -> None:
        self._rpc = rpc
        self._settings = settings
        self._confirmations = settings.confirmations
        self._rules = CHAINS[settings.network]

    def indexed(self) -> bool:
        """Whether the node knows every transaction by id (``txindex=1``)."""
        index = self._rpc.read(Fields.object, "getindexinfo", "txindex").raw.get("txindex")
        return isinstance(index, dict) and index.get("synced") is True

    def find(self, txid: str) -> NodeTransaction | None:
        """A transaction from the mempool or the index, else from the wallet; None if absent."""
        try:
            answer = answered(self._rpc.call("getrawtransaction", txid, 1), "getrawtransaction")
        except RpcError as error:
            if error.code != Code.NOT_FOUND:
                raise error.translated() from error
        else:
            return _read(txid, answer.object("getrawtransaction"))
        try:
            result = self._rpc.call("gettransaction", txid, None, False, wallet=True)
            kept = answered(result, "gettransaction").object("gettransaction")
        except RpcError as error:
            if error.code in (Code.NOT_FOUND, Code.WALLET_NOT_FOUND):
                return None
            raise error.translated() from error
        except NetworkUnavailable:
            if self._settings.wallet is None:  # a verifier's node needs no wallet
                return None
            raise
        deep = depth(kept, "confirmations")
        return _read(txid, kept, forgotten=deep == 0, conflict=max(0, -deep))

    def place(self, found: NodeTransaction | None) -> Observation:
        """Whether the transaction is in the mempool, in a block (proven), or in neither."""
        if found is None:
            return Observation(Place.UNKNOWN)
        if found.conflict:
            return self.conflicted(found.conflict)
        root = next(filter(None, map(payload_root, found.transaction.data)), None)
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

    def conflicted(self, depth: int) -> Observation:
        """Another transaction spent an input, ``depth`` deep."""
        return Observation(Place.CONFLICTED, depth=depth, final=depth >= self._confirmations)

    def proof(self, txid: str, block_hash: str) -> bytes:
        """The ``merkleblock`` message (BIP 37) of one transaction, not checked."""
        return self._rpc.read(octets, "gettxoutproof", [txid], block_hash)

    def height(self) -> int:
        """Of the newest block."""
        return self._rpc.read(Fields.integer, "getblockcount")

    def hash_at(self, height: int) -> str | None:
        """The hash of the block at a height; None above the newest."""
        try:
            return answered(self._rpc.call("getblockhash", height), "hash").text("hash")
        except RpcError as error:
            if error.code != Code.INVALID_PARAMETER:
                raise error.translated() from error
            return None

    def header(self, block_hash: str) -> tuple[bytes, int, int]:
        """The 80 bytes, checked, with height and depth (-1 outside the best chain)."""
        answer = self._rpc.read(Fields.object, "getblockheader", block_hash, True)
        raw = self._rpc.read(octets, "getblockheader", block_hash, False)
        self._checked_header(raw, block_hash)
        return raw, answer.integer("height"), depth(answer, "confirmations")

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
        """The next ``count`` headers of 80 bytes, each on top of the one before;
        NetworkUnavailable where the chain changed meanwhile."""
        above: list[bytes] = []
        below = parse_header(raw)
        for step in range(1, count + 1):
            block_hash = self._rpc.read(Fields.text, "getblockhash", height + step)
            data = self._rpc.read(octets, "getblockheader", block_hash, False)
            header = self._checked_header(data, block_hash)
            if header.previous != below.hash:
                raise NetworkUnavailable("bitcoin: the chain changed while it was read")
            above.append(data)
            below = header
        return above

    def spender_depth(self, version: SignedVersion) -> int:
        """Depth of a mined wallet transaction that spent one of the version's inputs, or 0."""
        tip, inputs = version.detail.get("tip"), version.detail.get("inputs")
        if not isinstance(tip, str) or not isinstance(inputs, list):
            return 0
        listed = self._rpc.read(Fields.object, "listsinceblock", tip, wallet=True)
        for entry in listed.objects("transactions"):
            deep = depth(entry, "confirmations")
            if entry.raw.get("category") != "send" or deep < 1:
                continue
            found = self.find(entry.text("txid"))
            spent = found.transaction.inputs if found else ()
            if any(point.shown in inputs for point in spent):
                return deep
        return 0


def _read(
    txid: str, answer: Fields, *, forgotten: bool = False, conflict: int = 0
) -> NodeTransaction:
    raw = octets(answer, "hex")
    transaction = parsed(raw)
    if display(transaction.txid) != txid:
        raise LyingNodeError(f"bitcoin: asked for {txid}, got another transaction")
    block_hash = answer.text("blockhash") if answer.raw.get("blockhash") is not None else None
    return NodeTransaction(transaction, raw, block_hash, forgotten, conflict)


def parsed(raw: bytes) -> Transaction:
    """A transaction of the node's; LyingNodeError where it is none."""
    try:
        return parse_transaction(raw)
    except FormatError as error:
        raise LyingNodeError(f"bitcoin: the node's transaction does not parse: {error}") from error
