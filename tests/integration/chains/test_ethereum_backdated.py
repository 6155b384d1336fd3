"""A contract of one's own that says "stored in 2015", deployed and asked on a real chain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from provenance.chains.ethereum.contract import HashInfo, call_of, read_info
from provenance.chains.ethereum.interface import EthereumInterface
from provenance.formats.receipt import Receipt
from provenance.settings import EthereumSettings
from provenance.verify.trust import PinnedChain
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.verify_world import OWN, World, story

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = pytest.mark.nodes

LONG_AGO = 1_438_387_200
"""2015-08-01."""
RUNTIME = bytes.fromhex(
    "6001600052"  # word 0: exists
    f"63{LONG_AGO:08x}604052"  # word 2: timestamp
    "6001606052"  # word 3: block 1
    "60a0608052"  # word 4: where the empty metadata begin
    "60c06000f3"  # return six words, whatever was asked
)
CREATION = bytes.fromhex(f"60{len(RUNTIME):02x}600c60003960{len(RUNTIME):02x}6000f3") + RUNTIME
"""CODECOPY of what follows these 12 bytes, and RETURN of it (Ethereum yellow paper, appendix H)."""
Open = Callable[..., EthereumInterface]


@pytest.fixture
def opened(chain: Anvil) -> Iterator[Open]:
    with ExitStack() as stack:

        def make(contract: str | None) -> EthereumInterface:
            network = EthereumInterface(
                EthereumSettings(
                    url=chain.url, private_key=KEYS[0], contract_address=contract, confirmations=1
                )
            )
            stack.callback(network.close)
            return network

        yield make


@pytest.fixture
def backdating(chain: Anvil) -> str:
    """The address of the contract, which answers as it was written to."""
    sender = chain.call("eth_accounts")[0]
    transaction = {"from": sender, "data": "0x" + CREATION.hex(), "gas": hex(200_000)}
    hash = chain.call("eth_sendTransaction", transaction)
    deadline = time.monotonic() + 10
    while (receipt := chain.call("eth_getTransactionReceipt", hash)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    address = str(receipt["contractAddress"])
    call = {"to": address, "data": "0x" + call_of("getHashInfo", b"\x01" * 32).hex()}
    answer = bytes.fromhex(chain.call("eth_call", call, "latest")[2:])
    assert read_info(answer) == HashInfo(True, "0x" + "0" * 40, LONG_AGO, 1, "")
    return address


def test_a_contract_of_ones_own_sets_no_time_and_is_believed_by_nobody(
    backdating: str, contract: str, opened: Open
) -> None:
    stage = World(names=("ethereum",))
    stage.networks["ethereum"] = opened(backdating)  # type: ignore[assignment]
    began = stage.now = time.time()
    stage.ingest(stage.batch(story()))
    deadline = time.monotonic() + 30
    while "after-ethereum" not in {each.name for each in stage.evidence().receipts}:
        assert time.monotonic() < deadline, "the run was not anchored"
        stage.anchor()
    evidence = stage.evidence()
    for file in evidence.receipts:
        anchor = Receipt.decode(file.data).anchor
        assert anchor.block_time is not None
        assert abs(anchor.block_time - began) < 86_400, "the block's time, not the contract's"

    stage.networks["ethereum"] = opened(contract)  # type: ignore[assignment]  # the auditor's own
    official = PinnedChain("ethereum", 31337, "the test", contract.lower())
    report = stage.verify(evidence, trust=replace(OWN, chains=(official,)))
    assert report.outcome == "failed"
    assert any("is not this project's" in finding.problem for finding in report.findings)

    pinned = PinnedChain("ethereum", 31337, "the test", backdating.lower())
    report = stage.verify(evidence, trust=replace(OWN, chains=(pinned,)))
    assert report.outcome == "verified"
    times = [check.time for check in report.networks["ethereum"].values()]
    assert len(times) == 2
    assert all(at is not None and abs(at - began) < 86_400 for at in times)
