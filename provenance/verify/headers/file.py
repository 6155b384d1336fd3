"""Bitcoin's block headers from files that an auditor brings.

The file is text: one raw 80-byte header per line, in hex, as ``bitcoin-cli getblockheader
HASH false`` prints it; blank lines and lines that begin with ``#`` are skipped. The order
does not matter, and neither do holes: a header's depth is counted through those that build
on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from provenance.errors import FormatError, InputError, ProofError
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
    """The rules of a chain.

    Raises:
        FormatError: Not a key of ``CHAINS``.
    """
    if chain not in CHAINS:
        raise FormatError(f"Bitcoin chain {chain!r}, expected one of {', '.join(CHAINS)}")
    return CHAINS[chain]


@dataclass(frozen=True, slots=True)
class GivenHeaders:
    """Headers by hash (internal order) with the depth that the others give them, from 1."""

    depths: dict[bytes, int]
    headers: dict[bytes, BlockHeader]

    @classmethod
    def of(cls, raw: Iterable[bytes]) -> GivenHeaders:
        """From 80-byte headers.

        Raises:
            TruncatedError, TrailingBytesError: One of another length.
        """
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
        """From files of hex lines, all together.

        Raises:
            InputError: One cannot be read, holds nothing, or a line is no header.
        """
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

    def depth(self, block: bytes, chain: str) -> int:
        """How deep a block lies in the headers given, counting itself.

        Args:
            block: Hash, internal order. chain: A key of ``CHAINS``.

        Raises:
            ProofError: It is not among them, or its work is too little for the chain.
            FormatError: An unknown chain.
        """
        rules = chain_rules(chain)
        header = self.headers.get(block)
        if header is None:
            raise ProofError(f"block {display(block)} is not among the headers given")
        check_work(header, rules.limit)
        return self.depths[block]

    def height(self, block: bytes, chain: str) -> int | None:
        """How many of the headers given lie below a block, where they reach down to the chain's
        first; None where they do not.

        Raises:
            FormatError: An unknown chain.
        """
        genesis = bytes.fromhex(chain_rules(chain).genesis)[::-1]
        height, at = 0, block
        while at != genesis:
            header = self.headers.get(at)
            if header is None:
                return None
            height, at = height + 1, header.previous
        return height
