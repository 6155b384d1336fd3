"""Check (7), forged: each network's rules are its own, whatever the evidence calls itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from provenance.errors import FormatError, IntegrityError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.note import SignerKey
from provenance.formats.receipt import Receipt
from provenance.proofs.bitcoin import CHAINS, double_sha256
from provenance.verify.catalogue import HEADER_SOURCE, RECEIPTS, Status
from provenance.verify.checks.receipts import check_evidence
from provenance.verify.headers import AllSources, GivenHeaders
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.support.nodes import bitcoin_evidence
from tests.support.nodes.bitcoin_evidence import GENESIS, mined
from tests.support.verify_world import ORIGIN, SIGNER, World, finished

NETWORKS = ("bitcoin", "ethereum", "ipfs", "local")
OTHER = SignerKey.from_private_bytes(ORIGIN, b"\x09" * 32)


@cache
def world() -> World:
    return finished(1, names=NETWORKS)


def receipt(network: str) -> Receipt:
    files = world().evidence().receipts
    return Receipt.decode(next(f.data for f in files if f.name == f"after-{network}"))


def check(network: str, anchor: dict[str, Any], evidence: Any) -> str | None:
    true = receipt(network)
    told = {**true.evidence, **evidence} if evidence is not None else {}
    told = {name: value for name, value in told.items() if value is not ABSENT}
    return check_evidence(replace(true.anchor, **anchor), told, SIGNER.verifier)


def forged(network: str, anchor: dict[str, Any], evidence: Any) -> VerificationReport:
    """A report over the run with its newest receipt of a network replaced."""
    files = []
    for file in world().evidence().receipts:
        if file.name == f"after-{network}":
            true = Receipt.decode(file.data)
            changed = replace(true, anchor=replace(true.anchor, **anchor), evidence=evidence)
            file = replace(file, data=changed.encode())
        files.append(file)
    return world().verify(replace(world().evidence(), receipts=tuple(files)), online=False)


ABSENT = object()


@pytest.mark.slow
def test_the_true_receipts_hold() -> None:
    report = world().verify(online=False)
    assert (report.outcome, report.findings, report.notices) == ("consistent", (), ())
    assert [check(name, {}, {}) for name in NETWORKS] == [None] * 4
    assert HEADER_SOURCE in report.not_checked
    assert "height" in HEADER_SOURCE


@pytest.mark.parametrize("network", ["bitcoin", "ethereum", "local"])
@pytest.mark.parametrize("evidence", [{}, {"type": "ipfs"}, {"type": "memory"}])
def test_a_receipt_without_its_networks_evidence_is_found(network: str, evidence: Any) -> None:
    report = forged(network, {"transaction_id": "ff" * 32}, evidence)
    assert [(f.check, f.subject) for f in report.findings] == [
        (RECEIPTS, f"receipt after-{network}")
    ]


def test_an_ipfs_id_is_the_cid_of_the_payload_with_and_without_evidence() -> None:
    assert check("ipfs", {}, None) is None
    report = forged("ipfs", {"transaction_id": receipt("bitcoin").anchor.transaction_id}, {})
    assert [f.check for f in report.findings] == [RECEIPTS]


def test_a_receipt_of_an_unknown_network_is_left_open_and_named() -> None:
    report = forged("bitcoin", {"network": "dogecoin"}, dict(receipt("bitcoin").evidence))
    assert (report.outcome, report.findings) == ("consistent", ())
    assert report.checks[RECEIPTS - 1].status is Status.UNCHECKED
    assert "receipt after-bitcoin" in report.checks[RECEIPTS - 1].detail
    assert "'dogecoin'" in report.checks[RECEIPTS - 1].detail


def header_on(raw: bytes) -> str:
    return bitcoin_evidence.mined(bytes(32), double_sha256(raw)).hex()


FORGED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("bitcoin", {"transaction_id": "ff" * 32}, {}, "the transaction in it is"),
    ("bitcoin", {"block_hash": "ff" * 32}, {}, "the block in it is"),
    ("bitcoin", {"block_time": 5.0}, {}, "the receipt says 5.0"),
    ("bitcoin", {"block_time": None}, {}, "the receipt says None"),
    ("bitcoin", {"height": 5}, {}, r"evidence\.height is"),
    ("bitcoin", {"height": None}, {}, "states height None"),
    ("bitcoin", {"depth": 0}, {}, "states depth 0"),
    ("bitcoin", {}, {"height": 5}, r"evidence\.height is 5"),
    ("bitcoin", {}, {"height": True}, r"evidence\.height is True"),
    ("bitcoin", {}, {"block_hash": "ff" * 32}, r"evidence\.block_hash"),
    ("bitcoin", {}, {"transaction_id": "ff" * 32}, r"evidence\.transaction_id"),
    ("bitcoin", {}, {"headers": "00"}, r"evidence: headers: found '00', expected a list"),
    ("bitcoin", {}, {"headers": [header_on(bytes(80))]}, "does not build on"),
    ("bitcoin", {}, {"headers": ["00"]}, "header"),
    ("bitcoin", {}, {"headers": [5]}, r"evidence: headers\[0\]: found 5, expected lower-case hex"),
    (
        "bitcoin",
        {},
        {"header": ABSENT},
        r"evidence: header: found nothing, expected lower-case hex",
    ),
    ("bitcoin", {}, {"chain": "main"}, "target"),
    ("ipfs", {"height": 1}, {}, "IPFS has none"),
    ("ipfs", {"block_time": 1.0}, {}, "IPFS has none"),
    ("ipfs", {}, {"block": "00"}, r"evidence\.block"),
    ("ipfs", {}, {"transaction_id": "b"}, r"evidence\.transaction_id"),
    ("local", {"transaction_id": "local:" + "0" * 32}, {}, "the line in it is local:"),
    ("local", {"height": 77}, {}, "the receipt says 77"),
    ("local", {"block_time": 1.0}, {}, "and time"),
    ("local", {"block_hash": "ff" * 32}, {}, "digest"),
    ("local", {}, {"line": ABSENT}, r"evidence: line: found nothing, expected text"),
    ("local", {}, {"line": "{}"}, "v: found no version, expected 1"),
    ("local", {}, {"line": "["}, "not JSON"),
    ("local", {}, {"line": "[]"}, "local line: found a list, expected an object"),
    (
        "local",
        {},
        {"public_key": ABSENT},
        r"evidence: public_key: found nothing, expected lower-case hex",
    ),
    ("local", {}, {"public_key": OTHER.verifier.public_bytes.hex()}, "not the ledger's key"),
    ("local", {}, {"transaction_id": "x"}, r"evidence\.transaction_id"),
]


@pytest.mark.parametrize(("network", "anchor", "evidence", "says"), FORGED)
def test_what_does_not_agree_is_refused(
    network: str, anchor: dict[str, Any], evidence: dict[str, Any], says: str
) -> None:
    with pytest.raises((FormatError, IntegrityError), match=says):
        check(network, anchor, evidence)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace('"seq":', '"seq":1'),
        lambda line: line.replace('"v":1', '"v":2'),
        lambda line: line.replace('"ts":"', '"ts":"1'),
        lambda line: line.replace('"v":1', '"v":1,"w":1'),
        lambda line: line.replace(',"v":1', ""),
        lambda line: line.replace('"payload":"', '"payload":"00'),
        lambda line: line + " ",
        lambda line: line.replace('"prev":"0', '"prev":"1'),
        lambda line: line + " " * 5000,
    ],
)
def test_a_changed_local_line_is_refused(change: Callable[[str], str]) -> None:
    line = str(receipt("local").evidence["line"])
    assert change(line) != line
    with pytest.raises((FormatError, IntegrityError)):
        check("local", {}, {"line": change(line)})


def test_headers_on_top_must_build_on_the_block() -> None:
    evidence = receipt("bitcoin").evidence
    above = header_on(bytes.fromhex(str(evidence["header"])))
    assert check("bitcoin", {}, {"headers": [above]}) is None
    weak = bytes.fromhex(above)[:76] + b"\xff\xff\xff\xff"
    nonce = 0
    while int.from_bytes(double_sha256(weak), "little") <= CHAINS["regtest"].limit:
        nonce += 1
        weak = weak[:76] + nonce.to_bytes(4, "little")
    with pytest.raises(IntegrityError):
        check("bitcoin", {}, {"headers": [weak.hex()]})


# --- heights -----------------------------------------------------------------------------


def bitcoin_alone() -> RunEvidence:
    evidence = world().evidence()
    files = tuple(f for f in evidence.receipts if f.name == "after-bitcoin")
    return replace(evidence, receipts=files)


def test_a_lone_header_shows_no_height() -> None:
    raw = bytes.fromhex(str(receipt("bitcoin").evidence["header"]))
    headers = GivenHeaders.of([raw])
    report = world().verify(bitcoin_alone(), online=False, headers=headers)
    seen = report.networks["bitcoin"]["after"]
    assert (seen.status, seen.height, seen.depth) == ("verified", None, 1)


def test_headers_without_the_anchor_leave_it_open_unless_they_have_another_at_its_height() -> None:
    """Whatever else is asked: a node that has the block shows it all the same."""
    height, headers = receipt("bitcoin").anchor.height, GivenHeaders.of([mined(bytes(32))])
    report = world().verify(bitcoin_alone(), online=False, headers=headers)
    assert report.networks["bitcoin"]["after"].status == "receipt"
    assert (report.findings, report.exit_code) == ((), 3)
    end = f"do not begin with the chain's first, and the block at {height} is not there"
    assert f"after on bitcoin not checked: the headers given {end}" in report.checks[7].detail
    assert not any("none were given" in line for line in report.not_checked)
    other = verify(bitcoin_alone(), {}, headers=headers, now=world().now)
    assert end in other.checks[7].detail
    seen = world().verify(bitcoin_alone(), headers=headers).networks["bitcoin"]["after"]
    assert (seen.status, seen.shown_by, seen.reason) == ("verified", "by a node", None)
    of_another = GivenHeaders.of([GENESIS])
    [found] = world().verify(bitcoin_alone(), online=False, headers=of_another).findings
    assert "is not among the headers given" in found.problem


class Known(GivenHeaders):
    """A source that knows heights."""

    told: int | None = None

    def height(self, block: bytes, chain: str) -> int | None:
        return self.told


@pytest.mark.parametrize("told", [0, 10**6])
def test_a_height_that_the_source_contradicts_is_found(told: int) -> None:
    true = receipt("bitcoin")
    raw = bytes.fromhex(str(true.evidence["header"]))
    given = GivenHeaders.of([raw])
    source = Known(given.depths, given.headers)
    object.__setattr__(source, "told", true.anchor.height)
    report = world().verify(bitcoin_alone(), online=False, headers=source)
    assert report.networks["bitcoin"]["after"].height == true.anchor.height
    object.__setattr__(source, "told", told + 7)
    report = world().verify(bitcoin_alone(), online=False, headers=source)
    assert [f.check for f in report.findings] == [8]
    assert f"is at height {told + 7}" in report.findings[0].problem


def test_several_sources_must_agree_about_a_height() -> None:
    given = GivenHeaders.of([bytes.fromhex(str(receipt("bitcoin").evidence["header"]))])
    one, two = (Known(given.depths, given.headers) for _ in range(2))
    object.__setattr__(one, "told", 5)
    assert AllSources((one, two)).height(bytes(32), "regtest") == 5
    assert AllSources((two, two)).height(bytes(32), "regtest") is None
    object.__setattr__(two, "told", 6)
    with pytest.raises(IntegrityError, match="differ about its height"):
        AllSources((one, two)).height(bytes(32), "regtest")
