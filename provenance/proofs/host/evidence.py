"""Evidence of the host that a run's process ran on: the body of a record of kind ``host``.

docs/FORMAT.md, section 2.5. ::

    body = {"phase": "start" | "end", "tpm": {...} | null, "event_log": hex | null,
            "reports": [{"provider": text, "report": hex, "certificates": [hex, ...]}],
            "software": {name: text}, "problems": [text]}
    tpm  = {"attest": hex, "certificates": [hex, ...], "pcrs": {"0": 64 hex, ...},
            "public": hex, "signature": hex}

What a quote is asked for, its qualifying data (``TPM2_Quote``, TPM 2.0 Library Part 3, 18.4), and
a report for, its report data (then 32 zeros, where it has 64 bytes) or nonce::

    SHA-256("ml-provenance/host/v1" 00 || phase (00 start, 01 end) || run (16) || run's key (32)
            || chain of the producer before this record (32))

The chain (section 2.3) has every record before this one, the configuration's among them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from provenance.formats.fields import Fields, Key
from provenance.formats.record import Json

CONTEXT: Final = b"ml-provenance/host/v1\0"
PHASES: Final = ("start", "end")
KEYS: Final = ("phase", "tpm", "event_log", "reports", "software", "problems")
TPM_KEYS: Final = ("attest", "signature", "public", "pcrs", "certificates")
REPORT_KEYS: Final = ("provider", "report", "certificates")
TDX, SEV_SNP, NVIDIA = "tdx_guest", "sev_guest", "nvidia"
"""Providers: two as Linux' configfs-tsm names them, and NVIDIA's GPUs."""
MAX_QUOTE_BYTES: Final = 4096
MAX_CERTIFICATES: Final = 4
MAX_REPORT_CERTIFICATES: Final = 8
MAX_CERTIFICATE_BYTES: Final = 16_384
MAX_EVENT_LOG_BYTES: Final = 1024 * 1024
MAX_REPORT_BYTES: Final = 64 * 1024
MAX_ITEMS: Final = 16
_HEX: Final = re.compile("(?:[0-9a-f]{2})+")
_PROVIDER: Final = re.compile("[a-z0-9_-]{1,32}")
_PCR: Final = re.compile("[0-9]|1[0-9]|2[0-3]")


@dataclass(frozen=True, slots=True)
class Quote:
    """A TPM's quote as it is recorded.

    Attributes:
        attest: TPMS_ATTEST. signature: TPMT_SIGNATURE. public: TPMT_PUBLIC of the key.
        pcrs: Values of the SHA-256 bank, 32 bytes, by number.
        certificates: DER, the key's own first; none where it has none.
    """

    attest: bytes
    signature: bytes
    public: bytes
    pcrs: Mapping[int, bytes]
    certificates: tuple[bytes, ...]

    def as_json(self) -> dict[str, Json]:
        """The field ``tpm``."""
        return {
            "attest": self.attest.hex(),
            "signature": self.signature.hex(),
            "public": self.public.hex(),
            "pcrs": {str(number): value.hex() for number, value in self.pcrs.items()},
            "certificates": [each.hex() for each in self.certificates],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What confidential hardware attests, as it is recorded.

    Attributes:
        provider: :data:`TDX`, :data:`SEV_SNP`, :data:`NVIDIA`, or one that nothing here verifies.
        data: The quote of a TD, the report of an SEV-SNP guest, the measurements of a GPU.
        certificates: DER, of the key that signed, its own first; a TD's quote holds its own.
    """

    provider: str
    data: bytes
    certificates: tuple[bytes, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """An item of ``reports``."""
        certificates: list[Json] = [each.hex() for each in self.certificates]
        return {
            "provider": self.provider,
            "report": self.data.hex(),
            "certificates": certificates,
        }


@dataclass(frozen=True, slots=True)
class HostEvidence:
    """What a record of kind ``host`` states.

    Attributes:
        phase: ``start`` or ``end``.
        quote: None where there is none; ``problems`` says why.
        event_log: The firmware's, as of the boot; None where there is none.
        software: Versions and digests by name: claims.
        problems: What could not be had, a line each.
    """

    phase: str
    quote: Quote | None = None
    event_log: bytes | None = None
    reports: tuple[Report, ...] = ()
    software: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """The record's body."""
        return {
            "phase": self.phase,
            "tpm": None if self.quote is None else self.quote.as_json(),
            "event_log": None if self.event_log is None else self.event_log.hex(),
            "reports": [each.as_json() for each in self.reports],
            "software": dict(self.software),
            "problems": list(self.problems),
        }


def read_host_evidence(body: Mapping[str, Any]) -> HostEvidence:
    """A record's body, or FormatError."""
    top = Fields(body, "body").only(*KEYS)
    reports = top.items("reports", lambda items, at: _report(items.object(at, *REPORT_KEYS)))
    software = top.mapping("software", Fields.text)
    problems = top.items("problems", Fields.text)
    for key, found in (("reports", reports), ("software", software), ("problems", problems)):
        if len(found) > MAX_ITEMS:
            top.refuse(key, f"at most {MAX_ITEMS}")
    return HostEvidence(
        phase=top.one_of("phase", PHASES),
        quote=top.maybe("tpm", lambda key: _quote(top.object(key, *TPM_KEYS))),
        event_log=top.maybe("event_log", lambda key: _bytes(top, key, MAX_EVENT_LOG_BYTES)),
        reports=reports,
        software=tuple(software.items()),
        problems=problems,
    )


def qualifying_data(phase: str, run: UUID, run_key: bytes, chain: bytes) -> bytes:
    """What a quote at ``phase`` is over, 32 bytes; ``run_key`` and ``chain`` have 32 each."""
    at = bytes([PHASES.index(phase)])
    return hashlib.sha256(CONTEXT + at + run.bytes + run_key + chain).digest()


def _quote(fields: Fields) -> Quote:
    pcrs = fields.mapping("pcrs", lambda values, name: values.hex(name, 32))
    if not pcrs or not all(map(_PCR.fullmatch, pcrs)):
        fields.refuse("pcrs", "values by numbers from 0 to 23")
    return Quote(
        attest=_bytes(fields, "attest", MAX_QUOTE_BYTES),
        signature=_bytes(fields, "signature", MAX_QUOTE_BYTES),
        public=_bytes(fields, "public", MAX_QUOTE_BYTES),
        pcrs={int(name): pcrs[name] for name in sorted(pcrs, key=int)},
        certificates=_certificates(fields, MAX_CERTIFICATES),
    )


def _report(fields: Fields) -> Report:
    return Report(
        provider=fields.matching("provider", _PROVIDER, "1 to 32 of a-z, 0-9, _ and -"),
        data=_bytes(fields, "report", MAX_REPORT_BYTES),
        certificates=_certificates(fields, MAX_REPORT_CERTIFICATES),
    )


def _certificates(fields: Fields, most: int) -> tuple[bytes, ...]:
    certificates = fields.items(
        "certificates", lambda values, at: _bytes(values, at, MAX_CERTIFICATE_BYTES)
    )
    if len(certificates) > most:
        fields.refuse("certificates", f"at most {most}")
    return certificates


def _bytes(fields: Fields, key: Key, most: int) -> bytes:
    data = bytes.fromhex(fields.matching(key, _HEX, "bytes as lower-case hex"))
    if len(data) > most:
        fields.refuse(key, f"at most {most} bytes")
    return data
