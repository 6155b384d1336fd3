"""README true to the last line: its commands run as written, in order, in one empty folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from provenance import cli
from provenance.app.processes import redis_server
from tests.conftest import ROOT, missing
from tests.support import readme

README = (ROOT / "README.md").read_text(encoding="utf-8")
BRING_HOME = "Bring it home"
DEADLINE_S = 90.0


class Reader:
    """Somebody who types what the README says, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PROVENANCE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {**kept, "PATH": path, "PYTHONPATH": ""}
        self.up: subprocess.Popen[str] | None = None

    def run(self, argv: list[str], said: str) -> str:
        done = subprocess.run(
            argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{said!r}: exit {done.returncode}\n{done.stderr}{done.stdout}"
        assert "Traceback" not in done.stderr, said
        return done.stdout

    def shell(self, line: str) -> str:
        return self.run(["bash", "-o", "pipefail", "-c", line], line)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(["provenance", *arguments, "--json"], " ".join(arguments)))

    def start(self, line: str) -> None:
        with (self.folder / "up.log").open("w") as log:
            self.up = subprocess.Popen(
                line.split(), cwd=self.folder, env=self.env, stdout=log, stderr=log, text=True
            )

    def is_healthy(self) -> bool:
        """Whether a task of each queue has ended: some seconds after the start."""
        asked = ["provenance", "health"]
        done = subprocess.run(asked, cwd=self.folder, env=self.env, capture_output=True, timeout=60)
        return done.returncode == 0

    def await_anchors(self, runs: int) -> None:
        """Until every run is sealed and final everywhere, and every queue has been served."""
        deadline = time.monotonic() + DEADLINE_S
        shown: Any = None
        while time.monotonic() < deadline:
            assert self.up is not None
            assert self.up.poll() is None, (self.folder / "up.log").read_text()
            shown = self.json("status")
            anchors = [n["anchors"] for n in shown["networks"].values()]
            sealed = [r for r in shown["runs"] if r["state"] == "sealed"]
            final = all(set(a) <= {"final", "replaced"} and a.get("final") for a in anchors)
            if len(sealed) == runs and anchors and final and self.is_healthy():
                return
            time.sleep(0.5)
        pytest.fail(f"not final after {DEADLINE_S:.0f} s: {shown}")

    def stop(self) -> None:
        """Ctrl-C."""
        assert self.up is not None
        self.up.send_signal(signal.SIGINT)
        assert self.up.wait(60) == 0, (self.folder / "up.log").read_text()
        self.up = None

    def leave(self) -> None:
        """Nothing is left running, whatever happened."""
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGINT)
            self.up.wait(60)
        subprocess.run(
            ["provenance", "devnet", "down"], cwd=self.folder, env=self.env, check=False, timeout=90
        )


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    for name in ("examples", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    installed = ROOT / ".devnet"
    absent = [
        name
        for name in ("bin/anvil", "bin/bitcoind", "bin/jsipfs")
        if not (installed / name).exists()
    ]
    if redis_server(installed) is None:
        absent.append("bin/redis-server")
    if absent:
        missing(f"{', '.join(absent)} not in .devnet: run `make devnet`")
    (tmp_path / ".devnet").mkdir()
    for name in ("bin", "opt"):
        (tmp_path / ".devnet" / name).symlink_to(installed / name)
    somebody = Reader(tmp_path)
    yield somebody
    somebody.leave()


@pytest.mark.nodes
@pytest.mark.timeout(600)
def test_every_block_runs_as_written_and_in_order(reader: Reader) -> None:
    said: dict[str, str] = {}
    recorded = 0
    for block in readme.blocks(README):
        if block.language == "python":
            said[block.text] = reader.run(["python", "-c", block.text], block.text)
            recorded += "ProvenanceTracker(" in block.text
        elif block.language == "sh":
            recorded += "train_digits.py" in block.text
            for line in block.lines():
                said[line] = reader.shell(line)
        elif block.text.startswith("provenance up"):
            reader.start(block.text.strip())
            reader.await_anchors(recorded)
        if block.language == "sh" and block.heading == BRING_HOME:
            reader.stop()
    assert recorded == 2
    assert reader.up is None, "no block under 'Bring it home'"
    check_by_hand(reader.folder, said)
    check_anchored_by_the_script(said)
    check_nothing_runs_on(reader.folder)


def check_by_hand(folder: Path, said: dict[str, str]) -> None:
    """`sha256sum`, `provenance path` and its pipe into sh agree with the ledger's root."""
    (by_sha256sum,) = [out for line, out in said.items() if line.startswith("sha256sum")]
    (printed,) = [
        out for line, out in said.items() if line.startswith("provenance path") and "|" not in line
    ]
    (run_by_sh,) = [out for line, out in said.items() if line.endswith("| sh")]
    record = folder / by_sha256sum.split()[1]
    digest = hashlib.sha256(record.read_bytes()).hexdigest()
    assert by_sha256sum.split()[0] == digest
    assert digest in printed
    report = json.loads((folder / record.parents[6] / "report.json").read_bytes())
    assert report["outcome"] == "verified"
    *hashes, last = run_by_sh.splitlines()
    assert last.startswith(f"under run root {report['roots']['after']}: seal after, ledger entry ")
    assert hashes[-1] == report["roots"]["after"]


def check_anchored_by_the_script(said: dict[str, str]) -> None:
    (printed,) = [out for text, out in said.items() if "BlockchainManager(" in text]
    for network in ("ethereum", "bitcoin", "ipfs", "local"):
        assert f"'{network}': '" in printed, printed


def check_nothing_runs_on(folder: Path) -> None:
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]
    assert not left


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {words[1] for words in readme.commands(README, "make")}
    assert named >= {"demo", "test", "check"}
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert named <= targets


def test_ci_runs_the_make_targets_that_the_readme_names() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)$", script, re.MULTILINE) == ["check", "demo"]


@pytest.mark.parametrize("page", readme.markdown(ROOT), ids=lambda p: str(p.relative_to(ROOT)))
def test_linked_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    gone = [link for link in readme.links(text) if not (page.parent / link).exists()]
    assert not gone


@pytest.mark.parametrize("page", readme.markdown(ROOT), ids=lambda p: str(p.relative_to(ROOT)))
def test_command_lines_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in readme.commands(page.read_text(encoding="utf-8"), "provenance"):
        try:
            cli.parser().parse_args(words[1:])
        except SystemExit:
            if is_name(words[1:]):
                continue
            pytest.fail(f"{page.name}: {' '.join(words)}: {capsys.readouterr().err}")


def is_name(words: list[str]) -> bool:
    """A command spoken of, without its arguments: `provenance path`."""
    if any(word.startswith("-") for word in words):
        return False
    with pytest.raises(SystemExit) as caught:
        cli.parser().parse_args([*words, "--help"])
    return caught.value.code == 0


def test_the_readme_names_the_commands_that_there_are() -> None:
    named = {words[1] for words in readme.commands(README, "provenance") if len(words) > 1}
    assert named >= {"up", "status", "doctor", "verify", "report", "path", "devnet", "contract"}
