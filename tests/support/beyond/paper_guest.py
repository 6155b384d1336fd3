"""A confidential guest and a host with NVIDIA's GPUs on paper: what the shipper asks of either."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provenance.capture.ship import reports
from provenance.proofs.host.evidence import Report
from tests.support.paths import ROOT

NVATTEST = """#!{python}
import base64, json, sys
sys.path.insert(0, {root!r})
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.beyond.paper_tee import gpu_report
assert sys.argv[1:7] == "--format json collect-evidence --device gpu --nonce".split(), sys.argv
report = gpu_report(bytes.fromhex(sys.argv[7]))
chain = [x509.load_der_x509_certificate(each) for each in report.certificates]
pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
told = {{"arch": "HOPPER", "nonce": sys.argv[7], "evidence": base64.b64encode(report.data).decode(),
         "certificate": base64.b64encode(pem).decode()}}
print(json.dumps({{"evidences": [told] * 2, "result_code": 0, "result_message": "Ok"}}))
"""


def in_guest(
    patch: pytest.MonkeyPatch,
    folder: Path,
    reported: Callable[[bytes], Report],
    table: bytes | None = None,
) -> None:
    """Linux' configfs-tsm in a folder: files that appear with a folder, and answer what is written.

    Args:
        reported: The report over 64 bytes of report data.
        table: Of certificates; None has no such file.
    """
    mkdir, write = Path.mkdir, Path.write_bytes

    def made(path: Path) -> None:
        mkdir(path)
        (path / "provider").write_text(reported(bytes(64)).provider + "\n", encoding="ascii")
        if table is not None:
            write(path / "auxblob", table)

    def written(path: Path, data: bytes) -> int:
        if path.name == "inblob" and path.parent.parent == folder:
            assert len(data) == 64
            write(path.parent / "outblob", reported(data).data)
        return write(path, data)

    folder.mkdir()
    patch.setattr(reports, "TSM", folder)
    patch.setattr(Path, "mkdir", lambda path, *a, **k: (
        made(path) if path.parent == folder else mkdir(path, *a, **k)
    ))  # fmt: skip
    patch.setattr(Path, "write_bytes", written)
    rmdir = Path.rmdir
    patch.setattr(Path, "rmdir", lambda path: (
        shutil.rmtree(path) if path.parent == folder else rmdir(path)
    ))  # fmt: skip


def with_gpus(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """``nvattest`` of a host with two GPUs, on the path."""
    tool = folder / "nvattest"
    tool.write_text(NVATTEST.format(python=sys.executable, root=str(ROOT)))
    tool.chmod(0o755)
    patch.setenv("PATH", str(folder))
