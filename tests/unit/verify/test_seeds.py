"""Seeds that were drawn from blocks: recomputed, looked up, and what window they prove."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from provenance.bundle.writer import bundle_files
from provenance.errors import NetworkUnavailable
from provenance.formats.receipt import Receipt
from provenance.proofs.beacon import Beacon, draw_seed
from provenance.proofs.bitcoin import display, parse_header
from provenance.verify.headers import GivenHeaders
from provenance.verify.report import VerificationReport
from provenance.verify.trust import PinnedChain, Trust
from tests.support import stranger
from tests.support.beyond.seeds import BITCOIN, ETHEREUM, seed, story
from tests.support.nodes.bitcoin_evidence import GENESIS, TIME, mined
from tests.support.verify_world import OTHER, OWN, Fields, World

FIRST = mined(b"\2" * 32, previous=parse_header(GENESIS).hash)
HEADERS = GivenHeaders.of([GENESIS, FIRST, BITCOIN.header])
BESIDE = replace(BITCOIN, header=mined(b"\1" * 32))
OLDER = "2023-11-14 20:13:20Z (bitcoin block 101)"  # its time, less two hours
NEWER = "2023-11-14 22:14:08Z (ethereum block 7)"  # less a slot


def sealed(*seeds: Fields, anchored: bool = True) -> World:
    world = World(names=("ethereum",))
    world.networks["ethereum"].beacons.append(ETHEREUM)
    world.ingest(world.batch(story(*seeds)))
    world.now = TIME + 3600.0
    if anchored:
        world.anchor()
    return world


def window(report: VerificationReport) -> str:
    [line] = [notice.problem for notice in report.notices if notice.subject == "seeds"]
    return line


def test_a_seed_and_an_anchor_prove_a_window() -> None:
    report = sealed(seed(ETHEREUM)).verify()
    assert not report.findings
    assert re.fullmatch(
        rf"training with its first seed happened between {re.escape(NEWER)} and "
        r"2023-11-1\d \d\d:\d\d:\d\dZ \(after on ethereum\); 1 seed drawn",
        window(report),
    )
    assert any(line.startswith("That a seed was used") for line in report.not_checked)


def test_a_seal_that_covers_a_seed_lies_between_two_blocks() -> None:
    """The before seal was made without it, and has the upper end alone."""
    world = World()
    world.networks["ethereum"].beacons.append(ETHEREUM)
    world.ingest(world.batch(story(seed(ETHEREUM))))
    world.now = TIME + 3600.0
    world.anchor()
    before, after = world.verify().cross
    assert (before.not_before, after.not_before) == (None, TIME + 60 - 12.0)
    assert "; existed by 2023-" in before.line
    assert f"; made between {NEWER.replace('(', '(a seed of ')} and 2023-11-1" in after.line
    assert world.verify(online=False).cross[1].not_before is None


@pytest.mark.slow
def test_the_newest_of_the_blocks_that_are_shown_counts() -> None:
    both = sealed(seed(BITCOIN, ETHEREUM), seed(BITCOIN, draw=1))
    line = window(both.verify(headers=HEADERS))
    assert line.startswith(f"training with its first seed happened between {NEWER} and ")
    assert line.endswith("; 2 seeds drawn")
    offline = both.verify(headers=HEADERS, online=False)
    assert window(offline) == (
        f"training with its first seed happened after {OLDER}; no anchor says before when; "
        "2 seeds drawn"
    )
    by_hash = replace(OWN, block_hashes=frozenset({ETHEREUM.shown}))
    assert NEWER in window(both.verify(online=False, trust=by_hash))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"online": False}, "ethereum block 7 of a seed: no node and no header source was asked"),
        ({"trust": Trust()}, None),
    ],
)
def test_a_block_that_nobody_was_asked_for_leaves_it_open(
    options: dict[str, Any], line: str | None
) -> None:
    report = sealed(seed(ETHEREUM)).verify(**options)
    assert not report.findings
    if line is not None:
        assert window(report) == "1 seed: nothing shows when the first was drawn"
        assert report.outcome != "verified"


def test_a_chain_that_nobody_pinned_leaves_it_open() -> None:
    world = sealed(seed(BITCOIN))
    nobody = Trust(chains=(PinnedChain("ethereum", None, "the test"),))
    report = world.verify(headers=HEADERS, trust=nobody)
    assert "nobody pinned bitcoin (regtest)" in report.checks[7].detail
    assert window(report) == "1 seed: nothing shows when the first was drawn"


def test_a_node_that_is_down_leaves_it_open() -> None:
    world = sealed(seed(ETHEREUM))
    world.networks["ethereum"].fail_next("depth_of", NetworkUnavailable("ethereum: no answer"))
    report = world.verify()
    assert not report.findings
    assert "ethereum block 7 of a seed: ethereum: no answer" in report.checks[7].detail


def test_headers_that_end_before_its_block_leave_it_open() -> None:
    headers = GivenHeaders.of([GENESIS, FIRST])
    report = sealed(seed(replace(BESIDE, height=2))).verify(headers=headers)
    assert not report.findings
    end = "bitcoin block 2 of a seed: the headers given end at height 1, and the block at 2 is not"
    assert end in report.checks[7].detail


@pytest.mark.slow
def test_a_block_hash_that_fits_nothing_is_said() -> None:
    other, world = "0x" + "5c" * 32, sealed(seed(ETHEREUM))
    anchors = {
        Receipt.decode(file.data).anchor.block_hash or "" for file in world.evidence().receipts
    }
    known = frozenset({other, ETHEREUM.shown, *anchors})
    report = world.verify(trust=replace(OWN, block_hashes=known))
    told = [notice.problem for notice in report.notices if notice.subject == "--block-hash"]
    assert told == [f"{other} is the block of no anchor or seed here"]
    assert report.findings == ()
    bare = sealed().verify(trust=replace(OWN, block_hashes=frozenset({other})), online=False)
    assert [notice.subject for notice in bare.notices] == ["--block-hash"]


def test_a_random_seed_is_said_to_be_one() -> None:
    report = sealed(seed()).verify()
    assert not report.findings
    assert "training/seed: a random seed: no recent block was known" in report.checks[7].detail


MADE_UP = replace(ETHEREUM, header=ETHEREUM.header.replace(b"extra", b"EXTRA"))
CHEAP = replace(BITCOIN, chain="main")
FORGED: dict[str, tuple[list[Fields], str]] = {
    "another seed": ([seed(ETHEREUM, seed=7)], "seed is 7, its blocks give"),
    "another run's": ([seed(ETHEREUM, run=OTHER)], "seed is .*, its blocks give"),
    "another draw's": ([seed(ETHEREUM, draw=1, seed=draw_seed(OTHER, 0, [ETHEREUM]))], "seed is"),
    "a block made up": ([seed(MADE_UP)], "ethereum block 7: the node has no such block 0x"),
    "another height": (
        [seed(replace(ETHEREUM, height=8))],
        "ethereum block 8: its header is of block 7",
    ),
    "a test chain's block as mainnet's": ([seed(CHEAP)], "its target is out of range"),
    "a header without its work": (
        [seed(replace(BITCOIN, header=BITCOIN.header[:76] + b"\xff" * 4))],
        "its hash is above its target|is not among the headers",
    ),
    "a block of another branch": (
        [seed(replace(BESIDE, height=1))],
        "is not among the headers given",
    ),
    "a block of another chain than the node's": (
        [seed(replace(ETHEREUM, chain="5"))],
        "ethereum block 7: is of ethereum 5, the node serves 1",
    ),
    "no chain of that name": ([seed(replace(BITCOIN, chain="x"))], "no chain of Bitcoin is named"),
    "a draw twice": ([seed(ETHEREUM), seed(ETHEREUM)], "draw 0 stands behind draw 0"),
    "two blocks of a network": ([seed(ETHEREUM, ETHEREUM)], "one block of a network"),
    "an unknown key": ([seed(ETHEREUM, more=1)], "body: more: unknown key"),
    "no integer": ([seed(ETHEREUM, seed=1.5)], "seed: found 1.5, expected a whole number"),
    "a seed too large": (
        [seed(ETHEREUM, seed=2**32)],
        "expected a whole number from 0 to 4294967295",
    ),
    "no header": (
        [seed(ETHEREUM, blocks=[ETHEREUM.as_json() | {"header": "00" * 80}])],
        r"body: blocks\[0\].header: ",
    ),
}
SHOWN_BY_NETWORK = {
    "a block made up", "a block of another branch", "a block of another chain than the node's",
}  # fmt: skip


@pytest.mark.parametrize(("seeds", "line"), FORGED.values(), ids=FORGED)
def test_a_forged_seed_is_refused_with_one_line(
    seeds: list[Fields], line: str, request: pytest.FixtureRequest
) -> None:
    world = sealed(*seeds, anchored=False)
    report = world.verify(headers=HEADERS)
    [finding] = report.findings
    assert finding.check == 8
    assert re.search(line, finding.problem), finding.problem
    assert "\n" not in finding.problem
    problems = stranger.load().Bundle(bundle_files(world.evidence())).problems
    if request.node.callspec.id not in SHOWN_BY_NETWORK:
        assert len(problems) == 1
        assert "training/seed" in problems[0]


def test_the_stranger_agrees_on_good_ones() -> None:
    world = sealed(seed(BITCOIN, ETHEREUM), seed(ETHEREUM, draw=1), seed(draw=2))
    bundle = stranger.load().Bundle(bundle_files(world.evidence()))
    assert bundle.problems == []
    assert [line for line in bundle.unproven if "seed" in line] == [
        "run.json: training/seed: its blocks",
        "run.json: training/seed/1: its blocks",
        "run.json: training/seed/2: a random seed",
    ]


def test_bitcoin_s_clock_may_be_ahead_of_ethereum_s() -> None:
    """A seed from a block whose time is an hour ahead, as Bitcoin's rules allow."""
    world = sealed(seed(BITCOIN))
    report = world.verify(headers=HEADERS)
    end = report.networks["ethereum"]["after"].time
    assert end is not None
    ahead = int(end) + 3600
    header = mined(b"\x22" * 32, time=ahead)
    late = replace(BITCOIN, header=header)
    world = sealed(seed(late))
    assert world.verify(headers=GivenHeaders.of([header])).findings == ()


def test_an_anchor_older_than_the_seed_is_a_finding() -> None:
    late = replace(
        ETHEREUM,
        header=ETHEREUM.header.replace((TIME + 60).to_bytes(4), (TIME + 10**7).to_bytes(4)),
    )
    world = sealed(seed(late))
    world.networks["ethereum"].beacons.append(late)
    [finding] = world.verify().findings
    assert re.search(r"its anchor of .* is older than its seed of", finding.problem)


@pytest.mark.slow
def test_clocks_of_chains_that_differ_a_little_are_no_finding() -> None:
    anchored = sealed(seed(ETHEREUM)).verify().networks["ethereum"]["after"].time
    assert anchored is not None
    for ahead, findings in ((3600, 0), (7300, 1)):
        time = (int(anchored) + ahead).to_bytes(4)
        late = replace(ETHEREUM, header=ETHEREUM.header.replace((TIME + 60).to_bytes(4), time))
        world = sealed(seed(late))
        world.networks["ethereum"].beacons.append(late)
        report = world.verify()
        assert len(report.findings) == findings
        if not findings:
            assert "(after on ethereum), whose clocks differ; " in window(report)


def test_a_seed_worked_out_by_hand() -> None:
    """SHA-256 over the texts and hashes alone, as docs/FORMAT.md has it."""
    import hashlib

    twice = hashlib.sha256(hashlib.sha256(BITCOIN.header).digest()).digest()
    assert BITCOIN.shown == display(parse_header(BITCOIN.header).hash) == twice[::-1].hex()
    message = b"ml-provenance/seed/v1\0" + OTHER.bytes + b"\0\0\0\5" + twice
    expected = int.from_bytes(hashlib.sha256(message).digest()[:4], "big")
    assert draw_seed(OTHER, 5, [BITCOIN]) == expected
    assert isinstance(BITCOIN, Beacon)
