"""What a reader of evidence pins, and what every release knows by itself.

A verdict is worth what it rests on. A ledger's key, a chain, a contract or a witness counts
where the reader named it, where it is that of the reader's own deployment, or where it is one
of the public chains here. All else is only consistent with itself, and is said to be.

Bitcoin's chains are known by their rules (genesis and proof of work,
:data:`provenance.proofs.bitcoin.CHAINS`), Ethereum's by their ids (go-ethereum
``params/config.go``; a node's genesis is held against them). Bitcoin's old ``test``, whose
blocks were free for years, and ``regtest`` are not among them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, get_args

from provenance.errors import FormatError, InputError
from provenance.formats.cosignature import WitnessKey
from provenance.formats.note import VerifierKey
from provenance.formats.record import Json
from provenance.proofs.bitcoin import CHAINS
from provenance.proofs.multisig import Quorum
from provenance.settings import ApprovalSettings, Settings, TrustedIdentity

KNOWN: Final = "known to this program"
KNOWN_BITCOIN: Final = frozenset({"main", "testnet4", "signet"})
KNOWN_ETHEREUM: Final = {1: "mainnet", 11155111: "Sepolia", 17000: "Holesky", 560048: "Hoodi"}
TEST_ETHEREUM: Final = frozenset({1337, 31337})
"""What dev nodes call themselves: geth ``--dev`` and Ganache, Hardhat and anvil."""
LEAST_WORK: Final = {"main": 64.0}
"""Log2 of the hashes behind a header that is taken for one of the chain today: 2010's blocks of
difficulty 1 took 2^32, any since 2016 more than 2^68."""
Word = Literal[
    "key", "anchor", "ethereum", "bitcoin", "ipfs", "local", "witnesses", "identity", "host"
]
WORDS: Final[tuple[Word, ...]] = get_args(Word)
"""What a reader can require."""
_ADDRESS: Final = re.compile("0x[0-9a-f]{40}")
_BLOCK: Final = re.compile("0x[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Chain:
    """Where an anchor lies, as its receipt's evidence says.

    Attributes:
        id: Ethereum's chain id or Bitcoin's network; None where there is none.
        contract: Ethereum's, lower-case; None for plain calldata.
        work: Log2 of the hashes that the block's header took on average; None but for Bitcoin.
    """

    network: str
    id: int | str | None = None
    contract: str | None = None
    work: float | None = None

    @classmethod
    def of(cls, network: str, evidence: Mapping[str, Json], target: int | None = None) -> Chain:
        """From the evidence of a receipt of ``network``; ``target`` is the header's."""
        if network == "bitcoin":
            work = None if not target else 256 - math.log2(target + 1)
            return cls(network, str(evidence.get("chain"))[:20], None, work)
        if network == "ethereum":
            id, contract = evidence.get("chain_id"), evidence.get("contract")
            at = contract.lower() if isinstance(contract, str) else None
            return cls(network, id if isinstance(id, int) else None, at)
        return cls(network)

    @property
    def label(self) -> str:
        """``bitcoin (regtest)``, ``ethereum (chain 31337, contract 0x...)``."""
        if self.network == "ethereum":
            where = f", contract {self.contract}" if self.contract else ""
            return f"ethereum (chain {self.id}{where})"
        return self.network if self.id is None else f"{self.network} ({self.id})"

    @property
    def remark(self) -> str | None:
        """Why a block of it says little, whoever pinned it; None where that is not known."""
        if self.id in ("regtest", *TEST_ETHEREUM):
            return "a test chain: whoever runs it makes its blocks"
        if self.trivial:
            return f"its block took about 2^{self.work:.0f} hashes, too few for this chain"
        return None

    @property
    def trivial(self) -> bool:
        """Whether the header's work is too little for a block of this chain today."""
        least = LEAST_WORK.get(str(self.id), 0.0)
        return self.network == "bitcoin" and self.work is not None and self.work < least


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A ledger's key, and who pinned it."""

    key: VerifierKey
    by: str


@dataclass(frozen=True, slots=True)
class PinnedChain:
    """A chain, and who pinned it.

    Attributes:
        id: As of :class:`Chain`; None takes whatever chain the reader's own node serves.
        contract: The one that is believed beside those of this project's code.
    """

    network: str
    id: int | str | None
    by: str
    contract: str | None = None


@dataclass(frozen=True, slots=True)
class PinnedOwners:
    """Whose signatures a network's anchors have, and who says so.

    Attributes:
        required: An anchor without them counts for nothing.
    """

    quorum: Quorum
    by: str
    required: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """All that one verification may rest on.

    Attributes:
        witnesses, quorum: Of a head; all of them must have cosigned where ``quorum`` is None.
        trainers: Ed25519 public keys as hex or Sigstore identities, by name.
        sigstore_root: File of the trusted root behind the latter; None takes sigstore's own.
        block_hashes: Ethereum blocks that the reader knows to be the chain's.
        owners: By network.
        approvals: Who approves what is anchored.
        host_keys: Digests of TPMs' attestation keys, as hex.
        host_roots: PEM files of certificates that stand behind others.
        host_vendors: Roots of hardware's vendors that stand behind reports: SHA-256 of the DER,
            as hex; None takes those that every release knows, unless other hosts are pinned.
        own: The evidence is of the reader's own deployment: every anchor that it asked for
            must be there, and nothing more.
        require: What the reader requires instead of the default.
    """

    ledger_keys: tuple[PinnedKey, ...] = ()
    chains: tuple[PinnedChain, ...] = ()
    witnesses: tuple[WitnessKey, ...] = ()
    quorum: int | None = None
    trainers: Mapping[str, str | TrustedIdentity] = field(default_factory=dict)
    sigstore_root: Path | None = None
    block_hashes: frozenset[str] = frozenset()
    owners: Mapping[str, PinnedOwners] = field(default_factory=dict)
    approvals: ApprovalSettings | None = None
    host_keys: frozenset[str] = frozenset()
    host_roots: tuple[Path, ...] = ()
    host_vendors: frozenset[str] | None = None
    own: bool = False
    require: tuple[Word, ...] | None = None

    @property
    def pins_hosts(self) -> bool:
        """Whether the reader names hosts: then evidence by no other counts."""
        return bool(self.host_keys or self.host_roots or self.host_vendors)

    @property
    def own_policy(self) -> bool:
        """Whether ``verified`` takes every anchor that the deployment asked for."""
        return self.own and self.require is None

    @property
    def policy(self) -> tuple[Word, ...]:
        """What ``verified`` takes."""
        if self.require is not None:
            return self.require
        words: tuple[Word, ...] = ("key",) if self.own else ("key", "anchor")
        return (*words, "witnesses") if self.witnesses else words

    @property
    def needed_witnesses(self) -> int:
        """How many must have cosigned a head."""
        return len(self.witnesses) if self.quorum is None else self.quorum

    def key_pinned_by(self, key: VerifierKey | None) -> str | None:
        """Who pinned a ledger's key; None where nobody did."""
        return next((pin.by for pin in self.ledger_keys if pin.key == key), None)

    def chain_pinned_by(
        self, chain: Chain, *, own_node: bool = False, our_code: bool | None = None
    ) -> str | None:
        """Who pinned a chain and, where there is one, its contract; None where nobody did.

        Args:
            own_node: The reader's own node showed the anchor.
            our_code: What that node says of the contract's code at that block.
        """
        if chain.trivial:
            return None
        pins = [
            pin
            for pin in self.chains
            if pin.network == chain.network
            and (pin.id == chain.id or (pin.id is None and own_node))
        ]
        if chain.contract is not None:
            named = next((pin.by for pin in pins if pin.contract == chain.contract), None)
            if named is not None or not our_code:
                return named
        if pins:
            return pins[0].by
        known = KNOWN_BITCOIN if chain.network == "bitcoin" else KNOWN_ETHEREUM
        return KNOWN if chain.id in known else None

    def also(self, other: Trust) -> Trust:
        """The pins of both; witnesses, quorum and requirement of ``other`` where it has some.
        Raises InputError: more witnesses must have cosigned than there are."""
        both = replace(
            self,
            ledger_keys=(*self.ledger_keys, *other.ledger_keys),
            chains=(*self.chains, *other.chains),
            witnesses=other.witnesses or self.witnesses,
            quorum=other.quorum if other.witnesses or other.quorum else self.quorum,
            trainers={**self.trainers, **other.trainers},
            sigstore_root=other.sigstore_root or self.sigstore_root,
            block_hashes=self.block_hashes | other.block_hashes,
            owners={**self.owners, **other.owners, **_required(self), **_required(other)},
            approvals=other.approvals or self.approvals,
            host_keys=self.host_keys | other.host_keys,
            host_roots=(*self.host_roots, *other.host_roots),
            host_vendors=_both(self.host_vendors, other.host_vendors),
            own=self.own or other.own,
            require=self.require if other.require is None else other.require,
        )
        if both.needed_witnesses > len(both.witnesses):
            named = len(both.witnesses)
            raise InputError(f"--witness-quorum: found {both.quorum}, expected at most {named}")
        return both


def _both(a: frozenset[str] | None, b: frozenset[str] | None) -> frozenset[str] | None:
    return a if b is None else b | (a or frozenset())


def _required(trust: Trust) -> dict[str, PinnedOwners]:
    return {name: pin for name, pin in trust.owners.items() if pin.required}


def _owners(sections: object, by: str, *, required: bool) -> dict[str, PinnedOwners]:
    """From ``trust.multisig``, or the ``multisig`` objects of a deployment's networks."""
    pins = {}
    for name in ("ethereum", "bitcoin"):
        found = getattr(sections, name)
        found = found if required or found is None else found.multisig
        if found is not None:
            quorum = Quorum(found.threshold, found.owners)
            pins[name] = PinnedOwners(quorum, by.format(name), required)
    return pins


def of_settings(settings: Settings) -> Trust:
    """What the ``trust`` section pins."""
    section, where = settings.trust, settings.source or "the configuration"
    by = f"trust.chains in {where}"
    return Trust(
        ledger_keys=tuple(
            PinnedKey(VerifierKey.from_vkey(text), f"trust.ledger_keys in {where}")
            for text in section.ledger_keys
        ),
        chains=(
            *(_pinned_ethereum(c.chain_id, by, c.contract) for c in section.chains.ethereum),
            *(PinnedChain("bitcoin", name, by) for name in section.chains.bitcoin),
        ),
        witnesses=witness_keys(section.witnesses.keys),
        quorum=section.witnesses.quorum,
        trainers=section.trainers,
        sigstore_root=section.sigstore_root,
        owners=_owners(section.multisig, f"trust.multisig.{{}} in {where}", required=True),
        approvals=settings.approvals,
        host_keys=frozenset(section.host_keys),
        host_roots=section.host_roots,
        host_vendors=None if section.host_vendors is None else frozenset(section.host_vendors),
    )


def of_own_deployment(settings: Settings, key: VerifierKey | None) -> Trust:
    """What a deployment's own evidence rests on: its key, and the chains that it is set up for."""
    chain, by = settings.blockchain, f"blockchain in {settings.source or 'the configuration'}"
    pins = []
    if (ours := chain.ethereum) is not None:
        pins.append(_pinned_ethereum(ours.chain_id, by, ours.contract_address))
    if chain.bitcoin is not None:
        pins.append(PinnedChain("bitcoin", chain.bitcoin.network, by))
    keys = () if key is None else (PinnedKey(key, "this deployment's ledger.key"),)
    where = f"blockchain.{{}}.multisig in {settings.source or 'the configuration'}"
    owners = _owners(chain, where, required=False)
    return Trust(ledger_keys=keys, chains=tuple(pins), owners=owners, own=True)


def _pinned_ethereum(id: int | None, by: str, contract: str | None) -> PinnedChain:
    return PinnedChain("ethereum", id, by, contract.lower() if contract else None)


def of_options(
    keys: Iterable[str] = (),
    chains: Iterable[str] = (),
    witnesses: Iterable[str] = (),
    quorum: int | None = None,
    block_hashes: Iterable[str] = (),
    require: Iterable[str] = (),
) -> Trust:
    """What the options of ``provenance verify`` pin.

    Args:
        chains: ``ethereum:31337[:0xcontract]``, ``bitcoin:regtest``.
        block_hashes: ``0x`` and 64 hex digits. require: :data:`WORDS`, some with commas.

    Raises:
        InputError: Names the option, what was found and what is expected.
    """
    required = [word.strip() for text in require for word in text.split(",")]
    for word in required:
        if word not in WORDS:
            raise InputError(f"--require: found {word!r}, expected {', '.join(WORDS)}")
    hashes = frozenset(text.lower() for text in block_hashes)
    for text in hashes:
        if not _BLOCK.fullmatch(text):
            raise InputError(f"--block-hash: found {text[:80]!r}, expected 0x and 64 hex digits")
    try:
        pinned = tuple(PinnedKey(VerifierKey.from_vkey(text), "--trust") for text in keys)
    except (FormatError, InputError) as error:
        raise InputError(f"--trust: {error}") from error
    return Trust(
        ledger_keys=pinned,
        chains=tuple(map(_chain, chains)),
        witnesses=witness_keys(witnesses),
        quorum=quorum,
        block_hashes=hashes,
        require=tuple(word for word in WORDS if word in required) or None,
    )


def witness_keys(texts: Iterable[str]) -> tuple[WitnessKey, ...]:
    """The keys that ``--witness`` names, each once; an ``InputError`` where one is none."""
    try:
        return tuple(dict.fromkeys(map(WitnessKey.from_vkey, texts)))
    except (FormatError, InputError) as error:
        raise InputError(f"--witness: {error}") from error


def _chain(text: str) -> PinnedChain:
    network, _, rest = text.partition(":")
    id, _, contract = rest.partition(":")
    if network == "bitcoin" and id in CHAINS and not contract:
        return PinnedChain(network, id, "--trust-chain")
    digits = id.isascii() and id.isdigit() and len(id) < 20
    if network == "ethereum" and digits and (not contract or _ADDRESS.fullmatch(contract.lower())):
        return _pinned_ethereum(int(id), "--trust-chain", contract)
    raise InputError(
        f"--trust-chain: found {text[:80]!r}, expected ethereum:CHAIN_ID[:0xCONTRACT] or "
        f"bitcoin:NETWORK with a network of {', '.join(CHAINS)}"
    )
