"""A Redis that knows the users of ``deploy/redis-users.acl``."""

from __future__ import annotations

import re
import shutil
import subprocess

from tests.conftest import missing


def redis_7() -> str:
    """A redis-server on PATH that knows selectors and permissions to read or write alone."""
    program = shutil.which("redis-server")
    shown = "" if program is None else subprocess.check_output([program, "--version"], text=True)
    version = re.search(r"v=(\d+)", shown)
    if program is None or version is None or int(version.group(1)) < 7:
        missing("redis-server 7 or newer is not on PATH: apt install redis-server")
    assert program is not None
    return program
