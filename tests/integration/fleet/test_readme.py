"""README and the three roads, true to the last line: their commands run as written.

In order, each page in an empty folder. ``sh`` and ``python`` blocks run; those of ``bash`` need
what a test has not (root, an engine, a network): ``tests/unit/docs/test_commands.py`` reads them.
"""

from __future__ import annotations

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

from provenance.app.processes import redis_server
from tests.conftest import ROOT, missing
from tests.support import readme
from tests.support.paths import STRANGER

ROADS = ("trainers", "operators", "auditors")
DEADLINE_S = 90.0


class Reader:
    """Somebody who types what the README says, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PROVENANCE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        tree = f"{ROOT}{os.pathsep}{ROOT / 'deploy/devnet'}"  # whatever tree is installed
        self.env = {**kept, "PATH": path, "PYTHONPATH": tree}
        self.up: subprocess.Popen[str] | None = None

    def run(self, argv: list[str], said: str) -> str:
        done = subprocess.run(
            argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{said!r}: exit {done.returncode}\n{done.stderr}{done.stdout}"
        assert "Traceback" not in done.stderr, said
        return done.stdout

    def shell(self, script: str) -> str:
        return self.run(["bash", "-euo", "pipefail", "-c", script], script)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(["provenance", *arguments, "--json"], " ".join(arguments)))

    def start(self, line: str) -> None:
        """The fleet, in another terminal; the one before is stopped."""
        self.stop()
        with (self.folder / "up.log").open("w") as log:
            self.up = subprocess.Popen(
                line.split(), cwd=self.folder, env=self.env, stdout=log, stderr=log, text=True
            )

    def await_anchors(self, base_dir: str) -> None:
        """Until all is final everywhere, and a task of each queue has ended."""
        base = ["--base-dir", base_dir]
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            assert self.up is not None
            assert self.up.poll() is None, (self.folder / "up.log").read_text()
            shown = self.json("status", *base)
            anchors = [n["anchors"] for n in shown["networks"].values()]
            sealed = [run for run in shown["runs"] if run["state"] == "sealed"]
            final = all(set(a) <= {"final", "replaced"} and a.get("final") for a in anchors)
            if shown["runs"] == sealed != [] and anchors and final and self.is_healthy(base):
                return
            time.sleep(0.5)
        pytest.fail(f"not final after {DEADLINE_S:.0f} s: {shown}")

    def is_healthy(self, base: list[str]) -> bool:
        """Whether a task of each queue has ended: some seconds after the start."""
        asked = ["provenance", "health", *base]
        done = subprocess.run(asked, cwd=self.folder, env=self.env, capture_output=True, timeout=60)
        return done.returncode == 0

    def stop(self) -> None:
        """Ctrl-C."""
        if self.up is not None:
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
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/stranger").symlink_to(STRANGER)
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
@pytest.mark.parametrize("page", ["README.md", *(f"docs/{who}.md" for who in ROADS)])
def test_every_block_runs_as_written_and_in_order(page: str, reader: Reader) -> None:
    said: dict[str, str] = {}
    for block in readme.blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.language == "python":
            said[block.text] = reader.run(["python", "-c", block.text], block.text)
        elif block.language == "sh" and block.text.startswith("provenance up"):
            reader.start(block.text.strip())
            base_dir = re.search(r"--base-dir (\S+)", block.text)
            reader.await_anchors(base_dir[1] if base_dir else "artifacts")
        elif block.language == "sh":
            said[block.text] = reader.shell(block.text)
    reader.stop()
    CHECKS[page](said)
    check_nothing_runs_on(reader.folder)


def check_verified(said: dict[str, str]) -> None:
    (verified,) = [out for text, out in said.items() if "provenance verify" in text]
    assert re.search(r"^run [0-9a-f-]{36}: verified$", verified, re.MULTILINE)


def check_by_hand(said: dict[str, str]) -> None:
    """`sha256sum`, `provenance path` and its pipe into sh agree with each other."""
    (by_sha256sum,) = [out for text, out in said.items() if text.startswith("sha256sum")]
    printed, run_by_sh = [out for text, out in said.items() if text.startswith("provenance path")]
    assert by_sha256sum.split()[0] in printed
    *hashes, last = run_by_sh.splitlines()
    assert last.startswith(f"under run root {hashes[-1]}: seal after, ledger entry ")


def check_anchored_by_the_script(said: dict[str, str]) -> None:
    (printed,) = [out for text, out in said.items() if "BlockchainManager(" in text]
    for network in ("ethereum", "bitcoin", "ipfs", "local"):
        assert f"'{network}': '" in printed, printed


CHECKS = {
    "README.md": check_verified,
    "docs/trainers.md": check_verified,
    "docs/operators.md": check_anchored_by_the_script,
    "docs/auditors.md": check_by_hand,
}


def check_nothing_runs_on(folder: Path) -> None:
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]
    assert not left


def test_ci_runs_the_make_targets_that_the_readme_names() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)$", script, re.MULTILINE) == ["check", "demo"]
