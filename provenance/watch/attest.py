"""Attestations of a run on Ethereum: registered, made and read
(:mod:`provenance.chains.ethereum.attestations`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from provenance.app.report import unreachable
from provenance.app.verify import verify_run
from provenance.errors import ConfigError, InputError, MissingExtraError, NetworkUnavailable
from provenance.settings import Settings

if TYPE_CHECKING:
    from provenance.chains.ethereum.attestations import Attestations, Watched


@contextmanager
def _contract(settings: Settings, address: str) -> Iterator[Attestations]:
    try:
        from provenance.chains.ethereum.attestations import Attestations
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "web3", "ethereum") from error
    ethereum = settings.blockchain.ethereum
    if ethereum is None:
        problem = "missing, expected an object with url"
        raise ConfigError("blockchain.ethereum", problem, settings.source)
    contract = Attestations(ethereum, address)
    try:
        yield contract
    finally:
        contract.close()


def root_of(settings: Settings, run: str) -> bytes:
    """The run root of a run's newest seal, 32 bytes, once the run was verified offline. Raises
    InputError: it has no seal, or does not hold."""
    report = verify_run(settings, run, offline=True)
    if report.findings:
        first = report.findings[0]
        raise InputError(f"run {report.run}: {first.subject}: {first.problem}")
    if not report.seals:
        raise InputError(f"run {report.run}: has no seal yet")
    return report.seals[-1].root


def register(
    settings: Settings, run: str, address: str, interval: int, verifiers: Sequence[str]
) -> tuple[str, str]:
    """Register a run's newest root with the configured key, once and for all: ``(registrar,
    transaction id)``. Raises as :meth:`Attestations.register`."""
    root = root_of(settings, run)
    with _contract(settings, address) as contract:
        return contract.sender(), contract.register(root, interval, verifiers)


def attest(settings: Settings, run: str, address: str, registrar: str) -> tuple[str, str]:
    """Verify a run on its networks and attest how it comes out: ``(outcome, transaction id)``.

    Raises:
        NetworkUnavailable: A network did not answer: nothing is attested.
        InputError: The run has no seal. RejectedError: The contract refuses; says why.
    """
    report = verify_run(settings, run)
    if silent := unreachable(report):
        raise NetworkUnavailable(f"{', '.join(silent)}: no answer, so nothing is attested")
    if not report.seals:
        raise InputError(f"run {report.run}: has no seal yet")
    with _contract(settings, address) as contract:
        id = contract.attest(registrar, report.seals[-1].root, report.outcome)
    return report.outcome, id


def attestations(settings: Settings, run: str, address: str, registrar: str) -> Watched:
    """What the contract says of a run's newest root. Raises as :meth:`Attestations.watched`."""
    root = root_of(settings, run)
    with _contract(settings, address) as contract:
        return contract.watched(registrar, root)
