"""Bundles on a real IPFS daemon: added as one folder, fetched and verified by CID alone."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.bootstrap import sending
from provenance.chains.ipfs import CHUNK_BYTES, IPFSInterface
from provenance.errors import NetworkUnavailable
from provenance.proofs.ipfs.cid import DAG_PB, SHA2_256, Cid, decode_cid, raw_cid
from provenance.settings import IPFSSettings, load
from tests.support.verify_world import RUN, World, story


def rpc(url: str, path: str) -> bytes:
    request = urllib.request.Request(f"{url}/api/v0/{path}", b"", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def daemon(url: str, **options: Any) -> IPFSInterface:
    return IPFSInterface(IPFSSettings(url=url, timeout_s=20, **options))


@pytest.mark.nodes
def test_a_folder_goes_in_and_comes_out_by_its_cid(ipfs_url: str) -> None:
    files = {
        "manifest.json": b"{}",
        "a/b/c.json": b"deep",
        "a/b.json": b"beside a folder of nearly its name",
        "a-b/x": b"",
        "large": bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"and a bit",
        "odd %20+name?.txt": b"escaped",
    }
    cid = daemon(ipfs_url).add_folder(files)
    assert (cid.version, cid.codec) == (1, DAG_PB)
    assert daemon(ipfs_url).read_folder(cid) == files
    pins = json.loads(rpc(ipfs_url, f"pin/ls?arg={cid}&type=recursive"))["Keys"]
    assert [decode_cid(each) for each in pins] == [cid]
    assert daemon(ipfs_url).add_folder(dict(reversed(files.items()))) == cid
    assert daemon(ipfs_url).add_folder(files | {"a/b/c.json": b"dEep"}) != cid


@pytest.mark.nodes
def test_a_folder_of_more_than_a_thousand_entries_is_read_from_its_shards(ipfs_url: str) -> None:
    files = {f"epoch/{number}/metrics.json": b"%d" % number for number in range(1200)}
    cid = daemon(ipfs_url).add_folder(files)
    assert daemon(ipfs_url).read_folder(cid) == files


@pytest.mark.nodes
def test_a_folder_that_nobody_has_ends_at_the_deadline(ipfs_url: str) -> None:
    absent = Cid(1, DAG_PB, SHA2_256, os.urandom(32))
    with pytest.raises(NetworkUnavailable):
        IPFSInterface(IPFSSettings(url=ipfs_url, timeout_s=1)).read_folder(absent)


@pytest.mark.nodes
def test_a_run_is_verified_by_the_cid_of_its_bundle_alone(
    ipfs_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(None, tmp_path / "artifacts")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = sending.seal_policy(settings)
    world.networks = sending.open_networks(settings)
    world.ingest(world.batch(story()))
    world.anchor()
    world.store.close()
    config = tmp_path / "config.json"
    section = {"networks": ["local"], "ipfs": {"url": ipfs_url}}
    config.write_text(json.dumps({"blockchain": section}))

    words = ["bundle", "latest", "-o", "b.zip", "--ipfs", "--config", str(config), "--json"]
    assert cli.main(words) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["run_id"] == str(RUN)
    assert len(rpc(ipfs_url, f"cat?arg={made['cid']}/manifest.json")) > 100
    for subject in (f"ipfs:{made['cid']}", f"/ipfs/{made['cid']}", f"ipfs://{made['cid']}/"):
        words = ["verify", subject, "--offline", "--json", "--config", str(config)]
        assert cli.main([*words, "--base-dir", "elsewhere"]) == 3  # nobody pinned its key
        report = json.loads(capsys.readouterr().out)
        assert (report["outcome"], report["run_id"]) == ("consistent", str(RUN))
        assert report["source"] == {"kind": "bundle", "where": f"ipfs:{made['cid']}"}
    assert not (tmp_path / "elsewhere").exists()

    assert cli.main(["status", "latest", "--json"]) == 0
    (noted,) = json.loads(capsys.readouterr().out)["bundles"]
    assert (noted["cid"], noted["manifest_sha256"]) == (made["cid"], made["manifest_sha256"])
    assert cli.main(["status", "latest"]) == 0
    assert f"ipfs:{made['cid']}" in capsys.readouterr().out

    manifest = str(raw_cid(b"{}"))
    daemon(ipfs_url).add_folder({"manifest.json": b"{}"})
    words = ["verify", f"ipfs:{manifest}", "--offline", "--config", str(config)]
    assert cli.main(words) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err
