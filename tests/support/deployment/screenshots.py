"""Pictures of the dashboard: ``python -m tests.support.deployment.screenshots docs/images``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.deployment.browser import browse
from tests.support.deployment.dashboard import served, trained
from tests.support.home import brought_home


def main(folder: Path) -> None:
    """The pages of a small deployment."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "artifacts"
        parent, child = trained(base)
        brought_home(base)
        pages = {
            ("runs", 1280, 560): "/",
            ("run", 1280, 1000): f"/runs/{parent}",
            ("compare", 1280, 900): f"/compare?run={parent}&run={child}",
        }
        with served(base) as url:
            for (name, width, height), path in pages.items():
                size, target = f"--window-size={width},{height}", folder / f"dashboard-{name}.png"
                browse(
                    Path(scratch), "--hide-scrollbars", size, f"--screenshot={target}", url + path
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
