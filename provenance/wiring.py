"""The composition root: settings in, working parts out.

Nothing else constructs a client, opens a database or reads a key file. Every function
imports what it needs when it is called, so that a trainer pays for none of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from provenance.core.heads import SignerKey
from provenance.errors import ConfigError, MissingExtraError, UnknownRunError
from provenance.settings import RetrySettings, Settings

if TYPE_CHECKING:
    from provenance.core.heads import VerifierKey
    from provenance.ledger.seal import SealPolicy
    from provenance.ports import EventTransport, LedgerStore, Network
    from provenance.verify.evidence import RunEvidence
    from provenance.verify.outcome import VerificationReport as VerificationReport


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


# --- verification ------------------------------------------------------------------------


def verify_run(
    settings: Settings,
    run: str,
    *,
    offline: bool = False,
    headers: Path | None = None,
    networks: Mapping[str, Network] | None = None,
) -> VerificationReport:
    """Check a run from the database, and on the configured networks unless ``offline``.

    Args:
        run: A run id, 8 or more of its first hex digits, or ``latest``.
        headers: As for :func:`verify_path`.
        networks: Networks to ask instead of the configured ones; left open.

    Raises:
        UnknownRunError, StoreUnavailable, ConfigError, MissingExtraError
        InputError: No headers in their file.
    """
    evidence = _evidence(settings, run)
    key = _known_ledger_key(settings)
    return _verify(settings, evidence, key, offline=offline, networks=networks, headers=headers)


def verify_path(
    settings: Settings,
    path: Path,
    *,
    offline: bool = True,
    verifier_key: str | None = None,
    headers: Path | None = None,
    networks: Mapping[str, Network] | None = None,
) -> VerificationReport:
    """Check a bundle folder, or the report folder around one; needs no database.

    Args:
        verifier_key: The ledger's key (``name+id+base64``) as known from elsewhere; without
            it the bundle's own is taken, and the report says so.
        headers: A file of Bitcoin block headers (:mod:`provenance.verify.headers`); without
            it, and without a node, the report says that the header was not checked.

    Raises:
        InputError: No bundle there, or no headers in their file.
        FormatError, IntegrityError: It cannot be read as one; the message names the file.
    """
    from provenance.core.heads import VerifierKey
    from provenance.verify.bundle import read_bundle

    inner = path / "evidence"
    if not (path / "manifest.json").exists() and (inner / "manifest.json").exists():
        path = inner
    key = VerifierKey.from_vkey(verifier_key) if verifier_key else None
    return _verify(
        settings, read_bundle(path), key, offline=offline, networks=networks, headers=headers
    )


def write_report(settings: Settings, run: str, folder: Path | None = None) -> Path:
    """Verify a run and write ``report.html``, ``report.json`` and the ``evidence`` bundle.

    Args:
        folder: ``<base_dir>/reports/<run>`` where None.

    Returns:
        The path of ``report.html``.

    Raises:
        UnknownRunError, StoreUnavailable, InputError (the folder cannot be written)
    """
    from provenance.verify.bundle import write_bundle
    from provenance.verify.report import write_report as write

    report = verify_run(settings, run)
    target = folder if folder is not None else settings.base_dir / "reports" / str(report.run)
    page = write(report, target)
    write_bundle(report.evidence, target / "evidence")
    return page


def export_bundle(settings: Settings, run: str, folder: Path) -> Path:
    """Write the evidence bundle of a run; what is not sealed or anchored yet is not in it.

    Raises:
        UnknownRunError, StoreUnavailable, InputError
    """
    from provenance.verify.bundle import write_bundle

    return write_bundle(_evidence(settings, run), folder)


def find_run(settings: Settings, text: str) -> UUID:
    """The run that a user's words name: an id, 8 or more of its first digits, ``latest``.

    Raises:
        UnknownRunError, StoreUnavailable
    """
    from provenance.verify import gather

    store = open_store(settings, create=False)
    if store is None:
        path = sqlite_path(settings.database_url)
        raise UnknownRunError(f"run {text}: there is no database yet at {path}")
    try:
        return gather.find_run(store, text)
    finally:
        store.close()


def _evidence(settings: Settings, run: str) -> RunEvidence:
    from provenance.verify.gather import find_run, from_store

    store = open_store(settings, create=False)
    if store is None:
        path = sqlite_path(settings.database_url)
        raise UnknownRunError(f"run {run}: there is no database yet at {path}")
    try:
        label = getattr(store, "label", "database")
        return from_store(store, find_run(store, run), _known_ledger_key(settings), label)
    finally:
        store.close()


def _known_ledger_key(settings: Settings) -> VerifierKey | None:
    """The ledger's key, where this deployment has one; verifying makes none."""
    path = settings.ledger_key_file or settings.base_dir / "ledger.key"
    return ledger_signer(settings).verifier if path.exists() else None


def _verify(
    settings: Settings,
    evidence: RunEvidence,
    key: VerifierKey | None,
    *,
    offline: bool,
    networks: Mapping[str, Network] | None,
    headers: Path | None = None,
) -> VerificationReport:
    from provenance.verify.headers import GivenHeaders
    from provenance.verify.verifier import verify

    now = time.time()
    given = GivenHeaders.read(headers) if headers is not None else None
    if offline or networks is not None:
        asked = None if offline else networks
        return verify(evidence, asked, verifier_key=key, headers=given, now=now)
    with contextlib.ExitStack() as stack:
        opened, unavailable = _open_for_reading(settings, evidence)
        for network in opened.values():
            stack.callback(network.close)
        return verify(
            evidence, opened, verifier_key=key, unavailable=unavailable, headers=given, now=now
        )


def _open_for_reading(
    settings: Settings, evidence: RunEvidence
) -> tuple[dict[str, Network], dict[str, str]]:
    """The networks that can be asked, and why others cannot: one does not stop the rest."""
    opened: dict[str, Network] = {}
    unavailable: dict[str, str] = {}
    chain = settings.blockchain
    for name in chain.networks if chain.enabled else ():
        local = chain.local if name == "local" else None
        if evidence.source.kind == "bundle" and local is not None and not local.path.exists():
            unavailable[name] = "the local anchor file is not on this machine"
            continue
        try:
            opened[name] = open_network(settings, name)
        except (ConfigError, MissingExtraError) as error:
            unavailable[name] = str(error)
    return opened, unavailable
