"""The stranger and this program agree on what several networks together say of a seal."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provenance.bundle.index import dump
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files
from provenance.verify.catalogue import AGREE
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.integration.stock.test_stranger import Files, remade
from tests.support.stranger import load
from tests.vectors.make_golden import evidence

HOUR = 3600.0


@pytest.fixture(scope="module")
def stranger() -> ModuleType:
    return load()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return bundle_files(evidence(tmp_path_factory.mktemp("golden") / "anchors.jsonl"))


def changed(files: Files, name: str, **anchor: object) -> Files:
    receipt = json.loads(files[name])
    receipt["anchor"] |= anchor
    data = json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return remade({**files, name: data.encode()})


def both(stranger: ModuleType, files: Files) -> tuple[Any, VerificationReport]:
    report = verify(read_bundle(MemorySource(files, "forged")), None, now=2e9)
    return stranger.Bundle(files), report


def clocks(problems: list[str]) -> int:
    return sum("no clock fits the times of its blocks" in line for line in problems)


def test_both_give_each_seal_the_same_latest_moment(stranger: ModuleType, files: Files) -> None:
    bundle, report = both(stranger, files)
    indexes = {seal.label: seal.index for seal in report.seals}
    assert bundle.problems == []
    assert bundle.latest == {indexes[row.seal]: row.not_after for row in report.cross}
    assert [row.seal for row in report.cross] == ["before", "checkpoint-2", "after"]


def test_both_take_a_later_head_where_the_own_one_is_not_there(
    stranger: ModuleType, files: Files
) -> None:
    index = json.loads(files["run.json"])
    index["receipts"].remove("before-ethereum")
    left = {n: d for n, d in files.items() if n != "receipts/before-ethereum.json"}
    bundle, report = both(stranger, remade({**left, "run.json": dump(index)}))
    indexes = {seal.label: seal.index for seal in report.seals}
    assert bundle.latest == {indexes[row.seal]: row.not_after for row in report.cross}
    assert AGREE not in {finding.check for finding in report.findings}


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(("before", "after")),
    st.sampled_from(("bitcoin", "ethereum")),
    st.floats(-6 * HOUR, 6 * HOUR).map(round),
)
def test_both_find_the_same_contradictions(
    stranger: ModuleType, files: Files, seal: str, network: str, moved: int
) -> None:
    name = f"receipts/{seal}-{network}.json"
    when = json.loads(files[name])["anchor"]["block_time"] + moved
    bundle, report = both(stranger, changed(files, name, confirmed_at=when))
    found = [finding for finding in report.findings if finding.check == AGREE]
    assert len(found) == clocks(bundle.problems)


def test_both_refuse_a_head_that_one_network_does_not_have(
    stranger: ModuleType, files: Files
) -> None:
    """A payload of another root, in Bitcoin's receipt alone."""
    payload = json.loads(files["receipts/after-bitcoin.json"])["anchor"]["payload"]
    forged = changed(files, "receipts/after-bitcoin.json", payload=payload[:-2] + "00")
    bundle, report = both(stranger, forged)
    assert "receipts/after-bitcoin.json" in {line.split(":")[0] for line in bundle.problems}
    assert "receipts/after-bitcoin.json" in {finding.file for finding in report.findings}
