"""Pictures of a small fleet: ``python -m tests.support.deployment.screenshots docs/images``.

A width in pixels behind the folder is taken in the place of the 1280 of docs/.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.deployment.browser import browse
from tests.support.deployment.dashboard import trained

CLI = (sys.executable, "-m", "provenance.cli")
WAIT_S = 120.0


@contextmanager
def fleet(base: Path) -> Iterator[dict[str, Any]]:
    """``provenance up`` with its pages, as ``run/up.json`` has it, once all is anchored."""
    words = ("up", "--json", "--flower", "--dashboard", "--base-dir", base.name)
    process = subprocess.Popen([*CLI, *words], stdout=subprocess.DEVNULL, cwd=base.parent)
    try:
        deadline = time.monotonic() + WAIT_S
        while not all_is_there(base):
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, f"not all is there after {WAIT_S} s"
            time.sleep(1)
        yield json.loads((base / "run" / "up.json").read_text())
    finally:
        process.terminate()
        process.wait(60)


def all_is_there(base: Path) -> bool:
    """Whether all is anchored and served."""
    words = ("status", "--json", "--base-dir", str(base))
    done = subprocess.run([*CLI, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        return False
    anchored = json.loads(done.stdout)["anchored"]
    looked = subprocess.run([*CLI, "doctor", "--json", "--base-dir", str(base)], stdout=-1)
    pages = [f for f in json.loads(looked.stdout)["findings"] if f["kind"] == "page"]
    works = len(pages) == 2 and all(page["works"] for page in pages)
    return works and anchored["roots"] == 4 and not anchored["waiting"]


def main(folder: Path, width: int = 1280) -> None:
    """The pages of a fleet with two runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "artifacts"
        parent, child = trained(base)
        with fleet(base) as state:
            dashboard, flower = state["pages"]["dashboard"], state["pages"]["Flower"]
            flower = flower.replace("://", f"://{state['flower_auth']}@")
            pages = {
                ("dashboard-runs", 560): f"{dashboard}/",
                ("dashboard-run", 1000): f"{dashboard}/runs/{parent}",
                ("dashboard-compare", 900): f"{dashboard}/compare?run={parent}&run={child}",
                ("dashboard-ledger", 720): f"{dashboard}/ledger",
                ("dashboard-networks", 560): f"{dashboard}/networks",
                ("dashboard-health", 620): f"{dashboard}/health",
                ("flower-workers", 640): f"{flower}/workers",
            }
            for (name, height), url in pages.items():
                size, target = f"--window-size={width},{height}", folder / f"{name}.png"
                browse(Path(scratch), "--hide-scrollbars", size, f"--screenshot={target}", url)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *map(int, sys.argv[2:]))
