"""The run's key file: one creator, mode 0600, clear refusals, no secret in any text."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from provenance.capture.keys import (
    KEY_FILE,
    RunKeys,
    delete_run_keys,
    keep_run_keys,
    load_run_keys,
    new_run_keys,
)
from provenance.errors import FormatError, InputError, ProvenanceError, UnknownVersionError
from tests.support.runs import RUN


def test_a_training_that_the_disk_refuses_leaves_no_folder(tmp_path: Path) -> None:
    keys, before = new_run_keys(), resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / str(keys.run)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(ProvenanceError, match="cannot keep the run's key there"):
            keep_run_keys(folder, keys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not folder.exists()


def _file(**fields: object) -> bytes:
    seed = b"\x07" * 32
    value = {"v": 1, "run": str(RUN), "seed": seed.hex(), "identity": None, "sigstore": None}
    return json.dumps(value | fields).encode()


def test_created_keys_are_read_again(tmp_path: Path) -> None:
    asked = replace(new_run_keys(), identity=b"i" * 97, sigstore="/run/token")
    made = keep_run_keys(tmp_path / "run", asked)
    assert load_run_keys(tmp_path / "run") == made
    assert len(made.public_key) == len(made.salt) == 32


def test_a_run_id_commits_to_its_key_by_hand() -> None:
    """RFC 9562 section 5.8: 48 bits of ours, version, 12 bits, variant, 62 bits."""
    keys = new_run_keys()
    digest = bin(int.from_bytes(hashlib.sha256(keys.public_key).digest(), "big"))[2:].zfill(256)
    bits = bin(keys.run.int)[2:].zfill(128)
    assert bits[48:52] == "1000"
    assert bits[52:64] == digest[:12]
    assert bits[64:66] == "10"
    assert bits[66:] == digest[12:74]
    assert abs(int(bits[:48], 2) - time.time() * 1000) < 60_000


def test_every_host_with_the_seed_derives_the_same_keys() -> None:
    keys = new_run_keys()
    same = RunKeys(keys.run, keys.seed)
    certificate, key = keys.producer(b"p" * 16, 3)
    assert same.producer(b"p" * 16, 3)[0] == certificate
    assert key.public_key().public_bytes_raw() == certificate.producer_key
    assert keys.producer(b"q" * 16, 3)[0].producer_key != certificate.producer_key
    assert same.salt == keys.salt != keys.seed


def test_the_file_is_for_its_owner_only_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    keep_run_keys(tmp_path, new_run_keys())
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [KEY_FILE]


def test_ranks_that_race_share_the_first_creators_keys(tmp_path: Path) -> None:
    ours = new_run_keys()
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: keep_run_keys(tmp_path / "r", ours), range(64)))
    assert set(made) == {ours}
    assert os.listdir(tmp_path / "r") == [KEY_FILE]


def test_two_runs_have_different_keys() -> None:
    first, second = new_run_keys(), new_run_keys()
    assert first.public_key != second.public_key
    assert first.salt != second.salt


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_wide_permissions_are_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    keep_run_keys(tmp_path, new_run_keys())
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(InputError, match=rf"{mode:04o}.*chmod 600"):
        load_run_keys(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.key.*No such file"):
        load_run_keys(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    keep_run_keys(tmp_path / "a", new_run_keys())
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "a" / KEY_FILE)
    with pytest.raises(InputError):
        load_run_keys(tmp_path)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(ProvenanceError):
        load_run_keys(tmp_path)


def test_another_runs_key_is_refused(tmp_path: Path) -> None:
    keep_run_keys(tmp_path, new_run_keys())
    with pytest.raises(InputError, match="expected"):
        keep_run_keys(tmp_path, new_run_keys())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep the run's key"):
        keep_run_keys(tmp_path / "file" / "run", new_run_keys())


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", FormatError),
        (b"not json", FormatError),
        (b"[]", FormatError),
        (b'{"v": 2}', UnknownVersionError),
        (b'{"v": 1}', FormatError),
        (b'{"v": 1, "run": 3, "seed": "", "identity": null}', FormatError),
        (_file(seed="5ec2e7" * 5), FormatError),
        (_file(seed="5ec2e7zz"), FormatError),
        (_file(seed="5ec2e7" * 10 + "5ec2"), FormatError),  # of another run
        (_file(identity="00"), FormatError),
        (_file(identity=None, salt="00" * 32), FormatError),
    ],
)
def test_broken_files_are_refused_without_showing_them(
    tmp_path: Path, content: bytes, error: type[FormatError]
) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    (tmp_path / KEY_FILE).chmod(0o600)
    with pytest.raises(error) as caught:
        load_run_keys(tmp_path)
    assert "5ec2e7" not in str(caught.value)


def test_repr_shows_no_secret(tmp_path: Path) -> None:
    keys = keep_run_keys(tmp_path, new_run_keys())
    assert keys.seed.hex() not in repr(keys)
    assert "seed" not in repr(keys)
    assert "private" not in repr(keys)


def test_deleting_twice_is_no_error(tmp_path: Path) -> None:
    keep_run_keys(tmp_path, new_run_keys())
    delete_run_keys(tmp_path)
    delete_run_keys(tmp_path)
    assert not os.listdir(tmp_path)
