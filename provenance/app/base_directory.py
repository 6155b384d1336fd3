"""What a base directory says of its deployment: its configuration, and a running fleet's Redis.

Every command asks it, so it imports next to nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from provenance import files

LOOK_S = 0.2
"""Longer than :func:`running_redis` holds a fleet's lock."""


def left_config(base_dir: Path) -> Path | None:
    """The configuration that a base directory has, where this user may read one."""
    path = base_dir / "run" / "config.json"
    return path if os.access(path, os.R_OK) else None


def leave_config(base_dir: Path, config: Path | None) -> None:
    """Link a fleet's configuration where :func:`left_config` finds it; a file there stays."""
    path = base_dir / "run" / "config.json"
    if config is not None and config.resolve() != path.resolve():
        if path.is_symlink():
            path.unlink()
        if not path.exists():
            path.symlink_to(config.resolve())


def running_redis(base_dir: Path) -> str | None:
    """The URL of the Redis that a running ``provenance up`` brought along; None without one."""
    run = base_dir / "run"
    try:
        state = json.loads(files.read_private(run / "up.json", 65536))
        with files.locked(run / "up.lock", shared=True, wait_s=0):
            return None  # a fleet that was killed left its state
    except BlockingIOError:
        return str(state["redis_url"]) if state["redis_url"] else None
    except OSError:
        return None
