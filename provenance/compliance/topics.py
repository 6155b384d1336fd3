"""Topics: what the records of a run can speak to, by which checks of a verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from provenance.formats.record import Kind
from provenance.verify.catalogue import (
    COMPLETE,
    HEADS,
    LEDGER,
    NETWORKS,
    PRIVACY,
    RECORDS,
    TREES,
)


@dataclass(frozen=True, slots=True)
class Topic:
    """What some kinds of records say of a run.

    Attributes:
        kinds: Of records; none where the evidence around them speaks.
        keys: Dotted parts of the records' bodies that are shown.
        needs: Those of which one must be stated: a record without says nothing to it, but why,
            or what belongs to it. None: any of ``keys``.
        checks: Numbers of those that must have passed for it to be verified.
        proves: If verified.
        limits: What it never proves.
    """

    title: str
    proves: str
    limits: str
    kinds: tuple[Kind, ...] = ()
    keys: tuple[str, ...] = ()
    checks: tuple[int, ...] = (RECORDS, TREES)
    needs: tuple[str, ...] = ()


_SEALED = "The trainer stated it before the seal, and nobody changed it since"
_DATA = ("kind", "count", "bytes", "root", "commitments")
_WEIGHTS = ("parameter_count", "tensor_count", "bytes", "root")

TOPICS: Final[dict[str, Topic]] = {
    "run": Topic(
        "The run's name, team, tags",
        f"{_SEALED}: the name under which the run was begun.",
        "What the system is for, and who places it on the market.",
        (Kind.CONFIG,),
        ("name", "team", "group", "tags", "notes"),
    ),
    "notes": Topic(
        "Notes during and after the run",
        f"{_SEALED}: what a person noted.",
        "Who wrote it, or that it is true.",
        (Kind.NOTE,),
        ("text", "tags"),
    ),
    "code": Topic(
        "Code",
        f"{_SEALED}: the commit that was checked out, and whether files differed from it.",
        "That the commit is published, reviewed, or all of the code that ran.",
        (Kind.CONFIG,),
        ("code.commit", "code.dirty"),
        needs=("code.commit",),
    ),
    "software": Topic(
        "Software",
        f"{_SEALED}: versions of the interpreter and of packages that shape results.",
        "Every package that was installed, and what the finished system will run on.",
        (Kind.CONFIG,),
        ("environment.python", "environment.implementation", "environment.packages"),
    ),
    "machine": Topic(
        "Machine",
        f"{_SEALED}: the platform of the training, and how many processes took part.",
        "Accelerators, their number, energy or floating-point operations.",
        (Kind.CONFIG,),
        ("environment.platform", "environment.machine", "world_size", "launch"),
    ),
    "parent": Topic(
        "Parent model",
        f"{_SEALED}: the run or model that this one says it continues.",
        "That a third party's model was taken with a right to it, or what it was trained on.",
        (Kind.CONFIG,),
        ("parent",),
    ),
    "hyperparameters": Topic(
        "Configuration of the training",
        f"{_SEALED}: the hyperparameters that were given.",
        "Why they were chosen, or that the code used them.",
        (Kind.CONFIG,),
        ("training",),
    ),
    "seed": Topic(
        "Seeds drawn from blocks",
        "The seed follows from blocks that the networks have, so that what is recorded behind it "
        "happened after them.",
        "That the training used the seed, or drew no other.",
        (Kind.SEED,),
        ("seed", "draw"),
        (RECORDS, TREES, NETWORKS),
        ("blocks",),
    ),
    "architecture": Topic(
        "Architecture",
        f"{_SEALED}: class, framework and structure of the model.",
        "The rationale of the design.",
        (Kind.ARCHITECTURE,),
        ("class", "framework", "parameters"),
    ),
    "initial-weights": Topic(
        "Weights before training",
        f"{_SEALED}: a digest of each tensor, so that the same weights are told from others.",
        "Where they come from, unless a parent is recorded.",
        (Kind.WEIGHTS,),
        _WEIGHTS,
    ),
    "weights": Topic(
        "Weights after an epoch",
        f"{_SEALED}: which weights the training gave; 'provenance verify-model' compares a file.",
        "That the system in use has these weights: compare its file.",
        (Kind.STATE,),
        _WEIGHTS,
    ),
    "training-data": Topic(
        "Training data",
        f"{_SEALED}: a digest, the number and the shape of what the training was given.",
        "Where the data come from, by what right, how they were selected, labelled and cleaned, "
        "whom they represent.",
        (Kind.DATA_TRAIN,),
        _DATA,
    ),
    "test-data": Topic(
        "Test data",
        f"{_SEALED}: a digest, the number and the shape of what the tests were given.",
        "That the test data are apart from the training data in content, or fit the purpose.",
        (Kind.DATA_TEST,),
        _DATA,
    ),
    "item-sets": Topic(
        "Item sets of the data",
        f"{_SEALED}: a commitment to every item, by which whoever has the item key shows of an "
        "item that it was in the data, or was not ('provenance data prove').",
        "Which items are in it, to a reader without such a proof.",
        (Kind.DATA_TRAIN, Kind.DATA_TEST),
        ("items.count", "items.root"),
        needs=("items.root",),
    ),
    "metrics": Topic(
        "Metrics by epoch",
        f"{_SEALED}: the numbers that the training reported, epoch by epoch, or commitments to "
        "those that it hides.",
        "That they were measured rightly, or are the right ones for the purpose.",
        (Kind.METRICS, Kind.STEPS),
        ("metrics", "steps", "commitments"),
    ),
    "results": Topic(
        "Results",
        f"{_SEALED}: the final numbers that the training reported, or commitments to those that "
        "it hides.",
        "That they were measured rightly, hold for groups of persons, or outside of the test data.",
        (Kind.RESULTS,),
        ("results", "epochs", "commitments"),
        needs=("results", "commitments"),
    ),
    "privacy": Topic(
        "Privacy budget",
        "The stated budgets never shrink, and those of a Rényi accountant follow from its steps.",
        "That the training added the noise it states.",
        (Kind.PRIVACY,),
        ("privacy.epsilon", "privacy.delta", "privacy.accountant", "commitments"),
        (RECORDS, TREES, PRIVACY),
        ("privacy.epsilon", "commitments"),
    ),
    "artifacts": Topic(
        "Files that the run made or took",
        f"{_SEALED}: name and digest of each.",
        "What a file says.",
        (Kind.ARTIFACT,),
        ("name", "digest", "bytes"),
    ),
    "log": Topic(
        "The whole log of the training",
        "Every event that each process announced is here, in order, signed and unchanged.",
        "Events of the system in use: these are of its training. That a process announced all "
        "that it did.",
        checks=(RECORDS, TREES, COMPLETE),
    ),
    "root": Topic(
        "Run root in the ledger",
        "The records give exactly this root, and it is an entry of a ledger that only grew.",
        "That the ledger's key is the right one, unless you pinned it.",
        checks=(RECORDS, TREES, HEADS, LEDGER),
    ),
    "anchors": Topic(
        "Anchors on networks",
        "The root existed when the block was made.",
        "When the training happened before that. IPFS and the local file prove no time.",
    ),
    "identity": Topic(
        "Who stands behind the run",
        "The holder of a key that you pinned signed the run's first statement.",
        "That a person had the authority.",
    ),
}
