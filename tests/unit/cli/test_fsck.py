"""``provenance fsck`` as it is called, on a deployment with the local network alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provenance.bootstrap import reading, sending
from provenance.cli import main
from provenance.fsck.chains import EthereumReader
from provenance.settings import EthereumSettings, Settings, load
from tests.support.nodes.ethereum_chain import KEYS
from tests.support.verify_world import World, story


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(None, tmp_path / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(found)
    world.policy = sending.seal_policy(found)
    world.networks = sending.open_networks(found)
    world.ingest(world.batch(story()))
    world.anchor()
    world.store.close()
    return found


def test_a_sound_deployment_is_clean(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fsck", "--json", "--base-dir", str(settings.base_dir)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["findings"], document["unchecked"]) == ([], [])
    assert document["checked"]["networks"] == 1
    assert main(["fsck", "--offline", "--base-dir", str(settings.base_dir)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1:] == ["not asked: the networks (--offline)", "clean"]


def test_findings_are_printed_and_exit_with_one(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.base_dir / "anchors.jsonl").unlink()
    assert main(["fsck", "--base-dir", str(settings.base_dir), "--since-block", "0"]) == 1
    told = capsys.readouterr().out
    assert "FOUND chain-missing local head 2: is final, and not in a block" in told
    assert told.endswith(("finding\n", "findings\n"))


def test_without_a_database_it_exits_with_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    assert main(["fsck", "--base-dir", str(tmp_path)]) == 3
    assert "not everything could be checked" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "checking makes no files"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x", "mars=3", "ethereum=", "-1"])
def test_a_height_that_is_none_is_refused(
    text: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["fsck", "--base-dir", str(settings.base_dir), f"--since-block={text}"]
    assert main(flags) == 2
    assert "expected HEIGHT or NETWORK=HEIGHT" in capsys.readouterr().err
    assert main([*flags[:-1], "--since-block=bitcoin=7"]) == 0


def test_the_sender_of_the_configured_key_is_searched_for() -> None:
    config = {
        "blockchain": {
            "networks": ["ethereum"],
            "ethereum": {"url": "http://127.0.0.1:1", "private_key": KEYS[0]},
        }
    }
    readers = reading.chain_readers(load(config))
    ethereum = readers["ethereum"]
    assert isinstance(ethereum, EthereumReader)
    assert ethereum.senders == {"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"}
    assert isinstance(ethereum.settings, EthereumSettings)
    assert KEYS[0][2:] not in repr(ethereum)
