"""None of the test pictures was in the train data, in one proof; a train picture was."""

from __future__ import annotations

from uuid import UUID

from provenance import files
from provenance.app.verify import verify_path
from provenance.demo import training
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError
from provenance.items.folder import ItemFolder
from provenance.items.proving import check, owned_set, prove, proven_set, read_proof

NEEDS = ()


def walk(stage: Stage) -> str:
    """Prove with the owner's digests and key; check with the bundle alone."""
    images, labels, test_images, test_labels = training.digits()
    folder, path = ItemFolder(stage.settings.base_dir, UUID(stage.run)), stage.scratch / "items"
    report = verify_path(stage.settings, stage.bundle)
    test = [
        (f"test {at}", pair) for at, pair in enumerate(zip(test_images, test_labels, strict=True))
    ]
    _, made = prove(owned_set(report.evidence, folder, "train"), folder, "not-in", test)
    if made is None:
        raise IntegrityError("a test picture was in the train data")
    files.replace(path, made.encode())
    proof = read_proof(path)
    stated = proven_set(report, proof)
    present = check(stated, proof, [("train 0", (images[0], labels[0]))])
    absent = check(stated, proof, test)
    if present.holds or not absent.holds:
        raise IntegrityError(f"{path}: a train picture passes as absent, or a test picture not")
    return f"{absent.line}, in {path.stat().st_size} bytes; a train picture does not pass"
