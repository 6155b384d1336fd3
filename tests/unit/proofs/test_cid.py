"""CIDs: vectors of other implementations, and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import FormatError, TooLargeError, TrailingBytesError, TruncatedError
from provenance.proofs.ipfs.cid import DAG_PB, Cid, decode_cid, raw_cid

# The same block as js-ipfs 0.18 prints it and as Kubo does.
PAYLOAD = b"MLP1" + b"x" * 32
AS_JS_IPFS = "zb2rhX6FifmPHRDvfPUvkHMRHGieBHb5aKXsDa9QVtvod5LDn"
AS_KUBO = "bafkreiagu5xtez3kkqcfhzg7xj3c5llkvjcc5yfndqfh27dqzcwwveq26e"
# The empty UnixFS directory, in every CID tutorial.
EMPTY_V0 = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
EMPTY_V1 = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


def test_raw_blocks_get_the_cid_that_daemons_give() -> None:
    assert str(raw_cid(PAYLOAD)) == AS_KUBO
    hello = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert str(raw_cid(b"hello world")) == hello
    assert raw_cid(PAYLOAD).is_raw_sha256


def test_bases_are_compared_decoded() -> None:
    hexed = "f01551220" + raw_cid(PAYLOAD).digest.hex()
    assert decode_cid(AS_JS_IPFS) == decode_cid(AS_KUBO) == decode_cid(hexed) == raw_cid(PAYLOAD)


def test_version_0_differs_from_version_1_of_the_same_digest() -> None:
    old, new = decode_cid(EMPTY_V0), decode_cid(EMPTY_V1)
    assert (old.version, new.version, old.codec, new.codec) == (0, 1, DAG_PB, DAG_PB)
    assert old.digest == new.digest
    assert old != new
    assert (str(old), str(new)) == (EMPTY_V0, EMPTY_V1)
    assert not old.is_raw_sha256
    assert not new.is_raw_sha256


@given(st.binary(min_size=1, max_size=64), st.integers(0, 2**40), st.integers(0, 2**40))
def test_round_trip(digest: bytes, codec: int, function: int) -> None:
    cid = Cid(1, codec, function, digest)
    assert decode_cid(str(cid)) == cid


@given(st.text(max_size=80))
def test_nothing_but_format_errors(text: str) -> None:
    for prefix in ("", "b", "z", "f", "Qm"):
        try:
            decode_cid(prefix + text)
        except FormatError:
            continue


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", FormatError),
        ("x" * 300, TooLargeError),
        ("u" + AS_KUBO[1:], FormatError),
        (AS_KUBO.upper(), FormatError),
        ("b" + AS_KUBO[1:].upper(), FormatError),
        (AS_KUBO + "=", FormatError),
        (AS_KUBO[:-1] + "f", FormatError),  # bits beyond the last byte
        (AS_KUBO[:-2], TruncatedError),
        ("f0155122000", TruncatedError),
        ("f015512010000", TrailingBytesError),
        ("f02551220", FormatError),
        ("f0155 1220", FormatError),
        ("f8000", FormatError),
        ("fff", TruncatedError),
        ("f" + "ff" * 12, TooLargeError),
        ("z0OIl", FormatError),
        ("Qm1", FormatError),
        (EMPTY_V0[:-1], FormatError),
        ("f", TruncatedError),
    ],
)
def test_cids_that_do_not_decode(text: str, error: type[FormatError]) -> None:
    with pytest.raises(error):
        decode_cid(text)
