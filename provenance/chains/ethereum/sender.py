"""The account that sends: what a transaction offers, its signature, and its way to a block.

Signing is local (EIP-155, EIP-1559, and by RFC 6979 deterministic), so that a transaction's
id is known before anything is sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from provenance.chains.ethereum.contract import Contract
from provenance.chains.ethereum.errors import AlreadyKnownError
from provenance.chains.ethereum.fees import Fees, bump, offer, plain, wei
from provenance.chains.ethereum.libs import Account
from provenance.chains.ethereum.node import EthereumNode
from provenance.chains.ethereum.responses import Receipt
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InputError,
    InsufficientFundsError,
    LyingNodeError,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)
from provenance.formats.record import Json
from provenance.ports.values import Draft, Place, SignedVersion
from provenance.settings import EthereumSettings

NETWORK = "ethereum"
STORE_GAS_FLOOR = 80_000
"""A store costs about 47,500 gas, but is estimated at half of that where the root is there
already; a reorg that takes the other store away must not make ours run out of gas."""
SIGNED_BYTE_GAS = 100
"""Per byte of the call, on top: a signature of an owner takes 128 bytes and 9,000 gas."""

_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")
ADDRESS = "0x and 40 hex digits with a valid EIP-55 checksum"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_SEND_ATTEMPTS = 5


class Sender:
    """The configured account on one node; without a key it has no address and signs nothing.

    Attributes:
        address: Checksummed (EIP-55); None without a key.
        contract: Checksummed address of the MLProvenance contract; None without one.

    Raises:
        ConfigError: A URL, address or key that cannot be used; plain HTTP off this machine.
    """

    def __init__(self, settings: EthereumSettings) -> None:
        self._settings = settings
        self._account = None
        if settings.private_key is not None:
            key = settings.private_key.strip()
            if not _KEY.fullmatch(key) or not 0 < int(key, 16) < _CURVE_ORDER:
                problem = "found no secp256k1 key of 64 hex digits"
                raise ConfigError("blockchain.ethereum.private_key", problem)
            self._account = Account.from_key(key)
        self.address: str | None = None if self._account is None else str(self._account.address)
        address = settings.contract_address
        self.contract: str | None = None if address is None else checked_address(address)
        if self.contract is None and address is not None:
            raise ConfigError("blockchain.ethereum.contract_address", f"expected {ADDRESS}")
        self.node = EthereumNode(settings)

    def required_address(self) -> str:
        """The account's address; ConfigError where no key is configured."""
        if self.address is None:
            problem = "no key is configured, sending needs one"
            raise ConfigError("blockchain.ethereum.private_key", problem)
        return self.address

    def required_contract(self) -> str:
        """The contract's address; ConfigError where none is configured."""
        if self.contract is None:
            problem = "no contract is configured; deploy one: provenance contract deploy"
            raise ConfigError("blockchain.ethereum.contract_address", problem)
        return self.contract

    def prepare(
        self, to: str | None, calldata: bytes, replaces: SignedVersion | None = None
    ) -> dict[str, Json]:
        """The fields of an EIP-1559 transaction but for its nonce: what :meth:`sign` signs.

        Args:
            to: A checksummed address; None creates a contract.
            replaces: A version whose nonce is kept and whose fees are raised.

        Raises:
            FeeTooLowError, InsufficientFundsError
            WrongNetworkError: Another chain, or no contract at the address.
        """
        sender, node = self.required_address(), self.node
        before = None if replaces is None else _integer(replaces.detail, "chain_id")
        chain_id = node.chain_id(before)
        to_contract = to is not None and to == self.contract
        if to is not None and to_contract:
            node.require_contract(to)
        head = node.block("latest")
        if head.base_fee is None:
            raise WrongNetworkError(f"ethereum: chain id {chain_id} has no EIP-1559 base fee")
        cap, tip = wei(self._settings.max_fee_gwei), node.tip()
        if replaces is None:
            fees = offer(head.base_fee, tip, cap)
        else:
            detail = replaces.detail
            old = Fees(_integer(detail, "max_fee"), _integer(detail, "max_priority_fee"))
            fees = bump(old, head.base_fee, tip, cap)
        gas = self._settings.gas_limit
        if gas is None:
            floor = STORE_GAS_FLOOR + SIGNED_BYTE_GAS * len(calldata)
            gas = max(node.gas(sender, to, calldata), floor if to_contract else 0)
        price, balance = gas * fees.max_fee, node.balance(sender)
        if balance < price:
            raise InsufficientFundsError(
                f"ethereum: {sender} holds {plain(balance, -18)} ETH and the transaction may cost "
                f"{plain(price, -18)} ETH; it goes on when the account is funded"
            )
        return {
            "chain_id": chain_id,
            "nonce": None if replaces is None else replaces.nonce,
            "to": to,
            "data": "0x" + calldata.hex(),
            "gas": gas,
            "max_fee": fees.max_fee,
            "max_priority_fee": fees.priority,
            "contract": self.contract if to_contract else None,
            "block": head.number,
        }

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """As :meth:`~provenance.chains.ethereum.interface.EthereumInterface.sign`."""
        fields, kept = draft.fields, draft.fields.get("nonce")
        if isinstance(kept, int):
            if nonce not in (None, kept):
                raise InputError(f"a replacement keeps nonce {kept}, found {nonce}")
            nonce = kept
        if nonce is None:
            raise InputError("an Ethereum transaction needs a nonce")
        transaction = {
            "type": 2,
            "chainId": fields["chain_id"],
            "nonce": nonce,
            "gas": fields["gas"],
            "maxFeePerGas": fields["max_fee"],
            "maxPriorityFeePerGas": fields["max_priority_fee"],
            "value": 0,
            "data": fields["data"],
        }
        if fields["to"] is not None:
            transaction["to"] = fields["to"]
        sender = self.required_address()
        assert self._account is not None
        raw = bytes(self._account.sign_transaction(transaction).raw_transaction)
        return SignedVersion(
            network=NETWORK,
            payload=draft.payload,
            transaction_id="0x" + keccak(raw).hex(),
            raw=raw,
            key=sender,
            nonce=nonce,
            fee=_integer(fields, "max_fee"),
            detail={k: v for k, v in fields.items() if k != "data"} | {"nonce": nonce},
        )

    def require_chain(self, version: SignedVersion) -> None:
        """Ask the node for its chain id, which must be the version's."""
        self.node.chain_id(_integer(version.detail, "chain_id"))

    def broadcast(self, version: SignedVersion) -> None:
        """As :meth:`~provenance.chains.ethereum.interface.EthereumInterface.broadcast`."""
        txid = version.transaction_id
        self.require_chain(version)
        try:
            echoed = self.node.rpc.call("eth_sendRawTransaction", "0x" + version.raw.hex())
        except AlreadyKnownError:
            return
        except NonceUsedError:
            if self.node.locate(txid) is not Place.UNKNOWN:
                return
            raise NonceUsedError(
                f"ethereum: nonce {version.nonce} of {version.key} is spent by another "
                "transaction; is the key used elsewhere?"
            ) from None
        if echoed != txid:
            raise LyingNodeError(f"ethereum node: {txid} was sent and another hash came back")

    def transact(self, to: str | None, calldata: bytes, deadline_s: float) -> Receipt:
        """Send at once and wait for a receipt.

        Of two senders with one nonce, the one that is refused, or replaced by a higher fee
        and never mined, draws a nonce again.

        Raises:
            RejectedError: Mined, and it failed.
            NetworkUnavailable: In no block after ``deadline_s``; names the transaction.
        """
        deadline = time.monotonic() + deadline_s
        draft = Draft(NETWORK, b"", self.prepare(to, calldata))
        sender = self.required_address()
        for attempt in range(_SEND_ATTEMPTS):
            nonce = self.node.nonce(sender, "pending")
            version = self.sign(draft, nonce)
            try:
                self.broadcast(version)
                receipt = self.node.wait(version.transaction_id, sender, nonce, deadline)
                break
            except (NonceUsedError, FeeTooLowError):
                if attempt + 1 == _SEND_ATTEMPTS:
                    raise
        if receipt.status != 1:
            raise RejectedError(f"ethereum: {version.transaction_id} was mined and failed")
        return receipt

    def deploy(
        self, contract: Contract, deadline_s: float, arguments: bytes = b""
    ) -> tuple[str, str]:
        """Create a contract: ``(checksummed address, transaction id)``. ``arguments`` are its
        constructor's, encoded."""
        receipt = self.transact(None, contract.creation + arguments, deadline_s)
        if receipt.contract is None:
            raise LyingNodeError(f"ethereum node: the receipt of {receipt.id} names no contract")
        address = str(to_checksum_address(receipt.contract))
        if self.node.code(address) != contract.deployed:
            raise LyingNodeError(f"ethereum node: other code than ours lies at {address}")
        return address, receipt.id


def checked_address(text: str) -> str | None:
    """The EIP-55 form of an address, whose checksum must be right where it is of mixed case; None
    of anything else."""
    if not _ADDRESS.fullmatch(text):
        return None
    checked, digits = str(to_checksum_address(text)), text[2:]
    return checked if text == checked or digits in (digits.lower(), digits.upper()) else None


def _integer(fields: Mapping[str, Json], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int):
        raise InputError(f"ethereum version without {name}: {value!r}")
    return value
