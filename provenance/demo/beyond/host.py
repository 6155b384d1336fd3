"""A software TPM quotes over a run at both ends; a quote of another moment is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from provenance.app.runs import evidence_of
from provenance.app.verify import verify_run
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError, ProofError, ServerMissingError
from provenance.formats.record import Kind, Record
from provenance.proofs.host.evidence import read_host_evidence
from provenance.proofs.host.tpm import check_quote
from provenance.settings.beyond.host import TpmSettings
from provenance.tracker import ProvenanceTracker
from provenance.verify.catalogue import HOST

NEEDS = ()
AK: Final = "0x81010002"
_WITHIN_S = 10.0


def walk(stage: Stage) -> str:
    """A short run on a host with a TPM, or without one where swtpm is not installed."""
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:
        try:
            with software_tpm(Path(folder)) as tpm:
                return _walk(stage, {"ak": tpm.ak, "tcti": tpm.tcti})
        except ServerMissingError as error:
            return f"{_walk(stage, {'ak': AK, 'tcti': 'device:/dev/null'})} ({error})"


def _walk(stage: Stage, tpm: dict[str, str | None]) -> str:
    config = json.loads(stage.config.read_text("utf-8")) | {"host": {"tpm": tpm}}
    tracker = ProvenanceTracker(stage.settings.base_dir, config)
    tracker.store_merkle_on_blockchain_before_training({"epochs": 1})
    tracker.track_epoch(1, {"loss": 0.5})
    tracker.store_merkle_on_blockchain_after_training({"loss": 0.5})
    run = stage.sealed(tracker.run_id)
    report = verify_run(stage.settings, run, offline=True)
    shown = [note.problem for note in report.notices if note.check == HOST]
    if report.findings or not shown:
        raise IntegrityError(f"run {run}: {report.findings or 'no host is there'}")
    for item in evidence_of(stage.settings, run).records:
        if item.kind is Kind.HOST and isinstance(item.decoded, Record):
            quote = read_host_evidence(item.decoded.body).quote
            if quote is not None:
                try:
                    check_quote(quote, bytes(32))
                except ProofError:
                    return f"{shown[0]}; refused as one of another moment"
    return shown[0]


@contextmanager
def software_tpm(folder: Path, scheme: str = "ecc") -> Iterator[TpmSettings]:
    """A software TPM with an attestation key, its state and sockets in ``folder``.

    Args:
        scheme: ``ecc`` (ECDSA on P-256), ``rsassa`` or ``rsapss``.

    Raises:
        ServerMissingError: swtpm or tpm2-tools are not installed, or do not start.
    """
    for program, package in (("swtpm", "swtpm"), ("tpm2_quote", "tpm2-tools")):
        if shutil.which(program) is None:
            raise ServerMissingError(f"{program} is not on PATH: apt install {package}")
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "sock"
    process = subprocess.Popen(
        [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}",
            "--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={socket}.ctrl",
            "--flags", "not-need-init,startup-clear",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + _WITHIN_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise ServerMissingError("swtpm does not start")
            time.sleep(0.01)
        tpm = TpmSettings(ak=AK, tcti=f"swtpm:path={socket}")
        kind, own = ("ecc", "ecdsa") if scheme == "ecc" else ("rsa", scheme)
        for command in (
            f"tpm2_createek -c ek.ctx -G {kind}",
            f"tpm2_createak -C ek.ctx -c ak.ctx -G {kind} -g sha256 -s {own}",
            f"tpm2_evictcontrol -C o -c ak.ctx {AK}",
        ):
            ask_tpm(tpm, folder, *command.split())
            ask_tpm(tpm, folder, "tpm2_flushcontext", "-t")
        yield tpm
    finally:
        process.terminate()
        process.wait(_WITHIN_S)


def ask_tpm(tpm: TpmSettings, folder: Path, *command: str) -> None:
    """Run one of tpm2-tools in ``folder``; ``ServerMissingError`` where it fails."""
    environment = os.environ | {"TPM2TOOLS_TCTI": str(tpm.tcti)}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, timeout=30, check=False
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise ServerMissingError(f"{command[0]}: {reason[-1] if reason else 'failed'}")
