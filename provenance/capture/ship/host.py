"""What attests this host, collected by the shipper: into the records of kind ``host``.

The trainer only writes that it starts, or ends (an event with the settings). The shipper puts the
evidence in the event's place as it makes the record, bound to the producer's chain so far
(:mod:`provenance.proofs.host.evidence`), and keeps it in the run's folder, so that shipping again
gives the same bytes. Nothing is raised here: what cannot be had is a line of the record.

The TPM is asked by tpm2-tools, NVIDIA's GPUs by nvattest, each call bounded
(:mod:`provenance.capture.ship.tools`), all of them by :data:`ALL_S`; confidential guests by Linux.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from provenance import files
from provenance.capture.keys import RunKeys
from provenance.capture.ship.reports import NVIDIA_DRIVER, gpu_reports, guest_report, has_gpu
from provenance.capture.ship.tools import read_bounded, run_tool
from provenance.errors import FormatError, ProvenanceError, UnavailableError
from provenance.formats.event import Event
from provenance.formats.json_text import canonical_json
from provenance.log import get_logger
from provenance.proofs.host.certificates import read_pem
from provenance.proofs.host.evidence import (
    MAX_CERTIFICATES,
    MAX_EVENT_LOG_BYTES,
    MAX_ITEMS,
    HostEvidence,
    Quote,
    Report,
    qualifying_data,
    read_host_evidence,
)
from provenance.proofs.host.tpm import ECDSA, RSAPSS, RSASSA, read_public
from provenance.settings.beyond.host import HostSettings, TpmSettings

HOST_FILE: Final = "host."
"""How the names of kept evidence begin, in the run's folder."""
PCRS: Final = (*range(10), *range(11, 15))
"""Firmware, boot loader, kernel and systemd's; not 10, which grows with every file IMA measures."""
SCHEMES: Final = {RSASSA: "rsassa", RSAPSS: "rsapss", ECDSA: "ecdsa"}
CONTAINER: Final = Path("/run/.containerenv")
"""Podman's: of a container with ``--privileged`` it names the image (podman-run(1)). Docker and
Kubernetes tell a process nothing of its image."""
_IMAGE: Final = re.compile(rb'^imageid="?([0-9a-f]{64})"?$', re.MULTILINE)
ALL_S: Final = 20.0
_MAX_KEPT: Final = 8 * 1024 * 1024

_log = get_logger("provenance.shipper")


class HostCollector:
    """Puts evidence into one producer's ``host`` events.

    Args:
        keys: The run's.
        producer: 16 bytes.
        run_dir: The run's folder in the spool.
    """

    def __init__(self, keys: RunKeys, producer: bytes, run_dir: Path) -> None:
        self._keys, self._producer, self._run_dir = keys, producer, run_dir

    def collected(self, event: Event, chain: bytes) -> Event:
        """The event as it leaves this host; ``chain`` is the producer's before it."""
        path = self._run_dir / f"{HOST_FILE}{self._producer.hex()}.{event.seq}"
        phase = "end" if event.fields.get("phase") == "end" else "start"
        with suppress(OSError, ValueError, ProvenanceError):
            kept: dict[str, Any] = json.loads(files.read_private(path, _MAX_KEPT))
            read_host_evidence(kept)
            return replace(event, fields=kept)
        settings = {name: value for name, value in event.fields.items() if name != "phase"}
        try:
            asked = HostSettings.of_event(settings)
        except ValueError as error:
            evidence = HostEvidence(phase, problems=(f"settings: {error}"[:300],))
        else:
            keys = self._keys
            wanted = qualifying_data(phase, keys.run, keys.public_key, chain)
            evidence = collect(asked, phase, wanted)
            try:
                read_host_evidence(evidence.as_json())
            except FormatError as error:  # a host may hand its guest what no record takes
                evidence = HostEvidence(phase, problems=(str(error)[:300],))
        for line in evidence.problems:
            _log.warning("host evidence", run=str(self._keys.run), phase=phase, problem=line)
        body = evidence.as_json()
        try:
            files.replace(path, canonical_json(body))
        except OSError as error:  # the same bytes must come of it whenever it is shipped again
            body = HostEvidence(phase, problems=("no room to keep the evidence",)).as_json()
            _log.warning("host evidence is not kept", reason=error.strerror)
        return replace(event, fields=body)


def collect(settings: HostSettings, phase: str, qualifying: bytes) -> HostEvidence:
    """Everything that the settings ask for, within :data:`ALL_S` seconds; never raises for what a
    machine lacks. ``qualifying``: 32 bytes that a quote and a report are over."""
    until = time.monotonic() + ALL_S
    problems: list[str] = []

    def tried(name: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (ProvenanceError, OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            problems.append(f"{name}: {' '.join(said.split())}"[:300])
            return None

    tpm, log, quote, event_log = settings.tpm, settings.event_log, None, None
    reports: tuple[Report, ...] = ()
    if tpm is not None:
        quote = tried("tpm", lambda: quoted(tpm, qualifying, until))
    if log is not None and phase == "start":
        event_log = tried(f"event log {log}", lambda: read_bounded(log, MAX_EVENT_LOG_BYTES))
    if settings.reports:
        report = tried("report of TDX or SEV-SNP", lambda: guest_report(qualifying))
        reports += () if report is None else (report,)
        if has_gpu():
            reports += tried("report of NVIDIA", lambda: gpu_reports(qualifying, until)) or ()
    return HostEvidence(
        phase=phase,
        quote=quote,
        event_log=event_log,
        reports=reports[:MAX_ITEMS],
        software=tuple(_software(settings).items()),
        problems=tuple(problems),
    )


def quoted(settings: TpmSettings, qualifying: bytes, until: float) -> Quote:
    """A quote over :data:`PCRS`. UnavailableError: no TPM, tool, key or answer in time."""
    names = ("attest", "signature", "pcrs")
    with tempfile.TemporaryDirectory(prefix="provenance-tpm-") as folder:
        paths = [os.path.join(folder, name) for name in names]
        attest, signature, pcrs = paths
        public = os.path.join(folder, "public")
        selection = "sha256:" + ",".join(map(str, PCRS))
        tcti = settings.tcti or os.environ.get("TPM2TOOLS_TCTI", "")
        ask = partial(run_tool, package="tpm2-tools", until=until, TPM2TOOLS_TCTI=tcti)
        ask("tpm2_readpublic", "-c", settings.ak, "-f", "tss", "-o", public)
        key = Path(public).read_bytes()[2:]  # behind TPM2B_PUBLIC's size
        _, (scheme, _) = read_public(key)
        ask(
            "tpm2_quote", "-c", settings.ak, "-l", selection,
            "-q", qualifying.hex(), "-m", attest, "-s", signature, "-o", pcrs, "-F", "values",
            "-g", "sha256", *(["--scheme", SCHEMES[scheme]] if scheme in SCHEMES else ()),
        )  # fmt: skip
        data = {name: Path(path).read_bytes() for name, path in zip(names, paths, strict=True)}
    if len(data["pcrs"]) != 32 * len(PCRS):
        raise UnavailableError(f"tpm2_quote wrote {len(data['pcrs'])} bytes of PCRs")
    certificates: tuple[bytes, ...] = ()
    if settings.certificates is not None:
        found = read_pem(settings.certificates.read_bytes(), "tpm")
        certificates = tuple(each.public_bytes(Encoding.DER) for each in found[:MAX_CERTIFICATES])
    return Quote(
        attest=data["attest"],
        signature=data["signature"],
        public=key,
        pcrs={n: data["pcrs"][32 * at : 32 * at + 32] for at, n in enumerate(PCRS)},
        certificates=certificates,
    )


def _software(settings: HostSettings) -> dict[str, str]:
    """What this machine says of itself; the libraries' versions are in the config record."""
    found = {"kernel": platform.release(), "machine": platform.machine()}
    if settings.image is not None:
        found["image"] = settings.image
    with suppress(OSError, ProvenanceError):
        if match := _IMAGE.search(read_bounded(CONTAINER, 65536)):
            found["podman_image"] = f"sha256:{match[1].decode()}"
    with suppress(OSError, ValueError, IndexError):
        found["nvidia"] = NVIDIA_DRIVER.read_text(encoding="utf-8").splitlines()[0][:200]
    return found
