"""A software TPM of one's own: swtpm, a folder of state and a socket in it, an attestation key."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from provenance.capture.ship.host import collect
from provenance.proofs.host.evidence import Quote
from provenance.settings.host import HostSettings, TpmSettings
from tests.conftest import missing

AK = "0x81010002"


class Tpm(NamedTuple):
    """A running one; its key quotes under the handle :data:`AK`."""

    folder: Path

    @property
    def settings(self) -> TpmSettings:
        return TpmSettings(ak=AK, tcti=f"swtpm:path={self.folder / 'sock'}")

    def run(self, *command: str) -> None:
        environment = os.environ | {"TPM2TOOLS_TCTI": str(self.settings.tcti)}
        done = subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def extend(self, pcr: int, digest: bytes) -> None:
        self.run("tpm2_pcrextend", f"{pcr}:sha256={digest.hex()}")

    def quote(self, qualifying: bytes) -> Quote:
        found = collect(HostSettings(tpm=self.settings), "start", qualifying)
        assert found.quote is not None, found.problems
        return found.quote


@contextmanager
def started(folder: Path, scheme: str = "ecc") -> Iterator[Tpm]:
    """A TPM whose key is of ``scheme``: ``ecc`` (ECDSA), ``rsassa`` or ``rsapss``."""
    for program, package in (("swtpm", "swtpm"), ("tpm2_quote", "tpm2-tools")):
        if shutil.which(program) is None:
            missing(f"{program} is not on PATH: apt install {package}")
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}",
            "--server", f"type=unixio,path={folder / 'sock'}",
            "--ctrl", f"type=unixio,path={folder / 'sock.ctrl'}",
            "--flags", "not-need-init,startup-clear",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 10
        while not (folder / "sock").exists():
            assert process.poll() is None, "swtpm ended"
            assert time.monotonic() < until, "swtpm does not listen"
            time.sleep(0.01)
        tpm = Tpm(folder)
        kind, own = ("ecc", "ecdsa") if scheme == "ecc" else ("rsa", scheme)
        tpm.run("tpm2_createek", "-c", "ek.ctx", "-G", kind)
        tpm.run("tpm2_flushcontext", "-t")
        tpm.run(
            "tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", kind, "-g", "sha256", "-s", own
        )
        tpm.run("tpm2_flushcontext", "-t")
        tpm.run("tpm2_evictcontrol", "-C", "o", "-c", "ak.ctx", AK)
        tpm.run("tpm2_flushcontext", "-t")
        yield tpm
    finally:
        process.terminate()
        process.wait(10)


def event_log(events: Iterable[tuple[int, bytes]], locality: int | None = None) -> bytes:
    """A crypto-agile log of a SHA-256 bank: PCR and data of each event, extended as its digest."""
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, 1)
    spec += struct.pack("<HHB", 0x000B, 32, 0)
    log = struct.pack("<II20xI", 0, 3, len(spec)) + spec
    if locality is not None:
        data = b"StartupLocality\0" + bytes([locality])
        log += struct.pack("<IIIH", 0, 3, 1, 0x000B) + bytes(32) + struct.pack("<I", 17) + data
    for pcr, data in events:
        log += struct.pack("<IIIH", pcr, 13, 1, 0x000B) + hashlib.sha256(data).digest()
        log += struct.pack("<I", len(data)) + data
    return log
