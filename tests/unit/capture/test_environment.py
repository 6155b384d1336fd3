"""Facts about model, code and machine that go into records."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from provenance.capture import environment
from provenance.formats.record import normalise


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_environment_names_what_shapes_results() -> None:
    found = environment.environment()
    assert found["python"] == platform.python_version()
    assert found["machine"] == platform.machine()
    assert found["packages"]["numpy"] == metadata.version("numpy")  # type: ignore[index, call-overload]  # JSON, or known to be there
    assert "definitely-absent" not in found["packages"]  # type: ignore[operator]  # JSON, or known to be there
    assert normalise(found) == found


class Lazy(ModuleType):
    """A module that imports when it is asked."""

    def __getattr__(self, name: str) -> object:
        raise ImportError("libcuda.so.1")


def test_packages_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "torch":
            raise metadata.PackageNotFoundError(name)
        return "9.9"

    monkeypatch.setattr(metadata, "version", version)
    for name in environment._WHERE_USED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    used = ModuleType("xgboost")
    used.__version__ = "3.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xgboost", used)
    monkeypatch.setitem(sys.modules, "flax", Lazy("flax"))
    assert environment.environment()["packages"] == {"torch": "9.9", "xgboost": "3.2"}


def test_commit_and_whether_tracked_files_differ(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert environment.code_commit(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "untracked").write_text("x")
    assert environment.code_commit(tmp_path)["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert environment.code_commit(tmp_path) == {"commit": head, "dirty": True}


def test_a_changed_file_whose_name_is_not_utf_8_is_a_change(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "core.quotepath", "false")
    path = os.path.join(os.fsencode(tmp_path), b"d\xe4ten.txt")
    for text in ("1", "2"):
        with open(path, "w") as file:
            file.write(text)
        if text == "1":
            git(tmp_path, "add", "-A")
            git(tmp_path, "commit", "-q", "-m", "one")
    assert environment.code_commit(tmp_path)["dirty"] is True


def test_outside_a_checkout_and_without_git_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    nothing = {"commit": None, "dirty": None}
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert environment.code_commit(tmp_path) == {**nothing, "problem": "no git repository"}
    assert environment.code_commit(tmp_path / "gone") == {**nothing, "problem": "no such folder"}
    git(tmp_path, "init", "-q")
    told = {**nothing, "problem": "no commit in the git repository yet"}
    assert environment.code_commit(tmp_path) == told
    (tmp_path / ".git" / "config").write_text("[")
    told = {**nothing, "problem": "git ended with status 128"}
    assert environment.code_commit(tmp_path) == told
    monkeypatch.setenv("PATH", "")
    assert environment.code_commit(tmp_path) == {**nothing, "problem": "git is not installed"}


def test_another_users_checkout_tells_its_commit_and_not_whether_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose user does not own the checkout."""
    git(tmp_path, "init", "-q")
    assert environment.code_commit(tmp_path) == {
        "commit": None,
        "dirty": None,
        "problem": "no commit in the git repository yet",
    }
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert environment.code_commit(tmp_path) == {"commit": head, "dirty": None}


def test_another_git_command_is_not_kept_waiting(tmp_path: Path) -> None:
    """``git status`` writes the index, under a lock, where it may."""
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "one")
    os.utime(tmp_path / "a", (1, 1))  # the index is out of date
    before = (tmp_path / ".git/index").read_bytes()
    assert environment.code_commit(tmp_path)["dirty"] is False
    assert (tmp_path / ".git/index").read_bytes() == before
