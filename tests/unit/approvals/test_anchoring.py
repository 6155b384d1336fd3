"""Anchors that wait for approval: nothing unapproved is sent, and nothing else waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from provenance.approvals.anchoring import take
from provenance.approvals.statement import Anchoring
from provenance.errors import BadSignatureError, InputError, ProvenanceError
from provenance.formats.dsse import Envelope
from provenance.formats.note import SignerKey
from provenance.ports.values import AnchorState
from provenance.settings.approvals import ApprovalSettings
from tests.support.anchor_world import ORIGIN
from tests.support.nodes.memory_chain import MemoryChain
from tests.unit.approvals.world import (
    BY,
    RULE,
    ApprovalWorld,
    altered,
    flipped,
    run_id,
    signed,
)

HELD, SENT, REPLACED = AnchorState.HELD, AnchorState.SENT, AnchorState.REPLACED


@pytest.fixture(params=[True, False], ids=["nonces", "coins"])
def world(request: pytest.FixtureRequest) -> ApprovalWorld:
    return ApprovalWorld(MemoryChain(nonces=request.param))


def test_a_final_root_waits_for_two_and_goes_with_the_second(world: ApprovalWorld) -> None:
    row = world.final()
    assert (world.row().state, world.row().reason) == (HELD, "waits for approval: 0 of 2")
    assert world.approve("alice").signed.names == ("alice",)
    world.publish()
    assert (world.row().state, world.row().reason) == (HELD, "waits for approval: 1 of 2 (alice)")
    assert not world.chain.seen
    world.approve("bob")
    assert world.row().next_attempt_at == world.now
    world.publish()
    assert world.row().state is SENT
    assert list(world.chain.mempool) == [world.versions(row.id)[0].version.transaction_id]


def test_what_makes_no_run_final_waits_for_nobody(world: ApprovalWorld) -> None:
    world.head()
    world.publish()
    assert world.row().state is SENT
    world.final()
    world.approve("alice", "carol")
    world.publish()
    world.head()
    world.publish()
    assert [row.state for row in world.rows()] == [SENT, SENT, SENT]


def test_the_statement_names_all_that_is_signed(world: ApprovalWorld) -> None:
    world.head()
    world.publish()
    row = world.final()
    stated = Anchoring.decode(world.take(date(2027, 1, 31)).payload, "x")
    with world.store.snapshot() as tx:
        entry = tx.entries(run_id(1))[0]
    assert stated == Anchoring(
        world.approvals.ledger,
        world.name,
        {"chain_id": world.chain.chain_id, "genesis": world.chain.genesis},
        row.size,
        row.root,
        0,
        ((run_id(1), entry.root),),
        date(2027, 1, 31),
    )


def test_a_second_final_root_is_approved_on_its_own(world: ApprovalWorld) -> None:
    world.final()
    world.approve("alice", "bob")
    world.publish()
    world.final()
    assert world.row().state is HELD
    stated = Anchoring.decode(world.take().payload, "x")
    assert (stated.since, [run for run, _ in stated.runs]) == (1, [run_id(2)])


def test_until_somebody_takes_the_statement_a_later_head_takes_the_place(
    world: ApprovalWorld,
) -> None:
    world.final()
    world.final()
    assert [row.state for row in world.rows()] == [REPLACED, HELD]
    envelope = world.take()
    world.final()
    assert [row.state for row in world.rows()] == [REPLACED, HELD, AnchorState.DUE]
    world.add(signed(envelope, "alice", "bob"))
    world.publish()
    assert [row.state for row in world.rows()] == [REPLACED, SENT, HELD]
    assert world.waiting().size == 3


def test_an_approval_lapses_with_its_day_and_another_can_be_signed(world: ApprovalWorld) -> None:
    world.final()
    envelope = signed(world.take(date(1970, 1, 12)), "alice", "bob")
    world.add(envelope)
    world.now += 86400
    world.publish()
    lapsed = "waits for approval: 0 of 2; expired after 1970-01-12"
    assert (world.row().state, world.row().reason) == (HELD, lapsed)
    with pytest.raises(InputError, match=r"^a\.json: expired after 1970-01-12$"):
        world.add(envelope)
    world.approve("alice", "bob")
    world.publish()
    assert world.row().state is SENT


def test_a_lapsed_approval_of_what_was_sent_still_counts(world: ApprovalWorld) -> None:
    world.final()
    world.add(signed(world.take(date(1970, 1, 12)), "alice", "bob"))
    world.publish()
    world.now += 86400 * 2
    world.head()
    world.publish()
    assert world.row().state is SENT


def test_since_leaves_earlier_entries_out(world: ApprovalWorld) -> None:
    world.set_rule(ApprovalSettings(2, BY, networks=(), since=1))
    world.final()
    assert world.row().state is SENT
    world.final()
    assert world.row().state is HELD


def test_a_network_that_was_never_reached_is_waited_for(world: ApprovalWorld) -> None:
    world.node.hang()
    world.final()
    expected = "waits for approval: memory has not said yet which chain it is"
    assert world.row().reason == expected
    world.node.hang(False)
    world.publish()
    assert world.row().reason == "waits for approval: 0 of 2"


# --- forged, expired, of another: one line each -------------------------------------------

OTHER = SignerKey.from_private_bytes(ORIGIN, bytes(32)).verifier.vkey
CHANGED: dict[str, tuple[dict[str, object], str]] = {
    "another ledger": ({"ledger": OTHER}, "approves ledger example.org/ledger+"),
    "another network": ({"network": "other"}, "nothing waits for approval on other"),
    "another chain": ({"chain": {"chain_id": "1"}}, "approves chain chain_id 1; expected chain_id"),
    "another size": ({"size": 2}, "approves head of 2 entries, root "),
    "another root": ({"root": bytes(32)}, f"approves head of 1 entries, root {bytes(8).hex()}; "),
    "another start": ({"since": 1}, "approves entries since 1; expected 0"),
    "another run": ({"runs": ((run_id(9), bytes(32)),)}, "approves other runs than those that"),
    "expired": ({"until": date(1970, 1, 1)}, "expired after 1970-01-01"),
    "another day": (
        {"until": date(2090, 1, 1)},
        "approves until 2090-01-01; expected for ever, as",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_statement_of_something_else_is_refused(name: str) -> None:
    world = ApprovalWorld()
    world.final()
    changes, problem = CHANGED[name]
    with pytest.raises(InputError) as refused:
        world.add(signed(altered(world.take(), **changes), "alice", "bob"))
    assert str(refused.value).startswith(f"a.json: {problem}")
    assert "\n" not in str(refused.value)
    world.publish()
    assert world.row().reason == "waits for approval: 0 of 2"


BROUGHT: dict[str, tuple[Callable[[Envelope], Envelope], type[ProvenanceError], str]] = {
    "nobody": (lambda e: e, InputError, "signed by nobody; expected a new signature, 2 of alice,"),
    "a stranger": (lambda e: signed(e, "eve"), InputError, "signed by "),
    "a bad signature": (
        lambda e: flipped(signed(e, "alice"), "alice"),
        BadSignatureError,
        "does not verify with key",
    ),
    "another's key": (
        lambda e: Envelope(e.payload, {BY["bob"]: signed(e, "eve").signatures.popitem()[1]}),  # type: ignore[attr-defined]
        BadSignatureError,
        "does not verify with key",
    ),
    "bytes of no statement": (
        lambda e: Envelope(b"{}", {}),
        InputError,
        "cannot be read as an approval",
    ),
    "another form": (
        lambda e: signed(Envelope(e.payload.replace(b'"since":0', b'"since":00'), {}), "alice"),
        InputError,
        "cannot be read as an approval",
    ),
}


@pytest.mark.parametrize("name", BROUGHT)
def test_signatures_that_do_not_count_are_refused(name: str) -> None:
    world = ApprovalWorld()
    world.final()
    change, kind, problem = BROUGHT[name]
    with pytest.raises(kind) as refused:
        world.add(change(world.take()))
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda e: signed(e, "bob", "eve"), "signed by "),
        (lambda e: signed(e, "eve", "bob"), "signed by "),
        (lambda e: flipped(signed(e, "alice", "bob"), "alice"), "does not verify with key"),
    ],
)
def test_a_signature_beside_those_that_do_not_count_does(
    change: Callable[[Envelope], Envelope], problem: str
) -> None:
    world = ApprovalWorld()
    row = world.final()
    known = world.add(change(world.take()))
    assert known.signed.names == ("bob",)
    (told,) = known.signed.problems
    assert told.startswith("left out: ")
    assert problem in told
    with world.store.snapshot() as tx:
        assert list(Envelope.decode(tx.approval(row.id) or b"", "x").signatures) == [BY["bob"]]
    world.publish()
    assert world.row().reason == "waits for approval: 1 of 2 (bob)"


def test_the_same_person_twice_is_one(world: ApprovalWorld) -> None:
    world.final()
    world.approve("alice")
    with pytest.raises(InputError, match=r"signed by alice; expected a new signature, 2 of alice"):
        world.approve("alice")
    assert world.approve("bob").signed.names == ("alice", "bob")


def test_signatures_of_two_machines_come_together(world: ApprovalWorld) -> None:
    world.final()
    taken = world.take()
    world.add(signed(taken, "carol"))
    assert world.add(signed(taken, "bob")).signed.names == ("bob", "carol")
    world.publish()
    assert world.row().state is SENT


# --- a database that somebody altered -----------------------------------------------------


def stored(world: ApprovalWorld, envelope: bytes, anchor_id: int) -> None:
    with world.store.transaction() as tx:
        tx.save_approval(anchor_id, envelope)


ALTERED: dict[str, Callable[[Envelope], bytes]] = {
    "a signature flipped": lambda e: flipped(e, "bob").encode(),
    "of strangers": lambda e: signed(Envelope(e.payload, {}), "eve").encode(),
    "of another head": lambda e: signed(
        altered(Envelope(e.payload, {}), root=bytes(32)), "alice", "bob"
    ).encode(),
    "another statement under the signatures": lambda e: Envelope(
        altered(e, until=date(2090, 1, 1)).payload, e.signatures
    ).encode(),
    "no envelope": lambda e: b"{}",
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_approval_sends_nothing(name: str) -> None:
    world = ApprovalWorld()
    row = world.final()
    stored(world, ALTERED[name](signed(world.take(), "alice", "bob")), row.id)
    world.save(replace(world.row(), state=AnchorState.DUE, next_attempt_at=world.now))
    world.publish()
    assert world.row().state is HELD
    assert not world.chain.seen
    assert (world.row().reason or "").startswith("waits for approval: ")


def test_an_anchor_that_is_only_said_to_be_approved_approves_nothing_behind_it() -> None:
    world = ApprovalWorld()
    world.final()
    forged = replace(world.row(), state=AnchorState.FINAL)
    world.save(forged)
    world.head()
    world.publish()
    assert (world.row().state, world.row().size) == (HELD, 2)
    assert not world.chain.seen


def test_another_chain_behind_the_same_name_has_no_approval() -> None:
    world = ApprovalWorld()
    world.final()
    world.approve("alice", "bob")
    known = world.network()
    assert known is not None
    with world.store.transaction() as tx:
        tx.save_network(replace(known, identity={**known.identity, "chain_id": "1"}))
    world.publish()
    assert not world.chain.seen
    assert "approves chain chain_id" in (world.row().reason or "")


def test_fewer_than_the_rule_wants_now_are_too_few() -> None:
    world = ApprovalWorld()
    world.final()
    world.approve("alice", "bob")
    world.set_rule(ApprovalSettings(3, RULE.by, networks=()))
    world.publish()
    assert world.row().reason == "waits for approval: 2 of 3 (alice, bob)"


def test_what_is_taken_is_what_waits(world: ApprovalWorld) -> None:
    world.head()
    world.publish()
    world.final()
    with world.store.transaction() as tx:
        sent = tx.anchors(world.name)[0]
    with world.store.transaction() as tx, pytest.raises(InputError, match="is sent, expected one"):
        take(world.approvals, tx, sent, None)
    world.take(date(2089, 1, 1))
    taken = world.take(date(2090, 1, 1))  # nobody's signature is in yet
    assert world.take() == taken
    world.add(signed(taken, "alice"))
    with pytest.raises(InputError, match=r"^--until: the statement of anchor 2 holds until 2090"):
        world.take(date(2091, 1, 1))
