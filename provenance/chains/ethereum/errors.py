"""What Ethereum nodes say when they refuse, in this project's words.

JSON-RPC fixes no codes for a transaction pool's refusals, so the wording decides; it is
read here and nowhere else. The wordings are those of go-ethereum (``core/error.go``,
``core/txpool/errors.go``), Erigon (``txpoolcfg.DiscardReason``), Nethermind
(``AcceptTxResult``), Besu, Reth and anvil. A refusal that none of them uses is taken as
retryable: a later ledger head covers an anchor that never came through, while a wrong
"permanent" would drop it.
"""

from __future__ import annotations

import re

from provenance.errors import (
    FeeTooLowError,
    InsufficientFundsError,
    NetworkError,
    NetworkUnavailable,
    NonceUsedError,
    ProvenanceError,
    RejectedError,
    WrongNetworkError,
)

_MAX_TEXT = 200


class AlreadyKnownError(NetworkError):
    """The node has this very transaction: for a sender, success."""


class MethodMissingError(RejectedError):
    """The node does not serve this RPC method."""


class RevertedError(RejectedError):
    """A contract refused a call; ``data`` is the error in its own form (Solidity ABI)."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


class BlockMissingError(NetworkUnavailable):
    """The node has no block under that tag, such as ``finalized`` on a young dev chain."""


# First match wins, so a longer wording stands before one it contains.
_WORDINGS: tuple[tuple[type[ProvenanceError], str], ...] = (
    (
        AlreadyKnownError,
        r"already known|\bknown transaction|already imported|alreadyknown|already exists"
        r"|existing txn? with same hash|^mined$",
    ),
    (NonceUsedError, r"nonce (is )?too low|oldnonce"),
    (
        FeeTooLowError,
        r"underpriced|fee per gas less than block base fee|fee ?cap less than block base fee"
        r"|fee ?too ?low|could not replace existing|replacementnotallowed"
        r"|insufficient gas price to replace|replaced by transaction with higher tip"
        r"|gas price (is )?(too low|below|less than)",
    ),
    (
        InsufficientFundsError,
        r"insufficient ?(funds|balance)|upfront cost exceeds account balance"
        r"|gas required exceeds allowance",
    ),
    (
        WrongNetworkError,
        r"(invalid|wrong|incompatible) chain ?id|chain ?id (mismatch|does not match)"
        r"|invalidtxchainid|incompatible eip-?155",
    ),
    (
        BlockMissingError,
        r"(finalized|safe) block (is )?not (found|available)|(finalized|safe) header not found"
        r"|^unknown block$",
    ),
    (
        NetworkUnavailable,
        r"pool is full|account limit exceeded|nonce ?(too high|gap|toofarinfuture)|gapped"
        r"|in-flight transaction limit|future transaction tries to replace pending"
        r"|rate limit|too many requests|request limit|header not found|missing trie node"
        r"|indexing is in progress|syncing|timed? ?out"
        # The account's, not the transaction's: a key that ran out, a plan that is used up.
        r"|authenticat|unauthori[sz]ed|api ?key|access denied|forbidden|quota|project id"
        r"|payment required|capacity|(daily|monthly|plan) limit|not enabled for|app is inactive",
    ),
    (
        MethodMissingError,
        r"method \S+ (does not exist|(is )?not found|(is )?not supported)"
        r"|method (is )?not (found|supported)|unsupported method"
        r"|the method .* (does not exist|is not available)",
    ),
    (
        RejectedError,
        r"revert|intrinsic ?gas|gas ?limit|floor data gas|out of gas|gas ?uint|oversized data"
        r"|max priority fee per gas higher|tip higher than|(invalid|missing) (sender|signature)"
        r"|negative value|exceeds the configured cap|type(?: \S+)? not supported|unsupported"
        r"|^rlp|rlptoolong|sender (is )?not an eoa|senderiscontract|nonce has max value"
        r"|replay-protected|initcode|invalid transaction|typed transaction|decode",
    ),
)
_TABLE = tuple((kind, re.compile(pattern)) for kind, pattern in _WORDINGS)

_METHOD_NOT_FOUND = -32601
_UNKNOWN_BLOCK = -39001
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})+")
_CODES: dict[int, type[ProvenanceError]] = {
    3: RejectedError,  # execution reverted, with the revert data
    -32005: NetworkUnavailable,  # EIP-1474: limit exceeded
    -32600: RejectedError,
    -32602: RejectedError,
    -32700: RejectedError,
    _METHOD_NOT_FOUND: MethodMissingError,
    _UNKNOWN_BLOCK: BlockMissingError,
}


def clean(text: object) -> str:
    """A node's text made fit for one line of ours: printable, at most 200 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 3] + "..."


def rpc_error(method: str, code: int | None, message: str, data: object = None) -> ProvenanceError:
    """The error of this project for a JSON-RPC ``error`` object.

    Args:
        method: The RPC method that was refused.
        code: ``error.code``; None where it is missing.
        message: ``error.message`` as the node wrote it.
        data: ``error.data``: ``0x`` hex of what a contract reverted with.
    """
    text = f"ethereum node refused {method}: {clean(message) or f'code {code}'}"
    if code == _METHOD_NOT_FOUND:
        return MethodMissingError(text)
    lower = message.lower()
    found = next((kind for kind, pattern in _TABLE if pattern.search(lower)), None)
    found = found or _CODES.get(code or 0, NetworkUnavailable)
    if found is RejectedError and isinstance(data, str) and _DATA.fullmatch(data):
        return RevertedError(text, bytes.fromhex(data[2:]))
    return found(text)


def http_error(where: str, status: int) -> NetworkUnavailable:
    """For an HTTP status that carries no JSON-RPC answer. Always retryable: a gateway's
    refusal, an expired key included, says nothing about the transaction."""
    if 300 <= status < 400:
        hint = "a redirect; put the final address into blockchain.ethereum.url"
    elif status in (401, 403):
        hint = "the credentials in blockchain.ethereum.url are not accepted"
    elif status == 429:
        hint = "too many requests"
    else:
        hint = "expected 200"
    return NetworkUnavailable(f"ethereum node {where} answered HTTP {status}: {hint}")
