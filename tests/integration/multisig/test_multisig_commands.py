"""``provenance multisig`` as an operator and an owner type it, on a real anvil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provenance.anchor.delivery import Outcome
from provenance.cli import main
from provenance.ports.values import AnchorState
from provenance.settings import BitcoinSettings, load
from tests.integration.multisig.owned import Owned
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.owners import ADDRESSES
from tests.support.nodes.regtest import Regtest

pytest_plugins = ("tests.support.nodes.fixtures_ethereum",)
pytestmark = [pytest.mark.nodes, pytest.mark.slow]


def told(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> dict[str, Any]:
    """What a command prints with ``--json``."""
    capsys.readouterr()
    assert main([*words, "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_from_the_request_to_the_block(
    chain: Anvil,
    bitcoin_settings: BitcoinSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owned = Owned(tmp_path, chain, Regtest(bitcoin_settings), ("ethereum",))
    base = ("--base-dir", str(owned.settings.base_dir), "--config", str(owned.settings.source))
    path = tmp_path / "head.json"
    assert told(capsys, 0, "multisig", "list", *base)["waiting"][0]["signers"] == []
    owned.publish("ethereum")
    asked = told(capsys, 0, "multisig", "request", "ethereum", "-o", str(path), *base)
    assert (asked["signers"], asked["threshold"], asked["network"]) == ([], 2, "ethereum")
    assert asked["root"] == owned.row("ethereum").root.hex()
    for number in (0, 1):
        own = owned.owner(number, bitcoin=False)
        config = ("--base-dir", str(own.base_dir), "--config", str(own.source))
        signed = told(capsys, 0, "multisig", "sign", str(path), *config)
        assert len(signed["signers"]) == number + 1
    (row,) = told(capsys, 0, "multisig", "add", str(path), *base)["waiting"]
    assert row["signers"] == sorted(address.lower() for address in ADDRESSES[:2])
    assert main(["multisig", "list", *base]) == 0
    assert "2 of 2" in capsys.readouterr().out
    again = ("multisig", "request", "ethereum", "--again", "-o", str(tmp_path / "b.json"), *base)
    expected = "ethereum: 2 of 2 signed the head of 2 entries: it is complete; the worker sends it"
    assert told(capsys, 2, *again)["error"] == expected
    assert list(owned.publish("ethereum").outcomes.values()) == [Outcome.SENT]
    assert told(capsys, 2, *again)["error"] == expected
    owned.confirm("ethereum")
    assert owned.row("ethereum").state is AnchorState.FINAL
    assert main(["multisig", "list", *base]) == 0
    assert capsys.readouterr().out == "nothing waits for owners\n"


def test_each_mistake_is_one_line(
    chain: Anvil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain.json"
    node = {"url": chain.url, "private_key": KEYS[0]}
    plain.write_text(json.dumps({"blockchain": {"ethereum": node}}))
    (tmp_path / "base").mkdir()
    base = ("--base-dir", str(tmp_path / "base"), "--config", str(plain))
    other = tmp_path / "other.json"
    other.write_text("{}")
    out = str(tmp_path / "x")
    for words, expected in (
        (("multisig", "request", "ethereum", "-o", out), "blockchain.ethereum.multisig: missing"),
        (("multisig", "wallet"), "blockchain.bitcoin.multisig: missing"),
        (("multisig", "sign", str(other)), "other.json: cannot be read as a signing request"),
        (("multisig", "sign", str(tmp_path / "none")), "cannot be read"),
        (("contract", "deploy", "--owners", ADDRESSES[0]), "--threshold: found 0"),
        (("contract", "deploy", "--owners", "0x12", "--threshold", "1"), "--owners: found '0x12'"),
    ):
        error = told(capsys, 2, *words, *base)["error"]
        assert expected in error
        assert "\n" not in error


def test_the_contract_is_deployed_with_its_owners(
    chain: Anvil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.json"
    node = {"url": chain.url, "private_key": KEYS[0]}
    path.write_text(json.dumps({"blockchain": {"ethereum": node}}))
    owners = [word for address in ADDRESSES for word in ("--owners", address)]
    words = ("contract", "deploy", *owners, "--threshold", "2", "--config", str(path))
    assert main([*words, "--base-dir", str(tmp_path)]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert f'"multisig": {json.dumps({"owners": list(ADDRESSES), "threshold": 2})}' in line


def test_a_request_says_that_the_head_waits_for_approval_first(
    chain: Anvil,
    bitcoin_settings: BitcoinSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owned = Owned(tmp_path, chain, Regtest(bitcoin_settings), ("ethereum",))
    config = Path(str(owned.settings.source))
    rule = {"at_least": 1, "by": {"alice": "8a" * 32}, "networks": ["ethereum"]}
    document = json.loads(config.read_text()) | {"approvals": rule}
    config.write_text(json.dumps(document))
    owned.settings = load(config, owned.settings.base_dir)
    owned.publish("ethereum")
    base = ("--base-dir", str(owned.settings.base_dir), "--config", str(config))
    path = str(tmp_path / "head.json")
    asked = told(capsys, 0, "multisig", "request", "ethereum", "-o", path, *base)
    assert asked["waits_for"] == "waits for approval: 0 of 1"
    assert main(["multisig", "request", "ethereum", "-o", path, *base]) == 0
    line = "the head still waits for approval: 0 of 1: let the owners sign after it\n"
    assert capsys.readouterr().out.endswith(line)
