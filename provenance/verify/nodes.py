"""The nodes that a verification asks: who each is, once, and each transaction, once.

One :class:`Nodes` serves a single run, or all runs of a database: a head's transaction
covers many of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from provenance.errors import (
    LyingNodeError,
    NetworkError,
    ProofError,
    ProvenanceError,
    UnavailableError,
    WrongNetworkError,
)
from provenance.ports.network import LooksUpMany, Network
from provenance.ports.values import Identity, Observation
from provenance.proofs.beacon import Beacon

PATIENCE_S: Final = 60.0
"""How long one network's lookups may end without an answer, together, before it is left alone."""
MAX_SEEN: Final = 100_000
"""Answers that are kept; the oldest go first."""


class Nodes:
    """Answers of nodes, each asked for once; what a node did not answer counts as one, too.

    A node that does not say who it is is asked nothing else. One that leaves a lookup
    unanswered is asked again who it is, and left alone where that fails, or where lookups
    without an answer have taken :data:`PATIENCE_S`.

    Args:
        networks: Networks to ask, by name.
        unavailable: Networks that could not be set up, with the reason.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        unavailable: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.networks = networks
        self.unavailable = unavailable or {}
        self.identities: dict[str, Identity] = {}
        self._clock = clock
        self._seen: dict[tuple[str, str], Observation | ProvenanceError] = {}
        self._down: dict[str, ProvenanceError] = {}
        self._lost_s: dict[str, float] = {}

    def look(self, network: Network, transaction_id: str) -> Observation:
        """Where the node has the transaction; from memory where it was asked before."""
        self._identify(network)
        key = (network.name, transaction_id)
        if key not in self._seen:
            started = self._clock()
            try:
                observed: Observation | ProvenanceError = network.lookup(transaction_id)
            except UnavailableError as error:
                observed = error
                self._lost(network, error, self._clock() - started)
            except NetworkError as error:
                observed = error
            self._remember(key, observed)
        answer = self._seen[key]
        if isinstance(answer, ProvenanceError):
            raise answer.with_traceback(None)
        return answer

    def depth_of(self, network: Network, block: Beacon) -> int:
        """As :meth:`~provenance.ports.network.Network.depth_of`. Raises ProofError where the node
        serves another chain than the block is of."""
        self._identify(network)
        fields = self.identities[network.name].fields
        chain = str(fields.get("chain", fields.get("chain_id")))
        if chain != block.chain:
            problem = f"is of {block.network} {block.chain}, the node serves {chain}"
            raise ProofError(problem)
        return network.depth_of(block)

    def look_ahead(self, wanted: Mapping[str, Iterable[str]]) -> None:
        """Ask for many transactions at once, where a network can: nothing is judged here.

        What stays without an answer is asked for singly, by :meth:`look`.

        Args:
            wanted: Transaction ids by network.
        """
        for name, ids in wanted.items():
            network = self.networks.get(name)
            fresh = [txid for txid in dict.fromkeys(ids) if (name, txid) not in self._seen]
            if not isinstance(network, LooksUpMany) or len(fresh) < 2:
                continue
            started = self._clock()
            try:
                self._identify(network)
                answers = network.lookup_many(fresh)
            except UnavailableError as error:
                if name not in self._down:
                    self._lost(network, error, self._clock() - started)
            except NetworkError:
                continue  # look() meets it again, for the transaction it is about
            else:
                for txid in fresh:
                    if txid in answers:
                        self._remember((name, txid), answers[txid])

    def _identify(self, network: Network) -> None:
        if network.name in self._down:
            raise self._down[network.name].with_traceback(None)
        if network.name in self.identities:
            return
        try:
            self.identities[network.name] = network.identity()
        except (UnavailableError, WrongNetworkError, LyingNodeError) as error:
            self._down[network.name] = error
            raise

    def _lost(self, network: Network, error: ProvenanceError, seconds: float) -> None:
        """A lookup without an answer: is it the node, or this one transaction?"""
        self._lost_s[network.name] = self._lost_s.get(network.name, 0.0) + seconds
        try:
            network.identity()
        except (UnavailableError, NetworkError) as reason:
            self._down[network.name] = reason
        else:
            if self._lost_s[network.name] > PATIENCE_S:
                self._down[network.name] = error

    def _remember(self, key: tuple[str, str], answer: Observation | ProvenanceError) -> None:
        while len(self._seen) >= MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = answer
