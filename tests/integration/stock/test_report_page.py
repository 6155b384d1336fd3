"""The report of a real run: what its reader reads, in a real browser too, and on paper."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import ProvenanceTracker
from provenance.app.verify import verify_run
from provenance.report.html import render
from provenance.settings import load
from provenance.verify.report import VerificationReport
from tests.support.deployment.browser import browse
from tests.support.home import brought_home

LONG = "long-name-" * 20
WIDE = {"branch": "b" * 80, "checkpoint": "c" * 80}
"""Metrics that widen the table: words that do not break."""
SEED = bytes(32)
PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw().hex()
DARK, LIGHT = (f"--blink-settings=preferredColorScheme={scheme}" for scheme in (0, 1))
INLINE = {"span", "code", "strong", "a"}

FRAME = """<!doctype html><iframe id="frame" style="width:{width}px;height:900px;border:0"
src="page.html"></iframe><p id="told"></p><script>
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  for (const rule of page.styleSheets[0].cssRules)
    if (rule.conditionText === "{media}") rule.media.mediaText = "all";
  const parts = [...page.querySelectorAll("body *")].filter(part => !part.closest("svg"));
  told.textContent = JSON.stringify({{
    wide: root.scrollWidth - root.clientWidth,
    spare: root.clientWidth - page.querySelector("main").offsetWidth,
    closed: parts.filter(part => !part.checkVisibility()).length,
    cut: parts.filter(part => getComputedStyle(part).overflow !== "visible").length,
    torn: [...page.querySelectorAll("section.box, pre, figure, tr, svg[aria-label='The run tree']")]
      .filter(part => getComputedStyle(part).breakInside !== "avoid").length,
    rows: new Set([...page.querySelectorAll("figure")].map(plot => plot.offsetTop)).size,
    ink: getComputedStyle(page.body).color, paper: getComputedStyle(page.body).backgroundColor,
    plots: page.querySelectorAll("svg.plot path.line").length,
    unlabelled: page.querySelectorAll("svg:not([aria-label])").length,
    headings: [...page.querySelectorAll("h1, h2")].map(h => h.textContent),
  }});
}};
</script>"""


class Reader(HTMLParser):
    """The lines of a page by the heading that they stand under, in the order of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: dict[str, list[str]] = {}
        self._line = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in INLINE:
            self._end_line()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2"):
            self.lines[" ".join(self._line.split())] = []
            self._line = ""
        elif tag not in INLINE:
            self._end_line()

    def handle_data(self, data: str) -> None:
        self._line += data

    def _end_line(self) -> None:
        if self.lines and (line := " ".join(self._line.split())):
            self.lines[[*self.lines][-1]].append(line)
        self._line = ""

    def tells(self, heading: str, *lines: str) -> bool:
        """Whether these lines follow each other under that heading."""
        own = self.lines[heading]
        return any(own[at : at + len(lines)] == [*lines] for at in range(len(own)))


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> VerificationReport:
    """Of a run in a repository, which goes on from another and is signed by a pinned trainer."""
    folder = tmp_path_factory.mktemp("training")
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "code")
    (folder / "identity.key").write_text(SEED.hex())
    (folder / "identity.key").chmod(0o600)
    base, weights = folder / "artifacts", {"w": np.ones(2, np.float32)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with ProvenanceTracker(base) as parent:
            parent.track_epoch(1, {}, weights)
        own = {"identity_key_file": str(folder / "identity.key")}
        labels: Any = {"name": "fine tune", "tags": ["b", "a"], "group": "sweep", "notes": "on ice"}
        tracker = ProvenanceTracker(base, own, parent=parent, **labels)
        tracker.track_data((np.ones((4, 2)), np.arange(4)), np.ones((3, 2)))
        tracker.track_model(weights)
        tracker.store_merkle_on_blockchain_before_training({"lr": 0.25, "optimizer": {"name": "x"}})
        for epoch in range(1, 13):
            budget = {"epsilon": epoch / 4, "delta": 1e-5}
            tracker.track_epoch(epoch, {LONG: 1 / epoch, **WIDE}, privacy=budget)
        tracker.store_merkle_on_blockchain_after_training({"accuracy": 0.75, LONG: 1 / 12})
    brought_home(base)
    settings = load({"trust": {"trainers": {"ml team": PUBLIC_KEY}}}, base)
    return verify_run(settings, tracker.run_id)


@pytest.fixture(scope="module")
def page(report: VerificationReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_text(render(report))
    return folder


def test_a_reader_finds_each_fact_of_the_run_under_its_heading(
    report: VerificationReport,
) -> None:
    page, lineage = Reader(render(report)), report.lineage
    records: Any = {record.path: record.decoded for record in report.evidence.records}
    begun, *_, ended = sorted(record.ts for record in records.values())
    seconds = (float(ended[17:-1]) - float(begun[17:-1])) % 60
    assert lineage is not None
    top = "verified fine tune"
    assert page.tells(top, f"{report.run} a b")
    assert page.tells(top, "Training, as its records say", "finished")
    took = f"{begun[:10]} {begun[11:19]} UTC, took {seconds:.3g} s"
    assert page.tells(top, "Began (stated)", took)
    assert page.tells(top, "Group", "sweep")
    assert page.tells(top, "Parent", lineage.line)
    assert lineage.line.startswith(
        f"continues run {lineage.run} from epoch 1: initial weights match"
    )
    assert page.tells(top, "Notes", "on ice")
    assert page.tells("Results, as the trainer states them", "accuracy", "0.75")
    rests = "What it rests on"
    trainer = f"identity {PUBLIC_KEY[:16]}, trainer ml team, pinned"
    assert page.tells(rests, "Who ran it", trainer)
    key = f"ledger key {report.verdict.key}, pinned: this deployment's ledger.key"
    alone = "the local file alone, which convinces nobody but the holder of the ledger's key"
    assert page.tells(rests, "Rests on", key, "Rests on", alone, "Rests on", trainer)
    run = "The run"
    assert page.tells(run, "Configuration", "lr", "0.25", "optimizer.name", "x")
    for name, kind, *columns in (
        ("data.train", "arrays, 4 rows, 96 bytes", "0: F64 4 × 2", "1: I64 4"),
        ("data.test", "arrays, 3 rows, 48 bytes", "0: F64 3 × 2"),
    ):
        root = records[f"{name.replace('.', '/')}/0"].body["root"]
        assert page.tells(run, name, kind, root, *columns)
    assert page.tells(run, "Model", "class", "builtins.dict", "framework", "builtins")
    assert page.tells(run, "parameters", "2", "buffers", "0", "tensors", "1", "size", "8 bytes")
    assert page.tells(run, "initial weights", records["model/weights/0"].body["root"])
    commit = records["training/config"].body["code"]["commit"]
    assert page.tells(run, "Code", "commit", commit, "uncommitted changes", "no")
    assert page.tells("Metrics", "epsilon", "epsilon by epoch")
    for epoch in range(1, 13):
        assert f"epsilon epoch {epoch}: {epoch / 4:.6g}" in page.lines["Metrics"]
        assert f"{LONG[:77]}... epoch {epoch}: {1 / epoch:.6g}" in page.lines["Metrics"]
    tree: Any = report.tree
    for label, node in [("run root", tree), *((part["label"], part) for part in tree["children"])]:
        assert page.tells("The run tree", label, f"{node['value'][:20]}…")


def seen(page: Path, *arguments: str, width: int, media: str = "screen") -> tuple[Any, str]:
    """What a browser makes of the page at that width, and its log."""
    (page / "frame.html").write_text(FRAME.format(width=width, media=media))
    shown, log = browse(page, *arguments, "--dump-dom", (page / "frame.html").as_uri())
    told = re.search(r'<p id="told">(.*?)</p>', shown)
    assert told is not None, log
    return json.loads(told[1]), log


def is_dark(told: dict[str, Any]) -> bool:
    ink, paper = (sum(map(int, re.findall(r"\d+", told[key])[:3])) for key in ("ink", "paper"))
    return ink > paper


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_overflows_and_nothing_is_refused(page: Path, width: int, dark: bool) -> None:
    told, log = seen(page, DARK if dark else LIGHT, width=width)
    assert told["wide"] <= 0
    assert told["closed"] > 0
    assert told["plots"] >= 1
    assert told["unlabelled"] == 0
    assert "The run tree" in told["headings"]
    assert is_dark(told) == dark
    assert "CONSOLE" not in log


def test_on_paper_everything_is_open_and_whole(page: Path) -> None:
    """By the rules for paper, on a sheet of A4 within Chromium's margins; and it prints."""
    told, _ = seen(page, DARK, width=718, media="print")
    assert told["wide"] <= 0
    assert (told["spare"], told["closed"], told["cut"], told["torn"]) == (0, 0, 0, 0)
    assert told["rows"] == 1, "two plots side by side"
    assert not is_dark(told)
    browse(page, f"--print-to-pdf={page / 'page.pdf'}", (page / "page.html").as_uri())
    assert (page / "page.pdf").read_bytes().startswith(b"%PDF")
