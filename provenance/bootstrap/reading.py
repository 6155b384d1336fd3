"""Parts that only read: no function here makes a key or a file, and no network here sends.

A base directory MAY be read-only. The one private thing that is read is the ledger's key
file, for its public key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from provenance.errors import ConfigError, MissingExtraError, UnknownRunError, UsageError
from provenance.settings import Settings, broker_address, stream_address
from provenance.settings.urls import sqlite_path as sqlite_path

if TYPE_CHECKING:
    from provenance.formats.note import VerifierKey
    from provenance.fsck.onchain import ChainReader
    from provenance.ports.network import Network
    from provenance.ports.store import LedgerStore
    from provenance.stores.redis_board import RedisBoard

SENDING = ("next_nonce", "draft", "sign", "broadcast")
"""Methods of a network that reading does without."""


def open_store(settings: Settings) -> LedgerStore | None:
    """The ledger database, opened read-only; None where an SQLite file does not exist yet.

    Raises:
        StoreUnavailable, MissingExtraError
        ConfigError: It is of another schema, or not to be read.
    """
    path = sqlite_path(settings.database_url)
    if path is not None and not path.exists():
        return None
    try:
        from provenance.stores.sql import SqlStore
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "sqlalchemy", "workers") from error
    return SqlStore.open(settings.database_url, read_only=True, archive=settings.archive_folder)


@contextmanager
def opened_store(settings: Settings, about: str) -> Iterator[LedgerStore]:
    """:func:`open_store` until the context ends.

    Args:
        about: What the database is wanted for; the message begins with it.

    Raises:
        UnknownRunError: There is no database yet.
    """
    store = open_store(settings)
    if store is None:
        path = sqlite_path(settings.database_url)
        raise UnknownRunError(f"{about}: there is no database yet at {path}")
    try:
        yield store
    finally:
        store.close()


def open_board(settings: Settings) -> RedisBoard:
    """The Redis streams to look at, and what processes tell of themselves there. Raises
    ConfigError: no ``redis_url`` is configured."""
    from provenance.stores.redis_board import RedisBoard

    return RedisBoard(stream_address(settings))


def stream_backlog(settings: Settings) -> int:
    """Entries of the Redis stream that wait. Raises ConfigError: no ``redis_url`` is configured;
    TransportUnavailable."""
    from provenance.stores.redis_streams import RedisStreams

    return RedisStreams(stream_address(settings)).backlog()


def ping_broker(settings: Settings) -> str:
    """Where Celery's queues are; it answers. Raises ConfigError: it is not configured, or a Redis
    Cluster; TransportUnavailable."""
    from provenance.stores.redis_streams import RedisStreams

    address = broker_address(settings)
    address.broker()
    with closing(RedisStreams(address)) as there:
        there.ping()
    return str(address)


def require_ledger(found: str | None, own: VerifierKey) -> None:
    """Two deployments on one Redis would take each other's batches.

    Args:
        found: The verifier key of the ledger whose streams they are
            (:meth:`EventTransport.ledger`).

    Raises:
        ConfigError: It is another than ``own``.
    """
    if found not in (None, own.vkey):
        other = ascii(found.rpartition("+")[0])[1:-1][:100]
        raise ConfigError(
            "redis_url",
            f"this Redis carries the events of the ledger {other}, and this deployment's is "
            f"{own.label}: give each a database of its own (such as /1); where this one takes the "
            "other's place, stop the other and delete the key prov:ledger",
        )


def ledger_key(settings: Settings) -> VerifierKey | None:
    """The public key of this deployment's ledger; None where its file is not there, or is not this
    user's to read. Raises ConfigError: the file is open to others, or not a key."""
    from provenance.formats.note import SignerKey
    from provenance.settings.key_files import read_seed

    if not os.access(settings.key_file, os.R_OK):
        return None
    return SignerKey.from_private_bytes(settings.origin, read_seed(settings.key_file)).verifier


def require_ledger_key(settings: Settings) -> VerifierKey:
    """:func:`ledger_key`, which must be there; ConfigError."""
    key = ledger_key(settings)
    if key is None:
        problem = f"cannot read {settings.key_file}, the ledger's key"
        raise ConfigError("ledger_key_file", problem)
    return key


def open_network(settings: Settings, name: str) -> Network:
    """A configured network that can be asked and does not send.

    Raises:
        ConfigError: It is not configured, or its key is not on this machine.
        MissingExtraError: Its client library is not installed.
    """
    from provenance.chains.manager import build_network

    chain = settings.blockchain
    if chain.ethereum is not None:
        chain = replace(chain, ethereum=replace(chain.ethereum, private_key=None))
    key = ledger_key(settings) if name == "local" else None
    network = build_network(chain, name, None, public_key=key.public_bytes if key else None)
    for method in SENDING:
        setattr(network, method, _refuse)
    return network


@contextmanager
def opened_networks(settings: Settings) -> Iterator[tuple[dict[str, Network], dict[str, str]]]:
    """The networks that can be asked until the context ends, and why others cannot: one does not
    stop the rest."""
    networks: dict[str, Network] = {}
    unavailable: dict[str, str] = {}
    with ExitStack() as stack:
        for name in settings.blockchain.active:
            try:
                networks[name] = stack.enter_context(closing(open_network(settings, name)))
            except (ConfigError, MissingExtraError) as error:
                unavailable[name] = str(error)
        yield networks, unavailable


def chain_readers(settings: Settings) -> dict[str, ChainReader]:
    """The checker's reader of each network that is configured, used or not; none is asked yet."""
    from provenance.fsck.chains import BitcoinReader, EthereumReader, IPFSReader
    from provenance.fsck.local_file import LocalReader

    chain, key = settings.blockchain, ledger_key(settings)
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


def _refuse(*_: object) -> NoReturn:
    raise UsageError("this network was opened for reading and sends nothing")
