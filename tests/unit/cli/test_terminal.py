"""What others wrote (a trainer, a bundle, a database, a node) moves nothing on a terminal."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from provenance import cli
from provenance.bootstrap import sending
from provenance.bundle.index import dump, sums
from provenance.bundle.writer import write_bundle
from provenance.cli import output
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.receipt import Receipt
from provenance.formats.record import Kind
from provenance.log import get_logger, shown
from provenance.settings import load
from tests.support.verify_world import World, before, ending, finished

ESC = "\x1b[2J\x1b[H\x9b2J\x7f\u202e\u2066\u2028\u200b\U000e0041\ud800\nverified :smile: [red]"
Said = Callable[..., tuple[int, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Said:
    """Run a command; its exit code and all it printed, which holds nothing but lines of text."""

    def say(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main([*words, "--base-dir", str(tmp_path / "base")])
        text = "".join(capsys.readouterr())
        assert all(line == shown(line) for line in text.split("\n"))
        assert not any(line.startswith("verified :smile:") for line in text.split("\n"))
        return code, text

    return say


@pytest.fixture(scope="module")
def evidence() -> RunEvidence:
    return finished(1).evidence()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss ≤ 0.5, naïve – ok\\", "loss ≤ 0.5, naïve – ok\\"),
        ("\x1b[2J\r\n\t\x00\x7f", r"\x1b[2J\x0d\x0a\x09\x00\x7f"),
        ("\x80\x9b\xa0\xad", r"\x80\x9b\xa0\xad"),
        (
            "\u061c\u200e\u200f\u202a\u202e\u2066\u2069",
            r"\u061c\u200e\u200f\u202a\u202e\u2066\u2069",
        ),
        ("\u2028\u2029\u200b\ufeff\ue000\uffff", r"\u2028\u2029\u200b\ufeff\ue000\uffff"),
        ("\u3164\u2800\ufe0f\ud800", r"\u3164\u2800\ufe0f\ud800"),
        ("❤\ufe0f 👩\u200d💻 🏳\ufe0f\u200d🌈", "❤\ufe0f 👩\u200d💻 🏳\ufe0f\u200d🌈"),
        ("a\ufe0f 👩\u200da \u200d💻 💻\u200d", r"a\ufe0f 👩\u200da \u200d💻 💻\u200d"),
        ("\U000e0041\U0010ffff", r"\U000e0041\U0010ffff"),
    ],
)
def test_what_moves_or_hides_is_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(expected) == expected


def test_lines_tables_json_and_log_lines_pass_there(capsys: pytest.CaptureFixture[str]) -> None:
    output.out.print(ESC)
    output.print_table(("reason",), [(ESC,), (None,)])
    output.print_json({"a": ESC})
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == shown(ESC)
    assert all(line == shown(line) for line in lines)
    assert json.loads("\n".join(lines[4:])) == {"a": ESC}
    with structlog.testing.capture_logs() as logs:
        get_logger("x").warning("found", reason=ESC, number=1)
    assert logs == [{"event": "found", "reason": shown(ESC), "number": 1, "log_level": "warning"}]


@pytest.mark.slow
def test_log_lines_leave_stdout_to_the_training_but_where_an_application_says_so() -> None:
    line = "from provenance.log import get_logger; get_logger().warning('hello')"
    own = "import structlog; structlog.configure(logger_factory=structlog.PrintLoggerFactory());"
    for code, stdout, stderr in ((line, 0, 1), (f"{own} {line}", 1, 0)):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.stdout.count("hello"), done.stderr.count("hello")) == (stdout, stderr)


def test_an_argument_that_is_refused_is_escaped(
    said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["demo", "--epochs", ESC.replace("\ud800", "")])
    assert all(line == shown(line) for line in capsys.readouterr().err.split("\n"))
    assert said("verify", "no\x1b[2Jbundle.zip")[0] == 2


def changed(folder: Path, **fields: Any) -> Path:
    """A bundle with other fields in run.json, and manifest and sums that fit."""
    run = json.loads((folder / "run.json").read_bytes())
    for key, value in fields.items():
        if isinstance(value, dict):
            run[key][0].update(value)
        else:
            run[key] = value
    data = dump(run)
    (folder / "run.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for item in manifest["files"]:
        if item["path"] == "run.json":
            item.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    (folder / "manifest.json").write_bytes(dump(manifest))
    digests = {item["path"]: item["sha256"] for item in manifest["files"]}
    digests["manifest.json"] = hashlib.sha256(dump(manifest)).hexdigest()
    (folder / "SHA256SUMS").write_bytes(sums(digests))
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {"incomplete": ESC},
        {"anchors": {"reason": ESC}},
        {"anchors": {"transaction_id": ESC}},
        {"incomplete": "x" * 2001},
    ],
)
def test_run_json_has_printable_texts_alone(
    evidence: RunEvidence, fields: dict[str, Any], tmp_path: Path, said: Said
) -> None:
    bundle = changed(write_bundle(evidence, tmp_path / "b"), **fields)
    code, text = said("verify", str(bundle), "--offline")
    assert (code, "expected at most 2000 printable characters" in text) == (1, True)


def test_a_text_that_is_not_printable_is_escaped_and_cut_by_the_writer(
    evidence: RunEvidence, tmp_path: Path
) -> None:
    place = write_bundle(replace(evidence, incomplete=ESC + "x" * 3000), tmp_path / "b")
    assert json.loads((place / "run.json").read_bytes())["incomplete"].startswith("\\x1b[2J")


@pytest.mark.parametrize("network", [ESC.replace("\ud800", ""), "zcash\x1b[2J"])
def test_receipts_names_of_files_and_links_are_escaped(
    evidence: RunEvidence, network: str, tmp_path: Path, said: Said
) -> None:
    old = evidence.receipts[0]
    receipt = Receipt.decode(old.data)
    anchor = replace(receipt.anchor, network=network, transaction_id=network)
    false = replace(old, data=replace(receipt, anchor=anchor).encode())
    stranger = replace(evidence, receipts=(false,), attachments={})
    bundle = write_bundle(stranger, tmp_path / "b")
    assert said("verify", str(bundle), "--offline")[0] != 0
    os.symlink("/etc/passwd", bundle / network.replace("/", ""))
    assert said("verify", str(bundle), "--offline")[0] == 1


@pytest.mark.slow
def test_a_trainer_s_and_a_database_s_texts_are_escaped(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(None, tmp_path / "base")
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(settings)
    world.policy = sending.seal_policy(settings)
    text = ESC.replace("\ud800", "naïve")
    gap = (Kind.GAP, None, {"dropped": 5, "reason": text})
    first = before()
    kind, epoch, body = first[4]
    first[4] = (kind, epoch, {**body, "name": text, "tags": [text], "training": {text: text}})
    world.ingest(world.batch(ending([*first, gap])), text.encode(), b"no batch")
    world.sql("UPDATE runs SET incomplete = ?", text)
    world.sql("UPDATE parked SET reason = ?", text)
    world.store.close()
    for words in (
        ["status"], ["status", "latest"], ["events", "parked"], ["verify", "latest", "--offline"],
        ["verify", "--all", "--offline"], ["fsck", "--offline"], ["log", "prove", "latest"],
        ["statement", "latest"], ["doctor"],
    ):  # fmt: skip
        said(*words)
        said(*words, "--json")
    stated = json.loads(said("statement", "latest")[1])["predicate"]["buildDefinition"]
    assert stated["externalParameters"]["training"] == {text: text}
    place = str(tmp_path / "b\x1b[2J\u202e")
    assert said("bundle", "latest", "-o", place)[0] == 0
    assert said("report", "latest", "-o", place + "r")[0] == 0
    for words in (["verify", place, "--offline"], ["upgrade", place], ["health", text]):
        said(*words)
    assert "\\x1b[2J" in said("verify", "--all", "--offline")[1]
    assert "\\x1b[2J" in said("fsck", "--offline")[1]
    assert "\\x1b[2J" in said("status")[1]
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    assert cli.main(["status", "--base-dir", str(tmp_path / "base")]) == 0
    terminal.flush()
    assert b"na\\xefve" in terminal.buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_verdict_is_in_the_exit_code_whoever_reads_the_text(
    evidence: RunEvidence, tmp_path: Path, options: tuple[str, ...]
) -> None:
    bundle = write_bundle(evidence, tmp_path / "bundle")
    (record,) = (bundle / "records" / "training").glob("config.json")
    record.write_bytes(record.read_bytes() + b" ")
    command = [sys.executable, "-m", "provenance.cli", "verify", str(bundle), "--offline", *options]
    command += ["--base-dir", str(tmp_path / "base")]
    reading, writing = os.pipe()
    os.close(reading)  # gone before the first line
    left = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (left.returncode, left.stderr) == (1, b"")
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (1, b"")


def test_a_reader_of_one_stream_that_leaves_takes_no_other_along(
    capfd: pytest.CaptureFixture[str],
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as left:
        console = output._Console(file=left)
        console.print("nobody reads this")
        console.print("nor this")
    os.write(1, b"the verdict\n")
    assert capfd.readouterr().out == "the verdict\n"
