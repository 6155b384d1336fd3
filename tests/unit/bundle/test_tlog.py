"""tlog-proofs of a bundle, and the cosignatures that verification shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.bundle.attachments.tlog import files
from provenance.evidence.run_evidence import Consistency, HeadNote, Inclusion, RunEvidence
from provenance.formats import merkle
from provenance.formats.checkpoint import Head, parse_note, sign_head
from provenance.formats.cosignature import WitnessKey
from provenance.formats.note import SignerKey, encode_base64
from provenance.formats.record import Phase
from provenance.formats.tlog.proof import TlogProof
from provenance.ledger.seal import append_root
from provenance.verify.catalogue import HEADS, PORTABLE, Status
from provenance.verify.report import VerificationReport
from tests.support.ledger_values import digest
from tests.support.verify_world import ORIGIN, OTHER, OWN, SIGNER, World, story

SECRET = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS = WitnessKey("witness.example/w1", SECRET.public_key().public_bytes_raw())
NAMES = ("tlog/before.tlog-proof", "tlog/checkpoint-2.tlog-proof", "tlog/after.tlog-proof")


def world() -> World:
    """A run between others: its entries are 3, 4 and 5 of 8."""
    stage = World()
    with stage.store.transaction() as tx:
        tx.add_run(OTHER, bytes(32), stage.now)
        for epoch in range(3):
            root = digest(f"{epoch}")
            append_root(tx, OTHER, Phase.CHECKPOINT, epoch, root, False, stage.policy, stage.now)
    stage.ingest(stage.batch(story(3, checkpoint=2)))
    with stage.store.transaction() as tx:
        for epoch in range(3, 5):
            root = digest(f"{epoch}")
            append_root(tx, OTHER, Phase.CHECKPOINT, epoch, root, True, stage.policy, stage.now)
    stage.anchor()
    return stage


def with_an_older_head(stage: World) -> RunEvidence:
    """The run's evidence, with the head at its own newest entry as well."""
    shown = stage.evidence()
    with stage.store.snapshot() as tx:
        head, tree = tx.head(6), merkle.MerkleTree(entry.root for entry in tx.entries())
    assert head is not None
    assert [item.size for item in shown.heads] == [8]
    return replace(
        shown,
        heads=(HeadNote(6, head.note), *shown.heads),
        inclusions=(
            *(Inclusion(at, 6, tree.inclusion_proof(at, 6)) for at in (3, 4, 5)),
            *shown.inclusions,
        ),
        consistencies=(Consistency(6, 8, tree.consistency_proof(6, 8)),),
    )


WORLD = world()
EVIDENCE = with_an_older_head(WORLD)


def with_files(**changes: bytes | None) -> RunEvidence:
    """The evidence as a bundle brings it; ``after=...`` is another file for that seal."""
    made: dict[str, bytes] = files(EVIDENCE, True)
    for label, data in changes.items():
        name = f"tlog/{label.replace('_', '-')}.tlog-proof"
        made.pop(name, None)
        if data is not None:
            made[name] = data
    return replace(EVIDENCE, attachments=made)


def found(evidence: RunEvidence) -> list[tuple[str, str]]:
    """Problems of check 11, with the file."""
    report = WORLD.verify(evidence, online=False)
    assert {finding.check for finding in report.findings} <= {PORTABLE}
    return [(finding.subject, finding.problem) for finding in report.findings]


# --- files -------------------------------------------------------------------------------


def test_each_seal_has_a_proof_under_the_newest_head() -> None:
    made = files(EVIDENCE, True)
    assert tuple(made) == NAMES
    newest = max(head.size for head in EVIDENCE.heads)
    for entry, data in zip(EVIDENCE.entries, made.values(), strict=True):
        proof = TlogProof.decode(data)
        assert proof.index == entry.index
        assert proof.extra is None
        assert proof.verify(entry.root, SIGNER.verifier).size == newest
    assert found(with_files()) == []


def test_a_head_that_does_not_hold_is_passed_over() -> None:
    newest = EVIDENCE.heads[-1]
    broken = (
        newest.note.replace("\n", "\n9", 1),
        "no note",
        sign_head(
            Head(ORIGIN, newest.size, bytes(32)), SignerKey.from_private_bytes(ORIGIN, bytes(32))
        ),
        sign_head(Head("other.example/log", newest.size, bytes(32)), SIGNER),
        EVIDENCE.heads[0].note,
    )
    for note in broken:
        heads = (*EVIDENCE.heads[:-1], HeadNote(newest.size, note))
        made = files(replace(EVIDENCE, heads=heads), True)
        sizes = [parse_note(TlogProof.decode(d).checkpoint).head.size for d in made.values()]
        assert max(sizes) < newest.size
        assert tuple(made) == NAMES


def test_without_a_head_there_is_no_file() -> None:
    assert files(replace(EVIDENCE, heads=()), True) == {}
    assert files(replace(EVIDENCE, inclusions=()), True) == {}
    assert files(replace(EVIDENCE, entries=()), True) == {}


@pytest.mark.parametrize("vkey", [None, "no key"])
def test_files_need_no_key(vkey: str | None) -> None:
    assert tuple(files(replace(EVIDENCE, vkey=vkey), True)) == NAMES


# --- check -------------------------------------------------------------------------------


def rewritten(label: str, **changes: object) -> bytes:
    proof = TlogProof.decode(files(EVIDENCE, True)[f"tlog/{label}.tlog-proof"])
    return replace(proof, **changes).encode().encode()  # type: ignore[arg-type]  # keyword arguments of several types


def older(index: int, size: int) -> TlogProof:
    """A proof under an older head than that of the files."""
    with WORLD.store.snapshot() as tx:
        roots, head = [e.root for e in tx.entries(end=size)], tx.head(size)
    assert head is not None
    return TlogProof(index, merkle.MerkleTree(roots).inclusion_proof(index), head.note)


STRANGER = SignerKey.from_private_bytes(ORIGIN, bytes(32))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "tlog-proof line 1"),
        (b"\xff", "not UTF-8"),
        (rewritten("after")[:-2], "note does not end with a newline"),
        (rewritten("before"), "is of ledger entry 3, after is entry 5"),
        (rewritten("after", index=4), "is of ledger entry 4, after is entry 5"),
        (rewritten("after", hashes=(bytes(32),) * 3), "the proof leads to"),
        (rewritten("after", hashes=()), "proof has 0 elements"),
        (rewritten("after", hashes=(bytes(32),) * 63), "proof has 63 elements"),
        (rewritten("after", checkpoint=older(3, 4).checkpoint), "no such leaf"),
        (
            rewritten("after", checkpoint=sign_head(Head(ORIGIN, 8, bytes(32)), STRANGER)),
            "no signature by example.org/ledger",
        ),
        (
            rewritten("after", checkpoint=sign_head(Head("o.example", 8, bytes(32)), SIGNER)),
            "checkpoint of ledger 'o.example'",
        ),
    ],
)
def test_a_file_that_does_not_hold_is_named(data: bytes, problem: str) -> None:
    ((subject, told),) = found(with_files(after=data))
    assert subject == "tlog/after.tlog-proof"
    assert problem in told
    bundle = replace(with_files(after=data), source=replace(EVIDENCE.source, kind="bundle"))
    report = WORLD.verify(bundle, online=False)
    assert [finding.file for finding in report.findings] == ["tlog/after.tlog-proof"]


def test_a_file_of_no_seal_is_named() -> None:
    told = found(with_files(checkpoint_9=rewritten("after")))
    assert told == [("tlog/checkpoint-9.tlog-proof", "the run has no seal checkpoint-9")]


def test_other_derivations_of_the_same_facts_hold() -> None:
    """Another head of the ledger, extra data, cosignatures: nothing is compared with ours."""
    for proof in (older(5, 6), replace(older(5, 7), extra=b"later")):
        assert found(with_files(after=proof.encode().encode())) == []
    assert found(with_files(after=None)) == []


def test_two_heads_of_one_size_do_not_pass() -> None:
    """The ledger's own key signed another story of the same length."""
    root = EVIDENCE.entries[-1].root
    others = [digest(f"other {i}") for i in range(8)]
    others[5] = root
    note = sign_head(Head(ORIGIN, 8, merkle.root(others)), SIGNER)
    forged = TlogProof(5, merkle.MerkleTree(others).inclusion_proof(5), note).encode().encode()
    ((_, told),) = found(with_files(after=forged))
    assert "at size 8, the ledger's has" in told


def test_without_a_key_only_known_heads_count() -> None:
    bare = replace(with_files(), vkey=None)
    report = WORLD.verify(bare, online=False, verifier_key=None)
    assert report.findings == ()
    assert older(5, 7).index == 5
    assert 7 not in {head.size for head in EVIDENCE.heads}
    unknown = replace(with_files(after=older(5, 7).encode().encode()), vkey=None)
    report = WORLD.verify(unknown, online=False, verifier_key=None)
    (finding,) = report.findings
    assert "at size 7 is not among the heads" in finding.problem


def test_a_damaged_head_is_no_traceback_here() -> None:
    heads = (HeadNote(EVIDENCE.heads[0].size, "no note"), *EVIDENCE.heads[1:])
    report = WORLD.verify(replace(with_files(), heads=heads), online=False)
    assert PORTABLE not in {finding.check for finding in report.findings}


# --- cosignatures ------------------------------------------------------------------------


def line_by(text: str, time: int = 1679315147, name: str = WITNESS.name, bad: bool = False) -> str:
    message = f"cosignature/v1\ntime {time}\n{text}".encode()
    signature = bytes(64) if bad else SECRET.sign(message)
    blob = replace(WITNESS, name=name).key_id + time.to_bytes(8, "big") + signature
    return f"— {name} {encode_base64(blob)}\n"


def extended(lines: str) -> RunEvidence:
    newest = EVIDENCE.heads[-1]
    heads = (*EVIDENCE.heads[:-1], HeadNote(newest.size, newest.note + lines))
    return replace(EVIDENCE, heads=heads)


def told_by(report: VerificationReport) -> list[str]:
    return [notice.problem for notice in report.notices if notice.check == HEADS]


def detail(report: VerificationReport) -> tuple[Status, str]:
    (result,) = (r for r in report.checks if r.check.number == HEADS)
    return result.status, result.detail


TEXT = parse_note(EVIDENCE.heads[-1].note).text


def verified(evidence: RunEvidence, witnesses: Sequence[WitnessKey]) -> VerificationReport:
    return WORLD.verify(evidence, online=False, trust=replace(OWN, witnesses=tuple(witnesses)))


def test_a_cosignature_is_shown() -> None:
    evidence = extended(line_by(TEXT))
    report = verified(evidence, ())
    assert told_by(report) == [
        "cosigned by witness.example/w1 at 2023-03-20T12:25:47Z "
        "(not verified: no witness key given)"
    ]
    (notice,) = (n for n in report.notices if n.check == HEADS)
    assert notice.subject == "head 8"
    many = len(EVIDENCE.heads)
    assert detail(report) == (Status.PASSED, f"{many} heads, cosigned by witness.example/w1")
    assert report.outcome == "consistent"
    known = verified(evidence, [WITNESS])
    assert told_by(known) == ["cosigned by witness.example/w1 at 2023-03-20T12:25:47Z (verified)"]
    assert verified(EVIDENCE, [WITNESS]).notices == ()


def test_a_bad_cosignature_fails_only_for_who_knows_the_witness() -> None:
    evidence = extended(line_by(TEXT, bad=True) + line_by(TEXT, time=7))
    assert verified(evidence, ()).outcome == "consistent"
    report = verified(evidence, [WITNESS])
    ((check, subject, problem),) = [(f.check, f.subject, f.problem) for f in report.findings]
    assert (check, subject) == (HEADS, "head 8")
    assert "cosignature by witness.example/w1+" in problem
    assert told_by(report) == ["cosigned by witness.example/w1 at 1970-01-01T00:00:07Z (verified)"]


def test_no_unknown_line_fails_anything() -> None:
    shapes = (1, 63, 64, 71, 72, 73, 2428, 7000)
    lines = "".join(f"— w{n} {encode_base64(bytes(4 + n))}\n" for n in shapes)
    late = bytes(4) + b"\x7f" + b"\xff" * 7 + bytes(64)
    report = verified(extended(f"{lines}— late {encode_base64(late)}\n"), [WITNESS])
    assert report.outcome == "consistent"
    assert len(told_by(report)) == 2
    assert "cosigned by w72 at 1970-01-01T00:00:00Z" in told_by(report)[0]
    assert f"cosigned by late at second {2**63 - 1}" in told_by(report)[1]


def test_many_witnesses_are_counted_out() -> None:
    lines = "".join(line_by(TEXT, name=f"w{i}") for i in range(6))
    assert detail(verified(extended(lines), ()))[1].endswith("cosigned by w0, w1, w2, w3, ...")
