"""What tasks of one worker process share: built at first use, after the fork."""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from functools import cache

from provenance.anchor.delivery import AnchorDelivery
from provenance.bootstrap import reading, sending
from provenance.bootstrap.guarding import find_strangers
from provenance.errors import LedgerForkError
from provenance.ledger.seal import SealPolicy
from provenance.observe import counts
from provenance.ports.network import Network
from provenance.ports.store import LedgerStore
from provenance.ports.transport import EventTransport
from provenance.stores.redis_board import RedisBoard
from workers.app import settings, settings_of


@cache
def store() -> LedgerStore:
    """The ledger database."""
    return sending.open_store(settings())


@cache
def transport() -> EventTransport:
    """The event stream."""
    return sending.open_transport(settings())


@cache
def board() -> RedisBoard:
    """Where this process tells what it counts."""
    return reading.open_board(settings())


@cache
def policy() -> SealPolicy:
    """How seals are made."""
    return sending.seal_policy(settings())


@cache
def network(name: str) -> Network:
    """A configured network, with its own secrets and nobody else's."""
    return counts.measured(sending.open_network(settings_of((name,)), name, store()))


@cache
def compared(name: str) -> None:
    """A network was looked at once for roots that the database does not know."""
    problem = find_strangers(settings_of((name,)), name, store(), time.time())
    if problem is not None:
        raise LedgerForkError(problem)


def owner() -> str:
    """Names this process in leases and stream groups."""
    return f"{socket.gethostname()}:{os.getpid()}"


def lease_owner() -> str:
    """Unique to one call, as leases want it."""
    return f"{owner()}:{secrets.token_hex(4)}"


def delivery(name: str) -> AnchorDelivery:
    """One pass over a network."""
    lease_s, retry = settings().lease_s, sending.retry_settings(settings(), name)
    how = (
        lease_owner(),
        lease_s,
        retry,
        random.random,
        sending.anchor_conditions(settings(), name),
    )
    return AnchorDelivery(store(), network(name), time.time, *how)
