"""The statement that persons sign: one form, and no bit of it or of its signatures may change."""

from __future__ import annotations

import json
from datetime import date
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.approvals.statement import MAX_RUNS, Anchoring
from provenance.errors import FormatError, ProvenanceError
from provenance.formats.dsse import Envelope
from tests.support.anchor_world import SIGNER
from tests.unit.approvals.world import ApprovalWorld, signed

pytestmark = pytest.mark.slow
hashes = st.binary(min_size=32, max_size=32)
chains = st.dictionaries(
    st.sampled_from(["chain_id", "chain", "genesis"]),
    st.one_of(st.integers(0, 2**53 - 1), st.text("0123456789abcdefx", min_size=1, max_size=66)),
)
statements = st.builds(
    Anchoring,
    ledger=st.just(SIGNER.verifier.vkey),
    network=st.sampled_from(["ethereum", "bitcoin", "ipfs", "local"]),
    chain=chains,
    size=st.integers(1, 2**53 - 1),
    root=hashes,
    since=st.integers(0, 2**53 - 1),
    runs=st.lists(st.tuples(st.uuids(), hashes), min_size=1, max_size=4).map(tuple),
    until=st.one_of(st.none(), st.dates(date(1970, 1, 1), date(9999, 12, 31))),
)


@given(statements)
def test_what_is_encoded_decodes_to_itself(stated: Anchoring) -> None:
    assert Anchoring.decode(stated.encode(), "x") == stated


@given(statements, st.data())
def test_no_key_may_be_left_out_or_added(stated: Anchoring, data: st.DataObject) -> None:
    document = json.loads(stated.encode())
    place = data.draw(st.sampled_from([document, document["predicate"], document["subject"][0]]))
    if data.draw(st.booleans()):
        place.pop(data.draw(st.sampled_from(sorted(place))))
    else:
        place["more"] = 1
    changed = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    with pytest.raises(FormatError):
        Anchoring.decode(changed, "x")


WORLD = ApprovalWorld()
WORLD.final()
GOOD = signed(WORLD.take(), "alice", "bob").encode()


@settings(deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
def test_no_bit_of_an_approval_may_change(at: int, bit: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= 1 << bit
    try:
        brought = Envelope.decode(bytes(changed), "x")
        known = WORLD.add(brought)
    except ProvenanceError as error:
        assert "\n" not in str(error)
    else:  # other letters of base64 for the same bytes, or a signature that is left out
        good = Envelope.decode(GOOD, "x")
        counted = 2 if brought == good else 1
        assert known.envelope is not None
        assert brought.payload == known.envelope.payload == good.payload
        assert known.envelope.signatures.items() <= good.signatures.items()
        assert len(known.envelope.signatures) == len(known.signed.names) == counted
        assert len(known.signed.problems) == 2 - counted
        with WORLD.store.transaction() as tx:
            tx.save_approval(1, Envelope(brought.payload, {}).encode())


def test_a_statement_of_too_many_runs_is_refused() -> None:
    runs = tuple((UUID(int=at), bytes(32)) for at in range(MAX_RUNS + 1))
    many = Anchoring(SIGNER.verifier.vkey, "ethereum", {}, 1, bytes(32), 0, runs)
    with pytest.raises(FormatError, match="found 4001 runs, at most 4000"):
        Anchoring.decode(many.encode(), "x")
    most = Anchoring(SIGNER.verifier.vkey, "ethereum", {}, 1, bytes(32), 0, runs[1:])
    assert len(Envelope(most.encode(), {}).encode()) < 1024**2
