"""Bitcoin: a head in an ``OP_RETURN`` output, through bitcoind's RPC.

Life of an anchor. ``draft`` funds and signs a transaction with the wallet: the key never
leaves bitcoind. ``sign`` only checks it and computes its id. The caller stores the bytes,
then ``broadcast`` locks the inputs and sends them. ``observe`` reads the raw transaction
back, hashes it, proves it into a block header by a Merkle proof (BIP 37) and counts blocks; the
JSON that a node decorates its answers with is believed for the depth alone, and at
``confirmations`` deep the headers on top are fetched and their work checked. A fee that does not
get mined is bumped on the same inputs (BIP 125); any version that is mined counts.

One anchor may be in flight per wallet.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from provenance.chains.bitcoin import multisig
from provenance.chains.bitcoin.client import CLIENT
from provenance.chains.bitcoin.reader import ChainReader
from provenance.chains.bitcoin.rpc import BitcoinRpc, Code, RpcError
from provenance.chains.bitcoin.wallet import Wallet
from provenance.errors import (
    ConfigError,
    FormatError,
    LyingNodeError,
    NetworkUnavailable,
    ProofError,
    RejectedError,
    WrongNetworkError,
)
from provenance.formats.fields import Fields
from provenance.formats.record import Json
from provenance.ports.network import Network, Requests, require_payload
from provenance.ports.values import Draft, Identity, Observation, Place, SignedVersion
from provenance.proofs.beacon import Beacon
from provenance.proofs.bitcoin import CHAINS, display, parse_transaction, verify_anchor
from provenance.settings import BitcoinSettings

_TXID = re.compile(r"[0-9a-f]{64}")
_BTC_PER_KVB = Decimal("0.00001")
"""One sat/vB."""


class BitcoinInterface(Network):
    """One bitcoind and its wallet.

    Every method that asks the node raises NetworkUnavailable where it does not answer,
    LyingNodeError where its answer does not hold.

    Raises:
        ConfigError: No URL, plain HTTP outside loopback, no login, or an unknown network.
    """

    name = "bitcoin"
    confirmations = 6

    def __init__(self, settings: BitcoinSettings, requests: Requests | None = None) -> None:
        if settings.network not in CHAINS:
            raise ConfigError(
                "blockchain.bitcoin.network",
                f"found {settings.network!r}, expected one of {', '.join(CHAINS)}",
            )
        self.confirmations = settings.confirmations
        self._settings, self._requests = settings, requests
        self._rules = CHAINS[settings.network]
        self._rpc = BitcoinRpc(settings)
        self._wallet = Wallet(self._rpc, settings)
        self._reader = ChainReader(self._rpc, settings)

    def client(self) -> str:
        """Name and version of the client library, as ``bitcoinrpc 0.7.0``."""
        return CLIENT

    def identity(self) -> Identity:
        """Chain name, genesis block, height, and the wallet's balance in satoshi.

        Raises:
            WrongNetworkError: Another chain than ``blockchain.bitcoin.network``.
            NetworkUnavailable: Also while it syncs, and where its wallet is not there.
        """
        info = self._rpc.read(Fields.object, "getblockchaininfo")
        genesis, chain = self._rpc.read(Fields.text, "getblockhash", 0), info.text("chain")
        if chain != self._settings.network:
            raise WrongNetworkError(
                f"bitcoin: the node serves {chain!r}, expected {self._settings.network!r} "
                "(blockchain.bitcoin.network)"
            )
        if genesis != self._rules.genesis:
            raise WrongNetworkError(
                f"bitcoin: found genesis {genesis}, expected {self._rules.genesis} for {chain}"
            )
        height = info.integer("blocks")
        # A regtest node calls itself syncing whenever its newest block is a day old.
        if info.raw.get("initialblockdownload") is not False and chain != "regtest":
            raise NetworkUnavailable(f"bitcoin: the node is still syncing, at block {height}")
        fields: dict[str, Json] = {
            "chain": chain,
            "genesis": genesis,
            "version": self._rpc.read(Fields.object, "getnetworkinfo").text("subversion"),
            "pruned": info.raw.get("pruned") is True,
            "transaction_index": self._reader.indexed(),
        }
        wallet, balance = self._settings.wallet, self._wallet.balance()
        return Identity(self.name, fields, height, wallet, balance)

    def newest_block(self) -> Beacon | None:
        """As :meth:`Network.newest_block`."""
        height = self._reader.height() - self.confirmations + 1
        if height < 0:
            return None
        raw = self._reader.header(self._reader.hash_at(height) or "")[0]
        return Beacon(self.name, self._settings.network, height, raw)

    def depth_of(self, block: Beacon) -> int:
        """As :meth:`Network.depth_of`."""
        if self._reader.hash_at(block.height) != block.shown:
            return 0
        return max(0, self._reader.header(block.shown)[2])

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Build and sign in the wallet; :meth:`broadcast` locks the inputs there.

        Raises:
            InsufficientFundsError, FeeTooLowError
            RejectedError: As :func:`~provenance.ports.network.require_payload`.
        """
        require_payload(self.name, payload, replaces)
        tip = self._rpc.read(Fields.text, "getbestblockhash")
        if replaces is not None:
            tip = str(replaces.detail.get("tip", tip))
        if self._settings.multisig is not None:
            request = None if self._requests is None else self._requests(payload[4:])
            signed = multisig.cosigned(self._settings, request, payload, replaces)
            return Draft(self.name, payload, signed | {"tip": tip})
        funded = self._wallet.fund(payload) if replaces is None else self._wallet.bump(replaces)
        return Draft(self.name, payload, funded.fields | {"tip": tip})

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """The drafted bytes as a version. Talks to nobody.

        Raises:
            RejectedError: The draft is not one of this network's.
        """
        detail = dict(draft.fields)
        try:
            raw = bytes.fromhex(str(detail.pop("raw")))
            transaction = parse_transaction(raw)
            claimed = detail.pop("txid")
            rate = float(str(detail["feerate"]))
        except (KeyError, ValueError, FormatError) as error:
            raise RejectedError("bitcoin: the draft holds no signed transaction") from error
        if display(transaction.txid) != claimed or draft.payload not in transaction.data:
            raise RejectedError("bitcoin: the draft's transaction is not for its payload")
        return SignedVersion(
            network=self.name,
            payload=draft.payload,
            transaction_id=display(transaction.txid),
            raw=raw,
            key=self._settings.wallet or "",
            fee=math.ceil(rate),
            detail=detail,
        )

    def broadcast(self, version: SignedVersion) -> None:
        """Send; a transaction that the node has, or has in a block, is success.

        -25 is ambiguous (its outputs may be spent already, or its inputs may be) and is
        settled by looking; where nothing is found it is raised as retryable, since a
        rebuilt transaction could become a second anchor.

        Raises:
            FeeTooLowError: Below what the mempool takes, or too little to replace with.
            RejectedError: Invalid, and it will stay so.
        """
        self._wallet.set_locks(version.detail.get("inputs"), locked=True)
        ceiling = (Decimal(version.fee) + 1) * _BTC_PER_KVB
        try:
            echoed = self._rpc.call("sendrawtransaction", version.raw.hex(), ceiling)
        except RpcError as error:
            failure = error.broadcast_failure()
            if failure is None:
                return
            if error.code in (Code.VERIFY, Code.VERIFY_REJECTED):
                place = self.observe(version).place
                if place in (Place.PENDING, Place.MINED):
                    return
                if error.code == Code.VERIFY:
                    raise NetworkUnavailable(f"bitcoin: {error}; {place.value}") from error
            raise failure from error
        if echoed != version.transaction_id:
            problem = f"sent {version.transaction_id}, the node took something else"
            raise LyingNodeError(f"bitcoin: {problem}")

    def observe(self, version: SignedVersion) -> Observation:
        """Where the version is. For CONFLICTED, ``depth`` is that of what was mined instead."""
        inputs = version.detail.get("inputs")
        found = self._reader.find(version.transaction_id)
        if found is None:
            conflict = self._reader.spender_depth(version)
            if conflict:
                self._wallet.set_locks(inputs, locked=False)
                return self._reader.conflicted(conflict)
        elif version.payload not in found.transaction.data:
            raise LyingNodeError(f"bitcoin: {version.transaction_id} does not carry its payload")
        seen = self._reader.place(found)
        if seen.place in (Place.UNKNOWN, Place.PENDING):
            self._wallet.set_locks(inputs, locked=True)
        elif seen.place is Place.CONFLICTED:
            self._wallet.set_locks(inputs, locked=False)
        return seen

    def lookup(self, transaction_id: str) -> Observation:
        """Find a transaction by id: in the mempool, the node's index or the wallet.

        Raises:
            NetworkUnavailable: Also where the node keeps no index to be sure by.
            RejectedError: Not a transaction id.
        """
        if not _TXID.fullmatch(transaction_id):
            shown = repr(transaction_id[:80])
            raise RejectedError(f"bitcoin: {shown} is not a transaction id (64 hex digits)")
        found = self._reader.find(transaction_id)
        if found is None and not self._reader.indexed():
            raise NetworkUnavailable(
                f"bitcoin: the node does not know {transaction_id} and keeps no index of all "
                "transactions; start it with txindex=1 to be sure"
            )
        return self._reader.place(found)

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """Raw transaction, Merkle proof, block header and the headers on top, all hex.

        ``headers`` are at most ``confirmations - 1``, oldest first.
        :func:`provenance.proofs.bitcoin.verify_anchor` checks them without a node.

        Raises:
            NetworkUnavailable: Not in a block (any more).
        """
        found = self._reader.find(version.transaction_id)
        if seen.block_hash is None or found is None or found.block_hash != seen.block_hash:
            problem = f"{version.transaction_id} is not in block {seen.block_hash}"
            raise NetworkUnavailable(f"bitcoin: {problem}")
        header, height, depth = self._reader.header(seen.block_hash)
        proof = self._reader.proof(version.transaction_id, seen.block_hash)
        try:
            verify_anchor(found.raw, proof, header, version.payload, self._settings.network)
        except (ProofError, FormatError) as error:
            raise LyingNodeError(f"bitcoin: {error}") from error
        above = self._reader.headers_above(header, height, min(depth, self.confirmations) - 1)
        spent = version.detail.get("spent")
        return {
            **({} if spent is None else {"spent": spent}),
            "type": "bitcoin",
            "chain": self._settings.network,
            "transaction_id": version.transaction_id,
            "transaction": found.raw.hex(),
            "merkle_block": proof.hex(),
            "header": header.hex(),
            "block_hash": seen.block_hash,
            "height": height,
            "headers": [item.hex() for item in above],
        }
