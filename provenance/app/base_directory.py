"""What a base directory says of its deployment: its configuration, and a running fleet's Redis.

Every command asks it, so it imports next to nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance import files
from provenance.errors import InputError
from provenance.settings.urls import sqlite_path

if TYPE_CHECKING:
    from provenance.settings import Settings


TOKENS_FILE = "tokens.json"
"""Who may read the dashboard, where nothing else is named."""
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


def running_fleet(base_dir: Path) -> dict[str, Any] | None:
    """What a running ``provenance up`` says of itself in ``run/up.json``, where this user may read
    it; None without one."""
    run = base_dir / "run"
    try:
        state: dict[str, Any] = json.loads(files.read_private(run / "up.json", 65536))
        with files.locked(run / "up.lock", shared=True, wait_s=0):
            return None  # a fleet that was killed left its state
    except BlockingIOError:
        return state
    except OSError:
        return None


def running_redis(base_dir: Path) -> str | None:
    """The URL of the Redis that it brought along; None without one."""
    url = (running_fleet(base_dir) or {}).get("redis_url")
    return str(url) if url else None


def known_base(settings: Settings, holds: str = "ledger.db") -> Settings:
    """The settings, where their base directory is one: a mistyped name is no empty deployment.

    Args:
        holds: What it is wanted for: the database, which may be elsewhere, or the spool.

    Raises:
        InputError: There is no such folder; or it has nothing of a deployment, and a folder beside
            it has.
    """
    base = settings.base_dir.absolute()
    database = sqlite_path(settings.database_url)
    if holds == "ledger.db" and (database is None or database.parent.absolute() != base):
        return settings
    beside = [path.name for path in base.parent.glob("*") if _is_base(path)]
    if base.is_dir() and (_is_base(base) or not beside):
        return settings
    import difflib

    meant = difflib.get_close_matches(base.name, beside, 1) or sorted(beside)
    hint = f" (did you mean {base.parent / meant[0]}?)" if meant else ""
    found = "a folder without a ledger or a spool" if base.is_dir() else "no such folder"
    raise InputError(f"--base-dir {settings.base_dir}: {found}, expected a deployment's{hint}")


def _is_base(folder: Path) -> bool:
    return any(os.path.exists(folder / name) for name in ("ledger.db", "spool", "run"))
