"""What producers sign, read by a stranger: written from docs/FORMAT.md, sections 1, 2.3 and 5.

Imports nothing of the program that it checks. Every function raises where something does not
hold.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from formats import LEAVES, canonical, mth, need, parse, sha256, unbase64, unhex, verify_signature

ISSUER = "1.3.6.1.4.1.57264.1.8"
"""Fulcio's extension with the issuer's URL."""

Digests = dict[str, dict[int, bytes]]
"""By producer, then by seq."""
Chains = dict[str, list[bytes]]
"""By producer: c(0), c(1), ..."""


def check_run_id(run: str, public_key: bytes) -> None:
    """Version 8, and 74 bits of the key's hash."""
    number, bits = UUID(run).int, int.from_bytes(sha256(public_key), "big") >> 256 - 74
    need(str(UUID(run)) == run and number >> 76 & 15 == 8 and number >> 62 & 3 == 2, "no run id")
    need((number >> 64 & 0xFFF) << 62 | number & (1 << 62) - 1 == bits, "the run id of another key")


def verify(key: bytes, signature: bytes, context: str, message: bytes) -> None:
    verify_signature(key, signature, context.encode() + b"\0" + message)


def certificate_key(data: bytes, run: str, run_key: bytes, producer: str) -> tuple[bytes, int]:
    """The producer's key and rank."""
    need(len(data) == 164, "a certificate of another size")
    named = UUID(run).bytes + run_key + unhex(producer, 16)
    need(data[:64] == named, "the certificate of another run, key or producer")
    verify(run_key, data[100:], "ml-provenance/producer/v1", data[:100])
    return data[64:96], int.from_bytes(data[96:100], "big")


def check_identity(data: bytes, run: str, run_key: bytes) -> bytes | str:
    """An Ed25519 key; or the name in a Sigstore certificate, whose root is not checked here."""
    context, message = "ml-provenance/identity/v1", UUID(run).bytes + run_key
    if data[:1] == b"\x02":
        return check_bundle(data[1:], context.encode() + b"\0" + message)
    need(len(data) == 97 and data[0] == 1, "no identity that is known here")
    verify(data[1:33], data[33:], context, message)
    return data[1:33]


def check_bundle(data: bytes, message: bytes) -> str:
    need(len(data) <= 16384, "a Sigstore bundle of more than 16 KiB")
    bundle = parse(data)
    need(canonical(bundle) == data, "a Sigstore bundle that is not canonical")
    media = "application/vnd.dev.sigstore.bundle.v0.3+json"
    signed, material = bundle["messageSignature"], bundle["verificationMaterial"]
    need(bundle["mediaType"] == media and len(bundle) == 3, "another kind of Sigstore bundle")
    told = signed["messageDigest"]
    need(told["algorithm"] == "SHA2_256", "another digest")
    need(unbase64(told["digest"]) == sha256(message), "a Sigstore bundle of another message")
    return check_material(material, unbase64(signed["signature"]), message)


def check_material(material: dict[str, Any], signature: bytes, message: bytes) -> str:
    """Whom the certificate names, whose key signed; the certificate is not checked."""
    (entry,) = material["tlogEntries"]
    proof = entry["inclusionProof"]
    text, _, lines = proof["checkpoint"]["envelope"].rpartition("\n\n")
    origin, size = text.split("\n")[:2]
    names = {line.split(" ")[1] for line in lines.splitlines()}
    need(proof["treeSize"] == size, "a checkpoint of another size")
    need(origin.split(" - ")[0] in names, "a checkpoint that its origin did not sign")
    leaf = x509.load_der_x509_certificate(unbase64(material["certificate"]["rawBytes"]))
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey), "no ECDSA key"
    need(key.curve.name == "secp256r1", "no key on P-256")
    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    (name,) = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier), "no name"
    issuer = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(ISSUER)).value
    assert isinstance(issuer, x509.UnrecognizedExtension)
    need(issuer.value[0] == 12, "no issuer")
    at = 3 if issuer.value[1] == 0x81 else 2
    return f"{name.value}, by {issuer.value[at:].decode()}"


def chain(run: str, producer: str, digests: dict[int, bytes]) -> list[bytes]:
    """c(0), c(1), ... up to the first hole."""
    values = [sha256(b"ml-provenance/chain/v1\0" + UUID(run).bytes + unhex(producer, 16))]
    while len(values) - 1 in digests:
        values.append(sha256(values[-1] + digests[len(values) - 1]))
    return values


def chain_at(values: list[bytes], producer: str, count: int) -> bytes:
    """c(count)."""
    missing = len(values) - 1
    need(count <= missing, f"event {missing} of producer {producer} is missing")
    return values[count]


def statement(run: str, producer: str, count: int, value: bytes) -> bytes:
    """What is signed, behind its context."""
    return b"".join((UUID(run).bytes, unhex(producer, 16), count.to_bytes(8, "big"), value))


def producers_node(run: str, chains: Chains, coverage: dict[str, int]) -> bytes:
    """The node ``producers`` of a run tree."""
    entries = []
    for producer, count in sorted(coverage.items()):
        need(type(count) is int and count > 0, "a coverage that is no number from 1")
        value = chain_at(chains.get(producer, [b""]), producer, count)
        body = statement(run, producer, count, value)
        entries.append(sha256(b"ml-provenance/statement/v1\0" + body))
    return bytes(mth(entries))


def without_hole(digests: Digests) -> dict[str, int]:
    """What an ``after`` seal covers."""
    counts = {p: next(n for n in range(len(own) + 1) if n not in own) for p, own in digests.items()}
    return {producer: count for producer, count in counts.items() if count}


def check_producer(run: str, run_key: bytes, told: dict[str, Any], digests: Digests) -> int:
    """Each statement fits the records, and the last covers them all; the producer's rank."""
    producer, own = told["producer"], digests.get(told["producer"], {})
    key, rank = certificate_key(unhex(told["certificate"], 164), run, run_key, producer)
    signed = {item["count"]: unhex(item["signature"], 64) for item in told["statements"]}
    need(len(signed) == len(told["statements"]), "two statements over as many records")
    need(not own or max(own) < max(signed, default=0), f"{producer}: records that nobody signed")
    values = chain(run, producer, own)
    for count, signature in signed.items():
        body = statement(run, producer, count, chain_at(values, producer, count))
        verify(key, signature, "ml-provenance/statement/v1", body)
    return rank


def incomplete(records: list[dict[str, Any]], bodies: dict[str, Any]) -> list[str]:
    """What was announced and is not here (section 11, step 6)."""
    told, seqs, ended, sizes = [], dict[str, set[int]](), set[int](), list[Any]()
    for record in records:
        body, kind, own = bodies.get(record["path"], {}), record["kind"], record["producer"]
        seqs.setdefault(own, set()).add(record["seq"])
        if kind == "gap" and not leaves_events_whole(body):
            told.append(f"{body.get('dropped')} events were dropped")
        elif kind == "run.end":
            ended.add(record["rank"])
            if body.get("events") != record["seq"]:
                told.append(f"{own}: run.end announces {body.get('events')} events before it")
        elif kind == "config":  # the leader's is under the run root, and so comes first
            sizes.append(body.get("world_size"))
    told += [f"{p}: an event is missing" for p, own in seqs.items() if max(own) >= len(own)]
    size = sizes[0] if sizes and type(sizes[0]) is int and 0 < sizes[0] <= 10**6 else 1
    silent = size - sum(0 <= rank < size for rank in ended)
    return told + ([f"{silent} ranks ended unannounced"] if silent > 0 else [])


def leaves_events_whole(gap: dict[str, Any]) -> bool:
    """Whether a gap is of one thing that a caller gave, of a kind that is known."""
    what, dropped = gap.get("what"), gap.get("dropped")
    known = isinstance(what, str) and what in LEAVES | {"weights"}
    return known and type(dropped) is int and dropped == 1


def left_open(records: list[dict[str, Any]], bodies: dict[str, Any]) -> list[str]:
    """That the run is one rank's of a launch, whose others wrote runs of their own, and that
    weights could not be hashed, or something else had no form (section 11, step 6)."""
    own = [bodies.get(r["path"], {}) for r in records if r["kind"] in ("config", "results")]
    launches = [body["launch"] for body in own if isinstance(body.get("launch"), dict)]
    ranks = [f"{launch.get('rank')} of {launch.get('world_size')}" for launch in launches]
    gaps = [bodies.get(r["path"], {}) for r in records if r["kind"] == "gap"]
    lost = sorted({body["what"] for body in gaps if leaves_events_whole(body)})
    told = [f"run.json: the run of rank {rank} of a launch alone" for rank in ranks]
    steps = [bodies.get(r["path"], {}).get("missing") for r in records if r["kind"] == "steps"]
    told += ["run.json: steps were lost"] if any(count is not None for count in steps) else []
    were = {what: "were" if what.endswith("s") else "was" for what in lost}
    return told + [f"run.json: {what} {verb} not recorded" for what, verb in were.items()]


# --- second values -----------------------------------------------------------------------


def msgpack_item(data: bytes) -> tuple[Any, bytes]:
    """A whole number or bytes, and what is behind it."""
    first, rest = data[0], data[1:]
    if first < 0x80:
        return first, rest
    width = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xC4: 1, 0xC5: 2, 0xC6: 4}[first]
    number, rest = int.from_bytes(rest[:width], "big"), rest[width:]
    if first >= 0xCC:
        return number, rest
    need(len(rest) >= number, "bytes end too early")
    return rest[:number], rest[number:]


def signed_range(data: bytes, run: str, producer: str, key: bytes) -> dict[int, bytes]:
    """The digests that a signed range proves, by seq."""
    need(data[:1] == b"\x94", "no signed range")
    items, rest = [], data[1:]
    for _ in range(4):
        item, rest = msgpack_item(rest)
        items.append(item)
    first, value, joined, signature = items
    need(not rest and len(value) == 32 and len(signature) == 64, "no signed range")
    digests = [joined[at : at + 32] for at in range(0, len(joined), 32)]
    need(digests and len(digests[-1]) == 32, "no whole digests")
    for digest in digests:
        value = sha256(value + digest)
    body = statement(run, producer, first + len(digests), value)
    verify(key, signature, "ml-provenance/statement/v1", body)
    return dict(enumerate(digests, first))
