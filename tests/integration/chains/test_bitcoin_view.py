"""The BitcoinAnchor contract on a dev chain: what it takes, and that it takes nothing else."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provenance.chains.ethereum.bitcoin_view import (
    BITCOIN_ANCHOR,
    Confirmed,
    Proof,
    confirm,
    proof_of,
)
from provenance.chains.ethereum.errors import RevertedError
from provenance.chains.ethereum.interface import deploy
from provenance.chains.ethereum.node import EthereumNode
from provenance.errors import FormatError, LyingNodeError, ProofError
from provenance.proofs.bitcoin import double_sha256, parse_transaction
from provenance.settings import EthereumSettings
from tests.support.nodes.bitcoin_evidence import merkle_block, mined, transaction
from tests.support.nodes.ethereum_chain import KEYS, Anvil, Liar
from tests.support.paths import VECTORS

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes

ROOT = bytes(range(1, 33))
PAYLOAD = b"MLP1" + ROOT
MAIN = json.loads((VECTORS / "bitcoin-block-100000.json").read_text())
MAIN_HEADERS = [bytes.fromhex(header) for header in MAIN["headers"]]
MAIN_IDS = [bytes.fromhex(id)[::-1] for id in MAIN["transaction_ids"]]
MAIN_PROOF = Proof(
    bytes.fromhex(MAIN["transaction"]),
    1,
    (MAIN_IDS[0], double_sha256(MAIN_IDS[2] + MAIN_IDS[3])),
    b"".join(MAIN_HEADERS),
)


@dataclass(frozen=True)
class View:
    """The contract on one chain."""

    chain: Anvil
    node: EthereumNode
    address: str

    def anchored(self, root: bytes, proof: Proof, work: int = 1) -> Confirmed:
        return confirm(self.node, self.address, None, root, proof, work)

    def included(self, proof: Proof, work: int = 1) -> bytes:
        return self.node.view(
            self.address, BITCOIN_ANCHOR.call_of("included", astuple(proof), work)
        )

    def gas(self, function: str, *arguments: object) -> int:
        call = "0x" + BITCOIN_ANCHOR.call_of(function, *arguments, 1).hex()
        return int(self.chain.call("eth_estimateGas", {"to": self.address, "data": call}), 16)


@pytest.fixture(scope="module")
def view(anvil_chain: Anvil) -> Iterator[View]:
    node = EthereumSettings(url=anvil_chain.url, private_key=KEYS[0])
    address, _ = deploy(node, "BitcoinAnchor")
    opened = EthereumNode(node)
    yield View(anvil_chain, opened, address)
    opened.close()


def naive_path(leaves: list[bytes], index: int) -> tuple[tuple[bytes, ...], bytes]:
    """Siblings of a leaf and the Merkle root, as Bitcoin makes it: an odd one stands twice."""
    path = []
    while len(leaves) > 1:
        leaves = [*leaves, leaves[-1]] if len(leaves) % 2 else leaves
        path.append(leaves[index ^ 1])
        leaves = [double_sha256(leaves[i] + leaves[i + 1]) for i in range(0, len(leaves), 2)]
        index //= 2
    return tuple(path), leaves[0]


def proof_in_block(
    raw: bytes, total: int = 5, index: int = 2, above: int = 2, payload: bytes = PAYLOAD
) -> Proof:
    """A block of regtest's work with the transaction, and headers on top."""
    stripped = parse_transaction(raw).stripped
    leaves = [i.to_bytes(32, "big") for i in range(total)]
    leaves[index] = double_sha256(stripped)
    path, root = naive_path(leaves, index)
    headers = [mined(root)]
    for _ in range(above):
        headers.append(mined(bytes(32), previous=double_sha256(headers[-1])))
    return Proof(stripped, index, path, b"".join(headers))


GOOD = proof_in_block(transaction(PAYLOAD))
HASH = double_sha256(GOOD.headers[:80])[::-1]


def test_block_100000_of_the_main_chain(view: View) -> None:
    """Header, work, Merkle path and six headers on top, as the chain published them."""
    answer = view.included(MAIN_PROOF, 2**48)
    block, time, work = answer[:32], answer[32:64], int.from_bytes(answer[64:], "big")
    assert block.hex() == "000000000003ba27aa200b1cecaad478d2b00432346c3f1f3986da1afd33e506"
    assert int.from_bytes(time, "big") == 1_293_623_863  # 2010-12-29 11:57:43 UTC
    # Difficulty 14484.162361225399, times 2^32 * 65536 / 65535 hashes (Bitcoin wiki), seven times.
    assert work == pytest.approx(7 * 14484.162361225399 * 2**32 * 65536 / 65535, rel=1e-9)
    with pytest.raises(ProofError, match="carries 0 roots, expected one"):
        view.anchored(ROOT, MAIN_PROOF)


def test_the_example_of_the_format_is_answered_so(view: View) -> None:
    files = [VECTORS / "format" / f"bitcoin-view-{name}.hex" for name in ("call", "answer")]
    call, answer = (bytes.fromhex("".join(file.read_text().split())) for file in files)
    assert view.node.view(view.address, call) == answer


def test_no_flipped_byte_of_block_100000_is_taken(view: View) -> None:
    transaction, _, path, headers = astuple(MAIN_PROOF)
    for at in range(0, len(transaction), 7):
        refused(view, replace(MAIN_PROOF, transaction=flipped(transaction, at)))
    for at in range(0, len(headers), 11):
        refused(view, replace(MAIN_PROOF, headers=flipped(headers, at)))
    for at in range(64):
        siblings = flipped(b"".join(path), at)
        refused(view, replace(MAIN_PROOF, path=(siblings[:32], siblings[32:])))
    for other in (0, 2, 3):
        refused(view, replace(MAIN_PROOF, index=other))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def refused(view: View, proof: Proof) -> None:
    with pytest.raises(RevertedError):
        view.included(proof)


@pytest.mark.slow
def test_no_flipped_byte_of_a_root_is_taken(view: View) -> None:
    """All of the transaction and of the first header: what builds on it ties it."""
    assert view.anchored(ROOT, GOOD).work == 6
    for at in range(len(GOOD.transaction)):
        with pytest.raises(ProofError, match="ethereum: "):
            view.anchored(ROOT, replace(GOOD, transaction=flipped(GOOD.transaction, at)))
    for at in range(80):
        with pytest.raises(ProofError, match="ethereum: "):
            view.anchored(ROOT, replace(GOOD, headers=flipped(GOOD.headers, at)))


def wide(count: int) -> bytes:
    """A transaction whose size of inputs is written in more bytes than it needs."""
    raw = parse_transaction(transaction(PAYLOAD)).stripped
    return (
        raw[:4]
        + {3: b"\xfd\x01\x00", 5: b"\xfe\x01\0\0\0", 9: b"\xff\x01" + bytes(7)}[count]
        + raw[5:]
    )


def two_payloads(second: bytes) -> bytes:
    raw = parse_transaction(transaction(PAYLOAD)).stripped
    script = b"\x6a\x24" + second
    output = struct.pack("<q", 0) + bytes([len(script)]) + script
    at = 4 + 1 + 41  # version, count, one input
    return raw[:at] + b"\x03" + output + raw[at + 1 :]


def proof_of_bytes(raw: bytes) -> Proof:
    """As :func:`proof_in_block`, of bytes that need not be a transaction."""
    path, root = naive_path([bytes(32), double_sha256(raw)], 1)
    return Proof(raw, 1, path, mined(root))


def bits(value: int) -> bytes:
    header = bytearray(GOOD.headers)
    header[72:76] = struct.pack("<I", value)
    return bytes(header)


STRIPPED = GOOD.transaction
TWIN = naive_path([b"\1" * 32, b"\2" * 32, double_sha256(STRIPPED)], 2)


@pytest.mark.parametrize(
    ("proof", "work", "reason"),
    [
        (GOOD, 7, "the headers took 6 hashes, expected 7 at least"),
        (replace(GOOD, headers=b""), 1, "headers of 0 bytes"),
        (replace(GOOD, headers=GOOD.headers[:-1]), 1, "headers of 239 bytes"),
        (replace(GOOD, headers=GOOD.headers + bytes(1)), 1, "headers of 241 bytes"),
        (
            replace(GOOD, headers=GOOD.headers[:80] + GOOD.headers[160:]),
            1,
            "header 1 does not build on the one before",
        ),
        (replace(GOOD, headers=GOOD.headers[80:]), 1, "which is not the header's"),
        (replace(GOOD, headers=bits(0x1D00FFFF)), 1, "header 0 has not the work"),
        (replace(GOOD, headers=bits(0x20FFFFFF)), 1, "header 0 has not the work"),
        (replace(GOOD, headers=bits(0x2100FFFF)), 1, "header 0 has not the work"),
        (replace(GOOD, headers=bits(0)), 1, "header 0 has not the work"),
        (replace(GOOD, index=3), 1, "which is not the header's"),
        (replace(GOOD, index=2 + 8), 1, "no index 10"),
        (replace(GOOD, index=2**255), 1, "no index 578"),
        (replace(GOOD, path=GOOD.path[:-1]), 1, "which is not the header's"),
        (replace(GOOD, path=(*GOOD.path, bytes(32))), 1, "which is not the header's"),
        (replace(GOOD, path=(bytes(32),) * 16), 1, "a Merkle path of 16 steps, at most 15"),
        (Proof(STRIPPED, 3, TWIN[0], mined(TWIN[1])), 1, "two equal siblings at level 0"),
        (proof_of_bytes(bytes(64)), 1, "64 bytes, as an inner node has"),
        (proof_of_bytes(STRIPPED[:-1]), 1, "no transaction without witness"),
        (proof_of_bytes(STRIPPED + bytes(1)), 1, "no transaction without witness"),
        (proof_of_bytes(transaction(PAYLOAD)), 1, "no transaction without witness"),
        (proof_of_bytes(b""), 1, "no transaction without witness"),
        (proof_of_bytes(wide(3)), 1, "no transaction without witness"),
        (proof_of_bytes(wide(5)), 1, "no transaction without witness"),
        (proof_of_bytes(wide(9)), 1, "no transaction without witness"),
        (proof_of_bytes(STRIPPED[:4] + b"\x01" + STRIPPED[5:46] + bytes(5)), 1, "no transaction"),
        (proof_of_bytes(two_payloads(PAYLOAD)), 1, "carries 2 roots, expected one"),
        (proof_of_bytes(two_payloads(b"MLP1" + bytes(32))), 1, "carries 2 roots, expected one"),
        (proof_in_block(transaction(b"MLP2" + ROOT)), 1, "carries 0 roots, expected one"),
        (proof_in_block(transaction(PAYLOAD + b"!")), 1, "carries 0 roots, expected one"),
        (proof_in_block(transaction(b"MLP1" + ROOT[::-1])), 1, f"root {ROOT[::-1].hex()}"),
    ],
)
def test_what_does_not_hold_is_refused_with_its_reason(
    view: View, proof: Proof, work: int, reason: str
) -> None:
    with pytest.raises(ProofError, match=f"^ethereum: .*{reason}"):
        view.anchored(ROOT, proof, work)


def test_the_last_of_an_odd_level_is_its_own_sibling_once(view: View) -> None:
    """Bitcoin's tree repeats it: under its own index it is taken, under the repeated one not."""
    assert view.anchored(ROOT, Proof(STRIPPED, 2, TWIN[0], mined(TWIN[1]))).work == 2


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "does not decode"),
        (bytes(95), "does not decode"),
        (b"\xff" * 96, "does not decode"),
        (bytes(96), "is of another block"),
        (encode(["bytes32", "uint64", "uint256"], [bytes(32), 1_700_000_000, 6]), "another block"),
        (encode(["bytes32", "uint64", "uint256"], [HASH, 1_700_000_001, 6]), "another block"),
        (encode(["bytes32", "uint64", "uint256"], [HASH, 1_700_000_000, 5]), "another block"),
    ],
)
def test_a_node_that_lies_is_found_out(view: View, answer: bytes, problem: str, liar: Liar) -> None:
    liar.forge["eth_call"] = lambda *_: "0x" + answer.hex()
    node = EthereumNode(EthereumSettings(url=liar.url))
    with pytest.raises(LyingNodeError, match=problem):
        confirm(node, view.address, None, ROOT, GOOD, 6)
    node.close()


def test_every_error_of_the_contract_has_a_reason() -> None:
    from provenance.chains.ethereum import bitcoin_view

    errors = {name for name, item in BITCOIN_ANCHOR.abi.items() if item["type"] == "error"}
    assert set(bitcoin_view._REASONS) == errors


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(total=st.integers(1, 40), data=st.data())
def test_any_place_in_any_block(view: View, total: int, data: Any) -> None:
    """Paths from a naive tree, and from the merkleblock message of a receipt."""
    index = data.draw(st.integers(0, total - 1))
    raw = transaction(PAYLOAD, inputs=data.draw(st.integers(1, 4)))
    proof = proof_in_block(raw, total, index, above=0)
    leaves = [i.to_bytes(32, "big") for i in range(total)]
    leaves[index] = double_sha256(proof.transaction)
    header, message = merkle_block(leaves, index)
    told = {"transaction": raw.hex(), "merkle_block": message.hex(), "header": header.hex()}
    assert replace(proof_of(told), headers=b"") == replace(proof, headers=b"")
    assert view.anchored(ROOT, proof_of(told)).block_hash == double_sha256(header)[::-1].hex()


def sized(number: int) -> bytes:
    """A CompactSize, as the protocol documentation has it."""
    if number < 0xFD:
        return bytes([number])
    wide = number > 0xFFFF
    return (b"\xfe" if wide else b"\xfd") + number.to_bytes(4 if wide else 2, "little")


SIZES = st.sampled_from((0, 1, 36, 38, 252, 253, 300, 65_535, 65_536))
OUTPUTS = st.lists(st.one_of(SIZES, st.just(-1)), min_size=1, max_size=4)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inputs=st.sampled_from((1, 2, 252, 253, 300)), script=SIZES, outputs=OUTPUTS, data=st.data())
def test_it_reads_transactions_as_this_program_does(
    view: View, inputs: int, script: int, outputs: list[int], data: Any
) -> None:
    """Sizes at the borders of CompactSize; -1 is an output with the root. Cut anywhere, it is no
    transaction for both."""
    script = script if inputs < 3 else min(script, 38)
    raw = b"\2\0\0\0" + sized(inputs)
    raw += (bytes(36) + sized(script) + bytes(script) + b"\xff" * 4) * inputs + sized(len(outputs))
    for size in outputs:
        body = b"\x6a\x24" + PAYLOAD if size < 0 else b"\x51" * size
        raw += bytes(8) + sized(len(body)) + body
    raw += bytes(4)
    assert parse_transaction(raw).stripped == raw
    if outputs.count(-1) == 1:
        assert view.anchored(ROOT, proof_of_bytes(raw)).work == 2
    else:
        with pytest.raises(ProofError, match=f"carries {outputs.count(-1)} roots"):
            view.anchored(ROOT, proof_of_bytes(raw))
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    with pytest.raises(FormatError):
        parse_transaction(cut)
    with pytest.raises(ProofError, match="no transaction without witness|64 bytes"):
        view.anchored(ROOT, proof_of_bytes(cut))


def test_gas(view: View) -> None:
    """Ceilings a little above what was measured, so that a dearer contract is noticed."""
    raw = transaction(PAYLOAD)
    node = EthereumSettings(url=view.chain.url, private_key=KEYS[0])
    created = view.chain.call("eth_getTransactionReceipt", deploy(node, "BitcoinAnchor")[1])
    figures = {
        "deploy": int(created["gasUsed"], 16),
        "1 header, 3 levels": view.gas("anchored", ROOT, astuple(proof_in_block(raw, above=0))),
        "6 headers, 3 levels": view.gas("anchored", ROOT, astuple(proof_in_block(raw, above=5))),
        "6 headers, 12 levels": view.gas(
            "anchored", ROOT, astuple(proof_in_block(raw, total=4096, above=5))
        ),
        "block 100000 and 6 on top": view.gas("included", astuple(MAIN_PROOF)),
    }
    print(figures)
    ceilings = [918_000, 59_500, 116_000, 137_000, 123_000]
    assert all(gas <= most for gas, most in zip(figures.values(), ceilings, strict=True)), figures
