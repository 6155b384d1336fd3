"""BLAKE3 in Triton: many messages at once, in one launch for their chunks and one for each level of
their trees.

Written from the specification (https://c2sp.org/BLAKE3, sections 2 to 4), with its names: unkeyed
hashing, 32 bytes. A message is ``header || elements``: the elements lie where the caller's address
says, the header comes apart, so that nothing is joined in memory. An element's first byte is
wherever the header ends: a word of the message is cut from two aligned words of the elements. No
byte outside the elements is read.

A lane hashes one chunk of 1,024 bytes to its chaining value, or one parent. The nodes of a level
lie message after message, each message's from ``firsts[level, message]`` on. Two neighbours have a
parent, and of an odd count the last node goes up as it is, which gives the tree of 4.3.2. At the
last level each message has one node, its root.

Importing this imports triton. With ``TRITON_INTERPRET=1`` set before, the kernels run in its
interpreter, on tensors in host memory.
"""

from __future__ import annotations

import sys
from array import array
from itertools import accumulate
from typing import Any, Final, NamedTuple

import triton
import triton.language as tl

LANES: Final = 128
"""Chunks, or parents, of one program."""

_CHUNK_START = tl.constexpr(1)
_CHUNK_END = tl.constexpr(2)
_PARENT = tl.constexpr(4)
_ROOT = tl.constexpr(8)


class Message(NamedTuple):
    """``header || elements``.

    Args:
        header: Its bytes, in host memory.
        address: Of the elements, on the device; a multiple of 4.
        nbytes: Of the elements.
    """

    header: bytes
    address: int
    nbytes: int

    @property
    def chunks(self) -> int:
        """Chunks of 1,024 bytes; one where there is no byte."""
        return max(1, -(-(len(self.header) + self.nbytes) // 1024))


def digests(messages: list[Message], device: Any, lanes: int = LANES) -> list[bytes]:
    """BLAKE3 of each message, 32 bytes each, by kernels on the device's current stream.

    Waits for the stream. Raises TritonError, RuntimeError, OSError: the kernels do not compile or
    run."""
    torch: Any = sys.modules["torch"]
    table, headers = array("q"), bytearray()
    for message in messages:
        size = len(message.header)
        table.extend((message.address, message.nbytes, len(headers) // 4, size))
        headers += message.header + bytes(4 - size % 4)
    counts = [message.chunks for message in messages]
    levels = [counts]
    while max(counts) > 1:
        counts = [(count + 1) // 2 for count in counts]
        levels.append(counts)
    firsts = array("q", (first for level in levels for first in accumulate(level, initial=0)))

    table, firsts, headers = (
        torch.frombuffer(buffer, dtype=dtype).to(device)
        for buffer, dtype in ((table, torch.int64), (firsts, torch.int64), (headers, torch.int32))
    )
    here = (len(messages), len(messages).bit_length())
    total = sum(levels[0])
    nodes = torch.empty((total, 8), dtype=torch.int32, device=device)
    _chunks[(-(-total // lanes),)](table, firsts, headers, nodes, *here, LANES=lanes)
    for level, counts in enumerate(levels[1:], 1):
        total = sum(counts)
        parents = torch.empty((total, 8), dtype=torch.int32, device=device)
        _parents[(-(-total // lanes),)](firsts, nodes, parents, level, *here, LANES=lanes)
        nodes = parents
    return [root.tobytes() for root in nodes.cpu().numpy()]


@triton.jit
def _g(a, b, c, d, x, y):
    """The quarter-round (3.2). Sums are modulo 2**32: a debug build must not check them."""
    a = tl.add(tl.add(a, b, sanitize_overflow=False), x, sanitize_overflow=False)
    d = d ^ a
    d = (d >> 16) | (d << 16)
    c = tl.add(c, d, sanitize_overflow=False)
    b = b ^ c
    b = (b >> 12) | (b << 20)
    a = tl.add(tl.add(a, b, sanitize_overflow=False), y, sanitize_overflow=False)
    d = d ^ a
    d = (d >> 8) | (d << 24)
    c = tl.add(c, d, sanitize_overflow=False)
    b = b ^ c
    b = (b >> 7) | (b << 25)
    return a, b, c, d


@triton.jit
def _iv(zero):
    """The initial value (2.2), the same in each lane."""
    return (
        zero + 0x6A09E667, zero + 0xBB67AE85, zero + 0x3C6EF372, zero + 0xA54FF53A,
        zero + 0x510E527F, zero + 0x9B05688C, zero + 0x1F83D9AB, zero + 0x5BE0CD19,
    )  # fmt: skip


@triton.jit
def _compress(h, m, counter_low, counter_high, block_len, flags):
    """The compression function (3.3), cut to its first 8 words: the chaining value.

    h: 8 words; m: the block's 16 words. Every word is a uint32 for each lane.
    """
    v0, v1, v2, v3, v4, v5, v6, v7 = h
    v8, v9, v10, v11, _, _, _, _ = _iv(h[0] ^ h[0])
    v12, v13, v14, v15 = counter_low, counter_high, block_len, flags
    for _ in tl.static_range(7):
        v0, v4, v8, v12 = _g(v0, v4, v8, v12, m[0], m[1])
        v1, v5, v9, v13 = _g(v1, v5, v9, v13, m[2], m[3])
        v2, v6, v10, v14 = _g(v2, v6, v10, v14, m[4], m[5])
        v3, v7, v11, v15 = _g(v3, v7, v11, v15, m[6], m[7])
        v0, v5, v10, v15 = _g(v0, v5, v10, v15, m[8], m[9])
        v1, v6, v11, v12 = _g(v1, v6, v11, v12, m[10], m[11])
        v2, v7, v8, v13 = _g(v2, v7, v8, v13, m[12], m[13])
        v3, v4, v9, v14 = _g(v3, v4, v9, v14, m[14], m[15])
        m = (
            m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13],
            m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8],
        )  # fmt: skip
    return v0 ^ v8, v1 ^ v9, v2 ^ v10, v3 ^ v11, v4 ^ v12, v5 ^ v13, v6 ^ v14, v7 ^ v15


@triton.jit
def _chosen(condition, a, b):
    """8 words: a's where it holds, else b's."""
    return (
        tl.where(condition, a[0], b[0]), tl.where(condition, a[1], b[1]),
        tl.where(condition, a[2], b[2]), tl.where(condition, a[3], b[3]),
        tl.where(condition, a[4], b[4]), tl.where(condition, a[5], b[5]),
        tl.where(condition, a[6], b[6]), tl.where(condition, a[7], b[7]),
    )  # fmt: skip


@triton.jit
def _store(nodes, node, h, mask):
    for i in tl.static_range(8):
        tl.store(nodes + node * 8 + i, h[i].to(tl.int32, bitcast=True), mask=mask)


@triton.jit
def _owner(firsts, node, messages, bits):
    """The last message whose first node is at or before each lane's, by bisection."""
    owner = node * 0
    for bit in range(bits):
        later = owner + (1 << (bits - 1 - bit))
        known = later < messages
        first = tl.load(firsts + later, mask=known, other=0)
        owner = tl.where(known & (first <= node), later, owner)
    return owner


@triton.jit
def _tail(elements, size):
    """The last 1 to 3 bytes as a word; 0 where there are none."""
    last = elements.to(tl.pointer_type(tl.uint8)) + size // 4 * 4
    rest = size % 4
    first = tl.load(last, mask=rest > 0, other=0).to(tl.uint32)
    second = tl.load(last + 1, mask=rest > 1, other=0).to(tl.uint32)
    third = tl.load(last + 2, mask=rest > 2, other=0).to(tl.uint32)
    return first | (second << 8) | (third << 16)


@triton.jit
def _element_word(elements, at, words, tail):
    """The aligned word at this index; 0 before the elements and after them."""
    word = tl.load(elements + at, mask=(at >= 0) & (at < words), other=0)
    return tl.where(at == words, tail, word)


@triton.jit(do_not_specialize=["messages", "bits"])
def _chunks(table, firsts, headers, nodes, messages, bits, LANES: tl.constexpr):
    """The chaining value of each chunk.

    table: int64 [messages, 4], of each the elements' address and bytes, the header's first word
    in headers and its bytes. headers: int32, each padded with zeros. nodes: int32 [chunks, 8].
    """
    node = (tl.program_id(0) * LANES + tl.arange(0, LANES)).to(tl.int64)
    owner = _owner(firsts, node, messages, bits)
    counter = node - tl.load(firsts + owner)
    count = tl.load(firsts + owner + 1) - tl.load(firsts + owner)
    elements = tl.load(table + owner * 4).to(tl.pointer_type(tl.uint32))
    size = tl.load(table + owner * 4 + 1)
    header = headers + tl.load(table + owner * 4 + 2)
    header_size = tl.load(table + owner * 4 + 3)

    header_words = (header_size + 3) // 4
    shift = (8 * (4 * header_words - header_size)).to(tl.uint64)
    words = size // 4
    tail = _tail(elements, size)
    length = tl.minimum(header_size + size - 1024 * counter, 1024).to(tl.int32)
    last_block = tl.maximum((length + 63) // 64, 1) - 1
    counter_low = (counter & 0xFFFFFFFF).to(tl.uint32)
    counter_high = (counter >> 32).to(tl.uint32)
    zero = counter_low ^ counter_low
    end = tl.where(count == 1, zero + (_CHUNK_END | _ROOT), zero + _CHUNK_END)
    h = _iv(zero)
    for block in range(16):
        at = counter * 256 + block * 16
        low = _element_word(elements, at - header_words, words, tail)
        m = ()
        for i in tl.static_range(16):
            high = _element_word(elements, at + i + 1 - header_words, words, tail)
            word = (((high.to(tl.uint64) << 32) | low) >> shift).to(tl.uint32)
            begun = tl.load(header + at + i, mask=at + i < header_words, other=0)
            m = m + (word | begun.to(tl.uint32, bitcast=True),)  # type: ignore[assignment]
            low = high
        flags = tl.where(block == last_block, end, zero) | tl.where(block == 0, _CHUNK_START, 0)
        block_len = tl.minimum(tl.maximum(length - 64 * block, 0), 64).to(tl.uint32)
        after = _compress(h, m, counter_low, counter_high, block_len, flags.to(tl.uint32))
        h = _chosen(block <= last_block, after, h)
    _store(nodes, node, h, counter < count)


@triton.jit(do_not_specialize=["level", "messages", "bits"])
def _parents(firsts, nodes, parents, level, messages, bits, LANES: tl.constexpr):
    """The nodes of a level, from 1 on, from those of the level below. The parent of a message's
    last two is its root. nodes, parents: int32 [of the level, 8]."""
    above = firsts + level * (messages + 1)
    below = above - (messages + 1)
    node = (tl.program_id(0) * LANES + tl.arange(0, LANES)).to(tl.int64)
    real = node < tl.load(above + messages)
    owner = _owner(above, node, messages, bits)
    first = tl.load(below + owner)
    count = tl.load(below + owner + 1) - first
    left = 2 * (node - tl.load(above + owner))
    m = ()  # grows at compile time
    for i in tl.static_range(16):
        there = real & (left + i // 8 < count)
        word = tl.load(nodes + (first + left) * 8 + i, mask=there, other=0)
        m = m + (word.to(tl.uint32, bitcast=True),)  # type: ignore[assignment]
    zero = (node ^ node).to(tl.uint32)
    flags = zero + tl.where(count == 2, _PARENT | _ROOT, _PARENT)
    parent = _compress(_iv(zero), m, zero, zero, zero + 64, flags.to(tl.uint32))
    _store(parents, node, _chosen(left + 1 < count, parent, m), real)
