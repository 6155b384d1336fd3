"""Fixtures of ``ethereum_chain``: a module that wants them names this file as its plugin."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from provenance.chains.ethereum.interface import deploy
from provenance.settings import EthereumSettings
from tests.support.nodes.ethereum_chain import KEYS, Anvil, Liar, program, start

CI = os.environ.get("CI", "").lower() == "true"


@pytest.fixture(scope="session")
def anvil_program(devnet_server: Callable[[str], object]) -> str:
    if program() is None:
        devnet_server("ethereum")  # installs it, or skips and says how to get it
    found = program()
    if found is None:
        reason = "anvil is not installed; run: provenance devnet install"
        if CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def new_anvil(anvil_program: str) -> Iterator[Callable[..., Anvil]]:
    """Starts an anvil with the given flags."""
    started: list[subprocess.Popen[bytes]] = []

    def launch(*flags: str) -> Anvil:
        process, chain = start([anvil_program, *flags])
        started.append(process)
        return chain

    yield launch
    for process in started:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def anvil_chain(new_anvil: Callable[..., Anvil]) -> Anvil:
    """The module's own: what it leaves there, no other module's senders have sent."""
    return new_anvil("--slots-in-an-epoch", "1")


@pytest.fixture
def chain(anvil_chain: Anvil) -> Iterator[Anvil]:
    """The chain, put back as it was after the test."""
    mark = anvil_chain.call("evm_snapshot")
    yield anvil_chain
    anvil_chain.automine(True)
    anvil_chain.call("anvil_dropAllTransactions")
    anvil_chain.call("evm_revert", mark)
    anvil_chain.call("anvil_setNextBlockBaseFeePerGas", hex(10**9))


@pytest.fixture
def contract(chain: Anvil) -> str:
    """The address of a contract deployed for this test."""
    address, _ = deploy(EthereumSettings(url=chain.url, private_key=KEYS[0]))
    return address


@pytest.fixture
def liar(chain: Anvil) -> Iterator[Liar]:
    proxy = Liar(chain)
    yield proxy
    proxy.close()
