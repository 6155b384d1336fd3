"""The MLProvenanceAttestations contract on a dev chain, and the commands that speak to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from provenance.chains.ethereum.attestations import ATTESTATIONS, Attestations
from provenance.chains.ethereum.interface import deploy
from provenance.chains.ethereum.sender import Sender
from provenance.cli import main
from provenance.errors import InputError, ProvenanceError, RejectedError, WrongNetworkError
from provenance.settings import EthereumSettings
from tests.support import stranger
from tests.support.model_world import deployment
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.verify_world import RUN
from tests.unit.watch.test_again import tamper

pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
pytestmark = [pytest.mark.nodes, pytest.mark.slow]

ROOT, DAY = bytes(range(1, 33)), 86400
OWNER, VERIFIER = (
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
)
"""The accounts of ``KEYS``."""


@pytest.fixture(scope="module")
def address(anvil_chain: Anvil) -> str:
    settings = EthereumSettings(url=anvil_chain.url, private_key=KEYS[0])
    return deploy(settings, "MLProvenanceAttestations")[0]


def opened(chain: Anvil, address: str, key: int = 0) -> Attestations:
    return Attestations(EthereumSettings(url=chain.url, private_key=KEYS[key]), address)


@pytest.fixture
def watched(chain: Anvil, address: str) -> Iterator[tuple[Anvil, Attestations, Attestations]]:
    """The chain, and the contract as the registrar and as the verifier of a registered root."""
    with (
        closing(opened(chain, address)) as registrar,
        closing(opened(chain, address, 1)) as verifier,
    ):
        registrar.register(ROOT, DAY, [VERIFIER])
        yield chain, registrar, verifier


Watched = tuple[Anvil, Attestations, Attestations]


def later(chain: Anvil, seconds: int) -> None:
    chain.call("evm_increaseTime", hex(seconds))
    chain.mine()


def test_a_root_is_on_time_until_its_interval_has_passed(watched: Watched) -> None:
    chain, registrar, verifier = watched
    first = registrar.watched(OWNER, ROOT)
    assert (first.interval, first.last, first.outcome, first.overdue) == (DAY, None, None, False)
    later(chain, DAY + 1)
    assert registrar.watched(OWNER, ROOT).overdue
    verifier.attest(OWNER, ROOT, "verified")
    second = registrar.watched(OWNER, ROOT)
    assert (second.outcome, second.overdue) == ("verified", False)
    assert second.last is not None
    assert second.last > first.registered + DAY
    later(chain, DAY - 60)
    assert not registrar.watched(OWNER, ROOT).overdue
    verifier.attest(OWNER, ROOT, "failed")
    assert registrar.watched(OWNER, ROOT).outcome == "failed"


def test_the_event_names_root_registrar_verifier_outcome_and_time(watched: Watched) -> None:
    chain, _, verifier = watched
    id = verifier.attest(OWNER, ROOT, "anchored")
    [log] = chain.call("eth_getTransactionReceipt", id)["logs"]
    event = b"Attested(bytes32,address,address,uint8,uint64)"
    keccak = stranger.load("evidence").keccak256
    assert log["topics"] == [
        "0x" + keccak(event).hex(),
        "0x" + ROOT.hex(),
        "0x" + OWNER[2:].lower().rjust(64, "0"),
        "0x" + VERIFIER[2:].lower().rjust(64, "0"),
    ]
    block = chain.call("eth_getBlockByHash", log["blockHash"], False)
    outcome, time = int(log["data"][2:66], 16), int(log["data"][66:], 16)
    assert (outcome, time) == (2, int(block["timestamp"], 16))


def test_another_registrar_has_a_register_of_its_own(watched: Watched) -> None:
    _, registrar, verifier = watched
    verifier.register(ROOT, 7, [OWNER])
    assert registrar.watched(VERIFIER, ROOT).interval == 7
    assert registrar.watched(OWNER, ROOT).interval == DAY


REFUSED: dict[str, tuple[Callable[[Attestations, Attestations], object], str]] = {
    "registered again": (
        lambda r, v: r.register(ROOT, 1, [OWNER]),
        "this account registered the root before",
    ),
    "a key that is no verifier's": (
        lambda r, v: r.attest(OWNER, ROOT, "verified"),
        f"{OWNER.lower()} is none of the root's verifiers",
    ),
    "another root": (lambda r, v: v.attest(OWNER, bytes(31) + b"\1", "verified"), "not registered"),
    "another registrar": (lambda r, v: v.attest(VERIFIER, ROOT, "verified"), "not registered"),
    "a root that is zero": (lambda r, v: r.register(bytes(32), 1, [OWNER]), "the root is zero"),
    "read of another root": (lambda r, v: v.watched(OWNER, bytes(32)), "not registered"),
    "an interval of 0": (lambda r, v: r.register(ROOT, 0, [OWNER]), "--every: found 0 s"),
    "no verifier": (lambda r, v: r.register(ROOT, 1, []), "--verifier: found 0 times"),
    "a verifier twice": (lambda r, v: r.register(ROOT, 1, [OWNER] * 2), "that differ"),
    "no address": (lambda r, v: v.attest("0x1", ROOT, "verified"), "--registrar: found '0x1'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why_and_costs_nothing(watched: Watched, name: str) -> None:
    chain, registrar, verifier = watched
    act, line = REFUSED[name]
    before = chain.call("eth_blockNumber")
    with pytest.raises((RejectedError, InputError)) as caught:
        act(registrar, verifier)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert chain.call("eth_blockNumber") == before


def test_another_contract_and_another_chain_are_refused(
    chain: Anvil, contract: str, address: str
) -> None:
    for other in (contract, OWNER):
        with closing(opened(chain, other)) as wrong, pytest.raises(WrongNetworkError) as caught:
            wrong.watched(OWNER, ROOT)
        assert f"lies at {other} on chain id 31337" in str(caught.value)
    settings = EthereumSettings(url=chain.url, private_key=KEYS[0], chain_id=1)
    with closing(Attestations(settings, address)) as wrong, pytest.raises(WrongNetworkError):
        wrong.register(ROOT, DAY, [VERIFIER])


@pytest.mark.parametrize("outcome", [0, 5, 255])
def test_the_contract_itself_takes_no_other_outcome(watched: Watched, outcome: int) -> None:
    chain, _, verifier = watched
    sender = Sender(EthereumSettings(url=chain.url, private_key=KEYS[1]))
    with closing(sender.node), pytest.raises(ProvenanceError):
        sender.transact(
            verifier.address, ATTESTATIONS.call_of("attest", OWNER, ROOT, outcome), 10.0
        )


def test_gas(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/guides/scheduled-verification.md says."""
    chain, registrar, verifier = watched

    def gas(id: str) -> int:
        return int(chain.call("eth_getTransactionReceipt", id)["gasUsed"], 16)

    used = {
        "register, 1 verifier": gas(registrar.register(bytes(31) + b"\2", DAY, [VERIFIER])),
        "register, 3 verifiers": gas(
            registrar.register(bytes(31) + b"\3", DAY, [VERIFIER, OWNER, "0x" + "11" * 20])
        ),
        "first attestation": gas(verifier.attest(OWNER, ROOT, "verified")),
        "a later one": gas(verifier.attest(OWNER, ROOT, "verified")),
    }
    with capsys.disabled():
        print(used, "code", len(ATTESTATIONS.deployed))
    assert used["a later one"] < 40_000
    assert used["register, 1 verifier"] < 90_000


def test_the_commands_register_attest_and_tell(
    chain: Anvil, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    settings = deployment(base)
    configs: list[Path] = []
    for key in KEYS:
        ethereum = {"url": chain.url, "private_key": key}
        configs.append(tmp_path / f"config{len(configs)}.json")
        blockchain = {"networks": ["local"], "ethereum": ethereum}
        configs[-1].write_text(json.dumps({"blockchain": blockchain}))

    def run(config: Path, *words: str) -> tuple[int, dict[str, object]]:
        own = ["--base-dir", str(base), "--config", str(config), "--json"]
        code = main([*words, *own])
        return code, json.loads(capsys.readouterr().out)

    at = ("--contract", address, "--registrar", OWNER)
    code, told = run(configs[1], "attestations", str(RUN), *at)
    assert code == 1
    assert "not registered" in str(told["error"])
    register = ("contract", "register", str(RUN), "--contract", address)
    code, told = run(configs[0], *register, "--every", "3600", "--verifier", VERIFIER)
    assert (code, told["registrar"]) == (0, OWNER)
    code, told = run(configs[0], "attest", str(RUN), *at)
    assert code == 1
    assert "is none of the root's verifiers" in str(told["error"])
    code, told = run(configs[1], "attest", str(RUN), *at)
    assert (code, told["outcome"]) == (0, "verified")
    code, told = run(configs[1], "attestations", str(RUN), *at)
    assert (code, told["overdue"], told["outcome"]) == (0, False, "verified")
    later(chain, 3601)
    code, told = run(configs[1], "attestations", str(RUN), *at)
    assert (code, told["overdue"]) == (1, True)
    tamper(settings)
    code, told = run(configs[1], "attest", str(RUN), *at)
    assert (code, told["outcome"]) == (1, "failed")
    assert structs.asdict(settings)["base_dir"] == base
