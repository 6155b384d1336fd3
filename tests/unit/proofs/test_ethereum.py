"""Ethereum bytes: published vectors, and an anchor's proof with each of its steps broken.

Over 400 lines: case by case, one file: `provenance/proofs/ethereum.py`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import rlp as reference
from eth_utils import keccak

from provenance.chains.ethereum.trie import prove
from provenance.errors import (
    FormatError,
    ProofError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.formats.keccak import RATE, keccak256
from provenance.proofs import rlp
from provenance.proofs.ethereum import (
    HASH_STORED,
    MAX_HEADER_BYTES,
    MAX_INDEX,
    MAX_NODES,
    MAX_VALUE_BYTES,
    STORE_HASH,
    Log,
    TrieProof,
    parse_header,
    parse_receipt,
    parse_transaction,
    trie_value,
    verify_anchor,
    verify_trie,
)
from tests.support.nodes.ethereum_block import (
    CONTRACT,
    NUMBER,
    ROOT,
    SENDER,
    STORE,
    TIME,
    Block,
    calldata_block,
    event,
    header,
    receipt,
    repeated_block,
    transaction,
)

# --- keccak ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "digest"),
    [  # ShortMsgKAT_256.txt of the Keccak team's submission; the first is Ethereum's empty hash
        ("", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        ("cc", "eead6dbfc7340a56caedc044696a168870549a6a7f6f56961e84a54bd9970b8a"),
        ("41fb", "a8eaceda4d47b3281a795ad9e1ea2122b407baf9aabcb9e18b5717b7873537d2"),
    ],
)
def test_keccak_against_the_teams_vectors(message: str, digest: str) -> None:
    assert keccak256(bytes.fromhex(message)).hex() == digest


@pytest.mark.parametrize("size", [RATE - 2, RATE - 1, RATE, RATE + 1, 2 * RATE - 1, 2 * RATE])
def test_keccak_at_the_edges_of_a_block(size: int) -> None:
    message = bytes(at % 251 for at in range(size))
    assert keccak256(message) == keccak(message)


def test_the_constants_are_hashes_of_their_signatures() -> None:
    assert keccak(text="HashStored(bytes32,address,uint64,string)") == HASH_STORED
    assert keccak(text="storeHash(bytes32,string)")[:4] == STORE_HASH


# --- rlp ---------------------------------------------------------------------------------

LOREM = b"Lorem ipsum dolor sit amet, consectetur adipisicing elit"


@pytest.mark.parametrize(
    ("encoded", "item"),
    [  # Examples of the Ethereum documentation, "Recursive-length prefix serialization"
        ("83646f67", b"dog"),
        ("c88363617483646f67", (b"cat", b"dog")),
        ("80", b""),
        ("c0", ()),
        ("00", b"\x00"),
        ("0f", b"\x0f"),
        ("820400", b"\x04\x00"),
        ("c7c0c1c0c3c0c1c0", ((), ((),), ((), ((),)))),
        ("b838" + LOREM.hex(), LOREM),
    ],
)
def test_rlp_vectors(encoded: str, item: rlp.Item) -> None:
    assert rlp.decode(bytes.fromhex(encoded), "item", 100) == item


@pytest.mark.parametrize(
    ("encoded", "error", "says"),
    [
        ("", TruncatedError, "ends where an item should begin"),
        ("83646f", TruncatedError, "inside an item of 3 bytes"),
        ("c3", TruncatedError, "inside an item of 3 bytes"),
        ("c28364", TruncatedError, "inside an item of 3 bytes"),
        ("c161c0", TrailingBytesError, "1 bytes after its end"),
        ("c1", TruncatedError, None),
        ("c283", TruncatedError, None),
        ("c18100", None, None),
        ("b8", TruncatedError, "inside a length"),
        ("f9ff", TruncatedError, "inside a length"),
        ("bfffffffffffffffff", TruncatedError, "inside an item of 18446744073709551615"),
        ("80c0", TrailingBytesError, "1 bytes after its end"),
        ("8100", FormatError, "a byte that has a shorter encoding"),
        ("817f", FormatError, "a byte that has a shorter encoding"),
        ("b837" + "61" * 55, FormatError, "a length that has a shorter encoding"),
        ("b90038" + "61" * 56, FormatError, "a length that has a shorter encoding"),
        ("f800", FormatError, "a length that has a shorter encoding"),
        ("c1" * 17 + "c0", None, None),
        ("61" * 101, TooLargeError, "101 bytes, at most 100"),
    ],
)
def test_what_is_no_rlp_is_named(
    encoded: str, error: type[FormatError] | None, says: str | None
) -> None:
    with pytest.raises(error or FormatError, match=says):
        rlp.decode(bytes.fromhex(encoded), "item", 100)


def test_depth_is_bounded() -> None:
    raw = b"\xc0"
    for _ in range(rlp.MAX_DEPTH - 1):
        raw = bytes([0xC0 + len(raw)]) + raw
    rlp.decode(raw, "item", 100)
    with pytest.raises(TooLargeError, match="nested over 16 deep"):
        rlp.decode(bytes([0xC0 + len(raw)]) + raw, "item", 100)


@pytest.mark.parametrize("index", [0, 1, 127, 128, 255, 256, 65_535, 65_536, MAX_INDEX])
def test_keys_of_a_block(index: int) -> None:
    assert rlp.encode_index(index) == reference.encode(index)


# --- the trie ----------------------------------------------------------------------------


def test_tries_of_the_ethereum_tests() -> None:
    """``TrieTests/trietest.json`` of github.com/ethereum/tests; "foo" and "dogs" have nodes
    that lie inside their parents."""
    from trie.hexary import HexaryTrie

    for root, held in (
        (
            "8aad789dff2f538bca5d8ea56e8abe10f4c7ba3a5dea95fea4cd6e7c3a1168d3",
            {b"doe": b"reindeer", b"dog": b"puppy", b"dogglesworth": b"cat"},
        ),
        (
            "5991bb8c6514148a29db676a14ac506cd2cd5775ace63c30a4fe457715e9ac84",
            {b"do": b"verb", b"horse": b"stallion", b"doge": b"coin", b"dog": b"puppy"},
        ),
        (
            "17beaa1648bafa633cda809c90c04af50fc8aed3cb40d16efbddee6fdf63c4c3",
            {b"foo": b"bar", b"food": b"bass"},
        ),
    ):
        trie = HexaryTrie({})
        for key, value in held.items():
            trie[key] = value
        assert trie.root_hash.hex() == root
        for key, value in held.items():
            path = [reference.encode(node) for node in trie.get_proof(key)]  # type: ignore[no-untyped-call]  # the library has no types
            nodes = [node for at, node in enumerate(path) if not at or len(node) >= 32]
            assert trie_value(bytes.fromhex(root), key, nodes, "value") == value
            with pytest.raises(ProofError):
                trie_value(bytes.fromhex(root), key + b"x", nodes, "value")


def test_the_first_transaction_of_the_main_chain() -> None:
    """Block 46147 holds one; its ``transactionsRoot`` is as every explorer shows it."""
    raw = bytes.fromhex(
        "f86780862d79883d2000825208945df9b87991262f6ba471f09758cde1c0fc1de734827a69801c"
        "a088ff6cf0fefd94db46111149ae4bfc179e9b94721fffd821d38d16464b3f71d0"
        "a045e0aff800961cfce805daef7016b9b675c137a6a41a548f7b60a3484c06a33a"
    )
    assert keccak256(raw).hex() == (
        "5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060"
    )
    root = "4513310fcb9f6f616972a3b948dc5d547f280849a87ebb5af0191f98b87be598"
    node = reference.encode([b"\x20\x80", raw])
    verify_trie(bytes.fromhex(root), TrieProof(0, raw, (node,)), "transaction")
    with pytest.raises(FormatError, match="transaction of type 0, expected 2"):
        parse_transaction(raw)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 127, 128, 129, 257])
def test_every_index_of_a_block(count: int) -> None:
    values = [receipt(event(when=at), status=at % 2) for at in range(count)]
    for index in sorted({0, 1, count // 2, count - 2, count - 1} & set(range(count))):
        root, proof = prove(values, index)
        verify_trie(root, proof, "receipt")
        for other in sorted({0, 1, 16, 127, 128, count - 1} - {index}):
            with pytest.raises((ProofError, FormatError)):
                verify_trie(root, replace(proof, index=other), "receipt")


ROOT_OF_5, PROOF_OF_5 = prove([receipt(event(when=at)) for at in range(5)], 2)


@pytest.mark.parametrize(
    ("proof", "says"),
    [
        (replace(PROOF_OF_5, value=receipt()), "at index 2 lies another receipt"),
        (replace(PROOF_OF_5, nodes=()), "ends above the value"),
        (replace(PROOF_OF_5, nodes=PROOF_OF_5.nodes[:-1]), "ends above the value"),
        (replace(PROOF_OF_5, nodes=PROOF_OF_5.nodes[1:]), "does not hash to"),
        (replace(PROOF_OF_5, nodes=(*PROOF_OF_5.nodes, b"x")), "1 nodes are left over"),
        (replace(PROOF_OF_5, nodes=PROOF_OF_5.nodes * MAX_NODES), "at most 16 nodes"),
        (replace(PROOF_OF_5, nodes=(bytes(40_000),)), "of 32768 bytes together"),
        (replace(PROOF_OF_5, index=-1), "index -1"),
        (replace(PROOF_OF_5, index=MAX_INDEX + 1), "index 16777216"),
        (replace(PROOF_OF_5, index=5), "leads to an empty place|to another index"),
    ],
)
def test_a_broken_path_is_named(proof: TrieProof, says: str) -> None:
    with pytest.raises((ProofError, FormatError), match=says):
        verify_trie(ROOT_OF_5, proof, "receipt")


def linked(*nodes: object) -> tuple[bytes, list[bytes]]:
    """Root and nodes of a chain; each node's ``...`` becomes the hash of the one below."""
    raw: list[bytes] = []
    for node in reversed(nodes):
        assert isinstance(node, list)
        filled = [keccak(raw[0]) if each is ... else each for each in node]
        raw.insert(0, bytes(reference.encode(filled)))
    return keccak(raw[0]), raw


LONG = b"v" * 40


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([[b"\x20\x80"]], "node of 1 items, expected 2 or 17"),
        ([[b""] * 16], "node of 16 items"),
        ([[[], LONG]], "path is a list"),
        ([[b"", LONG]], "not hex-prefix encoded"),
        ([[b"\x40\x80", LONG]], "not hex-prefix encoded"),
        ([[b"\x21\x80", LONG]], "not hex-prefix encoded"),
        ([[b"\x20\x81", LONG]], "leads to another index"),
        ([[b"\x20", LONG]], "leads to another index"),
        ([[b"\x38", LONG]], "leads to another index"),
        ([[b"\x20\x80\x80", LONG]], "leads to another index"),
        ([[b"\x01\x80", ...], [b"\x20", LONG]], "not hex-prefix encoded"),
        ([[b"\x00", ...], [b"\x20\x80", LONG]], "an extension over nothing"),
        ([[b"\x18", [b"\x30", b""]]], "leads to an empty place"),
        ([[b"\x18", b"short"]], "leads to an empty place"),
        ([[b"\x20\x80", [LONG]]], "value is a list"),
        ([[b"\x18", ...], [b"\x30", b"v"]], "node of 3 bytes outside its parent"),
        ([[b""] * 8 + [...] + [b""] * 8, [b"\x31", LONG]], "leads to another index"),
        ([[b""] * 17], "leads to an empty place"),
    ],
)
def test_a_node_that_is_none_is_named(nodes: list[object], says: str) -> None:
    root, raw = linked(*nodes)
    with pytest.raises((ProofError, FormatError), match=says):
        trie_value(root, b"\x80", raw, "receipt")


def test_nodes_of_each_kind() -> None:
    for nodes in (
        [[b"\x20\x80", LONG]],
        [[b"\x18", ...], [b"\x30", LONG]],
        [[b"\x18", ...], [..., *[b""] * 16], [b"\x20", LONG]],
        [[b""] * 8 + [...] + [b""] * 8, [b"\x30", LONG]],
        [[b"\x00\x80", ...], [b""] * 16 + [LONG]],
        [[b"\x18", [b"\x30", b"small"]]],
    ):
        root, raw = linked(*nodes)
        assert trie_value(root, b"\x80", raw, "receipt") in (LONG, b"small")


# --- header, receipt, transaction --------------------------------------------------------


def test_a_header_is_read() -> None:
    raw = header(b"\x0a" * 32, b"\x0b" * 32)
    read = parse_header(raw)
    assert (read.hash, read.number, read.timestamp) == (keccak(raw), NUMBER, TIME)
    assert (read.transactions_root, read.receipts_root) == (b"\x0a" * 32, b"\x0b" * 32)
    first_ones = reference.encode(list(reference.decode(raw))[:15])
    assert parse_header(first_ones).number == NUMBER


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "ends where"),
        (b"\x80", "is a string"),
        (reference.encode([b""] * 14), "14 fields, expected 15 or more"),
        (header(b"\x0a" * 31, b""), r"transactionsRoot has 31 bytes, expected 32"),
        (header(b"\x0a" * 32, b""), r"receiptsRoot has 0 bytes"),
        (header(bytes(32), bytes(32), f8=b"\x00\x01"), "number is no integer"),
        (header(bytes(32), bytes(32), f11=b"\x01" * 9), "timestamp is no integer"),
        (header(bytes(32), bytes(32), f11=[b"\x01"]), "timestamp is a list"),
        (bytes(MAX_HEADER_BYTES + 1), "at most 16384"),
    ],
)
def test_what_is_no_header_is_named(raw: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        parse_header(raw)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4])
def test_a_receipt_of_each_type(kind: int) -> None:
    read = parse_receipt(receipt(event(), event(SENDER, [ROOT]), kind=kind))
    assert (read.type, read.status, len(read.logs)) == (kind, 1, 2)
    assert read.logs[1] == Log(SENDER, (ROOT,), read.logs[0].data)
    assert parse_receipt(receipt(status=0, kind=kind)).status == 0


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "unknown type: it begins with nothing"),
        (receipt(kind=5), "unknown type: it begins with 05"),
        (receipt(kind=0x7E), "unknown type: it begins with 7e"),
        (b"\x02", "ends where"),
        (receipt(status=2), "status 2, expected 0 or 1"),
        (receipt(status=b"\x11" * 32), "status is no integer"),
        (receipt(status=b"\x00"), "status is no integer"),
        (receipt(event(b"\xcc" * 19)), "address has 19 bytes"),
        (receipt(event(topics=[ROOT] * 5)), "5 topics, at most 4"),
        (receipt(event(topics=[ROOT[:31]])), "topic has 31 bytes"),
        (receipt([CONTRACT, []]), "log: 2 items, expected 3"),
        (receipt([CONTRACT, [], []]), "data is a list"),
        (b"\x02" + reference.encode([1, 1, bytes(255), []]), "bloom has 255 bytes"),
        (b"\x02" + reference.encode([1, b"\x00", bytes(256), []]), "cumulative gas"),
        (b"\x02" + reference.encode([1, 1, bytes(256)]), "3 items, expected 4"),
        (receipt() + b"\x00", "1 bytes after its end"),
        (b"\x02" + bytes(MAX_VALUE_BYTES + 1), "at most 16384"),
    ],
)
def test_what_is_no_receipt_is_named(raw: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        parse_receipt(raw)


def test_a_transaction_is_read() -> None:
    read = parse_transaction(transaction(chain_id=31337))
    assert read.hash == keccak(transaction(chain_id=31337))
    assert (read.chain_id, read.to, read.calldata) == (31337, CONTRACT, STORE)
    assert parse_transaction(transaction(to=b"")).to is None


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (transaction(kind=1), "type 1, expected 2"),
        (transaction(kind=9), "unknown type"),
        (transaction(to=b"\x01"), "to of 1 bytes"),
        (b"\x02" + reference.encode([b""] * 11), "11 items, expected 12"),
    ],
)
def test_what_is_no_transaction_of_ours_is_named(raw: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        parse_transaction(raw)


# --- the anchor --------------------------------------------------------------------------


def test_an_event_proves_the_anchor() -> None:
    block = Block()
    proven = verify_anchor(block.header, ROOT, CONTRACT, block.receipt, None)
    assert proven.event
    assert proven.transaction is None
    assert proven.header.number == NUMBER
    both = verify_anchor(block.header, ROOT, CONTRACT, block.receipt, block.transaction)
    assert both.transaction is not None
    assert both.transaction.calldata == STORE


def test_calldata_proves_the_anchor() -> None:
    block = calldata_block()
    for bill in (block.receipt, None):
        proven = verify_anchor(block.header, ROOT, None, bill, block.transaction)
        assert not proven.event
        assert (proven.receipt is None) is (bill is None)


def test_a_store_of_what_was_there_is_proven_by_its_calldata() -> None:
    block = repeated_block()
    proven = verify_anchor(block.header, ROOT, CONTRACT, block.receipt, block.transaction)
    assert not proven.event
    with pytest.raises(ProofError, match="holds no HashStored of the root, and no transaction"):
        verify_anchor(block.header, ROOT, CONTRACT, block.receipt, None)


def test_one_proof_at_least() -> None:
    with pytest.raises(ProofError, match="no transaction is proven"):
        verify_anchor(Block().header, ROOT, CONTRACT, None, None)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (Block(bill=receipt(event(), status=0)), "status 0"),
        (Block(bill=receipt(event(SENDER)), raw=transaction(b"")), "does not carry the root"),
        (
            Block(bill=receipt(event(topics=[ROOT, HASH_STORED])), raw=transaction(STORE[:35])),
            "does not carry the root",
        ),
        (repeated_block(raw=transaction(STORE, SENDER)), "does not carry the root"),
        (repeated_block(raw=transaction(b"MLP1" + ROOT)), "does not carry the root"),
        (calldata_block(raw=transaction(b"MLP1" + ROOT + b"x")), "does not carry the root"),
        (calldata_block(raw=transaction(b"MLP2" + ROOT)), "does not carry the root"),
        (calldata_block(raw=transaction(STORE)), "does not carry the root"),
        (calldata_block(bill=receipt(status=0)), "status 0"),
    ],
)
def test_what_anchors_nothing(block: Block, says: str) -> None:
    with pytest.raises(ProofError, match=says):
        verify_anchor(block.header, ROOT, block.contract, block.receipt, block.transaction)


def test_receipt_and_transaction_are_of_one_index() -> None:
    block = calldata_block()
    elsewhere = calldata_block(index=1)
    with pytest.raises(ProofError, match="receipt 2 and transaction 1 are not of one index"):
        verify_anchor(block.header, ROOT, None, block.receipt, elsewhere.transaction)


def test_another_header_proves_nothing() -> None:
    block, other = calldata_block(), calldata_block(count=6)
    with pytest.raises(ProofError, match="receipt proof: a node does not hash to"):
        verify_anchor(other.header, ROOT, None, block.receipt, block.transaction)
    with pytest.raises(ProofError, match="transaction proof: a node does not hash to"):
        verify_anchor(other.header, ROOT, None, other.receipt, block.transaction)
