"""The composition root: settings in, working parts out.

Nothing else constructs a client, opens a database or reads a key file. Every function
imports what it needs when it is called, so that a trainer pays for none of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    MissingExtraError,
    UnknownRunError,
)
from provenance.formats.note import SignerKey
from provenance.settings import RetrySettings, Settings

if TYPE_CHECKING:
    from provenance.bundle.sources import FileSource
    from provenance.evidence.run_evidence import RunEvidence
    from provenance.formats.cosignature import WitnessKey
    from provenance.formats.note import VerifierKey
    from provenance.fsck.findings import FsckReport
    from provenance.fsck.onchain import ChainReader
    from provenance.ledger.seal import SealPolicy
    from provenance.ports.network import Network
    from provenance.ports.store import LedgerStore
    from provenance.ports.transport import EventTransport
    from provenance.verify.headers import HeaderSource
    from provenance.verify.report import VerificationReport as VerificationReport


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
    return SignerKey.from_private_bytes(settings.origin, ledger_seed(settings))


def ledger_seed(settings: Settings) -> bytes:
    """The 32 bytes behind :func:`ledger_signer`: they also sign the local anchor file."""
    from provenance.chains.keys import read_or_create_seed

    return read_or_create_seed(settings.ledger_key_file or settings.base_dir / "ledger.key")


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
    headers: Sequence[str] = (),
    quorum: int | None = None,
    witnesses: Sequence[str] = (),
    networks: Mapping[str, Network] | None = None,
) -> VerificationReport:
    """Check a run from the database, and on the configured networks unless ``offline``.

    Args:
        run: A run id, 8 or more of its first hex digits, or ``latest``.
        headers, quorum, witnesses: As for :func:`verify_path`.
        networks: Networks to ask instead of the configured ones; left open.

    Raises:
        UnknownRunError, StoreUnavailable, ConfigError, MissingExtraError
        InputError: No headers in their file, or a URL, quorum or witness that cannot be.
    """
    from provenance.verify.headers import header_source

    source, known = header_source(headers, quorum), witness_keys(witnesses)
    evidence = evidence_of(settings, run)
    key = known_ledger_key(settings)
    return _verify(
        settings,
        evidence,
        key,
        offline=offline,
        networks=networks,
        headers=source,
        witnesses=known,
    )


def verify_path(
    settings: Settings,
    path: Path | FileSource,
    *,
    offline: bool = True,
    verifier_key: str | None = None,
    headers: Sequence[str] = (),
    quorum: int | None = None,
    witnesses: Sequence[str] = (),
    networks: Mapping[str, Network] | None = None,
) -> VerificationReport:
    """Check a bundle, or the report folder around one; needs no database.

    Args:
        path: A folder, a zip file, or files that were fetched.
        verifier_key: The ledger's key (``name+id+base64``) as known from elsewhere; without
            it the bundle's own is taken, and the report says so.
        headers: Files of Bitcoin block headers (:mod:`provenance.verify.headers`) and URLs of
            explorers, which are asked ``offline`` too; without any, and without a node, the
            report says that the header was not checked.
        quorum: How many of the explorers must agree; all where None.
        witnesses: Keys (``name+id+base64``) whose cosignatures of heads are verified.

    Raises:
        InputError: No bundle there, no headers in their file, or a URL or quorum that
            cannot be.
        FormatError, IntegrityError: It cannot be read as one; the message names the file.
    """
    from provenance.bundle.reader import read_bundle
    from provenance.formats.note import VerifierKey
    from provenance.verify.headers import header_source

    if isinstance(path, Path):
        inner = path / "evidence"
        if not (path / "manifest.json").exists() and (inner / "manifest.json").exists():
            path = inner
    key = VerifierKey.from_vkey(verifier_key) if verifier_key else None
    source, known = header_source(headers, quorum), witness_keys(witnesses)
    return _verify(
        settings,
        read_bundle(path),
        key,
        offline=offline,
        networks=networks,
        headers=source,
        witnesses=known,
    )


def witness_keys(texts: Sequence[str]) -> tuple[WitnessKey, ...]:
    """Witnesses' keys from text; ``InputError`` where one is none."""
    from provenance.formats.cosignature import WitnessKey

    try:
        return tuple(map(WitnessKey.from_vkey, texts))
    except FormatError as error:
        raise InputError(f"--witness: {error}") from error


def write_report(settings: Settings, run: str, folder: Path | None = None) -> Path:
    """Verify a run and write ``report.html``, ``report.json`` and the ``evidence`` bundle.

    Args:
        folder: ``<base_dir>/reports/<run>`` where None.

    Returns:
        The path of ``report.html``.

    Raises:
        UnknownRunError, StoreUnavailable, InputError (the folder cannot be written)
    """
    from provenance.bundle.writer import write_bundle
    from provenance.report.html import write_report as write

    report = verify_run(settings, run)
    target = folder if folder is not None else settings.base_dir / "reports" / str(report.run)
    with _one_writer(target):
        page = write(report, target)
        write_bundle(report.evidence, target / "evidence")
    return page


@contextlib.contextmanager
def _one_writer(target: Path) -> Iterator[None]:
    """The verifying worker and a person may write the same report at once: one after another."""
    import fcntl

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = (target.parent / ".lock").open("a")
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def export_bundle(settings: Settings, run: str, place: Path, disclose: Sequence[str] = ()) -> Path:
    """Write the evidence bundle of a run; what is not sealed or anchored yet is not in it.

    Args:
        place: A folder, or a file ending in ``.zip``.
        disclose: Kinds and places of the records whose content goes with it; all where empty.

    Raises:
        UnknownRunError, StoreUnavailable, InputError
    """
    from provenance.bundle.writer import write_bundle
    from provenance.evidence.disclosure import withhold

    return write_bundle(withhold(evidence_of(settings, run), disclose), place)


def find_run(settings: Settings, text: str) -> UUID:
    """The run that a user's words name: an id, 8 or more of its first digits, ``latest``.

    Raises:
        UnknownRunError, StoreUnavailable
    """
    from provenance.evidence import from_database

    store = open_store(settings, create=False)
    if store is None:
        path = sqlite_path(settings.database_url)
        raise UnknownRunError(f"run {text}: there is no database yet at {path}")
    try:
        return from_database.find_run(store, text)
    finally:
        store.close()


def evidence_of(settings: Settings, run: str) -> RunEvidence:
    """What the database has about a run; ``run`` as for :func:`verify_run`.

    Raises:
        UnknownRunError, StoreUnavailable
    """
    from provenance.evidence.from_database import find_run, from_store

    store = open_store(settings, create=False)
    if store is None:
        path = sqlite_path(settings.database_url)
        raise UnknownRunError(f"run {run}: there is no database yet at {path}")
    try:
        label = getattr(store, "label", "database")
        return from_store(store, find_run(store, run), known_ledger_key(settings), label)
    finally:
        store.close()


def known_ledger_key(settings: Settings) -> VerifierKey | None:
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
    headers: HeaderSource | None = None,
    witnesses: Sequence[WitnessKey] = (),
) -> VerificationReport:
    from functools import partial

    from provenance.verify import verifier

    verify = partial(
        verifier.verify,
        evidence,
        verifier_key=key,
        headers=headers,
        witnesses=witnesses,
        now=time.time(),
    )
    if offline or networks is not None:
        return verify(None if offline else networks)
    with contextlib.ExitStack() as stack:
        bundle = evidence.source.kind == "bundle"
        opened, unavailable = open_for_reading(settings, bundle=bundle)
        for network in opened.values():
            stack.callback(network.close)
        return verify(opened, unavailable=unavailable)


def open_for_reading(
    settings: Settings, *, bundle: bool = False
) -> tuple[dict[str, Network], dict[str, str]]:
    """The networks that can be asked, and why others cannot: one does not stop the rest.

    Args:
        bundle: The evidence may be of another machine, which has its own local file.
    """
    opened: dict[str, Network] = {}
    unavailable: dict[str, str] = {}
    chain = settings.blockchain
    for name in chain.networks if chain.enabled else ():
        local = chain.local if name == "local" else None
        if bundle and local is not None and not local.path.exists():
            unavailable[name] = "the local anchor file is not on this machine"
            continue
        try:
            opened[name] = open_network(settings, name)
        except (ConfigError, MissingExtraError) as error:
            unavailable[name] = str(error)
    return opened, unavailable


# --- fsck --------------------------------------------------------------------------------


def fsck(
    settings: Settings,
    *,
    offline: bool = False,
    since: Mapping[str, int] | None = None,
    settle_s: float = 0.0,
    now: float | None = None,
) -> FsckReport:
    """Check spool, streams, database and networks against each other; changes nothing.

    Args:
        offline: Ask no node.
        since: Per network, the height from which to search for transactions no row knows.
        settle_s: Events younger than this may still be on their way.

    Raises:
        ConfigError, MissingExtraError
    """
    try:
        from provenance.fsck.checker import Deployment, Options
        from provenance.fsck.checker import fsck as check
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "sqlalchemy", "workers") from error

    chain = settings.blockchain
    key = known_ledger_key(settings)
    deployment = Deployment(
        spool_dir=settings.base_dir / "spool",
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        networks=chain.networks if chain.enabled else (),
        key=key,
        lease_s=settings.lease_s,
        journal=settings.base_dir / "blockchain_manager.jsonl",
    )
    readers = None if offline else _chain_readers(settings, key)
    when = time.time() if now is None else now
    return check(deployment, readers, when, Options(since or {}, settle_s))


def _chain_readers(settings: Settings, key: VerifierKey | None) -> dict[str, ChainReader]:
    """A reader for each network that is configured, used or not; they contact nobody yet."""
    from provenance.fsck.chains import BitcoinReader, EthereumReader, IPFSReader
    from provenance.fsck.local_file import LocalReader

    chain = settings.blockchain
    readers: dict[str, ChainReader] = {}
    if chain.ethereum is not None:
        readers["ethereum"] = EthereumReader(chain.ethereum, _senders(chain.ethereum.private_key))
    if chain.bitcoin is not None:
        readers["bitcoin"] = BitcoinReader(chain.bitcoin)
    if chain.ipfs is not None:
        readers["ipfs"] = IPFSReader(chain.ipfs)
    if chain.local is not None:
        readers["local"] = LocalReader(chain.local.path, key.public_bytes if key else None)
    return readers


def _senders(private_key: str | None) -> frozenset[str]:
    """The address that the configured key sends from, where it can be worked out here."""
    if private_key is None:
        return frozenset()
    try:
        from provenance.chains.ethereum.libs import Account
    except ModuleNotFoundError:
        return frozenset()
    return frozenset({str(Account.from_key(private_key).address)})
