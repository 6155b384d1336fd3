"""The run's key file: one creator, mode 0600, clear refusals, no secret in any text."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provenance.capture.keys import KEY_FILE, create_run_keys, delete_run_keys, load_run_keys
from provenance.capture.run_id import new_run_id
from provenance.errors import FormatError, InputError, ProvenanceError, UnknownVersionError


def test_created_keys_are_read_again(tmp_path: Path) -> None:
    run = new_run_id()
    made = create_run_keys(tmp_path / "run", run)
    read = load_run_keys(tmp_path / "run")
    assert (read.run, read.public_key, read.salt) == (run, made.public_key, made.salt)
    assert len(made.public_key) == len(made.salt) == 32


def test_the_file_is_for_its_owner_only_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    create_run_keys(tmp_path, new_run_id())
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [KEY_FILE]


def test_ranks_that_race_share_the_first_creators_keys(tmp_path: Path) -> None:
    run = new_run_id()
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: create_run_keys(tmp_path / "r", run), range(64)))
    assert len({(keys.public_key, keys.salt) for keys in made}) == 1
    assert os.listdir(tmp_path / "r") == [KEY_FILE]


def test_two_runs_have_different_keys(tmp_path: Path) -> None:
    first = create_run_keys(tmp_path / "a", new_run_id())
    second = create_run_keys(tmp_path / "b", new_run_id())
    assert first.public_key != second.public_key
    assert first.salt != second.salt


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_wide_permissions_are_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    create_run_keys(tmp_path, new_run_id())
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(InputError, match=rf"{mode:04o}.*chmod 600"):
        load_run_keys(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.key.*No such file"):
        load_run_keys(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    create_run_keys(tmp_path / "a", new_run_id())
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "a" / KEY_FILE)
    with pytest.raises(InputError):
        load_run_keys(tmp_path)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(ProvenanceError):
        load_run_keys(tmp_path)


def test_another_runs_key_is_refused(tmp_path: Path) -> None:
    create_run_keys(tmp_path, new_run_id())
    with pytest.raises(InputError, match="expected"):
        create_run_keys(tmp_path, new_run_id())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep the run's key"):
        create_run_keys(tmp_path / "file" / "run", new_run_id())


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", FormatError),
        (b"not json", FormatError),
        (b"[]", FormatError),
        (b'{"v": 2}', UnknownVersionError),
        (b'{"v": 1}', FormatError),
        (b'{"v": 1, "run": 3, "ed25519": "", "salt": ""}', FormatError),
        (
            json.dumps(
                {"v": 1, "run": str(new_run_id()), "ed25519": "5ec2e7" * 5, "salt": "ab" * 32}
            ).encode(),
            FormatError,
        ),
        (
            json.dumps(
                {"v": 1, "run": str(new_run_id()), "ed25519": "5ec2e7zz", "salt": "ab" * 32}
            ).encode(),
            FormatError,
        ),
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
    keys = create_run_keys(tmp_path, new_run_id())
    assert keys.salt.hex() not in repr(keys)
    assert "salt" not in repr(keys)
    assert "private" not in repr(keys)


def test_deleting_twice_is_no_error(tmp_path: Path) -> None:
    create_run_keys(tmp_path, new_run_id())
    delete_run_keys(tmp_path)
    delete_run_keys(tmp_path)
    assert not os.listdir(tmp_path)
