"""Questions to one Ethereum node, each answer checked: heads, balances, and where a
transaction is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass

from provenance.chains.ethereum import contract as abi
from provenance.chains.ethereum.encoding import data, quantity
from provenance.chains.ethereum.errors import BlockMissingError, clean
from provenance.chains.ethereum.fees import GWEI, wei
from provenance.chains.ethereum.responses import (
    Block,
    Receipt,
    Transaction,
    read_block,
    read_receipt,
    read_transaction,
)
from provenance.chains.ethereum.rpc import AnsweredRPC, Call, EthereumRPC
from provenance.errors import (
    LyingNodeError,
    NetworkError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)
from provenance.ports.values import Observation, Place, payload_root
from provenance.proofs.multisig import Quorum
from provenance.proofs.multisig.ethereum import STORE_SIGNED
from provenance.settings import EthereumSettings

GENESIS = {
    1: "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
    17000: "0xb5f7f912443c940f21fd611f12828d75b534364ed9e95ca4e307729a4661bde4",
    560048: "0xbbe312868b376a3001692a646dd2d7d1e4406380dfd86b98aa8a34d1557c971b",
    11155111: "0x25a5cc106eea7138acab33231d7160d69cb777ee0c2c553fcddf5138993e6dd9",
}
"""Genesis blocks of mainnet, Holesky, Hoodi and Sepolia (go-ethereum ``params/config.go``)."""

BATCH = 40
"""Transactions whose calls go into one request: below the limits that hosted nodes set. With
50 ms to the node, this many lookups take 0.5 s, one by one 13 s."""
_FALLBACK_TIP = GWEI


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction with its receipt and the canonical block that holds it."""

    transaction: Transaction
    receipt: Receipt
    block: Block
    head: int


class _Moved(Exception):
    """Two answers that do not fit each other: a block arrived between them, or a lie."""


class EthereumNode:
    """One node. Every method raises NetworkUnavailable or a NetworkError, nothing else."""

    def __init__(self, settings: EthereumSettings) -> None:
        self.rpc: EthereumRPC = EthereumRPC(settings.url, settings.timeout_s)
        self._settings = settings
        self._chain_id = settings.chain_id
        self._genesis: str | None = None
        self._ours: dict[str, bool] = {}
        self._quorums: dict[str, Quorum | None] = {}

    def forget(self) -> None:
        """Take chain id and genesis anew from the next answers; what is configured stands."""
        self._chain_id, self._genesis = self._settings.chain_id, None

    def chain_id(self, expected: int | None = None) -> int:
        """The node's chain id; WrongNetworkError where it is not ``expected``, the configured
        one or the one it had before."""
        chain_id = self._number("eth_chainId")
        for wanted in (self._chain_id, expected):
            if wanted is not None and chain_id != wanted:
                problem = f"serves chain id {chain_id}, expected {wanted}"
                raise WrongNetworkError(f"ethereum node {self.rpc.shown} {problem}")
        self._chain_id = chain_id
        return chain_id

    def genesis(self) -> str:
        """The hash of block 0; WrongNetworkError where it changed or does not fit a public
        chain's id."""
        chain_id = self.chain_id()
        genesis = self.block("0x0").hash
        wanted = GENESIS.get(chain_id) or self._genesis or genesis
        if genesis != wanted:
            problem = f"genesis of chain id {chain_id} is {genesis}, expected {wanted}"
            raise WrongNetworkError(f"ethereum: {problem}")
        self._genesis = genesis
        return genesis

    def version(self) -> str:
        """The client's name and version; NetworkUnavailable while the node is syncing."""
        syncing = self.rpc.call("eth_syncing")
        if isinstance(syncing, dict):
            at, end = (clean(syncing.get(key, "?")) for key in ("currentBlock", "highestBlock"))
            problem = f"is still syncing: block {at} of {end}"
            raise NetworkUnavailable(f"ethereum node {self.rpc.shown} {problem}")
        return clean(self.rpc.call("web3_clientVersion"))

    def block(self, number: str) -> Block:
        """The canonical block of a ``0x`` number or tag; BlockMissingError without one."""
        answer = self.rpc.call("eth_getBlockByNumber", number, False)
        if answer is None:
            raise BlockMissingError(f"ethereum node {self.rpc.shown} has no block {number}")
        block = read_block(answer, f"block {number}")
        if number.startswith("0x") and block.number != int(number, 16):
            raise LyingNodeError(f"ethereum node: block {block.number} was sent for {number}")
        return block

    def final_block(self) -> Block | None:
        """The newest that an anchor in it would be final in; None where there is none yet."""
        number = self.height() - self._settings.confirmations + 1
        try:
            return self.block("finalized" if self._settings.use_finalized else hex(max(number, 0)))
        except (BlockMissingError, RejectedError):
            return None

    def depth_of(self, block_hash: str, number: int) -> int:
        """How deep a block lies in the chain; 0 where another is there, or none."""
        try:
            found = self.block(hex(number))
        except BlockMissingError:
            return 0
        return self.height() - number + 1 if found.hash == block_hash else 0

    def _number(self, method: str, *params: object) -> int:
        return quantity(self.rpc.call(method, *params), method)

    def height(self) -> int:
        """Number of the newest block."""
        return self._number("eth_blockNumber")

    def nonce(self, address: str, tag: str) -> int:
        """Transactions of an address up to ``tag`` (``latest``, ``pending``)."""
        return self._number("eth_getTransactionCount", address, tag)

    def balance(self, address: str) -> int:
        """Balance in the newest block, wei."""
        return self._number("eth_getBalance", address, "latest")

    def code(self, address: str, block: str = "latest") -> bytes:
        """The code at an address, empty for an ordinary account."""
        return data(self.rpc.call("eth_getCode", address, block), "eth_getCode")

    def has_our_code(self, address: str, block: str) -> bool | None:
        """Whether the code at an address was this project's contract in a block.

        Asked once per address, since code never changes; of the newest block where the node
        has forgotten the state of that one. None where it answers neither.
        """
        for at in (block, "latest"):
            if address not in self._ours:
                with suppress(NetworkError, NetworkUnavailable):
                    self._ours[address] = self.code(address, at) in abi.REGISTERS
        return self._ours.get(address)

    def quorum(self, address: str) -> Quorum | None:
        """Whose signatures the contract at an address asks for; None where it is no
        ``MLProvenanceMultisig``. Asked once: neither its code nor its owners can change."""
        if address not in self._quorums:
            known = None
            if self.code(address) == abi.MULTISIG.deployed:
                calls = (abi.MULTISIG.call_of(name) for name in ("owners", "threshold"))
                owners, threshold = abi.read_owners(*(self.view(address, call) for call in calls))
                known = Quorum(threshold, tuple("0x" + owner.hex() for owner in owners))
            self._quorums[address] = known
        return self._quorums[address]

    def require_contract(self, address: str) -> None:
        """WrongNetworkError where there is no code: sending there succeeds and stores nothing."""
        if not self.code(address):
            raise WrongNetworkError(
                f"ethereum: no contract at {address} on chain id {self.chain_id()}; "
                "check blockchain.ethereum.contract_address or deploy one: "
                "provenance contract deploy"
            )

    def view(self, address: str, call: bytes) -> bytes:
        """The answer of a read-only call in the newest block."""
        request = {"to": address, "data": "0x" + call.hex()}
        return data(self.rpc.call("eth_call", request, "latest"), "eth_call")

    def tip(self) -> int:
        """Priority fee, wei per gas: configured, else the node's, else 1 gwei: providers refuse
        the method in many words, and a node that is away fails the next call."""
        if self._settings.priority_fee_gwei is not None:
            return wei(self._settings.priority_fee_gwei)
        try:
            return self._number("eth_maxPriorityFeePerGas")
        except (RejectedError, NetworkUnavailable):
            return _FALLBACK_TIP

    def gas(self, sender: str, to: str | None, calldata: bytes) -> int:
        """Estimated gas against the newest block, a fifth added.

        Not against the pool: there the root may be stored already by our own replaced
        version, and storing it again is cheaper.
        """
        request = {"from": sender, "data": "0x" + calldata.hex()}
        if to is not None:
            request["to"] = to
        return -(-self._number("eth_estimateGas", request, "latest") * 6 // 5)

    def receipt(self, txid: str) -> Receipt | None:
        """The receipt, None while there is none."""
        answer = self.rpc.call("eth_getTransactionReceipt", txid)
        return None if answer is None else read_receipt(answer, txid)

    def wait(self, txid: str, sender: str, nonce: int, deadline: float) -> Receipt:
        """The receipt of a transaction that was sent, asked for until ``time.monotonic()``
        passes ``deadline``.

        Raises:
            NonceUsedError: Another transaction with its nonce is in a block.
            NetworkUnavailable: In no block by then; names the transaction.
        """
        pause = 0.05
        while True:
            with suppress(NetworkUnavailable):
                receipt = self.receipt(txid)
                if receipt is not None:
                    return receipt
                spent = self.nonce(sender, "latest") > nonce
                if spent and self.rpc.call("eth_getTransactionByHash", txid) is None:
                    raise NonceUsedError(
                        f"ethereum: {txid} was replaced by another transaction with nonce "
                        f"{nonce} of {sender}; is the key used elsewhere?"
                    )
            if time.monotonic() > deadline:
                problem = "was sent and is in no block yet; look it up later"
                raise NetworkUnavailable(f"ethereum: {txid} {problem}")
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    # --- where a transaction is ------------------------------------------------------

    def find(self, txid: str) -> Observation:
        """Where a transaction is, and the root that the chain holds through it."""
        mined = self.locate(txid)
        if isinstance(mined, Place):
            return Observation(mined)
        block, worked = mined.block, mined.receipt.status == 1
        root = self._root(mined) if worked else None
        price = mined.receipt.gas_price
        return Observation(
            place=Place.MINED if worked else Place.FAILED,
            root=root,
            block_hash=block.hash,
            height=block.number,
            depth=mined.head - block.number + 1,
            final=self._is_final(mined),
            block_time=float(block.timestamp),
            our_code=None if root is None else self._our_code(mined),
            paid=None if price is None else price * mined.receipt.gas_used,
            quorum=None if root is None else self._quorum(mined),
        )

    def find_many(self, txids: Sequence[str]) -> dict[str, Observation]:
        """:meth:`find` with the calls of many in few requests; without those that failed, or
        that are not mined: they are worth a question of their own."""
        observations: dict[str, Observation] = {}
        for at in range(0, len(txids), BATCH):
            try:
                answers = self._answers(txids[at : at + BATCH])
                for txid in txids[at : at + BATCH]:
                    with suppress(NetworkError):
                        seen = answers.find(txid)
                        if seen.place is Place.MINED:
                            observations[txid] = seen
            except NetworkUnavailable:
                break
        return observations

    def _answers(self, txids: Sequence[str]) -> EthereumNode:
        """This node with the answers that :meth:`find` needs for some transactions; each is
        checked there as one that was asked for by itself."""
        calls: list[Call] = [("eth_chainId", ()), ("eth_blockNumber", ())]
        if self._settings.use_finalized:
            calls.append(("eth_getBlockByNumber", ("finalized", False)))
        for method in ("eth_getTransactionByHash", "eth_getTransactionReceipt"):
            calls += [(method, (txid,)) for txid in txids]
        answers = self.rpc.batch(calls)
        numbers = {
            answer.get("blockNumber")
            for (method, _), answer in answers.items()
            if method == "eth_getTransactionByHash" and isinstance(answer, dict)
        }
        named = sorted(number for number in numbers if isinstance(number, str))
        answers |= self.rpc.batch([("eth_getBlockByNumber", (n, False)) for n in named])
        node = copy(self)
        node.rpc = AnsweredRPC(self.rpc, answers)
        return node

    def locate(self, txid: str) -> Place | Mined:
        """UNKNOWN, PENDING, or the block; asked twice where answers contradict each other, since a
        block may arrive between two questions. Raises LyingNodeError: still contradictory."""
        with suppress(_Moved):
            return self._locate(txid)
        try:
            return self._locate(txid)
        except _Moved as error:
            raise LyingNodeError(f"ethereum node {self.rpc.shown}: {error}") from None

    def _locate(self, txid: str) -> Place | Mined:
        answer = self.rpc.call("eth_getTransactionByHash", txid)
        if answer is None:
            return Place.UNKNOWN
        tx = read_transaction(answer, txid)
        if tx.raw:
            self.chain_id(tx.chain_id)
        if tx.block_number is None:
            return Place.PENDING
        receipt = self.receipt(txid)
        if receipt is None:
            return Place.PENDING
        said = (receipt.block_hash, receipt.block_number, receipt.index, receipt.sender, receipt.to)
        if said != (tx.block_hash, tx.block_number, tx.index, tx.sender, tx.to):
            raise _Moved(f"transaction and receipt of {txid} do not agree")
        try:
            block = self.block(hex(tx.block_number))
        except BlockMissingError:
            raise _Moved(f"{txid} is said to be in block {tx.block_number}, not there") from None
        if block.hash != tx.block_hash:
            raise _Moved(f"{txid} is said to be in {tx.block_hash}, not on the chain")
        if block.transactions[receipt.index : receipt.index + 1] != (txid,):
            raise _Moved(f"block {block.number} does not hold {txid} at {receipt.index}")
        head = self.height()
        if head < block.number:
            raise _Moved(f"{txid} is said to be in block {block.number}, above the head {head}")
        return Mined(tx, receipt, block, head)

    def _is_final(self, mined: Mined) -> bool:
        if not self._settings.use_finalized:
            return mined.head - mined.block.number + 1 >= self._settings.confirmations
        try:
            return self.block("finalized").number >= mined.block.number
        except (BlockMissingError, RejectedError):
            return False

    def _root(self, mined: Mined) -> bytes | None:
        """The root on chain. A contract's answer counts only against it: whoever wrote the
        contract wrote its answers, too."""
        tx, when = mined.transaction, mined.block.timestamp
        if not tx.raw or tx.to is None:
            return None
        if (sent := payload_root(tx.input)) is not None:
            return sent
        root = abi.stored_root(tx.input)
        if root is None:
            return None
        for log in mined.receipt.logs:
            event = abi.stored_event(log, tx.to, root)
            if event is not None:
                if event != (tx.sender, when):
                    problem = f"HashStored of {tx.id} names another sender or time"
                    raise LyingNodeError(f"ethereum node: {problem}")
                return root
        answer = self.view("0x" + tx.to.hex(), abi.call_of("getHashInfo", root))
        info = abi.read_info(answer) if answer else None
        if info is None or not info.exists:
            return None
        if info.block_number > mined.block.number or info.timestamp > when:
            problem = "stored nothing, and the contract says that the root was stored later"
            raise LyingNodeError(f"ethereum node: {tx.id} {problem}")
        return root

    def _our_code(self, mined: Mined) -> bool | None:
        """As :attr:`Observation.our_code`."""
        tx, configured = mined.transaction, self._settings.contract_address
        if tx.to is None or abi.stored_root(tx.input) is None:
            return None
        address = "0x" + tx.to.hex()
        if configured is not None and address == configured.lower():
            return None
        return self.has_our_code(address, hex(mined.block.number))

    def _quorum(self, mined: Mined) -> Quorum | None:
        """As :attr:`Observation.quorum`."""
        tx = mined.transaction
        if tx.to is not None and tx.input[:4] == STORE_SIGNED:
            with suppress(NetworkError, NetworkUnavailable):
                return self.quorum("0x" + tx.to.hex())
        return None

    def close(self) -> None:
        """Give the connections back."""
        self.rpc.close()
