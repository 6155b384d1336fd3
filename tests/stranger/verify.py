"""A stranger's verifier of evidence bundles: written from docs/FORMAT.md, from nothing else.

``python tests/stranger/verify.py BUNDLE [--key VKEY] [--parent BUNDLE] ...`` reads a folder or a
zip and prints one line for each thing that does not hold, each with the name of a file; exit status
1 if there is one. Of a parent it prints what the two share. Standard library and ``cryptography``
only. It asks no network. With ``--report FOLDER`` and ``--signer KEY`` it also checks a compliance
report about the run.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import evidence as chain
import producers as signed
from beyond import approvals, hidden, owners
from beyond.compliance import check_report, report_files
from beyond.cross import agreement
from beyond.host import check_hosts
from beyond.lineage import check_parent
from beyond.outcomes import check_outcomes
from beyond.roll import check_roll
from beyond.seeds import check_seeds
from beyond.timelock import check_lock
from budgets import check_budgets
from files import KEYS, NAME, RECEIPT, TREE, WRONG, Files, check_index, load, no_flags, seal_label
from formats import (
    CONTROL,
    LEAVES,
    Trees,
    canonical,
    check_local,
    grew,
    hashes_of,
    included,
    lines,
    need,
    parse,
    read_note,
    seal_marks,
    sha256,
    unbase64,
    unhex,
)
from items import check_set
from shards import check_epochs, check_state
from statement import check_statement

# --- the bundle (section 9) --------------------------------------------------------------


class Bundle:
    """``problems`` holds one line for each thing that does not hold."""

    def __init__(self, files: Files, key: str | None = None) -> None:
        self.files = files
        self.problems: list[str] = []
        self.unproven: list[str] = []
        self.heads: dict[int, bytes] = {}
        self.headers: dict[int, set[bytes]] = {}
        self.anchored: set[str] = set()
        self.receipts: list[dict[str, Any]] = []
        self.check("manifest.json", self._manifest)
        self.run = self.check("run.json", lambda: parse(files["run.json"]))
        if not isinstance(self.run, dict):
            self.problems.append("run.json: is no object")
            return
        own = files.get("ledger.vkey", b"").decode("utf-8", "replace").removesuffix("\n") or None
        if key and own and key != own:
            self.problems.append(f"ledger.vkey: is {own}")
        self.key = key or own
        self.bodies: dict[str, Any] = {}
        self.known = {"manifest.json", "SHA256SUMS", "README.txt", "run.json", "ledger.vkey"}
        self.digests: signed.Digests = {}
        self.check("run.json", self._evidence)
        self.check("run.json", self._anchors)
        for name in sorted(files):
            if name.endswith(".ots"):
                self.check(name, partial(self._ots, name))
            elif re.fullmatch(r"heads/[0-9]+\.root", name):
                self.check(name, partial(self._head_root, name))
            elif name.startswith("tlog/"):
                self.check(name, partial(self._tlog_proof, name))
            elif name in ("ledger/runs.json", "ledger/outcomes.json", "timelock.json"):
                self.check(name, partial(self._beyond, name))
            elif name == "statement/run.intoto.json":
                self.check(name, partial(self._statement, name))
            elif re.fullmatch(r"proofs/[^/]+\.json", name):
                self.check(name, partial(self._proof, name))
            elif approvals.NAME.fullmatch(name):
                self.check(name, partial(self._approval, name))
            elif name not in self.known:
                self.problems.append(f"{name}: run.json does not know it")

    def _evidence(self) -> None:
        self.check("run.json", partial(check_index, self.run))
        self.check("run.json", self._signatures)
        self.check("run.json", self._equivocations)
        for record in self.run["records"]:
            self.check(f"records/{record.get('path')}.json", partial(self._record, record))
        self.check("run.json", self._trees)
        for size in self.run["heads"]:
            self.check(f"heads/{size}.note", partial(self._head, size))
        self.check("run.json", self._ledger)
        for name in self.run["receipts"]:
            self.check(f"receipts/{name}.json", partial(self._receipt, f"receipts/{name}.json"))

    def check(self, name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except WRONG as error:
            told = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
            self.problems.append(f"{name}: {told}")
            return None

    def _manifest(self) -> None:
        manifest = parse(self.files["manifest.json"])
        need(manifest["version"] == 1, "another version")
        sums = {"manifest.json": sha256(self.files["manifest.json"]).hex()}
        for item in manifest["files"]:
            name, data = item["path"], self.files.get(item["path"])
            sums[name] = item["sha256"]
            if data is None:
                self.problems.append(f"{name}: is missing")
            elif (sha256(data).hex(), len(data)) != (item["sha256"], item["size"]):
                self.problems.append(f"{name}: is not as the manifest says")
            need(NAME.fullmatch(name), f"{name!r} is no name that a bundle has")
        for name in sorted(set(self.files) - set(sums) - {"SHA256SUMS"}):
            self.problems.append(f"{name}: is not in the manifest")
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
        if self.files.get("SHA256SUMS") != text.encode():
            self.problems.append("SHA256SUMS: does not fit manifest.json")
        run = parse(self.files["run.json"])
        for name, document in (("manifest.json", manifest), ("run.json", run)):
            need(self.files[name] == lines(document), f"{name} is not in its form")
        need(run["version"] == 1, "run.json is of another version")
        told = {**run, "statements": [s for own in run["producers"] for s in own["statements"]]}
        for key, names in KEYS.items():
            need(all(set(item) == set(names.split()) for item in told[key]), f"other keys in {key}")
        roots = {seal_label(entry): entry["root"] for entry in run["entries"]}
        need((manifest["run"], manifest["roots"]) == (run["run"], roots), "differs from run.json")

    def _record(self, index: dict[str, Any]) -> None:
        path = index["path"]
        self.known.add(f"records/{path}.json")
        need(isinstance(index["withheld"], bool), "neither withheld nor not")
        numbers = [index[key] for key in ("epoch", "rank", "seq") if index[key] is not None]
        need({type(number) for number in numbers} <= {int}, "no whole numbers")
        if index["withheld"]:
            need(index["kind"] not in CONTROL, "a control record is never withheld")
            need(f"records/{path}.json" not in self.files, "is here, and said to be withheld")
            self.unproven.append(f"records/{path}.json: withheld")
            return
        data = self.files[f"records/{path}.json"]
        need(len(data) <= 8 << 20 and sha256(data).hex() == index["digest"], "another digest")
        record = parse(data)
        need(canonical(record) == data, "not in canonical form")
        names = {"v", "run", "kind", "epoch", "rank", "producer", "seq", "ts", "salt", "body"}
        need(set(record) == names and record["v"] == 1, "other fields than a record's")
        need(record["run"] == self.run["run"], "is of another run")
        for name in ("kind", "epoch", "rank", "producer", "seq", "ts"):
            need(canonical(record[name]) == canonical(index[name]), "another place than run.json's")
        need(record["kind"] in LEAVES | CONTROL, "an unknown kind")
        unhex(record["producer"], 16), unhex(record["salt"], 32)
        key = record["body"].get("public_key")
        need(record["kind"] != "config" or key == self.run["public_key"], "another public key")
        self.bodies[path] = record["body"]
        check_state(record)
        check_set(record)

    def _signatures(self) -> None:
        run, key = self.run["run"], unhex(self.run["public_key"], 32)
        signed.check_run_id(run, key)
        ranks: dict[str, int] = {}
        for record in self.run["records"]:
            own = self.digests.setdefault(record["producer"], {})
            need(record["seq"] not in own, "two records of one producer and seq")
            own[record["seq"]] = unhex(record["digest"], 32)
        for told in self.run["producers"]:
            need(told["producer"] not in ranks, "a producer twice")
            ranks[told["producer"]] = signed.check_producer(run, key, told, self.digests)
        for record in self.run["records"]:
            need(ranks.get(record["producer"]) == record["rank"], "a rank that nobody certified")
        if self.run["identity"] is not None:
            who = signed.check_identity(bytes.fromhex(self.run["identity"]), run, key)
            if isinstance(who, str):
                told = f"run.json: identity {who}: the root of its Sigstore certificate"
                self.unproven.append(told)

    def _equivocations(self) -> None:
        run, key = self.run["run"], unhex(self.run["public_key"], 32)
        certificates = {told["producer"]: told["certificate"] for told in self.run["producers"]}
        for other in self.run["equivocations"]:
            seq, producer = other["seq"], other["producer"]
            certificate = bytes.fromhex(certificates[producer])
            own = signed.certificate_key(certificate, run, key, producer)[0]
            proven = signed.signed_range(bytes.fromhex(other["proof"]), run, producer, own)
            need(proven.get(seq) == unhex(other["digest"], 32), "the proof of another value")
            name = f"equivocations/{producer}-{seq}-{other['digest'][:16]}.json"
            self.known.add(name)
            need(not (other["withheld"] and name in self.files), f"{name} is here, and withheld")
            same = other["withheld"] or sha256(self.files[name]).hex() == other["digest"]
            need(same, f"{name} has another digest")

    def _trees(self) -> None:
        records, entries = self.run["records"], self.run["entries"]
        need([e["index"] for e in entries] == sorted(e["index"] for e in entries), "entries")
        marks = seal_marks(records, self.bodies)
        trees = Trees(records, marks)
        chains = {p: signed.chain(self.run["run"], p, own) for p, own in self.digests.items()}
        for entry in entries:
            stated, label = entry["coverage"], seal_label(entry)
            need((entry["phase"] == "checkpoint") == (entry["epoch"] is not None), "its epoch")
            found = trees.seal(entry["phase"], entry["epoch"], stated)
            if entry["phase"] == "after":
                found = signed.without_hole(self.digests)
            elif entry["phase"] == "before":
                leader = next((mark for mark in marks if mark[0] == "before"), None)
                need(leader or not stated, "nobody leads the run")
                most = {leader[2]: leader[3] + 1} if leader else {}
                found = {p: min(n, most.get(p, 0)) for p, n in stated.items()}
                self.unproven += [f"run.json: events before {p} marked"
                                  for p, n in most.items() if stated.get(p, 0) < n]  # fmt: skip
            need(stated == found, f"its coverage at {entry['index']} is not as the records give it")
            root = trees.root(signed.producers_node(self.run["run"], chains, stated))
            if root.hex() != entry["root"]:
                self.problems.append(f"run.json: the records give root {root.hex()} at {label}")
        if any(entry["phase"] == "after" for entry in entries):
            told = signed.incomplete(records, self.bodies)
            self.problems += [f"run.json: {line}" for line in told]
        self.unproven += signed.left_open(records, self.bodies)
        checks = [*check_epochs(records, self.bodies), *check_budgets(records, self.bodies)]
        checks += check_seeds(self.run["run"], records, self.bodies)
        key = unhex(self.run["public_key"], 32)
        checks += check_hosts(self.run["run"], key, records, self.bodies, chains)
        for told, problem in checks:
            (self.problems if problem else self.unproven).append(f"run.json: {told}")
        stated = {r["path"]: r["digest"] for r in records if r["path"].startswith(TREE)}
        need(stated == (trees.places() if entries else {}), "a record lies at another path")

    def _head(self, size: int) -> None:
        self.known.add(f"heads/{size}.note")
        found, root = read_note(self.files[f"heads/{size}.note"].decode(), self.key)
        need(found == size, "states another size")
        self.heads[size] = root

    def _ledger(self) -> None:
        entries = {entry["index"]: entry for entry in self.run["entries"]}
        proven = set()
        for item in self.run["inclusions"]:
            entry, hashes = entries[item["index"]], hashes_of(item["proof"])
            root, _ = included(unhex(entry["root"], 32), item["index"], item["size"], hashes)
            need(root == self.heads.get(item["size"]), f"entry {item['index']} is not in it")
            proven.add(item["index"])
        need(proven == set(entries), "an entry without a proof")
        steps = {(i["old_size"], i["new_size"]): i["proof"] for i in self.run["consistencies"]}
        for old, new in pairwise(sorted(self.heads)):
            hashes = hashes_of(steps[old, new])
            grew(old, self.heads[old], new, self.heads[new], hashes)

    def _receipt(self, name: str) -> None:
        self.known.add(name)
        receipt = parse(self.files[name])
        need(canonical(receipt) == self.files[name], "not in canonical form")
        no_flags(receipt)
        for part, keys in RECEIPT.items():
            need(set(receipt[part] if part else receipt) == set(keys.split()), f"keys: {part}")
        need(canonical(receipt["v"]) == b"1", "of another version")
        need(receipt["run"] == self.run["run"], "of another run")
        ledger, anchor, told = receipt["ledger"], receipt["anchor"], receipt["evidence"]
        entry = {e["index"]: e for e in self.run["entries"]}[ledger["index"]]
        stated = ("phase", "epoch", "root")
        need(all(receipt[n] == entry[n] for n in stated), "states another seal")
        hashes = hashes_of(ledger["proof"])
        root = included(unhex(receipt["root"], 32), ledger["index"], ledger["size"], hashes)[0]
        need(root.hex() == ledger["root"], "the run root is not under the ledger root")
        need(read_note(receipt["head"], self.key) == (ledger["size"], root), "another head")
        need(self.heads.get(ledger["size"]) == root, "its head is none of the bundle's")
        need(anchor["payload"] == (b"MLP1" + root).hex(), "another payload")
        kind = anchor["network"]
        own = f"receipts/{seal_label(entry)}-{kind}"
        need(name in (f"{own}.json", f"{own}-{ledger['size']}.json"), "is of another seal")
        need(told.get("type", kind) == kind, "its evidence is of another network")
        if kind == "bitcoin":
            owners.check_bitcoin(anchor, told)
            self.headers.setdefault(anchor["height"], set()).add(unhex(told["header"])[36:68])
        elif kind == "ipfs":
            need(anchor["transaction_id"] == chain.raw_cid(b"MLP1" + root), "another CID")
            times = [anchor[part] for part in ("height", "block_hash", "block_time")]
            need(times == [None] * 3, "IPFS has no block")
        elif kind == "local":
            check_local(anchor, told, self.key)
        elif kind == "ethereum":
            left = owners.check_ethereum(anchor, told)
            self.unproven += [f"{name}: {left}"] if left else []
        else:
            self.unproven.append(f"{name}: nothing is known of a network {kind}")
            return
        self.anchored.add(seal_label(entry))
        self.receipts.append(receipt)

    def _anchors(self) -> None:
        self.latest, found = agreement(self.run["entries"], self.receipts)
        self.problems += [f"run.json: {line}" for line in found]
        marks = [b for p, b in self.bodies.items() if b.get("anchor") and "phase" in b]
        asked = {seal_label(each) for each in [*self.run["entries"], *marks] if each["anchor"]}
        for label in sorted(asked & set(map(seal_label, self.run["entries"])) - self.anchored):
            self.unproven.append(f"run.json: {label} asked for an anchor and no receipt holds")

    def _head_root(self, name: str) -> None:
        need(sha256(self.files[name]) == self.heads[int(name[6:-5])], "is not the head's root")

    def _ots(self, name: str) -> None:
        digest, attestations = chain.ots_attestations(self.files[name])
        target = name.removesuffix(".ots")
        withheld = {f"records/{r['path']}.json": r["digest"] for r in self.run["records"]}
        data = self.files.get(target)
        need(digest.hex() == (sha256(data).hex() if data is not None else withheld[target]),
             "is of another file")  # fmt: skip
        for message, tag, payload in attestations:
            if tag.hex() == "0588960d73d71901":
                read = chain.Reader(payload)
                height = read.varuint()
                read.end()
                need(message in self.headers.get(height, ()), "leads to no header of a receipt")
            else:
                need(tag.hex() == "83dfe30d2ef90c8e", "an attestation of another kind")
                self.unproven.append(f"{name}: pending")

    def _tlog_proof(self, name: str) -> None:
        head, _, checkpoint = self.files[name].decode().partition("\n\n")
        first, index, *hashes = head.split("\n")
        match = re.fullmatch("index (0|[1-9][0-9]*)", index)
        need(first == "c2sp.org/tlog-proof@v1" and match, "no tlog-proof")
        assert match
        label = name.removeprefix("tlog/").removesuffix(".tlog-proof")
        entry = {e["index"]: e for e in self.run["entries"]}[int(match[1])]
        size, root = read_note(checkpoint, self.key)
        path = [unbase64(line) for line in hashes]
        found = included(unhex(entry["root"], 32), entry["index"], size, path)[0]
        need(found == root and seal_label(entry) == label, "the run root is not in the ledger")

    def _beyond(self, name: str) -> None:
        roll, others = (
            partial(check_roll, bodies=self.bodies),
            partial(check_outcomes, key=self.key, receipts=self.receipts),
        )
        check = {"ledger/runs.json": roll, "timelock.json": check_lock}.get(name, others)
        self.unproven.append(f"{name}: {check(self.files[name], self.run, self.heads)}")

    def _proof(self, name: str) -> None:
        told = hidden.check_proof(self.files[name], self.run, self.bodies)
        self.unproven += [f"{name}: {told}"] if told else []

    def _statement(self, name: str) -> None:
        if told := check_statement(self.files[name], self.run, self.bodies, self.files, self.key):
            self.unproven.append(f"{name}: {told}")

    def _approval(self, name: str) -> None:
        receipts = [parse(self.files[f"receipts/{told}.json"]) for told in self.run["receipts"]]
        data = self.files[name]
        told = approvals.check_approval(name, data, self.run, self.heads, receipts, self.key)
        keys = ", ".join(sorted(told[0]))
        self.unproven += [f"{name}: whose keys these are: {keys}"] if keys else []
        accounts = [f"{name}: signed by {account}" for account in told[1]]
        self.unproven += [f"{line}: not checked here: needs sigstore" for line in accounts]


def main(arguments: list[str]) -> int:
    path, *rest = arguments
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    try:
        bundle = Bundle(load(Path(path)), options.get("--key"))
        if "--parent" in options:
            parent = Bundle(load(Path(options["--parent"])), options.get("--key"))
            bundle.problems += [f"parent: {line}" for line in parent.problems]
            print(bundle.check("parent", partial(check_parent, bundle, parent)) or "no parent")
        if "--report" in options:
            files, signer = report_files(Path(options["--report"])), options.get("--signer")
            told = bundle.check("report", partial(check_report, files, bundle.run, signer))
            bundle.unproven += [f"report: {told}"] if told else []
    except (*WRONG, OSError, zipfile.BadZipFile) as error:
        print(f"{path}: {error}")
        return 1
    print("".join(f"{line}\n" for line in [*bundle.problems, *bundle.unproven]), end="")
    print(f"{len(bundle.problems)} problems, {len(bundle.unproven)} things not proven")
    return 1 if bundle.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
