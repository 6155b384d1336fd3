"""OpenTimestamps proofs against the reference, python-opentimestamps: the same bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import opentimestamps.core.notary as stock_notary
import opentimestamps.core.op as stock_op
import opentimestamps.core.timestamp as stock
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentimestamps.core.dubious.notary import EthereumBlockHeaderAttestation
from opentimestamps.core.serialize import (
    BytesDeserializationContext,
    BytesSerializationContext,
    DeserializationError,
)

from provenance.errors import FormatError
from provenance.formats.opentimestamps.file import MAGIC, TimestampFile
from provenance.formats.opentimestamps.tree import (
    SHA256,
    Attestation,
    Bitcoin,
    Operation,
    Pending,
    Timestamp,
    Unknown,
    append,
    prepend,
    varuint,
)

pytestmark = pytest.mark.filterwarnings("ignore:OpReverse:PendingDeprecationWarning")
# Refusals of the reference that are its assertions and index errors, not its own class.
REFUSED = (DeserializationError, AssertionError, ValueError)

DIGEST = hashlib.sha256(b"record").digest()
LITECOIN = bytes.fromhex("06869a0d73d71b45")
ETHEREUM = bytes.fromhex("30fe8087b5c7ead7")
arguments = st.binary(min_size=1, max_size=40)
steps = st.one_of(
    st.just(SHA256),
    st.sampled_from([Operation(0x02), Operation(0x03), Operation(0xF2)]),
    arguments.map(append),
    arguments.map(prepend),
)
heights = st.integers(0, 2**40)
ends: st.SearchStrategy[Attestation] = st.one_of(
    heights.map(Bitcoin),
    st.text("abcXYZ019-._/:", max_size=20).map(Pending),
    st.tuples(st.sampled_from([LITECOIN, ETHEREUM]), heights).map(
        lambda pair: Unknown(pair[0], varuint(pair[1]))
    ),
    st.binary(max_size=9).map(lambda payload: Unknown(b"unknown!", payload)),
)


@st.composite
def trees(draw: st.DrawFn) -> Timestamp:
    walks = draw(st.lists(st.tuples(st.lists(steps, max_size=6), ends), min_size=1, max_size=5))
    made = [Timestamp.of_walk(DIGEST, walk, end) for walk, end in walks]
    tree = made[0]
    for other in made[1:]:
        tree = tree.merge(other)
    return tree


def stock_attestation(attestation: Attestation) -> Any:
    if isinstance(attestation, Bitcoin):
        return stock_notary.BitcoinBlockHeaderAttestation(attestation.height)
    if isinstance(attestation, Pending):
        return stock_notary.PendingAttestation(attestation.uri)
    kinds = {
        LITECOIN: stock_notary.LitecoinBlockHeaderAttestation,
        ETHEREUM: EthereumBlockHeaderAttestation,
    }
    if attestation.tag in kinds:
        value = sum((b & 0x7F) << 7 * i for i, b in enumerate(attestation.payload))
        return kinds[attestation.tag](value)
    return stock_notary.UnknownAttestation(attestation.tag, attestation.payload)


def stock_tree(tree: Timestamp) -> stock.Timestamp:
    """The same tree, built by the reference: it computes every message itself."""
    made = stock.Timestamp(tree.message)
    for attestation in tree.attestations:
        made.attestations.add(stock_attestation(attestation))
    for operation, child in tree.branches:
        kind = stock_op.Op.SUBCLS_BY_TAG[bytes([operation.tag])]
        op = kind(operation.argument) if operation.argument else kind()
        made.ops.add(op).merge(stock_tree(child))
    return made


def stock_bytes(tree: stock.Timestamp) -> bytes:
    context = BytesSerializationContext()
    stock.DetachedTimestampFile(stock_op.OpSHA256(), tree).serialize(context)
    return bytes(context.getbytes())


def stock_read(data: bytes) -> stock.DetachedTimestampFile:
    return stock.DetachedTimestampFile.deserialize(BytesDeserializationContext(data))


@given(trees())
def test_both_write_the_same_bytes_and_read_them(tree: Timestamp) -> None:
    data = TimestampFile(tree).encode()
    theirs = stock_tree(tree)
    assert stock_bytes(theirs) == data
    assert stock_read(data).timestamp == theirs
    read = TimestampFile.decode(data, canonical=True)
    assert read.timestamp == tree
    assert list(read.timestamp.walk()) == list(tree.walk())
    ends = {(message, stock_attestation(end)) for message, end in tree.walk()}
    assert ends == set(theirs.all_attestations())


@given(trees(), trees())
def test_merging_is_what_the_reference_does(one: Timestamp, two: Timestamp) -> None:
    theirs = stock_tree(one)
    theirs.merge(stock_tree(two))
    assert stock_bytes(theirs) == TimestampFile(one.merge(two)).encode()


@given(trees(), trees())
def test_extending_reaches_every_place_of_a_message(tree: Timestamp, tail: Timestamp) -> None:
    for message in {message for message, _ in tree.walk()}:
        more = Timestamp.of_walk(message, [SHA256, append(b"more")], Bitcoin(77))
        grown = tree.extend(more)
        assert set(tree.walk()) | set(more.walk()) == set(grown.walk())
        assert stock_read(TimestampFile(grown).encode()).timestamp == stock_tree(grown)


@pytest.mark.slow
@given(trees(), st.data())
def test_changed_bytes_are_read_as_the_reference_reads_them_or_refused(
    tree: Timestamp, data: st.DataObject
) -> None:
    changed = bytearray(TimestampFile(tree).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(len(MAGIC), len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    try:
        ours = TimestampFile.decode(bytes(changed))
    except FormatError:
        return
    try:
        theirs = stock_read(bytes(changed))
    except REFUSED:
        # Attestations that this release keeps as they are, and nodes the reference overwrites.
        kinds = {a.tag for _, a in ours.timestamp.walk() if isinstance(a, Unknown)}
        assert kinds & {LITECOIN, ETHEREUM}
        return
    assert theirs.timestamp.msg == ours.timestamp.message
    ended = {m for m, a in theirs.timestamp.all_attestations()}
    assert ended <= {m for m, _ in ours.timestamp.walk()}


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused_in_one_line(tail: bytes) -> None:
    for data in (tail, MAGIC + tail, MAGIC + b"\x01\x08" + DIGEST + tail):
        try:
            TimestampFile.decode(data)
        except FormatError as error:
            assert "\n" not in str(error)
