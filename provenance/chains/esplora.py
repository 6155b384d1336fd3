"""Bitcoin's headers from several HTTP explorers that must agree (the Esplora API).

Each explorer is asked three things, and learns nothing of the run but a block hash::

    GET /block/:hash/header      160 hex digits
    GET /block/:hash/status      {"in_best_chain": bool, "height": int, ...}
    GET /blocks/tip/height       int

1. The header's double SHA-256 is the hash that was asked for, and its work is enough.
2. The block is in the explorer's best chain.
3. ``k`` of the ``n`` explorers say so, with one height; the depth is the smallest of the
   ``k`` that saw most.

A header cannot be forged: that needs its work. What an explorer can do is to leave a block
out, or to hold on to a branch; hence several, of different owners.

Source: https://github.com/Blockstream/esplora/blob/master/API.md
"""

from __future__ import annotations

import http
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeGuard
from urllib.parse import urlsplit

from provenance.chains.http import Endpoint
from provenance.errors import (
    InputError,
    LyingNodeError,
    NetworkUnavailable,
    ProofError,
    ProvenanceError,
    UnavailableError,
)
from provenance.formats import json_text
from provenance.proofs.bitcoin import HEADER_BYTES, check_work, display, parse_header
from provenance.settings import is_loopback
from provenance.verify.headers import chain_rules

TIMEOUT_S: Final = 15.0
"""Of one whole answer."""
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_EXPLORERS: Final = 16
_PLAIN: Final = re.compile(r"[!-~]+")
_ABSENT: Final = (400, 404)
"""Esplora says 404; others that the hash is no block of theirs."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A block in an explorer's best chain; ``depth`` counts the block itself."""

    height: int
    depth: int


class Explorers:
    """k of n explorers; each block is asked for once, and one that is down is asked no more.

    Args:
        urls: Base URLs such as ``https://explorer.example/api``, of different hosts.
        quorum: k; all of them where None.

    Raises:
        InputError: A URL that is not taken, one host twice, or a quorum that cannot be.
    """

    def __init__(
        self, urls: Sequence[str], quorum: int | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        if not 0 < len(urls) <= MAX_EXPLORERS:
            raise InputError(f"{len(urls)} explorers, expected 1 to {MAX_EXPLORERS}")
        self.explorers = [Explorer(url, timeout_s) for url in urls]
        hosts = [explorer.where for explorer in self.explorers]
        for host in hosts:
            if hosts.count(host) > 1:
                raise InputError(f"{host}: named twice, and one explorer agrees with itself")
        self.quorum = len(urls) if quorum is None else quorum
        if not 0 < self.quorum <= len(urls):
            raise InputError(f"--quorum: found {quorum}, expected 1 to {len(urls)}")
        self._answers: dict[tuple[bytes, str], Sight | ProvenanceError] = {}
        self._down: dict[str, UnavailableError] = {}

    def depth(self, block: bytes, chain: str, height: int | None = None) -> int:
        """As :meth:`HeaderSource.depth`. Raises ProofError: too few have the block in their best
        chain; UnavailableError: too few answered to tell; FormatError: an unknown chain."""
        return self._sight(block, chain).depth

    def height(self, block: bytes, chain: str) -> int:
        """That of the explorers which agree; raises as :meth:`depth`."""
        return self._sight(block, chain).height

    def _sight(self, block: bytes, chain: str) -> Sight:
        limit = chain_rules(chain).limit
        key = (block, chain)
        if key not in self._answers:
            try:
                self._answers[key] = self._agreed(block, limit)
            except (ProofError, UnavailableError) as error:
                self._answers[key] = error
        answer = self._answers[key]
        if isinstance(answer, ProvenanceError):
            raise answer.with_traceback(None)
        return answer

    def _agreed(self, block: bytes, limit: int) -> Sight:
        with ThreadPoolExecutor(len(self.explorers)) as pool:
            answers = list(pool.map(lambda one: self._ask(one, block, limit), self.explorers))
        depths: dict[int, list[int]] = {}
        for answer in answers:
            if isinstance(answer, Sight):
                depths.setdefault(answer.height, []).append(answer.depth)
        height, agreeing = max(depths.items(), key=lambda item: len(item[1]), default=(0, []))
        if len(agreeing) >= self.quorum:  # (3)
            return Sight(height, sorted(agreeing, reverse=True)[self.quorum - 1])
        silent = sum(isinstance(answer, UnavailableError) for answer in answers)
        stated = "; ".join(
            f"at height {answer.height}" if isinstance(answer, Sight) else str(answer)
            for answer in answers
        )
        problem = (
            f"block {display(block)}: {len(agreeing)} of {len(answers)} explorers have it in "
            f"their best chain, {self.quorum} must: {stated}"
        )
        if len(agreeing) + silent >= self.quorum:
            raise NetworkUnavailable(problem)
        raise ProofError(problem)

    def _ask(self, explorer: Explorer, block: bytes, limit: int) -> Sight | ProvenanceError:
        if explorer.where in self._down:
            return self._down[explorer.where]
        try:
            return explorer.look(block, limit)
        except UnavailableError as error:
            self._down[explorer.where] = error
            return error
        except (ProofError, LyingNodeError) as error:
            return error


class Explorer:
    """One explorer.

    Args:
        url: ``https://...``, or ``http://`` to a loopback address; without user or query.

    Raises:
        InputError: Not such a URL.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise InputError("--headers: found no URL, expected https://...") from error
        if parts.username is not None or parts.password is not None or parts.query:
            raise InputError("--headers: found a user, password or query in a URL")
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host or not _PLAIN.fullmatch(url):
            raise InputError(f"--headers: found {url[:80]!r}, expected https://...")
        if parts.scheme == "http" and not is_loopback(parts.geturl()):
            raise InputError(f"--headers: found plain HTTP to {host}, expected https or loopback")
        self._endpoint = Endpoint(url, "--headers", timeout_s)
        self.where = self._endpoint.where

    def look(self, block: bytes, limit: int) -> Sight:
        """The block, where it is in the explorer's best chain.

        Args:
            block: Hash, internal order. limit: The chain's highest target.

        Raises:
            ProofError: It is not, or its work is too little.
            NetworkUnavailable: No answer, or none to the question.
            LyingNodeError: An answer that contradicts the question or itself.
        """
        name = display(block)
        self._check_header(block, self._get(f"/block/{name}/header"), limit)  # (1)
        status = self._json(f"/block/{name}/status")
        tip = self._json("/blocks/tip/height")
        if not isinstance(status, dict) or not _is_height(tip):
            raise LyingNodeError(f"{self.where}: not the answers of an Esplora explorer")
        if status.get("in_best_chain") is not True:  # (2)
            raise ProofError(f"{self.where}: the block is not in its best chain")
        height = status.get("height")
        if not _is_height(height) or height > tip:
            raise LyingNodeError(f"{self.where}: the block is at height {height}, the tip at {tip}")
        return Sight(height, tip - height + 1)

    def _check_header(self, block: bytes, answer: bytes | None, limit: int) -> None:
        if answer is None:
            raise ProofError(f"{self.where}: it does not know the block")
        try:
            raw = bytes.fromhex(answer.decode("ascii").strip())
        except ValueError:
            raw = b""
        if len(raw) != HEADER_BYTES:
            raise LyingNodeError(f"{self.where}: the header is not {2 * HEADER_BYTES} hex digits")
        header = parse_header(raw)
        if header.hash != block:
            raise LyingNodeError(f"{self.where}: it gave the header of another block")
        try:
            check_work(header, limit)
        except ProofError as error:
            raise ProofError(f"{self.where}: {error}") from None

    def _json(self, path: str) -> object:
        answer = self._get(path)
        if answer is None:
            raise LyingNodeError(f"{self.where}: it has no {path[:20]}...")
        try:
            document: object = json_text.loads(answer)
        except (ValueError, RecursionError):
            raise LyingNodeError(f"{self.where}: not the answers of an Esplora explorer") from None
        return document

    def _get(self, path: str) -> bytes | None:
        """The body of an answer; None where the explorer says that there is no such thing."""
        answer = self._endpoint.ask(path, limit=MAX_ANSWER_BYTES)
        if answer.status in _ABSENT:
            return None
        if answer.status != http.HTTPStatus.OK:
            raise NetworkUnavailable(f"{self.where}: HTTP status {answer.status}")
        return answer.body


def _is_height(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
