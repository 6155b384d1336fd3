"""Anchors that k of n owners sign on the chain itself, from the bytes they signed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quorum:
    """``threshold`` of ``owners``: addresses (``0x``) or compressed public keys, lower-case hex,
    ascending."""

    threshold: int
    owners: tuple[str, ...]
