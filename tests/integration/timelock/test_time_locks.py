"""Time locks over a real run and a real chain: sealed, waited for, released, opened."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest

from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files, write_files
from provenance.cli import main
from provenance.formats.json_text import canonical_json
from provenance.formats.record import Json
from provenance.proofs.bitcoin import CHAINS, double_sha256
from provenance.proofs.timelock.lock import FILE, After, seal
from provenance.settings import load
from provenance.verify.verifier import verify
from tests.support import stranger
from tests.support.model_world import deployment
from tests.support.nodes.bitcoin_evidence import mined
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.verify_world import NOW, RUN
from tests.unit.watch.test_again import tamper

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = [pytest.mark.nodes, pytest.mark.slow]

REGTEST_GENESIS = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000"
)
"""Bitcoin Core, ``kernel/chainparams.cpp``."""


@dataclass
class Home:
    chain: Anvil
    folder: Path
    config: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: object, config: Path | None = None) -> tuple[int, dict[str, Any]]:
        own = ["--base-dir", str(self.folder / "base"), "--config", str(config or self.config)]
        code = main([*map(str, words), *own, "--json"])
        return code, json.loads(self.capsys.readouterr().out)

    def seal(self, target: Path, blocks: int = 5, *more: object) -> tuple[int, dict[str, Any]]:
        height = int(self.chain.call("eth_blockNumber"), 16) + blocks
        words = ("--after", f"ethereum:{height}", "--approvers", self.folder / "approvers.json")
        locked = ("--lock", "metrics", "--lock", "results")
        return self.run("timelock", "seal", RUN, *locked, *words, "-k", 2, "-o", target, *more)

    def release(self, bundle: Path, name: str, **how: Any) -> tuple[int, dict[str, Any]]:
        key, share = self.folder / name, self.folder / f"{name}.share"
        return self.run("timelock", "release", bundle, "--key", key, "-o", share, **how)


@pytest.fixture
def home(chain: Anvil, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    chain.mine(2)
    deployment(tmp_path / "base")
    config = tmp_path / "config.json"
    ethereum = {"url": chain.url, "private_key": KEYS[0]}
    config.write_text(json.dumps({"blockchain": {"networks": ["local"], "ethereum": ethereum}}))
    own = Home(chain, tmp_path, config, capsys)
    approvers = {}
    for at, name in enumerate(("alice", "bob", "carol"), 1):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(bytes([at] * 32).hex())
        approvers[name] = own.run("timelock", "key", tmp_path / name)[1]["public_key"]
    (tmp_path / "approvers.json").write_text(json.dumps(approvers))
    return own


def test_locked_records_open_after_the_block_and_verify(home: Home) -> None:
    bundle, opened = home.folder / "locked.zip", home.folder / "open.zip"
    code, told = home.seal(bundle)
    assert (code, told["records"]) == (0, 4)
    evidence = read_bundle(bundle)
    kinds = {record.kind.value for record in evidence.records if record.withheld}
    assert kinds == {"metrics", "results"}
    report = verify(evidence, None, now=NOW)
    assert not report.findings
    [notice] = [each.problem for each in report.notices if each.subject == FILE]
    assert notice.startswith("4 records locked until ethereum (31337")
    assert notice.endswith("2 of these open it: alice, bob, carol; as who made the bundle says")
    [unsaid] = [line for line in report.not_checked if "time lock" in line]
    assert unsaid.startswith("The time lock's block, approvers and how many of them")
    theirs = stranger.load().Bundle(stranger.load("files").load(bundle))
    assert theirs.problems == []
    [line] = [line for line in theirs.unproven if line.startswith(f"{FILE}: 4 records locked")]
    assert line.endswith("as who made the bundle says")

    code, told = home.release(bundle, "alice")
    assert code == 1  # neither wrong usage nor a node that is silent
    assert "nothing is released" in told["error"]
    assert not (home.folder / "alice.share").exists()
    home.chain.mine(5)
    assert home.release(bundle, "alice")[0] == 0
    open_it = ("timelock", "open", bundle, home.folder / "alice.share")
    code, told = home.run(*open_it, "-o", opened)
    assert (code, told["error"]) == (2, "found 1 share, expected 2 that differ")
    code, told = home.run(*open_it, home.folder / "alice.share", "-o", opened)
    assert code == 2
    assert told["error"].startswith(f"{home.folder / 'alice.share'}: is share 1, as ")
    assert home.release(bundle, "carol")[0] == 0
    code, told = home.run(*open_it, home.folder / "carol.share", "-o", opened)
    assert (code, told["records"]) == (0, 4)
    whole = read_bundle(opened)
    assert not any(record.withheld for record in whole.records)
    assert FILE not in whole.attachments
    report = verify(whole, None, now=NOW)
    assert not report.findings
    assert report.metrics
    assert home.run(*open_it, home.folder / "carol.share", "-o", opened)[0] != 0


def forged(home: Home, change: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle with another lock, and a manifest that fits."""
    bundle = home.folder / "locked"
    home.seal(bundle)
    evidence = read_bundle(bundle)
    document = json.loads(evidence.attachments[FILE])
    change(document)
    attachments = {**evidence.attachments, FILE: canonical_json(document)}
    files = bundle_files(replace(evidence, attachments=attachments))
    return write_files(files, home.folder / "forged.zip")


FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another run": (
        lambda d: d.update(run="01890a5d-ac96-8fe8-84b0-4bcead339ab1"),
        "is of run 01890a5d",
    ),
    "another root": (lambda d: d.update(root="00" * 32), "is of the run root 00"),
    "a record that is not withheld": (
        lambda d: d["records"].__setitem__(0, "00" * 32),
        "is none that is withheld here",
    ),
    "another version": (lambda d: d.update(v=2), "found version 2, expected 1"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_lock_is_a_finding(home: Home, name: str) -> None:
    change, line = FORGED[name]
    bundle = forged(home, change)
    [finding] = verify(read_bundle(bundle), None, now=NOW).findings
    assert (finding.check, finding.file) == (11, FILE)
    assert line in finding.problem
    assert FILE not in finding.problem  # its line begins with the file
    [problem] = stranger.load().Bundle(stranger.load("files").load(bundle)).problems
    assert problem.startswith(FILE)


def test_a_lowered_height_or_another_chain_gets_no_share(
    home: Home, new_anvil: Callable[..., Anvil]
) -> None:
    code, told = home.release(forged(home, lambda d: d["after"].update(height=1)), "bob")
    assert code != 0
    assert "share 2 was encrypted for another lock, height or run" in told["error"]
    other = new_anvil("--chain-id", "4242")
    other.mine(99)
    config = home.folder / "other.json"
    ethereum = {"url": other.url, "private_key": KEYS[0]}
    config.write_text(json.dumps({"blockchain": {"networks": ["local"], "ethereum": ethereum}}))
    code, told = home.release(home.folder / "locked", "bob", config=config)
    assert code != 0
    assert "the node serves {'chain_id': 4242" in told["error"]


def test_block_headers_show_the_height_without_a_node(home: Home) -> None:
    folder, bundle = home.folder, home.folder / "locked.zip"
    home.seal(bundle)
    evidence, given = read_bundle(bundle), json.loads((folder / "approvers.json").read_text())
    chain: dict[str, Json] = {"chain": "regtest", "genesis": CHAINS["regtest"].genesis}
    keys = {name: bytes.fromhex(key) for name, key in given.items()}

    def locked(name: str, chain: dict[str, Json]) -> Path:
        after = After("bitcoin", chain, 5)
        lock = seal(evidence.run, evidence.entries[-1].root, after, 2, keys, [b"x"], token_bytes)
        attachments = {**evidence.attachments, FILE: lock.encode()}
        made = bundle_files(replace(evidence, attachments=attachments))
        return write_files(made, folder / name)

    headers = [REGTEST_GENESIS]
    for _ in range(5):
        headers.append(mined(bytes(32), double_sha256(headers[-1])))

    def released(bundle: Path, count: int, first: int = 0) -> tuple[int, str]:
        (folder / "headers").write_text("\n".join(raw.hex() for raw in headers[first:count]))
        key, share = folder / "alice", folder / "alice.share"
        release = ("timelock", "release", bundle, "--key", key, "-o", share)
        code, told = home.run(*release, "--headers", folder / "headers")
        assert share.exists() == (code == 0)
        return code, str(told.get("error"))

    own = locked("own.zip", chain)
    assert "bitcoin: is at height 4, the lock waits for 5" in released(own, 5)[1]
    assert "is not among the headers given" in released(own, 6, first=1)[1]
    other = locked("other.zip", {**chain, "genesis": "00" * 32})
    assert "the headers are of {'chain': 'regtest', 'genesis': '0f91" in released(other, 6)[1]
    unknown = locked("unknown.zip", {**chain, "chain": "dogecoin"})
    assert "Bitcoin chain 'dogecoin', expected one of" in released(unknown, 6)[1]
    assert "--headers: are of bitcoin, the lock waits for ethereum" in released(bundle, 6)[1]
    assert released(own, 6)[0] == 0


def test_a_run_that_does_not_hold_is_not_sealed(home: Home) -> None:
    tamper(load(home.config, base_dir=home.folder / "base"))
    code, told = home.seal(home.folder / "out.zip")
    assert code == 1
    assert re.fullmatch(f"run {RUN}: training/epoch/1/metrics/0: SHA-256 of .*", told["error"]), (
        told["error"]
    )
    assert not (home.folder / "out.zip").exists()


def test_what_cannot_be_sealed_says_why(home: Home) -> None:
    target = home.folder / "out.zip"
    code, told = home.seal(target, blocks=0)
    assert code != 0
    assert "already" in told["error"]
    words = ("timelock", "seal", RUN, "--lock", "metrics", "-k", 2, "-o", target, "--approvers")
    approvers = home.folder / "approvers.json"
    code, told = home.run(*words, approvers, "--after", "dogecoin:5")
    assert "expected bitcoin:HEIGHT or ethereum:HEIGHT" in told["error"]
    approvers.write_text('{"alice": "00"}')
    code, told = home.run(*words, approvers, "--after", "ethereum:99999")
    assert told["error"].endswith("alice: found '00', expected 64 lower-case hex digits")
    assert not target.exists()
    assert load(home.config).blockchain.ethereum is not None
