"""What owners sign, from bytes: against eth_account and eth_abi, and with every byte changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_abi import encode
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import FormatError, IntegrityError, ProofError, ProvenanceError
from provenance.formats.checkpoint import Head, sign_head
from provenance.formats.json_text import canonical_json
from provenance.formats.note import SignerKey
from provenance.ports.values import anchor_payload
from provenance.proofs.bitcoin import parse_transaction
from provenance.proofs.ethereum import (
    HASH_STORED,
    STORE_HASH,
    commits_to,
)
from provenance.proofs.ethereum import (
    parse_transaction as parse_ethereum,
)
from provenance.proofs.multisig import Quorum
from provenance.proofs.multisig.bitcoin import Script, check_spend
from provenance.proofs.multisig.ethereum import STORE_SIGNED, StoreRequest, read_call
from provenance.proofs.multisig.psbt import Psbt
from provenance.proofs.multisig.request import (
    BitcoinRequest,
    EthereumRequest,
    decode_request,
)
from tests.support.nodes.ethereum_block import transaction
from tests.support.nodes.owners import (
    ADDRESSES,
    BITCOIN_KEYS,
    coin,
    cosigned,
    ethereum_signatures,
    psbt_of,
)

ROOT, CONTRACT = bytes(range(1, 33)), b"\xcc" * 20
PAYLOAD = anchor_payload(ROOT)
REQUEST = StoreRequest(31337, CONTRACT, ROOT, 1_800_000_000)
OWNERS = Quorum(2, tuple(sorted(address.lower() for address in ADDRESSES)))
SCRIPT = Script.of(2, BITCOIN_KEYS)
KEYS = Quorum(2, tuple(key.hex() for key in sorted(BITCOIN_KEYS)))
PSBT = psbt_of(PAYLOAD, SCRIPT)
LEDGER = SignerKey.from_private_bytes("example.org/ledger", b"\x05" * 32)
NOTE = sign_head(Head(LEDGER.name, 4, ROOT), LEDGER)

# --- Ethereum -----------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2**53 - 1), st.binary(min_size=20, max_size=20),
    st.binary(min_size=32, max_size=32), st.integers(0, 2**53 - 1), st.text(max_size=60),
)  # fmt: skip
def test_digest_and_calldata_are_those_of_eth_account_and_eth_abi(
    chain_id: int, contract: bytes, root: bytes, deadline: int, metadata: str
) -> None:
    request = StoreRequest(chain_id, contract, root, deadline, metadata.encode("utf-8", "replace"))
    told = encode_typed_data(full_message=request.typed_data())
    assert request.digest() == keccak(b"\x19" + told.version + told.header + told.body)
    signatures = tuple(bytes([at]) * 65 for at in range(3))
    types = ["bytes32", "string", "uint256", "bytes[]"]
    called = encode(types, [root, request.metadata.decode(), deadline, signatures])
    selector = keccak(text=f"storeHash({','.join(types)})")[:4]
    assert selector == STORE_SIGNED
    assert request.calldata(signatures) == selector + called
    assert read_call(chain_id, contract, selector + called) == (request, signatures)


def test_the_calldata_commits_to_the_root_as_the_other_contracts_does() -> None:
    calldata = REQUEST.calldata(ethereum_signatures(REQUEST, 0, 1))
    sent = parse_ethereum(transaction(calldata, CONTRACT))
    assert commits_to(sent, CONTRACT, ROOT)
    assert not commits_to(sent, CONTRACT, bytes(32))
    assert not commits_to(sent, bytes(20), ROOT)
    other = parse_ethereum(transaction(b"\0\0\0\0" + calldata[4:], CONTRACT))
    assert not commits_to(other, CONTRACT, ROOT)
    assert STORE_HASH != STORE_SIGNED != HASH_STORED[:4]


@pytest.mark.slow
def test_no_changed_byte_of_a_call_leaves_its_signers() -> None:
    calldata = REQUEST.calldata(ethereum_signatures(REQUEST, 0, 2))
    signers = REQUEST.signers(ethereum_signatures(REQUEST, 0, 2))
    for at in range(0, len(calldata), 7):
        changed = bytearray(calldata)
        changed[at] ^= 1
        try:
            request, signatures = read_call(31337, CONTRACT, bytes(changed))
            found = request.signers(signatures)
        except ProvenanceError:
            continue
        assert found != signers
    for cut in (0, 3, 100, len(calldata) - 32, len(calldata) - 1):
        with pytest.raises(FormatError):
            read_call(31337, CONTRACT, calldata[:cut])
    with pytest.raises(FormatError):
        read_call(31337, CONTRACT, calldata + bytes(32))


# --- Bitcoin ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"", SCRIPT.raw[:-1], SCRIPT.raw + b"\0", b"\x50" + SCRIPT.raw[1:],
        b"\x54" + SCRIPT.raw[1:], SCRIPT.raw[:-2] + b"\x52\xae", SCRIPT.raw[:-1] + b"\xaf",
        Script(2, SCRIPT.keys[::-1]).raw, Script(1, (SCRIPT.keys[0],) * 2).raw,
        SCRIPT.raw.replace(SCRIPT.keys[0], b"\x04" + SCRIPT.keys[0][1:]),
        Script(1, tuple(b"\x02" + bytes([at]) * 32 for at in range(17))).raw,
    ],
)  # fmt: skip
def test_what_is_no_script_of_owners_is_refused(raw: bytes) -> None:
    with pytest.raises(FormatError, match="witness script"):
        Script.read(raw)


@pytest.mark.parametrize("numbers", [(0, 1), (0, 2), (1, 2), (2, 1), (0, 1, 2)])
def test_any_two_make_one_transaction_of_one_id(numbers: tuple[int, ...]) -> None:
    whole = cosigned(PSBT, SCRIPT, *numbers).whole(SCRIPT)
    assert parse_transaction(whole).txid == PSBT.transaction.txid
    script, signers = check_spend(whole, PSBT.spent)
    signed = sorted(BITCOIN_KEYS[number] for number in numbers)
    assert (script, list(signers)) == (SCRIPT, signed[:2])


@pytest.mark.slow
def test_no_changed_bit_of_a_spend_leaves_it_standing() -> None:
    whole = cosigned(PSBT, SCRIPT, 0, 1).whole(SCRIPT)
    for data, other in ((whole, PSBT.spent[0]), (PSBT.spent[0], whole)):
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1
            pair = (bytes(changed), other) if data is whole else (other, bytes(changed))
            with pytest.raises((FormatError, ProofError)):
                check_spend(pair[0], [pair[1]])
    for spent in ([], [PSBT.spent[0]] * 2, [PSBT.spent[0], coin(SCRIPT, 1)]):
        with pytest.raises(ProofError, match="each once"):
            check_spend(whole, spent)


REFUSED: dict[str, tuple[Psbt, str]] = {
    "another payload": (psbt_of(b"MLP1" + bytes(32), SCRIPT), "found payload 4d4c5031"),
    "a second payload": (
        psbt_of(PAYLOAD, SCRIPT, outputs=((0, b"\x6a\x24" + PAYLOAD),) * 2), "once, unpaid",
    ),
    "a payload that burns coins": (
        psbt_of(PAYLOAD, SCRIPT, outputs=((5, b"\x6a\x24" + PAYLOAD),)), "once, unpaid",
    ),
    "no payload": (psbt_of(PAYLOAD, SCRIPT, outputs=((1, SCRIPT.output),)), "found payload none"),
    "somebody else": (
        psbt_of(PAYLOAD, SCRIPT, outputs=((0, b"\x6a\x24" + PAYLOAD), (9, b"\0\x14" + bytes(20)))),
        "pays somebody else",
    ),
    "two changes": (
        psbt_of(
            PAYLOAD, SCRIPT,
            outputs=((0, b"\x6a\x24" + PAYLOAD), (9, SCRIPT.output), (8, SCRIPT.output)),
        ),
        "pays somebody else",
    ),
    "change to two of two": (
        psbt_of(
            PAYLOAD, SCRIPT,
            outputs=((0, b"\x6a\x24" + PAYLOAD), (9, Script.of(2, BITCOIN_KEYS[:2]).output)),
        ),
        "pays somebody else",
    ),
    "coins of one of three": (
        psbt_of(PAYLOAD, SCRIPT, made=coin(Script.of(1, BITCOIN_KEYS))), "no coin of the script",
    ),
    "a fee above the cap": (psbt_of(PAYLOAD, SCRIPT, fee=50_000), "at most 20 "),
    "more than it has": (psbt_of(PAYLOAD, SCRIPT, fee=-1), "sat/vB"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_psbt_that_does_something_else_is_refused(name: str) -> None:
    psbt, words = REFUSED[name]
    PSBT.check(PAYLOAD, SCRIPT, 20)
    with pytest.raises(ProofError, match=words):
        psbt.check(PAYLOAD, SCRIPT, 20)


def test_copies_are_joined_and_another_transaction_is_not() -> None:
    one, two = cosigned(PSBT, SCRIPT, 0), cosigned(PSBT, SCRIPT, 2)
    both = one.joined(two)
    assert both.signers(SCRIPT) == tuple(sorted((BITCOIN_KEYS[0], BITCOIN_KEYS[2])))
    assert both.joined(one) == both.joined(both) == both
    assert Psbt.read(both.encode()) == both
    for other, what in (
        (psbt_of(PAYLOAD, SCRIPT, made=coin(SCRIPT, 49_000_000)), "inputs"),
        (psbt_of(b"MLP1" + bytes(32), SCRIPT), "payload"),
        (psbt_of(PAYLOAD, SCRIPT, fee=411), "outputs"),
    ):
        with pytest.raises(ProofError, match=f"another {what} than"):
            both.joined(cosigned(other, SCRIPT, 1))
    with pytest.raises(ProofError, match="1 of 2 owners signed"):
        one.whole(SCRIPT)
    stolen = replace(PSBT, inputs=({**PSBT.inputs[0], b"\x02" + BITCOIN_KEYS[1]: b"\x30\x01"},))
    with pytest.raises(ProofError, match="no signature of owner"):
        stolen.signers(SCRIPT)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_psbt_raises_anything_else(data: st.DataObject) -> None:
    import base64

    raw = bytearray(base64.b64decode(cosigned(PSBT, SCRIPT, 0, 1).encode()))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    raw = raw[: data.draw(st.integers(len(raw) - 2, len(raw)))]
    try:
        psbt = Psbt.read(base64.b64encode(raw).decode())
        psbt.check(PAYLOAD, SCRIPT, 20)
        psbt.signers(SCRIPT)
    except ProvenanceError:
        return
    assert psbt.transaction.stripped == PSBT.transaction.stripped


# --- requests -----------------------------------------------------------------------------

ETHEREUM = EthereumRequest(NOTE, REQUEST, ethereum_signatures(REQUEST, 0, 2))
BITCOIN = BitcoinRequest(NOTE, cosigned(PSBT, SCRIPT, 1))


def test_requests_are_read_back_and_count_their_signers() -> None:
    for request, quorum, count in ((ETHEREUM, OWNERS, 2), (BITCOIN, KEYS, 1)):
        assert decode_request(request.encode(), "r.json") == request
        assert len(request.signers(quorum)) == count
        assert request.joined(request) == request
    for one, other in ((ETHEREUM, BITCOIN), (BITCOIN, ETHEREUM)):
        with pytest.raises(ProofError):
            one.joined(other)
    with pytest.raises(ProofError, match="is no owner"):
        ETHEREUM.signers(Quorum(1, OWNERS.owners[:1]))


Alter = Callable[[dict[str, Any]], object]
ALTERED: dict[str, tuple[Alter, str]] = {
    "version": (lambda d: d.update(v=2), "v"),
    "network": (lambda d: d.update(network="ipfs"), "network: found 'ipfs'"),
    "unknown key": (lambda d: d.update(extra=1), "extra: unknown key"),
    "no signatures": (lambda d: d.pop("signatures"), "signatures: found nothing"),
    "upper case": (
        lambda d: d.update(signatures=["0x" + "AB" * 65]), "expected 0x and lower-case hex",
    ),
    "too many": (lambda d: d.update(signatures=["0x00"] * 17), "at most 16"),
    "head of another root": (
        lambda d: d.update(head=sign_head(Head(LEDGER.name, 4, bytes(32)), LEDGER)),
        "different roots",
    ),
    "no head": (lambda d: d.update(head="x"), "note"),
    "another type": (
        lambda d: d["typed_data"]["types"]["StoreHash"].pop(), "typed_data: found an object",
    ),
    "another name": (
        lambda d: d["typed_data"]["domain"].update(name="Permit"), "typed_data: found an object",
    ),
    "a short contract": (
        lambda d: d["typed_data"]["domain"].update(verifyingContract="0xcc"), "typed_data",
    ),
    "a deadline as text": (
        lambda d: d["typed_data"]["message"].update(deadline="1"), "deadline: found '1'",
    ),
    "a root as number": (lambda d: d["typed_data"]["message"].update(hash=1), "hash: found 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_a_request_in_another_form_is_refused_with_its_file_and_key(name: str) -> None:
    alter, words = ALTERED[name]
    document = json.loads(ETHEREUM.encode())
    alter(document)
    with pytest.raises(FormatError, match=words):
        decode_request(canonical_json(document), "r.json")


def test_a_request_for_bitcoin_is_as_strict() -> None:
    document = json.loads(BITCOIN.encode())
    for change, words in (
        ({"psbt": "***"}, "base64"),
        ({"psbt": "cHNidP4="}, "begins with psbt"),
        ({"signatures": []}, "signatures: unknown key"),
        ({"psbt": psbt_of(PAYLOAD, SCRIPT, outputs=((1, SCRIPT.output),)).encode()}, "payload"),
    ):
        with pytest.raises(FormatError, match=words):
            decode_request(canonical_json({**document, **change}), "r.json")
    with pytest.raises((FormatError, IntegrityError)):
        decode_request(BITCOIN.encode()[:-1], "r.json")
