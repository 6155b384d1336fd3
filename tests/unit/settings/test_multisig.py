"""Settings of networks with several owners: one spelling, and refusals with the key's path."""

from __future__ import annotations

from typing import Any

import pytest

from provenance.errors import ConfigError
from provenance.settings import load
from provenance.verify.trust import of_own_deployment, of_settings

ONE, TWO = "0x" + "Bb" * 20, "0x" + "aa" * 20
KEY = "02" + "79be667ef9dcbbac55a06295ce870b07" * 2
ETHEREUM = {"owners": [ONE, TWO], "threshold": 2}


def configuration(multisig: Any = ETHEREUM, **ethereum: Any) -> dict[str, Any]:
    section = {"url": "http://127.0.0.1:8545", "contract_address": TWO, **ethereum}
    return {"blockchain": {"ethereum": {**section, "multisig": multisig}}}


def test_owners_are_lower_case_and_in_order() -> None:
    settings = load({**configuration(), "trust": {"multisig": {"ethereum": ETHEREUM}}})
    assert settings.blockchain.ethereum is not None
    assert settings.blockchain.ethereum.multisig == settings.trust.multisig.ethereum
    assert settings.trust.multisig.ethereum is not None
    assert settings.trust.multisig.ethereum.owners == (TWO, ONE.lower())
    own, readers = of_own_deployment(settings, None), of_settings(settings)
    assert own.owners["ethereum"].quorum == readers.owners["ethereum"].quorum
    assert [own.owners["ethereum"].required, readers.owners["ethereum"].required] == [False, True]
    both = own.also(readers)
    assert both.owners["ethereum"].required
    assert "trust.multisig.ethereum" in both.owners["ethereum"].by
    assert load(configuration(multisig=None)).blockchain.ethereum.multisig is None  # type: ignore[union-attr]  # it has a section


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "twice": (configuration({"owners": [ONE, ONE.lower()], "threshold": 1}),
              r"multisig\.owners: found 2, expected 1 to 16 that differ"),
    "nobody": (configuration({"owners": [], "threshold": 1}), r"owners: found 0"),
    "too many": (configuration({"owners": [f"0x{at:040x}" for at in range(17)], "threshold": 1}),
                 "owners: found 17"),
    "more than all": (configuration({"owners": [ONE], "threshold": 2}),
                      r"threshold: found 2, expected at most 1"),
    "none needed": (configuration({"owners": [ONE], "threshold": 0}), "threshold: found 0"),
    "no address": (configuration({"owners": ["0x12"], "threshold": 1}), "owners: found"),
    "a Bitcoin key": (configuration({"owners": [KEY], "threshold": 1}), "owners: found"),
    "unknown key": (configuration({**ETHEREUM, "k": 1}), r"multisig\.k: unknown key"),
    "a number": (configuration(5), "multisig: found 5, expected an object"),
    "no contract": (configuration(contract_address=None), "contract_address: missing"),
    "no wallet": (
        {"blockchain": {"bitcoin": {"url": "http://127.0.0.1:8332",
                                    "multisig": {"owners": [KEY], "threshold": 1}}}},
        r"blockchain\.bitcoin\.wallet: missing",
    ),
    "an address on Bitcoin": (
        {"trust": {"multisig": {"bitcoin": ETHEREUM}}}, r"trust\.multisig\.bitcoin\.owners",
    ),
    "another network": ({"trust": {"multisig": {"ipfs": ETHEREUM}}}, r"multisig\.ipfs: unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_quorum_is_refused(name: str) -> None:
    document, words = REFUSED[name]
    with pytest.raises(ConfigError, match=words) as refused:
        load(document)
    assert "\n" not in str(refused.value)
