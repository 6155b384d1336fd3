"""Readers of the chains: what of ours is on each network, in its own words.

Nothing here is shared with :mod:`provenance.chains`, so that a mistake there is not repeated.

==========  ===============================================================================
ethereum    every transaction of our senders, from their first; by id, whatever the database
            names. A root counts where the ``HashStored`` event is in the receipt or the
            contract has it, or as plain calldata.
bitcoin     every transaction that the wallet sent; by id, whatever the database names. A
            root counts as an ``OP_RETURN`` push of the raw transaction. What another wallet
            sent, or this one before it was made anew, is not searched.
ipfs        the pins that are blocks of one of our heads, read back.
==========  ===============================================================================
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from provenance.errors import FormatError, LyingNodeError, NetworkUnavailable
from provenance.formats import json_text
from provenance.fsck.onchain import ChainTransaction, ChainView, Question
from provenance.fsck.outbox import PAYLOAD_TAG
from provenance.fsck.rpc import BATCH, HTTP_OK, RefusedError, Rpc
from provenance.proofs.bitcoin import parse_transaction
from provenance.proofs.ipfs.cid import Cid, decode_cid, raw_cid
from provenance.settings import BitcoinSettings, EthereumSettings, IPFSSettings

MAX_BLOCKS: Final = 50_000
"""Ethereum blocks that are read one by one, without being asked to, where the node does not
tell a sender's nonce at old ones."""
STORE_HASH: Final = "2acf9f93"
"""First 4 bytes of keccak-256("storeHash(bytes32,string)")."""
STORE_SIGNED: Final = "727dec84"
"""The same of "storeHash(bytes32,string,uint256,bytes[])", with owners' signatures."""
VERIFY_HASH: Final = "ef020f4a"
"""First 4 bytes of keccak-256("verifyHash(bytes32)")."""
HASH_STORED: Final = "0x29d4dc06d18afc28c7aeaf637e61675390403eeb1ce5e5d03632998f55ce876e"
"""keccak-256("HashStored(bytes32,address,uint64,string)"): the event's first topic."""
_NOT_FOUND: Final = -5


@dataclass(frozen=True, slots=True)
class EthereumReader:
    """An Ethereum node. ``senders`` are addresses beside those that the database names."""

    settings: EthereumSettings
    senders: frozenset[str] = frozenset()
    name: str = "ethereum"

    def read(self, question: Question) -> ChainView:
        """What the senders sent, then what else rows name."""
        rpc = Rpc(self.name, self.settings.url, self.settings.timeout_s)
        tip = _number(rpc.call("eth_blockNumber"))
        identity = {
            "chain_id": _number(rpc.call("eth_chainId")),
            "genesis": _object(rpc.call("eth_getBlockByNumber", "0x0", False)).get("hash"),
        }
        senders = {each.lower() for each in self.senders | question.keys}
        found, notes = self._sent(rpc, senders, question.since, tip)
        absent = sorted(question.ids - found.keys())
        for each in rpc.batch([("eth_getTransactionByHash", txid) for txid in absent]):
            if each is not None:
                found[str(_object(each)["hash"])] = each
        counts = rpc.batch([("eth_getTransactionCount", each, "latest") for each in senders])
        return ChainView(
            identity,
            list(self._transactions(rpc, found, senders, tip)),
            next_nonce=dict(zip(senders, map(_number, counts), strict=True)),
            notes=notes,
        )

    def _sent(
        self, rpc: Rpc, senders: set[str], since: int | None, tip: int
    ) -> tuple[dict[str, Mapping[str, Any]], tuple[str, ...]]:
        """All transactions of the senders from a height on, and what was not searched.

        A sender's nonce counts its transactions, so the blocks in which it moves are found by
        halving: about log2(blocks) questions for each, from the sender's first on. A node that
        does not tell old nonces is read block by block, and asked for the contract's events
        before that.
        """
        low = since or 0
        if not senders:
            return {}, ()
        try:
            blocks, spent = _spending(rpc, senders, low, tip)
            found = self._scan(rpc, blocks, senders)
        except RefusedError:  # it keeps no state of old blocks
            spent, found = 1, {}
        if len(found) >= spent:
            return found, ()
        start = max(0, tip + 1 - MAX_BLOCKS) if since is None else since
        found = self._scan(rpc, range(start, tip + 1), senders)
        if start == low:
            return found, ()
        for txid in self._stored(rpc, senders, hex(start - 1)):
            found.setdefault(txid, _object(rpc.call("eth_getTransactionByHash", txid)))
        beside = " but for events of the contract" if self.settings.contract_address else ""
        return found, (
            f"ethereum: the node does not tell old nonces, and blocks below {start} were not "
            f"searched for transactions that no row knows{beside}; search them with "
            "--since-block ethereum=HEIGHT",
        )

    def stores(self) -> list[str]:
        """Transactions in which anybody stored a root in the contract."""
        rpc = Rpc(self.name, self.settings.url, self.settings.timeout_s)
        return self._stored(rpc, set(), "latest")

    def _stored(self, rpc: Rpc, senders: set[str], last: str) -> list[str]:
        """Transactions in which the contract stored a root, up to a block; for these senders
        where there are any."""
        address = self.settings.contract_address
        if address is None:
            return []
        by = ["0x" + sender.removeprefix("0x").zfill(64) for sender in sorted(senders)]
        wanted = {"fromBlock": "0x0", "toBlock": last, "address": address}
        logs = rpc.call("eth_getLogs", {**wanted, "topics": [HASH_STORED, None, by or None]})
        return [str(log["transactionHash"]) for log in logs]

    def _scan(
        self, rpc: Rpc, heights: Sequence[int], senders: set[str]
    ) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for at in range(0, len(heights), BATCH):
            part = heights[at : at + BATCH]
            for block in rpc.batch([("eth_getBlockByNumber", hex(n), True) for n in part]):
                for each in _object(block).get("transactions", []):
                    if str(each["from"]).lower() in senders:
                        found[str(each["hash"])] = each
        return found

    def _transactions(
        self, rpc: Rpc, found: Mapping[str, Mapping[str, Any]], senders: set[str], tip: int
    ) -> Iterable[ChainTransaction]:
        block = ("eth_getBlockByNumber", "finalized", False)
        finalized = _object(rpc.call(*block))["number"] if self.settings.use_finalized else None
        mined = {txid: t for txid, t in found.items() if t.get("blockNumber") is not None}
        receipts = rpc.batch([("eth_getTransactionReceipt", txid) for txid in mined])
        held = dict(zip(mined, receipts, strict=True))
        for txid, each in found.items():
            key, receipt = str(each["from"]).lower(), held.get(txid)
            own = ChainTransaction(
                txid,
                "pending",
                payload=None,
                ours=key in senders,
                key=key,
                nonce=_number(each["nonce"]),
                creates=each.get("to") is None,
            )
            if receipt is not None:
                height = _number(each["blockNumber"])
                depth, worked = tip - height + 1, _number(receipt["status"]) == 1
                deep = depth >= self.settings.confirmations
                own = replace(
                    own,
                    place="mined" if worked else "failed",
                    payload=self._payload(rpc, each, receipt) if worked else None,
                    height=height,
                    depth=depth,
                    final=deep if finalized is None else height <= _number(finalized),
                )
            yield own

    def _payload(
        self, rpc: Rpc, each: Mapping[str, Any], receipt: Mapping[str, Any]
    ) -> bytes | None:
        calldata = str(each.get("input") or each.get("data") or "0x")[2:]
        if not calldata.startswith((STORE_HASH, STORE_SIGNED)):
            return bytes.fromhex(calldata) if len(calldata) == 72 else None
        root, contract = calldata[8:72], str(each["to"]).lower()
        for log in receipt.get("logs", []):
            topics = log["topics"]
            if str(log["address"]).lower() == contract and topics[:2] == [HASH_STORED, "0x" + root]:
                return PAYLOAD_TAG + bytes.fromhex(root)
        # The first write wins: a later one leaves no event, and the root is there all the same.
        call = {"to": contract, "data": f"0x{VERIFY_HASH}{root}"}
        there = str(rpc.call("eth_call", call, "latest"))
        return PAYLOAD_TAG + bytes.fromhex(root) if there == "0x" + "1".zfill(64) else None


def _spending(rpc: Rpc, senders: set[str], low: int, tip: int) -> tuple[list[int], int]:
    """Blocks from ``low`` to ``tip`` in which a nonce of the senders moves, and how many
    transactions that takes."""
    blocks: set[int] = set()
    spent = 0
    for sender in senders:

        def nonces(heights: Sequence[int], sender: str = sender) -> list[int]:
            calls = [("eth_getTransactionCount", sender, hex(height)) for height in heights]
            return [_number(each) for each in rpc.batch(calls)]

        before = nonces([low - 1])[0] if low else 0
        after = nonces([tip])[0]
        spent += after - before
        spans = [(low - 1, before, tip, after)]
        while spans:
            spans = [span for span in spans if span[1] != span[3]]
            blocks |= {end for start, _, end, _ in spans if end - start == 1}
            wide = [span for span in spans if span[2] - span[0] > 1]
            middles = [(start + end) // 2 for start, _, end, _ in wide]
            spans = []
            for (start, first, end, last), middle, nonce in zip(
                wide, middles, nonces(middles), strict=True
            ):
                spans += [(start, first, middle, nonce), (middle, nonce, end, last)]
    return sorted(blocks), spent


@dataclass(frozen=True, slots=True)
class BitcoinReader:
    """A bitcoind and the wallet that anchors."""

    settings: BitcoinSettings
    name: str = "bitcoin"

    def read(self, question: Question) -> ChainView:
        """What the wallet sent, then what else rows name."""
        rpc = Rpc(self.name, self.settings.url, self.settings.timeout_s, self._login())
        info = _object(rpc.call("getblockchaininfo"))
        identity = {"chain": info["chain"], "genesis": rpc.call("getblockhash", 0)}
        wallet = f"/wallet/{quote(self.settings.wallet, safe='')}" if self.settings.wallet else ""
        since = "" if question.since is None else rpc.call("getblockhash", question.since)
        listed = _object(rpc.call("listsinceblock", since, 1, True, False, path=wallet))
        sent = {
            str(each["txid"]): int(each["confirmations"])
            for each in listed["transactions"]
            if each.get("category") == "send"
        }
        rest = sorted(question.ids - sent.keys())
        known = rpc.batch(
            [("gettransaction", txid, True) for txid in (*sent, *rest)], wallet, (_NOT_FOUND,)
        )
        found = dict(zip((*sent, *rest), known, strict=True))
        unsure: set[str] = set()
        for txid in [txid for txid, each in found.items() if each is None]:
            found[txid] = self._elsewhere(rpc, txid, unsure)
        transactions = [
            self._transaction(txid, each, txid in sent, int(info["blocks"]))
            for txid, each in found.items()
            if each is not None
        ]
        notes = tuple(f"bitcoin: the node cannot say whether {txid} exists" for txid in unsure)
        return ChainView(identity, transactions, unsure=frozenset(unsure), notes=notes)

    def _elsewhere(self, rpc: Rpc, txid: str, unsure: set[str]) -> Mapping[str, Any] | None:
        """A transaction that the wallet does not know."""
        try:
            return _object(rpc.call("getrawtransaction", txid, True))
        except RefusedError as error:
            if error.code != _NOT_FOUND:
                raise
        index = rpc.call("getindexinfo", "txindex")
        if not (isinstance(index, dict) and index.get("txindex", {}).get("synced")):
            unsure.add(txid)
        return None

    def _transaction(
        self, txid: str, each: Mapping[str, Any], ours: bool, tip: int
    ) -> ChainTransaction:
        depth = int(each.get("confirmations", 0))
        try:
            raw = bytes.fromhex(str(each["hex"]))
            transaction = parse_transaction(raw)
        except (ValueError, FormatError) as error:
            raise LyingNodeError(f"bitcoin: {txid} does not parse: {error}") from None
        if transaction.txid[::-1].hex() != txid:
            raise LyingNodeError(f"bitcoin: asked for {txid}, got other bytes")
        pushes = [push for push in transaction.data if push.startswith(PAYLOAD_TAG)]
        return ChainTransaction(
            txid,
            "mined" if depth > 0 else "pending" if depth == 0 else "failed",
            pushes[0] if pushes else None,
            height=tip - depth + 1 if depth > 0 else None,
            depth=max(depth, 0),
            final=depth >= self.settings.confirmations,
            ours=ours,
        )

    def _login(self) -> dict[str, str]:
        settings = self.settings
        user = f"{settings.user or ''}:{settings.password or ''}"
        if settings.cookie_file is not None:
            try:
                user = settings.cookie_file.read_text(encoding="ascii").strip()
            except (OSError, ValueError):
                raise NetworkUnavailable(
                    f"bitcoin: {settings.cookie_file} cannot be read; is bitcoind running?"
                ) from None
        return {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}


@dataclass(frozen=True, slots=True)
class IPFSReader:
    """An IPFS daemon. Pins have no sender: only blocks of our own heads can be told apart."""

    settings: IPFSSettings
    name: str = "ipfs"

    def read(self, question: Question) -> ChainView:
        """Which of our heads' blocks are pinned, each read back and hashed."""
        headers = {"Authorization": self.settings.auth} if self.settings.auth else {}
        rpc = Rpc(self.name, self.settings.url, self.settings.timeout_s, headers)
        wanted = {_cid(txid): txid for txid in question.ids}
        for payload in question.payloads:
            wanted.setdefault(raw_cid(payload), str(raw_cid(payload)))
        if self.settings.pin:
            there = self._pins(rpc) & wanted.keys()
        else:
            there = {_cid(txid) for txid in question.ids}
        blocks = ((cid, self._block(rpc, cid)) for cid in sorted(there, key=str))
        transactions = [
            ChainTransaction(wanted[cid], "mined", block, depth=1, final=True)
            for cid, block in blocks
            if block is not None
        ]
        return ChainView({}, transactions)

    def _pins(self, rpc: Rpc) -> set[Cid]:
        status, data = rpc.post("/api/v0/pin/ls?type=recursive")
        try:
            keys = json_text.loads(data)["Keys"]
        except (ValueError, KeyError, TypeError):
            raise NetworkUnavailable(f"ipfs: pin/ls: HTTP {status}, and no list of pins") from None
        found = set()
        for key in keys:
            with suppress(FormatError):  # a kind of CID that no anchor has
                found.add(decode_cid(key))
        return found

    def _block(self, rpc: Rpc, cid: Cid) -> bytes | None:
        milliseconds = int(self.settings.timeout_s * 500)
        query = urlencode({"arg": str(cid), "timeout": f"{milliseconds}ms"})
        status, data = rpc.post(f"/api/v0/block/get?{query}")
        if status != HTTP_OK:
            return None
        if raw_cid(data) != cid:
            raise LyingNodeError(f"ipfs: asked for {cid}, got other bytes")
        return data


def _number(value: Any) -> int:
    try:
        return int(value, 16)
    except (TypeError, ValueError):
        raise LyingNodeError(f"ethereum: expected a number, found {str(value)[:40]}") from None


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise LyingNodeError(f"expected an object, found {type(value).__name__}")
    return value


def _cid(text: str) -> Cid:
    try:
        return decode_cid(text)
    except FormatError:
        return Cid(1, 0, 0, text.encode())
