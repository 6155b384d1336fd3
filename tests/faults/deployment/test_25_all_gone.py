"""25. Nodes, Redis and database gone: the bundle verifies offline against given headers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provenance.app.bundle import make_bundle
from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.formats.receipt import Receipt
from provenance.proofs.bitcoin import double_sha256
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import (
    anchored,
    bitcoin_section,
    deployment,
    ethereum_section,
)
from tests.faults.support.harness import scenario
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.regtest import Regtest
from tests.support.paths import ROOT

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
ALONE = """
import socket, sys
def refuse(*arguments, **options):
    raise SystemExit("offline, and yet a socket was opened")
socket.socket = socket.create_connection = refuse
from provenance.cli import main
sys.exit(main(sys.argv[1:]))
"""


def verify(folder: Path, headers: Path | None = None, *pins: str) -> tuple[int, dict[str, Any]]:
    """As an auditor does it: another machine, no configuration, no network."""
    done = subprocess.run(
        [
            sys.executable, "-c", ALONE, "verify", str(folder), "--offline", "--json",
            "--base-dir", str(folder.parent / "auditor"),
            *(["--headers", str(headers)] if headers else []),
            *pins,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PROVENANCE_")},
        check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_bundle(
    tmp_path: Path, bitcoin_settings: BitcoinSettings, chain: Anvil, ipfs_url: str
) -> None:
    regtest = Regtest(bitcoin_settings)
    sections: dict[str, Any] = {
        "ethereum": ethereum_section(chain.url),
        "bitcoin": bitcoin_section(regtest.wallet("1.0")),
        "ipfs": {"url": ipfs_url},
        "local": {},
    }
    bundle, headers = tmp_path / "evidence", tmp_path / "headers.txt"
    with scenario(25, "nodes, Redis and database gone") as tally:
        with deployment(tmp_path / "home", **sections) as world:
            anchored(world, regtest, chain)
            make_bundle(world.settings, str(world.runs[-1]), bundle)
            key = reading.ledger_key(world.settings)
            assert key is not None
        shutil.rmtree(tmp_path / "home")  # database, keys, the local file, the configuration
        height = int(str(regtest.rpc.call("getblockcount")))
        hashes = [str(regtest.rpc.call("getblockhash", at)) for at in range(height + 1)]
        lines = {each: str(regtest.rpc.call("getblockheader", each, False)) for each in hashes}
        headers.write_text("# my own node\n" + "\n".join(lines.values()) + "\n")

        pins = ("--trust", key.vkey, "--trust-chain", "bitcoin:regtest")
        code, report = verify(bundle, headers)
        assert (code, report["outcome"], report["findings"]) == (3, "consistent", [])
        code, report = verify(bundle, headers, *pins)
        assert (code, report["outcome"], report["findings"]) == (0, "verified", [])
        tally.kills = len(sections)
        tally.events = len(report["records"])
        for seal in report["networks"]["bitcoin"].values():
            assert seal["status"] == "verified"
            assert seal["depth"] == height - seal["height"] + 1
        assert set(report["networks"]) == set(sections)
        assert not any("Bitcoin's block headers" in line for line in report["not_checked"])

        code, report = verify(bundle)
        assert (code, report["findings"]) == (3, [])
        assert any("--headers" in line for line in report["not_checked"])
        assert {s["status"] for s in report["networks"]["bitcoin"].values()} == {"receipt"}

        block = report["networks"]["bitcoin"]["after"]["block_hash"]
        holed = tmp_path / "holed.txt"
        holed.write_text("\n".join(raw for each, raw in lines.items() if each != block))
        code, report = verify(bundle, holed)
        assert code == 1
        assert any(f"{block} is not among" in f["problem"] for f in report["findings"])

        forged = forge(bundle, tmp_path / "forged")
        code, report = verify(forged)
        assert (code, report["findings"]) == (3, []), "proof of work on regtest costs nothing"
        assert any("--headers" in line for line in report["not_checked"])
        code, report = verify(forged, headers)
        assert code == 1
        assert {finding["check"] for finding in report["findings"]} == {8}

        record = next((bundle / "records" / "training" / "epoch").rglob("*.json"))
        record.write_bytes(record.read_bytes().replace(b"0.9", b"0.8"))
        assert verify(bundle, headers)[0] == 1


def forge(bundle: Path, folder: Path) -> Path:
    """The same evidence with a block that somebody made by himself, an hour earlier."""
    evidence = read_bundle(bundle)
    receipts = []
    for file in evidence.receipts:
        receipt = Receipt.decode(file.data)
        if receipt.anchor.network == "bitcoin":
            raw = bytearray.fromhex(str(receipt.evidence["header"]))
            raw[68:72] = (int.from_bytes(raw[68:72], "little") - 3600).to_bytes(4, "little")
            while double_sha256(bytes(raw))[31] >= 0x80:
                raw[76:80] = (int.from_bytes(raw[76:80], "little") + 1).to_bytes(4, "little")
            proof = raw.hex() + str(receipt.evidence["merkle_block"])[160:]
            name = double_sha256(bytes(raw))[::-1].hex()
            told: dict[str, Any] = {
                "header": raw.hex(),
                "merkle_block": proof,
                "block_hash": name,
                "headers": [],
            }
            receipt = dataclasses.replace(
                receipt,
                evidence={**receipt.evidence, **told},
                anchor=dataclasses.replace(
                    receipt.anchor,
                    block_hash=name,
                    block_time=(receipt.anchor.block_time or 0) - 3600,
                ),
            )
        receipts.append(dataclasses.replace(file, data=receipt.encode()))
    return write_bundle(dataclasses.replace(evidence, receipts=tuple(receipts)), folder)
