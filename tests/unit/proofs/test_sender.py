"""Who signed an Ethereum transaction, against eth_account."""

from __future__ import annotations

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import FormatError
from provenance.proofs.ethereum import sender_of
from provenance.proofs.secp256k1 import N, recover
from tests.support.nodes.ethereum_chain import KEYS


def signed(key: str | bytes, **fields: object) -> bytes:
    transaction = {
        "type": 2, "chainId": 31337, "nonce": 7, "gas": 50_000, "value": 0, "data": b"MLP1" * 9,
        "maxFeePerGas": 10**9, "maxPriorityFeePerGas": 1, "to": bytes.fromhex("5f" * 20), **fields,
    }  # fmt: skip
    return bytes(Account.from_key(key).sign_transaction(transaction).raw_transaction)


def test_the_dev_chains_first_account() -> None:
    assert sender_of(signed(KEYS[0])) == "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(1, N - 1), st.integers(0, 2**60), st.binary(max_size=300))
def test_any_account_and_transaction(key: int, nonce: int, data: bytes) -> None:
    secret = key.to_bytes(32, "big")
    raw = signed(secret, nonce=nonce, data=data)
    assert sender_of(raw) == Account.from_key(secret).address.lower()


def test_what_no_key_signed_is_refused() -> None:
    for r, s in ((0, 1), (1, 0), (N, 1), (5, 1)):  # 5^3 + 7 has no root
        with pytest.raises(FormatError, match="signature"):
            recover(bytes(32), r, s, odd=False)
    raw = signed(KEYS[0])
    assert sender_of(raw) != sender_of(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(FormatError):
        sender_of(raw[:-1])
