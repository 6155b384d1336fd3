"""Network namespaces as hosts on one switch, each of which can be cut off.

A host's address is of 127.31.0.0/24, and yet its packets go over its wire (``route_localnet`` of
the kernel's ip-sysctl): plain HTTP to a node is allowed at loopback addresses alone. Hosts know
each other's link addresses for good, as those of a router are known: whoever speaks to a host that
is cut off gets no answer at all, neither a reset nor "no route to host".
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import missing

SWITCH = "switch"
"""The host that is never cut off, and that all others are connected to."""
_NOBODY = 255


class Lan:
    """Hosts by name. Close it, which kills what is left on them."""

    def __init__(self, *hosts: str) -> None:
        if shutil.which("ip") is None or os.geteuid() != 0:
            missing("network namespaces want root and ip (apt-get install iproute2)")
        self._numbers = {name: at for at, name in enumerate((SWITCH, *hosts), 1)}
        try:
            self._add(SWITCH)
            self._ip(SWITCH, f"link add eth0 address {_mac(1)} type bridge")
            self._connect(SWITCH)
            for host in hosts:
                self.boot(host)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for host in self._numbers:
            with suppress(AssertionError):
                for pid in ip("netns", "pids", self._name(host)).split():
                    os.kill(int(pid), signal.SIGKILL)
                ip("netns", "del", self._name(host))

    def address(self, host: str) -> str:
        return f"127.31.0.{self._numbers[host]}"

    @contextmanager
    def on(self, host: str) -> Iterator[None]:
        """The calling thread, and what it starts, is on a host."""
        place = Path("/run/netns") / self._name(host)
        with Path("/proc/thread-self/ns/net").open("rb") as before, place.open("rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    # --- faults -----------------------------------------------------------------------

    def boot(self, host: str) -> None:
        """A new host. One of this name, whose processes are dead, is no more: nothing tells its
        peers, and its successor knows none of its connections."""
        port = f"to-{self._numbers[host]}"
        with suppress(AssertionError):
            self._ip(SWITCH, f"link del {port}")
            ip("netns", "del", self._name(host))
        self._add(host)
        end = f"peer name eth0 address {_mac(self._numbers[host])} netns {self._name(host)}"
        self._ip(SWITCH, f"link add {port} type veth {end}", f"link set {port} up")
        self._connect(host)
        self.heal(host)

    def cut(self, host: str) -> None:
        """Nothing gets to the host or from it any more."""
        self._ip(SWITCH, f"link set to-{self._numbers[host]} nomaster")

    def mute(self, host: str) -> None:
        """What others send gets to the host; what it sends gets to nobody."""
        self._know(host, lost=True)

    def heal(self, host: str) -> None:
        self._ip(SWITCH, f"link set to-{self._numbers[host]} master eth0")
        self._know(host, lost=False)

    # --- inside -----------------------------------------------------------------------

    def _name(self, host: str) -> str:
        return f"prov-{os.getpid()}-{host}"

    def _add(self, host: str) -> None:
        ip("netns", "add", self._name(host))

    def _connect(self, host: str) -> None:
        """All of 127.0.0.0/8 but 127.0.0.1 is on the wire."""
        self._ip(host, "link set lo up", "route del local 127.0.0.0/8 dev lo table local")
        with self.on(host):
            Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
        self._ip(host, f"address add {self.address(host)}/24 dev eth0", "link set eth0 up")
        self._know(host, lost=False)

    def _know(self, host: str, *, lost: bool) -> None:
        peers = {name: number for name, number in self._numbers.items() if name != host}
        self._ip(
            host,
            *(
                f"neigh replace {self.address(name)} dev eth0 nud permanent "
                f"lladdr {_mac(_NOBODY if lost else number)}"
                for name, number in peers.items()
            ),
        )

    def _ip(self, host: str, *commands: str) -> None:
        ip("-n", self._name(host), "-batch", "-", stdin="\n".join(commands))


def ip(*words: str, stdin: str = "") -> str:
    """What ``ip`` (iproute2) says; where it is not allowed this is no place for the test."""
    done = subprocess.run(["ip", *words], input=stdin, capture_output=True, text=True, check=False)
    if "not permitted" in done.stderr:
        missing(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")
    assert done.returncode == 0, f"ip {' '.join(words)}: {stdin}: {done.stderr}"
    return done.stdout


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _enter(namespace: int) -> None:
    """setns(2), of this thread alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")
