"""Why a shipper leaves something of a run undone: a text in the run's folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

from provenance import files

UNSIGNED = "identity.failed"
"""Nobody signed it."""
UNSHIPPED = "shipping.failed"
"""Nothing of it is shipped."""


def note(run_dir: Path, name: str, reason: str | None) -> None:
    """Leave a reason; None takes it away. What the disk refuses is left."""
    path = run_dir / name
    with contextlib.suppress(OSError):
        if reason is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_text(errors="replace") != reason:
            files.replace(path, reason.encode())


def noted(spool_dir: Path, name: str) -> dict[str, str]:
    """The reasons of that name, by run."""
    reasons = {}
    for path in sorted(spool_dir.glob(f"*/{name}")):
        with contextlib.suppress(OSError):  # the run has ended meanwhile
            reasons[path.parent.name] = path.read_text(errors="replace")
    return reasons
