"""Further attempts at the edges of what is compared: pins, witnesses, identities, Redis keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.cli import main
from provenance.errors import FormatError, InputError, TransportUnavailable
from provenance.formats.note import VerifierKey
from provenance.formats.producers.certificate import sign_identity
from provenance.stores.redis_streams import RedisStreams
from provenance.verify.trust import WORDS, of_options
from tests.support.verify_world import KEY, OTHER, OWN, RUN, SIGNER, World, story

CONTRACT = "0x" + "ab" * 20
VKEY = SIGNER.verifier.vkey


@pytest.mark.parametrize(
    "chain",
    [
        "ethereum:", "ethereum:0x1", "ethereum:1e3", "ethereum:-1",
        "ethereum:\N{FULLWIDTH DIGIT ONE}",
        "ethereum:1:" + CONTRACT[:-1], f"ethereum:1:{CONTRACT}0", "Ethereum:1",
        "bitcoin:Regtest", "bitcoin:regtest ", "bitcoin:reg", "bitcoin:", "bitcoin:regtest:x",
        f"ethereum:1:{CONTRACT}\n", "", "local", "ethereum:" + "9" * 30,
    ],
)  # fmt: skip
def test_no_chain_is_pinned_by_a_part_another_case_or_a_look_alike(chain: str) -> None:
    with pytest.raises(InputError, match="--trust-chain"):
        of_options(chains=[chain])


@pytest.mark.parametrize("require", ["", ",", "key,", "KEY", "key anchor", "all", "key;anchor"])
def test_a_requirement_is_one_of_the_words_or_refused(require: str) -> None:
    with pytest.raises(InputError, match="--require"):
        of_options(require=[require])
    assert of_options(require=[",".join(WORDS)]).policy == WORDS


@pytest.mark.parametrize(
    "vkey",
    [
        VKEY[:-1], VKEY + "\n", VKEY.upper(), VKEY.replace("e", "\N{CYRILLIC SMALL LETTER IE}", 1),
        VKEY.replace("+", " ", 1), VKEY + "=", VKEY.replace("example", "\u200bexample"),
    ],
)  # fmt: skip
def test_no_other_spelling_of_a_ledgers_key_pins_it(vkey: str) -> None:
    try:
        key = VerifierKey.from_vkey(vkey)
    except (FormatError, InputError):
        return
    assert key != SIGNER.verifier
    assert of_options(keys=[vkey]).key_pinned_by(SIGNER.verifier) is None


@pytest.mark.parametrize("quorum", ["0", "-1", "1e0", "\N{FULLWIDTH DIGIT ONE}.", ""])
def test_a_quorum_of_nobody_is_refused(quorum: str) -> None:
    """Else ``--require witnesses`` would hold without one."""
    with pytest.raises(SystemExit) as refused:
        main(["verify", "latest", f"--witness-quorum={quorum}"])
    assert refused.value.code == 2


def test_an_identity_stands_behind_its_own_run_alone() -> None:
    person = Ed25519PrivateKey.from_private_bytes(b"\x31" * 32)
    signed = sign_identity(OTHER, KEY.public_key().public_bytes_raw(), person)
    world = World(names=("local",))
    world.ingest(world.batch(story(), identity=signed))
    with world.store.snapshot() as tx:
        assert [row.reason for row in tx.parked(None)] or list(tx.runs()) == []
    honest = World(names=("local",))
    honest.ingest(honest.batch(story()))
    honest.anchor()
    report = honest.verify(replace(honest.evidence(), identity=signed))
    assert (report.outcome, report.standing) == ("failed", None)


def test_statements_of_another_run_of_the_same_key_are_no_statements() -> None:
    """The same producer, the same events, the same key: only the run's id differs."""
    world = World(names=("local",))
    for run in (RUN, OTHER):
        world.ingest(world.batch(story(), run=run))
    world.anchor()
    own, foreign = world.evidence(RUN), world.evidence(OTHER)
    moved = tuple(
        replace(mine, statements=theirs.statements)
        for mine, theirs in zip(own.producers, foreign.producers, strict=True)
    )
    assert world.verify(replace(own, producers=moved)).outcome == "failed"
    assert world.verify(replace(own, producers=foreign.producers)).outcome == "failed"
    assert world.verify(replace(own, receipts=foreign.receipts), trust=OWN).outcome == "failed"


@pytest.mark.nodes
@pytest.mark.parametrize("kind", ["string", "list", "zset"])
def test_keys_of_another_type_in_redis_are_an_outage_and_no_traceback(
    redis_url: str, kind: str
) -> None:
    """Whoever writes to Redis puts something else where streams and acknowledgements are."""
    prefix = f"twist-{kind}:"
    streams = RedisStreams(redis_url, key_prefix=prefix)
    with redis.Redis.from_url(redis_url) as client:
        streams.append([b"x"])
        streams.publish_acknowledged(RUN, {b"p" * 16: bytes(104)}, streams.generation())
        keys = list(client.scan_iter(f"{prefix}*"))
        assert keys
        for key in keys:
            client.delete(key)
            if kind == "string":
                client.set(key, b"x")
            elif kind == "list":
                client.rpush(key, b"x")
            else:
                client.zadd(key, {b"x": 1e9})
        for call in (
            lambda: streams.append([b"y"]),
            lambda: streams.read("one", 5),
            lambda: streams.claim_stale("one", 0.0, 5),
            lambda: streams.acknowledged(RUN),
            lambda: streams.publish_acknowledged(RUN, {b"p" * 16: bytes(104)}, None),
            streams.backlog,
        ):
            try:
                call()
            except TransportUnavailable as error:
                assert "\n" not in str(error)
        client.delete(*client.scan_iter(f"{prefix}*"))
    streams.close()
