"""Anchors that several owners sign: written from docs/FORMAT.md, section 8.7."""

from __future__ import annotations

from typing import Any

import evidence as chain
from beyond.hidden import G, N, decode, total
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from formats import canonical, need, parse, sha256, unhex

STORE = "727dec84"


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


# --- Ethereum ----------------------------------------------------------------------------


def signer(digest: bytes, signature: bytes) -> bytes:
    """The address behind r, s and v."""
    r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
    need(len(signature) == 65 and signature[64] in (27, 28), "65 bytes with v 27 or 28")
    need(0 < r < N and 0 < s <= N // 2, "r, and the lower s")
    point = decode(bytes([signature[64] - 25]) + signature[:32])
    inverse = pow(r, -1, N)
    hashed = int.from_bytes(digest, "big")
    key = total([(s * inverse % N, point), (-hashed * inverse % N, G)])
    need(key is not None, "a public key")
    assert key is not None
    return bytes(chain.keccak256(word(key[0]) + word(key[1]))[12:])


def digest_of(chain_id: int, contract: bytes, root: bytes, metadata: bytes, deadline: int) -> bytes:
    """What an owner signs (EIP-712)."""
    hashed = chain.keccak256
    kind = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    name, version = hashed(b"MLProvenanceMultisig"), hashed(b"1")
    domain = hashed(kind) + name + version + word(chain_id) + bytes(12) + contract
    kind = b"StoreHash(bytes32 hash,string metadata,uint256 deadline)"
    message = hashed(kind) + root + hashed(metadata) + word(deadline)
    return bytes(hashed(b"\x19\x01" + hashed(domain) + hashed(message)))


def signers_of_call(chain_id: int, contract: bytes, call: bytes) -> list[bytes]:
    """The addresses that signed a call, ascending."""
    need(call[:4].hex() == STORE and len(call) % 32 == 4, "the call of several owners")
    words = [call[at : at + 32] for at in range(4, len(call), 32)]
    root, deadline, size = (
        words[0],
        int.from_bytes(words[2], "big"),
        int.from_bytes(words[4], "big"),
    )
    need(size <= 256, "at most 256 bytes of metadata")
    padded = -(-size // 32)
    metadata = b"".join(words[5 : 5 + padded])[:size]
    count = int.from_bytes(words[5 + padded], "big")
    need(count <= 16, "at most 16 signatures")
    first = 5 + padded + 1 + count
    signatures = [b"".join(words[first + 4 * n + 1 : first + 4 * n + 4])[:65] for n in range(count)]
    again = root + word(128) + word(deadline) + word(128 + 32 + 32 * padded)
    again += word(size) + metadata + bytes(32 * padded - size)
    again += word(count) + b"".join(word(32 * count + 128 * n) for n in range(count))
    again += b"".join(word(65) + signature + bytes(31) for signature in signatures)
    need(bytes.fromhex(STORE) + again == call, "the encoding of Solidity")
    digest = digest_of(chain_id, contract, root, metadata, deadline)
    found = [signer(digest, signature) for signature in signatures]
    need(found == sorted(set(found)), "signers that strictly ascend")
    return found


# --- Bitcoin -----------------------------------------------------------------------------


def transaction(raw: bytes) -> dict[str, Any]:
    """Inputs as outpoint and sequence, outputs as value and script, and the witness."""
    core, _ = chain.stripped(raw)
    read = chain.Reader(core)
    told: dict[str, Any] = {"version": read.take(4), "inputs": [], "outputs": []}
    for _ in range(read.compact()):
        point = read.take(36)
        read.take(read.compact())
        told["inputs"].append((point, read.take(4)))
    for _ in range(read.compact()):
        told["outputs"].append((read.take(8), read.take(read.compact())))
    told |= {"id": chain.double(core), "locktime": read.take(4), "witness": []}
    if core != raw:
        read = chain.Reader(raw[len(core) - 4 + 2 : -4])
        stacks = (
            [read.take(read.compact()) for _ in range(read.compact())] for _ in told["inputs"]
        )
        told["witness"] = list(stacks)
        read.end()
    return told


def sized(data: bytes) -> bytes:
    need(len(data) < 0x10000, "a script of at most 65,535 bytes")
    return (
        bytes([len(data)]) + data if len(data) < 0xFD else b"\xfd" + word(len(data))[:29:-1] + data
    )


def keys_of(script: bytes) -> tuple[int, list[bytes]]:
    """How many of which keys."""
    count = (len(script) - 3) // 34
    keys = [script[1 + 34 * n + 1 : 1 + 34 * n + 34] for n in range(count)]
    again = b"".join(b"\x21" + key for key in keys) + bytes([0x50 + count, 0xAE])
    need(1 <= count <= 16 and script[1:] == again and 0x51 <= script[0] <= 0x50 + count, "a script")
    need(keys == sorted(set(keys)) and all(key[0] in (2, 3) for key in keys), "keys that ascend")
    return script[0] - 0x50, keys


def spend(raw: bytes, spent: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The witness script, and the keys that signed."""
    need(len(spent) <= 64, "at most 64 transactions")
    told, made = transaction(raw), {each["id"]: each for each in map(transaction, spent)}
    need(len(made) == len(spent), "each once")
    need(set(made) == {point[:32] for point, _ in told["inputs"]}, "the transactions it spends")
    points = chain.double(b"".join(point for point, _ in told["inputs"]))
    sequences = chain.double(b"".join(sequence for _, sequence in told["inputs"]))
    outputs = chain.double(b"".join(value + sized(to) for value, to in told["outputs"]))
    found = set()
    for at, (point, sequence) in enumerate(told["inputs"]):
        vout = int.from_bytes(point[32:], "little")
        need(at < len(told["witness"]) and vout < len(made[point[:32]]["outputs"]), "a witness")
        value, to = made[point[:32]]["outputs"][vout]
        empty, *signatures, script = told["witness"][at]
        needed, keys = keys_of(script)
        need(empty == b"" and len(signatures) == needed, "as many signatures as are needed")
        need(to == b"\x00\x20" + sha256(script), "the output of this script")
        digest = chain.double(
            told["version"] + points + sequences + point + sized(script) + value + sequence
            + outputs + told["locktime"] + b"\x01\0\0\0"
        )  # fmt: skip
        left, signed = list(keys), []
        for signature in signatures:
            while left and not signs(left[0], signature, digest):
                left.pop(0)
            need(left, "a signature of one of the keys, in their order")
            signed.append(left.pop(0))
        found.add((script, tuple(signed)))
    need(len(found) == 1, "one script and the same signers for every input")
    script, both = found.pop()
    return script, list(both)


def signs(key: bytes, signature: bytes, digest: bytes) -> bool:
    if signature[-1:] != b"\x01":
        return False
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key)
        public.verify(signature[:-1], digest, ec.ECDSA(Prehashed(SHA256())))
    except (ValueError, InvalidSignature):
        return False
    return True


# --- Receipts ----------------------------------------------------------------------------


def check_bitcoin(anchor: dict[str, Any], evidence: dict[str, Any]) -> None:
    chain.check_bitcoin(anchor, evidence)
    if "spent" in evidence:
        spend(unhex(evidence["transaction"]), [unhex(each) for each in evidence["spent"]])


def check_ethereum(anchor: dict[str, Any], evidence: dict[str, Any]) -> str | None:
    """Returns what is not proven."""
    left = [told for told in [chain.check_ethereum(anchor, evidence)] if told]
    sent = chain.rlp(unhex(evidence["transaction"]["raw"][4:]))
    if evidence["contract"] is not None and sent[7][:4].hex() == STORE:
        signers = signers_of_call(evidence["chain_id"], sent[5], sent[7])
        left.append(f"{len(signers)} owners signed: how many must, a node or your pins say")
    return "; ".join(left) or None


def check_request(raw: bytes, root: bytes) -> list[bytes]:
    """A signing request for Ethereum of the head with this root; who signed it."""
    told = parse(raw)
    need(canonical(told) == raw and told["v"] == 1, "canonical, of version 1")
    keys = {"v", "network", "head", "typed_data", "signatures"}
    need(set(told) == keys and told["network"] == "ethereum", "its keys")
    domain, message = told["typed_data"]["domain"], told["typed_data"]["message"]
    need(message["hash"] == "0x" + root.hex(), "of this root")
    digest = digest_of(
        domain["chainId"], unhex(domain["verifyingContract"][2:]), root,
        message["metadata"].encode(), message["deadline"],
    )  # fmt: skip
    return [signer(digest, unhex(each[2:])) for each in told["signatures"]]


def examples(look: Any) -> None:
    """Those of the document."""
    payload = look.hex("payload")
    contract = bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3")
    digest = digest_of(31337, contract, payload[4:], b"", 1_760_604_800)
    need(look.hex("owners-digest") == digest, "the digest")
    call = look.hex("owners-call")
    signers = signers_of_call(31337, contract, call)
    secrets = (0xA11CE, 0xCA401)
    points = [total([(secret, G)]) for secret in secrets]
    keys = [word(x) + word(y) for x, y in filter(None, points)]
    need(sorted(chain.keccak256(key)[12:] for key in keys) == signers, "the signers")
    need(call[4:36] == payload[4:], "the root")
    need(check_request(look.exact("signing-request"), payload[4:]) == signers, "the request")
    need(parse(look.exact("signing-request"))["head"] == look.text("head"), "the request's head")
    script, signed = spend(look.hex("owners-spend"), [look.hex("owners-coin")])
    need(script == look.hex("owners-script"), "the script")
    need(keys_of(script)[0] == 2, "two are needed")
    need(sorted(bytes([2 + key[63] % 2]) + key[:32] for key in keys) == signed, "the signing keys")
    _, scripts = chain.stripped(look.hex("owners-spend"))
    need(payload in map(chain.pushed, scripts), "the payload that they signed")
