"""The ``BitcoinAnchor`` contract: Bitcoin's proof of a root as its calldata, and its answers
(docs/FORMAT.md, section 8.6).

``contracts/BitcoinAnchor.json`` is what ``provenance_devnet.contract`` makes of
``contracts/BitcoinAnchor.sol``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final, NamedTuple

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from provenance.chains.ethereum.contract import Contract
from provenance.chains.ethereum.errors import RevertedError
from provenance.chains.ethereum.node import EthereumNode
from provenance.errors import LyingNodeError, ProofError, WrongNetworkError
from provenance.evidence.run_evidence import evidence_bytes
from provenance.formats.fields import Fields
from provenance.formats.record import Json
from provenance.proofs.bitcoin import (
    HEADER_BYTES,
    parse_header,
    parse_merkle_block,
    parse_transaction,
    prove_inclusion,
)

BITCOIN_ANCHOR: Final = Contract.read("BitcoinAnchor")
LAST_MOMENT: Final = 253_402_300_799
"""The end of the year 9999, Unix seconds: no block is later."""
_REASONS: Final = {
    "NodeSizedTransaction": "the transaction has 64 bytes, as an inner node has",
    "NoTransaction": "no transaction without witness: it stops to be one at byte {}",
    "NotOnePayload": "the transaction carries {} roots, expected one",
    "OtherRoot": "the transaction carries root {}",
    "PathTooLong": "a Merkle path of {} steps, at most 15",
    "AmbiguousPath": "two equal siblings at level {} of the Merkle path",
    "NoSuchIndex": "the Merkle path has no index {}",
    "NotInBlock": "the Merkle path leads to {}, which is not the header's",
    "NoHeaders": "headers of {} bytes, expected a multiple of 80",
    "NotLinked": "header {} does not build on the one before",
    "NoWork": "header {} has not the work that it states",
    "TooLittleWork": "the headers took {} hashes, expected {} at least",
    "NotRegistered": "the register {} does not hold root {}",
}
"""What the contract's errors mean, in the words of a message."""


@dataclass(frozen=True, slots=True)
class Proof:
    """As the contract takes it: the transaction without witness, its index in the block, its
    siblings from the lowest up, and the block's header with those that build on it."""

    transaction: bytes
    index: int
    path: tuple[bytes, ...]
    headers: bytes


class Confirmed(NamedTuple):
    """What the contract confirms.

    Attributes:
        block_hash: As people write it. time: Of the block's header, Unix seconds.
        work: Hashes that the headers took on average, together.
        registered: When the register stored the root, Unix seconds; None where it was not asked.
    """

    block_hash: str
    time: int
    work: int
    registered: int | None


def proof_of(evidence: Mapping[str, Json]) -> Proof:
    """The proof in the evidence of a Bitcoin receipt; FormatError or ProofError where there is
    none."""
    fields = Fields(evidence, "evidence")
    transaction = parse_transaction(evidence_bytes(fields, "transaction"))
    block = parse_merkle_block(evidence_bytes(fields, "merkle_block"))
    leaf = prove_inclusion(transaction, block)
    above = Fields({"headers": [], **evidence}, "evidence").items("headers", evidence_bytes)
    headers = b"".join([evidence_bytes(fields, "header"), *above])
    siblings = tuple(sibling for _, sibling in leaf.path)
    return Proof(transaction.stripped, leaf.index, siblings, headers)


def confirm(
    node: EthereumNode, view: str, register: str | None, root: bytes, proof: Proof, work: int
) -> Confirmed:
    """Have the contract at ``view`` check a proof, in the newest block.

    Args:
        register: An MLProvenance contract that must hold the root; None asks none.
        work: Hashes that the headers must have taken at least.

    Raises:
        ProofError: The contract refuses it; says why.
        WrongNetworkError: Other code lies at ``view``.
        LyingNodeError, NetworkUnavailable: No answer of that contract.
    """
    if node.code(view) != BITCOIN_ANCHOR.deployed:
        problem = "other code than BitcoinAnchor's" if node.code(view) else "no contract"
        chain = node.chain_id()
        raise WrongNetworkError(f"ethereum: {problem} lies at {view} on chain id {chain}")
    if register is None:
        function, call = "anchored", BITCOIN_ANCHOR.call_of("anchored", root, astuple(proof), work)
    else:
        function = "confirmed"
        call = BITCOIN_ANCHOR.call_of(function, register, root, astuple(proof), work)
    try:
        answer = node.view(view, call)
    except RevertedError as error:
        raise ProofError(f"ethereum: {_reason(error.data) or error}") from error
    types = ["bytes32", "uint64", "uint256", "uint64"][: 3 if register is None else 4]
    try:
        block, time, total, *registered = decode(types, answer)
    except (DecodingError, OverflowError) as error:
        problem = f"does not decode ({type(error).__name__})"
        raise LyingNodeError(f"ethereum node: the answer of {function} {problem}") from None
    header = parse_header(proof.headers[:HEADER_BYTES])
    stated = (block[::-1], time) == (header.hash, header.time) and total >= work
    if not stated or any(moment > LAST_MOMENT for moment in registered):
        raise LyingNodeError(f"ethereum node: the answer of {function} is of another block")
    return Confirmed(block.hex(), time, total, registered[0] if registered else None)


def _reason(data: bytes) -> str | None:
    """The contract's error in words; None for one that is not its own."""
    for name, text in _REASONS.items():
        values = BITCOIN_ANCHOR.error_values(name, data)
        if values is not None:
            return text.format(*(v.hex() if isinstance(v, bytes) else v for v in values))
    return None
