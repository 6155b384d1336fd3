"""Answers that were tampered with, and bytes worked out apart from the code under test."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import rlp
from eth_abi import encode
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from provenance.chains.ethereum.contract import (
    ARTIFACT,
    HASH_STORED,
    HashInfo,
    call_of,
    inclusion_call,
    read_flag,
    read_info,
    store_call,
    stored_event,
    stored_root,
)
from provenance.chains.ethereum.encoding import data, quantity
from provenance.chains.ethereum.libs import Account
from provenance.chains.ethereum.responses import (
    evidence,
    header_rlp,
    read_block,
    read_receipt,
    read_transaction,
)
from provenance.errors import InputError, LyingNodeError
from provenance.proofs.ethereum import Log

KEY = "0x" + "11" * 32
ROOT = bytes(range(32))
ADDRESS = "0x" + "22" * 20
BLOCK = "0x" + "33" * 32


def transaction(**changes: Any) -> tuple[dict[str, Any], str, bytes]:
    """A signed transaction as a node tells it, its id, its raw bytes."""
    account = Account.from_key(KEY)
    access = [{"address": ADDRESS, "storageKeys": ["0x" + "44" * 32]}]
    signed = account.sign_transaction(
        {
            "type": 2,
            "chainId": 31337,
            "nonce": 7,
            "gas": 30_000,
            "maxFeePerGas": 5 * 10**9,
            "maxPriorityFeePerGas": 10**9,
            "value": 0,
            "to": account.address,
            "data": b"MLP1" + ROOT,
            "accessList": access,
        }
    )
    txid = "0x" + bytes(signed.hash).hex()
    told = {
        "type": "0x2",
        "hash": txid,
        "chainId": "0x7a69",
        "nonce": "0x7",
        "gas": hex(30_000),
        "maxFeePerGas": hex(5 * 10**9),
        "maxPriorityFeePerGas": hex(10**9),
        "value": "0x0",
        "from": account.address.lower(),
        "to": account.address,
        "input": "0x" + (b"MLP1" + ROOT).hex(),
        "accessList": access,
        "yParity": hex(signed.v),
        "v": hex(signed.v),
        "r": hex(signed.r),
        "s": hex(signed.s),
        "blockHash": BLOCK,
        "blockNumber": "0x5",
        "transactionIndex": "0x0",
    }
    return {**told, **changes}, txid, bytes(signed.raw_transaction)


def receipt(**changes: Any) -> tuple[dict[str, Any], str]:
    _, txid, _ = transaction()
    log = {
        "address": ADDRESS,
        "topics": ["0x" + ROOT.hex()],
        "data": "0x",
        "transactionHash": txid,
        "blockHash": BLOCK,
        "removed": False,
    }
    told = {
        "transactionHash": txid,
        "blockHash": BLOCK,
        "blockNumber": "0x5",
        "transactionIndex": "0x0",
        "from": ADDRESS,
        "to": None,
        "status": "0x1",
        "gasUsed": "0x5208",
        "contractAddress": ADDRESS,
        "logs": [{**log, **changes.pop("log", {})}],
    }
    return {**told, **changes}, txid


def test_a_transaction_is_rebuilt_byte_for_byte() -> None:
    told, txid, raw = transaction()
    read = read_transaction(told, txid)
    assert read.raw == raw
    assert read.input == b"MLP1" + ROOT
    assert (read.block_hash, read.block_number, read.index) == (BLOCK, 5, 0)


def test_a_transaction_in_the_pool_has_no_block() -> None:
    told, txid, _ = transaction(blockHash=None, blockNumber=None, transactionIndex=None)
    assert read_transaction(told, txid).block_number is None


@pytest.mark.parametrize(
    "changes",
    [
        {"input": "0x" + (b"MLP1" + bytes(32)).hex()},
        {"to": ADDRESS},
        {"to": None},
        {"from": ADDRESS},
        {"chainId": "0x1"},
        {"nonce": "0x8"},
        {"gas": "0x1"},
        {"value": "0x1"},
        {"maxFeePerGas": "0x1"},
        {"maxPriorityFeePerGas": "0x1"},
        {"accessList": []},
        {"accessList": [{}]},
        {"accessList": "0x"},
        {"r": "0x1"},
        {"s": "0x1"},
        {"yParity": "0x5"},
        {"hash": BLOCK},
        {"hash": None},
        {"type": None},
        {"chainId": None},
        {"nonce": 7},
        {"input": "0xabc"},
        {"blockHash": "0x12"},
        {"transactionIndex": None},
    ],
    ids=str,
)
def test_a_tampered_transaction_is_a_lie(changes: dict[str, Any]) -> None:
    told, txid, _ = transaction(**changes)
    with pytest.raises(LyingNodeError):
        read_transaction(told, txid)


@pytest.mark.parametrize("r", [0, 1, 2**256 - 1])
def test_a_signature_that_is_none_is_a_lie(r: int) -> None:
    told, _, raw = transaction()
    fields = rlp.decode(raw[1:])
    fields[10] = r.to_bytes((r.bit_length() + 7) // 8, "big")
    txid = "0x" + keccak(b"\x02" + rlp.encode(fields)).hex()
    with pytest.raises(LyingNodeError, match=r"signa|signed"):
        read_transaction({**told, "r": hex(r), "hash": txid}, txid)


def test_a_valid_transaction_under_another_id_is_a_lie() -> None:
    told, _, _ = transaction()
    wanted = "0x" + "ab" * 32
    with pytest.raises(LyingNodeError, match="do not hash to it"):
        read_transaction({**told, "hash": wanted}, wanted)


def test_another_type_is_read_and_not_believed() -> None:
    told, txid, _ = transaction(type="0x0")
    assert read_transaction(told, txid).raw == b""


def test_a_receipt() -> None:
    told, txid = receipt()
    read = read_receipt(told, txid)
    assert (read.status, read.gas_used, read.block_number) == (1, 21_000, 5)
    assert read.contract == bytes.fromhex(ADDRESS[2:])
    assert read.logs == (Log(bytes.fromhex(ADDRESS[2:]), (ROOT,), b""),)


@pytest.mark.parametrize(
    "changes",
    [
        {"transactionHash": BLOCK},
        {"status": "0x2"},
        {"status": None},
        {"logs": None},
        {"logs": ["x"]},
        {"from": None},
        {"to": "0x"},
        {"log": {"transactionHash": BLOCK}},
        {"log": {"blockHash": "0x" + "99" * 32}},
        {"log": {"removed": True}},
        {"log": {"topics": ["0x00"]}},
        {"log": {"topics": None}},
    ],
    ids=str,
)
def test_a_tampered_receipt_is_a_lie(changes: dict[str, Any]) -> None:
    told, txid = receipt(**changes)
    with pytest.raises(LyingNodeError):
        read_receipt(told, txid)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.data(), json_values)
@pytest.mark.slow
def test_any_field_may_be_anything(draw: st.DataObject, junk: object) -> None:
    told, txid, raw = transaction()
    told[draw.draw(st.sampled_from(sorted(told)))] = junk
    with contextlib.suppress(LyingNodeError):
        assert read_transaction(told, txid).raw in (raw, b"")
    bill, txid = receipt()
    bill[draw.draw(st.sampled_from(sorted(bill)))] = junk
    with contextlib.suppress(LyingNodeError):
        read_receipt(bill, txid)
    for read in (lambda x: read_transaction(x, txid), lambda x: read_receipt(x, txid)):
        with pytest.raises(LyingNodeError):
            read(junk)
    with pytest.raises(LyingNodeError):
        read_block(junk, "block")


@pytest.mark.parametrize("value", ["0x", "0xg", "1", 1, None, True, "0x" + "1" * 65, [], "0x1\n"])
def test_quantity_is_strict(value: object) -> None:
    with pytest.raises(LyingNodeError, match="height"):
        quantity(value, "height")


@pytest.mark.parametrize("value", ["", "0x1", "0xzz", "0x" + "00" * 31, None, b"", 5])
def test_data_is_strict(value: object) -> None:
    with pytest.raises(LyingNodeError, match="root"):
        data(value, "root", 32)


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(LyingNodeError) as caught:
        quantity("x" * 10_000, "height")
    assert len(str(caught.value)) < 200


# Block 1 of Ethereum mainnet, as published.
MAINNET_1 = {
    "hash": "0x88e96d4537bea4d9c05d12549907b32561d3bf31f45aae734cdc119f13406cb6",
    "parentHash": "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
    "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
    "miner": "0x05a56e2d52c817161883f50c441c3228cfe54d9f",
    "stateRoot": "0xd67e4d450343046425ae4271474353857ab860dbc0a1dde64b41b5cd3a532bf3",
    "transactionsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    "receiptsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    "logsBloom": "0x" + "00" * 256,
    "difficulty": "0x3ff800000",
    "number": "0x1",
    "gasLimit": "0x1388",
    "gasUsed": "0x0",
    "timestamp": "0x55ba4224",
    "extraData": "0x476574682f76312e302e302f6c696e75782f676f312e342e32",
    "mixHash": "0x969b900de27b6ac6a67742365dd65f55a0526c41fd18e1b16f1a1215c2e66f59",
    "nonce": "0x539bd4979fef1ec4",
    "transactions": [],
}


def test_a_header_hashes_to_its_block() -> None:
    block = read_block(MAINNET_1, "block")
    header = header_rlp(block)
    assert header is not None
    assert "0x" + keccak(header).hex() == MAINNET_1["hash"]


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": "0x55ba4225"},
        {"miner": None},
        {"logsBloom": "0x00"},
        {"baseFeePerGas": "0x1"},
    ],
    ids=str,
)
def test_a_header_that_does_not_hash_is_noted(changes: dict[str, Any]) -> None:
    block = read_block({**MAINNET_1, **changes}, "block")
    told, txid = receipt()
    document = evidence(read_receipt(told, txid), block)
    part = document["block"]
    assert isinstance(part, dict)
    assert part["header_rlp"] is None
    assert "do not hash" in str(part["note"])
    json.dumps(document)


def test_calls_against_the_published_abi() -> None:
    # keccak-256 of the signatures, first four bytes, as any Solidity tool prints them.
    assert store_call(ROOT, "")[:4] == keccak(text="storeHash(bytes32,string)")[:4]
    assert call_of("verifyHash", ROOT) == keccak(text="verifyHash(bytes32)")[:4] + ROOT
    assert call_of("getHashInfo", ROOT) == keccak(text="getHashInfo(bytes32)")[:4] + ROOT
    selector = keccak(text="verifyInclusion(bytes32,bytes32,uint256,uint256,bytes32[])")[:4]
    types = ["bytes32", "bytes32", "uint256", "uint256", "bytes32[]"]
    told = [ROOT, ROOT[::-1], 2, 5, [ROOT, bytes(32)]]
    assert inclusion_call(ROOT, ROOT[::-1], 2, 5, (ROOT, bytes(32))) == selector + encode(
        types, told
    )
    assert keccak(text="HashStored(bytes32,address,uint64,string)") == HASH_STORED
    assert store_call(ROOT, "hi")[4:] == encode(["bytes32", "string"], [ROOT, "hi"])
    names = {each["name"] for each in ARTIFACT["abi"]}
    assert names >= {"storeHash", "verifyHash", "verifyInclusion", "getHashInfo", "HashStored"}


@given(st.binary(min_size=32, max_size=32).filter(any), st.text(max_size=60))
def test_the_root_comes_back_out_of_the_calldata(root: bytes, metadata: str) -> None:
    assert stored_root(store_call(root, metadata)) == root


@pytest.mark.parametrize("calldata", [b"", b"MLP1" + ROOT, store_call(ROOT, "")[:35], bytes(68)])
def test_no_root_in_other_calldata(calldata: bytes) -> None:
    assert stored_root(calldata) is None


@pytest.mark.parametrize(
    ("root", "metadata", "says"),
    [
        (b"", "", "0 bytes"),
        (bytes(33), "", "33 bytes"),
        (bytes(32), "", "all zero"),
        (ROOT, "x" * 257, "257 bytes"),
        (ROOT, "ä" * 129, "258 bytes"),
    ],
)
def test_what_the_contract_would_refuse_is_not_sent(root: bytes, metadata: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        store_call(root, metadata)


def test_answers_of_the_contract() -> None:
    assert read_flag(encode(["bool"], [True])) is True
    assert read_flag(encode(["bool"], [False])) is False
    told = encode(
        ["bool", "address", "uint64", "uint64", "string"], [True, ADDRESS, 1_700_000_000, 9, "m"]
    )
    assert read_info(told) == HashInfo(True, ADDRESS, 1_700_000_000, 9, "m")


@given(st.binary(max_size=200))
def test_any_bytes_for_an_answer(junk: bytes) -> None:
    for read in (read_flag, read_info):
        with contextlib.suppress(LyingNodeError):
            read(junk)
    with contextlib.suppress(LyingNodeError):
        stored_event(Log(bytes(20), (HASH_STORED, ROOT, bytes(32)), junk), bytes(20), ROOT)


def test_only_our_event_of_this_root_counts() -> None:
    ours, other = bytes(20), b"\x01" * 20
    body = encode(["uint64", "string"], [5, ""])
    good = Log(ours, (HASH_STORED, ROOT, bytes(12) + other), body)
    assert stored_event(good, ours, ROOT) == (other, 5)
    for log in (
        Log(other, good.topics, body),
        Log(ours, (HASH_STORED, bytes(32), good.topics[2]), body),
        Log(ours, (bytes(32), ROOT, good.topics[2]), body),
        Log(ours, good.topics[:2], body),
        Log(ours, (), body),
    ):
        assert stored_event(log, ours, ROOT) is None
