"""``provenance bundle`` and ``provenance verify`` of what it makes."""

from __future__ import annotations

import json
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.app.bundle import JOURNAL, bundle_at, make_bundle, noted
from provenance.app.runs import evidence_of
from provenance.bootstrap import sending
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.chains.ipfs import IPFSInterface
from provenance.errors import ConfigError, InputError, LyingNodeError, NetworkUnavailable
from provenance.proofs.ipfs.cid import DAG_PB, SHA2_256, Cid, decode_cid, raw_cid
from provenance.settings import IPFSSettings, Settings, load
from tests.support.nodes.rpc_stub import http_server, send
from tests.support.verify_world import OTHER, RUN, World, flip_metric, story

pytestmark = pytest.mark.slow

METRICS = "records/training/epoch/2/metrics/0.json"
Said = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A deployment in the current folder with one finished run."""
    monkeypatch.chdir(tmp_path)
    settings = load(None, Path("artifacts"))
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = sending.seal_policy(settings)
    world.networks = sending.open_networks(settings)
    world.ingest(world.batch(story()))
    world.anchor()
    world.store.close()
    return settings


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def say(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = cli.main([*words, "--json"])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return code, document

    return say


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_bundle_is_made_and_verified_without_a_database(
    run: Settings, said: Said, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = said("bundle", "latest", "-o", name)
    assert (code, made["run_id"], made["cid"]) == (0, str(RUN), None)
    place = Path(made["path"])
    assert place == Path(name).absolute()
    assert (made["records"], made["withheld"]) == (15, 0)
    assert (made["files"], made["bytes"]) == _counted(place)
    code, report = said("verify", name, "--offline", "--base-dir", "elsewhere")
    assert (code, report["outcome"]) == (3, "consistent")
    assert not Path("elsewhere").exists()
    assert cli.main(["bundle", str(RUN)[:13], "-o", name]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{place}\n  run {RUN}, ")
    assert made["manifest_sha256"] in shown.out
    assert "provenance verify" in shown.err
    code, again = said("bundle", "latest", "-o", name)
    assert again["manifest_sha256"] == made["manifest_sha256"]
    assert not (run.base_dir / JOURNAL).exists()


def _counted(place: Path) -> tuple[int, int]:
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as archive:
            sizes = [entry.file_size for entry in archive.infolist()]
    else:
        sizes = [path.stat().st_size for path in place.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def test_a_folder_and_a_zip_have_one_manifest(run: Settings, said: Said) -> None:
    _, folder = said("bundle", "latest", "-o", "b")
    _, archive = said("bundle", "latest", "-o", "b.zip")
    assert folder["manifest_sha256"] == archive["manifest_sha256"]


def test_another_runs_bundle_is_not_replaced(run: Settings) -> None:
    for path in (Path("b"), Path("b.zip")):
        write_bundle(replace(evidence_of(run, "latest"), run=OTHER), path)
        with pytest.raises(InputError, match=f"has the bundle of run {OTHER}; nothing was over"):
            make_bundle(run, "latest", path)
        assert read_bundle(path).run == OTHER


def test_a_changed_record_in_a_zip_is_1_and_named(run: Settings, said: Said) -> None:
    said("bundle", "latest", "-o", "b.zip")
    with zipfile.ZipFile("b.zip") as old, zipfile.ZipFile("c.zip", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, flip_metric(data) if name == METRICS else data)
    code, report = said("verify", "c.zip", "--offline")
    assert code == 1
    assert {finding["file"] for finding in report["findings"]} == {METRICS}


def test_disclosure_from_the_command_line(
    run: Settings, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--disclose", "metrics", "--disclose", "training/config")
    code, made = said("bundle", "latest", "-o", "b.zip", *words)
    assert (code, made["records"], made["withheld"]) == (0, 15, 8)
    code, report = said("verify", "b.zip", "--offline")
    assert (code, report["outcome"]) == (3, "consistent")
    assert any("8 records are withheld" in line for line in report["not_checked"])
    assert sum(record["withheld"] for record in report["records"]) == 8
    assert [row["epoch"] for row in report["metrics"]] == [1, 2, 3]
    assert cli.main(["bundle", "latest", "-o", "b.zip", *words]) == 0
    assert "8 of 15 records are withheld" in capsys.readouterr().out


def test_mistakes_are_2_in_one_line(run: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    Path("thesis.zip").write_text("precious")
    Path("folder").mkdir()
    Path("folder", "thesis.tex").write_text("precious")
    bundle = ["bundle", "latest", "-o"]
    for words, text in (
        ([*bundle, "thesis.zip"], "thesis.zip: is no bundle; nothing was overwritten"),
        ([*bundle, "folder"], "folder: holds something that is no bundle"),
        ([*bundle, "b", "--disclose", "privacy"], "--disclose 'privacy': chooses no record"),
        ([*bundle, "b", "--ipfs"], "blockchain.ipfs: missing, expected the URL"),
        (["bundle", "0192ffff", "-o", "b"], "run 0192ffff: not in the database"),
        (["verify", "gone.zip"], "gone.zip: there is no such file"),
        (["verify", "bundel"], "bundel: there is no such file, nor a run of that name; expected"),
        (["verify", "out/bundle"], "out/bundle: there is no such file, nor a run of that name"),
        (["verify", "thesis.zip"], "thesis.zip: not a bundle, neither a folder nor a zip"),
        (["verify", "folder/thesis.tex"], "not a bundle, neither a folder nor a zip"),
        (["verify", "ipfs:hello"], "ipfs:hello: not the CID of a folder"),
        (["verify", "ipfs:"], "ipfs:: not the CID of a folder"),
        (["verify", f"/ipfs/{raw_cid(b'x')}/run.json"], "found a path behind the CID"),
        (["verify", f"ipfs:{raw_cid(b'x')}"], "blockchain.ipfs: missing, expected the URL"),
    ):
        assert cli.main(words) == 2, words
        shown = capsys.readouterr()
        assert text in shown.err, words
        assert (shown.err.count("\n"), shown.out) == (1, "")
    assert Path("thesis.zip").read_text() == "precious"
    assert not Path("b").exists()


def test_a_zip_that_is_cut_off_is_1_in_one_line(
    run: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(evidence_of(run, "latest"), Path("b.zip"))
    Path("b.zip").write_bytes(Path("b.zip").read_bytes()[:-100])
    capsys.readouterr()
    assert cli.main(["verify", "b.zip", "--offline"]) == 1
    assert capsys.readouterr().err == "provenance: b.zip: a zip file that is cut off\n"


# --- an IPFS daemon of the test's own ----------------------------------------------------


class Daemon:
    """As much of Kubo's RPC as a folder needs, with its own dag-pb writer."""

    def __init__(self) -> None:
        self.blocks: dict[Cid, bytes] = {}
        self.pinned: set[Cid] = set()
        self.asked: list[str] = []
        self.pins = True
        self.lie: Callable[[dict[str, bytes]], dict[str, bytes]] = dict
        self.answer: bytes | None = None
        self.status = 200

    def reply(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        url = urllib.parse.urlsplit(request.path)
        call = url.path.removeprefix("/api/v0/")
        options = dict(urllib.parse.parse_qsl(url.query))
        self.asked.append(f"{call}?{url.query}")
        if call == "add":
            kind = str(request.headers["Content-Type"])
            send(request, self.answer or self.add(body, kind), self.status)
        elif call == "pin/ls":
            keys: dict[str, object] = {str(cid): {} for cid in self.pinned}
            send(request, json.dumps({"Keys": keys}).encode())
        elif call == "block/get" and decode_cid(options["arg"]) in self.blocks:
            send(request, self.blocks[decode_cid(options["arg"])], kind="text/plain")
        else:
            send(request, b'{"Message": "block was not found"}', 500)

    def add(self, body: bytes, kind: str) -> bytes:
        boundary = kind.partition("boundary=")[2].encode()
        files = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, data = part.partition(b"\r\n\r\n")
            name = head.decode().partition('filename="')[2].partition('"')[0]
            files[urllib.parse.unquote(name)] = data[:-2]
        root = self.folder(self.lie(files))
        if self.pins:
            self.pinned.add(root)
        return json.dumps({"Name": "", "Hash": str(root)}).encode() + b"\n"

    def folder(self, files: dict[str, bytes]) -> Cid:
        entries: dict[str, Any] = {}
        for path, data in files.items():
            name, slash, rest = path.partition("/")
            if slash:
                entries.setdefault(name, {})[rest] = data
            else:
                entries[name] = data
        block = b""
        for name, item in sorted(entries.items()):
            cid = self.folder(item) if isinstance(item, dict) else self.put(raw_cid(item), item)
            link = _field(1, b"\x01" + bytes([cid.codec]) + b"\x12\x20" + cid.digest)
            block += _field(2, link + _field(2, name.encode()))
        block += _field(1, b"\x08\x01")
        return self.put(Cid(1, DAG_PB, SHA2_256, raw_cid(block).digest), block)

    def put(self, cid: Cid, block: bytes) -> Cid:
        self.blocks[cid] = block
        return cid


def _field(number: int, data: bytes) -> bytes:
    length, size = b"", len(data)
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


@pytest.fixture
def daemon() -> Iterator[tuple[Daemon, IPFSSettings]]:
    stub = Daemon()
    with http_server(stub.reply) as url:
        yield stub, IPFSSettings(url=url, timeout_s=5)


def configured(url: str) -> str:
    path = Path("config.json")
    path.write_text(
        json.dumps({"blockchain": {"networks": ["local"], "ipfs": {"url": url, "timeout": 5}}})
    )
    return str(path)


def test_a_bundle_on_ipfs_is_found_again_and_verified_by_its_cid(
    run: Settings,
    said: Said,
    daemon: tuple[Daemon, IPFSSettings],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub, section = daemon
    config = ("--config", configured(section.url))
    code, made = said("bundle", "latest", "-o", "b", "--ipfs", *config)
    assert code == 0
    cid = decode_cid(made["cid"])
    assert stub.pinned == {cid}
    options = urllib.parse.parse_qs(stub.asked[0].partition("?")[2])
    assert options["wrap-with-directory"] == options["pin"] == options["raw-leaves"] == ["true"]
    assert options["cid-version"] == ["1"]
    assert not any(str(raw_cid(b"{}")) in each for each in stub.asked)
    asked = [each for each in stub.asked if each.startswith("block/get")]
    folders = sum(cid.codec == DAG_PB for cid in stub.blocks)
    assert len(asked) == folders, "what was added is known, only folders are asked for"

    code, report = said("verify", f"ipfs:{cid}", "--offline", *config)
    assert (code, report["outcome"]) == (3, "consistent")
    code, _ = said("bundle", "latest", "-o", "b.zip", "--ipfs", *config, "--disclose", "metrics")
    assert code == 0
    first, second = noted(run, RUN)
    assert (first["cid"], first["withheld"], second["withheld"]) == (str(cid), 0, 9)
    assert first["path"] == str(Path("b").absolute())
    with (run.base_dir / JOURNAL).open("ab") as file:
        file.write(b'\n{"torn\n[]\n{"run_id": "other", "cid": "x"}\n')
    assert len(noted(run, RUN)) == 2
    code, document = said("status", "latest")
    assert [item["cid"] for item in document["bundles"]] == [first["cid"], second["cid"]]
    assert cli.main(["bundle", "latest", "-o", "b", "--ipfs", *config]) == 0
    assert f"ipfs:{cid}\n" in capsys.readouterr().out


def test_a_tampered_record_on_ipfs_is_named(
    run: Settings, said: Said, daemon: tuple[Daemon, IPFSSettings]
) -> None:
    """Its CID is another, and what it says does not hold."""
    stub, section = daemon
    files = dict(_files(run))
    files[METRICS] = flip_metric(files[METRICS])
    root = stub.folder({f"wrapped/{name}": data for name, data in files.items()})
    code, report = said("verify", f"ipfs:{root}", "--offline", "--config", configured(section.url))
    assert code == 1
    assert {finding["file"] for finding in report["findings"]} == {METRICS}


def _files(run: Settings) -> dict[str, bytes]:
    from provenance.bundle.writer import bundle_files

    return bundle_files(evidence_of(run, "latest"))


def test_a_daemon_that_gives_other_bytes_is_not_believed(
    run: Settings, daemon: tuple[Daemon, IPFSSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    stub, section = daemon
    files = _files(run)
    root = stub.folder(files)
    victim = raw_cid(files[METRICS])
    stub.blocks[victim] = flip_metric(files[METRICS])
    words = ["verify", f"ipfs:{root}", "--offline", "--config", configured(section.url)]
    assert cli.main(words) == 1
    assert f"{victim}: these are other bytes than the CID's" in capsys.readouterr().err
    del stub.blocks[victim]
    assert cli.main(words) == 3
    shown = capsys.readouterr().err
    assert f"{victim}: block/get: block was not found" in shown
    assert shown.count("\n") == 1
    other = stub.folder({"thesis.tex": b"x"})
    assert cli.main([*words[:1], f"ipfs:{other}", *words[2:]]) == 2
    assert "not a bundle, there is no manifest.json" in capsys.readouterr().err


def test_a_daemon_that_adds_something_else_is_caught(daemon: tuple[Daemon, IPFSSettings]) -> None:
    stub, section = daemon
    network = IPFSInterface(section)
    files = {"a/b.json": b"{}", "c": b"x" * 600_000}
    stub.lie = lambda given: {**given, "a/b.json": b"[]"}
    with pytest.raises(LyingNodeError, match="is of other files than those that were added"):
        network.add_folder(files)
    stub.lie = lambda given: {"c": given["c"]}
    with pytest.raises(LyingNodeError, match="is of other files"):
        network.add_folder(files)
    stub.lie = dict
    stub.pins = False
    with pytest.raises(LyingNodeError, match="was asked to be pinned, and is not"):
        network.add_folder(files)
    for answer, told in (
        (b"{}", "no folder around the files"),
        (b"\n", "is not JSON"),
        (b'{"Name": "c", "Hash": "x"}', "no folder around the files"),
        (b'{"Name": ""}', "add: no Hash"),
        (b'{"Name": "", "Hash": "hello"}', "a CID that does not decode"),
        (json.dumps({"Name": "", "Hash": str(raw_cid(b"{}"))}).encode(), "expected a folder"),
        (b"<html>", "is not JSON"),
    ):
        stub.answer = answer
        with pytest.raises(LyingNodeError, match=told):
            network.add_folder(files)
    stub.answer, stub.status = b'{"Message": "disk full"}', 500
    with pytest.raises(NetworkUnavailable, match="disk full"):
        network.add_folder(files)


def test_a_folder_that_is_too_large_is_not_sent(
    daemon: tuple[Daemon, IPFSSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub, section = daemon
    monkeypatch.setattr("provenance.proofs.ipfs.unixfs.MAX_BYTES", 10)
    with pytest.raises(InputError, match="a folder of 11 bytes, at most 10"):
        IPFSInterface(section).add_folder({"a": b"x" * 11})
    assert stub.asked == []


def test_a_daemon_that_is_down_leaves_the_bundle(
    run: Settings, daemon: tuple[Daemon, IPFSSettings]
) -> None:
    stub, section = daemon
    stub.answer, stub.status = b'{"Message": "disk full"}', 500
    settings = load(Path(configured(section.url)), Path("artifacts"))
    with pytest.raises(NetworkUnavailable, match="the bundle itself is at .*b"):
        make_bundle(settings, "latest", Path("b"), ipfs=True)
    assert read_bundle(Path("b")).run == RUN
    assert noted(run, RUN) == []
    stub.answer = None
    stub.status = 200
    (run.base_dir / JOURNAL).mkdir()
    with pytest.raises(InputError, match="cannot be written: .*the bundle is ipfs:bafy"):
        make_bundle(settings, "latest", Path("b"), ipfs=True)


def test_words_that_name_no_bundle(run: Settings) -> None:
    assert bundle_at(run, "latest") is None
    assert bundle_at(run, str(RUN)) is None
    Path("b").mkdir()
    assert bundle_at(run, "b") == Path("b")
    with pytest.raises(ConfigError, match=r"blockchain\.ipfs"):
        bundle_at(run, f"ipfs://{Cid(1, DAG_PB, SHA2_256, bytes(32))}/")
