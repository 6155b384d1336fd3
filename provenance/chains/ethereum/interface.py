"""Ethereum: anchors as EIP-1559 transactions, to the MLProvenance contract or to oneself.

Life of an anchor on this chain: :meth:`EthereumInterface.draft` checks the chain id, the
contract and the balance and asks for fees; ``sign`` is local (EIP-155, EIP-1559, and by
RFC 6979 deterministic), so the transaction id is known before anything is sent;
``broadcast`` may be repeated at will; ``observe`` believes a block only when transaction,
receipt and canonical block agree, and the transaction's fields hash to its id.

What counts as the root on chain:

* With a contract: its ``HashStored`` event in our receipt. The first write wins, so where
  somebody stored the root before us, our transaction succeeds and changes nothing; the root
  is then read from ``getHashInfo`` and ``block_time`` is the FIRST store's time. ``height``
  and ``depth`` stay those of our own block, which lies above the first store's.
* Without: the calldata ``MLP1 || root`` of the transaction itself.

A transaction that is in a block but left no root there is ``MINED`` with ``root=None``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from provenance.chains.ethereum.errors import AlreadyKnownError
from provenance.chains.ethereum.fees import Fees, bump, offer, wei
from provenance.errors import (
    ConfigError,
    FeeTooLowError,
    InputError,
    InsufficientFundsError,
    LyingNodeError,
    MissingExtraError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)
from provenance.formats.record import Json
from provenance.ports.values import (
    PAYLOAD_BYTES,
    PAYLOAD_TAG,
    Draft,
    Identity,
    Observation,
    Place,
    SignedVersion,
    anchor_payload,
)
from provenance.settings import EthereumSettings

if TYPE_CHECKING:
    from provenance.chains.ethereum.contract import HashInfo
    from provenance.chains.ethereum.responses import Receipt

# A store costs about 47,500 gas, but is estimated at half of that where the root is there
# already; a reorg that takes the other store away must not make ours run out of gas.
STORE_GAS_FLOOR = 80_000

_TXID = re.compile(r"0x[0-9a-f]{64}")
_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_SEND_ATTEMPTS = 5


class EthereumInterface:
    """One Ethereum network, as ``ports.Network``, with direct calls for scripts.

    Without a private key it observes and looks up, and does not draft.

    Raises:
        ConfigError: A URL, address or key that cannot be used; plain HTTP off this machine.
        MissingExtraError: web3.py is not installed.
    """

    name: str = "ethereum"
    uses_nonce: bool = True

    def __init__(self, settings: EthereumSettings) -> None:
        try:
            from eth_utils.address import to_checksum_address
            from eth_utils.crypto import keccak

            from provenance.chains.ethereum import contract, node, responses, trie
            from provenance.chains.ethereum.libs import Account
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("provenance"):
                raise
            package = (error.name or "web3").partition(".")[0]
            raise MissingExtraError(package, "ethereum") from error
        self._abi = contract
        self._evidence = responses.evidence
        self._proofs = trie.proofs
        self._keccak = keccak
        self._checksum = to_checksum_address
        self.settings = settings
        self.confirmations: int = settings.confirmations
        self._account = None
        if settings.private_key is not None:
            key = settings.private_key.strip()
            if not _KEY.fullmatch(key) or not 0 < int(key, 16) < _CURVE_ORDER:
                raise ConfigError(
                    "blockchain.ethereum.private_key", "found no secp256k1 key of 64 hex digits"
                )
            self._account = Account.from_key(key)
        self.contract: str | None = None
        if settings.contract_address is not None:
            self.contract = _address(settings.contract_address, to_checksum_address)
        self.sender: str | None = None if self._account is None else str(self._account.address)
        self._node = node.EthereumNode(settings)
        self._refused = False

    def __repr__(self) -> str:
        return f"EthereumInterface({self._node.rpc.shown}, contract={self.contract})"

    def close(self) -> None:
        """Give the connections back."""
        self._node.close()

    def identity(self) -> Identity:
        """Chain id, genesis, client version, height, sender and its balance in wei.

        A chain that is not the one seen before is refused once; asked again, this client takes
        the node's word, for it may have been made while a node answered for another chain, and
        must not refuse the right one for ever. Which one is right, the caller remembers. All
        other methods go on to refuse.

        Raises:
            WrongNetworkError: Another chain id or genesis than expected, or no code at the
                contract's address.
            NetworkUnavailable: Unreachable, or still syncing.
        """
        node = self._node
        if self._refused:
            node.forget()
        try:
            chain_id, genesis = node.chain_id(), node.genesis()
        except WrongNetworkError:
            self._refused = True
            raise
        self._refused = False
        version, height = node.version(), node.height()
        if self.contract is not None:
            node.require_contract(self.contract)
        return Identity(
            network=self.name,
            fields={
                "chain_id": chain_id,
                "genesis": genesis,
                "version": version,
                "contract": self.contract,
            },
            height=height,
            sender=self.sender,
            balance=None if self.sender is None else node.balance(self.sender),
        )

    def next_nonce(self) -> int:
        """The sender's next nonce, its transactions in the node's pool included."""
        return self._node.nonce(self._signer(), "pending")

    # --- the life of an anchor -------------------------------------------------------

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Target, calldata, gas and fees of an anchor; with ``replaces``, on its nonce.

        Raises:
            FeeTooLowError: The fee cap is reached; says so.
            InsufficientFundsError: With the balance and the price.
            WrongNetworkError: Another chain, or no contract at the address.
        """
        if len(payload) != PAYLOAD_BYTES or not payload.startswith(PAYLOAD_TAG):
            raise InputError(f"anchor payload of {len(payload)} bytes, expected MLP1 and 32")
        if self.contract is None:
            return Draft(self.name, payload, self._prepare(self._signer(), payload, replaces))
        call = self._abi.store_call(payload[len(PAYLOAD_TAG) :], "")
        return Draft(self.name, payload, self._prepare(self.contract, call, replaces))

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """The signed transaction. Local and deterministic; talks to no node.

        A replacement keeps the nonce of the version it replaces; ``nonce`` may then be None.
        """
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
        sender = self._signer()
        assert self._account is not None
        raw = bytes(self._account.sign_transaction(transaction).raw_transaction)
        return SignedVersion(
            network=self.name,
            payload=draft.payload,
            transaction_id="0x" + self._keccak(raw).hex(),
            raw=raw,
            key=sender,
            nonce=nonce,
            fee=_integer(fields, "max_fee"),
            detail={k: v for k, v in fields.items() if k != "data"} | {"nonce": nonce},
        )

    def broadcast(self, version: SignedVersion) -> None:
        """Send the stored bytes; a node that has them already is content.

        Raises:
            NonceUsedError: The nonce is spent, and the node does not know this transaction.
            LyingNodeError: The node echoes another hash.
        """
        txid = version.transaction_id
        self._node.chain_id(_integer(version.detail, "chain_id"))
        try:
            echoed = self._node.rpc.call("eth_sendRawTransaction", "0x" + version.raw.hex())
        except AlreadyKnownError:
            return
        except NonceUsedError:
            if self._node.locate(txid) is not Place.UNKNOWN:
                return
            raise NonceUsedError(
                f"ethereum: nonce {version.nonce} of {version.key} is spent by another "
                "transaction; is the key used elsewhere?"
            ) from None
        if echoed != txid:
            raise LyingNodeError(f"ethereum node: {txid} was sent and another hash came back")

    def observe(self, version: SignedVersion) -> Observation:
        """Where the version is now.

        CONFLICTED where a block holds another transaction with its nonce and the node does
        not know this one. A node that has pruned its index of old transactions answers the
        same for a final one, so final versions are not to be observed again.
        """
        self._node.chain_id(_integer(version.detail, "chain_id"))
        seen = self._node.find(version.transaction_id)
        if seen.place is not Place.UNKNOWN or version.nonce is None:
            return seen
        if self._node.nonce(version.key, "latest") <= version.nonce:
            return seen
        # This very version may have spent it between the two questions.
        seen = self._node.find(version.transaction_id)
        return Observation(Place.CONFLICTED) if seen.place is Place.UNKNOWN else seen

    def lookup(self, transaction_id: str) -> Observation:
        """Find a transaction by its id alone, for verifiers.

        A ``storeHash`` call counts whatever contract it went to: its calldata, which hashes
        to the id, commits to the root, and receipts outlive a change of contract.

        Raises:
            RejectedError: Not a transaction id.
        """
        txid = transaction_id.lower()
        if not _TXID.fullmatch(txid):
            raise RejectedError(f"{transaction_id[:80]!r} is not an Ethereum transaction id")
        self._node.chain_id()
        return self._node.find(txid)

    def lookup_many(self, transaction_ids: Sequence[str]) -> dict[str, Observation]:
        """:meth:`lookup` with many calls in one request, where the node takes that.

        Raises:
            NetworkUnavailable, WrongNetworkError: As :meth:`lookup`, before the first answer.
        """
        named = {each.lower(): each for each in transaction_ids if _TXID.fullmatch(each.lower())}
        self._node.chain_id()
        found = self._node.find_many(list(named))
        return {named[txid]: seen for txid, seen in found.items()}

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """Raw transaction, receipt, block header and trie proofs, for offline checking.

        ``block.header_rlp`` hashes (keccak-256) to the block hash; where a chain's headers
        have another shape it is None and ``block.note`` says so. ``receipt_proof`` and
        ``transaction_proof`` lead from the header to our receipt and transaction, as far as
        ``ethereum_trie`` could make them.

        Raises:
            NetworkUnavailable: The transaction is no longer in the block of ``seen``.
        """
        found = self._node.locate(version.transaction_id)
        if isinstance(found, Place) or found.block.hash != seen.block_hash:
            raise NetworkUnavailable(
                f"ethereum: {version.transaction_id} is not in block {seen.block_hash} now"
            )
        told = self._evidence(found.receipt, found.block)
        contract = version.detail.get("contract")
        proofs = self._proofs(
            self._node,
            found,
            contract if isinstance(contract, str) else None,
            version.payload[len(PAYLOAD_TAG) :],
        )
        return {
            "type": self.name,
            "chain_id": version.detail["chain_id"],
            "contract": contract,
            "transaction": {
                "id": version.transaction_id,
                "index": found.receipt.index,
                "raw": "0x" + version.raw.hex(),
            },
            **told,
            **proofs,
        }

    # --- direct calls, for scripts ---------------------------------------------------

    def store_hash(self, root: bytes, metadata: str = "", deadline_s: float = 180.0) -> str:
        """Store 32 bytes and wait until a block holds them; returns the transaction id.

        Without a contract the root goes out as calldata ``MLP1 || root``, and ``metadata``
        is written nowhere.

        Raises:
            InputError: Not 32 bytes, all zero, or metadata over 256 bytes of UTF-8.
            RejectedError: Mined, and it failed.
            NetworkUnavailable: In no block after ``deadline_s``; names the transaction.
        """
        call = self._abi.store_call(root, metadata)
        if self.contract is None:
            return self._transact(self._signer(), anchor_payload(root), deadline_s).id
        return self._transact(self.contract, call, deadline_s).id

    def verify_hash(self, root: bytes) -> bool:
        """Whether the contract holds the hash, in the newest block."""
        return self._abi.read_flag(
            self._node.view(self._required_contract(), self._abi.verify_call(root))
        )

    def get_hash_info(self, root: bytes) -> HashInfo:
        """Who stored the hash first, when, and with what metadata."""
        return self._abi.read_info(
            self._node.view(self._required_contract(), self._abi.info_call(root))
        )

    def verify_inclusion(
        self, root: bytes, leaf: bytes, index: int, size: int, proof: Sequence[bytes]
    ) -> bool:
        """Whether the contract holds ``root`` and finds entry ``leaf`` under it, in the newest
        block (RFC 9162 section 2.1.3.2).

        Args:
            root: Of the ledger, as stored. leaf: A run root, 32 bytes.
            index, size: Entry and entries of the ledger. proof: Lowest sibling first.

        Raises:
            InputError: Something that is not 32 bytes, or a negative number.
            RejectedError: A contract of an earlier release, which cannot check it; all else
                goes on working with it.
        """
        address = self._required_contract()
        call = self._abi.inclusion_call(root, leaf, index, size, proof)
        try:
            answer = self._node.view(address, call)
        except RejectedError:  # it never reverts, and one without the function always does
            answer = b""
        if not answer:
            raise RejectedError(
                f"ethereum: the contract at {address} has no verifyInclusion; it is of an earlier "
                "release, or none of ours"
            )
        return self._abi.read_flag(answer, "verifyInclusion")

    def deploy_contract(self, deadline_s: float = 180.0) -> tuple[str, str]:
        """Create an MLProvenance contract: ``(checksummed address, transaction id)``.

        Raises:
            LyingNodeError: Other code than ours lies at the new address.
        """
        artifact = self._abi.ARTIFACT
        receipt = self._transact(None, artifact.bytecode, deadline_s)
        if receipt.contract is None:
            raise LyingNodeError(f"ethereum node: the receipt of {receipt.id} names no contract")
        address = str(self._checksum(receipt.contract))
        if self._node.code(address) != artifact.deployed_bytecode:
            raise LyingNodeError(f"ethereum node: other code than ours lies at {address}")
        return address, receipt.id

    def _prepare(
        self, to: str | None, calldata: bytes, replaces: SignedVersion | None = None
    ) -> dict[str, Json]:
        sender, node = self._signer(), self._node
        chain_id = node.chain_id(
            None if replaces is None else _integer(replaces.detail, "chain_id")
        )
        to_contract = to is not None and to == self.contract
        if to is not None and to_contract:
            node.require_contract(to)
        head = node.block("latest")
        if head.base_fee is None:
            raise WrongNetworkError(f"ethereum: chain id {chain_id} has no EIP-1559 base fee")
        cap, tip = wei(self.settings.max_fee_gwei), node.tip()
        if replaces is None:
            fees = offer(head.base_fee, tip, cap)
        else:
            detail = replaces.detail
            old = Fees(_integer(detail, "max_fee"), _integer(detail, "max_priority_fee"))
            fees = bump(old, head.base_fee, tip, cap)
        gas = self.settings.gas_limit
        if gas is None:
            gas = max(node.gas(sender, to, calldata), STORE_GAS_FLOOR if to_contract else 0)
        price, balance = gas * fees.max_fee, node.balance(sender)
        if balance < price:
            raise InsufficientFundsError(
                f"ethereum: {sender} holds {_ether(balance)} ETH and the transaction may cost "
                f"{_ether(price)} ETH; it goes on when the account is funded"
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

    def _transact(self, to: str | None, calldata: bytes, deadline_s: float) -> Receipt:
        """Send at once and wait for a receipt. Two senders that draw the same nonce: one is
        refused, has nothing on its way, and draws again."""
        deadline = time.monotonic() + deadline_s
        draft = Draft(self.name, b"", self._prepare(to, calldata))
        for attempt in range(_SEND_ATTEMPTS):
            version = self.sign(draft, self.next_nonce())
            try:
                self.broadcast(version)
                break
            except (NonceUsedError, FeeTooLowError):
                if attempt + 1 == _SEND_ATTEMPTS:
                    raise
        receipt = self._node.wait(version.transaction_id, deadline)
        if receipt.status != 1:
            raise RejectedError(f"ethereum: {version.transaction_id} was mined and failed")
        return receipt

    def _signer(self) -> str:
        if self.sender is None:
            raise ConfigError(
                "blockchain.ethereum.private_key", "no key is configured, sending needs one"
            )
        return self.sender

    def _required_contract(self) -> str:
        if self.contract is None:
            raise ConfigError(
                "blockchain.ethereum.contract_address",
                "no contract is configured; deploy one: provenance contract deploy",
            )
        return self.contract


def _address(text: str, checksum: Callable[[str], object]) -> str:
    """The EIP-55 form of an address; a mixed-case one must have its checksum right."""
    if _ADDRESS.fullmatch(text):
        checked, digits = str(checksum(text)), text[2:]
        if text == checked or digits in (digits.lower(), digits.upper()):
            return checked
    raise ConfigError(
        "blockchain.ethereum.contract_address",
        "expected 0x and 40 hex digits with a valid EIP-55 checksum",
    )


def _integer(fields: Mapping[str, Json], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int):
        raise InputError(f"ethereum version without {name}: {value!r}")
    return value


def _ether(amount: int) -> str:
    text = f"{Decimal(amount).scaleb(-18):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
