"""The dashboard in a real browser, at a desk's and at a phone's width."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.deployment.browser import browse
from tests.support.deployment.dashboard import recorded, served

FRAMES = """<!doctype html>{frames}<p id="told"></p><script>
const seen = {{}}, frames = [...document.querySelectorAll("iframe")];
const look = frame => {{
  const page = frame.contentDocument, root = page.documentElement, style = frame.contentWindow;
  const all = selector => [...page.querySelectorAll(selector)];
  const unseen = all("a[href], button, input:not([type=hidden]), select, summary").filter(part => {{
    if (!part.checkVisibility()) return false;
    part.focus({{focusVisible: true}});
    const look = style.getComputedStyle(part);
    return look.outlineStyle === "none" || parseFloat(look.outlineWidth) < 1;
  }});
  return {{
    wide: root.scrollWidth - root.clientWidth,
    unseen: unseen.map(part => part.outerHTML),
    unlabelled: all("input:not([type=hidden]), select").filter(
      part => !part.labels.length && !part.ariaLabel).length,
    nameless: all("a, button").filter(part => !part.textContent.trim()).length,
    levels: all("h1, h2, h3").map(part => +part.tagName[1]),
    headless: all("table").filter(part => !part.querySelector("th[scope]")).length,
    undescribed: all("svg:not([aria-label])").length,
    main: all("main").length,
    lang: root.lang,
  }};
}};
onload = () => {{
  for (const frame of frames) seen[frame.id] = look(frame);
  told.textContent = JSON.stringify(seen);
}};
</script>"""
FRAME = (
    '<iframe id="{page}-{width}" style="width:{width}px;height:900px" src="{page}.html"></iframe>'
)
FINE = {
    "wide": 0,
    "unseen": [],
    "unlabelled": 0,
    "nameless": 0,
    "headless": 0,
    "undescribed": 0,
    "main": 1,
    "lang": "en",
}


@dataclass(frozen=True)
class Site:
    url: str
    paths: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("site") / "artifacts"
    parent, child, hostile = recorded(base)
    paths = {
        "runs": "/",
        "run": f"/runs/{child}",
        "hostile": f"/runs/{hostile}",
        "verify": f"/runs/{hostile}/verify",
        "tree": f"/runs/{child}/tree?path=training/epoch/3/metrics/0",
        "compare": f"/compare?run={parent}&run={child}&run={hostile}",
        "ledger": "/ledger",
        "networks": "/networks",
        "health": "/health",
        "error": "/nowhere",
    }
    with served(base) as url:
        yield Site(url, paths)


def test_every_page_can_be_read_and_used_at_both_widths(site: Site, tmp_path: Path) -> None:
    (tmp_path / "style.css").write_text(httpx.get(f"{site.url}/style.css").text)
    for page, path in site.paths.items():
        text = httpx.get(site.url + path, timeout=30).text
        assert text.count('"/style.css"') == 1
        (tmp_path / f"{page}.html").write_text(text.replace('"/style.css"', '"style.css"'))
    places = [(page, width) for page in site.paths for width in (1280, 400)]
    frames = "".join(FRAME.format(page=page, width=width) for page, width in places)
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames))
    shown, log = browse(tmp_path, "--dump-dom", (tmp_path / "frames.html").as_uri())
    told = re.search(r'<p id="told">(.+?)</p>', shown)
    assert told is not None, log
    seen: dict[str, Any] = json.loads(html.unescape(told[1]))
    assert len(seen) == len(places)
    for place, facts in seen.items():
        levels = facts.pop("levels")
        assert (levels[0], levels.count(1)) == (1, 1), place
        assert all(below - above <= 1 for above, below in pairwise(levels)), place
        assert facts == FINE, place


@pytest.mark.parametrize("page", ["runs", "hostile", "verify", "compare", "error"])
def test_the_browser_refuses_nothing_and_runs_nothing(
    site: Site, page: str, tmp_path: Path
) -> None:
    """With the server's own headers: a script or style that the policy stops is a console line."""
    shown, log = browse(tmp_path, "--dump-dom", site.url + site.paths[page])
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert "</main>" in shown
