"""The checks of a verification as data: what each proves, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check. ``limits`` says what it does not prove."""

    number: int
    title: str
    proves: str
    limits: str


class Status(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "unchecked"
    """It was asked for and could not be done: a node is down, an anchor is pending."""
    SKIPPED = "skipped"
    """It was not asked for, or there is nothing to check."""


RECORDS, TREES, PREFIX, COMPLETE, HEADS, LEDGER = range(1, 7)
RECEIPTS, NETWORKS, AGREE, CONTENT, PORTABLE, PRIVACY, LIMITS, PROVED, HOST = range(7, 16)

CHECKS: Final[tuple[Check, ...]] = (
    Check(
        RECORDS,
        "records match their digests and their producers' signatures",
        "Each record decodes, is canonical JSON, belongs to this run and hashes to the digest "
        "that stands for it. The run's id commits to the run's key, that key certifies each "
        "producer (process), and each producer's signature covers all its records, in order, "
        "control records and withheld ones too: nobody without the run's key edited, added, "
        "moved or dropped one before the last that is signed here.",
        "That the trainer stated the truth, or when: a record's time (ts) is a claim of the "
        "trainer's clock. Who holds the run's key, unless an identity that you know signed it.",
    ),
    Check(
        TREES,
        "leaves, epochs and roots recompute",
        "The records, each in its place by kind, epoch and rank, give exactly the run root of "
        "every seal. Each seal's root also holds what every producer had signed: at after all "
        "its records, control records too.",
        "Anything about what was recorded after the seal.",
    ),
    Check(
        PREFIX,
        "before is a prefix of after",
        "Data, model and configuration sealed before training, and the epochs of every "
        "checkpoint, were not changed afterwards.",
        "When each seal was made: that is for the anchors.",
    ),
    Check(
        COMPLETE,
        "nothing announced is missing",
        "Every producer's events are here from the first to the number its run.end announces, "
        "and every rank has ended with a signed run.end. Where ranks share the weights of an "
        "epoch, their shards cover each tensor, and copies are the same.",
        "That a producer announced all that it did. Equivocations, refused and late events are "
        "shown; the first value stands.",
    ),
    Check(
        HEADS,
        "heads are signed by the ledger",
        "The holder of the ledger's key stated each head: size and root of the ledger; which "
        "witnesses that you pinned cosigned it.",
        "That the key is the right one: that is for your pins (--trust, trust.ledger_keys), and "
        "the first lines say who pinned it.",
    ),
    Check(
        LEDGER,
        "roots are in the ledger, and the ledger only grew",
        "Each run root is the entry it claims to be under each head, and each head extends the "
        "one before it; no receipt shows a head beside them. A roll that the bundle brings has "
        "every entry of its head, each of one run. Each outcome of a later verification is an "
        "entry of its own, of this run, in order.",
        "That nobody was shown another ledger: compare heads with others. What a roll says of "
        "other runs, but that they are in the ledger. That an outcome is right: its owner says so.",
    ),
    Check(
        RECEIPTS,
        "receipts hold",
        "Each receipt leads from the run root through a signed head to the 36 bytes that the "
        "network was given, with the evidence that this network always gives; Bitcoin's carry "
        "the block's proof of work, Ethereum's the transaction, and the block's header and the "
        "path in its tries where the node could tell it, IPFS's the block, the local file's the "
        "line that the ledger's key signed. Where several owners had to sign, which of them did.",
        "That the transaction is still on the chain: that is the next check.",
    ),
    Check(
        NETWORKS,
        "each network has the anchor",
        "A node of the network that you configured shows the transaction, on a chain (and with a "
        "contract) that you pinned or that every release knows, carrying that ledger root, that "
        "deep. Without a node: Bitcoin's block is among the headers that you gave, Ethereum's "
        "among the block hashes. The time is the block's. Each approval that the evidence brings "
        "is of this run's final root under that head, on that chain, with every signature; of this "
        "deployment's own runs there are as many as its configuration asks for.",
        "More than your node knows. IPFS proves storage, not time. The local file proves only "
        "that the holder of the ledger's key signed it.",
    ),
    Check(
        AGREE,
        "networks agree",
        "All networks carry one head, or heads that extend each other, and one clock of the ledger "
        "fits the times of their blocks. The earliest of these times, with what its chain lets it "
        "be off, is the latest moment at which the root existed.",
        "That a root is no older than that. Anything of a seal that only one network has.",
    ),
    Check(
        CONTENT,
        "content matches the recorded digests",
        "The data and weights at hand are those that the records name; the root of each record of "
        "weights is that of the tensors it states; an item set has no more items than its data; "
        "the initial weights are of the run that it says it continues, and no tensor contradicts "
        "another role that it states, where that run was given too (--parent).",
        "Anything about content that is not at hand.",
    ),
    Check(
        PORTABLE,
        "files for other tools hold",
        "Each OpenTimestamps proof, tlog-proof and in-toto statement that the bundle brings "
        "says what the rest of the evidence says. A time lock is of this run, and of "
        "records that are withheld here.",
        "That those tools, run by you, agree: run them.",
    ),
    Check(
        PRIVACY,
        "privacy budgets add up",
        "Each record of a budget states an epsilon, and a delta if any, that can be, or commits to "
        "an epsilon that it hides, which is said with the proofs about it; none shrinks "
        "from one epoch to the next of its process. Where a record states the steps of a Rényi "
        "accountant (Opacus' rdp), they give its epsilon.",
        "That the training added the noise it states, sampled as it states, or clipped: the steps "
        "are the trainer's word. Of other accountants (prv, gdp) and of numbers by hand epsilon is "
        "not recomputed.",
    ),
    Check(
        LIMITS,
        "what was not checked is said",
        "The list of what was not checked, and of what an anchor does not prove, is complete "
        "as far as this program knows.",
        "That the run was a good idea.",
    ),
    Check(
        PROVED,
        "zero-knowledge proofs hold",
        "What each proof states of a number holds for the value to which a record under the run's "
        "newest root commits, and the trainer cannot open that commitment to another value. "
        "What the record shows under the name does not contradict it.",
        "That the number is true, or was measured as its name says: the trainer committed to it. "
        "What one proof says nothing of, such as the number itself, or other records of that epoch "
        "with the name. That a number which a record shows is the one that it commits to.",
    ),
    Check(
        HOST,
        "hosts attest where it ran",
        "Each TPM's quote is of this run, over the producer's records up to then, by the key that "
        "its record states, and of the PCRs there, which the firmware's event log gives, where it "
        "is recorded. So is each report of TDX, SEV-SNP and NVIDIA GPUs, by a key that its "
        "certificates are of, and of no guest that can be debugged. The verdict says who pinned "
        "the key or the root, what differs between start and end, and what is absent.",
        "Versions of software: they are shown. That the training ran on that host, what the "
        "measured values mean, and how new its firmware was.",
    ),
)

ANCHOR_LIMIT: Final = (
    "Whether the trainer stated the truth, who ran the run, and whether these are all the runs "
    "there were: an anchor proves that the digests existed when its block was made."
)
NETWORK_LIMITS: Final = {
    "ipfs": "When the root was put on IPFS: that it is stored there is all that IPFS proves.",
    "local": "When the local file was written: that the holder of the ledger's key signed it is "
    "all that it proves.",
}
APPROVAL_LIMIT: Final = (
    "When each approval was signed: a signature has no time. That it was there before the anchor, "
    "and that its last day had not passed, is the word of the worker that anchored."
)
CLAIMED_TIMES: Final = (
    "When it happened: the times of records (ts) are the trainer's clock, those of seals "
    "(sealed_at, created_at) the database's. They are claims; only an anchor's block has a time "
    "that neither of them sets."
)
ITEM_SETS: Final = (
    "Which items are in an item set: only a proof by who has its key shows that of an item "
    "(provenance data check), and only the data and the key that it is the set of that data"
)
NOBODY_KNOWN: Final = (
    "Who ran it: the run's own key signed, made for this run, and no identity stands behind it. "
    "Whoever can write to the stream can make such a run."
)
HEADER_SOURCE: Final = (
    "Bitcoin's block headers against a chain: none were given to compare with (--headers FILE). "
    "Each proof leads to a header that the evidence itself brings, with its proof of work. A "
    "header does not tell its height or depth: those in receipts are what a node said."
)
ETHEREUM_HEADERS: Final = (
    "Ethereum's block headers against a chain: only a node or a block hash that you trust "
    "(--block-hash) can tell. A receipt with a trie proof leads to a header that the evidence "
    "itself brings; one without only states its block. Anybody can make such a header."
)
