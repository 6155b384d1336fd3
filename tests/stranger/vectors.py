"""Checks the examples of docs/FORMAT.md, section by section, as a stranger works them out.

``python tests/stranger/vectors.py FOLDER`` prints nothing where all of them hold.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import blake3
import evidence as chain
import msgpack
import producers as signed
from beyond import hidden, host, outcomes, owners, timelock
from beyond.approvals import check_approval, open_envelope
from beyond.compliance import check_report
from beyond.cross import check_view
from beyond.lineage import check_examples
from beyond.roll import account_root, check_roll
from beyond.seeds import seed_of
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from formats import (
    Trees,
    canonical,
    check_local,
    content_digest,
    grew,
    included,
    leaf,
    mth,
    need,
    node,
    parse,
    read_note,
    salt,
    seal_marks,
    sha256,
    state_root,
    tensor_digest,
    tensor_header,
    unbase64,
    unhex,
)
from items import element, item_sets
from run_proof import check_run_proof
from shards import check_tensor


class Examples:
    """The files of a folder, by name; ``used`` are those that a check looked at."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.stem: path for path in folder.iterdir()}
        self.used: set[str] = set()

    def text(self, name: str) -> str:
        self.used.add(name)
        return self.files[name].read_text("utf-8")

    def hex(self, name: str) -> bytes:
        return bytes.fromhex("".join(self.text(name).split()))

    def json(self, name: str) -> Any:
        return json.loads(self.text(name))

    def exact(self, name: str) -> bytes:
        """Canonical JSON, without the newline that ends the file."""
        return self.text(name).removesuffix("\n").encode()


def records(look: Examples) -> None:
    keys, record = look.json("keys"), look.exact("record")
    need(canonical(parse(record)) == record, "the record is not canonical")
    need(sha256(record) == look.hex("record-digest"), "the record's digest")
    made = salt(bytes.fromhex(keys["salt_key"]), bytes.fromhex(keys["producer"]), 5)
    need(made == look.hex("salt") == bytes.fromhex(parse(record)["salt"]), "the salt")
    numbers = [0.1, 1.0, -0.0, 1e21, 1e20, 1e-6, 1e-7, 123456789012345680000.0, 2**53 - 1]
    need(canonical(numbers) == look.exact("numbers"), "the numbers")


def spool(look: Examples) -> None:
    keys = look.json("keys")
    run, producer = bytes.fromhex(keys["run"].replace("-", "")), bytes.fromhex(keys["producer"])
    header, frame = look.hex("segment-header"), look.hex("event-frame")
    need(header[:5] == b"MLPS\x01", "the segment's magic")
    for data, what in ((header[5:], "header"), (frame, "event")):
        length, crc = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
        need(length == len(data) - 8 and zlib.crc32(data[8:]) == crc, f"the {what}'s frame")
    need(msgpack.unpackb(header[13:]) == [run, producer, 0, 1, 0], "the segment's header")
    event = msgpack.unpackb(frame[8:])
    fields = {"events": 10, "reason": "finished"}
    need(event == [10, "run.end", None, 0, 1_760_000_010 * 10**9, fields], "the event")


def signatures(look: Examples) -> None:
    keys, told = look.json("keys"), look.json("statement")
    run, producer = keys["run"], keys["producer"]
    seed, run_key = (bytes.fromhex(keys[name]) for name in ("run_key_seed", "run_public_key"))
    signed.check_run_id(run, run_key)
    for name, info in (
        ("salt_key", b"ml-provenance/salt/v1"),
        ("producer_key_seed", b"ml-provenance/producer/v1\0" + bytes.fromhex(producer)),
    ):
        need(HKDF(SHA256(), 32, None, info).derive(seed).hex() == keys[name], f"the {name}")
    for name in ("run", "producer"):
        own = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(keys[f"{name}_key_seed"]))
        public = own.public_key().public_bytes_raw().hex()
        need(public == keys[f"{name}_public_key"], f"the {name}'s key")
    certificate, identity = look.hex("certificate"), look.hex("identity")
    key, rank = signed.certificate_key(certificate, run, run_key, producer)
    need((key.hex(), rank) == (keys["producer_public_key"], 0), "the certificate")
    stands = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(keys["identity_key_seed"]))
    public_key = stands.public_key().public_bytes_raw()
    need(signed.check_identity(identity, run, run_key) == public_key, "the identity")
    made = [sha256(canonical(parse(json.dumps(r, ensure_ascii=False).encode())))
            for r in look.json("run-records")]  # fmt: skip
    need([digest.hex() for digest in made] == told["digests"], "the digests")
    digests = {producer: dict(enumerate(made))}
    chains = signed.chain(run, producer, digests[producer])
    need([value.hex() for value in chains] == told["chains"], "the chains")
    signed.check_producer(
        run, run_key, {**told, "producer": producer, "certificate": certificate.hex()}, digests
    )
    for item in told["statements"]:
        body = signed.statement(run, producer, item["count"], chains[item["count"]])
        digest = sha256(b"ml-provenance/statement/v1\0" + body).hex()
        need(digest == item["digest"], "a statement's digest")
    batch = look.hex("batch")
    need(batch[:5] == b"MLPB\x01", "the batch's magic")
    *head, first, before, records, signature = msgpack.unpackb(batch[5:])
    need((head, first, before) == ([certificate, identity], 9, chains[9]), "the batch's place")
    need([sha256(record) for record in records] == made[9:], "the batch's records")
    need(signature.hex() == told["statements"][1]["signature"], "the batch's signature")
    proven = signed.signed_range(look.hex("signed-range"), run, producer, key)
    need(proven == {9: made[9], 10: made[10]}, "the signed range")
    answer, ledger = look.hex("acknowledgement"), look.text("vkey").strip().split("+", 2)[2]
    need(answer[:40] == (11).to_bytes(8, "big") + chains[11], "the acknowledgement")
    body = bytes.fromhex(run.replace("-", "") + producer) + answer[:40]
    context = "ml-provenance/acknowledgement/v1"
    signed.verify(unbase64(ledger)[1:], answer[40:], context, body)


def contents(look: Examples) -> None:
    data, header = look.hex("tensor-bytes"), tensor_header("w", "F32", [2])
    need(header == look.hex("tensor-header"), "the tensor's header")
    told = look.text("tensor-digest").strip()
    need(tensor_digest("sha256", "w", "F32", [2], data) == told, "the tensor's digest")
    told = look.text("tensor-digest-blake3").strip()
    need(f"blake3:{blake3.blake3(header + data).hexdigest()}" == told, "its digest in blake3")
    state = look.json("state")
    need(state_root(state["tensors"]) == state["root"], "the state's root")
    seven = tensor_digest("sha256", "b", "I64", [], (7).to_bytes(8, "little"))
    need(state["tensors"][0]["digest"] == seven, "a scalar's digest")
    whole = data + bytes.fromhex("0000803e")  # 0.25
    for shard in look.json("shards"):
        first, own = shard["shard"]["offset"][0], shard["shape"]
        part = whole[4 * first : 4 * (first + own[0])]
        need(tensor_digest("sha256", "w", "F32", own, part) == shard["digest"], "a shard's digest")
    need(check_tensor(dict(enumerate(look.json("shards")))) is None, "the shards are the tensor")
    block, array = look.hex("block-header"), look.json("dataset")
    shape = {"dtype": "U8", "name": "0", "nulls": 0, "rows": [0, 3], "shape": [3, 2], "v": 1}
    text = canonical(shape)
    need(block == len(text).to_bytes(4, "little") + text, "the block's header")
    part = mth([sha256(block + bytes(range(6)))])
    need(array["parts"][0]["digest"] == f"mth-sha256:{part.hex()}", "the array's part")
    need(array["root"] == f"mth-sha256:{mth([part]).hex()}", "the array's root")
    items = mth([element(b"hi", 1), element(b"", 0)])
    sequence = look.json("sequence")
    need(sequence["parts"][0]["digest"] == f"mth-sha256:{items.hex()}", "the sequence's part")
    need(sequence["root"] == f"mth-sha256:{mth([items]).hex()}", "the sequence's root")
    file = {"digest": f"sha256:{sha256(b'abc').hex()}", "path": "a/b.txt", "size": 3}
    need(canonical(file) == look.exact("file-leaf"), "the file's leaf")
    need(content_digest("sha3-256", b"") and content_digest("blake2b", b""), "other algorithms")
    check_examples(look.json("parents"), look.json("sharing"))


def trees(look: Examples) -> None:
    told = look.json("merkle")
    entries = [bytes.fromhex(entry) for entry in told["entries"]]
    roots = [bytes.fromhex(root) for root in told["roots"]]
    need([mth(entries[:size]) for size in range(6)] == roots, "the roots")
    proof = [bytes.fromhex(each) for each in told["inclusion"]["proof"]]
    need(included(entries[3], 3, 5, proof)[0] == roots[5], "the inclusion proof")
    path = [bytes.fromhex(each) for each in told["consistency"]["proof"]]
    grew(2, roots[2], 5, roots[5], path)
    frontier = look.hex("frontier")
    need(frontier[:13] == b"MLPF\x01" + (5).to_bytes(8, "big"), "the frontier's head")
    need(frontier[13:] == roots[4] + leaf(entries[4]), "the frontier's nodes")
    need(node(frontier[13:45], frontier[45:]) == roots[5], "the frontier's root")


def runs(look: Examples) -> None:
    bodies, index = {}, []
    for record in look.json("run-records"):
        data = canonical(parse(json.dumps(record, ensure_ascii=False).encode()))
        path = f"{record['kind']}-{record['seq']}"
        index.append({**record, "path": path, "digest": sha256(data).hex()})
        bodies[path] = record["body"]
    marks, told, keys = seal_marks(index, bodies), look.json("run-tree"), look.json("keys")
    digests = {keys["producer"]: {r["seq"]: bytes.fromhex(r["digest"]) for r in index}}

    chains = {p: signed.chain(keys["run"], p, own) for p, own in digests.items()}

    def root_of(trees: Trees, count: int) -> bytes:
        own = signed.producers_node(keys["run"], chains, {keys["producer"]: count})
        return bytes(trees.root(own))

    check = look.json("checkpoint")
    trees = Trees(index, marks)
    coverage = trees.seal("checkpoint", check["epoch"], check["coverage"])
    need(coverage == check["coverage"], "the coverage")
    need(root_of(trees, 7).hex() == check["root"], "the checkpoint's root")
    trees.seal("after", None, {})
    need(check["late"] not in trees.places().values(), "the late record")
    need(root_of(trees, 11).hex() == check["root_after"], "the root behind it")
    trees = Trees(index, marks)
    for phase, count in (("before", 5), ("after", 11)):
        trees.seal(phase, None, {})
        root = root_of(trees, count)
        need(root == look.hex(f"run-root-{phase}"), f"the root {phase}")
    need(told["data"] == trees.tops[0].hex(), "the tree's data")
    need(told[""] == root.hex(), "the tree")
    places = trees.places()
    digest = places["training/epoch/1/metrics/0"]
    check_run_proof(look.json("run-proof"), "training/epoch/1/metrics/0", digest, root.hex())


def heads(look: Examples) -> None:
    vkey, root = look.text("vkey").strip(), bytes.fromhex(look.json("merkle")["roots"][4])
    need(vkey == look.json("keys")["ledger_vkey"], "the verifier key")
    seed = bytes.fromhex(look.json("keys")["ledger_key_seed"])
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    need(unbase64(vkey.split("+", 2)[2]) == b"\x01" + public, "the seed's key")
    for name in ("head", "head-cosigned"):
        need(read_note(look.text(name), vkey) == (4, root), name)
    text, _, lines = look.text("head-cosigned").rpartition("\n\n")
    _, name, encoded = lines.split("\n")[1].split(" ")
    blob = unbase64(encoded)
    witness = Ed25519PrivateKey.from_private_bytes(b"\x04" * 32).public_key()
    body = name.encode() + b"\n\x04" + witness.public_bytes_raw()
    need(sha256(body)[:4] == blob[:4], "the witness's key id")
    time = int.from_bytes(blob[4:12], "big")
    witness.verify(blob[12:], f"cosignature/v1\ntime {time}\n{text}\n".encode())


def forks(look: Examples) -> None:
    raw = look.exact("fork-proof")
    told = parse(raw)
    need(canonical(told) == raw, "the fork proof is not canonical")
    need(told["key"] == look.text("vkey").strip(), "the fork proof's key")
    roots = set()
    for side in told["heads"]:
        size, root = read_note(side["head"], told["key"])
        proof = [unhex(each, 32) for each in side["proof"]]
        grew(told["size"], unhex(side["root"], 32), size, root, proof)
        roots.add(side["root"])
    need(len(told["heads"]) == len(roots) == 2, "the heads agree")


def rolls(look: Examples) -> None:
    account, entries = look.exact("account"), look.json("merkle")["entries"]
    need(canonical(parse(account)) == account, "the account is not canonical")
    need(account_root(parse(account)).hex() == entries[3], "the account's entry")
    stated = look.json("run-records")
    run = {"run": look.json("keys")["run"], "entries": [{"index": 1}, {"index": 3}],
           "records": [{"kind": r["kind"], "path": str(at)} for at, r in enumerate(stated)],
           "producers": []}  # fmt: skip
    bodies = {str(at): r["body"] for at, r in enumerate(stated)}
    heads = {4: bytes.fromhex(look.json("merkle")["roots"][4])}
    check_roll(look.exact("roll"), run, heads, bodies)
    told = look.json("roll")["runs"][1]
    data, config, *_ = (
        r["body"] for r in look.json("run-records") if r["kind"] in ("data.train", "config")
    )
    need(told["data"] == sha256(canonical([data["root"]])).hex(), "the data's digest")
    need(told["config"] == sha256(canonical(config["training"])).hex(), "the configuration's")


def reports(look: Examples) -> None:
    files = {"statement.dsse.json": look.exact("compliance-statement").rstrip(b"\n"),
             "report.html": b"a", "report.json": b"b"}  # fmt: skip
    root, run = look.hex("run-root-after").hex(), look.json("keys")["run"]
    told = {"run": run, "entries": [{"phase": "after", "epoch": None, "root": root}]}
    public = look.json("keys")["identity_key_seed"]
    key = Ed25519PrivateKey.from_private_bytes(unhex(public, 32)).public_key()
    need(check_report(files, told, key.public_bytes_raw().hex()) is None, "the report")


def seeds(look: Examples) -> None:
    raw, keys = look.exact("beacon"), look.json("keys")
    beacon, body = parse(raw), look.json("seed")
    need(canonical(beacon) == raw, "the beacon is not canonical")
    signature = unhex(beacon.pop("signature"), 64)
    key = unbase64(keys["ledger_vkey"].split("+", 2)[2])[1:]
    signed.verify(key, signature, "ml-provenance/beacon/v1", canonical(beacon))
    need(beacon.pop("v") == 1 and body["blocks"] == [beacon], "the seed's block")
    need(seed_of(keys["run"], body) == body["seed"], "the seed")


def approved(look: Examples) -> None:
    root, vkey = bytes.fromhex(look.json("merkle")["roots"][4]), look.text("vkey").strip()
    run = parse(look.exact("receipt"))["run"]
    final = {"phase": "after", "index": 3, "root": look.hex("run-root-after").hex()}
    told = {"run": run, "entries": [final]}
    receipt = {"phase": "after", "anchor": {"network": "ethereum"}}
    receipts = [{**receipt, "evidence": {"chain_id": 11155111}}]
    data, name = look.exact("approval"), "approvals/ethereum-4.json"
    keys, _ = check_approval(name, data, told, {4: root}, receipts, vkey)
    seeds = [Ed25519PrivateKey.from_private_bytes(each * 32) for each in (b"\x02", b"\x03")]
    known = [seed.public_key().public_bytes_raw().hex() for seed in seeds]
    need(sorted(keys) == sorted(known), "the approvers")
    payload, keys, _ = open_envelope(look.exact("trust-approval"))
    stated = parse(payload)
    section = canonical({"trainers": {"research": keys[0]}})
    subject = {"name": "trust", "digest": {"sha256": sha256(section).hex()}}
    need(stated["subject"] == [subject] and canonical(stated) == payload, "the trust section")
    need(stated["predicate"] == {"for": "trust", "until": "2027-01-31"}, "its predicate")


def networks(look: Examples) -> None:
    payload, vkey = look.hex("payload"), look.text("vkey").strip()
    need(payload == b"MLP1" + bytes.fromhex(look.json("merkle")["roots"][4]), "the payload")
    need(chain.pushed(look.hex("op-return")) == payload, "the script")
    selector = chain.keccak256(b"storeHash(bytes32,string)")[:4]
    call = selector + payload[4:] + (64).to_bytes(32, "big") + bytes(32)
    need(look.hex("contract-call") == call, "the calldata")
    need(look.text("cid").strip() == chain.raw_cid(payload), "the CID")
    anchor = {
        "payload": payload.hex(),
        "transaction_id": "local:" + sha256(payload).hex()[:32],
    }
    public = unbase64(vkey.split("+", 2)[2])[1:].hex()
    line = look.exact("local-line").decode()
    anchor |= {"height": 0, "block_hash": sha256(line.encode()).hex(), "block_time": 1_760_000_100}
    check_local(anchor, {"line": line, "public_key": public}, vkey)
    raw = look.exact("receipt")
    receipt = parse(raw)
    need(canonical(receipt) == raw, "the receipt is not canonical")
    need(receipt["head"] == look.text("head"), "the receipt's head")
    need(receipt["anchor"]["payload"] == payload.hex(), "the receipt's payload")
    block = look.hex("bitcoin-merkle-block")
    core, scripts = chain.stripped(look.hex("bitcoin-transaction"))
    need(payload in map(chain.pushed, scripts), "the transaction's payload")
    header, leaves = chain.merkle_block_leaves(block)
    chain.check_work(header, "regtest")
    need(leaves == [chain.double(core)], "the block's transaction")
    root = check_view(look.hex("bitcoin-view-call"), look.hex("bitcoin-view-answer"))
    need(root == payload[4:], "the view's root")
    digest, ends = chain.ots_attestations(look.hex("ots"))
    need(digest == payload[4:], "the proof's digest")
    need(ends == [(header[36:68], bytes.fromhex("0588960d73d71901"), b"\x65")], "the proof's end")
    head, _, checkpoint = look.text("tlog-proof").partition("\n\n")
    first, index, *hashes = head.split("\n")
    need((first, index) == ("c2sp.org/tlog-proof@v1", "index 3"), "the tlog-proof")
    size, root = read_note(checkpoint, vkey)
    proof = [unbase64(each) for each in hashes]
    need(included(look.hex("run-root-after"), 3, size, proof)[0] == root, "the tlog-proof's root")


CHECKS = (records, spool, signatures, contents, item_sets, trees, runs, heads, forks, rolls, seeds,
          reports, approved, networks, hidden.examples, host.examples, owners.examples,
          outcomes.examples, timelock.examples)  # fmt: skip


def check(folder: Path) -> set[str]:
    """Check all; returns the examples that nothing looked at."""
    look = Examples(folder)
    for work in CHECKS:
        work(look)
    return set(look.files) - look.used


if __name__ == "__main__":
    print("".join(f"{name}: not checked\n" for name in sorted(check(Path(sys.argv[1])))), end="")
