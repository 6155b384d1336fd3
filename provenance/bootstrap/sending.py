"""Parts that record and anchor: they may make the database and the ledger's key, and send."""

from __future__ import annotations

import os
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

from provenance.errors import MissingExtraError, StoreUnavailable
from provenance.proofs.multisig import Quorum
from provenance.settings import RetrySettings, Settings, stream_address
from provenance.settings.urls import sqlite_path

if TYPE_CHECKING:
    from provenance.anchor.conditions import Condition
    from provenance.formats.note import SignerKey
    from provenance.ledger.seal import SealPolicy
    from provenance.ports.network import Network
    from provenance.ports.store import LedgerStore
    from provenance.ports.transport import EventTransport
    from provenance.proofs.multisig.request import SigningRequest


COMMIT_S: Final = 5.0
"""How long :func:`require_commits` waits for its turn."""


def open_store(settings: Settings) -> LedgerStore:
    """The ledger database, made where it is missing and migrated to this release's schema. Raises
    StoreUnavailable, ConfigError, MissingExtraError."""
    try:
        from provenance.stores.sql import SqlStore
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "sqlalchemy", "workers") from error
    return SqlStore.open(settings.database_url, archive=settings.archive_folder)


def require_commits(settings: Settings, writer: str) -> bool:
    """Commit something, as a full or read-only database refuses; nothing is made or migrated.
    False, and nothing is known, where another user's SQLite file is only to be read.

    Raises:
        StoreUnavailable, ConfigError
    """
    from provenance.stores.sql import SqlStore

    path = sqlite_path(settings.database_url)
    if path is not None and not os.access(path, os.W_OK):
        if not os.statvfs(path).f_flag & os.ST_RDONLY:
            return False
        raise StoreUnavailable(f"database {path}: lies on a file system that is read-only")
    opened = SqlStore.open(settings.database_url, migrate=False, wait_s=COMMIT_S)
    with closing(opened) as store, store.transaction() as tx:
        tx.note_commit(writer, time.time())
    return True


def open_transport(settings: Settings) -> EventTransport:
    """The Redis stream. Raises ConfigError: no ``redis_url`` is configured, or none that can be
    read."""
    from provenance.stores.redis_streams import RedisStreams

    return RedisStreams(stream_address(settings))


def ledger_signer(settings: Settings) -> SignerKey:
    """The key that signs heads, made at first use (mode 0600, beside the database).

    Raises:
        ConfigError: The file is unreadable, open to others, or not a key; or it is not there and
            the ledger has heads.
    """
    from provenance.formats.note import SignerKey

    return SignerKey.from_private_bytes(settings.origin, ledger_seed(settings))


def ledger_seed(settings: Settings) -> bytes:
    """The 32 bytes behind :func:`ledger_signer`: they also sign the local anchor file."""
    from provenance.bootstrap.guarding import require_key
    from provenance.settings.key_files import read_or_create_seed

    database = sqlite_path(settings.database_url)
    if not settings.key_file.exists() and (database is None or database.exists()):
        with closing(open_store(settings)) as store:
            require_key(settings, store)
    return read_or_create_seed(settings.key_file)


def seal_policy(settings: Settings) -> SealPolicy:
    """How seals are made: the networks to anchor on and the ledger's signer."""
    from provenance.bootstrap.guarding import ledger_guard
    from provenance.ledger.seal import SealPolicy
    from provenance.ledger.teams import Teams
    from provenance.verify.identity import enrolment, trainer_of
    from provenance.verify.trust import of_settings

    trust, signer = settings.trust, ledger_signer(settings)
    return SealPolicy(
        networks=settings.blockchain.active,
        signer=signer,
        guard=ledger_guard(settings, signer),
        grace_s=settings.seal_grace_s,
        lost_after_s=settings.lost_after_s,
        teams=Teams(settings.teams, trainer_of(of_settings(settings))),
        trainers=enrolment(of_settings(settings)) if trust.require_trainers else None,
    )


def open_network(settings: Settings, name: str, store: LedgerStore | None = None) -> Network:
    """One configured network; where it has several owners, their signatures are in ``store``.
    Raises ConfigError: it is not configured; MissingExtraError: its client library is not
    installed."""
    from provenance.chains.manager import build_network

    seed = ledger_seed(settings) if name == "local" else None
    requests = None if store is None else partial(_signing_request, store, name)
    return build_network(settings.blockchain, name, seed, requests=requests)


def _signing_request(store: LedgerStore, network: str, root: bytes) -> SigningRequest | None:
    from provenance.proofs.multisig.request import decode_request

    with store.snapshot() as tx:
        document = tx.signing_request(network, root)
    return None if document is None else decode_request(document, f"{network} signing request")


def open_networks(settings: Settings) -> dict[str, Network]:
    """The configured networks by name, in order."""
    return {name: open_network(settings, name) for name in settings.blockchain.networks}


def anchor_conditions(settings: Settings, name: str) -> tuple[Condition, ...]:
    """What a head must meet before it is signed for a network: persons approve, owners sign.
    Raises ConfigError: persons must approve, and the ledger's key is not this user's to read."""
    from provenance.anchor.owners import OwnersSign
    from provenance.approvals.anchoring import AnchoringApprovals
    from provenance.bootstrap.reading import require_ledger_key

    conditions: tuple[Condition, ...] = ()
    rule, section = settings.approvals, getattr(settings.blockchain, name, None)
    if rule is not None and name in rule.networks:
        vkey = require_ledger_key(settings).vkey
        conditions += (AnchoringApprovals(rule, vkey, time.time),)
    if (multisig := getattr(section, "multisig", None)) is not None:
        quorum = Quorum(multisig.threshold, multisig.owners)
        conditions += (OwnersSign(quorum, getattr(section, "max_fee_rate", 0.0), time.time),)
    return conditions


def retry_settings(settings: Settings, name: str) -> RetrySettings:
    """A network's backoff; the local file needs none of its own."""
    section = getattr(settings.blockchain, name, None)
    retry = getattr(section, "retry", None)
    return retry if isinstance(retry, RetrySettings) else RetrySettings(base_s=1.0, cap_s=30.0)
