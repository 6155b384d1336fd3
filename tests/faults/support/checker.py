"""Judging a deployment from outside: ``provenance fsck`` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from provenance.ports.values import LedgerEntry
from provenance.settings import Settings
from tests.support.paths import ROOT


def named_roots(entries: Iterable[LedgerEntry]) -> dict[str, str]:
    """``before``, ``checkpoint/3``, ``after`` -> hex root."""
    return {
        f"{e.phase.value}/{e.epoch}" if e.epoch is not None else e.phase.value: e.root.hex()
        for e in entries
    }


def fsck(
    settings: Settings,
    config: Path,
    env: Mapping[str, str],
    *,
    online: bool,
    release: Path = ROOT,
) -> dict[str, Any]:
    """The findings of ``provenance fsck --json``, run as a process."""
    done = subprocess.run(
        [
            sys.executable, "-m", "provenance.cli", "fsck", "--json",
            "--base-dir", str(settings.base_dir.absolute()), "--config", str(config.absolute()),
            *([] if online else ["--offline"]),
        ],
        capture_output=True, text=True, env=dict(env), timeout=120, check=False, cwd=release,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert bool(report["findings"]) == (done.returncode == 1), done
    return report
