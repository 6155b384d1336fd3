"""Reports of confidential hardware over a run, from this host's kernel and NVIDIA's own tool.

TDX and SEV-SNP by Linux' configfs-tsm (``Documentation/ABI/testing/configfs-tsm``, 6.7), which
answers or gives up by itself (TDX within 30 s); NVIDIA's GPUs by ``nvattest collect-evidence``
(NVIDIA attestation SDK), which asks the driver alone and opens no connection.
"""

from __future__ import annotations

import base64
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from provenance.capture.ship.tools import read_bounded, refuse, run_tool
from provenance.formats.fields import Fields
from provenance.proofs.host.certificates import read_pem
from provenance.proofs.host.evidence import (
    MAX_ITEMS,
    MAX_REPORT_BYTES,
    MAX_REPORT_CERTIFICATES,
    NVIDIA,
    SEV_SNP,
    Report,
)
from provenance.proofs.host.sev_snp import certificates_of

TSM: Final = Path("/sys/kernel/config/tsm/report")
NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
NVATTEST: Final = "nvattest"


def has_gpu() -> bool:
    """Whether an NVIDIA GPU may be asked, or its tool be missed."""
    return NVIDIA_DRIVER.exists() or shutil.which(NVATTEST) is not None


def guest_report(qualifying: bytes) -> Report:
    """Of TDX or SEV-SNP, with the certificates that the host hands out beside it.

    By a folder of its own, as the kernel wants it, whatever one that was killed, or another
    container, left there: ``inblob`` is the 64 bytes of report data.
    Raises OSError, FormatError, or UnavailableError where there is none.
    """
    if not TSM.is_dir():
        refuse(f"no {TSM} here")
    folder, table = TSM / f"provenance-{secrets.token_hex(8)}", b""
    folder.mkdir()
    try:
        (folder / "inblob").write_bytes(qualifying.ljust(64, b"\0"))
        data = read_bounded(folder / "outblob", MAX_REPORT_BYTES)
        provider = (folder / "provider").read_text(encoding="ascii").strip()
        if provider == SEV_SNP:
            with suppress(OSError):  # a host that hands out none has no such file, or an empty one
                table = (folder / "auxblob").read_bytes()[:MAX_REPORT_BYTES]
    finally:
        folder.rmdir()
    return Report(provider, data, certificates_of(data, table) if table else ())


def gpu_reports(qualifying: bytes, until: float) -> tuple[Report, ...]:
    """Of each NVIDIA GPU, in the driver's order. FormatError or UnavailableError, as of
    :func:`~provenance.capture.ship.tools.run_tool`."""
    said = run_tool(
        *(NVATTEST, "--format", "json", "collect-evidence", "--device", "gpu"),
        *("--nonce", qualifying.hex()),
        package="NVIDIA's attestation SDK",
        until=until,
    )
    return tuple(_of_gpus(Fields.parse(said, NVATTEST)))[:MAX_ITEMS]


def _of_gpus(told: Fields) -> Iterator[Report]:
    for each in told.objects("evidences"):
        data = base64.b64decode(each.text("evidence"), validate=True)
        chain = read_pem(base64.b64decode(each.text("certificate")), NVATTEST)
        der = (one.public_bytes(Encoding.DER) for one in chain[:MAX_REPORT_CERTIFICATES])
        yield Report(NVIDIA, data, tuple(der))
