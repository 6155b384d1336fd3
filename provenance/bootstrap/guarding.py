"""What keeps the ledger from a second history: its guard, and the search for roots on networks
that the database does not know."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from provenance.bootstrap import reading
from provenance.errors import ConfigError, LedgerForkError
from provenance.ports.values import FORK, NetworkRow, anchor_payload, payload_root
from provenance.settings import Settings, stream_address

if TYPE_CHECKING:
    from provenance.formats.note import SignerKey
    from provenance.fsck.onchain import ChainTransaction
    from provenance.ledger.guard import LedgerGuard
    from provenance.ports.store import LedgerStore, LedgerTx
    from provenance.ports.transport import EventTransport

RESTORED = "ledger.restored"
"""In the base directory of a copy, until somebody said that nothing is missing in it."""
SEARCHED = ("ethereum", "bitcoin", "local")
"""Networks that know who sent what; pins of IPFS have no sender."""


def ledger_guard(settings: Settings, signer: SignerKey) -> LedgerGuard:
    """The guard of this deployment's ledger. Its file lies beside the key; where that folder
    cannot be written (a mounted secret), in the base directory."""
    from provenance.ledger.guard import LedgerGuard

    path = settings.key_file.with_name(settings.key_file.name + ".head")
    if not path.exists() and not os.access(path.parent, os.W_OK):
        path = settings.base_dir / path.name

    @cache
    def transport() -> EventTransport:
        from provenance.stores.redis_streams import RedisStreams

        return RedisStreams(stream_address(settings))

    asked = transport if settings.redis_url else None
    networks, hold = settings.blockchain.active, settings.base_dir / RESTORED
    return LedgerGuard(signer, path, asked, networks, hold)


def known_guard(settings: Settings) -> LedgerGuard:
    """The guard of the key that is there, to compare with: no key is made.

    Raises:
        ConfigError: There is none, or it is not this user's to read.
        StoreUnavailable
    """
    from provenance.formats.note import SignerKey
    from provenance.settings.key_files import read_seed

    if not settings.key_file.exists() and (store := reading.open_store(settings)) is not None:
        with closing(store):
            require_key(settings, store)
    seed = read_seed(settings.key_file)
    return ledger_guard(settings, SignerKey.from_private_bytes(settings.origin, seed))


def require_key(settings: Settings, store: LedgerStore | None) -> None:
    """A key that is not there is not made anew where a ledger was signed with one.

    Args:
        store: The database; None where there is none yet.

    Raises:
        ConfigError: The database has heads.
        StoreUnavailable
    """
    if store is None:
        return
    with store.snapshot() as tx:
        head = tx.head()
    if head is not None:
        raise ConfigError(
            "ledger_key_file",
            f"{settings.key_file} is not there, and the ledger of {head.size} entries was signed "
            "with a key: put its copy back, or begin a successor: provenance ledger succeed",
            settings.source,
        )


def compare_history(settings: Settings, store: LedgerStore | None = None) -> int | None:
    """Compare the database with all that its key signed; makes nothing.

    Args:
        store: The database, where it is open already.

    Returns:
        Entries of the newest head; None where nothing was signed yet.

    Raises:
        LedgerForkError, UnavailableError: As :meth:`LedgerGuard.compare`; or there is no database.
        ConfigError: As :func:`require_key` and :func:`known_guard`.
    """
    with ExitStack() as stack:
        if store is None and (store := reading.open_store(settings)) is not None:
            stack.enter_context(closing(store))
        if not settings.key_file.exists():
            require_key(settings, store)
            return None
        guard = known_guard(settings)
        if store is not None:
            head = guard.compare(store)
            return None if head is None else head.size
        if known := guard.remembered():
            signed = max(head.size for head in known.values())
            raise LedgerForkError(f"there is no database, and the key signed {signed} entries")
        return None


def unknown_past(settings: Settings, signed: int | None) -> str | None:
    """What to tell of a key that is there although nothing is known to be signed with it: where
    another deployment signs with it, there is nothing here to compare with. None for any other.

    Args:
        signed: As :func:`compare_history` returned it.
    """
    if signed is not None or not settings.key_file.exists():
        return None
    return (
        f"{settings.key_file} was here before, and nothing tells what it signed: if it is a copy "
        "of another deployment's, stop, and take another key (provenance ledger succeed)"
    )


def find_strangers(settings: Settings, name: str, store: LedgerStore, now: float) -> str | None:
    """Look on a network for roots under our key that no head of the database has, from the newest
    anchor that it knows on, and on the local file for that anchor; where they contradict, the
    network is paused, and where they do no more, the pause ends.

    Returns:
        Why it was paused; None where nothing is wrong, or cannot be told.

    Raises:
        NetworkUnavailable, LyingNodeError, StoreUnavailable
    """
    from provenance.anchor.outbox import ON_CHAIN
    from provenance.fsck.local_file import known_elsewhere
    from provenance.fsck.onchain import Question

    reader = reading.chain_readers(settings).get(name) if name in SEARCHED else None
    if reader is None:
        return None
    with store.snapshot() as tx:
        known = tx.network(name) or NetworkRow(name, {}, None, now)
        size = tx.reach(name, ON_CHAIN)
        newest = tx.covering(name, size - 1) if size else None
        versions = tx.versions(newest.id) if newest else ()
    explained = None if known.forked else known.explained
    # A key may have served another ledger before this one; the local file is of one alone.
    heights = [-1 if name == "local" else None, (newest and newest.height) or None, explained]
    since = max((height for height in heights if height is not None), default=None)
    if since is None:
        return None
    keys = frozenset(row.version.key for row in versions if row.version.key)
    view = reader.read(Question(frozenset(), frozenset(), keys, None if since < 0 else since))
    own = frozenset(known_elsewhere(settings.base_dir / "blockchain_manager.jsonl"))
    with store.snapshot() as tx:
        found = [each for each in view.transactions if _stranger(tx, each, own, since)]
    looked = name == "local" and newest is not None and (explained is None or since > explained)
    payloads = {each.payload for each in view.transactions}
    if looked and newest is not None and anchor_payload(newest.root) not in payloads:
        why = f"local lacks the anchor of head {newest.size}, which the database calls "
        why += f"{newest.state.value}: its file is an older one, put the newer copy back"
        return _pause(store, known, newest.height, why)
    if not found:
        if known.forked:
            with store.transaction() as tx:
                tx.save_network(replace(known, paused=None, explained=None))
        return None
    first = min(found, key=lambda each: each.height or 0)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    root = payload_root(first.payload or b"") or b""
    reason = (
        f"{name} shows the root {root.hex()} in {first.id}{more}, sent with our key, and no "
        "head of this database has it: the database is older than what was anchored, or another "
        "deployment uses the key"
    )
    return _pause(store, known, max(each.height or 0 for each in found), reason)


def _pause(store: LedgerStore, known: NetworkRow, height: int | None, why: str) -> str:
    """Pause a network until a person saw what it shows up to a height."""
    reason = (
        f"{FORK}: {why}. If nothing is missing here: provenance networks resume {known.network}"
    )
    with store.transaction() as tx:
        known = tx.network(known.network) or known
        tx.save_network(replace(known, paused=reason, explained=height))
    return reason


def _stranger(tx: LedgerTx, each: ChainTransaction, own: frozenset[str], since: int) -> bool:
    root = payload_root(each.payload or b"")
    if root is None or not each.ours or each.place != "mined" or each.id in own:
        return False
    return (each.height or 0) > since and tx.head_of_root(root) is None
