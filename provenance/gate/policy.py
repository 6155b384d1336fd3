"""The policy of a gate, as values, and at once the grammar of its file (YAML or JSON).

Nothing in it is taken for something else: a key that is not known, one given twice, and one whose
value was left empty (as behind a comment) are refused by name, for a rule that is not read would
pass everything. ``docs/schemas/gate-policy.json`` is made of these types
(``python -m provenance.gate.policy`` prints it).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, field
from msgspec.structs import replace

from provenance.errors import ConfigError, FormatError, InputError
from provenance.fingerprint.tensors import ROOT_ALGORITHM
from provenance.formats.json_text import canonical_json
from provenance.formats.note import VerifierKey
from provenance.settings.approvals import ApprovalRule, TrustedIdentity
from provenance.settings.objects import JsonObject, read_file
from provenance.settings.reading import identities_of
from provenance.settings.section import Count, Section
from provenance.settings.values import NETWORKS
from provenance.verify.trust import PinnedChain, PinnedKey, Trust

_MAX_INT: Final = 2**53 - 1
"""The largest whole number of canonical JSON (RFC 8785)."""
Age = Annotated[
    str,
    Meta(
        pattern="^[1-9][0-9]{0,5}(min|h|d|w)$",
        description="a number and min, h, d or w, such as 30d",
    ),
]
ContentDigest = Annotated[
    str,
    Meta(
        pattern="^((mth-sha256|blake3|sha256|sha3-256):[0-9a-f]{64}|(sha512|blake2b):[0-9a-f]{128})$",
        description="digests as records have them",
    ),
]
Texts = Annotated[tuple[str, ...], Meta(min_length=1, description="a list of strings")]
Digests = Annotated[
    tuple[ContentDigest, ...],
    Meta(description="a list of digests, such as mth-sha256: and 64 hex digits"),
]


class EthereumRule(Section, frozen=True):
    """The run must be anchored on Ethereum."""

    confirmations: Count = 12
    chain: (
        Annotated[int, Meta(ge=1, le=_MAX_INT, description="a chain id, a whole number from 1")]
        | None
    ) = None
    """None: any that the configuration or every release knows."""


class BitcoinRule(Section, frozen=True):
    """The run must be anchored on Bitcoin."""

    confirmations: Count = 6
    chain: Literal["main", "test", "testnet4", "signet", "regtest"] | None = None


class StoredRule(Section, frozen=True):
    """The run's root must be stored there, which proves no time."""


NetworkRule = EthereumRule | BitcoinRule | StoredRule
RULES: Final[Mapping[str, type[Any]]] = {
    "ethereum": EthereumRule, "bitcoin": BitcoinRule, "ipfs": StoredRule, "local": StoredRule,
}  # fmt: skip


class NetworkRules(Section, frozen=True):
    """One network at least."""

    ethereum: EthereumRule | None = None
    bitcoin: BitcoinRule | None = None
    ipfs: StoredRule | None = None
    local: StoredRule | None = None

    def named(self) -> dict[str, NetworkRule]:
        """Those that the policy has."""
        rules = ((name, getattr(self, name)) for name in NETWORKS)
        return {name: rule for name, rule in rules if rule is not None}


class DatasetRule(Section, frozen=True):
    """Digests of data (``body.root`` of a record, or the digest of one of its parts)."""

    required: Digests = ()
    forbidden: Digests = ()
    algorithm: Literal["blake3", "sha256", "sha512", "sha3-256", "blake2b"] = "blake3"
    """Content hash that the digests are of: data digested with another cannot be compared."""

    def problem(self) -> tuple[str, str] | None:
        """The key, and what is the matter with it: a rule that no record can break or hold."""
        if not (self.required or self.forbidden):
            return "required", "missing, and forbidden too; expected a list of digests in one"
        for key, digests in (("required", self.required), ("forbidden", self.forbidden)):
            own = (f"{ROOT_ALGORITHM}:", f"{self.algorithm}:")
            odd = next((text for text in digests if not text.startswith(own)), None)
            if odd is not None:
                return key, f"found {odd[:20]!r}..., expected {' or '.join(own)} (see algorithm)"
        return None


class PrivacyRule(Section, frozen=True):
    """The highest budget that may be spent."""

    epsilon: Annotated[float, Meta(ge=0, le=1e6, description="a number from 0 to 1000000")]
    delta: Annotated[float, Meta(ge=0, lt=1, description="a number from 0 to below 1")]
    recomputed: bool = False
    """Epsilon must be what the recorded steps give, not a number of the trainer's."""


class ParentRule(Section, frozen=True):
    """The run that this one continues: it must be named; where named, it must pass too."""

    named: bool = False
    passes: bool = False


class Policy(Section, frozen=True):
    """What a model must have behind it. Rules that are left out are not held, but that the weights
    are the run's, that the run verifies and has ended, and that nothing else lies beside them."""

    ledger_keys: Texts
    """The keys (name+id+base64) of which one signs the ledger."""
    networks: NetworkRules
    files: Annotated[tuple[str, ...], Meta(description="a list of names or patterns")] = ()
    """Files beside the weights that may be there, such as config.json or assets/*.txt."""
    architecture: Literal["recorded", "unchecked"] = "recorded"
    """unchecked: also a Keras file whose structure nothing was compared with."""
    epoch: Literal["trained", "last", "any"] = "trained"
    """trained: not those before training. last: of the last epoch. any: also before training."""
    parts: bool = False
    """Also a part of a recorded state, such as an adapter."""
    max_anchor_age: Age | None = None
    max_run_age: Age | None = None
    signers: Mapping[str, str | TrustedIdentity] = field(default_factory=dict)
    datasets: DatasetRule | None = None
    privacy: PrivacyRule | None = None
    clean_code: bool = False
    parent: ParentRule = ParentRule()
    approvals: ApprovalRule | None = None
    max_unfinished_runs: (
        Annotated[int, Meta(ge=0, le=_MAX_INT, description="a whole number from 0")] | None
    ) = None

    @property
    def digest(self) -> str:
        """SHA-256 as hex of what the policy says: not of its file's comments and order."""
        return hashlib.sha256(canonical_json(msgspec.to_builtins(self))).hexdigest()

    def trust(self) -> Trust:
        """What a verification for this policy rests on; ``verified`` then takes all checks, and the
        policy's own rules come after."""
        pinned = (
            PinnedChain(name, rule.chain, _BY)
            for name, rule in self.networks.named().items()
            if isinstance(rule, EthereumRule | BitcoinRule) and rule.chain is not None
        )
        keys = tuple(PinnedKey(VerifierKey.from_vkey(key), _BY) for key in self.ledger_keys)
        return Trust(keys, tuple(pinned), trainers=self.signers, require=())


_BY: Final = "the policy"
_SECTIONS: Final[Mapping[str, type[Section]]] = {
    "datasets": DatasetRule, "privacy": PrivacyRule, "parent": ParentRule,
    "approvals": ApprovalRule,
}  # fmt: skip


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises ConfigError: names file and key, what was found and what is
    expected."""
    source = str(path)
    whole = JsonObject(read_file(path, source), "", source)
    _no_empty(whole.raw, "", source)
    raw = whole.raw
    networks, signers = whole.child("networks"), whole.child("signers")
    built: dict[str, Section] = {}
    for name in RULES.keys() & networks.raw.keys():
        built[name] = networks.child(name).read(RULES[name])
    also: dict[str, Any] = {}
    if built or networks.raw:
        also["networks"] = networks.read(NetworkRules, **built)
    for name in _SECTIONS.keys() & raw.keys():
        section = whole.child(name)
        if name == "approvals" and isinstance(section.raw.get("by"), Mapping):
            section.raw["by"] = identities_of(section.child("by"))
        also[name] = section.read(_SECTIONS[name])
    policy = whole.read(Policy, **also)
    for key in policy.ledger_keys:
        try:
            VerifierKey.from_vkey(key)
        except (FormatError, InputError) as error:
            raise whole.fail("ledger_keys", str(error)) from error
    for name, rule in (("datasets", policy.datasets), ("approvals", policy.approvals)):
        if rule is not None and (problem := rule.problem()):
            raise whole.fail(f"{name}.{problem[0]}", problem[1])
    return replace(policy, signers=identities_of(signers))


def _no_empty(value: object, path: str, source: str) -> None:
    """A rule with nothing in it would hold nothing; of a network, ``{}`` is its defaults."""
    if value is None or (value in ({}, []) and not re.fullmatch(r"networks\.\w+", path)):
        found = "nothing" if value is None else json.dumps(value)
        raise ConfigError(path, f"found {found}, expected a value (or no such key)", source)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _no_empty(inner, f"{path}.{key}" if path else str(key), source)


def policy_schema() -> dict[str, Any]:
    """The JSON Schema, draft 2020-12."""
    _, parts = msgspec.json.schema_components([Policy], ref_template="#/$defs/{name}")
    for part in parts.values():
        for schema in part["properties"].values():
            schema.pop("default", None)
            kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
            schema |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
            if schema.get("type") == "array":
                schema["minItems"] = 1
    whole = parts.pop("Policy")
    key = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
    either = {"anyOf": [key, {"$ref": "#/$defs/TrustedIdentity"}]}
    signers = {"type": "object", "minProperties": 1, "additionalProperties": either}
    own = {"$schema": {"type": "string"}, "signers": signers}
    parts["NetworkRules"]["minProperties"] = 1
    parts["DatasetRule"]["anyOf"] = [{"required": [key]} for key in ("required", "forbidden")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "title": "Policy of provenance gate",
        "properties": {**whole["properties"], **own},
        "$defs": parts,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(policy_schema(), indent=2) + "\n")
