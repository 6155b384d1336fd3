"""Programs of the guides, run as they stand there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provenance import files
from provenance.multisig.requests import read_request
from provenance.proofs.multisig.request import EthereumRequest
from provenance.settings.approval_files import read_approval
from tests.support import readme
from tests.support.model_world import deployment
from tests.support.nodes.owners import ADDRESSES, ETHEREUM_KEYS
from tests.support.paths import ROOT
from tests.support.verify_world import RUN
from tests.unit.approvals.world import SEEDS, ApprovalWorld, run_id
from tests.unit.proofs.multisig.test_owners import LEDGER, NOTE, OWNERS, REQUEST

pytestmark = pytest.mark.slow


def program(page: str) -> str:
    (block,) = (
        block
        for block in readme.blocks((ROOT / "docs" / "guides" / page).read_text())
        if block.language == "python"
    )
    return block.text


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("guides")
    deployment(place / "artifacts")
    return place


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("runs.md", f"{RUN} finished "),
        ("compliance.md", "verified"),
        ("host.md", "no record of a host is here"),
    ],
)
def test_what_a_run_recorded_is_told(
    page: str,
    line: str,
    recorded: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(recorded)
    exec(program(page), {})
    assert line in capsys.readouterr().out


def test_an_approver_signs_what_he_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    world = ApprovalWorld()
    world.final()
    Path("anchor-7.json").write_bytes(world.take().encode())
    files.replace(Path("alice.key"), SEEDS["alice"].hex().encode())
    exec(program("approvals.md"), {})
    assert str(run_id(1)) in capsys.readouterr().out
    assert world.add(read_approval(Path("anchor-7.json"))).signed.names == ("alice",)


def test_an_owner_signs_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("head.json").write_bytes(EthereumRequest(NOTE, REQUEST).encode())
    ethereum = {
        "url": "http://127.0.0.1:8545",
        "chain_id": REQUEST.chain_id,
        "contract_address": "0x" + REQUEST.contract.hex(),
        "private_key": ETHEREUM_KEYS[1],
        "multisig": {"owners": list(ADDRESSES), "threshold": 2},
    }
    trust = {"ledger_keys": [LEDGER.verifier.vkey]}
    Path("alice").mkdir()
    configuration = {"blockchain": {"ethereum": ethereum}, "trust": trust}
    Path("alice/config.json").write_text(json.dumps(configuration))
    exec(program("multisig.md"), {})
    assert read_request(Path("head.json")).signers(OWNERS) == (ADDRESSES[1].lower(),)
