"""What this process counts for the watchers: added to Redis's board when a task ends.

So the counts of children that come and go are one number, and one endpoint shows those of all
hosts (:mod:`provenance.observe`). Where Redis is away they are kept until it is back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from provenance.anchor.delivery import Pass
from provenance.errors import ProvenanceError
from provenance.ports.network import Network
from provenance.stores.redis_board import RPC_BUCKETS_S, RedisBoard

_CALLS = frozenset({"identity", "next_nonce", "draft", "broadcast", "observe", "evidence"})
"""Methods of a network that ask its node."""
_more: Counter[tuple[str, ...]] = Counter()
_now: dict[tuple[str, ...], float] = {}


def add(*labels: str, number: float = 1) -> None:
    """Count something."""
    _more[labels] += number  # type: ignore[assignment]  # a Counter counts any number


def tell(*labels: str, number: float) -> None:
    """What something is now."""
    _now[labels] = number


def outcomes(network: str, done: Pass) -> None:
    """Count what became of anchors in one pass."""
    for outcome in done.outcomes.values():
        add("anchor_outcomes", network, outcome.value)


def publish(board: Callable[[], RedisBoard]) -> None:
    """Add what was counted to Redis, if it takes it."""
    try:
        board().count(_more, _now)
    except ProvenanceError:
        return
    _more.clear()


class _Measured:
    """A network whose calls are timed, and whose balance is kept when its node tells it."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._network, name)
        return self._timed(name, value) if name in _CALLS else value

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: object, **named: object) -> Any:
            network, began = self._network.name, time.monotonic()
            try:
                answer = call(*arguments, **named)
            except ProvenanceError as error:
                add("rpc_errors", network, name, type(error).__name__)
                raise
            finally:
                took = time.monotonic() - began
                add("rpc_sum", network, name, number=took)
                bucket = next((str(top) for top in RPC_BUCKETS_S if took <= top), "+Inf")
                add("rpc_bucket", network, name, bucket)
            if name == "identity" and answer.balance is not None:
                tell("balance", network, number=answer.balance)
            return answer

        return timed


def measured(network: Network) -> Network:
    """A network whose calls are counted here."""
    return cast(Network, _Measured(network))
