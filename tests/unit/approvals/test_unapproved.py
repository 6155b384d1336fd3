"""What ``provenance fsck`` says of final roots that went out without approval."""

from __future__ import annotations

from provenance.fsck.outbox import OutboxFacts, check_outbox
from provenance.fsck.rows import Anchor, ApprovalRow, Entry
from tests.unit.approvals.world import RULE, ApprovalWorld


def unapproved(world: ApprovalWorld) -> list[str]:
    """The subjects of its findings."""
    with world.store.snapshot() as tx:
        entries = [
            Entry(each.index, each.run, each.phase, each.epoch, each.root, each.anchor)
            for each in tx.entries()
        ]
        rows = tx.anchors(world.name)
        envelopes = {row.id: tx.approval(row.id) for row in rows}
    anchors = [
        Anchor(row.id, row.network, row.size, row.root, row.state.value, row.next_attempt_at,
               None, None, row.reason, row.version_id)
        for row in rows
    ]  # fmt: skip
    approvals = [ApprovalRow(at, data) for at, data in envelopes.items() if data is not None]
    facts = OutboxFacts(
        entries, {}, anchors, (), (), (), (), (), world.now, 60.0, approvals, world.approvals.rule
    )
    found = check_outbox(facts)
    return [each.subject for each in found if each.kind.value == "anchor-unapproved"]


def test_a_later_approval_does_not_undo_that_a_root_went_out_without() -> None:
    world = ApprovalWorld()
    world.conditions = ()
    world.final()
    assert unapproved(world) == ["memory entry 0"]
    world.set_rule(RULE)
    world.final()
    assert unapproved(world) == ["memory entry 0"], "the second waits"
    world.approve("alice", "bob")
    world.publish()
    assert unapproved(world) == ["memory entry 0"]


def test_an_approved_head_may_go_out_within_a_later_one() -> None:
    world = ApprovalWorld()
    world.final()
    world.approve("alice", "bob")
    world.head()
    world.publish()
    assert [row.state.value for row in world.rows()] == ["replaced", "sent"]
    assert unapproved(world) == []
