"""The composition root: settings in, working parts out.

Nothing else constructs a client, opens a database or reads a key file. Every function
imports what it needs when it is called, so that a trainer pays for none of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from provenance.core.heads import SignerKey
from provenance.errors import ConfigError, MissingExtraError
from provenance.settings import RetrySettings, Settings

if TYPE_CHECKING:
    from provenance.ledger.seal import SealPolicy
    from provenance.ports import EventTransport, LedgerStore, Network


def open_store(settings: Settings, *, create: bool = True) -> LedgerStore | None:
    """The ledger database, migrated to this release's schema.

    Args:
        create: False returns None where a SQLite file does not exist yet.

    Raises:
        StoreUnavailable, ConfigError, MissingExtraError
    """
    path = sqlite_path(settings.database_url)
    if not create and path is not None and not path.exists():
        return None
    try:
        from provenance.stores.sql import SqlStore
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "sqlalchemy", "workers") from error
    return SqlStore.open(settings.database_url)


def sqlite_path(url: str) -> Path | None:
    """The file behind a SQLite URL; None for any other database."""
    if urlsplit(url).scheme.split("+")[0] != "sqlite":
        return None
    name = url.split("///", 1)[-1].split("?", 1)[0]
    return Path(name) if name and name != ":memory:" else None


def open_transport(settings: Settings) -> EventTransport:
    """The Redis stream.

    Raises:
        ConfigError: No ``redis_url`` is configured.
    """
    if settings.redis_url is None:
        raise ConfigError("redis_url", "not set, expected redis://... (or PROVENANCE_REDIS_URL)")
    from provenance.stores.redis_streams import RedisStreams

    return RedisStreams(settings.redis_url)


def ledger_signer(settings: Settings) -> SignerKey:
    """The key that signs heads, made at first use (mode 0600, beside the database).

    Raises:
        ConfigError: The file is unreadable, open to others, or not a key.
    """
    path = settings.ledger_key_file or settings.base_dir / "ledger.key"
    seed = _read_seed(path)
    if seed is None:
        _create_seed(path)
        seed = _read_seed(path)
    if seed is None:
        raise ConfigError("ledger_key_file", f"{path} vanished while it was read")
    return SignerKey.from_private_bytes(settings.origin, seed)


def ledger_seed(settings: Settings) -> bytes:
    """The 32 bytes behind :func:`ledger_signer`: they also sign the local anchor file."""
    ledger_signer(settings)
    seed = _read_seed(settings.ledger_key_file or settings.base_dir / "ledger.key")
    assert seed is not None
    return seed


def _create_seed(path: Path) -> None:
    """Written whole under another name and linked, so that nobody reads half a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(32).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def _read_seed(path: Path) -> bytes | None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("ledger_key_file", f"cannot read {path}") from error
    if mode & 0o077:
        raise ConfigError(
            "ledger_key_file", f"{path} has mode {mode:04o}, expected 0600: chmod 600 {path}"
        )
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ConfigError("ledger_key_file", f"{path} holds no key, expected 64 hex digits")
    return seed


def seal_policy(settings: Settings) -> SealPolicy:
    """How seals are made: the networks to anchor on and the ledger's signer."""
    from provenance.ledger.seal import SealPolicy

    chain = settings.blockchain
    return SealPolicy(
        networks=chain.networks if chain.enabled else (),
        signer=ledger_signer(settings),
        grace_s=settings.seal_grace_s,
    )


def open_network(settings: Settings, name: str) -> Network:
    """One configured network.

    Raises:
        ConfigError: It is not configured.
        MissingExtraError: Its client library is not installed.
    """
    return open_networks(settings, (name,))[name]


def open_networks(settings: Settings, names: tuple[str, ...] | None = None) -> dict[str, Network]:
    """The configured networks by name, in order; ``names`` picks some."""
    from provenance.chains.manager import build_network

    wanted = settings.blockchain.networks if names is None else names
    seed = ledger_seed(settings)
    return {name: build_network(settings.blockchain, name, seed) for name in wanted}


def retry_settings(settings: Settings, name: str) -> RetrySettings:
    """A network's backoff; the local file needs none of its own."""
    section = getattr(settings.blockchain, name, None)
    retry = getattr(section, "retry", None)
    return retry if isinstance(retry, RetrySettings) else RetrySettings(base_s=1.0, cap_s=30.0)
