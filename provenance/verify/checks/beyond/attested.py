"""What one piece of a host's evidence shows once it holds: a TPM's quote, or a report of
confidential hardware; who pinned the key behind it, and what differs from the other end's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any, Final, Protocol

from cryptography import x509

from provenance.errors import ConfigError, FormatError, ProofError
from provenance.proofs.host.certificates import (
    Attested,
    certified_by,
    fingerprint,
    name_of,
    read_pem,
    root_of,
)
from provenance.proofs.host.event_log import FIRMWARE_PCRS, replay
from provenance.proofs.host.evidence import NVIDIA, SEV_SNP, TDX, HostEvidence, Report
from provenance.proofs.host.nvidia import check_nvidia
from provenance.proofs.host.roots import VENDOR_ROOTS
from provenance.proofs.host.sev_snp import check_sev_snp
from provenance.proofs.host.tdx import check_tdx
from provenance.proofs.host.tpm import Attest, check_quote, key_digest, read_public
from provenance.verify.trust import KNOWN, Trust

REPORTS: Final = {TDX: check_tdx, SEV_SNP: check_sev_snp, NVIDIA: check_nvidia}
"""What verifies a report, by its provider."""
NAMES: Final = {TDX: "TDX or SEV-SNP", SEV_SNP: "TDX or SEV-SNP", NVIDIA: "NVIDIA"}


class Shown(Protocol):
    """A piece of evidence that holds."""

    @property
    def line(self) -> str:
        """Whose key it is by, who pinned it, and what it is of."""

    @property
    def pinned(self) -> bool:
        """Whether it is by a key that counts for the reader, or is certified so."""

    def differences(self, end: Any) -> Iterator[str]:
        """From that of its kind at the process's end."""


@dataclass(frozen=True, slots=True)
class Pins:
    """What the reader pins of hosts.

    Attributes:
        roots: The certificates of ``trust.host_roots``.
        vendors: SHA-256 of the vendors' roots that count, as hex.
    """

    trust: Trust
    roots: Sequence[x509.Certificate]
    vendors: frozenset[str]

    def unpinned(self, nobody: str) -> str:
        """Of a key or its certificates that the reader does not pin; ``nobody`` where he pins none
        at all."""
        return "by none of the hosts that you pinned" if self.trust.pins_hosts else nobody

    @classmethod
    def of(cls, trust: Trust) -> Pins:
        """ConfigError: a file of ``trust.host_roots`` has no certificates."""
        found: list[x509.Certificate] = []
        for path in trust.host_roots:
            try:
                found += read_pem(path.read_bytes(), str(path))
            except (OSError, FormatError) as error:
                reason = getattr(error, "strerror", None) or "not certificates in PEM"
                raise ConfigError("trust.host_roots", f"{path}: {reason}") from error
        known = frozenset() if trust.pins_hosts else frozenset(VENDOR_ROOTS)
        return cls(trust, found, known if trust.host_vendors is None else trust.host_vendors)


Check = Callable[[bytes, datetime, Pins], Shown]
"""Of qualifying data and the record's time; raises FormatError, BadSignatureError, ProofError."""


def pieces(host: HostEvidence) -> Iterator[tuple[str, Check | str]]:
    """A record's evidence by name, as its problems name it: what verifies it, or why nothing does.
    A second GPU's is ``report of NVIDIA 2``."""
    if host.quote is not None:
        yield "quote", partial(_quoted, host)
    seen: Counter[str] = Counter()
    for report in host.reports:
        name = f"report of {NAMES.get(report.provider, report.provider)}"
        seen[name] += 1
        why = _unverified(report)
        yield (
            name if seen[name] == 1 else f"{name} {seen[name]}",
            partial(_reported, report) if why is None else f"{len(report.data)} bytes, {why}",
        )


def _unverified(report: Report) -> str | None:
    if report.provider not in REPORTS:
        return "which this release does not verify"
    if report.provider == SEV_SNP and not report.certificates:
        return "not verified: its host handed out no certificates"
    return None


@dataclass(frozen=True, slots=True)
class _Quoted:
    key: str
    pinned: bool
    by: str
    attest: Attest
    pcrs: Mapping[int, bytes]

    @property
    def line(self) -> str:
        return f"TPM key {self.key}, {self.by}, quoted PCRs {_ranges(self.pcrs)}"

    def differences(self, end: _Quoted) -> Iterator[str]:
        if self.key != end.key:
            yield f"another key at the end: {end.key}, {end.by}"
            return
        numbers = self.pcrs.keys() | end.pcrs.keys()
        changed = [n for n in sorted(numbers) if self.pcrs.get(n) != end.pcrs.get(n)]
        if changed:
            yield f"PCR {_ranges(changed)} changed in between"
        first, last = self.attest, end.attest
        if (first.resets, first.restarts) != (last.resets, last.restarts):
            counts = f"{first.resets}.{first.restarts} at the start, {last.resets}.{last.restarts}"
            yield f"the TPM was restarted in between (its counts: {counts} at the end)"
        elif last.clock < first.clock:
            yield f"the TPM's clock went back from {first.clock} to {last.clock} ms"


@dataclass(frozen=True, slots=True)
class _Reported:
    attested: Attested
    pinned: bool
    by: str

    @property
    def line(self) -> str:
        name, value = next(iter(self.attested.measured.items()))
        shown = f", {name} {value.hex()}" if len(value) <= 48 else ""
        return f"{self._device}, {self.by}{shown}"

    @property
    def _device(self) -> str:
        return f"{self.attested.hardware} {self.attested.device[:16]}"

    def differences(self, end: _Reported) -> Iterator[str]:
        if self.attested.device != end.attested.device:
            yield f"another at the end: {end._device}, {end.by}"
            return
        if self.pinned != end.pinned:
            yield f"the end's is {end.by}"
        for name, value in self.attested.measured.items():
            if value != end.attested.measured.get(name):
                yield f"{name} changed in between"


def _quoted(host: HostEvidence, qualifying: bytes, at: datetime, pins: Pins) -> _Quoted:
    quote = host.quote
    assert quote is not None
    attest = check_quote(quote, qualifying)
    digest, (key, _) = key_digest(quote.public), read_public(quote.public)
    root = certified_by(quote.certificates, key, pins.roots, at)
    if host.event_log is not None:
        _replayed(host.event_log, quote.pcrs)
    own, by = digest in pins.trust.host_keys, "pinned: trust.host_keys"
    if not own and root is not None:
        by = f"certified by {root}, pinned: trust.host_roots"
    elif not own:
        by = pins.unpinned("which nobody pinned: any program can make such a key")
    return _Quoted(digest, own or root is not None, by, attest, quote.pcrs)


def _reported(report: Report, qualifying: bytes, at: datetime, pins: Pins) -> _Reported:
    attested = REPORTS[report.provider](report, qualifying)
    root = root_of(attested.chain, pins.roots, at, attested.hardware, pins.vendors)
    if root is None:
        nobody = "by a key whose certificates nobody pinned: any program can make such"
        return _Reported(attested, False, pins.unpinned(nobody))
    by = "pinned: trust.host_roots"
    if fingerprint(root) in pins.vendors:
        by = KNOWN if pins.trust.host_vendors is None else "pinned: trust.host_vendors"
    return _Reported(attested, True, f"certified by {name_of(root)}, {by}")


def _replayed(event_log: bytes, pcrs: Mapping[int, bytes]) -> None:
    """ProofError where the firmware's log gives other values of the firmware's PCRs."""
    values = replay(event_log)
    for number in FIRMWARE_PCRS:
        replayed = values.get(number, bytes(32))
        if number in pcrs and pcrs[number] != replayed:
            found = f"PCR {number} is {pcrs[number].hex()}, its events give {replayed.hex()}"
            raise ProofError(f"event log: {found}")


def _ranges(numbers: Iterable[int]) -> str:
    """``0-9, 11-14``."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda item: item[1] - item[0])
    parts = [[number for _, number in own] for _, own in runs]
    return ", ".join(f"{p[0]}-{p[-1]}" if p[1:] else str(p[0]) for p in parts)
