"""What several networks together say of a seal: its heads, the latest moment, a contradiction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.evidence.run_evidence import ReceiptFile, RunEvidence
from provenance.formats.receipt import Receipt
from provenance.verify.catalogue import AGREE, RECEIPTS, Status
from provenance.verify.cross import SLACK_S, Bounds, Clock, CrossAnchor, contradiction
from provenance.verify.report import VerificationReport
from tests.support.verify_world import World, finished, story

FAR = 10.0**6


def with_anchor(evidence: RunEvidence, name: str, **changes: Any) -> RunEvidence:
    """The evidence with one receipt's anchor changed, and encoded again."""
    receipts = []
    for file in evidence.receipts:
        if file.name == name:
            receipt = Receipt.decode(file.data)
            receipt = replace(receipt, anchor=replace(receipt.anchor, **changes))
            file = ReceiptFile(file.name, receipt.encode())
        receipts.append(file)
    return replace(evidence, receipts=tuple(receipts))


def anchor_of(evidence: RunEvidence, name: str) -> Any:
    return next(Receipt.decode(f.data) for f in evidence.receipts if f.name == name).anchor


def agree(report: VerificationReport) -> Any:
    return next(result for result in report.checks if result.check.number == AGREE)


def test_one_head_on_two_networks_bounds_both_seals_by_the_earlier_block() -> None:
    world = finished()
    report = world.verify()
    assert agree(report).status is Status.PASSED
    assert [row.seal for row in report.cross] == ["before", "after"]
    for row in report.cross:
        times = {a.network: a.time or 0.0 for a in row.anchors}
        assert (row.heads, row.shown, set(times)) == ("same", True, {"bitcoin", "ethereum"})
        assert row.not_after == min(times[name] + SLACK_S[name] for name in times)
        assert row.line.startswith(f"{row.seal}: head 2 on bitcoin")
    assert agree(report).detail == f"2 seals on several networks; {report.cross[-1].line}"


@pytest.mark.slow
def test_a_later_head_bounds_an_earlier_seal_and_ties_to_it() -> None:
    """Ethereum has each seal's head; Bitcoin was away and has the last alone, which holds both."""
    world, events = World(), story()
    bitcoin = world.networks.pop("bitcoin")
    world.ingest(world.batch(events[:6]))
    world.anchor()
    world.networks["bitcoin"] = bitcoin
    world.ingest(world.batch(events[6:], first=6))
    world.anchor()
    first, last = world.verify().cross
    assert [(a.network, a.size) for a in first.anchors] == [("bitcoin", 2), ("ethereum", 1)]
    assert (first.heads, last.heads) == ("tied", "same")
    ethereum = {row.seal: row.anchors[1].not_after for row in (first, last)}
    assert first.not_after == ethereum["before"] < last.not_after == ethereum["after"]  # type: ignore[operator]
    assert "before: heads 1, 2 of one ledger on " in first.line
    evidence = world.evidence()
    untied = world.verify(replace(evidence, consistencies=()))
    assert untied.cross[0].heads == "untied"
    assert "which nothing ties" in untied.cross[0].line
    assert untied.outcome == "failed"


def test_offline_the_bound_rests_on_the_receipts() -> None:
    world = finished()
    (_, after) = world.verify(online=False).cross
    assert not after.shown
    assert after.line.endswith("if the block in its receipt is the chain's")


def test_one_network_agrees_with_nobody() -> None:
    report = finished(names=("ethereum",)).verify()
    assert report.cross == ()
    assert agree(report).status is Status.SKIPPED
    assert agree(report).detail == "no seal has receipts of two networks"


def test_an_anchor_that_its_node_does_not_have_bounds_nothing() -> None:
    world, other = finished(), World()
    world.networks["ethereum"] = other.networks["ethereum"]  # a chain without the anchor
    report = world.verify()
    assert report.networks["ethereum"]["after"].status == "failed"
    assert report.cross == ()


def test_nodes_that_show_two_roots_of_one_size_are_a_finding() -> None:
    world = finished()
    node = world.networks["ethereum"]
    truth = node.lookup
    node.lookup = lambda id: replace(truth(id), root=bytes(32))  # type: ignore[method-assign]
    report = world.verify()
    (found,) = [finding for finding in report.findings if finding.check == AGREE]
    assert found.subject == "head 2"
    assert "networks carry different roots: bitcoin " in found.problem
    assert f"ethereum {bytes(32).hex()}" in found.problem
    assert report.cross == ()


@pytest.mark.parametrize("name", ["after-bitcoin", "after-ethereum", "before-bitcoin"])
def test_times_that_no_clock_of_the_ledger_fits_are_a_finding(name: str) -> None:
    """A receipt that says that the ledger saw the block long before the other chain allows."""
    world = finished()
    evidence = world.evidence()
    when = anchor_of(evidence, name).block_time - FAR
    report = world.verify(with_anchor(evidence, name, confirmed_at=when))
    seal, network = name.split("-")
    (found,) = report.findings
    assert (found.check, found.subject) == (AGREE, seal)
    assert f"no clock of the ledger fits the times of the blocks: by {network}" in found.problem
    assert report.outcome == "failed"


def test_a_clock_that_is_wrong_for_all_chains_contradicts_none() -> None:
    """The same hour off in every moment that the ledger states is no finding of this check."""
    world = finished()
    evidence = world.evidence()
    for file in evidence.receipts:
        when = anchor_of(evidence, file.name).confirmed_at + 3000
        evidence = with_anchor(evidence, file.name, confirmed_at=when)
    entries = tuple(replace(e, created_at=e.created_at + 3000) for e in evidence.entries)
    report = world.verify(replace(evidence, entries=entries))
    assert AGREE not in {finding.check for finding in report.findings}


def test_another_root_of_one_size_is_a_finding_of_the_receipts() -> None:
    world = finished()
    evidence = world.evidence()
    anchor = anchor_of(evidence, "after-bitcoin")
    forged = with_anchor(evidence, "after-bitcoin", payload=anchor.payload[:-1] + b"\0")
    report = world.verify(forged, online=False)
    assert {finding.check for finding in report.findings} == {RECEIPTS}
    assert [row.seal for row in report.cross] == ["before"]


anchor = st.builds(
    CrossAnchor,
    network=st.just("ethereum"),
    chain=st.just("c"),
    size=st.integers(1, 6),
    root=st.just(b""),
    status=st.sampled_from(("verified", "receipt")),
    time=st.none() | st.integers(0, 9).map(float),
    slack=st.just(12.0),
)


@given(st.lists(anchor))
def test_the_earliest_bound_is_the_naive_one(anchors: list[CrossAnchor]) -> None:
    bounds = Bounds(anchors)
    for index in range(7):
        covering = [a for a in anchors if a.size > index and a.time is not None]
        rows = [a for a in covering if a.status == "verified"] or covering
        found = bounds.of(index)
        expected = min(((a.time or 0) + 12.0 for a in rows), default=None)
        assert (found.not_after if found else None) == expected
        assert (found is not None and found.shown) == (
            rows[:1] != [] and rows[0].status == "verified"
        )


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 9)), max_size=4))
def test_a_contradiction_is_that_no_clock_fits_all(spans: list[tuple[int, int]]) -> None:
    clocks = [Clock("c", float(least), float(least + width)) for least, width in spans]
    fits = any(all(c.least <= clock <= c.most for c in clocks) for clock in range(-20, 20))
    assert (contradiction(clocks) is None) == (fits or len(clocks) < 2)
