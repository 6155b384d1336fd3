"""The ledger's Ed25519 seed: 64 hex digits in a file with mode 0600, made at first use."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from provenance.errors import ConfigError

KEY = "ledger_key_file"


def read_or_create_seed(path: Path) -> bytes:
    """The 32 bytes in the file; where there is none, fresh ones are written first.

    Raises:
        ConfigError: The file is unreadable, open to others, or not a key.
    """
    seed = _read(path)
    if seed is None:
        _create(path)
        seed = _read(path)
    if seed is None:
        raise ConfigError(KEY, f"{path} vanished while it was read")
    return seed


def _create(path: Path) -> None:
    """Written whole under another name and linked, so that nobody reads half a key."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_hex(32).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    except OSError as error:
        raise ConfigError(KEY, f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> bytes | None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(KEY, f"cannot read {path}") from error
    if mode & 0o077:
        raise ConfigError(KEY, f"{path} has mode {mode:04o}, expected 0600: chmod 600 {path}")
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ConfigError(KEY, f"{path} holds no key, expected 64 hex digits")
    return seed
