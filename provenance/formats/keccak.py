"""Keccak-256 as Ethereum uses it.

It is the submission to NIST's competition (The Keccak reference, version 3.0, rate 1088 bits,
padding 01), not SHA3-256 (FIPS 202, padding 06), which is all that ``hashlib`` promises to have.
Half a millisecond for each 136 bytes: fit for a proof of a few kilobytes.
"""

from __future__ import annotations

from typing import Final

RATE: Final = 136
"""Bytes of the state that a block of input goes into."""
_MASK: Final = (1 << 64) - 1
_ROUND_CONSTANTS: Final = (
    0x0000000000000001, 0x0000000000008082, 0x800000000000808A, 0x8000000080008000,
    0x000000000000808B, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008A, 0x0000000000000088, 0x0000000080008009, 0x000000008000000A,
    0x000000008000808B, 0x800000000000008B, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800A, 0x800000008000000A,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
)  # fmt: skip
# Steps rho and pi as one walk over the lanes from 1 on: to which lane, turned by how much.
_WALK: Final = (
    (10, 1), (7, 3), (11, 6), (17, 10), (18, 15), (3, 21), (5, 28), (16, 36),
    (8, 45), (21, 55), (24, 2), (4, 14), (15, 27), (23, 41), (19, 56), (13, 8),
    (12, 25), (2, 43), (20, 62), (14, 18), (22, 39), (9, 61), (6, 20), (1, 44),
)  # fmt: skip


def keccak256(data: bytes) -> bytes:
    """The 32-byte digest."""
    return sponge(data, 0x01)


def sponge(data: bytes, padding: int) -> bytes:
    """32 bytes out of Keccak[512]; ``padding`` is the first padding byte: 01 for Keccak-256,
    06 for SHA3-256."""
    padded = bytearray(data) + bytes(RATE - len(data) % RATE)
    padded[len(data)] = padding
    padded[-1] |= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), RATE):
        for at in range(RATE // 8):
            lane = padded[start + 8 * at : start + 8 * at + 8]
            lanes[at] ^= int.from_bytes(lane, "little")
        lanes = _permute(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])


def _permute(a: list[int]) -> list[int]:
    """Keccak-f[1600] on 25 lanes; lane ``x + 5 y`` stands at row y, column x."""
    for constant in _ROUND_CONSTANTS:
        c = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]  # theta
        d = [c[x - 1] ^ ((c[(x + 1) % 5] << 1 | c[(x + 1) % 5] >> 63) & _MASK) for x in range(5)]
        a = [a[at] ^ d[at % 5] for at in range(25)]
        moving = a[1]  # rho and pi
        for to, by in _WALK:
            moving, a[to] = a[to], (moving << by | moving >> (64 - by)) & _MASK
        a = [  # chi
            a[y + x] ^ (~a[y + (x + 1) % 5] & a[y + (x + 2) % 5])
            for y in (0, 5, 10, 15, 20)
            for x in range(5)
        ]
        a[0] ^= constant  # iota
    return a
