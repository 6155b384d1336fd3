"""Bitcoin on a real regtest node: the whole life of an anchor, reorgs, bumps and refusals."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from pathlib import Path

import pytest
from msgspec import structs

from provenance.chains.bitcoin.interface import BitcoinInterface
from provenance.chains.bitcoin.rpc import BitcoinRpc, RpcError
from provenance.errors import (
    FeeTooLowError,
    InsufficientFundsError,
    NetworkUnavailable,
    ProofError,
    RejectedError,
    WrongNetworkError,
)
from provenance.formats.fields import Fields
from provenance.ports.values import Draft, Place, SignedVersion, anchor_payload
from provenance.proofs.bitcoin import (
    CHAINS,
    double_sha256,
    parse_header,
    parse_merkle_block,
    parse_transaction,
    prove_inclusion,
    verify_anchor,
)
from provenance.settings import BitcoinSettings
from tests.support.nodes.regtest import Regtest

pytestmark = pytest.mark.nodes


@pytest.fixture
def regtest(bitcoin_settings: BitcoinSettings) -> Regtest:
    return Regtest(bitcoin_settings)


def payload() -> bytes:
    return anchor_payload(hashlib.sha256(os.urandom(16)).digest())


def signed(network: BitcoinInterface, what: bytes) -> SignedVersion:
    return network.sign(network.draft(what), None)


def locked(settings: BitcoinSettings) -> list[str]:
    coins = BitcoinRpc(settings).read(Fields.objects, "listlockunspent", wallet=True)
    return [f"{coin.raw['txid']}:{coin.raw['vout']}" for coin in coins]


def test_whole_life_from_draft_to_offline_proof(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    network = BitcoinInterface(settings)
    what = payload()
    version = signed(network, what)
    transaction = parse_transaction(version.raw)
    assert locked(settings) == []
    assert network.observe(version).place is Place.UNKNOWN
    assert locked(settings) == version.detail["inputs"]
    assert [o.value for o in transaction.outputs] == [0, version.detail["change"]]
    assert transaction.outputs[1].script[:2] == b"\x00\x14"
    assert 100_000_000 - sum(o.value for o in transaction.outputs) == version.detail["fee"]

    network.broadcast(version)
    network.broadcast(version)
    pending = network.observe(version)
    assert (pending.place, pending.root, pending.depth) == (Place.PENDING, what[4:], 0)

    (block,) = regtest.mine()
    seen = network.observe(version)
    assert (seen.place, seen.block_hash, seen.depth, seen.final) == (Place.MINED, block, 1, False)
    assert seen.root == what[4:]
    network.broadcast(version)  # -27
    regtest.mine(2)
    final = network.observe(version)
    assert (final.depth, final.final) == (3, True)
    assert network.lookup(version.transaction_id) == final

    evidence = network.evidence(version, final)
    raw, proof, header = (
        bytes.fromhex(str(evidence[key])) for key in ("transaction", "merkle_block", "header")
    )
    told = verify_anchor(raw, proof, header, what, "regtest")
    assert told.time == final.block_time
    assert double_sha256(header)[::-1].hex() == block
    with pytest.raises(ProofError, match="payload"):
        verify_anchor(raw, proof, header, payload(), "regtest")
    headers = evidence["headers"]
    assert isinstance(headers, list)
    below = told.hash
    for each in headers:
        assert parse_header(bytes.fromhex(str(each))).previous == below
        below = parse_header(bytes.fromhex(str(each))).hash
    assert len(headers) == settings.confirmations - 1


def test_proof_among_many_transactions(regtest: Regtest) -> None:
    versions = []
    for _ in range(5):
        network = BitcoinInterface(regtest.wallet("0.1"))
        versions.append((network, signed(network, payload())))
    for network, version in versions:
        network.broadcast(version)
    regtest.mine()
    for network, version in versions:
        evidence = network.evidence(version, network.observe(version))
        block = parse_merkle_block(bytes.fromhex(str(evidence["merkle_block"])))
        leaf = prove_inclusion(parse_transaction(version.raw), block)
        value = leaf.txid
        for left, sibling in leaf.path:
            value = double_sha256(sibling + value if left else value + sibling)
        assert value == block.header.merkle_root
        assert block.total == 6


def test_a_reorg_takes_the_confirmation_back_and_the_same_bytes_return(regtest: Regtest) -> None:
    network = BitcoinInterface(regtest.wallet("1.0"))
    version = signed(network, payload())
    network.broadcast(version)
    (block,) = regtest.mine()
    assert network.observe(version).place is Place.MINED
    regtest.rpc.call("invalidateblock", block)
    try:
        assert network.observe(version).place is Place.PENDING
        network.broadcast(version)
        regtest.mine_empty()
        regtest.mine_empty()
        assert network.observe(version).place is Place.PENDING
        with pytest.raises(NetworkUnavailable, match="not in block"):
            network.evidence(
                version, dataclasses.replace(network.observe(version), block_hash=block)
            )
        (again,) = regtest.mine()
    finally:
        regtest.rpc.call("reconsiderblock", block)
    seen = network.observe(version)
    assert (seen.place, seen.block_hash) == (Place.MINED, again)


def test_a_bump_spends_the_same_input_and_either_version_may_be_mined(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0", "1.0")
    network = BitcoinInterface(settings)
    what = payload()
    first = signed(network, what)
    network.broadcast(first)
    second = network.sign(network.draft(what, first), None)
    assert set(first.detail["inputs"]) <= set(second.detail["inputs"])  # type: ignore[arg-type]  # JSON, or known to be there
    assert second.detail["feerate"] >= first.detail["feerate"] * 1.15  # type: ignore[operator]  # JSON, or known to be there
    network.broadcast(second)
    assert network.observe(second).place is Place.PENDING
    assert network.observe(first).place is Place.UNKNOWN
    with pytest.raises(FeeTooLowError):
        network.broadcast(first)
    regtest.mine()
    assert network.observe(second).place is Place.MINED
    lost = network.observe(first)
    assert (lost.place, lost.depth, lost.final) == (Place.CONFLICTED, 1, False)
    with pytest.raises(NetworkUnavailable, match="conflicted"):
        network.broadcast(first)  # -25
    with pytest.raises(NetworkUnavailable, match="psbtbumpfee"):
        network.draft(what, second)
    regtest.mine(2)
    assert network.observe(first).final


def test_a_version_that_was_never_sent_can_be_bumped(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0", "1.0")
    network = BitcoinInterface(settings)
    what = payload()
    first = signed(network, what)
    second = network.sign(network.draft(what, first), None)
    assert set(first.detail["inputs"]) <= set(second.detail["inputs"])  # type: ignore[arg-type]  # JSON, or known to be there
    assert second.fee > first.fee
    network.broadcast(second)
    with pytest.raises(FeeTooLowError):
        network.broadcast(first)


def test_the_cap_stops_fees_and_bumps(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    what = payload()
    version = signed(BitcoinInterface(structs.replace(settings, max_fee_rate=2.0)), what)
    network = BitcoinInterface(structs.replace(settings, max_fee_rate=8.0))
    network.broadcast(version)
    bumped = network.sign(network.draft(what, version), None)
    assert float(str(bumped.detail["feerate"])) <= 8.0
    with pytest.raises(FeeTooLowError, match="max_fee_rate"):
        network.draft(what, bumped)
    with pytest.raises(FeeTooLowError, match="max_fee_rate"):
        BitcoinInterface(structs.replace(settings, max_fee_rate=0.1)).draft(payload())


def test_an_empty_wallet_says_so_and_resumes_when_funded(regtest: Regtest) -> None:
    settings = regtest.wallet()
    network = BitcoinInterface(settings)
    assert network.identity().balance == 0
    with pytest.raises(InsufficientFundsError):
        network.draft(payload())
    address = BitcoinRpc(settings).call("getnewaddress", "", "bech32", wallet=True)
    regtest.bank.call("sendtoaddress", address, "0.5", wallet=True)
    regtest.mine()
    assert network.identity().balance == 50_000_000
    network.broadcast(signed(network, payload()))


def test_a_lock_of_the_operators_own_stands_and_is_named(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    owner = BitcoinRpc(settings)
    (coin,) = owner.read(Fields.objects, "listunspent", wallet=True)
    point = {"txid": coin.raw["txid"], "vout": coin.raw["vout"]}
    owner.call("lockunspent", False, [point], wallet=True)
    with pytest.raises(InsufficientFundsError, match="1 outputs are locked"):
        BitcoinInterface(settings).draft(payload())


def test_a_draft_that_dies_leaves_no_lock(regtest: Regtest) -> None:
    """A lock without an owner would starve a wallet of one coin."""
    settings = regtest.wallet("1.0")
    BitcoinInterface(settings).draft(payload())
    assert locked(settings) == []
    network = BitcoinInterface(settings)
    version = signed(network, payload())
    network.broadcast(version)
    regtest.mine()
    BitcoinInterface(settings).draft(payload())


def test_change_of_an_anchor_that_stayed_locked_is_freed(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    network = BitcoinInterface(settings)
    network.broadcast(signed(network, payload()))
    regtest.mine()
    given_up = signed(network, payload())
    network.observe(given_up)
    assert locked(settings) == given_up.detail["inputs"]
    network.broadcast(signed(BitcoinInterface(settings), payload()))


def test_spent_elsewhere_before_it_was_sent_is_conflicted_not_unknown(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    network = BitcoinInterface(settings)
    version = signed(network, payload())
    owner = BitcoinRpc(settings)
    owner.call("lockunspent", True, wallet=True)  # what a restart does
    address = regtest.bank.call("getnewaddress", wallet=True)
    owner.call("sendtoaddress", address, "0.3", wallet=True)
    with pytest.raises((FeeTooLowError, NetworkUnavailable)):
        network.broadcast(version)
    assert network.observe(version).place is Place.UNKNOWN
    regtest.mine()
    seen = network.observe(version)
    assert (seen.place, seen.depth) == (Place.CONFLICTED, 1)
    with pytest.raises(NetworkUnavailable, match="conflicted"):
        network.broadcast(version)


def test_observing_locks_the_inputs_again(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    network = BitcoinInterface(settings)
    version = signed(network, payload())
    BitcoinRpc(settings).call("lockunspent", True, wallet=True)
    assert locked(settings) == []
    network.observe(version)
    assert locked(settings) == version.detail["inputs"]


def test_a_wallet_that_is_not_loaded_is_loaded_and_a_missing_one_named(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    regtest.rpc.call("unloadwallet", settings.wallet)
    assert BitcoinInterface(settings).identity().balance == 100_000_000
    absent = BitcoinInterface(structs.replace(settings, wallet="not there"))
    with pytest.raises(NetworkUnavailable, match="createwallet"):
        absent.identity()


def test_a_locked_wallet_waits_for_its_passphrase(regtest: Regtest) -> None:
    settings = regtest.wallet("1.0")
    BitcoinRpc(settings).call("encryptwallet", "correct horse", wallet=True)
    with pytest.raises(NetworkUnavailable, match="walletpassphrase"):
        BitcoinInterface(settings).draft(payload())
    assert locked(settings) == []


def test_another_chain_is_refused(bitcoin_settings: BitcoinSettings) -> None:
    network = BitcoinInterface(structs.replace(bitcoin_settings, network="signet"))
    with pytest.raises(WrongNetworkError, match="serves 'regtest', expected 'signet'"):
        network.identity()


def test_identity_names_the_chain(regtest: Regtest) -> None:
    settings = regtest.wallet("0.25")
    identity = BitcoinInterface(settings).identity()
    assert identity.fields["chain"] == "regtest"
    assert identity.fields["genesis"] == CHAINS["regtest"].genesis
    assert identity.fields["transaction_index"] is True
    assert (identity.sender, identity.balance) == (settings.wallet, 25_000_000)


def test_lookup_of_foreign_and_unknown_transactions(regtest: Regtest) -> None:
    address = regtest.bank.call("getnewaddress", wallet=True)
    paid = str(regtest.bank.call("sendtoaddress", address, "0.01", wallet=True))
    network = BitcoinInterface(regtest.settings)
    assert network.lookup(paid).place is Place.PENDING
    regtest.mine()
    seen = network.lookup(paid)
    assert (seen.place, seen.root) == (Place.MINED, None)
    assert network.lookup("00" * 32).place is Place.UNKNOWN
    with pytest.raises(RejectedError, match="64 hex"):
        network.lookup("0x" + "00" * 32)


def test_a_wrong_login_is_named_and_never_shown(
    bitcoin_settings: BitcoinSettings, tmp_path: Path
) -> None:
    settings = structs.replace(
        bitcoin_settings, cookie_file=None, user="someone", password="hunter2/@:#"
    )
    with pytest.raises(NetworkUnavailable, match="refuses the login") as caught:
        BitcoinInterface(settings).identity()
    assert "hunter2" not in str(caught.value) + repr(settings)
    absent = structs.replace(bitcoin_settings, cookie_file=tmp_path / "none")
    with pytest.raises(NetworkUnavailable, match="no cookie file"):
        BitcoinInterface(absent).identity()


def test_a_fresh_cookie_is_read_without_a_restart(
    bitcoin_settings: BitcoinSettings, tmp_path: Path
) -> None:
    cookie = tmp_path / "cookie"
    cookie.write_text("__cookie__:stale")
    network = BitcoinInterface(structs.replace(bitcoin_settings, cookie_file=cookie))
    with pytest.raises(NetworkUnavailable):
        network.identity()
    assert bitcoin_settings.cookie_file is not None
    cookie.write_bytes(bitcoin_settings.cookie_file.read_bytes())
    assert network.identity().fields["chain"] == "regtest"


def test_an_invalid_transaction_is_rejected_for_good(regtest: Regtest) -> None:
    network = BitcoinInterface(regtest.wallet("1.0"))
    version = signed(network, payload())
    broken = bytearray(version.raw)
    broken[-10] ^= 1  # inside the witness: the id stays, the signature does not
    with pytest.raises(RejectedError):
        network.broadcast(dataclasses.replace(version, raw=bytes(broken)))
    with contextlib.suppress(RpcError):
        network.broadcast(version)
    assert network.observe(version).place is Place.PENDING


def test_a_foreign_draft_is_not_signed_as_something_else(regtest: Regtest) -> None:
    network = BitcoinInterface(regtest.wallet("1.0"))
    draft = network.draft(payload())
    with pytest.raises(RejectedError, match="not for its payload"):
        network.sign(Draft("bitcoin", payload(), draft.fields), None)
    with pytest.raises(RejectedError, match="no signed transaction"):
        network.sign(Draft("bitcoin", draft.payload, {}), None)
    with pytest.raises(RejectedError, match="what it replaces"):
        network.draft(payload(), network.sign(draft, None))
