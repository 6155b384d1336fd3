"""Where Bitcoin's block headers come from, to check proofs against without an own node.

A :class:`HeaderSource` answers one question: how deep a block lies. A node of one's own is
asked through the configured ``bitcoin`` network (check 8). Beside it there are files that an
auditor brings (:class:`GivenHeaders`) and k of n HTTP explorers
(:mod:`provenance.chains.esplora`); :class:`AllSources` takes several.

Where the headers come from is what gives them weight: a node of the auditor's own, several
explorers that agree. The one a proof leads to must also carry its proof of work.

A file is text: one raw 80-byte header per line, in hex, as ``bitcoin-cli getblockheader
HASH false`` prints it; blank lines and lines that begin with ``#`` are skipped. The order
does not matter, and neither do holes: a header's depth is counted through those that build
on it. A block that they lack is not the chain's where they have another at its height, from the
chain's first block on, or have that first block and a hole; else they end before it, and the
question stays open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from provenance.errors import FormatError, InputError, ProofError, UnavailableError
from provenance.proofs.bitcoin import (
    CHAINS,
    HEADER_BYTES,
    BlockHeader,
    ChainRules,
    check_work,
    display,
    parse_header,
)

MAX_FILE_BYTES: Final = 512 * 1024 * 1024
"""Three times the main chain of 2026."""


def chain_rules(chain: str) -> ChainRules:
    """The rules of a chain. Raises FormatError: not a key of ``CHAINS``."""
    if chain not in CHAINS:
        raise FormatError(f"Bitcoin chain {chain!r}, expected one of {', '.join(CHAINS)}")
    return CHAINS[chain]


class HeaderSource(Protocol):
    """Knows the headers of the best chain, as far as one trusts it."""

    def depth(self, block: bytes, chain: str, height: int | None = None) -> int:
        """How deep a block lies in the best chain, counting itself.

        Args:
            block: Hash, internal order. chain: A key of ``CHAINS``.
            height: Where the block is said to lie.

        Raises:
            ProofError: It is not in the best chain, or its work is too little for the chain.
            FormatError: An unknown chain.
            NetworkUnavailable: The source could not be asked.
            UnavailableError: The source does not reach that height.
        """

    def height(self, block: bytes, chain: str) -> int | None:
        """The height of a block that :meth:`depth` found; None where the source cannot tell."""


@dataclass(frozen=True, slots=True)
class GivenHeaders:
    """Headers by hash (internal order) with the depth that the others give them, from 1."""

    depths: dict[bytes, int]
    headers: dict[bytes, BlockHeader]

    @classmethod
    def of(cls, raw: Iterable[bytes]) -> GivenHeaders:
        """From headers. Raises TruncatedError, TrailingBytesError: one has not 80 bytes."""
        headers = {header.hash: header for header in map(parse_header, raw)}
        below = {header.hash: header.previous for header in headers.values()}
        depths = dict.fromkeys(headers, 1)
        waiting = dict.fromkeys(headers, 0)
        for previous in below.values():
            if previous in waiting:
                waiting[previous] += 1
        ready = [hash_ for hash_, above in waiting.items() if not above]
        while ready:  # from the tips down: the longest branch counts
            hash_ = ready.pop()
            previous = below[hash_]
            if previous in depths:
                depths[previous] = max(depths[previous], depths[hash_] + 1)
                waiting[previous] -= 1
                if not waiting[previous]:
                    ready.append(previous)
        return cls(depths, headers)

    @classmethod
    def read(cls, *paths: Path) -> GivenHeaders:
        """From files of hex lines, all together. Raises InputError: one cannot be read, holds
        nothing, or a line is no header."""
        return cls.of(raw for path in paths for raw in cls._lines(path))

    @staticmethod
    def _lines(path: Path) -> list[bytes]:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InputError(f"{path}: more than {MAX_FILE_BYTES} bytes of headers")
            lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a file of block headers") from error
        raw = []
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                header = bytes.fromhex(text)
            except ValueError:
                header = b""
            if len(header) != HEADER_BYTES:
                raise InputError(
                    f"{path}: line {number} is no block header, "
                    f"expected {2 * HEADER_BYTES} hex digits"
                )
            raw.append(header)
        if not raw:
            raise InputError(f"{path}: holds no block header")
        return raw

    def depth(self, block: bytes, chain: str, height: int | None = None) -> int:
        """As :meth:`HeaderSource.depth`, counted through the headers given."""
        rules = chain_rules(chain)
        header = self.headers.get(block)
        if header is None:
            first = bytes.fromhex(rules.genesis)[::-1]
            last = self.depths.get(first, 0) - 1
            if height is None or height <= last or self._is_holed(first):
                raise ProofError(f"block {display(block)} is not among the headers given")
            end = "do not begin with the chain's first" if last < 0 else f"end at height {last}"
            raise UnavailableError(
                f"the headers given {end}, and the block at {height} is not there"
            )
        check_work(header, rules.limit)
        return self.depths[block]

    def _is_holed(self, first: bytes) -> bool:
        """Whether they have the chain's first block, and some that others below are missing of."""
        below = (one.previous for hash_, one in self.headers.items() if hash_ != first)
        return first in self.headers and any(each not in self.headers for each in below)

    def height(self, block: bytes, chain: str) -> int | None:
        """As :meth:`HeaderSource.height`, where the headers given reach down to the first."""
        genesis = bytes.fromhex(chain_rules(chain).genesis)[::-1]
        height, at = 0, block
        while at != genesis:
            header = self.headers.get(at)
            if header is None:
                return None
            height, at = height + 1, header.previous
        return height


@dataclass(frozen=True, slots=True)
class AllSources:
    """Several sources, each of which must have the block; the smallest depth counts."""

    sources: tuple[HeaderSource, ...]

    def depth(self, block: bytes, chain: str, height: int | None = None) -> int:
        """As :meth:`HeaderSource.depth`."""
        return min(source.depth(block, chain, height) for source in self.sources)

    def height(self, block: bytes, chain: str) -> int | None:
        """As :meth:`HeaderSource.height`; ``ProofError`` where they differ."""
        heights = {source.height(block, chain) for source in self.sources} - {None}
        if len(heights) > 1:
            raise ProofError(f"block {display(block)}: the sources differ about its height")
        return heights.pop() if heights else None
