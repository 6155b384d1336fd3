"""The kernels against the official test vectors and the CPU's BLAKE3, at every boundary.

They run in Triton's interpreter; for devices they are compiled here, and measured by
``tests/benchmarks/bench_digest.py`` where there is one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.frameworks import installed

CPU = torch.device("cpu")
# https://github.com/BLAKE3-team/BLAKE3, test_vectors/test_vectors.json: the first 32 bytes of
# "hash", by input_len.
OFFICIAL = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    64: "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98",
    65: "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee",
    1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    2048: "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a",
    2049: "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
    7169: "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817",
    31744: "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
    102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
}
SIZES = (
    0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2047, 2048, 2049, 3 * 1024 + 1,
    4096, 5 * 1024, 7 * 1024 + 3, 8192, 9 * 1024 - 30, 16384, 17 * 1024, 40 * 1024 + 2,
)  # fmt: skip
HEADERS = (0, 1, 2, 3, 4, 55, 60, 64, 1023, 1024, 1025, 2050)

Pair = tuple[bytes, bytes]


def pattern(size: int, step: int = 1) -> bytes:
    """As in the official vectors, for a step of 1."""
    return bytes(i * step % 251 for i in range(size))


def hashed(kernel: ModuleType, pairs: Iterable[Pair], **options: Any) -> list[bytes]:
    """Of headers and elements; around the elements there is 255."""
    buffers = [torch.full((len(data) + 12,), 255, dtype=torch.uint8) for _, data in pairs]
    messages = []
    for (header, data), buffer in zip(pairs, buffers, strict=True):
        elements = buffer[4 : 4 + len(data)]
        if data:
            elements.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        messages.append(kernel.Message(header, elements.data_ptr(), len(data)))
    digests: list[bytes] = kernel.digests(messages, CPU, **options)
    return digests


def of_the_cpu(pairs: Iterable[Pair]) -> list[bytes]:
    return [blake3(header + data).digest() for header, data in pairs]


@pytest.mark.slow
def test_the_official_vectors(kernel: ModuleType) -> None:
    digests = hashed(kernel, [(b"", pattern(size)) for size in OFFICIAL])
    assert dict(zip(OFFICIAL, (digest.hex() for digest in digests), strict=True)) == OFFICIAL


@pytest.mark.slow
def test_every_length_after_every_header_is_the_cpus_bit_for_bit(kernel: ModuleType) -> None:
    pairs = [(pattern(header, 7), pattern(size)) for header in HEADERS for size in SIZES]
    wrong = [
        (len(header), len(data))
        for (header, data), ours, theirs in zip(
            pairs, hashed(kernel, pairs, lanes=4096), of_the_cpu(pairs), strict=True
        )
        if ours != theirs
    ]
    assert wrong == []


@pytest.mark.slow
def test_messages_and_trees_go_across_programs(kernel: ModuleType) -> None:
    pairs = [(pattern(61, 3), pattern(size)) for size in (10 * 1024, 1, 5 * 1024 + 1, 3 * 1024)]
    assert hashed(kernel, pairs, lanes=8) == of_the_cpu(pairs)


@pytest.mark.slow
@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(pairs=st.lists(st.tuples(st.binary(max_size=70), st.binary(max_size=5000)), min_size=1))
def test_any_messages(kernel: ModuleType, pairs: list[Pair]) -> None:
    assert hashed(kernel, pairs) == of_the_cpu(pairs)


@pytest.mark.slow
def test_another_bit_is_another_digest(kernel: ModuleType) -> None:
    data = pattern(3000)
    other = data[:2999] + bytes([data[2999] ^ 1])
    one, two, three = hashed(kernel, [(b"h", data), (b"h", other), (b"g", data)])
    assert len({one, two, three}) == 3


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from provenance.fingerprint.cuda import blake3_kernel

for name, arguments in (
    ("_chunks", "table:*i64 firsts:*i64 headers:*i32 nodes:*i32 messages:i32 bits:i32"),
    ("_parents", "firsts:*i64 nodes:*i32 parents:*i32 level:i32 messages:i32 bits:i32"),
):
    signature = dict(one.split(":") for one in arguments.split()) | {"LANES": "constexpr"}
    source = ASTSource(getattr(blake3_kernel, name), signature, {"LANES": blake3_kernel.LANES})
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32))
    assert compiled.asm["cubin"], name
    print(compiled.asm["ptx"].count(".entry"))
"""


@pytest.mark.slow
def test_a_device_of_capability_8_0_has_its_code(tmp_path: Path) -> None:
    installed("triton", "gpu")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEBUG": "1"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.returncode) == ("1\n1\n", 0), done.stderr
