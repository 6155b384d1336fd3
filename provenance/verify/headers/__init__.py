"""Where Bitcoin's block headers come from, to check proofs against without an own node.

A :class:`HeaderSource` answers one question: how deep a block lies. A node of one's own is
asked through the configured ``bitcoin`` network (check 8). Beside it there are
files that an auditor brings (:mod:`provenance.verify.headers.file`) and k of n HTTP explorers
(:mod:`provenance.verify.headers.esplora`); :class:`AllSources` takes several.

Where the headers come from is what gives them weight: a node of the auditor's own, several
explorers that agree. The one a proof leads to must also carry its proof of work.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from provenance.errors import InputError, ProofError
from provenance.proofs.bitcoin import display
from provenance.verify.headers.file import GivenHeaders


class HeaderSource(Protocol):
    """Knows the headers of the best chain, as far as one trusts it."""

    def depth(self, block: bytes, chain: str) -> int:
        """How deep a block lies in the best chain, counting itself.

        Args:
            block: Hash, internal order. chain: A key of ``CHAINS``.

        Raises:
            ProofError: It is not in the best chain, or its work is too little for the chain.
            FormatError: An unknown chain.
            UnavailableError: The source could not be asked.
        """

    def height(self, block: bytes, chain: str) -> int | None:
        """The height of a block that :meth:`depth` found; None where the source cannot tell.

        Raises:
            ProofError, FormatError, UnavailableError: As :meth:`depth`.
        """


def header_source(values: Iterable[str], quorum: int | None = None) -> HeaderSource | None:
    """The source that ``--headers`` names; None where there is nothing.

    Args:
        values: Paths of files of headers, and ``http(s)://`` URLs of explorers.
        quorum: How many of the explorers must agree; all where None.

    Raises:
        InputError: A file that holds no headers, a URL that is not taken, a quorum that
            cannot be reached.
    """
    named = list(values)
    urls = [value for value in named if "://" in value]
    files = [Path(value) for value in named if "://" not in value]
    sources: list[HeaderSource] = []
    if files:
        sources.append(GivenHeaders.read(*files))
    if urls:
        # Not before: checking offline loads no code for the network.
        from provenance.verify.headers.esplora import Explorers

        sources.append(Explorers(urls, quorum))
    elif quorum is not None:
        raise InputError("--quorum: found no explorer in --headers, expected one at least")
    if len(sources) > 1:
        return AllSources(tuple(sources))
    return sources[0] if sources else None


@dataclass(frozen=True, slots=True)
class AllSources:
    """Several sources, each of which must have the block; the smallest depth counts."""

    sources: tuple[HeaderSource, ...]

    def depth(self, block: bytes, chain: str) -> int:
        """As :meth:`HeaderSource.depth`."""
        return min(source.depth(block, chain) for source in self.sources)

    def height(self, block: bytes, chain: str) -> int | None:
        """As :meth:`HeaderSource.height`; ``ProofError`` where they differ."""
        heights = {source.height(block, chain) for source in self.sources} - {None}
        if len(heights) > 1:
            raise ProofError(f"block {display(block)}: the sources differ about its height")
        return heights.pop() if heights else None
