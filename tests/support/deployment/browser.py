"""Chromium, as a reader has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import missing


def browse(folder: Path, *arguments: str) -> tuple[str, str]:
    """What Chromium prints, and its log; ``folder`` keeps its profile."""
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
        [str(browser), *flags, *own, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout, done.stderr
