"""Blocks that seeds are drawn from, and runs that drew some."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from provenance.formats.record import Kind
from provenance.proofs.beacon import Beacon, draw_seed
from tests.support.nodes import ethereum_block
from tests.support.nodes.bitcoin_evidence import TIME, mined
from tests.support.verify_world import RUN, Fields, before, ending, training

BITCOIN = Beacon("bitcoin", "regtest", 101, mined(bytes(32)))
ETHEREUM = Beacon(
    "ethereum", "1", 7, ethereum_block.header(b"\x0a" * 32, b"\x0b" * 32, f8=7, f11=TIME + 60)
)


def seed(*blocks: Beacon, draw: int = 0, run: UUID = RUN, **changes: Any) -> Fields:
    """The record of a seed that was drawn from these blocks."""
    body: dict[str, Any] = {
        "seed": draw_seed(run, draw, blocks) if blocks else 42,
        "draw": draw,
        "blocks": [block.as_json() for block in blocks],
    }
    return (Kind.SEED, None, body | changes)


def story(*seeds: Fields) -> list[Fields]:
    """A whole run that drew these before it trained."""
    return ending([*before(), *seeds, *training(2)])
