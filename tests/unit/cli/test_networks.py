"""An operator lifts a pause."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provenance.anchor.pauses import Pause, pause
from provenance.bootstrap import sending
from provenance.cli import main
from provenance.ports.values import NetworkRow
from provenance.settings import load


def test_a_paused_network_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = sending.open_store(load(None, tmp_path))
    assert store is not None
    with store.transaction() as tx:
        tx.save_network(NetworkRow("local", {}, None, 1.0))
        reason = pause(tx, "local", Pause.SHARED_KEY, "somebody else signs", 2.0)
    store.close()
    base = ["--base-dir", str(tmp_path), "--json"]
    assert main(["networks", "resume", "local", *base]) == 0
    assert json.loads(capsys.readouterr().out)["was_paused"] == reason
    assert main(["networks", "resume", "local", *base[:2]]) == 0
    assert "was not paused" in capsys.readouterr().out
