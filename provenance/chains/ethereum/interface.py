"""Ethereum: anchors as EIP-1559 transactions, to the MLProvenance contract or to oneself.

Life of an anchor on this chain: :meth:`EthereumInterface.draft` checks the chain id, the
contract and the balance and asks for fees; ``sign`` is local (EIP-155, EIP-1559, and by
RFC 6979 deterministic), so the transaction id is known before anything is sent;
``broadcast`` may be repeated at will; ``observe`` believes a block only when transaction,
receipt and canonical block agree, and the transaction's fields hash to its id.

What counts as the root on chain:

* With a contract: its ``HashStored`` event in our receipt. The first write wins, so where
  somebody stored the root before us, our transaction succeeds and changes nothing; that the
  contract holds the root is then read from ``getHashInfo``. Height, depth and time are those
  of our own block, whatever the contract answers: it may be anybody's.
* Without: the calldata ``MLP1 || root`` of the transaction itself.

A transaction that is in a block but left no root there is ``MINED`` with ``root=None``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from provenance.errors import (
    InputError,
    MissingExtraError,
    NetworkUnavailable,
    RejectedError,
    WrongNetworkError,
)
from provenance.formats.record import Json
from provenance.ports.network import Network, Requests
from provenance.ports.values import (
    Draft,
    Identity,
    Observation,
    Place,
    SignedVersion,
    anchor_payload,
    payload_root,
)
from provenance.proofs.beacon import Beacon
from provenance.settings import EthereumSettings

if TYPE_CHECKING:
    from provenance.chains.ethereum.bitcoin_view import Confirmed, Proof
    from provenance.chains.ethereum.contract import HashInfo

_TXID = re.compile(r"0x[0-9a-f]{64}")


class EthereumInterface(Network):
    """One Ethereum network, with direct calls for scripts.

    Without a private key it observes and looks up, and does not draft.

    Raises:
        ConfigError: A URL, address or key that cannot be used; plain HTTP off this machine.
        MissingExtraError: web3.py is not installed.
    """

    name = "ethereum"
    confirmations = 12
    uses_nonce = True

    def __init__(self, settings: EthereumSettings, requests: Requests | None = None) -> None:
        try:
            from provenance.chains.ethereum import contract, multisig, responses, trie
            from provenance.chains.ethereum.libs import CLIENT
            from provenance.chains.ethereum.sender import Sender
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("provenance"):
                raise
            package = (error.name or "web3").partition(".")[0]
            raise MissingExtraError(package, "ethereum") from error
        self._abi, self._owned = contract, multisig
        self._requests = requests
        self._evidence = responses.evidence
        self._header_rlp = responses.header_rlp
        self._proofs = trie.proofs
        self._client = CLIENT
        self.settings = settings
        self.confirmations = settings.confirmations
        self._sender = Sender(settings)
        self._node = self._sender.node
        self.contract: str | None = self._sender.contract
        self.sender: str | None = self._sender.address
        self._refused = False

    def __repr__(self) -> str:
        return f"EthereumInterface({self._node.rpc.shown}, contract={self.contract})"

    def close(self) -> None:
        """Give the connections back."""
        self._node.close()

    def client(self) -> str:
        """Name and version of the client library."""
        return self._client

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
            if self.sender is not None:
                self._owned.require_owners(node, self.contract, self.settings.multisig)
        fields: dict[str, Json] = {
            "chain_id": chain_id,
            "genesis": genesis,
            "version": version,
            "contract": self.contract,
        }
        balance = None if self.sender is None else node.balance(self.sender)
        return Identity(self.name, fields, height, self.sender, balance)

    def newest_block(self) -> Beacon | None:
        """As :meth:`Network.newest_block`; None too where the chain's headers do not hash."""
        found = self._node.final_block()
        header = None if found is None else self._header_rlp(found)
        if found is None or header is None:
            return None
        return Beacon(self.name, str(self._node.chain_id()), found.number, header)

    def depth_of(self, block: Beacon) -> int:
        """As :meth:`Network.depth_of`."""
        return self._node.depth_of(block.shown, block.height)

    def next_nonce(self) -> int:
        """The sender's next nonce, its transactions in the node's pool included."""
        return self._node.nonce(self._sender.required_address(), "pending")

    # --- the life of an anchor -------------------------------------------------------

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Target, calldata, gas and fees of an anchor; with ``replaces``, on its nonce.

        Raises:
            FeeTooLowError: The fee cap is reached; says so.
            InsufficientFundsError: With the balance and the price.
            WrongNetworkError: Another chain, or no contract at the address.
        """
        root = payload_root(payload)
        if root is None:
            raise InputError(f"anchor payload of {len(payload)} bytes, expected MLP1 and 32")
        to, call = self.contract or self._sender.required_address(), payload
        if self.settings.multisig is not None:
            to = self._sender.required_contract()
            request = None if self._requests is None else self._requests(root)
            call = self._owned.signed_call(self._node, to, root, request)
        elif self.contract is not None:
            call = self._abi.store_call(root, "")
        return Draft(self.name, payload, self._sender.prepare(to, call, replaces))

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """The signed transaction, local and deterministic: a replacement keeps the nonce of the
        version it replaces, and ``nonce`` may then be None."""
        return self._sender.sign(draft, nonce)

    def broadcast(self, version: SignedVersion) -> None:
        """Send the stored bytes; that the node has them already is success.

        Raises:
            NonceUsedError: The nonce is spent, and the node does not know this transaction.
            LyingNodeError: The node echoes another hash.
        """
        self._sender.broadcast(version)

    def observe(self, version: SignedVersion) -> Observation:
        """Where the version is now.

        CONFLICTED where a block holds another transaction with its nonce and the node does
        not know this one. A node that has pruned its index of old transactions answers the
        same for a final one, so final versions are not to be observed again.
        """
        self._sender.require_chain(version)
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
        to the id, commits to the root, and receipts outlive a change of contract. Whether
        another contract than the configured one is ours, ``our_code`` says.

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
        named = {txid.lower(): txid for txid in transaction_ids if _TXID.fullmatch(txid.lower())}
        self._node.chain_id()
        observations = self._node.find_many(list(named))
        return {named[txid]: seen for txid, seen in observations.items()}

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """Raw transaction, receipt, block header and trie proofs, for offline checking.

        ``block.header_rlp`` hashes (keccak-256) to the block hash; where a chain's headers
        have another shape it is None and ``block.note`` says so. ``receipt_proof`` and
        ``transaction_proof`` lead from the header to our receipt and transaction, as far as
        :mod:`~provenance.chains.ethereum.trie` can make them.

        Raises:
            NetworkUnavailable: The transaction is no longer in the block of ``seen``.
        """
        mined = self._node.locate(version.transaction_id)
        if isinstance(mined, Place) or mined.block.hash != seen.block_hash:
            raise NetworkUnavailable(
                f"ethereum: {version.transaction_id} is not in block {seen.block_hash} now"
            )
        document = self._evidence(mined.receipt, mined.block)
        contract = version.detail.get("contract")
        at, root = contract if isinstance(contract, str) else None, payload_root(version.payload)
        assert root is not None
        transaction: dict[str, Json] = {
            "id": version.transaction_id,
            "index": mined.receipt.index,
            "raw": "0x" + version.raw.hex(),
        }
        return {
            "type": self.name,
            "chain_id": version.detail["chain_id"],
            "contract": contract,
            "transaction": transaction,
            **document,
            **self._proofs(self._node, mined, at, root),
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
        if self.settings.multisig is not None:
            problem = "takes a root with its owners' signatures alone: provenance multisig"
            raise RejectedError(f"ethereum: the contract at {self.contract} {problem}")
        call = self._abi.store_call(root, metadata)
        to = self.contract
        if to is None:
            to, call = self._sender.required_address(), anchor_payload(root)
        return self._sender.transact(to, call, deadline_s).id

    def verify_hash(self, root: bytes) -> bool:
        """Whether the contract holds the hash, in the newest block."""
        call = self._abi.call_of("verifyHash", root)
        return self._abi.read_flag(self._node.view(self._sender.required_contract(), call))

    def get_hash_info(self, root: bytes) -> HashInfo:
        """Who stored the hash first, when, and with what metadata."""
        call = self._abi.call_of("getHashInfo", root)
        return self._abi.read_info(self._node.view(self._sender.required_contract(), call))

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
        address = self._sender.required_contract()
        call = self._abi.inclusion_call(root, leaf, index, size, proof)
        try:
            answer = self._node.view(address, call)
        except RejectedError:  # it never reverts, and one without the function always does
            answer = b""
        if not answer:
            problem = "has no verifyInclusion; it is of an earlier release, or none of ours"
            raise RejectedError(f"ethereum: the contract at {address} {problem}")
        return self._abi.read_flag(answer, "verifyInclusion")

    def confirm_bitcoin(
        self, view: str, register: str | None, root: bytes, proof: Proof, work: int
    ) -> Confirmed:
        """Have a BitcoinAnchor contract check Bitcoin's proof of a root, in the newest block.

        Args:
            view: Its address.
            register: The MLProvenance contract that must hold the root, too: the configured
                one, or one of this project's code; None asks none.
            work: Hashes that the proof's headers must have taken together.

        Raises:
            ProofError: The contract refuses it; says why.
            WrongNetworkError: Other code than ours lies at one of the addresses.
        """
        from provenance.chains.ethereum.bitcoin_view import confirm

        ours = register is None or register.lower() == (self.contract or "").lower()
        if not ours and not self._node.has_our_code(str(register), "latest"):
            raise WrongNetworkError(f"ethereum: other code than MLProvenance's lies at {register}")
        return confirm(self._node, view, register, root, proof, work)

    def deploy_contract(
        self, name: str = "MLProvenance", deadline_s: float = 180.0
    ) -> tuple[str, str]:
        """Create one of this project's contracts: ``(checksummed address, transaction id)``.

        Raises:
            LyingNodeError: Other code than ours lies at the new address.
        """
        return self._sender.deploy(self._abi.Contract.read(name), deadline_s)


def deploy(
    settings: EthereumSettings, name: str = "MLProvenance", deadline_s: float = 180.0
) -> tuple[str, str]:
    """:meth:`EthereumInterface.deploy_contract` with the settings' key; their
    ``contract_address`` is not looked at."""
    network = EthereumInterface(settings)
    try:
        return network.deploy_contract(name, deadline_s)
    finally:
        network.close()
