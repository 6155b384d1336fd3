"""The wordings of real clients, since a dev chain is laxer than they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.chains.ethereum.errors import (
    AlreadyKnownError,
    BlockMissingError,
    MethodMissingError,
    clean,
    http_error,
    rpc_error,
)
from provenance.errors import (
    FeeTooLowError,
    InsufficientFundsError,
    NetworkError,
    NetworkUnavailable,
    NonceUsedError,
    RejectedError,
    WrongNetworkError,
)

ADDRESS = "0x71562b71999873DB5b286dF957af199Ec94617F7"
HASH = "0x" + "ab" * 32

WORDINGS = [
    # go-ethereum core/txpool/errors.go
    (AlreadyKnownError, "already known"),
    (FeeTooLowError, "transaction underpriced"),
    (FeeTooLowError, "transaction underpriced: gas tip cap 1, minimum needed 1000000"),
    (FeeTooLowError, "replacement transaction underpriced"),
    (NetworkUnavailable, "txpool is full"),
    (NetworkUnavailable, "account limit exceeded"),
    (NetworkUnavailable, "in-flight transaction limit reached for delegated accounts"),
    (NetworkUnavailable, "gapped-nonce tx from delegated accounts"),
    (NetworkUnavailable, "future transaction tries to replace pending"),
    (RejectedError, "invalid sender"),
    (RejectedError, "exceeds block gas limit"),
    (RejectedError, "negative value"),
    (RejectedError, "oversized data: transaction size 131080, limit 131072"),
    # go-ethereum core/error.go
    (NonceUsedError, "nonce too low"),
    (NonceUsedError, "nonce too low: next nonce 9, tx nonce 3"),
    (NonceUsedError, f"nonce too low: address {ADDRESS}, tx: 3 state: 9"),
    (NetworkUnavailable, "nonce too high"),
    (RejectedError, "nonce has max value"),
    (RejectedError, "gas limit reached"),
    (InsufficientFundsError, "insufficient funds for transfer"),
    (InsufficientFundsError, "insufficient funds for gas * price + value"),
    (
        InsufficientFundsError,
        "insufficient funds for gas * price + value: balance 0, tx cost 42000, overshot 42000",
    ),
    (RejectedError, "intrinsic gas too low"),
    (RejectedError, "intrinsic gas too low: gas 20000, minimum needed 21644"),
    (RejectedError, "insufficient gas for floor data gas cost: gas 21100, minimum needed 22440"),
    (RejectedError, "transaction type not supported"),
    (RejectedError, "max priority fee per gas higher than max fee per gas"),
    (RejectedError, "max priority fee per gas higher than 2^256-1"),
    (FeeTooLowError, "max fee per gas less than block base fee"),
    (
        FeeTooLowError,
        f"max fee per gas less than block base fee: address {ADDRESS}, maxFeePerGas: 1, "
        "baseFee: 875000000",
    ),
    (RejectedError, "sender not an eoa"),
    (RejectedError, "max initcode size exceeded"),
    # go-ethereum internal/ethapi, core/types
    (RejectedError, "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)"),
    (RejectedError, "only replay-protected (EIP-155) transactions allowed over RPC"),
    (InsufficientFundsError, "gas required exceeds allowance (0)"),
    (WrongNetworkError, "invalid chain id for signer: have 1 want 31337"),
    (WrongNetworkError, "invalid chain ID"),
    (RejectedError, "execution reverted"),
    (RejectedError, "execution reverted: not the owner"),
    (NetworkUnavailable, "header not found"),
    (NetworkUnavailable, "missing trie node abcd (path ) <nil>"),
    (NetworkUnavailable, "transaction indexing is in progress"),
    (NetworkUnavailable, "request timed out"),
    (BlockMissingError, "finalized block not found"),
    (RejectedError, "typed transaction too short"),
    (RejectedError, "rlp: element is larger than containing list"),
    # Erigon txpoolcfg.DiscardReason
    (AlreadyKnownError, "existing tx with same hash"),
    (AlreadyKnownError, "existing txn with same hash"),
    (AlreadyKnownError, "mined"),
    (FeeTooLowError, "underpriced"),
    (FeeTooLowError, "fee too low"),
    (FeeTooLowError, "could not replace existing tx"),
    (FeeTooLowError, "replaced by transaction with higher tip"),
    (InsufficientFundsError, "insufficient funds"),
    (NetworkUnavailable, "pending sub-pool is full"),
    (NetworkUnavailable, "baseFee sub-pool is full"),
    (NetworkUnavailable, "queued sub-pool is full"),
    (RejectedError, "RLPTooLong"),
    (RejectedError, "IntrinsicGas"),
    (RejectedError, "GasUintOverflow"),
    # Nethermind AcceptTxResult
    (AlreadyKnownError, "AlreadyKnown"),
    (NonceUsedError, "OldNonce, Current nonce: 5, nonce of rejected tx: 3"),
    (FeeTooLowError, "FeeTooLow, MaxFeePerGas: 1, MinimalGasPrice: 7"),
    (FeeTooLowError, "FeeTooLowToCompete"),
    (FeeTooLowError, "ReplacementNotAllowed"),
    (InsufficientFundsError, "InsufficientFunds, Balance is zero, cannot pay gas"),
    (RejectedError, "GasLimitExceeded, Gas limit: 30000000, gas limit of rejected tx: 40000000"),
    (NetworkUnavailable, "NonceGap, Future nonce. Expected nonce: 4"),
    (RejectedError, "SenderIsContract"),
    # Besu
    (AlreadyKnownError, "Known transaction"),
    (NonceUsedError, "Nonce too low"),
    (InsufficientFundsError, "Upfront cost exceeds account balance"),
    (FeeTooLowError, "Gas price below configured minimum gas price"),
    (RejectedError, "Intrinsic gas exceeds gas limit"),
    # Reth, anvil and old go-ethereum
    (AlreadyKnownError, "transaction already imported"),
    (AlreadyKnownError, f"known transaction: {HASH}"),
    (FeeTooLowError, f"[{HASH}]: insufficient gas price to replace existing transaction."),
    (InsufficientFundsError, "Insufficient funds for gas * price + value"),
    # Hosted gateways
    (NetworkUnavailable, "daily request count exceeded, request rate limited"),
    (NetworkUnavailable, "Too Many Requests"),
]


@pytest.mark.parametrize(("kind", "wording"), WORDINGS, ids=[w[:60] for _, w in WORDINGS])
def test_wording(kind: type[Exception], wording: str) -> None:
    error = rpc_error("eth_sendRawTransaction", -32000, wording)
    assert type(error) is kind
    assert "eth_sendRawTransaction" in str(error)


@pytest.mark.parametrize(
    ("kind", "code", "wording"),
    [
        (MethodMissingError, -32601, "the method debug_x does not exist/is not available"),
        (MethodMissingError, -32000, "The method eth_x does not exist/is not available"),
        (MethodMissingError, -32601, "already known"),
        (NetworkUnavailable, -32600, "eth-mainnet is not enabled for this app"),
        # wordings of providers, in public reports of users
        (MethodMissingError, -32000, "Method eth_maxPriorityFeePerGas not supported."),
        (MethodMissingError, -32600, "Unsupported method: eth_maxPriorityFeePerGas on X. See"),
        (MethodMissingError, -32602, "Unsupported method: eth_maxPriorityFeePerGas. See"),
        (MethodMissingError, -32004, "This request method is not supported"),
        (NetworkUnavailable, -32600, "Must be authenticated!"),
        (NetworkUnavailable, -32600, "invalid API key"),
        (NetworkUnavailable, -32602, "Your app has exceeded its monthly quota"),
        (RejectedError, 3, "VM Exception"),
        (RejectedError, -32602, "missing value for required argument 0"),
        (NetworkUnavailable, -32005, "limit"),
        (NetworkUnavailable, -32603, "Internal error"),
        (BlockMissingError, -39001, "Unknown block"),
        (NetworkUnavailable, -32000, "a wording that nobody has seen"),
        (NetworkUnavailable, None, ""),
        (NetworkUnavailable, -32000, "unknown transaction"),
    ],
)
def test_code(kind: type[Exception], code: int | None, wording: str) -> None:
    assert type(rpc_error("eth_call", code, wording)) is kind


@pytest.mark.parametrize(
    ("code", "data", "found"),
    [
        (3, "0xcfcd0e81", b"\xcf\xcd\x0e\x81"),
        (3, "0x", None),
        (3, "0xcfcd0e8", None),
        (3, "Reverted", None),
        (3, None, None),
        (3, {"data": "0x00"}, None),
        (-32000, "0xcfcd0e81", b"\xcf\xcd\x0e\x81"),
    ],
)
def test_what_a_contract_reverted_with_is_kept(code: int, data: object, found: bytes) -> None:
    error = rpc_error("eth_call", code, "execution reverted", data)
    assert isinstance(error, RejectedError)
    assert getattr(error, "data", None) == found


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    retryable = {k for k, _ in WORDINGS if getattr(k, "retryable", False)}
    assert retryable == {
        NetworkUnavailable,
        BlockMissingError,
        FeeTooLowError,
        InsufficientFundsError,
    }


@given(st.integers() | st.none(), st.text())
def test_any_refusal_becomes_an_error_of_ours_on_one_line(code: int | None, text: str) -> None:
    error = rpc_error("eth_call", code, text)
    assert isinstance(error, NetworkError | NetworkUnavailable)
    assert str(error).isprintable()
    assert len(str(error)) < 300


def test_clean_cuts_control_characters_and_length() -> None:
    assert clean("a\nb\x1b[31mc\x00") == "a b [31mc"
    assert len(clean("x" * 1000)) == 200


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (302, "redirect"),
        (401, "credentials"),
        (403, "credentials"),
        (429, "too many"),
        (502, "200"),
    ],
)
def test_http_status(status: int, says: str) -> None:
    error = http_error("https://node.example", status)
    assert type(error) is NetworkUnavailable
    assert str(status) in str(error)
    assert says in str(error)
