"""Outcomes of scheduled verifications that the Ethereum worker attests on a dev chain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from provenance.app.verify import verify_run
from provenance.bootstrap import sending
from provenance.chains.ethereum.attestations import Attestations
from provenance.chains.ethereum.interface import deploy
from provenance.cli import main
from provenance.ledger.seal import SealPolicy
from provenance.ports.store import LedgerStore
from provenance.ports.values import PendingAttestation, Work
from provenance.settings import EthereumSettings, Settings, load
from provenance.watch.again import verify_next
from provenance.watch.attest import Try, attest_next, with_attestations
from tests.integration.watch.test_attestations import OWNER, VERIFIER
from tests.support.model_world import deployment
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.verify_world import RUN
from tests.unit.watch.test_again import EVERY, LATER, tamper

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = [pytest.mark.nodes, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(anvil_chain: Anvil) -> str:
    settings = EthereumSettings(url=anvil_chain.url, private_key=KEYS[0])
    return deploy(settings, "MLProvenanceAttestations")[0]


@dataclass
class Fleet:
    """The verifying and the Ethereum worker of a deployment, at any time."""

    chain: Anvil
    config: Path
    settings: Settings
    store: LedgerStore
    policy: SealPolicy
    contract: Attestations

    def verify(self, at: float) -> str | None:
        look = verify_next(self.settings, self.store, self.policy, lambda: at)
        assert look is not None
        return look.after

    def attest(self, at: float) -> Try | None:
        done = attest_next(self.settings, self.store, lambda: at)
        self.chain.mine()  # also where nothing is mined by itself
        self.chain.settle()
        return done

    def sent(self) -> int:
        """The verifier's transactions in blocks."""
        return int(self.chain.call("eth_getTransactionCount", VERIFIER, "latest"), 16)

    def says(self) -> str | None:
        """The contract's last outcome of the run."""
        on_chain = self.settings.verification.on_chain
        assert on_chain is not None
        root = verify_run(self.settings, str(RUN), offline=True).seals[-1].root
        return self.contract.watched(on_chain.registrar, root).outcome

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
        own = ("--base-dir", str(self.settings.base_dir), "--config", str(self.config), "--json")
        code = main([*words, *own])
        return code, json.loads(capsys.readouterr().out)


Open = Callable[[str], Fleet]


@pytest.fixture
def fleet_of(chain: Anvil, address: str, tmp_path: Path) -> Iterator[Open]:
    """A deployment whose registrar is the account named, and whose verifier is VERIFIER."""
    key, config, opened = tmp_path / "verifier.key", tmp_path / "config.json", list[LedgerStore]()
    key.touch(mode=0o600)
    key.write_text(f"{KEYS[1]}\n")
    contract = Attestations(EthereumSettings(url=chain.url, private_key=KEYS[0]), address)

    def made(registrar: str) -> Fleet:
        own = {"contract": address, "registrar": registrar, "private_key_file": str(key)}
        ethereum = {"url": chain.url, "private_key": KEYS[0]}
        document = {
            "blockchain": {"networks": ["local", "ethereum"], "ethereum": ethereum},
            "verification": {"every": EVERY, "on_chain": own},
        }
        config.write_text(json.dumps(document))
        deployment(tmp_path / "base")
        settings = load(config, tmp_path / "base")
        opened.append(store := sending.open_store(settings))
        with store.transaction() as tx:
            tx.add_work_of_sealed(Work.VERIFICATION, EVERY, LATER)
        return Fleet(chain, config, settings, store, sending.seal_policy(settings), contract)

    yield made
    for store in opened:
        store.close()
    contract.close()


@pytest.fixture
def fleet(fleet_of: Open) -> Fleet:
    """One whose root a person registered."""
    found = fleet_of(OWNER)
    root = verify_run(found.settings, str(RUN), offline=True).seals[-1].root
    found.contract.register(root, round(2 * EVERY), [VERIFIER])
    return found


def test_each_outcome_is_registered_attested_once_and_seen(
    fleet_of: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = fleet_of(VERIFIER)
    assert fleet.verify(LATER) == "verified"
    registered = fleet.attest(LATER)
    assert registered is not None
    assert (registered.problem, fleet.attest(LATER + 59), fleet.says()) == (None, None, None)
    attested = fleet.attest(LATER + 60)
    assert attested is not None
    assert attested.transaction not in (None, registered.transaction)
    assert fleet.says() == "verified"
    assert fleet.attest(LATER + 120) == Try(str(RUN), "verified")
    assert fleet.attest(LATER + 9999) is None
    assert fleet.sent() == 2

    on_chain = fleet.settings.verification.on_chain
    assert on_chain is not None
    at = ("--contract", on_chain.contract, "--registrar", VERIFIER)
    code, told = fleet.run(capsys, "attestations", str(RUN), *at)
    assert (code, told["overdue"], told["interval"]) == (0, False, 2 * EVERY)
    bundle = str(fleet.config.with_name("bundle.zip"))
    fleet.run(capsys, "bundle", str(RUN), "-o", bundle)
    for subject in (str(RUN), bundle):
        code, told = fleet.run(capsys, "verify", subject)
        [note] = [n["problem"] for n in told["notices"] if n["subject"] == "attestations"]
        assert note.startswith("on time: verified on ")
    _, told = fleet.run(capsys, "verify", str(RUN), "--offline")
    assert "whether its root is attested on time: no node was asked" in told["not_checked"]

    tamper(fleet.settings)
    assert fleet.verify(LATER + EVERY) == "failed"
    fleet.attest(LATER + EVERY)
    assert fleet.says() == "failed"
    assert fleet.attest(LATER + EVERY + 60) == Try(str(RUN), "failed")
    assert fleet.attest(LATER + EVERY + 9999) is None
    assert fleet.sent() == 3


KILLED = """
import os, sys
from provenance.bootstrap import sending
from provenance.chains.ethereum.sender import Sender
from provenance.settings import load
from provenance.watch.attest import attest_next

moment, config, base, at = sys.argv[1:]
broadcast = Sender.broadcast

def killed(self, version):
    if moment == "sent":
        broadcast(self, version)
    os._exit(9)

Sender.broadcast = killed
settings = load(config, base)
attest_next(settings, sending.open_store(settings), lambda: float(at))
"""


@pytest.mark.parametrize("moment", ["stored", "sent"])
def test_a_worker_that_is_killed_neither_forgets_nor_sends_twice(fleet: Fleet, moment: str) -> None:
    fleet.chain.automine(False)
    fleet.verify(LATER)
    own = (moment, str(fleet.config), str(fleet.settings.base_dir), str(LATER))
    done = subprocess.run([sys.executable, "-c", KILLED, *own], env=os.environ, check=False)
    assert done.returncode == 9
    assert int(fleet.chain.call("txpool_status")["pending"], 16) == int(moment == "sent")
    fleet.attest(LATER + 60)
    assert fleet.attest(LATER + 120) == Try(str(RUN), "verified")
    assert (fleet.sent(), fleet.says()) == (1, "verified")


def test_a_newer_outcome_follows_the_one_that_waits_in_the_pool(fleet: Fleet) -> None:
    fleet.chain.automine(False)
    fleet.verify(LATER)
    attest_next(fleet.settings, fleet.store, lambda: LATER)
    tamper(fleet.settings)
    fleet.verify(LATER + EVERY)
    fleet.attest(LATER + EVERY)  # mines one of the two
    fleet.attest(LATER + EVERY + 60)
    fleet.attest(LATER + EVERY + 120)
    assert fleet.attest(LATER + EVERY + 9999) is None
    assert fleet.says() == "failed"
    assert fleet.sent() <= 2


def test_a_nonce_that_the_account_never_came_to_is_taken_anew(fleet: Fleet) -> None:
    """As a node that lied once leaves it, or a backup of another chain's time."""
    fleet.verify(LATER)
    with fleet.store.transaction() as tx:
        row = tx.most_tried(Work.ATTESTATION)
        assert row is not None
        tx.save_work(changed(row, told=PendingAttestation(1, 7, 0).encode()))
    fleet.attest(LATER)
    assert fleet.attest(LATER + 60) == Try(str(RUN), "verified")
    assert (fleet.says(), fleet.sent()) == ("verified", 1)


def test_what_cannot_be_sent_is_seen_and_goes_on_when_it_is_mended(
    fleet_of: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = fleet_of(OWNER)
    fleet.verify(LATER)
    refused = fleet.attest(LATER)
    assert refused is not None
    assert refused.problem is not None
    assert f"is not registered by {OWNER}: provenance contract register" in refused.problem
    assert not refused.retryable
    _, told = fleet.run(capsys, "status")
    assert told["attestations"] == 1
    assert told["unattested"] == f"run {RUN}: {refused.problem}"
    _, told = fleet.run(capsys, "doctor")
    [finding] = [each for each in told["findings"] if each["name"] == "attestations"]
    assert (finding["works"], finding["detail"]) == (False, f"run {RUN}: {refused.problem}")
    report = with_attestations(fleet.settings, verify_run(fleet.settings, str(RUN)), offline=False)
    assert report.notices[-1].problem.startswith(f"its root is not registered by {OWNER}")
    assert fleet.attest(LATER + 3599) is None
    fleet.contract.register(report.seals[-1].root, 60, [VERIFIER])
    fleet.attest(LATER + 3600)
    fleet.attest(LATER + 3660)
    assert (fleet.says(), fleet.attest(LATER + 9999)) == ("verified", None)
    _, told = fleet.run(capsys, "status")
    assert (told["attestations"], told["unattested"]) == (0, None)


def test_the_workers_task_attests_and_tells_no_key(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import resources, watching

    monkeypatch.setattr(watching, "settings_of", lambda names: fleet.settings)
    monkeypatch.setattr(resources, "store", lambda: fleet.store)
    fleet.verify(LATER)
    with capture_logs() as logs:
        watching.attest()
        watching.attest()
    [line] = logs
    assert (line["event"], line["outcome"]) == ("attestation.sent", "verified")
    fleet.chain.settle()
    assert (fleet.says(), fleet.sent()) == ("verified", 1)
    assert KEYS[1].removeprefix("0x") not in f"{logs}{fleet.settings}"


def test_a_node_that_is_away_is_asked_soon_again_and_no_key_is_told(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import resources, watching

    away = replace(fleet.settings.blockchain, ethereum=EthereumSettings("http://127.0.0.1:9"))
    settings = replace(fleet.settings, blockchain=away)
    monkeypatch.setattr(watching, "settings_of", lambda names: settings)
    monkeypatch.setattr(resources, "store", lambda: fleet.store)
    fleet.verify(LATER)
    with capture_logs() as logs:
        watching.attest()
    [line] = logs
    assert (line["event"], "cannot be reached" in line["problem"]) == ("attestation.waits", True)
    with fleet.store.snapshot() as tx:
        row = tx.most_tried(Work.ATTESTATION)
    assert row is not None
    assert PendingAttestation.decode(row.told).problem == line["problem"]
    assert KEYS[1].removeprefix("0x") not in f"{logs}{row}{fleet.settings}"


def test_the_key_that_anchors_and_keys_that_are_none_are_refused(fleet: Fleet) -> None:
    on_chain = fleet.settings.verification.on_chain
    assert on_chain is not None
    path, at = on_chain.private_key_file, LATER
    assert path is not None
    fleet.verify(LATER)
    for text, mode, line in (
        (KEYS[0].upper().replace("0X", "0x"), 0o600, "found the key that anchors"),
        ("0x12", 0o600, "found something else, expected 64 hex digits"),
        (KEYS[1], 0o644, "it has mode 0644, expected 0600"),
    ):
        path.chmod(0o600)
        path.write_text(text)
        path.chmod(mode)
        refused = fleet.attest(at)
        assert refused is not None
        assert refused.problem is not None
        assert refused.problem.startswith("verification.on_chain.private_key_file: ")
        assert line in refused.problem
        assert text not in refused.problem
        at += 3600
    path.chmod(0o600)
    fleet.attest(at)
    assert (fleet.says(), fleet.sent()) == ("verified", 1)
