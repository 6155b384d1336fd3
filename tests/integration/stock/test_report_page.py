"""The report in a real browser: phone and desktop, dark, and on paper."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from provenance.report.html import render
from tests.conftest import missing
from tests.support.verify_world import World, before, metrics

FRAME = """<!doctype html><iframe id="frame" style="width:{width}px;height:900px;border:0"
src="page.html"></iframe><p id="told"></p><script>
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  told.textContent = JSON.stringify({{
    wide: root.scrollWidth - root.clientWidth,
    ink: getComputedStyle(page.body).color, paper: getComputedStyle(page.body).backgroundColor,
    plots: page.querySelectorAll("svg.plot path.line").length,
    unlabelled: page.querySelectorAll("svg:not([aria-label])").length,
    headings: [...page.querySelectorAll("h1, h2")].map(h => h.textContent),
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run whose newest metrics stand for results, one of them with a long name."""
    folder, stage = tmp_path_factory.mktemp("page"), World()
    epochs = [metrics(epoch, **{"long-name-" * 20: 1 / epoch}) for epoch in range(1, 13)]
    stage.ingest(stage.batch([*before(), *epochs]))
    (folder / "page.html").write_text(render(stage.verify()))
    return folder


def browse(page: Path, *arguments: str) -> tuple[str, str]:
    """What Chromium prints of it, and its log."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        missing("no browser: apt-get install chromium")
    quiet = "--no-first-run --disable-background-networking --disable-component-update"
    flags = f"--headless --no-sandbox --disable-gpu --disable-sync {quiet}".split()
    own = [
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run(
        [str(browser), *flags, *own, f"--user-data-dir={page / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_overflows_and_nothing_is_refused(page: Path, width: int, dark: bool) -> None:
    (page / "frame.html").write_text(FRAME.format(width=width))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    shown, log = browse(page, scheme, "--dump-dom", (page / "frame.html").as_uri())
    told = json.loads(re.search(r'<p id="told">(.*?)</p>', shown)[1])  # type: ignore[index]  # else the page did not load
    assert told["wide"] <= 0
    assert told["plots"] >= 1
    assert told["unlabelled"] == 0
    assert "The run tree" in told["headings"]
    ink, paper = (sum(map(int, re.findall(r"\d+", told[key])[:3])) for key in ("ink", "paper"))
    assert (ink > paper) == dark
    assert "CONSOLE" not in log


def test_on_paper(page: Path) -> None:
    browse(page, f"--print-to-pdf={page / 'page.pdf'}", (page / "page.html").as_uri())
    assert (page / "page.pdf").read_bytes().startswith(b"%PDF")
