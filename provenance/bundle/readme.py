"""The README.txt of a bundle: how to check it by hand."""

from __future__ import annotations

from collections.abc import Collection

from provenance.bundle.shell_proof import shell_commands
from provenance.evidence.disclosure import outline, withheld
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import RunEvidence, seal_label

_TEXT = """\
Evidence of training run {run}
{rule}

What is here
  records/    what the run recorded, one JSON file each; the path is its place in the run tree
  receipts/   for each seal and network: run root -> ledger -> what the network carries
  heads/      signed heads of the ledger (C2SP tlog-checkpoint); ledger.vkey is the key
  run.json    what each producer (process) signed, the seals, the ledger proofs, and everything
              that was refused or doubled
{portable}  manifest.json, SHA256SUMS    the SHA-256 of every file

Run roots
{roots}

Check it with the program
  provenance verify .              asks the networks of your configuration
  provenance verify . --offline    asks nobody

Check it without
  1. Is every file as it was written?          sha256sum -c SHA256SUMS
  2. Did their producers sign all records?     run the commands "Who signed" below in this folder
  3. Is a record under the run root?           {example}
  4. Is the run root in the ledger?            receipts/*.json: root, ledger.index, ledger.proof
                                               (RFC 9162 section 2.1.3.2)
  5. Is the head signed?                       heads/*.note with ledger.vkey (C2SP signed-note)
  6. Is the ledger root on the network?        receipts/*.json: anchor.transaction_id carries
                                               anchor.payload = "MLP1" and the ledger root

SHA256SUMS proves only that files match each other. What ties them to a time is step 6, with a
node that you trust; what ties them to an owner is step 5, with a key that you got elsewhere.
"""
_SIGNED = r"""
Who signed (bash, jq, xxd, openssl 3)

# Every record that is here has the digest that run.json states.
jq -r '.records[] | select(.withheld | not) | "\(.digest)  records/\(.path).json"' run.json |
  sha256sum --quiet -c && echo 'records: as run.json states' || echo 'records: NOT as it states'
# The run id holds 74 bits of the SHA-256 of the run's key.
run=$(jq -r .run run.json | tr -d -) key=$(jq -r .public_key run.json)
hash() { sha256sum | cut -c 1-64; }
h=$(echo $key | xxd -r -p | hash)
bits=${h:0:3}$(printf %016x $((1 << 63 | 0x${h:3:16} >> 2 & (1 << 62) - 1)))
[ ${run:13} = $bits ] && echo 'run id: of this key' || echo 'run id: NOT of this key'
# That key certifies each producer's; the producer chains its records' digests by number, and signs.
work=$(mktemp -d)
signed() { # by a public key: a signature over a text, a zero byte and these bytes
  echo 302a300506032b6570032100$1 | xxd -r -p > $work/key
  echo $2 | xxd -r -p > $work/signature
  { printf '%s\0' $3; echo $4 | xxd -r -p; } > $work/message
  openssl pkeyutl -verify -pubin -keyform DER -inkey $work/key -rawin \
    -in $work/message -sigfile $work/signature > $work/said 2>&1
}
jq -r '.producers[] | "\(.producer) \(.certificate) \(.statements | max_by(.count) |
  "\(.count) \(.signature)")"' run.json |
while read producer certificate count signature; do
  digests=$(jq -r --arg p $producer \
    '[.records[] | select(.producer == $p)] | sort_by(.seq)[].digest' run.json)
  c=$({ printf 'ml-provenance/chain/v1\0'; echo $run$producer | xxd -r -p; } | hash)
  for digest in $digests; do c=$(echo $c$digest | xxd -r -p | hash); done
  statement=$run$producer$(printf %016x $count)$c
  [ ${certificate:0:128} = $run$key$producer ] &&
    signed $key ${certificate:200} ml-provenance/producer/v1 ${certificate:0:200} &&
    signed ${certificate:128:64} $signature ml-provenance/statement/v1 $statement &&
    echo "producer $producer: signed all $count records" || echo "producer $producer: NOT signed"
done
rm -r $work
[ $(jq '[.records[].producer] - [.producers[].producer] | length' run.json) = 0 ] ||
  echo 'NOT signed: records of a producer that is not in run.json'
"""
_WITHHELD = """
What is withheld
  The content of {count} of {total} records is not here: {places}

  run.json says so for each ("withheld": true), with its place, kind, epoch, rank, producer,
  number, time and SHA-256. The SHA-256 stands in the run tree where the record would, so the
  run roots, the ledger, the heads and the receipts all verify as they would with it.
  A withheld record cannot be found by trying likely contents: each holds a salt of 32 bytes
  of its own that follows from a key of the run's. Whoever is shown one later compares its
  sha256sum with run.json. Control records (records/control/) are never withheld: they say
  what is complete.
"""
_KINDS = {
    ("records/", ".ots"): "records/*.ots    OpenTimestamps proof of the record beside it, up to a "
    "Bitcoin block",
    ("heads/", ".ots"): "heads/*.root     the bytes whose SHA-256 is the ledger root; .ots is "
    "their proof",
    ("tlog/", ""): "tlog/       the run root in the ledger (C2SP tlog-proof)",
    ("approvals/", ""): "approvals/  who approved that the final root is anchored (DSSE envelopes)",
    ("statement/", ""): "statement/  in-toto statement of the run (SLSA provenance)",
    ("proofs/", ""): "proofs/     what its owner proved of numbers that the records hide",
}


def readme(evidence: RunEvidence, files: Collection[str]) -> str:
    """The text beside these files, with the path of one record worked out as commands."""
    title = f"Evidence of training run {evidence.run}"
    roots = [f"  {seal_label(entry):<16} {entry.root.hex()}" for entry in evidence.entries]
    tree = newest_tree(evidence)
    placed = [record for record in evidence.records if record.place == "tree"]
    here = [record.path for record in placed if record.file in files] if tree else []
    shown = next((path for path in here if "/metrics/" in path), next(iter(here), None))
    example = "run the commands below in this folder"
    if shown is None:
        example = "every record is withheld" if tree and placed else "nothing is sealed yet"
    portable = [
        f"  {line}\n"
        for (start, end), line in _KINDS.items()
        if any(name.startswith(start) and name.endswith(end) for name in files)
    ]
    text = _TEXT.format(
        run=evidence.run,
        rule="=" * len(title),
        roots="\n".join(roots) or "  none yet",
        example=example,
        portable="".join(portable),
    )
    kept = withheld(evidence)
    if kept:
        text += _WITHHELD.format(count=len(kept), total=len(evidence.records), places=outline(kept))
    text += _SIGNED + _stock(files, shown)
    if tree is not None and shown is not None:
        commands = shell_commands(tree.proof(shown), f"records/{shown}.json")
        text += f"\nOne record by hand (provenance path FILE prints those of any)\n\n{commands}"
    return text


def _stock(files: Collection[str], shown: str | None) -> str:
    """Commands of tools that others wrote, for the files that are here."""
    lines = []
    stamps = [f"records/{shown}.json.ots", *sorted(n for n in files if n.endswith(".ots"))]
    stamp = next((name for name in stamps if name in files), None)
    if stamp is not None:
        lines += [
            "  OpenTimestamps (pip install opentimestamps-client), with a Bitcoin node of yours:",
            f"    ots info {stamp}",
        ]
        if stamp.removesuffix(".ots") in files:
            lines.append(f"    ots verify {stamp}")
    for folder, tool, command in (
        ("tlog/", "Transparency log: any verifier of C2SP tlog-proof, with ledger.vkey", ""),
        ("statement/", "in-toto: any reader of Statement v1 with predicate "
         "slsa.dev/provenance/v1", "jq .subject "),
    ):  # fmt: skip
        name = next((name for name in sorted(files) if name.startswith(folder)), None)
        if name is not None:
            lines += [f"  {tool}:", f"    {command}{name}"]
    return "\n".join(["\nWith tools that others wrote", *lines, ""]) if lines else ""
