"""Files of one Ed25519 seed: 64 hex digits, mode 0600. The ledger's key, and identities'."""

from __future__ import annotations

import secrets
from pathlib import Path

from provenance import files
from provenance.errors import ConfigError

LEDGER = "ledger_key_file"
IDENTITY = "identity_key_file"
_MAX_BYTES = 1024


def read_or_create_seed(path: Path, key: str = LEDGER) -> bytes:
    """The 32 bytes in the file; where there is none, fresh ones are written first.

    Args:
        key: The configuration's key that names the file, for messages.

    Raises:
        ConfigError: The file is unreadable, open to others, or not a key.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.create(path, secrets.token_hex(32).encode() + b"\n")
    except OSError as error:
        raise ConfigError(key, f"cannot write {path}: {error.strerror}") from error
    return read_seed(path, key)


def read_seed(path: Path, key: str = LEDGER) -> bytes:
    """The 32 bytes in the file; nothing is written.

    Raises:
        ConfigError: The file is unreadable, open to others, or not a key.
    """
    try:
        seed = bytes.fromhex(files.read_private(path, _MAX_BYTES).decode("ascii"))
    except OSError as error:
        raise ConfigError(key, f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ConfigError(key, f"{path} holds no key, expected 64 hex digits")
    return seed
