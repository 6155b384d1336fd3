"""The ledger's Ed25519 seed: 64 hex digits in a file with mode 0600, made at first use."""

from __future__ import annotations

import secrets
from pathlib import Path

from provenance import files
from provenance.errors import ConfigError

KEY = "ledger_key_file"
_MAX_BYTES = 4096


def read_or_create_seed(path: Path) -> bytes:
    """The 32 bytes in the file; where there is none, fresh ones are written first.

    Raises:
        ConfigError: The file is unreadable, open to others, or not a key.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            files.create(path, secrets.token_hex(32).encode() + b"\n")
    except OSError as error:
        raise ConfigError(KEY, f"cannot write {path}: {error.strerror}") from error
    seed = read_seed(path)
    if seed is None:
        raise ConfigError(KEY, f"{path} vanished while it was read")
    return seed


def read_seed(path: Path) -> bytes | None:
    """The 32 bytes in the file; None where there is none. Writes nothing.

    Raises:
        ConfigError: The file is unreadable, open to others, or not a key.
    """
    try:
        text = files.read_private(path, _MAX_BYTES).decode("ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(KEY, f"cannot read {path}: {reason}") from error
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ConfigError(KEY, f"{path} holds no key, expected 64 hex digits")
    return seed
